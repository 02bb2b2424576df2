//! Recovery: what is done with the segments that an earlier process left, before the daemon listens.
//!
//! Sealed segments are taken by their trailer. Unsealed ones are scanned, synced, their torn tail copied to
//! quarantine, and sealed; so that nothing rests on the page cache alone, and new data never follows a torn tail.
//! Corruption of synced records is reported and left exactly as it is. A second recovery changes nothing. A segment of
//! which the disk refuses some blocks is served as far as it can be read, and left unsealed: the next start looks again.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{
    BadSegmentHeader, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, Trailer,
    parse_segment_file_name, segment_file_name,
};
use super::keeper;
use super::reader::{self, Scan};
use super::store::Shared;
use super::unreadable::Tolerant;
use super::writer::OpenSegment;
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use crate::base::planted::{Bug, planted};
use crate::model::Sequence;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What recovery found and did.
#[derive(Debug, Default, Serialize)]
pub struct RecoveryReport {
    /// Segments that were sealed already.
    pub sealed_segments: u64,
    /// Segments that were scanned and sealed now.
    pub recovered_segments: u64,
    /// Records in all segments.
    pub records: u64,
    /// Swaps of a segment for its compacted copy that had been cut off, and were completed now.
    pub completed_swaps: u64,
    /// Files that a compaction had begun and not finished, removed now.
    pub removed_leftovers: u64,
    /// Places that are not what was written.
    pub damage: Vec<Damage>,
}

/// A place in a segment that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The segment's file.
    pub path: PathBuf,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it means.
    pub kind: DamageKind,
}

/// What damage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DamageKind {
    /// Was being written when the process or machine stopped; never acknowledged as durable.
    Torn,
    /// Had been synced: acknowledged data may be lost.
    Corrupt,
    /// The disk does not give it: acknowledged data may lie there.
    Unreadable,
}

impl DamageKind {
    /// True where acknowledged data may be lost.
    #[must_use]
    pub fn may_be_loss(self) -> bool {
        self != Self::Torn
    }
}

pub(super) enum Found {
    Sealed(SegmentHeader, Trailer, u64),
    Unsealed(SegmentHeader),
    /// Its making was cut off before it held anything.
    Blank,
    /// The header is damaged, but follows from the records or the trailer, and the file's name.
    HeaderLost(SegmentHeader),
    /// The header is damaged and nothing in the file can be read. Its length.
    Unreadable(u64),
}

/// The segments of a directory: number, path; in order of their number.
pub(super) fn list_segments(filesystem: &dyn Filesystem, dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let names = filesystem.list(dir).map_err(JournalError::failed(dir, "list"))?;
    let mut segments: Vec<(u64, PathBuf)> = names
        .into_iter()
        .filter_map(|name| parse_segment_file_name(&name).map(|(number, _)| (number, dir.join(name))))
        .collect();
    segments.sort();
    Ok(segments)
}

/// Records are found by the number of their segment: of two files with one number, one would hide the other.
fn refuse_shared_numbers(segments: &[(u64, PathBuf)]) -> Result<(), JournalError> {
    let Some(pair) = segments.windows(2).find(|pair| pair[0].0 == pair[1].0) else { return Ok(()) };
    let problem = format!(
        "has the same number as {}: one of them was put here from elsewhere, or back after its number had been given again; \
         move that one away, and keep it",
        pair[0].1.display()
    );
    Err(JournalError::Unusable { path: pair[1].1.clone(), problem })
}

