//! One history of a whole store by its seed: a few lives, each cut or killed at some of its calls, checked, and gone on
//! with from one of the disks that were left.

use crate::check::{Seen, check, count, rows_after_crash};
use crate::dice::Dice;
use crate::disk::CrashFs;
use crate::history::{Life, Oracle, compaction, traffic};
use crate::store::{copy_of, journal_options};
use std::path::Path;
use std::sync::Arc;
use tilecatcher::index::MemoryStore;
use tilecatcher::journal::Journal;

/// Lives of a history, and cuts of each life.
const LIVES: usize = 3;
const CUTS: usize = 4;

/// What is left of a disk: after a cut, or a kill, and at times another cut while the next start is under way.
fn crashed(dir: &Path, life: &Life, calls: usize, dice: &mut Dice, seen: &Seen) -> CrashFs {
    let mut disk = life.before.clone();
    life.advance(&mut disk, 0, calls);
    let mut image = if dice.once_in(4) {
        count(&seen.kills, 1);
        disk.after_kill()
    } else {
        disk.after_cut(dice)
    };
    if dice.once_in(4) {
        count(&seen.cut_recoveries, 1);
        image.burn_after(dice.below(40));
        drop(Journal::open(dir, Arc::new(image.clone()), journal_options()));
        image = image.after_cut(dice);
    }
    image
}

pub fn one_history(seed: u64, seen: &Seen) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut dice = Dice::new(seed);
    let (mut fs, mut oracle, mut rows) = (CrashFs::default(), Oracle::default(), MemoryStore::default());
    for number in 0..LIVES {
        let before = oracle.clone();
        let life = if number > 0 && dice.once_in(3) {
            compaction(dir.path(), &fs, &rows, &mut dice)
        } else {
            let steps = 1 + dice.below(12);
            traffic(dir.path(), &fs, &mut oracle, &rows, steps, &mut dice)
        };
        for cut in 1..=CUTS {
            let calls = dice.index(life.ops.len() + 1);
            let image = crashed(dir.path(), &life, calls, &mut dice, seen);
            let found_rows = rows_after_crash(&life, &mut dice);
            let found = check(dir.path(), &image, &life, calls, copy_of(&found_rows), &mut dice, seen);
            if cut == CUTS {
                oracle = Oracle::of(&found, &before, &oracle);
                (fs, rows) = (image.copy(), found_rows);
            }
        }
    }
}
