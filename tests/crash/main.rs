//! Power cuts, kills and storage errors on a model of a disk: whatever subset of unsynced writes survives, what was
//! acknowledged is there and equal, nothing is invented, the index is the fold of the journal, and recovering again
//! changes nothing.
//!
//! | module | what it holds |
//! |---|---|
//! | `cuts` | histories of a whole store, cut anywhere; one small history cut everywhere, with every subset |
//! | `errors` | a storage error at each call of a history in turn |
//! | `flips` | single flipped bits: found, never served, neighbours intact |
//! | `golden` | the files of format version 1, and refusal of newer ones |
//! | `journal`, `compaction`, `mirrored`, `resync`, `refused` | the same below the catalog: records, segments, swaps, two sides, bad blocks |
//! | `planted` | the tests' own test: ten bugs that they must find, `cargo test --features planted-bugs --test crash planted` |
//!
//! A failure prints its seed and the command that runs that seed alone. Threads run in a history, so a seed repeats its
//! commands but not always the order of its calls; the disk that failed is kept as a data directory and named.
//!
//! `TILECATCHER_TEST_CUTS=300000` sets the number of cuts, `TILECATCHER_LONG=1` runs that many without saying so.

#![allow(missing_docs)]
#![cfg_attr(feature = "planted-bugs", allow(dead_code, unused_imports))]

mod campaign;
mod check;
mod dice;
mod disk;
mod errors;
mod flips;
mod history;
mod store;
mod threads;

// With a bug planted the others' tests must fail: they are not compiled beside the self-test.
#[cfg(not(feature = "planted-bugs"))]
mod compaction;
#[cfg(not(feature = "planted-bugs"))]
mod cuts;
#[cfg(not(feature = "planted-bugs"))]
mod golden;
#[cfg(not(feature = "planted-bugs"))]
mod journal;
#[cfg(not(feature = "planted-bugs"))]
mod mirrored;
#[cfg(feature = "planted-bugs")]
mod planted;
#[cfg(not(feature = "planted-bugs"))]
mod refused;
#[cfg(not(feature = "planted-bugs"))]
mod resync;