/// Reads a segment's first and last block.
pub(super) fn identify(file: &dyn SegmentFile, path: &Path, store: Option<StoreId>) -> Result<Found, JournalError> {
    let read = JournalError::failed;
    let unusable = |problem: String| JournalError::Unusable { path: path.to_owned(), problem };
    let header_of = || {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let filled = file.read_at(&mut block, 0).map_err(read(path, "read"))?;
        Ok::<_, JournalError>(SegmentHeader::decode(&block[..filled]))
    };
    let mut header = header_of()?;
    if header == Err(BadSegmentHeader::Damaged) {
        let len = file.length().map_err(read(path, "read"))?;
        // The header is synced before the first record: with nothing behind it, its making was cut off.
        let behind = reader::scan(file, &BLANK, len).map_err(read(path, "read"))?;
        if behind.records.is_empty() && behind.gaps.is_empty() {
            return Ok(Found::Blank);
        }
        // Beside a writer both may have come since it was read: with something behind it, it is there.
        header = header_of()?;
    }
    match header {
        Ok(header) => {
            if store.is_some_and(|store| store != header.store) {
                return Err(unusable("belongs to another data directory: move it away".to_owned()));
            }
            // Under a number that is not its own, another segment could be given that number.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if parse_segment_file_name(&name).is_some_and(|named| named != (header.number, header.lane)) {
                let own = segment_file_name(header.number, header.lane);
                return Err(unusable(format!("is a copy of {own}, or was renamed: rename it back, or move it away")));
            }
            sealed_or_not(file, path, header)
        }
        Err(BadSegmentHeader::Damaged) => {
            let len = file.length().map_err(read(path, "read"))?;
            let rebuilt = rebuild_header(file, path, len, store).map_err(read(path, "read"))?;
            Ok(rebuilt.map_or(Found::Unreadable(len), Found::HeaderLost))
        }
        Err(other) => Err(unusable(other.to_string())),
    }
}

/// Whether a segment has its trailer.
pub(super) fn sealed_or_not(file: &dyn SegmentFile, path: &Path, header: SegmentHeader) -> Result<Found, JournalError> {
    let trailer = reader::read_trailer(file, &header).map_err(JournalError::failed(path, "read"))?;
    let len = file.length().map_err(JournalError::failed(path, "read"))?;
    Ok(trailer.map_or(Found::Unsealed(header), |trailer| Found::Sealed(header, trailer, len)))
}

/// The header of a segment whose first block is damaged: number and lane by its name, identity by the trailer or by
/// the first record that holds.
fn rebuild_header(
    file: &dyn SegmentFile,
    path: &Path,
    len: u64,
    store: Option<StoreId>,
) -> io::Result<Option<SegmentHeader>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((number, lane)) = parse_segment_file_name(&name) else { return Ok(None) };
    let made = |store, uuid| Some(SegmentHeader { store, uuid, number, lane, created_ns: 0 });
    let mut block = [0; BLOCK];
    if len >= BLOCK as u64 && file.read_at(&mut block, len - BLOCK as u64)? == BLOCK {
        let trailer = Trailer::identity(&block).filter(|(found, _)| store.is_none_or(|store| store == *found));
        if let Some((found, uuid)) = trailer {
            return Ok(made(found, uuid));
        }
    }
    let Some(store) = store else { return Ok(None) };
    let mut at = SEGMENT_HEADER_BYTES as u64;
    while let Some(data) = file.next_data(at)? {
        at = at.max(data / BLOCK as u64 * BLOCK as u64);
        let filled = file.read_at(&mut block, at)?;
        if filled == 0 {
            break;
        }
        if let Some(uuid) = RecordHeader::segment_identity(&block[..filled], at) {
            return Ok(made(store, uuid));
        }
        at += BLOCK as u64;
    }
    Ok(None)
}

/// Bytes that are copied to quarantine at a time.
const STEP: usize = 1 << 20;

/// A header that no record belongs to, but of a segment whose identity is zeros: scanning with it lists everything that
/// is not zero.
const BLANK: SegmentHeader =
    SegmentHeader { store: StoreId([0; 16]), uuid: [0; 16], number: 0, lane: 0, created_ns: 0 };

/// A segment that has to be scanned.
type Unsealed = (SegmentHeader, PathBuf, Box<dyn SegmentFile>);

