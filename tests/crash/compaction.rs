//! Compactions that are cut at any call: no live record is lost, and a start leaves none of them half done.

use crate::dice::{Dice, cuts_wanted};
use crate::disk::CrashFs;
use crate::journal::{Knowledge, Recovered, append_one, data, journal_options, live, recovered};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilecatcher::journal::{
    CompactOptions, CompactReport, Filesystem, Journal, JournalError, JournalOptions, RECORD_HEADER_BYTES,
    RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, StoredRecord, TRAILER_BYTES, compact_segments, verify_segments,
};
use tilecatcher::model::Sequence;

/// Which records live: runs of sequences, by chance.
#[derive(Clone, Copy)]
struct Liveness {
    salt: u64,
    run: u64,
    percent: u64,
}

impl Liveness {
    fn thrown(dice: &mut Dice) -> Self {
        let (runs, percents) = ([1, 4, 30], [0, 20, 50, 80, 100]);
        Self { salt: dice.below(1 << 40), run: runs[dice.index(3)], percent: percents[dice.index(5)] }
    }

    fn holds(self, sequence: Sequence) -> bool {
        Dice::new(self.salt ^ (sequence.0 / self.run)).below(100) < self.percent
    }
}

fn compact(fs: &CrashFs, options: &CompactOptions, live: Liveness) -> Result<CompactReport, JournalError> {
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut last = (0, 0);
    compact_segments(
        &data(),
        &filesystem,
        options,
        &mut |record| live.holds(record.header.sequence),
        &mut |done, all| {
            assert!(done >= last.0 && done <= all, "{done} of {all} after {last:?}");
            last = (done, all);
        },
    )
}

const EVERYTHING: CompactOptions =
    CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: u64::MAX, sequence_floor: u64::MAX };

/// What all cuts together came by: a test that never gets there shows nothing.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    rewritten: u64,
    removed: u64,
    completed: u64,
    leftovers: u64,
    left_alone: BTreeSet<String>,
}

/// What must hold behind a compaction, wherever it was cut.
fn check_compacted(fs: &CrashFs, before: &Recovered, options: &CompactOptions, live: Liveness, seen: &mut Seen) {
    let mut read = BTreeSet::new();
    let verified = verify_segments(&data(), fs, &mut |record| {
        let header = RecordHeader { offset: 0, ..record.header };
        assert_eq!(before.records.get(&header.sequence).map(|(header, _)| *header), Some(header), "verify: altered");
        assert!(read.insert(header.sequence), "verify: {} twice", header.sequence);
    });
    let verified = verified.expect("readable");
    assert!(verified.problems.is_empty(), "verify: {:?}", verified.problems);
    let found = recovered(fs);
    for (sequence, record) in &before.records {
        if live.holds(*sequence) {
            assert!(read.contains(sequence), "verify: live record {sequence} is lost");
            assert!(found.records.get(sequence) == Some(record), "live record {sequence} is lost or altered");
        }
    }
    for (sequence, record) in &found.records {
        assert!(before.records.get(sequence) == Some(record), "record {sequence} was invented or altered");
    }
    if options.sequence_floor == 0 {
        assert!(found.next >= before.next, "sequences from {} to {} are given again", found.next, before.next);
        assert!(found.max_tile >= before.max_tile, "tile ids behind {} are given again", found.max_tile);
    }
    let leftover = |path: &PathBuf| path.extension().is_none_or(|extension| extension != "tcj");
    assert!(!fs.files("/data/journal").iter().any(leftover), "a copy was left");
    assert!(!fs.files("/data").contains(&PathBuf::from("/data/compaction")), "the note was left");
    seen.completed += found.report.completed_swaps;
    seen.leftovers += found.report.removed_leftovers;
    let again = recovered(fs);
    let settled = again.report.completed_swaps + again.report.removed_leftovers;
    assert!(again.records == found.records && settled == 0, "a second recovery found something else");
}

/// The power goes at one call of a compaction; at times the process goes first, or the next start is cut off as well.
fn cut_compaction(fs: &CrashFs, call: u64, options: &CompactOptions, live: Liveness, dice: &mut Dice) -> CrashFs {
    let mut fs = fs.copy();
    fs.burn_after(call);
    let _ = compact(&fs, options, live);
    let before_start = dice.below(3);
    if before_start < 2 {
        fs = if before_start == 0 { fs.copy() } else { fs.after_cut(dice) };
        fs.burn_after(dice.below(40));
        drop(Journal::open(&data(), Arc::new(fs.clone()), journal_options()));
    }
    fs.after_cut(dice)
}

