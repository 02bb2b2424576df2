//! Tiles in, answers back, bytes read again.

use super::support::{ACQ, Daemon, crc, data_dir, frame, frame_with, key, noise, tile};
use std::collections::BTreeSet;
use std::sync::Barrier;
use tilecatcher::client::{ChecksumChoice, checksum_of};
use tilecatcher::model::{Checksum, Pressure};

#[test]
fn a_tile_is_acknowledged_described_and_read_back_equal_whatever_its_checksum() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    let kinds = [ChecksumChoice::Crc32, ChecksumChoice::Md5, ChecksumChoice::Sha1, ChecksumChoice::Sha256];
    for (col, kind) in (0..).zip(kinds) {
        // Lengths that leave each padding behind the image.
        let image = noise(u64::from(col), 300_000 + col as usize);
        let checksum = checksum_of(kind, &image);
        connection.send(&frame_with(key(col, 2), &image, checksum));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.acq, answer.system), (0, ACQ.0, Pressure::Green));
        let described = daemon.http.tile(ACQ, col, 2).expect("described");
        assert_eq!(described["tile_id"].as_u64(), Some(answer.tile.0));
        assert_eq!(described["tile_file_checksum"], checksum.to_string());
        assert_eq!(described["tile_camera"], 1);
        assert_eq!(daemon.http.content(ACQ, col, 2).expect("stored").bytes, image);
        let by_id = daemon.http.get_path(&format!("/service/v1/tile/{}/content", answer.tile)).expect("stored");
        assert_eq!(by_id.bytes, image);
    }
}

#[test]
fn a_duplicate_is_acked_with_the_same_id_and_stored_once_across_a_restart() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(1, 100_000);
    let first = {
        let mut connection = daemon.connect();
        connection.send(&frame(key(0, 0), &image));
        let first = connection.answer();
        connection.send(&frame(key(0, 0), &image));
        assert_eq!(connection.answer().tile, first.tile);
        // The same content with a stronger checksum is still the same content.
        connection.send(&frame_with(key(0, 0), &image, checksum_of(ChecksumChoice::Md5, &image)));
        assert_eq!(connection.answer().tile, first.tile);
        first
    };
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 2.0);
    assert_eq!(daemon.metric("tilecatcher_tiles_stored_total{as=\"new\"}"), 1.0);
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), &image));
    assert_eq!(connection.answer().tile, first.tile);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 1.0);
}

#[test]
fn equal_length_and_crc_are_not_taken_for_equal_content() {
    // CRC-32 is linear: contents that differ by a multiple of its polynomial have the same CRC.
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(3, 5000);
    let mut twin = image.clone();
    let polynomial = 0x1_db71_0641_u128; // 33 bits, highest power first in the order of the bits on the wire
    for (byte, flip) in twin[100..].iter_mut().zip((polynomial << 3).to_le_bytes()) {
        *byte ^= flip;
    }
    assert_eq!(crc(&image), crc(&twin), "two contents with one CRC");
    assert_ne!(image, twin);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), &image));
    let first = connection.answer();
    connection.send(&frame(key(0, 0), &twin));
    let second = connection.answer();
    assert_eq!((second.status, second.tile), (0, first.tile));
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, twin);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"replaced\"}", 1.0);
}

#[test]
fn other_content_is_a_new_version_or_refused_as_configured() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), b"old"));
    let old = connection.answer();
    connection.send(&frame(key(0, 0), b"new"));
    assert_eq!(connection.answer().tile, old.tile);
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, b"new");
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &["storage.on_conflict=reject"]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), b"newer"));
    let refused = connection.answer();
    assert_eq!((refused.status, refused.tile.0, refused.system), (1, 0, Pressure::Red));
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, b"new");
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"conflict\"}", 1.0);
}

#[test]
fn the_same_new_tile_on_16_connections_gets_one_id() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=3", "capture.reactors=2"]);
    let start = Barrier::new(16);
    for round in 0..5 {
        let image = noise(round, 200_000);
        let message = frame(key(u32::try_from(round).expect("small"), 1), &image);
        let ids: BTreeSet<u64> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = daemon.connect();
                        start.wait();
                        connection.send(&message);
                        connection.answer().tile.0
                    })
                })
                .collect();
            senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
        });
        assert_eq!(ids.len(), 1, "one tile got the ids {ids:?}");
    }
}

