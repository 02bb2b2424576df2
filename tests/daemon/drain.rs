//! Stops that come at a bad moment: under load, with peers that do not play along, by SIGSTOP, by a panic. What was
//! acknowledged is there afterwards, byte for byte.

use super::hostile::{dial_from, dial_with_small_buffer};
use super::support::{ACQ, Daemon, await_found, command, data_dir, frame, key, noise, signal, tile};
use super::web::head;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tilecatcher::client::{ChecksumChoice, checksum_of};

/// Tiles that a sender has sent, and those that were acknowledged.
#[derive(Default)]
struct Book {
    sent: Mutex<Vec<(u32, u32)>>,
    acknowledged: Mutex<Vec<(u32, u32)>>,
    count: AtomicUsize,
}

impl Book {
    fn send(&self, place: (u32, u32)) {
        self.sent.lock().expect("no panic").push(place);
    }

    fn acknowledge(&self, place: (u32, u32)) {
        self.acknowledged.lock().expect("no panic").push(place);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn await_count(&self, count: usize) {
        await_found(|| self.count.load(Ordering::SeqCst), |tiles| *tiles >= count);
    }

    /// Every acknowledged tile is stored and equal. Returns the tiles that are stored and were not acknowledged.
    fn check(&self, daemon: &Daemon) -> Vec<(u32, u32)> {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        for (col, row) in acknowledged.iter().copied() {
            let content = daemon.http.content(ACQ, col, row).expect("an acknowledged tile is stored");
            assert!(content.bytes == image(col, row), "tile {col}, {row} is altered");
        }
        let sent = self.sent.lock().expect("no panic");
        let unknown = sent.iter().copied().filter(|place| !acknowledged.contains(place));
        unknown.filter(|(col, row)| daemon.http.tile(ACQ, *col, *row).is_ok()).collect()
    }
}

fn image(col: u32, row: u32) -> Vec<u8> {
    noise((u64::from(col) << 32) | u64::from(row), [700, 20_000, 150_000][row as usize % 3])
}

/// Sends to the capture port until it ends; reads every answer that comes.
fn send_until_stopped(daemon: &Daemon, book: &Book, col: u32) {
    let mut client = daemon.client(6);
    for row in 0..4000 {
        let image = image(col, row);
        let mut tile = tile(key(col, row), &image);
        if row % 2 == 1 {
            tile.checksum = checksum_of(ChecksumChoice::Md5, &image);
        }
        book.send((col, row));
        match client.send(&tile, row) {
            Ok(answered) => answered.into_iter().for_each(|answered| {
                assert_eq!(answered.response.status, 0);
                book.acknowledge((col, answered.tag));
            }),
            Err(_) => break,
        }
    }
    while let Ok(Some(answered)) = client.receive() {
        assert_eq!(answered.response.status, 0);
        book.acknowledge((col, answered.tag));
    }
}

/// The same over HTTP, one request at a time.
fn put_until_stopped(daemon: &Daemon, book: &Book, col: u32) {
    for row in 0..4000 {
        let Ok(mut stream) = TcpStream::connect(daemon.http_address) else { return };
        let image = image(col, row);
        let name = format!("/service/v1/capture-image-content/{ACQ}?tile-filename=col{col:04}_row{row:04}_cam1.tif");
        let headers = format!("Content-Length: {}\r\n", image.len());
        book.send((col, row));
        let sent = stream.write_all(&[head("PUT", &name, &headers).as_bytes(), &image].concat());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if answer.starts_with(b"HTTP/1.1 200") {
            book.acknowledge((col, row));
        } else if sent.is_err() || read.is_err() || answer.is_empty() {
            return;
        }
    }
}

#[test]
fn a_stop_under_load_answers_every_tile_that_it_stored() {
    for round in 0..if super::hostile::long() { 50 } else { 2 } {
        let data = data_dir();
        let mut daemon = Daemon::start(data.path(), &["capture.reactors=2", "storage.lanes=2"]);
        let book = Book::default();
        let pid = daemon.pid();
        std::thread::scope(|scope| {
            for col in 0..4 {
                let (daemon, book) = (&daemon, &book);
                scope.spawn(move || send_until_stopped(daemon, book, col));
            }
            for col in 10..12 {
                let (daemon, book) = (&daemon, &book);
                scope.spawn(move || put_until_stopped(daemon, book, col));
            }
            book.await_count(100 + 37 * round);
            signal(pid, "-TERM");
        });
        // Beyond stop.time it would end itself, with another code.
        assert_eq!(daemon.wait().code(), Some(0), "the stop was not in order");
        let daemon = Daemon::start_bare(data.path(), &[]);
        let silent = book.check(&daemon);
        assert!(silent.is_empty(), "stored and never answered, though the sender read on: {silent:?}");
    }
}

#[test]
fn peers_that_do_not_play_along_can_not_spoil_a_stop() {
    let data = data_dir();
    let mut daemon = Daemon::start(data.path(), &["stop.time=16s"]);
    let mut sender = daemon.connect();
    sender.send(&frame(key(0, 0), &noise(1, 7_500_000)));
    assert_eq!(sender.answer().status, 0);
    // Inside a tile, inside a head, inside a body, and an answer that is not read.
    let mut stalled = dial_from(2, daemon.capture).expect("a connection");
    stalled.write_all(&frame(key(1, 1), &noise(1, 100_000))[..50_000]).expect("sent");
    let mut heads = dial_from(2, daemon.http_address).expect("a connection");
    heads.write_all(b"GET /healthz HT").expect("sent");
    let mut body = dial_from(2, daemon.http_address).expect("a connection");
    let put = "/service/v1/capture-image-content/123?tile-filename=col0003_row0003_cam1.tif";
    body.write_all(head("PUT", put, "Content-Length: 100000\r\n").as_bytes()).expect("sent");
    let mut unread = dial_with_small_buffer(daemon.http_address);
    unread.write_all(head("GET", "/service/v1/acquisition/123/tile/0/0/content", "").as_bytes()).expect("sent");
    daemon.await_metric_that("tilecatcher_http_connections", |open| open >= 3.0);
    daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes > 7_000_000.0);
    daemon.terminate();
    assert_eq!(daemon.wait().code(), Some(0));
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, noise(1, 7_500_000));
    assert!(daemon.http.tile(ACQ, 1, 1).is_err() && daemon.http.tile(ACQ, 3, 3).is_err());
}

