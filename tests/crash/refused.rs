//! Blocks that a disk does not give any more: whoever reads all of a directory names them and goes on.

use crate::disk::CrashFs;
use crate::journal::data;
use crate::mirrored::{a_pair, mirror_dir};
use crate::resync::{open_alone, open_both, segments, twin};
use std::path::Path;
use tilecatcher::journal::{VerifyReport, back_up, verify_segments};

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
