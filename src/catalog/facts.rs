//! Records and facts: how a fact is written into a record, and how a record is read as a fact.

use crate::base::clock;
use crate::index::{FactSource, StoreError};
use crate::journal::{Journal, JournalError, ReadError, RecordHeader, RecordKind, StoredRecord, UNSEEN_MAX};
use crate::model::{Fact, FactBody, FileStored, Location, NumbersGiven, Sequence, Tally, TileEntry};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest description of a file, bytes.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;

/// A control fact as a record: its kind and payload. `content` is what belongs to a file. `None` for tiles.
pub(super) fn encode_control(body: &FactBody, content: &[u8]) -> Option<(RecordKind, Vec<u8>)> {
    Some(match body {
        FactBody::AcquisitionStarted(started) => (RecordKind::ACQUISITION_STARTED, json(started)),
        FactBody::AcquisitionEnded(ended) => (RecordKind::ACQUISITION_ENDED, json(ended)),
        FactBody::RoisCreated(created) => (RecordKind::ROIS_CREATED, json(created)),
        FactBody::FileStored(file) => (RecordKind::FILE_STORED, encode_file(file, content)),
        FactBody::StatesChanged(changed) => (RecordKind::STATES_CHANGED, json(changed)),
        FactBody::CalibrationsImported(imported) => (RecordKind::CALIBRATIONS_IMPORTED, json(imported)),
        FactBody::TemcaConfigured(configured) => (RecordKind::TEMCA_CONFIGURED, json(configured)),
        FactBody::AcquisitionDeleted(deleted) => (RecordKind::ACQUISITION_DELETED, json(deleted)),
        FactBody::ManifestMade(made) => (RecordKind::MANIFEST_MADE, json(made)),
        FactBody::TilesJudged(judged) => (RecordKind::TILES_JUDGED, json(judged)),
        FactBody::NumbersGiven(given) => (RecordKind::NUMBERS_GIVEN, json(given)),
        FactBody::TileStored(_) | FactBody::Unknown { .. } | FactBody::Unread => return None,
    })
}

fn json<T: Serialize>(fact: &T) -> Vec<u8> {
    serde_json::to_vec(fact).expect("facts are plain data: every one has a JSON form")
}

/// A file's payload: length of the description (u32 LE), the description (JSON), the file's bytes.
fn encode_file(file: &FileStored, content: &[u8]) -> Vec<u8> {
    let description = json(file);
    let len = u32::try_from(description.len()).expect("names are far below 4 GiB");
    [&len.to_le_bytes(), description.as_slice(), content].concat()
}

/// Description and bytes of a file's payload.
#[must_use]
pub fn decode_file(payload: &[u8]) -> Option<(FileStored, &[u8])> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= DESCRIPTION_BYTES_MAX)?;
    let (description, content) = rest.split_at_checked(len)?;
    Some((serde_json::from_slice(description).ok()?, content))
}

/// A tile record's entry for the index. `None` for other records.
#[must_use]
pub fn tile_entry(header: &RecordHeader, location: Location) -> Option<TileEntry> {
    let tile = header.tile.as_ref()?;
    Some(TileEntry {
        id: tile.id,
        key: tile.key,
        camera: tile.camera,
        version: tile.version,
        location,
        image: tile.image,
        image_crc: tile.image_crc,
        payload_crc: header.payload_crc,
        checksum: tile.checksum,
        received_ns: header.received_ns,
        sequence: header.sequence,
    })
}

