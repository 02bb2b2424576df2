//! Checking a record's copies, and mending the one that does not hold from the one that does.
//!
//! Must never write on a copy that holds, nor from one that does not, and believes a repair only when it was read back.

use super::Journal;
use super::filesystem::SegmentFile;
use super::format::{RECORD_HEADER_BYTES, RecordHeader};
use super::mirror::Mirror;
use super::reader::{self, ReadError};
use crate::model::{ByteRange, Location};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What one copy of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Header and payload match their checksums.
    Holds,
    /// They do not, or can not be read.
    Damaged,
    /// It did not hold, and does since it was written anew from the other copy.
    Repaired,
}

/// What the copies of a record are, after what could be mended was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordCopies {
    /// In the data directory.
    pub data: CopyState,
    /// In the mirror; `None` without one, or while it is not in sync.
    pub mirror: Option<CopyState>,
}

type Opened = io::Result<Box<dyn SegmentFile>>;

impl Journal {
    /// Reads every copy of a record against its checksums; one that does not hold is written anew from one that does.
    /// For a background check of the journal.
    ///
    /// # Errors
    /// There is no such segment.
    pub fn check_record(&self, location: Location) -> Result<RecordCopies, ReadError> {
        let (path, marker) = self.place_of(location.segment)?;
        let Some(mirror) = self.mirror() else {
            let holds =
                self.file_of(location.segment).is_ok_and(|(file, marker)| holding(&*file, &marker, location).is_some());
            return Ok(RecordCopies { data: state(holds), mirror: None });
        };
        let in_sync = mirror.is_in_sync();
        let [data, twin] = mirror.open_sides(&path);
        let (ours, theirs) = (copy_of(&data, &marker, location), copy_of(&twin, &marker, location));
        let mended = match (&ours, &theirs) {
            (None, Some(record)) => mend(mirror, 0, &path, &twin, record, &marker, location),
            (Some(record), None) if in_sync => mend(mirror, 1, &path, &data, record, &marker, location),
            _ => false,
        };
        let found = |holds: bool| match (holds, mended) {
            (true, _) => CopyState::Holds,
            (false, true) => CopyState::Repaired,
            (false, false) => CopyState::Damaged,
        };
        Ok(RecordCopies { data: found(ours.is_some()), mirror: in_sync.then(|| found(theirs.is_some())) })
    }

    /// Reads part of a record's payload whose bytes did not hold when they were read: from a copy that does, which is
    /// written over the other one.
    ///
    /// # Errors
    /// No copy holds.
    pub fn read_mended(
        &self,
        location: Location,
        range: ByteRange,
        bytes: &mut [u8],
    ) -> Result<RecordHeader, ReadError> {
        let Location { segment, offset, .. } = location;
        let damaged = || ReadError::Damaged { segment, offset, what: "no copy of the record holds" };
        let mirror = self.mirror().ok_or_else(damaged)?;
        let copies = self.check_record(location)?;
        if copies.data != CopyState::Damaged {
            return self.read_first(location, range, bytes);
        }
        // Not mended, for what reason ever: the other copy can still be read.
        let (path, marker) = self.place_of(segment)?;
        let [_, twin] = mirror.open_sides(&path);
        let header = copy_of(&twin, &marker, location).ok_or_else(damaged)?;
        let at = offset + RECORD_HEADER_BYTES as u64 + u64::from(range.offset);
        let bytes = &mut bytes[..range.len as usize];
        let filled = twin.and_then(|twin| twin.read_at(bytes, at));
        match filled.map_err(|source| ReadError::Io { segment, offset, source })? {
            filled if filled == bytes.len() => Ok(header),
            _ => Err(damaged()),
        }
    }
}

fn state(holds: bool) -> CopyState {
    if holds { CopyState::Holds } else { CopyState::Damaged }
}

fn copy_of(file: &Opened, marker: &[u8; 16], location: Location) -> Option<RecordHeader> {
    holding(&**file.as_ref().ok()?, marker, location)
}

/// The record's header, if header and payload match their checksums.
fn holding(file: &dyn SegmentFile, marker: &[u8; 16], location: Location) -> Option<RecordHeader> {
    let header = reader::header_at(file, marker, location).ok()?;
    (reader::payload_crc(file, &header).ok()? == Some(header.payload_crc)).then_some(header)
}

/// Writes a record of the copy that holds over the other one (`side` 0: data, 1: mirror), and reads that back.
fn mend(
    mirror: &Arc<Mirror>,
    side: usize,
    path: &Path,
    good: &Opened,
    record: &RecordHeader,
    marker: &[u8; 16],
    location: Location,
) -> bool {
    let Ok(good) = good else { return false };
    let written = mirror.rewrite(side, path, &**good, record);
    let holds = written.is_ok()
        && mirror.open_sides(path).get(side).is_some_and(|file| copy_of(file, marker, location).is_some());
    let place = ["data directory", "mirror"][side];
    if holds {
        mirror.count_repair();
        tracing::warn!(path = %path.display(), offset = record.offset, place, "a damaged record was written anew from its other copy");
    } else {
        tracing::error!(path = %path.display(), offset = record.offset, place, error = ?written.err(), "a damaged record could not be written anew; its other copy holds: check the disk");
    }
    holds
}
