//! next-tile and tile-state: who gets which tile, in which order, with which tilespec, and when it comes back.

use super::support::{Daemon, await_found, command, data_dir, frame, key};
use super::web::{
    Form, ask, create_rois, get, get_json, handed_out, listed, log_of, name, next_tile, put, set_state, start, text,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;
use tilecatcher::formats::encode_gray8;

fn result_type(answer: &Value) -> String {
    text(&answer["resultType"])
}

/// Every ROI tile comes back to `state` by its lease: waited for, not slept for.
fn await_state(daemon: &Daemon, state: &str, count: usize) {
    let path = format!("/service/v1/tiles?frame-type=all&tile-state={state}");
    await_found(|| listed(daemon, &path).len(), |tiles| *tiles == count);
}

#[test]
fn each_result_type_says_what_it_should() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let nothing = next_tile(&daemon, "acqid=123");
    assert_eq!(
        nothing,
        json!({"resultType": "NO_TILE_READY", "requestedAcqId": 123, "nTilesRequested": 1, "nTilesFound": 0, "results": []})
    );
    assert_eq!(next_tile(&daemon, "acqid=999")["resultType"], "NO_TILE_READY");
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1)]), ("6", &[(0, 2)])]).with(200);
    put(&daemon, 123, &name(0, 0), b"x");
    put(&daemon, 123, &name(0, 2), b"x");
    let found = next_tile(&daemon, "acqid=123&section=5&ntiles=7");
    assert_eq!((&found["resultType"], &found["requestedSection"]), (&json!("TILE_FOUND"), &json!(5)));
    assert_eq!((&found["nTilesRequested"], &found["nTilesFound"]), (&json!(7), &json!(1)));
    assert_eq!((&found["results"][0]["acqid"], &found["results"][0]["section"]), (&json!(123), &json!(5)));
    for (query, wanted) in [
        ("acqid=123&section=5", "NO_TILE_READY_IN_SECTION"),
        ("section=5", "NO_TILE_READY_IN_SECTION"),
        ("acqid=123&section=77", "NO_TILE_READY_IN_SECTION"),
        ("acqid=123&section=0", "NO_TILE_READY"),
        ("acqid=123&section=-1&oldState=NEVER_USED", "NO_TILE_READY"),
    ] {
        assert_eq!(next_tile(&daemon, query)["resultType"], wanted, "{query}");
    }
    ask(&daemon, "POST", "/service/v1/end-acquisition/123", "", b"").with(200);
    // (0, 1) has no content: section 5 is not served yet.
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123&section=5")), "NO_TILE_READY_IN_SECTION");
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123&section=6")), "TILE_FOUND");
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123&section=6")), "SERVED_ALL_SECTION");
    assert_eq!(
        result_type(&next_tile(&daemon, "section=6")),
        "NO_TILE_READY_IN_SECTION",
        "an acquisition must be named"
    );
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123")), "NO_TILE_READY");
    put(&daemon, 123, &name(0, 1), b"late");
    assert_eq!(handed_out(&next_tile(&daemon, "acqid=123")), ["123.000.001.5.0"]);
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123")), "SERVED_ALL_ACQ");
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123&section=-1")), "SERVED_ALL_ACQ");
    assert_eq!(result_type(&next_tile(&daemon, "acqid=123&newState=OTHER")), "NO_TILE_READY");
}

#[test]
fn tiles_are_handed_out_by_time_of_acquisition_then_section_column_and_row() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let mut wanted = Vec::new();
    for (acq, day) in [(7, "02/02/2026"), (9, "01/01/2026"), (8, "03/03/2026")] {
        start(&daemon, acq, &log_of("leaf", day, "p"));
        // Two ROIs of one section among them, with places that lie between each other.
        let rois: [(&str, &[(u32, u32)]); 3] = [
            ("Z.20", &[(2, 70), (2, 1), (0, 5)]),
            ("B.3", &[(1, 1), (0, 9), (5, 5)]),
            ("A.3", &[(0, 8), (1, 0), (5, 5)]),
        ];
        create_rois(&daemon, acq, &rois).with(200);
        for (col, row) in rois.iter().flat_map(|(_, places)| places.iter()) {
            put(&daemon, acq, &name(*col, *row), b"x");
        }
    }
    for acq in [9, 7, 8] {
        for (col, row) in [(0, 8), (0, 9), (1, 0), (1, 1), (5, 5), (5, 5)] {
            wanted.push(format!("{acq}.{col:03}.{row:03}.3"));
        }
        for (col, row) in [(0, 5), (2, 1), (2, 70)] {
            wanted.push(format!("{acq}.{col:03}.{row:03}.20"));
        }
    }
    let mut found = Vec::new();
    // In portions that end anywhere.
    for portion in (1..=7).cycle() {
        let ids = handed_out(&next_tile(&daemon, &format!("ntiles={portion}")));
        if ids.is_empty() {
            break;
        }
        found.extend(ids.into_iter().map(|id| id.rsplit_once('.').expect("prev").0.to_owned()));
    }
    assert_eq!(found, wanted);
}

