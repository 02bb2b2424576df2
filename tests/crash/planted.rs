//! The tests' own test: ten bugs, planted in the real code one after another, must each be found; without one, nothing.
//!
//! `cargo test --features planted-bugs --test crash planted`

use crate::campaign::one_history;
use crate::check::Seen;
use crate::dice::Dice;
use crate::disk::{Call, Fault};
use crate::errors::{Met, all_faults, calls_made, one_case};
use crate::flips::{Flip, Rotting, Tally};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use tilecatcher::base::planted::{ALL, Bug, plant};

/// A bug that so many histories do not show is not found.
const HISTORIES_MAX: usize = 400;

/// What is tried in order to find a bug.
enum Hunt {
    Histories,
    SyncErrors(Vec<Fault>),
    Flips(Box<Rotting>, Vec<Flip>),
}

impl Hunt {
    fn tries(&self) -> usize {
        match self {
            Self::Histories => HISTORIES_MAX,
            Self::SyncErrors(faults) => faults.len(),
            Self::Flips(_, flips) => flips.len(),
        }
    }

    fn go(&self, n: usize) {
        match self {
            Self::Histories => one_history(n as u64, &Seen::default()),
            Self::SyncErrors(faults) => one_case(faults[n], &Met::default()),
            Self::Flips(rotting, flips) => rotting.check(&flips[n], &Tally::default()),
        }
    }

    /// The first try that does not pass, and what it says.
    fn finds(&self, tries: usize) -> Option<(usize, String)> {
        (0..tries.min(self.tries())).find_map(|n| {
            let panic = catch_unwind(AssertUnwindSafe(|| self.go(n))).err()?;
            let text = panic.downcast_ref::<String>().cloned();
            Some((
                n + 1,
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
            ))
        })
    }
}

#[test]
fn planted_bugs_are_all_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sync_errors =
        all_faults(&calls_made(dir.path())).into_iter().filter(|fault| fault.call == Call::Sync && !fault.lasts);
    let rotting = Box::new(Rotting::new());
    let flips = rotting.flips(100, &mut Dice::new(3)).into_iter().step_by(7).collect();
    let hunts = [Hunt::Histories, Hunt::SyncErrors(sync_errors.collect()), Hunt::Flips(rotting, flips)];
    for hunt in &hunts {
        assert_eq!(hunt.finds(60), None, "found where nothing is planted");
    }
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let found: Vec<_> = ALL
        .into_iter()
        .map(|bug| {
            let hunt = match bug {
                Bug::RetriedSync => &hunts[1],
                Bug::TruncatedOnRot | Bug::HeaderWithoutCrc => &hunts[2],
                _ => &hunts[0],
            };
            plant(Some(bug));
            let found = hunt.finds(usize::MAX);
            plant(None);
            (bug, found)
        })
        .collect();
    set_hook(hook);
    for (bug, found) in &found {
        match found {
            Some((tries, text)) => {
                eprintln!("{bug:?}: found at try {tries}: {}", text.chars().take(140).collect::<String>())
            }
            None => eprintln!("{bug:?}: NOT FOUND"),
        }
    }
    assert!(found.iter().all(|(_, found)| found.is_some()), "a planted bug was not found");
}
