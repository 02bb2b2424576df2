//! One thread that drives many senders: what is due is begun, sockets that are ready are served, then it waits.
//!
//! Must never wait for anything but the clock and its sockets, nor copy an image, nor compute a checksum.

use super::answers::Counts;
use super::course::Course;
use super::sender::{Sender, SenderError};
use super::tally::{Interval, Tally};
use crate::client::{Interest, Readiness, wait_for_connections};
use std::time::Duration;

/// The longest wait: so soon it is seen that the run is to end.
const LOOK_AROUND: u64 = 50_000_000;
const SECOND: u64 = 1_000_000_000;

/// A thread's senders and counts.
pub(super) struct Driver<'a> {
    course: &'a Course<'a>,
    senders: Vec<Sender>,
    tally: Tally,
    interval: Interval,
    intervals: crossbeam_channel::Sender<Interval>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        course: &'a Course<'a>,
        senders: Vec<Sender>,
        tally: Tally,
        intervals: crossbeam_channel::Sender<Interval>,
    ) -> Self {
        Self { course, senders, tally, interval: Interval::new(0), intervals }
    }

    /// Drives until nothing is due any more and everything is answered, or until a sender can not go on.
    pub(super) fn drive(mut self) -> (Tally, Result<(), SenderError>) {
        self.course.await_beginning();
        let driven = self.turn_until_done();
        if driven.is_err() {
            self.course.break_off();
        }
        let now = self.course.now();
        let mut counts = Counts { course: self.course, tally: &mut self.tally, interval: &mut self.interval };
        self.senders.into_iter().for_each(|sender| sender.settle(now, &mut counts));
        let _ = self.intervals.send(self.interval); // The one who listens may have gone.
        (self.tally, driven)
    }

    fn turn_until_done(&mut self) -> Result<(), SenderError> {
        let mut ready = Vec::new();
        let mut polled = Vec::new();
        loop {
            let now = self.course.now();
            self.close_seconds(now)?;
            let mut counts = Counts { course: self.course, tally: &mut self.tally, interval: &mut self.interval };
            for sender in &mut self.senders {
                sender.dispatch(&mut counts)?;
            }
            let now = self.course.now();
            let done = self.senders.iter_mut().all(|sender| sender.is_done(now, self.course));
            if done || self.course.is_broken_off() {
                return Ok(());
            }
            self.wait(now, &mut polled, &mut ready)?;
            self.serve(&polled, &ready)?;
        }
    }

    /// Waits until a socket is ready or something is due. `polled` says whose sockets they are.
    fn wait(
        &mut self,
        now: u64,
        polled: &mut Vec<(usize, usize)>,
        ready: &mut Vec<Readiness>,
    ) -> Result<(), SenderError> {
        let second = (self.interval.second + 1) * SECOND;
        let alarms = self.senders.iter_mut().map(|sender| sender.alarm(now, self.course)).min().unwrap_or(u64::MAX);
        let until = alarms.min(second).min(now + LOOK_AROUND);
        polled.clear();
        let interests = self.senders.iter().enumerate().flat_map(|(n, sender)| {
            let links = sender.links().iter().enumerate();
            links.filter_map(move |(link, place)| Some((n, link, place.client()?, place.wants_write(now))))
        });
        let interests = interests.map(|(sender, link, client, write)| {
            polled.push((sender, link));
            Interest { client, write }
        });
        let limit = Duration::from_nanos(until.saturating_sub(self.course.now()));
        wait_for_connections(interests, limit, ready)
            .map_err(|source| crate::client::PipelinedError::Io { address: self.course.plan.capture, source }.into())
    }

    fn serve(&mut self, polled: &[(usize, usize)], ready: &[Readiness]) -> Result<(), SenderError> {
        let mut counts = Counts { course: self.course, tally: &mut self.tally, interval: &mut self.interval };
        for ((sender, link), ready) in polled.iter().zip(ready) {
            self.senders[*sender].serve(*link, *ready, &mut counts)?;
        }
        Ok(())
    }

    /// Hands on what happened in the seconds that are over; once a second it is seen whether answers still come.
    fn close_seconds(&mut self, now: u64) -> Result<(), SenderError> {
        while now >= (self.interval.second + 1) * SECOND {
            self.interval.in_flight = self.senders.iter().map(|sender| sender.in_flight() as u64).sum();
            let late = self.senders.iter_mut().map(|sender| sender.late(now, self.course));
            self.interval.late_ns = late.max().unwrap_or(0);
            let next = Interval::new(self.interval.second + 1);
            let _ = self.intervals.send(std::mem::replace(&mut self.interval, next)); // The one who listens may have gone.
            self.senders.iter().try_for_each(|sender| sender.check_timeout(self.course))?;
        }
        Ok(())
    }
}
