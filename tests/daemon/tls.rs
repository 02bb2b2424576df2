//! Encryption: tiles over mutual TLS as over a plain connection, and what becomes of those who are not to be trusted.

use super::certificates::{CLIENT, Certificates};
use super::folders::{FOLDER_ACQ, simulate, stderr, text};
use super::support::{
    ACQ, Daemon, PATIENCE, RawConnection, await_found, await_that, command, data_dir, frame, key, noise, program,
    signal, tile,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tilecatcher::client::{
    CaptureClient, CaptureError, HttpClient, Interest, PipelinedClient, WriteState, wait_for_connections,
};
use tilecatcher::model::Checksum;
use tilecatcher::tls::ClientTls;
use tilecatcher::wire::RequestFields;

/// Whoever is refused is closed within this, and a slow machine's share on top.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(5);

/// A daemon with an encrypted capture port beside the plain one.
fn encrypted(data: &Path, certificates: &Certificates, more: &[&str]) -> Daemon {
    let settings = certificates.capture_settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Daemon::start(data, &settings)
}

fn tls_address(daemon: &Daemon) -> SocketAddr {
    daemon.capture_tls.expect("the port is on")
}

fn client(address: SocketAddr, window: usize, tls: &ClientTls) -> CaptureClient<u32> {
    CaptureClient::connect_with(address, window, PATIENCE, Some(tls)).expect("connected")
}

/// Sends one tile, and reads it back.
fn assert_serves(daemon: &Daemon, tls: &ClientTls, row: u32) {
    let image = noise(u64::from(row), 50_000);
    let mut client = client(tls_address(daemon), 1, tls);
    client.send(&tile(key(7, row), &image), row).expect("sent");
    let answered = client.receive().expect("answered").expect("in flight");
    assert_eq!(answered.response.status, 0);
    assert_eq!(daemon.http.content(ACQ, 7, row).expect("stored").bytes, image);
}

fn refused(daemon: &Daemon, reason: &str) -> f64 {
    daemon.metric(&format!("tilecatcher_tls_refused_total{{reason=\"{reason}\"}}"))
}

fn await_refused(daemon: &Daemon, reason: &str, wanted: f64) {
    daemon.await_metric(&format!("tilecatcher_tls_refused_total{{reason=\"{reason}\"}}"), wanted);
}

/// The time until the daemon has closed; what it said before.
fn time_to_close(stream: &mut TcpStream) -> (Duration, Vec<u8>) {
    let began = Instant::now();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it is not closed"),
        _ => (began.elapsed(), said),
    }
}

#[test]
fn tiles_of_all_lengths_arrive_over_mutual_tls_as_they_were_sent() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &["log.level=info"]);
    let tls = certificates.client("ca", Some("client"));
    let mut client = client(tls_address(&daemon), 4, &tls);
    // Around the length of a record, of what is encrypted at once, and long ones.
    let lengths = [1, 900, 16_383, 16_384, 16_385, 131_071, 131_072, 131_073, 300_000, 3_000_000, 7_999_000];
    let image = |row: u32| noise(u64::from(row), lengths[row as usize]);
    let mut statuses = Vec::new();
    for row in 0..11 {
        let answered = client.send(&tile(key(0, row), &image(row)), row).expect("sent");
        statuses.extend(answered.map(|answered| (answered.tag, answered.response.status)));
    }
    daemon.await_metric(&format!("tilecatcher_tls_connections{{client=\"{CLIENT}\"}}"), 1.0);
    while let Some(answered) = client.receive().expect("answered") {
        statuses.push((answered.tag, answered.response.status));
    }
    assert_eq!(statuses, (0..11).map(|row| (row, 0)).collect::<Vec<_>>());
    for row in 0..11 {
        assert!(daemon.http.content(ACQ, 0, row).expect("stored").bytes == image(row), "row {row} differs");
    }
    drop(client);
    daemon.await_metric(&format!("tilecatcher_tls_connections{{client=\"{CLIENT}\"}}"), 0.0);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"peer\"}", 1.0);
    assert!(daemon.log().contains(CLIENT), "{}", daemon.log());
}

