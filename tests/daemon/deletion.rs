//! DELETE of an acquisition: asked for twice over, gone at once and for good.

use super::support::{Daemon, LOG, data_dir};
use super::web::{
    Form, ask, create_rois, get, get_json, handed_out, listed, log_of, name, next_tile, put, set_state, start,
};
use serde_json::json;

fn fill(daemon: &Daemon, acq: u64) -> Vec<u64> {
    start(daemon, acq, &log_of("leaf", "01/01/2026", &format!("p{acq}")));
    create_rois(daemon, acq, &[("5", &[(0, 0), (0, 1), (0, 2)])]).with(200);
    let ids = (0..2).map(|row| put(daemon, acq, &name(0, row), b"x")).collect();
    put(daemon, acq, &name(0, 0), b"second version");
    put(daemon, acq, "Dump_cam0_frame0_col0_row0.tif", b"x");
    let form = Form::new().file("ancillary-file", "a.csv", b"1");
    form.post(daemon, &format!("/service/v1/store-ancillary-files/{acq}")).with(200);
    ids
}

fn is_gone(daemon: &Daemon, acq: u64, ids: &[u64]) {
    for path in [
        format!("/service/v1/acquisition/{acq}/tiles"),
        format!("/service/v1/acquisition/{acq}/tile/0/0"),
        format!("/service/v1/acquisition/{acq}/tile/0/0/content"),
        format!("/service/v1/acquisition/{acq}/tile/0/0/content?version=1"),
        format!("/service/v1/acquisition/{acq}/files"),
        format!("/service/v1/acquisition/{acq}/files/a.csv"),
        format!("/service/v1/acquisition/{acq}/completeness"),
        format!("/api/v1/acquisitions/{acq}"),
        format!("/api/v1/acquisitions/{acq}/tiles"),
    ] {
        get(daemon, &path).refused(404);
    }
    for id in ids {
        for path in [
            format!("/service/v1/tile/{id}"),
            format!("/service/v1/tile/{id}/content"),
            format!("/service/v1/tile/{id}/content?version=1"),
            format!("/service/v1/verify-tile/{acq}/tile/{id}"),
            format!("/api/v1/tiles/{id}"),
            format!("/api/v1/contents/{id}-1"),
            format!("/api/v1/contents/{id}-2"),
        ] {
            get(daemon, &path).refused(404);
        }
    }
    assert_eq!(get_json(daemon, &format!("/service/v1/acquisitions?acqid={acq}"))["length"], 0);
    assert_eq!(get_json(daemon, &format!("/service/v1/projects?project=p{acq}"))["length"], 0);
    for query in ["", "&frame-type=all&include-all=true"] {
        assert_eq!(listed(daemon, &format!("/service/v1/tiles?acqid={acq}{query}")), []);
    }
    assert_eq!(next_tile(daemon, &format!("acqid={acq}"))["resultType"], "NO_TILE_READY");
    let states = set_state(daemon, "COMPLETE", &[format!("{acq}.000.000.5.0")]).with(200);
    assert_eq!(states.json(), json!({"nUpdates": 0}));
    let late = format!("/service/v1/capture-image-content/{acq}?tile-filename={}", name(0, 0));
    ask(daemon, "PUT", &late, "", b"late").refused(404);
}

#[test]
fn a_deletion_must_be_confirmed() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    put(&daemon, 123, &name(0, 0), b"x");
    for (path, status) in [
        ("/service/v1/acquisition/123", 400),
        ("/service/v1/acquisition/123?confirm=", 400),
        ("/service/v1/acquisition/123?confirm=124", 400),
        ("/service/v1/acquisition/123?confirm=yes", 400),
        ("/service/v1/acquisition/9?confirm=9", 404),
        ("/service/v1/acquisition/x?confirm=x", 400),
    ] {
        ask(&daemon, "DELETE", path, "", b"").refused(status);
    }
    assert_eq!(listed(&daemon, "/service/v1/tiles").len(), 1);
}

#[test]
fn a_deleted_acquisition_is_gone_at_once_and_its_ids_are_not_given_again() {
    let data = data_dir();
    let mut daemon = Daemon::start_bare(data.path(), &["storage.lanes=2"]);
    let kept = fill(&daemon, 1);
    let gone = fill(&daemon, 2);
    let highest = put(&daemon, 2, &name(0, 2), b"the last id of all");
    handed_out(&next_tile(&daemon, "acqid=2&lease=1"));
    let deleted = ask(&daemon, "DELETE", "/service/v1/acquisition/2?confirm=2", "", b"").with(200);
    assert_eq!(deleted.json(), json!({}));
    for end in ["live", "killed", "stopped"] {
        is_gone(&daemon, 2, &[&gone[..], &[highest]].concat());
        assert_eq!(listed(&daemon, "/service/v1/tiles").len(), 2, "the other one is there");
        assert_eq!(get(&daemon, &format!("/service/v1/tile/{}/content", kept[0])).with(200).body, b"second version");
        match end {
            "live" => daemon.kill(),
            _ => daemon.stop(),
        }
        daemon = Daemon::start_bare(data.path(), &["storage.lanes=2"]);
    }
    // Started again it is empty; nothing of the old one comes back, and its ids stay its own.
    start(&daemon, 2, LOG);
    assert_eq!(listed(&daemon, "/service/v1/acquisition/2/tiles?include-all=true&frame-type=all"), []);
    assert_eq!(get_json(&daemon, "/service/v1/acquisition/2/files")["length"], 0);
    assert_eq!(get_json(&daemon, "/api/v1/acquisitions/2")["tiles"], 0);
    let id = put(&daemon, 2, &name(0, 0), b"second version");
    assert!(id > highest, "id {id} was given before");
    assert_eq!(get_json(&daemon, &format!("/service/v1/tile/{id}"))["version"], 1);
    create_rois(&daemon, 2, &[("7", &[(0, 0)])]).with(200);
    assert_eq!(listed(&daemon, "/service/v1/acquisition/2/tiles"), [(0, 0, -1, 7, "READY".to_owned())]);
    assert_eq!(handed_out(&next_tile(&daemon, "acqid=2")), ["2.000.000.7.0"]);
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(listed(&daemon, "/service/v1/acquisition/2/tiles"), [(0, 0, -1, 7, "IN_PROGRESS".to_owned())]);
    get(&daemon, &format!("/service/v1/tile/{}", gone[0])).refused(404);
}
