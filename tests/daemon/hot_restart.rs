//! Restarts on listeners that outlive the process: nothing acknowledged is lost, and nobody is refused a connection.

use super::manager::{Manager, Service};
use super::support::{ACQ, LOG, PATIENCE, data_dir, key, noise, program, tile};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::{Answered, CaptureClient, CaptureError, HttpClient};

const SENDERS: u32 = 3;
const WINDOW: usize = 4;
/// Tiles that are acknowledged between two restarts, at least.
const TILES_BETWEEN: usize = 150;

fn restarts() -> usize {
    if std::env::var_os("TILECATCHER_LONG").is_some() { 10 } else { 3 }
}

/// What senders and the poller share with the test.
#[derive(Default)]
struct Load {
    acknowledged: AtomicUsize,
    over: AtomicBool,
}

#[test]
fn restarts_on_inherited_listeners_lose_no_tile_and_refuse_no_connection() {
    let (data, manager, load) = (data_dir(), Manager::new(Some("capture:http")), Load::default());
    let service = manager.start(data.path(), &[], None);
    manager.await_notification("READY=1");
    let http = HttpClient::new(&format!("http://{}", manager.http()), PATIENCE);
    http.start_acquisition("123_8x8_logfile.ini", LOG.as_bytes()).expect("started");

    let (sent, polls, service) = std::thread::scope(|scope| {
        let (load, manager) = (&load, &manager);
        let senders: Vec<_> = (0..SENDERS).map(|n| scope.spawn(move || send(n, manager.capture(), load))).collect();
        let poller = scope.spawn(|| poll(manager.http(), load));
        // Whatever happens here, the threads must come to their end.
        let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut service = service;
            for restart in 1..=restarts() {
                await_acknowledged(load, restart * TILES_BETWEEN);
                service = restart_at_once(service, manager, data.path());
            }
            await_acknowledged(load, (restarts() + 1) * TILES_BETWEEN);
            service
        }));
        load.over.store(true, Ordering::SeqCst);
        let sent: Vec<Sent> = senders.into_iter().map(|sender| sender.join().expect("no panic")).collect();
        let polls = poller.join().expect("no panic");
        (sent, polls, restarted.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (n, sent) in sent.iter().enumerate() {
        assert!(sent.connections <= restarts() + 1, "sender {n} connected {} times", sent.connections);
    }
    assert!(polls.cut <= restarts(), "{polls:?}");
    assert!(polls.answered > restarts(), "{polls:?}");
    let tiles: usize = sent.iter().map(|sent| check(&http, sent)).sum();
    assert_eq!(tiles, load.acknowledged.load(Ordering::SeqCst));
    drop(service);
    eprintln!("{} restarts: {tiles} tiles acknowledged, all there; {polls:?}", restarts());
}

/// SIGTERM, and the next process at once: the first one may still be draining, and holds the data directory.
fn restart_at_once(mut old: Service, manager: &Manager, data: &std::path::Path) -> Service {
    old.signal("-TERM");
    let new = manager.start(data, &[], None);
    manager.await_notification("READY=1");
    assert_eq!(old.wait().code(), Some(0), "{}", old.log());
    new
}

