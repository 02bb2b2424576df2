//! Redis with its append-only file: each tile a SET. Values stay in Redis' memory, so that keys are used again; the
//! file keeps them all.

use crate::contender::{Client, Contender, Level, Running};
use crate::server::{Server, command, free_address, version_of};
use crate::wire::Wire;
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys of a connection.
const KEYS: u32 = 8;

/// Freed values are used again and not given back to the kernel; half as fast without, where memory is dear.
const ALLOCATOR: (&str, &str) = ("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1");

/// Longest time that what was acknowledged from memory may take to the file.
const FLUSH_TIME: Duration = Duration::from_secs(60);

pub struct Redis(pub Level);

impl Contender for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn level(&self) -> Level {
        self.0
    }

    fn durability(&self) -> &'static str {
        match self.0 {
            Level::Synced => "AOF, appendfsync always: fdatasync before the ack",
            Level::Unsynced => "AOF, appendfsync everysec: memory or page cache",
        }
    }

    fn settings(&self) -> String {
        let fsync = match self.0 {
            Level::Synced => "always",
            Level::Unsynced => "everysec",
        };
        format!(
            "appendonly yes\nappendfsync {fsync}\nauto-aof-rewrite-percentage 0\nsave \"\"\nmaxmemory 0\n\
             lazyfree-lazy-server-del yes\n# environment: {}={}",
            ALLOCATOR.0, ALLOCATOR.1
        )
    }

    fn version(&self) -> anyhow::Result<String> {
        version_of("redis-server", "--version", "Debian: redis-server")
    }

    fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let file = dir.join("redis.conf");
        let place = format!("bind 127.0.0.1\nport {}\ndir \"{}\"\ndaemonize no", address.port(), dir.display());
        std::fs::write(&file, format!("{place}\n{}\n", self.settings()))?;
        let mut server = Server::start(command("redis-server").arg(&file).env(ALLOCATOR.0, ALLOCATOR.1), dir, address)?;
        server.retry(|| Connection { wire: Wire::connect(address)?, connection: 0, sent: 0 }.ping())?;
        Ok(Running { server, address })
    }

    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Connection { wire: Wire::connect(running.address)?, connection, sent: 0 }))
    }

    fn flush(&self, running: &Running) -> anyhow::Result<()> {
        let mut admin = Connection { wire: Wire::connect(running.address)?, connection: 0, sent: 0 };
        let until = Instant::now() + FLUSH_TIME;
        while !admin.persistence()?.contains("aof_buffer_length:0\r\n") {
            ensure!(Instant::now() < until, "redis does not write its append-only file");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

struct Connection {
    wire: Wire,
    connection: u32,
    sent: u32,
}

impl Connection {
    fn ping(&mut self) -> anyhow::Result<()> {
        self.wire.send([b"*1\r\n$4\r\nPING\r\n"])?;
        match self.wire.line()?.as_str() {
            "+PONG" => Ok(()),
            other => bail!("redis: {other}"),
        }
    }

    fn persistence(&mut self) -> anyhow::Result<String> {
        self.wire.send([b"*2\r\n$4\r\nINFO\r\n$11\r\npersistence\r\n"])?;
        let head = self.wire.line()?;
        let len: usize = head.strip_prefix('$').with_context(|| format!("redis: {head}"))?.parse()?;
        Ok(String::from_utf8_lossy(&self.wire.bytes(len + 2)?).into_owned())
    }
}

impl Client for Connection {
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()> {
        let key = format!("tile:{}:{}", self.connection, self.sent % KEYS);
        self.sent += 1;
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), image.len());
        self.wire.send([head.as_bytes(), image, b"\r\n"])
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        match self.wire.line()?.as_str() {
            "+OK" => Ok(()),
            other => bail!("redis: {other}"),
        }
    }
}