#[test]
fn eight_callers_at_once_never_get_one_tile_twice() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let places: Vec<(u32, u32)> = (0..300).map(|n| (n % 10, n / 10)).collect();
    create_rois(&daemon, 123, &[("5", &places), ("6", &places[..100])]).with(200);
    let mut connection = daemon.connect();
    places.iter().for_each(|(col, row)| connection.send(&frame(key(*col, *row), b"x")));
    places.iter().for_each(|_| assert_eq!(connection.answer().status, 0));
    let take = |n: usize| {
        let mut mine = Vec::new();
        loop {
            let ids = handed_out(&next_tile(&daemon, &format!("ntiles={}", n % 3 * 10 + 1)));
            if ids.is_empty() {
                return mine;
            }
            mine.extend(ids);
        }
    };
    let taken: Vec<String> = std::thread::scope(|scope| {
        let take = &take;
        let callers: Vec<_> = (0..8).map(|n| scope.spawn(move || take(n))).collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect()
    });
    assert_eq!(taken.len(), 400);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 400, "a tile was handed out twice");
}

#[test]
fn tiles_that_arrive_meanwhile_are_handed_out_once_too() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=2"]);
    let places: Vec<(u32, u32)> = (0..600).map(|n| (n / 60, n % 60)).collect();
    create_rois(&daemon, 123, &[("5", &places)]).with(200);
    let taken: Vec<String> = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut client = daemon.client(4);
            // Last first: what comes later is earlier in the order.
            for (col, row) in places.iter().rev() {
                client.send(&super::support::tile(key(*col, *row), b"x"), 0).expect("sent");
            }
            while client.receive().expect("an answer").is_some() {}
        });
        let mut taken = Vec::new();
        while taken.len() < places.len() {
            taken.extend(handed_out(&next_tile(&daemon, "ntiles=500&tile-from=20000101000000")));
        }
        sender.join().expect("a sender");
        taken
    });
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), places.len(), "a tile was handed out twice");
}

