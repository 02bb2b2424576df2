//! Who may do what, on the built binary: addresses, tokens, scopes, what is recorded, and what is never written anywhere.
//!
//! Peers from elsewhere are made with an address of this machine that is not loopback; where there is none, those tests say so.

use super::folders::{FOLDER_ACQ, simulate, stderr, text};
use super::support::{
    ACQ, Daemon, LOG, PATIENCE, RawConnection, await_found, await_that, command, data_dir, frame, key, program, signal,
};
use super::web::{Answer, Form, ask, dial, get, head, put, read_answer};
use serde_json::Value;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const NOT_ALLOWED: &str = "tilecatcher_connections_closed_total{reason=\"not_allowed\"}";
const EVERYWHERE: [&str; 2] = ["capture.address=0.0.0.0:0", "http.address=0.0.0.0:0"];

/// An address of this machine under which it is not loopback. Nothing is sent to find it.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    if address.is_loopback() || address.is_unspecified() {
        return None;
    }
    Some(address)
}

/// As [`outer_address`]; says so when there is none.
fn outer_or_skip() -> Option<IpAddr> {
    let address = outer_address();
    if address.is_none() {
        eprintln!("skipped: this machine has no address but loopback");
    }
    address
}

fn ask_at(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = head(method, path, &format!("Content-Length: {}\r\n{headers}", body.len()));
    stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
    read_answer(&mut stream)
}

/// A daemon's file of tokens, and the tokens in it.
pub(super) struct Tokens {
    path: PathBuf,
    pub(super) setting: String,
}

impl Tokens {
    pub(super) fn new(dir: &Path) -> Self {
        let path = dir.join("tokens");
        let setting = format!("access.tokens={}", path.display());
        Self { path, setting }
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        program().arg("token").args(arguments).arg("--tokens").arg(&self.path).output().expect("runs")
    }

    /// Puts another file into the place of the tokens: the daemon never sees half of one.
    fn replace(&self, content: &[u8]) {
        let beside = self.path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).expect("made");
        file.write_all(content).expect("written");
        std::fs::rename(&beside, &self.path).expect("renamed");
    }

    pub(super) fn revoke(&self, name: &str) {
        assert!(self.run(&["revoke", name]).status.success());
    }

    /// Adds a token; returns it.
    pub(super) fn add(&self, name: &str, scope: &str) -> String {
        let added = self.run(&["add", name, "--scope", scope]);
        assert!(added.status.success(), "{}", stderr(&added));
        let token = String::from_utf8_lossy(&added.stdout).trim().to_owned();
        assert!(!stderr(&added).contains(&token));
        token
    }
}

pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn status(daemon: &Daemon, method: &str, path: &str, headers: &str) -> u16 {
    ask(daemon, method, path, headers, b"").status
}

/// Asks until the answer has this status: the file of tokens is looked at once a second.
fn await_status(daemon: &Daemon, path: &str, headers: &str, wanted: u16) {
    await_found(|| status(daemon, "GET", path, headers), |status| *status == wanted);
}

/// Starts nothing: the exit code, and the one line that says why.
fn refused_start(settings: &[&str]) -> String {
    let data = data_dir();
    let run = command(data.path(), settings).output().expect("runs");
    let said = stderr(&run);
    assert_eq!((run.status.code(), said.lines().count()), (Some(2), 1), "{settings:?}: {said}");
    assert!(!data.path().join("journal").exists(), "it began to work");
    said
}

