//! A keep-alive HTTP/1.1 connection with nothing around it, so that the client costs little.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct PlainHttp {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// An answer's status and the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub bytes: u64,
}

impl PlainHttp {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        Self { stream, buffer: vec![0; 256 << 10], filled: 0 }
    }

    pub fn get(&mut self, path: &str) -> Answered {
        self.ask("GET", path, "", b"", |_| {})
    }

    /// Sends a request; gives the body to `take` as it comes.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Answered {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        self.stream.write_all(head.as_bytes()).expect("sent");
        self.stream.write_all(body).expect("sent");
        let end = loop {
            let end = self.buffer[..self.filled].windows(4).position(|window| window == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => self.fill(),
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let bytes: u64 = length.and_then(|length| length.trim().parse().ok()).expect("a length");
        let mut left = usize::try_from(bytes).expect("small");
        let here = left.min(self.filled - end);
        take(&self.buffer[end..end + here]);
        self.buffer.copy_within(end + here..self.filled, 0);
        self.filled -= end + here;
        left -= here;
        while left > 0 {
            let step = left.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..step]).expect("a body");
            assert!(read > 0, "the server closed inside a body");
            take(&self.buffer[..read]);
            left -= read;
        }
        Answered { status, bytes }
    }

    /// As [`Self::ask`], with the body kept.
    pub fn fetch(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> (Answered, Vec<u8>) {
        let mut kept = Vec::new();
        let answered = self.ask(method, path, headers, body, |part| kept.extend_from_slice(part));
        (answered, kept)
    }

    fn fill(&mut self) {
        let read = self.stream.read(&mut self.buffer[self.filled..]).expect("an answer");
        assert!(read > 0, "the server closed");
        self.filled += read;
    }
}
