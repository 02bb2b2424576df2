//! capture-image-content: every way in which a client of the legacy service sends a tile, and what it is told.

use super::support::{Daemon, crc, data_dir, frame, key, noise};
use super::web::{
    Answer, Form, ask, create_rois, dial, get, get_json, handed_out, head, listed, name, next_tile, put, read_answer,
    send_raw, set_state, start,
};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Barrier;
use tilecatcher::client::{ChecksumChoice, checksum_of};
use tilecatcher::model::Checksum;

const CAPTURE: &str = "/service/v1/capture-image-content/123";
const KINDS: [ChecksumChoice; 4] =
    [ChecksumChoice::Crc32, ChecksumChoice::Md5, ChecksumChoice::Sha1, ChecksumChoice::Sha256];
/// Before a name.
const BAD: &str = "/service/v1/capture-image-content/123?tile-filename=";

fn content(daemon: &Daemon, col: u32, row: u32) -> Vec<u8> {
    get(daemon, &format!("/service/v1/acquisition/123/tile/{col}/{row}/content")).with(200).body
}

fn has_queue_status(answer: &Answer) {
    for name in ["system-status", "tile-queue-status", "content-queue-status"] {
        assert_eq!(answer.header(name), Some("GREEN"), "{name} in {}", answer.head);
    }
}

fn nothing_is_stored(daemon: &Daemon) {
    assert_eq!(get_json(daemon, "/service/v1/tiles?frame-type=all")["n_returned_tiles_for_all_acqs"], 0);
    assert_eq!(daemon.metric("tilecatcher_tiles_stored_total{as=\"new\"}"), 0.0);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
}

#[test]
fn a_raw_body_is_stored_by_put_and_post_whatever_type_it_claims() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    for (row, (method, kind)) in (0..).zip([
        ("PUT", ""),
        ("POST", ""),
        ("POST", "Content-Type: application/x-www-form-urlencoded\r\n"),
        ("PUT", "Content-Type: image/tiff\r\n"),
        ("POST", "Content-Type: application/json; charset=utf-8\r\n"),
        ("PUT", "Content-Type: nonsense\r\n"),
    ]) {
        let image = noise(u64::from(row), 70_000 + row as usize);
        for (path, image) in [("col0001%2F", &image), ("some/dir\\col0001/", &image)] {
            let path = format!("{CAPTURE}/?tile-filename={path}col0001_row{row:04}_cam2.tif");
            let answer = ask(&daemon, method, &path, kind, image).with(200);
            let json = answer.json();
            has_queue_status(&answer);
            let wanted = serde_json::json!({
                "tile_acq_id": 123, "tile_temca": 0, "tile_id": row + 1, "tile_col": 1, "tile_row": row,
                "tile_camera": 2, "tile_frame": -1
            });
            assert_eq!(json, wanted);
        }
        assert!(content(&daemon, 1, row) == image);
    }
    let drift =
        ask(&daemon, "PUT", &format!("{CAPTURE}?tile-filename=Dump_cam3_frame000007_col0001_row0002.tif"), "", b"d");
    assert_eq!((&drift.json()["tile_frame"], &drift.json()["tile_camera"]), (&7.into(), &3.into()));
}

