//! Tiles: one by its place or identifier, and listings of many.
//!
//! Listings walk an acquisition's tiles in the order of their ids, which is that of storing, and sort by time within a
//! window: tiles are received nearly in order. What they cost grows with the offset; `/api/v1` has cursors.

use super::AppState;
use super::acquisitions::find;
use super::answer::{Failure, Path, blocking, number};
use super::query::{PageOf, Query, utc_time};
use super::shapes::{FlatTileListing, Tile, TileListing, TilesAnswer, TilesOfAcquisition, acquired};
use crate::catalog::{AcquisitionFilter, Catalog, CatalogError, FrameType};
use crate::index::{AcquisitionView, Block, BlockKey, Membership, slots};
use crate::model::{AcqId, Cell, FrameNumber, TileEntry, TileId, TileKey, TileVersion};
use axum::Json;
use axum::extract::State;
use std::collections::BTreeMap;

/// Tiles that are read at a time.
const STEP: usize = 1024;
/// Tiles within which a listing is sorted by time.
const WINDOW: usize = 4096;
/// Listings above this length are made one at a time.
const LONG_LISTING: usize = 5000;

/// The stable tile at a place.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/tile/{col}/{row}", tag = "tiles",
    params(("acqid" = u64, Path), ("col" = u32, Path), ("row" = u32, Path)), responses((status = 200, body = Tile)))]
pub(super) async fn by_position(
    State(state): State<AppState>,
    Path((acqid, col, row)): Path<(String, String, String)>,
) -> Result<Json<Tile>, Failure> {
    let entry = find_by_position(&state, &acqid, &col, &row).await?;
    Ok(Json(whole(&state, &entry)))
}

/// A tile.
#[utoipa::path(get, path = "/service/v1/tile/{tileid}", tag = "tiles",
    params(("tileid" = u64, Path)), responses((status = 200, body = Tile)))]
pub(super) async fn by_id(State(state): State<AppState>, Path(tileid): Path<String>) -> Result<Json<Tile>, Failure> {
    let entry = find_by_id(&state, &tileid).await?;
    Ok(Json(whole(&state, &entry)))
}

pub(super) fn whole(state: &AppState, entry: &TileEntry) -> Tile {
    let places = state.catalog.index().memberships(&[entry.key]).pop().unwrap_or_default();
    Tile::whole(entry, state.temca_of(entry.key.acq), &state.public_url, &places)
}

/// The stable tile at a position.
pub(super) async fn find_by_position(
    state: &AppState,
    acqid: &str,
    col: &str,
    row: &str,
) -> Result<TileEntry, Failure> {
    let key = TileKey {
        acq: AcqId(number("acqid", acqid)?),
        col: number("col", col)?,
        row: number("row", row)?,
        frame: FrameNumber::STABLE,
    };
    let found = blocking(state, move |catalog| catalog.tile_by_key(&key)).await?;
    found.ok_or_else(|| Failure::missing(format!("no tile is stored for {key}")))
}

pub(super) async fn find_by_id(state: &AppState, tileid: &str) -> Result<TileEntry, Failure> {
    let id = TileId(number("tileid", tileid)?);
    let found = blocking(state, move |catalog| catalog.tile_by_id(id)).await?;
    found.ok_or_else(|| Failure::missing(format!("no tile has the id {id}")))
}

/// The version of a tile that `?version=` asks for, else the current one.
pub(super) async fn asked_version(state: &AppState, entry: TileEntry, query: &Query) -> Result<TileEntry, Failure> {
    let Some(version) = query.number::<u32>("version")? else { return Ok(entry) };
    let found = blocking(state, move |catalog| catalog.tile_version(entry.id, TileVersion(version))).await?;
    found.ok_or_else(|| Failure::missing(format!("tile {} has no version {version}", entry.id)))
}

