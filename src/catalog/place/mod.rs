//! The life of a place: everything that the journal says of one column, row and frame of an acquisition, in its order, and
//! what follows from it: why its tile is there, or why not.
//!
//! Facts come from a running daemon's journal or from one that nobody works on; refusals from the running daemon's memory,
//! for the journal has none. Holds what concerns the one place only. Must never change anything.

mod story;

use super::Catalog;
use super::commands::CatalogError;
use super::stored::OfflineAcquisition;
use crate::index::{AcquisitionView, Membership};
use crate::journal::{Filesystem, ReadOnlyJournal, RecordKind};
use crate::model::{Roi, Sequence, TileEntry, TileKey};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use story::Story;

/// Most events that are told of a place.
const EVENTS_MAX: usize = 10_000;
/// Kinds of records that can say something of a place. Not files: they are large.
const KINDS: [RecordKind; 7] = [
    RecordKind::TILE,
    RecordKind::ACQUISITION_STARTED,
    RecordKind::ACQUISITION_ENDED,
    RecordKind::ROIS_CREATED,
    RecordKind::STATES_CHANGED,
    RecordKind::TILES_JUDGED,
    RecordKind::ACQUISITION_DELETED,
];

/// What a place came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceVerdict {
    /// Its tile is there.
    Stored,
    /// Its tile was stored, and the stored bytes do not hold.
    Damaged,
    /// A tile was refused, and none has come.
    Refused,
    /// Expected, and never seen.
    Missing,
    /// Neither expected nor seen.
    NotExpected,
    /// Not in the grid that the log announces, and never seen.
    OutsideGrid,
    /// The acquisition was deleted, and its tiles with it.
    Deleted,
    /// The acquisition was never started.
    UnknownAcquisition,
}

/// Something that happened to a place. Which fields there are depends on `event`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlaceEvent {
    /// RFC 3339 UTC.
    pub at: String,
    /// The record's place in the journal's order.
    pub sequence: u64,
    /// started, ended, deleted (the acquisition); expected (by a ROI); stored, judged (its image), state (the tile).
    pub event: &'static str,
    /// The tile's identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile: Option<u64>,
    /// Version of the content, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Camera index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<i32>,
    /// Bytes of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// The sender's checksum, or none: algorithm and hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// CRC-32 of the image, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// Who sent it: address and port. Absent where the record does not say, as those of format version 1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The segment, hex, as in its file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Offset of the record in it, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The stored bytes do not hold, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<bool>,
    /// What is wrong with the image, by its pixels; nothing: it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_flags: Option<Vec<&'static str>>,
    /// The ROI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roi: Option<String>,
    /// Its nominal section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<i64>,
    /// The new state of the tile in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When the tile returns to its earlier state, RFC 3339 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lent_until: Option<String>,
}

/// A ROI that the place lies in, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceRoi {
    /// Its identifier in the ROI specification.
    pub roi: String,
    /// Nominal section.
    pub section: i64,
    /// The tile's state in it.
    pub state: String,
}

/// A tile for the place that was refused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceRefusal {
    /// RFC 3339 UTC.
    pub at: String,
    /// As in the metric of refusals.
    pub reason: String,
    /// Who sent it; absent when it was gone before the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// The life of a place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlaceLife {
    /// The acquisition.
    pub acquisition: u64,
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// -1: the stable tile.
    pub frame: i32,
    /// What it came to.
    pub verdict: PlaceVerdict,
    /// The same, in a sentence.
    pub because: String,
    /// open, ended, deleted or unknown.
    pub acquisition_state: &'static str,
    /// Columns of the mosaic that the log announces; 0: it does not say.
    pub cols: u32,
    /// Rows of it.
    pub rows: u32,
    /// ROIs that it lies in.
    pub rois: Vec<PlaceRoi>,
    /// What the journal says, in its order.
    pub events: Vec<PlaceEvent>,
    /// Refusals that the running daemon remembers.
    pub refusals: Vec<PlaceRefusal>,
    /// What could not be read: an event may be missing for it.
    pub problems: Vec<String>,
}