#[test]
fn a_port_that_everybody_could_use_is_not_opened() {
    let dir = data_dir();
    let tokens = Tokens::new(dir.path());
    let missing = refused_start(&[&tokens.setting]);
    assert!(missing.contains("access.tokens") && missing.contains("token add"), "{missing}");
    tokens.add("one", "read");
    let capture = refused_start(&["capture.address=0.0.0.0:0"]);
    assert!(capture.contains("capture.address") && capture.contains("access.networks"), "{capture}");
    let with_tokens = refused_start(&["capture.address=[::]:0", &tokens.setting]);
    assert!(with_tokens.contains("access.networks"), "senders carry no tokens: {with_tokens}");
    let http = refused_start(&["http.address=0.0.0.0:0"]);
    assert!(http.contains("http.address") && http.contains("access.tokens"), "{http}");
    std::fs::set_permissions(&tokens.path, PermissionsExt::from_mode(0o644)).expect("chmod");
    let readable = refused_start(&[&tokens.setting]);
    assert!(readable.contains("0644") && readable.contains("chmod 0600"), "{readable}");
    for (setting, hint) in
        [("access.networks=10.1.2.3/8", "10.0.0.0/8"), ("access.open_paths=/service/v1/tiles", "/healthz")]
    {
        let said = refused_start(&[setting]);
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn a_stranger_gets_nothing_on_either_port() {
    let Some(outer) = outer_or_skip() else { return };
    let data = data_dir();
    let settings = [&EVERYWHERE[..], &["access.networks=203.0.113.0/24", "log.level=warn"]].concat();
    let daemon = Daemon::start(data.path(), &settings);
    let mut stranger = RawConnection::new(SocketAddr::new(outer, daemon.capture.port()));
    let _ = stranger.stream.write_all(&frame(key(0, 0), b"a tile"));
    assert!(stranger.is_closed());
    daemon.await_metric(NOT_ALLOWED, 1.0);
    assert!(daemon.log().contains(&outer.to_string()), "{}", daemon.log());
    let http = SocketAddr::new(outer, daemon.http_address.port());
    for path in ["/healthz", "/metrics", "/service/v1/acquisitions", "/nothing"] {
        assert!(ask_at(http, "GET", path, "", b"").refused(403).contains("scope"), "{path}");
    }
    assert_eq!(ask_at(http, "POST", "/service/v1/end-acquisition/123", "", b"").status, 403);
    RawConnection::new(SocketAddr::new([127, 0, 0, 1].into(), daemon.capture.port())).assert_works(1);
    daemon.await_metric("tilecatcher_access_refused_total{reason=\"scope\"}", 5.0);
}

#[test]
fn a_trusted_network_sends_and_reads_without_a_token_and_deletes_nothing() {
    let Some(outer) = outer_or_skip() else { return };
    let data = data_dir();
    let network = format!("access.networks=203.0.113.0/24,{outer}");
    let daemon = Daemon::start_bare(data.path(), &[&EVERYWHERE[..], &[&network]].concat());
    let http = SocketAddr::new(outer, daemon.http_address.port());
    let form = Form::new().file("acq-inilog", "123_8x8_logfile.ini", LOG.as_bytes()).bytes();
    ask_at(http, "POST", "/service/v1/start-acquisition", Form::HEADERS, &form).with(200);
    RawConnection::new(SocketAddr::new(outer, daemon.capture.port())).assert_works(0);
    let content = ask_at(http, "GET", "/service/v1/acquisition/123/tile/0/7/content", "", b"").with(200);
    assert_eq!(content.body, b"still works");
    assert_eq!(ask_at(http, "GET", "/healthz", "", b"").status, 200);
    let delete = "/service/v1/acquisition/123?confirm=123";
    assert!(ask_at(http, "DELETE", delete, "", b"").refused(403).contains("admin"));
    let temca = br#"{"tem_ip_address":"192.0.2.7"}"#;
    assert_eq!(ask_at(http, "PUT", "/service/v1/temca/4", "", temca).status, 403);
    assert_eq!(status(&daemon, "DELETE", delete, ""), 200, "this machine may");
}

#[test]
fn with_tokens_a_trusted_network_still_sends_and_reads_no_more() {
    let Some(outer) = outer_or_skip() else { return };
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let reader = tokens.add("reader", "read");
    let network = format!("access.networks={outer}");
    let daemon =
        Daemon::start_bare(&data.path().join("data"), &[&EVERYWHERE[..], &[&network, &tokens.setting]].concat());
    let http = SocketAddr::new(outer, daemon.http_address.port());
    let form = Form::new().file("acq-inilog", "123_8x8_logfile.ini", LOG.as_bytes()).bytes();
    ask_at(http, "POST", "/service/v1/start-acquisition", Form::HEADERS, &form).with(200);
    RawConnection::new(SocketAddr::new(outer, daemon.capture.port())).assert_works(0);
    RawConnection::new(SocketAddr::new([127, 0, 0, 1].into(), daemon.capture.port())).assert_works(1);
    let content = "/service/v1/acquisition/123/tile/0/7/content";
    assert_eq!(ask_at(http, "GET", content, "", b"").status, 401);
    assert_eq!(ask_at(http, "GET", content, &bearer(&reader), b"").status, 200);
    assert_eq!(ask_at(http, "GET", "/service/v1/acquisition/123/completeness", "", b"").status, 200);
}

/// A path with a number in each variable place; a stream is asked to end.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "4" } else { part });
    let end = if path == "/api/v1/events" { "?for=1" } else { "" };
    parts.collect::<Vec<_>>().join("/") + end
}

#[test]
fn every_operation_has_a_scope_and_asks_for_it() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let scopes = ["read", "ingest", "admin"].map(|scope| (scope, tokens.add(scope, scope)));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    let api = ask(&daemon, "GET", "/service/v1/openapi.json", &bearer(&scopes[0].1), b"").with(200).json();
    let mut asked = 0;
    for (path, methods) in api["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let (method, at) = (method.to_uppercase(), filled(path));
            let security = operation["security"].as_array().expect("security");
            let wanted: Vec<&str> = security.iter().filter_map(|one| one["token"][0].as_str()).collect();
            // The live view's files hold no data.
            let is_page = ["/", "/page/{name}"].contains(&path.as_str());
            assert_eq!(wanted.is_empty(), is_page, "{method} {path} has no scope");
            let is_open = is_page || ["/healthz", "/readyz", "/metrics"].contains(&path.as_str());
            let nameless = ask(&daemon, &method, &at, "", b"");
            if !is_open {
                assert!(nameless.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{path}");
                nameless.refused(401);
            }
            for (scope, token) in &scopes {
                // It would end the daemon; tests/daemon/admin.rs has it.
                if path == "/api/v1/admin/drain" && *scope == "admin" {
                    continue;
                }
                let status = status(&daemon, &method, &at, &bearer(token));
                let may = is_open || *scope == "admin" || wanted.contains(scope);
                assert_eq!(status == 403, !may, "{method} {path} with {scope}: {status}");
                assert_ne!(status, 401, "{method} {path} with {scope}");
            }
            asked += 1;
        }
    }
    assert!(asked > 35, "{asked}");
    assert_eq!(status(&daemon, "GET", "/nothing", ""), 401, "what is there is nobody's business");
    assert_eq!(status(&daemon, "GET", "/nothing", &bearer(&scopes[1].1)), 404);
}