#[test]
fn multipart_parts_may_come_in_every_order() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let kinds = KINDS.into_iter().cycle();
    for (col, (order, kind)) in (0u32..).zip(orders.into_iter().chain(orders).zip(kinds)) {
        let image = noise(u64::from(col), 10_000);
        let checksum = checksum_of(kind, &image);
        let form = |checksum: &Checksum| {
            order.iter().fold(Form::new().text("surplus", b"passed over"), |form, part| match part {
                0 => form.file("tile-file", "whatever.bin", &image),
                1 => form.text("tile-filename", format!("dir/{}", name(col, 5)).as_bytes()),
                _ if col < 6 => form.text("checksum", &checksum.to_wire()),
                _ => form.text("checksum-str", checksum.to_string().to_uppercase().as_bytes()),
            })
        };
        let wrong = checksum_of(kind, b"other");
        assert!(form(&wrong).post(&daemon, CAPTURE).refused(400).contains("checksum"));
        get(&daemon, &format!("/service/v1/acquisition/123/tile/{col}/5")).refused(404);
        let answer = form(&checksum).post(&daemon, CAPTURE).with(200);
        has_queue_status(&answer);
        assert_eq!(answer.json()["tile_col"], col);
        assert!(content(&daemon, col, 5) == image);
        let tile = get_json(&daemon, &format!("/service/v1/acquisition/123/tile/{col}/5"));
        assert_eq!(tile["tile_file_checksum"], checksum.to_string());
    }
    let unnamed = Form::new().file("tile-file", "dir/col0009_row0009_cam1.tif", b"x");
    assert_eq!(unnamed.post(&daemon, CAPTURE).with(200).json()["tile_col"], 9, "the file's own name is as good");
    let put = Form::new().file("tile-file", "x", b"x").text("tile-filename", name(9, 8).as_bytes()).bytes();
    ask(&daemon, "PUT", CAPTURE, Form::HEADERS, &put).with(200);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_or_refused_before_it_sends() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(1, 300_000);
    let expect = |path: &str, length: usize| {
        let mut stream = dial(&daemon);
        let headers = format!("Expect: 100-continue\r\nContent-Length: {length}\r\n");
        stream.write_all(head("PUT", path, &headers).as_bytes()).expect("sent");
        stream
    };
    let mut stream = expect(&format!("{CAPTURE}?tile-filename={}", name(0, 0)), image.len());
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&image).expect("sent");
    read_answer(&mut stream).with(200);
    assert!(content(&daemon, 0, 0) == image);
    for (path, length, status) in [
        (format!("/service/v1/capture-image-content/999?tile-filename={}", name(0, 1)), 300_000, 404),
        (format!("/service/v1/capture-image-content/x?tile-filename={}", name(0, 1)), 300_000, 400),
        (format!("{CAPTURE}?tile-filename=a.tif"), 300_000, 400),
        (format!("{CAPTURE}?tile-filename={}&checksum=abc", name(0, 1)), 300_000, 400),
        (CAPTURE.to_owned(), 300_000, 400),
        (format!("{CAPTURE}?tile-filename={}", name(0, 1)), 8 * 1024 * 1024 + 1, 413),
        (format!("{CAPTURE}?tile-filename={}", name(0, 1)), 1 << 30, 413),
    ] {
        read_answer(&mut expect(&path, length)).refused(status);
    }
    get(&daemon, "/service/v1/acquisition/123/tile/0/1").refused(404);
}

fn chunked(bytes: &[u8], step: usize) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    [bytes.chunks(step).flat_map(chunk).collect::<Vec<u8>>(), b"0\r\n\r\n".to_vec()].concat()
}

#[test]
fn a_body_without_a_length_is_stored_when_it_fits() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let send = |path: &str, headers: &str, body: &[u8], step: usize| {
        let head = head("PUT", path, &format!("Transfer-Encoding: chunked\r\n{headers}"));
        send_raw(&daemon, &[head.as_bytes(), &chunked(body, step)].concat())
    };
    // Less than, more than, and several times the buffer that is taken first.
    for (col, (len, step)) in
        (0..).zip([(1, 1), (5000, 7), (1 << 20, 65_536), ((1 << 20) + 9, 100_000), (5 << 20, 1 << 20)])
    {
        let image = noise(u64::from(col), len);
        let md5 = checksum_of(ChecksumChoice::Md5, &image);
        send(&format!("{CAPTURE}?tile-filename={}&checksum={md5}", name(col, 0)), "", &image, step).with(200);
        assert!(content(&daemon, col, 0) == image);
        let form = Form::new().text("tile-filename", name(col, 1).as_bytes()).file("tile-file", "x", &image).bytes();
        send(CAPTURE, Form::HEADERS, &form, step).with(200);
        assert!(content(&daemon, col, 1) == image);
    }
    let long = vec![0; (8 << 20) + 1];
    send(&format!("{CAPTURE}?tile-filename={}", name(9, 9)), "", &long, 1 << 20).refused(413);
    get(&daemon, "/service/v1/acquisition/123/tile/9/9").refused(404);
    daemon.await_metric("tilecatcher_buffer_bytes", 0.0);
}

