//! How soon a peer that is gone without a word is noticed, the same on every port.

use rustix::net::sockopt;
use std::os::fd::AsFd;
use std::time::Duration;

/// A silent peer is asked whether it is there after this time, then three times more, this far apart.
const IDLE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(10);
const TIMES: u32 = 3;

/// Has the system ask. What fails here fails for a peer that is gone already, and the next read says so.
pub fn ask_when_silent(socket: impl AsFd) {
    let _ = sockopt::set_socket_keepalive(&socket, true);
    let _ = sockopt::set_tcp_keepidle(&socket, IDLE);
    let _ = sockopt::set_tcp_keepintvl(&socket, AGAIN);
    let _ = sockopt::set_tcp_keepcnt(&socket, TIMES);
}
