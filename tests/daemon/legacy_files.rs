//! Ancillary files: kept with an acquisition, each with a result of its own, listed, read back; and the two commands
//! that bring them.

use super::support::{Daemon, await_that, data_dir, noise};
use super::web::{Answer, Form, ask, dial, get, get_json, head, text};
use serde_json::{Value, json};
use std::io::Write;

const END: &str = "/service/v1/end-acquisition/123";
const STORE: &str = "/service/v1/store-ancillary-files/123";

fn is_completed(daemon: &Daemon) -> bool {
    !get_json(daemon, "/service/v1/acquisitions?acqid=123")["acquisitions"][0]["Completed"].is_null()
}

fn results(answer: &Answer) -> Vec<Value> {
    answer.json()["af_results"].as_array().expect("af_results").clone()
}

#[test]
fn files_are_stored_in_request_order_listed_and_read_back() {
    for (path, ends) in [(END, true), (STORE, false)] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &[]);
        let big = noise(1, 3 << 20);
        let files: [(&str, &str, &[u8], &str); 5] = [
            ("b/Z mosaic.png", "Z mosaic.png", b"\x89PNG", "image/png"),
            ("C:\\data\\123_DAQ timing.csv", "123_DAQ timing.csv", &big, "text/csv"),
            ("statistics_cam3.csv", "statistics_cam3.csv", b"a,b", "text/csv"),
            ("../../etc/passwd", "passwd", b"root", "application/octet-stream"),
            ("a%20+&?#.txt", "a%20+&?#.txt", b"odd", "text/plain"),
        ];
        let form = files.iter().fold(Form::new().text("surplus", b"x"), |form, (given, _, content, _)| {
            form.file("ancillary-file", &given.replace('\\', "\\\\"), content)
        });
        let answer = form.post(&daemon, path).with(200);
        let results = results(&answer);
        let names: Vec<String> = results.iter().map(|result| text(&result["name"])).collect();
        assert_eq!(names, files.map(|file| file.1));
        assert_eq!(results[0]["path"], "b/Z mosaic.png");
        let keys: Vec<&String> = results[0].as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["id", "jfs_key", "jfs_path", "name", "path"]);
        assert_eq!(is_completed(&daemon), ends);
        let listing = get_json(&daemon, "/service/v1/acquisition/123/files");
        assert_eq!(listing["length"], 5);
        for ((_, name, content, media_type), listed) in files.iter().zip(listing["files"].as_array().expect("files")) {
            assert_eq!((&listed["name"], &listed["size"]), (&json!(name), &json!(content.len())));
            let read = get(&daemon, &text(&listed["url"])).with(200);
            assert!(read.body == *content, "{name}");
            assert_eq!(read.header("content-type"), Some(*media_type));
        }
        let page = get_json(&daemon, "/service/v1/acquisition/123/files?offset=1&length=1");
        assert_eq!(page["files"][0]["name"], "123_DAQ timing.csv");
    }
}

#[test]
fn a_bad_file_among_good_ones_is_told_and_the_acquisition_is_completed_all_the_same() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let form = Form::new()
        .file("ancillary-file", "good.csv", b"1")
        .file("ancillary-file", "..", b"2")
        .file("ancillary-file", "empty.csv", b"")
        .text("ancillary-file", b"no name")
        .file("ancillary-file", &"x".repeat(256), b"3")
        .file("ancillary-file", "also good.csv", b"4");
    for (path, completed) in [(STORE, false), (END, true)] {
        let results = results(&form.clone().post(&daemon, path).with(400));
        let is_good = |result: &Value| result.get("id").is_some();
        assert_eq!(results.iter().map(is_good).collect::<Vec<_>>(), [true, false, false, false, false, true]);
        for bad in results.iter().filter(|result| !is_good(result)) {
            assert!(bad["errormessage"].is_string() && bad["name"].is_string(), "{bad}");
        }
        assert_eq!((&results[1]["name"], &results[2]["name"]), (&json!(".."), &json!("empty.csv")));
        assert_eq!(is_completed(&daemon), completed);
    }
    assert_eq!(get_json(&daemon, "/service/v1/acquisition/123/files")["length"], 4);
}

#[test]
fn an_acquisition_is_ended_with_all_its_files_even_when_the_client_is_gone() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let add = |form: Form, n: u32| form.file("ancillary-file", &format!("{n}.csv"), b"1,2");
    let form = (0..30).fold(Form::new(), add).bytes();
    let length = format!("{}Content-Length: {}\r\n", Form::HEADERS, form.len());
    dial(&daemon).write_all(&[head("POST", END, &length).as_bytes(), &form].concat()).expect("sent");
    await_that("the acquisition is ended", || is_completed(&daemon));
    assert_eq!(get_json(&daemon, "/service/v1/acquisition/123/files")["length"], 30);
}

#[test]
fn without_files_the_commands_do_what_they_say() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let nothing = ask(&daemon, "POST", STORE, "Content-Type: text/plain\r\n", b"whatever").with(200);
    assert_eq!((nothing.json(), is_completed(&daemon)), (json!({}), false));
    assert_eq!(Form::new().text("surplus", b"x").post(&daemon, STORE).with(200).json(), json!({"af_results": []}));
    let ended = ask(&daemon, "POST", &format!("{END}/"), "", b"").with(200).json();
    assert!(ended.get("af_results").is_none() && ended["completeness"].is_object(), "{ended}");
    assert!(is_completed(&daemon));
    for (path, status) in
        [(END.replace("123", "999"), 400), (STORE.replace("123", "999"), 400), (END.replace("123", "x"), 400)]
    {
        ask(&daemon, "POST", &path, "", b"").refused(status);
    }
}

#[test]
fn of_one_name_the_latest_is_read_and_each_by_its_id() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let store = |content: &[u8]| {
        let answer = Form::new().file("ancillary-file", "a.csv", content).post(&daemon, STORE).with(200);
        results(&answer)[0]["id"].as_u64().expect("an id")
    };
    let (first, second) = (store(b"first"), store(b"second"));
    let path = "/service/v1/acquisition/123/files/a.csv";
    assert_eq!(get(&daemon, path).with(200).body, b"second");
    assert_eq!(get(&daemon, &format!("{path}?id={first}")).with(200).body, b"first");
    assert_eq!(get(&daemon, &format!("{path}?id={second}")).with(200).body, b"second");
    get(&daemon, &format!("{path}?id={}", second + 1)).refused(404);
    get(&daemon, &format!("{path}?id=x")).refused(400);
    for none in ["b.csv", "..%2Fa.csv", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "a.csv%00"] {
        get(&daemon, &format!("/service/v1/acquisition/123/files/{none}")).refused(404);
    }
    get(&daemon, "/service/v1/acquisition/123/files/../../../../etc/passwd").refused(404);
    get(&daemon, "/service/v1/acquisition/9/files").refused(404);
    get(&daemon, "/service/v1/acquisition/9/files/a.csv").refused(404);
}
