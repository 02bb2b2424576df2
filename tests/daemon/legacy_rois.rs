//! create-rois: which tiles lie in which sections, and in which state they are, whatever comes first.

use super::support::{Daemon, LOG, await_found, data_dir};
use super::web::{
    Form, ask, create_rois, dial, get, get_json, handed_out, head, listed, log_of, name, next_tile, put, read_answer,
    roi_files, set_state, start,
};
use std::io::Write;
use std::net::Shutdown;

const CREATE: &str = "/service/v1/create-rois/123";
const TILES: &str = "/service/v1/acquisition/123/tiles";

fn at(col: u64, row: u64, section: i64, state: &str) -> super::web::Entry {
    (col, row, -1, section, state.to_owned())
}

fn files(daemon: &Daemon) -> Vec<String> {
    let listing = get_json(daemon, "/service/v1/acquisition/123/files");
    let files = listing["files"].as_array().expect("files").iter();
    files.map(|file| super::web::text(&file["name"])).collect()
}

fn drift(frame: u32, col: u32, row: u32) -> String {
    format!("Dump_cam0_frame{frame:06}_col{col:04}_row{row:04}.tif")
}

#[test]
fn the_two_files_may_come_in_any_order_and_are_kept() {
    let (spec, table) = roi_files(&[("A.5800", &[(1, 2), (1, 3)])]);
    for swapped in [false, true] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &[]);
        let tiles = |form: Form| form.file("roi-tiles", "dir\\123_ROI_tiles.csv", table.as_bytes());
        let specs = |form: Form| form.file("roi-spec", "/dir/123_ROI_spec.ini", spec.as_bytes());
        let form = if swapped { specs(tiles(Form::new())) } else { tiles(specs(Form::new())) };
        let answer = form.text("surplus", b"x").post(&daemon, &format!("{CREATE}/")).with(200);
        assert_eq!(answer.json(), serde_json::json!({}));
        assert_eq!(
            listed(&daemon, &format!("{TILES}?include-all=true")),
            [at(1, 2, 5800, "CREATE"), at(1, 3, 5800, "CREATE")]
        );
        assert_eq!(files(&daemon), ["123_ROI_spec.ini", "123_ROI_tiles.csv"]);
        let kept = get(&daemon, "/service/v1/acquisition/123/files/123_ROI_tiles.csv").with(200);
        assert_eq!(kept.body, table.as_bytes());
        let acquisition = &get_json(&daemon, "/service/v1/acquisitions")["acquisitions"][0];
        assert_eq!(acquisition["RoiTilesFile"], "123_ROI_tiles.csv");
        assert_eq!(acquisition["RoiSpecFile"], "123_ROI_spec.ini");
    }
}

#[test]
fn who_closes_behind_a_whole_request_has_its_rois_and_who_half_closes_its_answer() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let sent = |acq: u64| {
        start(&daemon, acq, LOG);
        let (spec, table) = roi_files(&[("5", &[(0, 0), (0, 1)])]);
        let form = Form::new().file("roi-tiles", "t.csv", table.as_bytes()).file("roi-spec", "s.ini", spec.as_bytes());
        let form = form.bytes();
        let length = format!("{}Content-Length: {}\r\n", Form::HEADERS, form.len());
        let mut stream = dial(&daemon);
        let head = head("POST", &format!("/service/v1/create-rois/{acq}"), &length);
        stream.write_all(&[head.as_bytes(), &form].concat()).expect("sent");
        stream
    };
    for acq in 200..220 {
        let mut stream = sent(acq);
        stream.shutdown(Shutdown::Write).expect("half closed");
        read_answer(&mut stream).with(200);
    }
    for acq in 220..240 {
        drop(sent(acq));
        let path = format!("/service/v1/acquisition/{acq}/tiles?include-all=true");
        await_found(|| listed(&daemon, &path).len(), |found| *found == 2);
    }
    daemon.await_metric_that("tilecatcher_http_connections", |open| open <= 1.0);
}

