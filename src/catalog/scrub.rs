//! The scrub: a thread that reads the whole journal again, slowly and over and over, to find damage before a reader does.
//!
//! Reads at most [`ScrubRate`], one step at a time, around the page cache, rests long after each step while tiles come, and
//! waits while senders press. Where it is in a pass is kept in the file `scrub`, which is a hint: without it, or with a wrong one, a pass begins anew. Must
//! never write to the journal.

use super::damage::{DamageLog, Finding, FoundBy};
use super::scrub_control::{Interrupted, ScrubControl};
use super::{Catalog, Lanes};
use crate::base::units::ByteSize;
use crate::base::{clock, importance};
use crate::journal::{BadRecord, CopyState, ReadError};
use crate::model::{Location, Pressure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two looks at the pressure.
const PRESSED: Duration = Duration::from_millis(200);
/// What the scrub may be behind its rate and catch up; more is forgotten, so that it never bursts.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// While tiles come, the scrub rests this many times as long as its last step took: a sixteenth of the time is its own, so
/// that it takes less than a tenth of what capture could do (bench/scrub.rs).
const REST: u32 = 15;
/// Longest such rest, however slow the disk was.
const REST_MAX: Duration = Duration::from_secs(2);

/// How fast the scrub reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubRate {
    /// Not at all.
    Off,
    /// Bytes a second.
    Bytes(u64),
    /// As fast as the disk gives them.
    Unlimited,
}

/// How the scrub works.
#[derive(Clone, Copy, Debug)]
pub struct ScrubOptions {
    /// How fast it reads.
    pub rate: ScrubRate,
    /// From the start of one pass to the start of the next.
    pub interval: Duration,
}

impl FromStr for ScrubRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "unlimited" => Ok(Self::Unlimited),
            _ => match text.parse::<ByteSize>().map_err(|error| format!("{error}; or off, or unlimited"))? {
                ByteSize(0) => Ok(Self::Off),
                ByteSize(bytes) => Ok(Self::Bytes(bytes)),
            },
        }
    }
}

impl fmt::Display for ScrubRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Bytes(bytes) => ByteSize(*bytes).fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// The scrub's thread.
pub struct Scrub {
    catalog: Arc<Catalog>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts the scrub of the catalog's journal, as [`Catalog::scrub`] says; one that is switched off waits until it is
    /// switched on.
    ///
    /// # Errors
    /// The thread can not be started.
    pub fn start(options: ScrubOptions, data_dir: &Path, catalog: &Arc<Catalog>, lanes: &Lanes) -> io::Result<Self> {
        catalog.scrub().configure(options.rate, options.interval);
        let hint = data_dir.join("scrub");
        let scrubber = Scrubber { catalog: Arc::clone(catalog), lanes: lanes.clone(), hint, turn: Mutex::default() };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || scrubber.run())?;
        Ok(Self { catalog: Arc::clone(catalog), thread: Some(thread) })
    }

    /// Ends the thread, within a step.
    pub fn stop(mut self) {
        self.catalog.scrub().end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.catalog.scrub().end();
    }
}

/// Where a pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// When it began, s since 1970 UTC.
    began_s: i64,
    /// The segment that is read next; `None` when the pass is through.
    next_segment: Option<u64>,
}

struct Scrubber {
    catalog: Arc<Catalog>,
    lanes: Lanes,
    hint: PathBuf,
    turn: Mutex<Turn>,
}

/// The scrub's turn to read.
#[derive(Default)]
struct Turn {
    /// When the last step was due, and its bytes.
    step: Option<(Instant, usize)>,
    /// When the last step was let go.
    went: Option<Instant>,
    /// Bytes received from senders until then.
    received: u64,
}

