//! After the run: what was stored is read back over HTTP and compared with what was sent; what was refused is looked for.

use super::faults::{Fault, FaultTally};
use super::plan::ReplayError;
use super::samples::Sample;
use super::source::{Images, Place};
use crate::client::{HttpClient, HttpClientError};
use crate::model::AcqId;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that read: one waits for the server while another compares.
const THREADS: usize = 4;
/// Tiles that are told one by one.
const TOLD_MAX: usize = 20;

/// What came of reading back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Tiles read back.
    pub checked: u64,
    /// Of these, equal byte for byte.
    pub equal: u64,
    /// Of these, different or not there.
    pub different: u64,
    /// The first of those, and what is wrong.
    pub told: Vec<String>,
}

/// Reads tiles back and compares them.
pub(super) fn read_back(http: &HttpClient, acq: AcqId, samples: &[Sample], images: &Images) -> Verified {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Verified::default()));
    let work = || {
        while let Some(sample) = samples.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compared = compare(http, acq, sample, images);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.note(sample, compared);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Verified {
    fn note(&mut self, sample: &Sample, compared: Result<(), String>) {
        self.checked += 1;
        let Err(problem) = compared else {
            self.equal += 1;
            return;
        };
        self.different += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("col {} row {}: {problem}", sample.col, sample.row));
        }
    }
}

fn compare(http: &HttpClient, acq: AcqId, sample: &Sample, images: &Images) -> Result<(), String> {
    let stored = http.content(acq, sample.col, sample.row).map_err(|error| error.to_string())?.bytes;
    let sent = images.get(sample.id).map_err(|error| error.to_string())?.bytes;
    match stored.iter().zip(&sent).position(|(stored, sent)| stored != sent) {
        Some(place) => Err(format!("differs from byte {place} on")),
        None if stored.len() != sent.len() => {
            Err(format!("{} bytes are stored, {} were sent", stored.len(), sent.len()))
        }
        None => Ok(()),
    }
}

/// Looks for tiles with a corrupt checksum: none may be there.
pub(super) fn look_for_corrupt(http: &HttpClient, acq: AcqId, places: &[Place], faults: &mut FaultTally) {
    for place in places {
        match http.tile(acq, place.col, place.row) {
            Err(HttpClientError::Refused { status: 404, .. }) => {}
            Err(error) => faults.withdraw(Fault::Corrupt, format!("{place:?}: {error}")),
            Ok(_) => faults.withdraw(Fault::Corrupt, format!("{place:?} was refused, but is stored")),
        }
    }
}

/// How many tiles and drift frames the server says it has.
pub(super) fn count_stored(http: &HttpClient, acq: AcqId) -> Result<u64, ReplayError> {
    let path = format!("/api/v1/acquisitions/{acq}");
    let answer = http.get_path(&path)?;
    let json: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let field = |name: &str| json[name].as_u64();
    field("tiles").zip(field("drift_frames")).map(|(tiles, drift)| tiles + drift).ok_or_else(|| {
        HttpClientError::Unexpected { url: path, problem: "it does not count tiles and drift_frames".to_owned() }.into()
    })
}
