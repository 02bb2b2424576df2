//! Opens sockets to the capture port as all clients want them, plain or encrypted, and is one face for both.
//!
//! Must never hold up a socket that does not wait: once open, a session only does what the socket does.

use crate::tls::{ClientSession, ClientTls};
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The socket's buffer where there is no distance to bridge: so small that the bytes are still in the processor's caches
/// when the peer reads them. Measured: half the processor time a GB of what a buffer of 4 MB takes, which the system
/// would grow to.
const LOOPBACK_BUFFER: usize = 192 << 10;
/// After the handshake, so long a server is listened to that refuses the client's certificate.
const REFUSAL_WAIT: Duration = Duration::from_millis(300);

/// A connection to the capture port.
pub(super) struct Socket {
    tcp: TcpStream,
    session: Option<Box<ClientSession>>,
}

/// Connects; what is written leaves at once. Each wait takes at most `timeout`, those of the handshake and later ones.
pub(super) fn connect(address: SocketAddr, timeout: Duration, tls: Option<&ClientTls>) -> io::Result<Socket> {
    let mut tcp = TcpStream::connect_timeout(&address, timeout)?;
    tcp.set_nodelay(true)?;
    if address.ip().is_loopback() {
        set_socket_send_buffer_size(&tcp, LOOPBACK_BUFFER)?;
    }
    tcp.set_read_timeout(Some(timeout))?;
    tcp.set_write_timeout(Some(timeout))?;
    let session = match tls {
        Some(tls) => {
            let mut session = Box::new(tls.session(address.ip())?);
            session.shake_hands(&mut tcp).map_err(no_tls_there)?;
            Some(session)
        }
        None => None,
    };
    Ok(Socket { tcp, session })
}

/// Whether somebody listens, and accepts what the client shows. In TLS 1.3 a server refuses a certificate after the
/// client has done with the handshake.
pub(super) fn probe(address: SocketAddr, timeout: Duration, tls: Option<&ClientTls>) -> io::Result<()> {
    let mut socket = connect(address, timeout, tls)?;
    if socket.session.is_none() {
        return Ok(());
    }
    socket.tcp.set_read_timeout(Some(REFUSAL_WAIT))?;
    match socket.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// A plain port takes the handshake for a frame and waits, or closes.
fn no_tls_there(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => error,
        kind => io::Error::new(kind, format!("no TLS handshake: {error}; is this the port of capture.tls_address?")),
    }
}

impl Socket {
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.tcp.read(into),
            Some(session) => session.read(&mut self.tcp, into),
        }
    }
}

/// An encrypted write that would have to wait must be repeated with the same bytes at the front, as those do who count
/// what was written.
impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.session {
            None => self.tcp.write_vectored(parts),
            Some(session) => session.write(&mut self.tcp, parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
