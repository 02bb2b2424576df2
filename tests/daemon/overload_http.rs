//! Hostile and unlucky clients of the HTTP port: closed in time, counted by reason, and everybody else is served.

use super::hostile::{BUFFERS, assert_sound, dial_from, dial_with_small_buffer, long};
use super::support::{ACQ, Daemon, await_that, data_dir, frame, key, noise};
use super::web::{Form, dial, get, head};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CLOSED: &str = "tilecatcher_http_connections_closed_total";

fn closed(reason: &str) -> String {
    format!("{CLOSED}{{reason=\"{reason}\"}}")
}

/// Sends a byte at a time until the daemon has had enough; returns what it answered, if anything.
fn trickle(mut stream: TcpStream) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a clone");
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let sender = std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(100)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            && writer.write_all(b"x").is_ok()
        {}
    });
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    drop((end, stream));
    sender.join().expect("no panic");
    answer
}

#[test]
fn one_address_can_not_take_all_http_connections_and_the_total_is_bounded() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.connections_max=12", "http.connections_per_peer=4"]);
    let crowd = |hosts: std::ops::Range<u8>| -> Vec<TcpStream> {
        let places = hosts.flat_map(|host| std::iter::repeat_n(host, 10));
        places.map(|host| dial_from(host, daemon.http_address).expect("taken by the system")).collect()
    };
    let two = crowd(2..4);
    await_served(&daemon);
    daemon.await_metric(&closed("peer_limit"), 12.0);
    // Of the 12 places 8 are taken; 16 more could come but for the total. Those that go before they were seen would leave
    // their places to the next, so all stay until the daemon has refused what it must.
    let many = crowd(4..8);
    await_that("the places above the total are refused", || many.iter().filter(|stream| is_over(stream)).count() >= 28);
    drop((two, many));
    await_served(&daemon);
    daemon.await_metric_that(&closed("limit"), |n| n >= 12.0);
    daemon.await_metric_that("tilecatcher_http_connections", |open| open <= 2.0);
    assert_sound(&daemon, BUFFERS);
}

/// True when the daemon has ended a connection; it does not wait.
fn is_over(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a mode");
    stream.read(&mut [0; 1]).map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |n| n == 0)
}

/// Until there is a place again.
fn await_served(daemon: &Daemon) {
    await_that("somebody is served again", || {
        let (mut stream, mut answer) = (dial(daemon), Vec::new());
        let _ = stream.write_all(head("GET", "/healthz", "").as_bytes());
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200")
    });
}

#[test]
fn heads_that_never_end_are_closed_and_counted() {
    let data = data_dir();
    let daemon =
        Daemon::start(data.path(), &["http.head_time=1s", "http.connections_max=600", "http.connections_per_peer=500"]);
    let began = Instant::now();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| dial_from(2, daemon.http_address).expect("accepted")).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("sent");
    }
    let last = slow.pop().expect("one");
    let answer = trickle(last);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    daemon.await_metric(&closed("slow_head"), 200.0);
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn heads_beyond_the_limit_are_refused() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.head_max=8KiB"]);
    let mut stream = dial(&daemon);
    let _ = stream.write_all(head("GET", "/healthz", &format!("X: {}\r\n", "x".repeat(9000))).as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    get(&daemon, "/healthz").with(200);
}

#[test]
fn connections_without_a_request_are_closed_after_their_time() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.idle_max=3s", "http.head_time=3s"]);
    let mut silent = dial(&daemon);
    let mut used = dial(&daemon);
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answers = (Vec::new(), Vec::new());
    let _ = (silent.read_to_end(&mut answers.0), used.read_to_end(&mut answers.1));
    assert!(answers.1.starts_with(b"HTTP/1.1 200"));
    daemon.await_metric_that(&closed("idle"), |n| n >= 2.0);
}

