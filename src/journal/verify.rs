//! Re-reads every record of a data directory against its checksums, without changing a byte.
//!
//! May run beside a daemon: it takes no lock, opens for reading only, and judges a segment that is being written
//! by what was synced when it looked.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{RecordHeader, StoreId, decode_store_block};
use super::reader::{self, StoredRecord};
use super::recovery::{self, DamageKind, Found, LaneEnds};
use super::swap::Swaps;
use super::unreadable::Tolerant;
use crate::base::limits::BLOCK;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A record or place that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyProblem {
    /// The segment's file.
    pub path: PathBuf,
    /// Offset in bytes.
    pub offset: u64,
    /// What does not hold.
    pub problem: String,
}

/// What was read.
#[derive(Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Of these, still being written, or left so by a crash.
    pub unsealed_segments: u64,
    /// Records read.
    pub records: u64,
    /// Payload bytes read and checked.
    pub payload_bytes: u64,
    /// Torn places: normal behind a crash, never acknowledged.
    pub torn: u64,
    /// What does not hold.
    pub problems: Vec<VerifyProblem>,
}

/// Reads all segments of `data_dir`; gives each record that holds to `each`.
///
/// # Errors
/// The directory or a file can not be read at all, or was written by a newer program.
pub fn verify_segments(
    data_dir: &Path,
    filesystem: &dyn Filesystem,
    each: &mut dyn FnMut(&StoredRecord),
) -> Result<VerifyReport, JournalError> {
    let mut report = VerifyReport::default();
    if let Ok(Some(incomplete)) = super::mirror::is_incomplete(filesystem, data_dir) {
        let (path, problem) = (data_dir.to_owned(), incomplete.to_string());
        report.problems.push(VerifyProblem { path, offset: 0, problem });
    }
    let mut store = stored_identity(data_dir, filesystem);
    let segments_dir = data_dir.join("journal");
    let mut segments = recovery::list_segments(filesystem, &segments_dir)?;
    // After the list: a swap that is done by now has removed a file that is in it, one that is not has its note.
    if let Some(superseded) = Swaps::new(filesystem, data_dir).superseded(store)? {
        segments.retain(|(number, _)| *number != superseded);
    }
    let ends = LaneEnds::of_sealed(filesystem, &segments);
    let mut lanes = ends.map_err(JournalError::failed(&segments_dir, "read"))?;
    for (_, path) in segments {
        let file = open(filesystem, &path)?;
        let file = Tolerant::new(&*file);
        let failed = || JournalError::failed(&path, "read");
        let problem = |offset, problem: &str| VerifyProblem { path: path.clone(), offset, problem: problem.to_owned() };
        report.segments += 1;
        let mut found = recovery::identify(&file, &path, store)?;
        if let Found::HeaderLost(header) = found {
            report.problems.push(problem(0, "the segment header is damaged"));
            found = recovery::sealed_or_not(&file, &path, header)?;
        }
        let (header, records) = match found {
            Found::Sealed(header, trailer, _) => {
                let table = reader::read_table(&file, &trailer).map_err(failed())?;
                let end = trailer.table_offset;
                let (scan, verdict) = recovery::scan_and_judge(&file, &path, &header, end, &lanes)?;
                note_damage(&mut report, &problem, &verdict.damage);
                if table.is_none() {
                    report.problems.push(problem(trailer.table_offset, "the table of records is damaged"));
                }
                // A record that was torn when the segment was recovered is in the scan, but never in the table.
                let listed = table.unwrap_or(verdict.records);
                let missing = listed.iter().filter(|record| !holds(&scan.records, record));
                let problems = missing.map(|record| problem(record.offset, "not a record: the header is damaged"));
                report.problems.extend(problems.collect::<Vec<_>>());
                (header, listed)
            }
            Found::Unsealed(header) | Found::HeaderLost(header) => {
                report.unsealed_segments += 1;
                let len = file.length().map_err(failed())?;
                let (_, verdict) = recovery::scan_and_judge(&file, &path, &header, len, &lanes)?;
                note_damage(&mut report, &problem, &verdict.damage);
                (header, verdict.records)
            }
            Found::Blank => {
                report.problems.extend(file.refused().map(|refused| problem(refused.first, &refused.problem())));
                continue;
            }
            Found::Unreadable(_) => {
                report.problems.push(problem(0, "the segment header is damaged, and no record can be read"));
                continue;
            }
        };
        store = Some(header.store);
        lanes.note(header.lane, records.iter().map(|record| record.sequence).max().unwrap_or_default());
        for record in records {
            report.records += 1;
            report.payload_bytes += u64::from(record.payload_len);
            if reader::payload_crc(&file, &record).map_err(failed())? == Some(record.payload_crc) {
                each(&StoredRecord { header: record, segment: header.number });
            } else {
                report.problems.push(problem(record.offset, "the payload does not match its CRC-32"));
            }
        }
        report.problems.extend(file.refused().map(|refused| problem(refused.first, &refused.problem())));
    }
    Ok(report)
}

fn open(filesystem: &dyn Filesystem, path: &Path) -> Result<Box<dyn SegmentFile>, JournalError> {
    match filesystem.open_read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(JournalError::Unusable {
            path: path.to_owned(),
            problem: "was removed while the directory was being read: run this again".to_owned(),
        }),
        file => file.map_err(JournalError::failed(path, "open")),
    }
}

fn note_damage(
    report: &mut VerifyReport,
    problem: &dyn Fn(u64, &str) -> VerifyProblem,
    damage: &[(u64, u64, DamageKind)],
) {
    for (offset, _, kind) in damage {
        match kind {
            DamageKind::Torn => report.torn += 1,
            DamageKind::Corrupt | DamageKind::Unreadable => {
                report.problems.push(problem(*offset, "not a record: the header is damaged"))
            }
        }
    }
}

/// What the store file says, if it can be read: helps with a segment whose header can not.
pub(super) fn stored_identity(data_dir: &Path, filesystem: &dyn Filesystem) -> Option<StoreId> {
    let mut block = [0; BLOCK];
    let file = filesystem.open_read(&data_dir.join("store")).ok()?;
    let filled = file.read_at(&mut block, 0).ok()?;
    decode_store_block(&block[..filled])
}

/// `records` in order of their offset, as a scan gives them.
fn holds(records: &[RecordHeader], record: &RecordHeader) -> bool {
    records.binary_search_by_key(&record.offset, |found| found.offset).is_ok_and(|n| records[n] == *record)
}
