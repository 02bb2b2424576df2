//! A backup of a data directory, beside a daemon or without one: every record that was synced when it began.
//!
//! Reads the source only. Each segment of the backup is whole: a sealed one is copied as it is, of an open one the
//! records that hold are taken, and sealed. A copy is synced, read back and only then gets its name. What is there and
//! has the same trailer is not copied again. Must never remove a segment from a backup: one that the source has no more,
//! or of which it has lost records, is moved out of the journal.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, StoreId, TRAILER_BYTES, Trailer};
use super::keeper;
use super::known::Known;
use super::mirror::{self, Pace, Side, Trouble, begin_copy, copy_beside, copy_range, finish_copy, free_name};
use super::reader;
use super::recovery::{self, Found, LaneEnds, Verdict};
use super::removed::Removed;
use super::store;
use super::swap::Swaps;
use super::unreadable::{Refused, Tolerant};
use super::verify::VerifyProblem;
use super::writer::OpenSegment;
use crate::base::limits::round_up_to_block;
use crate::model::Sequence;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often the source is listed when segments are replaced meanwhile.
const LISTINGS_MAX: usize = 8;
/// How often an open segment is looked at that seems damaged but may only be in the middle of a write.
const LOOKS_MAX: usize = 3;
/// Where segments go that the source has no more, or not whole.
const SUPERSEDED_DIR: &str = "superseded";

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Segments of the source that hold records.
    pub segments: u64,
    /// Of these, copied now.
    pub segments_copied: u64,
    /// Of these, there already.
    pub segments_equal: u64,
    /// Of those copied, still written by the daemon, or left open by a crash.
    pub segments_open: u64,
    /// Records that the backup holds.
    pub records: u64,
    /// Bytes of the files that were copied.
    pub bytes_copied: u64,
    /// Segments of an earlier backup that the source has no more, or of which it has lost records, moved to
    /// `superseded/`.
    pub segments_superseded: u64,
    /// What does not hold in the source.
    pub problems: Vec<VerifyProblem>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Source or target are not what they must be.
    #[error("{path}: {problem}")]
    Input {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("{0}; what was copied before is whole: run it again")]
    Failed(String),
}

impl From<Trouble> for BackupError {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble.to_string())
    }
}

impl From<JournalError> for BackupError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unusable { path, problem } => Self::Input { path, problem },
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Brings the backup in `to` up to date with `data`. The caller holds the lock of `to`.
///
/// # Errors
/// Source or target can not be used, read or written.
pub fn back_up(data: &Path, to: &Path, filesystem: &dyn Filesystem) -> Result<BackupReport, BackupError> {
    let (source, target) = (Side { filesystem, dir: data }, Side { filesystem, dir: to });
    let store = prepare(source, target)?;
    let mut backup = Backup { source, target, store, report: BackupReport::default(), done: BTreeSet::new() };
    for _ in 0..LISTINGS_MAX {
        let listed = backup.list()?;
        let missed = backup.pass(&listed)?;
        // Segments that came meanwhile hold nothing older than this run, unless they took the place of one that is gone.
        if missed == 0 && backup.list()?.is_superset(&listed) {
            backup.set_aside(&listed)?;
            return Ok(backup.report);
        }
    }
    Err(BackupError::Failed("segments are replaced faster than they can be copied".to_owned()))
}

/// Checks that both directories belong together; gives a new target its identity.
fn prepare(source: Side<'_>, target: Side<'_>) -> Result<StoreId, BackupError> {
    let input = |path: &Path, problem: &str| BackupError::Input { path: path.to_owned(), problem: problem.to_owned() };
    let identity = |side: Side<'_>| store::identity(side.filesystem, side.dir);
    let incomplete = mirror::is_incomplete(source.filesystem, source.dir);
    if let Some(incomplete) = incomplete.map_err(JournalError::failed(source.dir, "read"))? {
        return Err(incomplete.into());
    }
    let Some(ours) = identity(source)? else { return Err(input(source.dir, "holds no journal: nothing to back up")) };
    if identity(target)?.is_some_and(|theirs| theirs != ours) {
        return Err(input(target.dir, "holds the journal of another data directory: name another one with --to"));
    }
    let names = target.filesystem.list(target.dir).map_err(JournalError::failed(target.dir, "list"))?;
    if names.iter().any(|name| name == "mirror") {
        return Err(input(target.dir, "is a mirror, or has one: name another directory with --to"));
    }
    let dir = target.segments_dir();
    target.filesystem.create_dir_all(&dir).map_err(JournalError::failed(&dir, "create"))?;
    target.remove_leftovers().map_err(JournalError::failed(&dir, "clean"))?;
    store::write_store(target.filesystem, target.dir, ours)?;
    Ok(ours)
}

