//! Whatever is sent to the HTTP port: a 4xx that says why, nothing half-stored, and a daemon that goes on.

use super::support::{Daemon, LOG, data_dir, noise};
use super::web::{Form, ask, create_rois, dial, get, get_json, head, listed, name, put, read_answer, send_raw, start};
use std::io::{Read, Write};
use std::net::Shutdown;

/// The routes that take multipart, and one that takes JSON each way.
const MULTIPART: [&str; 5] = [
    "/service/v1/start-acquisition",
    "/service/v1/create-rois/123",
    "/service/v1/end-acquisition/123",
    "/service/v1/store-ancillary-files/123",
    "/service/v1/capture-image-content/123",
];
const JSON: [(&str, &str); 3] =
    [("POST", "/service/v1/calibrations"), ("PUT", "/service/v1/tile-state"), ("PUT", "/service/v1/temca/4")];

/// As it was before the bad requests.
fn is_untouched(daemon: &Daemon) {
    let acquisitions = get_json(daemon, "/service/v1/acquisitions");
    assert_eq!(
        (&acquisitions["length"], &acquisitions["acquisitions"][0]["Completed"]),
        (&1.into(), &serde_json::Value::Null)
    );
    assert_eq!(listed(daemon, "/service/v1/tiles?frame-type=all&include-all=true"), []);
    assert_eq!(get_json(daemon, "/service/v1/acquisition/123/files")["length"], 0);
    assert_eq!(get_json(daemon, "/service/v1/calibrations")["length"], 0);
    assert_eq!(get_json(daemon, "/service/v1/temcas")["length"], 0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
    daemon.connect().assert_works(0);
}

fn is_refused(answer: super::web::Answer) {
    let status = answer.status;
    assert!((400..500).contains(&status), "{}", answer.text());
    answer.refused(status);
}

#[test]
fn malformed_multipart_is_refused_everywhere() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let boundary = Form::HEADERS;
    let many = (0..300).fold(Form::new(), |form, _| form.text("x", b"")).bytes();
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("Content-Type: multipart/form-data\r\n", b"x".to_vec()),
        ("Content-Type: multipart/form-data; boundary=\r\n", b"x".to_vec()),
        ("Content-Type: multipart/mixed; boundary=b0undary\r\n", b"x".to_vec()),
        (boundary, Vec::new()),
        (boundary, b"no boundary at all".to_vec()),
        (boundary, b"--b0undary".to_vec()),
        (boundary, b"--b0undary\r\n".to_vec()),
        (boundary, b"--b0undary\r\nContent-Disposition: form-data; name=\"ancillary-file\"; filename=\"a\"\r\n\r\nx".to_vec()),
        (boundary, b"--b0undary\r\nContent-Disposition: form-data; name=\"ancillary-file\"; filename=\"a\"\r\n\r\nx\r\n--b0undary".to_vec()),
        (boundary, b"--b0undary\r\nContent-Disposition\r\n\r\nx\r\n--b0undary--\r\n".to_vec()),
        (boundary, noise(1, 100_000)),
        (boundary, many),
    ];
    for path in MULTIPART {
        for (n, (headers, body)) in bodies.iter().enumerate() {
            let ends = path.contains("end-") || path.contains("store-");
            let few_parts = n == 0 || n == 1 || n == 2;
            let answer = ask(&daemon, "POST", path, headers, body);
            // A body that is none, sent to a command that needs none, may say so.
            assert!(answer.status != 200 || (ends && few_parts), "{path} {n}: {}", answer.text());
            if answer.status != 200 {
                is_refused(answer);
            }
        }
    }
    // Headers of a part that never end, in a body without a length: read up to a limit and no further.
    let endless = [b"--b0undary\r\nA: ".to_vec(), vec![b'a'; 9 << 20]].concat();
    let chunk = [format!("{:x}\r\n", endless.len()).as_bytes(), &endless, b"\r\n0\r\n\r\n"].concat();
    let head = head("POST", MULTIPART[4], &format!("{}Transfer-Encoding: chunked\r\n", Form::HEADERS));
    send_raw(&daemon, &[head.as_bytes(), &chunk].concat()).refused(413);
    is_untouched(&daemon);
}

