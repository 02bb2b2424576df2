//! The HTTP service under load: queries over an index of millions of tiles, distribution, contents against nginx, and
//! what all of that costs capture.
//!
//!     cargo bench --bench service                          everything: about 6 minutes, 22 GB of disk
//!     cargo bench --bench service -- --part index          queries, listings, next-tile, ROIs, states
//!     cargo bench --bench service -- --part content        contents against nginx (Debian's; skipped when missing)
//!     cargo bench --bench service -- --part capture        capture beside readers and queries
//!     cargo bench --bench service -- --part index --tiles 500000
//!
//! Client and server share the machine. Latencies are those that the client sees, on keep-alive connections.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;
mod plain_http;

use clap::Parser;
use harness::{LOG, Process, cpu_seconds, field, median};
use hdrhistogram::Histogram;
use plain_http::PlainHttp;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, FrameNumber, TileKey};

#[derive(Parser)]
struct Args {
    /// index, content or capture; all when absent
    #[arg(long)]
    part: Option<String>,
    /// Tiles in the index
    #[arg(long, default_value_t = 5_000_000)]
    tiles: u32,
    /// Acquisitions that they are in
    #[arg(long, default_value_t = 50)]
    acquisitions: u32,
    /// Alternating runs of contents and capture
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Settings for the daemon of the index part, KEY=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// Directory for data; removed afterwards
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const ROWS: u32 = 100;
const SERVICE: &str = "/service/v1";

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-service"));
    let wants = |part: &str| args.part.as_deref().is_none_or(|wanted| wanted == part);
    for (part, run) in [("index", index as fn(&Args, &Path)), ("content", content), ("capture", capture)] {
        if wants(part) {
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("a directory");
            println!("\n## {part}\n");
            run(&args, &dir);
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
}

/// Times of one kind of request.
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000, 3).expect("a histogram"))
    }

    fn of(mut request: impl FnMut(u64), n: u64) -> Self {
        let mut times = Self::new();
        for i in 0..n {
            let began = Instant::now();
            request(i);
            times.add(began.elapsed());
        }
        times
    }

    fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    fn print(&self, what: &str, goal: &str) {
        let (p50, p99, max) = (self.ms(0.5), self.ms(0.99), self.0.max() as f64 / 1e3);
        println!("| {what} | {} | {p50:.2} | {p99:.2} | {max:.2} | {goal} |", self.0.len());
    }
}

fn random(state: &mut u64, below: u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    u32::try_from((*state >> 11) % u64::from(below)).expect("below a u32")
}

fn log_of(acq: u32) -> String {
    format!("{LOG}[General]\nSample name = \"sample{}\"\n", acq % 5)
}

/// The ROI files of an acquisition of `cols` columns: two sections, every tile in one of them.
fn roi_parts(acq: u32, cols: u32) -> Vec<u8> {
    let (left, right) = (acq * 2, acq * 2 + 1);
    let spec = format!("[Inclusion Section Numbers]\nRegion 0 = \"{left}\"\nRegion 1 = \"{right}\"\n");
    let mut table = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\n".to_owned();
    for col in 0..cols {
        for row in 0..ROWS {
            let (roi, section) = if col < cols / 2 { (0, left) } else { (1, right) };
            table.push_str(&format!("{col},{row},{roi},0,1,1,{section}\n"));
        }
    }
    let part = |name: &str, file: &str, text: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\r\n{text}\r\n")
    };
    let parts = part("roi-tiles", "ROI_tiles.csv", &table) + &part("roi-spec", "ROI_spec.ini", &spec) + "--b--\r\n";
    parts.into_bytes()
}

