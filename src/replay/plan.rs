//! What is to be replayed, and why it could not be.

use super::faults::FaultPart;
use super::profile::Profile;
use super::rate::Rate;
use super::source::{SourceChoice, SourceError};
use crate::client::{HttpClientError, PipelinedError};
use crate::model::AcqId;
use crate::tls::ClientTls;
use std::net::SocketAddr;
use std::time::Duration;

/// What is to be replayed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The capture port.
    pub capture: SocketAddr,
    /// The HTTP port's URL.
    pub http: String,
    /// How both are spoken to; `None`: not encrypted.
    pub tls: Option<ClientTls>,
    /// Who sends what and when.
    pub profile: Profile,
    /// How fast, where not as the profile says.
    pub rate: Option<Rate>,
    /// Where tiles come from.
    pub source: SourceChoice,
    /// How long tiles are due.
    pub duration: Duration,
    /// How long tiles that were due are still sent afterwards.
    pub drain: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Longest wait for a server that is gone.
    pub patience: Duration,
    /// Number of the acquisition; a free one when absent.
    pub acq: Option<AcqId>,
    /// Leave the acquisition.
    pub keep: bool,
    /// Threads that send; as fits the machine when absent.
    pub threads: Option<usize>,
    /// Memory for tiles of a folder or a journal, bytes.
    pub memory: u64,
    /// What is read back.
    pub verify: Verify,
    /// What is done wrong on purpose.
    pub faults: Vec<FaultPart>,
    /// Another seed, other random numbers.
    pub seed: u64,
}

impl Plan {
    /// A replay of a profile with everything else as usual.
    #[must_use]
    pub fn new(capture: SocketAddr, http: &str, profile: Profile, duration: Duration) -> Self {
        Self {
            capture,
            http: http.to_owned(),
            tls: None,
            profile,
            rate: None,
            source: SourceChoice::Synthetic,
            duration,
            drain: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            patience: Duration::from_secs(5),
            acq: None,
            keep: false,
            threads: None,
            memory: 512 << 20,
            verify: Verify::Nothing,
            faults: Vec::new(),
            seed: 1,
        }
    }
}

/// What is read back and compared after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing.
    Nothing,
    /// So many tiles, chosen at random.
    Sample(usize),
    /// Every tile; 20 bytes of memory each.
    All,
}

/// Why nothing was replayed. What happens later is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Something was asked for that can not be.
    #[error("{0}")]
    Usage(String),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpClientError),
    /// The capture port.
    #[error("{0}; is the daemon running, and is this its capture port?")]
    Capture(#[from] PipelinedError),
    /// A thread can not be started.
    #[error("can not start a thread: {0}")]
    Thread(#[from] std::io::Error),
}
