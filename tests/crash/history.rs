//! Lives of a store: what is done in each by chance, what its users were promised at which moment, and all that could
//! ever be found of it.

use crate::dice::Dice;
use crate::disk::{CrashFs, Disk, Op};
use crate::store::{Records, Store, copy_of, journal_options, records};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use tilecatcher::catalog::{CatalogError, NewFile, Outcome};
use tilecatcher::compact::{CompactSettings, compact_journal};
use tilecatcher::index::{MemoryStore, OpenOutcome};
use tilecatcher::journal::{Filesystem, Journal, RecordHeader, RecordKind};
use tilecatcher::model::{
    AcqId, AcquisitionDeleted, AcquisitionFacts, AcquisitionStarted, AncillaryKind, Calibration, Cell, FrameNumber,
    Roi, Sequence, TileId, TileKey, TileSpecId,
};

/// What somebody may rely on from some moment on.
pub enum Promise {
    /// This version of a tile, with this content.
    Tile(TileKey, u32, u64),
    /// Every record with a lower sequence.
    Below(Sequence),
}

/// One life of a store, from its start to its end, call by call.
pub struct Life {
    pub before: Disk,
    pub ops: Vec<Op>,
    pub promises: Vec<Promise>,
    /// What was found at the start.
    pub base: BTreeSet<Sequence>,
    /// Every record that there ever was.
    pub truth: Records,
    /// Records that need not be found any more.
    pub dead: BTreeSet<Sequence>,
    pub rows_before: MemoryStore,
    pub rows_after: MemoryStore,
}

/// What a user knows of a store.
#[derive(Clone, Default)]
pub struct Oracle {
    tiles: BTreeMap<TileKey, Held>,
    /// Every id that anybody ever heard of.
    ids: BTreeSet<TileId>,
    next_content: u64,
}

#[derive(Clone)]
struct Held {
    id: Option<TileId>,
    version: u32,
    content: u64,
    older: Vec<u64>,
}

/// The image of a content: all of it follows from its number.
pub fn image_of(content: u64) -> Vec<u8> {
    let len = 8 + Dice::new(content ^ 0xc0ffee).index(9000);
    let mut image = content.to_le_bytes().repeat(len / 8 + 1);
    image.truncate(len);
    image
}

pub fn key(acq: u64, col: u64) -> TileKey {
    let frame = if col % 5 == 4 { FrameNumber(1) } else { FrameNumber::STABLE };
    TileKey { acq: AcqId(acq), col: u32::try_from(col).expect("small"), row: 0, frame }
}

pub fn started(acq: u64) -> AcquisitionStarted {
    AcquisitionStarted {
        acq: AcqId(acq),
        log_name: format!("{acq}_a_logfile.ini"),
        facts: AcquisitionFacts { sample_name: "sample".to_owned(), ..AcquisitionFacts::default() },
        log_text: "[General]\n".repeat(20),
        temca: 0,
    }
}

impl Oracle {
    /// What a user knows who looks at everything that was found. `after`: what there was to know at the end of that life;
    /// no content is used again, or one record would be taken for another.
    pub fn of(found: &Records, before: &Oracle, after: &Oracle) -> Self {
        let mut oracle = Self { tiles: BTreeMap::new(), ids: before.ids.clone(), next_content: after.next_content };
        for (header, payload) in found.values() {
            if let Some(tile) = &header.tile {
                let content = content_of(&payload[tile.image.bounds()]);
                oracle.ids.insert(tile.id);
                oracle.take(tile.key, content);
                let held = oracle.tiles.get_mut(&tile.key).expect("just taken");
                (held.id, held.version) = (Some(tile.id), tile.version.0);
            } else if let Some(deleted) = deletion(header.kind, payload) {
                oracle.tiles.retain(|key, _| key.acq != deleted.acq);
            }
        }
        oracle
    }

    /// The version that a content gets, or has.
    fn take(&mut self, key: TileKey, content: u64) -> u32 {
        let held = self.tiles.entry(key).or_insert(Held { id: None, version: 0, content, older: Vec::new() });
        if held.version == 0 || held.content != content {
            held.version += 1;
            held.older.push(std::mem::replace(&mut held.content, content));
        }
        held.version
    }

    fn new_content(&mut self) -> u64 {
        self.next_content += 1;
        self.next_content
    }

    /// A tile to send: a new one, a new version, one that is stored already, or content that was replaced before.
    fn throw(&mut self, dice: &mut Dice) -> (TileKey, u64) {
        let fresh = (key(1 + dice.below(3), dice.below(8)), self.new_content());
        if self.tiles.is_empty() || dice.once_in(2) {
            return fresh;
        }
        let (key, held) = self.tiles.iter().nth(dice.index(self.tiles.len())).expect("one of them");
        match dice.below(3) {
            0 => (*key, fresh.1),
            1 if !held.older.is_empty() => (*key, held.older[dice.index(held.older.len())]),
            _ => (*key, held.content),
        }
    }

