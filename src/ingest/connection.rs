//! One capture connection: bytes in, frames out; answers in, bytes out, in request order (invariant 6).
//!
//! A state machine over a non-blocking socket. Knows nothing of other connections, lanes or the pool: it says what
//! it needs ([`Step`]) and the reactor provides it.

use super::transport::Transport;
use crate::base::admission::{Admitted, Held, Short};
use crate::base::limits::READ_CHUNK;
use crate::base::pool::TileBuffer;
use crate::catalog::{FrameBuffer, LaneTile, ReceivedFrame};
use crate::telemetry::{CloseReason, Stamp};
use crate::wire::{LengthPrefix, RESPONSE_BYTES, Response, encode_response};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Bytes read and thrown away after a framing error, so that the answer is not lost to a reset.
const DRAIN_BYTES_MAX: usize = 16 << 20;
/// Longest time for that.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// The same, for a peer that still sends when the daemon stops.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);

/// What a connection needs next.
pub(super) enum Step {
    /// A new readiness event.
    Readable,
    /// Another turn: it used up this one.
    Turn,
    /// A buffer for a frame of this length, or the refusal of it.
    Buffer(u32),
    /// The memory that it asked for.
    Memory,
    /// Somebody to take this frame.
    Frame(ReceivedFrame),
    /// Answers to go out before it reads on.
    Answers,
    /// The lane's queue to have room for what it holds.
    Lane,
    /// The peer has sent its last byte, or was drained: see [`Connection::end_reason`].
    Ended,
    /// To be closed: the socket failed.
    Broken,
}

enum Intake {
    /// Between frames, or inside the prefix.
    Prefix,
    /// The prefix is complete; a buffer is needed.
    Waiting { len: u32, wait: Wait },
    /// Inside a frame, which counts against the peer's share of memory.
    Body(FrameBuffer, Held),
    /// A verified tile that its lane has no room for.
    Parked(Box<LaneTile>),
    /// After a framing error.
    Draining { left: usize, until: Instant },
    /// Nothing more is read.
    Ended,
}

/// What stands between a frame and its buffer.
enum Wait {
    /// Nobody has been asked.
    NotAsked,
    /// The peer's other frames hold its share. Kept for what its end says to others.
    Share { _short: Short },
    /// The pool is full; the connection stands in its queue.
    Pool(Held),
}

/// A request that is not answered yet, or whose answer must wait for an earlier one.
struct Slot {
    received_at: Stamp,
    bytes: usize,
    response: Option<Response>,
}

/// Progress inside a frame, for telling slow senders.
struct Pace {
    since: Instant,
    bytes: usize,
    frame_began: Instant,
}

pub(super) struct Connection {
    stream: Transport,
    place: Admitted,
    prefix: LengthPrefix,
    intake: Intake,
    slots: VecDeque<Slot>,
    /// Number of the first slot in `slots`.
    first_slot: u64,
    /// Buffer bytes of unanswered requests.
    in_flight_bytes: usize,
    out: Vec<u8>,
    out_since: Option<Instant>,
    pace: Pace,
    /// Bytes read since the reactor last asked.
    pub(super) received_bytes: u64,
    /// In the reactor's list of connections that want another turn.
    pub(super) queued: bool,
    /// The last read took all there was: another one is not worth its system call.
    drained: bool,
    /// The peer has shut down its side: reads must go on until they say so, for no new event will come.
    half_closed: bool,
    end: CloseReason,
    stopping: bool,
    /// No frame is begun for the time being.
    pub(super) paused: bool,
    /// The daemon stops, and what the peer still sends is thrown away.
    lingering: bool,
}

impl Connection {
    pub(super) fn new(stream: Transport, place: Admitted) -> Self {
        let now = Instant::now();
        Self {
            stream,
            place,
            prefix: LengthPrefix::default(),
            intake: Intake::Prefix,
            slots: VecDeque::new(),
            first_slot: 0,
            in_flight_bytes: 0,
            out: Vec::new(),
            out_since: None,
            pace: Pace { since: now, bytes: 0, frame_began: now },
            received_bytes: 0,
            queued: false,
            drained: false,
            half_closed: false,
            end: CloseReason::Peer,
            stopping: false,
            paused: false,
            lingering: false,
        }
    }

