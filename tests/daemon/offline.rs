//! verify, index rebuild, and an index that is deleted, damaged or from elsewhere.

use super::support::{ACQ, Daemon, data_dir, frame, key, noise, program, segments, tile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use tilecatcher::catalog::JournalFacts;
use tilecatcher::index::{FactSource, MemoryStore, SledStore, ViewStore, fold_all, row_name};
use tilecatcher::journal::{Journal, JournalOptions, RealFilesystem};
use tilecatcher::model::Sequence;

fn run(args: &[&str], data: &Path) -> Output {
    program().args(args).arg("--data").arg(data).output().expect("runs")
}

/// Random traffic: new tiles, duplicates, new versions, drift frames, restarts of the acquisition.
fn traffic(daemon: &Daemon, seed: u64) {
    std::thread::scope(|scope| {
        for sender in 0..4u64 {
            scope.spawn(move || {
                let mut client = daemon.client(8);
                for n in 0..150u64 {
                    let dice = noise(seed * 1000 + sender * 200 + n, 3);
                    let mut key = key(u32::from(dice[0] % 12), u32::from(dice[1] % 12));
                    if dice[2].is_multiple_of(5) {
                        key.frame.0 = i32::from(dice[2] % 3);
                    }
                    let image = noise(u64::from(dice[2] % 2), 2000);
                    let answered = client.send(&tile(key, &image), 0).expect("sent");
                    assert!(answered.is_none_or(|answered| answered.response.status == 0));
                }
                while client.receive().expect("an answer").is_some() {}
            });
        }
        scope.spawn(|| (0..5).for_each(|_| daemon.start_acquisition()));
    });
    daemon.http.end_acquisition(ACQ).expect("ended");
}

fn rows(store: &dyn ViewStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        true
    };
    store.scan(b"", &mut take).expect("readable");
    rows
}

fn generation(data: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data.join("index")).expect("an index");
    entries.map(|entry| entry.expect("an entry").path()).max().expect("a generation")
}

#[test]
fn a_rebuilt_index_equals_the_live_one_key_by_key() {
    let data = data_dir();
    for (seed, lanes) in [(1, "storage.lanes=1"), (2, "storage.lanes=4"), (3, "storage.lanes=2")] {
        let daemon = Daemon::start(data.path(), &[lanes]);
        traffic(&daemon, seed);
        if seed == 2 { daemon.kill() } else { daemon.stop() }
    }
    // The last daemon stopped in order: its rows are what it folded live, on top of what it had found.
    let live = rows(&SledStore::open(&generation(data.path()), 1 << 24).expect("opens"));
    let (journal, _) = Journal::open(data.path(), Arc::new(RealFilesystem), JournalOptions::default()).expect("opens");
    let facts = JournalFacts(&journal);
    let rebuilt = MemoryStore::default();
    fold_all(&rebuilt, facts.store_id(), &mut facts.facts_after(Sequence(0))).expect("folds");
    let rebuilt = rows(&rebuilt);
    for key in live.keys().chain(rebuilt.keys()) {
        assert_eq!(live.get(key), rebuilt.get(key), "row {}", row_name(key));
    }
    assert!(live.len() > 50, "only {} rows: the test shows nothing", live.len());
}

#[test]
fn ids_are_the_same_after_a_rebuild() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    traffic(&daemon, 7);
    let id = |daemon: &Daemon, col| daemon.http.tile(ACQ, col, 3).ok().and_then(|tile| tile["tile_id"].as_u64());
    let before: Vec<Option<u64>> = (0..12).map(|col| id(&daemon, col)).collect();
    daemon.stop();
    let rebuilt = run(&["index", "rebuild"], data.path());
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!((0..12).map(|col| id(&daemon, col)).collect::<Vec<_>>(), before);
    assert!(before.iter().flatten().count() > 3);
}

#[test]
fn a_deleted_truncated_or_overwritten_index_is_rebuilt_at_the_start() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    traffic(&daemon, 9);
    let id = daemon.http.tile(ACQ, 3, 3).expect("stored")["tile_id"].clone();
    daemon.stop();
    let sabotage: [&dyn Fn(&Path); 4] = [
        &|index| std::fs::remove_dir_all(index).expect("removed"),
        &|index| {
            let file = std::fs::File::options().write(true).open(index.join("db")).expect("sled's file");
            let len = file.metadata().expect("its length").len();
            file.set_len(len / 2).expect("truncated");
        },
        &|index| std::fs::write(index.join("db"), noise(1, 500_000)).expect("overwritten"),
        &|index| {
            for entry in std::fs::read_dir(index).expect("sled's directory") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    std::fs::write(path, b"").expect("emptied");
                }
            }
        },
    ];
    for (n, sabotage) in sabotage.iter().enumerate() {
        sabotage(&generation(data.path()));
        let daemon = Daemon::start_bare(data.path(), &["index.open_limit=3s"]);
        assert_eq!(daemon.http.tile(ACQ, 3, 3).expect("still there")["tile_id"], id, "sabotage {n}");
        daemon.connect().assert_works(u32::try_from(n).expect("small"));
        daemon.stop();
    }
}