fn one_compacted_history(seed: u64, seen: &mut Seen) {
    let mut dice = Dice::new(seed);
    let (mut known, mut fs) = (Knowledge::default(), CrashFs::default());
    for _ in 0..3 {
        for _ in 0..=dice.below(3) {
            fs.burn_after(if dice.below(3) == 0 { dice.below(150) } else { 100_000 });
            let _ = live(&fs, &mut dice, &mut known);
            fs = fs.after_cut(&mut dice);
        }
        let before = recovered(&fs);
        let floor = if dice.below(3) == 0 { u64::MAX } else { 0 };
        let min_dead_share = [0.0, 0.3, 0.9][dice.index(3)];
        let options = CompactOptions { min_dead_share, tile_floor: floor, sequence_floor: floor, ..EVERYTHING };
        let live = Liveness::thrown(&mut dice);

        let whole = fs.copy();
        let report = compact(&whole, &options, live).expect("the power is on");
        let calls = whole.lock().changes.clone();
        seen.rewritten += report.segments_rewritten;
        seen.removed += report.segments_removed;
        seen.left_alone.extend(report.left_alone.iter().map(|left| left.reason.clone()));
        assert_eq!(whole.stored_bytes() + report.bytes_freed, fs.stored_bytes());
        for call in calls {
            let cut = cut_compaction(&fs, call, &options, live, &mut dice);
            check_compacted(&cut, &before, &options, live, seen);
            seen.cuts += 1;
        }
        check_compacted(&whole.after_cut(&mut dice), &before, &options, live, seen);
        check_compacted(&whole, &before, &options, live, seen);
        let after = recovered(&whole).records;
        assert_eq!(before.records.len() as u64 - after.len() as u64, report.records_dropped);
        if min_dead_share == 0.0 && report.left_alone.is_empty() {
            assert!(after.keys().all(|sequence| live.holds(*sequence)), "a dead record is left");
        }
        fs = whole;
    }
}

#[test]
fn live_records_survive_power_cuts_at_any_call_of_a_compaction() {
    let mut seen = Seen::default();
    let mut seed = 0;
    while seen.cuts < cuts_wanted(3000) / 2 {
        let history = std::panic::AssertUnwindSafe(|| one_compacted_history(seed, &mut seen));
        if std::panic::catch_unwind(history).is_err() {
            panic!("seed {seed}: see above");
        }
        seed += 1;
    }
    let reached = [seen.rewritten, seen.removed, seen.completed, seen.leftovers];
    let all_reached = reached.iter().all(|times| *times > 10) && !seen.left_alone.is_empty();
    assert!(all_reached || seen.cuts < 1000, "{seen:?}");
}

/// A closed journal of control records that share blocks, 300 bytes each.
fn small_records(fs: &CrashFs, groups: u64, each: usize) {
    let options = JournalOptions { control_segment_bytes: 4 << 20, ..journal_options() };
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options).expect("opens");
    let mut control = journal.control_writer();
    for group in 0..groups {
        let payloads: Vec<Vec<u8>> = (0..each).map(|n| format!("{group:04}/{n:04} ").repeat(30).into_bytes()).collect();
        let records: Vec<(RecordKind, i64, &[u8])> =
            payloads.iter().map(|payload| (RecordKind(0x1ff), 7, payload.as_slice())).collect();
        control.append_small(&records).expect("written");
        control.sync().expect("synced");
    }
    control.close().expect("closed");
}

#[test]
fn control_records_that_share_blocks_are_compacted_into_shared_blocks() {
    let fs = CrashFs::default();
    small_records(&fs, 100, 20);
    let before = recovered(&fs);
    let live = Liveness { salt: 3, run: 1, percent: 70 };
    let report = compact(&fs, &EVERYTHING, live).expect("compacts");
    assert_eq!((report.segments_rewritten, report.left_alone.len()), (1, 0), "{report:?}");
    let kept = before.records.iter().filter(|(sequence, _)| live.holds(**sequence));
    let kept: BTreeMap<_, _> = kept.map(|(sequence, record)| (*sequence, record.clone())).collect();
    assert_eq!(report.records_dropped, (before.records.len() - kept.len()) as u64);
    let length = fs.stored_bytes();
    assert!(length < kept.len() as u64 * (192 + 300 + 64 + 192 + 30), "{length} bytes for {} records", kept.len());
    assert!(recovered(&fs).records == kept, "by the table");

    let segment = fs.files("/data/journal").pop().expect("one segment");
    let table = fs.bytes_of(&segment).len() - TRAILER_BYTES - 1000;
    fs.flip(&segment, table - table % 4096);
    assert!(recovered(&fs).records == kept, "by a scan");
}

