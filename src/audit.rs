//! Looking at a data directory from outside: verify it, rebuild its index. No daemon needed, none disturbed.

use crate::catalog::{CatalogError, JournalFacts, fact_of_record, lock_directory, open_journal, tile_entry};
use crate::index::{
    Checkpoint, Index, IndexOptions, OpenReport, SledStore, StoreError, count_tiles, keep_what_is_known,
    read_checkpoint, read_tile, read_tile_id,
};
use crate::journal::{
    Journal, JournalError, JournalOptions, ReadOnlyJournal, RealFilesystem, RecordKind, VerifyReport, mirror_problem,
    verify_segments,
};
use crate::model::{AcqId, Fact, FactBody, Sequence, Tally, TileEntry, TileKey};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most differences of the index that are listed.
const DIFFERENCES_MAX: usize = 100;

/// What an audit found.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// The journal.
    pub journal: VerifyReport,
    /// The index.
    pub index: IndexAudit,
    /// The mirror, when one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorAudit>,
}

/// What an audit of a mirror found.
#[derive(Debug, Serialize)]
pub struct MirrorAudit {
    /// Its journal.
    pub journal: VerifyReport,
    /// How the two sides differ.
    pub differences: Vec<String>,
}

/// Whether the index is what the journal says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexAudit {
    /// It is.
    Agrees {
        /// Tile records compared.
        tiles: u64,
        /// Tile records that it has not folded in yet: the next start does.
        behind: u64,
    },
    /// It is not.
    Differs {
        /// How, at most 100 lines.
        problems: Vec<String>,
    },
    /// It was not compared.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl IndexAudit {
    fn skipped(reason: &str) -> Self {
        Self::Skipped { reason: reason.to_owned() }
    }
}

impl Audit {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let mirror = self.mirror.as_ref();
        let mirror = mirror.is_none_or(|mirror| mirror.journal.problems.is_empty() && mirror.differences.is_empty());
        self.journal.problems.is_empty() && !matches!(self.index, IndexAudit::Differs { .. }) && mirror
    }
}

/// Re-reads every record against its checksums, and the index against the records.
///
/// Beside a running daemon only the journal is read: the index is the daemon's. Records behind the index' checkpoint
/// are no difference: the next start folds them in.
///
/// # Errors
/// The directory can not be read.
pub fn audit(data: &Path) -> Result<Audit, JournalError> {
    audit_sides(data, None)
}

/// As [`audit`], and the mirror's records against their checksums and, where no daemon runs, against the data
/// directory's.
///
/// # Errors
/// A directory can not be read.
pub fn audit_sides(data: &Path, mirror: Option<&Path>) -> Result<Audit, JournalError> {
    let lock = lock_directory(data, &RealFilesystem);
    let index = match &lock {
        Ok(_) => open_index(&data.join("index")),
        Err(CatalogError::Locked { .. }) => Err(IndexAudit::skipped("a daemon runs on this directory")),
        Err(error) => Err(IndexAudit::skipped(&error.to_string())),
    };
    let folded = index.as_ref().map_or(Sequence(0), |(_, checkpoint)| checkpoint.applied);
    let (mut expected, mut deletions) = (Expected::default(), Vec::new());
    let mut tally = Tally::default();
    let journal = verify_segments(data, &RealFilesystem, &mut |record| {
        tally.add(record.header.digest());
        match tile_entry(&record.header, record.location()) {
            Some(entry) if entry.sequence <= folded => expected.add(entry),
            Some(_) => expected.behind += 1,
            None if record.header.kind == RecordKind::ACQUISITION_DELETED && record.header.sequence <= folded => {
                deletions.push(*record);
            }
            None => {}
        }
    })?;
    if !deletions.is_empty() {
        let readable = ReadOnlyJournal::open(data, Arc::new(RealFilesystem))?;
        for record in deletions {
            let fact = fact_of_record(&record, &mut || readable.payload(record.location()));
            if let Ok(Fact { body: FactBody::AcquisitionDeleted(deleted), sequence, .. }) = fact {
                expected.delete(deleted.acq, sequence);
            }
        }
    }
    let index = index.map_or_else(|skipped| skipped, |(store, _)| expected.compare(&store));
    let quiet = lock.is_ok();
    let mirror = mirror.map(|mirror| audit_mirror(data, mirror, quiet.then_some(tally))).transpose()?;
    Ok(Audit { journal, index, mirror })
}

