//! One sender: what it owes and when, its connections, and what it makes of the answers.
//!
//! What is due and not begun stands nowhere but in the schedule: a sender that is behind needs no memory for it, and
//! nothing that was due is forgotten. Owned by one thread.

use super::answers::{Counts, take_answer};
use super::course::Course;
use super::faults::{Expected, Fault, FaultDice};
use super::link::{Job, Link, Manner, Pumped};
use super::schedule::Schedule;
use super::source::{Fed, Feed, SourceError, SourceTile};
use super::tally::{Tally, Wait, record};
use crate::client::{PipelinedError, Readiness};
use crate::wire::FrameHead;
use std::collections::VecDeque;

/// When a tile that is being read is looked for again, nanoseconds.
const SOURCE_PAUSE: u64 = 1_000_000;

/// Why a sender can not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum SenderError {
    #[error(transparent)]
    Capture(#[from] PipelinedError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("capture port {0}: no answer for {1} s")]
    Timeout(std::net::SocketAddr, u64),
}

/// A sender.
pub(super) struct Sender {
    /// `None` in a closed loop: a tile is due whenever there is room.
    schedule: Option<Schedule>,
    feed: Feed,
    links: Vec<Link>,
    window: usize,
    dice: FaultDice,
    /// Without faults, frames need not be looked at one by one.
    careful: bool,
    /// To be sent again: what was not answered when a connection was cut, and duplicates.
    again: VecDeque<Job>,
    /// To be sent behind the tile that follows it.
    held: Option<SourceTile>,
    /// What the tile at the head of the schedule waits for, if it is due.
    waiting: Option<Wait>,
    /// What the last tile that had to wait waited for, and until when: those that were due by then were held up with it.
    held_up: Option<(Wait, u64)>,
}

