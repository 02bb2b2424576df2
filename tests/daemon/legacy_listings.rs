//! Listings: filters, times, pages, order.

use super::support::{Daemon, data_dir, key, tile};
use super::web::{
    ask, create_rois, get, get_json, handed_out, listed, log_of, name, next_tile, put, set_state, start, text,
};
use serde_json::{Value, json};

const TILES: &str = "/service/v1/acquisition/123/tiles";

fn ids(daemon: &Daemon, query: &str) -> Vec<u64> {
    let listing = get_json(daemon, &format!("/service/v1/acquisitions?{query}"));
    let acquisitions = listing["acquisitions"].as_array().expect("acquisitions");
    assert_eq!(listing["length"], acquisitions.len());
    acquisitions.iter().map(|acquisition| acquisition["AcqUID"].as_u64().expect("a number")).collect()
}

fn three(daemon: &Daemon) {
    for (acq, sample, day, project) in
        [(1, "leaf", "01/31/2026", "p1"), (2, "leaf", "02/01/2026", "p2"), (3, "stone", "02/01/2026", "p1")]
    {
        start(daemon, acq, &log_of(sample, day, project));
    }
}

#[test]
fn acquisitions_are_filtered_and_paged() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    three(&daemon);
    // The logs say 10:46:49 UTC; the daemon of a test runs in the time zone of this machine.
    let zone = local_offset_h();
    let hour = |h: i64| format!("{:02}", (h + zone).rem_euclid(24));
    for (query, wanted) in [
        (String::new(), vec![1, 2, 3]),
        ("acqid=2".to_owned(), vec![2]),
        ("acqid=9".to_owned(), vec![]),
        ("sample=leaf".to_owned(), vec![1, 2]),
        ("project=p1&sample=leaf".to_owned(), vec![1]),
        ("owner=p2-owner".to_owned(), vec![2]),
        ("stack=p1-stack&mosaic-type=tiny".to_owned(), vec![1, 3]),
        ("mosaic-type=huge".to_owned(), vec![]),
        ("offset=1&length=1".to_owned(), vec![2]),
        ("offset=7".to_owned(), vec![]),
        ("length=0".to_owned(), vec![]),
        ("acq-from=20260201".to_owned(), vec![2, 3]),
        ("acq-to=20260201".to_owned(), vec![1]),
        ("acq-from=20260131&acq-to=20260201".to_owned(), vec![1]),
        ("sample=&acqid=".to_owned(), vec![1, 2, 3]),
        (format!("acq-from=20260201{}", hour(10)), vec![2, 3]),
        (format!("acq-from=20260201{}", hour(11)), vec![]),
        (format!("acq-from=20260201{}46", hour(10)), vec![2, 3]),
        (format!("acq-from=20260201{}47", hour(10)), vec![]),
        (format!("acq-from=20260201{}4649", hour(10)), vec![2, 3]),
        (format!("acq-from=20260201{}4650", hour(10)), vec![]),
        (format!("acq-from=20260201&acq-to=20260201{}4649", hour(10)), vec![]),
        (format!("acq-from=20260201&acq-to=20260201{}4650", hour(10)), vec![2, 3]),
    ] {
        assert_eq!(ids(&daemon, &query), wanted, "{query}");
    }
    for bad in [
        "acq-from=2026",
        "acq-from=20261301",
        "acq-from=2026020",
        "acq-to=x",
        "acq-from=20260202&acq-to=20260201",
        "offset=-1",
        "length=-1",
        "length=x",
        "acqid=x",
        "acqid=-1",
        "offset=99999999999999999999",
    ] {
        get(&daemon, &format!("/service/v1/acquisitions?{bad}")).refused(400);
    }
}

/// Hours of local time ahead of UTC; whole ones are enough for a test.
fn local_offset_h() -> i64 {
    let out = std::process::Command::new("date").args(["-d", "2026-02-01", "+%z"]).output().expect("date runs");
    let hhmm: i64 = String::from_utf8_lossy(&out.stdout).trim().parse().expect("an offset");
    hhmm / 100
}