/// Reads a record as a fact. `payload` is called for control records only.
///
/// # Errors
/// The payload can not be read, or is not what its kind says.
pub fn fact_of_record(
    record: &StoredRecord,
    payload: &mut dyn FnMut() -> Result<Vec<u8>, ReadError>,
) -> Result<Fact, StoreError> {
    let header = &record.header;
    let unreadable =
        |error: String| StoreError::Facts(format!("the record at {:x}+{}: {error}", record.segment, header.offset));
    let mut bytes = || payload().map_err(|error| StoreError::Facts(error.to_string()));
    let bad = |error: serde_json::Error| unreadable(error.to_string());
    let body = match (header.kind, tile_entry(header, record.location())) {
        (RecordKind::TILE, Some(entry)) => FactBody::TileStored(entry),
        (RecordKind::ACQUISITION_STARTED, _) => FactBody::AcquisitionStarted(parse(&bytes()?).map_err(bad)?),
        (RecordKind::ACQUISITION_ENDED, _) => FactBody::AcquisitionEnded(parse(&bytes()?).map_err(bad)?),
        (RecordKind::ROIS_CREATED, _) => FactBody::RoisCreated(parse(&bytes()?).map_err(bad)?),
        (RecordKind::FILE_STORED, _) => {
            let payload = bytes()?;
            let (file, _) = decode_file(&payload).ok_or_else(|| unreadable("no description of a file".to_owned()))?;
            FactBody::FileStored(Box::new(file))
        }
        (RecordKind::STATES_CHANGED, _) => FactBody::StatesChanged(parse(&bytes()?).map_err(bad)?),
        (RecordKind::CALIBRATIONS_IMPORTED, _) => FactBody::CalibrationsImported(parse(&bytes()?).map_err(bad)?),
        (RecordKind::TEMCA_CONFIGURED, _) => FactBody::TemcaConfigured(parse(&bytes()?).map_err(bad)?),
        (RecordKind::ACQUISITION_DELETED, _) => FactBody::AcquisitionDeleted(parse(&bytes()?).map_err(bad)?),
        (RecordKind::MANIFEST_MADE, _) => FactBody::ManifestMade(parse(&bytes()?).map_err(bad)?),
        (RecordKind::TILES_JUDGED, _) => FactBody::TilesJudged(parse(&bytes()?).map_err(bad)?),
        (RecordKind::NUMBERS_GIVEN, _) => FactBody::NumbersGiven(parse(&bytes()?).map_err(bad)?),
        (kind, _) => FactBody::Unknown { kind: kind.0 },
    };
    let (sequence, at_ns, digest) = (header.sequence, header.received_ns, header.digest());
    Ok(Fact { sequence, at_ns, digest, location: record.location(), body })
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(payload)
}

/// The journal as the index sees it.
pub struct JournalFacts<'a>(pub &'a Journal);

impl FactSource for JournalFacts<'_> {
    fn store_id(&self) -> [u8; 16] {
        self.0.store().0
    }

    fn tally_until(&self, last: Sequence) -> Result<Tally, StoreError> {
        self.0.tally_until(last).map_err(|error| StoreError::Facts(error.to_string()))
    }

    fn recount_until(&self, last: Sequence) -> Result<Tally, StoreError> {
        self.0.recount_until(last).map_err(|error| StoreError::Facts(error.to_string()))
    }

    fn facts_after(&self, after: Sequence) -> Box<dyn Iterator<Item = Result<Fact, StoreError>> + '_> {
        Box::new(self.0.records_after(after).map(|record| {
            let record = record.map_err(|error| StoreError::Facts(error.to_string()))?;
            Ok(fact_or_damage(self.0, &record))
        }))
    }

    fn can_read(&self, location: Location) -> bool {
        self.0.read_control(location).is_ok()
    }

    fn keep_given(&self, given: &NumbersGiven) -> Result<(), StoreError> {
        // The index may have been behind the journal.
        let given = NumbersGiven {
            sequence: Sequence(given.sequence.0 + UNSEEN_MAX),
            next_tile: given.next_tile + UNSEEN_MAX,
            segment: given.segment + UNSEEN_MAX,
        };
        self.0.skip_numbers(given.sequence, given.next_tile, given.segment);
        let (kind, payload) = encode_control(&FactBody::NumbersGiven(given), &[]).expect("is no tile");
        match self.0.record_control(kind, clock::unix_ns(), &payload) {
            Err(error @ JournalError::NoSpace { .. }) => {
                tracing::error!(%error, "numbers of records that are gone could not be noted: if nothing is stored until the next start, they may be given again");
                Ok(())
            }
            recorded => recorded.map_err(|error| StoreError::Facts(error.to_string())),
        }
    }
}

/// The same for a daemon that runs: a record that can not be read is an error, for what it said is in the index.
pub struct StrictFacts<'a>(pub &'a Journal);

impl FactSource for StrictFacts<'_> {
    fn store_id(&self) -> [u8; 16] {
        JournalFacts(self.0).store_id()
    }

    fn tally_until(&self, last: Sequence) -> Result<Tally, StoreError> {
        JournalFacts(self.0).tally_until(last)
    }

    fn facts_after(&self, after: Sequence) -> Box<dyn Iterator<Item = Result<Fact, StoreError>> + '_> {
        Box::new(self.0.records_after(after).map(|record| {
            let record = record.map_err(|error| StoreError::Facts(error.to_string()))?;
            fact_of_record(&record, &mut || self.0.read_control(record.location()))
        }))
    }
}

/// A control record whose payload is damaged must not keep the daemon from starting: it is reported, kept in the
/// journal, and folded into nothing.
fn fact_or_damage(journal: &Journal, record: &StoredRecord) -> Fact {
    fact_of_record(record, &mut || journal.read_control(record.location())).unwrap_or_else(|error| {
        tracing::error!(%error, "a control record can not be read: what it said is missing from the index until a start can read it; run `tilecatcher verify`");
        Fact {
            sequence: record.header.sequence,
            at_ns: record.header.received_ns,
            digest: record.header.digest(),
            location: record.location(),
            body: FactBody::Unread,
        }
    })
}
