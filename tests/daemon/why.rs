//! Why a tile is there, or why not: from a running daemon, and from the journal of a stopped one. And the daemon at a glance.

use super::support::{ACQ, Daemon, await_found, await_ok, await_that, data_dir, frame, frame_with, key, program, tile};
use super::web::{ask, get, get_json};
use serde_json::Value;
use std::path::Path;
use tilecatcher::client::{ChecksumChoice, checksum_of};
use tilecatcher::model::AcqId;

const IMAGE: &[u8] = b"a tile whose life is told";

fn store(daemon: &Daemon, col: u32, row: u32, image: &[u8]) {
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(col, row), image, checksum_of(ChecksumChoice::Md5, image)));
    assert_eq!(connection.answer().status, 0);
}

/// `tilecatcher why`: exit code, stdout, stderr.
fn why(args: &[&str]) -> (i32, String, String) {
    let run = program().arg("why").args(args).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.code().expect("ended by itself"), text(&run.stdout), text(&run.stderr))
}

fn online(daemon: &Daemon, col: u32, row: u32) -> Value {
    get_json(daemon, &format!("/api/v1/acquisitions/{ACQ}/places/{col}/{row}"))
}

fn offline(data: &Path, acq: u64, col: u32, row: u32) -> Value {
    let data = data.to_str().expect("text");
    let (_, said, complaint) = why(&[&acq.to_string(), &col.to_string(), &row.to_string(), "--data", data, "--json"]);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{complaint}"))
}

/// Images are judged whenever there is time for it: those events come when they come.
fn events(life: &Value) -> Vec<&str> {
    let events = life["events"].as_array().expect("events").iter();
    events.map(|event| event["event"].as_str().expect("a name")).filter(|event| *event != "judged").collect()
}

fn without_judgements(life: &Value) -> Vec<&Value> {
    life["events"].as_array().expect("events").iter().filter(|event| event["event"] != "judged").collect()
}

/// ROI 5800 at (0, 0), (1, 0) and (7, 7); a tile at (0, 0) with two versions and two states; none at (1, 0).
fn fill(daemon: &Daemon) {
    super::web::create_rois(daemon, ACQ.0, &[("5800", &[(0, 0), (1, 0), (7, 7)])]).with(200);
    store(daemon, 0, 0, b"the first version");
    store(daemon, 0, 0, IMAGE);
    ask(daemon, "POST", &format!("/service/v1/next-tile?acqid={ACQ}&lease=600"), "", b"").with(200);
    let id = format!("{ACQ}.000.000.5800.0");
    let body = format!("{{\"state\":\"COMPLETE\",\"tileSpecIds\":[\"{id}\"]}}");
    ask(daemon, "PUT", "/service/v1/tile-state", "", body.as_bytes()).with(200);
}

#[test]
fn the_life_of_a_tile_is_told_in_its_order_with_and_without_the_daemon() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    fill(&daemon);
    let life = online(&daemon, 0, 0);
    assert_eq!(events(&life), ["started", "expected", "stored", "stored", "state", "state"], "{life}");
    assert_eq!((&life["verdict"], &life["rois"][0]["state"]), (&"stored".into(), &"COMPLETE".into()));
    let told = without_judgements(&life);
    let (stored, lent) = (told[3], told[4]);
    assert_eq!(
        (&stored["version"], &stored["size"], &stored["damaged"]),
        (&2.into(), &IMAGE.len().into(), &false.into())
    );
    let from = stored["from"].as_str().expect("the sender").parse::<std::net::SocketAddr>().expect("its address");
    assert!(from.ip().is_loopback() && from.port() > 0, "{stored}");
    let md5 = checksum_of(ChecksumChoice::Md5, IMAGE).to_string();
    assert!(stored["checksum"].as_str().is_some_and(|text| text.ends_with(&md5)), "{stored}");
    assert!(lent["state"] == "IN_PROGRESS" && lent["lent_until"].is_string() && lent["section"] == 5800, "{lent}");
    let url = format!("http://{}", daemon.http_address);
    let (code, said, _) = why(&["123", "0", "0", "--http", &url]);
    assert!(code == 0 && said.contains("stored as tile 1, version 2") && said.contains("state COMPLETE"), "{said}");
    let image = [1; 300];
    daemon.http.put_tile(&tile(key(3, 0), &image)).expect("stored");
    let by_http = online(&daemon, 3, 0);
    assert!(by_http["events"][1]["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{by_http}");
    // Sealed, it is told the same, once.
    ask(&daemon, "POST", "/api/v1/admin/journal/rotate", "", b"").with(200);
    assert_eq!(without_judgements(&online(&daemon, 0, 0)), told);
    assert_eq!(events(&online(&daemon, 1, 0)), ["started", "expected"]);
    daemon.stop();
    let from_disk = offline(data.path(), 123, 0, 0);
    assert_eq!((without_judgements(&from_disk), &from_disk["because"]), (told, &life["because"]));
    assert_eq!(from_disk["rois"], life["rois"]);
}

