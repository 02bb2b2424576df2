//! Sends an acquisition folder: its log, its tiles over several connections, the end.

use super::capture::{Answered, CaptureClient, CaptureError, Tile};
use super::http::{HttpClient, HttpClientError};
use crate::formats::{AcquisitionFolder, FolderTile, FormatError};
use crate::model::{AcqId, Checksum, TileKey};
use crossbeam_channel::Receiver;
use sha1::Digest;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Which checksum goes with each tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumChoice {
    /// None: the server must be configured to accept that.
    None,
    /// CRC-32: the fastest.
    Crc32,
    /// MD5: what legacy senders give.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl FromStr for ChecksumChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "crc32" => Ok(Self::Crc32),
            "md5" => Ok(Self::Md5),
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            other => Err(format!("\"{other}\" is no checksum: none, crc32, md5, sha1 or sha256")),
        }
    }
}

/// Computes a checksum.
#[must_use]
pub fn checksum_of(choice: ChecksumChoice, bytes: &[u8]) -> Checksum {
    match choice {
        ChecksumChoice::None => Checksum::None,
        ChecksumChoice::Crc32 => Checksum::Crc32(crc32fast::hash(bytes)),
        ChecksumChoice::Md5 => Checksum::Md5(md5_simd::digest(bytes)),
        ChecksumChoice::Sha1 => Checksum::Sha1(sha1::Sha1::digest(bytes).into()),
        ChecksumChoice::Sha256 => Checksum::Sha256(sha2::Sha256::digest(bytes).into()),
    }
}

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// The capture port.
    pub capture: SocketAddr,
    /// The HTTP port's URL.
    pub http: String,
    /// Number of connections.
    pub connections: usize,
    /// Tiles in flight on each.
    pub window: usize,
    /// Checksum of each tile.
    pub checksum: ChecksumChoice,
    /// Longest wait for the server.
    pub timeout: Duration,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct SendReport {
    /// The acquisition.
    pub acq: AcqId,
    /// Tiles that the server acknowledged.
    pub acknowledged: u64,
    /// Bytes of their images.
    pub bytes: u64,
    /// Tiles that it refused, with the status of each.
    pub refused: Vec<(PathBuf, i16)>,
    /// Files in the folder that are no tiles by their name.
    pub skipped: Vec<PathBuf>,
    /// Time from the first tile to the last answer.
    pub took: Duration,
    /// Time from sending to acknowledgement, each tile, ascending.
    pub ack_times: Vec<Duration>,
}

/// Why a folder was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The folder is not an acquisition.
    #[error(transparent)]
    Folder(#[from] FormatError),
    /// A file can not be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpClientError),
    /// The capture port.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

#[derive(Default)]
struct Tally {
    acknowledged: u64,
    bytes: u64,
    refused: Vec<(PathBuf, i16)>,
    ack_times: Vec<Duration>,
}

struct InFlight {
    path: PathBuf,
    bytes: u64,
}

/// Sends the folder. `progress` is called with (tiles answered, tiles in all, bytes acknowledged).
///
/// # Errors
/// The folder can not be read, the server not reached. Refused tiles are no error: see the report.
pub fn send_folder(
    dir: &Path,
    options: &SendOptions,
    progress: &(dyn Fn(u64, u64, u64) + Sync),
) -> Result<SendReport, SendError> {
    let folder = AcquisitionFolder::open(dir)?;
    let listing = folder.tiles()?;
    let http = HttpClient::new(&options.http, options.timeout);
    let log = read_file(folder.log_path())?;
    let acq = http.start_acquisition(&folder.log_name(), &log)?;
    let total = listing.tiles.len() as u64;
    let (queue, work) = crossbeam_channel::bounded(listing.tiles.len().max(1));
    for tile in listing.tiles {
        let _ = queue.send(tile);
    }
    drop(queue);
    let began = Instant::now();
    let tally = Mutex::new(Tally::default());
    let note = |answered: Answered<InFlight>| {
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.note(answered);
        progress(tally.acknowledged + tally.refused.len() as u64, total, tally.bytes);
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..options.connections.max(1)).map(|_| scope.spawn(|| send_tiles(acq, &work, options, &note))).collect();
        senders
            .into_iter()
            .try_for_each(|sender| sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let took = began.elapsed();
    http.end_acquisition(acq)?;
    let mut tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.ack_times.sort();
    Ok(SendReport {
        acq,
        acknowledged: tally.acknowledged,
        bytes: tally.bytes,
        refused: tally.refused,
        skipped: listing.skipped,
        took,
        ack_times: tally.ack_times,
    })
}

impl Tally {
    fn note(&mut self, answered: Answered<InFlight>) {
        if answered.response.status == 0 {
            self.acknowledged += 1;
            self.bytes += answered.tag.bytes;
            self.ack_times.push(answered.took);
        } else {
            self.refused.push((answered.tag.path, answered.response.status));
        }
    }
}

/// One connection's share of the tiles: whichever are left.
fn send_tiles(
    acq: AcqId,
    work: &Receiver<FolderTile>,
    options: &SendOptions,
    note: &(dyn Fn(Answered<InFlight>) + Sync),
) -> Result<(), SendError> {
    let mut client = CaptureClient::connect(options.capture, options.window, options.timeout)?;
    for FolderTile { path, name } in work.try_iter() {
        let image = read_file(&path)?;
        let key = TileKey { acq, col: name.col, row: name.row, frame: name.frame };
        let checksum = checksum_of(options.checksum, &image);
        let tile = Tile { key, camera: name.camera, checksum, image: &image };
        let tag = InFlight { path, bytes: image.len() as u64 };
        client.send(&tile, tag)?.into_iter().for_each(note);
    }
    while let Some(answered) = client.receive()? {
        note(answered);
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<u8>, SendError> {
    std::fs::read(path).map_err(|source| SendError::File { path: path.to_owned(), source })
}
