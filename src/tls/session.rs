//! A TLS session between a socket and plain bytes, on either side, for sockets that wait and sockets that do not.
//!
//! Records arrive in one buffer, are decrypted where they lie, and are copied to where the reader wants them; what finds
//! no room there waits in `record`. A session may hold plain bytes while its socket has nothing more to say, so whoever
//! waits for a socket must first have read until it is empty: see [`Session::has_emptied`].

use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{AlertDescription, CommonState, Error};
use std::io::{self, IoSlice, Read, Write};
use std::ops::Deref;

/// Room for records that have arrived: what one read of the socket takes at most. A handshake must fit.
const INCOMING_BYTES: usize = 128 << 10;
/// Plain bytes that are encrypted before the socket is asked to take them.
const OUTGOING_PLAIN_BYTES: usize = 128 << 10;
/// The most plain bytes of one record.
const RECORD_BYTES: usize = 16 << 10;
/// Reads of the socket that may bring nothing before others get their turn.
const FRUITLESS_READS: u32 = 16;

/// One end of a session.
pub trait End: Deref<Target: Deref<Target = CommonState>> {
    /// What it keeps.
    type Data;

    /// Takes the records of `incoming` until there is something to do.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

/// See the module's description.
pub struct Session<E> {
    end: E,
    /// Records that have arrived, from `begun` to `filled`.
    incoming: Box<[u8]>,
    begun: usize,
    filled: usize,
    /// Plain bytes that found no room, from `taken` on.
    record: Vec<u8>,
    taken: usize,
    /// Records on their way to the socket, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    /// Plain bytes in them that the writer has not been told of.
    accepted: usize,
    /// Collects small parts into one record.
    stage: Vec<u8>,
    /// The last read took from the socket less than there was room for, and all whole records of that.
    emptied: bool,
    /// The peer has said that no more will come.
    closed: bool,
    failure: Option<Error>,
}

/// What came of looking at the records.
enum Progress {
    /// So many plain bytes are where the reader wants them; there may be more.
    Read(usize),
    /// Look again.
    Going,
    /// The plain bytes given are encrypted.
    Encrypted,
    /// No whole record is there.
    Starved,
    /// Nothing more will come.
    Closed,
}

impl<E: End> Session<E> {
    pub(super) fn new(end: E) -> Self {
        Self {
            end,
            incoming: vec![0; INCOMING_BYTES].into(),
            begun: 0,
            filled: 0,
            record: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            accepted: 0,
            stage: Vec::new(),
            emptied: false,
            closed: false,
            failure: None,
        }
    }

    /// True until both sides have shown what they have to show.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.end.is_handshaking()
    }

    /// After a read: nothing is held here, and a socket that does not wait has nothing more and will tell of news.
    #[must_use]
    pub fn has_emptied(&self) -> bool {
        self.emptied
    }