#[test]
fn tokens_are_shown_once_and_kept_as_digests() {
    let dir = data_dir();
    let tokens = Tokens::new(dir.path());
    let (one, other) = (tokens.add("camera-1", "ingest"), tokens.add("viewer", "read"));
    assert_ne!(one, other);
    let file = std::fs::read_to_string(&tokens.path).expect("text");
    assert!(!file.contains(&one) && !file.contains(one.trim_start_matches("tilecatcher_")), "{file}");
    assert_eq!(std::fs::metadata(&tokens.path).expect("there").mode() & 0o777, 0o600);
    let listed = tokens.run(&["list", "--json"]);
    let listing: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!((&listing[0]["name"], &listing[1]["scopes"][0]), (&"camera-1".into(), &"read".into()));
    let digest = file.split_whitespace().find(|word| word.len() == 64).expect("a digest");
    assert!(!String::from_utf8_lossy(&listed.stdout).contains(digest));
    assert_eq!(tokens.run(&["add", "viewer", "--scope", "read"]).status.code(), Some(2), "the name is taken");
    assert_eq!(tokens.run(&["add", "x", "--scope", "all"]).status.code(), Some(2));
    assert!(tokens.run(&["revoke", "viewer"]).status.success());
    assert_eq!(tokens.run(&["revoke", "viewer"]).status.code(), Some(2));
    let left = String::from_utf8(tokens.run(&["list"]).stdout).expect("text");
    assert!(left.starts_with("camera-1\tingest\t") && left.lines().count() == 1, "{left}");
}

#[test]
fn a_revocation_acts_without_a_restart_and_a_broken_file_changes_nothing() {
    const PATH: &str = "/service/v1/acquisitions";
    const FAILED: &str = "tilecatcher_tokens_reload_failed";
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let (stays, goes) = (bearer(&tokens.add("stays", "read")), bearer(&tokens.add("goes", "admin")));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    assert_eq!((status(&daemon, "GET", PATH, &stays), status(&daemon, "GET", PATH, &goes)), (200, 200));
    let good = std::fs::read(&tokens.path).expect("read");
    tokens.replace(b"not a token\n");
    daemon.await_metric(FAILED, 1.0);
    await_found(|| daemon.log(), |log| log.contains("THE OLD ONES STAY VALID"));
    assert_eq!(status(&daemon, "GET", PATH, &goes), 200);
    tokens.replace(&good);
    signal(daemon.pid(), "-HUP");
    daemon.await_metric(FAILED, 0.0);
    assert!(tokens.run(&["revoke", "goes"]).status.success());
    await_status(&daemon, PATH, &goes, 401);
    assert_eq!(status(&daemon, "GET", PATH, &stays), 200);
    daemon.stop();
}

