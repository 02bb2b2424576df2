//! The live view's back end: events, status and mosaic, and that those who look on cost capture nothing.

use super::access::{Tokens, bearer};
use super::hostile::{assert_sound, dial_from, dial_with_small_buffer, resident};
use super::support::{
    Daemon, LOG, PATIENCE, await_found, await_that, crc, data_dir, frame, frame_with, key, noise, tile,
};
use super::web::{ask, create_rois, get, get_json, head, name, put, read_answer, set_state, start, tile_path, upload};
use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
#[cfg(feature = "tls")]
use tilecatcher::client::CaptureClient;

const STATUS: &str = "/api/v1/status";
const EVENTS: &str = "/api/v1/events?acquisition=123";
const MOSAIC: &str = "/api/v1/acquisitions/123/mosaic";
const MISSING: u8 = 1;
const REFUSED: u8 = 2;
const RECEIVED: u8 = 3;
const DAMAGED: u8 = 0x80;

/// A stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens one; what happens from now on is told. An answer to HTTP/1.0 has no chunks.
    fn open(daemon: &Daemon, path: &str, headers: &str) -> Self {
        Self::open_from(1, daemon, path, headers)
    }

    /// The same, from 127.0.0.`host`.
    fn open_from(host: u8, daemon: &Daemon, path: &str, headers: &str) -> Self {
        let mut stream = dial_from(host, daemon.http_address).expect("a connection");
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n").as_bytes()).expect("sent");
        let mut events = Self(BufReader::new(stream));
        let head: Vec<String> = std::iter::from_fn(|| events.line().filter(|line| !line.is_empty())).collect();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")), "{head:?}");
        assert!(head.iter().any(|line| line.eq_ignore_ascii_case("cache-control: no-store")), "{head:?}");
        events
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None`: the stream has ended.
    fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let line = self.line()?;
            let Some(event) = line.strip_prefix("event: ") else { continue };
            let data = self.line()?;
            let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("no data in {data:?}"));
            return Some((event.to_owned(), serde_json::from_str(data).expect("JSON")));
        }
    }

    /// The next event of a kind that is as wanted.
    fn await_event(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let (event, data) = self.next().expect("the stream goes on");
            if event == kind && wanted(&data) {
                return data;
            }
        }
        panic!("no event {kind} as wanted");
    }

    /// Waits until a place is told to have this cell.
    fn await_cell(&mut self, col: u32, row: u32, cell: u8) {
        self.await_event("tiles", |tiles| {
            assert_eq!(tiles["acquisition"], 123);
            tiles["cells"].as_array().expect("cells").contains(&json!([col, row, cell]))
        });
    }
}

/// A mosaic, as it is answered.
struct Mosaic {
    answer: Value,
    cells: Vec<u8>,
}

impl Mosaic {
    fn get(daemon: &Daemon, query: &str) -> Self {
        let answer = get_json(daemon, &format!("{MOSAIC}{query}"));
        let text = answer["cells"].as_str().expect("cells");
        let cells = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        let side = |name: &str| usize::try_from(answer[name].as_u64().expect("a number")).expect("small");
        assert_eq!(cells.len(), side("cols") * side("rows"));
        Self { answer, cells }
    }

    fn at(&self, col: u64, row: u64) -> u8 {
        let number = |name: &str| self.answer[name].as_u64().expect("a number");
        let place = (row - number("first_row")) * number("cols") + (col - number("first_col"));
        self.cells[usize::try_from(place).expect("small")]
    }

    /// What the place's cell means.
    fn name(&self, col: u64, row: u64) -> &str {
        self.answer["legend"][usize::from(self.at(col, row) & 31)].as_str().expect("a name")
    }

    fn count(&self, cell: u8) -> usize {
        self.cells.iter().filter(|found| **found == cell).count()
    }
}

fn acquisition(status: &Value, id: u64) -> &Value {
    let all = status["acquisitions"].as_array().expect("acquisitions");
    all.iter().find(|acquisition| acquisition["id"] == id).unwrap_or_else(|| panic!("no {id} in {status}"))
}

/// The status, once it is as wanted.
fn await_status(daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Value {
    await_found(|| get_json(daemon, STATUS), wanted)
}

#[test]
fn an_event_follows_the_acknowledgement_within_a_second() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut events = Events::open(&daemon, EVENTS, "");
    let first = events.await_event("status", |_| true);
    assert_eq!(acquisition(&first, 123)["expected"], 64);
    let mut connection = daemon.connect();
    // On a loaded machine one of them may come late.
    let took: Vec<Duration> = (0..8)
        .map(|col| {
            connection.send(&frame(key(col, 3), b"a tile"));
            assert_eq!(connection.answer().status, 0);
            let acknowledged = Instant::now();
            events.await_cell(col, 3, RECEIVED);
            acknowledged.elapsed()
        })
        .collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
    let mosaic = Mosaic::get(&daemon, "");
    assert_eq!((mosaic.count(RECEIVED), mosaic.count(MISSING)), (8, 56));
    assert_eq!((mosaic.at(5, 3), mosaic.name(5, 3), mosaic.name(5, 4)), (RECEIVED, "received", "missing"));
    daemon.stop();
}

#[test]
fn a_refused_tile_shows_until_it_comes() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut events = Events::open(&daemon, EVENTS, "");
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(2, 1), b"a tile", crc(b"another tile")));
    assert_ne!(connection.answer().status, 0);
    events.await_cell(2, 1, REFUSED);
    // Over HTTP, with a digest that a thread of its own computes on the capture port.
    let path = format!("{}&checksum={}", tile_path(123, &name(4, 4)), "0".repeat(32));
    ask(&daemon, "PUT", &path, "", b"a tile").refused(400);
    events.await_cell(4, 4, REFUSED);
    let mosaic = Mosaic::get(&daemon, "");
    assert_eq!((mosaic.name(2, 1), mosaic.name(4, 4), mosaic.count(MISSING)), ("refused", "refused", 62));
    let status = await_status(&daemon, |status| acquisition(status, 123)["refused"] == 2);
    assert_eq!(acquisition(&status, 123)["missing"], 64, "refused tiles are missing ones");
    connection.send(&frame(key(2, 1), b"a tile"));
    assert_eq!(connection.answer().status, 0);
    events.await_cell(2, 1, RECEIVED);
    assert_eq!(Mosaic::get(&daemon, "").name(2, 1), "received");
    await_status(&daemon, |status| acquisition(status, 123)["refused"] == 1);
    daemon.stop();
}

#[test]
fn states_are_told_and_sections_and_cameras_are_picked_out() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut events = Events::open(&daemon, EVENTS, "");
    create_rois(&daemon, 123, &[("A.5", &[(0, 0), (0, 1), (1, 0), (1, 1)]), ("A.6", &[(1, 1), (2, 2), (3, 3)])])
        .with(200);
    events.await_event("lagged", |data| data["acquisition"] == 123);
    for (col, row) in [(0, 0), (0, 1), (1, 0), (1, 1), (7, 7)] {
        put(&daemon, 123, &format!("col{col}_row{row}_cam{}.tif", col % 2 * 2 + row % 2), b"x");
    }
    let mosaic = Mosaic::get(&daemon, "");
    let ready = mosaic.at(0, 0);
    assert_eq!((mosaic.name(0, 0), mosaic.name(2, 2), mosaic.name(7, 7)), ("READY", "missing", "received"));
    assert_eq!((mosaic.name(5, 5), mosaic.count(MISSING)), ("none", 2));
    set_state(&daemon, "COMPLETE", &["123.0.0.5.0".to_owned()]).with(200);
    let mosaic = Mosaic::get(&daemon, "");
    assert_eq!((mosaic.name(0, 0), mosaic.at(0, 1)), ("COMPLETE", ready));
    events.await_cell(0, 0, mosaic.at(0, 0));
    let section = Mosaic::get(&daemon, "?section=6");
    assert_eq!((section.name(1, 1), section.name(0, 0), section.name(3, 3)), ("READY", "none", "missing"));
    let camera = Mosaic::get(&daemon, "?camera=3");
    assert_eq!((camera.name(1, 1), camera.name(3, 3), camera.name(0, 1)), ("READY", "missing", "none"));
    assert_eq!(Mosaic::get(&daemon, "?section=6&camera=0").name(2, 2), "missing");
    let empty = Mosaic::get(&daemon, "?section=77");
    assert_eq!(empty.count(0), 64);
    let status = await_status(&daemon, |status| acquisition(status, 123)["received"] == 4);
    let found = acquisition(&status, 123);
    assert_eq!(found["sections"], json!([{"section": 5, "name": "A.5"}, {"section": 6, "name": "A.6"}]));
    assert_eq!(
        (&found["expected"], &found["missing"], &found["cameras"]),
        (&json!(6), &json!(2), &json!([0, 1, 2, 3]))
    );
    daemon.stop();
}

#[test]
fn acquisitions_are_listed_open_ones_first_and_streams_hear_of_their_deletion() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for acq in 200..260 {
        start(&daemon, acq, LOG);
    }
    ask(&daemon, "POST", "/service/v1/end-acquisition/259", "", b"").with(200);
    ask(&daemon, "POST", "/service/v1/end-acquisition/258", "", b"").with(200);
    for acq in 210..256 {
        ask(&daemon, "POST", &format!("/service/v1/end-acquisition/{acq}"), "", b"").with(200);
    }
    let status = await_status(&daemon, |status| status["acquisitions_total"] == 61);
    let listed = status["acquisitions"].as_array().expect("acquisitions");
    let (ids, states): (Vec<u64>, Vec<&str>) = listed
        .iter()
        .map(|found| (found["id"].as_u64().expect("an id"), found["state"].as_str().expect("a state")))
        .unzip();
    let expected: Vec<u64> = [257, 256].into_iter().chain((200..210).rev()).chain([123, 259, 258]).collect();
    assert_eq!((ids.len(), &ids[..expected.len()]), (50, &expected[..]));
    assert!(states[..13].iter().all(|state| *state == "open") && states[13..].iter().all(|state| *state == "ended"));
    assert!(acquisition(&status, 259)["ended"].is_string() && acquisition(&status, 123)["ended"].is_null());
    let mut events = Events::open(&daemon, EVENTS, "");
    put(&daemon, 123, &name(0, 0), b"x");
    events.await_cell(0, 0, RECEIVED);
    ask(&daemon, "DELETE", "/service/v1/acquisition/123?confirm=123", "", b"").with(200);
    events.await_event("lagged", |data| data["acquisition"] == 123);
    get(&daemon, MOSAIC).refused(404);
    events.await_event("status", |status| status["acquisitions_total"] == 60);
    get(&daemon, EVENTS).refused(404);
    daemon.stop();
}

#[test]
fn a_mosaic_is_drawn_around_what_there_is_and_refused_where_it_is_absurd() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    // Far out, but small enough a picture with it.
    put(&daemon, 123, &name(9, 12), b"x");
    let mosaic = Mosaic::get(&daemon, "");
    assert_eq!(
        (&mosaic.answer["cols"], &mosaic.answer["rows"], mosaic.name(9, 12)),
        (&json!(10), &json!(13), "received")
    );
    assert_eq!((mosaic.name(9, 0), mosaic.name(7, 7)), ("none", "missing"));
    // One that is too far out is left off.
    put(&daemon, 123, "col2000000000_row3_cam0.tif", b"x");
    let mosaic = Mosaic::get(&daemon, "");
    assert_eq!((mosaic.answer["cols"].as_u64(), mosaic.cells.len()), (Some(8), 64));
    start(&daemon, 124, &LOG.replace("X steps = 4", "X steps = 5000000"));
    let said = get(&daemon, "/api/v1/acquisitions/124/mosaic").refused(422);
    assert!(said.contains("10000000 x 8 places"), "{said}");
    // Nothing is announced: around the ROIs.
    start(&daemon, 125, &LOG.replace("X steps = 4", "X steps = 0"));
    let empty = get_json(&daemon, "/api/v1/acquisitions/125/mosaic");
    assert_eq!((&empty["cols"], &empty["rows"], &empty["cells"]), (&json!(0), &json!(0), &json!("")));
    create_rois(&daemon, 125, &[("7", &[(100, 50), (101, 52)])]).with(200);
    let around = get_json(&daemon, "/api/v1/acquisitions/125/mosaic");
    assert_eq!((&around["first_col"], &around["first_row"]), (&json!(100), &json!(50)));
    assert_eq!((&around["cols"], &around["rows"]), (&json!(2), &json!(3)));
    for (path, status) in [
        ("/api/v1/acquisitions/9/mosaic", 404),
        ("/api/v1/acquisitions/x/mosaic", 400),
        ("/api/v1/acquisitions/123/mosaic?section=-2", 400),
        ("/api/v1/acquisitions/123/mosaic?camera=x", 400),
        ("/api/v1/events?acquisition=9", 404),
        ("/api/v1/events?for=0", 400),
        ("/api/v1/events?for=86401", 400),
    ] {
        get(&daemon, path).refused(status);
    }
    daemon.stop();
}

#[test]
fn senders_are_listed_while_they_are_connected() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    // The first look at the counts is what later seconds are told from.
    await_status(&daemon, |status| status["disk"]["total_bytes"].as_u64() > Some(0));
    let mut connection = daemon.connect();
    let own = connection.stream.local_addr().expect("an address").to_string();
    connection.send(&frame(key(0, 0), b"a tile"));
    assert_eq!(connection.answer().status, 0);
    connection.send(&frame_with(key(1, 0), b"a tile", crc(b"x")));
    assert_ne!(connection.answer().status, 0);
    let http = upload(&daemon, 123, &name(2, 0), "", b"a tile");
    let find = |status: &Value, port: &str| {
        let all = status["senders"].as_array().expect("senders").clone();
        all.into_iter().find(|sender| sender["port"] == port).unwrap_or_default()
    };
    let status =
        await_status(&daemon, |status| find(status, "capture")["refused"] == 1 && find(status, "http")["tiles"] == 1);
    let sender = find(&status, "capture");
    assert_eq!((&sender["peer"], &sender["tiles"], &sender["acquisition"]), (&json!(own), &json!(1), &json!(123)));
    assert!(sender["last_tile"].is_string() && sender["bytes"].as_u64() > Some(12), "{sender}");
    assert_eq!((&find(&status, "http")["bytes"], &status["senders_total"]), (&json!(6), &json!(2)));
    drop(http);
    await_status(&daemon, |status| status["senders_total"] == 1);
    drop(connection);
    let status = await_status(&daemon, |status| status["senders_total"] == 0);
    // Two tiles and a refusal, in whatever seconds they fell.
    let status = if seconds(&status, "tiles") == 2 {
        status
    } else {
        await_status(&daemon, |status| seconds(status, "tiles") == 2 && seconds(status, "refused") == 1)
    };
    let quantile = |name: &str| {
        let of = |sample: &Value| sample[name].as_f64();
        status["history"].as_array().expect("seconds").iter().filter_map(of).fold(0.0, f64::max)
    };
    assert!(quantile("ack_p99_ms") >= quantile("ack_p50_ms") && quantile("ack_p50_ms") > 0.0, "{status}");
    daemon.stop();
}

/// The sum over all seconds of the history.
fn seconds(status: &Value, name: &str) -> u64 {
    let history = status["history"].as_array().expect("seconds");
    history.iter().map(|sample| sample[name].as_u64().expect("a number")).sum()
}

#[cfg(feature = "tls")]
#[test]
fn an_encrypted_sender_has_the_name_of_its_certificate() {
    let (data, certificates) = (data_dir(), super::certificates::Certificates::make());
    let settings = certificates.capture_settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let daemon = Daemon::start(data.path(), &settings);
    let address = daemon.capture_tls.expect("the port is on");
    let tls = certificates.client("ca", Some("client"));
    let mut client = CaptureClient::connect_with(address, 1, PATIENCE, Some(&tls)).expect("connected");
    client.send(&tile(key(0, 0), b"a tile"), 0).expect("sent");
    assert_eq!(client.receive().expect("answered").expect("in flight").response.status, 0);
    let status = await_status(&daemon, |status| status["senders"][0]["tiles"] == 1);
    let sender = &status["senders"][0];
    assert_eq!((&sender["name"], &sender["port"]), (&json!(super::certificates::CLIENT), &json!("capture-tls")));
    drop(client);
    await_status(&daemon, |status| status["senders_total"] == 0);
    daemon.stop();
}

#[test]
fn a_damaged_tile_is_marked_until_it_is_stored_again() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(5, 50_000);
    put(&daemon, 123, &name(3, 3), &image);
    let mut events = Events::open(&daemon, EVENTS, "");
    let (segment, offset) = super::rot::find(data.path(), &image);
    super::rot::Flip::make(&segment, offset + 20_000);
    get(&daemon, "/service/v1/acquisition/123/tile/3/3/content").refused(500);
    events.await_cell(3, 3, RECEIVED | DAMAGED);
    assert_eq!(Mosaic::get(&daemon, "").at(3, 3), RECEIVED | DAMAGED);
    put(&daemon, 123, &name(3, 3), &image);
    events.await_cell(3, 3, RECEIVED);
    assert_eq!(Mosaic::get(&daemon, "").at(3, 3), RECEIVED);
    daemon.stop();
}

/// The shortest of some tries: on a loaded machine any of them may be late.
fn best_of(mut tried: impl FnMut()) -> Duration {
    let times = (0..10).map(|_| {
        let began = Instant::now();
        tried();
        began.elapsed()
    });
    times.min().expect("some")
}

#[test]
fn a_mosaic_of_a_hundred_thousand_places_and_hundreds_of_acquisitions_are_cheap() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for acq in 200..500 {
        start(&daemon, acq, LOG);
    }
    start(&daemon, 124, &LOG.replace("X steps = 4", "X steps = 200").replace("Y steps = 4", "Y steps = 125"));
    let places: Vec<(u32, u32)> = (0..400).flat_map(|col| (0..250).map(move |row| (col, row))).collect();
    create_rois(&daemon, 124, &[("5", &places)]).with(200);
    let path = "/api/v1/acquisitions/124/mosaic";
    assert_eq!(get_json(&daemon, path)["cells"].as_str().map(str::len), Some(100_000_usize.div_ceil(3) * 4));
    let mosaic = best_of(|| _ = get(&daemon, path).with(200));
    let status = best_of(|| _ = get(&daemon, STATUS).with(200));
    eprintln!("mosaic {mosaic:?}, status {status:?}");
    // Built for speed both take a few ms.
    assert!(mosaic < Duration::from_secs(1) && status < Duration::from_secs(1), "{mosaic:?} {status:?}");
    daemon.stop();
}

#[test]
fn the_status_says_how_the_daemon_is() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let status = await_status(&daemon, |status| status["disk"]["total_bytes"].as_u64() > Some(0));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["ready"], &status["ack_level"], &status["capture"]),
        (&json!(true), &json!("durable"), &json!("running"))
    );
    assert_eq!(status["pressure"]["system"], "GREEN");
    assert_eq!((&status["mirror"], &status["damaged_records"]), (&Value::Null, &json!(0)));
    assert_eq!(status["queues"]["buffer_limit_bytes"], 64 << 20);
    assert_eq!(status["index"]["store_failed"], false);
    assert!(status["disk"]["free_bytes"].as_u64() <= status["disk"]["total_bytes"].as_u64());
    assert!(status["history"].is_array(), "{status}");
    await_status(&daemon, |status| status["journal"]["segments"].as_u64() > Some(0));
    // A log whose address nobody knows is worth a warning, though log.level=error keeps it out of the log.
    let mut events = Events::open(&daemon, "/api/v1/events", "");
    start(&daemon, 77, LOG);
    let warned = events.await_event("warning", |warning| warning["message"].to_string().contains("acquisition=77"));
    assert_eq!(warned["level"], "warn");
    assert!(!daemon.log().contains("TEMCA"), "{}", daemon.log());
    await_status(&daemon, |status| status["warnings"].as_array().is_some_and(|all| all.contains(&warned)));
    let told = events.await_event("status", |_| true);
    assert!(told["history"].is_null() && told["warnings"].is_array());
    daemon.stop();
}

#[test]
fn who_looks_on_and_never_reads_costs_capture_nothing() {
    let data = data_dir();
    let mut daemon = Daemon::start(data.path(), &["stop.time=100s"]);
    let asked = head("GET", EVENTS, "");
    let deaf: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = dial_with_small_buffer(daemon.http_address);
            stream.write_all(asked.as_bytes()).expect("sent");
            stream
        })
        .collect();
    let mut events = Events::open(&daemon, EVENTS, "");
    let before = resident(daemon.pid());
    let image = noise(1, 2000);
    let mut client = daemon.client(32);
    for n in 0..4000 {
        if let Some(answered) = client.send(&tile(key(n / 64, n % 64), &image), n).expect("sent") {
            assert_eq!(answered.response.status, 0);
        }
    }
    while let Some(answered) = client.receive().expect("answered") {
        assert_eq!(answered.response.status, 0);
    }
    events.await_cell(62, 31, RECEIVED);
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    // Nor does a stop wait for them.
    let began = Instant::now();
    daemon.terminate();
    while events.next().is_some() {}
    assert!(daemon.wait().success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    drop(deaf);
}

#[test]
fn who_takes_nothing_is_cut_off_and_a_quiet_stream_is_not() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.slow_grace=1s", "http.idle_max=1s"]);
    let mut deaf = dial_with_small_buffer(daemon.http_address);
    deaf.write_all(head("GET", EVENTS, "").as_bytes()).expect("sent");
    // Its buffers are filled by what it does not take: here a status is long.
    let sections: Vec<String> = (0..120).map(|n| format!("{}.{n}", "x".repeat(90))).collect();
    let places: Vec<[(u32, u32); 1]> = (0..120).map(|row| [(0, row)]).collect();
    let rois: Vec<(&str, &[(u32, u32)])> =
        sections.iter().zip(&places).map(|(name, place)| (name.as_str(), &place[..])).collect();
    for acq in 200..250 {
        start(&daemon, acq, LOG);
        create_rois(&daemon, acq, &rois).with(200);
    }
    daemon.await_metric("tilecatcher_http_connections_closed_total{reason=\"unread\"}", 1.0);
    let mut events = Events::open(&daemon, "/api/v1/events", "");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        events.await_event("status", |_| true);
    }
    assert_sound(&daemon, super::hostile::BUFFERS);
    daemon.stop();
}

#[test]
fn a_stream_ends_when_it_was_asked_to_and_only_so_many_are_open() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.connections_per_peer=100"]);
    let mut short = Events::open(&daemon, "/api/v1/events?for=4", "");
    let mut told = 0;
    while let Some((event, _)) = short.next() {
        told += usize::from(event == "status");
    }
    assert!((1..=10).contains(&told), "{told}");
    let half =
        |host| -> Vec<Events> { (0..32).map(|_| Events::open_from(host, &daemon, "/api/v1/events", "")).collect() };
    let open = half(1);
    let full = get(&daemon, "/api/v1/events").with(503);
    assert_eq!(full.header("retry-after"), Some("1"));
    // One address leaves half of the places to others.
    let others = half(2);
    let mut third = dial_from(3, daemon.http_address).expect("a connection");
    third.write_all(head("GET", "/api/v1/events", "").as_bytes()).expect("sent");
    read_answer(&mut third).with(503);
    drop((open, others));
    await_that("places are given back", || get(&daemon, "/api/v1/events?for=1").status == 200);
    daemon.stop();
}

#[test]
fn looking_on_needs_the_scope_to_read() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let (reader, sender) = (bearer(&tokens.add("viewer", "read")), bearer(&tokens.add("camera-1", "ingest")));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    let form = super::web::Form::new().file("acq-inilog", "123_8x8_logfile.ini", LOG.as_bytes()).bytes();
    let headers = format!("{}{sender}", super::web::Form::HEADERS);
    ask(&daemon, "POST", "/service/v1/start-acquisition", &headers, &form).with(200);
    for path in [STATUS, "/api/v1/events?acquisition=123&for=1", MOSAIC] {
        get(&daemon, path).refused(401);
        ask(&daemon, "GET", path, &sender, b"").refused(403);
        ask(&daemon, "GET", path, &reader, b"").with(200);
    }
    // The name of its token is the sender's.
    let _http = upload(&daemon, 123, &name(2, 0), &sender, b"a tile");
    let mut events = Events::open(&daemon, EVENTS, &reader);
    events.await_event("status", |status| status["senders"][0]["name"] == "camera-1");
    daemon.stop();
}

#[test]
fn a_stream_ends_when_the_token_that_opened_it_is_revoked_and_others_go_on() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let [stays, goes] = ["stays", "goes"].map(|name| bearer(&tokens.add(name, "read")));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    let [mut other, mut revoked] = [&stays, &goes].map(|of| Events::open(&daemon, "/api/v1/events?for=86400", of));
    revoked.await_event("status", |_| true);
    tokens.revoke("goes");
    let heard = (0..30).take_while(|_| revoked.next().is_some()).count();
    assert!(heard < 30, "a status comes each second: it goes on");
    for _ in 0..3 {
        other.await_event("status", |_| true);
    }
    daemon.stop();
}
