//! PostgreSQL: each tile an INSERT of a bytea in a transaction of its own, by the binary protocol.

use crate::contender::{Client, Contender, Level, Running};
use crate::server::{Server, command, free_address, version_of};
use crate::wire::Wire;
use anyhow::{Context, bail, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Rows of one table are added under one lock; senders are spread over so many tables.
const TABLES: u32 = 9;

const INT4: u32 = 23;
const BYTEA: u32 = 17;
const PROTOCOL: u32 = 3 << 16;

pub struct Postgres(pub Level);

impl Contender for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn level(&self) -> Level {
        self.0
    }

    fn durability(&self) -> &'static str {
        match self.0 {
            Level::Synced => "synchronous_commit on: fdatasync of the WAL before the ack",
            Level::Unsynced => "synchronous_commit off: memory",
        }
    }

    fn settings(&self) -> String {
        let commit = match self.0 {
            Level::Synced => "on",
            Level::Unsynced => "off",
        };
        format!(
            "synchronous_commit = {commit}\nfsync = on\nwal_level = minimal\nmax_wal_senders = 0\n\
             shared_buffers = 1GB\nwal_buffers = 64MB\nwal_init_zero = off\nmax_wal_size = 64GB\ncheckpoint_timeout = 1h\n\
             autovacuum = off"
        )
    }

    fn version(&self) -> anyhow::Result<String> {
        version_of(program("initdb"), "--version", "Debian: postgresql")?;
        version_of(program("postgres"), "--version", "Debian: postgresql")
    }

    fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let data = dir.join("data");
        let made = command(program("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "--wal-segsize=64", "-D"])
            .arg(&data)
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr).trim().replace('\n', " / "));
        let place = format!("listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''", address.port());
        std::fs::write(data.join("postgresql.auto.conf"), format!("{place}\n{}\n", self.settings()))?;
        // INT and TERM wait for a checkpoint or for clients; QUIT ends it at once, which is right for data to be deleted.
        let server = Server::start(command(program("postgres")).arg("-D").arg(&data), dir, address)?;
        let mut server = server.ended_by("QUIT");
        let mut admin = server.retry(|| Connection::open(address))?;
        for table in 0..TABLES {
            admin.run(&format!("CREATE TABLE tiles{table} (number int4, image bytea)"))?;
            admin.run(&format!("ALTER TABLE tiles{table} ALTER image SET STORAGE EXTERNAL"))?;
        }
        Ok(Running { server, address })
    }

    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>> {
        let mut client = Connection::open(running.address)?;
        client.prepare(connection % TABLES)?;
        Ok(Box::new(client))
    }

    fn flush(&self, running: &Running) -> anyhow::Result<()> {
        Connection::open(running.address)?.run("CHECKPOINT")
    }
}

/// Debian keeps the server's programs out of PATH, by version; the newest is taken.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let file = entry.path().join("bin").join(name);
        file.exists().then_some((version, file))
    });
    found.max().map_or_else(|| PathBuf::from(name), |(_, file)| file)
}

struct Connection {
    wire: Wire,
    number: i32,
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(address)?;
        let body = [&PROTOCOL.to_be_bytes()[..], b"user\0postgres\0database\0postgres\0\0"].concat();
        wire.send([&len_of(body.len())?, &body])?;
        let mut connection = Self { wire, number: 0 };
        connection.until_ready()?;
        Ok(connection)
    }

    /// A statement without rows.
    fn run(&mut self, statement: &str) -> anyhow::Result<()> {
        let body = [statement.as_bytes(), b"\0"].concat();
        self.message(b'Q', &body)?;
        self.until_ready()
    }

    /// Makes the unnamed statement the INSERT of a tile.
    fn prepare(&mut self, table: u32) -> anyhow::Result<()> {
        let statement = format!("\0INSERT INTO tiles{table} VALUES ($1, $2)\0");
        let types = [&2u16.to_be_bytes()[..], &INT4.to_be_bytes(), &BYTEA.to_be_bytes()].concat();
        self.message(b'P', &[statement.as_bytes(), &types].concat())?;
        self.message(b'S', b"")?;
        self.until_ready()
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> anyhow::Result<()> {
        self.wire.send([&[kind], &len_of(body.len())?, body])
    }

    /// Reads to the end of a transaction; what the server complains of is the error.
    fn until_ready(&mut self) -> anyhow::Result<()> {
        let mut complaint = None;
        loop {
            let head = self.wire.bytes(5)?;
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let len = usize::try_from(len)?.checked_sub(4).context("postgres: a message without a length")?;
            let body = self.wire.bytes(len)?;
            match head[0] {
                b'E' => complaint = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                b'R' if body != [0; 4] => bail!("postgres: wants a password"),
                b'Z' => break,
                _ => {}
            }
            // Before the first transaction the server closes behind its complaint.
            if let Some(complaint) = complaint.as_ref().filter(|complaint| complaint.contains("FATAL")) {
                bail!("postgres: {complaint}");
            }
        }
        match complaint {
            Some(complaint) => bail!("postgres: {complaint}"),
            None => Ok(()),
        }
    }
}

/// A message's length counts itself.
fn len_of(body: usize) -> anyhow::Result<[u8; 4]> {
    Ok(u32::try_from(body + 4)?.to_be_bytes())
}

impl Client for Connection {
    /// Bind of the two values in binary, Execute, Sync: a transaction.
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()> {
        const NAMES: &[u8] = b"\0\0";
        const ALL_BINARY: [u8; 4] = [0, 1, 0, 1];
        const TWO_VALUES: [u8; 2] = [0, 2];
        const NO_RESULTS: [u8; 2] = [0, 0];
        const EXECUTE_AND_SYNC: &[u8] = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        self.number += 1;
        let image_len = u32::try_from(image.len())?.to_be_bytes();
        let before =
            [NAMES, &ALL_BINARY, &TWO_VALUES, &4u32.to_be_bytes(), &self.number.to_be_bytes(), &image_len].concat();
        let len = len_of(before.len() + image.len() + NO_RESULTS.len())?;
        self.wire.send([b"B", &len, &before, image, &NO_RESULTS, EXECUTE_AND_SYNC])
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        self.until_ready()
    }
}