fn await_acknowledged(load: &Load, tiles: usize) {
    let until = Instant::now() + PATIENCE * 2;
    while load.acknowledged.load(Ordering::SeqCst) < tiles {
        assert!(Instant::now() < until, "only {} tiles", load.acknowledged.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What one sender did.
struct Sent {
    col: u32,
    /// Row and id of each acknowledged tile.
    acknowledged: Vec<(u32, u64)>,
    connections: usize,
}

fn image(col: u32, row: u32) -> Vec<u8> {
    noise((u64::from(col) << 32) | u64::from(row), [500, 20_000, 90_000][row as usize % 3])
}

/// Sends rows of its column until the load is over; what a lost connection left unanswered goes out again on the next.
fn send(col: u32, capture: SocketAddr, load: &Load) -> Sent {
    let mut sent = Sent { col, acknowledged: Vec::new(), connections: 0 };
    let mut again = VecDeque::new();
    let mut next = 0;
    while !load.over.load(Ordering::SeqCst) || !again.is_empty() {
        let mut client = CaptureClient::connect(capture, WINDOW, PATIENCE).unwrap_or_else(|error| {
            panic!("sender {col}: no connection: {error}");
        });
        sent.connections += 1;
        let mut note = |answered: Answered<u32>| {
            assert_eq!(answered.response.status, 0, "row {}", answered.tag);
            sent.acknowledged.push((answered.tag, answered.response.tile.0));
            load.acknowledged.fetch_add(1, Ordering::SeqCst);
        };
        let ended = send_on(&mut client, col, &mut again, &mut next, load, &mut note);
        if let Err(error) = ended {
            client.salvage(Duration::from_secs(1), note);
            let silent = matches!(&error, CaptureError::Io { source, .. } if source.kind() == ErrorKind::WouldBlock);
            assert!(!silent, "sender {col}: no answer within {PATIENCE:?}");
        }
        // Unanswered before those that had not been sent yet: in the order of rows.
        let unsent = std::mem::take(&mut again);
        again.extend(client.into_unanswered().chain(unsent));
    }
    sent
}

fn send_on(
    client: &mut CaptureClient<u32>,
    col: u32,
    again: &mut VecDeque<u32>,
    next: &mut u32,
    load: &Load,
    note: &mut impl FnMut(Answered<u32>),
) -> Result<(), CaptureError> {
    while !load.over.load(Ordering::SeqCst) || !again.is_empty() {
        let row = again.pop_front().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        });
        let image = image(col, row);
        client.send(&tile(key(col, row), &image), row)?.into_iter().for_each(&mut *note);
    }
    while let Some(answered) = client.receive()? {
        note(answered);
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Polls {
    answered: usize,
    /// Accepted, and closed without an answer: by a process that was just stopping.
    cut: usize,
    longest: Duration,
}

/// Asks for /healthz, a connection each time.
fn poll(http: SocketAddr, load: &Load) -> Polls {
    let mut polls = Polls::default();
    while !load.over.load(Ordering::SeqCst) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(http).expect("a listener that outlives the process refuses nobody");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        match asked.and_then(|()| stream.read_to_string(&mut answer)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer within {PATIENCE:?}"),
            Ok(_) if answer.starts_with("HTTP/1.1 200") => polls.answered += 1,
            _ if answer.is_empty() => polls.cut += 1,
            other => panic!("{other:?}: {answer}"),
        }
        polls.longest = polls.longest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    polls
}

/// Everything that was acknowledged is there, byte for byte, under its id.
fn check(http: &HttpClient, sent: &Sent) -> usize {
    for (row, id) in &sent.acknowledged {
        let described = http.tile(ACQ, sent.col, *row).expect("an acknowledged tile is described");
        assert_eq!(described["tile_id"].as_u64(), Some(*id));
        let content = http.content(ACQ, sent.col, *row).expect("an acknowledged tile is stored");
        assert!(content.bytes == image(sent.col, *row), "column {}, row {row} is altered", sent.col);
    }
    sent.acknowledged.len()
}

#[test]
fn the_service_manager_hears_ready_signs_of_life_and_stopping() {
    let (data, manager) = (data_dir(), Manager::new(None));
    let mut service = manager.start(data.path(), &[], Some(Duration::from_secs(4)));
    manager.await_notification("READY=1");
    manager.await_notification("WATCHDOG=1");
    manager.await_notification("WATCHDOG=1");
    service.signal("-TERM");
    manager.await_notification("STOPPING=1");
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn a_start_on_inherited_listeners_waits_for_the_data_directory_and_ends_when_told() {
    let (data, manager) = (data_dir(), Manager::new(None));
    let mut first = manager.start(data.path(), &[], None);
    manager.await_notification("READY=1");
    let mut second = manager.start(data.path(), &["log.level=info"], None);
    while !second.log().contains("waiting for the data directory") {
        assert!(second.is_running(), "{}", second.log());
        std::thread::yield_now();
    }
    second.signal("-TERM");
    assert_eq!(second.wait().code(), Some(0), "{}", second.log());
    let mut third = manager.start(data.path(), &["storage.lock_wait=50ms"], None);
    assert_eq!(third.wait().code(), Some(2), "{}", third.log());
    assert!(third.log().contains("in use by another tilecatcher"), "{}", third.log());
    first.signal("-TERM");
    assert_eq!(first.wait().code(), Some(0));
}

#[test]
fn a_listener_that_is_none_is_refused_by_name() {
    let mut command = program();
    command.arg("serve").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
    // Descriptor 3 is whatever the test's process left there, or nothing: never a listener for TCP of this daemon.
    let out = command.stdin(std::process::Stdio::null()).output().expect("runs");
    assert_eq!(out.status.code(), Some(2));
    let line = String::from_utf8_lossy(&out.stderr);
    assert!(line.contains("inherited listener http") && line.lines().count() == 1, "{line}");
}