#[test]
fn an_acquisition_has_every_key_of_the_contract() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &["http.public_url=http://catcher:5001"]);
    let log = "[General]\nDate = \"02/28/2026     11:59:58 PM\"\nSample name = \"s\"\nMicroscopist name = m\nNotes = n\n\
        [Camera Connections]\nAcq1 = TRUE\nAcq2 = TRUE\nAcq3 = TRUE\nAcq4 = TRUE\n\
        [Mosaic Settings]\nX sm step (pix) = 1\nY sm step (pix) = -2\nX big step (pix) = 3\nY big step (pix) = 4\n\
        Number of X steps = 5\nNumber of Y steps = 6\nCenter X (m) = 0.5\nCenter Y (m) = -0.25\nTEM Y (m) = 0.125\n\
        [TEM Settings]\nMagnification = 3000\nPixels per um = 250.5\n[Machine IDs]\nTEM IP address = 192.0.2.7\n\
        [ImageCatcher]\nproject = p\nowner = o\nstack = k\nmosaicType = t\n";
    start(&daemon, 5, log);
    let mut acquisition = get_json(&daemon, "/service/v1/acquisitions")["acquisitions"][0].clone();
    for key in ["IniFileID", "ImageMosaicID"] {
        assert!(acquisition[key].take().is_u64());
    }
    let inserted = text(&acquisition["Inserted"].take());
    assert!(inserted.ends_with('Z') && inserted.contains('T'), "{inserted}");
    let wanted = json!({
        "IniFileID": null, "ImageMosaicID": null, "Acquired": "2026-02-28T23:59:58Z", "Inserted": null, "Completed": null,
        "AcqUID": 5, "NumberOfCameras": 4, "XSmallStepPix": 1, "YSmallStepPix": -2, "XBigStepPix": 3, "YBigStepPix": 4,
        "NXSteps": 5, "NYSteps": 6, "NTargetCols": 10, "NTargetRows": 12, "XCenter": 0.5, "YCenter": -0.25, "YTem": 0.125,
        "PixPerUm": 250.5, "Magnification": 3000.0, "TemIPAddress": "192.0.2.7",
        "URL": "http://catcher:5001/service/v1/acquisition/5/tiles", "SampleName": "s", "ProjectName": "p",
        "ProjectOwner": "o", "StackName": "k", "MosaicType": "t", "RoiTilesFile": "", "RoiSpecFile": "",
        "MicroscopistName": "m", "Notes": "n", "IniContent": log
    });
    assert_eq!(acquisition, wanted);
    ask(&daemon, "POST", "/service/v1/end-acquisition/5", "", b"").with(200);
    let completed = text(&get_json(&daemon, "/service/v1/acquisitions")["acquisitions"][0]["Completed"]);
    assert!(completed.ends_with('Z'), "{completed}");
    start(
        &daemon,
        6,
        &log.replace("TRUE", "true")
            .replace("Date", "Dated")
            .replacen("Acq2 = true", "Acq2 = FALSE", 1)
            .replace("Acq3 = true", "Acq3 = FALSE")
            .replace("Acq4 = true", ""),
    );
    let one = &get_json(&daemon, "/service/v1/acquisitions?acqid=6")["acquisitions"][0];
    assert_eq!((&one["NumberOfCameras"], &one["NTargetCols"], &one["NTargetRows"]), (&json!(1), &json!(5), &json!(6)));
    assert_eq!(one["Acquired"], "0001-01-01T00:00:00Z");
}

