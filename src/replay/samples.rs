//! Which of the acknowledged tiles are read back after the run.

use super::plan::Verify;
use super::source::ImageId;
use fastrand::Rng;

/// A tile to be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// What it must hold.
    pub id: ImageId,
}

/// Tiles to be read back: all, or so many that each had the same chance.
#[derive(Debug)]
pub struct Samples {
    wanted: Verify,
    seen: u64,
    kept: Vec<Sample>,
    random: Rng,
}

impl Samples {
    /// Nothing kept yet.
    #[must_use]
    pub fn new(wanted: Verify, seed: u64) -> Self {
        Self { wanted, seen: 0, kept: Vec::new(), random: Rng::with_seed(seed) }
    }

    /// A stable tile was acknowledged.
    pub fn offer(&mut self, sample: Sample) {
        self.seen += 1;
        match self.wanted {
            Verify::Nothing => {}
            Verify::All => self.kept.push(sample),
            Verify::Sample(n) if self.kept.len() < n => self.kept.push(sample),
            Verify::Sample(_) => {
                let place = usize::try_from(self.random.u64(..self.seen)).unwrap_or(usize::MAX);
                if let Some(kept) = self.kept.get_mut(place) {
                    *kept = sample;
                }
            }
        }
    }

    /// Those that were kept.
    #[must_use]
    pub fn kept(&self) -> &[Sample] {
        &self.kept
    }

    /// Each thread kept as many as are wanted in all: of two, some are taken of each by what they have seen.
    pub(super) fn merge(&mut self, other: Self) {
        let (mut mine, mut others) = (std::mem::take(&mut self.kept), other.kept);
        let Verify::Sample(n) = self.wanted else {
            mine.append(&mut others);
            self.kept = mine;
            return;
        };
        self.random.shuffle(&mut mine);
        self.random.shuffle(&mut others);
        let (mut left, mut others_left) = (self.seen, other.seen);
        while self.kept.len() < n && !(mine.is_empty() && others.is_empty()) {
            let take_mine = self.random.u64(..(left + others_left).max(1)) < left;
            let (from, count) = if take_mine && !mine.is_empty() || others.is_empty() {
                (&mut mine, &mut left)
            } else {
                (&mut others, &mut others_left)
            };
            self.kept.extend(from.pop());
            *count = count.saturating_sub(1);
        }
        self.seen += other.seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: u32) -> Sample {
        Sample { col: n, row: 0, id: ImageId { group: 0, index: 0 } }
    }

    #[test]
    fn samples_are_as_many_as_wanted_and_come_from_everywhere() {
        let mut halves = [0u32; 2];
        for seed in 0..200 {
            let mut first = Samples::new(Verify::Sample(10), seed);
            let mut second = Samples::new(Verify::Sample(10), seed + 1000);
            (0..300).for_each(|n| first.offer(sample(n)));
            (300..400).for_each(|n| second.offer(sample(n)));
            first.merge(second);
            assert_eq!(first.kept().len(), 10);
            first.kept().iter().for_each(|kept| halves[usize::from(kept.col >= 300)] += 1);
        }
        assert!((400..600).contains(&halves[1]), "a quarter of 2000 is expected from the second: {halves:?}");
    }

    #[test]
    fn all_keeps_all_and_nothing_none() {
        for (wanted, kept) in [(Verify::All, 40), (Verify::Nothing, 0)] {
            let mut first = Samples::new(wanted, 1);
            let mut second = Samples::new(wanted, 2);
            (0..20).for_each(|n| {
                first.offer(sample(n));
                second.offer(sample(n + 20));
            });
            first.merge(second);
            assert_eq!(first.kept().len(), kept);
        }
    }
}
