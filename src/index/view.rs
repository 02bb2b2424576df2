//! `apply`: the one function that says what a fact changes. Live traffic, catching up and a rebuild all go through it.

use crate::model::{AcqId, AcquisitionFacts, Fact, FactBody, TileEntry, TileVersion};
use serde::{Deserialize, Serialize};

/// Something that facts can be applied to.
pub trait View {
    /// The tile now has this version.
    fn put_tile(&mut self, entry: &TileEntry);

    /// Changes an acquisition; makes it if it was not there.
    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView));
}

/// What is known of an acquisition.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AcquisitionView {
    /// How it was started; `None` while only its tiles are known.
    pub started: Option<StartedView>,
    /// Sums over its tiles.
    pub counters: Counters,
}

/// The start and end of an acquisition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartedView {
    /// When it was last started, ns since 1970 UTC.
    pub started_ns: i64,
    /// When it was ended, if it was and has not been started again since.
    pub ended_ns: Option<i64>,
    /// Base name of its log file.
    pub log_name: String,
    /// What the log says.
    pub facts: AcquisitionFacts,
    /// The log itself.
    pub log_text: String,
}

/// Sums over an acquisition's tiles. Adding in another order gives the same sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Stable tiles.
    pub tiles: u64,
    /// Drift frames.
    pub drift_frames: u64,
    /// Versions that replaced an earlier content.
    pub replaced: u64,
    /// Bytes of all images, all versions.
    pub image_bytes: u64,
    /// When the last tile arrived, ns since 1970 UTC.
    pub last_received_ns: i64,
}

impl Counters {
    fn add(&mut self, entry: &TileEntry) {
        if entry.version != TileVersion::FIRST {
            self.replaced += 1;
        } else if entry.key.frame.is_stable() {
            self.tiles += 1;
        } else {
            self.drift_frames += 1;
        }
        self.image_bytes += u64::from(entry.image.len);
        self.last_received_ns = self.last_received_ns.max(entry.received_ns);
    }
}

/// Applies one fact.
pub fn apply(fact: &Fact, view: &mut dyn View) {
    match &fact.body {
        FactBody::TileStored(entry) => {
            view.put_tile(entry);
            view.update_acquisition(entry.key.acq, &mut |acquisition| acquisition.counters.add(entry));
        }
        FactBody::AcquisitionStarted(started) => view.update_acquisition(started.acq, &mut |acquisition| {
            acquisition.started = Some(StartedView {
                started_ns: fact.at_ns,
                ended_ns: None,
                log_name: started.log_name.clone(),
                facts: started.facts.clone(),
                log_text: started.log_text.clone(),
            });
        }),
        FactBody::AcquisitionEnded(ended) => view.update_acquisition(ended.acq, &mut |acquisition| {
            if let Some(started) = &mut acquisition.started {
                started.ended_ns = Some(fact.at_ns);
            }
        }),
        FactBody::Unknown { .. } => {}
    }
}
