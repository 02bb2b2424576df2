//! Making one side's segment equal to the other's: comparing, copying, writing single records over damaged ones.
//!
//! Must never take a file away before its replacement is whole, verified and synced, nor drop a record that holds on
//! either side.

use super::{lock, number_of};
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use crate::journal::JournalError;
use crate::journal::filesystem::{Filesystem, SegmentFile};
use crate::journal::format::{RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId};
use crate::journal::known::Known;
use crate::journal::recovery::{self, LaneEnds};
use crate::journal::removed::Removed;
use crate::journal::unreadable::{Refused, Tolerant};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const COPY_STEP: usize = 1 << 20;
/// What a copy is called before it is whole. Not a segment's name: nobody reads it.
const COPY_SUFFIX: &str = ".copy";
/// What follows the name of a segment that is in the way and must not be lost.
const KEPT_SUFFIX: &str = ".kept";

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
pub(in crate::journal) enum Trouble {
    /// The side that is copied from.
    #[error("{0}: {1}")]
    Source(PathBuf, io::Error),
    /// The side that is copied to.
    #[error("{0}: {1}")]
    Target(PathBuf, io::Error),
    /// A segment that can not be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The daemon stops, or the target was lost meanwhile.
    #[error("interrupted")]
    Interrupted,
}

/// One side's segments.
#[derive(Clone, Copy)]
pub(in crate::journal) struct Side<'a> {
    pub(in crate::journal) filesystem: &'a dyn Filesystem,
    pub(in crate::journal) dir: &'a Path,
}

/// Holds copying back to a rate, and says when to stop.
pub(in crate::journal) struct Pace<'a> {
    rate_bytes: u64,
    began: Mutex<(Instant, u64)>,
    /// Waits so long; false: stop.
    wait: &'a dyn Fn(Duration) -> bool,
}

impl<'a> Pace<'a> {
    pub(in crate::journal) fn new(rate_bytes: u64, wait: &'a dyn Fn(Duration) -> bool) -> Self {
        Self { rate_bytes, began: Mutex::new((Instant::now(), 0)), wait }
    }

    fn take(&self, bytes: u64) -> Result<(), Trouble> {
        let mut began = lock(&self.began);
        began.1 += bytes;
        let due_us = (began.1.saturating_mul(1_000_000)).checked_div(self.rate_bytes).unwrap_or(0);
        let ahead = Duration::from_micros(due_us).saturating_sub(began.0.elapsed());
        if (self.wait)(ahead) { Ok(()) } else { Err(Trouble::Interrupted) }
    }
}

impl Side<'_> {
    pub(in crate::journal) fn segments_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(in crate::journal) fn path(&self, name: &str) -> PathBuf {
        self.segments_dir().join(name)
    }

    /// Names of the segments. A side without the directory has none.
    pub(in crate::journal) fn names(&self) -> io::Result<Vec<String>> {
        let names = match self.filesystem.list(&self.segments_dir()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut names: Vec<String> = names.into_iter().filter(|name| number_of(Path::new(name)).is_some()).collect();
        names.sort();
        Ok(names)
    }

    /// Removes what copies that were cut off have left.
    pub(in crate::journal) fn remove_leftovers(&self) -> io::Result<()> {
        for name in self.filesystem.list(&self.segments_dir())? {
            if name.ends_with(COPY_SUFFIX) {
                self.filesystem.remove(&self.path(&name))?;
            }
        }
        Ok(())
    }

    pub(in crate::journal) fn length(&self, name: &str) -> io::Result<u64> {
        self.filesystem.open_read(&self.path(name))?.length()
    }
}

/// True when both are sealed alike, or are open and hold the same records and nothing else. Payloads that a later record
/// vouches for are not read.
pub(super) fn are_alike(one: Side<'_>, other: Side<'_>, name: &str, store: StoreId) -> Result<bool, JournalError> {
    let (a_path, b_path) = (one.path(name), other.path(name));
    let open =
        |side: Side<'_>, path: &Path| side.filesystem.open_read(path).map_err(JournalError::failed(path, "open"));
    let (a, b) = (open(one, &a_path)?, open(other, &b_path)?);
    let (a, b) = (Tolerant::new(&*a), Tolerant::new(&*b));
    let known = (Known::look(&a, &a_path, Some(store))?, Known::look(&b, &b_path, Some(store))?);
    let (Some(first), Some(second)) = known else { return Ok(false) };
    if !(first.header_holds && second.header_holds)
        || (first.header, first.trailer, first.len) != (second.header, second.trailer, second.len)
    {
        return Ok(false);
    }
    if first.trailer.is_some() {
        return Ok(true);
    }
    let judge = |file: &dyn SegmentFile, path: &Path| {
        recovery::scan_and_judge(file, path, &first.header, first.len, &LaneEnds::default()).map(|(_, verdict)| verdict)
    };
    let (a, b) = (judge(&a, &a_path)?, judge(&b, &b_path)?);
    Ok(a.records == b.records && a.damage.is_empty() && b.damage.is_empty())
}