    pub(super) fn stream(&mut self) -> &mut Transport {
        &mut self.stream
    }

    /// A new readiness event, or a new attempt after waiting for something else: there may be bytes again.
    pub(super) fn rearm(&mut self) {
        self.drained = false;
    }

    /// The event said that the peer will send no more.
    pub(super) fn note_half_closed(&mut self) {
        self.half_closed = true;
    }

    /// Reads until something is needed, or `turn` bytes are used up. `window` is the most requests in flight,
    /// `bytes_max` the most buffer bytes.
    pub(super) fn advance(&mut self, window: usize, bytes_max: usize, turn: &mut usize) -> Step {
        loop {
            match &self.intake {
                Intake::Waiting { len, wait: Wait::NotAsked } => return Step::Buffer(*len),
                Intake::Waiting { .. } => return Step::Memory,
                Intake::Parked(_) => return Step::Lane,
                Intake::Ended => return Step::Readable,
                Intake::Prefix if self.is_busy(window, bytes_max) => return Step::Answers,
                _ => {}
            }
            if let (Intake::Prefix, Some(len)) = (&self.intake, self.prefix.complete()) {
                if self.paused {
                    return Step::Answers;
                }
                self.prefix = LengthPrefix::default();
                self.intake = Intake::Waiting { len, wait: Wait::NotAsked };
                continue;
            }
            if self.drained && !self.half_closed {
                return Step::Readable;
            }
            if *turn == 0 {
                return Step::Turn;
            }
            let (read, asked) = match self.read_some() {
                (Ok(0), _) => return self.end_of_stream(),
                (Ok(read), asked) => (read, asked),
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return Step::Readable,
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => return Step::Turn,
                (Err(_), _) => return Step::Broken,
            };
            *turn = turn.saturating_sub(read);
            self.received_bytes += read as u64;
            // A short read has emptied the socket: the next byte brings a new event.
            self.drained = self.stream.is_emptied(read, asked);
            if let Some(frame) = self.take_complete_frame() {
                return Step::Frame(frame);
            }
        }
    }

    /// One read into wherever the next bytes belong. The last read of a frame takes the next prefix along.
    fn read_some(&mut self) -> (io::Result<usize>, usize) {
        match &mut self.intake {
            Intake::Body(frame, _) => {
                let missing = frame.missing();
                let body = frame.unfilled(READ_CHUNK);
                let body_len = body.len();
                let read = if missing == body_len {
                    let asked = body_len + self.prefix.unfilled().len();
                    (self.stream.read_both(body, self.prefix.unfilled()), asked)
                } else {
                    (self.stream.read(body), body_len)
                };
                if let Ok(n) = read.0 {
                    frame.advance(n.min(body_len));
                    self.prefix.advance(n.saturating_sub(body_len));
                    self.pace.bytes += n;
                }
                read
            }
            Intake::Draining { left, .. } => {
                let mut sink = [0; 16 << 10];
                let read = self.stream.read(&mut sink);
                if let Ok(n) = read {
                    *left = left.saturating_sub(n);
                    if *left == 0 {
                        return (Ok(0), 0);
                    }
                }
                (read, sink.len())
            }
            _ => {
                let room = self.prefix.unfilled();
                let asked = room.len();
                let read = self.stream.read(room);
                if let Ok(n) = read {
                    self.prefix.advance(n);
                }
                (read, asked)
            }
        }
    }

    fn take_complete_frame(&mut self) -> Option<ReceivedFrame> {
        match std::mem::replace(&mut self.intake, Intake::Prefix) {
            Intake::Body(frame, held) => match frame.complete() {
                Ok(frame) => return Some(frame),
                Err(frame) => self.intake = Intake::Body(*frame, held),
            },
            other => self.intake = other,
        }
        None
    }

