//! Each kind of bad input gets what the contract says, is counted, and disturbs no other connection.

use super::support::{
    CHECKSUM_LENGTH, COL_FIELD, Daemon, FRAME_FIELD, ROW_FIELD, data_dir, frame, frame_with, key, noise, patched,
};
use std::io::Write;
use std::net::Shutdown;
use tilecatcher::model::{AcqId, Checksum, Pressure, TileKey};

/// Sends a bad message, expects its refusal with this status, a count, and a connection that still works;
/// and that a connection opened before works too.
fn assert_refused_and_kept(settings: &[&str], message: &[u8], reason: &str) {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), settings);
    let mut other = daemon.connect();
    let mut connection = daemon.connect();
    connection.send(message);
    let answer = connection.answer();
    assert_eq!((answer.status, answer.tile.0, answer.system), (1, 0, Pressure::Red), "{reason}");
    connection.assert_works(1);
    other.assert_works(2);
    daemon.await_metric(&format!("tilecatcher_tiles_refused_total{{reason=\"{reason}\"}}"), 1.0);
}

#[test]
fn unknown_acquisition_is_refused_unless_configured() {
    let stranger = TileKey { acq: AcqId(999), ..key(0, 0) };
    assert_refused_and_kept(&[], &frame(stranger, b"x"), "unknown_acquisition");
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &["capture.accept_unknown_acquisitions=true"]);
    let mut connection = daemon.connect();
    connection.send(&frame(stranger, b"x"));
    assert_eq!(
        (connection.answer().status, daemon.http.content(AcqId(999), 0, 0).expect("stored").bytes),
        (0, b"x".to_vec())
    );
}

#[test]
fn empty_frame_is_answered_and_the_connection_goes_on() {
    assert_refused_and_kept(&[], &0u32.to_le_bytes(), "empty_frame");
}

#[test]
fn garbage_is_answered_and_the_connection_goes_on() {
    let garbage = [&1000u32.to_le_bytes()[..], &[0xff; 1000]].concat();
    assert_refused_and_kept(&[], &garbage, "bad_message");
    let zeros = [&1000u32.to_le_bytes()[..], &[0; 1000]].concat();
    assert_refused_and_kept(&[], &zeros, "bad_message");
    assert_refused_and_kept(&[], &frame(key(0, 0), b""), "bad_message");
}

#[test]
fn wrong_checksum_is_refused_and_never_stored() {
    for checksum in [Checksum::Crc32(1), Checksum::Md5([1; 16]), Checksum::Sha1([1; 20]), Checksum::Sha256([1; 32])] {
        assert_refused_and_kept(&[], &frame_with(key(0, 0), b"x", checksum), "bad_checksum");
    }
    let five_bytes = patched(frame_with(key(0, 0), b"x", Checksum::Md5([0; 16])), CHECKSUM_LENGTH, 5);
    assert_refused_and_kept(&[], &five_bytes, "bad_checksum");
}

#[test]
fn missing_checksum_is_refused_unless_configured() {
    let message = frame_with(key(0, 0), b"x", Checksum::None);
    assert_refused_and_kept(&[], &message, "missing_checksum");
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.require_checksum=false"]);
    let mut connection = daemon.connect();
    connection.send(&message);
    assert_eq!(connection.answer().status, 0);
}

#[test]
fn negative_positions_are_refused() {
    for (at, value) in [(COL_FIELD, -1), (ROW_FIELD, i32::MIN), (FRAME_FIELD, -2)] {
        assert_refused_and_kept(&[], &patched(frame(key(0, 0), b"x"), at, value), "bad_key");
    }
}

#[test]
fn a_tile_beyond_the_grid_is_accepted_and_counted() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    for (col, row) in [(7, 7), (8, 0), (0, 8)] {
        connection.send(&frame(key(col, row), b"x"));
        assert_eq!(connection.answer().status, 0);
    }
    daemon.await_metric("tilecatcher_tiles_beyond_grid_total", 2.0);
}

