//! A load test that tells the truth: senders like those of a microscope, at a chosen rate, against a running daemon.
//!
//! A [`Profile`] says who sends what and when; a source gives tiles; a few threads drive all senders over connections
//! that never wait; a [`Report`] says what came of it. In an open loop every tile has a time at which it is due, and its
//! latency counts from then on, whether or not the sender could begin it: a slow server can not hide by slowing the
//! sender down. What is due and not begun is no queue but a place in the schedule; it is sent late, at most
//! [`Plan::drain`] after the end, and what is then left is reported as never sent.
//!
//! Opens an acquisition of its own and deletes it at the end. Must never touch one that was there before.

mod answers;
mod course;
mod driver;
mod faults;
mod figures;
mod fleet;
mod link;
mod plan;
mod plot;
mod profile;
mod profile_file;
mod rate;
mod report;
mod samples;
mod schedule;
mod sender;
mod sizes;
mod source;
mod tally;
mod target;
mod verify;

pub use faults::{Fault, FaultCount, FaultPart};
pub use figures::{Distribution, Point};
pub use plan::{Plan, ReplayError, Verify};
pub use plot::{html, svg};
pub use profile::{
    Arrivals, Content, EMBEDDED, Mode, Phase, Profile, ProfileError, Ramp, SenderGroup, Timing, names as profile_names,
};
pub use rate::{Rate, parse_part};
pub use report::{ClientUse, Expectation, Expectations, Report, Settings, Versions};
pub use sizes::TileSizes;
pub use source::{SourceChoice, SourceError};
pub use tally::Waits;
pub use verify::Verified;

use crate::base::clock::process_cpu;
use crate::base::stop::Stop;
use course::Course;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use driver::Driver;
use faults::FaultDice;
use fleet::{Fleet, SenderPlan};
use link::Link;
use report::Outcome;
use sender::{Sender, SenderError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tally::{Interval, Tally};
use target::Target;

/// How often it is looked whether someone wants the run to end.
const LOOK_AROUND: Duration = Duration::from_millis(50);
/// Time for the threads to start.
const RUN_UP: Duration = Duration::from_millis(10);
/// Threads by default: one can fill several GB/s, and the server may be on the same machine.
const THREADS_MAX: usize = 4;

/// How a run goes, once a second.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The last second.
    pub point: Point,
    /// Latency of all tiles so far.
    pub latency: Distribution,
    /// Tiles acknowledged so far.
    pub tiles: u64,
    /// Bytes of their images so far.
    pub bytes: u64,
    /// Tiles refused so far, for a fault too, by status.
    pub refused: BTreeMap<String, u64>,
}

/// Replays. `watch` is called once a second. `stop` ends the run early: then what was sent is answered and reported.
///
/// # Errors
/// Nothing was replayed: the plan can not be, or the server can not be reached. What goes wrong later is in the report.
pub fn run(plan: &Plan, stop: &Stop, watch: &mut dyn FnMut(&Progress)) -> Result<Report, ReplayError> {
    let Fleet { senders, images, tiles_per_s, bytes_per_s } = Fleet::build(plan)?;
    let target = Target::greet(plan)?;
    let senders = connect(plan, senders)?;
    let connections = senders.iter().map(|sender| sender.links().len()).sum();
    let threads = threads(plan, senders.len());
    let settings = Settings::of(plan, (senders.len(), connections, threads), (tiles_per_s, bytes_per_s));
    target.start()?;
    let course = Course::new(plan, target.acq, Instant::now() + RUN_UP);
    let cpu_before = process_cpu();
    let (mut tally, failure, series) = drive(&course, senders, threads, stop, watch);
    let cpu_s = cpu_before.zip(process_cpu()).map(|(before, after)| (after.saturating_sub(before)).as_secs_f64());
    let mut failure = failure.map(|error| error.to_string());
    let (mut stored, mut verified) = (None, Verified::default());
    if failure.is_none() {
        verify::look_for_corrupt(&target.http, target.acq, &tally.corrupt, &mut tally.faults);
        verified = verify::read_back(&target.http, target.acq, tally.samples.kept(), &images);
        match verify::count_stored(&target.http, target.acq) {
            Ok(count) => stored = Some(count),
            Err(error) => failure = Some(error.to_string()),
        }
    }
    let seconds = course.end() as f64 / 1e9;
    let (versions, acquisition) = (target.versions.clone(), target.acq.0);
    let outcome =
        Outcome { versions, settings, acquisition, seconds, cpu_s, series, failure, stored, verify: verified };
    let mut report = Report::new(&tally, outcome);
    match plan.keep {
        true => report.kept = true,
        false => report.note_left(target.delete()),
    }
    Ok(report)
}

