//! The HTTP port, as legacy clients and operators use it.

use super::support::{Daemon, LOG, data_dir, frame_with, key, noise};
use super::web::{Answer, Form, ask};
use tilecatcher::client::{ChecksumChoice, checksum_of};

fn get(daemon: &Daemon, path: &str, headers: &str) -> Answer {
    ask(daemon, "GET", path, headers, b"")
}

#[test]
fn wrong_paths_methods_and_numbers_are_answered_in_json() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let missing = get(&daemon, "/service/v1/nothing", "");
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/json")));
    assert!(missing.message().contains("/service/v1/nothing"));
    let wrong = ask(&daemon, "DELETE", "/service/v1/ping", "", b"");
    assert_eq!((wrong.status, wrong.header("content-type")), (405, Some("application/json")));
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET")), "{}", wrong.head);
    assert!(wrong.message().contains("DELETE"));
    assert_eq!(get(&daemon, "/service/v1/acquisition/x/tile/0/0", "").status, 400);
    assert_eq!(get(&daemon, "/service/v1/acquisition/123/tile/-1/0", "").status, 400);
    assert_eq!(get(&daemon, "/service/v1/acquisition/123/tile/0/0", "").status, 404);
    assert_eq!(get(&daemon, "/service/v1/tile/77/content", "").status, 404);
    daemon.await_metric("tilecatcher_http_requests_total{status=\"405\"}", 1.0);
}

#[test]
fn start_acquisition_takes_a_log_and_says_what_is_wrong_with_others() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let start = |part: &str, name: Option<&str>, content: &[u8]| {
        let form = name.map_or_else(|| Form::new().text(part, content), |name| Form::new().file(part, name, content));
        form.post(&daemon, "/service/v1/start-acquisition")
    };
    let good = start("acq-inilog", Some("some/dir/55_40x168_logfile.ini"), LOG.as_bytes());
    assert_eq!((good.status, good.header("content-type")), (200, Some("application/json")));
    assert_eq!(good.body, br#"{"uid":55}"#);
    assert_eq!(start("acq-inilog", Some("55"), LOG.as_bytes()).status, 200, "started again");
    for (answer, hint) in [
        (start("other", Some("55_a.ini"), LOG.as_bytes()), "acq-inilog"),
        (start("acq-inilog", None, LOG.as_bytes()), "file name"),
        (start("acq-inilog", Some("log.ini"), LOG.as_bytes()), "log.ini"),
        (start("acq-inilog", Some("5_a.ini"), b"no equals"), "line 1"),
        (start("acq-inilog", Some("5_a.ini"), LOG.replace("Acq2 = TRUE", "").as_bytes()), "TFTT"),
        (start("acq-inilog", Some("5_a.ini"), LOG.replace("= 250", "= much").as_bytes()), "Pixels per um"),
        (ask(&daemon, "POST", "/service/v1/start-acquisition", "", b"x"), "multipart"),
        (ask(&daemon, "POST", "/service/v1/end-acquisition/5", "", b""), "never started"),
    ] {
        assert_eq!(answer.status, 400, "{hint}");
        let message = answer.message();
        assert!(message.to_lowercase().contains(&hint.to_lowercase()), "{hint}: {message}");
    }
    let ended = ask(&daemon, "POST", "/service/v1/end-acquisition/55/", "", b"").with(200).json();
    let keys: Vec<&String> = ended.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["completeness"], "no files were sent, so none are listed");
    assert_eq!(ended["completeness"]["missing"], 64);
}

#[test]
fn content_is_served_whole_in_ranges_and_conditionally() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = [b"II*\0", &noise(1, 70_000)[..]].concat();
    let checksum = checksum_of(ChecksumChoice::Md5, &image);
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(1, 2), &image, checksum));
    assert_eq!(connection.answer().status, 0);
    let path = "/service/v1/acquisition/123/tile/1/2/content";
    let whole = get(&daemon, path, "");
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("image/tiff")));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.header("repr-digest").is_some_and(|digest| digest.starts_with("md5=:")));
    assert!(whole.body == image);
    let etag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!(etag, format!("\"md5-{checksum}\""));
    let part = get(&daemon, path, "Range: bytes=100-199\r\n");
    assert_eq!((part.status, part.header("content-type")), (206, Some("image/tiff")));
    assert_eq!(part.header("content-range"), Some("bytes 100-199/70004"));
    assert_eq!(part.body, image[100..200]);
    assert_eq!(get(&daemon, path, "Range: bytes=-4\r\n").body, image[70_000..]);
    let beyond = get(&daemon, path, "Range: bytes=70004-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */70004")));
    let same = get(&daemon, path, &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(get(&daemon, path, "If-None-Match: \"other\"\r\n").status, 200);
    assert_eq!(get(&daemon, path, &format!("Range: bytes=0-0\r\nIf-Range: {etag}\r\n")).status, 206);
    assert_eq!(get(&daemon, path, "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n").status, 200);
    assert_eq!(ask(&daemon, "HEAD", path, "", b"").status, 200);
}

#[test]
fn ping_health_and_readiness_answer() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for path in ["/service/v1/ping", "/service/v1/ping/"] {
        let ping = get(&daemon, path, "");
        assert_eq!((ping.status, ping.header("system-status")), (200, Some("GREEN")));
        assert_eq!(ping.header("tile-queue-status"), Some("GREEN"));
        assert_eq!(ping.header("content-queue-status"), Some("GREEN"));
    }
    assert_eq!(get(&daemon, "/healthz", "").status, 200);
    let ready = get(&daemon, "/readyz", "");
    let json: serde_json::Value = serde_json::from_slice(&ready.body).expect("JSON");
    assert_eq!((ready.status, &json["ready"], &json["ack_level"]), (200, &true.into(), &"durable".into()));
}
