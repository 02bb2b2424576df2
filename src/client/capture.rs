//! One connection to the capture port, with a window of tiles in flight.

use super::socket::{self, Socket};
use crate::model::{Checksum, TileKey};
use crate::tls::ClientTls;
use crate::wire::{FrameHead, FrameTail, PREFIX_BYTES, RequestFields, Response, parse_response};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The longest answer that is read. A real one has 56 bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// A tile to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// Acquisition, column, row, frame.
    pub key: TileKey,
    /// Camera index.
    pub camera: i32,
    /// Checksum of the image.
    pub checksum: Checksum,
    /// The image file's bytes.
    pub image: &'a [u8],
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<T> {
    /// What the caller gave with the tile.
    pub tag: T,
    /// The server's answer.
    pub response: Response,
    /// From the first byte sent to the answer received.
    pub took: Duration,
}

/// Why tiles could not be sent. What was not answered may or may not be stored: send it again.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The connection failed.
    #[error("capture port {address}: {source}; {unanswered} tiles are unanswered: send them again")]
    Io {
        /// The server.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
        /// Tiles without an answer.
        unanswered: usize,
    },
    /// The server's answer is not one.
    #[error("capture port {address}: the answer is not an ImageTileResponse; is this a tilecatcher?")]
    BadAnswer {
        /// The server.
        address: SocketAddr,
    },
    /// The tile can not be framed.
    #[error("a tile of {0} bytes does not fit a frame")]
    TooLarge(usize),
}

/// A connection. `T` is whatever the caller wants back with each answer.
pub struct CaptureClient<T> {
    stream: Socket,
    address: SocketAddr,
    window: usize,
    in_flight: VecDeque<(T, Instant)>,
    /// Writing failed after an answer had been received, which had to be returned first.
    failed: Option<io::Error>,
}