#[test]
fn a_segment_in_which_anything_does_not_hold_is_left_alone_and_named() {
    let whole = CrashFs::default();
    small_records(&whole, 20, 5);
    let segment = whole.files("/data/journal").pop().expect("one segment");
    let live = Liveness { salt: 3, run: 1, percent: 50 };
    let first = (1..).map(Sequence).find(|sequence| live.holds(*sequence)).expect("half of them live").0 - 1;
    // Five records of 512 bytes a group commit, and so a block.
    let record = SEGMENT_HEADER_BYTES + usize::try_from(first / 5 * 4096 + first % 5 * 512).expect("small");
    let length = whole.bytes_of(&segment).len();
    let places = [
        (20, "segment header"),
        (SEGMENT_HEADER_BYTES + 30, "damaged at offset"),
        (record + RECORD_HEADER_BYTES, "payload"),
        (length - TRAILER_BYTES - 4096, "table"),
        (length - 1, "not sealed"),
    ];
    for (offset, reason) in places {
        let fs = whole.copy();
        fs.flip(&segment, offset);
        let bytes = fs.bytes_of(&segment);
        let report = compact(&fs, &EVERYTHING, live).expect("goes on");
        assert_eq!((report.segments_rewritten, report.records_dropped, report.left_alone.len()), (0, 0, 1), "{reason}");
        let left = &report.left_alone[0];
        assert!(left.path == segment && left.reason.contains(reason), "{left:?} instead of {reason}");
        assert!(fs.files("/data/journal") == [segment.clone()] && fs.bytes_of(&segment) == bytes, "{reason}: touched");
    }
}

/// Two tiles a segment on one lane.
fn tiles_in_segments(fs: &CrashFs, segments: u64) {
    let mut known = Knowledge::default();
    let options = JournalOptions { segment_bytes: 48 << 10, ..journal_options() };
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options).expect("opens");
    let mut writer = journal.lane_writer(0);
    for _ in 0..2 * segments {
        append_one(&mut writer, &known.payload(20_000));
        writer.sync().expect("synced");
    }
    writer.close().expect("closed");
}

const ALL_DEAD: Liveness = Liveness { salt: 0, run: 1, percent: 0 };

#[test]
fn the_highest_sequence_and_tile_id_are_kept_until_the_caller_has_them() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    let before = recovered(&fs);
    let safe = CompactOptions { tile_floor: 0, sequence_floor: 0, ..EVERYTHING };
    let report = compact(&fs, &safe, ALL_DEAD).expect("compacts");
    assert_eq!((report.segments_removed, report.left_alone.len()), (2, 1), "{report:?}");
    assert!(report.left_alone[0].reason.contains("highest sequence"), "{report:?}");
    let after = recovered(&fs);
    assert_eq!((after.next, after.max_tile), (before.next, before.max_tile));

    let sequences = CompactOptions { sequence_floor: u64::MAX, ..safe };
    let report = compact(&fs, &sequences, ALL_DEAD).expect("compacts");
    assert!(report.left_alone[0].reason.contains("highest tile id"), "{report:?}");
    let report = compact(&fs, &EVERYTHING, ALL_DEAD).expect("compacts");
    assert_eq!((report.segments_removed, report.max_tile_removed, report.max_sequence_removed), (1, 6, 6));
    assert!(recovered(&fs).records.is_empty());
}

#[test]
fn without_room_for_a_copy_dead_segments_go_and_the_rest_waits() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let full = CompactOptions { reserve_bytes: 1 << 40, ..EVERYTHING };
    let mut is_live = |record: &StoredRecord| record.header.sequence == Sequence(1);
    let report = compact_segments(&data(), &filesystem, &full, &mut is_live, &mut |_, _| {}).expect("reports");
    assert_eq!((report.segments_removed, report.segments_rewritten, report.stopped_for_space), (2, 0, true));
    assert!(report.left_alone[0].reason.contains("no space"), "{report:?}");
    assert_eq!(recovered(&fs).records.len(), 2);
    let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.records_dropped, report.max_sequence_removed), (1, 1, 2));
}

