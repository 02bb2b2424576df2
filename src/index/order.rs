//! Tests: facts of several lanes, published in any order that can happen, give the view that their order in the journal
//! gives, live and folded into a store.

use super::board::{Block, BlockKey};
use super::board_rows::judgement_key;
use super::fold::{FoldState, fold};
use super::open::resident;
use super::overlay::{Live, Overlay, Resident};
use super::rows::{decode_judgements, pack_slot};
use super::store::{MemoryStore, ViewStore};
use super::view::{AcquisitionView, Settings, apply};
use crate::model::{
    AcqId, AcquisitionDeleted, AcquisitionEnded, AcquisitionFacts, AcquisitionStarted, ByteRange, Cell, Checksum, Fact,
    FactBody, FrameNumber, JudgedTile, Lease, Location, Measures, QualityFlags, Roi, RoiCells, RoiIndex, RoisCreated,
    Sequence, StatesChanged, TileEntry, TileId, TileKey, TileVersion, TilesJudged,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Lane 0 is the control thread's.
const LANES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Tile { acq: u8, col: u8, row: u8, frame: i8 },
    Start(u8),
    End(u8),
    Rois { acq: u8, roi: u8, places: Vec<(u8, u8)> },
    States { acq: u8, dice: u64, to: u8, lease: bool },
    Delete(u8),
    Judge { acq: u8, dice: u64, flags: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let places = prop::collection::vec((0..3u8, 0..3u8), 1..6);
    prop_oneof![
        10 => (0..2u8, 0..3u8, 0..3u8, -1..2i8).prop_map(|(acq, col, row, frame)| Step::Tile { acq, col, row, frame }),
        1 => (0..2u8).prop_map(Step::Start),
        1 => (0..2u8).prop_map(Step::End),
        3 => (0..2u8, 0..3u8, places).prop_map(|(acq, roi, places)| Step::Rois { acq, roi, places }),
        8 => (0..2u8, any::<u64>(), 0..4u8, any::<bool>())
            .prop_map(|(acq, dice, to, lease)| Step::States { acq, dice, to, lease }),
        1 => (0..2u8).prop_map(Step::Delete),
        6 => (0..2u8, any::<u64>(), 0..16u8).prop_map(|(acq, dice, flags)| Step::Judge { acq, dice, flags }),
    ]
}

/// A fact with its lane, and facts that must be visible before it can be decided.
struct Placed {
    fact: Fact,
    lane: usize,
    after: Vec<usize>,
}

/// Facts as lanes and the control thread decide them, each from what is visible when it is their turn.
#[derive(Default)]
struct History {
    placed: Vec<Placed>,
    live: Live,
    tiles: HashMap<TileKey, (TileId, TileVersion)>,
    /// When a tile was first published, and the last deletion.
    first: HashMap<TileKey, usize>,
    deleted: HashMap<AcqId, usize>,
    next_id: u64,
}

impl History {
    fn add(&mut self, lane: usize, after: Vec<usize>, body: FactBody) {
        let sequence = Sequence(self.placed.len() as u64 + 1);
        let location = Location { segment: 1, offset: sequence.0 * 100, payload_len: 10 };
        let fact =
            Fact { sequence, at_ns: i64::try_from(sequence.0).expect("small"), digest: sequence.0, location, body };
        apply(&fact, &mut self.live);
        self.placed.push(Placed { fact, lane, after });
    }

    fn step(&mut self, step: &Step) {
        let acq_of = |acq: u8| AcqId(u64::from(acq) + 1);
        match step {
            Step::Tile { acq, col, row, frame } => self.tile(TileKey {
                acq: acq_of(*acq),
                col: u32::from(*col),
                row: u32::from(*row),
                frame: FrameNumber(i32::from(*frame)),
            }),
            Step::Start(acq) => {
                let (log_name, log_text) = (String::new(), String::new());
                let facts = AcquisitionFacts {
                    acquired_unix_s: Some(self.placed.len() as i64 % 3),
                    ..AcquisitionFacts::default()
                };
                let started = AcquisitionStarted { acq: acq_of(*acq), log_name, facts, log_text, temca: 0 };
                self.add(0, Vec::new(), FactBody::AcquisitionStarted(Box::new(started)));
            }
            Step::End(acq) => {
                self.add(0, Vec::new(), FactBody::AcquisitionEnded(AcquisitionEnded { acq: acq_of(*acq) }))
            }
            Step::Rois { acq, roi, places } => {
                let roi = Roi { name: roi.to_string(), section: i64::from(roi / 2), prev: 0 };
                let places = places.iter().map(|(col, row)| (u32::from(*col), u32::from(*row))).collect();
                let created = RoisCreated { acq: acq_of(*acq), rois: vec![(roi, places)] };
                self.add(0, Vec::new(), FactBody::RoisCreated(Box::new(created)));
            }
            Step::Judge { acq, dice, flags } => self.judge(acq_of(*acq), *dice, *flags),
            Step::States { acq, dice, to, lease } => self.states(acq_of(*acq), *dice, *to, *lease),
            Step::Delete(acq) => {
                let acq = acq_of(*acq);
                self.tiles.retain(|key, _| key.acq != acq);
                self.first.retain(|key, _| key.acq != acq);
                self.deleted.insert(acq, self.placed.len());
                let deleted = AcquisitionDeleted { acq, next_tile: self.next_id };
                self.add(0, Vec::new(), FactBody::AcquisitionDeleted(deleted));
            }
        }
    }

    fn tile(&mut self, key: TileKey) {
        // A tile that the lane holds for new because its acquisition was deleted comes behind the deletion.
        let after = self.deleted.get(&key.acq).copied().into_iter().collect();
        let (id, version) = match self.tiles.get(&key) {
            Some((id, version)) => (*id, TileVersion(version.0 + 1)),
            None => {
                self.next_id += 1;
                (TileId(self.next_id), TileVersion::FIRST)
            }
        };
        self.tiles.insert(key, (id, version));
        self.first.entry(key).or_insert(self.placed.len());
        let sequence = Sequence(self.placed.len() as u64 + 1);
        let lane = 1 + usize::try_from(key.spread() % (LANES as u64 - 1)).expect("small");
        let entry = TileEntry {
            id,
            key,
            camera: 0,
            version,
            location: Location { segment: 1, offset: sequence.0 * 100, payload_len: 10 },
            image: ByteRange { offset: 0, len: 5 },
            image_crc: 0,
            payload_crc: 0,
            checksum: Checksum::None,
            received_ns: i64::try_from(sequence.0).expect("small"),
            sequence,
        };
        self.add(lane, after, FactBody::TileStored(entry));
    }

    /// Some of the ROI tiles that there are now.
    fn states(&mut self, acq: AcqId, dice: u64, to: u8, lease: bool) {
        let Some(board) = self.live.boards.get(&acq) else { return };
        let mut parts: BTreeMap<RoiIndex, Vec<Cell>> = BTreeMap::new();
        let mut after = Vec::new();
        let all = board.blocks_from(BlockKey::FIRST).flat_map(|(key, block)| {
            (0..64).flat_map(move |slot| block.rois_at(slot).map(move |(roi, _)| (roi, key.cell(slot))))
        });
        for (_, (roi, cell)) in all.enumerate().filter(|(n, _)| dice >> (n % 64) & 3 == 3) {
            parts.entry(roi).or_default().push(cell);
            // A drift frame is known to be one only when it has come.
            let key = TileKey { acq, col: cell.0, row: cell.1, frame: cell.2 };
            after.extend(self.first.get(&key).copied().filter(|_| !cell.2.is_stable()));
        }
        if parts.is_empty() {
            return;
        }
        let name = ["CREATE", "READY", "IN_PROGRESS", "COMPLETE"][usize::from(to)].to_owned();
        let tiles = parts.into_iter().map(|(roi, cells)| RoiCells { acq, roi, cells }).collect();
        let until_ns = i64::from(to) * 1000 + self.placed.len() as i64;
        let lease = lease.then(|| Lease { until_ns, back_to: "READY".to_owned() });
        self.add(0, after, FactBody::StatesChanged(Box::new(StatesChanged { to: name, tiles, lease })));
    }

    /// Some of the contents that were ever visible, replaced and deleted ones among them: whoever judges is late.
    fn judge(&mut self, acq: AcqId, dice: u64, flags: u8) {
        let (mut tiles, mut after) = (Vec::new(), Vec::new());
        for (n, placed) in self.placed.iter().enumerate().filter(|(n, _)| dice >> (n % 64) & 3 == 3) {
            let FactBody::TileStored(entry) = &placed.fact.body else { continue };
            if entry.key.acq == acq {
                let measures =
                    Measures { mean_c: u32::try_from(self.placed.len()).expect("few"), ..Measures::default() };
                let (id, version, sequence, cell) = (entry.id, entry.version, entry.sequence, entry.key.cell());
                tiles.push(JudgedTile { id, version, sequence, cell, measures, flags: QualityFlags(flags) });
                after.push(n);
            }
        }
        if !tiles.is_empty() {
            self.add(0, after, FactBody::TilesJudged(Box::new(TilesJudged { acq, tiles })));
        }
    }

    /// Facts that one lane writes together: neighbours in the journal, of the control thread's only those that may share.
    fn batches(&self, mut dice: u64) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for (n, placed) in self.placed.iter().enumerate() {
            dice = next(dice);
            let joins = batches.last().and_then(|batch| batch.last()).is_some_and(|last| {
                let is_stating = |n: usize| {
                    matches!(self.placed[n].fact.body, FactBody::StatesChanged(_) | FactBody::TilesJudged(_))
                };
                let may_share = placed.lane != 0 || (is_stating(n) && is_stating(*last));
                self.placed[*last].lane == placed.lane && may_share && dice >> 62 != 0
            });
            match batches.last_mut().filter(|_| joins) {
                Some(batch) => batch.push(n),
                None => batches.push(vec![n]),
            }
        }
        batches
    }

    /// An order in which batches can become visible. A lane takes numbers for a batch when its last one is visible, so
    /// behind a fact that is visible each other lane can owe one batch; and none is visible before what it was decided
    /// from.
    fn interleaved(&self, mut dice: u64) -> Vec<Vec<usize>> {
        let batches = self.batches(dice);
        let lane_of = |batch: &[usize]| self.placed[batch[0]].lane;
        let mut done = vec![false; self.placed.len()];
        let mut waiting: Vec<Vec<usize>> = batches.clone();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            let can = |n: usize| {
                let batch = &waiting[n];
                let owed = |lane: usize| waiting[..n].iter().filter(|before| lane_of(before) == lane).count();
                let decided = batch.iter().flat_map(|n| &self.placed[*n].after);
                (0..LANES).all(|lane| owed(lane) <= usize::from(lane != lane_of(batch)))
                    && decided.into_iter().all(|after| done[*after] || batch.contains(after))
            };
            let ready: Vec<usize> = (0..waiting.len()).filter(|n| can(*n)).collect();
            dice = next(dice);
            let pick = ready[usize::try_from(dice >> 33).expect("small") % ready.len()];
            let batch = waiting.remove(pick);
            batch.iter().for_each(|n| done[*n] = true);
            order.push(batch);
        }
        order
    }
}

