//! Completeness: what an acquisition should have, what it has, what is missing.

use super::support::{Daemon, data_dir};
use super::web::{ask, create_rois, get, get_json, put};
use serde_json::{Value, json};

const PATH: &str = "/service/v1/acquisition/123/completeness";

fn counts(expected: u64, received: u64) -> Value {
    json!({"expected": expected, "received": received, "missing": expected - received})
}

fn has(found: &Value, wanted: &Value) {
    for (key, value) in wanted.as_object().expect("an object") {
        assert_eq!(&found[key], value, "{key} in {found}");
    }
}

fn missing(found: &Value) -> Vec<(u64, u64)> {
    let places = found["missing_tiles"].as_array().expect("places").iter();
    places.map(|place| (place["col"].as_u64().expect("col"), place["row"].as_u64().expect("row"))).collect()
}

#[test]
fn rois_say_what_is_expected_by_section_and_camera() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let first: Vec<(u32, u32)> = (0..4).flat_map(|col| (0..4).map(move |row| (col, row))).collect();
    create_rois(&daemon, 123, &[("A.5", &first), ("A.6", &[(3, 3), (4, 0), (4, 100)])]).with(200);
    // Four cameras see the 2 x 2 pattern of even and odd places.
    for (col, row) in [(0, 0), (0, 1), (1, 0), (1, 1), (3, 3), (7, 7)] {
        put(&daemon, 123, &format!("col{col}_row{row}_cam{}.tif", col % 2 * 2 + row % 2), b"x");
    }
    put(&daemon, 123, "Dump_cam0_frame0_col2_row2.tif", b"a drift frame is no tile");
    let found = get_json(&daemon, &format!("{PATH}/"));
    has(&found, &counts(18, 5));
    has(&found, &json!({"acq_id": 123, "expected_by": "rois", "unexpected": 1, "offset": 0}));
    assert_eq!(found["sections"], json!({"5": counts(16, 5), "6": counts(3, 1)}));
    assert_eq!(found["cameras"], json!({"0": counts(6, 1), "1": counts(4, 1), "2": counts(4, 1), "3": counts(4, 2)}));
    let all = missing(&found);
    assert_eq!(all.len(), 13);
    assert_eq!(all[..4], [(0, 2), (0, 3), (1, 2), (1, 3)]);
    assert_eq!(found["missing_ranges"][0], json!({"col": 0, "first_row": 2, "last_row": 3}));
    assert_eq!(found["missing_ranges"][2], json!({"col": 2, "first_row": 0, "last_row": 3}));
    let pages: Vec<(u64, u64)> = (0..13)
        .step_by(5)
        .flat_map(|offset| missing(&get_json(&daemon, &format!("{PATH}?offset={offset}&length=5"))))
        .collect();
    assert_eq!(pages, all);
    assert_eq!(missing(&get_json(&daemon, &format!("{PATH}?offset=99"))), []);
    assert_eq!(missing(&get_json(&daemon, &format!("{PATH}?length=0"))), []);
    for bad in ["offset=-1", "length=-1", "offset=x"] {
        get(&daemon, &format!("{PATH}?{bad}")).refused(400);
    }
    get(&daemon, "/service/v1/acquisition/9/completeness").refused(404);
    get(&daemon, "/service/v1/acquisition/x/completeness").refused(400);
}

#[test]
fn without_rois_the_mosaic_says_what_is_expected() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let found = get_json(&daemon, PATH);
    has(&found, &counts(64, 0));
    has(&found, &json!({"expected_by": "mosaic", "unexpected": 0, "sections": {}, "cameras": {"-1": counts(64, 0)}}));
    assert_eq!(found["missing_ranges"][7], json!({"col": 7, "first_row": 0, "last_row": 7}));
    put(&daemon, 123, "col0_row0_cam0.tif", b"x");
    put(&daemon, 123, "col8_row0_cam1.tif", b"beyond");
    let found = get_json(&daemon, PATH);
    has(&found, &counts(64, 1));
    assert_eq!(found["unexpected"], 1);
    assert_eq!(missing(&found)[0], (0, 1));
}

#[test]
fn the_end_of_an_acquisition_tells_and_counts_what_is_missing() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("5", &[(0, 0), (0, 1)])]).with(200);
    let end =
        || ask(&daemon, "POST", "/service/v1/end-acquisition/123", "", b"").with(200).json()["completeness"].clone();
    let metrics = || {
        let of = |name: &str| daemon.metric(&format!("tilecatcher_{name}"));
        (of("acquisitions_ended_incomplete_total"), of("ended_missing_tiles_total"))
    };
    put(&daemon, 123, "col0_row0_cam0.tif", b"x");
    has(&end(), &counts(2, 1));
    assert_eq!(metrics(), (1.0, 1.0));
    put(&daemon, 123, "col0_row1_cam0.tif", b"x");
    let whole = end();
    has(&whole, &counts(2, 2));
    assert_eq!((&whole["expected_by"], &whole["sections"]), (&json!("rois"), &json!({"5": counts(2, 2)})));
    assert_eq!(metrics(), (1.0, 1.0));
}