fn send_tiles(address: SocketAddr, acq: u32, cols: u32) {
    let senders: Vec<_> = (0..9)
        .map(|sender| {
            std::thread::spawn(move || {
                let mut client: CaptureClient<()> =
                    CaptureClient::connect(address, 32, Duration::from_secs(60)).expect("a connection");
                for n in (sender..cols * ROWS).step_by(9) {
                    let image = [u64::from(n).to_le_bytes(); 8].concat();
                    let (col, row) = (n / ROWS, n % ROWS);
                    let key = TileKey { acq: AcqId(acq.into()), col, row, frame: FrameNumber::STABLE };
                    let checksum = checksum_of(ChecksumChoice::Crc32, &image);
                    client.send(&Tile { key, camera: 0, checksum, image: &image }, ()).expect("a sent tile");
                }
                while client.receive().expect("an answer").is_some() {}
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
}

fn index(args: &Args, dir: &Path) {
    let cols = args.tiles / args.acquisitions / ROWS;
    let (process, ready) = Process::daemon(dir, &args.set);
    let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), Duration::from_secs(60));
    let http_address: SocketAddr = field(&ready, "http").parse().expect("an address");
    let capture_address = field(&ready, "capture").parse().expect("an address");
    let mut connection = PlainHttp::connect(http_address);
    println!("| what | calls | p50 ms | p99 ms | max ms | goal |\n|---|---|---|---|---|---|");
    let mut rois = Times::new();
    for acq in 1..=args.acquisitions {
        http.start_acquisition(&format!("{acq}_bench_logfile.ini"), log_of(acq).as_bytes()).expect("an acquisition");
        let parts = roi_parts(acq, cols);
        let began = Instant::now();
        let kind = "Content-Type: multipart/form-data; boundary=b\r\n";
        let (created, body) = connection.fetch("POST", &format!("{SERVICE}/create-rois/{acq}"), kind, &parts);
        assert_eq!(created.status, 200, "{}", String::from_utf8_lossy(&body));
        rois.add(began.elapsed());
        send_tiles(capture_address, acq, cols);
    }
    rois.print(&format!("create-rois, {} rows", cols * ROWS), "2000");
    // Until the index store holds everything: what is measured is an index at rest, not one that is being written.
    while !String::from_utf8_lossy(&connection.fetch("GET", "/readyz", "", b"").1).contains("\"index_lag_tiles\":0") {
        std::thread::sleep(Duration::from_millis(50));
    }
    by_id_and_place(args, &mut connection, cols);
    pages(args, &mut connection, cols);
    let list = |connection: &mut PlainHttp, query: &str| {
        assert_eq!(connection.get(&format!("{SERVICE}/acquisitions?{query}")).status, 200);
    };
    Times::of(|_| list(&mut connection, "exists-tile-in-state=READY"), 200)
        .print("acquisitions, exists-tile-in-state", "20");
    Times::of(|_| list(&mut connection, "all-tiles-in-state=COMPLETE"), 200)
        .print("acquisitions, all-tiles-in-state", "20");
    let complete = format!("{SERVICE}/acquisition/1/completeness");
    Times::of(|_| assert_eq!(connection.get(&complete).status, 200), 200).print("completeness", "");
    next_tiles(http_address);
    states(&mut connection, cols);
    println!("\npeak RSS {:.0} MB", process.peak_megabytes());
    process.stop();
    let began = Instant::now();
    let (process, _) = Process::daemon(dir, &[]);
    println!("ready again after {:.2} s", began.elapsed().as_secs_f64());
    process.stop();
}

fn by_id_and_place(args: &Args, connection: &mut PlainHttp, cols: u32) {
    let mut state = 7;
    let by_id = |_| {
        let id = 1 + random(&mut state, args.acquisitions * cols * ROWS);
        assert_eq!(connection.get(&format!("{SERVICE}/tile/{id}")).status, 200);
    };
    Times::of(by_id, 20_000).print("tile by id", "p99 1");
    let mut state = 9;
    let by_place = |_| {
        let (acq, col, row) =
            (1 + random(&mut state, args.acquisitions), random(&mut state, cols), random(&mut state, ROWS));
        assert_eq!(connection.get(&format!("{SERVICE}/acquisition/{acq}/tile/{col}/{row}")).status, 200);
    };
    Times::of(by_place, 20_000).print("tile by column and row", "p99 1");
}

fn pages(args: &Args, connection: &mut PlainHttp, cols: u32) {
    let mut times = Times::new();
    for acq in 1..=args.acquisitions.min(5) {
        let mut cursor = String::new();
        let mut tiles = 0;
        loop {
            let began = Instant::now();
            let path = format!("/api/v1/acquisitions/{acq}/tiles?length=1000{cursor}");
            let (answered, body) = connection.fetch("GET", &path, "", b"");
            times.add(began.elapsed());
            assert_eq!(answered.status, 200);
            let page: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            tiles += page["tiles"].as_array().map_or(0, Vec::len);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(tiles, usize::try_from(cols * ROWS).expect("small"));
    }
    times.print("page of 1000 tiles by cursor, any depth", "20");
    for share in [0, 50, 99] {
        let offset = u64::from(cols * ROWS) * share / 100;
        let path = format!("{SERVICE}/acquisition/1/tiles?length=1000&offset={offset}");
        let get = |_| assert_eq!(connection.get(&path).status, 200);
        Times::of(get, 20).print(&format!("legacy page of 1000 tiles at offset {offset}"), "");
    }
}

/// 8 callers take READY tiles for 5 s; none may be given twice.
fn next_tiles(address: SocketAddr) {
    let served: Arc<Mutex<(HashSet<String>, Times)>> = Arc::new(Mutex::new((HashSet::new(), Times::new())));
    let until = Instant::now() + Duration::from_secs(5);
    let calls = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (served, calls) = (Arc::clone(&served), Arc::clone(&calls));
            std::thread::spawn(move || {
                let mut connection = PlainHttp::connect(address);
                let (mut mine, mut times) = (Vec::new(), Times::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    let (answered, body) = connection.fetch("POST", &format!("{SERVICE}/next-tile"), "", b"");
                    times.add(began.elapsed());
                    assert_eq!(answered.status, 200);
                    calls.fetch_add(1, Ordering::Relaxed);
                    let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                    mine.push(answer["results"][0]["tilespec"]["tileId"].as_str().expect("a tile").to_owned());
                }
                let mut served = served.lock().expect("no panic");
                for id in mine {
                    assert!(served.0.insert(id.clone()), "{id} was served twice");
                }
                served.1.0.add(times.0).expect("one range");
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
    let served = served.lock().expect("no panic");
    let rate = calls.load(Ordering::Relaxed) as f64 / 5.0;
    served.1.print(&format!("next-tile, 8 callers: {rate:.0} calls/s, each tile once"), "2000 calls/s, p99 25");
}

fn states(connection: &mut PlainHttp, cols: u32) {
    let ids = (0..cols * ROWS).take(100_000).map(|n| {
        let (col, row) = (n / ROWS, n % ROWS);
        format!("\"1.{col:03}.{row:03}.{}.0\"", if col < cols / 2 { 2 } else { 3 })
    });
    let body = format!("{{\"state\":\"COMPLETE\",\"tileSpecIds\":[{}]}}", ids.collect::<Vec<_>>().join(","));
    let set = |_| {
        let (answered, answer) = connection.fetch("PUT", &format!("{SERVICE}/tile-state"), "", body.as_bytes());
        assert_eq!(answered.status, 200, "{}", String::from_utf8_lossy(&answer));
    };
    Times::of(set, 5).print(&format!("tile-state, {} ids", (cols * ROWS).min(100_000)), "2000");
}

const CONTENT_BYTES: usize = 5_000_000;
const CONTENTS: u32 = 40;

/// Stores 5 MB tiles and starts nginx on files of the same bytes.
fn content(args: &Args, dir: &Path) {
    let (process, ready) = Process::daemon(&dir.join("data"), &[]);
    let address: SocketAddr = field(&ready, "http").parse().expect("an address");
    let http = HttpClient::new(&format!("http://{address}"), Duration::from_secs(60));
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let mut client: CaptureClient<()> =
        CaptureClient::connect(field(&ready, "capture").parse().expect("an address"), 2, Duration::from_secs(60))
            .expect("a connection");
    let files = dir.join("files");
    std::fs::create_dir_all(&files).expect("a directory");
    for n in 0..CONTENTS {
        let image: Vec<u8> = u64::from(n).to_le_bytes().iter().copied().cycle().take(CONTENT_BYTES).collect();
        std::fs::write(files.join(format!("{n}.tif")), &image).expect("written");
        let key = TileKey { acq: AcqId(1), col: n, row: 0, frame: FrameNumber::STABLE };
        let checksum = checksum_of(ChecksumChoice::Crc32, &image);
        client.send(&Tile { key, camera: 0, checksum, image: &image }, ()).expect("a sent tile");
    }
    while client.receive().expect("an answer").is_some() {}
    let Some((nginx, nginx_address)) = start_nginx(dir, &files) else {
        println!("nginx is not installed (Debian: nginx-light): skipped");
        return;
    };
    let ours = |n: u32| format!("{SERVICE}/acquisition/1/tile/{n}/0/content");
    let theirs = |n: u32| format!("/{n}.tif");
    let (mut mine, mut his) = (Vec::new(), Vec::new());
    // The first run of each brings the bytes into the page cache.
    for run in 0..=args.runs {
        let a = read_all(address, args.seconds, &ours);
        let b = read_all(nginx_address, args.seconds, &theirs);
        if run > 0 {
            (mine.push(a), his.push(b)).0
        }
    }
    let ratio = median(mine.iter().zip(&his).map(|(a, b)| a / b).collect());
    println!("| server | MB/s |\n|---|---|");
    println!("| tilecatcher, verified before it leaves | {:.0} |", median(mine));
    println!("| nginx, sendfile | {:.0} |", median(his));
    println!("| ratio | {ratio:.2} (goal 0.50) |");
    drop(nginx);
    process.stop();
}

/// Reads contents over 8 keep-alive connections; MB/s.
fn read_all(address: SocketAddr, seconds: u64, path: &(dyn Fn(u32) -> String + Sync)) -> f64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let bytes = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let bytes = &bytes;
            scope.spawn(move || {
                let mut connection = PlainHttp::connect(address);
                let mut state = 1000 + reader;
                while Instant::now() < until {
                    let answered = connection.get(&path(random(&mut state, CONTENTS)));
                    assert_eq!((answered.status, answered.bytes), (200, CONTENT_BYTES as u64));
                    bytes.fetch_add(answered.bytes, Ordering::Relaxed);
                }
            });
        }
    });
    bytes.load(Ordering::Relaxed) as f64 / 1e6 / began.elapsed().as_secs_f64()
}

struct Nginx(std::process::Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.0.wait();
    }
}

