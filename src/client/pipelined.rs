//! A connection to the capture port that never waits: one thread can drive many of them.
//!
//! Frames are queued; what the socket takes is written straight from the images, several frames in one call where they
//! are small; answers are read while frames are being written. Must never copy an image. The caller bounds how many
//! frames are queued, and waits with [`wait`].

use super::socket::{self, Socket};
use crate::tls::ClientTls;
use crate::wire::{FrameHead, FrameTail, PREFIX_BYTES, RequestFields, Response, parse_response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Room for answers that have arrived and are not read yet. A real one has 60 bytes.
const ANSWERS_BYTES: usize = 4096;
/// Frames that one call may write; each has three parts.
const FRAMES_A_WRITE: usize = 16;

/// A connection. `T` carries the image and whatever the caller wants back with the answer.
pub struct PipelinedClient<T> {
    stream: Socket,
    address: SocketAddr,
    /// Unanswered, the oldest first.
    frames: VecDeque<Frame<T>>,
    /// How many of the first frames are wholly written.
    written: usize,
    answers: Box<[u8; ANSWERS_BYTES]>,
    filled: usize,
}

struct Frame<T> {
    head: FrameHead,
    tail: FrameTail,
    sent: usize,
    began: Option<Instant>,
    tag: T,
}

/// A frame that was answered.
#[derive(Clone, Copy, Debug)]
pub struct PipelinedAnswer<T> {
    /// What the caller gave.
    pub tag: T,
    /// The server's answer.
    pub response: Response,
    /// When the first byte was written. `None` for an answer that came before it: the server has refused the connection's
    /// state, and closes.
    pub began: Option<Instant>,
    /// When the answer was read.
    pub received: Instant,
}

/// A frame that is not wholly written.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a, T> {
    /// What the caller gave.
    pub tag: &'a T,
    /// Bytes that are written.
    pub sent: usize,
    /// Bytes that are not.
    pub left: usize,
}

/// How far [`PipelinedClient::write`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteState {
    /// Every frame is written.
    Idle,
    /// The socket takes no more now.
    Blocked,
    /// The budget is spent.
    Spent,
}

/// Why a connection is of no use any more. What was not answered may or may not be stored: send it again.
#[derive(Debug, thiserror::Error)]
pub enum PipelinedError {
    /// The connection failed or was closed.
    #[error("capture port {address}: {source}")]
    Io {
        /// The server.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The server's answer is not one.
    #[error("capture port {address}: the answer is not an ImageTileResponse; is this a tilecatcher's capture port?")]
    BadAnswer {
        /// The server.
        address: SocketAddr,
    },
    /// The tile can not be framed.
    #[error("a tile of {0} bytes does not fit a frame")]
    TooLarge(usize),
}

impl<T: AsRef<[u8]>> PipelinedClient<T> {
    /// Connects; waits for that at most `timeout`, and for nothing later.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, PipelinedError> {
        Self::connect_with(address, timeout, None)
    }

    /// Connects, with encryption where it is given.
    ///
    /// # Errors
    /// Nobody listens there, or the two do not trust each other.
    pub fn connect_with(
        address: SocketAddr,
        timeout: Duration,
        tls: Option<&ClientTls>,
    ) -> Result<Self, PipelinedError> {
        let io = |source| PipelinedError::Io { address, source };
        let stream = socket::connect(address, timeout, tls).map_err(io)?;
        stream.tcp().set_nonblocking(true).map_err(io)?;
        let answers = Box::new([0; ANSWERS_BYTES]);
        Ok(Self { stream, address, frames: VecDeque::new(), written: 0, answers, filled: 0 })
    }

    /// Queues a frame; [`Self::write`] sends it. `tag` holds the image.
    ///
    /// # Errors
    /// The image does not fit a frame.
    pub fn queue(&mut self, fields: &RequestFields, tag: T) -> Result<(), PipelinedError> {
        let len = tag.as_ref().len();
        let head = FrameHead::new(fields, len).ok_or(PipelinedError::TooLarge(len))?;
        self.frames.push_back(Frame { head, tail: FrameTail::new(len), sent: 0, began: None, tag });
        Ok(())
    }