fn next(dice: u64) -> u64 {
    dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// What readers see, without what the store holds of tiles.
#[derive(Debug, PartialEq)]
struct Seen {
    acquisitions: BTreeMap<AcqId, AcquisitionView>,
    blocks: Vec<(AcqId, BlockKey, Block)>,
    counts: Vec<(AcqId, super::StateCounts)>,
    states: Vec<String>,
    settings: Settings,
    work: Vec<(super::StateId, i64, AcqId)>,
    leases: Vec<(i64, AcqId, BlockKey, RoiIndex, u8)>,
}

fn seen(live: &Live) -> Seen {
    let heads = live.acquisitions.values().map(|view| view.head.memory_bytes()).sum::<usize>();
    assert_eq!(live.head_bytes, heads, "the memory of heads is counted otherwise than it is");
    let boards: BTreeMap<AcqId, _> = live.boards.iter().map(|(acq, board)| (*acq, board)).collect();
    let blocks = boards.iter().flat_map(|(acq, board)| {
        let blocks = board.blocks_from(BlockKey::FIRST).filter(|(_, block)| **block != Block::default());
        blocks.map(move |(key, block)| (*acq, *key, block.clone()))
    });
    let counts = boards.iter().map(|(acq, board)| (*acq, board.counts().clone()));
    Seen {
        acquisitions: live.acquisitions.clone(),
        blocks: blocks.collect(),
        counts: counts.filter(|(_, counts)| *counts != super::StateCounts::default()).collect(),
        states: live.states.all().map(str::to_owned).collect(),
        settings: Settings::clone(&live.settings),
        work: live.work.iter().copied().collect(),
        leases: live.leases.iter().copied().collect(),
    }
}

/// Names what differs, for the whole is long.
fn same(found: &Seen, wanted: &Seen, history: &History) -> Result<(), TestCaseError> {
    let facts = || -> Vec<String> {
        history
            .placed
            .iter()
            .map(|placed| format!("\n{} lane {} {:?}", placed.fact.sequence.0, placed.lane, placed.fact.body))
            .collect()
    };
    for (one, other) in found.blocks.iter().zip(&wanted.blocks) {
        prop_assert_eq!(one, other, "{}", facts().concat());
    }
    prop_assert!(found == wanted, "{:?}\nis not\n{:?}{}", found, wanted, facts().concat());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn facts_published_in_any_order_give_the_view_of_the_journals_order(
        steps in prop::collection::vec(step(), 1..60), dice: u64,
    ) {
        let mut history = History { next_id: 1, ..History::default() };
        steps.iter().for_each(|step| history.step(step));
        let wanted = seen(&history.live);
        let order = history.interleaved(dice);
        let mut out_of_order = Live::default();
        order.iter().flatten().for_each(|n| apply(&history.placed[*n].fact, &mut out_of_order));
        same(&seen(&out_of_order), &wanted, &history)?;
        for (key, (id, version)) in &history.tiles {
            for version in 1..=version.0 {
                let of = |live: &Live| live.version(*id, TileVersion(version)).map(|entry| entry.sequence);
                prop_assert_eq!(of(&out_of_order), of(&history.live), "version {} of {}", version, key);
            }
        }
        // The same, with what the store has taken over dropped as soon as it can be.
        let overlay = Overlay::new(Resident::default(), 1000);
        let mut published = vec![false; history.placed.len()];
        let mut folded = 0;
        let store = MemoryStore::default();
        let mut state = FoldState::default();
        for batch in order {
            let facts: Vec<Fact> = batch.iter().map(|n| history.placed[*n].fact.clone()).collect();
            overlay.publish(&facts);
            batch.iter().for_each(|n| published[*n] = true);
            let safe = published.iter().position(|done| !done).unwrap_or(published.len());
            if safe > folded + 3 || safe == published.len() {
                let facts: Vec<Fact> = history.placed[folded..safe].iter().map(|placed| placed.fact.clone()).collect();
                fold(&store, &mut state, &facts).expect("folds");
                overlay.trim(&facts);
                folded = safe;
            }
        }
        same(&seen(&overlay.read()), &wanted, &history)?;
        for (key, (id, _)) in &history.tiles {
            let row = judgement_key(key.acq, *id);
            let stored = store.get(&row).expect("readable").map(|value| decode_judgements(&row, &value).expect("whole"));
            let stored = stored.and_then(|row| row.get(pack_slot(*id)));
            prop_assert_eq!(stored, history.live.judgement(key.acq, *id).flatten(), "tile {} at {}", id, key);
            let late = out_of_order.judgement(key.acq, *id).flatten();
            prop_assert_eq!(late, stored, "tile {} at {}, out of order", id, key);
        }
        let reopened = Overlay::new(resident(&store, &state).expect("rows"), 1000);
        same(&seen(&reopened.read()), &wanted, &history)?;
    }
}
