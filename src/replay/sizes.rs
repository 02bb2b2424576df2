//! How long tiles are: one length, or a distribution of lengths.

/// Lengths of tiles, bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum TileSizes {
    /// All alike.
    Fixed(u64),
    /// Every length between the two is as likely.
    Uniform(u64, u64),
    /// Mean and standard deviation; cut off at a tenth and at twice the mean.
    Normal(u64, u64),
    /// Lengths and their weights.
    Mixture(Vec<(u64, f64)>),
}

impl TileSizes {
    /// The mean length.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(bytes) => *bytes as f64,
            Self::Uniform(least, most) => (*least as f64 + *most as f64) / 2.0,
            Self::Normal(mean, _) => *mean as f64,
            Self::Mixture(parts) => {
                let weights: f64 = parts.iter().map(|(_, weight)| weight).sum();
                parts.iter().map(|(bytes, weight)| *bytes as f64 * weight).sum::<f64>() / weights
            }
        }
    }

    /// `n` lengths that stand for the distribution: drawn from with equal chances, they give it back.
    #[must_use]
    pub fn strata(&self, n: usize) -> Vec<u64> {
        (0..n).map(|i| self.quantile((i as f64 + 0.5) / n as f64)).collect()
    }

    /// The length below which this part (0..1) of the tiles lies.
    fn quantile(&self, part: f64) -> u64 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Uniform(least, most) => whole(*least as f64 + part * (*most as f64 - *least as f64)),
            Self::Normal(mean, deviation) => {
                let mean = *mean as f64;
                whole((mean + *deviation as f64 * normal_quantile(part)).clamp(mean / 10.0, mean * 2.0))
            }
            Self::Mixture(parts) => {
                let mut left = part * parts.iter().map(|(_, weight)| weight).sum::<f64>();
                let found = parts.iter().find(|(_, weight)| {
                    left -= weight;
                    left < 0.0
                });
                found.or(parts.last()).map_or(1, |(bytes, _)| *bytes)
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Lengths are above 0 and far below 2^52.
fn whole(bytes: f64) -> u64 {
    bytes.round().max(1.0) as u64
}

/// Where the standard normal distribution reaches `part`: by bisection of its integral, for no crate is here for it and
/// this runs once a prepared image.
fn normal_quantile(part: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if normal_share(middle) < part { low = middle } else { high = middle }
    }
    low
}

/// The share of the standard normal distribution below `x`: Simpson's rule from 0.
fn normal_share(x: f64) -> f64 {
    const STEPS: u32 = 64;
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let step = x / f64::from(STEPS);
    let inner: f64 = (1..STEPS).map(|n| f64::from(2 + 2 * (n % 2)) * density(f64::from(n) * step)).sum();
    0.5 + (density(0.0) + inner + density(x)) * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(sizes: &[u64]) -> f64 {
        sizes.iter().sum::<u64>() as f64 / sizes.len() as f64
    }

    #[test]
    fn strata_have_the_mean_of_the_distribution() {
        for sizes in [
            TileSizes::Fixed(5_300_000),
            TileSizes::Uniform(1_000_000, 2_000_000),
            TileSizes::Normal(5_000_000, 500_000),
            TileSizes::Mixture(vec![(1_000_000, 3.0), (5_000_000, 1.0)]),
        ] {
            let of_strata = mean(&sizes.strata(32));
            assert!((of_strata / sizes.mean() - 1.0).abs() < 0.01, "{sizes:?}: {of_strata}");
        }
    }

    #[test]
    fn a_normal_distribution_has_its_deviation() {
        let strata = TileSizes::Normal(10_000_000, 1_000_000).strata(1000);
        let mean = mean(&strata);
        let variance = strata.iter().map(|size| (*size as f64 - mean).powi(2)).sum::<f64>() / 1000.0;
        assert!((0.98e6..1.02e6).contains(&variance.sqrt()), "{}", variance.sqrt());
    }
}