    fn end_of_stream(&mut self) -> Step {
        self.end = match self.intake {
            Intake::Draining { .. } => CloseReason::Framing,
            Intake::Body(..) | Intake::Waiting { .. } => CloseReason::Cut,
            _ if self.stream.is_refused() => CloseReason::Handshake,
            _ if !self.prefix.is_empty() => CloseReason::Cut,
            _ => CloseReason::Peer,
        };
        self.intake = Intake::Ended;
        Step::Ended
    }

    /// Why the connection ends, as far as the peer's bytes tell.
    pub(super) fn end_reason(&self) -> CloseReason {
        self.end
    }

    fn is_busy(&self, window: usize, bytes_max: usize) -> bool {
        self.stopping
            || self.slots.len() + self.out.len() / RESPONSE_BYTES >= window
            || self.in_flight_bytes >= bytes_max
    }

    /// Counts a frame's buffer against the peer's share. `None`: the connection waits for that, and is to ask again.
    pub(super) fn hold_share(&mut self, bytes: usize) -> Option<Held> {
        let held = self.place.hold_or_wait(bytes);
        if let Intake::Waiting { wait, .. } = &mut self.intake {
            match held {
                Ok(held) => {
                    *wait = Wait::NotAsked;
                    return Some(held);
                }
                Err(short) => *wait = Wait::Share { _short: short },
            }
        }
        None
    }

    /// Gives the buffer that [`Step::Buffer`] asked for.
    pub(super) fn give_buffer(&mut self, buffer: TileBuffer, held: Held) {
        if let Intake::Waiting { len, .. } = self.intake {
            let now = Instant::now();
            self.pace = Pace { since: now, bytes: 0, frame_began: now };
            self.intake = Intake::Body(FrameBuffer::new(buffer, len as usize, Stamp::at(now)), held);
        }
    }

    /// Waits for the pool, in whose queue it stands now.
    pub(super) fn wait_for_pool(&mut self, held: Held) {
        if let Intake::Waiting { wait, .. } = &mut self.intake {
            *wait = Wait::Pool(held);
        }
    }

    /// Gives the buffer that the pool's queue has brought.
    pub(super) fn give_awaited(&mut self, buffer: TileBuffer) {
        if let Intake::Waiting { wait, .. } = &mut self.intake
            && let Wait::Pool(held) = std::mem::replace(wait, Wait::NotAsked)
        {
            self.give_buffer(buffer, held);
        }
    }

    /// The frame length for which the peer's share had no room.
    pub(super) fn short_of_share(&self) -> Option<u32> {
        match self.intake {
            Intake::Waiting { len, wait: Wait::Share { .. } } => Some(len),
            _ => None,
        }
    }

    /// True while it stands in the pool's queue.
    pub(super) fn waits_for_pool(&self) -> bool {
        matches!(self.intake, Intake::Waiting { wait: Wait::Pool(_), .. })
    }

    /// True while nobody reads from it because tiles are held back.
    pub(super) fn is_held_back(&self) -> bool {
        self.paused && matches!(self.intake, Intake::Prefix)
    }

    /// True while a frame has begun whose memory is not there.
    pub(super) fn waits_for_memory(&self) -> bool {
        matches!(self.intake, Intake::Waiting { .. })
    }

    /// Goes on behind an empty frame.
    pub(super) fn skip_empty_frame(&mut self) {
        self.intake = Intake::Prefix;
    }

    /// Stops reading frames: what follows a framing error has no meaning (invariant 8).
    pub(super) fn drain(&mut self) {
        self.intake = Intake::Draining { left: DRAIN_BYTES_MAX, until: Instant::now() + DRAIN_TIME_MAX };
    }

    /// Keeps a tile until its lane has room.
    pub(super) fn park(&mut self, tile: Box<LaneTile>) {
        self.intake = Intake::Parked(tile);
    }

    /// Takes the parked tile back for another try.
    pub(super) fn unpark(&mut self) -> Option<Box<LaneTile>> {
        match std::mem::replace(&mut self.intake, Intake::Prefix) {
            Intake::Parked(tile) => Some(tile),
            other => {
                self.intake = other;
                None
            }
        }
    }