#[test]
fn wrong_types_and_broken_json_are_refused() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let deep = |open: &str| open.repeat(100_000).into_bytes();
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"nonsense".to_vec(),
        b"{".to_vec(),
        b"\xff\xfe".to_vec(),
        b"5".to_vec(),
        b"\"text\"".to_vec(),
        b"[1]".to_vec(),
        b"[{}]".to_vec(),
        b"{\"state\":\"A\",\"tileSpecIds\":[[]]}".to_vec(),
        b"{\"state\":\"A\",\"state\":\"B\",\"tileSpecIds\":[]}".to_vec(),
        b"{\"tem_ip_address\":5}".to_vec(),
        b"{\"tem_ip_address\":\"x\",\"cameras\":{}}".to_vec(),
        deep("["),
        deep("{\"state\":"),
        deep("[{\"id\":"),
        [deep("["), "]".repeat(100_000).into_bytes()].concat(),
    ];
    for (method, path) in JSON {
        for body in &bodies {
            is_refused(ask(&daemon, method, path, "Content-Type: application/json\r\n", body));
            is_refused(ask(&daemon, method, path, "", body));
        }
    }
    for path in &MULTIPART[..2] {
        for body in &bodies {
            is_refused(ask(&daemon, "POST", path, "Content-Type: application/json\r\n", body));
        }
    }
    is_untouched(&daemon);
}

#[test]
fn lengths_that_lie_are_answered_or_closed() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let routes = MULTIPART.map(|path| ("POST", path, Form::HEADERS));
    let routes = routes.into_iter().chain(JSON.map(|(method, path)| (method, path, "")));
    for (method, path, headers) in routes {
        // A gigabyte is announced: refused before it comes.
        let announced = head(method, path, &format!("{headers}Content-Length: 1073741824\r\n"));
        let mut stream = dial(&daemon);
        stream.write_all(announced.as_bytes()).expect("sent");
        read_answer(&mut stream).refused(413);
        for length in ["-1", "x", "99999999999999999999999"] {
            let answer =
                send_raw(&daemon, head(method, path, &format!("{headers}Content-Length: {length}\r\n")).as_bytes());
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
        // The body is shorter than announced, and the client's side is closed.
        let mut stream = dial(&daemon);
        let cut = [head(method, path, &format!("{headers}Content-Length: 1000\r\n")).as_bytes(), b"[{\"id\":"].concat();
        stream.write_all(&cut).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        let broken =
            [head(method, path, &format!("{headers}Transfer-Encoding: chunked\r\n")).as_bytes(), b"zz\r\nx\r\n"]
                .concat();
        is_refused(send_raw(&daemon, &broken));
    }
    is_untouched(&daemon);
}

#[test]
fn heads_that_are_none_are_refused_and_the_port_goes_on() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let huge = format!("X-Huge: {}\r\n", "x".repeat(2 << 20));
    let many = "X-Many: x\r\n".repeat(2000);
    for (request, statuses) in [
        ("nonsense\r\n\r\n".to_owned(), 400..=400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400..=505),
        (head("GET", "/service/v1/ping", &many), 431..=431),
        (head("GET", &format!("/{}", "x".repeat(100_000)), ""), 400..=431),
        ("\0\0\0\0\r\n\r\n".to_owned(), 400..=400),
    ] {
        let answer = send_raw(&daemon, request.as_bytes());
        assert!(statuses.contains(&answer.status), "{}", answer.text());
    }
    // More than is read of a head: answered or reset, for it is still being sent.
    let mut stream = dial(&daemon);
    let _ = stream.write_all(head("GET", "/service/v1/ping", &huge).as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
    is_untouched(&daemon);
}

