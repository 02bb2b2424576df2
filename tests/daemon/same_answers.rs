//! index = fold(journal), seen from outside: after a mixed history every GET gives the same answer before and after a
//! kill, a restart in order, and a rebuild of the index.

use super::support::{Daemon, data_dir, frame, key};
use super::web::{
    Answer, Form, ask, create_rois, get, get_json, handed_out, log_of, name, next_tile, put, set_state, start,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What these say is of the process that is asked, not of what is stored.
const OF_THE_PROCESS: [&str; 4] = ["/metrics", "/readyz", "/api/v1/status", "/api/v1/events"];

/// Whether a route says something of what is stored. The tiles here are no images, so that there is none to be shown.
fn is_of_the_store(route: &str) -> bool {
    let is_an_image = route.ends_with("/image") || route.contains("/thumbnails/");
    !(OF_THE_PROCESS.contains(&route) || route.starts_with("/api/v1/admin/") || is_an_image)
}

/// Three acquisitions with everything that can be said about one, a fourth deleted, a fifth deleted and begun again.
fn history(daemon: &Daemon) {
    let temca =
        |ip: &str| json!({"tem_ip_address": ip, "cameras": [{"camera": 0, "width": 20, "mask_url": "m"}]}).to_string();
    ask(daemon, "PUT", "/service/v1/temca/1", "", temca("192.0.2.1").as_bytes()).with(200);
    for (acq, sample, day) in [
        (123, "leaf", "01/02/2026"),
        (7, "leaf", "01/01/2026"),
        (9, "stone", "03/03/2026"),
        (40, "gone", "01/01/2026"),
        (41, "new", "01/01/2026"),
    ] {
        let log = log_of(sample, day, &format!("p{}", acq % 2));
        start(daemon, acq, &format!("{log}[Machine IDs]\nTEM IP address = 192.0.2.1\n"));
    }
    // Drift frames and tiles before, between and behind the ROIs.
    let drift = |acq: u64, frame: u32| put(daemon, acq, &format!("Dump_cam1_frame{frame}_col1_row1.tif"), b"drift");
    for acq in [123, 7, 9, 40, 41] {
        drift(acq, 0);
        put(daemon, acq, &name(1, 1), b"early");
        create_rois(
            daemon,
            acq,
            &[("A.5", &[(1, 1), (1, 2), (2, 70)]), ("B.5", &[(1, 2)]), ("A.6", &[(1, 1), (9, 9)])],
        )
        .with(200);
        for (col, row) in [(1, 2), (2, 70), (5, 5)] {
            put(daemon, acq, &name(col, row), b"late");
        }
        drift(acq, 100);
        put(daemon, acq, &name(1, 1), b"a second version");
        put(daemon, acq, &name(1, 1), b"and a third one");
        let form = Form::new().file("ancillary-file", "x DAQ timing.csv", b"1,2").file("ancillary-file", "..", b"bad");
        form.post(daemon, &format!("/service/v1/store-ancillary-files/{acq}")).with(400);
    }
    let taken = handed_out(&next_tile(daemon, "acqid=123&ntiles=3"));
    set_state(daemon, "COMPLETE", &taken[..1]).with(200);
    handed_out(&next_tile(daemon, "acqid=7&ntiles=2&lease=86400"));
    handed_out(&next_tile(daemon, "acqid=7&frame-type=drift&newState=DRIFTING"));
    set_state(daemon, "SKIPPED", &["9.009.009.6.0".to_owned(), "9.001.001.5.0".to_owned()]).with(200);
    // A new version of a tile that was handed out, and ROIs once more.
    put(daemon, 123, &name(1, 2), b"renewed");
    create_rois(daemon, 123, &[("A.5", &[(1, 1), (3, 3)]), ("C.8", &[(1, 1)])]).with(200);
    let record = |id: &str, camera: &str| {
        json!({"id": id, "type": "list", "metadata": {"calibration_data": "260101", "group": "g", "temca": "1", "camera": camera},
            "specList": [{"className": "c", "dataString": "1"}]})
    };
    for calibrations in [json!([record("one", "0"), record("two", "1")]), json!([record("one", "2")])] {
        ask(daemon, "POST", "/service/v1/calibrations", "", calibrations.to_string().as_bytes()).with(200);
    }
    ask(daemon, "PUT", "/service/v1/temca/2", "", temca("192.0.2.2").as_bytes()).with(200);
    for acq in [40, 41] {
        ask(daemon, "DELETE", &format!("/service/v1/acquisition/{acq}?confirm={acq}"), "", b"").with(200);
    }
    start(daemon, 41, &log_of("new", "01/01/2026", "p2"));
    put(daemon, 41, &name(1, 1), b"early");
    create_rois(daemon, 41, &[("Z.2", &[(1, 1)])]).with(200);
    let mut connection = daemon.connect();
    for n in 0..200 {
        connection.send(&frame(key(n % 20, n / 20), &n.to_le_bytes()));
    }
    (0..200).for_each(|_| assert_eq!(connection.answer().status, 0));
    ask(daemon, "POST", "/service/v1/end-acquisition/9", "", b"").with(200);
    ask(daemon, "POST", "/service/v1/end-acquisition/7", "", b"").with(200);
    start(daemon, 7, &log_of("leaf", "01/05/2026", "p1"));
}

/// Every GET route of the service with every thing that it can be asked for.
fn urls(daemon: &Daemon) -> Vec<String> {
    let api = get_json(daemon, "/service/v1/openapi.json");
    let paths = api["paths"].as_object().expect("paths").iter().filter(|(path, _)| is_of_the_store(path));
    let routes: Vec<String> =
        paths.filter(|(_, item)| item.get("get").is_some()).map(|(path, _)| path.clone()).collect();
    let all = get_json(daemon, "/service/v1/tiles?flat=true&frame-type=all&length=100000");
    let tiles: BTreeSet<u64> =
        all["tiles"].as_array().expect("tiles").iter().filter_map(|tile| tile["tile_id"].as_u64()).collect();
    // Those that were deleted, too: they must stay gone.
    let tiles: Vec<String> = (1..=tiles.last().copied().expect("tiles") + 2).map(|id| id.to_string()).collect();
    let keys: Vec<String> = tiles.iter().flat_map(|id| (1..4).map(move |version| format!("{id}-{version}"))).collect();
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<String>>();
    let values: BTreeMap<&str, Vec<String>> = BTreeMap::from([
        ("acqid", texts(&["123", "7", "9", "40", "41", "99"])),
        ("tileid", tiles),
        ("key", keys),
        ("id", texts(&["1", "2", "3"])),
        ("col", texts(&["1", "2", "9"])),
        ("row", texts(&["1", "2", "70"])),
    ]);
    let mut urls = Vec::new();
    for route in &routes {
        let names = match route.as_str() {
            route if route.contains("calibration") => texts(&["one", "two", "three"]),
            "/page/{name}" => texts(&["page.css", "nothing"]),
            _ => texts(&["123_ROI_tiles.csv", "7_ROI_spec.ini", "x%20DAQ%20timing.csv"]),
        };
        let mut filled = vec![route.clone()];
        while let Some(name) =
            filled[0].split_once('{').map(|(_, rest)| rest.split_once('}').expect("closed").0.to_owned())
        {
            let of_name = if name == "name" {
                &names
            } else {
                values.get(name.as_str()).unwrap_or_else(|| panic!("no values for {name} in {route}"))
            };
            filled = filled
                .iter()
                .flat_map(|url| of_name.iter().map(|value| url.replacen(&format!("{{{name}}}"), value, 1)))
                .collect();
        }
        for url in filled {
            for query in queries(route) {
                urls.push(format!("{url}{query}"));
            }
        }
    }
    urls
}

fn queries(route: &str) -> &'static [&'static str] {
    if route.ends_with("/tiles") {
        &[
            "",
            "?frame-type=all&include-all=true",
            "?flat=true&offset=3&length=7",
            "?tile-state=READY",
            "?tile-state=SKIPPED&include-all=1",
        ]
    } else if route.ends_with("/acquisitions") {
        &[
            "",
            "?exists-tile-in-state=READY",
            "?all-tiles-in-state=CREATE",
            "?sample=leaf",
            "?acq-from=20260102&length=1",
        ]
    } else if route.ends_with("/content") {
        &["", "?version=1"]
    } else if route.contains("verify-tile") {
        &["", "?checksum-algorithm=crc32"]
    } else if route.ends_with("/projects") {
        &["", "?sample=leaf"]
    } else {
        &[""]
    }
}

