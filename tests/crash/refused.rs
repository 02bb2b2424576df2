//! Blocks that a disk does not give any more: whoever reads all of a directory names them and goes on.

use crate::disk::CrashFs;
use crate::history::started;
use crate::journal::{Knowledge, append_one, data, journal_options, recovered, unsealed_and_followed};
use crate::mirrored::{a_pair, mirror_dir};
use crate::resync::{open_alone, open_both, segments, twin};
use crate::store::Store;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::base::limits::BLOCK;
use tilecatcher::index::MemoryStore;
use tilecatcher::journal::{
    CompactOptions, DamageKind, Filesystem, Journal, JournalError, JournalOptions, StoredRecord, VerifyReport, back_up,
    compact_segments, verify_segments,
};
use tilecatcher::model::{AcqId, AcquisitionStarted, ByteRange, Sequence};

/// Four segments of three records each, 12 KiB a record behind the segment's header of 4 KiB.
fn disks() -> (CrashFs, CrashFs) {
    let (first, second, _) = a_pair();
    assert_eq!(segments(&first, &data()).len(), 4);
    (first, second)
}

/// A block of each kind: a payload's, a segment's header, a record's header, a trailer.
fn refuse_one_of_each(fs: &CrashFs, dir: &Path) {
    for (segment, offset) in segments(fs, dir).iter().zip([8192, 0, 4096, fs.bytes_of(&segments(fs, dir)[3]).len() - 1])
    {
        fs.refuse(segment, offset);
    }
}

fn verify(fs: &CrashFs, dir: &Path) -> (VerifyReport, usize) {
    let mut whole = 0;
    let report = verify_segments(dir, fs, &mut |_| whole += 1).expect("goes on");
    (report, whole)
}

#[test]
fn verify_names_blocks_that_can_not_be_read_and_reads_all_else() {
    let (fs, _) = disks();
    refuse_one_of_each(&fs, &data());
    let (report, whole) = verify(&fs, &data());
    assert_eq!((report.segments, whole), (4, 10));
    let named = report.problems.iter().filter(|found| found.problem.contains("can not be read")).count();
    assert_eq!(named, 4, "{:?}", report.problems);
}

#[test]
fn a_backup_has_all_but_the_blocks_that_can_not_be_read_and_keeps_what_it_has_of_them() {
    let (fs, _) = disks();
    let to = Path::new("/backup");
    let earlier = fs.copy();
    back_up(&data(), to, &earlier).expect("backed up");
    refuse_one_of_each(&fs, &data());
    let report = back_up(&data(), to, &fs).expect("goes on");
    assert_eq!(report.segments, 4);
    for segment in segments(&fs, &data()) {
        assert!(
            report.problems.iter().any(|found| found.path == segment),
            "{}: {:?}",
            segment.display(),
            report.problems
        );
    }
    assert_eq!(verify(&fs, to).1, 10);

    refuse_one_of_each(&earlier, &data());
    back_up(&data(), to, &earlier).expect("goes on");
    let (verified, whole) = verify(&earlier, to);
    assert!(whole == 12 && verified.problems.is_empty(), "{:?}", verified.problems);
}

#[test]
fn a_new_mirror_is_filled_from_a_disk_with_a_bad_block_and_an_older_one_mends_it() {
    let (first, second) = disks();
    let segment = segments(&first, &data())[1].clone();
    let whole = first.bytes_of(&segment);
    open_alone(&first, &data());
    first.refuse(&segment, 8192);
    let (damaged, empty) = (first.copy(), CrashFs::default());
    open_both(&damaged, &empty, "an empty mirror");
    assert_eq!(verify(&empty, &mirror_dir()).1, 11);
    // Segments that are sealed alike are not read; this one is not.
    second.flip(&twin(&segment), whole.len() - 1);
    open_both(&first, &second, "an older mirror");
    assert!(second.bytes_of(&twin(&segment)) == whole, "not as it was");
    assert_eq!((verify(&first, &data()).1, verify(&second, &mirror_dir()).1), (12, 12));
}

/// Killed with a sealed segment, and an open one, of three synced records each; all payloads in order.
fn killed(options: JournalOptions) -> (CrashFs, Vec<Vec<u8>>) {
    let (fs, mut known) = (CrashFs::default(), Knowledge::default());
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options).expect("opens");
    let mut writer = journal.lane_writer(0);
    let payloads: Vec<Vec<u8>> = (0..6).map(|_| known.payload(9000)).collect();
    for payload in &payloads {
        append_one(&mut writer, payload);
        writer.sync().expect("synced");
    }
    journal.settle();
    let killed = fs.copy();
    drop(writer);
    (killed, payloads)
}

/// What can be read of a journal.
fn readable(journal: &Journal) -> BTreeMap<Sequence, Vec<u8>> {
    let records = journal.records_after(Sequence(0)).map(|record| record.expect("listed"));
    let whole = records.filter_map(|record| {
        let mut payload = vec![0; record.header.payload_len as usize];
        let range = ByteRange { offset: 0, len: record.header.payload_len };
        journal.read(record.location(), range, &mut payload).ok()?;
        assert_eq!(crc32fast::hash(&payload), record.header.payload_crc, "wrong bytes were given");
        Some((record.header.sequence, payload))
    });
    whole.collect()
}

