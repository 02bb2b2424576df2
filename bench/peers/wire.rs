//! A TCP connection that sends without copying and reads lines and counted bytes.

use anyhow::bail;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);

pub struct Wire {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    /// Sends all parts, one after the other.
    pub fn send<const N: usize>(&mut self, parts: [&[u8]; N]) -> anyhow::Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut left: &mut [IoSlice<'_>] = &mut slices;
        // Passes over empty parts, which would look like a closed connection.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.write_vectored(left) {
                Ok(0) => bail!("the server takes nothing more"),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A line without its end.
    pub fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }

    pub fn bytes(&mut self, len: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.answers.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