#[test]
fn too_many_wrong_tokens_are_answered_with_429_and_right_ones_as_ever() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let good = bearer(&tokens.add("good", "admin"));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    let wrong = bearer("tilecatcher_0000");
    for _ in 0..10 {
        assert_eq!(status(&daemon, "GET", "/service/v1/ping", &wrong), 401);
    }
    let refused = ask(&daemon, "GET", "/service/v1/ping", &wrong, b"");
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=61).contains(&wait), "{wait}");
    refused.refused(429);
    assert_eq!(status(&daemon, "GET", "/service/v1/ping", &good), 200, "others share its address");
    assert_eq!(status(&daemon, "GET", "/healthz", ""), 200, "who shows none is not meant");
}

#[test]
fn a_page_of_another_site_can_not_use_this_machines_trust() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.host_names=catcher.example"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.http_address.port());
    let asked = |headers: &str| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!("GET /service/v1/acquisitions HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        read_answer(&mut stream).status
    };
    for host in ["127.0.0.1:5001", "localhost", "[::1]:80", "catcher", "Catcher.example:5001"] {
        assert_eq!(asked(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example:5001", "not.catcher.example"] {
        assert_eq!(asked(&format!("Host: {host}\r\n")), 403, "{host}");
    }
    assert_eq!(asked("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"), 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8080"] {
        assert_eq!(asked(&format!("Host: 127.0.0.1\r\nOrigin: {origin}\r\n")), 403, "{origin}");
    }
    let rebound = get(&daemon, "http://evil.example/service/v1/acquisitions");
    assert!(rebound.refused(403).contains("http.host_names"), "the URL goes before the header");
}

#[test]
fn every_answer_has_the_headers_that_browsers_heed() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let good = bearer(&tokens.add("good", "admin"));
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting]);
    for (path, headers, status) in [
        ("/healthz", "", 200),
        ("/service/v1/acquisitions", &good as &str, 200),
        ("/service/v1/acquisitions", "", 401),
        ("/nothing", &good, 404),
        ("/service/v1/tile/%ff", &good, 400),
    ] {
        let answer = ask(&daemon, "GET", path, &format!("{headers}Origin: http://evil.example\r\n"), b"");
        let answer = if path == "/healthz" { get(&daemon, path) } else { answer }.with(status);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert!(!answer.head.to_lowercase().contains("access-control-"), "{}", answer.head);
        let cached = answer.header("cache-control").unwrap_or_default().to_owned();
        match (status, headers.is_empty()) {
            (401, _) => assert_eq!(cached, "no-store"),
            (200, false) => assert!(cached.contains("private"), "{cached}"),
            _ => {}
        }
    }
}

#[test]
fn long_headers_and_paths_are_refused_by_name() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let long = |n: usize| "x".repeat(n);
    let path = format!("/service/v1/acquisitions?sample={}", long(5000));
    assert!(get(&daemon, &path).refused(414).contains("4096"));
    let headers: String = (0..5).map(|n| format!("X-Long-{n}: {}\r\n", long(4000))).collect();
    assert!(ask(&daemon, "GET", "/healthz", &headers, b"").refused(431).contains("16384"));
    let fits = format!("/service/v1/acquisitions?sample={}", long(3000));
    assert_eq!(status(&daemon, "GET", &fits, &format!("X-Long: {}\r\n", long(12_000))), 200);
}

