//! A fuzz target: gives the fuzzer's bytes to the one of `tilecatcher::fuzzing::TARGETS` that this program is named after.
//!
//! What a target asserts is said there. Must never assert anything itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tilecatcher::fuzzing::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    TARGETS.iter().find(|(target, _)| *target == name).expect("a program is named after a target").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
