//! Two model disks under one journal: power cuts of both, failures of one, and starts from either side alone.

use crate::dice::{Dice, cuts_wanted};
use crate::disk::CrashFs;
use crate::journal::{Knowledge, Unsynced, append_one, append_tiles, data, journal_options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tilecatcher::journal::{
    DamageKind, Filesystem, Journal, JournalError, Mirror, MirrorOptions, MirrorPhase, MirroredFilesystem, WhenLost,
    verify_segments,
};
use tilecatcher::model::Sequence;

pub fn mirror_dir() -> PathBuf {
    PathBuf::from("/mirror")
}

pub fn mirrored(first: &CrashFs, second: &CrashFs) -> Arc<dyn Filesystem> {
    let retry = Duration::from_millis(2);
    let options = MirrorOptions { dir: mirror_dir(), when_lost: WhenLost::GoOn, retry, rate_bytes: 0, lock: false };
    Arc::new(MirroredFilesystem::new(Arc::new(first.clone()), Arc::new(second.clone()), &data(), options))
}

/// Appends and syncs on a lane and the control lane, until it is done or the power goes.
fn live_on(filesystem: &Arc<dyn Filesystem>, dice: &mut Dice, known: &mut Knowledge) -> Result<(), JournalError> {
    let (journal, _) = Journal::open(&data(), Arc::clone(filesystem), journal_options())?;
    let mut lanes = [(journal.lane_writer(0), Unsynced::new()), (journal.lane_writer(1), Unsynced::new())];
    for _ in 0..dice.below(40) {
        let (writer, unsynced) = &mut lanes[dice.index(2)];
        match dice.below(8) {
            0..4 => append_tiles(writer, dice, known, unsynced)?,
            4..7 => {
                writer.sync()?;
                known.durable.extend(unsynced.drain(..));
            }
            _ => drop(writer.prewrite(8192)?),
        }
    }
    for (writer, unsynced) in lanes {
        writer.close()?;
        known.durable.extend(unsynced);
    }
    journal.close();
    Ok(())
}

fn records_of(filesystem: Arc<dyn Filesystem>, dir: &Path) -> BTreeMap<Sequence, Vec<u8>> {
    let (journal, report) = Journal::open(dir, filesystem, journal_options()).expect("recovery");
    let corrupt = report.damage.iter().filter(|damage| damage.kind == DamageKind::Corrupt).count();
    assert_eq!(corrupt, 0, "{:?}", report.damage);
    let mut found = BTreeMap::new();
    for record in journal.records_after(Sequence(0)) {
        let record = record.expect("readable");
        found.insert(record.header.sequence, journal.read_control(record.location()).expect("readable"));
    }
    found
}

fn assert_all(known: &Knowledge, found: &BTreeMap<Sequence, Vec<u8>>, context: &str) {
    for (sequence, payload) in &known.durable {
        assert!(found.get(sequence) == Some(payload), "{context}: record {sequence} was synced and is lost or altered");
    }
    for payload in found.values() {
        assert!(known.tried.contains(payload), "{context}: a record was invented");
    }
}

pub fn await_sync(mirror: &Mirror, context: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while mirror.phase() != MirrorPhase::InSync {
        assert!(Instant::now() < until, "{context}: the mirror stays {:?}", mirror.status());
        std::thread::yield_now();
    }
}

#[derive(Debug, Default)]
struct Met {
    in_sync: u64,
    lost: u64,
    refilled: u64,
}

/// Whichever side is looked at alone holds what it must; both together hold everything, and become equal.
fn check(first: &CrashFs, second: &CrashFs, in_sync: bool, known: &Knowledge, context: &str) {
    assert_all(known, &records_of(Arc::new(first.copy()), &data()), &format!("{context}, data alone"));
    if in_sync {
        let alone = records_of(Arc::new(second.copy()), &mirror_dir());
        assert_all(known, &alone, &format!("{context}, mirror alone"));
    }
}

fn one_mirrored_history(seed: u64, met: &mut Met) {
    let mut dice = Dice::new(seed);
    let (mut known, mut first, mut second) = (Knowledge::default(), CrashFs::default(), CrashFs::default());
    for life in 0..4 {
        let context = format!("seed {seed}, life {life}");
        // The machine, the mirror's disk alone, or nothing at all stops at some call.
        let end = dice.below(3);
        if end == 0 {
            first.burn_after(30 + dice.below(200));
        }
        if end == 1 {
            second.burn_after(30 + dice.below(200));
        }
        let filesystem = mirrored(&first, &second);
        let mirror = Arc::clone(filesystem.mirror().expect("a mirror"));
        let _ = live_on(&filesystem, &mut dice, &mut known);
        let in_sync = mirror.phase() == MirrorPhase::InSync;
        if in_sync {
            met.in_sync += 1
        } else {
            met.lost += 1
        }
        drop((mirror, filesystem));
        (first, second) = (first.after_cut(&mut dice), second.after_cut(&mut dice));
        check(&first, &second, in_sync, &known, &context);
        if in_sync && dice.below(3) == 0 {
            // One side is lost altogether: an empty disk in its place.
            if dice.below(2) == 0 {
                first = CrashFs::default()
            } else {
                second = CrashFs::default()
            }
            met.refilled += 1;
        }
        let filesystem = mirrored(&first, &second);
        let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
        await_sync(filesystem.mirror().expect("a mirror"), &context);
        journal.close();
        drop((journal, filesystem));
        check(&first, &second, true, &known, &context);
        for name in first.files("/data/journal") {
            let twin = mirror_dir().join("journal").join(name.file_name().expect("a name"));
            assert!(first.bytes_of(&name) == second.bytes_of(&twin), "{context}: {} differs", name.display());
        }
        let found = records_of(Arc::new(first.copy()), &data());
        known.durable.extend(found);
    }
}

#[test]
fn two_disks_lose_nothing_that_was_synced_whatever_fails_and_whichever_is_looked_at() {
    let mut met = Met::default();
    let histories = cuts_wanted(3000) / 60;
    for seed in 0..histories {
        let history = std::panic::AssertUnwindSafe(|| one_mirrored_history(seed, &mut met));
        assert!(std::panic::catch_unwind(history).is_ok(), "seed {seed}: see above");
    }
    eprintln!("mirrored: seeds 0..{histories}: {met:?}");
    assert!(met.in_sync > 10 && met.lost > 10 && met.refilled > 10, "{met:?}");
}

/// A synced pair with some sealed segments.
pub fn a_pair() -> (CrashFs, CrashFs, Knowledge) {
    let (first, second, mut known) = (CrashFs::default(), CrashFs::default(), Knowledge::default());
    let filesystem = mirrored(&first, &second);
    let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    for _ in 0..12 {
        append_one(&mut writer, &known.payload(9000));
        writer.sync().expect("synced");
    }
    writer.close().expect("closed");
    journal.close();
    let tried: Vec<Vec<u8>> = known.tried.iter().cloned().collect();
    let found = records_of(Arc::new(first.copy()), &data());
    assert!(found.len() == 12 && found.values().all(|payload| tried.contains(payload)));
    known.durable.extend(found);
    (first, second, known)
}

#[test]
fn any_flipped_byte_on_either_side_is_read_right_and_mended() {
    let (first, second, known) = a_pair();
    let mut mended = 0;
    for (n, segment) in first.files("/data/journal").iter().enumerate() {
        let length = first.bytes_of(segment).len();
        for offset in (0..length).step_by(1777) {
            let (first, second) = (first.copy(), second.copy());
            let twin = mirror_dir().join("journal").join(segment.file_name().expect("a name"));
            if (n + offset) % 2 == 0 {
                first.flip(segment, offset)
            } else {
                second.flip(&twin, offset)
            }
            let filesystem = mirrored(&first, &second);
            let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
            for record in journal.records_after(Sequence(0)) {
                let record = record.expect("readable");
                let payload = journal.read_control(record.location()).expect("readable");
                assert!(known.durable.get(&record.header.sequence) == Some(&payload), "offset {offset}");
                journal.check_record(record.location()).expect("there");
            }
            mended += filesystem.mirror().expect("a mirror").status().repairs;
            journal.close();
            for (fs, dir) in [(&first, data()), (&second, mirror_dir())] {
                let verified = verify_segments(&dir, fs, &mut |_| {}).expect("readable");
                let table = |problem: &str| problem.contains("table");
                assert!(verified.problems.iter().all(|found| table(&found.problem)), "{:?}", verified.problems);
            }
        }
    }
    assert!(mended > 10, "{mended} mended");
}

#[test]
fn a_side_that_was_left_behind_is_refused_as_the_truth_and_two_truths_are_refused() {
    let (first, second, mut known) = a_pair();
    let alone = |fs: &CrashFs, dir: &Path, known: &mut Knowledge| {
        let (journal, _) = Journal::open(dir, Arc::new(fs.clone()), journal_options()).expect("opens");
        let mut writer = journal.lane_writer(0);
        append_one(&mut writer, &known.payload(9000));
        writer.close().expect("closed");
        journal.close();
    };
    alone(&first, &data(), &mut known);
    {
        let (first, second) = (first.copy(), second.copy());
        let filesystem = mirrored(&first, &second);
        let (journal, _) = Journal::open(&data(), Arc::clone(&filesystem), journal_options()).expect("opens");
        await_sync(filesystem.mirror().expect("a mirror"), "left behind");
        journal.close();
        let found = records_of(Arc::new(second.copy()), &mirror_dir());
        assert_eq!(found.len(), 13, "the mirror was brought up to date");
    }
    alone(&second, &mirror_dir(), &mut known);
    let split = Journal::open(&data(), mirrored(&first, &second), journal_options());
    let error = split.err().expect("two truths").to_string();
    assert!(error.contains("went on without the other"), "{error}");
}
