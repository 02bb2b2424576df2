//! HTTP clients that are slow, or stop: what they hold is bounded, and capture goes on.

use super::hostile::dial_from;
use super::support::{ACQ, Daemon, PATIENCE, await_ok, data_dir, frame, key, noise};
use super::web;
use std::io::{Read, Write};
use std::net::TcpStream;
use tilecatcher::formats::encode_gray8;

/// A connection on which a request was sent and nothing was read.
fn ask(daemon: &Daemon, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.http_address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

#[test]
fn readers_that_do_not_read_leave_capture_its_buffers() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["memory.buffers=32MiB"]);
    let image = noise(1, 6 << 20);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), &image));
    assert_eq!(connection.answer().status, 0);
    // 40 x 6 MiB is far more than all buffers; the sockets hold a part of one each.
    let get = format!("GET /service/v1/acquisition/{ACQ}/tile/0/0/content HTTP/1.1\r\nHost: x\r\n\r\n");
    let readers: Vec<TcpStream> = (0..40).map(|_| ask(&daemon, &get)).collect();
    for col in 1..20 {
        connection.send(&frame(key(col, 0), &image));
        assert_eq!(connection.answer().status, 0, "tile {col}");
    }
    // A quarter of the buffers is the readers' share.
    daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes <= 8.0 * 1024.0 * 1024.0);
    drop(readers);
}

#[test]
fn images_for_readers_that_do_not_read_are_bounded() {
    let data = data_dir();
    // Images may take a quarter of it, those for one address half of that: one of nearly 6 MiB, and no second one.
    let daemon = Daemon::start(data.path(), &["memory.buffers=64MiB"]);
    let image = encode_gray8(2400, 2400, &noise(1, 2400 * 2400)).expect("an image");
    let id = web::put(&daemon, ACQ.0, &web::name(0, 0), &image);
    let path = format!("/api/v1/tiles/{id}/image");
    let mut stopped = ask(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut begun = [0; 12];
    stopped.read_exact(&mut begun).expect("an answer");
    assert_eq!(&begun, b"HTTP/1.1 200");
    assert!(web::get(&daemon, &path).refused(503).contains("too much is going on"));
    assert_eq!(web::get(&daemon, &format!("{path}?size=64")).status, 200, "a small one finds room");
    let mut other = dial_from(2, daemon.http_address).expect("a connection");
    other.write_all(web::head("GET", &path, "").as_bytes()).expect("sent");
    assert_eq!(web::read_answer(&mut other).status, 200, "another address has its own half");
    drop(stopped);
    await_ok(|| Some(web::get(&daemon, &path)).filter(|answer| answer.status == 200).ok_or("no room"));
}

#[test]
fn senders_that_stop_inside_a_tile_leave_the_others_room() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["memory.buffers=32MiB"]);
    let put = |length: usize| {
        format!(
            "PUT /service/v1/capture-image-content/{ACQ}?tile-filename=col0001_row0001_cam0.tif HTTP/1.1\r\nHost: x\r\n\
             Content-Length: {length}\r\n\r\nbegun"
        )
    };
    let stalled: Vec<TcpStream> = (0..20).map(|_| ask(&daemon, &put(6 << 20))).collect();
    let mut connection = daemon.connect();
    for col in 1..10 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 6 << 20)));
        assert_eq!(connection.answer().status, 0, "tile {col}");
    }
    drop(stalled);
    // Cut bodies leave nothing, and give back what they held.
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    assert!(daemon.http.tile(ACQ, 1, 1).is_err());
    let mut whole = ask(&daemon, &put(5).replace("Host: x", "Host: x\r\nConnection: close"));
    let mut answer = String::new();
    whole.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
