//! The tiles of a data directory's journal, read beside whoever writes it.
//!
//! Only in a program with the daemon's parts. Must never write to the directory.

use super::stored::{StoredImages, StoredTiles, unreadable};
use super::{Place, SourceError};
use crate::catalog::{OfflineAcquisition, fact_of_record, tile_entry};
use crate::client::ChecksumChoice;
use crate::journal::{Filesystem, ReadOnlyJournal, RealFilesystem, RecordKind};
use crate::model::{AcqId, Fact, FactBody, TileEntry};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

impl StoredTiles {
    /// The tiles of an acquisition in a data directory, in the order in which they came.
    ///
    /// # Errors
    /// The journal can not be read, has no such acquisition, or several and none was named.
    pub fn of_journal(data: &Path, acq: Option<AcqId>, checksum: ChecksumChoice) -> Result<Self, SourceError> {
        let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
        let acq = match acq {
            Some(acq) => acq,
            None => only_acquisition(data, &filesystem)?,
        };
        let stored = OfflineAcquisition::read(data, &filesystem, acq);
        let stored = stored.map_err(|error| SourceError::Unusable(error.to_string()))?;
        let mut entries: Vec<TileEntry> = stored.tiles().copied().collect();
        entries.sort_unstable_by_key(|entry| entry.sequence);
        let bytes = entries.iter().map(|entry| u64::from(entry.image.len)).sum();
        let place = |TileEntry { key, camera, .. }: &TileEntry| Place {
            col: key.col,
            row: key.row,
            frame: key.frame,
            camera: *camera,
        };
        let places = entries.iter().map(place).collect();
        let what = format!("acquisition {acq} in {}", data.display());
        Self::new(places, Box::new(Records { stored, entries }), bytes, checksum, &what)
    }
}

/// Images in records, in order.
struct Records {
    stored: OfflineAcquisition,
    entries: Vec<TileEntry>,
}

impl StoredImages for Records {
    fn read(&self, index: usize) -> Result<Vec<u8>, SourceError> {
        let entry = &self.entries[index];
        let name = entry.key.to_string();
        let mut bytes = vec![0; entry.image.len as usize];
        let read = self.stored.journal().read(entry.location, entry.image, &mut bytes);
        read.map_err(|error| unreadable(&name, &error))?;
        if crc32fast::hash(&bytes) != entry.image_crc {
            return Err(unreadable(&name, &"the image does not match its CRC-32; run `tilecatcher verify`"));
        }
        Ok(bytes)
    }
}

fn only_acquisition(data: &Path, filesystem: &Arc<dyn Filesystem>) -> Result<AcqId, SourceError> {
    let unusable = |error: &dyn ToString| SourceError::Unusable(error.to_string());
    let journal = ReadOnlyJournal::open(data, Arc::clone(filesystem)).map_err(|error| unusable(&error))?;
    let mut found = BTreeSet::new();
    for record in journal.records() {
        let record = record.map_err(|error| unusable(&error))?;
        found.extend(tile_entry(&record.header, record.location()).map(|entry| entry.key.acq));
        if record.header.kind == RecordKind::ACQUISITION_DELETED {
            let fact = fact_of_record(&record, &mut || journal.payload(record.location()));
            if let Ok(Fact { body: FactBody::AcquisitionDeleted(deleted), .. }) = fact {
                found.remove(&deleted.acq);
            }
        }
    }
    let mut all = found.iter();
    match (all.next(), all.next()) {
        (Some(only), None) => Ok(*only),
        (None, _) => Err(SourceError::Unusable(format!("{}: holds no tiles", data.display()))),
        _ => {
            let names: Vec<String> = found.iter().take(20).map(ToString::to_string).collect();
            let (data, names) = (data.display(), names.join(", "));
            Err(SourceError::Unusable(format!("{data}: holds several acquisitions, name one: {names}")))
        }
    }
}
