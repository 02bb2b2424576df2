//! Freeing the space of deleted acquisitions: which records of a data directory are dead, and what is done about them.
//!
//! The journal moves and removes; here is decided what. Dead is what a deletion with a higher sequence names, nothing
//! else: replaced versions of tiles are still readable and stay. Must never run beside a daemon.

use crate::audit::{rebuild_opened, remove_index};
use crate::catalog::{CatalogError, JournalFacts, open_journal};
use crate::index::{FactSource, StoreError};
use crate::journal::{
    CompactOptions, CompactReport, DirectoryLock, Filesystem, Journal, JournalOptions, RealFilesystem, StoredRecord,
    compact_segments,
};
use crate::model::{AcqId, FactBody, Sequence};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// How a directory is compacted.
#[derive(Clone, Copy, Debug)]
pub struct CompactSettings {
    /// A segment is rewritten from this share of dead bytes on, 0 to 1.
    pub min_dead_share: f64,
    /// Free space of the file system that copies leave alone, bytes.
    pub reserve_bytes: u64,
    /// Only say what would be freed.
    pub dry_run: bool,
}

/// What was found dead, and what was done about it.
#[derive(Debug, Default, Serialize)]
pub struct Compacted {
    /// Acquisitions that were deleted.
    pub deleted_acquisitions: usize,
    /// Dead records.
    pub dead_records: u64,
    /// Bytes of their payloads.
    pub dead_bytes: u64,
    /// What the journal did; `None` when nothing was dead, or with a dry run.
    pub journal: Option<CompactReport>,
}

/// Which records are dead.
#[derive(Default)]
struct Deaths {
    /// The last deletion of each acquisition.
    deleted: HashMap<AcqId, Sequence>,
    /// Control records that are dead.
    control: HashSet<Sequence>,
    /// The first tile id that no deletion vouches for.
    next_tile: u64,
}

impl Deaths {
    /// Goes through all facts.
    fn find(journal: &Journal) -> Result<Self, StoreError> {
        let facts = JournalFacts(journal);
        let mut deaths = Self::default();
        for fact in facts.facts_after(Sequence(0)) {
            let fact = fact?;
            if let FactBody::AcquisitionDeleted(deleted) = fact.body {
                deaths.next_tile = deaths.next_tile.max(deleted.next_tile);
                // An earlier deletion says nothing that this one does not.
                deaths.control.extend(deaths.deleted.insert(deleted.acq, fact.sequence));
            }
        }
        if deaths.deleted.is_empty() {
            return Ok(deaths);
        }
        for fact in facts.facts_after(Sequence(0)) {
            let fact = fact?;
            let is_dead = |acq: AcqId| deaths.deleted.get(&acq).is_some_and(|deletion| fact.sequence < *deletion);
            let dead = match &fact.body {
                FactBody::AcquisitionStarted(started) => is_dead(started.acq),
                FactBody::AcquisitionEnded(ended) => is_dead(ended.acq),
                FactBody::RoisCreated(created) => is_dead(created.acq),
                FactBody::FileStored(file) => is_dead(file.acq),
                FactBody::ManifestMade(made) => is_dead(made.acq),
                FactBody::TilesJudged(judged) => is_dead(judged.acq),
                FactBody::StatesChanged(changed) => changed.tiles.iter().all(|part| is_dead(part.acq)),
                // Tiles are told by their headers; what all acquisitions share is never dead, nor what is not known.
                FactBody::TileStored(_)
                | FactBody::AcquisitionDeleted(_)
                | FactBody::CalibrationsImported(_)
                | FactBody::TemcaConfigured(_)
                | FactBody::NumbersGiven(_)
                | FactBody::Unknown { .. }
                | FactBody::Unread => false,
            };
            if dead {
                deaths.control.insert(fact.sequence);
            }
        }
        Ok(deaths)
    }

    fn is_live(&self, record: &StoredRecord) -> bool {
        let header = &record.header;
        match &header.tile {
            Some(tile) => self.deleted.get(&tile.key.acq).is_none_or(|deletion| header.sequence > *deletion),
            None => !self.control.contains(&header.sequence),
        }
    }
}

/// Frees the space of deleted acquisitions, then builds the index anew: its locations do not hold any more.
///
/// # Errors
/// A daemon runs on the directory; it can not be read or written. What was done until then is done.
pub fn compact(
    data: &Path,
    settings: &CompactSettings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Compacted, CatalogError> {
    let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
    let (lock, journal, _) = open_journal(data, Arc::clone(&filesystem), JournalOptions::default())?;
    if settings.dry_run {
        return compact_journal(data, journal, &filesystem, settings, progress);
    }
    // It knows of more records than there will be: a start behind a compaction that was cut off must not miss them.
    remove_index(data, &journal)?;
    let compacted = compact_journal(data, journal, &filesystem, settings, progress);
    reopen(data, &lock, filesystem)?;
    compacted
}

/// As [`compact`], for a journal that was opened for this, and without its index: that does not hold afterwards unless
/// the report says that nothing was done.
///
/// # Errors
/// As [`compact`]. What was done until then is done.
pub fn compact_journal(
    data: &Path,
    journal: Journal,
    filesystem: &Arc<dyn Filesystem>,
    settings: &CompactSettings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Compacted, CatalogError> {
    let deaths = Deaths::find(&journal)?;
    let mut compacted = Compacted { deleted_acquisitions: deaths.deleted.len(), ..Compacted::default() };
    for record in journal.records_after(Sequence(0)) {
        let record = record.map_err(|error| StoreError::Facts(error.to_string()))?;
        if !deaths.is_live(&record) {
            compacted.dead_records += 1;
            compacted.dead_bytes += u64::from(record.header.payload_len);
        }
    }
    journal.close();
    drop(journal);
    if settings.dry_run || compacted.dead_records == 0 {
        return Ok(compacted);
    }
    let options = CompactOptions {
        min_dead_share: settings.min_dead_share,
        reserve_bytes: settings.reserve_bytes,
        tile_floor: deaths.next_tile.saturating_sub(1),
        sequence_floor: 0,
    };
    let report = compact_segments(data, filesystem, &options, &mut |record| deaths.is_live(record), progress);
    compacted.journal = Some(report?);
    Ok(compacted)
}

/// Builds the index from what the journal is now; also when compacting has failed half way.
fn reopen(data: &Path, _lock: &DirectoryLock, filesystem: Arc<dyn Filesystem>) -> Result<(), CatalogError> {
    let (journal, _) = Journal::open(data, filesystem, JournalOptions::default())?;
    rebuild_opened(data, &Arc::new(journal)).map(drop)
}