#[test]
fn oversized_length_is_answered_then_closed_and_others_go_on() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut other = daemon.connect();
    for length in [8 * 1024 * 1024 + 1, u32::MAX] {
        let mut connection = daemon.connect();
        // The tiles before it are answered first, in order.
        connection.send(&frame(key(0, 0), b"before"));
        connection.send(&length.to_le_bytes());
        connection.send(&noise(1, 100_000));
        assert_eq!(connection.answer().status, 0);
        let answer = connection.answer();
        assert_eq!((answer.status, answer.system), (1, Pressure::Red));
        assert!(connection.is_closed(), "there is no way to find the next frame");
        other.assert_works(3);
    }
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"too_large\"}", 2.0);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"framing\"}", 2.0);
}

#[test]
fn frames_cut_anywhere_leave_nothing_behind() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let message = frame(key(5, 5), b"a small image");
    for cut in 1..message.len() {
        daemon.connect().send(&message[..cut]);
    }
    let cuts = u32::try_from(message.len() - 1).expect("small");
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"cut\"}", f64::from(cuts));
    daemon.await_metric("tilecatcher_connections", 0.0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    assert!(daemon.http.tile(super::support::ACQ, 5, 5).is_err(), "half a tile was stored");
    daemon.connect().assert_works(0);
}

#[test]
fn a_sender_that_shuts_down_its_side_is_still_answered() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    for col in 0..8 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 100_000)));
    }
    connection.stream.shutdown(Shutdown::Write).expect("half closed");
    for _ in 0..8 {
        assert_eq!(connection.answer().status, 0);
    }
    assert!(connection.is_closed());
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"peer\"}", 1.0);
}

#[test]
fn a_sender_that_goes_before_its_answer_has_its_tile_stored() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(4, 100_000);
    drop({
        let mut connection = daemon.connect();
        connection.send(&frame(key(4, 4), &image));
        connection
    });
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 1.0);
    assert_eq!(daemon.http.content(super::support::ACQ, 4, 4).expect("stored").bytes, image);
}

#[test]
fn bytes_may_come_one_by_one() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    for col in 0..2 {
        for byte in frame(key(col, 0), b"slowly") {
            connection.send(&[byte]);
            connection.stream.flush().expect("flushed");
        }
        assert_eq!(connection.answer().status, 0);
    }
}

#[test]
fn silent_connections_hold_nothing_and_stay() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut silent: Vec<_> = (0..100).map(|_| daemon.connect()).collect();
    daemon.connect().assert_works(0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    daemon.await_metric_that("tilecatcher_connections", |open| open >= 100.0);
    silent[57].assert_works(1);
}

#[test]
fn a_sender_that_stalls_inside_a_tile_is_disconnected_and_its_memory_freed() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.slow_grace=2s"]);
    let mut stalled = daemon.connect();
    let message = frame(key(0, 0), &noise(1, 1_000_000));
    stalled.send(&message[..500_000]);
    assert!(stalled.is_closed());
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"slow\"}", 1.0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
}

#[test]
fn connections_above_the_limit_are_closed_at_once() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.connections_max=2"]);
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    first.assert_works(0);
    second.assert_works(1);
    assert!(daemon.connect().is_closed());
    first.assert_works(2);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"limit\"}", 1.0);
}

#[test]
fn a_full_disk_refuses_with_status_3_and_loses_nothing_that_was_stored() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    daemon.connect().assert_works(0);
    daemon.stop();
    // A reserve that no disk has: the next segment can not be made.
    let daemon = Daemon::start_bare(data.path(), &["storage.reserve=1000TiB"]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(1, 1), b"x"));
    assert_eq!(connection.answer().status, 3);
    connection.send(&frame(key(0, 7), b"still works"));
    assert_eq!(connection.answer().status, 0, "a duplicate needs no space");
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"no_space\"}", 1.0);
}
