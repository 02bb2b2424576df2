//! A segment as far as it can be told by its ends, and which records one copy of it holds that another does not.
//!
//! Reads only. Must never call a record lost in whose place the other copy holds another one: what was not acknowledged
//! may have been written over.

use super::JournalError;
use super::filesystem::SegmentFile;
use super::format::{RecordHeader, SegmentHeader, StoreId, Trailer};
use super::reader;
use super::recovery::{self, Found};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A segment as far as it can be told by its ends.
pub(super) struct Known {
    pub(super) header: SegmentHeader,
    /// False: the header is damaged, and was worked out.
    pub(super) header_holds: bool,
    pub(super) trailer: Option<Trailer>,
    pub(super) len: u64,
}

impl Known {
    /// `None` for a file in which no record can be read.
    pub(super) fn look(
        file: &dyn SegmentFile,
        path: &Path,
        store: Option<StoreId>,
    ) -> Result<Option<Self>, JournalError> {
        let len = file.length().map_err(JournalError::failed(path, "read"))?;
        let found = recovery::identify(file, path, store)?;
        let header_holds = !matches!(found, Found::HeaderLost(_));
        let found = match found {
            Found::HeaderLost(header) => recovery::sealed_or_not(file, path, header)?,
            found => found,
        };
        Ok(match found {
            Found::Sealed(header, trailer, _) => Some(Self { header, header_holds, trailer: Some(trailer), len }),
            Found::Unsealed(header) => Some(Self { header, header_holds, trailer: None, len }),
            Found::Blank | Found::HeaderLost(_) | Found::Unreadable(_) => None,
        })
    }

    /// Where records end at the latest.
    pub(super) fn end(&self) -> u64 {
        self.trailer.map_or(self.len, |trailer| trailer.table_offset)
    }

    /// The records that a reader finds: those of the table, if it holds. Payloads are not read.
    pub(super) fn records(&self, file: &dyn SegmentFile) -> io::Result<Vec<RecordHeader>> {
        Ok(match self.table(file)? {
            Some(table) => table.into_values().collect(),
            None => reader::scan(file, &self.header, self.end())?.records,
        })
    }

    /// The records whose header and payload hold, in order of their offset.
    pub(super) fn whole_records(&self, file: &dyn SegmentFile) -> io::Result<Vec<RecordHeader>> {
        let mut records = reader::scan(file, &self.header, self.end())?.records;
        records.retain(|record| is_whole(file, record));
        Ok(records)
    }

    /// Those of `theirs`, which hold in another copy of this segment, in whose place this one has no record that holds and
    /// that a reader finds: in a sealed one by its table.
    pub(super) fn lacks(&self, file: &dyn SegmentFile, theirs: &[RecordHeader]) -> io::Result<Vec<RecordHeader>> {
        let scanned = reader::scan(file, &self.header, self.end())?.records;
        let ours = match self.table(file)? {
            Some(table) => scanned.into_iter().filter(|record| table.get(&record.offset) == Some(record)).collect(),
            None => scanned,
        };
        let has = |wanted: &RecordHeader| {
            let from = ours.partition_point(|record| record.offset + record.occupied() <= wanted.offset);
            let overlapping =
                ours[from..].iter().take_while(|record| record.offset < wanted.offset + wanted.occupied());
            overlapping.into_iter().any(|record| is_whole(file, record))
        };
        Ok(theirs.iter().filter(|record| !has(record)).copied().collect())
    }

    /// Whether a record that this copy lacks would be found here if its bytes were.
    pub(super) fn takes(&self, file: &dyn SegmentFile) -> io::Result<impl Fn(&RecordHeader) -> bool + use<>> {
        let (table, end) = (self.table(file)?, self.end());
        Ok(move |record: &RecordHeader| match &table {
            Some(table) => table.get(&record.offset) == Some(record),
            None => record.next_block() <= end,
        })
    }

    /// What a sealed segment lists, by offset, if its table holds.
    fn table(&self, file: &dyn SegmentFile) -> io::Result<Option<BTreeMap<u64, RecordHeader>>> {
        let table = self.trailer.map(|trailer| reader::read_table(file, &trailer)).transpose()?.flatten();
        Ok(table.map(|records| records.into_iter().map(|record| (record.offset, record)).collect()))
    }
}

/// A payload that can not be read does not hold.
fn is_whole(file: &dyn SegmentFile, record: &RecordHeader) -> bool {
    reader::payload_crc(file, record).is_ok_and(|crc| crc == Some(record.payload_crc))
}