#[test]
fn a_start_passes_a_block_that_can_not_be_read_and_has_everything_when_the_disk_gives_it_again() {
    let (whole, payloads) = killed(journal_options());
    let all = segments(&whole, &data());
    let mut left_unsealed = 0;
    for (segment, block) in all.iter().flat_map(|path| (0..whole.bytes_of(path).len() / BLOCK).map(move |n| (path, n)))
    {
        let context = format!("block {block} of {}", segment.display());
        let fs = whole.copy();
        fs.refuse(segment, block * BLOCK);
        for start in 1..=2 {
            let opened = Journal::open(&data(), Arc::new(fs.clone()), journal_options());
            let (journal, report) = opened.unwrap_or_else(|error| panic!("{context}, start {start}: {error}"));
            left_unsealed += usize::from(report.damage.iter().any(|found| found.kind == DamageKind::Unreadable));
            let found = readable(&journal);
            let old = found.values().filter(|payload| payloads.contains(payload)).count();
            assert!(old >= 5, "{context}, start {start}: {old} of 6 records");
            if old == 5 {
                let scrubbed =
                    journal.segments().into_iter().map(|(number, _)| journal.scrub_segment(number, &|_| Ok(())));
                let bad: usize = scrubbed.map(|looked| looked.expect("goes on").bad.len()).sum();
                assert!(bad > 0, "{context}, start {start}: a scrub finds nothing");
            }
            let mut writer = journal.lane_writer(0);
            append_one(&mut writer, &(journal.max_tile_id() + 1).to_le_bytes());
            writer.sync().expect("synced");
        }
        fs.give_back();
        let found = recovered(&fs);
        let kept: Vec<Vec<u8>> = found.records.values().map(|(_, payload)| payload.clone()).collect();
        assert!(payloads.iter().all(|payload| kept.contains(payload)), "{context}: {} records", kept.len());
        assert_eq!(kept.len(), 8, "{context}: a sequence was given twice, or something was invented");
        let mut ids: Vec<u64> = found.records.values().map(|(header, _)| header.tile.expect("a tile").id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8, "{context}: an id was given twice");
    }
    assert!(left_unsealed > 8, "{left_unsealed} starts came upon something");
}

#[test]
fn a_disk_that_gives_next_to_nothing_stops_the_start_and_nothing_is_changed() {
    let (fs, payloads) = killed(JournalOptions { segment_bytes: 2 << 20, ..journal_options() });
    let path = segments(&fs, &data()).remove(0);
    let before = fs.bytes_of(&path);
    (0..before.len()).step_by(BLOCK).for_each(|offset| fs.refuse(&path, offset));
    stops(&fs);
    fs.give_back();
    assert!(fs.bytes_of(&path) == before, "something was written");
    assert_eq!(recovered(&fs).records.len(), payloads.len());
}

fn stops(fs: &CrashFs) {
    let error = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).err();
    assert!(matches!(error, Some(JournalError::Failed { action: "read", .. })), "{error:?}");
}

#[test]
fn a_segment_of_which_nothing_can_be_read_stops_the_start_for_its_numbers_are_not_known() {
    let (fs, payloads) = killed(journal_options());
    for path in segments(&fs, &data()) {
        (0..fs.bytes_of(&path).len()).step_by(BLOCK).for_each(|offset| fs.refuse(&path, offset));
        stops(&fs);
        fs.give_back();
    }
    assert_eq!(recovered(&fs).records.len(), payloads.len());
}

#[test]
fn a_segment_all_of_whose_records_are_damaged_is_not_removed() {
    let (whole, _) = killed(journal_options());
    lose_all_records(&whole, &segments(&whole, &data())[0]);
    assert_first_segment_stays(&whole, 3);
}

#[test]
fn a_segment_stays_that_alone_knows_of_records_in_the_one_before_even_if_its_own_do_not_hold() {
    let (whole, _) = killed(journal_options());
    let all = segments(&whole, &data());
    lose_all_records(&whole, &all[0]);
    // The payload of the first, the headers of the others.
    flip_each(&whole, &all[1], [8192, 16384 + 20, 28672 + 20]);
    assert_first_segment_stays(&whole, 0);
}

fn flip_each<const N: usize>(fs: &CrashFs, path: &Path, offsets: [usize; N]) {
    offsets.into_iter().for_each(|offset| fs.flip(path, offset));
}

/// Damages the trailer, and the header of each of three records: the next segment knows that there were some.
fn lose_all_records(fs: &CrashFs, path: &Path) {
    flip_each(fs, path, [fs.bytes_of(path).len() - 20, 4096 + 20, 16384 + 20, 28672 + 20]);
}

