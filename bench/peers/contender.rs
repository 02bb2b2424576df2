//! What a server must offer to be measured, and where it may put its data.

use crate::server::{Server, User};
use crate::{nats, nginx, postgres, redis, tilecatcher_server};
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Names that `--peer` knows.
pub const NAMES: [&str; 5] = ["tilecatcher", "nats", "redis", "postgres", "nginx"];

/// Servers are compared within a level only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Acknowledged when the disk has it.
    Synced,
    /// Acknowledged before: a power cut loses what was acknowledged.
    Unsynced,
}

impl Level {
    pub const ALL: [Self; 2] = [Self::Synced, Self::Unsynced];

    pub fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Unsynced => "not synced",
        }
    }
}

/// A server that runs.
pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
}

/// One connection. Answers come in the order of the tiles.
pub trait Client: Send {
    /// Sends a tile whole; waits for nothing else.
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()>;
    /// Waits until the oldest unanswered tile is acknowledged.
    fn receive(&mut self) -> anyhow::Result<()>;
}

/// A server at a durability.
pub trait Contender {
    fn name(&self) -> &'static str;
    fn level(&self) -> Level;
    /// What an acknowledgement promises, and by which setting.
    fn durability(&self) -> &'static str;
    /// The settings that differ from the defaults, as the server reads them.
    fn settings(&self) -> String;
    /// # Errors
    /// It is not here or can not do this level: why, and the remedy.
    fn version(&self) -> anyhow::Result<String>;
    /// Starts it on a free loopback port with data in `dir` only, and waits until it takes tiles.
    fn start(&self, dir: &Path) -> anyhow::Result<Running>;
    /// Connection number `connection`, ready to send.
    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>>;
    /// Has the server hand what it holds in its own memory to the kernel.
    fn flush(&self, _running: &Running) -> anyhow::Result<()> {
        Ok(())
    }
}

/// All that can be measured, tilecatcher first in each level.
pub fn all(nats_server: &Path) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for level in Level::ALL {
        all.push(Box::new(tilecatcher_server::Tilecatcher(level)));
        all.push(Box::new(nats::Nats { level, program: nats_server.to_owned() }));
        all.push(Box::new(redis::Redis(level)));
        all.push(Box::new(postgres::Postgres(level)));
        if level == Level::Unsynced {
            all.push(Box::new(nginx::Nginx));
        }
    }
    all
}

/// The disk that is measured.
pub struct Place(PathBuf);

impl Place {
    /// # Errors
    /// The directory can not be used: why, and the remedy.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        let dir = dir.canonicalize().with_context(|| format!("--dir {shown}: can not be used"))?;
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        let found = rustix::fs::statfs(&dir).with_context(|| format!("--dir {shown}"))?;
        if found.f_type == TMPFS_MAGIC {
            bail!("--dir {shown}: is kept in memory (tmpfs); choose a directory on a disk");
        }
        let place = Self(dir);
        let fresh = place.fresh().with_context(|| format!("--dir {shown}: can not be written"))?;
        if let Some(user) = User::of_servers()
            && !user.can_write(fresh.path())
        {
            bail!("--dir {shown}: the user {} that servers run as can not get there", user.name);
        }
        Ok(place)
    }

    /// An empty directory that servers can write; removed when dropped.
    pub fn fresh(&self) -> anyhow::Result<TempDir> {
        let dir = tempfile::Builder::new().prefix("tilecatcher-peers-").tempdir_in(&self.0)?;
        if let Some(user) = User::of_servers() {
            std::os::unix::fs::chown(dir.path(), Some(user.uid), Some(user.gid))?;
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(dir)
    }

    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let disk = rustix::fs::statvfs(&self.0)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }
}