#[test]
fn created_again_rois_are_what_they_were() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let rois: &[(&str, &[(u32, u32)])] = &[("5", &[(0, 0), (0, 1)]), ("6", &[(0, 1), (0, 2)])];
    create_rois(&daemon, 123, rois).with(200);
    put(&daemon, 123, &name(0, 0), b"x");
    put(&daemon, 123, &name(0, 1), b"x");
    let taken = handed_out(&next_tile(&daemon, "acqid=123&ntiles=2"));
    set_state(&daemon, "COMPLETE", &taken[..1]).with(200);
    let before = listed(&daemon, &format!("{TILES}?include-all=true"));
    create_rois(&daemon, 123, rois).with(200);
    assert_eq!(listed(&daemon, &format!("{TILES}?include-all=true")), before);
    assert_eq!(
        before,
        [at(0, 0, 5, "COMPLETE"), at(0, 1, 5, "IN_PROGRESS"), at(0, 1, 6, "READY"), at(0, 2, 6, "CREATE")]
    );
    // More of them are added; the old ones keep their states.
    create_rois(&daemon, 123, &[("6", &[(0, 1), (0, 0)]), ("9", &[(0, 0)])]).with(200);
    let after = listed(&daemon, &format!("{TILES}?include-all=true"));
    let mut wanted = before;
    wanted.extend([at(0, 0, 6, "READY"), at(0, 0, 9, "READY")]);
    let sorted = |mut entries: Vec<super::web::Entry>| {
        entries.sort();
        entries
    };
    assert_eq!(sorted(after), sorted(wanted));
}

#[test]
fn a_bad_table_leaves_no_roi_and_no_file() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let (spec, table) = roi_files(&[("A.5", &[(0, 0)])]);
    let send = |spec: &str, table: &str| {
        let form = Form::new().file("roi-tiles", "t_ROI_tiles.csv", table.as_bytes());
        form.file("roi-spec", "s_ROI_spec.ini", spec.as_bytes()).post(&daemon, CREATE)
    };
    assert!(send(&spec, &table.replace("A.5", "A.6")).refused(400).contains("bad section name"));
    send(&spec.replace("A.5", ".A"), &table).refused(400);
    send(&spec, "nonsense").refused(400);
    send("no equals", &table).refused(400);
    send(&spec, "").refused(400);
    send("", &table).refused(400);
    let tiles = || Form::new().file("roi-tiles", "t.csv", table.as_bytes());
    tiles().post(&daemon, CREATE).refused(400);
    Form::new().file("roi-spec", "s.ini", spec.as_bytes()).post(&daemon, CREATE).refused(400);
    tiles().text("roi-spec", spec.as_bytes()).post(&daemon, CREATE).refused(400);
    tiles().file("roi-spec", "..", spec.as_bytes()).post(&daemon, CREATE).refused(400);
    tiles()
        .file("roi-tiles", "t.csv", table.as_bytes())
        .file("roi-spec", "s.ini", spec.as_bytes())
        .post(&daemon, CREATE)
        .refused(400);
    ask(&daemon, "POST", CREATE, "", spec.as_bytes()).refused(400);
    create_rois(&daemon, 999, &[("5", &[(0, 0)])]).refused(400);
    ask(&daemon, "POST", "/service/v1/create-rois/x", "", b"").refused(400);
    assert_eq!(listed(&daemon, &format!("{TILES}?include-all=true")), []);
    assert_eq!(files(&daemon), [""; 0]);
    get(&daemon, "/service/v1/acquisition/999/tiles").refused(404);
}