/// The lines of an audit log, waited for until there are so many.
fn audited(path: &Path, lines: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    let text = await_found(read, |text| text.lines().count() >= lines && text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn commands_refusals_and_connections_are_recorded_each_on_a_line() {
    let data = data_dir();
    let tokens = Tokens::new(data.path());
    let token = bearer(&tokens.add("scope-7", "ingest"));
    let trail = data.path().join("audit.jsonl");
    let setting = format!("audit.file={}", trail.display());
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting, &setting]);
    let form = Form::new().file("acq-inilog", "123_8x8_logfile.ini", LOG.as_bytes()).bytes();
    let started = ask(&daemon, "POST", "/service/v1/start-acquisition", &[Form::HEADERS, &token].concat(), &form);
    started.with(200);
    let mut sender = daemon.connect();
    for message in [frame(key(0, 0), b"one"), frame(key(0, 1), b"two"), [0; 4].to_vec()] {
        sender.send(&message);
        sender.answer();
    }
    drop(sender);
    audited(&trail, 3);
    assert_eq!(status(&daemon, "DELETE", "/service/v1/acquisition/123?confirm=123", &token), 403);
    assert_eq!(status(&daemon, "GET", "/service/v1/acquisitions?acqid=5", ""), 401);
    assert_eq!(status(&daemon, "POST", "/service/v1/next-tile?acqid=123", &token), 200);
    assert_eq!(status(&daemon, "GET", "/service/v1/acquisitions", &token), 200, "reads are not recorded");
    let lines = audited(&trail, 6);
    let of = |n: usize, name: &str| lines[n][name].clone();
    assert_eq!((of(0, "event"), of(0, "acquisition"), of(0, "outcome")), ("command".into(), 123.into(), 200.into()));
    assert_eq!((of(0, "by"), of(0, "bytes")), ("token scope-7".into(), form.len().into()));
    assert!(of(0, "peer").as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{}", lines[0]);
    assert_eq!((of(1, "event"), of(1, "port"), of(1, "by")), ("connected".into(), "capture".into(), "loopback".into()));
    assert_eq!((of(2, "event"), of(2, "tiles"), of(2, "refused")), ("disconnected".into(), 2.into(), 1.into()));
    assert_eq!((of(2, "outcome"), of(1, "peer")), ("peer".into(), of(2, "peer")));
    assert_eq!((of(3, "event"), of(3, "reason"), of(3, "method")), ("refused".into(), "scope".into(), "DELETE".into()));
    assert_eq!((of(3, "acquisition"), of(4, "acquisition"), of(5, "acquisition")), (123.into(), 5.into(), 123.into()));
    assert_eq!((of(4, "reason"), of(4, "by"), of(4, "outcome")), ("no_token".into(), "loopback".into(), 401.into()));
    assert_eq!(lines.len(), 6);
    daemon.stop();
}

#[test]
fn an_acquisition_is_recorded_as_the_handler_reads_it() {
    let data = data_dir();
    let trail = data.path().join("audit.jsonl");
    let daemon = Daemon::start(&data.path().join("data"), &[&format!("audit.file={}", trail.display())]);
    let changes = [
        ("PUT", "/service/v1/capture-image-content/12%33?tile-filename=col0000_row0000_cam0.tif&acqid=9", Some(123)),
        ("POST", "/service/v1/next-tile?acqid=9", Some(9)),
        ("PUT", "/service/v1/tile-state?acqid=9", None),
        ("DELETE", "/service/v1/acquisition/%3123?confirm=123&acqid=9", Some(123)),
    ];
    for (method, path, _) in changes {
        ask(&daemon, method, path, "", br#"{"state":"X","tileSpecIds":[]}"#).with(200);
    }
    let lines = audited(&trail, 1 + changes.len());
    let recorded: Vec<Option<u64>> = lines[1..].iter().map(|line| line["acquisition"].as_u64()).collect();
    assert_eq!(recorded, changes.map(|(.., acquisition)| acquisition));
}

#[test]
fn a_command_whose_connection_is_cut_off_is_recorded() {
    let data = data_dir();
    let trail = data.path().join("audit.jsonl");
    let daemon = Daemon::start(&data.path().join("data"), &[&format!("audit.file={}", trail.display())]);
    let path = "/service/v1/capture-image-content/123?tile-filename=col0000_row0000_cam0.tif";
    let mut stream = dial(&daemon);
    stream.write_all(head("PUT", path, "Content-Length: 3000\r\n").as_bytes()).expect("sent");
    stream.write_all(&[7; 100]).expect("sent");
    let senders = "/api/v1/admin/senders";
    await_that("the sender is listed", || get(&daemon, senders).json()["senders_total"] == 1);
    let id = get(&daemon, senders).json()["senders"][0]["id"].clone();
    ask(&daemon, "DELETE", &format!("{senders}/{id}"), "", b"").with(200);
    let lines = audited(&trail, 3);
    let cut = lines[1..].iter().find(|line| line["method"] == "PUT").expect("recorded");
    assert_eq!((&cut["outcome"], &cut["acquisition"]), (&"unanswered".into(), &123.into()), "{cut}");
    drop(stream);
}

#[test]
fn pages_of_other_sites_can_not_have_a_browser_ask_for_images() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let asked = |path: &str, headers: &str| status(&daemon, "GET", path, headers);
    for site in ["cross-site", "same-site"] {
        let by = format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n");
        assert_eq!(asked("/service/v1/acquisitions", &by), 403, "{site}");
        assert_eq!(asked("/", &by), 200, "{site}");
        let link = format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n");
        assert_eq!(asked("/service/v1/acquisitions", &link), 200, "{site}: a link");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(asked("/service/v1/acquisitions", &format!("Sec-Fetch-Site: {site}\r\n")), 200, "{site}");
    }
}

#[test]
fn a_rotated_audit_log_goes_on_in_a_new_file() {
    let data = data_dir();
    let (trail, old) = (data.path().join("audit"), data.path().join("audit.1"));
    let setting = format!("audit.file={}", trail.display());
    let daemon = Daemon::start(&data.path().join("data"), &[&setting]);
    audited(&trail, 1);
    std::fs::rename(&trail, &old).expect("renamed");
    signal(daemon.pid(), "-HUP");
    await_that("a new file", || {
        put(&daemon, ACQ.0, "col0000_row0000_cam0.tif", b"a tile");
        trail.exists()
    });
    put(&daemon, ACQ.0, "col0000_row0001_cam0.tif", b"another");
    let last = audited(&trail, 1);
    assert_eq!((&last[0]["method"], &last[0]["acquisition"]), (&"PUT".into(), &ACQ.0.into()));
    assert_eq!(daemon.metric("tilecatcher_audit_lines_lost_total"), 0.0);
    daemon.stop();
}

#[test]
fn a_full_disk_costs_lines_of_the_audit_log_and_no_request() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["audit.file=/dev/full"]);
    daemon.connect().assert_works(0);
    daemon.await_metric_that("tilecatcher_audit_lines_lost_total", |lost| lost >= 2.0);
    daemon.stop();
}