#[test]
fn paths_and_parameters_that_are_none_are_refused_in_json() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for path in [
        "/service",
        "/service/v1",
        "/service/v2/ping",
        "/service/v1/../../etc/passwd",
        "/etc/passwd",
        "/service/v1/%2e%2e/%2e%2e/etc/passwd",
        "/service/v1/tile",
        "/service/v1/tile/1/content/x",
        "/api/v1",
        "/%00",
        "/service/v1/acquisition/123/tile/1",
        "/service/v1/tile/0",
        "/service/v1/tile/18446744073709551615",
        "/service/v1/verify-tile/123/tile/1",
        "/service/v1/temca/77",
        "/api/v1/tiles/0",
        "/api/v1/contents/0-0",
        "/api/v1/acquisitions/0",
        "/service/v1/acquisition/123/tile/4294967295/4294967295",
    ] {
        get(&daemon, path).refused(404);
    }
    for path in [
        "/service/v1/tile/x",
        "/service/v1/tile/-1",
        "/service/v1/tile/1.5",
        "/service/v1/tile/%ff",
        "/service/v1/tile/99999999999999999999",
        "/service/v1/acquisition/%ff/tiles",
        "/service/v1/acquisition/x/files",
        "/service/v1/acquisition/123/tile/4294967296/0",
        "/service/v1/acquisition/123/tile/x/y/content",
        "/service/v1/verify-tile/x/tile/1",
        "/service/v1/verify-tile/123/tile/1?checksum-algorithm=ROT13",
        "/service/v1/temca/x",
        "/api/v1/tiles/x",
        "/api/v1/contents/x",
        "/api/v1/contents/1",
        "/api/v1/contents/1-x",
        "/api/v1/acquisitions/x",
        "/api/v1/acquisitions/123/tiles?cursor=zz",
        "/api/v1/acquisitions/123/tiles?length=-1",
        "/service/v1/tiles?offset=-1",
        "/service/v1/tiles?length=1e3",
        "/service/v1/calibrations?offset=x",
        "/service/v1/tiles?tile-from=20260101000000&tile-to=20250101000000",
        "/service/v1/calibration/name/%ff",
        "/service/v1/acquisition/123/files/%ff",
        "/service/v1/acquisitions?acq-from=20260101&acq-to=20250101",
    ] {
        get(&daemon, path).refused(400);
    }
    for (method, path) in [
        ("POST", "/service/v1/ping"),
        ("GET", "/service/v1/next-tile"),
        ("GET", "/service/v1/capture-image-content/123"),
        ("PATCH", "/service/v1/tiles"),
        ("DELETE", "/service/v1/acquisitions"),
        ("PUT", "/service/v1/acquisition/123"),
        ("BREW", "/service/v1/tiles/"),
        ("POST", "/api/v1/tiles/1"),
    ] {
        let answer = ask(&daemon, method, path, "", b"");
        assert!(answer.header("allow").is_some_and(|allow| !allow.is_empty()), "{}", answer.head);
        answer.refused(405);
    }
    is_untouched(&daemon);
}

#[test]
fn clients_that_go_away_in_the_middle_disturb_nobody() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    start(&daemon, 5, LOG);
    create_rois(&daemon, 5, &[("5", &[(0, 0)])]).with(200);
    put(&daemon, 5, &name(0, 0), b"x");
    let form = Form::new().file("ancillary-file", "a.csv", &noise(1, 50_000)).bytes();
    let whole = [
        head(
            "POST",
            "/service/v1/store-ancillary-files/5",
            &format!("{}Content-Length: {}\r\n", Form::HEADERS, form.len()),
        )
        .into_bytes(),
        form,
    ]
    .concat();
    for cut in (0..whole.len()).step_by(1777) {
        dial(&daemon).write_all(&whole[..cut]).expect("sent");
    }
    // Asked, and gone before the answer.
    for _ in 0..20 {
        dial(&daemon).write_all(head("GET", "/service/v1/tiles", "").as_bytes()).expect("sent");
    }
    assert_eq!(get_json(&daemon, "/service/v1/acquisition/5/files")["length"], 2, "only the ROI files");
    assert_eq!(listed(&daemon, "/service/v1/acquisition/5/tiles").len(), 1);
    daemon.connect().assert_works(0);
}

#[test]
fn texts_that_would_be_kept_in_memory_for_ever_are_refused_when_they_are_long() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let start_with = |acq: u64, log: String| {
        let form = Form::new().file("acq-inilog", &format!("{acq}_logfile.ini"), log.as_bytes());
        form.post(&daemon, "/service/v1/start-acquisition")
    };
    let named = |project: usize| format!("{LOG}\n[ImageCatcher]\nproject = {}\n", "p".repeat(project));
    start_with(5, named(1024)).with(200);
    assert!(start_with(6, named(1025)).refused(400).contains("longer than 1024 bytes"));
    assert!(start_with(6, format!("{LOG}\n#{}\n", "\u{1}".repeat(300_000))).refused(400).contains("at most 262144"));
    let roi = |bytes: usize| create_rois(&daemon, 123, &[(&format!("{}.7", "r".repeat(bytes)), &[(0, 0)])]);
    assert!(roi(1100).refused(400).contains("longer than 1024 bytes"));
    let path = format!("{}/a.txt", "d".repeat(5000));
    let file = Form::new().file("ancillary-file", &path, b"x").post(&daemon, MULTIPART[3]);
    assert!(file.with(400).text().contains("longer than 4096 bytes"));
    assert_eq!(get_json(&daemon, "/service/v1/acquisitions")["length"], 2);
    let shown = &get_json(&daemon, "/api/v1/status")["acquisitions"];
    let project = shown.as_array().expect("a list").iter().find(|shown| shown["id"] == 5).expect("listed");
    assert_eq!(project["project"].as_str().map(str::len), Some(100), "every stream gets it every second");
    daemon.stop();
}