#[test]
fn filters_states_and_numbers_of_next_tile_are_obeyed() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    for (acq, project) in [(1, "p1"), (2, "p2")] {
        start(&daemon, acq, &log_of(&format!("s{acq}"), "01/01/2026", project));
        create_rois(&daemon, acq, &[("5", &[(0, 0), (0, 1)]), ("6", &[(0, 0)])]).with(200);
        put(&daemon, acq, &name(0, 0), b"x");
        put(&daemon, acq, &name(0, 1), b"x");
        put(&daemon, acq, "Dump_cam0_frame000003_col0000_row0000.tif", b"x");
    }
    let back = |ids: &[String]| drop(set_state(&daemon, "READY", ids).with(200));
    for (query, wanted) in [
        ("project=p2", vec!["2.000.000.5.0", "2.000.001.5.0", "2.000.000.6.0"]),
        ("sample=s1&section=6", vec!["1.000.000.6.0"]),
        ("stack=p1-stack&owner=p1-owner&mosaic-type=tiny&section=6", vec!["1.000.000.6.0"]),
        ("stack=p1-stack&owner=p2-owner", vec![]),
        ("mosaic-type=huge", vec![]),
        ("acqid=2&section=5", vec!["2.000.000.5.0", "2.000.001.5.0"]),
        ("acqid=2&project=p1", vec![]),
        ("acqid=1&frame-type=drift", vec!["1.000.000.5.0.3", "1.000.000.6.0.3"]),
        ("acqid=1&section=6&frame-type=all", vec!["1.000.000.6.0", "1.000.000.6.0.3"]),
        ("tile-to=20000101000000", vec![]),
        ("acqid=1&section=6&tile-from=20000101000000.000&tile-to=21000101000000.123456", vec!["1.000.000.6.0"]),
        ("acqid=&section=&ntiles=&project=p1&oldState=", vec!["1.000.000.5.0"]),
    ] {
        let limit = if query.contains("ntiles") { "" } else { "&ntiles=100" };
        let ids = handed_out(&next_tile(&daemon, &format!("{query}{limit}")));
        assert_eq!(ids, wanted, "{query}");
        back(&ids);
    }
    // Parameters may come as a form in the body.
    let form = ask(&daemon, "POST", "/service/v1/next-tile/", "", b"acqid=2&ntiles=2&newState=MINE").with(200).json();
    assert_eq!(handed_out(&form).len(), 2);
    assert_eq!(listed(&daemon, "/service/v1/tiles?tile-state=MINE").len(), 2);
    let moved = next_tile(&daemon, "oldState=MINE&newState=YOURS%20NOW&ntiles=9");
    assert_eq!(handed_out(&moved).len(), 2);
    assert_eq!(listed(&daemon, "/service/v1/tiles?tile-state=YOURS+NOW").len(), 2);
    assert_eq!(next_tile(&daemon, "acqid=1&ntiles=5000")["nTilesRequested"], 1000, "at most 1000");
    for bad in [
        "ntiles=0",
        "ntiles=-1",
        "ntiles=x",
        "section=-2",
        "section=x",
        "acqid=-1",
        "lease=-1",
        "lease=99999999999",
        "frame-type=wobbly",
        "tile-from=yesterday",
        "tile-from=20260102000000&tile-to=20260101000000",
        "newState=a%0Ab",
    ] {
        ask(&daemon, "POST", &format!("/service/v1/next-tile?{bad}"), "", b"").refused(400);
    }
}

#[test]
fn a_lease_returns_tiles_when_it_is_over_and_not_before_even_after_a_restart() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1), (0, 2), (0, 3)])]).with(200);
    for row in 0..4 {
        put(&daemon, 123, &name(0, row), b"x");
    }
    let long = handed_out(&next_tile(&daemon, "lease=3600"));
    let never = handed_out(&next_tile(&daemon, "lease=0"));
    let began = Instant::now();
    let short = handed_out(&next_tile(&daemon, "lease=2&ntiles=2"));
    let finished = set_state(&daemon, "COMPLETE", &short[..1]).with(200);
    assert_eq!(finished.json()["nUpdates"], 1);
    assert_eq!((long.len(), short.len(), never.len()), (1, 2, 1));
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[]);
    await_state(&daemon, "READY", 1);
    assert!(began.elapsed().as_secs_f64() >= 2.0, "it came back too early");
    assert_eq!(handed_out(&next_tile(&daemon, "ntiles=9")), short[1..], "it is handed out again");
    assert_eq!(listed(&daemon, "/service/v1/tiles?tile-state=IN_PROGRESS").len(), 3);
    assert_eq!(listed(&daemon, "/service/v1/tiles?tile-state=COMPLETE").len(), 1, "what was finished stays so");
    daemon.stop();
    // The configured lease is that of who names none.
    let daemon = Daemon::start_bare(data.path(), &["http.lease=1s"]);
    let ids = handed_out(&next_tile(&daemon, "oldState=COMPLETE&newState=AGAIN"));
    assert_eq!(ids.len(), 1);
    await_state(&daemon, "COMPLETE", 1);
    handed_out(&next_tile(&daemon, "oldState=COMPLETE&newState=AGAIN&lease=0"));
    assert_eq!(listed(&daemon, "/service/v1/tiles?tile-state=AGAIN").len(), 1);
}