/// Takes stock of all segments and leaves none unsealed.
pub(super) fn recover(shared: &Shared) -> Result<RecoveryReport, JournalError> {
    let mut report = RecoveryReport::default();
    let mut lanes = LaneEnds::default();
    let mut newest: HashMap<u16, (Sequence, Box<dyn SegmentFile>)> = HashMap::new();
    let mut unsealed: Vec<Unsealed> = Vec::new();
    let segments = list_segments(&*shared.filesystem, &shared.segments_dir)?;
    refuse_shared_numbers(&segments)?;
    for (number, path) in segments {
        shared.reserve_segment_number(number);
        let file = shared.filesystem.open_write(&path).map_err(JournalError::failed(&path, "open"))?;
        let readable = Tolerant::at_start(&*file);
        let mut found = identify(&readable, &path, Some(shared.store))?;
        if let Found::HeaderLost(header) = found {
            let damage = Damage { path: path.clone(), offset: 0, len: BLOCK as u64, kind: DamageKind::Corrupt };
            report.damage.push(damage);
            found = sealed_or_not(&readable, &path, header)?;
        }
        let refused = readable.blocks();
        if matches!(found, Found::Blank) && refused == [0] {
            // Nothing but zeros behind it: a spare, most likely.
            report.damage.push(Damage { path, offset: 0, len: BLOCK as u64, kind: DamageKind::Unreadable });
            continue;
        }
        // Neither its records nor their numbers are known: others must not get those.
        if !refused.is_empty() && matches!(found, Found::Blank | Found::Unreadable(_)) {
            let problem =
                "nothing that tells what is in it can be read: check the disk; to start without it, move it away";
            return Err(JournalError::failed(&path, "read")(io::Error::other(problem)));
        }
        if let Found::Sealed(header, ..) | Found::Unsealed(header) | Found::HeaderLost(header) = &found
            && unsealed.iter().any(|(earlier, ..)| earlier.lane == header.lane)
        {
            lanes.note_begin(&readable, header).map_err(JournalError::failed(&path, "read"))?;
        }
        match found {
            Found::Sealed(header, trailer, len) => {
                report.sealed_segments += 1;
                report.records += trailer.records;
                lanes.note(header.lane, trailer.last);
                shared.register_found(&header, &path, trailer, len);
                if newest.get(&header.lane).is_none_or(|(last, _)| *last < trailer.last) {
                    newest.insert(header.lane, (trailer.last, file));
                }
            }
            Found::Unsealed(header) | Found::HeaderLost(header) => unsealed.push((header, path, file)),
            Found::Blank => {
                drop(file);
                shared.filesystem.remove(&path).map_err(JournalError::failed(&path, "remove"))?;
            }
            Found::Unreadable(len) => {
                report.damage.push(Damage { path, offset: 0, len, kind: DamageKind::Corrupt });
            }
        }
    }
    let mut has_unseen = report.damage.iter().any(|damage| damage.kind == DamageKind::Unreadable);
    for (header, path, file) in unsealed {
        report.recovered_segments += 1;
        let told = report.damage.len();
        let trailer = recover_unsealed(shared, header, &path, Arc::from(file), &lanes, &mut report.damage)?;
        report.records += trailer.records;
        lanes.note(header.lane, trailer.last);
        let is_lost = trailer.records == 0 && report.damage[told..].iter().any(|found| found.kind.may_be_loss());
        has_unseen |= is_lost || report.damage[told..].iter().any(|found| found.kind == DamageKind::Unreadable);
        if is_lost {
            lanes.lost.insert(header.lane);
        }
    }
    if has_unseen {
        shared.skip_unseen();
    }
    // A killed process may have been between a seal and its sync: with the newest segment of a lane, as all others were
    // sealed before it.
    for (_, file) in newest.values() {
        file.sync().map_err(JournalError::failed(&shared.segments_dir, "sync a segment in"))?;
    }
    shared.sync_segments_dir()?;
    Ok(report)
}

/// Where each lane's segments end and begin, for two reasons.
///
/// A record may vouch for records of an earlier segment: what is missing from this one is corrupt only if somebody vouches
/// for more than those. Earlier is by sequence, not by number: a compacted segment has a higher number than those that
/// were written behind it.
///
/// A writer syncs its segment before it writes into the next one: the first record of that says with which record this one
/// ended. What is missing up to there had been acknowledged; what lies behind it was refused, for lack of space.
#[derive(Default)]
pub(super) struct LaneEnds {
    last: HashMap<u16, BTreeSet<Sequence>>,
    begins: HashMap<u16, Vec<Begin>>,
    /// Lanes with a segment of which no record holds, as this start has found. That it had some may be known only by a record
    /// behind it, which must stay, even if it does not hold itself.
    lost: HashSet<u16>,
}

/// A segment's first record.
struct Begin {
    number: u64,
    first: Sequence,
    durable: Sequence,
}

