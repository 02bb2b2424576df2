//! What must hold for any bytes that a stranger, a disk or a sender gives: one function for each reader of such bytes.
//!
//! Each target takes bytes, reads them in one way, and asserts what has to come of it; it ends without a panic, whatever
//! they are. The fuzzer in tests/fuzz runs them for hours, the tests below for a moment: on the corpus and on what
//! becomes of it by a few edits. Must never be part of a release: it is compiled for tests and by the fuzzer only.

use crate::base::aligned::AlignedBytes;

pub use crate::catalog::fuzzing::{facts, manifest, wire_stream};
pub use crate::config::fuzzing::config;
pub use crate::formats::fuzzing::{calibrations, csv, ini, names, tiff};
pub use crate::http::fuzzing::{http_query, http_values, multipart};
pub use crate::index::fuzzing::index_rows;
pub use crate::journal::fuzzing::{journal_blocks, journal_open};
pub use crate::wire::fuzzing::{wire_request, wire_response};

/// A target: its name, which is that of its corpus, too, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("calibrations", calibrations),
    ("config", config),
    ("csv", csv),
    ("facts", facts),
    ("http_query", http_query),
    ("http_values", http_values),
    ("index_rows", index_rows),
    ("ini", ini),
    ("journal_blocks", journal_blocks),
    ("journal_open", journal_open),
    ("manifest", manifest),
    ("multipart", multipart),
    ("names", names),
    ("tiff", tiff),
    ("wire_request", wire_request),
    ("wire_response", wire_response),
    ("wire_stream", wire_stream),
];

/// The bytes of a run, taken from the front. When they are used up, zeros follow: every input is a whole one.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        out[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        out
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A number that is often small, and often near the end of its type.
    pub(crate) fn wide(&mut self) -> u64 {
        match self.byte() % 5 {
            0 => u64::from(self.byte()),
            1 => u64::from(self.short()),
            2 => u64::MAX - u64::from(self.byte()),
            3 => u64::from(u32::MAX) - 128 + u64::from(self.byte()),
            _ => u64::from_le_bytes(self.array()),
        }
    }

    /// At most `limit` bytes; how many the input says.
    pub(crate) fn bytes(&mut self, limit: usize) -> &'a [u8] {
        let len = usize::from(self.short()) % (limit + 1);
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn text(&mut self, limit: usize) -> String {
        String::from_utf8_lossy(self.bytes(limit)).into_owned()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Changes bytes of `target`, as many times as the input says.
    pub(crate) fn edit(&mut self, target: &mut [u8]) {
        for _ in 0..self.byte() % 8 {
            let (at, value) = (self.word() as usize, self.byte());
            if !target.is_empty() {
                target[at % target.len()] = value;
            }
        }
    }
}

/// A copy at an aligned address, as buffers of the daemon have it; the length is rounded up.
pub(crate) fn aligned(bytes: &[u8]) -> AlignedBytes {
    let mut copy = AlignedBytes::zeroed(bytes.len());
    copy[..bytes.len()].copy_from_slice(bytes);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    use proptest::{collection, sample};
    use std::path::{Path, PathBuf};

    fn corpus(target: &str) -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    fn each_target_runs_its_corpus(wanted: impl Fn(&str) -> bool) {
        for (name, run) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
            let files = corpus(name);
            assert!(!files.is_empty(), "{name} has no corpus");
            for file in files {
                let bytes = std::fs::read(&file).expect("a readable file");
                let result = std::panic::catch_unwind(|| run(&bytes));
                assert!(result.is_ok(), "{name} fails with {}", file.display());
            }
        }
    }

    /// The corpus holds the inputs of earlier failures, too.
    #[test]
    fn every_input_of_the_corpus_holds() {
        each_target_runs_its_corpus(|_| true);
    }

    #[test]
    fn every_corpus_belongs_to_a_target() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
        }
    }

    /// What an edit does: put in a byte, leave out some, cut, repeat, change, or add another input behind.
    #[derive(Clone, Debug)]
    struct Edit {
        place: sample::Index,
        byte: u8,
        kind: u8,
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let edit = (any::<sample::Index>(), any::<u8>(), 0..6u8);
        collection::vec(edit.prop_map(|(place, byte, kind)| Edit { place, byte, kind }), 0..12)
    }

    fn edited(mut bytes: Vec<u8>, edit: &Edit) -> Vec<u8> {
        let at = edit.place.index(bytes.len() + 1);
        match edit.kind {
            0 => bytes.insert(at, edit.byte),
            1 => drop(bytes.drain(at.saturating_sub(usize::from(edit.byte % 16))..at)),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            4 => bytes.iter_mut().skip(at).take(1).for_each(|old| *old ^= 1 << (edit.byte % 8)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = edit.byte),
        }
        bytes.truncate(1 << 17);
        bytes
    }

    /// The fuzzer's twin, for machines without one: edits of the corpus, and bytes at random.
    fn holds_for_edits(target: &str) {
        let (name, run) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
        let seeds: Vec<Vec<u8>> = corpus(name).iter().map(|file| std::fs::read(file).expect("readable")).collect();
        let long = std::env::var_os("TILECATCHER_LONG").is_some();
        let cases = if cfg!(miri) { 20 } else { 200 * if long { 100 } else { 1 } };
        let strategy = (any::<sample::Index>(), edits(), collection::vec(any::<u8>(), 0..300), any::<bool>());
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let ran = TestRunner::new(config).run(&strategy, |(which, edits, random, from_corpus)| {
            let good = if from_corpus && !seeds.is_empty() { seeds[which.index(seeds.len())].clone() } else { random };
            run(&edits.iter().fold(good, edited));
            Ok(())
        });
        assert!(ran.is_ok(), "{name}: {}", ran.expect_err("checked"));
    }

    macro_rules! twins {
        ($($name:ident)*) => { $(
            #[test]
            fn $name() {
                holds_for_edits(stringify!($name));
            }
        )*
            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
        };
    }

    mod edits_of_the_corpus_hold_for {
        use super::holds_for_edits;

        twins!(calibrations config csv facts http_query http_values index_rows ini journal_blocks journal_open manifest
            multipart names tiff wire_request wire_response wire_stream);
    }

    #[test]
    fn every_target_has_its_twin() {
        let names = edits_of_the_corpus_hold_for::NAMES;
        assert_eq!(names, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