/// Which tiles a listing takes.
#[derive(Clone, Debug, Default)]
pub(super) struct TileFilter {
    pub(super) col: Option<u32>,
    pub(super) row: Option<u32>,
    pub(super) camera: Option<i32>,
    pub(super) state: Option<String>,
    pub(super) frames: FrameType,
    pub(super) received: Option<(i64, i64)>,
    /// Also ROI tiles whose content has not come.
    pub(super) include_all: bool,
}

impl TileFilter {
    pub(super) fn read(query: &Query) -> Result<Self, Failure> {
        Ok(Self {
            col: query.number("col")?,
            row: query.number("row")?,
            camera: query.number("camera")?,
            state: query.owned("tile-state"),
            frames: query.frame_type()?,
            received: query.received()?,
            include_all: query.flag("include-all")?,
        })
    }

    pub(super) fn takes(&self, entry: &TileEntry) -> bool {
        let is = |wanted: Option<u32>, found: u32| wanted.is_none_or(|wanted| wanted == found);
        is(self.col, entry.key.col)
            && is(self.row, entry.key.row)
            && self.camera.is_none_or(|camera| camera == entry.camera)
            && self.frames.takes(!entry.key.frame.is_stable())
            && self.received.is_none_or(|(from, to)| entry.received_ns >= from && entry.received_ns < to)
    }

    pub(super) fn takes_state(&self, state: &str) -> bool {
        self.state.as_ref().is_none_or(|wanted| wanted == state)
    }

    /// The one tile that can match, when that is known.
    fn only(&self, acq: AcqId) -> Option<TileKey> {
        let (col, row) = (self.col?, self.row?);
        (self.frames == FrameType::Stable).then_some(TileKey { acq, col, row, frame: FrameNumber::STABLE })
    }
}

/// Tiles of an acquisition, by time; one entry for each section that a tile lies in.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/tiles", tag = "tiles",
    params(("acqid" = u64, Path), ("col" = Option<u32>, Query), ("row" = Option<u32>, Query),
        ("camera" = Option<i32>, Query), ("tile-state" = Option<String>, Query),
        ("frame-type" = Option<String>, Query, description = "stable (default), drift or all"),
        ("tile-from" = Option<String>, Query, description = "yyyyMMddHHmmss[.SSS[SSS]], local time, inclusive"),
        ("tile-to" = Option<String>, Query, description = "as tile-from, exclusive"),
        ("include-all" = Option<bool>, Query, description = "also ROI tiles whose content has not come"),
        ("flat" = Option<bool>, Query, description = "answer with length and tiles only"),
        ("offset" = Option<u32>, Query), ("length" = Option<u32>, Query, description = "1000 when absent")),
    responses((status = 200, body = TilesAnswer)))]
pub(super) async fn of_acquisition(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Json<TilesAnswer>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    find(&state, acq)?;
    answer(&state, AcquisitionFilter { acq: Some(acq), ..AcquisitionFilter::default() }, &query).await
}

/// Tiles of all acquisitions, by acquisition, then time.
#[utoipa::path(get, path = "/service/v1/tiles", tag = "tiles",
    params(("acqid" = Option<u64>, Query), ("sample" = Option<String>, Query), ("project" = Option<String>, Query),
        ("owner" = Option<String>, Query), ("stack" = Option<String>, Query), ("mosaic-type" = Option<String>, Query),
        ("col" = Option<u32>, Query), ("row" = Option<u32>, Query),
        ("camera" = Option<i32>, Query), ("tile-state" = Option<String>, Query),
        ("frame-type" = Option<String>, Query, description = "stable (default), drift or all"),
        ("tile-from" = Option<String>, Query, description = "yyyyMMddHHmmss[.SSS[SSS]], local time, inclusive"),
        ("tile-to" = Option<String>, Query, description = "as tile-from, exclusive"),
        ("include-all" = Option<bool>, Query), ("flat" = Option<bool>, Query),
        ("offset" = Option<u32>, Query), ("length" = Option<u32>, Query)),
    responses((status = 200, body = TilesAnswer)))]
