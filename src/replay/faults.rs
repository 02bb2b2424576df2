//! Faults on request: what is done wrong on purpose, what the server must then do, and whether it did.
//!
//! Owns the drawing of faults and the judging of answers. A tile has one fault at most.

use super::rate::parse_part;
use crate::model::TileId;
use fastrand::Rng;
use serde::Serialize;
use std::str::FromStr;

/// How often a fault is made when nothing is said.
const PART: f64 = 0.01;
/// Unexpected outcomes that are told one by one.
const TOLD_MAX: usize = 20;

/// Something done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The connection is cut in the middle of the frame; everything unanswered is sent again.
    Cut,
    /// The frame is sent in small pieces with pauses.
    Slow,
    /// The checksum is wrong.
    Corrupt,
    /// The tile is sent again after it was acknowledged.
    Duplicate,
    /// The tile that comes behind is sent first.
    Reorder,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [Self::Cut, Self::Slow, Self::Corrupt, Self::Duplicate, Self::Reorder];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Corrupt => "corrupt",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
        }
    }

    /// What the server must do.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Cut => "acknowledged after the connection was made again",
            Self::Slow | Self::Reorder => "acknowledged",
            Self::Corrupt => "refused with status 1 and not stored",
            Self::Duplicate => "acknowledged with the same tile id",
        }
    }
}

/// One fault and the part of tiles that it befalls: `cut=1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultPart {
    /// The fault.
    pub fault: Fault,
    /// The part of tiles, 0..1.
    pub part: f64,
}

impl FromStr for FaultPart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, part) = text.split_once('=').map_or((text, Ok(PART)), |(name, part)| (name, parse_part(part)));
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name.trim());
        let fault = fault.ok_or_else(|| {
            let known = Fault::ALL.map(Fault::name).join(", ");
            format!("\"{name}\" is no fault: {known}, such as cut=1%")
        })?;
        Ok(Self { fault, part: part? })
    }
}

/// Draws faults.
#[derive(Clone, Debug)]
pub struct FaultDice {
    parts: Vec<FaultPart>,
    random: Rng,
}

impl FaultDice {
    /// Dice for these parts; the same seed draws the same faults.
    #[must_use]
    pub fn new(parts: &[FaultPart], seed: u64) -> Self {
        Self { parts: parts.to_vec(), random: Rng::with_seed(seed) }
    }

    /// The next tile's fault.
    pub fn draw(&mut self) -> Option<Fault> {
        if self.parts.is_empty() {
            return None;
        }
        let mut left = self.random.f64();
        let found = self.parts.iter().find(|part| {
            left -= part.part;
            left < 0.0
        });
        found.map(|part| part.fault)
    }

    /// Somewhere in the middle of a frame of this length.
    pub fn place_in(&mut self, frame_bytes: usize) -> usize {
        self.random.usize(1..frame_bytes.max(2))
    }
}

/// What came of one kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// Faults made.
    pub made: u64,
    /// Of these, with the expected outcome.
    pub as_expected: u64,
    /// Of these, with another outcome.
    pub unexpected: u64,
}

/// What came of all faults.
#[derive(Clone, Debug, Default)]
pub struct FaultTally {
    counts: [FaultCount; Fault::ALL.len()],
    /// The first unexpected outcomes.
    pub told: Vec<String>,
}

impl FaultTally {
    /// A fault was made.
    pub fn make(&mut self, fault: Fault) {
        self.counts[fault as usize].made += 1;
    }

    /// Its outcome; `what` says it when it is not the expected one.
    pub fn judge(&mut self, fault: Fault, good: bool, what: impl FnOnce() -> String) {
        let count = &mut self.counts[fault as usize];
        if good {
            count.as_expected += 1;
        } else {
            count.unexpected += 1;
            if self.told.len() < TOLD_MAX {
                self.told.push(format!("{}: {}, expected: {}", fault.name(), what(), fault.expected()));
            }
        }
    }

    /// An outcome that was good so far turns out not to be.
    pub fn withdraw(&mut self, fault: Fault, what: String) {
        let count = &mut self.counts[fault as usize];
        count.as_expected = count.as_expected.saturating_sub(1);
        self.judge(fault, false, || what);
    }

    /// The count of one fault.
    #[must_use]
    pub fn count(&self, fault: Fault) -> FaultCount {
        self.counts[fault as usize]
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            count.made += more.made;
            count.as_expected += more.as_expected;
            count.unexpected += more.unexpected;
        }
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }
}

/// What an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Status 0.
    Acknowledged,
    /// Status 0 and this tile id.
    SameId(TileId),
    /// Status 1.
    Refused,
}

impl Expected {
    /// Is the answer so?
    #[must_use]
    pub fn holds(self, status: i16, tile: TileId) -> bool {
        match self {
            Self::Acknowledged => status == 0,
            Self::SameId(id) => status == 0 && tile == id,
            Self::Refused => status == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_drawn_as_often_as_was_asked_for() {
        let parts = ["cut=1%", "corrupt=0.05", "slow"].map(|text| text.parse().expect(text));
        let mut dice = FaultDice::new(&parts, 3);
        let mut counts = [0u32; 5];
        for _ in 0..100_000 {
            if let Some(fault) = dice.draw() {
                counts[fault as usize] += 1;
            }
        }
        assert!((900..1100).contains(&counts[0]) && (900..1100).contains(&counts[1]), "{counts:?}");
        assert!((4700..5300).contains(&counts[2]) && counts[3..] == [0, 0], "{counts:?}");
        for bad in ["crash=1%", "cut=x", "cut=200%", ""] {
            assert!(bad.parse::<FaultPart>().is_err(), "{bad} parsed");
        }
    }

    #[test]
    fn outcomes_are_judged_and_the_first_wrong_ones_told() {
        let mut tally = FaultTally::default();
        let duplicate = Expected::SameId(TileId(7));
        for id in [7, 8] {
            tally.make(Fault::Duplicate);
            tally.judge(Fault::Duplicate, duplicate.holds(0, TileId(id)), || format!("tile id {id}"));
        }
        let expected = FaultCount { made: 2, as_expected: 1, unexpected: 1 };
        assert_eq!(tally.count(Fault::Duplicate), expected);
        assert_eq!(tally.told, ["duplicate: tile id 8, expected: acknowledged with the same tile id"]);
        assert!(!Expected::Refused.holds(0, TileId(1)) && Expected::Refused.holds(1, TileId::NONE));
    }
}