#[test]
fn projects_are_listed_once_and_filtered() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    three(&daemon);
    let projects = |query: &str| {
        let listing = get_json(&daemon, &format!("/service/v1/projects?{query}"));
        let projects = listing["projects"].as_array().expect("projects").clone();
        assert_eq!(listing["length"], projects.len());
        projects
    };
    let project = |name: &str| json!({"ProjectName": name, "ProjectOwner": format!("{name}-owner")});
    let (p1, p2) = (project("p1"), project("p2"));
    for (query, wanted) in [
        ("", vec![p1.clone(), p2.clone()]),
        ("project=p2", vec![p2.clone()]),
        ("owner=p1-owner&sample=stone", vec![p1.clone()]),
        ("stack=p1-stack&mosaic-type=tiny", vec![p1.clone()]),
        ("has-acq-to=20260201", vec![p1.clone()]),
        ("has-acq-from=20260201&sample=leaf", vec![p2.clone()]),
        ("offset=1", vec![p2.clone()]),
        ("length=1", vec![p1.clone()]),
        ("project=none", vec![]),
    ] {
        assert_eq!(projects(query), wanted, "{query}");
    }
    get(&daemon, "/service/v1/projects?has-acq-from=x").refused(400);
    get(&daemon, "/service/v1/projects?has-acq-from=20260202&has-acq-to=20260201").refused(400);
}

#[test]
fn acquisitions_are_found_by_the_states_of_their_tiles() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    three(&daemon);
    for acq in [1, 2] {
        create_rois(&daemon, acq, &[("5", &[(0, 0), (0, 1)])]).with(200);
    }
    put(&daemon, 1, &name(0, 0), b"x");
    set_state(&daemon, "COMPLETE", &["2.0.0.5.1".to_owned(), "2.0.1.5.1".to_owned()]).with(200);
    for (query, wanted) in [
        ("exists-tile-in-state=READY", vec![1]),
        ("exists-tile-in-state=CREATE", vec![1]),
        ("exists-tile-in-state=COMPLETE", vec![2]),
        ("exists-tile-in-state=UNHEARD", vec![]),
        ("all-tiles-in-state=CREATE", vec![]),
        ("all-tiles-in-state=COMPLETE", vec![2]),
        ("all-tiles-in-state=COMPLETE&exists-tile-in-state=COMPLETE&sample=leaf", vec![2]),
    ] {
        assert_eq!(ids(&daemon, query), wanted, "{query}");
    }
}

#[test]
fn a_tile_has_every_key_of_the_contract() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["http.public_url=http://catcher:5001"]);
    let id = put(&daemon, 123, "col7_row6_cam3.tif", b"image");
    let drift = put(&daemon, 123, "Dump_cam2_frame5_col7_row6.tif", b"drift");
    let listing = get_json(&daemon, &format!("{TILES}?frame-type=all"));
    let acquisition = &listing["acquisitions"][0];
    assert_eq!((&listing["n_returned_acqs"], &listing["n_returned_tiles_for_all_acqs"]), (&json!(1), &json!(2)));
    assert_eq!((&acquisition["acq_id"], &acquisition["n_tiles"]), (&json!(123), &json!(2)));
    assert_eq!(acquisition["acq_timestamp"], "2026-03-04T10:46:49Z");
    assert_eq!(acquisition["acq_completed"], Value::Null);
    let mut tiles = acquisition["tiles"].as_array().expect("tiles").clone();
    for tile in &mut tiles {
        let acquired = text(&tile["tile_acquired"].take());
        let (whole, micros) = acquired.split_once('.').expect("a fraction");
        assert_eq!((whole.len(), micros.len()), (14, 6), "{acquired}");
        assert!(tile["tile_jfs_key"].take().as_str().is_some_and(|key| !key.is_empty()));
    }
    let wanted = |id: u64, camera: i32, frame: i32, file: &str, image: &[u8]| {
        json!({
            "tile_acq_id": 123, "tile_temca": 0, "tile_id": id, "tile_col": 7, "tile_row": 6, "tile_camera": camera,
            "tile_frame": frame, "tile_jfs_path": format!("/acquisitions/123/{file}"), "tile_jfs_key": null,
            "tile_file_checksum": super::support::crc(image).to_string(),
            "image_url": format!("http://catcher:5001/service/v1/tile/{id}/content"), "tile_acquired": null,
            "state": "READY", "section": -1
        })
    };
    assert_eq!(tiles[0], wanted(id, 3, -1, "col0007_row0006_cam3.tif", b"image"));
    assert_eq!(tiles[1], wanted(drift, 2, 5, "Dump_cam2_frame000005_col0007_row0006.tif", b"drift"));
}

