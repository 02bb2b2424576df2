//! A whole store on the model of a disk: real lanes, control thread, keeper and index; the index' rows in memory.

use crate::disk::CrashFs;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tilecatcher::base::stop::Stop;
use tilecatcher::catalog::{
    Ack, AckSink, AckToken, Catalog, CatalogError, CatalogOptions, ConflictPolicy, ImageUpload, JournalFacts,
    LaneOptions, LaneTile, Lanes, OpenedCatalog, Outcome, Verdict, VerifyPolicy, verify,
};
use tilecatcher::index::{FactSource, IndexOptions, MemoryStore, OpenReport, Row, ViewStore, fold_all};
use tilecatcher::journal::{Filesystem, Journal, JournalOptions, RecordHeader, RecoveryReport};
use tilecatcher::model::{AckLevel, ByteRange, Checksum, Sequence, TileKey};
use tilecatcher::telemetry::Metrics;
use tilecatcher::wire::RequestFields;

/// Bounds every wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every record of a journal: its header, with no offset, and its payload.
pub type Records = BTreeMap<Sequence, (RecordHeader, Vec<u8>)>;

pub fn journal_options() -> JournalOptions {
    JournalOptions { segment_bytes: 48 << 10, control_segment_bytes: 16 << 10, reserve_bytes: 0 }
}

fn options() -> CatalogOptions {
    CatalogOptions {
        journal: journal_options(),
        index: IndexOptions::default(),
        lanes: LaneOptions {
            lanes: 2,
            queue_tiles: 64,
            batch_bytes: 1 << 20,
            prewrite_bytes: 0,
            ack: AckLevel::Durable,
            conflict: ConflictPolicy::Replace,
        },
        memory_bytes: 4 << 20,
        // A process that another test starts has all descriptors, also that of this lock, for a moment.
        lock_wait: PATIENCE,
    }
}

pub struct Store {
    pub catalog: Arc<Catalog>,
    pub rows: Arc<MemoryStore>,
    pub stop: Stop,
    fs: CrashFs,
    lanes: Option<Lanes>,
    threads: Vec<JoinHandle<()>>,
}

/// What opening a store found.
pub struct Opened {
    pub recovery: RecoveryReport,
    pub index: OpenReport,
}

/// Marks each acceptance in the disk's log, at the moment at which a sender could know of it.
struct Acks {
    fs: CrashFs,
    answers: crossbeam_channel::Sender<Ack>,
}

impl AckSink for Acks {
    fn put(&self, ack: Ack) {
        if matches!(ack.outcome, Outcome::Accepted(_)) {
            self.fs.mark(usize::try_from(ack.token.slot).expect("small"));
        }
        let _ = self.answers.send(ack);
    }

    fn flush(&self) {}

    fn room(&self) {}
}

impl Store {
    /// Opens the store at `dir`, where nothing but its lock is real.
    pub fn open(dir: &Path, fs: &CrashFs, rows: Arc<MemoryStore>) -> Result<(Self, Opened), CatalogError> {
        let (filesystem, stop): (Arc<dyn Filesystem>, Stop) = (Arc::new(fs.clone()), Stop::default());
        let index: Arc<dyn ViewStore> = Arc::clone(&rows) as _;
        let opened = Catalog::open_on(dir, filesystem, Some(index), &options(), &Arc::new(Metrics::new()), &stop)?;
        let OpenedCatalog { catalog, lanes, threads, recovery, index } = opened;
        Ok((Self { catalog, rows, stop, fs: fs.clone(), lanes: Some(lanes), threads }, Opened { recovery, index }))
    }

    /// Hands tiles to their lanes, all at once, and waits for their answers; the first one's promise is `first`.
    pub fn send(&self, tiles: &[(TileKey, Vec<u8>)], first: usize) -> Vec<Outcome> {
        let (answers, answered) = crossbeam_channel::unbounded();
        let sink: Arc<dyn AckSink> = Arc::new(Acks { fs: self.fs.clone(), answers });
        for (n, (key, image)) in tiles.iter().enumerate() {
            let mut upload = ImageUpload::new(
                self.catalog.pool().try_reserve(ImageUpload::buffer_bytes(image.len())).expect("room"),
            );
            upload.push(image);
            let checksum = if image[0] % 2 == 0 { Checksum::None } else { Checksum::Crc32(crc32fast::hash(image)) };
            let frame = upload.finish(&RequestFields { key: *key, camera: 0, checksum }).expect("short");
            let Verdict::Verified(tile) = verify(frame, VerifyPolicy { require_checksum: false }, &mut |_| true) else {
                panic!("a good tile");
            };
            let token = AckToken { connection: n as u64, slot: (first + n) as u64 };
            self.lanes.as_ref().expect("open").route_blocking(LaneTile { tile, token, sink: Arc::clone(&sink) });
        }
        drop(sink);
        let mut outcomes = vec![None; tiles.len()];
        for _ in tiles {
            let ack = answered.recv_timeout(PATIENCE).expect("an answer");
            outcomes[usize::try_from(ack.token.connection).expect("small")] = Some(ack.outcome);
        }
        outcomes.into_iter().map(|outcome| outcome.expect("one answer for each tile")).collect()
    }

    /// The current image under a key, and the sequence of its record.
    pub fn image(&self, key: &TileKey) -> Option<(Sequence, Result<Vec<u8>, String>)> {
        let entry = self.catalog.tile_by_key(key).expect("the index is readable")?;
        let content = self.catalog.read_image(&entry, ByteRange { offset: 0, len: entry.image.len });
        Some((entry.sequence, content.map(|content| content.as_ref().to_vec()).map_err(|error| error.to_string())))
    }

    /// Ends the lanes, then everything.
    pub fn close(mut self) -> Result<(), CatalogError> {
        self.end_lanes();
        self.catalog.close()
    }

    fn end_lanes(&mut self) {
        drop(self.lanes.take());
        self.threads.drain(..).for_each(|lane| lane.join().expect("a lane"));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end_lanes();
        let _ = self.catalog.close();
    }
}

/// Everything that a journal holds, read and checked.
pub fn records(journal: &Journal) -> Records {
    let (mut found, mut last) = (Records::new(), Sequence(0));
    for record in journal.records_after(Sequence(0)) {
        let record = record.expect("readable");
        assert!(record.header.sequence > last, "out of order");
        last = record.header.sequence;
        let location = record.location();
        let mut payload = vec![0; location.payload_len as usize];
        let range = ByteRange { offset: 0, len: location.payload_len };
        journal.read(location, range, &mut payload).expect("readable");
        assert_eq!(crc32fast::hash(&payload), record.header.payload_crc, "record {last} is altered");
        found.insert(last, (RecordHeader { offset: 0, ..record.header }, payload));
    }
    found
}

/// All rows of a store.
pub fn rows_of(store: &dyn ViewStore) -> Vec<Row> {
    let mut rows = Vec::new();
    let scanned = store.scan(&[], &mut |key, value| {
        rows.push((key.to_vec(), Some(value.to_vec())));
        true
    });
    scanned.expect("in memory");
    rows
}

pub fn copy_of(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::default();
    copy.apply(rows_of(store)).expect("in memory");
    copy
}

/// The rows that the journal's facts fold to.
pub fn fold_of(journal: &Journal) -> Vec<Row> {
    let (store, facts) = (MemoryStore::default(), JournalFacts(journal));
    fold_all(&store, facts.store_id(), &mut facts.facts_after(Sequence(0))).expect("in memory");
    rows_of(&store)
}
