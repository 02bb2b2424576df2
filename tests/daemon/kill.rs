//! kill -9 under load: every acknowledged tile is there after the restart, byte for byte, under its id, and so is every
//! acknowledged state and deletion. Between kills the directory is compacted; all the time it is scrubbed.

use super::support::{ACQ, Daemon, LOG, await_found, data_dir, key, noise, program, tile};
use super::web::{create_rois, handed_out, listed, next_tile};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::ChecksumChoice;
use tilecatcher::model::AcqId;

/// A column of tiles that only change their states.
const STATES_COL: u32 = 90_000;
const STATE_NAMES: u64 = 16;
const SETTINGS: [&str; 3] = ["scrub.rate=unlimited", "scrub.interval=100ms", "storage.segment_size=2MiB"];

/// Cycles: 20, with TILECATCHER_LONG=1 200, or as TILECATCHER_TEST_KILLS says.
fn cycles() -> u32 {
    let long = if std::env::var_os("TILECATCHER_LONG").is_some() { 200 } else { 20 };
    std::env::var("TILECATCHER_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(long)
}

/// TILECATCHER_TEST_SEED for the moments of an earlier run.
fn seed() -> u64 {
    let given = std::env::var("TILECATCHER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

struct Acknowledged {
    col: u32,
    row: u32,
    seed: u64,
    len: usize,
    id: u64,
}

/// States that were asked for, and how many of these were acknowledged. They follow each other, one at a time.
#[derive(Default)]
struct States {
    asked: AtomicU64,
    acknowledged: AtomicU64,
}

#[test]
fn no_acknowledged_tile_state_or_deletion_is_lost_or_altered_by_kill_9() {
    let (data, seed) = (data_dir(), seed());
    eprintln!("seed {seed} (TILECATCHER_TEST_SEED)");
    let (mut all, mut slowest): (Vec<Acknowledged>, Duration) = (Vec::new(), Duration::ZERO);
    let (states, mut ids, mut deleted) = (States::default(), Vec::new(), Vec::new());
    for cycle in 0..cycles() {
        let began = Instant::now();
        let lanes = if cycle % 3 == 2 { "storage.lanes=2" } else { "storage.lanes=1" };
        let daemon = Daemon::start_bare(data.path(), &[SETTINGS.as_slice(), &[lanes]].concat());
        slowest = slowest.max(began.elapsed());
        daemon.start_acquisition();
        if cycle == 0 {
            ids = tiles_with_states(&daemon);
        }
        check(&daemon, &all, cycle);
        check_states(&daemon, &states);
        deleted.iter().for_each(|acq| assert!(daemon.http.tile(*acq, 0, 0).is_err(), "{acq} is back"));
        deleted.extend(store_and_delete(&daemon, cycle));
        let acknowledged = Mutex::new(Vec::new());
        // Another moment in each cycle: from before the first ack to in the middle of many.
        let dice = u64::from_le_bytes(noise(seed + u64::from(cycle), 8).try_into().expect("8 bytes"));
        std::thread::scope(|scope| {
            let (daemon, acknowledged, states, ids) = (&daemon, &acknowledged, &states, &ids);
            for sender in 0..3 {
                scope.spawn(move || send_until_killed(daemon, cycle, sender, acknowledged));
            }
            scope.spawn(move || put_until_killed(daemon, cycle, 3, acknowledged));
            scope.spawn(move || set_states_until_killed(daemon, ids, states));
            // However slow the machine is, every other life shows something.
            if cycle % 2 == 1 {
                await_found(|| acknowledged.lock().expect("no panic").len(), |tiles| *tiles >= 2);
            }
            std::thread::sleep(Duration::from_millis(dice % 230));
            super::support::signal(daemon.pid(), "-KILL");
        });
        daemon.kill();
        all.extend(acknowledged.into_inner().expect("senders do not panic"));
        if cycle % 4 == 3 {
            compact(data.path());
        }
    }
    // As the kill left it: torn writes and an index that is behind are no problems.
    verify(data.path());
    let daemon = Daemon::start_bare(data.path(), &[]);
    check(&daemon, &all, u32::MAX);
    check_states(&daemon, &states);
    let ids: std::collections::BTreeSet<u64> = all.iter().map(|tile| tile.id).collect();
    assert_eq!(ids.len(), all.len(), "two tiles share an id");
    assert!(all.len() > cycles() as usize, "only {} tiles were acknowledged: the test shows nothing", all.len());
    assert!(states.acknowledged.load(Ordering::SeqCst) > 0, "no state was acknowledged: the test shows nothing");
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 0.0, "the scrub took something for damage");
    daemon.stop();
    verify(data.path());
    // Slower machines than a laptop run this, beside other tests.
    assert!(slowest < Duration::from_secs(20), "a restart took {slowest:?}");
    eprintln!(
        "{} tiles and {} changes of states acknowledged in {} cycles, all there; slowest start {} ms",
        all.len(),
        states.acknowledged.load(Ordering::SeqCst),
        cycles(),
        slowest.as_millis()
    );
}

fn verify(data: &Path) {
    let verified = program().args(["verify", "--data"]).arg(data).output();
    let verified = verified.expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

fn compact(data: &Path) {
    let compacted = program().args(["compact", "--reserve", "1MiB", "--data"]).arg(data).output().expect("runs");
    // A segment that has to be left alone is named with 1.
    let text = String::from_utf8_lossy(&compacted.stderr);
    assert!(matches!(compacted.status.code(), Some(0 | 1)), "{text}");
}

/// An acquisition of its own in each cycle; the one before is deleted. Returns what is deleted now.
fn store_and_delete(daemon: &Daemon, cycle: u32) -> Option<AcqId> {
    let acq = |cycle: u32| AcqId(1000 + u64::from(cycle));
    daemon.http.start_acquisition(&format!("{}_logfile.ini", acq(cycle)), LOG.as_bytes()).expect("started");
    for col in 0..4 {
        let image = noise(u64::from(col), 200_000);
        let mut tile = tile(key(col, 0), &image);
        tile.key.acq = acq(cycle);
        daemon.http.put_tile(&tile).expect("stored");
    }
    let earlier = acq(cycle.checked_sub(1)?);
    daemon.http.delete_acquisition(earlier).expect("deleted");
    Some(earlier)
}

/// Stores tiles in a ROI of their own; returns the names of their states.
fn tiles_with_states(daemon: &Daemon) -> Vec<String> {
    let places: Vec<(u32, u32)> = (0..5).map(|row| (STATES_COL, row)).collect();
    create_rois(daemon, ACQ.0, &[("5", &places)]).with(200);
    for (col, row) in places {
        daemon.http.put_tile(&tile(key(col, row), b"x")).expect("stored");
    }
    let ids = handed_out(&next_tile(daemon, &format!("acqid={ACQ}&ntiles=5&newState=S0")));
    assert_eq!(ids.len(), 5);
    ids
}

fn set_states_until_killed(daemon: &Daemon, ids: &[String], states: &States) {
    loop {
        let next = states.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let body = serde_json::json!({ "state": format!("S{}", next % STATE_NAMES), "tileSpecIds": ids }).to_string();
        let request = format!(
            "PUT /service/v1/tile-state HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = || {
            let mut stream = TcpStream::connect(daemon.http_address)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).map(|_| answer)
        };
        match answer() {
            Ok(answer) if answer.starts_with(b"HTTP/1.1 200") => states.acknowledged.store(next, Ordering::SeqCst),
            _ => return,
        }
    }
}

/// The states are those of the last acknowledged change, or of one that was asked for behind it; for all tiles the same.
fn check_states(daemon: &Daemon, states: &States) {
    let tiles = listed(daemon, &format!("/service/v1/acquisition/{ACQ}/tiles?col={STATES_COL}"));
    let found: Vec<&String> = tiles.iter().map(|(.., state)| state).collect();
    let (first, last) = (states.acknowledged.load(Ordering::SeqCst), states.asked.load(Ordering::SeqCst));
    let possible: Vec<String> = (first..=last).map(|n| format!("S{}", n % STATE_NAMES)).collect();
    assert_eq!(found.len(), 5, "{tiles:?}");
    assert!(found.iter().all(|state| *state == found[0] && possible.contains(state)), "{found:?}, not in {possible:?}");
    // What was asked for in vain and is there counts as acknowledged now.
    let now = (first..=last).find(|n| format!("S{}", n % STATE_NAMES) == *found[0]).expect("found above");
    states.acknowledged.store(now, Ordering::SeqCst);
    states.asked.store(now, Ordering::SeqCst);
}

fn put_until_killed(daemon: &Daemon, cycle: u32, sender: u32, acknowledged: &Mutex<Vec<Acknowledged>>) {
    for row in 0.. {
        let ((seed, len), col) = (content_of(cycle, sender, row), cycle * 4 + sender);
        let Ok(id) = daemon.http.put_tile(&tile(key(col, row), &noise(seed, len))) else { return };
        acknowledged.lock().expect("no panic").push(Acknowledged { col, row, seed, len, id: id.0 });
    }
}

fn send_until_killed(daemon: &Daemon, cycle: u32, sender: u32, acknowledged: &Mutex<Vec<Acknowledged>>) {
    let Ok(mut client) = tilecatcher::client::CaptureClient::connect(daemon.capture, 4, super::support::PATIENCE)
    else {
        return;
    };
    let mut note = |answered: tilecatcher::client::Answered<u32>| {
        assert_eq!(answered.response.status, 0);
        let row = answered.tag;
        let (seed, len) = content_of(cycle, sender, row);
        let tile = Acknowledged { col: cycle * 4 + sender, row, seed, len, id: answered.response.tile.0 };
        acknowledged.lock().expect("no panic").push(tile);
    };
    for row in 0.. {
        let (seed, len) = content_of(cycle, sender, row);
        let image = noise(seed, len);
        let mut tile = tile(key(cycle * 4 + sender, row), &image);
        if row % 2 == 1 {
            tile.checksum = tilecatcher::client::checksum_of(ChecksumChoice::Md5, &image);
        }
        match client.send(&tile, row) {
            Ok(answered) => answered.into_iter().for_each(&mut note),
            Err(_) => break,
        }
    }
    // What was answered before the kill counts, even if it is read after it.
    while let Ok(Some(answered)) = client.receive() {
        note(answered);
    }
}

fn content_of(cycle: u32, sender: u32, row: u32) -> (u64, usize) {
    let seed = (u64::from(cycle) << 40) | (u64::from(sender) << 32) | u64::from(row);
    (seed, [900, 40_000, 300_000][row as usize % 3])
}

/// The last tiles, and a sample of the older ones; at the end all.
fn check(daemon: &Daemon, all: &[Acknowledged], cycle: u32) {
    let old = all.len().saturating_sub(150);
    let sample = all.iter().enumerate().filter(|(n, _)| *n >= old || n % 41 == 0 || cycle == u32::MAX);
    for (_, tile) in sample {
        let described = daemon.http.tile(ACQ, tile.col, tile.row).expect("an acknowledged tile is described");
        assert_eq!(described["tile_id"].as_u64(), Some(tile.id));
        let content = daemon.http.content(ACQ, tile.col, tile.row).expect("an acknowledged tile is stored");
        assert!(content.bytes == noise(tile.seed, tile.len), "tile {} of cycle {cycle} is altered", tile.id);
    }
}
