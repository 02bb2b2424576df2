//! Senders that send the next tile when one is acknowledged, as fast as the daemon takes them.

use super::harness::{Process, field};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, FrameNumber, TileKey};
use tilecatcher::tls::ClientTls;

const CONNECTIONS: u32 = 9;
/// Longest wait for an answer.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What one way came to in one run.
pub struct Figures {
    /// Images, 10^6 bytes a second.
    pub mb_per_s: f64,
    /// The server's user and system time.
    #[allow(dead_code)] // Not every benchmark asks.
    pub cpu_s_per_gb: f64,
}

/// A way to the daemon, and how it is used.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// A capture port.
    pub address: SocketAddr,
    /// Set where that port is an encrypted one.
    pub tls: Option<&'a ClientTls>,
    /// Tiles in flight on a connection.
    pub window: usize,
    /// Cameras that the connections send for, in turns.
    pub cameras: u32,
    /// Whose metrics are read each second.
    pub scraped: Option<&'a HttpClient>,
}

impl Way<'_> {
    /// To a port of a daemon's ready line: two tiles in flight on a connection, one camera.
    pub fn to(ready: &str, port: &str) -> Self {
        let address = field(ready, port).parse().expect("an address");
        Self { address, tls: None, window: 2, cameras: 1, scraped: None }
    }
}

/// Sends on every connection until the time is over; `round` sets its tiles apart from those of other rounds.
pub fn drive(process: &Process, way: &Way<'_>, image: &[u8], time: Duration, round: u32) -> Figures {
    let (over, cpu_before, began) = (AtomicBool::new(false), process.cpu_seconds(), Instant::now());
    let tiles: u64 = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let over = &over;
                scope.spawn(move || send_until(over, way, image, round * 1000 + connection))
            })
            .collect();
        while began.elapsed() < time {
            if let Some(http) = way.scraped {
                assert!(!http.get_path("/metrics").expect("metrics").bytes.is_empty());
            }
            std::thread::sleep(Duration::from_secs(1).min(time.saturating_sub(began.elapsed())));
        }
        over.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().expect("a sender")).sum()
    });
    let (took, cpu) = (began.elapsed().as_secs_f64(), process.cpu_seconds() - cpu_before);
    let bytes = tiles as f64 * image.len() as f64;
    Figures { mb_per_s: bytes / 1e6 / took, cpu_s_per_gb: cpu / (bytes / 1e9) }
}

fn send_until(over: &AtomicBool, way: &Way<'_>, image: &[u8], col: u32) -> u64 {
    let mut client = CaptureClient::connect_with(way.address, way.window, TIMEOUT, way.tls).expect("a connection");
    let checksum = checksum_of(ChecksumChoice::Crc32, image);
    let mut tiles = 0;
    let mut count = |answered: tilecatcher::client::Answered<()>| {
        assert_eq!(answered.response.status, 0, "refused: {:?}", answered.response);
        tiles += 1;
    };
    let camera = i32::try_from(col % way.cameras).expect("few cameras");
    for row in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = TileKey { acq: AcqId(1), col, row, frame: FrameNumber::STABLE };
        let sent = client.send(&Tile { key, camera, checksum, image }, ()).expect("a sent tile");
        sent.into_iter().for_each(&mut count);
    }
    while let Some(answered) = client.receive().expect("an answer") {
        count(answered);
    }
    tiles
}
