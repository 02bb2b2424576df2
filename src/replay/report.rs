//! What came of a replay: figures, the course of time, what is wrong. Serialises to the JSON that `--json` gives.

use super::faults::{Fault, FaultCount};
use super::figures::{Distribution, Point, meaning, refusals};
use super::plan::{Plan, Verify};
use super::profile::{Mode, checksum_name};
use super::rate::Rate;
use super::source::SourceChoice;
use super::tally::{Tally, Waits};
use super::verify::Verified;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A rate that is missed by no more than this was kept: tiles come one by one, and runs are short.
const RATE_TOLERANCE: f64 = 0.01;

/// What came of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Programs.
    pub versions: Versions,
    /// What was asked for.
    pub settings: Settings,
    /// The acquisition.
    pub acquisition: u64,
    /// Was it left?
    pub kept: bool,
    /// How long tiles were due, seconds.
    pub seconds: f64,
    /// Until the last answer, seconds.
    pub seconds_to_last_answer: f64,
    /// Tiles that were due, those with a fault too.
    pub due: u64,
    /// The same a second.
    pub due_per_s: f64,
    /// Tiles acknowledged, duplicates not counted again.
    pub acknowledged: u64,
    /// Bytes of their images.
    pub bytes: u64,
    /// Tiles acknowledged while tiles were due, a second.
    pub tiles_per_s: f64,
    /// Bytes of their images / 10^6, a second.
    pub mb_per_s: f64,
    /// From when a tile was due to its answer; for those never answered, to the end.
    pub latency: Distribution,
    /// From a tile's first byte to its answer.
    pub service: Distribution,
    /// From when a tile was due to its first byte, where nothing hindered it.
    pub schedule_error: Distribution,
    /// The same for tiles that had to wait.
    pub behind: Distribution,
    /// What they had to wait for.
    pub waits: Waits,
    /// Tiles refused without a fault, by status.
    pub refused: BTreeMap<String, u64>,
    /// Tiles that were due and never sent.
    pub unsent: u64,
    /// Tiles without an answer.
    pub unanswered: u64,
    /// Connections that broke without a fault.
    pub connections_broken: u64,
    /// Answers by pressure.
    pub pressure: BTreeMap<&'static str, u64>,
    /// What came of faults.
    pub faults: BTreeMap<&'static str, FaultCount>,
    /// Tiles that the server says it has.
    pub stored: Option<u64>,
    /// What came of reading back.
    pub verify: Verified,
    /// What was expected of the figures.
    pub expectations: Vec<Expectation>,
    /// This program.
    pub client: ClientUse,
    /// Second by second; the last may be a part of one.
    pub series: Vec<Point>,
    /// Why the run ended early.
    pub failure: Option<String>,
    /// Everything that is not as it should be.
    pub problems: Vec<String>,
}

/// Programs.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// This one.
    pub replay: String,
    /// The server.
    pub server: String,
    /// When the server acknowledges.
    pub ack_level: String,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The profile.
    pub profile: String,
    /// Who waits for whom.
    pub mode: Mode,
    /// What the rate was changed to.
    pub rate: Option<String>,
    /// Where tiles come from.
    pub source: String,
    /// Seconds that were asked for.
    pub duration_s: f64,
    /// Senders.
    pub senders: usize,
    /// Connections.
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// Tiles a second while senders run, after the ramp; 0 in a closed loop.
    pub tiles_per_s: f64,
    /// MB a second, likewise.
    pub mb_per_s: f64,
    /// Checksum of each group of senders.
    pub checksums: Vec<&'static str>,
    /// Part of tiles with each fault.
    pub faults: BTreeMap<&'static str, f64>,
    /// Tiles to be read back.
    pub verify: String,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// What this program took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientUse {
    /// Processor time while it sent, seconds; `None` where the system does not say.
    pub cpu_s: Option<f64>,
    /// The same for 10^9 bytes acknowledged.
    pub cpu_s_per_gb: Option<f64>,
}

/// What is expected of the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expectations {
    /// The 99th percentile of the latency is at most this.
    pub p99: Option<Duration>,
    /// The rate is at least this, less 1 %.
    pub rate: Option<Rate>,
}

/// An expectation and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What was expected.
    pub wanted: String,
    /// What was reached.
    pub got: String,
    /// Is it met?
    pub met: bool,
}

