//! What a side holds that is brought up to date and the other has lost: taken over, or kept under another name.

use crate::disk::{Call, CrashFs, Fault};
use crate::journal::{append_one, data, journal_options};
use crate::mirrored::{a_pair, await_sync, mirror_dir, mirrored};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::journal::{
    BackupError, CompactOptions, Filesystem, Journal, MirrorPhase, StoredRecord, back_up, compact_segments,
    verify_segments,
};

/// A daemon's life on one side alone: the other one is out of date from then on.
pub fn open_alone(fs: &CrashFs, dir: &Path) {
    let (journal, _) = Journal::open(dir, Arc::new(fs.clone()), journal_options()).expect("opens");
    journal.close();
}

fn compact(fs: &CrashFs, dir: &Path, is_live: impl Fn(&StoredRecord) -> bool) {
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let options =
        CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: u64::MAX, sequence_floor: u64::MAX };
    compact_segments(dir, &filesystem, &options, &mut |record| is_live(record), &mut |_, _| {}).expect("compacts");
}

/// A start with both sides, until they are equal.
pub fn open_both(first: &CrashFs, second: &CrashFs, context: &str) {
    let filesystem = mirrored(first, second);
    let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
    await_sync(filesystem.mirror().expect("a mirror"), context);
    journal.close();
}

pub fn segments(fs: &CrashFs, dir: &Path) -> Vec<PathBuf> {
    let mut segments = fs.files(dir.join("journal"));
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "tcj"));
    segments
}

pub fn twin(segment: &Path) -> PathBuf {
    mirror_dir().join("journal").join(segment.file_name().expect("a name"))
}

fn kept(segment: &Path) -> PathBuf {
    let mut name: OsString = segment.as_os_str().to_owned();
    name.push(".kept");
    PathBuf::from(name)
}

/// The bytes of a file, if it is there.
fn bytes(fs: &CrashFs, path: &Path) -> Option<Vec<u8>> {
    fs.everything().remove(path)
}

fn cut_in_half(fs: &CrashFs, segment: &Path) {
    let file = fs.open_write(segment).expect("there");
    file.set_len(fs.bytes_of(segment).len() as u64 / 2 / 4096 * 4096).expect("cut");
    file.sync().expect("synced");
}

fn assert_nothing_damaged(fs: &CrashFs, dir: &Path) {
    let verified = verify_segments(dir, fs, &mut |_| {}).expect("readable");
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
}

#[test]
fn a_segment_that_only_the_mirror_holds_is_kept_however_long_ago_a_compaction_was() {
    for lost in 0..4 {
        let (first, second, mut known) = a_pair();
        open_alone(&first, &data());
        compact(&first, &data(), |_| true);
        open_both(&first, &second, "compacted long ago");
        open_alone(&first, &data());
        let segment = segments(&first, &data())[lost].clone();
        let whole = second.bytes_of(&twin(&segment));
        first.remove(&segment).expect("removed");
        let filesystem = mirrored(&first, &second);
        let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
        // The lost segment's number may be given to this one, before the mirror is reached or behind that.
        let mut writer = journal.lane_writer(0);
        append_one(&mut writer, &known.payload(5000));
        writer.sync().expect("synced");
        await_sync(filesystem.mirror().expect("a mirror"), "a segment is gone");
        writer.close().expect("closed");
        journal.close();
        assert!(
            bytes(&second, &kept(&twin(&segment))) == Some(whole),
            "segment {lost} is gone: {:?}",
            second.files(mirror_dir().join("journal"))
        );
    }
}

#[test]
fn what_was_compacted_goes_from_the_mirror_however_often_that_is_cut_off() {
    let (first, second, _) = a_pair();
    open_alone(&first, &data());
    let gone = twin(&segments(&first, &data())[0]);
    compact(&first, &data(), |record| record.header.sequence.0 > 3);
    for nth in 1..25 {
        let (first, second) = (first.copy(), second.copy());
        second.inject(Fault { call: Call::Sync, nth, errno: 5, lasts: false });
        open_both(&first, &second, "cut off");
        let left = second.files(mirror_dir().join("journal"));
        assert!(!left.contains(&gone) && !left.contains(&kept(&gone)), "failed sync {nth}: {left:?}");
    }
}

