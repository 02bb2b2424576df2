//! Opens sockets to the capture port as all clients want them.

use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The socket's buffer where there is no distance to bridge: so small that the bytes are still in the processor's caches
/// when the peer reads them. Measured: half the processor time a GB of what a buffer of 4 MB takes, which the system
/// would grow to.
const LOOPBACK_BUFFER: usize = 192 << 10;

/// Connects; what is written leaves at once.
pub(super) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_nodelay(true)?;
    if address.ip().is_loopback() {
        set_socket_send_buffer_size(&stream, LOOPBACK_BUFFER)?;
    }
    Ok(stream)
}