fn start_nginx(dir: &Path, files: &Path) -> Option<(Nginx, SocketAddr)> {
    let address = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
    let configuration = dir.join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes 2; user root; pid {0}/nginx.pid; error_log {0}/nginx.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
         server {{ listen {address}; root {1}; }} }}\n",
        dir.display(),
        files.display()
    );
    std::fs::write(&configuration, text).expect("written");
    let nginx = Command::new("nginx").arg("-c").arg(&configuration).spawn().ok()?;
    let nginx = Nginx(nginx);
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nginx does not listen");
        std::thread::yield_now();
    }
    Some((nginx, address))
}

const CAPTURE_TILE: usize = 5_300_000;

/// Capture alone, beside readers and queries, and beside threads that burn the CPU time that those took.
fn capture(args: &Args, dir: &Path) {
    let (mut alone, mut beside, mut burnt) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..args.runs {
        let data = dir.join(format!("run{run}"));
        let (process, ready) = Process::daemon(&data, &[]);
        let http: SocketAddr = field(&ready, "http").parse().expect("an address");
        let address: SocketAddr = field(&ready, "capture").parse().expect("an address");
        let client = HttpClient::new(&format!("http://{http}"), Duration::from_secs(60));
        client.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
        alone.push(capture_rate(address, args.seconds, 0));
        let stop = Arc::new(AtomicBool::new(false));
        let cpu = process.http_cpu_seconds();
        let readers = start_readers(http, &stop);
        beside.push(capture_rate(address, args.seconds, 100_000));
        stop.store(true, Ordering::Relaxed);
        let client_cpu: f64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        let share = (process.http_cpu_seconds() - cpu + client_cpu) / args.seconds as f64;
        let stop = Arc::new(AtomicBool::new(false));
        let burners = start_burners(share, &stop);
        burnt.push(capture_rate(address, args.seconds, 200_000));
        stop.store(true, Ordering::Relaxed);
        burners.into_iter().for_each(|burner| burner.join().expect("a burner"));
        println!(
            "run {run}: readers took {share:.2} CPUs; MB/s {:.0}, {:.0}, {:.0}",
            alone[run], beside[run], burnt[run]
        );
        drop(process);
        let _ = std::fs::remove_dir_all(&data);
    }
    let ratio = median(beside.iter().zip(&burnt).map(|(a, b)| a / b).collect());
    println!("\n| capture, 5.3 MB x 4 connections | MB/s |\n|---|---|");
    println!("| alone | {:.0} |", median(alone));
    println!("| beside 4 content readers and 4 query clients at full speed | {:.0} |", median(beside));
    println!("| beside threads that burn as much CPU | {:.0} |", median(burnt));
    println!("| ratio of the last two | {ratio:.2} (goal 0.90) |");
}