impl Turn {
    /// When the next step may be read, at this rate.
    fn due(&self, rate: ScrubRate, now: Instant) -> Instant {
        let earliest = now.checked_sub(BEHIND_MAX).unwrap_or(now);
        let due = match (self.step, rate) {
            (Some((due, bytes)), ScrubRate::Bytes(per_s)) => due + Duration::from_secs_f64(bytes as f64 / per_s as f64),
            (Some((due, _)), ScrubRate::Off | ScrubRate::Unlimited) => due,
            (None, _) => now,
        };
        due.max(earliest)
    }

    /// How long to rest now: nothing, unless tiles came since the last step went.
    fn rest(&self, now: Instant, received: u64) -> Duration {
        match self.went {
            Some(went) if received != self.received => (now.saturating_duration_since(went) * REST).min(REST_MAX),
            _ => Duration::ZERO,
        }
    }
}

impl Scrubber {
    fn run(self) {
        importance::yield_to_others();
        if !self.control().await_allowed() {
            return;
        }
        let (mut position, mut waited) = self.resume();
        while self.control().await_turn(waited) {
            let began = Instant::now();
            let passed = self.pass(&mut position);
            self.control().rests();
            if passed.is_err() {
                // Stopped, or switched off: it goes on there.
                waited = Duration::ZERO;
                continue;
            }
            self.catalog.metrics().scrub_passes.inc();
            waited = self.control().interval().saturating_sub(began.elapsed());
            position = Position { began_s: 0, next_segment: None };
        }
    }

    fn control(&self) -> &ScrubControl {
        self.catalog.scrub()
    }

    /// Where the last run left off, and how long to wait before going on. What the wall clock says decides only how long
    /// that is, and never more than an interval.
    fn resume(&self) -> (Position, Duration) {
        let read = std::fs::read(&self.hint).ok().and_then(|bytes| serde_json::from_slice::<Position>(&bytes).ok());
        match read {
            Some(position) if position.next_segment.is_some() => (position, Duration::ZERO),
            Some(position) => {
                self.catalog.metrics().scrub_progress.set(1.0);
                let since = u64::try_from(now_s().saturating_sub(position.began_s)).unwrap_or(0);
                (Position::default(), self.control().interval().saturating_sub(Duration::from_secs(since)))
            }
            None => (Position::default(), Duration::ZERO),
        }
    }

    /// Reads what was in the journal when the pass was begun or gone on with.
    fn pass(&self, position: &mut Position) -> Result<(), Interrupted> {
        if position.next_segment.is_none() {
            *position = Position { began_s: now_s(), next_segment: Some(0) };
        }
        let segments = self.catalog.journal().segments();
        let all: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        let mut done = 0;
        for (number, bytes) in segments {
            if position.next_segment.is_some_and(|next| number >= next) {
                self.segment(number)?;
                position.next_segment = Some(number + 1);
                self.keep(*position);
            }
            done += bytes;
            self.catalog.metrics().scrub_progress.set(done as f64 / all as f64);
        }
        self.keep(Position { next_segment: None, ..*position });
        Ok(())
    }

    fn segment(&self, number: u64) -> Result<(), Interrupted> {
        let pace = |bytes: usize| self.pace(bytes).map_err(|Interrupted| io::ErrorKind::Interrupted.into());
        let scrubbed = match self.catalog.journal().scrub_segment(number, &pace) {
            Ok(scrubbed) => scrubbed,
            Err(ReadError::Missing(_)) => return Ok(()),
            Err(_) if self.control().pause(Duration::ZERO).is_err() => return Err(Interrupted),
            Err(error) => {
                tracing::warn!(%error, "a segment could not be read again");
                return Ok(());
            }
        };
        let findings: Vec<Finding> = scrubbed.bad.iter().filter_map(|bad| self.bad_record(number, bad)).collect();
        if scrubbed.whole {
            self.damage().settle(number, &findings);
        }
        Ok(())
    }