#[test]
fn a_pipelined_window_of_small_and_long_tiles_is_answered_in_order() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let tls = certificates.client("ca", Some("client"));
    let mut client = PipelinedClient::connect_with(tls_address(&daemon), PATIENCE, Some(&tls)).expect("connected");
    let images: Vec<Vec<u8>> =
        (0..60u64).zip([40, 70_000, 900_000].into_iter().cycle()).map(|(n, len)| noise(n, len)).collect();
    for (row, image) in (0..).zip(&images) {
        let fields = RequestFields { key: key(1, row), camera: 1, checksum: super::support::crc(image) };
        client.queue(&fields, image.clone()).expect("fits");
    }
    let (mut answers, mut ready, mut turn) = (Vec::new(), Vec::new(), 0);
    while answers.len() < images.len() {
        // Budgets of all sizes: a smaller one may come while more is already encrypted.
        turn += 1;
        let state = client.write([1 << 20, 100, 40_000][turn % 3]).expect("written");
        let wait = if state == WriteState::Spent { Duration::ZERO } else { PATIENCE };
        let interest = Interest { client: &client, write: state == WriteState::Blocked };
        wait_for_connections(std::iter::once(interest), wait, &mut ready).expect("waits");
        client.read(&mut |answer| answers.push(answer.response)).expect("read");
    }
    assert!(answers.iter().all(|answer| answer.status == 0), "{answers:?}");
    assert!(answers.windows(2).all(|pair| pair[0].tile != pair[1].tile));
    for (row, image) in (0..).zip(&images) {
        assert!(daemon.http.content(ACQ, 1, row).expect("stored").bytes == *image, "row {row} differs");
    }
}

#[test]
fn several_senders_through_few_buffers_all_come_to_their_end_plain_or_encrypted() {
    let (data, certificates) = (data_dir(), Certificates::make());
    // Room for two tiles: connections wait for buffers with decrypted bytes in hand.
    let settings = ["memory.buffers=8MiB", "capture.frame_max=4MiB", "capture.in_flight_max=2"];
    let daemon = encrypted(data.path(), &certificates, &settings);
    let tls = certificates.client("ca", Some("client"));
    std::thread::scope(|scope| {
        for col in 0..6 {
            let (daemon, tls) = (&daemon, &tls);
            scope.spawn(move || {
                let mut client = if col % 2 == 0 { client(tls_address(daemon), 8, tls) } else { daemon.client(8) };
                let mut accepted = 0;
                for row in 0..12 {
                    let image = noise(u64::from(col * 100 + row), [3_000_000, 200, 70_000][row as usize % 3]);
                    let answered = client.send(&tile(key(col, row), &image), row).expect("sent");
                    accepted += answered.map_or(0, |answered| i32::from(answered.response.status == 0));
                }
                while let Some(answered) = client.receive().expect("answered") {
                    accepted += i32::from(answered.response.status == 0);
                }
                assert_eq!(accepted, 12);
            });
        }
    });
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 72.0);
}

/// Forwards one connection, to the server byte by byte.
fn byte_by_byte(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut from, _) = listener.accept().expect("a client");
        let mut to = TcpStream::connect(server).expect("a server");
        to.set_nodelay(true).expect("no delay");
        let (mut answers, mut back) = (to.try_clone().expect("cloned"), from.try_clone().expect("cloned"));
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mut byte = [0];
        while let Ok(1) = from.read(&mut byte) {
            if to.write_all(&byte).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    address
}

#[test]
fn segments_of_one_byte_make_whole_tiles() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let tls = certificates.client("ca", Some("client"));
    let mut client = client(byte_by_byte(tls_address(&daemon)), 8, &tls);
    let images: Vec<Vec<u8>> = (0..5u64).zip([1, 2001, 4001, 6001, 8001]).map(|(n, len)| noise(n, len)).collect();
    for (row, image) in (0..).zip(&images) {
        client.send(&tile(key(0, row), image), row).expect("sent");
    }
    while let Some(answered) = client.receive().expect("answered") {
        assert_eq!(answered.response.status, 0);
    }
    for (row, image) in (0..).zip(&images) {
        assert_eq!(daemon.http.content(ACQ, 0, row).expect("stored").bytes, *image);
    }
    drop(client);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"peer\"}", 1.0);
}

