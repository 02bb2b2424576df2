//! The journal: append-only segment files that hold every stored tile and every other fact.
//!
//! Owns the bytes on disk, their format, their recovery. It is the truth (invariant 2): nothing that it
//! acknowledged as synced is ever changed, and nothing is removed but what a caller of the compaction says is dead. It
//! knows records, not what their facts mean.
//!
//! Budget per group commit, however many tiles it holds: one vectored write for each run of records in one
//! segment, one `fdatasync`. No copy of a payload. Segments are made and sealed by the keeper's thread, off the path.

mod backup;
mod compaction;
mod filesystem;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keeper;
mod known;
mod mirror;
mod newer;
mod read_only;
mod reader;
mod recovery;
mod removed;
mod repair;
mod scrub;
mod store;
mod swap;
mod unreadable;
mod verify;
mod writer;

pub use backup::{BackupError, BackupReport, back_up};
pub use compaction::{CompactOptions, CompactReport, LeftAlone, compact_segments};
pub use filesystem::{DirectoryLock, Filesystem, RealFilesystem, SegmentFile, is_writable, write_fully};
pub use format::{
    CONTROL_LANE, FORMAT_MAJOR, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, SegmentHeader,
    StoreId, TRAILER_BYTES, TileStamp, Trailer, parse_segment_file_name, segment_file_name,
};
pub use mirror::{Mirror, MirrorOptions, MirrorPhase, MirrorStatus, MirroredFilesystem, WhenLost, mirror_problem};
pub use read_only::{ReadOnlyJournal, ReadOnlyRecords};
pub use reader::{ReadError, StoredRecord};
pub use recovery::{Damage, DamageKind, RecoveryReport};
pub use repair::{CopyState, RecordCopies};
pub use scrub::{BadRecord, Pace, ScrubbedSegment};
pub use store::{Journal, JournalOptions, JournalStatus, UNSEEN_MAX};
pub use verify::{VerifyProblem, VerifyReport, verify_segments};
pub use writer::{LaneWriter, RecordDraft};

use std::path::PathBuf;

/// What can go wrong in the journal, by what the caller does about it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room for a new segment: refuse with "no space", go on.
    #[error(
        "no space for a new segment in {dir}: {free_bytes} bytes free, {reserve_bytes} kept in reserve; free some space, capture resumes by itself"
    )]
    NoSpace {
        /// The journal's directory.
        dir: PathBuf,
        /// Free bytes of its file system.
        free_bytes: u64,
        /// The configured reserve.
        reserve_bytes: u64,
    },
    /// Writing or syncing failed: the segment is poisoned (invariant 9), stop.
    #[error("{path}: {action} failed: {source}; the segment is not written to again, see deploy/README.md")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The directory or a file in it can not be used as it is: the operator must act.
    #[error("{path}: {problem}")]
    Unusable {
        /// File or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// True for the errors that end when space is freed.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl JournalError {
    fn failed(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Failed { path, action, source }
    }
}