#[test]
fn tiles_are_filtered_by_place_camera_state_frame_and_time() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1), (1, 0), (1, 1)])]).with(200);
    for (col, row, cam) in [(0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 2, 3)] {
        put(&daemon, 123, &format!("col{col}_row{row}_cam{cam}.tif"), b"x");
    }
    put(&daemon, 123, "Dump_cam0_frame3_col0_row0.tif", b"x");
    handed_out(&next_tile(&daemon, "acqid=123"));
    let at = get_json(&daemon, "/service/v1/acquisition/123/tile/0/1");
    let at = text(&at["tile_acquired"]);
    let (whole, micros) = at.split_once('.').expect("a fraction");
    let places = |path: &str| -> Vec<(u64, u64, i64)> {
        listed(&daemon, path).into_iter().map(|tile| (tile.0, tile.1, tile.2)).collect()
    };
    let all = vec![(0, 0, -1), (0, 1, -1), (1, 0, -1), (2, 2, -1)];
    for (query, wanted) in [
        (String::new(), all.clone()),
        ("frame-type=stable".to_owned(), all.clone()),
        ("frame-type=drift".to_owned(), vec![(0, 0, 3)]),
        ("frame-type=all".to_owned(), [&all[..], &[(0, 0, 3)]].concat()),
        ("col=0".to_owned(), vec![(0, 0, -1), (0, 1, -1)]),
        ("row=0".to_owned(), vec![(0, 0, -1), (1, 0, -1)]),
        ("col=0&row=1".to_owned(), vec![(0, 1, -1)]),
        ("col=0&row=0&frame-type=all".to_owned(), vec![(0, 0, -1), (0, 0, 3)]),
        ("col=9&row=9".to_owned(), vec![]),
        ("camera=2".to_owned(), vec![(1, 0, -1)]),
        ("camera=2&col=0&row=0".to_owned(), vec![]),
        ("tile-state=IN_PROGRESS".to_owned(), vec![(0, 0, -1)]),
        ("tile-state=READY".to_owned(), vec![(0, 1, -1), (1, 0, -1), (2, 2, -1)]),
        ("tile-state=ready".to_owned(), vec![]),
        (format!("tile-from={at}"), all[1..].to_vec()),
        (format!("tile-to={at}"), all[..1].to_vec()),
        (format!("tile-from={whole}&tile-to=99991231235959"), all.clone()),
        (format!("tile-from={whole}.{}", &micros[..3]), vec![]),
        ("tile-from=29990101000000.000".to_owned(), vec![]),
        ("include-all=true".to_owned(), [&all[..], &[(1, 1, -1)]].concat()),
        ("include-all=false".to_owned(), all.clone()),
        ("include-all=true&tile-state=CREATE".to_owned(), vec![(1, 1, -1)]),
        ("include-all=true&col=1&row=1".to_owned(), vec![(1, 1, -1)]),
        ("include-all=true&frame-type=drift".to_owned(), vec![(0, 0, 3)]),
        ("offset=1&length=2".to_owned(), all[1..3].to_vec()),
        ("include-all=true&offset=3&length=2".to_owned(), vec![(2, 2, -1), (1, 1, -1)]),
        ("offset=99".to_owned(), vec![]),
        ("length=0".to_owned(), vec![]),
    ] {
        // Tiles of one millisecond may lie before and behind it, and within one second all may.
        if query.starts_with(&format!("tile-from={whole}")) && !query.contains(&at) {
            let found = places(&format!("{TILES}?{query}"));
            assert!(all[1..].iter().all(|place| found.contains(place)), "{query}: {found:?}");
            continue;
        }
        assert_eq!(places(&format!("{TILES}?{query}")), wanted, "{query}");
        assert_eq!(places(&format!("/service/v1/tiles?acqid=123&{query}")), wanted, "{query}");
    }
    for bad in [
        "col=-1",
        "row=x",
        "camera=x",
        "frame-type=x",
        "include-all=maybe",
        "flat=perhaps",
        "offset=-1",
        "length=-5",
        "tile-from=2026",
        "tile-from=20260101000000.1",
        "tile-from=20260102000000&tile-to=20260101000000",
        "tile-to=20260101000000.1234567",
    ] {
        get(&daemon, &format!("{TILES}?{bad}")).refused(400);
    }
    get(&daemon, "/service/v1/acquisition/9/tiles").refused(404);
    get(&daemon, "/service/v1/acquisition/x/tiles").refused(400);
    assert_eq!(get_json(&daemon, "/service/v1/tiles?acqid=9")["n_returned_acqs"], 0);
}

