//! The files of each format version, as they are kept in tests/data: read for ever, the last ones made again byte for byte. A
//! directory of a newer program is refused and left exactly as it is.
//!
//! `TILECATCHER_WRITE_GOLDEN=1 cargo test --test crash golden` writes them; only for a new format version.

use crate::disk::CrashFs;
use crate::store::records;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::base::stop::Stop;
use tilecatcher::catalog::{Catalog, OpenedCatalog};
use tilecatcher::config::Settings;
use tilecatcher::journal::{
    Journal, JournalOptions, LaneWriter, RECORD_HEADER_BYTES, RealFilesystem, RecordDraft, RecordKind, TileStamp,
};
use tilecatcher::model::{AcqId, ByteRange, Checksum, FrameNumber, Location, TileEntry, TileId, TileKey, TileVersion};
use tilecatcher::telemetry::Metrics;
use tilecatcher::wire::{FrameHead, FrameTail, PREFIX_BYTES, RequestFields};

/// Relative paths, and what lies there.
type Files = BTreeMap<PathBuf, Vec<u8>>;

const AT_NS: i64 = 1_700_000_000_123_456_789;
/// What is kept: all segments sealed; some being written when the process was killed; the last write cut off, too.
const KINDS: [&str; 3] = ["sealed", "open", "torn"];

/// The format versions that were ever written, 1.0 first.
const VERSIONS: [&str; 2] = ["format-1", "format-1.1"];
/// The one that this program writes.
const NOW: &str = VERSIONS[1];

fn kept(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(version)
}

/// Who sent a tile: all that there may be.
fn peer(id: u64) -> Option<SocketAddr> {
    match id {
        1 => Some(SocketAddr::from(([10, 1, 2, 3], 50_123))),
        2 => Some("[2001:db8::7]:65535".parse().expect("an address")),
        _ => None,
    }
}

fn tile(id: u64, col: u32, version: u32, len: usize, checksum: fn(&[u8]) -> Checksum) -> (TileStamp, Vec<u8>) {
    let salt = id * 31 + u64::from(version);
    let image: Vec<u8> = (0..len as u64).map(|n| u8::try_from((n * 7 + salt) % 251).expect("below 251")).collect();
    let frame = if col == 2 { FrameNumber(3) } else { FrameNumber::STABLE };
    let key = TileKey { acq: AcqId(150_304_104_649), col, row: 1, frame };
    let checksum = checksum(&image);
    let head = FrameHead::new(&RequestFields { key, camera: 2, checksum }, len).expect("short");
    let payload = [&head.bytes()[PREFIX_BYTES..], &image, FrameTail::new(len).bytes()].concat();
    let offset = u32::try_from(FrameHead::BYTES - PREFIX_BYTES).expect("small");
    let stamp = TileStamp {
        id: TileId(id),
        key,
        camera: 2,
        version: TileVersion(version),
        image: ByteRange { offset, len: u32::try_from(len).expect("small") },
        image_crc: crc32fast::hash(&image),
        checksum,
        peer: peer(id),
    };
    (stamp, payload)
}

