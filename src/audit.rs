//! Looking at a data directory from outside: verify it, rebuild its index. No daemon needed, none disturbed.

use crate::catalog::{CatalogError, JournalFacts, lock_directory, open_journal, tile_entry};
use crate::index::{Index, IndexOptions, OpenReport, SledStore, StoreError, count_tiles, read_tile, read_tile_id};
use crate::journal::{JournalError, JournalOptions, RealFilesystem, VerifyReport, verify_segments};
use crate::model::{TileEntry, TileKey};
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
}

/// Whether the index is what the journal says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexAudit {
    /// It is.
    Agrees {
        /// Tile records compared.
        tiles: u64,
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

impl Audit {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.journal.problems.is_empty() && !matches!(self.index, IndexAudit::Differs { .. })
    }
}

/// Re-reads every record against its checksums, and the index against the records.
///
/// Beside a running daemon only the journal is read: the index is the daemon's.
///
/// # Errors
/// The directory can not be read.
pub fn audit(data: &Path) -> Result<Audit, JournalError> {
    let lock = lock_directory(data, &RealFilesystem);
    let mut current: HashMap<TileKey, TileEntry> = HashMap::new();
    let mut tiles = 0;
    let journal = verify_segments(data, &RealFilesystem, &mut |record| {
        if let Some(entry) = tile_entry(&record.header, record.location()) {
            tiles += 1;
            let newest = current.entry(entry.key).or_insert(entry);
            if newest.sequence < entry.sequence {
                *newest = entry;
            }
        }
    })?;
    let index = match lock {
        Err(CatalogError::Locked { .. }) => {
            IndexAudit::Skipped { reason: "a daemon runs on this directory".to_owned() }
        }
        Err(error) => IndexAudit::Skipped { reason: error.to_string() },
        Ok(_lock) => compare_index(data, &current, tiles),
    };
    Ok(Audit { journal, index })
}

fn compare_index(data: &Path, current: &HashMap<TileKey, TileEntry>, tiles: u64) -> IndexAudit {
    let Some(path) = newest_generation(&data.join("index")) else {
        return IndexAudit::Skipped { reason: "there is none; the next start builds it".to_owned() };
    };
    let compared = SledStore::open(&path, IndexOptions::default().cache_bytes).and_then(|store| {
        let mut problems = Vec::new();
        for (key, entry) in current {
            let id = read_tile_id(&store, key)?;
            let stored = id.map(|id| read_tile(&store, id)).transpose()?.flatten();
            if stored.as_ref() != Some(entry) && problems.len() < DIFFERENCES_MAX {
                problems.push(format!("{key}: not as the journal has it"));
            }
        }
        let counted = count_tiles(&store)?;
        if counted != current.len() as u64 {
            problems.push(format!("{counted} tiles, the journal has {}", current.len()));
        }
        Ok(problems)
    });
    match compared {
        Ok(problems) if problems.is_empty() => IndexAudit::Agrees { tiles },
        Ok(problems) => IndexAudit::Differs { problems },
        Err(error) => IndexAudit::Differs { problems: vec![error.to_string()] },
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
    let journal = Arc::new(journal);
    let dir = data.join("index");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|error| StoreError::Store(format!("{}: {error}", dir.display())))?;
    }
    let safe = {
        let journal = Arc::clone(&journal);
        Box::new(move || journal.safe_sequence())
    };
    let (index, report) = Index::open(&dir, &JournalFacts(&journal), safe, &IndexOptions::default())?;
    index.close();
    Ok(report)
}