#[test]
fn a_start_that_is_cut_off_while_it_fills_the_data_directory_brings_back_nothing_that_was_compacted() {
    let (first, second, _) = a_pair();
    open_alone(&second, &mirror_dir());
    let gone = twin(&segments(&first, &data())[0]);
    let last_of_it = 3;
    compact(&second, &mirror_dir(), |record| record.header.sequence.0 > last_of_it);
    assert!(bytes(&second, &gone).is_none(), "nothing was compacted: the test shows nothing");
    let mut cut_off = 0;
    for calls in 1..200 {
        let (first, second) = (first.copy(), second.copy());
        first.burn_after(calls);
        let opened =
            Journal::open(&data(), mirrored(&first, &second), journal_options()).map(|(journal, _)| journal.close());
        cut_off += u32::from(opened.is_err());
        let (first, second) = (first.copy(), second.copy());
        open_both(&first, &second, "cut off");
        assert!(bytes(&second, &gone).is_none(), "back after {calls} calls");
        assert_eq!(segments(&first, &data()).len(), segments(&second, &mirror_dir()).len());
    }
    assert!(cut_off > 2, "no start was cut off: the test shows nothing");
}

#[test]
fn a_shortened_segment_does_not_take_its_whole_copy_away() {
    let (first, second, _) = a_pair();
    let segment = segments(&first, &data())[1].clone();
    let whole = first.bytes_of(&segment);
    {
        let (first, second) = (first.copy(), second.copy());
        open_alone(&first, &data());
        cut_in_half(&first, &segment);
        open_both(&first, &second, "data directory cut");
        assert!(bytes(&second, &kept(&twin(&segment))) == Some(whole.clone()), "the mirror's copy is gone");
        assert_eq!(first.bytes_of(&segment), second.bytes_of(&twin(&segment)));
        // As the message in the log says.
        first.remove(&segment).expect("removed");
        put(&first, &segment, &whole);
        open_both(&first, &second, "put back");
        assert!(second.bytes_of(&twin(&segment)) == whole, "put back");
    }
    open_alone(&second, &mirror_dir());
    cut_in_half(&second, &twin(&segment));
    open_both(&first, &second, "mirror cut");
    assert!(bytes(&first, &kept(&segment)) == Some(whole), "the data directory's copy is gone");
}

fn put(fs: &CrashFs, path: &Path, content: &[u8]) {
    let file = fs.create(path, content.len() as u64).expect("made");
    let mut aligned = AlignedBytes::zeroed(content.len());
    aligned.copy_from_slice(content);
    file.write_all_at(&mut [std::io::IoSlice::new(&aligned)], 0).expect("written");
    file.sync().expect("synced");
    fs.sync_dir(path.parent().expect("a directory")).expect("synced");
}

#[test]
fn a_damaged_segment_header_is_mended_from_the_mirror_and_garbage_does_not_take_its_copy_away() {
    let (first, second, _) = a_pair();
    let segment = segments(&first, &data())[1].clone();
    let whole = first.bytes_of(&segment);
    open_alone(&first, &data());
    let garbage = |len: usize| {
        let (first, second) = (first.copy(), second.copy());
        let mut bytes = AlignedBytes::zeroed(len);
        bytes.fill(0x5a);
        let file = first.open_write(&segment).expect("there");
        file.write_all_at(&mut [std::io::IoSlice::new(&bytes)], 0).expect("written");
        file.sync().expect("synced");
        open_both(&first, &second, "garbage");
        (first, second)
    };
    let (mended, same) = garbage(4096);
    assert!(mended.bytes_of(&segment) == whole && same.bytes_of(&twin(&segment)) == whole, "not mended");
    let (_, lost) = garbage(whole.len());
    assert!(bytes(&lost, &kept(&twin(&segment))) == Some(whole), "the mirror's copy is gone");
}

#[test]
fn a_record_that_rots_in_an_open_segment_while_the_mirror_is_away_is_mended_from_it() {
    let (first, second, mut known) = a_pair();
    let filesystem = mirrored(&first, &second);
    let mirror = filesystem.mirror().expect("a mirror");
    let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
    let before = segments(&first, &data());
    let mut writer = journal.lane_writer(0);
    let mut store = || {
        append_one(&mut writer, &known.payload(9000));
        writer.sync().expect("synced");
    };
    store();
    second.inject(Fault { call: Call::Write, nth: 1, errno: 5, lasts: true });
    store();
    assert_ne!(mirror.phase(), MirrorPhase::InSync);
    let open = segments(&first, &data()).into_iter().find(|path| !before.contains(path)).expect("an open segment");
    first.flip(&open, 4096 + 192 + 100);
    second.lock().heal();
    await_sync(mirror, "back");
    for (fs, dir) in [(&first, data()), (&second, mirror_dir())] {
        assert_nothing_damaged(fs, &dir);
    }
    writer.close().expect("closed");
    journal.close();
}