#[test]
fn tile_state_changes_all_or_nothing_and_passes_over_unknown_ids() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1)]), ("6", &[(0, 0)])]).with(200);
    let set = |state: &str, ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        set_state(&daemon, state, &ids)
    };
    let states = || {
        let all = listed(&daemon, "/service/v1/tiles?include-all=true");
        all.into_iter().map(|tile| tile.4).collect::<Vec<_>>()
    };
    let updates = |answer: super::web::Answer| answer.with(200).json();
    assert_eq!(
        updates(set("COMPLETE", &["123.000.000.5.0", "123.0.1.5.0", "123.000.000.6.0"])),
        json!({"nUpdates": 3})
    );
    assert_eq!(states(), ["COMPLETE"; 3]);
    let unknown = ["9.000.000.5.0", "123.007.000.5.0", "123.000.000.7.0", "123.000.000.5.1", "123.000.000.5.0.4"];
    assert_eq!(updates(set("FAILED", &unknown)), json!({"nUpdates": 0}));
    assert_eq!(updates(set("FAILED", &[])), json!({"nUpdates": 0}));
    for malformed in
        ["", "123", "123.0.0.5", "a.b.c.d.e", "123.0.0.5.-1", "123.0.0.5.0.0.0", "99999999999999999999.0.0.5.0"]
    {
        set("FAILED", &["123.000.000.5.0", malformed]).refused(400);
    }
    set("", &["123.000.000.5.0"]).refused(400);
    set("a\nb", &["123.000.000.5.0"]).refused(400);
    set(&"x".repeat(65), &["123.000.000.5.0"]).refused(400);
    for body in [
        "",
        "[]",
        "{}",
        "{\"state\":5,\"tileSpecIds\":[]}",
        "{\"state\":\"A\"}",
        "{\"tileSpecIds\":[]}",
        "{\"state\":\"A\",\"tileSpecIds\":[5]}",
        "{\"state\":\"A\",\"tileSpecIds\":\"x\"}",
    ] {
        ask(&daemon, "PUT", "/service/v1/tile-state", "", body.as_bytes()).refused(400);
    }
    assert_eq!(states(), ["COMPLETE"; 3], "a refused change changes nothing");
    let body = "{\"state\":\"B\",\"tileSpecIds\":[\"123.000.000.6.0\"]}";
    ask(&daemon, "PUT", "/service/v1/tile-state/", "Content-Type: text/plain\r\n", body.as_bytes()).with(200);
    assert_eq!(listed(&daemon, "/service/v1/tiles?include-all=1&tile-state=B").len(), 1);
}

#[test]
fn a_stored_tile_is_never_put_back_into_create() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1)])]).with(200);
    put(&daemon, 123, &name(0, 0), b"x");
    let ids = ["123.000.000.5.0", "123.000.001.5.0"].map(str::to_owned);
    set_state(&daemon, "FAILED", &ids).with(200);
    set_state(&daemon, "CREATE", &ids).with(200);
    let states = listed(&daemon, "/service/v1/tiles?include-all=true").into_iter().map(|tile| tile.4);
    assert_eq!(states.collect::<Vec<_>>(), ["READY", "CREATE"], "CREATE says that the content has not come");
}

#[test]
fn a_hundred_thousand_states_change_at_once() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let places: Vec<(u32, u32)> = (0..100_000).map(|n| (n / 500, n % 500)).collect();
    create_rois(&daemon, 123, &[("5", &places)]).with(200);
    let ids: Vec<String> = places.iter().map(|(col, row)| format!("123.{col:03}.{row:03}.5.0")).collect();
    assert_eq!(set_state(&daemon, "SKIPPED", &ids).with(200).json()["nUpdates"], 100_000);
    let counts = |daemon: &Daemon| get_json(daemon, "/api/v1/acquisitions/123")["states"].clone();
    assert_eq!(counts(&daemon), json!({"SKIPPED": 100_000}));
    let path = "/service/v1/tiles?include-all=true&tile-state=SKIPPED&flat=true";
    assert_eq!(get_json(&daemon, &format!("{path}&length=200000"))["length"], 100_000);
    assert_eq!(get_json(&daemon, path)["length"], 1000, "what is given when no length is asked for");
    daemon.kill();
    assert_eq!(counts(&Daemon::start_bare(data.path(), &[])), json!({"SKIPPED": 100_000}));
}

