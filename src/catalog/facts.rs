//! Records and facts: how a fact is written into a record, and how a record is read as a fact.

use crate::index::{FactSource, StoreError};
use crate::journal::{Journal, ReadError, RecordHeader, RecordKind, StoredRecord};
use crate::model::{AcquisitionEnded, AcquisitionStarted, Fact, FactBody, Location, Sequence, Tally, TileEntry};

/// A control fact as a record: its kind and payload.
pub(super) fn encode_control(body: &FactBody) -> Option<(RecordKind, Vec<u8>)> {
    const PLAIN: &str = "facts are plain data: every one has a JSON form";
    match body {
        FactBody::AcquisitionStarted(started) => {
            Some((RecordKind::ACQUISITION_STARTED, serde_json::to_vec(started).expect(PLAIN)))
        }
        FactBody::AcquisitionEnded(ended) => {
            Some((RecordKind::ACQUISITION_ENDED, serde_json::to_vec(ended).expect(PLAIN)))
        }
        FactBody::TileStored(_) | FactBody::Unknown { .. } => None,
    }
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
    let body = match (header.kind, tile_entry(header, record.location())) {
        (RecordKind::TILE, Some(entry)) => FactBody::TileStored(entry),
        (RecordKind::ACQUISITION_STARTED, _) => {
            let started: AcquisitionStarted =
                serde_json::from_slice(&bytes()?).map_err(|error| unreadable(error.to_string()))?;
            FactBody::AcquisitionStarted(Box::new(started))
        }
        (RecordKind::ACQUISITION_ENDED, _) => {
            let ended: AcquisitionEnded =
                serde_json::from_slice(&bytes()?).map_err(|error| unreadable(error.to_string()))?;
            FactBody::AcquisitionEnded(ended)
        }
        (kind, _) => FactBody::Unknown { kind: kind.0 },
    };
    Ok(Fact { sequence: header.sequence, at_ns: header.received_ns, digest: header.digest(), body })
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

    fn facts_after(&self, after: Sequence) -> Box<dyn Iterator<Item = Result<Fact, StoreError>> + '_> {
        Box::new(self.0.records_after(after).map(|record| {
            let record = record.map_err(|error| StoreError::Facts(error.to_string()))?;
            Ok(fact_or_damage(self.0, &record))
        }))
    }
}

/// A control record whose payload is damaged must not keep the daemon from starting: it is reported, kept in the
/// journal, and folded into nothing.
fn fact_or_damage(journal: &Journal, record: &StoredRecord) -> Fact {
    fact_of_record(record, &mut || journal.read_control(record.location())).unwrap_or_else(|error| {
        tracing::error!(%error, "a control record can not be read: what it said is missing from the index; run `tilecatcher verify`");
        Fact {
            sequence: record.header.sequence,
            at_ns: record.header.received_ns,
            digest: record.header.digest(),
            body: FactBody::Unknown { kind: record.header.kind.0 },
        }
    })
}
