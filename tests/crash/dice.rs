//! Chance: everything random in a history comes from its seed.

/// A small generator.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("below n")
    }

    /// True once in `n` throws.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// How many cuts to make: `ci` unless the environment says more.
pub fn cuts_wanted(ci: u64) -> u64 {
    let long = std::env::var("TILECATCHER_LONG").is_ok_and(|value| value == "1");
    let wanted = std::env::var("TILECATCHER_TEST_CUTS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(if long { ci.saturating_mul(30) } else { ci })
}