impl LaneEnds {
    /// The ends of all sealed segments whose header and trailer hold, and the begins of all whose header does.
    pub(super) fn of_sealed(filesystem: &dyn Filesystem, segments: &[(u64, PathBuf)]) -> io::Result<Self> {
        let mut ends = Self::default();
        for (_, path) in segments {
            let file = match filesystem.open_read(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let file = Tolerant::new(&*file);
            let mut block = [0; SEGMENT_HEADER_BYTES];
            let filled = file.read_at(&mut block, 0)?;
            let Ok(header) = SegmentHeader::decode(&block[..filled]) else { continue };
            ends.note_begin(&file, &header)?;
            if let Some(trailer) = reader::read_trailer(&file, &header)? {
                ends.note(header.lane, trailer.last);
            }
        }
        Ok(ends)
    }

    pub(super) fn note(&mut self, lane: u16, last: Sequence) {
        self.last.entry(lane).or_default().insert(last);
    }

    pub(super) fn note_begin(&mut self, file: &dyn SegmentFile, header: &SegmentHeader) -> io::Result<()> {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        let at = SEGMENT_HEADER_BYTES as u64;
        let filled = file.read_at(&mut bytes, at)?;
        if let Some(record) = RecordHeader::decode(&bytes[..filled], &header.marker(), at) {
            let begin = Begin { number: header.number, first: record.sequence, durable: record.durable };
            self.begins.entry(header.lane).or_default().push(begin);
        }
        Ok(())
    }

    /// With which record a segment whose last one now is `last` ended, as the next one says. Copies of earlier segments
    /// are told by their sequences. The first segment since a start says nothing of the one before it.
    pub(super) fn ended_with(&self, header: &SegmentHeader, last: Sequence) -> Option<Sequence> {
        let behind = self.begins.get(&header.lane)?.iter();
        let behind = behind.filter(|begin| begin.number > header.number && begin.first > last);
        let next = behind.min_by_key(|begin| begin.first)?;
        Some(next.durable).filter(|durable| *durable > Sequence(0))
    }

    /// Where the lane's segments before the one that begins with `first` end.
    pub(super) fn before(&self, lane: u16, first: Sequence) -> Sequence {
        let ends = self.last.get(&lane);
        ends.and_then(|ends| ends.range(..first).next_back()).copied().unwrap_or_default()
    }
}

/// Scans, syncs, quarantines and seals one segment; returns the sums over its records.
fn recover_unsealed(
    shared: &Shared,
    header: SegmentHeader,
    path: &Path,
    file: Arc<dyn SegmentFile>,
    lanes: &LaneEnds,
    damage: &mut Vec<Damage>,
) -> Result<Trailer, JournalError> {
    if !planted(Bug::DuplicateFromPageCache) {
        file.sync().map_err(JournalError::failed(path, "sync"))?;
        file.drop_cache().map_err(JournalError::failed(path, "drop the page cache of"))?;
    }
    let len = file.length().map_err(JournalError::failed(path, "read"))?;
    let readable = Tolerant::at_start(&*file);
    let (scan, mut verdict) = scan_and_judge(&readable, path, &header, len, lanes)?;
    let ended = lanes.ended_with(&header, scan.last());
    let refused = blocks_that_matter(&readable, &scan, ended);
    if !refused.is_empty() {
        verdict.set_unreadable(&scan, &refused, ended);
        return Ok(leave_unsealed(shared, header, path, verdict, damage, len));
    }
    // One that holds no record would be removed by its seal.
    let may_be_loss = verdict.damage.iter().any(|(_, _, kind)| kind.may_be_loss());
    let vouches = scan.records.first().is_some_and(|record| record.durable > Sequence(0));
    let is_a_witness = lanes.lost.contains(&header.lane) && vouches;
    if verdict.records.is_empty() && (may_be_loss || is_a_witness) {
        return Ok(leave_unsealed(shared, header, path, verdict, damage, len));
    }
    if planted(Bug::TruncatedOnRot)
        && let Some((first, ..)) = verdict.damage.first().copied()
    {
        verdict.records.retain(|record| record.offset < first);
    }
    let mut segment = OpenSegment::new(header, path.to_owned(), Arc::clone(&file), len);
    for (offset, len, kind) in verdict.damage {
        match kind {
            DamageKind::Torn => quarantine(shared, path, &readable, offset, len)?,
            DamageKind::Corrupt | DamageKind::Unreadable => {
                segment.tail = segment.tail.max((offset + len).next_multiple_of(BLOCK as u64))
            }
        }
        damage.push(Damage { path: path.to_owned(), offset, len, kind });
    }
    for record in &verdict.records {
        segment.note(record);
        segment.tail = segment.tail.max(record.next_block());
    }
    // Corruption stays where it is; what else follows the last good record is torn and in quarantine.
    let trailer = segment.trailer;
    if planted(Bug::DuplicateFromPageCache) {
        let trailer = Trailer { table_offset: len, ..trailer };
        shared.register_found(&segment.header, path, trailer, len);
        return Ok(trailer);
    }
    shared.register_open(&segment.header, path, &file, len);
    keeper::seal(shared, segment)?;
    Ok(trailer)
}

/// The blocks that could not be read, but for those behind all records of a segment that is known to have ended there.
fn blocks_that_matter(file: &Tolerant<'_>, scan: &Scan, ended: Option<Sequence>) -> Vec<u64> {
    let last = scan.records.iter().find(|record| Some(record.sequence) == ended);
    let end = last.map_or(u64::MAX, RecordHeader::next_block);
    file.blocks().into_iter().filter(|block| *block < end).collect()
}

/// Takes a segment as far as it can be read, and changes nothing in it: its records are kept in memory, for it gets no table.
fn leave_unsealed(
    shared: &Shared,
    header: SegmentHeader,
    path: &Path,
    verdict: Verdict,
    damage: &mut Vec<Damage>,
    len: u64,
) -> Trailer {
    let mut trailer = Trailer { table_offset: len, ..Trailer::default() };
    verdict.records.iter().for_each(|record| trailer.add(record));
    let places = verdict.damage.iter().filter(|(_, _, kind)| kind.may_be_loss()).map(|(offset, ..)| *offset).collect();
    let found = verdict.damage.into_iter().filter(|(_, _, kind)| kind.may_be_loss());
    damage.extend(found.map(|(offset, len, kind)| Damage { path: path.to_owned(), offset, len, kind }));
    if !verdict.records.is_empty() {
        shared.register_unsealed(&header, path, trailer, len, InMemory { records: verdict.records, places });
    }
    trailer
}

/// A segment without a table that is not written to.
pub(super) struct InMemory {
    /// Its records, in order of their offset.
    pub(super) records: Vec<RecordHeader>,
    /// Offsets of what was damaged, or could not be read, when it was looked at.
    pub(super) places: Vec<u64>,
}

/// What a place between records, at `offset`, is: corrupt if something behind it vouches for a record that is missing; and
/// behind all records of a sealed segment, whose table stands right behind what was in it.
pub(super) fn kind_of_gap(
    records: &[RecordHeader],
    vouched: Sequence,
    offset: u64,
    floor: Sequence,
    is_sealed: bool,
) -> DamageKind {
    let before = records.iter().take_while(|record| record.offset < offset).last();
    let before = before.map_or(floor, |record| record.sequence.max(floor));
    let is_behind_all = || records.iter().all(|record| record.offset < offset);
    if vouched > before || (is_sealed && is_behind_all()) { DamageKind::Corrupt } else { DamageKind::Torn }
}

pub(super) struct Verdict {
    pub(super) records: Vec<RecordHeader>,
    pub(super) damage: Vec<(u64, u64, DamageKind)>,
}

impl Verdict {
    /// Blocks that can not be read tell nothing: neither that a record is torn, nor that there is none.
    fn set_unreadable(&mut self, scan: &Scan, refused: &[u64], ended: Option<Sequence>) {
        let Self { records, damage } = self;
        for block in refused {
            let place = damage.iter_mut().find(|(offset, len, _)| (*offset..offset + len).contains(block));
            match place {
                Some((offset, _, kind)) => {
                    *kind = DamageKind::Unreadable;
                    // Its header holds, and its payload is not known to be torn.
                    let record = scan.records.iter().find(|record| record.offset == *offset);
                    let record = record.filter(|record| ended.is_none_or(|ended| record.sequence <= ended));
                    records.extend(record.filter(|record| records.iter().all(|other| other.offset != record.offset)));
                }
                None if records.iter().any(|record| (record.offset..record.next_block()).contains(block)) => {}
                None => damage.push((*block, BLOCK as u64, DamageKind::Unreadable)),
            }
        }
        records.sort_unstable_by_key(|record| record.offset);
        damage.sort_unstable_by_key(|(offset, ..)| *offset);
    }
}

/// The records of a segment up to `end`, its table or the file's end, by a scan, and what the places between them are.
pub(super) fn scan_and_judge(
    file: &dyn SegmentFile,
    path: &Path,
    header: &SegmentHeader,
    end: u64,
    lanes: &LaneEnds,
) -> Result<(Scan, Verdict), JournalError> {
    let read = || JournalError::failed(path, "read");
    let scan = reader::scan(file, header, end).map_err(read())?;
    let is_sealed = end < file.length().map_err(read())?;
    let floor = lanes.before(header.lane, scan.first());
    // Segments behind a sealed one may have been removed: then the next one speaks of those.
    let ended = lanes.ended_with(header, scan.last()).filter(|ended| !is_sealed || *ended == scan.last());
    let verdict = judge(file, &scan, floor, ended, is_sealed).map_err(read())?;
    Ok((scan, verdict))
}

/// Tells torn from corrupt: what some later header vouches for as synced can not be torn.
/// Payloads that nothing vouches for are checked against their CRC. `floor` is the end of the lane's earlier segments,
/// `ended` the last record that this one had, where that is known.
fn judge(
    file: &dyn SegmentFile,
    scan: &Scan,
    floor: Sequence,
    ended: Option<Sequence>,
    is_sealed: bool,
) -> io::Result<Verdict> {
    let vouched = scan.vouched().max(ended.unwrap_or_default());
    let mut verdict = Verdict { records: Vec::with_capacity(scan.records.len()), damage: Vec::new() };
    for record in &scan.records {
        let is_refused = ended.is_some_and(|ended| record.sequence > ended);
        let is_vouched = record.sequence <= vouched;
        if !is_refused && (is_vouched || reader::payload_crc(file, record)? == Some(record.payload_crc)) {
            verdict.records.push(*record);
        } else {
            verdict.damage.push((record.offset, record.next_block() - record.offset, DamageKind::Torn));
        }
    }
    for (offset, len) in &scan.gaps {
        let kind = kind_of_gap(&scan.records, vouched, *offset, floor, is_sealed);
        verdict.damage.push((*offset, *len, kind));
    }
    Ok(verdict)
}

/// Copies a torn run to a file of its own, so that sealing may write over it. A full disk must not keep the daemon from
/// starting: the bytes were never acknowledged.
fn quarantine(shared: &Shared, path: &Path, file: &dyn SegmentFile, offset: u64, len: u64) -> Result<(), JournalError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let target = shared.quarantine_dir.join(format!("{name}-{offset:012x}.torn"));
    remove_if_there(shared, &target)?;
    match copy_torn(shared, path, file, (offset, len), &target) {
        Err(JournalError::Failed { path: failed, source, .. }) if failed == target && super::is_full(&source) => {
            tracing::warn!(path = %path.display(), offset, len, "no space to copy a torn tail to quarantine: dropped");
            remove_if_there(shared, &target)?;
        }
        copied => copied?,
    }
    shared.filesystem.sync_dir(&shared.quarantine_dir).map_err(JournalError::failed(&target, "sync"))
}