#[test]
fn verify_agrees_with_good_data_and_names_a_flipped_byte() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    for col in 0..4 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 50_000)));
        assert_eq!(connection.answer().status, 0);
    }
    let beside = run(&["verify"], data.path());
    assert!(beside.status.success(), "beside a running daemon: {}", String::from_utf8_lossy(&beside.stdout));
    assert!(String::from_utf8_lossy(&beside.stdout).contains("a daemon runs"));
    daemon.stop();
    let good = run(&["verify", "--json"], data.path());
    let report: serde_json::Value = serde_json::from_slice(&good.stdout).expect("JSON");
    assert_eq!((good.status.code(), report["journal"]["records"].as_u64()), (Some(0), Some(5)));
    assert_eq!(report["index"]["agrees"]["tiles"], 4);
    // Inside the second tile's image: records lie at 4096 and every 53248 bytes behind it.
    let segment =
        segments(data.path()).into_iter().find(|path| path.to_string_lossy().contains("-0000.")).expect("lane 0");
    let mut bytes = std::fs::read(&segment).expect("readable");
    bytes[4096 + 53_248 + 20_000] ^= 1;
    std::fs::write(&segment, bytes).expect("damaged");
    let bad = run(&["verify"], data.path());
    assert_eq!(bad.status.code(), Some(1));
    let text = String::from_utf8_lossy(&bad.stdout);
    assert!(text.contains("at 57344: the payload does not match its CRC-32"), "{text}");
    // The daemon serves the others, and an error instead of wrong bytes.
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("whole").bytes, noise(0, 50_000));
    let error = daemon.http.content(ACQ, 1, 0).expect_err("damaged").to_string();
    assert!(error.contains("500") && error.contains("damaged"), "{error}");
    // Sent again, it is stored again under its id: equal checksum, unreadable bytes.
    let mut connection = daemon.connect();
    let id = daemon.http.tile(ACQ, 1, 0).expect("described")["tile_id"].as_u64();
    connection.send(&frame(key(1, 0), &noise(1, 50_000)));
    assert_eq!(Some(connection.answer().tile.0), id);
    assert_eq!(daemon.http.content(ACQ, 1, 0).expect("stored again").bytes, noise(1, 50_000));
}

/// The segment that tiles are in, of a daemon with one lane that made no other.
fn lane_segment(data: &Path) -> PathBuf {
    let mut found = segments(data).into_iter().filter(|path| path.to_string_lossy().contains("-0000."));
    found.next().expect("lane 0")
}

/// Three tiles of 50 000 bytes, each synced before the next: records at 4096 and every 53 248 bytes behind it.
fn three_tiles(data: &Path) -> (Daemon, u64) {
    let daemon = Daemon::start(data, &[]);
    let mut connection = daemon.connect();
    let mut last = 0;
    for col in 0..3 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 50_000)));
        last = connection.answer().tile.0;
    }
    (daemon, last)
}

#[test]
fn a_synced_record_that_reads_as_zeros_is_reported_as_corrupt() {
    let data = data_dir();
    let (daemon, _) = three_tiles(data.path());
    daemon.kill();
    let segment = lane_segment(data.path());
    let mut bytes = std::fs::read(&segment).expect("readable");
    bytes[4096 + 53_248..4096 + 2 * 53_248].fill(0);
    std::fs::write(&segment, bytes).expect("damaged");
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(daemon.metric("tilecatcher_recovery_corrupt"), 1.0);
    for col in [0, 2] {
        assert_eq!(daemon.http.content(ACQ, col, 0).expect("stored").bytes, noise(u64::from(col), 50_000));
    }
    assert!(daemon.http.content(ACQ, 1, 0).is_err());
    daemon.stop();
    assert_eq!(run(&["verify"], data.path()).status.code(), Some(1));
}

#[test]
fn a_damaged_segment_header_is_reported_and_its_records_are_served() {
    for stop_in_order in [true, false] {
        let data = data_dir();
        let (daemon, last) = three_tiles(data.path());
        if stop_in_order {
            daemon.stop()
        } else {
            daemon.kill()
        }
        let segment = lane_segment(data.path());
        let mut bytes = std::fs::read(&segment).expect("readable");
        bytes[50] ^= 1;
        std::fs::write(&segment, bytes).expect("damaged");
        assert_eq!(run(&["verify"], data.path()).status.code(), Some(1));
        // Without an index, everything rests on that segment.
        std::fs::remove_dir_all(data.path().join("index")).expect("removed");
        let daemon = Daemon::start_bare(data.path(), &[]);
        assert_eq!(daemon.metric("tilecatcher_recovery_corrupt"), 1.0);
        for col in 0..3 {
            assert_eq!(daemon.http.content(ACQ, col, 0).expect("stored").bytes, noise(u64::from(col), 50_000));
        }
        let mut connection = daemon.connect();
        connection.send(&frame(key(5, 5), b"new"));
        assert!(connection.answer().tile.0 > last, "an id was given twice");
    }
}

#[test]
fn a_torn_tail_is_set_aside_and_never_followed() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), &noise(0, 50_000)));
    connection.answer();
    daemon.kill();
    // What a cut write leaves: half a record behind the last good one.
    let segment =
        segments(data.path()).into_iter().find(|path| path.to_string_lossy().contains("-0000.")).expect("lane 0");
    let mut bytes = std::fs::read(&segment).expect("readable");
    let tail = 4096 + 53_248;
    bytes[tail..tail + 10_000].copy_from_slice(&noise(5, 10_000));
    std::fs::write(&segment, &bytes).expect("torn");
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(daemon.metric("tilecatcher_recovery_torn"), 1.0);
    assert_eq!(daemon.metric("tilecatcher_recovery_corrupt"), 0.0);
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, noise(0, 50_000));
    daemon.connect().assert_works(1);
    daemon.stop();
    let quarantined = std::fs::read_dir(data.path().join("quarantine")).expect("a quarantine").count();
    assert_eq!(quarantined, 1);
    assert!(run(&["verify"], data.path()).status.success());
}