/// What an earlier backup has under a segment's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// Nothing that the source has not.
    Covered,
    /// Records that the source has no more, or another segment's: moved out of the journal.
    Missed,
    /// All that can be read in the source, and what can not: stays.
    Better,
}

/// How many of some records other segments of the source have: the same ones, and others under their sequences.
#[derive(Clone, Copy, Default)]
struct Elsewhere {
    same: usize,
    others: usize,
}

struct Backup<'a> {
    source: Side<'a>,
    target: Side<'a>,
    store: StoreId,
    report: BackupReport,
    done: BTreeSet<String>,
}

impl Backup<'_> {
    /// The source's segments, without one that a compaction is just replacing.
    fn list(&self) -> Result<BTreeSet<String>, BackupError> {
        let dir = self.source.segments_dir();
        let names = self.source.names().map_err(JournalError::failed(dir, "list"))?;
        let superseded = Swaps::new(self.source.filesystem, self.source.dir).superseded(Some(self.store))?;
        let is_superseded = |name: &String| {
            super::format::parse_segment_file_name(name).map(|(number, _)| number) == superseded && superseded.is_some()
        };
        Ok(names.into_iter().filter(|name| !is_superseded(name)).collect())
    }

    /// Copies what is not copied yet. Returns how many were gone before they could be.
    fn pass(&mut self, listed: &BTreeSet<String>) -> Result<u64, BackupError> {
        let mut missed = 0;
        for name in listed {
            if self.done.contains(name) {
                continue;
            }
            match self.copy(name) {
                Err(Trouble::Source(_, error)) if error.kind() == std::io::ErrorKind::NotFound => missed += 1,
                Err(trouble) => return Err(trouble.into()),
                Ok(()) => drop(self.done.insert(name.clone())),
            }
        }
        Ok(missed)
    }

    fn copy(&mut self, name: &str) -> Result<(), Trouble> {
        let path = self.source.path(name);
        let opened = self.source.filesystem.open_read(&path);
        let file = opened.map_err(|error| Trouble::Source(path.clone(), error))?;
        let file = Tolerant::new(&*file);
        match recovery::identify(&file, &path, Some(self.store))? {
            Found::Sealed(_, trailer, len) => self.copy_sealed(name, &file, &trailer, len),
            Found::Unsealed(_) => self.copy_open(name, &path),
            Found::Blank => {
                self.name_refused(&path, file.refused());
                self.earlier(name, &file).map(drop)
            }
            Found::HeaderLost(_) | Found::Unreadable(_) => {
                self.name_problem(
                    &path,
                    0,
                    "the segment header is damaged: copied as it is, unless an earlier backup has it",
                );
                self.report.segments += 1;
                let earlier = self.earlier(name, &file)?;
                self.copied(name, earlier)
            }
        }
    }

    /// What an earlier backup has under this name, beside the source's file. Names what only the earlier one has.
    fn earlier(&mut self, name: &str, file: &dyn SegmentFile) -> Result<Earlier, Trouble> {
        let (path, target_path) = (self.source.path(name), self.target.path(name));
        let in_target = |error| Trouble::Target(target_path.clone(), error);
        let in_source = |error| Trouble::Source(path.clone(), error);
        let there = match self.target.filesystem.open_read(&target_path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Earlier::Covered),
            there => there.map_err(in_target)?,
        };
        let Some(theirs) = Known::look(&*there, &target_path, Some(self.store))? else { return Ok(Earlier::Covered) };
        let whole = theirs.whole_records(&*there).map_err(in_target)?;
        let ours = Known::look(file, &path, Some(self.store))?;
        if ours.as_ref().is_some_and(|ours| ours.header.uuid != theirs.header.uuid) {
            return Ok(if whole.is_empty() { Earlier::Covered } else { Earlier::Missed });
        }
        let lost = match &ours {
            Some(ours) => ours.lacks(file, &whole).map_err(in_source)?,
            None => whole,
        };
        let unread = ours.as_ref().filter(|ours| !ours.header_holds);
        let has_all = match &ours {
            None => !lost.is_empty(),
            Some(ours) if !lost.is_empty() || unread.is_some() => {
                let readable = ours.whole_records(file).map_err(in_source)?;
                theirs.lacks(&*there, &readable).map_err(in_target)?.is_empty()
            }
            Some(_) => false,
        };
        let has_all = has_all && self.elsewhere(name, &lost)?.others == 0;
        let (earlier, becomes) = if has_all {
            (Earlier::Better, "stays")
        } else if !lost.is_empty() || (unread.is_some() && theirs.header_holds) {
            (Earlier::Missed, "is moved to superseded/")
        } else {
            (Earlier::Covered, "")
        };
        if let Some(first) = lost.first() {
            let problem =
                format!("{} records are gone or damaged that the earlier backup has: that {becomes}", lost.len());
            self.name_problem(&path, first.offset, &problem);
        }
        Ok(earlier)
    }

    /// What other segments of the source have under the sequences of these records.
    fn elsewhere(&self, name: &str, records: &[RecordHeader]) -> Result<Elsewhere, Trouble> {
        let wanted: HashMap<Sequence, u64> = records.iter().map(|record| (record.sequence, record.digest())).collect();
        let mut found = Elsewhere::default();
        let names = self.source.names().map_err(|error| Trouble::Source(self.source.segments_dir(), error))?;
        for other in names.iter().filter(|other| *other != name && !wanted.is_empty()) {
            let path = self.source.path(other);
            let failed = |error| Trouble::Source(path.clone(), error);
            let file = match self.source.filesystem.open_read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            let file = Tolerant::new(&*file);
            let Some(known) = Known::look(&file, &path, Some(self.store))? else { continue };
            for record in known.records(&file).map_err(failed)? {
                match wanted.get(&record.sequence) {
                    Some(digest) if *digest == record.digest() => found.same += 1,
                    Some(_) => found.others += 1,
                    None => {}
                }
            }
        }
        Ok(found)
    }

    fn name_problem(&mut self, path: &Path, offset: u64, problem: &str) {
        let problem = VerifyProblem { path: path.to_owned(), offset, problem: problem.to_owned() };
        self.report.problems.push(problem);
    }

    fn name_refused(&mut self, path: &Path, refused: Option<Refused>) {
        if let Some(refused) = refused {
            self.name_problem(path, refused.first, &refused.problem());
        }
    }

    /// Copies a segment as it is, unless what is there is better.
    fn copied(&mut self, name: &str, earlier: Earlier) -> Result<(), Trouble> {
        if earlier == Earlier::Better {
            self.report.segments_equal += 1;
            return Ok(());
        }
        let refused = copy_beside(self.source, self.target, name, &Pace::new(0, &|_| true))?;
        self.name_refused(&self.source.path(name), refused);
        self.replace(name, earlier)?;
        self.report.segments_copied += 1;
        self.report.bytes_copied += self.source.length(name).unwrap_or(0);
        Ok(())
    }

    /// Gives a copy its name.
    fn replace(&mut self, name: &str, earlier: Earlier) -> Result<(), Trouble> {
        if earlier == Earlier::Missed {
            self.supersede(name)?;
        }
        finish_copy(self.target, name)
    }

    fn copy_sealed(&mut self, name: &str, file: &dyn SegmentFile, trailer: &Trailer, len: u64) -> Result<(), Trouble> {
        self.report.segments += 1;
        self.report.records += trailer.records;
        if self.target_trailer(name)? == Some((*trailer, len)) {
            self.report.segments_equal += 1;
            return Ok(());
        }
        let earlier = self.earlier(name, file)?;
        self.copied(name, earlier)?;
        if earlier == Earlier::Better { Ok(()) } else { self.check(name, file, trailer) }
    }

    /// What the backup has under this name: trailer and length.
    fn target_trailer(&self, name: &str) -> Result<Option<(Trailer, u64)>, Trouble> {
        let path = self.target.path(name);
        let file = match self.target.filesystem.open_read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| Trouble::Target(path.clone(), error))?,
        };
        Ok(match recovery::identify(&*file, &path, Some(self.store))? {
            Found::Sealed(_, trailer, len) => Some((trailer, len)),
            _ => None,
        })
    }

    /// Reads what was copied against its checksums. The copy equals the source: what does not hold is the source's.
    fn check(&mut self, name: &str, file: &dyn SegmentFile, trailer: &Trailer) -> Result<(), Trouble> {
        let path = self.source.path(name);
        let read = |error| Trouble::Source(path.clone(), error);
        let Some(table) = reader::read_table(file, trailer).map_err(read)? else {
            self.name_problem(&path, trailer.table_offset, "the table of records is damaged");
            return Ok(());
        };
        let target_path = self.target.path(name);
        let copy = self.target.filesystem.open_read(&target_path);
        let copy = copy.map_err(|error| Trouble::Target(target_path.clone(), error))?;
        let marker = match recovery::identify(&*copy, &target_path, Some(self.store))? {
            Found::Sealed(header, ..) => header.marker(),
            _ => return Err(Trouble::Target(target_path, std::io::Error::other("does not read back as a segment"))),
        };
        for record in table {
            let location =
                crate::model::Location { segment: 0, offset: record.offset, payload_len: record.payload_len };
            let header = reader::header_at(&*copy, &marker, location).ok();
            let crc =
                reader::payload_crc(&*copy, &record).map_err(|error| Trouble::Target(target_path.clone(), error))?;
            if header != Some(record) {
                self.name_problem(&path, record.offset, "not a record: the header is damaged");
            } else if crc != Some(record.payload_crc) {
                self.name_problem(&path, record.offset, "the payload does not match its CRC-32");
            }
        }
        Ok(())
    }

    /// Takes the records that an open segment holds now, and seals the copy.
    fn copy_open(&mut self, name: &str, path: &Path) -> Result<(), Trouble> {
        let failed = |error| Trouble::Source(path.to_owned(), error);
        for look in 1.. {
            let file = self.source.filesystem.open_read(path).map_err(failed)?;
            let file = Tolerant::new(&*file);
            let header = match recovery::identify(&file, path, Some(self.store))? {
                Found::Unsealed(header) => header,
                // Sealed since.
                _ => return self.copy(name),
            };
            let len = file.length().map_err(failed)?;
            let (_, verdict) = recovery::scan_and_judge(&file, path, &header, len, &LaneEnds::default())?;
            let corrupt = verdict.damage.iter().any(|(_, _, kind)| kind.may_be_loss());
            if corrupt && look < LOOKS_MAX {
                continue;
            }
            for (offset, _, _) in verdict.damage.iter().filter(|(_, _, kind)| kind.may_be_loss()) {
                self.name_problem(path, *offset, "not a record: the header is damaged");
            }
            self.seal_copy(name, &file, header, &verdict)?;
            self.name_refused(path, file.refused());
            return Ok(());
        }
        Ok(())
    }

    fn seal_copy(
        &mut self,
        name: &str,
        file: &dyn SegmentFile,
        header: super::SegmentHeader,
        verdict: &Verdict,
    ) -> Result<(), Trouble> {
        let Some(tail) = verdict.records.iter().map(RecordHeader::next_block).max() else {
            return self.earlier(name, file).map(drop);
        };
        self.report.segments += 1;
        self.report.records += verdict.records.len() as u64;
        let mut wanted = Trailer::default();
        verdict.records.iter().for_each(|record| wanted.add(record));
        let there = self.target_trailer(name)?.map(|(trailer, _)| trailer.tally());
        if there == Some(wanted.tally()) {
            self.report.segments_equal += 1;
            return Ok(());
        }
        let earlier = self.earlier(name, file)?;
        if earlier == Earlier::Better {
            self.report.segments_equal += 1;
            return Ok(());
        }
        let table = round_up_to_block(verdict.records.len() * RECORD_HEADER_BYTES);
        let whole = tail + (table + TRAILER_BYTES) as u64;
        let copy: Arc<dyn SegmentFile> = Arc::from(begin_copy(self.target, name, whole)?);
        let path = self.source.path(name);
        copy_range(file, &*copy, (0, tail.max(SEGMENT_HEADER_BYTES as u64)), &path)?;
        let mut segment = OpenSegment::new(header, self.target.path(name), Arc::clone(&copy), whole);
        verdict.records.iter().for_each(|record| segment.note(record));
        segment.tail = tail;
        let (trailer, len) = keeper::write_seal(segment)?;
        self.replace(name, earlier)?;
        self.report.segments_copied += 1;
        self.report.segments_open += 1;
        self.report.bytes_copied += len;
        self.check(name, &*copy, &trailer)
    }

    /// Moves what a compaction of the source took away out of the backup's journal. What the source has lost stays.
    fn set_aside(&mut self, listed: &BTreeSet<String>) -> Result<(), BackupError> {
        let (filesystem, dir) = (self.target.filesystem, self.target.segments_dir());
        // After the list: what is gone since is named by now.
        let removed = Removed::read(self.source.filesystem, self.source.dir);
        for name in self.target.names().map_err(JournalError::failed(&dir, "list"))? {
            if listed.contains(&name) || self.source.length(&name).is_ok() {
                continue;
            }
            if mirror::is_removed(self.target, &name, self.store, &removed) {
                self.supersede(&name)?;
                continue;
            }
            let records = self.records_there(&name)?;
            let elsewhere = self.elsewhere(&name, &records)?;
            if elsewhere.same == records.len() {
                self.supersede(&name)?;
                continue;
            }
            let stays = elsewhere.others == 0;
            let becomes = if stays { "stays" } else { "is moved to superseded/, for sequences in it were given again" };
            let problem = format!(
                "is gone, and no compaction took it: the earlier backup has {} records of it, and {becomes}; put it back in the data directory, with no daemon on it",
                records.len()
            );
            self.name_problem(&self.source.path(&name), 0, &problem);
            if stays {
                self.report.segments += 1;
                self.report.segments_equal += 1;
                self.report.records += records.len() as u64;
            } else {
                self.supersede(&name)?;
            }
        }
        Ok(filesystem.sync_dir(&dir).map_err(JournalError::failed(&dir, "sync"))?)
    }

    /// The records that hold in a segment of the backup.
    fn records_there(&self, name: &str) -> Result<Vec<RecordHeader>, Trouble> {
        let path = self.target.path(name);
        let failed = |error| Trouble::Target(path.clone(), error);
        let file = self.target.filesystem.open_read(&path).map_err(failed)?;
        let Some(known) = Known::look(&*file, &path, Some(self.store))? else { return Ok(Vec::new()) };
        known.whole_records(&*file).map_err(failed)
    }

    /// Moves one segment out of the backup's journal.
    fn supersede(&mut self, name: &str) -> Result<(), Trouble> {
        let (filesystem, aside) = (self.target.filesystem, self.target.dir.join(SUPERSEDED_DIR));
        let failed = |error| Trouble::Target(aside.clone(), error);
        filesystem.create_dir_all(&aside).map_err(failed)?;
        let free = free_name(&filesystem.list(&aside).map_err(failed)?, name.to_owned());
        filesystem.rename(&self.target.path(name), &aside.join(free)).map_err(failed)?;
        filesystem.sync_dir(&aside).map_err(failed)?;
        self.report.segments_superseded += 1;
        Ok(())
    }
}
