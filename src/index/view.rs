//! `apply`: the one function that says what a fact changes. Live traffic, catching up and a rebuild all go through it.
//!
//! Live, facts of different lanes may come in another order than the journal's; so whatever two lanes can say about one
//! thing must give the same result in either order. Sums do by themselves; states compare sequences where it matters
//! ([`View::is_overtaken`]); a deletion names the sequence below which everything is dead.

use super::board::{Block, BlockKey, SlotLease, StateId, slots};
use crate::model::{
    AcqId, AcquisitionFacts, Calibration, Cell, Fact, FactBody, FileStored, Judgement, Location, QualityFlags, Roi,
    RoiIndex, RoisCreated, Sequence, StatesChanged, Temca, TileEntry, TileId, TileVersion, TilesJudged,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Something that facts can be applied to.
pub trait View {
    /// The tile now has this version.
    fn put_tile(&mut self, entry: &TileEntry);

    /// What is known of an acquisition but its sums.
    fn acquisition(&self, acq: AcqId) -> Option<&AcquisitionView>;

    /// Changes what is known of an acquisition but its sums; makes it if it was not there.
    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView));

    /// Changes an acquisition's sums; makes it if it was not there.
    fn update_counters(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut Counters));

    /// Changes a block; makes it if it was not there.
    fn update_block(&mut self, acq: AcqId, key: BlockKey, change: &mut dyn FnMut(&mut Block));

    /// A copy of a block.
    fn block(&mut self, acq: AcqId, key: BlockKey) -> Option<Block>;

    /// The blocks of an acquisition's drift frames.
    fn drift_blocks(&mut self, acq: AcqId) -> Vec<BlockKey>;

    /// The number of a state's name.
    fn state_id(&mut self, name: &str) -> StateId;

    /// Changes what all acquisitions share.
    fn update_settings(&mut self, change: &mut dyn FnMut(&mut Settings));

    /// Forgets all tiles and places of an acquisition.
    fn remove_tiles(&mut self, acq: AcqId, before: Sequence);

    /// What was found of a tile by a fact, or that nothing is known of it any more.
    fn put_judgement(&mut self, acq: AcqId, id: TileId, sequence: Sequence, judgement: Option<Judgement>);

    /// True when a later fact has judged the tile already, or taken back what was found of it.
    fn is_judged_behind(&mut self, acq: AcqId, id: TileId, sequence: Sequence) -> bool;

    /// True when a later fact has set the state of this place already; else notes that this one has.
    fn is_overtaken(&mut self, acq: AcqId, roi: RoiIndex, cell: Cell, sequence: Sequence) -> bool;
}

/// What is known of an acquisition.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AcquisitionView {
    /// Everything but the sums; shared, for it changes rarely.
    pub head: Arc<AcquisitionHead>,
    /// Sums over its tiles.
    pub counters: Counters,
}

/// What is known of an acquisition but its sums.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct AcquisitionHead {
    /// How it was started; `None` while only its tiles are known.
    pub started: Option<StartedView>,
    /// Its ROIs; never reordered.
    #[serde(default)]
    pub rois: Vec<Roi>,
    /// Its files, oldest first.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// The manifest at its last end.
    #[serde(default)]
    pub manifest: Option<ManifestView>,
    /// Everything with a lower sequence was deleted.
    #[serde(default)]
    pub deleted_before: Sequence,
}

/// What an entry takes beside its texts, bytes, about.
const ENTRY_BYTES: usize = 160;

impl AcquisitionHead {
    /// Memory that it takes, about. None while it says nothing: of such acquisitions only the tiles count.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let started = self.started.as_ref().map_or(0, |started| {
            ENTRY_BYTES + started.log_name.len() + started.log_text.len() + started.facts.text_bytes()
        });
        let rois: usize = self.rois.iter().map(|roi| ENTRY_BYTES + roi.name.len()).sum();
        let files: usize =
            self.files.iter().map(|entry| ENTRY_BYTES + entry.file.name.len() + entry.file.path.len()).sum();
        started + rois + files
    }

    /// The ROI with this index.
    #[must_use]
    pub fn roi(&self, index: RoiIndex) -> Option<&Roi> {
        self.rois.get(usize::from(index.0))
    }
}

/// A file of an acquisition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its identifier: the sequence of its record.
    pub id: Sequence,
    /// When it was stored, ns since 1970 UTC.
    pub at_ns: i64,
    /// The record.
    pub location: Location,
    /// What it is.
    pub file: FileStored,
}

/// The manifest that was recorded at an acquisition's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestView {
    /// When, ns since 1970 UTC.
    pub at_ns: i64,
    /// Number of tiles.
    pub tiles: u64,
    /// Merkle root, hex.
    pub root: String,
}

