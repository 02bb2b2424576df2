//! TCP on this machine: what it moves between two threads, and what that costs each.

use super::{cpu_per_gb, mb_per_s, noise, thread_cpu};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const BUFFER_BYTES: usize = 5_300_000;

/// One connection over loopback.
#[derive(Clone, Copy, Debug)]
pub struct Loopback {
    /// What arrives, MB/s.
    pub mb_per_s: f64,
    /// Processor time of the sending thread, s/GB.
    pub send_cpu_s_per_gb: f64,
    /// Processor time of the receiving thread, s/GB.
    pub receive_cpu_s_per_gb: f64,
}

impl Loopback {
    pub(super) fn measure(time: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut sender = TcpStream::connect(listener.local_addr()?)?;
        let (mut receiver, _) = listener.accept()?;
        std::thread::scope(|scope| {
            let receiving = scope.spawn(move || receive(&mut receiver));
            let began = Instant::now();
            let bytes = noise(BUFFER_BYTES);
            let before = thread_cpu();
            while began.elapsed() < time {
                sender.write_all(&bytes)?;
            }
            let send_cpu = thread_cpu().saturating_sub(before);
            drop(sender);
            let (received, receive_cpu) = receiving.join().expect("reading does not panic")?;
            Ok(Self {
                mb_per_s: mb_per_s(received, began.elapsed()),
                send_cpu_s_per_gb: cpu_per_gb(send_cpu, received),
                receive_cpu_s_per_gb: cpu_per_gb(receive_cpu, received),
            })
        })
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<(u64, Duration)> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let before = thread_cpu();
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((received, thread_cpu().saturating_sub(before))),
            read => received += read as u64,
        }
    }
}
