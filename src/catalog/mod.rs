//! The catalog: the domain's commands and queries over journal and index.
//!
//! Capture and everything else meet here and nowhere else. Owns the lanes (tiles), the control writer (all other
//! facts), and the way a stored record becomes a fact. Must never acknowledge what the journal has not synced
//! (invariant 1, at ack level `durable`).

mod activity;
mod check;
mod commands;
mod completeness;
mod content;
mod control;
mod crc;
mod damage;
mod endings;
mod facts;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gauges;
mod index_job;
mod lane;
mod live_limits;
mod manifest;
mod mosaic;
mod place;
mod pressure;
mod roi_limits;
mod scrub;
mod scrub_control;
mod sections;
mod states;
mod stored;
mod switch;
mod upload;
mod verify;

pub use activity::{
    Activity, Changed, Connected, DiskFigures, LocalActivity, Rates, RefusedTile, SUBSCRIBERS_MAX, Sample, Sampler,
    SenderCounts, SenderPort, SenderView, Subscription,
};
pub use check::{ContentCheck, KnownContent};
pub use commands::{Catalog, CatalogError, CatalogOptions, NewFile, OpenedCatalog};
pub(crate) use commands::{lock_directory, open_journal};
pub use completeness::{Completeness, ExpectedBy, MissingPage, MissingRun, Tally3};
pub use content::{ContentError, TileContent};
pub use damage::{DamageLog, DamagedTile, Finding, FoundBy, ReportedDamage};
pub use endings::{Ending, Endings};
pub use facts::{JournalFacts, decode_file, fact_of_record, tile_entry};
pub use frame::{FrameBuffer, ReceivedFrame};
pub use index_job::{IndexJob, IndexJobKind, IndexJobOutcome, IndexJobs};
pub use lane::{Ack, AckSink, AckToken, ConflictPolicy, HotTiles, LaneOptions, LaneTile, Lanes, Outcome, Route};
pub use live_limits::{Configured, Limit, LiveLimits};
pub use manifest::{
    MakeManifestError, ManifestError, ManifestPlace, ManifestReader, ManifestSummary, ManifestTile, ManifestWriter,
    file_name, manifest_line, manifest_place, parse_manifest, sort_for_manifest,
};
pub use mosaic::{CellMark, Mosaic, MosaicError, MosaicFilter, PLACES_MAX, Progress};
pub use place::{PlaceEvent, PlaceLife, PlaceRefusal, PlaceRoi, PlaceVerdict};
pub use pressure::Pressures;
pub use scrub::{Scrub, ScrubOptions, ScrubRate};
pub use scrub_control::{ScrubControl, ScrubPhase};
pub use states::{AcquisitionFilter, FrameType, NextResult, NextTiles};
pub use stored::{OfflineAcquisition, OfflineTiles};
pub use switch::{CaptureState, CaptureSwitch};
pub use upload::ImageUpload;
pub use verify::{HashBatch, PendingTile, ReadKey, Verdict, VerifiedTile, VerifyPolicy, verify};
