//! A place's life while it is told: facts are heard in any order, told in the journal's, and judged at the end.
//!
//! Must never know where the facts come from.

use super::super::ExpectedBy;
use super::super::facts::fact_of_record;
use super::{EVENTS_MAX, KINDS, PlaceEvent, PlaceLife, PlaceRefusal, PlaceRoi, PlaceVerdict, time};
use crate::index::AcquisitionView;
use crate::journal::{ReadError, StoredRecord};
use crate::model::{Cell, Fact, FactBody, QualityFlag, Roi, RoiCells, TileEntry, TileKey};
use std::net::SocketAddr;

/// A life while it is told.
pub(super) struct Story {
    key: TileKey,
    view: Option<AcquisitionView>,
    was_deleted: bool,
    pub(super) rois: Vec<PlaceRoi>,
    events: Vec<(PlaceEvent, Option<TileEntry>)>,
    pub(super) problems: Vec<String>,
}

impl Story {
    pub(super) fn new(key: TileKey, view: Option<AcquisitionView>) -> Self {
        Self { key, view, was_deleted: false, rois: Vec::new(), events: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn hear(&mut self, record: &StoredRecord, payload: &mut dyn FnMut() -> Result<Vec<u8>, ReadError>) {
        let tile = record.header.tile.as_ref();
        let of_others = tile.is_some_and(|tile| tile.key != self.key);
        if of_others || !KINDS.contains(&record.header.kind) || self.events.len() >= EVENTS_MAX {
            return;
        }
        match fact_of_record(record, payload) {
            Ok(fact) => self.tell(&fact, tile.and_then(|tile| tile.peer)),
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    fn tell(&mut self, fact: &Fact, peer: Option<SocketAddr>) {
        let acq = self.key.acq;
        match &fact.body {
            FactBody::AcquisitionStarted(started) if started.acq == acq => self.push(fact, "started", |_| {}),
            FactBody::AcquisitionEnded(ended) if ended.acq == acq => self.push(fact, "ended", |_| {}),
            FactBody::AcquisitionDeleted(deleted) if deleted.acq == acq => {
                self.was_deleted = true;
                self.push(fact, "deleted", |_| {});
            }
            FactBody::RoisCreated(created) if created.acq == acq => {
                let place = (self.key.col, self.key.row);
                for (roi, _) in created.rois.iter().filter(|(_, places)| places.contains(&place)) {
                    self.push(fact, "expected", |event| event.of_roi(roi));
                }
            }
            FactBody::StatesChanged(changed) => {
                let cell = Cell(self.key.col, self.key.row, self.key.frame);
                let is_here = |tiles: &&RoiCells| tiles.acq == acq && tiles.cells.contains(&cell);
                for tiles in changed.tiles.iter().filter(is_here) {
                    let roi = self.view.as_ref().and_then(|view| view.head.roi(tiles.roi).cloned());
                    self.push(fact, "state", |event| {
                        roi.iter().for_each(|roi| event.of_roi(roi));
                        event.state = Some(changed.to.clone());
                        event.lent_until = changed.lease.as_ref().map(|lease| time(lease.until_ns));
                    });
                }
            }
            FactBody::TilesJudged(judged) if judged.acq == acq => {
                let cell = Cell(self.key.col, self.key.row, self.key.frame);
                for tile in judged.tiles.iter().filter(|tile| tile.cell == cell) {
                    self.push(fact, "judged", |event| {
                        (event.tile, event.version) = (Some(tile.id.0), Some(tile.version.0));
                        event.quality_flags = Some(tile.flags.iter().map(QualityFlag::name).collect());
                    });
                }
            }
            FactBody::TileStored(entry) => {
                self.push(fact, "stored", |event| {
                    event.of_tile(entry);
                    event.from = peer.map(|peer| peer.to_string());
                });
                if let Some((_, of)) = self.events.last_mut() {
                    *of = Some(*entry);
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, fact: &Fact, event: &'static str, more: impl FnOnce(&mut PlaceEvent)) {
        let (at, sequence) = (time(fact.at_ns), fact.sequence.0);
        let mut event = PlaceEvent { at, sequence, event, ..PlaceEvent::default() };
        more(&mut event);
        self.events.push((event, None));
    }

    pub(super) fn mark_damage(&mut self, is_damaged: impl Fn(&TileEntry) -> bool) {
        for (event, entry) in &mut self.events {
            event.damaged = entry.as_ref().map(&is_damaged);
        }
    }

    pub(super) fn end(mut self, current: Option<&TileEntry>, refusals: Vec<PlaceRefusal>) -> PlaceLife {
        self.order();
        let is_damaged = self.events.iter().any(|(event, entry)| {
            event.damaged == Some(true) && entry.map(|entry| entry.location) == current.map(|tile| tile.location)
        });
        let started = self.view.as_ref().and_then(|view| view.head.started.as_ref());
        let acquisition_state = match started {
            Some(started) if started.ended_ns.is_some() => "ended",
            Some(_) => "open",
            None if self.was_deleted => "deleted",
            None => "unknown",
        };
        let grid = started.map(|started| started.facts.grid()).unwrap_or_default();
        let (verdict, because) = self.judge(current, is_damaged, acquisition_state, &refusals);
        let TileKey { acq, col, row, frame } = self.key;
        PlaceLife {
            acquisition: acq.0,
            col,
            row,
            frame: frame.0,
            verdict,
            because,
            acquisition_state,
            cols: grid.cols,
            rows: grid.rows,
            rois: self.rois,
            events: self.events.into_iter().map(|(event, _)| event).collect(),
            refusals,
            problems: self.problems,
        }
    }

    /// In the journal's order. Of what was open and has been sealed meanwhile, both were heard.
    fn order(&mut self) {
        self.events.sort_by_key(|(event, _)| event.sequence);
        let mut told: Vec<(PlaceEvent, Option<TileEntry>)> = Vec::with_capacity(self.events.len());
        for event in std::mem::take(&mut self.events) {
            let mut of_record = told.iter().rev().take_while(|(other, _)| other.sequence == event.0.sequence);
            if !of_record.any(|(other, _)| *other == event.0) {
                told.push(event);
            }
        }
        self.events = told;
    }

    fn judge(
        &self,
        current: Option<&TileEntry>,
        is_damaged: bool,
        acquisition_state: &str,
        refusals: &[PlaceRefusal],
    ) -> (PlaceVerdict, String) {
        if let Some(tile) = current {
            let (id, version) = (tile.id, tile.version.0);
            return if is_damaged {
                let because =
                    format!("tile {id} was stored, and its stored bytes are damaged: sent again, it is stored anew");
                (PlaceVerdict::Damaged, because)
            } else {
                (PlaceVerdict::Stored, format!("stored as tile {id}, version {version}"))
            };
        }
        let acq = self.key.acq;
        if let Some(last) = refusals.last() {
            let peer = last.peer.as_deref().unwrap_or("somebody who was gone before the answer");
            let because = format!("refused ({}) at {}, sent by {peer}; none has come since", last.reason, last.at);
            return (PlaceVerdict::Refused, because);
        }
        match acquisition_state {
            "deleted" => {
                return (PlaceVerdict::Deleted, format!("acquisition {acq} was deleted, and its tiles with it"));
            }
            "unknown" => {
                return (PlaceVerdict::UnknownAcquisition, format!("acquisition {acq} was never started here"));
            }
            _ => {}
        }
        self.judge_unseen(acquisition_state)
    }

    /// No tile has come, and no refusal is remembered.
    fn judge_unseen(&self, acquisition_state: &str) -> (PlaceVerdict, String) {
        let never = "never seen: it was not sent, or did not arrive";
        let view = self.view.as_ref();
        let grid = view.and_then(|view| view.head.started.as_ref()).map(|started| started.facts.grid());
        let is_outside = grid.is_some_and(|grid| grid.leaves_out(self.key.col, self.key.row));
        let by = view.map_or(ExpectedBy::Mosaic, |view| {
            if view.head.rois.is_empty() { ExpectedBy::Mosaic } else { ExpectedBy::Rois }
        });
        if !self.key.frame.is_stable() {
            return (
                PlaceVerdict::NotExpected,
                "a drift frame: none is expected, and this one was never seen".to_owned(),
            );
        }
        if !self.rois.is_empty() {
            let names: Vec<&str> = self.rois.iter().map(|roi| roi.roi.as_str()).collect();
            let because =
                format!("expected by ROI {}, {never}; the acquisition is {acquisition_state}", names.join(", "));
            return (PlaceVerdict::Missing, because);
        }
        if is_outside {
            let grid = grid.unwrap_or_default();
            let because =
                format!("outside the grid of {} x {} that the log announces, and {never}", grid.cols, grid.rows);
            return (PlaceVerdict::OutsideGrid, because);
        }
        match by {
            ExpectedBy::Rois => (PlaceVerdict::NotExpected, format!("in no ROI, and {never}")),
            ExpectedBy::Mosaic => {
                let because = format!("expected by the mosaic, {never}; the acquisition is {acquisition_state}");
                (PlaceVerdict::Missing, because)
            }
        }
    }
}

impl PlaceEvent {
    fn of_roi(&mut self, roi: &Roi) {
        (self.roi, self.section) = (Some(roi.name.clone()), Some(roi.section));
    }

    fn of_tile(&mut self, entry: &TileEntry) {
        (self.tile, self.version) = (Some(entry.id.0), Some(entry.version.0));
        (self.camera, self.size) = (Some(entry.camera), Some(entry.image.len));
        let checksum = entry.checksum;
        self.checksum = Some(format!("{} {checksum}", checksum.kind().name()).trim_end().to_owned());
        self.crc32 = Some(format!("{:08x}", entry.image_crc));
        self.segment = Some(format!("{:016x}", entry.location.segment));
        self.offset = Some(entry.location.offset);
    }
}
