//! What is counted while tiles are sent: by each thread for itself, put together at the end and once a second.

use super::faults::FaultTally;
use super::plan::Verify;
use super::samples::Samples;
use super::source::Place;
use crate::model::Pressure;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Statuses other than 0 that are told apart; the last is for those that are none of them.
pub const STATUSES: usize = 5;
/// The longest time that a histogram tells from longer ones, microseconds.
const TIME_US_MAX: u64 = 3_600_000_000;
/// Tiles with a corrupt checksum that are looked for afterwards.
const CORRUPT_KEPT_MAX: usize = 1000;

/// A histogram of times in microseconds.
#[must_use]
pub fn times(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_US_MAX, digits).expect("bounds and digits are constants that fit each other")
}

/// Records a time given in nanoseconds.
pub fn record(times: &mut Histogram<u64>, ns: u64) {
    times.saturating_record(ns / 1000);
}

/// Adds one histogram to another of the same kind.
pub fn add(to: &mut Histogram<u64>, more: &Histogram<u64>) {
    to.add(more).expect("both have the same bounds");
}

/// Why a tile that was due had to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The window of every connection was full: the server had not answered.
    Window,
    /// Every connection was still writing an earlier tile.
    Writing,
    /// The tile was not read yet.
    Source,
    /// There was no connection.
    Connection,
}

/// Tiles that were due and had to wait, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// For a place in a window.
    pub window: u64,
    /// For an earlier tile to be written.
    pub writing: u64,
    /// For the source.
    pub source: u64,
    /// For a connection.
    pub connection: u64,
}

impl Waits {
    /// One more.
    pub fn count(&mut self, wait: Wait) {
        *match wait {
            Wait::Window => &mut self.window,
            Wait::Writing => &mut self.writing,
            Wait::Source => &mut self.source,
            Wait::Connection => &mut self.connection,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.window + self.writing + self.source + self.connection
    }

    fn add(&mut self, more: Self) {
        self.window += more.window;
        self.writing += more.writing;
        self.source += more.source;
        self.connection += more.connection;
    }
}

/// Counts by status: 1, 2, 3, 4, any other.
pub type Refusals = [u64; STATUSES];

/// Where a status is counted.
#[must_use]
pub fn slot(status: i16) -> usize {
    match status {
        1..=4 => usize::from(status.unsigned_abs()) - 1,
        _ => STATUSES - 1,
    }
}

/// Everything that one thread, or all, counted.
pub struct Tally {
    /// From when a tile was due to its answer.
    pub latency: Histogram<u64>,
    /// From a tile's first byte to its answer.
    pub service: Histogram<u64>,
    /// From when a tile was due to its first byte, where nothing hindered it.
    pub schedule_error: Histogram<u64>,
    /// The same, where it had to wait.
    pub behind: Histogram<u64>,
    /// Tiles that had to wait.
    pub waits: Waits,
    /// Tiles whose first byte was written, faults left out.
    pub begun: u64,
    /// Tiles that were due and never begun.
    pub unsent: u64,
    /// Tiles that were begun and never answered.
    pub unanswered: u64,
    /// Tiles acknowledged.
    pub acknowledged: u64,
    /// Of these, while tiles were due.
    pub acknowledged_in_time: u64,
    /// Bytes of images acknowledged.
    pub bytes: u64,
    /// Of these, while tiles were due.
    pub bytes_in_time: u64,
    /// Tiles refused without a fault.
    pub refused: Refusals,
    /// Answers by pressure: GREEN, YELLOW, RED.
    pub pressure: [u64; 3],
    /// Connections that broke without a fault.
    pub broken: u64,
    /// Faults.
    pub faults: FaultTally,
    /// Tiles to be read back.
    pub samples: Samples,
    /// Places of tiles with a corrupt checksum.
    pub corrupt: Vec<Place>,
    /// When the last answer came, nanoseconds from the start.
    pub last_answer: u64,
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new(verify: Verify, seed: u64) -> Self {
        Self {
            latency: times(3),
            service: times(3),
            schedule_error: times(3),
            behind: times(3),
            waits: Waits::default(),
            begun: 0,
            unsent: 0,
            unanswered: 0,
            acknowledged: 0,
            acknowledged_in_time: 0,
            bytes: 0,
            bytes_in_time: 0,
            refused: Refusals::default(),
            pressure: [0; 3],
            broken: 0,
            faults: FaultTally::default(),
            samples: Samples::new(verify, seed),
            corrupt: Vec::new(),
            last_answer: 0,
        }
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Self) {
        add(&mut self.latency, &other.latency);
        add(&mut self.service, &other.service);
        add(&mut self.schedule_error, &other.schedule_error);
        add(&mut self.behind, &other.behind);
        self.waits.add(other.waits);
        self.begun += other.begun;
        self.unsent += other.unsent;
        self.unanswered += other.unanswered;
        self.acknowledged += other.acknowledged;
        self.acknowledged_in_time += other.acknowledged_in_time;
        self.bytes += other.bytes;
        self.bytes_in_time += other.bytes_in_time;
        self.refused.iter_mut().zip(other.refused).for_each(|(n, more)| *n += more);
        self.pressure.iter_mut().zip(other.pressure).for_each(|(n, more)| *n += more);
        self.broken += other.broken;
        self.faults.merge(other.faults);
        self.samples.merge(other.samples);
        self.corrupt.extend(other.corrupt);
        self.corrupt.truncate(CORRUPT_KEPT_MAX);
        self.last_answer = self.last_answer.max(other.last_answer);
    }

    /// Keeps the place of a tile with a corrupt checksum.
    pub fn keep_corrupt(&mut self, place: Place) {
        if self.corrupt.len() < CORRUPT_KEPT_MAX {
            self.corrupt.push(place);
        }
    }
}

/// What happened within one second, as one thread saw it.
pub struct Interval {
    /// Which second.
    pub second: u64,
    /// Tiles acknowledged.
    pub tiles: u64,
    /// Bytes of their images.
    pub bytes: u64,
    /// Tiles refused, without and with a fault.
    pub refused: Refusals,
    /// Answers by pressure.
    pub pressure: [u64; 3],
    /// From when tiles were due to their answers.
    pub latency: Histogram<u64>,
    /// Tiles in flight at its end.
    pub in_flight: u64,
    /// How late the tile is that is due and waits the longest, at its end, nanoseconds.
    pub late_ns: u64,
}

impl Interval {
    /// Nothing yet.
    #[must_use]
    pub fn new(second: u64) -> Self {
        let (refused, pressure) = (Refusals::default(), [0; 3]);
        Self { second, tiles: 0, bytes: 0, refused, pressure, latency: times(2), in_flight: 0, late_ns: 0 }
    }

    /// Adds what another thread saw within the same second.
    pub fn merge(&mut self, other: &Self) {
        self.tiles += other.tiles;
        self.bytes += other.bytes;
        self.refused.iter_mut().zip(other.refused).for_each(|(n, more)| *n += more);
        self.pressure.iter_mut().zip(other.pressure).for_each(|(n, more)| *n += more);
        add(&mut self.latency, &other.latency);
        self.in_flight += other.in_flight;
        self.late_ns = self.late_ns.max(other.late_ns);
    }

    /// The worst pressure of any answer.
    #[must_use]
    pub fn worst(&self) -> Option<Pressure> {
        let all = [Pressure::Red, Pressure::Yellow, Pressure::Green];
        all.into_iter().find(|pressure| self.pressure[*pressure as usize] > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_places() {
        assert_eq!([1, 2, 3, 4, 5, -1].map(slot), [0, 1, 2, 3, 4, 4]);
    }
}