/// URL, status, what says something about the content, and the body.
type Given = (String, u16, Vec<Option<String>>, Vec<u8>);

fn answers(daemon: &Daemon, urls: &[String]) -> Vec<Given> {
    let shown = |answer: &Answer| {
        ["content-type", "etag", "repr-digest"].map(|name| answer.header(name).map(str::to_owned)).to_vec()
    };
    let ask = |url: &String| {
        let answer = get(daemon, url);
        (url.clone(), answer.status, shown(&answer), answer.body)
    };
    urls.iter().map(ask).collect()
}

fn compare(before: &[Given], daemon: &Daemon, urls: &[String], what: &str) {
    for (before, after) in before.iter().zip(answers(daemon, urls)) {
        let text = |answer: &Given| String::from_utf8_lossy(&answer.3).into_owned();
        assert!(
            *before == after,
            "after {what} {} is {} {}, and was {} {}",
            before.0,
            after.1,
            text(&after),
            before.1,
            text(before)
        );
    }
}

#[test]
fn every_get_gives_the_same_answer_after_a_kill_a_restart_and_a_rebuild() {
    let data = data_dir();
    let lanes = &["storage.lanes=3"];
    let daemon = Daemon::start_bare(data.path(), lanes);
    history(&daemon);
    let urls = urls(&daemon);
    let before = answers(&daemon, &urls);
    let routes_that_work = before.iter().filter(|answer| answer.1 == 200).count();
    assert!(
        routes_that_work > 300 && urls.len() > 1000,
        "{routes_that_work} of {}: the test shows nothing",
        urls.len()
    );
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), lanes);
    compare(&before, &daemon, &urls, "a kill");
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &["storage.lanes=1"]);
    compare(&before, &daemon, &urls, "a restart");
    daemon.stop();
    let rebuild =
        Command::new(env!("CARGO_BIN_EXE_tilecatcher")).args(["index", "rebuild", "--data"]).arg(data.path()).output();
    let rebuild = rebuild.expect("runs");
    assert!(rebuild.status.success(), "{}", String::from_utf8_lossy(&rebuild.stderr));
    let daemon = Daemon::start_bare(data.path(), &[]);
    compare(&before, &daemon, &urls, "a rebuild");
    // Each route gave something at least once.
    let api: Value = get_json(&daemon, "/service/v1/openapi.json");
    let gets = api["paths"].as_object().expect("paths").iter().filter(|(_, item)| item.get("get").is_some());
    for (route, _) in gets.filter(|(route, _)| is_of_the_store(route)) {
        let stem = route.split('{').next().expect("a front");
        let end = route.rsplit('}').next().expect("an end");
        let found = before.iter().any(|answer| {
            let path = answer.0.split('?').next().unwrap_or_default();
            answer.1 == 200 && path.starts_with(stem) && path.ends_with(end)
        });
        assert!(found, "{route} never gave anything");
    }
}
