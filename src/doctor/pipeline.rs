//! A whole daemon under as much load as it takes: connections that always have tiles in flight, acks durable.

use super::{DoctorError, cpu_per_gb, mb_per_s, noise, process_cpu, thread_cpu};
use crate::base::stop::{Stop, StopReason};
use crate::client::{Answered, CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use crate::config::Settings;
use crate::model::{AcqId, Checksum, FrameNumber, TileKey};
use crate::server::Server;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 9;
const WINDOW: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent before a size is measured, as a share of the time.
const WARM_UP: u32 = 4;
/// Tiles that warm up a new daemon.
const WARM_UP_BYTES: usize = 5_300_000;
/// A grid that no run fills.
const LOG: &str = "[General]\nNotes = \"tilecatcher doctor\"\n[Camera Connections]\nAcq1 = TRUE\n\
    [Mosaic Settings]\nNumber of X steps = 100000\nNumber of Y steps = 10000000\n[TEM Settings]\nPixels per um = 250\n";

/// Where a daemon is.
#[derive(Clone, Debug)]
pub struct ServerUnderTest {
    /// Its capture port.
    pub capture: SocketAddr,
    /// Its HTTP port's URL.
    pub http: String,
}

/// A daemon at its limit, for one tile size.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline {
    /// Bytes of a tile.
    pub tile_bytes: usize,
    /// Tiles acknowledged, MB/s.
    pub mb_per_s: f64,
    /// Median time from sending to acknowledgement, ms.
    pub ack_p50_ms: f64,
    /// 99 of 100 are faster, ms.
    pub ack_p99_ms: f64,
    /// Processor time of the sending threads, s/GB.
    pub client_cpu_s_per_gb: f64,
    /// Processor time of the daemon, s/GB; unknown when it is elsewhere.
    pub server_cpu_s_per_gb: Option<f64>,
}

/// A daemon that is measured here: one for all sizes, warm before the first, for a process that has just started takes
/// its memory from the system page by page.
pub(super) struct DaemonHere {
    server: Server,
    stop: Stop,
    data: PathBuf,
}

impl DaemonHere {
    /// Starts it in a directory below `dir`.
    pub(super) fn start(dir: &Path) -> Result<Self, DoctorError> {
        let data = dir.join("data");
        let set = |key: &str, value: &str| ("doctor".to_owned(), key.to_owned(), value.to_owned());
        let flags = [
            set("storage.data", &data.to_string_lossy()),
            set("capture.address", "127.0.0.1:0"),
            set("http.address", "127.0.0.1:0"),
            set("log.level", "error"),
        ];
        let nothing = std::iter::empty::<(String, String)>();
        let settings =
            Settings::load(None, nothing, &flags).map_err(|error| DoctorError::Sending(error.to_string()))?;
        let stop = Stop::default();
        Ok(Self { server: Server::start(&settings.config, &stop)?, stop, data })
    }

    /// Sends for a while what nobody counts.
    pub(super) fn warm_up(&self, time: Duration) -> Result<(), DoctorError> {
        Driven::drive(&self.address(), WARM_UP_BYTES, time).map(drop)
    }

    pub(super) fn measure(&self, tile_bytes: usize, time: Duration) -> Result<Pipeline, DoctorError> {
        let driven = Driven::drive(&self.address(), tile_bytes, time)?;
        let server_cpu = driven.process_cpu.saturating_sub(driven.client_cpu);
        Ok(Pipeline { server_cpu_s_per_gb: Some(cpu_per_gb(server_cpu, driven.bytes)), ..driven.pipeline(tile_bytes) })
    }

    /// Stops it and removes what it stored.
    pub(super) fn remove(self) -> Result<(), DoctorError> {
        self.stop.raise(StopReason::Requested);
        self.server.shut_down().map_err(|error| DoctorError::Sending(error.to_string()))?;
        let removed = std::fs::remove_dir_all(&self.data);
        removed.map_err(|source| DoctorError::Directory { path: self.data, source })
    }

    fn address(&self) -> ServerUnderTest {
        let http = format!("http://{}", self.server.http_address());
        ServerUnderTest {
            capture: self.server.capture_address().expect("the daemon measured has its plain port"),
            http,
        }
    }
}

/// Measures a daemon that runs already, in an acquisition of its own, which is deleted.
pub(super) fn measure_server(
    server: &ServerUnderTest,
    tile_bytes: usize,
    time: Duration,
) -> Result<Pipeline, DoctorError> {
    Driven::drive(server, tile_bytes, time).map(|driven| driven.pipeline(tile_bytes))
}