#[test]
fn bodies_that_trickle_in_are_given_up_and_free_the_places_of_others() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_grace=1500ms", "http.slow_rate=1KiB"]);
    let path = "/service/v1/store-ancillary-files/123";
    let request = format!("{}Content-Length: 1000000\r\n", Form::HEADERS);
    std::thread::scope(|scope| {
        // More than there are places for uploads: see parts.rs.
        for _ in 0..6 {
            scope.spawn(|| {
                let mut stream = dial(&daemon);
                stream.write_all(head("POST", path, &request).as_bytes()).expect("sent");
                stream.write_all(b"--b0undary\r\nContent-Disposition: form-data; name=\"ancillary-file\"; filename=\"a\"\r\n\r\n").expect("sent");
                let answer = trickle(stream);
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
            });
        }
    });
    daemon.await_metric_that(&closed("slow_body"), |n| n >= 4.0);
    let form = Form::new().file("ancillary-file", "a.csv", b"1,2").bytes();
    super::web::ask(&daemon, "POST", path, Form::HEADERS, &form).with(200);
    // A tile, too: its buffer comes back.
    let mut stream = dial(&daemon);
    let put = head(
        "PUT",
        "/service/v1/capture-image-content/123?tile-filename=col0001_row0002_cam3.tif",
        "Content-Length: 3000000\r\n",
    );
    stream.write_all(put.as_bytes()).expect("sent");
    trickle(stream);
    assert_sound(&daemon, BUFFERS);
}

/// Bodies of files that are announced as long and do not come.
fn long_bodies(daemon: &Daemon, host: u8, count: usize) -> Vec<TcpStream> {
    let headers = format!("{}Content-Length: 60000000\r\n", Form::HEADERS);
    let open = || {
        let mut stream = dial_from(host, daemon.http_address).expect("a connection");
        stream.write_all(head("POST", "/service/v1/store-ancillary-files/123", &headers).as_bytes()).expect("sent");
        stream.write_all(b"--b0undary\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n").expect("sent");
        stream
    };
    std::iter::repeat_with(open).take(count).collect()
}

#[test]
fn slow_long_bodies_keep_no_place_from_short_ones_and_none_of_one_address_all_from_others() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_grace=600s"]);
    let held = long_bodies(&daemon, 2, 8);
    daemon.await_metric_that("tilecatcher_http_connections", |open| open >= 8.0);
    let began = Instant::now();
    let long = Form::new().file("ancillary-file", "a.csv", &noise(1, 3_000_000)).bytes();
    super::web::ask(&daemon, "POST", "/service/v1/store-ancillary-files/123", Form::HEADERS, &long).with(200);
    let all = long_bodies(&daemon, 3, 8);
    daemon.await_metric_that("tilecatcher_http_connections", |open| open >= 16.0);
    super::web::start(&daemon, 7, super::support::LOG);
    super::web::create_rois(&daemon, 7, &[("5", &[(0, 0)])]).with(200);
    super::web::set_state(&daemon, "COMPLETE", &[]).with(200);
    super::web::ask(&daemon, "POST", "/service/v1/calibrations", "", b"[]").with(200);
    super::web::ask(&daemon, "POST", "/service/v1/end-acquisition/7", "", b"").with(200);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop((held, all));
    assert_sound(&daemon, BUFFERS);
}

/// The head of a tile's request.
fn put_head(place: u32, length: &str) -> String {
    let name = super::web::name(place, 0);
    head("PUT", &super::web::tile_path(ACQ.0, &name), length)
}