/// The start and end of an acquisition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StartedView {
    /// When it was first started, ns since 1970 UTC.
    pub first_started_ns: i64,
    /// The record of the first start.
    pub first: Sequence,
    /// The record of the last start.
    pub last: Sequence,
    /// When it was ended, if it was and has not been started again since.
    pub ended_ns: Option<i64>,
    /// Base name of its log file.
    pub log_name: String,
    /// What the log says.
    pub facts: AcquisitionFacts,
    /// The log itself.
    pub log_text: String,
    /// The TEMCA; 0 when it is not known.
    pub temca: u32,
}

/// What all acquisitions share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Calibrations by name.
    pub calibrations: BTreeMap<String, CalibrationEntry>,
    /// TEMCAs by id.
    pub temcas: BTreeMap<u32, Temca>,
    /// No tile id below this is given again, whether or not its record is still there.
    pub tile_floor: u64,
}

/// An imported calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationEntry {
    /// Its identifier, from 1, in the order in which names were first imported.
    pub id: u64,
    /// The calibration.
    pub calibration: Calibration,
}

/// Cameras that are counted one by one; others together as -1.
const COUNTED_CAMERAS: i32 = 1024;

/// Sums over an acquisition's tiles. Adding in another order gives the same sums.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Stable tiles.
    pub tiles: u64,
    /// Drift frames.
    pub drift_frames: u64,
    /// Versions that replaced an earlier content.
    pub replaced: u64,
    /// Bytes of all images, all versions.
    pub image_bytes: u64,
    /// When the last tile arrived, ns since 1970 UTC.
    pub last_received_ns: i64,
    /// Stable tiles by camera and place in the 2 x 2 pattern: even or odd column, even or odd row.
    #[serde(default)]
    pub cameras: BTreeMap<i32, [u64; 4]>,
}

impl Counters {
    fn add(&mut self, entry: &TileEntry) {
        if entry.version != TileVersion::FIRST {
            self.replaced += 1;
        } else if entry.key.frame.is_stable() {
            self.tiles += 1;
            let camera = if (0..COUNTED_CAMERAS).contains(&entry.camera) { entry.camera } else { -1 };
            self.cameras.entry(camera).or_default()[parity(entry.key.col, entry.key.row)] += 1;
        } else {
            self.drift_frames += 1;
        }
        self.image_bytes += u64::from(entry.image.len);
        self.last_received_ns = self.last_received_ns.max(entry.received_ns);
    }
}

/// A place's position in the 2 x 2 pattern that four cameras make.
#[must_use]
pub fn parity(col: u32, row: u32) -> usize {
    (col % 2 * 2 + row % 2) as usize
}

/// Applies one fact.
pub fn apply(fact: &Fact, view: &mut dyn View) {
    match &fact.body {
        FactBody::TileStored(entry) => tile_stored(entry, view),
        FactBody::AcquisitionStarted(started) => view.update_acquisition(started.acq, &mut |acquisition| {
            let head = Arc::make_mut(&mut acquisition.head);
            let before = head.started.as_ref().map(|started| (started.first_started_ns, started.first));
            let (first_started_ns, first) = before.unwrap_or((fact.at_ns, fact.sequence));
            head.started = Some(StartedView {
                first_started_ns,
                first,
                last: fact.sequence,
                ended_ns: None,
                log_name: started.log_name.clone(),
                facts: started.facts.clone(),
                log_text: started.log_text.clone(),
                temca: started.temca,
            });
        }),
        FactBody::AcquisitionEnded(ended) => view.update_acquisition(ended.acq, &mut |acquisition| {
            if let Some(started) = &mut Arc::make_mut(&mut acquisition.head).started {
                started.ended_ns = Some(fact.at_ns);
            }
        }),
        FactBody::RoisCreated(created) => rois_created(created, view),
        FactBody::FileStored(file) => view.update_acquisition(file.acq, &mut |acquisition| {
            let entry = FileEntry {
                id: fact.sequence,
                at_ns: fact.at_ns,
                location: fact.location,
                file: FileStored::clone(file),
            };
            Arc::make_mut(&mut acquisition.head).files.push(entry);
        }),
        FactBody::StatesChanged(changed) => states_changed(changed, fact.sequence, view),
        FactBody::CalibrationsImported(imported) => view.update_settings(&mut |settings| {
            imported.calibrations.iter().for_each(|calibration| settings.import(calibration));
        }),
        FactBody::TemcaConfigured(configured) => view.update_settings(&mut |settings| {
            settings.temcas.insert(configured.temca.id, configured.temca.clone());
        }),
        FactBody::AcquisitionDeleted(deleted) => {
            view.remove_tiles(deleted.acq, fact.sequence);
            view.update_settings(&mut |settings| settings.tile_floor = settings.tile_floor.max(deleted.next_tile));
            view.update_acquisition(deleted.acq, &mut |acquisition| {
                let head = AcquisitionHead { deleted_before: fact.sequence, ..AcquisitionHead::default() };
                acquisition.head = Arc::new(head);
            });
        }
        FactBody::ManifestMade(made) => view.update_acquisition(made.acq, &mut |acquisition| {
            let manifest = ManifestView { at_ns: fact.at_ns, tiles: made.tiles, root: made.root.clone() };
            Arc::make_mut(&mut acquisition.head).manifest = Some(manifest);
        }),
        FactBody::TilesJudged(judged) => tiles_judged(judged, fact.sequence, view),
        FactBody::NumbersGiven(given) => view.update_settings(&mut |settings| {
            settings.tile_floor = settings.tile_floor.max(given.next_tile);
        }),
        FactBody::Unknown { .. } | FactBody::Unread => {}
    }
}

