//! One connection of a sender: frames on their way, the faults that befall them there, and what to do when it breaks.

use super::course::Course;
use super::faults::{Expected, Fault};
use super::plan::Plan;
use super::source::{Image, ImageId, Place};
use super::tally::Wait;
use crate::client::{PipelinedAnswer, PipelinedClient, PipelinedError, WriteState};
use crate::model::{Checksum, TileKey};
use crate::wire::RequestFields;
use std::time::Duration;

/// Bytes written on one connection before the others have their turn.
const WRITE_TURN: usize = 1 << 20;
/// A slow frame is sent in so many pieces, with such pauses: 0.2 s.
const SLOW_PIECES: usize = 50;
const SLOW_PAUSE: u64 = 4_000_000;
/// Time between attempts to connect again.
const RETRY: u64 = 100_000_000;

/// A tile on its way.
pub(super) struct Job {
    pub(super) place: Place,
    pub(super) id: ImageId,
    pub(super) image: Image,
    /// When it was due, nanoseconds from the start.
    pub(super) intended: u64,
    /// What it had to wait for.
    pub(super) wait: Option<Wait>,
    pub(super) fault: Option<Fault>,
    pub(super) expected: Expected,
    pub(super) manner: Manner,
}

/// How a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As fast as the socket takes it.
    Plain,
    /// In pieces with pauses.
    Slow,
    /// Only so many bytes; then the connection is cut.
    CutAt(usize),
}

impl AsRef<[u8]> for Job {
    fn as_ref(&self) -> &[u8] {
        &self.image.bytes
    }
}

impl Job {
    fn fields(&self, course: &Course<'_>) -> RequestFields {
        let Place { col, row, frame, camera } = self.place;
        let checksum = match self.expected {
            Expected::Refused => damaged(self.image.checksum),
            _ => self.image.checksum,
        };
        RequestFields { key: TileKey { acq: course.acq, col, row, frame }, camera, checksum }
    }
}

/// Another checksum than this, of the same kind.
fn damaged(checksum: Checksum) -> Checksum {
    let mut bytes = checksum.to_wire();
    match bytes.first_mut() {
        Some(first) => *first ^= 0x55,
        // Where none is sent, a wrong one still must be refused: no image of ours has this CRC-32 but by chance.
        None => return Checksum::Crc32(0x5555_5555),
    }
    Checksum::from_wire(&bytes).expect("the length is that of the checksum it was made of")
}

/// What came of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// All there is to say.
    Fine,
    /// A frame has come to the place where the connection is to be cut.
    CutHere,
}

/// A connection, or the place of one.
pub(super) struct Link {
    client: Option<PipelinedClient<Job>>,
    /// A slow frame goes on then.
    slow_until: u64,
    retry_at: u64,
    /// How often it was connected, or tried to, since the last answer.
    attempts: u32,
    /// Frames were queued since it was written to.
    fresh: bool,
}

impl Link {
    pub(super) fn connect(plan: &Plan) -> Result<Self, PipelinedError> {
        let client = Some(PipelinedClient::connect_with(plan.capture, plan.timeout, plan.tls.as_ref())?);
        Ok(Self { client, slow_until: 0, retry_at: 0, attempts: 0, fresh: false })
    }

    pub(super) fn client(&self) -> Option<&PipelinedClient<Job>> {
        self.client.as_ref()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.client.as_ref().map_or(0, PipelinedClient::in_flight)
    }

    pub(super) fn is_writing(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.writing().is_some())
    }

    /// Is there something that could be written now, if the socket takes it?
    pub(super) fn wants_write(&self, now: u64) -> bool {
        self.is_writing() && self.slow_until <= now
    }

    /// When something happens by the clock alone.
    pub(super) fn alarm(&self, now: u64) -> Option<u64> {
        match self.client {
            None => Some(self.retry_at),
            Some(_) => (self.is_writing() && self.slow_until > now).then_some(self.slow_until),
        }
    }

    pub(super) fn queue(&mut self, job: Job, course: &Course<'_>) -> Result<(), PipelinedError> {
        let client = self.client.as_mut().expect("only connections that are there are picked");
        self.fresh = true;
        client.queue(&job.fields(course), job)
    }

    /// Were frames queued that nobody has tried to write?
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh && self.client.is_some()
    }

    /// Writes what the socket takes. With `careful`, frame by frame: the next may be one that is to be cut or slow.
    pub(super) fn pump(&mut self, now: u64, careful: bool) -> Result<Pumped, PipelinedError> {
        self.fresh = false;
        let Some(client) = self.client.as_mut() else { return Ok(Pumped::Fine) };
        let mut left = WRITE_TURN;
        while let Some(writing) = client.writing() {
            if left == 0 || self.slow_until > now {
                break;
            }
            let manner = writing.tag.manner;
            let mut budget = if careful { writing.left.min(left) } else { left };
            match manner {
                Manner::CutAt(place) if writing.sent >= place => return Ok(Pumped::CutHere),
                Manner::CutAt(place) => budget = budget.min(place - writing.sent),
                Manner::Slow => budget = budget.min((writing.sent + writing.left).div_ceil(SLOW_PIECES)),
                Manner::Plain => {}
            }
            let state = client.write(budget)?;
            left = left.saturating_sub(budget);
            if manner == Manner::Slow {
                self.slow_until = now + SLOW_PAUSE;
            }
            if state == WriteState::Blocked || !careful {
                break;
            }
        }
        Ok(Pumped::Fine)
    }

    /// Reads answers.
    pub(super) fn read(&mut self, each: &mut impl FnMut(PipelinedAnswer<Job>)) -> Result<(), PipelinedError> {
        let Some(client) = self.client.as_mut() else { return Ok(()) };
        let attempts = &mut self.attempts;
        client.read(&mut |answer| {
            *attempts = 0;
            each(answer);
        })
    }

    /// Has the oldest frame waited longer than that for its answer?
    pub(super) fn has_waited(&self, limit: Duration) -> bool {
        self.client.as_ref().and_then(PipelinedClient::oldest).is_some_and(|began| began.elapsed() > limit)
    }

    /// Closes the connection and gives back what was not answered, to be sent again.
    pub(super) fn cut(&mut self, now: u64) -> Vec<Job> {
        self.retry_at = now;
        self.slow_until = 0;
        let jobs = self.client.take().into_iter().flat_map(PipelinedClient::cut);
        jobs.map(|job| Job { manner: Manner::Plain, wait: job.wait.or(Some(Wait::Connection)), ..job }).collect()
    }

    /// Connects again when it is time for that; an error once the patience is over.
    pub(super) fn reconnect(&mut self, now: u64, course: &Course<'_>) -> Result<(), PipelinedError> {
        if self.client.is_some() || now < self.retry_at || course.is_broken_off() {
            return Ok(());
        }
        self.retry_at = now + RETRY;
        self.attempts += 1;
        let over = RETRY.saturating_mul(self.attempts.into())
            > u64::try_from(course.plan.patience.as_nanos()).unwrap_or(RETRY);
        let limit = course.plan.patience.clamp(Duration::from_millis(100), Duration::from_secs(1));
        match PipelinedClient::connect_with(course.plan.capture, limit, course.plan.tls.as_ref()) {
            Ok(_) if over => {
                let source = std::io::Error::other("it closes every connection before it answers");
                Err(PipelinedError::Io { address: course.plan.capture, source })
            }
            Ok(client) => {
                self.client = Some(client);
                Ok(())
            }
            Err(error) if over => Err(error),
            Err(_) => Ok(()),
        }
    }
}