/// What is known besides the tally when the run is over.
pub(super) struct Outcome {
    pub(super) versions: Versions,
    pub(super) settings: Settings,
    pub(super) acquisition: u64,
    pub(super) seconds: f64,
    pub(super) cpu_s: Option<f64>,
    pub(super) series: Vec<Point>,
    pub(super) failure: Option<String>,
    pub(super) stored: Option<u64>,
    pub(super) verify: Verified,
}

impl Settings {
    pub(super) fn of(
        plan: &Plan,
        (senders, connections, threads): (usize, usize, usize),
        (tiles_per_s, bytes_per_s): (f64, f64),
    ) -> Self {
        Self {
            profile: plan.profile.name.clone(),
            mode: plan.profile.mode,
            rate: plan.rate.map(|rate| rate.to_string()),
            source: match &plan.source {
                SourceChoice::Synthetic => "synthetic".to_owned(),
                SourceChoice::Folder(dir) => format!("folder {}", dir.display()),
                SourceChoice::Journal { data, .. } => format!("journal {}", data.display()),
                SourceChoice::Timing { file, .. } => format!("timing {}", file.display()),
            },
            duration_s: plan.duration.as_secs_f64(),
            senders,
            connections,
            threads,
            tiles_per_s,
            mb_per_s: bytes_per_s / 1e6,
            checksums: plan.profile.senders.iter().map(|group| checksum_name(group.checksum)).collect(),
            faults: plan.faults.iter().map(|part| (part.fault.name(), part.part)).collect(),
            verify: match plan.verify {
                Verify::Nothing => "nothing".to_owned(),
                Verify::Sample(n) => n.to_string(),
                Verify::All => "all".to_owned(),
            },
            seed: plan.seed,
        }
    }
}

impl Report {
    pub(super) fn new(tally: &Tally, outcome: Outcome) -> Self {
        let seconds = outcome.seconds.max(1e-9);
        let due = tally.begun + tally.unsent;
        let faults = Fault::ALL.map(|fault| (fault.name(), tally.faults.count(fault)));
        let mut report = Self {
            versions: outcome.versions,
            settings: outcome.settings,
            acquisition: outcome.acquisition,
            kept: false,
            seconds,
            seconds_to_last_answer: tally.last_answer as f64 / 1e9,
            due,
            due_per_s: due as f64 / seconds,
            acknowledged: tally.acknowledged,
            bytes: tally.bytes,
            tiles_per_s: tally.acknowledged_in_time as f64 / seconds,
            mb_per_s: tally.bytes_in_time as f64 / 1e6 / seconds,
            latency: Distribution::with_percentiles(&tally.latency),
            service: Distribution::with_percentiles(&tally.service),
            schedule_error: Distribution::with_percentiles(&tally.schedule_error),
            behind: Distribution::with_percentiles(&tally.behind),
            waits: tally.waits,
            refused: refusals(&tally.refused),
            unsent: tally.unsent,
            unanswered: tally.unanswered,
            connections_broken: tally.broken,
            pressure: ["GREEN", "YELLOW", "RED"].into_iter().zip(tally.pressure).collect(),
            faults: faults.into_iter().filter(|(_, count)| count.made > 0).collect(),
            stored: outcome.stored,
            verify: outcome.verify,
            expectations: Vec::new(),
            client: ClientUse {
                cpu_s: outcome.cpu_s,
                cpu_s_per_gb: outcome.cpu_s.filter(|_| tally.bytes > 0).map(|cpu_s| cpu_s / (tally.bytes as f64 / 1e9)),
            },
            series: outcome.series,
            failure: outcome.failure,
            problems: Vec::new(),
        };
        report.problems = report.find_problems(&tally.faults.told);
        report
    }

    fn find_problems(&self, told: &[String]) -> Vec<String> {
        let mut problems: Vec<String> = self.failure.iter().cloned().collect();
        for (status, count) in &self.refused {
            problems.push(format!("{count} tiles were refused with status {status} ({})", meaning(status)));
        }
        let counts = [
            (self.unsent, "tiles were due and never sent: the server, or this machine, is too slow for them"),
            (self.unanswered, "tiles have no answer: whether they are stored is not known"),
            (self.verify.different, "tiles are not stored as they were sent"),
        ];
        let counted = counts.into_iter().filter(|(count, _)| *count > 0);
        problems.extend(counted.map(|(count, what)| format!("{count} {what}")));
        problems.extend(self.verify.told.iter().cloned());
        let unexpected = self.faults.iter().filter(|(_, count)| count.unexpected > 0);
        problems
            .extend(unexpected.map(|(name, count)| format!("fault {name}: {} unexpected outcomes", count.unexpected)));
        problems.extend(told.iter().cloned());
        if let Some(stored) = self.stored.filter(|stored| self.failure.is_none() && *stored != self.acknowledged) {
            problems.push(format!("{} tiles were acknowledged, the server counts {stored}", self.acknowledged));
        }
        problems
    }