#[test]
fn a_checksum_in_hex_of_each_kind_decides() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(1, 50_000);
    for (col, kind) in (0..).zip(KINDS) {
        let send = |checksum: &str| {
            let path = format!("{CAPTURE}?tile-filename={}&checksum={checksum}", name(col, 0));
            ask(&daemon, "PUT", &path, "", &image)
        };
        let checksum = checksum_of(kind, &image).to_string();
        let other = checksum_of(kind, b"other").to_string();
        assert!(send(&other).refused(400).contains(&other));
        for malformed in [&checksum[1..], &format!("{checksum}0"), &checksum.replace(&checksum[..1], "x"), "%20"] {
            send(malformed).refused(400);
        }
        get(&daemon, &format!("/service/v1/acquisition/123/tile/{col}/0")).refused(404);
        send(&checksum.to_uppercase()).with(200);
        let tile = get_json(&daemon, &format!("/service/v1/acquisition/123/tile/{col}/0"));
        assert_eq!(tile["tile_file_checksum"], checksum);
    }
    // Without one the stored CRC-32 is told.
    put(&daemon, 123, &name(7, 7), &image);
    let tile = get_json(&daemon, "/service/v1/acquisition/123/tile/7/7");
    assert_eq!(tile["tile_file_checksum"], crc(&image).to_string());
}

#[test]
fn what_is_no_tile_is_refused_and_nothing_is_stored() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let good = format!("{CAPTURE}?tile-filename={}", name(0, 0));
    let refuse = |path: &str, headers: &str, body: &[u8], status: u16| {
        let answer = ask(&daemon, "POST", path, headers, body);
        has_queue_status(&answer);
        answer.refused(status)
    };
    refuse(&good, "", b"", 400);
    for bad in
        ["", "x", "col1_row1_cam1", "col1_row1_cam1.tif.exe", "..%2F..%2Fetc%2Fpasswd", "col1_row1_cam1.tif%00", "%ff"]
    {
        refuse(&format!("{BAD}{bad}"), "", b"x", 400);
    }
    for beyond in ["col4294967296_row0_cam0.tif", "col4294967295_row0_cam0.tif", "col0_row2147483648_cam0.tif"] {
        refuse(&format!("{BAD}{beyond}"), "", b"x", 400);
    }
    refuse(CAPTURE, "", b"x", 400);
    for acq in ["999", "0"] {
        refuse(&good.replace("123", acq), "", b"x", 404);
    }
    for acq in ["-1", "x", "18446744073709551616", "%ff"] {
        ask(&daemon, "PUT", &good.replace("123", acq), "", b"x").refused(400);
    }
    let form = |form: Form| refuse(CAPTURE, Form::HEADERS, &form.bytes(), 400);
    form(Form::new());
    form(Form::new().text("tile-filename", b"col1_row1_cam1.tif"));
    form(Form::new().file("tile-file", "x", b"x"));
    form(Form::new().file("tile-file", "x", b"").text("tile-filename", name(0, 0).as_bytes()));
    form(Form::new().file("tile-file", "x", b"x").text("tile-filename", b"nonsense"));
    form(
        Form::new()
            .file("tile-file", "x", b"x")
            .file("tile-file", "x", b"x")
            .text("tile-filename", name(0, 0).as_bytes()),
    );
    for part in ["tile-filename", "checksum", "checksum-str"] {
        let twice = Form::new().file("tile-file", &name(0, 0), b"x").text(part, b"");
        form(twice.text(part, b""));
    }
    form(Form::new().file("tile-file", &name(0, 0), b"x").text("checksum", b"12345"));
    form(Form::new().file("tile-file", &name(0, 0), b"x").text("checksum-str", b"xyz"));
    refuse(&good, "", &vec![0; (8 << 20) + 1], 413);
    nothing_is_stored(&daemon);
}

