//! NATS JetStream: a file stream, each tile published with a reply subject that its acknowledgement comes to.

use crate::contender::{Client, Contender, Level, Running};
use crate::server::{Server, command, free_address, version_of};
use crate::wire::Wire;
use anyhow::{Context, bail, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A stream writes and syncs one message after the other; senders are spread over so many.
const STREAMS: u32 = 9;

/// Garbage is collected when five times the memory in use was taken, not twice.
const COLLECTOR: (&str, &str) = ("GOGC", "400");

pub struct Nats {
    pub level: Level,
    pub program: PathBuf,
}

impl Contender for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn level(&self) -> Level {
        self.level
    }

    fn durability(&self) -> &'static str {
        match self.level {
            Level::Synced => "JetStream, sync_interval always: fsync before the ack",
            Level::Unsynced => "JetStream, default sync_interval (2 min): page cache",
        }
    }

    fn settings(&self) -> String {
        let sync = match self.level {
            Level::Synced => "sync_interval: always",
            Level::Unsynced => "sync_interval: 2m",
        };
        format!(
            "max_payload: 64MB\njetstream {{ store_dir: DIR, max_file_store: 1TB, max_buffered_size: 1GB, {sync} }}"
        )
    }

    fn version(&self) -> anyhow::Result<String> {
        let version = version_of(&self.program, "--version", "Debian: nats-server, or name one with --nats-server")?;
        if self.level == Level::Synced && is_before(&version, "2.10") {
            bail!("nats-server {version} can not sync before the ack; name 2.10 or newer with --nats-server");
        }
        Ok(version)
    }

    fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let file = dir.join("nats.conf");
        let mut settings = self.settings().replace("DIR", &format!("\"{}\"", dir.join("data").display()));
        let version = self.version()?;
        if is_before(&version, "2.10") {
            settings = settings.replace(", sync_interval: 2m", "");
        }
        if is_before(&version, "2.11") {
            settings = settings.replace(", max_buffered_size: 1GB", "");
        }
        std::fs::write(&file, format!("listen: \"{address}\"\n{settings}\n"))?;
        let server =
            Server::start(command(&self.program).arg("-c").arg(&file).env(COLLECTOR.0, COLLECTOR.1), dir, address)?;
        let mut admin = Connection::open(address, 1000)?;
        for stream in 0..STREAMS {
            admin.create_stream(stream)?;
        }
        Ok(Running { server, address })
    }

    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Connection::open(running.address, connection)?))
    }
}

/// Compares `major.minor`.
fn is_before(version: &str, limit: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> { text.split('.').take(2).filter_map(|n| n.parse().ok()).collect() };
    numbers(version) < numbers(limit)
}

struct Connection {
    wire: Wire,
    subject: String,
    inbox: String,
}

impl Connection {
    fn open(address: SocketAddr, number: u32) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(address)?;
        let (subject, inbox) = (format!("tiles.{}", number % STREAMS), format!("_INBOX.{number}"));
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\nPING\r\n");
        wire.send([hello.as_bytes()])?;
        while wire.line()? != "PONG" {}
        Ok(Self { wire, subject, inbox })
    }

    fn create_stream(&mut self, number: u32) -> anyhow::Result<()> {
        let wanted = format!(
            "{{\"name\":\"tiles{number}\",\"subjects\":[\"tiles.{number}\"],\"storage\":\"file\",\
             \"retention\":\"limits\",\"discard\":\"new\",\"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\
             \"max_msg_size\":-1,\"max_consumers\":-1,\"num_replicas\":1}}"
        );
        self.publish(&format!("$JS.API.STREAM.CREATE.tiles{number}"), wanted.as_bytes())?;
        self.answer().map(|_| ())
    }

    fn publish(&mut self, subject: &str, message: &[u8]) -> anyhow::Result<()> {
        let head = format!("PUB {subject} {} {}\r\n", self.inbox, message.len());
        self.wire.send([head.as_bytes(), message, b"\r\n"])
    }

    /// The next message that comes to the inbox.
    fn answer(&mut self) -> anyhow::Result<String> {
        loop {
            let line = self.wire.line()?;
            match line.split(' ').next() {
                Some("PING") => self.wire.send([b"PONG\r\n"])?,
                Some("MSG") => {
                    let len: usize = line.rsplit(' ').next().context("a length")?.parse()?;
                    let body = self.wire.bytes(len + 2)?;
                    let body = String::from_utf8_lossy(&body[..len]).into_owned();
                    ensure!(!body.contains("\"error\""), "JetStream: {body}");
                    return Ok(body);
                }
                Some("INFO" | "PONG") => {}
                _ => bail!("nats-server: {line}"),
            }
        }
    }
}

impl Client for Connection {
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()> {
        let subject = std::mem::take(&mut self.subject);
        let sent = self.publish(&subject, image);
        self.subject = subject;
        sent
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let answer = self.answer()?;
        ensure!(answer.contains("\"seq\""), "JetStream: {answer}");
        Ok(())
    }
}