    /// Holds the figures against what is expected of them.
    pub fn expect(&mut self, expectations: &Expectations) {
        if let Some(p99) = expectations.p99 {
            let (wanted, got) = (p99.as_secs_f64() * 1e3, self.latency.p99_ms);
            let met = self.latency.count > 0 && got <= wanted;
            self.note("p99", format!("at most {wanted} ms"), format!("{got:.2} ms"), met);
        }
        if let Some(rate) = expectations.rate {
            let (wanted, got, unit) = match rate {
                Rate::Tiles(tiles) => (tiles, self.tiles_per_s, "tiles/s"),
                Rate::Bytes(bytes) => (bytes / 1e6, self.mb_per_s, "MB/s"),
                Rate::Times(times) => (times * self.due_per_s, self.tiles_per_s, "tiles/s"),
            };
            let met = got >= wanted * (1.0 - RATE_TOLERANCE);
            self.note("rate", format!("at least {wanted:.2} {unit} (less 1 %)"), format!("{got:.2} {unit}"), met);
        }
    }

    fn note(&mut self, name: &'static str, wanted: String, got: String, met: bool) {
        if !met {
            self.problems.push(format!("expected {name} of {wanted}, got {got}"));
        }
        self.expectations.push(Expectation { name, wanted, got, met });
    }

    /// Is everything as it should be?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::replay::profile::Profile;

    fn report(change: impl FnOnce(&mut Tally)) -> Report {
        let profile = Profile::load("temca2").expect("a good profile");
        let capture = "127.0.0.1:1".parse().expect("an address");
        let plan = Plan::new(capture, "http://127.0.0.1:1", profile, Duration::from_secs(10));
        let mut tally = Tally::new(Verify::Nothing, 1);
        change(&mut tally);
        let nothing = String::new();
        let outcome = Outcome {
            versions: Versions { replay: nothing.clone(), server: nothing.clone(), ack_level: nothing },
            settings: Settings::of(&plan, (9, 9, 1), (57.3, 362.7e6)),
            acquisition: 1,
            seconds: 10.0,
            cpu_s: Some(1.0),
            series: Vec::new(),
            failure: None,
            stored: None,
            verify: Verified::default(),
        };
        Report::new(&tally, outcome)
    }

    /// A report of nothing.
    pub(in crate::replay) fn empty() -> Report {
        report(|_| {})
    }

    #[test]
    fn expectations_that_fail_are_named_and_a_rate_may_miss_by_one_percent() {
        let mut report = report(|tally| {
            (0..570).for_each(|_| tally.latency.saturating_record(40_000));
            (tally.acknowledged, tally.acknowledged_in_time, tally.begun) = (570, 570, 570);
            (tally.bytes, tally.bytes_in_time) = (5_000_000_000, 5_000_000_000);
        });
        assert!(report.is_good());
        assert_eq!((report.tiles_per_s, report.mb_per_s, report.client.cpu_s_per_gb), (57.0, 500.0, Some(0.2)));
        let p99 = Some(Duration::from_millis(50));
        report.expect(&Expectations { p99, rate: Some(Rate::Tiles(57.5)) });
        assert!(report.is_good());
        report.expect(&Expectations { p99: Some(Duration::from_millis(39)), rate: Some(Rate::Bytes(600e6)) });
        assert_eq!(report.problems.len(), 2);
        assert!(report.problems[0].starts_with("expected p99 of at most 39 ms, got 40."), "{:?}", report.problems);
        assert!(report.problems[1].starts_with("expected rate of at least 600.00 MB/s"), "{:?}", report.problems);
    }

    #[test]
    fn everything_that_went_wrong_is_a_problem() {
        let report = report(|tally| {
            tally.refused[2] = 4;
            (tally.unsent, tally.unanswered) = (5, 6);
            tally.faults.make(Fault::Corrupt);
            tally.faults.judge(Fault::Corrupt, false, || "stored".to_owned());
        });
        assert_eq!(report.problems.len(), 5, "{:?}", report.problems);
        assert!(report.problems[0].contains("4 tiles were refused with status 3 (the daemon has no space"));
        assert_eq!(report.due, 5);
    }
}