/// `tally` is of the data directory's records, when nothing changes them meanwhile.
fn audit_mirror(data: &Path, mirror: &Path, tally: Option<Tally>) -> Result<MirrorAudit, JournalError> {
    let mut differences: Vec<String> = mirror_problem(&RealFilesystem, data, mirror)?.into_iter().collect();
    let mut theirs = Tally::default();
    let journal = verify_segments(mirror, &RealFilesystem, &mut |record| theirs.add(record.header.digest()))?;
    if differences.is_empty() && tally.is_some_and(|ours| ours != theirs) {
        differences.push("the two sides do not hold the same records: the next start makes them equal".to_owned());
    }
    Ok(MirrorAudit { journal, differences })
}

fn open_index(index: &Path) -> Result<(SledStore, Checkpoint), IndexAudit> {
    let path =
        newest_generation(index).ok_or_else(|| IndexAudit::skipped("there is none; the next start builds it"))?;
    let opened = SledStore::open(&path, IndexOptions::default().cache_bytes);
    let opened = opened.and_then(|store| read_checkpoint(&store).map(|checkpoint| (store, checkpoint)));
    // Usual for sled behind a kill, and no loss: only what can be read can differ.
    opened.map_err(|error| IndexAudit::skipped(&format!("{error}; the next start rebuilds it")))
}

/// What the index should hold, by the journal.
#[derive(Default)]
struct Expected {
    current: HashMap<TileKey, TileEntry>,
    tiles: u64,
    /// Tile records that the index has not folded in yet.
    behind: u64,
}

impl Expected {
    fn add(&mut self, entry: TileEntry) {
        self.tiles += 1;
        let newest = self.current.entry(entry.key).or_insert(entry);
        if newest.sequence < entry.sequence {
            *newest = entry;
        }
    }

    /// The index holds nothing of an acquisition that is older than its deletion.
    fn delete(&mut self, acq: AcqId, deletion: Sequence) {
        self.current.retain(|key, entry| key.acq != acq || entry.sequence > deletion);
    }

    fn compare(&self, store: &SledStore) -> IndexAudit {
        match self.differences(store) {
            Ok(problems) if problems.is_empty() => IndexAudit::Agrees { tiles: self.tiles, behind: self.behind },
            Ok(problems) => IndexAudit::Differs { problems },
            Err(error) => IndexAudit::Differs { problems: vec![error.to_string()] },
        }
    }

    fn differences(&self, store: &SledStore) -> Result<Vec<String>, StoreError> {
        let mut problems = Vec::new();
        for (key, entry) in &self.current {
            let id = read_tile_id(store, key)?;
            let stored = id.map(|id| read_tile(store, id)).transpose()?.flatten();
            if stored.as_ref() != Some(entry) && problems.len() < DIFFERENCES_MAX {
                problems.push(format!("{key}: not as the journal has it"));
            }
        }
        let counted = count_tiles(store)?;
        if counted != self.current.len() as u64 {
            problems.push(format!("{counted} tiles, the journal has {}", self.current.len()));
        }
        Ok(problems)
    }
}

fn newest_generation(index: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(index).ok()?.flatten();
    let is_generation =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gen-"));
    entries.map(|entry| entry.path()).filter(is_generation).max()
}

/// Removes the index and builds it from the journal.
///
/// # Errors
/// A daemon runs on the directory; it can not be read or written.
pub fn rebuild(data: &Path) -> Result<OpenReport, CatalogError> {
    let (_lock, journal, _) = open_journal(data, Arc::new(RealFilesystem), JournalOptions::default())?;
    rebuild_opened(data, &Arc::new(journal))
}

/// As [`rebuild`], from a journal that is open; the caller holds the directory's lock.
pub(crate) fn rebuild_opened(data: &Path, journal: &Arc<Journal>) -> Result<OpenReport, CatalogError> {
    remove_index(data, journal)?;
    let dir = data.join("index");
    let safe = {
        let journal = Arc::clone(journal);
        Box::new(move || journal.safe_sequence())
    };
    let (index, report) = Index::open(&dir, &JournalFacts(journal), safe, &IndexOptions::default())?;
    index.close();
    Ok(report)
}

/// Removes the index: the next start builds it. The caller holds the directory's lock. What it knows of records that are
/// lost is kept first.
pub(crate) fn remove_index(data: &Path, journal: &Journal) -> Result<(), StoreError> {
    let dir = data.join("index");
    keep_what_is_known(&dir, &JournalFacts(journal), &IndexOptions::default())?;
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Store(format!("{}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}