#[test]
fn a_client_that_is_killed_inside_a_tile_leaves_nothing_behind() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let tls = certificates.client("ca", Some("client"));
    let image = noise(1, 6_000_000);
    let mut cut: PipelinedClient<&[u8]> =
        PipelinedClient::connect_with(tls_address(&daemon), PATIENCE, Some(&tls)).expect("connected");
    let fields = RequestFields { key: key(0, 0), camera: 1, checksum: Checksum::None };
    cut.queue(&fields, &image).expect("fits");
    let mut ready = Vec::new();
    while cut.writing().is_some_and(|writing| writing.sent < 3_000_000) {
        if cut.write(100_000).expect("written") == WriteState::Blocked {
            let interest = Interest { client: &cut, write: true };
            wait_for_connections(std::iter::once(interest), PATIENCE, &mut ready).expect("waits");
        }
    }
    drop(cut.cut());
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"cut\"}", 1.0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    daemon.await_metric(&format!("tilecatcher_tls_connections{{client=\"{CLIENT}\"}}"), 0.0);
    assert_serves(&daemon, &tls, 0);
}

/// What a client hears that the server does not trust, on the first answer it waits for.
fn failure(address: SocketAddr, tls: &ClientTls) -> CaptureError {
    let mut client = CaptureClient::connect_with(address, 1, PATIENCE, Some(tls)).expect("the server is trusted");
    let image = noise(1, 3_000);
    client.send(&tile(key(0, 0), &image), 0).err().unwrap_or_else(|| client.receive().expect_err("refused"))
}

#[test]
fn clients_without_a_good_certificate_are_told_so_counted_and_closed() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let cases = [
        (Some("stranger"), "bad_certificate", "UnknownCA"),
        (Some("expired"), "expired", "CertificateExpired"),
        (None, "no_certificate", "CertificateRequired"),
    ];
    for (identity, reason, alert) in cases {
        let tls = certificates.client("ca", identity);
        let error = failure(tls_address(&daemon), &tls).to_string();
        assert!(error.contains(alert), "{identity:?}: {error}");
        await_refused(&daemon, reason, 1.0);
    }
    // The server is not who this client trusts.
    let tls = certificates.client("other", Some("client"));
    let refusal = CaptureClient::<()>::connect_with(tls_address(&daemon), 1, PATIENCE, Some(&tls)).err();
    assert!(refusal.is_some_and(|error| error.to_string().contains("UnknownIssuer")));
    await_refused(&daemon, "by_client", 1.0);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"handshake\"}", 4.0);
    daemon.await_metric("tilecatcher_connections", 0.0);
    daemon.await_metric_that("tilecatcher_tiles_stored_total{as=\"new\"}", |stored| stored == 0.0);
    assert_serves(&daemon, &certificates.client("ca", Some("client")), 0);
}

#[test]
fn what_is_no_tls_is_closed_in_time_and_hears_no_more_than_an_alert() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let garbage = noise(5, 100_000);
    let plain = frame(key(0, 0), b"a tile that is not encrypted");
    for (count, bytes) in (1u8..).zip([&garbage[..], &plain, b"GET / HTTP/1.1\r\n\r\n"]) {
        let mut stream = TcpStream::connect(tls_address(&daemon)).expect("connected");
        let _ = stream.write_all(bytes);
        let (took, said) = time_to_close(&mut stream);
        assert!(took < CLOSED_WITHIN + SLACK, "{took:?}");
        assert!(said.len() <= 7, "an alert has 7 bytes: {said:?}");
        await_refused(&daemon, "not_tls", count.into());
    }
    assert_serves(&daemon, &certificates.client("ca", Some("client")), 0);
}

#[test]
fn a_handshake_on_the_plain_port_is_no_frame() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let tls = certificates.client("ca", Some("client"));
    let Err(error) = CaptureClient::<()>::connect_with(daemon.capture, 1, PATIENCE, Some(&tls)) else {
        panic!("a handshake with a plain port")
    };
    assert!(error.to_string().contains("capture.tls_address"), "{error}");
    daemon.await_metric("tilecatcher_connections", 0.0);
    daemon.connect().assert_works(1);
}

/// One handshake more after another, until one is refused for their number: the time of the first ones may have passed.
fn stall_until_refused(daemon: &Daemon, stalled: &mut Vec<TcpStream>, host: u8) {
    await_that("a handshake is one too many", || {
        stalled.push(connect_from(host, tls_address(daemon)));
        refused(daemon, "limit") >= 1.0
    });
    assert!(time_to_close(stalled.last_mut().expect("one more")).0 < CLOSED_WITHIN);
}

/// As many handshakes from 127.0.0.`host` as one address may have, that go no further.
fn stall(host: u8, to: SocketAddr) -> Vec<TcpStream> {
    let one = |n: usize| {
        let mut stream = connect_from(host, to);
        // Nothing, or the beginning of a hello.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1][..n % 7]).expect("sent");
        stream
    };
    (0..16).map(one).collect()
}

fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, host], 0))).expect("an address of loopback");
    connect(&socket, &to).expect("connected");
    socket.into()
}

#[test]
fn one_address_that_stalls_leaves_places_for_the_handshakes_of_others() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let mut stalled = stall(2, tls_address(&daemon));
    daemon.await_metric_that("tilecatcher_connections_total", |accepted| accepted >= 16.0);
    stall_until_refused(&daemon, &mut stalled, 2);
    assert_serves(&daemon, &certificates.client("ca", Some("client")), 0);
    drop(stalled);
}

#[test]
fn handshakes_that_stall_have_a_limit_in_number_and_time() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &[]);
    let mut stalled: Vec<TcpStream> = (2..6).flat_map(|host| stall(host, tls_address(&daemon))).collect();
    daemon.await_metric_that("tilecatcher_connections_total", |accepted| accepted >= 64.0);
    stall_until_refused(&daemon, &mut stalled, 6);
    // The plain port does not wait for them.
    daemon.connect().assert_works(1);
    for stream in &mut stalled {
        let (took, said) = time_to_close(stream);
        assert!(took < CLOSED_WITHIN + SLACK && said.is_empty(), "{took:?} {said:?}");
    }
    await_that("all are counted", || {
        let (timeout, limit) = (refused(&daemon, "timeout"), refused(&daemon, "limit"));
        timeout >= 64.0 && timeout + limit == stalled.len() as f64
    });
    daemon.await_metric_that("tilecatcher_connections", |left| left <= 1.0);
    assert_serves(&daemon, &certificates.client("ca", Some("client")), 0);
}

#[test]
fn after_kill_9_tiles_are_sent_again_over_tls_and_none_is_stored_twice() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let tls = certificates.client("ca", Some("client"));
    let images: Vec<Vec<u8>> = (0..30).map(|row| noise(row, 200_000)).collect();
    let daemon = encrypted(data.path(), &certificates, &[]);
    let mut first = client(tls_address(&daemon), 4, &tls);
    let mut ids = BTreeMap::new();
    for (row, image) in (0..).zip(&images[..20]) {
        if let Some(answered) = first.send(&tile(key(0, row), image), row).expect("sent") {
            ids.insert(answered.tag, answered.response.tile);
        }
    }
    signal(daemon.pid(), "-KILL");
    while let Ok(Some(answered)) = first.receive() {
        ids.insert(answered.tag, answered.response.tile);
    }
    daemon.kill();
    assert!(ids.len() >= 16, "{} answers", ids.len());
    let settings = certificates.capture_settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let daemon = Daemon::start_bare(data.path(), &settings);
    let mut second = client(tls_address(&daemon), 64, &tls);
    for (row, image) in (0..).zip(&images) {
        second.send(&tile(key(0, row), image), row).expect("sent");
    }
    while let Some(answered) = second.receive().expect("answered") {
        assert_eq!(answered.response.status, 0);
        assert!(ids.get(&answered.tag).is_none_or(|id| *id == answered.response.tile), "another id");
    }
    for (row, image) in (0..).zip(&images) {
        assert!(daemon.http.content(ACQ, 0, row).expect("stored").bytes == *image, "row {row} differs");
    }
}

/// A daemon that is encrypted through and through, with its plain capture port off.
struct Closed {
    daemon: Daemon,
    url: String,
}

fn closed(data: &Path, certificates: &Certificates, more: &[String]) -> Closed {
    let mut settings = certificates.capture_settings();
    settings.push(format!("http.tls_certificate={}", certificates.certificate("server").display()));
    settings.push(format!("http.tls_key={}", certificates.key("server").display()));
    settings.extend_from_slice(more);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let daemon = Daemon::run(command(data, &[&settings[..], &["capture.address=off"]].concat()));
    let url = format!("https://{}", daemon.http_address);
    Closed { daemon, url }
}