    fn check(&mut self, key: &TileKey, outcome: Outcome) {
        let Outcome::Accepted(id) = outcome else { panic!("{key}: {outcome:?}") };
        let held = self.tiles.get_mut(key).expect("was taken");
        match held.id {
            Some(known) => assert_eq!(id, known, "{key} has another id now"),
            None => assert!(!self.ids.contains(&id), "{key} was given the id {id:?} of another tile"),
        }
        held.id = Some(id);
        self.ids.insert(id);
    }
}

pub fn content_of(image: &[u8]) -> u64 {
    u64::from_le_bytes(image[..8].try_into().expect("eight bytes"))
}

pub fn deletion(kind: RecordKind, payload: &[u8]) -> Option<AcquisitionDeleted> {
    (kind == RecordKind::ACQUISITION_DELETED).then(|| serde_json::from_slice(payload).expect("as it was written"))
}

/// A store while it is used.
pub struct User<'a> {
    pub store: &'a Store,
    pub fs: &'a CrashFs,
    pub oracle: &'a mut Oracle,
    pub promises: Vec<Promise>,
}

impl User<'_> {
    /// Everything done so far was answered.
    fn all_is_promised(&mut self) {
        self.promises.push(Promise::Below(self.store.catalog.journal().safe_sequence()));
        self.fs.mark(self.promises.len() - 1);
    }

    pub fn send(&mut self, tiles: &[(TileKey, u64)]) {
        let first = self.promises.len();
        for (key, content) in tiles {
            let version = self.oracle.take(*key, *content);
            self.promises.push(Promise::Tile(*key, version, *content));
        }
        let images: Vec<_> = tiles.iter().map(|(key, content)| (*key, image_of(*content))).collect();
        let outcomes = self.store.send(&images, first);
        for ((key, _), outcome) in tiles.iter().zip(outcomes) {
            self.oracle.check(key, outcome);
        }
        self.all_is_promised();
    }

    /// One thing that a user does.
    pub fn act(&mut self, dice: &mut Dice) -> Result<(), CatalogError> {
        let acq = AcqId(1 + dice.below(3));
        let catalog = &self.store.catalog;
        match dice.below(22) {
            0..12 => {
                let tiles: Vec<_> = (0..=dice.below(4)).map(|_| self.oracle.throw(dice)).collect();
                self.send(&tiles);
                return Ok(());
            }
            12 | 13 => drop(catalog.start_acquisition(started(acq.0))?),
            14 => refused_or(catalog.end_acquisition(acq))?,
            15 => refused_or(catalog.store_file(acq, file(dice)).map(drop))?,
            16 => {
                let roi = Roi { name: format!("r{}", dice.below(2)), section: 7, prev: 0 };
                let cells = (0..4).map(|col| (col, 0)).collect();
                refused_or(catalog.create_rois(acq, vec![(roi, cells)], vec![file(dice)]))?;
            }
            17 => self.set_states(acq, dice)?,
            18 => {
                let content = serde_json::json!({"specList": dice.below(100)}).into();
                let calibration =
                    Calibration { name: "c".to_owned(), date: "20260101".to_owned(), temca: 1, camera: 0, content };
                catalog.import_calibrations(vec![calibration])?;
            }
            _ => {
                refused_or(catalog.delete_acquisition(acq))?;
                if catalog.acquisition(acq).is_none() {
                    self.oracle.tiles.retain(|key, _| key.acq != acq);
                }
            }
        }
        self.all_is_promised();
        Ok(())
    }

    fn set_states(&self, acq: AcqId, dice: &mut Dice) -> Result<(), CatalogError> {
        let cell = |col| Cell(col, 0, FrameNumber::STABLE);
        let ids = (0..3).map(|col| TileSpecId { acq, cell: cell(col), section: 7, prev: 0 }).collect();
        let (answer, answered) = crossbeam_channel::bounded(1);
        let state = ["DONE", "FAILED"][dice.index(2)].to_owned();
        self.store.catalog.set_states(state, ids, move |done| drop(answer.send(done)))?;
        refused_or(answered.recv().expect("an answer").map(drop))
    }
}

fn file(dice: &mut Dice) -> NewFile {
    let name = format!("f{}.csv", dice.below(3));
    let content = vec![b'x'; dice.index(3000)];
    NewFile { path: name.clone(), name, kind: AncillaryKind::Statistics, content }
}

/// What makes no sense at the moment is refused, and that is no failure.
fn refused_or(done: Result<(), CatalogError>) -> Result<(), CatalogError> {
    match done {
        Err(CatalogError::UnknownAcquisition(_) | CatalogError::Invalid(_)) => Ok(()),
        done => done,
    }
}