fn capture_rate(address: SocketAddr, seconds: u64, first_col: u32) -> f64 {
    let until = Instant::now() + Duration::from_secs(seconds);
    let began = Instant::now();
    let tiles = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for row in 0..4 {
            let tiles = &tiles;
            scope.spawn(move || {
                let mut image = vec![0u8; CAPTURE_TILE];
                let mut client: CaptureClient<()> =
                    CaptureClient::connect(address, 2, Duration::from_secs(60)).expect("a connection");
                let mut col = first_col;
                while Instant::now() < until {
                    image[..4].copy_from_slice(&col.to_le_bytes());
                    let key = TileKey { acq: AcqId(1), col, row, frame: FrameNumber::STABLE };
                    let checksum = checksum_of(ChecksumChoice::Crc32, &image);
                    let answered = client.send(&Tile { key, camera: 0, checksum, image: &image }, ()).expect("sent");
                    assert!(answered.is_none_or(|answered| answered.response.status == 0), "refused");
                    tiles.fetch_add(1, Ordering::Relaxed);
                    col += 1;
                }
                while client.receive().expect("an answer").is_some() {}
            });
        }
    });
    (tiles.load(Ordering::Relaxed) * CAPTURE_TILE as u64) as f64 / 1e6 / began.elapsed().as_secs_f64()
}