impl Sender {
    pub(super) fn new(
        schedule: Option<Schedule>,
        feed: Feed,
        links: Vec<Link>,
        window: usize,
        (dice, careful): (FaultDice, bool),
    ) -> Self {
        let (again, held) = (VecDeque::new(), None);
        Self { schedule, feed, links, window, dice, careful, again, held, waiting: None, held_up: None }
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn in_flight(&self) -> usize {
        self.links.iter().map(Link::in_flight).sum::<usize>() + self.again.len()
    }

    /// Begins what is due, as far as there is room.
    pub(super) fn dispatch(&mut self, counts: &mut Counts<'_>) -> Result<(), SenderError> {
        for link in 0..self.links.len() {
            self.links[link].reconnect(counts.course.now(), counts.course)?;
        }
        while let Some(link) = self.room().ok().filter(|_| !self.again.is_empty()) {
            let job = self.again.pop_front().expect("it was looked at");
            self.links[link].queue(job, counts.course)?;
            self.write(link, counts)?;
        }
        self.begin_due(counts)?;
        // In a closed loop many small frames may have been queued: they leave together.
        for link in 0..self.links.len() {
            if self.links[link].is_fresh() {
                self.write(link, counts)?;
            }
        }
        Ok(())
    }

    /// Begins tiles that are due until there is none, or no room for one.
    fn begin_due(&mut self, counts: &mut Counts<'_>) -> Result<(), SenderError> {
        loop {
            let now = counts.course.now();
            let due = self.due(now, counts.course);
            if due > now || due >= counts.course.end() || now >= counts.course.drained() {
                return Ok(());
            }
            // What is to be sent again goes first.
            let hindered = match self.again.is_empty() {
                true => self.begin(due, counts)?,
                false => Some(self.room().err().unwrap_or(Wait::Connection)),
            };
            self.waiting = hindered;
            if hindered.is_some() {
                return Ok(());
            }
        }
    }

    /// When the next tile is due.
    fn due(&mut self, now: u64, course: &Course<'_>) -> u64 {
        match &mut self.schedule {
            Some(schedule) => schedule.peek(),
            None if now < course.end() => now,
            None => u64::MAX,
        }
    }

    /// Begins the tile that was due then; or says what it waits for.
    fn begin(&mut self, due: u64, counts: &mut Counts<'_>) -> Result<Option<Wait>, SenderError> {
        let link = match self.room() {
            Ok(link) => link,
            Err(wait) => return Ok(Some(wait)),
        };
        let Some(mut job) = self.next_job(due, counts.tally)? else { return Ok(Some(Wait::Source)) };
        if let Some(schedule) = &mut self.schedule {
            schedule.advance();
            job.wait = self.take_wait(due, counts.course.now());
        }
        if let Some(wait) = job.wait {
            counts.tally.waits.count(wait);
        }
        counts.tally.begun += 1;
        self.links[link].queue(job, counts.course)?;
        if self.schedule.is_some() {
            self.write(link, counts)?;
        }
        Ok(None)
    }

    /// What a tile that is begun now had to wait for, itself or behind another.
    fn take_wait(&mut self, due: u64, now: u64) -> Option<Wait> {
        if let Some(wait) = self.waiting.take() {
            self.held_up = Some((wait, now));
        }
        self.held_up.filter(|(_, until)| due <= *until).map(|(wait, _)| wait)
    }

    /// The connection that takes the next frame: of those with a place in the window the one with the fewest in flight;
    /// by the clock, only those that are not in the middle of writing.
    fn room(&self) -> Result<usize, Wait> {
        let mut wait = Wait::Connection;
        let mut best: Option<(usize, usize)> = None;
        for (n, link) in self.links.iter().enumerate().filter(|(_, link)| link.client().is_some()) {
            if link.in_flight() >= self.window {
                wait = if wait == Wait::Writing { wait } else { Wait::Window };
            } else if self.schedule.is_some() && link.is_writing() {
                wait = Wait::Writing;
            } else if best.is_none_or(|(_, fewest)| link.in_flight() < fewest) {
                best = Some((n, link.in_flight()));
            }
        }
        best.map(|(n, _)| n).ok_or(wait)
    }

    fn next_job(&mut self, due: u64, tally: &mut Tally) -> Result<Option<Job>, SenderError> {
        let (tile, fault) = match self.held.take() {
            Some(held) => (held, Some(Fault::Reorder)),
            None => {
                let Fed::Tile(tile) = self.feed.next()? else { return Ok(None) };
                match self.dice.draw() {
                    Some(Fault::Reorder) => (self.swap(tile)?, None),
                    other => (tile, other),
                }
            }
        };
        let manner = match fault {
            Some(Fault::Slow) => Manner::Slow,
            Some(Fault::Cut) => Manner::CutAt(self.dice.place_in(FrameHead::BYTES + tile.image.bytes.len())),
            _ => Manner::Plain,
        };
        if let Some(fault) = fault {
            tally.faults.make(fault);
        }
        let expected = if fault == Some(Fault::Corrupt) { Expected::Refused } else { Expected::Acknowledged };
        let SourceTile { place, id, image } = tile;
        Ok(Some(Job { place, id, image, intended: due, wait: None, fault, expected, manner }))
    }

    /// Holds a tile back and gives the next one instead, if there is one.
    fn swap(&mut self, tile: SourceTile) -> Result<SourceTile, SourceError> {
        match self.feed.next()? {
            Fed::Tile(next) => {
                self.held = Some(tile);
                Ok(next)
            }
            Fed::Later => Ok(tile),
        }
    }

    /// Goes on with what one of the connections can do.
    pub(super) fn serve(&mut self, link: usize, ready: Readiness, counts: &mut Counts<'_>) -> Result<(), SenderError> {
        if ready.read {
            let read = self.read(link, counts);
            self.survive(read, link, counts)?;
        }
        if ready.write { self.write(link, counts) } else { Ok(()) }
    }

    fn read(&mut self, link: usize, counts: &mut Counts<'_>) -> Result<(), PipelinedError> {
        let again = &mut self.again;
        self.links[link].read(&mut |answer| take_answer(answer, again, counts))
    }

    fn write(&mut self, link: usize, counts: &mut Counts<'_>) -> Result<(), SenderError> {
        let now = counts.course.now();
        match self.links[link].pump(now, self.careful) {
            Ok(Pumped::Fine) => Ok(()),
            Ok(Pumped::CutHere) => {
                let unanswered = self.links[link].cut(now);
                self.again.extend(unanswered);
                Ok(self.links[link].reconnect(now, counts.course)?)
            }
            // What was answered before the connection failed is answered: why a tile was refused may stand there.
            Err(error) => {
                let failed = self.read(link, counts).and(Err(error));
                self.survive(failed, link, counts)
            }
        }
    }

    /// A broken connection is made again; an answer that is none is the end.
    fn survive(
        &mut self,
        result: Result<(), PipelinedError>,
        link: usize,
        counts: &mut Counts<'_>,
    ) -> Result<(), SenderError> {
        match result {
            Ok(()) => Ok(()),
            Err(PipelinedError::Io { .. }) => {
                counts.tally.broken += 1;
                let unanswered = self.links[link].cut(counts.course.now());
                self.again.extend(unanswered);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fails when an answer does not come.
    pub(super) fn check_timeout(&self, course: &Course<'_>) -> Result<(), SenderError> {
        let (capture, timeout) = (course.plan.capture, course.plan.timeout);
        let overdue = self.links.iter().any(|link| link.has_waited(timeout));
        if overdue { Err(SenderError::Timeout(capture, timeout.as_secs())) } else { Ok(()) }
    }

    /// When something is to be done by the clock alone.
    pub(super) fn alarm(&mut self, now: u64, course: &Course<'_>) -> u64 {
        let links = self.links.iter().filter_map(|link| link.alarm(now)).min().unwrap_or(u64::MAX);
        let due = match (self.waiting, &mut self.schedule) {
            (Some(Wait::Source), _) => now + SOURCE_PAUSE,
            (None, Some(schedule)) => Some(schedule.peek()).filter(|due| *due < course.end()).unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        links.min(due)
    }

    /// How late the tile is that is due and not begun, nanoseconds.
    pub(super) fn late(&mut self, now: u64, course: &Course<'_>) -> u64 {
        let due = self.schedule.as_mut().map(Schedule::peek).filter(|due| *due < course.end());
        due.map_or(0, |due| now.saturating_sub(due))
    }

    /// Has it nothing more to do?
    pub(super) fn is_done(&mut self, now: u64, course: &Course<'_>) -> bool {
        let owes = match &mut self.schedule {
            Some(schedule) => schedule.peek() < course.end() && now < course.drained(),
            None => now < course.end(),
        };
        !owes && self.in_flight() == 0
    }

    /// Counts what it still owes, with the time that it has waited at the least.
    pub(super) fn settle(mut self, now: u64, counts: &mut Counts<'_>) {
        let mut open: Vec<Job> = self.links.iter_mut().flat_map(|link| link.cut(now)).collect();
        open.extend(self.again);
        for job in open.iter().filter(|job| job.fault.is_none()) {
            counts.tally.unanswered += 1;
            record(&mut counts.tally.latency, now.saturating_sub(job.intended));
        }
        let Some(mut schedule) = self.schedule else { return };
        while schedule.peek() < counts.course.end() {
            counts.tally.unsent += 1;
            record(&mut counts.tally.latency, now.saturating_sub(schedule.peek()));
            schedule.advance();
        }
    }
}