fn remove_if_there(shared: &Shared, target: &Path) -> Result<(), JournalError> {
    let existing = shared.filesystem.list(&shared.quarantine_dir).map_err(JournalError::failed(target, "list"))?;
    if existing.iter().any(|existing| target.ends_with(existing)) {
        shared.filesystem.remove(target).map_err(JournalError::failed(target, "remove"))?;
    }
    Ok(())
}

fn copy_torn(
    shared: &Shared,
    path: &Path,
    file: &dyn SegmentFile,
    (offset, len): (u64, u64),
    target: &Path,
) -> Result<(), JournalError> {
    let copy = shared.filesystem.create(target, len.next_multiple_of(BLOCK as u64));
    let copy = copy.map_err(JournalError::failed(target, "create"))?;
    let mut step = AlignedBytes::zeroed(usize::try_from(len).map_or(STEP, |len| len.min(STEP)).next_multiple_of(BLOCK));
    let mut done = 0;
    while done < len {
        let whole = step.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
        let filled = file.read_at(&mut step[..whole], offset + done).map_err(JournalError::failed(path, "read"))?;
        if filled == 0 {
            break;
        }
        let blocks = filled.next_multiple_of(BLOCK);
        step[filled..blocks].fill(0);
        let written = copy.write_all_at(&mut [IoSlice::new(&step[..blocks])], done);
        written.map_err(JournalError::failed(target, "write"))?;
        done += filled as u64;
    }
    copy.sync().map_err(JournalError::failed(target, "sync"))
}