/// CPU seconds of the calling thread. Linux.
fn cpu_of_this_thread() -> f64 {
    cpu_seconds(&std::fs::read_to_string("/proc/thread-self/stat").expect("a thread"))
}

fn start_readers(http: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<f64>> {
    let reader = |n: u64| {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            let mut connection = PlainHttp::connect(http);
            let mut state = 77 + n;
            while !stop.load(Ordering::Relaxed) {
                let (col, row) = (random(&mut state, 20), random(&mut state, 4));
                let path = match n % 2 {
                    0 => format!("{SERVICE}/acquisition/1/tile/{col}/{row}/content"),
                    _ => format!("{SERVICE}/acquisition/1/tiles?length=200"),
                };
                let answered = connection.get(&path);
                // A full pool is for capture: readers are told to come again.
                assert!([200, 503].contains(&answered.status), "{}", answered.status);
            }
            cpu_of_this_thread()
        })
    };
    (0..8).map(reader).collect()
}

/// Threads that together use `share` CPUs.
fn start_burners(share: f64, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
    const THREADS: u32 = 8;
    let burner = |_| {
        let stop = Arc::clone(stop);
        let began = Instant::now();
        std::thread::spawn(move || {
            let mut burnt = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let due = began.elapsed().as_secs_f64() * share / f64::from(THREADS);
                if cpu_of_this_thread() < due {
                    let until = Instant::now() + Duration::from_micros(500);
                    while Instant::now() < until {
                        burnt = std::hint::black_box(burnt.wrapping_mul(31) + 1);
                    }
                } else {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        })
    };
    (0..THREADS).map(burner).collect()
}