/// What a start finds on a copy of the disk.
pub fn found_on(dir: &Path, fs: &CrashFs) -> Records {
    let (journal, _) = Journal::open(dir, Arc::new(fs.copy()), journal_options()).expect("recovery");
    records(&journal)
}

/// Runs a store for some steps and stops it.
pub fn traffic(dir: &Path, fs: &CrashFs, oracle: &mut Oracle, rows: &MemoryStore, steps: u64, dice: &mut Dice) -> Life {
    let base = found_on(dir, fs).into_keys().collect();
    let before = fs.record();
    fs.hiccup(dice);
    let (store, opened) = Store::open(dir, fs, Arc::new(copy_of(rows))).expect("opens");
    // Rows that a start replaced are gone for good: a lost record may be written again with its number, at another time.
    let is_believed = opened.index.outcome == OpenOutcome::CaughtUp;
    let rows_before = copy_of(if is_believed { rows } else { &store.rows });
    let mut user = User { store: &store, fs, oracle, promises: Vec::new() };
    for _ in 0..steps {
        user.act(dice).expect("the disk works");
    }
    let (promises, rows_after) = (user.promises, Arc::clone(&store.rows));
    store.close().expect("the disk works");
    let (ops, truth) = (fs.recorded(), found_on(dir, fs));
    let dead = BTreeSet::new();
    Life { before, ops, promises, base, truth, dead, rows_before, rows_after: copy_of(&rows_after) }
}

/// Compacts a store that nobody uses.
pub fn compaction(dir: &Path, fs: &CrashFs, rows: &MemoryStore, dice: &mut Dice) -> Life {
    let truth = found_on(dir, fs);
    let before = fs.record();
    fs.hiccup(dice);
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let (journal, _) = Journal::open(dir, Arc::clone(&filesystem), journal_options()).expect("opens");
    let min_dead_share = [0.0, 0.3, 0.9][dice.index(3)];
    let settings = CompactSettings { min_dead_share, reserve_bytes: 0, dry_run: false };
    compact_journal(dir, journal, &filesystem, &settings, &mut |_, _| {}).expect("the disk works");
    Life {
        before,
        ops: fs.recorded(),
        promises: Vec::new(),
        base: truth.keys().copied().collect(),
        dead: dead_of(&truth),
        truth,
        rows_before: copy_of(rows),
        rows_after: copy_of(rows),
    }
}

/// Records that a deletion behind them names.
fn dead_of(truth: &Records) -> BTreeSet<Sequence> {
    let deletions: BTreeMap<AcqId, Sequence> = truth
        .iter()
        .filter_map(|(sequence, (header, payload))| Some((deletion(header.kind, payload)?.acq, *sequence)))
        .collect();
    let is_dead = |sequence: &Sequence, header: &RecordHeader, payload: &[u8]| {
        deletions.iter().filter(|(_, deletion)| sequence < *deletion).any(|(acq, _)| match &header.tile {
            Some(tile) => tile.key.acq == *acq,
            None => {
                let names = format!("\"acq\":{acq}");
                payload.windows(names.len()).any(|window| window == names.as_bytes())
            }
        })
    };
    let dead = truth.iter().filter(|(sequence, (header, payload))| is_dead(sequence, header, payload));
    dead.map(|(sequence, _)| *sequence).collect()
}

impl Life {
    /// What must be found after a cut behind so many calls.
    pub fn promised(&self, calls: usize) -> BTreeSet<Sequence> {
        let by_tile: HashMap<(TileKey, u32, u64), Sequence> = self
            .truth
            .values()
            .filter_map(|(header, payload)| {
                let tile = header.tile?;
                Some(((tile.key, tile.version.0, content_of(&payload[tile.image.bounds()])), header.sequence))
            })
            .collect();
        let mut promised = self.base.clone();
        let mut below = Sequence(0);
        for op in &self.ops[..calls] {
            let Op::Mark(promise) = op else { continue };
            match &self.promises[*promise] {
                Promise::Below(sequence) => below = below.max(*sequence),
                Promise::Tile(key, version, content) => {
                    let sequence = by_tile.get(&(*key, *version, *content));
                    promised.insert(*sequence.unwrap_or_else(|| {
                        panic!("version {version} of {key} was acknowledged, and no record of it was ever written")
                    }));
                }
            }
        }
        promised.extend(self.truth.range(..below).map(|(sequence, _)| *sequence));
        promised.retain(|sequence| !self.dead.contains(sequence));
        promised
    }

    /// The disk behind so many calls, from where it was behind fewer.
    pub fn advance(&self, disk: &mut Disk, from: usize, to: usize) {
        self.ops[from..to].iter().for_each(|op| disk.apply(op));
    }
}
