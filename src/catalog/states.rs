//! Distribution of ROI tiles and their states: next-tile, tile-state, leases.

use super::commands::{Catalog, CatalogError};
use super::control::{Done, Draft, Sharing};
use crate::base::clock;
use crate::index::{AcquisitionView, Index, PickFilter, StateNames};
use crate::model::{
    AcqId, Cell, FactBody, Lease, RoiCells, RoiIndex, RoiTileKey, StatesChanged, TileSpecId, state_name_problem,
};
use std::collections::{BTreeMap, BTreeSet};

/// Which acquisitions a caller means; empty texts take all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcquisitionFilter {
    /// One acquisition.
    pub acq: Option<AcqId>,
    /// Sample name.
    pub sample: Option<String>,
    /// Project name.
    pub project: Option<String>,
    /// Project owner.
    pub owner: Option<String>,
    /// Stack name.
    pub stack: Option<String>,
    /// Mosaic type.
    pub mosaic_type: Option<String>,
    /// From when on acquired, as the log says, seconds since 1970 UTC.
    pub acquired_from_s: Option<i64>,
    /// Before when acquired.
    pub acquired_to_s: Option<i64>,
}

impl AcquisitionFilter {
    /// True for what the caller means.
    #[must_use]
    pub fn takes(&self, acq: AcqId, view: &AcquisitionView) -> bool {
        if self.acq.is_some_and(|wanted| wanted != acq) {
            return false;
        }
        if *self == (Self { acq: self.acq, ..Self::default() }) {
            return true;
        }
        let Some(started) = &view.head.started else { return false };
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let acquired = started.facts.acquired_unix_s.unwrap_or(i64::MIN);
        is(&self.sample, &started.facts.sample_name)
            && is(&self.project, &started.facts.project_name)
            && is(&self.owner, &started.facts.project_owner)
            && is(&self.stack, &started.facts.stack_name)
            && is(&self.mosaic_type, &started.facts.mosaic_type)
            && self.acquired_from_s.is_none_or(|from| acquired >= from)
            && self.acquired_to_s.is_none_or(|to| acquired < to)
    }
}

/// Tiles of which frames are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FrameType {
    /// Stable tiles.
    #[default]
    Stable,
    /// Drift frames.
    Drift,
    /// Both.
    All,
}

impl FrameType {
    /// True for drift frames only, false for stable tiles only.
    #[must_use]
    pub fn drift(self) -> Option<bool> {
        match self {
            Self::Stable => Some(false),
            Self::Drift => Some(true),
            Self::All => None,
        }
    }

    /// True when tiles with (`drift`) or without a frame number are meant.
    #[must_use]
    pub fn takes(self, drift: bool) -> bool {
        self.drift().is_none_or(|wanted| wanted == drift)
    }
}

/// What a caller of next-tile asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextTiles {
    /// From which acquisitions.
    pub of: AcquisitionFilter,
    /// One nominal section only.
    pub section: Option<i64>,
    /// At most so many.
    pub limit: usize,
    /// In this state.
    pub old_state: String,
    /// To be put into this one.
    pub new_state: String,
    /// Of which frames.
    pub frames: FrameType,
    /// When received: from (inclusive) and to (exclusive), ns since 1970 UTC.
    pub received: Option<(i64, i64)>,
    /// They return to the old state when nothing is heard of them for so long, s.
    pub lease_s: Option<u32>,
}

/// How a call of next-tile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextResult {
    /// Some tiles.
    TileFound,
    /// None, and none of the special cases.
    NoTileReady,
    /// None in the section asked for.
    NoTileReadyInSection,
    /// The acquisition is completed and all its tiles were handed out.
    ServedAllAcq,
    /// As before, of the section asked for.
    ServedAllSection,
}

impl NextResult {
    /// As the answer writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TileFound => "TILE_FOUND",
            Self::NoTileReady => "NO_TILE_READY",
            Self::NoTileReadyInSection => "NO_TILE_READY_IN_SECTION",
            Self::ServedAllAcq => "SERVED_ALL_ACQ",
            Self::ServedAllSection => "SERVED_ALL_SECTION",
        }
    }
}

impl Catalog {
    /// Puts tiles from one state into another and hands them out: each to one caller only.
    ///
    /// # Errors
    /// A state that can be none; the fact could not be made durable.
    pub fn next_tiles(
        &self,
        ask: NextTiles,
        answer: impl FnOnce(Result<(NextResult, Vec<RoiTileKey>), CatalogError>) + Send + 'static,
    ) -> Result<(), CatalogError> {
        if let Some(problem) = state_name_problem(&ask.old_state).or_else(|| state_name_problem(&ask.new_state)) {
            return Err(CatalogError::Invalid(problem));
        }
        let decide = move |index: &Index, claims: &mut std::collections::HashSet<RoiTileKey>| {
            check_state_is_new(index, &ask.new_state)?;
            let filter = PickFilter {
                state: &ask.old_state,
                limit: ask.limit,
                acq: ask.of.acq,
                section: ask.section,
                drift: ask.frames.drift(),
                takes: &|acq, view| ask.of.takes(acq, view),
                received: ask.received,
            };
            let picked = index.pick(&filter, claims)?;
            if picked.tiles.is_empty() {
                return Ok((Vec::new(), (nothing_found(index, &ask), picked.tiles)));
            }
            claims.extend(picked.tiles.iter().copied());
            let until = |seconds: u32| clock::steady_unix_ns().saturating_add(i64::from(seconds) * 1_000_000_000);
            let lease = ask.lease_s.map(|s| Lease { until_ns: until(s), back_to: ask.old_state.clone() });
            let changed = StatesChanged { to: ask.new_state.clone(), tiles: picked.by_roi(), lease };
            let drafts = vec![Draft::from(FactBody::StatesChanged(Box::new(changed)))];
            Ok((drafts, (NextResult::TileFound, picked.tiles)))
        };
        self.control().submit(Sharing::HandingOut, decide, |done: Done<_>| answer(done.map(|(value, _)| value)))
    }