#[test]
fn rows_of_the_table_count_as_the_field_writes_them() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let (spec, table) = roi_files(&[("5800", &[(1, 1)]), (".A.001", &[(1, 2)]), ("456.B.123", &[(1, 3)])]);
    let table = table + "7\r\n2,2,-1,1,0,0,\r\nx,2,0,0,1,1,5800\r\n2,3,0\r\n2,4,1,0,1,1,   5800,more\r\n";
    // A row that counts must name a section; this one is short, so it names none.
    let form = |table: &str| {
        let form = Form::new().file("roi-tiles", "t.csv", table.as_bytes());
        form.file("roi-spec", "s.ini", spec.as_bytes()).post(&daemon, CREATE)
    };
    form(&table).refused(400);
    form(&table.replace("2,3,0\r\n", "2,3,-1\r\n")).with(200);
    let wanted = [at(1, 1, 5800, "CREATE"), at(1, 2, 1, "CREATE"), at(1, 3, 123, "CREATE"), at(2, 4, 5800, "CREATE")];
    assert_eq!(listed(&daemon, &format!("{TILES}?include-all=true")), wanted);
}

#[test]
fn content_makes_a_roi_tile_ready_whichever_comes_first() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    put(&daemon, 123, &name(0, 0), b"before");
    assert_eq!(listed(&daemon, TILES), [at(0, 0, -1, "READY")]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1)])]).with(200);
    assert_eq!(listed(&daemon, TILES), [at(0, 0, 5, "READY")]);
    assert_eq!(listed(&daemon, &format!("{TILES}?include-all=true&tile-state=CREATE")), [at(0, 1, 5, "CREATE")]);
    put(&daemon, 123, &name(0, 1), b"behind");
    assert_eq!(listed(&daemon, TILES), [at(0, 0, 5, "READY"), at(0, 1, 5, "READY")]);
    assert_eq!(listed(&daemon, &format!("{TILES}?include-all=true&tile-state=CREATE")), []);
}

#[test]
fn a_tile_in_two_sections_is_listed_twice_and_is_one_by_its_place() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("B.9", &[(3, 4)]), ("A.7", &[(3, 4)])]).with(200);
    let id = put(&daemon, 123, &name(3, 4), b"x");
    assert_eq!(listed(&daemon, TILES), [at(3, 4, 7, "READY"), at(3, 4, 9, "READY")]);
    for path in ["/service/v1/acquisition/123/tile/3/4".to_owned(), format!("/service/v1/tile/{id}")] {
        let tile = get_json(&daemon, &path);
        assert_eq!((&tile["tile_id"], &tile["section"]), (&id.into(), &7.into()));
        assert_eq!(tile["sections"], serde_json::json!([7, 9]));
    }
    assert_eq!(handed_out(&next_tile(&daemon, "ntiles=5")), ["123.003.004.7.0", "123.003.004.9.0"]);
}

#[test]
fn drift_frames_lie_in_every_roi_of_their_stable_tile_whatever_came_first() {
    // The three things that come, in each order: ROIs, the stable tile, drift frames.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &[]);
        for step in order {
            match step {
                0 => drop(create_rois(&daemon, 123, &[("5", &[(2, 2)]), ("6", &[(2, 2), (2, 3)])]).with(200)),
                1 => {
                    put(&daemon, 123, &name(2, 2), b"stable");
                }
                _ => {
                    for frame in [0, 1, 70] {
                        put(&daemon, 123, &drift(frame, 2, 2), b"drift");
                    }
                }
            }
        }
        let frames = |frame, section| (2, 2, frame, section, "READY".to_owned());
        let wanted: Vec<_> = [0, 1, 70].into_iter().flat_map(|frame| [frames(frame, 5), frames(frame, 6)]).collect();
        assert_eq!(listed(&daemon, &format!("{TILES}?frame-type=drift")), wanted, "{order:?}");
        assert_eq!(listed(&daemon, &format!("{TILES}?frame-type=drift&include-all=true")), wanted, "{order:?}");
        assert_eq!(handed_out(&next_tile(&daemon, "ntiles=9")).len(), 2, "drift frames only when asked for");
        assert_eq!(handed_out(&next_tile(&daemon, "ntiles=9&frame-type=drift")).len(), 6);
    }
}