    pub(super) fn state(&self) -> &CommonState {
        &self.end
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Reads plain bytes: as many as have arrived and fit, at least one. 0: the peer has closed.
    ///
    /// # Errors
    /// The socket's (`WouldBlock` too); the peer breaks the rules or is not to be trusted. `Interrupted`: bytes came and
    /// brought nothing to read; let others have a turn.
    pub fn read<S: Read + Write>(&mut self, socket: &mut S, into: &mut [u8]) -> io::Result<usize> {
        let mut got = self.take_record(into);
        self.emptied = false; // What an earlier read found is no news of the socket.
        let mut fruitless = 0;
        while got < into.len() && !self.closed {
            match self.step(&mut into[got..], &[]) {
                Ok(Progress::Read(bytes)) => got += bytes,
                Ok(Progress::Closed) => self.closed = true,
                Ok(Progress::Going | Progress::Encrypted) => {}
                Ok(Progress::Starved) if got > 0 => break,
                Ok(Progress::Starved) if fruitless == FRUITLESS_READS => return Err(io::ErrorKind::Interrupted.into()),
                Ok(Progress::Starved) => {
                    self.send_own(socket)?;
                    fruitless += 1;
                    if self.fill(socket)? == 0 {
                        return Ok(0);
                    }
                }
                // What came before it is good; the next read says it.
                Err(_) if got > 0 => break,
                Err(error) => return Err(self.break_off(socket, &error)),
            }
        }
        // Without room for more, whole records may be left.
        self.emptied &= got < into.len();
        Ok(got)
    }

    /// What is held already, without asking the socket.
    pub fn take_record(&mut self, into: &mut [u8]) -> usize {
        let held = &self.record[self.taken..];
        let bytes = held.len().min(into.len());
        into[..bytes].copy_from_slice(&held[..bytes]);
        self.taken += bytes;
        if self.taken == self.record.len() {
            self.record.clear();
            self.taken = 0;
        }
        bytes
    }

    /// Encrypts and writes. The number of plain bytes is returned when their records are wholly written: after an error
    /// that passes, such as `WouldBlock`, come again with the same bytes at the front.
    ///
    /// # Errors
    /// The socket's; the peer breaks the rules.
    pub fn write<S: Read + Write>(&mut self, socket: &mut S, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.accepted == 0 {
            self.accepted = self.encrypt_parts(parts).map_err(|error| self.break_off(socket, &error))?;
        }
        self.flush(socket)?;
        Ok(std::mem::take(&mut self.accepted))
    }

    /// Drives the handshake on a socket that waits.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn shake_hands<S: Read + Write>(&mut self, socket: &mut S) -> io::Result<()> {
        loop {
            match self.step(&mut [], &[]) {
                Ok(Progress::Starved) if !self.is_handshaking() => return self.flush(socket),
                Ok(Progress::Starved) => {
                    self.flush(socket)?;
                    if self.fill(socket)? == 0 {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "TLS: closed during the handshake"));
                    }
                }
                Ok(Progress::Closed) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => return Err(self.break_off(socket, &error)),
            }
        }
    }

    /// Looks at the records that have arrived. Plain bytes go to `into` and, without room there, to `record`. When the
    /// session is open, `plain` is encrypted.
    fn step(&mut self, into: &mut [u8], plain: &[u8]) -> Result<Progress, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let status = self.end.process(&mut self.incoming[self.begun..self.filled]);
        let done = status.discard;
        let progress = match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut got = 0;
                while let Some(record) = traffic.next_record() {
                    let payload = record?.payload;
                    let fits = payload.len().min(into.len() - got);
                    into[got..got + fits].copy_from_slice(&payload[..fits]);
                    self.record.extend_from_slice(&payload[fits..]);
                    got += fits;
                }
                Ok(Progress::Read(got))
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                append(&mut self.outgoing, |room| data.encode(room), encoding_needs)?;
                Ok(Progress::Going)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Progress::Going)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) if !plain.is_empty() => {
                append(&mut self.outgoing, |room| traffic.encrypt(plain, room), encrypting_needs)?;
                Ok(Progress::Encrypted)
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => Ok(Progress::Starved),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Progress::Closed),
            Ok(_) => Err(Error::General("a state that was not asked for".to_owned())),
            Err(error) => Err(error),
        };
        self.begun += done;
        if let Err(error) = &progress {
            self.failure = Some(error.clone());
        }
        progress
    }

    /// Encrypts what fits one go; how much that is.
    fn encrypt_parts(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        let mut left = OUTGOING_PLAIN_BYTES;
        let mut stage = std::mem::take(&mut self.stage);
        for part in parts {
            let mut part = &part[..part.len().min(left)];
            left -= part.len();
            while !part.is_empty() {
                if stage.is_empty() && part.len() >= RECORD_BYTES {
                    let (whole, rest) = part.split_at(part.len() - part.len() % RECORD_BYTES);
                    self.encrypt(whole)?;
                    part = rest;
                } else {
                    let (next, rest) = part.split_at(part.len().min(RECORD_BYTES - stage.len()));
                    stage.extend_from_slice(next);
                    part = rest;
                }
                if stage.len() == RECORD_BYTES {
                    self.encrypt(&stage)?;
                    stage.clear();
                }
            }
        }
        if !stage.is_empty() {
            self.encrypt(&stage)?;
            stage.clear();
        }
        self.stage = stage;
        Ok(OUTGOING_PLAIN_BYTES - left)
    }

    fn encrypt(&mut self, plain: &[u8]) -> Result<(), Error> {
        loop {
            match self.step(&mut [], plain)? {
                Progress::Encrypted => return Ok(()),
                Progress::Closed => self.closed = true,
                Progress::Starved => return Err(Error::HandshakeNotComplete),
                Progress::Read(_) | Progress::Going => {}
            }
        }
    }

    /// Takes from the socket what it has, as far as there is room.
    fn fill<S: Read>(&mut self, socket: &mut S) -> io::Result<usize> {
        self.incoming.copy_within(self.begun..self.filled, 0);
        (self.begun, self.filled) = (0, self.filled - self.begun);
        let room = &mut self.incoming[self.filled..];
        if room.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS: a message without end"));
        }
        let read = socket.read(room)?;
        self.emptied = read < room.len();
        self.filled += read;
        Ok(read)
    }

    /// Writes what the session itself has to say; a socket that takes nothing now is asked again later.
    fn send_own<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        match self.flush(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    fn flush<S: Write>(&mut self, socket: &mut S) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match socket.write(&self.outgoing[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends the alert that the protocol has for it, as far as the socket takes it at once.
    fn break_off<S: Write>(&mut self, socket: &mut S, error: &Error) -> io::Error {
        // It must not look at records again: they are what broke it.
        while self.end.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.end.process(&mut []).state else { break };
            let _ = append(&mut self.outgoing, |room| data.encode(room), encoding_needs);
        }
        let _ = self.flush(socket);
        io_error(error)
    }
}

/// Lets `write` put bytes behind `outgoing`: first to learn how much room it needs, then for good.
fn append<P>(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, P>,
    needs: impl Fn(P) -> Result<usize, Error>,
) -> Result<(), Error> {
    let behind = outgoing.len();
    let room = match write(&mut []) {
        Ok(_) => return Ok(()),
        Err(problem) => needs(problem)?,
    };
    outgoing.resize(behind + room, 0);
    let written = write(&mut outgoing[behind..]).map_err(|problem| match needs(problem) {
        Ok(_) => Error::General("the room asked for is not enough".to_owned()),
        Err(error) => error,
    })?;
    outgoing.truncate(behind + written);
    Ok(())
}

fn encoding_needs(problem: EncodeError) -> Result<usize, Error> {
    match problem {
        EncodeError::InsufficientSize(size) => Ok(size.required_size),
        EncodeError::AlreadyEncoded => Err(Error::General("encoded twice".to_owned())),
    }
}

fn encrypting_needs(problem: EncryptError) -> Result<usize, Error> {
    match problem {
        EncryptError::InsufficientSize(size) => Ok(size.required_size),
        EncryptError::EncryptExhausted => Err(Error::EncryptError),
    }
}

/// `PermissionDenied`: one side does not trust the other, and another attempt will not help.
fn io_error(error: &Error) -> io::Error {
    use AlertDescription as Alert;
    let distrust = match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => true,
        Error::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
        ),
        _ => false,
    };
    let kind = if distrust { io::ErrorKind::PermissionDenied } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, format!("TLS: {error}"))
}