    /// All that is done about a record that does not hold: it is written anew from a mirror that has it, or reported.
    fn bad_record(&self, segment: u64, bad: &BadRecord) -> Option<Finding> {
        let journal = self.catalog.journal();
        let record = bad.header.filter(|_| journal.mirror().is_some());
        let location = record.map(|record| Location { segment, offset: bad.offset, payload_len: record.payload_len });
        let copies = location.and_then(|location| journal.check_record(location).ok());
        if copies.is_some_and(|copies| copies.data == CopyState::Repaired) {
            return None;
        }
        let finding = Finding::of_bad(segment, bad, FoundBy::Scrub);
        if self.damage().found(&finding) {
            self.catalog.metrics().scrub_findings.inc();
        }
        Some(finding)
    }

    fn damage(&self) -> &DamageLog {
        self.catalog.damage()
    }

    /// Waits until the next step may be read: for its turn at the rate, for the rest that tiles have from it, and while
    /// senders press.
    fn pace(&self, bytes: usize) -> Result<(), Interrupted> {
        let metrics = self.catalog.metrics();
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.control().pause(turn.rest(Instant::now(), metrics.received_bytes.get()))?;
        while self.pressure() != Pressure::Green {
            self.control().pause(PRESSED)?;
        }
        loop {
            // Another rate, another time.
            let (rate, now) = (self.control().rate(), Instant::now());
            let due = turn.due(rate, now);
            self.control().pause_at(rate, due.saturating_duration_since(now))?;
            if due <= Instant::now() {
                turn.step = Some((due, bytes));
                break;
            }
        }
        (turn.went, turn.received) = (Some(Instant::now()), metrics.received_bytes.get());
        metrics.scrub_bytes.inc_by(bytes as u64);
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        self.catalog.index_pressure().max(self.catalog.memory_pressure(&self.lanes))
    }

    /// A hint that is lost costs one pass: it is not synced, and an error is passed over.
    fn keep(&self, position: Position) {
        let new = self.hint.with_extension("new");
        let text = serde_json::to_vec(&position).expect("plain data has a JSON form");
        let _ = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.hint));
    }
}

fn now_s() -> i64 {
    clock::unix_ns() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scrub_rests_after_a_step_only_while_tiles_come() {
        let began = Instant::now();
        let turn = Turn { step: None, went: Some(began), received: 1000 };
        let after = |ms| began + Duration::from_millis(ms);
        assert_eq!(turn.rest(after(2), 1000), Duration::ZERO, "nothing came");
        assert_eq!(turn.rest(after(2), 1001), Duration::from_millis(2) * REST);
        assert_eq!(turn.rest(after(60_000), 1001), REST_MAX);
        assert_eq!(Turn::default().rest(began, 7), Duration::ZERO, "the first step");
    }

    #[test]
    fn a_step_is_due_by_the_rate_that_is_now_whatever_it_was_before() {
        let now = Instant::now();
        assert_eq!(Turn::default().due(ScrubRate::Bytes(1), now), now, "the first step");
        let turn = Turn { step: Some((now, 1 << 20)), ..Turn::default() };
        assert_eq!(turn.due(ScrubRate::Bytes(1), now), now + Duration::from_secs(1 << 20));
        assert_eq!(turn.due(ScrubRate::Bytes(1 << 20), now), now + Duration::from_secs(1));
        assert_eq!(turn.due(ScrubRate::Unlimited, now), now);
        let later = now + Duration::from_secs(60);
        assert_eq!(
            turn.due(ScrubRate::Bytes(1 << 20), later),
            later - BEHIND_MAX,
            "it does not catch up with a minute"
        );
    }

    #[test]
    fn a_rate_is_a_size_off_or_unlimited() {
        for (text, rate) in [
            ("32MiB", ScrubRate::Bytes(32 << 20)),
            ("0", ScrubRate::Off),
            ("off", ScrubRate::Off),
            ("unlimited", ScrubRate::Unlimited),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        assert!("fast".parse::<ScrubRate>().is_err());
    }
}