/// `send` and `replay` with all files.
fn args(closed: &Closed, certificates: &Certificates, identity: &str, first: &[&str]) -> Vec<String> {
    let file = |path: std::path::PathBuf| path.to_str().expect("text").to_owned();
    let mut args: Vec<String> = first.iter().map(|arg| (*arg).to_owned()).collect();
    for (flag, value) in [
        ("--capture", tls_address(&closed.daemon).to_string()),
        ("--http", closed.url.clone()),
        ("--tls-ca", file(certificates.certificate("ca"))),
        ("--tls-cert", file(certificates.certificate(identity))),
        ("--tls-key", file(certificates.key(identity))),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args
}

#[test]
fn a_folder_is_sent_and_read_back_over_https_with_every_port_encrypted() {
    let (data, folders, certificates) = (data_dir(), data_dir(), Certificates::make());
    let closed = closed(data.path(), &certificates, &[]);
    assert!(closed.daemon.capture.port() == 0, "the plain port is on");
    let folder = simulate(folders.path(), "1");
    for via in ["tcp", "put"] {
        let args = args(&closed, &certificates, "client", &["send", text(&folder), "--json", "--via", via]);
        let sent = program().args(args).output().expect("runs");
        assert_eq!(sent.status.code(), Some(0), "{}", stderr(&sent));
        let summary: Value = serde_json::from_slice(&sent.stdout).expect("a summary");
        assert_eq!((&summary["complete"], &summary["refused"]), (&true.into(), &Value::Array(vec![])), "{summary}");
    }
    let http = HttpClient::with(&closed.url, PATIENCE, Some(&certificates.client("ca", None)), None);
    let image = std::fs::read(folder.join("col0002/col0002_row0001_cam2.tif")).expect("a tile");
    assert_eq!(http.content(FOLDER_ACQ, 2, 1).expect("stored").bytes, image);
    // Who does not trust the server asks it nothing; who speaks no TLS is not understood.
    let stranger = HttpClient::with(&closed.url, PATIENCE, Some(&certificates.client("other", None)), None);
    assert!(stranger.get_path("/healthz").is_err());
    let mut plain = RawConnection::new(closed.daemon.http_address);
    plain.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    let (took, said) = time_to_close(&mut plain.stream);
    assert!(took < CLOSED_WITHIN + SLACK && said.len() <= 7, "{took:?} {said:?}");
    let page = || String::from_utf8(http.get_path("/metrics").expect("metrics").bytes).expect("text");
    // Counted when the connection is closed already. A client that does not trust the server says so, or only goes.
    await_found(page, |page| {
        let counted = ["not_tls", "by_client", "cut"]
            .map(|reason| page.contains(&format!("tilecatcher_tls_refused_total{{reason=\"{reason}\"}} 1\n")));
        counted[0] && counted[1] != counted[2]
    });
}

#[test]
fn a_replay_over_tls_stores_every_tile_as_sent() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let closed = closed(data.path(), &certificates, &[]);
    let what = ["replay", "--rate", "40", "--duration", "1s", "--tile-size", "100kB", "--verify", "all", "--json", "-"];
    let faults = ["--fault", "cut=10%", "--fault", "slow=5%", "--quiet"];
    let args = args(&closed, &certificates, "client", &[&what[..], &faults].concat());
    let output = program().args(args).output().expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(report["problems"].as_array().is_none_or(Vec::is_empty), "{report}");
}

#[test]
fn send_says_at_once_that_a_certificate_is_in_the_way() {
    let (data, folders, certificates) = (data_dir(), data_dir(), Certificates::make());
    let closed = closed(data.path(), &certificates, &[]);
    let folder = simulate(folders.path(), "1");
    let sent = program().args(args(&closed, &certificates, "stranger", &["send", text(&folder)])).output();
    let sent = sent.expect("runs");
    assert_eq!(sent.status.code(), Some(3), "{}", stderr(&sent));
    assert!(stderr(&sent).contains("UnknownCA"), "{}", stderr(&sent));
    // Without any file there is nobody to trust.
    let sent = program().args(["send", text(&folder), "--http", &closed.url]).output().expect("runs");
    assert_eq!(sent.status.code(), Some(2), "{}", stderr(&sent));
    assert!(stderr(&sent).contains("--tls-ca"), "{}", stderr(&sent));
}

#[test]
fn http_clients_need_a_certificate_where_that_is_configured() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let ca = format!("http.tls_client_ca={}", certificates.certificate("ca").display());
    let closed = closed(data.path(), &certificates, &[ca]);
    let ask = |identity| HttpClient::with(&closed.url, PATIENCE, Some(&certificates.client("ca", identity)), None);
    assert!(ask(None).get_path("/healthz").is_err());
    assert!(ask(Some("stranger")).get_path("/healthz").is_err());
    assert!(ask(Some("client")).get_path("/healthz").is_ok());
}

