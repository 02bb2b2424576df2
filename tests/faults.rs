//! Injected storage errors, from a tile on a socket down to the failing call: what is answered, what is kept.

#![allow(missing_docs)]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tilecatcher::base::stop::{Stop, StopReason};
use tilecatcher::catalog::{Catalog, OpenedCatalog};
use tilecatcher::client::{CaptureClient, ChecksumChoice, Tile, checksum_of};
use tilecatcher::config::Settings;
use tilecatcher::ingest::{Capture, CaptureListeners};
use tilecatcher::journal::{Filesystem, RealFilesystem, SegmentFile};
use tilecatcher::model::{AcqId, AcquisitionFacts, AcquisitionStarted, ByteRange, FrameNumber, TileKey};
use tilecatcher::telemetry::Metrics;
use tilecatcher::wire::Response;

/// Which calls on lane segments fail from now on.
#[derive(Default)]
struct Faults {
    sync: AtomicBool,
    write: AtomicBool,
    full: AtomicBool,
    create_full: AtomicBool,
}

struct FaultFs(Arc<Faults>);

struct FaultFile {
    file: Box<dyn SegmentFile>,
    faults: Arc<Faults>,
    /// Control records are left alone: the faults hit tiles.
    is_lane: bool,
}

fn on(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

impl FaultFs {
    fn wrap(&self, path: &Path, file: Box<dyn SegmentFile>) -> Box<dyn SegmentFile> {
        let is_lane = path.to_string_lossy().ends_with("-0000.tcj");
        Box::new(FaultFile { file, faults: Arc::clone(&self.0), is_lane })
    }
}

impl Filesystem for FaultFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFilesystem.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFilesystem.list(dir)
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        if on(&self.0.create_full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealFilesystem.create(path, len).map(|file| self.wrap(path, file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        RealFilesystem.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        RealFilesystem.open_write(path).map(|file| self.wrap(path, file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFilesystem.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFilesystem.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFilesystem.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealFilesystem.free_bytes(dir)
    }
}

impl SegmentFile for FaultFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.is_lane && on(&self.faults.write) {
            return Err(io::Error::other("injected write error"));
        }
        if self.is_lane && on(&self.faults.full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(slices, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_lane && on(&self.faults.sync) {
            return Err(io::Error::other("injected sync error"));
        }
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }
}

/// A capture port over a data directory, in this process.
struct Rig {
    catalog: Arc<Catalog>,
    capture: Capture,
    lanes: Vec<std::thread::JoinHandle<()>>,
    stop: Stop,
    faults: Arc<Faults>,
}

impl Rig {
    fn start(data: &Path) -> Self {
        let set = |key: &str, value: &str| ("--set".to_owned(), key.to_owned(), value.to_owned());
        let flags = [
            set("capture.address", "127.0.0.1:0"),
            set("storage.segment_size", "1MiB"),
            set("storage.reserve", "0"),
            set("memory.buffers", "16MiB"),
            set("capture.frame_max", "4MiB"),
            set("index.cache", "16MiB"),
        ];
        let config = Settings::load(None, [], &flags).expect("good settings").config;
        let (stop, faults) = (Stop::default(), Arc::new(Faults::default()));
        let filesystem = Arc::new(FaultFs(Arc::clone(&faults)));
        let OpenedCatalog { catalog, lanes, threads, .. } =
            Catalog::open(data, filesystem, &config.catalog, &Arc::new(Metrics::new()), &stop).expect("opens");
        let started = AcquisitionStarted {
            acq: AcqId(1),
            log_name: "1_a_logfile.ini".to_owned(),
            facts: AcquisitionFacts::default(),
            log_text: String::new(),
            temca: 0,
        };
        catalog.start_acquisition(started).expect("started");
        let capture =
            Capture::start(config.ingest, CaptureListeners::default(), None, &catalog, &lanes).expect("a port");
        Self { catalog, capture, lanes: threads, stop, faults }
    }

    fn send(&self, col: u32) -> Response {
        send(self.capture.address().expect("an open port"), col)
    }

    fn stop(self) {
        self.capture.stop();
        self.lanes.into_iter().for_each(|lane| lane.join().expect("a lane"));
        let _ = self.catalog.close();
    }

    fn holds(&self, col: u32) -> bool {
        let Some(entry) = self.catalog.tile_by_key(&key(col)).expect("readable") else { return false };
        let whole = ByteRange { offset: 0, len: entry.image.len };
        self.catalog.read_image(&entry, whole).expect("readable").as_ref() == image(col)
    }
}

fn key(col: u32) -> TileKey {
    TileKey { acq: AcqId(1), col, row: 0, frame: FrameNumber::STABLE }
}

fn image(col: u32) -> Vec<u8> {
    col.to_le_bytes().repeat(5000)
}

fn send(capture: SocketAddr, col: u32) -> Response {
    let mut client: CaptureClient<()> =
        CaptureClient::connect(capture, 1, Duration::from_secs(30)).expect("a connection");
    let image = image(col);
    let checksum = checksum_of(ChecksumChoice::Crc32, &image);
    client.send(&Tile { key: key(col), camera: 0, checksum, image: &image }, ()).expect("sent");
    client.receive().expect("an answer").expect("one is in flight").response
}

/// Breaks storage behind two good tiles; the third must be refused, the daemon asked to stop, the two kept.
fn a_storage_error_is_refused_and_stops(inject: fn(&Faults)) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let rig = Rig::start(data.path());
    assert_eq!((rig.send(0).status, rig.send(1).status), (0, 0));
    inject(&rig.faults);
    let refused = rig.send(2);
    assert_eq!((refused.status, refused.tile.0), (4, 0));
    assert_eq!(rig.stop.wait(), StopReason::StorageFailed);
    assert!(!rig.holds(2), "a refused tile is visible");
    // The fault goes away, as after a failed sync that the kernel forgets: the lane must not believe it.
    rig.faults.sync.store(false, Ordering::SeqCst);
    rig.faults.write.store(false, Ordering::SeqCst);
    assert_eq!(rig.send(3).status, 4, "a poisoned lane stored again");
    rig.stop();
    let rig = Rig::start(data.path());
    assert!(rig.holds(0) && rig.holds(1), "an acknowledged tile is lost");
    assert_eq!((rig.send(2).status, rig.send(3).status), (0, 0));
    assert!(rig.holds(2) && rig.holds(3));
    rig.stop();
}

#[test]
fn a_failed_sync_is_never_acknowledged_nor_retried() {
    a_storage_error_is_refused_and_stops(|faults| faults.sync.store(true, Ordering::SeqCst));
}

#[test]
fn a_failed_write_is_never_acknowledged_nor_retried() {
    a_storage_error_is_refused_and_stops(|faults| faults.write.store(true, Ordering::SeqCst));
}

#[test]
fn a_full_disk_refuses_with_status_3_and_capture_resumes_by_itself() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let rig = Rig::start(data.path());
    assert_eq!(rig.send(0).status, 0);
    rig.faults.full.store(true, Ordering::SeqCst);
    assert_eq!(rig.send(1).status, 3);
    rig.faults.create_full.store(true, Ordering::SeqCst);
    assert_eq!((rig.send(1).status, rig.send(0).status), (3, 0), "a duplicate needs no space");
    assert_eq!(rig.stop.reason(), None);
    rig.faults.full.store(false, Ordering::SeqCst);
    rig.faults.create_full.store(false, Ordering::SeqCst);
    assert_eq!(rig.send(1).status, 0);
    assert!(rig.holds(0) && rig.holds(1));
    rig.stop();
    let rig = Rig::start(data.path());
    assert!(rig.holds(0) && rig.holds(1));
    rig.stop();
}

#[test]
fn a_command_refused_for_want_of_space_does_not_hold_up_the_index() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let rig = Rig::start(data.path());
    rig.faults.create_full.store(true, Ordering::SeqCst);
    let too_long_for_the_open_segment = AcquisitionStarted {
        acq: AcqId(2),
        log_name: "2_a_logfile.ini".to_owned(),
        facts: AcquisitionFacts::default(),
        log_text: "x".repeat(20 << 20),
        temca: 0,
    };
    let refused = rig.catalog.start_acquisition(too_long_for_the_open_segment).expect_err("no space").to_string();
    assert!(refused.contains("no space"), "{refused}");
    rig.faults.create_full.store(false, Ordering::SeqCst);
    assert_eq!(rig.send(0).status, 0);
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while rig.catalog.index().lag().tiles > 0 {
        assert!(std::time::Instant::now() < until, "the index never folded the tile");
        std::thread::yield_now();
    }
    assert!(rig.holds(0));
    rig.stop();
}