    /// Opens a slot for a request's answer; returns its number.
    pub(super) fn open_slot(&mut self, received_at: Stamp, bytes: usize) -> u64 {
        self.slots.push_back(Slot { received_at, bytes, response: None });
        self.in_flight_bytes += bytes;
        self.first_slot + self.slots.len() as u64 - 1
    }

    /// Puts an answer into its slot.
    pub(super) fn answer(&mut self, slot: u64, response: Response) {
        let n = usize::try_from(slot.wrapping_sub(self.first_slot)).unwrap_or(usize::MAX);
        if let Some(slot) = self.slots.get_mut(n) {
            slot.response = Some(response);
            self.in_flight_bytes -= std::mem::take(&mut slot.bytes);
        }
    }

    /// Sends the answers that are at the front, with one write. Gives each one's age to `each`.
    pub(super) fn send_answers(&mut self, mut each: impl FnMut(Duration)) -> io::Result<()> {
        let now = Stamp::now();
        while let Some(response) = self.slots.front().and_then(|slot| slot.response) {
            if let Some(slot) = self.slots.pop_front() {
                each(now.since(slot.received_at));
            }
            self.first_slot += 1;
            self.out.extend_from_slice(&encode_response(&response));
        }
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.out.drain(..sent);
                    self.out_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.out_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out_since = None;
        if matches!(self.intake, Intake::Draining { .. }) && self.slots.is_empty() {
            self.stream.shut_down_write();
        }
        Ok(())
    }

    /// Answers that were ready and wait for an earlier one, and that of a tile that no lane has taken: nobody else knows of
    /// it. The others are counted when they come.
    pub(super) fn undelivered(&self) -> usize {
        let ready = self.slots.iter().filter(|slot| slot.response.is_some()).count();
        ready + usize::from(matches!(self.intake, Intake::Parked(_)))
    }

    /// True when the connection may be closed: nothing more comes in, and everything has gone out.
    pub(super) fn is_finished(&self) -> bool {
        let quiet = self.slots.is_empty() && self.out.is_empty();
        let ended = match &self.intake {
            Intake::Ended => true,
            Intake::Prefix => self.stopping,
            Intake::Draining { until, .. } => self.stopping && (!self.lingering || Instant::now() >= *until),
            _ => false,
        };
        quiet && ended
    }

    /// From now on no new frame is begun; one that has begun may end.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Says to the peer that nothing more comes, and goes on to read what it still sends: closing on unread bytes would
    /// reset the connection, and some systems then throw away answers that their program has not read. False: there is
    /// no need, or it has been done.
    pub(super) fn linger(&mut self) -> bool {
        let needed = !self.lingering && self.first_slot > 0 && matches!(self.intake, Intake::Prefix);
        if needed && self.stream.shut_down_write() {
            self.lingering = true;
            self.intake = Intake::Draining { left: DRAIN_BYTES_MAX, until: Instant::now() + LINGER_TIME_MAX };
            return true;
        }
        false
    }

    /// True when the drain after a framing error has lasted long enough.
    pub(super) fn has_drained(&self) -> bool {
        matches!(self.intake, Intake::Draining { until, .. } if Instant::now() >= until)
    }

    /// Ends it: nothing more is read.
    pub(super) fn end_drain(&mut self) {
        self.end_of_stream();
    }

    /// How long the peer has not taken its answers.
    pub(super) fn unread_for(&self) -> Duration {
        self.out_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Begins to measure the peer anew.
    pub(super) fn forgive(&mut self) {
        let now = Instant::now();
        self.pace = Pace { since: now, bytes: 0, frame_began: now };
        self.out_since = self.out_since.map(|_| now);
    }

    /// Inside a frame that is older than `grace` and came in slower than `rate` bytes/s over the last `window`.
    pub(super) fn is_slow(&mut self, grace: Duration, window: Duration, rate: usize) -> bool {
        let elapsed = self.pace.since.elapsed();
        if !matches!(self.intake, Intake::Body(..)) || elapsed < window {
            return false;
        }
        let slow = (self.pace.bytes as f64) < rate as f64 * elapsed.as_secs_f64();
        (self.pace.since, self.pace.bytes) = (Instant::now(), 0);
        slow && self.pace.frame_began.elapsed() >= grace
    }
}