#[cfg(unix)]
#[test]
fn files_that_can_not_be_used_stop_the_start_and_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let (data, certificates) = (data_dir(), Certificates::make());
    let start = |settings: &[String]| {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let output = command(data.path(), &settings).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let good = certificates.capture_settings();
    let with = |last: String| [&good[..], &[last]].concat();
    let other_key = format!("capture.tls_key={}", certificates.key("client").display());
    assert!(start(&with(other_key)).contains("does not go with"));
    let no_key = format!("capture.tls_key={}", certificates.certificate("ca").display());
    assert!(start(&with(no_key)).contains("ca.pem: holds no key"));
    assert!(start(&with("capture.tls_client_ca=/nowhere/ca.pem".to_owned())).contains("/nowhere/ca.pem"));
    assert!(start(&good[..3]).contains("tls_client_ca"), "no CA is no mutual trust");
    assert!(start(&good[1..]).contains("capture.tls_address"), "files that nobody uses");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(certificates.key("server"), open).expect("changed");
    let said = start(&good);
    assert!(said.contains("server.key") && said.contains("chmod 0600"), "{said}");
}

#[cfg(unix)]
#[test]
fn new_certificates_are_taken_up_at_sighup_and_wrong_ones_are_not() {
    let (data, certificates, later) = (data_dir(), Certificates::make(), Certificates::make());
    let daemon = encrypted(data.path(), &certificates, &["log.level=info"]);
    let old = certificates.client("ca", Some("client"));
    let mut kept = client(tls_address(&daemon), 1, &old);
    let await_log = |part: &str| _ = await_found(|| daemon.log(), |log| log.contains(part));
    std::fs::write(certificates.certificate("server"), "no certificate").expect("written");
    signal(daemon.pid(), "-HUP");
    await_log("left as they were");
    assert_serves(&daemon, &old, 0);
    for (from, to) in [
        (later.certificate("server"), certificates.certificate("server")),
        (later.key("server"), certificates.key("server")),
        (later.certificate("ca"), certificates.certificate("ca")),
    ] {
        std::fs::copy(from, to).expect("copied");
    }
    signal(daemon.pid(), "-HUP");
    await_log("certificates are read again, for new connections");
    assert_serves(&daemon, &later.client("ca", Some("client")), 1);
    let refused = CaptureClient::<u32>::connect_with(tls_address(&daemon), 1, PATIENCE, Some(&old));
    assert!(refused.is_err(), "the old CA is no longer the server's");
    kept.send(&tile(key(0, 2), b"on the connection from before"), 2).expect("sent");
    assert_eq!(kept.receive().expect("answered").map(|answered| answered.response.status), Some(0));
}

#[test]
fn the_audit_log_has_the_names_of_certificates_and_counts_strangers_as_refused() {
    let (data, certificates) = (data_dir(), Certificates::make());
    let trail = data.path().join("audit.jsonl");
    let daemon = encrypted(&data.path().join("data"), &certificates, &[&format!("audit.file={}", trail.display())]);
    for _ in 0..3 {
        drop(TcpStream::connect(tls_address(&daemon)).expect("taken by the system"));
    }
    daemon.await_metric_that("tilecatcher_connections_total", |connections| connections >= 3.0);
    daemon.await_metric("tilecatcher_connections", 0.0);
    let tls = certificates.client("ca", Some("client"));
    let mut client = client(tls_address(&daemon), 1, &tls);
    client.send(&tile(key(0, 0), b"one"), 0).expect("sent");
    assert_eq!(client.receive().expect("answered").expect("an answer").response.status, 0);
    drop(client);
    daemon.await_metric("tilecatcher_connections", 0.0);
    daemon.stop();
    let text = std::fs::read_to_string(&trail).expect("a log");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let capture: Vec<_> = lines.iter().filter(|line| line["port"] == "capture").collect();
    let of = |event: &str| capture.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    assert_eq!((of("refused").len(), of("connected").len(), of("disconnected").len()), (3, 1, 1), "{text}");
    assert!(of("refused").iter().all(|line| line["reason"] == "handshake" && line["by"] == "nobody"), "{text}");
    assert_eq!(of("connected")[0]["by"], format!("certificate {CLIENT}"), "{text}");
    assert_eq!(of("disconnected")[0]["tiles"], 1, "{text}");
}