/// At every start the first segment is told as corrupt and left as it is, and so many records are read from the others.
fn assert_first_segment_stays(fs: &CrashFs, others: usize) {
    let path = segments(fs, &data()).remove(0);
    let before = fs.bytes_of(&path);
    for start in 1..=3 {
        let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
        let is_named = report.damage.iter().any(|found| found.path == path && found.kind == DamageKind::Corrupt);
        assert!(is_named, "start {start}: {:?}", report.damage);
        assert_eq!(readable(&journal).len(), others, "start {start}");
        drop(journal);
        assert!(fs.files("/data/journal").contains(&path) && fs.bytes_of(&path) == before, "start {start}");
    }
}

#[test]
fn a_compaction_leaves_a_segment_alone_of_which_a_block_can_not_be_read_and_goes_on() {
    for offset in [0, usize::MAX] {
        let (first, _) = disks();
        open_alone(&first, &data());
        let all = segments(&first, &data());
        let refused = &all[1];
        first.refuse(refused, offset.min(first.bytes_of(refused).len() - 1));
        let filesystem: Arc<dyn Filesystem> = Arc::new(first.clone());
        let options =
            CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: u64::MAX, sequence_floor: u64::MAX };
        let mut none = |_: &StoredRecord| false;
        let report = compact_segments(&data(), &filesystem, &options, &mut none, &mut |_, _| {}).expect("goes on");
        assert!(report.left_alone.iter().any(|left| left.path == *refused), "{offset}: {report:?}");
        assert!(report.segments_removed >= 2, "{offset}: {report:?}");
    }
}

/// A store with an acquisition whose start is a record of several blocks; where that lies.
fn store_with_a_long_start(dir: &Path) -> (CrashFs, PathBuf, usize) {
    let fs = CrashFs::default();
    let (store, _) = Store::open(dir, &fs, Arc::new(MemoryStore::default())).expect("opens");
    let long = AcquisitionStarted { log_text: "[General]\n".repeat(900), ..started(1) };
    store.catalog.start_acquisition(long).expect("started");
    store.close().expect("closed");
    let segments = fs.files(dir.join("journal"));
    let place = |path: &PathBuf| fs.bytes_of(path).windows(14).position(|bytes| bytes == b"a_logfile.ini\"");
    let (path, at) = segments.iter().find_map(|path| Some((path.clone(), place(path)?))).expect("stored");
    (fs, path, at)
}

#[test]
fn what_a_start_could_not_read_is_in_the_index_as_soon_as_a_start_can() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (fs, path, at) = store_with_a_long_start(dir.path());
    // The block behind the record's header.
    fs.refuse(&path, at / BLOCK * BLOCK + BLOCK);
    let rows = Arc::new(MemoryStore::default());
    for (is_there, outcome) in [(false, "Built"), (false, "CaughtUp"), (true, "Rebuilt"), (true, "CaughtUp")] {
        if outcome == "Rebuilt" {
            fs.give_back();
        }
        let (store, opened) = Store::open(dir.path(), &fs, Arc::clone(&rows)).expect("opens");
        let view = store.catalog.acquisition(AcqId(1)).filter(|view| view.head.started.is_some());
        assert_eq!(view.is_some(), is_there, "{outcome}");
        assert!(format!("{:?}", opened.index.outcome).starts_with(outcome), "{outcome}: {:?}", opened.index.outcome);
        store.close().expect("closed");
    }
}

#[test]
fn records_that_no_table_and_no_scan_finds_rebuild_the_index_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (fs, path, at) = store_with_a_long_start(dir.path());
    let header = at / BLOCK * BLOCK + 20;
    fs.flip(&path, header);
    // The table is the last block but one.
    fs.flip(&path, fs.bytes_of(&path).len() - 2 * BLOCK + 20);
    let rows = Arc::new(MemoryStore::default());
    let outcomes: Vec<String> = (0..3)
        .map(|_| {
            let (store, opened) = Store::open(dir.path(), &fs, Arc::clone(&rows)).expect("opens");
            store.close().expect("closed");
            format!("{:?}", opened.index.outcome)
        })
        .collect();
    assert_eq!(outcomes, ["Built", "CaughtUp", "CaughtUp"]);
}

#[test]
fn a_block_that_can_not_be_read_in_a_torn_place_does_not_stop_the_start() {
    let (fs, path, places) = unsealed_and_followed();
    let end = usize::try_from(places[2].offset).expect("small") + 2 * BLOCK;
    let file = Filesystem::open_write(&fs, &path).expect("a segment");
    let mut torn = AlignedBytes::zeroed(3 * BLOCK);
    torn.fill(7);
    file.write_all_at(&mut [IoSlice::new(&torn)], end as u64).expect("written");
    file.sync().expect("synced");
    fs.refuse(&path, end + BLOCK);
    let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    assert!(report.damage.iter().all(|found| found.kind == DamageKind::Torn), "{:?}", report.damage);
    assert_eq!(journal.records_after(Sequence(0)).filter(Result::is_ok).count(), 4);
}
