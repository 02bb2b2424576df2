//! What hostile peers are made of: connections from other addresses, with small buffers, that end with a reset; and what
//! must hold after them.

use super::support::{Daemon, PATIENCE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// The settings of every test's daemon, see `SMALL` in support.rs, bytes.
pub const BUFFERS: usize = 64 << 20;
const INDEX_CACHE: usize = 16 << 20;
/// What a daemon may take beside its configured memory, bytes.
const BESIDE: usize = 64 << 20;

/// True for long campaigns.
pub fn long() -> bool {
    std::env::var_os("TILECATCHER_LONG").is_some_and(|value| value == "1")
}

/// A connection whose own address is 127.0.0.`host`.
pub fn dial_from(host: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// As little room for answers as the system gives.
pub fn dial_with_small_buffer(to: SocketAddr) -> TcpStream {
    dial_with_buffer(to, 4096)
}

/// Room for so many bytes of answers that were not read; for root also more than others may have.
pub fn dial_with_buffer(to: SocketAddr, bytes: usize) -> TcpStream {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, bytes).expect("a buffer");
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, bytes);
    connect(&socket, &to).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Ends a connection with a reset.
pub fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("linger");
    drop(stream);
}

/// Sends until the daemon takes no more for a while, or ends the connection.
pub fn send_until_stuck(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut sent = 0;
    while sent < bytes.len() {
        match std::io::Write::write(stream, &bytes[sent..]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Resident memory of a process, bytes.
pub fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().expect("a number").parse::<usize>().expect("a number") << 10
}

/// Processor time of a process so far.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a status");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system");
    Duration::from_millis(ticks * 10)
}

/// After an attack: memory is within its bounds, every buffer is back, and who means well is served.
pub fn assert_sound(daemon: &Daemon, buffers: usize) {
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    daemon.await_metric("tilecatcher_buffer_waiters", 0.0);
    let resident = resident(daemon.pid());
    assert!(resident <= buffers + INDEX_CACHE + BESIDE, "{resident} bytes resident");
    daemon.connect().assert_works(6);
}

/// Holds for as long as it is looked at.
pub fn stays(time: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        assert!(holds(), "ended before its time");
        std::thread::yield_now();
    }
}