/// Makes `to`'s segment equal to `from`'s, after `from`'s has got every record that holds in `to`'s only. What does not
/// fit into `from`'s is kept, see [`keep_aside`], but for another segment under this name that was `removed` on purpose.
pub(super) fn bring_over(
    from: Side<'_>,
    to: Side<'_>,
    name: &str,
    store: StoreId,
    pace: &Pace<'_>,
    removed: &Removed,
) -> Result<(), Trouble> {
    let left = merge(to, from, name, store, removed)?;
    copy_and_tell(from, to, name, pace)?;
    if left > 0 {
        keep_aside(to, name, left)?;
    }
    finish_copy(to, name)
}

/// Writes the records that hold in `from` and not in `into` to `into`, as far as they belong there, and the header.
/// Returns how many do not: `into` was cut, or had lost them, before it was sealed, can not be read, or is another segment.
pub(super) fn merge(
    from: Side<'_>,
    into: Side<'_>,
    name: &str,
    store: StoreId,
    removed: &Removed,
) -> Result<usize, Trouble> {
    let (source_path, target_path) = (from.path(name), into.path(name));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Trouble::Source(path, error)
    };
    // What is not there, or can not be read of a side that is replaced, is no reason to keep it.
    let Ok(source) = from.filesystem.open_read(&source_path) else { return Ok(0) };
    let target = into.filesystem.open_write(&target_path).map_err(failed(&target_path))?;
    let (source, readable) = (Tolerant::new(&*source), Tolerant::new(&*target));
    let Ok(Some(theirs)) = Known::look(&source, &source_path, Some(store)) else { return Ok(0) };
    let Ok(whole) = theirs.whole_records(&source) else { return Ok(0) };
    let Some(ours) = Known::look(&readable, &target_path, Some(store))? else { return Ok(whole.len()) };
    if ours.header.uuid != theirs.header.uuid {
        return Ok(if removed.has(&theirs.header) { 0 } else { whole.len() });
    }
    if theirs.header_holds && !ours.header_holds {
        write_header(&*target, &theirs.header).map_err(failed(&target_path))?;
        tracing::warn!(path = %target_path.display(), "the segment header held on the other side only: taken over");
    }
    let lacking = ours.lacks(&readable, &whole).map_err(failed(&target_path))?;
    let takes = ours.takes(&readable).map_err(failed(&target_path))?;
    let (fitting, left): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|record| takes(record));
    for record in fitting {
        overlay_record(&source, &*target, &record).map_err(failed(&target_path))?;
        tracing::warn!(path = %target_path.display(), offset = record.offset, "a record held on the other side only: taken over");
    }
    Ok(left.len())
}

fn write_header(file: &dyn SegmentFile, header: &SegmentHeader) -> io::Result<()> {
    let mut block = AlignedBytes::zeroed(SEGMENT_HEADER_BYTES);
    block.copy_from_slice(&header.encode());
    file.write_all_at(&mut [IoSlice::new(&block)], 0)?;
    file.sync()
}

/// Gives a segment that holds records which the other side has not a name that nobody reads. The other side has lost
/// them, or they were being written when the machine stopped: nothing here can tell which.
pub(super) fn keep_aside(side: Side<'_>, name: &str, records: usize) -> Result<(), Trouble> {
    let failed = |error| Trouble::Target(side.path(name), error);
    let names = side.filesystem.list(&side.segments_dir()).map_err(failed)?;
    let kept = side.path(&free_name(&names, format!("{name}{KEPT_SUFFIX}")));
    side.filesystem.rename(&side.path(name), &kept).map_err(failed)?;
    tracing::error!(path = %kept.display(), records, "this segment holds records that the other side has not: kept under this name; if they are missed, stop the daemon and put it back as {name} in the data directory");
    side.filesystem.sync_dir(&side.segments_dir()).map_err(failed)
}