/// What came of driving a daemon.
struct Driven {
    bytes: u64,
    took: Duration,
    /// Ascending.
    acks: Vec<Duration>,
    client_cpu: Duration,
    process_cpu: Duration,
}

/// One connection's part.
#[derive(Default)]
struct Sent {
    tiles: u64,
    acks: Vec<Duration>,
    cpu: Duration,
}

impl Driven {
    fn drive(server: &ServerUnderTest, tile_bytes: usize, time: Duration) -> Result<Self, DoctorError> {
        let problem = |error: &dyn std::fmt::Display| DoctorError::Sending(error.to_string());
        let http = HttpClient::new(&server.http, PATIENCE);
        let none = || DoctorError::Sending(format!("{}: no acquisition's number is free", server.http));
        let acq = http.free_acquisition().map_err(|error| problem(&error))?.ok_or_else(none)?;
        http.start_acquisition(&format!("{acq}_doctor_logfile.ini"), LOG.as_bytes())
            .map_err(|error| problem(&error))?;
        let image = noise(tile_bytes);
        let load = Load { acq, capture: server.capture, checksum: checksum_of(ChecksumChoice::Crc32, &image), image };
        let driven = load.send(time / WARM_UP, 0).and_then(|_| load.send(time, 1));
        http.delete_acquisition(acq).map_err(|error| problem(&error))?;
        driven
    }

    fn pipeline(&self, tile_bytes: usize) -> Pipeline {
        let at = |part: usize| self.acks.get(self.acks.len() * part / 100).copied().unwrap_or_default();
        Pipeline {
            tile_bytes,
            mb_per_s: mb_per_s(self.bytes, self.took),
            ack_p50_ms: at(50).as_secs_f64() * 1e3,
            ack_p99_ms: at(99).as_secs_f64() * 1e3,
            client_cpu_s_per_gb: cpu_per_gb(self.client_cpu, self.bytes),
            server_cpu_s_per_gb: None,
        }
    }
}

/// The same image under ever new keys.
struct Load {
    acq: AcqId,
    capture: SocketAddr,
    checksum: Checksum,
    image: Vec<u8>,
}

impl Load {
    fn send(&self, time: Duration, round: u32) -> Result<Driven, DoctorError> {
        let (over, began, cpu) = (AtomicBool::new(false), Instant::now(), process_cpu());
        let sent: Vec<Result<Sent, DoctorError>> = std::thread::scope(|scope| {
            let connections = (0..CONNECTIONS).map(|n| round * CONNECTIONS + n);
            let senders: Vec<_> = connections
                .map(|col| {
                    scope.spawn({
                        let over = &over;
                        move || self.connection(col, over)
                    })
                })
                .collect();
            std::thread::sleep(time);
            over.store(true, Ordering::Relaxed);
            senders.into_iter().map(|sender| sender.join().expect("senders do not panic")).collect()
        });
        let (took, process_cpu) = (began.elapsed(), process_cpu().saturating_sub(cpu));
        let mut all = Sent::default();
        for sent in sent {
            let sent = sent?;
            all.tiles += sent.tiles;
            all.cpu += sent.cpu;
            all.acks.extend(sent.acks);
        }
        all.acks.sort();
        let bytes = all.tiles * self.image.len() as u64;
        Ok(Driven { bytes, took, acks: all.acks, client_cpu: all.cpu, process_cpu })
    }

    /// One connection until the time is over; the cell's row counts up.
    fn connection(&self, col: u32, over: &AtomicBool) -> Result<Sent, DoctorError> {
        let problem = |error: crate::client::CaptureError| DoctorError::Sending(error.to_string());
        let mut sent = Sent::default();
        let mut client: CaptureClient<()> = CaptureClient::connect(self.capture, WINDOW, PATIENCE).map_err(problem)?;
        for row in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let key = TileKey { acq: self.acq, col, row, frame: FrameNumber::STABLE };
            let tile = Tile { key, camera: 0, checksum: self.checksum, image: &self.image };
            if let Some(answered) = client.send(&tile, ()).map_err(problem)? {
                sent.note(&answered)?;
            }
        }
        while let Some(answered) = client.receive().map_err(problem)? {
            sent.note(&answered)?;
        }
        sent.cpu = thread_cpu();
        Ok(sent)
    }
}

impl Sent {
    fn note(&mut self, answered: &Answered<()>) -> Result<(), DoctorError> {
        let status = answered.response.status;
        if status != 0 {
            let refused = crate::client::Refused::of_status(status);
            return Err(DoctorError::Sending(format!("the daemon refused a tile: {}", refused.reason)));
        }
        self.tiles += 1;
        self.acks.push(answered.took);
        Ok(())
    }
}