fn field_log(cameras: u32) -> String {
    let rest = if cameras == 4 { "TRUE" } else { "FALSE" };
    format!(
        "[General]\nSample name = s\n[Camera Connections]\nAcq1 = TRUE\nAcq2 = {rest}\nAcq3 = {rest}\nAcq4 = {rest}\n\
         [Mosaic Settings]\nX sm step (pix) = 1000\nY sm step (pix) = 900\nX big step (pix) = 3000\nY big step (pix) = 2500\n\
         Number of X steps = 10\nNumber of Y steps = 8\nCenter X (m) = -2E-5\nCenter Y (m) = 3E-5\nTEM Y (m) = -1E-5\n\
         [TEM Settings]\nPixels per um = 200\nMagnification = 3000\n[Machine IDs]\nTEM IP address = \"192.0.2.7\"\n"
    )
}

#[test]
fn a_tilespec_has_every_field_of_the_contract() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &["http.public_url=http://catcher:5001/"]);
    let temca = json!({"tem_ip_address": "192.0.2.7", "cameras": [
        {"camera": 1, "width": 100, "height": 50, "mask_url": "file:/masks/1.png"}]});
    ask(&daemon, "PUT", "/service/v1/temca/3", "", temca.to_string().as_bytes()).with(200);
    let calibration = json!([{"id": "lens-31", "type": "list",
        "metadata": {"calibration_data": "260101", "group": "lens", "temca": "3", "camera": "1"},
        "specList": [{"className": "x", "dataString": "1"}]}]);
    ask(&daemon, "POST", "/service/v1/calibrations", "", calibration.to_string().as_bytes()).with(200);
    start(&daemon, 7, &field_log(1));
    start(&daemon, 8, &field_log(4));
    for acq in [7, 8] {
        create_rois(&daemon, acq, &[("A.5800", &[(6, 5), (7, 5), (8, 5)])]).with(200);
    }
    let configured = put(&daemon, 7, "col6_row5_cam1.tif", b"II*\0 is no whole TIFF");
    let by_header = put(&daemon, 7, "col7_row5_cam0.tif", &encode_gray8(64, 32, &[7; 64 * 32]).expect("a TIFF"));
    let by_default = put(&daemon, 7, "col8_row5_cam0.tif", b"no TIFF at all");
    let spec = |id: u64, col: u32, camera: u32, size: (u32, u32), more: Value| {
        // By hand: x0 = 20 um x 200 = 4000; y0 = 20 um x 200 = 4000.
        let (x, y) = (4000.0 - 5000.0 + f64::from(col) * 1000.0, 4000.0 - 3600.0 + 5.0 * 900.0);
        let mut spec = json!({
            "tileId": format!("7.{col:03}.005.5800.0"), "width": size.0, "height": size.1, "z": 5800.0,
            "mipmapLevels": {"0": {"imageUrl": format!("http://catcher:5001/service/v1/tile/{id}/content")}},
            "layout": {"camera": camera, "imageCol": col, "imageRow": 5, "sectionId": "5800.0", "temca": "3",
                "stageX": x, "stageY": y, "rotation": 0},
            "transforms": {"type": "list", "specList": [{"type": "leaf",
                "className": "mpicbg.trakem2.transform.AffineModel2D",
                "dataString": format!("1.0 0.0 0.0 1.0 {x:.0} {y:.0}")}]}
        });
        if let Some(mask) = more.get("mask") {
            spec["mipmapLevels"]["0"]["maskUrl"] = mask.clone();
            let list = spec["transforms"]["specList"].as_array_mut().expect("a list");
            list.insert(0, json!({"type": "ref", "refId": "lens-31"}));
        }
        spec
    };
    let answer = next_tile(&daemon, "acqid=7&ntiles=9");
    let specs: Vec<&Value> =
        answer["results"].as_array().expect("results").iter().map(|tile| &tile["tilespec"]).collect();
    let near = |found: &Value, wanted: &Value| {
        let (mut found, mut wanted) = (found.clone(), wanted.clone());
        for axis in ["stageX", "stageY"] {
            let take = |spec: &mut Value| spec["layout"][axis].take().as_f64().expect("a number");
            let (found, wanted) = (take(&mut found), take(&mut wanted));
            assert!((found - wanted).abs() < 1e-6, "{axis} {found} is not {wanted}");
        }
        assert_eq!(found, wanted);
    };
    near(specs[0], &spec(configured, 6, 1, (100, 50), json!({"mask": "file:/masks/1.png"})));
    near(specs[1], &spec(by_header, 7, 0, (64, 32), json!({})));
    near(specs[2], &spec(by_default, 8, 0, (2560, 2160), json!({})));
    assert_eq!(specs[0]["z"].to_string(), "5800.0", "a float");
    put(&daemon, 8, "col6_row5_cam1.tif", b"x");
    let four = &next_tile(&daemon, "acqid=8")["results"][0]["tilespec"];
    assert_eq!(
        (&four["layout"]["sectionId"], &four["z"]),
        (&json!("5800.1"), &json!(5800.1)),
        "without a date the number says which is the earlier one"
    );
    let (x, y) = (4000.0 - 4000.0 * 2.5 + 4000.0 * 1.5 + 1000.0 * 2.0, 4000.0 - 3400.0 * 2.0 + 3400.0 * 1.25 + 900.0);
    assert!((four["layout"]["stageX"].as_f64().expect("x") - x).abs() < 1e-6, "{four}");
    assert!((four["layout"]["stageY"].as_f64().expect("y") - y).abs() < 1e-6, "{four}");
}