    /// Writes what the socket takes, at most `budget` bytes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn write(&mut self, budget: usize) -> Result<WriteState, PipelinedError> {
        let mut left = budget;
        while self.written < self.frames.len() {
            if left == 0 {
                return Ok(WriteState::Spent);
            }
            let now = Instant::now();
            let mut slices = [IoSlice::new(&[]); 3 * FRAMES_A_WRITE];
            let used = gather(self.frames.range(self.written..), left, &mut slices);
            match self.stream.write_vectored(&slices[..used]) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    // Encrypted bytes of an earlier call, with a larger budget, may be among them.
                    left = left.saturating_sub(bytes);
                    self.note_written(bytes, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(WriteState::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(WriteState::Idle)
    }

    /// Reads the answers that have arrived.
    ///
    /// # Errors
    /// The connection failed or was closed, or what came is no answer. Answers before that were given to `each`.
    pub fn read(&mut self, each: &mut impl FnMut(PipelinedAnswer<T>)) -> Result<(), PipelinedError> {
        loop {
            match self.stream.read(&mut self.answers[self.filled..]) {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(bytes) => {
                    self.filled += bytes;
                    let more = self.filled == ANSWERS_BYTES;
                    self.take_answers(each)?;
                    if !more {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Frames without an answer, written or not.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.frames.len()
    }

    /// The frame that is being written or is the next to be.
    #[must_use]
    pub fn writing(&self) -> Option<Writing<'_, T>> {
        self.frames.get(self.written).map(|frame| Writing {
            tag: &frame.tag,
            sent: frame.sent,
            left: frame.len() - frame.sent,
        })
    }

    /// When the oldest unanswered frame was begun.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.frames.front().and_then(|frame| frame.began)
    }

    /// Closes the connection, in the middle of a frame if there is one; gives back what was not answered.
    pub fn cut(self) -> impl Iterator<Item = T> {
        let _ = self.stream.tcp().shutdown(std::net::Shutdown::Both); // It is closed in any case.
        self.frames.into_iter().map(|frame| frame.tag)
    }

    fn note_written(&mut self, mut bytes: usize, now: Instant) {
        for frame in self.frames.range_mut(self.written..) {
            if bytes == 0 {
                break;
            }
            frame.began.get_or_insert(now);
            let taken = bytes.min(frame.len() - frame.sent);
            frame.sent += taken;
            bytes -= taken;
            self.written += usize::from(frame.sent == frame.len());
        }
    }

    fn take_answers(&mut self, each: &mut impl FnMut(PipelinedAnswer<T>)) -> Result<(), PipelinedError> {
        let received = Instant::now();
        let mut at = 0;
        while let Some((prefix, rest)) = self.answers[at..self.filled].split_first_chunk::<PREFIX_BYTES>() {
            let len = u32::from_le_bytes(*prefix) as usize;
            if len > ANSWERS_BYTES - PREFIX_BYTES {
                return Err(PipelinedError::BadAnswer { address: self.address });
            }
            let Some(body) = rest.get(..len) else { break };
            let response = parse_response(body).ok_or(PipelinedError::BadAnswer { address: self.address })?;
            let frame = self.frames.pop_front().ok_or(PipelinedError::BadAnswer { address: self.address })?;
            let early = self.written == 0;
            self.written = self.written.saturating_sub(1);
            each(PipelinedAnswer { tag: frame.tag, response, began: frame.began, received });
            if early {
                // Refused before it was whole (too long): the server closes, and what is left of it must not be sent.
                return Err(self.failed(io::ErrorKind::ConnectionReset.into()));
            }
            at += PREFIX_BYTES + len;
        }
        self.answers.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> PipelinedError {
        PipelinedError::Io { address: self.address, source }
    }
}

impl<T: AsRef<[u8]>> Frame<T> {
    fn parts(&self) -> [&[u8]; 3] {
        [self.head.bytes(), self.tag.as_ref(), self.tail.bytes()]
    }

    fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// The bytes to be written next, at most `budget`; returns the number of slices.
fn gather<'a, T: AsRef<[u8]> + 'a>(
    frames: impl Iterator<Item = &'a Frame<T>>,
    budget: usize,
    slices: &mut [IoSlice<'a>; 3 * FRAMES_A_WRITE],
) -> usize {
    let (mut used, mut left) = (0, budget);
    for frame in frames.take(FRAMES_A_WRITE) {
        let mut skip = frame.sent;
        for part in frame.parts() {
            let begin = skip.min(part.len());
            skip -= begin;
            let part = &part[begin..][..left.min(part.len() - begin)];
            left -= part.len();
            if !part.is_empty() {
                slices[used] = IoSlice::new(part);
                used += 1;
            }
        }
        if left == 0 {
            break;
        }
    }
    used
}

/// A connection to wait for, and whether to wait until it can be written too.
pub struct Interest<'a, T> {
    /// The connection.
    pub client: &'a PipelinedClient<T>,
    /// Until it can be written, not only until an answer is there.
    pub write: bool,
}

/// Waits until an answer has arrived, a connection can be written, or the time is over. Calls `ready` with the
/// position of each connection that can be read or has failed, and of each that can be written.
///
/// # Errors
/// The operating system's.
pub fn wait<'a, T: 'a>(
    interests: impl Iterator<Item = Interest<'a, T>>,
    limit: Duration,
    ready: &mut Vec<Readiness>,
) -> io::Result<()> {
    let flags = |write| if write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut polled: Vec<PollFd<'a>> =
        interests.map(|interest| PollFd::new(interest.client.stream.tcp(), flags(interest.write))).collect();
    ready.clear();
    if polled.is_empty() {
        std::thread::sleep(limit); // Not every system lets one poll nothing.
        return Ok(());
    }
    let limit =
        Timespec { tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut polled, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    ready.extend(polled.iter().map(|polled| {
        let events = polled.revents();
        Readiness { read: events.intersects(!PollFlags::OUT), write: events.contains(PollFlags::OUT) }
    }));
    Ok(())
}

/// What a connection can do without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There are answers, or it has failed: read.
    pub read: bool,
    /// There is room: write.
    pub write: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AcqId, Checksum, FrameNumber, Pressure, TileId, TileKey};
    use crate::wire::{encode_response, parse_request};
    use std::net::{TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn fields(row: u32) -> RequestFields {
        let key = TileKey { acq: AcqId(1), col: 0, row, frame: FrameNumber::STABLE };
        RequestFields { key, camera: 0, checksum: Checksum::None }
    }

    fn answer(status: i16) -> Response {
        let (green, tile) = (Pressure::Green, TileId(5));
        Response { acq: 1, tile, status, system: green, tile_queue: green, content_queue: green }
    }

    fn connected() -> (PipelinedClient<Vec<u8>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = PipelinedClient::connect(address, PATIENCE).expect("connected");
        (client, listener.accept().expect("a peer").0)
    }

    fn wait_for(client: &PipelinedClient<Vec<u8>>, write: bool) -> Readiness {
        let mut ready = Vec::new();
        wait(std::iter::once(Interest { client, write }), PATIENCE, &mut ready).expect("waits");
        ready[0]
    }

    #[test]
    fn frames_larger_than_the_socket_and_small_ones_arrive_whole_and_in_order() {
        let (mut client, mut peer) = connected();
        let sizes = [9_000_000usize, 1, 2, 3, 100_000, 7];
        for (row, size) in (0..).zip(sizes) {
            client.queue(&fields(row), vec![u8::try_from(row).expect("small"); size]).expect("fits");
        }
        let reader = std::thread::spawn(move || {
            for (row, size) in (0..).zip(sizes) {
                let mut prefix = [0; 4];
                peer.read_exact(&mut prefix).expect("a prefix");
                let mut frame = vec![0; u32::from_le_bytes(prefix) as usize];
                peer.read_exact(&mut frame).expect("a frame");
                let request = parse_request(&frame).expect("a good frame");
                assert_eq!((request.row, request.image.len as usize), (row, size));
                assert!(frame[request.image.bounds()].iter().all(|byte| i32::from(*byte) == row));
                peer.write_all(&encode_response(&answer(i16::try_from(row).expect("small")))).expect("answered");
            }
        });
        let mut statuses = Vec::new();
        while statuses.len() < sizes.len() {
            let state = client.write(1 << 20).expect("written");
            let ready = wait_for(&client, state != WriteState::Idle);
            if ready.read {
                client.read(&mut |answer| statuses.push(answer.response.status)).expect("read");
            }
        }
        assert_eq!(statuses, [0, 1, 2, 3, 4, 5]);
        assert_eq!(client.in_flight(), 0);
        reader.join().expect("the peer");
    }

    #[test]
    fn an_answer_in_pieces_is_read_when_it_is_whole_and_a_closed_peer_is_an_error() {
        let (mut client, mut peer) = connected();
        client.queue(&fields(0), vec![1]).expect("fits");
        assert_eq!(client.write(usize::MAX).expect("written"), WriteState::Idle);
        let bytes = encode_response(&answer(0));
        let mut answers = 0;
        for part in [&bytes[..3], &bytes[3..30], &bytes[30..]] {
            peer.write_all(part).expect("sent");
            assert!(wait_for(&client, false).read);
            client.read(&mut |_| answers += 1).expect("read");
        }
        assert_eq!(answers, 1);
        drop(peer);
        assert!(wait_for(&client, false).read);
        assert!(matches!(client.read(&mut |_| {}), Err(PipelinedError::Io { .. })));
    }

    #[test]
    fn what_is_no_answer_is_said_and_a_cut_gives_back_what_was_not_answered() {
        let (mut client, mut peer) = connected();
        for row in 0..3 {
            client.queue(&fields(row), vec![0; 10]).expect("fits");
        }
        assert_eq!(client.write(150).expect("written"), WriteState::Spent);
        assert_eq!(client.writing().map(|writing| writing.sent), Some(150 - 132));
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").expect("sent");
        assert!(wait_for(&client, false).read);
        assert!(matches!(client.read(&mut |_| {}), Err(PipelinedError::BadAnswer { .. })));
        assert_eq!(client.cut().count(), 3);
    }
}