pub(super) async fn of_all(State(state): State<AppState>, query: Query) -> Result<Json<TilesAnswer>, Failure> {
    let filter = query.acquisitions()?;
    answer(&state, filter, &query).await
}

async fn answer(state: &AppState, of: AcquisitionFilter, query: &Query) -> Result<Json<TilesAnswer>, Failure> {
    let (filter, page) = (TileFilter::read(query)?, query.page(state.listing_max())?);
    let flat = query.flag("flat")?;
    let _place = if page.length > LONG_LISTING { Some(state.long_listings.acquire().await) } else { None };
    let public_url = state.public_url.clone();
    // One that walks may walk far: commands must find threads, also while many of them go on for nobody.
    let is_walk = of.acq.is_none() || filter.only(AcqId(0)).is_none();
    let walk = if is_walk { state.walks.clone().acquire_owned().await.ok() } else { None };
    let listed = blocking(state, move |catalog| {
        let _walk = walk;
        list(catalog, &of, &filter, page, &public_url)
    });
    let listed = listed.await?;
    if flat {
        let tiles: Vec<Tile> = listed.into_iter().flat_map(|acquisition| acquisition.tiles).collect();
        return Ok(Json(TilesAnswer::Flat(FlatTileListing { length: tiles.len(), tiles })));
    }
    let listing = TileListing {
        n_returned_acqs: listed.len(),
        n_returned_tiles_for_all_acqs: listed.iter().map(|acquisition| acquisition.n_tiles).sum(),
        acquisitions: listed,
    };
    Ok(Json(TilesAnswer::ByAcquisition(listing)))
}

fn list(
    catalog: &Catalog,
    of: &AcquisitionFilter,
    filter: &TileFilter,
    page: PageOf,
    public_url: &str,
) -> Result<Vec<TilesOfAcquisition>, CatalogError> {
    let mut left = page;
    let mut listed = Vec::new();
    let acquisitions = catalog.index().acquisitions().into_iter().filter(|(acq, view)| of.takes(*acq, view));
    for (acq, view) in acquisitions {
        if left.length == 0 {
            break;
        }
        let temca = view.head.started.as_ref().map_or(0, |started| started.temca);
        let mut taker = Taker { filter, left, tiles: Vec::new(), temca, public_url };
        list_one(catalog, acq, &view, &mut taker)?;
        left = taker.left;
        if !taker.tiles.is_empty() {
            let started = view.head.started.as_ref();
            listed.push(TilesOfAcquisition {
                acq_id: acq.0,
                acq_timestamp: started.map(acquired).unwrap_or_default(),
                acq_completed: started.and_then(|started| started.ended_ns).map(utc_time),
                n_tiles: taker.tiles.len(),
                tiles: taker.tiles,
            });
        }
    }
    Ok(listed)
}

/// Passes over what comes before the page, takes what is in it.
struct Taker<'a> {
    filter: &'a TileFilter,
    left: PageOf,
    tiles: Vec<Tile>,
    temca: u32,
    public_url: &'a str,
}

impl Taker<'_> {
    fn is_full(&self) -> bool {
        self.left.length == 0
    }

    fn take(&mut self, make: impl FnOnce(&Self) -> Tile) {
        if self.left.offset > 0 {
            self.left.offset -= 1;
        } else if self.left.length > 0 {
            self.left.length -= 1;
            let tile = make(self);
            self.tiles.push(tile);
        }
    }

    /// One entry for each section, or one without.
    fn take_stored(&mut self, entry: &TileEntry, places: &[Membership]) {
        if places.is_empty() && self.filter.takes_state(crate::model::STATE_READY) {
            self.take(|taker| Tile::stored(entry, taker.temca, taker.public_url, None));
        }
        for place in places.iter().filter(|place| self.filter.takes_state(&place.state)) {
            self.take(|taker| Tile::stored(entry, taker.temca, taker.public_url, Some(place)));
        }
    }
}