#[test]
fn who_sends_all_before_reading_hears_why_it_was_refused() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    // More than the sockets' buffers hold, so that an answer without reading would be a reset connection.
    let (image, long) = (noise(1, 7 << 20), noise(2, 20 << 20));
    let good = format!("{CAPTURE}?tile-filename={}", name(0, 0));
    for (path, body, status) in [
        (format!("{BAD}nonsense"), &image, 400),
        (CAPTURE.to_owned(), &image, 400),
        (good.replace("123", "999"), &image, 404),
        (good.replace("123", "x"), &image, 400),
        (format!("{good}&checksum=xyz"), &image, 400),
        (good.clone(), &long, 413),
        ("/service/v1/nothing".to_owned(), &image, 404),
        ("/service/v1/ping".to_owned(), &image, 405),
    ] {
        ask(&daemon, "PUT", &path, "", body).refused(status);
    }
    let bad_form = Form::new().text("checksum-str", b"xyz").file("tile-file", &name(0, 0), &image);
    bad_form.post(&daemon, CAPTURE).refused(400);
    let twice = Form::new().file("tile-file", &name(0, 0), b"x").file("tile-file", &name(0, 0), &image);
    twice.post(&daemon, CAPTURE).refused(400);
    for path in ["start-acquisition", "create-rois/123", "next-tile"] {
        ask(&daemon, "POST", &format!("/service/v1/{path}"), "", &image).refused(if path == "next-tile" {
            413
        } else {
            400
        });
    }
    for path in ["end-acquisition/999", "store-ancillary-files/999", "create-rois/x"] {
        let form = Form::new().file("ancillary-file", "a.csv", &image);
        form.post(&daemon, &format!("/service/v1/{path}")).refused(400);
    }
    nothing_is_stored(&daemon);
}

#[test]
fn a_cut_body_leaves_nothing() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let image = noise(1, 100_000);
    let put = |headers: String, body: &[u8]| {
        let path = format!("{CAPTURE}?tile-filename={}", name(0, 0));
        [head("PUT", &path, &headers).as_bytes(), body].concat()
    };
    let form = Form::new().text("tile-filename", name(0, 0).as_bytes()).file("tile-file", "x", &image).bytes();
    let multipart = |body: &[u8]| {
        let headers = format!("{}Content-Length: {}\r\n", Form::HEADERS, form.len());
        [head("POST", CAPTURE, &headers).as_bytes(), body].concat()
    };
    let whole = chunked(&image, 1000);
    let cut = [
        put("Content-Length: 100000\r\n".to_owned(), &image[..99_999]),
        put("Content-Length: 100000\r\n".to_owned(), &image[..1]),
        put("Transfer-Encoding: chunked\r\n".to_owned(), &whole[..whole.len() - 5]),
        put("Transfer-Encoding: chunked\r\n".to_owned(), &whole[..whole.len() / 2]),
        multipart(&form[..form.len() - 5]),
        multipart(&form[..form.len() / 2]),
        multipart(&form[..40]),
    ];
    for request in &cut {
        let mut half = dial(&daemon);
        half.write_all(request).expect("sent");
        half.shutdown(Shutdown::Write).expect("half closed");
        // Some are answered, some only closed.
        let _ = half.read_to_end(&mut Vec::new());
        let mut gone = dial(&daemon);
        gone.write_all(request).expect("sent");
    }
    // Whole for HTTP, cut for multipart: these are answered.
    for end in [form.len() - 4, form.len() / 2, 40] {
        ask(&daemon, "POST", CAPTURE, Form::HEADERS, &form[..end]).refused(400);
    }
    nothing_is_stored(&daemon);
    super::web::put(&daemon, 123, &name(0, 0), &image);
    assert!(content(&daemon, 0, 0) == image);
}

#[test]
fn one_tile_sent_at_once_over_tcp_and_http_has_one_id() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=3", "http.threads=4"]);
    let barrier = Barrier::new(16);
    for round in 0..5u32 {
        let image = noise(u64::from(round), 100_000);
        let message = frame(key(round, 1), &image);
        let ids: BTreeSet<u64> = std::thread::scope(|scope| {
            let sender = |n: u32| {
                let (daemon, barrier, image, message) = (&daemon, &barrier, &image, &message);
                scope.spawn(move || {
                    if n.is_multiple_of(2) {
                        let mut connection = daemon.connect();
                        barrier.wait();
                        connection.send(message);
                        return connection.answer().tile.0;
                    }
                    barrier.wait();
                    put(daemon, 123, &format!("col{round}_row1_cam1.tif"), image)
                })
            };
            let senders: Vec<_> = (0..16).map(sender).collect();
            senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
        });
        assert_eq!(ids.len(), 1, "one tile got the ids {ids:?}");
    }
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 5.0);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 75.0);
}