/// A mirrored pair that was killed with an open segment of three synced records.
fn killed_pair() -> (CrashFs, CrashFs, PathBuf) {
    let (first, second, mut known) = a_pair();
    let filesystem = mirrored(&first, &second);
    let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    for _ in 0..3 {
        append_one(&mut writer, &known.payload(9000));
        writer.sync().expect("synced");
    }
    journal.settle();
    let killed = (first.copy(), second.copy());
    let open = segments(&killed.0, &data()).remove(4);
    drop(writer);
    (killed.0, killed.1, open)
}

#[test]
fn a_record_that_a_start_could_not_find_is_not_put_where_no_reader_looks() {
    let (first, second, segment) = killed_pair();
    let whole = second.bytes_of(&twin(&segment));
    // The header of the second record: a start without the mirror seals the segment without it.
    first.flip(&segment, 4096 + 12288 + 20);
    open_alone(&first, &data());
    let sealed = first.bytes_of(&segment);
    assert!(sealed != whole, "not sealed: the test shows nothing");
    open_both(&first, &second, "back");
    assert!(first.bytes_of(&segment) == sealed, "a record was put into a segment whose table does not list it");
    let left = second.files(mirror_dir().join("journal"));
    assert!(bytes(&second, &kept(&twin(&segment))) == Some(whole), "the record is in no table, and not kept: {left:?}");
    // Put back by hand, as the log says, it is read.
    first.remove(&segment).expect("removed");
    put(&first, &segment, &bytes(&second, &kept(&twin(&segment))).expect("kept"));
    let (journal, _) = Journal::open(&data(), Arc::new(first.clone()), journal_options()).expect("opens");
    assert_eq!(journal.records_after(tilecatcher::model::Sequence(0)).filter(Result::is_ok).count(), 15);
}

#[test]
fn a_compaction_explains_the_segments_that_it_took_and_no_others() {
    let (first, second, _) = a_pair();
    open_alone(&first, &data());
    let all = segments(&first, &data());
    compact(&first, &data(), |record| record.header.sequence.0 > 3);
    assert!(bytes(&first, &all[0]).is_none(), "nothing was compacted: the test shows nothing");
    let lost = all[2].clone();
    let whole = second.bytes_of(&twin(&lost));
    first.remove(&lost).expect("removed");
    open_both(&first, &second, "back");
    assert!(bytes(&second, &kept(&twin(&lost))) == Some(whole), "the last copy of a lost segment is gone");
    let left = second.files(mirror_dir().join("journal"));
    assert!(!left.contains(&twin(&all[0])) && !left.contains(&kept(&twin(&all[0]))), "{left:?}");
}

#[test]
fn a_backup_is_not_made_of_a_side_that_is_being_filled() {
    let (_, whole, known) = a_pair();
    let mut refused = 0;
    for calls in 1..200 {
        let (empty, second) = (CrashFs::default(), whole.copy());
        empty.burn_after(calls);
        let opened = Journal::open(&data(), mirrored(&empty, &second), journal_options());
        let is_whole = opened.map(|(journal, _)| journal.close()).is_ok();
        let side = empty.copy();
        match back_up(&data(), Path::new("/backup"), &side) {
            Ok(report) => assert_eq!(report.records, known.durable.len() as u64, "cut after {calls} calls"),
            Err(BackupError::Input { problem, .. }) => {
                assert!(!is_whole, "{problem}");
                refused += u32::from(problem.contains("incomplete"));
                let verified = verify_segments(&data(), &side, &mut |_| {}).map(|report| report.problems);
                let is_named =
                    verified.is_ok_and(|problems| problems.iter().any(|found| found.problem.contains("incomplete")));
                assert!(is_named || !problem.contains("incomplete"), "cut after {calls} calls");
            }
            Err(error) => panic!("cut after {calls} calls: {error}"),
        }
    }
    assert!(refused > 5, "no start was cut off while it filled the directory: the test shows nothing");
}
