//! kill -9 under load: every acknowledged tile is there after the restart, byte for byte, under its id.

use super::support::{ACQ, Daemon, data_dir, key, noise, program, tile};
use std::sync::Mutex;
use std::time::Duration;
use tilecatcher::client::ChecksumChoice;

/// Cycles; TILECATCHER_TEST_KILLS=200 for a long campaign.
fn cycles() -> u32 {
    std::env::var("TILECATCHER_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

struct Acknowledged {
    col: u32,
    row: u32,
    seed: u64,
    len: usize,
    id: u64,
}

#[test]
fn no_acknowledged_tile_is_lost_or_altered_by_kill_9() {
    let data = data_dir();
    let mut all: Vec<Acknowledged> = Vec::new();
    for cycle in 0..cycles() {
        let settings: &[&str] = if cycle % 3 == 2 { &["storage.lanes=2"] } else { &[] };
        let daemon = Daemon::start(data.path(), settings);
        check(&daemon, &all, cycle);
        let acknowledged = Mutex::new(Vec::new());
        // Another moment in each cycle: from before the first ack to in the middle of many.
        let lifetime = Duration::from_millis(u64::from(cycle * 37 % 230));
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let (daemon, acknowledged) = (&daemon, &acknowledged);
                scope.spawn(move || send_until_killed(daemon, cycle, sender, acknowledged));
            }
            std::thread::sleep(lifetime);
            super::support::signal(daemon.pid(), "-KILL");
        });
        daemon.kill();
        all.extend(acknowledged.into_inner().expect("senders do not panic"));
    }
    // As the kill left it: torn writes and an index that is behind are no problems.
    verify(data.path());
    let daemon = Daemon::start_bare(data.path(), &[]);
    check(&daemon, &all, u32::MAX);
    let ids: std::collections::BTreeSet<u64> = all.iter().map(|tile| tile.id).collect();
    assert_eq!(ids.len(), all.len(), "two tiles share an id");
    assert!(all.len() > cycles() as usize, "only {} tiles were acknowledged: the test shows nothing", all.len());
    daemon.stop();
    verify(data.path());
    eprintln!("{} tiles acknowledged in {} cycles, all there", all.len(), cycles());
}

fn verify(data: &std::path::Path) {
    let verified = program().args(["verify", "--data"]).arg(data).output();
    let verified = verified.expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

fn send_until_killed(daemon: &Daemon, cycle: u32, sender: u32, acknowledged: &Mutex<Vec<Acknowledged>>) {
    let mut client = daemon.client(4);
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

/// All tiles of the last cycle, and a sample of the older ones.
fn check(daemon: &Daemon, all: &[Acknowledged], cycle: u32) {
    let old = all.len().saturating_sub(2000);
    let sample = all.iter().enumerate().filter(|(n, _)| *n >= old || n % 17 == 0 || cycle == u32::MAX);
    for (_, tile) in sample {
        let described = daemon.http.tile(ACQ, tile.col, tile.row).expect("an acknowledged tile is described");
        assert_eq!(described["tile_id"].as_u64(), Some(tile.id));
        let content = daemon.http.content(ACQ, tile.col, tile.row).expect("an acknowledged tile is stored");
        assert!(content.bytes == noise(tile.seed, tile.len), "tile {} of cycle {cycle} is altered", tile.id);
    }
}