#[test]
fn an_audit_log_that_can_not_be_written_stops_the_start() {
    let said = refused_start(&["audit.file=/nowhere/at/all/audit.jsonl"]);
    assert!(said.contains("audit.file") && said.contains("/nowhere/at/all"), "{said}");
}

#[test]
fn send_watch_and_replay_show_a_token_and_nobody_writes_it_down() {
    let (data, folders) = (data_dir(), data_dir());
    let tokens = Tokens::new(data.path());
    let token = tokens.add("camera", "ingest");
    let admin = tokens.add("admin", "admin");
    let trail = data.path().join("audit.jsonl");
    let setting = format!("audit.file={}", trail.display());
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting, &setting, "log.level=trace"]);
    let (file, admin_file) = (folders.path().join("camera.token"), folders.path().join("admin.token"));
    std::fs::write(&file, format!("{token}\n")).expect("written");
    std::fs::write(&admin_file, &admin).expect("written");
    let folder = simulate(folders.path(), "1");
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    let run = |arguments: &[&str]| {
        let run = program().args(arguments).args(["--capture", &capture, "--http", &http]).output().expect("runs");
        (run.status.code(), stderr(&run) + &String::from_utf8_lossy(&run.stdout))
    };
    let (code, said) = run(&["send", text(&folder)]);
    assert!(code != Some(0) && said.contains("needs a token"), "{said}");
    let (code, said) = run(&["send", text(&folder), "--via", "put", "--token-file", text(&file)]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["watch", text(&folder), "--idle", "10ms", "--token-file", text(&file)]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&["send", text(&folder), "--token-file", "/nowhere"]).0, Some(2));
    let replay = ["replay", "--duration", "300ms", "--rate", "20", "--tile-size", "1kB", "--verify", "all", "--quiet"];
    let (code, said) = run(&[&replay[..], &["--token-file", text(&admin_file)]].concat());
    assert_eq!(code, Some(0), "{said}");
    let page = ask(&daemon, "GET", &format!("/api/v1/acquisitions/{FOLDER_ACQ}"), &bearer(&token), b"").with(200);
    assert!(page.json()["tiles"].as_u64().is_some_and(|tiles| tiles > 0));
    status(&daemon, "GET", &format!("/service/v1/acquisitions?sample={token}"), &bearer("tilecatcher_wrong"));
    let written = [daemon.log(), std::fs::read_to_string(&trail).expect("text"), said];
    for (secret, of) in
        [(&token as &str, "a good token"), (&admin, "a good token"), ("tilecatcher_wrong", "a wrong one")]
    {
        assert!(written.iter().all(|text| !text.contains(secret)), "{of} is written down");
    }
    assert!(written[1].contains("token camera"), "{}", written[1]);
}