#[test]
fn sent_again_a_tile_keeps_its_id_and_its_states() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("7", &[(0, 0)])]).with(200);
    let id = put(&daemon, 123, &name(0, 0), b"image");
    let ids = handed_out(&next_tile(&daemon, "acqid=123"));
    set_state(&daemon, "COMPLETE", &ids).with(200);
    assert_eq!(put(&daemon, 123, &name(0, 0), b"image"), id);
    assert_eq!(listed(&daemon, "/service/v1/tiles"), [(0, 0, -1, 7, "COMPLETE".to_owned())]);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 1.0);
}

#[test]
fn a_new_version_keeps_the_id_makes_its_tiles_ready_and_leaves_the_old_one_readable() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    create_rois(&daemon, 123, &[("7", &[(0, 0), (0, 1)]), ("8", &[(0, 0)])]).with(200);
    let id = put(&daemon, 123, &name(0, 0), b"first");
    put(&daemon, 123, &name(0, 1), b"other");
    let all = handed_out(&next_tile(&daemon, "acqid=123&ntiles=10"));
    assert_eq!(all.len(), 3);
    set_state(&daemon, "COMPLETE", &all).with(200);
    assert_eq!(put(&daemon, 123, &name(0, 0), b"second"), id);
    assert_eq!(put(&daemon, 123, &name(0, 0), b"third"), id);
    let again = handed_out(&next_tile(&daemon, "acqid=123&ntiles=10"));
    assert_eq!(again, ["123.000.000.7.0", "123.000.000.8.0"]);
    for (version, wanted) in [("", "third"), ("?version=1", "first"), ("?version=2", "second"), ("?version=3", "third")]
    {
        for path in
            [format!("/service/v1/tile/{id}/content"), "/service/v1/acquisition/123/tile/0/0/content".to_owned()]
        {
            assert_eq!(get(&daemon, &format!("{path}{version}")).with(200).body, wanted.as_bytes());
        }
    }
    for none in ["0", "4", "4294967295"] {
        get(&daemon, &format!("/service/v1/tile/{id}/content?version={none}")).refused(404);
    }
    get(&daemon, &format!("/service/v1/tile/{id}/content?version=-1")).refused(400);
    assert_eq!(get_json(&daemon, &format!("/service/v1/tile/{id}"))["version"], 3);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"replaced\"}", 2.0);
}

#[test]
fn a_tile_for_what_is_no_acquisition_is_counted_as_refused() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let path = format!("/service/v1/capture-image-content/x?tile-filename={}", name(0, 0));
    ask(&daemon, "PUT", &path, "", b"x").refused(400);
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"bad_key\"}", 1.0);
}

#[test]
fn by_policy_other_content_is_a_conflict() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.on_conflict=reject"]);
    put(&daemon, 123, &name(0, 0), b"first");
    let path = format!("{CAPTURE}?tile-filename={}", name(0, 0));
    ask(&daemon, "PUT", &path, "", b"second").refused(409);
    assert_eq!(content(&daemon, 0, 0), b"first");
}

#[test]
fn without_space_tiles_and_files_are_refused_with_507() {
    let data = data_dir();
    Daemon::start(data.path(), &[]).stop();
    let daemon = Daemon::start_bare(data.path(), &["storage.reserve=1000TiB"]);
    let path = format!("{CAPTURE}?tile-filename={}", name(0, 0));
    let answer = ask(&daemon, "PUT", &path, "", b"x");
    assert!(answer.header("system-status").is_some());
    answer.refused(507);
    get(&daemon, "/service/v1/acquisition/123/tile/0/0").refused(404);
}

#[test]
fn a_tile_may_come_after_the_end_of_its_acquisition() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    ask(&daemon, "POST", "/service/v1/end-acquisition/123", "", b"").with(200);
    put(&daemon, 123, &name(0, 0), b"late");
    start(&daemon, 123, super::support::LOG);
    let acquisition = &get_json(&daemon, "/service/v1/acquisitions?acqid=123")["acquisitions"][0];
    assert!(acquisition["Completed"].is_null(), "started again it is open");
    assert_eq!(content(&daemon, 0, 0), b"late");
}