impl Report {
    fn note_left(&mut self, deleted: Result<(), ReplayError>) {
        if let Err(error) = deleted {
            self.kept = true;
            if self.failure.is_none() {
                self.problems.push(format!("acquisition {} is not deleted: {error}", self.acquisition));
            }
        }
    }
}

fn connect(plan: &Plan, senders: Vec<SenderPlan>) -> Result<Vec<Sender>, ReplayError> {
    let careful = !plan.faults.is_empty();
    let connected = (1u64..).zip(senders).map(|(n, sender)| {
        let links = (0..sender.connections).map(|_| Link::connect(plan));
        let links = links.collect::<Result<Vec<_>, _>>()?;
        let dice = FaultDice::new(&plan.faults, plan.seed.wrapping_mul(31).wrapping_add(n));
        Ok(Sender::new(sender.schedule, sender.feed, links, sender.window as usize, (dice, careful)))
    });
    connected.collect()
}

fn threads(plan: &Plan, senders: usize) -> usize {
    let fits = std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).clamp(1, THREADS_MAX));
    plan.threads.unwrap_or(fits).clamp(1, senders.max(1))
}

/// Drives all senders to their end; gives what was counted, the first failure, and the course of time.
fn drive(
    course: &Course<'_>,
    senders: Vec<Sender>,
    threads: usize,
    stop: &Stop,
    watch: &mut dyn FnMut(&Progress),
) -> (Tally, Option<SenderError>, Vec<Point>) {
    let (to, intervals) = crossbeam_channel::unbounded(); // One a thread and second.
    let tally = |n: usize| Tally::new(course.plan.verify, course.plan.seed.wrapping_add(n as u64));
    let mut shares: Vec<Vec<Sender>> = (0..threads).map(|_| Vec::new()).collect();
    senders.into_iter().enumerate().for_each(|(n, sender)| shares[n % threads].push(sender));
    let drivers: Vec<Driver<'_>> =
        shares.into_iter().enumerate().map(|(n, senders)| Driver::new(course, senders, tally(n), to.clone())).collect();
    drop(to);
    std::thread::scope(|scope| {
        let running: Vec<_> = drivers.into_iter().map(|driver| scope.spawn(|| driver.drive())).collect();
        let series = collect(course, &intervals, threads, stop, watch);
        let (mut all, mut failure) = (tally(threads), None);
        for thread in running {
            let (tally, driven) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.merge(tally);
            failure = failure.or(driven.err());
        }
        (all, failure, series)
    })
}

/// Puts together what the threads send once a second, until all have ended.
fn collect(
    course: &Course<'_>,
    intervals: &Receiver<Interval>,
    threads: usize,
    stop: &Stop,
    watch: &mut dyn FnMut(&Progress),
) -> Vec<Point> {
    let mut open: BTreeMap<u64, (Interval, usize)> = BTreeMap::new();
    let mut series = Series { points: Vec::new(), all: Interval::new(0) };
    let mut newest = 0;
    loop {
        match intervals.recv_timeout(LOOK_AROUND) {
            Ok(interval) => {
                newest = interval.second.max(newest);
                let (sum, count) = open.entry(interval.second).or_insert_with(|| (Interval::new(interval.second), 0));
                sum.merge(&interval);
                *count += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if stop.reason().is_some() {
            course.end_now();
        }
        // Threads that have ended send nothing more: a second is over when all or when later ones have come.
        while let Some(entry) = open.first_entry().filter(|entry| entry.get().1 == threads || entry.key() + 1 < newest)
        {
            series.close(&entry.remove().0, watch);
        }
    }
    open.into_values().for_each(|(interval, _)| series.close(&interval, watch));
    series.points
}

struct Series {
    points: Vec<Point>,
    all: Interval,
}

impl Series {
    fn close(&mut self, interval: &Interval, watch: &mut dyn FnMut(&Progress)) {
        self.all.merge(interval);
        let (point, all) = (Point::of(interval), Point::of(&self.all));
        let (latency, refused) = (all.latency, all.refused);
        watch(&Progress { point: point.clone(), latency, tiles: self.all.tiles, bytes: self.all.bytes, refused });
        self.points.push(point);
    }
}