    /// Puts ROI tiles into a state, all with one record; returns how many of the ids are known.
    ///
    /// # Errors
    /// A state that can be none; the fact could not be made durable.
    pub fn set_states(
        &self,
        state: String,
        ids: Vec<TileSpecId>,
        answer: impl FnOnce(Result<usize, CatalogError>) + Send + 'static,
    ) -> Result<(), CatalogError> {
        if let Some(problem) = state_name_problem(&state) {
            return Err(CatalogError::Invalid(problem));
        }
        let decide = move |index: &Index, _: &mut _| {
            check_state_is_new(index, &state)?;
            let (tiles, known) = known_tiles(index, &ids)?;
            if tiles.is_empty() {
                return Ok((Vec::new(), known));
            }
            let changed = StatesChanged { to: state, tiles, lease: None };
            Ok((vec![Draft::from(FactBody::StatesChanged(Box::new(changed)))], known))
        };
        self.control().submit(Sharing::Stating, decide, |done: Done<_>| answer(done.map(|(known, _)| known)))
    }
}

/// States are numbered with 16 bits: a caller who invents one a tile is stopped.
fn check_state_is_new(index: &Index, state: &str) -> Result<(), CatalogError> {
    if index.find_state(state).is_none() && index.states_used() >= StateNames::MAX {
        return Err(CatalogError::Invalid(format!("too many different states: at most {}", StateNames::MAX)));
    }
    Ok(())
}

/// Why no tile was found.
fn nothing_found(index: &Index, ask: &NextTiles) -> NextResult {
    let section = ask.section.filter(|section| *section > 0);
    if let Some(acq) = ask.of.acq
        && let Some(view) = index.acquisition(acq)
        && view.head.started.as_ref().is_some_and(|started| started.ended_ns.is_some())
    {
        let takes = |drift, found| ask.frames.takes(drift) && ask.section.is_none_or(|wanted| wanted == found);
        let (served, all) = index.count_in_state(acq, &ask.new_state, takes);
        if all > 0 && served == all {
            return section.map_or(NextResult::ServedAllAcq, |_| NextResult::ServedAllSection);
        }
    }
    section.map_or(NextResult::NoTileReady, |_| NextResult::NoTileReadyInSection)
}

/// ROI tiles that one command may put into a state.
const ROI_TILES_MAX: usize = 1_000_000;

/// The ROI tiles that ids name, each once, and how many of the ids name some.
fn known_tiles(index: &Index, ids: &[TileSpecId]) -> Result<(Vec<RoiCells>, usize), CatalogError> {
    let mut parts: BTreeMap<(AcqId, RoiIndex), BTreeSet<Cell>> = BTreeMap::new();
    let mut named_in_all = 0;
    let mut by_acq: BTreeMap<AcqId, Vec<&TileSpecId>> = BTreeMap::new();
    ids.iter().for_each(|id| by_acq.entry(id.acq).or_default().push(id));
    let mut known = 0;
    for (acq, ids) in by_acq {
        let Some(view) = index.acquisition(acq) else { continue };
        index.with_board(acq, |board, _| {
            for id in ids {
                let named = board.memberships(id.cell).into_iter().filter(|(roi, _)| {
                    let roi = view.head.roi(*roi);
                    roi.is_some_and(|roi| (roi.section, roi.prev) == (id.section, id.prev))
                });
                let mut any = false;
                for (roi, _) in named {
                    named_in_all += usize::from(parts.entry((acq, roi)).or_default().insert(id.cell));
                    any = true;
                }
                known += usize::from(any);
                if named_in_all > ROI_TILES_MAX {
                    return;
                }
            }
        });
        if named_in_all > ROI_TILES_MAX {
            let problem = format!("more than {ROI_TILES_MAX} tiles of ROIs are named: say it of fewer at a time");
            return Err(CatalogError::Invalid(problem));
        }
    }
    let named = |((acq, roi), cells): (_, BTreeSet<Cell>)| RoiCells { acq, roi, cells: cells.into_iter().collect() };
    Ok((parts.into_iter().map(named).collect(), known))
}

/// The facts by which lent tiles return.
pub(super) fn returned(overdue: Vec<(String, RoiTileKey)>) -> Vec<FactBody> {
    let mut by_state: BTreeMap<String, BTreeMap<(AcqId, RoiIndex), Vec<_>>> = BTreeMap::new();
    for (state, tile) in overdue {
        by_state.entry(state).or_default().entry((tile.acq, tile.roi)).or_default().push(tile.cell);
    }
    let fact = |(to, parts): (String, BTreeMap<(AcqId, RoiIndex), Vec<_>>)| {
        let tiles = parts.into_iter().map(|((acq, roi), cells)| RoiCells { acq, roi, cells }).collect();
        FactBody::StatesChanged(Box::new(StatesChanged { to, tiles, lease: None }))
    };
    by_state.into_iter().map(fact).collect()
}
