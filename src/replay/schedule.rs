//! When a sender's tiles are due: by a rate, or as a table says.
//!
//! Computed, not queued: a sender that is behind needs no memory for what it owes. Times are nanoseconds from the start.
//! Must never look at a clock.

use super::profile::{Arrivals, Ramp, Timing};
use fastrand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// The times at which one sender's tiles are due, ascending.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
    /// The next tile's, once it was looked at.
    next: Option<u64>,
}

#[derive(Clone, Debug)]
enum Kind {
    Rate(RateSchedule),
    Table { times: Arc<[u64]>, lap: u64, n: u64 },
}

/// Bursts at a rate that may ramp up, with breaks.
#[derive(Clone, Debug)]
struct RateSchedule {
    /// Bursts a second, before the ramp's share.
    rate: f64,
    timing: Timing,
    burst: u32,
    /// Tiles of the present burst that are left.
    left: u32,
    /// Bursts so far: what the integral of the rate must reach for the next one.
    reached: f64,
    random: Rng,
}

impl Schedule {
    /// Bursts of `burst` tiles, `rate` bursts a second; the first when `phase` (0..1) of a period is over.
    #[must_use]
    pub fn at_rate(rate: f64, burst: u32, phase: f64, timing: Timing, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let reached = match timing.arrivals {
            Arrivals::Constant => phase,
            Arrivals::Poisson => exponential(&mut random),
        };
        let kind = Kind::Rate(RateSchedule { rate, timing, burst, left: burst, reached, random });
        Self { kind, next: None }
    }

    /// The times of a table, again and again: the `lap` is how long one time through it takes. A table without times has
    /// no tiles.
    #[must_use]
    pub fn of_table(times: Arc<[u64]>, lap: Duration) -> Self {
        Self { kind: Kind::Table { times, lap: nanoseconds(lap.as_secs_f64()).max(1), n: 0 }, next: None }
    }

    /// When the next tile is due; `u64::MAX` when none is any more.
    pub fn peek(&mut self) -> u64 {
        match self.next {
            Some(due) => due,
            None => *self.next.insert(self.kind.advance()),
        }
    }

    /// Goes on to the tile behind it.
    pub fn advance(&mut self) {
        if self.next.take().is_none() {
            self.kind.advance();
        }
    }
}

impl Kind {
    fn advance(&mut self) -> u64 {
        match self {
            Self::Rate(schedule) => schedule.advance(),
            Self::Table { times, lap, n } => {
                let len = times.len() as u64;
                if len == 0 {
                    return u64::MAX;
                }
                let time = times[usize::try_from(*n % len).unwrap_or(0)];
                let due = (*n / len).saturating_mul(*lap).saturating_add(time);
                *n += 1;
                due
            }
        }
    }
}

impl RateSchedule {
    fn advance(&mut self) -> u64 {
        if self.left == 0 {
            self.left = self.burst;
            self.reached += match self.timing.arrivals {
                Arrivals::Constant => 1.0,
                Arrivals::Poisson => exponential(&mut self.random),
            };
        }
        self.left -= 1;
        nanoseconds(self.with_breaks(self.time_of(self.reached)))
    }

    /// When so many bursts were due, breaks left out: the inverse of the rate's integral. Seconds.
    fn time_of(&self, bursts: f64) -> f64 {
        let Some(Ramp { from, to, over }) = self.timing.ramp else { return bursts / self.rate };
        let over = over.as_secs_f64();
        let in_ramp = self.rate * over * (from + to) / 2.0;
        if bursts >= in_ramp {
            return over + (bursts - in_ramp) / (self.rate * to);
        }
        // from * t + (to - from) / (2 * over) * t^2 = bursts / rate, solved so that nothing cancels out.
        let slope = (to - from) / over;
        let wanted = bursts / self.rate;
        2.0 * wanted / (from + (from * from + 2.0 * slope * wanted).max(0.0).sqrt())
    }

    fn with_breaks(&self, time: f64) -> f64 {
        let Some((run, pause)) = self.timing.run_and_break else { return time };
        time + (time / run.as_secs_f64()).floor() * pause.as_secs_f64()
    }
}