#[test]
fn the_highest_tile_id_stays_known_when_its_tile_is_gone() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    small_records(&fs, 1, 1);
    let before = recovered(&fs);
    let safe = CompactOptions { tile_floor: 0, sequence_floor: 0, ..EVERYTHING };
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut is_live = |record: &StoredRecord| record.header.sequence != Sequence(6);
    let report = compact_segments(&data(), &filesystem, &safe, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.records_dropped, report.max_tile_removed), (1, 1, 6), "{report:?}");
    let after = recovered(&fs);
    assert!(!after.records.contains_key(&Sequence(6)));
    assert_eq!((after.next, after.max_tile), (before.next, before.max_tile));
}

/// Two synced records in a first segment, two unsynced ones in a second, of which the power cut left the later one.
fn torn_at_a_segments_start() -> CrashFs {
    let fs = CrashFs::default();
    let mut known = Knowledge::default();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    for synced in [true, true, false, false] {
        append_one(&mut writer, &known.payload(20_000));
        if synced {
            writer.sync().expect("synced");
        }
    }
    let cut = (0..1000).map(|seed| fs.after_cut(&mut Dice::new(seed))).find(|cut| {
        let second = Path::new("/data/journal/0000000000000002-0000.tcj");
        let headless =
            cut.bytes_of(second)[SEGMENT_HEADER_BYTES..][..RECORD_HEADER_BYTES].iter().all(|byte| *byte == 0);
        headless && recovered(&cut.copy()).records.keys().map(|sequence| sequence.0).eq([1, 2, 4])
    });
    cut.expect("one of a thousand cuts")
}

#[test]
fn the_record_that_tells_a_torn_start_from_damage_is_kept() {
    let fs = torn_at_a_segments_start();
    let before = recovered(&fs);
    assert_eq!(before.report.damage.len(), 1, "{:?}", before.report.damage);
    for live in [[1, 4].as_slice(), &[4]] {
        let fs = fs.copy();
        let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
        let mut is_live = |record: &StoredRecord| live.contains(&record.header.sequence.0);
        let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {});
        let report = report.expect("compacts");
        assert!(report.records_dropped == 0 && report.left_alone[0].reason.contains("torn place"), "{report:?}");
        let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
        assert_eq!(verified.problems, []);
    }
    // The first segment's end lives: it moves behind the second one, and is still found.
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut is_live = |record: &StoredRecord| record.header.sequence != Sequence(1);
    let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.left_alone.len()), (1, 0), "{report:?}");
    let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
    assert!(verified.problems.is_empty() && verified.torn == 1, "{verified:?}");
}

#[test]
fn a_swap_whose_copy_is_damaged_is_undone() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 6);
    let before = recovered(&fs);
    let live = Liveness { salt: 3, run: 1, percent: 50 };
    let whole = fs.copy();
    assert!(compact(&whole, &EVERYTHING, live).expect("compacts").segments_rewritten > 0);
    let calls = whole.lock().changes.clone();
    let mut undone = 0;
    for call in calls {
        let stopped = fs.copy();
        stopped.burn_after(call);
        let _ = compact(&stopped, &EVERYTHING, live);
        let stopped = stopped.copy();
        let segments = stopped.files("/data/journal");
        let copies = segments.iter().filter(|path| path.extension().is_some_and(|extension| extension == "new"));
        for copy in copies.filter(|copy| !stopped.bytes_of(copy).is_empty()) {
            let damaged = stopped.copy();
            damaged.flip(copy, damaged.bytes_of(copy).len() - 1);
            let found = recovered(&damaged);
            let kept = before.records.iter().filter(|(sequence, _)| live.holds(**sequence));
            assert!(kept.into_iter().all(|(sequence, record)| found.records.get(sequence) == Some(record)));
            assert!(found.report.removed_leftovers >= 1, "{:?}", found.report);
            undone += u64::from(stopped.files("/data").contains(&PathBuf::from("/data/compaction")));
        }
    }
    assert!(undone > 0, "no call lies between the note and the renaming");
}