impl Settings {
    /// Memory that the calibrations take, about: as they are, and once these have been imported.
    #[must_use]
    pub fn calibration_bytes(&self, new: &[Calibration]) -> (usize, usize) {
        let now = self.calibrations.values().map(|entry| entry.calibration.memory_bytes()).sum();
        let replaced = new.iter().filter_map(|calibration| self.calibrations.get(&calibration.name));
        let gone: usize = replaced.map(|entry| entry.calibration.memory_bytes()).sum();
        let come: usize = new.iter().map(Calibration::memory_bytes).sum();
        (now, now.saturating_sub(gone) + come)
    }

    /// How many TEMCAs are known once these have been imported: one that nobody has described becomes known by its calibration.
    #[must_use]
    pub fn temcas_with(&self, new: &[Calibration]) -> usize {
        let numbers = new.iter().map(|calibration| calibration.temca);
        let unknown: BTreeSet<u32> = numbers.filter(|temca| !self.temcas.contains_key(temca)).collect();
        self.temcas.len() + unknown.len()
    }

    fn import(&mut self, calibration: &Calibration) {
        // None is ever removed: the number of those there is the id of the next.
        let next = self.calibrations.len() as u64 + 1;
        let id = self.calibrations.get(&calibration.name).map_or(next, |before| before.id);
        let entry = CalibrationEntry { id, calibration: calibration.clone() };
        self.calibrations.insert(calibration.name.clone(), entry);
        let temca = self.temcas.entry(calibration.temca).or_insert_with(|| Temca::unnamed(calibration.temca));
        temca.camera_mut(calibration.camera).transformation = Some(calibration.name.clone());
    }
}

fn tile_stored(entry: &TileEntry, view: &mut dyn View) {
    let (acq, sequence) = (entry.key.acq, entry.sequence);
    if view.acquisition(acq).is_some_and(|acquisition| sequence < acquisition.head.deleted_before) {
        return;
    }
    view.put_tile(entry);
    view.update_counters(acq, &mut |counters| counters.add(entry));
    let cell = Cell(entry.key.col, entry.key.row, entry.key.frame);
    let (key, slot) = BlockKey::of(cell);
    let bit = 1u64 << slot;
    let rois = match (entry.key.frame.is_stable(), entry.version) {
        (_, TileVersion::FIRST) => Vec::new(),
        _ => view.block(acq, key).map(|block| block.rois_at(slot).map(|(roi, _)| roi).collect()).unwrap_or_default(),
    };
    let renewed: Vec<RoiIndex> = rois.into_iter().filter(|roi| !view.is_overtaken(acq, *roi, cell, sequence)).collect();
    let inherited: Vec<RoiIndex> = if key.drift {
        let (stable, slot) = BlockKey::of(Cell(cell.0, cell.1, crate::model::FrameNumber::STABLE));
        view.block(acq, stable).map(|block| block.rois_at(slot).map(|(roi, _)| roi).collect()).unwrap_or_default()
    } else {
        Vec::new()
    };
    // What was found of an earlier content says nothing of this one.
    let is_unjudged = entry.version != TileVersion::FIRST && !view.is_judged_behind(acq, entry.id, sequence);
    if is_unjudged {
        view.put_judgement(acq, entry.id, sequence, None);
    }
    view.update_block(acq, key, &mut |block| {
        block.stored |= bit;
        if is_unjudged {
            block.judge(slot, QualityFlags::default());
        }
        let waiting: Vec<RoiIndex> =
            block.rois_at(slot).filter(|(_, state)| *state == StateId::CREATE).map(|(roi, _)| roi).collect();
        let absent = inherited.iter().filter(|roi| block.state(**roi, slot).is_none());
        let ready: Vec<RoiIndex> = waiting.into_iter().chain(renewed.iter().copied()).chain(absent.copied()).collect();
        ready.into_iter().for_each(|roi| block.set(roi, bit, StateId::READY));
    });
}

