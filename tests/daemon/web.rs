//! HTTP by hand, so that nothing is hidden by a client: requests as they stand on the wire, multipart in any order, and
//! the acquisitions that tests of the legacy service start.

use super::support::{Daemon, LOG, PATIENCE};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body of an answer whose type is exactly JSON's.
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn message(&self) -> String {
        self.json()["errormessage"].as_str().expect("an errormessage").to_owned()
    }

    pub fn text(&self) -> String {
        format!("{}{}", self.head, String::from_utf8_lossy(&self.body))
    }

    /// The answer, which must have this status.
    pub fn with(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A refusal: this status, JSON, a message.
    pub fn refused(self, status: u16) -> String {
        let answer = self.with(status);
        let message = answer.message();
        assert!(!message.is_empty());
        message
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head, body: bytes[end..].to_vec() }
    }
}

/// A connection to the HTTP port.
pub fn dial(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.http_address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Everything that comes until the daemon closes.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    Answer::parse(&answer)
}

/// Bytes as they are, and what is answered to them; the request must ask for the connection to be closed.
pub fn send_raw(daemon: &Daemon, request: &[u8]) -> Answer {
    let mut stream = dial(daemon);
    stream.write_all(request).expect("sent");
    read_answer(&mut stream)
}

pub fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
}

pub fn ask(daemon: &Daemon, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = head(method, path, &format!("Content-Length: {}\r\n{headers}", body.len()));
    send_raw(daemon, &[head.as_bytes(), body].concat())
}

pub fn get(daemon: &Daemon, path: &str) -> Answer {
    ask(daemon, "GET", path, "", b"")
}

/// What a path that must be there answers.
pub fn get_json(daemon: &Daemon, path: &str) -> Value {
    get(daemon, path).with(200).json()
}

/// Multipart, part by part.
#[derive(Clone, Default)]
pub struct Form(Vec<u8>);

impl Form {
    pub const HEADERS: &str = "Content-Type: multipart/form-data; boundary=b0undary\r\n";

    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(self, part: &str, file_name: &str, content: &[u8]) -> Self {
        self.part(&format!("name=\"{part}\"; filename=\"{file_name}\""), content)
    }

    pub fn text(self, part: &str, content: &[u8]) -> Self {
        self.part(&format!("name=\"{part}\""), content)
    }

    fn part(mut self, disposition: &str, content: &[u8]) -> Self {
        let head = format!("--b0undary\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend([head.as_bytes(), content, b"\r\n"].concat());
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        [&self.0[..], b"--b0undary--\r\n"].concat()
    }

    pub fn post(self, daemon: &Daemon, path: &str) -> Answer {
        ask(daemon, "POST", path, Self::HEADERS, &self.bytes())
    }
}

/// A log of one day, `MM/dd/yyyy`, with a line of its own for the catcher.
pub fn log_of(sample: &str, day: &str, project: &str) -> String {
    let log = LOG.replace("03/04/2026", day).replace("\"test\"", &format!("\"{sample}\""));
    format!(
        "{log}[ImageCatcher]\nproject = {project}\nowner = {project}-owner\nstack = {project}-stack\nmosaicType = tiny\n"
    )
}

pub fn start(daemon: &Daemon, acq: u64, log: &str) {
    let name = format!("{acq}_8x8_logfile.ini");
    Form::new().file("acq-inilog", &name, log.as_bytes()).post(daemon, "/service/v1/start-acquisition").with(200);
}

/// One ROI for each name, with the places that lie in it: specification and table.
pub fn roi_files(rois: &[(&str, &[(u32, u32)])]) -> (String, String) {
    let mut spec = "[Inclusion Section Numbers]\r\n".to_owned();
    let mut table = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\r\n".to_owned();
    for (n, (name, places)) in rois.iter().enumerate() {
        spec += &format!("Region {n} = \"{name}\"\r\n");
        for (col, row) in *places {
            table += &format!("{col},{row},{n},0,1,1, {name}\r\n");
        }
    }
    (spec, table)
}

pub fn create_rois(daemon: &Daemon, acq: u64, rois: &[(&str, &[(u32, u32)])]) -> Answer {
    let (spec, table) = roi_files(rois);
    Form::new()
        .file("roi-tiles", &format!("{acq}_ROI_tiles.csv"), table.as_bytes())
        .file("roi-spec", &format!("{acq}_ROI_spec.ini"), spec.as_bytes())
        .post(daemon, &format!("/service/v1/create-rois/{acq}"))
}

/// Where a tile is sent by name.
pub fn tile_path(acq: u64, name: &str) -> String {
    format!("/service/v1/capture-image-content/{acq}?tile-filename={name}")
}

/// Sends a tile by name; returns its id.
pub fn put(daemon: &Daemon, acq: u64, name: &str, image: &[u8]) -> u64 {
    let answer = ask(daemon, "PUT", &tile_path(acq, name), "", image).with(200);
    answer.json()["tile_id"].as_u64().expect("an id")
}

/// Sends a tile by name on a connection that stays open, and waits for its answer.
pub fn upload(daemon: &Daemon, acq: u64, name: &str, headers: &str, image: &[u8]) -> TcpStream {
    let (mut stream, path) = (dial(daemon), tile_path(acq, name));
    let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", image.len());
    stream.write_all(&[head.as_bytes(), image].concat()).expect("sent");
    assert!(stream.read(&mut [0; 4096]).expect("an answer") > 0);
    stream
}

/// The name of a stable tile of camera 0.
pub fn name(col: u32, row: u32) -> String {
    format!("col{col:04}_row{row:04}_cam0.tif")
}

pub fn next_tile(daemon: &Daemon, query: &str) -> Value {
    ask(daemon, "POST", &format!("/service/v1/next-tile?{query}"), "", b"").with(200).json()
}

/// The ids in an answer of next-tile.
pub fn handed_out(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().expect("results");
    let ids: Vec<String> = results.iter().map(|result| text(&result["tilespec"]["tileId"])).collect();
    assert_eq!(answer["nTilesFound"], ids.len());
    ids
}

pub fn set_state(daemon: &Daemon, state: &str, ids: &[String]) -> Answer {
    let body = serde_json::json!({ "state": state, "tileSpecIds": ids }).to_string();
    ask(daemon, "PUT", "/service/v1/tile-state", "", body.as_bytes())
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// (col, row, frame, section, state) of each entry of a flat listing.
pub type Entry = (u64, u64, i64, i64, String);

pub fn listed(daemon: &Daemon, path: &str) -> Vec<Entry> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let listing = get_json(daemon, &format!("{path}{separator}flat=true"));
    let tiles = listing["tiles"].as_array().expect("tiles");
    assert_eq!(listing["length"], tiles.len());
    let whole = |value: &Value| value.as_u64().expect("a number");
    let signed = |value: &Value| value.as_i64().expect("a number");
    let entry = |tile: &Value| {
        let (col, row, frame) = (whole(&tile["tile_col"]), whole(&tile["tile_row"]), signed(&tile["tile_frame"]));
        (col, row, frame, signed(&tile["section"]), text(&tile["state"]))
    };
    tiles.iter().map(entry).collect()
}