impl Catalog {
    /// The life of a place. Reads the tables of all segments behind the start of the acquisition: takes its time.
    ///
    /// # Errors
    /// Journal or index can not be read.
    pub fn place_life(&self, key: &TileKey) -> Result<PlaceLife, CatalogError> {
        let view = self.acquisition(key.acq);
        let current = self.tile_by_key(key)?;
        let journal = self.journal();
        let mut story = Story::new(*key, view.clone());
        let records = journal.records_so_far(begin_of(view.as_ref(), current.as_ref()));
        for record in records {
            let record = record.map_err(|error| CatalogError::Storage(error.to_string()))?;
            story.hear(&record, &mut || journal.read_control(record.location()));
        }
        let places = self.index().memberships(&[*key]).pop().unwrap_or_default();
        story.rois = places.iter().map(PlaceRoi::of).collect();
        story.mark_damage(|entry| self.damage().has(entry));
        let refusals = self.activity().refusals_of(key.acq, key.col, key.row).into_iter();
        let refusals = refusals.filter(|refused| refused.key.frame == key.frame).map(|refused| PlaceRefusal {
            at: time(refused.at_ns),
            reason: refused.why.name().to_owned(),
            peer: refused.peer.map(|peer| peer.to_string()),
        });
        Ok(story.end(current.as_ref(), refusals.collect()))
    }
}

impl PlaceLife {
    /// The life of a place as a data directory tells it, without a daemon. Each stored version is read and checked.
    ///
    /// # Errors
    /// The journal can not be read.
    pub fn read(data: &Path, filesystem: &Arc<dyn Filesystem>, key: &TileKey) -> Result<Self, CatalogError> {
        let acquisition = match OfflineAcquisition::read(data, filesystem, key.acq) {
            Err(CatalogError::UnknownAcquisition(_)) => None,
            read => Some(read?),
        };
        let journal = ReadOnlyJournal::open(data, Arc::clone(filesystem))?;
        let mut story = Story::new(*key, acquisition.as_ref().map(|acquisition| acquisition.view().clone()));
        for record in journal.records() {
            let record = record.map_err(|error| CatalogError::Storage(error.to_string()))?;
            story.hear(&record, &mut || journal.payload(record.location()));
        }
        if let Some(acquisition) = &acquisition {
            story.rois =
                acquisition.memberships_at(key).into_iter().map(|(roi, state)| PlaceRoi::new(roi, &state)).collect();
            story.problems.extend_from_slice(acquisition.problems());
        }
        let current = acquisition.as_ref().and_then(|acquisition| acquisition.tile_at(key).copied());
        story.mark_damage(|entry| journal.payload(entry.location).is_err());
        Ok(story.end(current.as_ref(), Vec::new()))
    }
}

impl PlaceRoi {
    fn new(roi: &Roi, state: &str) -> Self {
        Self { roi: roi.name.clone(), section: roi.section, state: state.to_owned() }
    }

    fn of(place: &Membership) -> Self {
        Self::new(&place.roi, &place.state)
    }
}

/// The first record that can say something of the acquisition's places.
fn begin_of(view: Option<&AcquisitionView>, current: Option<&TileEntry>) -> Sequence {
    let head = view.map(|view| &view.head);
    let started = head.and_then(|head| head.started.as_ref().filter(|_| head.deleted_before == Sequence(0)));
    match (started, current) {
        (Some(started), Some(tile)) => Sequence(started.first.min(tile.sequence).0.saturating_sub(1)),
        (Some(started), None) => Sequence(started.first.0.saturating_sub(1)),
        (None, _) => Sequence(0),
    }
}

/// RFC 3339, UTC.
fn time(unix_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default().to_string()
}