/// `wanted`, or that with a number where a file has it already.
pub(in crate::journal) fn free_name(names: &[String], wanted: String) -> String {
    let numbered = (2..).map(|n| format!("{wanted}.{n}"));
    let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !names.contains(name));
    free.expect("there are more numbers than files")
}

/// True for a segment that the other side had, and removed on purpose.
pub(in crate::journal) fn is_removed(side: Side<'_>, name: &str, store: StoreId, removed: &Removed) -> bool {
    let path = side.path(name);
    let Ok(file) = side.filesystem.open_read(&path) else { return false };
    let known = Known::look(&Tolerant::new(&*file), &path, Some(store));
    known.is_ok_and(|known| known.is_some_and(|known| removed.has(&known.header)))
}

/// How many records hold, and whether header and trailer do: the better side is copied to the other.
pub(super) fn worth(side: Side<'_>, name: &str, store: StoreId) -> Result<(u64, bool, bool), JournalError> {
    let path = side.path(name);
    let file = side.filesystem.open_read(&path).map_err(JournalError::failed(&path, "open"))?;
    let file = Tolerant::new(&*file);
    let Some(known) = Known::look(&file, &path, Some(store))? else { return Ok((0, false, false)) };
    // A file in which nothing can be read is worth less than an empty segment.
    let records = known.whole_records(&file).map_err(JournalError::failed(&path, "read"))?.len() as u64;
    Ok((records + 1, known.header_holds, known.trailer.is_some()))
}

/// Copies a file whole: under another name, synced, compared, renamed.
pub(in crate::journal) fn copy(from: Side<'_>, to: Side<'_>, name: &str, pace: &Pace<'_>) -> Result<(), Trouble> {
    copy_and_tell(from, to, name, pace)?;
    finish_copy(to, name)
}

fn copy_and_tell(from: Side<'_>, to: Side<'_>, name: &str, pace: &Pace<'_>) -> Result<(), Trouble> {
    let refused = copy_beside(from, to, name, pace)?;
    tell_refused(&from.path(name), refused);
    Ok(())
}

/// A side that is brought up to date has everything but what can not be read on the other one.
pub(super) fn tell_refused(path: &Path, refused: Option<Refused>) {
    if let Some(Refused { first, blocks }) = refused {
        tracing::error!(path = %path.display(), offset = first, blocks, "blocks can not be read, and are missing in the copy: check the disk");
    }
}

/// All of that but the name. What can not be read are zeros in the copy, and is given back.
pub(in crate::journal) fn copy_beside(
    from: Side<'_>,
    to: Side<'_>,
    name: &str,
    pace: &Pace<'_>,
) -> Result<Option<Refused>, Trouble> {
    let source_path = from.path(name);
    let copy_path = to.path(&format!("{name}{COPY_SUFFIX}"));
    let source_failed = |error| Trouble::Source(source_path.clone(), error);
    let target_failed = |error| Trouble::Target(copy_path.clone(), error);
    let source = from.filesystem.open_read(&source_path).map_err(source_failed)?;
    let source = Tolerant::new(&*source);
    let len = source.length().map_err(source_failed)?;
    let target = begin_copy(to, name, len)?;
    copy_data(&source, &*target, &source_path, &copy_path, pace)?;
    target.sync().map_err(target_failed)?;
    compare(&source, &*target, &source_path, &copy_path, pace)?;
    Ok(source.refused())
}

/// A file of `len` bytes under the name that a copy has before it is whole.
pub(in crate::journal) fn begin_copy(to: Side<'_>, name: &str, len: u64) -> Result<Box<dyn SegmentFile>, Trouble> {
    let copy_name = format!("{name}{COPY_SUFFIX}");
    let path = to.path(&copy_name);
    let failed = |error| Trouble::Target(path.clone(), error);
    if to.filesystem.list(&to.segments_dir()).map_err(failed)?.contains(&copy_name) {
        to.filesystem.remove(&path).map_err(failed)?;
    }
    to.filesystem.create(&path, len).map_err(failed)
}

/// Gives a copy its name.
pub(in crate::journal) fn finish_copy(to: Side<'_>, name: &str) -> Result<(), Trouble> {
    let path = to.path(&format!("{name}{COPY_SUFFIX}"));
    let renamed = to.filesystem.rename(&path, &to.path(name));
    renamed.and_then(|()| to.filesystem.sync_dir(&to.segments_dir())).map_err(|error| Trouble::Target(path, error))
}