fn list_one(catalog: &Catalog, acq: AcqId, view: &AcquisitionView, taker: &mut Taker<'_>) -> Result<(), CatalogError> {
    let take_batch = |taker: &mut Taker<'_>, batch: &[TileEntry]| {
        let keys: Vec<TileKey> = batch.iter().map(|entry| entry.key).collect();
        for (entry, places) in batch.iter().zip(catalog.index().memberships(&keys)) {
            taker.take_stored(entry, &places);
        }
    };
    if let Some(key) = taker.filter.only(acq) {
        let found = catalog.tile_by_key(&key)?.filter(|entry| taker.filter.takes(entry));
        take_batch(taker, found.as_slice());
    } else {
        let mut window: BTreeMap<(i64, TileId), TileEntry> = BTreeMap::new();
        let mut after = TileId::NONE;
        loop {
            let step = catalog.index().tiles_of(acq, after, STEP)?;
            let ended = step.len() < STEP;
            after = step.last().map_or(after, |entry| entry.id);
            let taken = step.into_iter().filter(|entry| taker.filter.takes(entry));
            window.extend(taken.map(|entry| ((entry.received_ns, entry.id), entry)));
            let keep = if ended { 0 } else { WINDOW };
            let mut ready = Vec::new();
            while window.len() > keep {
                ready.extend(window.pop_first().map(|(_, entry)| entry));
            }
            take_batch(taker, &ready);
            if ended || taker.is_full() {
                break;
            }
        }
    }
    if taker.filter.include_all && !taker.is_full() {
        take_awaited(catalog, acq, view, taker);
    }
    Ok(())
}

/// Blocks that are looked at with one hold of the index.
const BLOCKS_STEP: usize = 1024;

/// ROI tiles without content, by column and row.
fn take_awaited(catalog: &Catalog, acq: AcqId, view: &AcquisitionView, taker: &mut Taker<'_>) {
    if taker.filter.camera.is_some() || taker.filter.received.is_some() || !taker.filter.frames.takes(false) {
        return;
    }
    let mut from = Some(BlockKey::FIRST);
    while let Some(start) = from.filter(|_| !taker.is_full()) {
        let (blocks, names) = catalog.index().with_board(acq, |board, names| {
            let blocks: Vec<(BlockKey, Block)> = board
                .blocks_from(start)
                .filter(|(key, _)| !key.drift)
                .take(BLOCKS_STEP + 1)
                .map(|(key, block)| (*key, block.clone()))
                .collect();
            let used = blocks.iter().flat_map(|(_, block)| &block.states).map(|bits| bits.state);
            let names: BTreeMap<_, _> = used.map(|state| (state, names.name(state))).collect();
            (blocks, names)
        });
        from = blocks.get(BLOCKS_STEP).map(|(key, _)| *key);
        for (key, block) in blocks.iter().take(BLOCKS_STEP) {
            for slot in slots(block.expected() & !block.stored) {
                let cell = key.cell(slot);
                let is = |wanted: Option<u32>, found: u32| wanted.is_none_or(|wanted| wanted == found);
                if !is(taker.filter.col, cell.0) || !is(taker.filter.row, cell.1) {
                    continue;
                }
                let mut places: Vec<Membership> = block
                    .rois_at(slot)
                    .filter_map(|(index, state)| {
                        let roi = view.head.roi(index)?.clone();
                        Some(Membership { index, roi, state: names.get(&state)?.clone() })
                    })
                    .collect();
                places.sort_by_key(|place| (place.roi.section, place.index));
                take_places(taker, acq, cell, &places);
            }
        }
    }
}

fn take_places(taker: &mut Taker<'_>, acq: AcqId, cell: Cell, places: &[Membership]) {
    for place in places.iter().filter(|place| taker.filter.takes_state(&place.state)) {
        taker.take(|taker| Tile::awaited(acq, cell, taker.temca, place));
    }
}