#[test]
fn one_address_can_not_hold_all_the_memory_for_tiles_over_http() {
    let data = data_dir();
    // 32 MiB for tiles over HTTP, 16 of them for one address.
    let daemon = Daemon::start(data.path(), &["http.slow_grace=600s"]);
    let open = |place| {
        let mut stream = dial_from(2, daemon.http_address).expect("a connection");
        stream.write_all(put_head(place, "Content-Length: 7000000\r\n").as_bytes()).expect("sent");
        stream
    };
    let held: Vec<TcpStream> = (0..8).map(open).collect();
    daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes >= 14e6);
    let images: Vec<Vec<u8>> = (0..3).map(|n| noise(n, 7_000_000)).collect();
    let began = Instant::now();
    for (n, image) in (0..).zip(&images) {
        super::web::put(&daemon, ACQ.0, &super::web::name(n, 1), image);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    drop(held);
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn a_tile_that_does_not_say_its_length_may_be_as_long_as_any() {
    let data = data_dir();
    // Half of the memory is for tiles over HTTP, and holds the longest one alone.
    let daemon = Daemon::start(data.path(), &["memory.buffers=20MiB"]);
    let image = noise(5, 7_500_000);
    let mut stream = dial(&daemon);
    stream.write_all(put_head(5, "Transfer-Encoding: chunked\r\n").as_bytes()).expect("sent");
    stream.write_all(format!("{:x}\r\n", image.len()).as_bytes()).expect("sent");
    stream.write_all(&[&image[..], b"\r\n0\r\n\r\n"].concat()).expect("sent");
    super::web::read_answer(&mut stream).with(200);
    assert_eq!(daemon.http.content(ACQ, 5, 0).expect("stored").bytes, image);
    assert_sound(&daemon, 20 << 20);
}

#[test]
fn clients_that_do_not_read_their_answer_are_given_up_and_hold_no_buffer() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_grace=3s", "http.slow_rate=16KiB"]);
    let mut sender = daemon.connect();
    sender.send(&frame(key(0, 0), &noise(1, 7_500_000)));
    assert_eq!(sender.answer().status, 0);
    let path = format!("/service/v1/acquisition/{ACQ}/tile/0/0/content");
    let mut stuck: Vec<TcpStream> = (0..4).map(|_| dial_with_small_buffer(daemon.http_address)).collect();
    for stream in &mut stuck {
        stream.write_all(head("GET", &path, "").as_bytes()).expect("sent");
    }
    daemon.await_metric_that(&closed("unread"), |n| n >= 4.0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    assert_eq!(get(&daemon, &path).with(200).body, noise(1, 7_500_000));
    assert_sound(&daemon, BUFFERS);
}

#[test]
fn a_slow_but_steady_client_is_left_alone() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_grace=9s", "http.slow_rate=1KiB"]);
    let form = Form::new().file("ancillary-file", "a.csv", &noise(3, 60_000)).bytes();
    let mut stream = dial(&daemon);
    let length = format!("{}Content-Length: {}\r\n", Form::HEADERS, form.len());
    stream.write_all(head("POST", "/service/v1/store-ancillary-files/123", &length).as_bytes()).expect("sent");
    // Past the grace; a rate is taken over a third of it, so a machine that stands still for a second does no harm.
    for part in form.chunks(1000) {
        stream.write_all(part).expect("sent");
        std::thread::sleep(Duration::from_millis(200));
    }
    super::web::read_answer(&mut stream).with(200);
}

#[test]
fn a_tile_may_take_its_time_as_long_as_it_comes() {
    // A tile of this length once had a minute and a quarter.
    if !long() {
        return;
    }
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_rate=1KiB"]);
    let image = noise(4, 1_000_000);
    let mut stream = dial(&daemon);
    stream.write_all(put_head(4, &format!("Content-Length: {}\r\n", image.len())).as_bytes()).expect("sent");
    for part in image.chunks(10_000) {
        std::thread::sleep(Duration::from_secs(1));
        stream.write_all(part).expect("sent");
    }
    super::web::read_answer(&mut stream).with(200);
}

/// Answers that wait for a peer are bounded by there being one: an answer whose request was not read to its end is the last.
#[test]
fn requests_behind_one_that_was_not_read_to_its_end_are_not_answered() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for (method, path) in [("HEAD", "/"), ("GET", "/healthz"), ("HEAD", "/nothing")] {
        let mut stream = dial(&daemon);
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx");
        // The daemon may close before all of it is written.
        let _ = stream.write_all(request.repeat(200).as_bytes());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).to_lowercase();
        assert_eq!(said.matches("http/1.1 ").count(), 1, "{method} {path}: {said}");
        assert!(said.contains("connection: close"), "{method} {path}: {said}");
    }
    assert_sound(&daemon, BUFFERS);
}