/// Distance to the next of independent events, of mean 1.
fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // At or above 0; `as` holds at the largest number.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests {
    use super::super::profile::Phase;
    use super::*;

    const PLAIN: Timing =
        Timing { arrivals: Arrivals::Constant, phase: Phase::Spread, ramp: None, run_and_break: None };

    fn times(mut schedule: Schedule, n: usize) -> Vec<u64> {
        let mut next = || {
            let due = schedule.peek();
            schedule.advance();
            due
        };
        (0..n).map(|_| next()).collect()
    }

    impl Schedule {
        fn count_before(mut self, end: u64) -> u64 {
            let mut count = 0;
            while self.peek() < end {
                self.advance();
                count += 1;
            }
            count
        }
    }

    fn seconds(n: u64) -> u64 {
        n * 1_000_000_000
    }

    #[test]
    fn constant_arrivals_have_their_period_phase_and_burst() {
        let schedule = Schedule::at_rate(4.0, 1, 0.5, PLAIN, 1);
        assert_eq!(times(schedule, 3), [125_000_000, 375_000_000, 625_000_000]);
        let bursts = Schedule::at_rate(10.0, 2, 0.0, PLAIN, 1);
        assert_eq!(times(bursts.clone(), 5), [0, 0, 100_000_000, 100_000_000, 200_000_000]);
        assert_eq!(bursts.clone().count_before(seconds(60)), 1200);
    }

    #[test]
    fn temca2_owes_57_tiles_a_second() {
        let small: u64 = (0..8)
            .map(|n| Schedule::at_rate(1.0 / 0.15, 1, f64::from(n) / 8.0, PLAIN, 1).count_before(seconds(90)))
            .sum();
        let large = Schedule::at_rate(4.0, 1, 0.0, PLAIN, 1).count_before(seconds(90));
        assert_eq!((small, large), (4800, 360));
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_the_rate() {
        let timing = Timing { arrivals: Arrivals::Poisson, ..PLAIN };
        let times = times(Schedule::at_rate(1000.0, 1, 0.0, timing, 7), 100_000);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.98..1.02).contains(&mean), "mean {mean} ms");
        assert!((0.96..1.04).contains(&variance.sqrt()), "deviation {} ms", variance.sqrt());
    }

    #[test]
    fn a_ramp_owes_the_area_below_it() {
        let ramp = Some(Ramp { from: 0.0, to: 1.0, over: Duration::from_secs(10) });
        let schedule = Schedule::at_rate(100.0, 1, 0.0, Timing { ramp, ..PLAIN }, 1);
        assert_eq!(schedule.clone().count_before(seconds(5)), 125);
        assert_eq!(schedule.clone().count_before(seconds(10)), 500);
        assert_eq!(schedule.count_before(seconds(20)), 1500);
        let down = Some(Ramp { from: 2.0, to: 1.0, over: Duration::from_secs(10) });
        assert_eq!(Schedule::at_rate(100.0, 1, 0.0, Timing { ramp: down, ..PLAIN }, 1).count_before(seconds(10)), 1500);
    }

    #[test]
    fn nothing_is_due_in_breaks() {
        let run_and_break = Some((Duration::from_secs(2), Duration::from_secs(3)));
        let schedule = Schedule::at_rate(10.0, 1, 0.0, Timing { run_and_break, ..PLAIN }, 1);
        assert_eq!(schedule.clone().count_before(seconds(2)), 20);
        assert_eq!(schedule.clone().count_before(seconds(5)), 20);
        assert_eq!(schedule.count_before(seconds(12)), 60);
    }

    #[test]
    fn a_table_is_gone_through_again_and_again() {
        let schedule = Schedule::of_table(Arc::from([0, 5, 9]), Duration::from_nanos(20));
        assert_eq!(times(schedule, 7), [0, 5, 9, 20, 25, 29, 40]);
        assert_eq!(Schedule::of_table(Arc::from([]), Duration::ZERO).count_before(u64::MAX - 1), 0);
    }
}