/// The last record that says something of a tile counts: a new version takes back what earlier ones say of it.
fn tiles_judged(judged: &TilesJudged, sequence: Sequence, view: &mut dyn View) {
    let acq = judged.acq;
    let deleted_before = view.acquisition(acq).map_or(Sequence(0), |acquisition| acquisition.head.deleted_before);
    for tile in judged.tiles.iter().filter(|tile| tile.sequence >= deleted_before) {
        if view.is_judged_behind(acq, tile.id, sequence) {
            continue;
        }
        view.put_judgement(acq, tile.id, sequence, Some(tile.judgement()));
        let (key, slot) = BlockKey::of(tile.cell);
        view.update_block(acq, key, &mut |block| block.judge(slot, tile.flags));
    }
}

/// New ROI tiles are CREATE, or READY where the content is there already; known ones keep their state.
fn rois_created(created: &RoisCreated, view: &mut dyn View) {
    let acq = created.acq;
    let mut indices = Vec::with_capacity(created.rois.len());
    view.update_acquisition(acq, &mut |acquisition| {
        let head = Arc::make_mut(&mut acquisition.head);
        let mut known: HashMap<String, usize> = head.rois.iter().map(|roi| roi.name.clone()).zip(0..).collect();
        indices.clear();
        for (roi, _) in &created.rois {
            let index = *known.entry(roi.name.clone()).or_insert_with(|| {
                head.rois.push(roi.clone());
                head.rois.len() - 1
            });
            indices.push(RoiIndex(u16::try_from(index).unwrap_or(u16::MAX)));
        }
    });
    // Each block is changed once, whatever the number of ROIs: a change accounts for all that is in the block.
    let mut blocks: BTreeMap<BlockKey, BTreeMap<RoiIndex, u64>> = BTreeMap::new();
    for (index, (_, places)) in indices.iter().zip(&created.rois) {
        for (col, row) in places {
            let (key, slot) = BlockKey::of(Cell(*col, *row, crate::model::FrameNumber::STABLE));
            *blocks.entry(key).or_default().entry(*index).or_default() |= 1 << slot;
        }
    }
    for (key, members) in &blocks {
        view.update_block(acq, *key, &mut |block| {
            members.iter().for_each(|(roi, bits)| add_members(block, *roi, *bits));
        });
    }
    for key in view.drift_blocks(acq) {
        let (stable, slot) = BlockKey::of(Cell(key.col, key.row, crate::model::FrameNumber::STABLE));
        let here = blocks.get(&stable).into_iter().flatten().filter(|(_, bits)| **bits >> slot & 1 == 1);
        let rois: Vec<RoiIndex> = here.map(|(roi, _)| *roi).collect();
        if !rois.is_empty() {
            view.update_block(acq, key, &mut |block| {
                rois.iter().for_each(|roi| add_members(block, *roi, block.stored));
            });
        }
    }
}

fn add_members(block: &mut Block, roi: RoiIndex, bits: u64) {
    let new = bits & !block.members(roi);
    block.set(roi, new & block.stored, StateId::READY);
    block.set(roi, new & !block.stored, StateId::CREATE);
}

fn states_changed(changed: &StatesChanged, sequence: Sequence, view: &mut dyn View) {
    let to = view.state_id(&changed.to);
    let lease = changed.lease.as_ref().map(|lease| (view.state_id(&lease.back_to), lease.until_ns));
    for part in &changed.tiles {
        if view.acquisition(part.acq).is_some_and(|acquisition| sequence < acquisition.head.deleted_before) {
            continue;
        }
        let mut blocks: BTreeMap<BlockKey, u64> = BTreeMap::new();
        for cell in &part.cells {
            if !view.is_overtaken(part.acq, part.roi, *cell, sequence) {
                let (key, slot) = BlockKey::of(*cell);
                *blocks.entry(key).or_default() |= 1 << slot;
            }
        }
        for (key, bits) in blocks {
            view.update_block(part.acq, key, &mut |block| {
                let bits = bits & block.members(part.roi);
                // CREATE says that the content has not come: a stored tile can not go back there, or its arrival and this
                // fact would have to be told in order.
                let stored = if to == StateId::CREATE { bits & block.stored } else { 0 };
                block.set(part.roi, stored, StateId::READY);
                block.set(part.roi, bits & !stored, to);
                for slot in slots(lease.map_or(0, |_| bits & !stored)) {
                    if let Some((back_to, until_ns)) = lease {
                        block.lend(SlotLease { roi: part.roi, slot, back_to, until_ns });
                    }
                }
            });
        }
    }
}