#[test]
fn calibrations_that_would_take_too_much_memory_are_refused_and_those_there_stay() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let post = |daemon: &Daemon, id: &str, zeros: usize| {
        let record = json!([{"id": id, "metadata": {"calibration_data": "260101", "temca": "2", "camera": "0"},
            "specList": vec![0; zeros]}]);
        ask(daemon, "POST", "/service/v1/calibrations", "", record.to_string().as_bytes())
    };
    assert!(post(&daemon, "long", 1 << 20).refused(413).contains("2097152"));
    let of_temca = |temca: u32| {
        json!({"id": temca.to_string(), "specList": [0],
            "metadata": {"calibration_data": "260101", "temca": temca.to_string(), "camera": "0"}})
    };
    let many = json!((1..1100).map(of_temca).collect::<Vec<Value>>()).to_string();
    let refused = ask(&daemon, "POST", "/service/v1/calibrations", "", many.as_bytes()).refused(400);
    assert!(refused.contains("1099 TEMCAs: at most 1000"), "{refused}");
    // Two bytes of text each, and a multiple of that in memory.
    let most = 1_000_000;
    ["a", "b"].into_iter().for_each(|id| drop(post(&daemon, id, most).with(200)));
    assert!(post(&daemon, "c", most).refused(400).contains("at most 67108864"));
    post(&daemon, "b", most).with(200);
    post(&daemon, "d", 1).with(200);
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(get_json(&daemon, "/service/v1/calibrations")["length"], 3);
    post(&daemon, "e", most).refused(400);
    daemon.stop();
}

#[test]
fn calibrations_are_imported_all_or_none_and_by_name() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let record = |id: &str, date: &str| {
        json!({"id": id, "type": "list", "metadata": {"calibration_data": date, "group": "g", "temca": "2", "camera": "0"},
            "specList": [{"className": "c", "dataString": id}]})
    };
    let post = |body: &Value| ask(&daemon, "POST", "/service/v1/calibrations", "", body.to_string().as_bytes());
    let first = post(&json!([record("b", "260101"), record("a", "251231")])).with(200).json();
    assert_eq!(first["length"], 2);
    let b = &first["calibrations"][0];
    assert_eq!(
        (&b["name"], &b["calibration_date"], &b["content"]),
        (&json!("b"), &json!("20260101"), &record("b", "260101"))
    );
    assert!(b["id"].as_u64().is_some_and(|id| id > 0 && Some(id) != first["calibrations"][1]["id"].as_u64()));
    assert!(post(&json!([record("c", "260101"), record("d", "never")])).refused(400).starts_with("Record 1: "));
    for bad in ["{}", "", "[5]", "[", "null"] {
        ask(&daemon, "POST", "/service/v1/calibrations/", "", bad.as_bytes()).refused(400);
    }
    let again = post(&json!([record("b", "260202")])).with(200).json();
    assert_eq!(again["calibrations"][0]["id"], b["id"], "known by its name");
    let all = get_json(&daemon, "/service/v1/calibrations");
    assert_eq!((&all["length"], &all["calibrations"][1]), (&json!(2), &again["calibrations"][0]));
    assert_eq!(get_json(&daemon, "/service/v1/calibrations?offset=1&length=1")["calibrations"][0]["name"], "b");
    assert_eq!(get_json(&daemon, "/service/v1/calibration/name/b"), again["calibrations"][0]);
    let none = get(&daemon, "/service/v1/calibration/name/none").with(404);
    assert_eq!(none.json(), json!({}));
    assert_eq!(post(&json!([])).with(200).json(), json!({"length": 0, "calibrations": []}));
    let many: Vec<Value> = (0..2500).map(|n| record(&format!("n{n:04}"), "260101")).collect();
    post(&json!(many)).with(200);
    let listed = get_json(&daemon, "/service/v1/calibrations?length=5000");
    let ids = listed["calibrations"].as_array().expect("a list").iter().map(|one| one["id"].as_u64().expect("an id"));
    assert_eq!(ids.collect::<BTreeSet<_>>().len(), 2502, "every calibration has an id of its own");
}