impl<T> CaptureClient<T> {
    /// Connects. `window` is the most tiles in flight; `timeout` bounds each wait for the server.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr, window: usize, timeout: Duration) -> Result<Self, CaptureError> {
        Self::connect_with(address, window, timeout, None)
    }

    /// Connects, with encryption where it is given.
    ///
    /// # Errors
    /// Nobody listens there, or the two do not trust each other.
    pub fn connect_with(
        address: SocketAddr,
        window: usize,
        timeout: Duration,
        tls: Option<&ClientTls>,
    ) -> Result<Self, CaptureError> {
        let stream = socket::connect(address, timeout, tls).map_err(|source| CaptureError::Io {
            address,
            source,
            unanswered: 0,
        })?;
        Ok(Self { stream, address, window: window.max(1), in_flight: VecDeque::new(), failed: None })
    }

    /// Sends a tile. When the window is full, waits for the oldest answer first and returns it.
    ///
    /// # Errors
    /// The connection failed: the tile counts as unanswered. [`CaptureError::TooLarge`]: it was not sent, and the tag
    /// is gone.
    pub fn send(&mut self, tile: &Tile<'_>, tag: T) -> Result<Option<Answered<T>>, CaptureError> {
        let fields = RequestFields { key: tile.key, camera: tile.camera, checksum: tile.checksum };
        let head = FrameHead::new(&fields, tile.image.len()).ok_or(CaptureError::TooLarge(tile.image.len()))?;
        let answered = match self.receive_when_full() {
            Ok(answered) => answered,
            Err(error) => {
                self.in_flight.push_back((tag, Instant::now()));
                return Err(error);
            }
        };
        self.in_flight.push_back((tag, Instant::now()));
        let tail = FrameTail::new(tile.image.len());
        let mut parts = [IoSlice::new(head.bytes()), IoSlice::new(tile.image), IoSlice::new(tail.bytes())];
        match write_all_vectored(&mut self.stream, &mut parts) {
            Err(source) if answered.is_none() => return Err(self.io(source)),
            // The answer must not be lost: the next call has the error.
            Err(source) => self.failed = Some(source),
            Ok(()) => {}
        }
        Ok(answered)
    }

    /// Waits for the oldest answer. `None` when nothing is in flight.
    ///
    /// # Errors
    /// The connection failed; see [`CaptureError`].
    pub fn receive(&mut self) -> Result<Option<Answered<T>>, CaptureError> {
        if self.in_flight.is_empty() {
            return Ok(None);
        }
        self.check()?;
        let response = self.read_answer()?;
        Ok(self.in_flight.pop_front().map(|(tag, sent)| Answered { tag, response, took: sent.elapsed() }))
    }

    /// When the server closed the connection, it may have said why before: the answers that have come, up to `wait`
    /// after another. Afterwards [`Self::into_unanswered`] has the rest.
    pub fn salvage(&mut self, wait: Duration, mut each: impl FnMut(Answered<T>)) {
        let _ = self.stream.tcp().set_read_timeout(Some(wait));
        while let Ok(Some(answered)) = self.receive() {
            each(answered);
        }
    }

    /// Gives the connection up; what was sent and not answered, oldest first: send it again elsewhere.
    pub fn into_unanswered(self) -> impl Iterator<Item = T> {
        self.in_flight.into_iter().map(|(tag, _)| tag)
    }

    /// Tiles without an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn receive_when_full(&mut self) -> Result<Option<Answered<T>>, CaptureError> {
        self.check()?;
        if self.in_flight.len() >= self.window { self.receive() } else { Ok(None) }
    }

    /// An error that is still to be told.
    fn check(&mut self) -> Result<(), CaptureError> {
        self.failed.take().map_or(Ok(()), |source| Err(self.io(source)))
    }

    fn read_answer(&mut self) -> Result<Response, CaptureError> {
        let bad = CaptureError::BadAnswer { address: self.address };
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).map_err(|source| self.io(source))?;
        let len = u32::from_le_bytes(prefix) as usize;
        if len > ANSWER_BYTES_MAX {
            return Err(bad);
        }
        let mut body = [0; ANSWER_BYTES_MAX];
        self.stream.read_exact(&mut body[..len]).map_err(|source| self.io(source))?;
        parse_response(&body[..len]).ok_or(bad)
    }

    fn io(&self, source: io::Error) -> CaptureError {
        CaptureError::Io { address: self.address, source, unanswered: self.in_flight.len() }
    }
}

fn write_all_vectored(stream: &mut Socket, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut parts, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AcqId, FrameNumber, Pressure};
    use std::net::TcpListener;

    #[test]
    fn an_answer_that_comes_before_the_connection_breaks_is_returned_and_the_error_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut prefix = [0; PREFIX_BYTES];
            stream.read_exact(&mut prefix).expect("a prefix");
            io::copy(&mut (&stream).take(u64::from(u32::from_le_bytes(prefix))), &mut io::sink()).expect("a frame");
            let refusal = crate::wire::encode_response(&Response {
                acq: 1,
                tile: crate::model::TileId::NONE,
                status: 2,
                system: Pressure::Red,
                tile_queue: Pressure::Green,
                content_queue: Pressure::Green,
            });
            stream.write_all(&refusal).expect("an answer");
        });
        let mut client = CaptureClient::connect(address, 1, Duration::from_secs(10)).expect("a connection");
        let key = TileKey { acq: AcqId(1), col: 0, row: 0, frame: FrameNumber::STABLE };
        // More than the buffers of both sides hold.
        let image = vec![0; 64 << 20];
        let tile = |image| Tile { key, camera: 0, checksum: Checksum::None, image };
        assert!(client.send(&tile(&image[..9]), 'a').expect("sent").is_none());
        server.join().expect("no panic");
        let answered = client.send(&tile(&image), 'b').expect("the first one's answer").expect("an answer");
        assert_eq!((answered.tag, answered.response.status), ('a', 2));
        assert!(matches!(client.receive(), Err(CaptureError::Io { unanswered: 1, .. })));
        assert_eq!(client.into_unanswered().collect::<Vec<_>>(), ['b']);
    }
}