#[test]
fn answers_come_in_request_order_though_requests_take_different_ways() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=4"]);
    let mut connection = daemon.connect();
    let mut wanted = Vec::new();
    let mut bytes = Vec::new();
    for n in 0..60u32 {
        let image = noise(u64::from(n), if n % 7 == 0 { 400_000 } else { 3000 });
        let checksum = match n % 3 {
            0 => checksum_of(ChecksumChoice::Md5, &image),
            1 => crc(&image),
            _ => Checksum::Crc32(0),
        };
        wanted.push(if n % 3 == 2 { 1 } else { 0 });
        bytes.extend(frame_with(key(n % 8, n / 8), &image, checksum));
    }
    let mut writer = connection.stream.try_clone().expect("a clone");
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    let statuses: Vec<i16> = wanted.iter().map(|_| connection.answer().status).collect();
    sender.join().expect("a sender").expect("sent");
    assert_eq!(statuses, wanted);
}

#[test]
fn senders_wait_their_turn_when_memory_is_short_and_nothing_is_lost() {
    let data = data_dir();
    let settings =
        ["memory.buffers=4MiB", "capture.frame_max=2MiB", "storage.lane_queue=1", "storage.segment_size=8MiB"];
    let daemon = Daemon::start(data.path(), &settings);
    std::thread::scope(|scope| {
        for col in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.client(4);
                for row in 0..6 {
                    let image = noise(u64::from(col * 100 + row), 1_500_000);
                    let answered = client.send(&tile(key(col, row), &image), row).expect("sent");
                    assert!(answered.is_none_or(|answered| answered.response.status == 0));
                }
                while let Some(answered) = client.receive().expect("an answer") {
                    assert_eq!(answered.response.status, 0);
                }
            });
        }
    });
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    for (col, row) in [(0, 0), (3, 5), (7, 2)] {
        let image = noise(u64::from(col * 100 + row), 1_500_000);
        assert_eq!(daemon.http.content(ACQ, col, row).expect("stored").bytes, image);
    }
}

#[test]
fn weaker_ack_levels_store_as_well() {
    for level in ["written", "received"] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &[&format!("storage.ack={level}")]);
        let mut connection = daemon.connect();
        let image = noise(9, 50_000);
        connection.send(&frame(key(1, 1), &image));
        let answer = connection.answer();
        assert!(answer.status == 0 && answer.tile.0 > 0, "{answer:?}");
        let ready = daemon.http.get_path("/readyz").expect("ready").bytes;
        assert!(String::from_utf8_lossy(&ready).contains(level));
        daemon.stop();
        let daemon = Daemon::start_bare(data.path(), &[]);
        assert_eq!(daemon.http.content(ACQ, 1, 1).expect("stored").bytes, image);
    }
}

#[test]
fn idle_prewriting_changes_nothing_that_is_read() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.prewrite=2MiB"]);
    let mut connection = daemon.connect();
    for col in 0..6 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 700_000)));
        assert_eq!(connection.answer().status, 0);
        // Idle turns come 20 ms after the last tile; a few pass while this is answered.
        (0..5).for_each(|_| drop(daemon.http.get_path("/metrics").expect("metrics")));
    }
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[]);
    for col in 0..6 {
        assert_eq!(daemon.http.content(ACQ, col, 0).expect("stored").bytes, noise(u64::from(col), 700_000));
    }
}

#[test]
fn a_sender_that_reads_an_answer_with_one_read_gets_it_whole() {
    use std::io::{Read, Write};
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for col in 0..8 {
        // As the legacy client does: a connection for each tile, prefix and body in two writes, one read.
        let mut stream = daemon.connect().stream;
        let message = frame(key(col, 3), b"legacy");
        stream.write_all(&message[..4]).expect("sent");
        stream.write_all(&message[4..]).expect("sent");
        let mut answer = [0; 256];
        let read = stream.read(&mut answer).expect("an answer");
        assert_eq!(read, 4 + u32::from_le_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize);
    }
}
