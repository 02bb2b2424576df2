//! Tilecatcher itself, with its defaults but for the ack level.

use crate::contender::{Client, Contender, Level, Running};
use crate::harness::{LOG, daemon_command, field};
use crate::server::{Server, version_of};
use anyhow::{Context, ensure};
use std::path::Path;
use std::time::Duration;
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, Checksum, FrameNumber, TileKey};

const TIMEOUT: Duration = Duration::from_secs(120);

/// More than is ever in flight: the window is the load's.
const WINDOW: usize = 64;

pub struct Tilecatcher(pub Level);

impl Contender for Tilecatcher {
    fn name(&self) -> &'static str {
        "tilecatcher"
    }

    fn level(&self) -> Level {
        self.0
    }

    fn durability(&self) -> &'static str {
        match self.0 {
            Level::Synced => "durable: fdatasync before the ack",
            Level::Unsynced => "written: handed to the kernel before the ack",
        }
    }

    fn settings(&self) -> String {
        match self.0 {
            Level::Synced => "storage.ack=durable".to_owned(),
            Level::Unsynced => "storage.ack=written".to_owned(),
        }
    }

    fn version(&self) -> anyhow::Result<String> {
        version_of(env!("CARGO_BIN_EXE_tilecatcher"), "--version", "cargo builds it")
    }

    fn start(&self, dir: &Path) -> anyhow::Result<Running> {
        let mut command = daemon_command(&dir.join("data"), &[self.settings()]);
        let (server, ready) = Server::start_with_line(&mut command, dir)?;
        let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), TIMEOUT);
        http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes())?;
        Ok(Running { server, address: field(&ready, "capture").parse()? })
    }

    fn connect(&self, running: &Running, connection: u32) -> anyhow::Result<Box<dyn Client>> {
        let client = CaptureClient::connect(running.address, WINDOW, TIMEOUT)?;
        Ok(Box::new(Sender { client, col: connection, row: 0, checksum: None }))
    }
}

struct Sender {
    client: CaptureClient<()>,
    col: u32,
    row: u32,
    /// Of the image, which is always the same one; the server verifies it each time.
    checksum: Option<Checksum>,
}

impl Client for Sender {
    fn send(&mut self, image: &[u8]) -> anyhow::Result<()> {
        let checksum = *self.checksum.get_or_insert_with(|| checksum_of(ChecksumChoice::Crc32, image));
        let key = TileKey { acq: AcqId(1), col: self.col, row: self.row, frame: FrameNumber::STABLE };
        self.row += 1;
        self.client.send(&Tile { key, camera: 0, checksum, image }, ())?;
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let answered = self.client.receive()?.context("nothing is in flight")?;
        ensure!(answered.response.status == 0, "refused: {:?}", answered.response);
        Ok(())
    }
}