#[test]
fn a_tile_that_is_not_there_has_its_reason() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let verdict = |life: &Value| life["verdict"].as_str().expect("a verdict").to_owned();
    assert_eq!(verdict(&online(&daemon, 2, 2)), "missing");
    assert_eq!(verdict(&online(&daemon, 8, 0)), "outside_grid");
    fill(&daemon);
    assert_eq!(verdict(&online(&daemon, 7, 7)), "missing");
    assert_eq!(verdict(&online(&daemon, 2, 2)), "not_expected");
    // Refused, with the reason and who it was.
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(7, 7), IMAGE, checksum_of(ChecksumChoice::Crc32, b"another")));
    assert_eq!(connection.answer().status, 1);
    let life = await_found(|| online(&daemon, 7, 7), |life| verdict(life) == "refused");
    assert!(life["refusals"][0]["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{life}");
    assert!(life["because"].as_str().is_some_and(|because| because.contains("bad_checksum")), "{life}");
    let url = format!("http://{}", daemon.http_address);
    let (code, said, _) = why(&["123", "7", "7", "--http", &url]);
    assert!(code == 1 && said.contains("refused: bad_checksum, from 127.0.0.1:"), "{said}");
    // Sent again and taken, the refusal is history.
    connection.send(&frame(key(7, 7), IMAGE));
    assert_eq!(connection.answer().status, 0);
    assert_eq!(verdict(&online(&daemon, 7, 7)), "stored");
    let unknown = get_json(&daemon, "/api/v1/acquisitions/5/places/0/0");
    assert_eq!(verdict(&unknown), "unknown_acquisition");
    daemon.http.end_acquisition(ACQ).expect("ended");
    let life = online(&daemon, 1, 0);
    assert!(verdict(&life) == "missing" && life["acquisition_state"] == "ended", "{life}");
    ask(&daemon, "DELETE", &format!("/service/v1/acquisition/{ACQ}?confirm={ACQ}"), "", b"").with(200);
    let life = online(&daemon, 0, 0);
    assert_eq!((verdict(&life).as_str(), events(&life).last()), ("deleted", Some(&"deleted")), "{life}");
    get(&daemon, &format!("/api/v1/acquisitions/{ACQ}/places/x/0")).refused(400);
    get(&daemon, &format!("/api/v1/acquisitions/{ACQ}/places/0/0?frame=-2")).refused(400);
    daemon.stop();
    assert_eq!(verdict(&offline(data.path(), 123, 0, 0)), "deleted");
    assert_eq!(verdict(&offline(data.path(), 5, 0, 0)), "unknown_acquisition");
    let (code, _, complaint) = why(&["123", "0", "0", "--data", "/nowhere"]);
    assert!(code == 2 && complaint.contains("--data"), "{complaint}");
    let (code, _, complaint) = why(&["123", "0", "0", "--http", &url]);
    assert!(code == 3 && complaint.contains("is the daemon running"), "{complaint}");
}

#[test]
fn what_is_wrong_with_an_image_is_told() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["quality.enabled=true"]);
    store(&daemon, 3, 3, IMAGE);
    let judged = await_ok(|| {
        let life = online(&daemon, 3, 3);
        let mut events = life["events"].as_array().expect("events").iter();
        events.find(|event| event["event"] == "judged").cloned().ok_or(life)
    });
    assert_eq!((&judged["quality_flags"][0], &judged["version"]), (&"undecodable".into(), &1.into()), "{judged}");
    let url = format!("http://{}", daemon.http_address);
    let (code, said, _) = why(&["123", "3", "3", "--http", &url]);
    assert!(code == 0 && said.contains("image of version 1 judged: undecodable"), "{said}");
}

#[test]
fn a_damaged_tile_is_called_so() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    store(&daemon, 3, 3, IMAGE);
    ask(&daemon, "POST", "/api/v1/admin/journal/rotate", "", b"").with(200);
    let (segment, at) = super::rot::find(data.path(), IMAGE);
    super::rot::Flip::make(&segment, at);
    get(&daemon, &format!("/service/v1/acquisition/{ACQ}/tile/3/3/content")).refused(500);
    assert_eq!(online(&daemon, 3, 3)["verdict"], "damaged");
    // Sent again, it is stored anew; the damaged version stays in its history.
    store(&daemon, 3, 3, IMAGE);
    let life = online(&daemon, 3, 3);
    assert_eq!(
        (&life["verdict"], &without_judgements(&life)[1]["damaged"]),
        (&"stored".into(), &true.into()),
        "{life}"
    );
    daemon.stop();
    let told = offline(data.path(), ACQ.0, 3, 3);
    assert_eq!((&told["verdict"], without_judgements(&told)), (&"stored".into(), without_judgements(&life)), "{told}");
}

#[test]
fn the_status_says_on_one_screen_what_is_wrong() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    fill(&daemon);
    let mut connection = daemon.connect();
    connection.assert_works(5);
    // Those that are over may be listed a moment longer.
    daemon.await_metric("tilecatcher_connections", 1.0);
    let url = format!("http://{}", daemon.http_address);
    let status = |args: &[&str]| {
        let run = program().args(["status", "--http", &url]).args(args).output().expect("runs");
        (run.status.code().expect("ended"), String::from_utf8(run.stdout).expect("text"))
    };
    let (code, said) = status(&[]);
    assert_eq!(code, 0, "{said}");
    for wanted in ["capture running", "pressure GREEN", "123 test open", "1 of 3", "senders (1)", "warnings ("] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
    ask(&daemon, "POST", "/api/v1/admin/capture/pause", "", b"").with(200);
    // A status may be as old as half a second.
    await_that("a status with a warning", || status(&[]).0 != 0);
    let (code, said) = status(&[]);
    assert!(code == 1 && said.contains("!! capture is paused: `tilecatcher admin resume`"), "{said}");
    let (_, said) = status(&["--json"]);
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&json["capture"], &json["pressure"]["system"]), (&"paused".into(), &"RED".into()));
    assert!(daemon.http.tile(AcqId(123), 0, 0).is_ok());
    daemon.stop();
    assert_eq!(status(&[]).0, 3);
}