#[test]
fn tiles_of_many_acquisitions_are_grouped_and_filtered_by_them() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    three(&daemon);
    for n in [3, 1, 2, 1] {
        put(&daemon, n.into(), &name(n, 0), b"x");
        put(&daemon, n.into(), &name(0, n), b"x");
    }
    let groups = |query: &str| -> Vec<(u64, u64)> {
        let listing = get_json(&daemon, &format!("/service/v1/tiles?{query}"));
        let groups = listing["acquisitions"].as_array().expect("acquisitions").iter();
        let groups: Vec<(u64, u64)> = groups
            .map(|group| (group["acq_id"].as_u64().expect("a number"), group["n_tiles"].as_u64().expect("a number")))
            .collect();
        assert_eq!(listing["n_returned_acqs"], groups.len());
        assert_eq!(listing["n_returned_tiles_for_all_acqs"], groups.iter().map(|group| group.1).sum::<u64>());
        groups
    };
    assert_eq!(groups(""), [(1, 2), (2, 2), (3, 2)]);
    assert_eq!(groups("sample=leaf"), [(1, 2), (2, 2)]);
    assert_eq!(groups("project=p1&mosaic-type=tiny"), [(1, 2), (3, 2)]);
    assert_eq!(groups("owner=p2-owner&stack=p2-stack"), [(2, 2)]);
    assert_eq!(groups("offset=1&length=3"), [(1, 1), (2, 2)]);
    assert_eq!(groups("offset=4"), [(3, 2)]);
    assert_eq!(groups("acqid=3"), [(3, 2)]);
    assert_eq!(groups("col=0&row=2"), [(2, 1)]);
}

#[test]
fn pages_run_over_roi_tiles_in_the_order_of_time_under_parallel_senders() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=3", "http.listing_max=2000"]);
    let places: Vec<(u32, u32)> = (0..600).map(|n| (n % 6, n / 6)).collect();
    create_rois(&daemon, 123, &[("5", &places), ("6", &places), ("7", &places[..30])]).with(200);
    std::thread::scope(|scope| {
        for part in 0..6u32 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut client = daemon.client(8);
                for row in 0..100 {
                    client.send(&tile(key(part, row), b"x"), 0).expect("sent");
                }
                while client.receive().expect("an answer").is_some() {}
            });
        }
    });
    let page = |query: &str| {
        let listing = get_json(&daemon, &format!("{TILES}?flat=true{query}"));
        listing["tiles"].as_array().expect("tiles").clone()
    };
    let all = page("&length=5000");
    assert_eq!(all.len(), 1230);
    assert_eq!(page("").len(), 1000, "without a length there are 1000");
    let order = |tile: &Value| (text(&tile["tile_acquired"]), tile["tile_id"].as_u64(), tile["section"].as_i64());
    assert!(all.windows(2).all(|pair| text(&pair[0]["tile_acquired"]) <= text(&pair[1]["tile_acquired"])), "by time");
    let mut unique: Vec<_> = all.iter().map(order).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 1230, "each ROI tile once");
    for step in [1, 7, 333, 1000] {
        let upto = if step == 1 { 20 } else { 1230 };
        let pages: Vec<Value> =
            (0..upto).step_by(step).flat_map(|offset| page(&format!("&offset={offset}&length={step}"))).collect();
        assert!(pages[..] == all[..pages.len()] && pages.len() >= upto, "pages of {step}");
    }
}