/// Copies everything that may be something else than zeros.
pub(super) fn copy_data(
    source: &dyn SegmentFile,
    target: &dyn SegmentFile,
    source_path: &Path,
    target_path: &Path,
    pace: &Pace<'_>,
) -> Result<(), Trouble> {
    let mut step = AlignedBytes::zeroed(COPY_STEP);
    let mut at = 0;
    while let Some(data) = source.next_data(at).map_err(|error| Trouble::Source(source_path.to_owned(), error))? {
        at = data.max(at) / BLOCK as u64 * BLOCK as u64;
        let copied = copy_step(source, target, at, &mut step, source_path, target_path)?;
        if copied == 0 {
            break;
        }
        at += copied;
        pace.take(copied)?;
    }
    Ok(())
}

/// Copies a range of whole blocks.
pub(in crate::journal) fn copy_range(
    source: &dyn SegmentFile,
    target: &dyn SegmentFile,
    (offset, len): (u64, u64),
    path: &Path,
) -> Result<(), Trouble> {
    let mut at = offset;
    while at < offset + len {
        let whole = COPY_STEP.min(usize::try_from(offset + len - at).unwrap_or(COPY_STEP));
        let mut step = AlignedBytes::zeroed(whole);
        let copied = copy_step(source, target, at, &mut step, path, path)?;
        if copied == 0 {
            break;
        }
        at += copied;
    }
    Ok(())
}

fn copy_step(
    source: &dyn SegmentFile,
    target: &dyn SegmentFile,
    at: u64,
    step: &mut AlignedBytes,
    source_path: &Path,
    target_path: &Path,
) -> Result<u64, Trouble> {
    let filled = source.read_at(step, at).map_err(|error| Trouble::Source(source_path.to_owned(), error))?;
    let blocks = filled.next_multiple_of(BLOCK);
    step[filled..blocks].fill(0);
    if blocks > 0 {
        let written = target.write_all_at(&mut [IoSlice::new(&step[..blocks])], at);
        written.map_err(|error| Trouble::Target(target_path.to_owned(), error))?;
    }
    Ok(blocks as u64)
}

/// Reads both and finds them equal.
fn compare(
    source: &dyn SegmentFile,
    target: &dyn SegmentFile,
    source_path: &Path,
    target_path: &Path,
    pace: &Pace<'_>,
) -> Result<(), Trouble> {
    let mut bytes = [vec![0; COPY_STEP], vec![0; COPY_STEP]];
    let mut at = 0;
    while let Some(data) = source.next_data(at).map_err(|error| Trouble::Source(source_path.to_owned(), error))? {
        at = data.max(at);
        let wanted =
            source.read_at(&mut bytes[0], at).map_err(|error| Trouble::Source(source_path.to_owned(), error))?;
        let found =
            target.read_at(&mut bytes[1], at).map_err(|error| Trouble::Target(target_path.to_owned(), error))?;
        if found < wanted || bytes[0][..wanted] != bytes[1][..wanted] {
            let problem = io::Error::other("does not read back as it was written: check memory and disk");
            return Err(Trouble::Target(target_path.to_owned(), problem));
        }
        if wanted == 0 {
            break;
        }
        at += wanted as u64;
        pace.take(wanted as u64)?;
    }
    Ok(())
}

/// Writes a record of `from` over what `into` holds at its place, and syncs. Blocks that it shares with neighbours keep
/// the neighbours' bytes as `into` has them.
pub(in crate::journal) fn overlay_record(
    from: &dyn SegmentFile,
    into: &dyn SegmentFile,
    record: &RecordHeader,
) -> io::Result<()> {
    let (start, end) = (record.offset, record.offset + record.occupied());
    let mut step = AlignedBytes::zeroed(COPY_STEP);
    let mut at = start / BLOCK as u64 * BLOCK as u64;
    while at < record.next_block() {
        let len = COPY_STEP.min(usize::try_from(record.next_block() - at).unwrap_or(COPY_STEP));
        // Neighbours that can not be read here are taken from the other side, too.
        let filled = into.read_at(&mut step[..len], at).or_else(|_| from.read_at(&mut step[..len], at))?;
        step[filled..len].fill(0);
        let (first, last) = (start.max(at), end.min(at + len as u64));
        let inside = |offset: u64| usize::try_from(offset - at).expect("within a step");
        let part = &mut step[inside(first)..inside(last)];
        if from.read_at(part, first)? < part.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into.write_all_at(&mut [IoSlice::new(&step[..len])], at)?;
        at += len as u64;
    }
    into.sync()
}