#[test]
fn a_pipelining_sender_gets_its_answers_and_an_end_rather_than_a_reset() {
    let data = data_dir();
    let mut daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.assert_works(0);
    let mut writer = connection.stream.try_clone().expect("a clone");
    let sender = std::thread::spawn(move || {
        let message = frame(key(2, 2), &noise(1, 30_000));
        while writer.write_all(&message).is_ok() {}
    });
    for _ in 0..20 {
        assert_eq!(connection.answer().status, 0);
    }
    daemon.terminate();
    let mut rest = Vec::new();
    connection.stream.read_to_end(&mut rest).expect("the daemon ends the connection, it does not break it");
    let answer = tilecatcher::wire::RESPONSE_BYTES;
    assert_eq!(rest.len() % answer, 0, "half an answer");
    drop(connection);
    sender.join().expect("a sender");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_daemon_that_was_suspended_goes_on_and_blames_nobody() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.slow_grace=8s", "capture.unread_max=8s"]);
    let message = frame(key(0, 0), &noise(2, 2_000_000));
    let mut waiting = daemon.connect();
    waiting.assert_works(1);
    let mut begun = daemon.connect();
    begun.send(&message[..1_000_000]);
    daemon.await_metric_that("tilecatcher_received_bytes_total", |bytes| bytes >= 1_000_000.0);
    signal(daemon.pid(), "-STOP");
    await_found(|| threads_that_run(daemon.pid()), |running| *running == 0);
    waiting.send(&frame(key(4, 4), b"sent to a daemon that stands still"));
    let pause = if super::hostile::long() { 60 } else { 12 };
    waiting.stream.set_read_timeout(Some(Duration::from_secs(pause))).expect("a timeout");
    assert!(waiting.stream.read(&mut [0; 1]).is_err(), "it answered while it stood still");
    signal(daemon.pid(), "-CONT");
    begun.send(&message[1_000_000..]);
    waiting.stream.set_read_timeout(Some(super::support::PATIENCE)).expect("a timeout");
    assert_eq!(waiting.answer().status, 0);
    assert_eq!(begun.answer().status, 0, "whoever was inside a tile is not taken for slow");
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, noise(2, 2_000_000));
}

/// Threads that a stop signal has not reached yet.
fn threads_that_run(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let stat = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stat.filter(|stat| !stat.rsplit(')').next().is_some_and(|fields| fields.starts_with(" T"))).count()
}

/// Runs a daemon that panics where it is told to, in the given passing of that place.
fn start_with_failpoint(data: &std::path::Path, failpoint: &str) -> Daemon {
    let mut command = command(data, &["stop.time=12s", "storage.lanes=2", "capture.reactors=2"]);
    command.env("CATCHER_FAILPOINT", failpoint);
    Daemon::run(command).may_panic()
}

#[test]
fn a_panic_on_a_tiles_way_ends_the_whole_daemon_and_loses_nothing() {
    if !cfg!(debug_assertions) {
        return eprintln!("a release build has no failpoints");
    }
    for failpoint in ["reactor:60", "hasher:20", "lane:25"] {
        let data = data_dir();
        let mut daemon = start_with_failpoint(data.path(), failpoint);
        daemon.start_acquisition();
        let book = Book::default();
        std::thread::scope(|scope| {
            for col in 0..3 {
                let (daemon, book) = (&daemon, &book);
                scope.spawn(move || send_until_stopped(daemon, book, col));
            }
        });
        assert_eq!(daemon.wait().code(), Some(5), "{failpoint}");
        assert!(daemon.log().contains("a thread panicked"), "{}", daemon.log());
        drop(daemon);
        let daemon = Daemon::start_bare(data.path(), &[]);
        book.check(&daemon);
        assert!(book.count.load(Ordering::SeqCst) > 0, "nothing was acknowledged before the panic: {failpoint}");
        daemon.connect().assert_works(0);
    }
}

#[test]
fn a_panic_in_a_request_ends_its_connection_and_nothing_else() {
    if !cfg!(debug_assertions) {
        return eprintln!("a release build has no failpoints");
    }
    let data = data_dir();
    let daemon = start_with_failpoint(data.path(), "http:2");
    daemon.start_acquisition();
    let mut stream = super::web::dial(&daemon);
    stream.write_all(head("GET", "/healthz", "").as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    super::web::get(&daemon, "/readyz").with(200);
    let mut connection = daemon.connect();
    connection.assert_works(0);
    daemon.await_metric("tilecatcher_http_connections_closed_total{reason=\"broken\"}", 1.0);
    assert_eq!(daemon.http.content(ACQ, 0, 7).expect("stored").bytes, b"still works");
    daemon.stop();
}