#[test]
fn a_drift_frame_may_come_before_anything_else_is_known_of_its_place() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    put(&daemon, 123, &drift(3, 1, 1), b"drift");
    create_rois(&daemon, 123, &[("5", &[(1, 1)])]).with(200);
    create_rois(&daemon, 123, &[("5", &[(1, 1)]), ("6", &[(1, 1)])]).with(200);
    let sections: Vec<i64> = listed(&daemon, &format!("{TILES}?frame-type=drift")).iter().map(|tile| tile.3).collect();
    assert_eq!(sections, [5, 6]);
    assert_eq!(next_tile(&daemon, "")["resultType"], "NO_TILE_READY", "the stable tile has no content");
}

#[test]
fn prev_counts_the_earlier_acquisitions_of_the_sample_that_hold_the_section() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    // By the time that the log gives, not by number.
    for (acq, sample, day) in [
        (30, "leaf", "01/01/2026"),
        (20, "leaf", "01/02/2026"),
        (99, "stone", "01/01/2026"),
        (10, "leaf", "01/03/2026"),
    ] {
        start(&daemon, acq, &log_of(sample, day, "p"));
        let other: &[(u32, u32)] = if acq == 20 { &[] } else { &[(1, 1)] };
        create_rois(&daemon, acq, &[("A.5", &[(0, 0)]), if acq == 20 { ("7", other) } else { ("A.6", other) }])
            .with(200);
        put(&daemon, acq, &name(0, 0), b"x");
        put(&daemon, acq, &name(1, 1), b"x");
    }
    let mut ids = handed_out(&next_tile(&daemon, "ntiles=100&sample=leaf"));
    assert_eq!(ids, ["30.000.000.5.0", "30.001.001.6.0", "20.000.000.5.1", "10.000.000.5.2", "10.001.001.6.1"]);
    ids = handed_out(&next_tile(&daemon, "ntiles=100"));
    assert_eq!(ids, ["99.000.000.5.0", "99.001.001.6.0"]);
}

#[test]
fn rois_are_bounded_by_what_they_take_of_memory() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    put(&daemon, 123, &name(0, 0), b"II*\0");
    let names: Vec<String> = (0..65).map(|n| format!("r{n}.{n}")).collect();
    let at_one_place = |count: usize| -> Vec<(&str, &[(u32, u32)])> {
        names[..count].iter().map(|name| (name.as_str(), &[(0, 0), (0, 1)][..])).collect()
    };
    assert!(create_rois(&daemon, 123, &at_one_place(65)).refused(400).contains("at most 64"));
    create_rois(&daemon, 123, &at_one_place(64)).with(200);
    create_rois(&daemon, 123, &at_one_place(64)).with(200);
    let one_more: &[(&str, &[(u32, u32)])] = &[("more.1", &[(0, 1)])];
    assert!(create_rois(&daemon, 123, one_more).refused(400).contains("65 ROIs"));
    // A column each: every place is a block of its own.
    let wide: Vec<(u32, u32)> = (0..(1 << 18) + 1).map(|col| (col, 7)).collect();
    start(&daemon, 124, LOG);
    assert!(create_rois(&daemon, 124, &[("wide.1", &wide)]).refused(400).contains("too widely"));
    create_rois(&daemon, 124, &[("wide.1", &wide[..1000])]).with(200);
    // Named again and again, a tile is one.
    let ids = vec!["123.000.000.5.0".to_owned(); 1000];
    assert_eq!(set_state(&daemon, "SEEN", &ids).with(200).json()["nUpdates"], 1000);
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let in_state = listed(&daemon, "/service/v1/acquisition/123/tiles?tile-state=SEEN");
    assert_eq!(in_state.iter().map(|entry| entry.3).collect::<Vec<_>>(), [5]);
}

#[test]
fn the_mosaic_of_the_last_place_there_can_be_is_a_picture() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    start(
        &daemon,
        124,
        "[Camera Connections]\nAcq1=TRUE\nAcq2=FALSE\nAcq3=FALSE\nAcq4=FALSE\n[TEM Settings]\nPixels per um=250\n",
    );
    create_rois(&daemon, 124, &[("far.1", &[(u32::MAX, u32::MAX)])]).with(200);
    get(&daemon, "/api/v1/acquisitions/124/mosaic").with(200);
}