#[test]
fn temcas_are_described_over_http_or_in_the_file() {
    let data = data_dir();
    let file = data.path().join("catcher.toml");
    std::fs::write(
        &file,
        "[temca.5]\ntem_ip_address = \"192.0.2.9\"\n[[temca.5.cameras]]\ncamera = 0\nwidth = 11\nheight = 12\n",
    )
    .expect("written");
    let dir = data.path().join("data");
    let mut serve = command(&dir, &[]);
    serve.arg("--config").arg(&file);
    let daemon = Daemon::run(serve);
    let put = |id: &str, body: &str| ask(&daemon, "PUT", &format!("/service/v1/temca/{id}"), "", body.as_bytes());
    put("5", "{\"tem_ip_address\":\"192.0.2.1\"}").refused(409);
    let shape =
        put("6", "{\"tem_ip_address\":\"192.0.2.7\",\"cameras\":[{\"camera\":2,\"mask_url\":\"m\"}]}").with(200).json();
    assert_eq!(get_json(&daemon, "/service/v1/temca/6"), shape);
    let five = get_json(&daemon, "/service/v1/temca/5");
    assert_eq!((&five["in_configuration_file"], &five["cameras"][0]["width"]), (&json!(true), &json!(11)));
    let all = get_json(&daemon, "/service/v1/temcas");
    assert_eq!((&all["length"], &all["temcas"]), (&json!(2), &json!([five, shape])));
    for (id, body) in [
        ("0", "{\"tem_ip_address\":\"x\"}"),
        ("x", "{\"tem_ip_address\":\"x\"}"),
        ("-1", "{\"tem_ip_address\":\"x\"}"),
        ("7", "{}"),
        ("7", "nonsense"),
        ("7", "{\"tem_ip_address\":\"x\",\"unknown\":1}"),
        ("7", "{\"tem_ip_address\":\"x\",\"cameras\":[{\"camera\":1},{\"camera\":1}]}"),
        ("7", "{\"tem_ip_address\":\"x\",\"cameras\":[{\"camera\":1,\"width\":0}]}"),
        ("7", "{\"tem_ip_address\":\"x\",\"cameras\":[{\"camera\":-1}]}"),
    ] {
        put(id, body).refused(400);
    }
    get(&daemon, "/service/v1/temca/7").refused(404);
    // The log's address says which TEMCA took the tiles.
    start(&daemon, 1, &field_log(1).replace("192.0.2.7", "192.0.2.9"));
    start(&daemon, 2, &field_log(1));
    start(&daemon, 3, &field_log(1).replace("192.0.2.7", "192.0.2.99"));
    for (acq, temca) in [(1, 5), (2, 6), (3, 0)] {
        create_rois(&daemon, acq, &[("5", &[(0, 0)])]).with(200);
        let path = format!("/service/v1/capture-image-content/{acq}");
        let form = Form::new().file("tile-file", &name(0, 0), b"x");
        assert_eq!(form.post(&daemon, &path).with(200).json()["tile_temca"], temca);
        let tile = get_json(&daemon, &format!("/service/v1/acquisition/{acq}/tile/0/0"));
        assert_eq!(tile["tile_temca"], temca);
        let spec = &next_tile(&daemon, &format!("acqid={acq}"))["results"][0]["tilespec"];
        assert_eq!(spec["layout"]["temca"], temca.to_string());
        let size = if temca == 5 { (11, 12) } else { (2560, 2160) };
        assert_eq!((&spec["width"], &spec["height"]), (&json!(size.0), &json!(size.1)));
    }
}