fn append(writer: &mut LaneWriter, (stamp, payload): (TileStamp, Vec<u8>)) -> Location {
    let mut bytes = AlignedBytes::zeroed(RECORD_HEADER_BYTES + payload.len());
    bytes[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(&payload);
    let mut draft = [RecordDraft {
        kind: RecordKind::TILE,
        payload_len: u32::try_from(payload.len()).expect("small"),
        payload_crc: crc32fast::hash(&payload),
        received_ns: AT_NS,
        tile: Some(stamp),
        bytes: &mut bytes,
        placed: None,
    }];
    writer.append(&mut draft).expect("written");
    draft[0].placed.expect("placed").1
}

/// Makes one kind of directory: everything in it is fixed.
fn made(kind: &str) -> Files {
    let (dir, fs) = (Path::new("/golden"), CrashFs::default());
    fs.fix_identities();
    let options = JournalOptions { segment_bytes: 40 << 10, control_segment_bytes: 12 << 10, reserve_bytes: 0 };
    let (journal, _) = Journal::open(dir, Arc::new(fs.clone()), options).expect("opens");
    let mut control = journal.control_writer();
    let start = br#"{"acq":150304104649,"log_name":"150304104649_2x2_logfile.ini","facts":{"sample_name":"golden","cameras":"one","x_steps":4,"y_steps":2},"log_text":"[General]\n","temca":0}"#;
    let rois = br#"{"acq":150304104649,"rois":[[{"name":"roi0","section":5800,"prev":0},[[0,1],[1,1]]]]}"#;
    let records: [(RecordKind, i64, &[u8]); 2] =
        [(RecordKind::ACQUISITION_STARTED, AT_NS, start), (RecordKind::ROIS_CREATED, AT_NS + 1, rois)];
    control.append_small(&records).expect("written");
    control.sync().expect("synced");
    let mut lane = journal.lane_writer(0);
    append(&mut lane, tile(1, 0, 1, 5000, |image| Checksum::Crc32(crc32fast::hash(image))));
    append(&mut lane, tile(2, 1, 1, 3000, |_| Checksum::None));
    lane.sync().expect("synced");
    append(&mut lane, tile(1, 0, 2, 100, |image| Checksum::Sha256(Sha256::digest(image).into())));
    append(&mut lane, tile(3, 2, 1, 2000, |image| Checksum::Sha256(Sha256::digest(image).into())));
    lane.sync().expect("synced");
    if kind == "sealed" {
        control
            .append_small(&[(RecordKind::ACQUISITION_ENDED, AT_NS + 2, br#"{"acq":150304104649}"#)])
            .expect("written");
        lane.close().expect("closed");
        control.close().expect("closed");
        journal.close();
        return files_of(dir, &fs);
    }
    let torn = (kind == "torn").then(|| append(&mut lane, tile(4, 3, 1, 9000, |_| Checksum::None)));
    // The keeper makes the next segment meanwhile.
    while fs.files(dir.join("journal")).len() < 3
        || fs.everything().values().any(|bytes| bytes.iter().all(|byte| *byte == 0))
    {
        std::thread::yield_now();
    }
    let mut files = files_of(dir, &fs);
    if let Some(location) = torn {
        let segment = files.get_mut(Path::new("journal/0000000000000002-0000.tcj")).expect("the lane's first one");
        let start = usize::try_from(location.offset).expect("small");
        segment[start + 4096..start + 12_288].fill(0);
    }
    files
}

fn files_of(dir: &Path, fs: &CrashFs) -> Files {
    let relative = |path: PathBuf| path.strip_prefix(dir).expect("in the directory").to_owned();
    fs.everything().into_iter().map(|(path, bytes)| (relative(path), bytes)).collect()
}

fn read_files(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                files.insert(path.strip_prefix(dir).expect("inside").to_owned(), bytes);
            }
        }
    }
    files
}

fn write_files(dir: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("a directory");
        std::fs::write(path, bytes).expect("written");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_catalog<T>(data: &Path, look: impl FnOnce(&Catalog, Value) -> T) -> T {
    let set = |key: &str, value: &str| ("--set".to_owned(), key.to_owned(), value.to_owned());
    let small = [
        set("memory.buffers", "16MiB"),
        set("storage.reserve", "0"),
        set("index.cache", "16MiB"),
        set("capture.frame_max", "4MiB"),
        // Another test's process may have the lock's descriptor between its fork and its exec.
        set("storage.lock_wait", "60s"),
    ];
    let config = Settings::load(None, [], &small).expect("good settings").config;
    let (metrics, stop) = (Arc::new(Metrics::new()), Stop::default());
    let opened = Catalog::open(data, Arc::new(RealFilesystem), &config.catalog, &metrics, &stop).expect("opens");
    let OpenedCatalog { catalog, lanes, threads, recovery, .. } = opened;
    let damage: Vec<Value> = recovery
        .damage
        .iter()
        .map(|damage| json!({"offset": damage.offset, "len": damage.len, "kind": damage.kind}))
        .collect();
    let looked = look(&catalog, Value::from(damage));
    drop(lanes);
    threads.into_iter().for_each(|lane| lane.join().expect("a lane"));
    catalog.close().expect("closed");
    looked
}

/// What opening a directory gives: every record, every byte of every tile, what went to quarantine.
fn description(data: &Path) -> Value {
    let mut described = with_catalog(data, |catalog, damage| {
        let (mut tiles, mut control) = (Vec::new(), Vec::new());
        for (sequence, (header, payload)) in records(catalog.journal()) {
            let Some(stamp) = header.tile else {
                let text = String::from_utf8(payload).expect("text");
                control.push(json!({"sequence": sequence.0, "kind": header.kind.0, "at_ns": header.received_ns, "payload": text}));
                continue;
            };
            let entry: TileEntry = catalog.tile_version(stamp.id, stamp.version).expect("readable").expect("indexed");
            let image = catalog.read_image(&entry, ByteRange { offset: 0, len: entry.image.len }).expect("readable");
            assert!(image.as_ref() == &payload[stamp.image.bounds()]);
            let mut tile = json!({
                "sequence": sequence.0, "id": stamp.id.0, "acq": stamp.key.acq.0, "col": stamp.key.col, "row": stamp.key.row,
                "frame": stamp.key.frame.0, "camera": stamp.camera, "version": stamp.version.0, "at_ns": header.received_ns,
                "len": entry.image.len, "crc32": format!("{:08x}", stamp.image_crc), "sha256": hex(&Sha256::digest(image.as_ref())),
                "checksum": hex(&stamp.checksum.to_field()), "payload_sha256": hex(&Sha256::digest(&payload)),
            });
            if let Some(peer) = stamp.peer {
                tile["peer"] = peer.to_string().into();
            }
            tiles.push(tile);
        }
        json!({"tiles": tiles, "control": control, "damage": damage})
    });
    let quarantine = read_files(&data.join("quarantine")).into_iter();
    described["quarantine"] = quarantine
        .map(|(path, bytes)| json!({"name": path, "len": bytes.len(), "sha256": hex(&Sha256::digest(&bytes))}))
        .collect();
    described
}

fn expected(version: &str) -> Value {
    serde_json::from_slice(&std::fs::read(kept(version).join("expected.json")).expect("kept")).expect("JSON")
}

/// A golden directory in a place where it may be opened.
fn copy_of(version: &str, kind: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_files(dir.path(), &read_files(&kept(version).join(kind)));
    dir
}

#[test]
fn golden_files_are_made_again_byte_for_byte() {
    let write = std::env::var("TILECATCHER_WRITE_GOLDEN").is_ok_and(|value| value == "1");
    let mut described = serde_json::Map::new();
    for kind in KINDS {
        let files = made(kind);
        if write {
            write_files(&kept(NOW).join(kind), &files);
            described.insert(kind.to_owned(), description(copy_of(NOW, kind).path()));
        }
        let kept = read_files(&kept(NOW).join(kind));
        assert!(kept.keys().eq(files.keys()), "{kind}: {:?} instead of {:?}", files.keys(), kept.keys());
        for (path, bytes) in &files {
            assert!(kept[path] == *bytes, "{kind}/{}: other bytes", path.display());
        }
    }
    if write {
        let text = format!("{:#}\n", Value::from(described));
        std::fs::write(kept(NOW).join("expected.json"), text).expect("written");
    }
}

#[test]
fn golden_files_give_exactly_their_tiles() {
    for (version, kind) in VERSIONS.iter().flat_map(|version| KINDS.map(|kind| (version, kind))) {
        let copy = copy_of(version, kind);
        let (found, wanted) = (description(copy.path()), &expected(version)[kind]);
        assert!(found == *wanted, "{version}/{kind}: {found:#}\ninstead of\n{wanted:#}");
        let mut again = description(copy.path());
        again["damage"] = wanted["damage"].clone();
        assert!(again == *wanted, "{version}/{kind}: a second start gives something else");
    }
}

#[test]
fn golden_files_with_a_flipped_bit_give_all_other_tiles() {
    let segment = Path::new("journal/0000000000000002-0000.tcj");
    let whole = read_files(&kept(NOW).join("sealed"));
    let len = whole[segment].len();
    let table = len - 2 * 4096;
    for (offset, readable) in [(100, 4), (4096 + 30, 3), (4096 + 192 + 2000, 3), (table + 5, 4), (len - 4000, 4)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut files = whole.clone();
        files.get_mut(segment).expect("kept")[offset] ^= 4;
        write_files(dir.path(), &files);
        let read = with_catalog(dir.path(), |catalog, _| {
            let wanted = expected(NOW);
            let tiles = wanted["sealed"]["tiles"].as_array().expect("a list").clone();
            tiles.iter().filter(|tile| reads_as(catalog, tile)).count()
        });
        assert_eq!(read, readable, "a bit at {offset} of {len}");
    }
}

/// True when the tile is read with its bytes; false for an error. Other bytes are a failure.
fn reads_as(catalog: &Catalog, tile: &Value) -> bool {
    let number = |name: &str| tile[name].as_u64().expect("a number");
    let version = TileVersion(u32::try_from(number("version")).expect("small"));
    let Some(entry) = catalog.tile_version(TileId(number("id")), version).expect("readable") else { return false };
    let Ok(image) = catalog.read_image(&entry, ByteRange { offset: 0, len: entry.image.len }) else { return false };
    assert_eq!(tile["sha256"], hex(&Sha256::digest(image.as_ref())), "wrong bytes of {tile}");
    true
}

/// Changes a block that carries its CRC-32 at its end.
fn change(block: &mut [u8], offset: usize, value: u8) {
    block[offset] = value;
    let crc = crc32fast::hash(&block[..4092]);
    block[4092..4096].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_directory_of_a_newer_program_is_refused_and_left_as_it_is() {
    let (store, last) = (Path::new("store"), Path::new("journal/0000000000000003-0000.tcj"));
    let (version, flags) = ("format version 2", "flags 0x4");
    for (path, offset, value, line) in [(last, 8, 2, version), (last, 16, 4, flags), (store, 8, 2, version)] {
        // The segments before it were left by a killed process: they must not be sealed either.
        let mut files = read_files(&kept(NOW).join("torn"));
        change(&mut files.get_mut(path).expect("kept")[..4096], offset, value);
        refused(&files, line);
    }
    let mut files = read_files(&kept(NOW).join("torn"));
    let mut note = vec![0; 4096];
    note[..8].copy_from_slice(b"TILESWAP");
    change(&mut note, 8, 2);
    files.insert(PathBuf::from("compaction"), note);
    refused(&files, version);
}

fn refused(files: &Files, line: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_files(dir.path(), files);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TILECATCHER_")) {
        command.env_remove(name);
    }
    command.args([
        "serve",
        "--capture",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--set",
        "memory.buffers=64MiB",
        "--set",
        "capture.frame_max=8MiB",
        "--data",
    ]);
    command.arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut daemon = command.spawn().expect("starts");
    let mut ready = String::new();
    BufReader::new(daemon.stdout.take().expect("a pipe")).read_line(&mut ready).expect("text");
    if !ready.is_empty() {
        let _ = daemon.kill();
        panic!("{line}: started: {ready}");
    }
    let mut said = String::new();
    daemon.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(daemon.wait().expect("ended").code(), Some(2), "{said}");
    assert!(said.contains(line) && said.contains("use a newer tilecatcher"), "{said}");
    let mut left = read_files(dir.path());
    left.remove(Path::new("lock"));
    assert!(!dir.path().join("quarantine").exists(), "{line}: a directory was made");
    assert!(left == *files, "{line}: something was changed: {:?}", left.keys());
}
