//! The tokens of a running daemon, as the file has them. A thread looks at the file once a second, so that a revocation acts
//! without a restart; what it can not read changes nothing, is said in the log and shown by a metric.
//!
//! Must never forget its tokens because of a broken file, nor read a file while a request waits.

use super::token::TokenDigest;
use super::token_file::{Stamp, TokenEntry, TokenFile};
use super::{AccessError, TokenFileError};
use crate::telemetry::Metrics;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Time between looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Keyring {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    wake: Sender<()>,
}

struct Shared {
    file: TokenFile,
    entries: RwLock<Vec<TokenEntry>>,
    /// The state of the file that was last tried; `None`: it could not be looked at.
    seen: Mutex<Option<Stamp>>,
    metrics: Arc<Metrics>,
}

impl Keyring {
    /// Reads the tokens and starts the thread that looks after them.
    ///
    /// # Errors
    /// They can not be read.
    pub(super) fn open(path: PathBuf, metrics: &Arc<Metrics>) -> Result<Self, AccessError> {
        let file = TokenFile::at(path);
        // Looked at before it is read: a change in between is found later.
        let seen = Mutex::new(file.stamp().ok());
        let entries = file.read()?;
        tracing::info!(path = %file.path().display(), tokens = entries.len(), "tokens read");
        let shared = Shared { file, entries: RwLock::new(entries), seen, metrics: Arc::clone(metrics) };
        let shared = Arc::new(shared);
        let (wake, woken) = bounded(1);
        let looking = Arc::clone(&shared);
        let look = move || {
            loop {
                match woken.recv_timeout(LOOK_EVERY) {
                    Ok(()) => looking.read_again(),
                    Err(RecvTimeoutError::Timeout) => looking.look(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("tokens".into()).spawn(look).map_err(AccessError::Thread)?;
        Ok(Self { shared, wake })
    }

    /// The token with this text. All are compared, so that the time tells nothing.
    pub(super) fn find(&self, text: &str) -> Option<TokenEntry> {
        let digest = TokenDigest::of(text);
        let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .fold(None, |found, entry| if entry.digest.matches(&digest) { Some(entry) } else { found })
            .cloned()
    }

    /// Has the file read again, changed or not.
    pub(super) fn reload(&self) {
        // Full: it is about to be read anyway.
        let _ = self.wake.try_send(());
    }
}

impl Shared {
    fn look(&self) {
        let stamp = self.file.stamp().ok();
        if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != stamp {
            self.read_again();
        }
    }

    fn read_again(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.file.stamp().ok();
        let read = self.file.read();
        let has_failed = read.is_err();
        match read {
            Ok(entries) => {
                tracing::info!(path = %self.file.path().display(), tokens = entries.len(), "tokens read again");
                *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
            }
            Err(error) => self.complain(&error),
        }
        self.metrics.tokens_reload_failed.set(has_failed.into());
    }

    fn complain(&self, error: &TokenFileError) {
        tracing::error!(%error, "tokens can not be read again: THE OLD ONES STAY VALID, revoked ones too; mend the file");
    }
}
