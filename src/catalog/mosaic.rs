//! The mosaic as a picture: one byte a place, from the boards in memory, and what is known of places beside that.
//!
//! Boards are looked at in slices, so that no writer waits for a large mosaic. Must never read contents, and the store only
//! for the few tiles that are known to be damaged.

use super::commands::{Catalog, CatalogError};
use super::completeness::{CameraOf, ExpectedBy, Tally3, expected_by, grid_bits, grid_of};
use crate::index::{AcquisitionView, Block, BlockKey, StateNames, slots};
use crate::model::{AcqId, Cell, FrameNumber, GridShape, RoiIndex, Sequence, TileId};
use std::collections::HashSet;

/// Most places of a picture.
pub const PLACES_MAX: u64 = 4_000_000;
/// Blocks of 64 places that are looked at with one hold of the index' lock.
const SLICE: usize = 512;
/// Damaged tiles whose version is compared with the current one; of more all count as damaged.
const COMPARED_MAX: usize = 1000;

/// What a cell says of its place: an index into the legend in the lower bits, marks above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellMark;

impl CellMark {
    /// Nothing is expected here, and nothing has come.
    pub const NONE: u8 = 0;
    /// Expected, and has not come.
    pub const MISSING: u8 = 1;
    /// Was refused, and has not come.
    pub const REFUSED: u8 = 2;
    /// Stored, in no ROI.
    pub const RECEIVED: u8 = 3;
    /// The first state of ROI tiles.
    const STATES: u8 = 4;
    /// The bits of the index.
    pub const INDEX: u8 = 0x1f;
    /// A quality flag is set.
    pub const FLAGGED: u8 = 0x20;
    /// The image can not be decoded.
    pub const UNREADABLE: u8 = 0x40;
    /// The stored tile is damaged.
    pub const DAMAGED: u8 = 0x80;

    /// The cell of a stored tile in a state; states beyond what the index can say are plainly received.
    fn of_state(state: u16) -> u8 {
        u8::try_from(state)
            .ok()
            .and_then(|state| Self::STATES.checked_add(state))
            .map_or(Self::RECEIVED, |index| if index > Self::INDEX { Self::RECEIVED } else { index })
    }

    fn legend(names: &StateNames) -> Vec<String> {
        let fixed = ["none", "missing", "refused", "received"];
        let states = usize::from(Self::INDEX - Self::STATES) + 1;
        fixed.into_iter().chain(names.all().take(states)).map(str::to_owned).collect()
    }
}

/// Which places are shown; the others are as if nothing were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MosaicFilter {
    /// Of one nominal section only.
    pub section: Option<i64>,
    /// Of one camera only, as the places of received tiles tell.
    pub camera: Option<i32>,
}

/// A picture of a mosaic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mosaic {
    /// Columns of the picture.
    pub cols: u32,
    /// Rows of the picture.
    pub rows: u32,
    /// The column of its first cell.
    pub first_col: u32,
    /// The row of its first cell.
    pub first_row: u32,
    /// What cells' indices mean.
    pub legend: Vec<String>,
    /// `rows` x `cols`, row-major.
    pub cells: Vec<u8>,
    /// Everything below this in the journal's order is in it.
    pub sequence: Sequence,
}

/// There is no picture.
#[derive(Debug, thiserror::Error)]
pub enum MosaicError {
    /// There is no such acquisition.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// It would be too large.
    #[error(
        "the mosaic has {cols} x {rows} places, more than the {PLACES_MAX} that are drawn: ask for its tiles or its completeness instead"
    )]
    TooLarge {
        /// Columns.
        cols: u64,
        /// Rows.
        rows: u64,
    },
}

/// How far an acquisition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Stable tiles.
    pub tally: Tally3,
    /// Its extent: as announced, or as far as tiles are expected or have come.
    pub shape: GridShape,
}

/// The smallest rectangle around places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent(Option<Corners>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Corners {
    first_col: u32,
    first_row: u32,
    last_col: u32,
    last_row: u32,
}

impl Extent {
    fn of_grid(grid: GridShape) -> Self {
        let last = grid.cols.checked_sub(1).zip(grid.rows.checked_sub(1));
        Self(last.map(|(last_col, last_row)| Corners { first_col: 0, first_row: 0, last_col, last_row }))
    }

    fn add(&mut self, more: Corners) {
        self.0 = Some(self.0.map_or(more, |corners| Corners {
            first_col: corners.first_col.min(more.first_col),
            first_row: corners.first_row.min(more.first_row),
            last_col: corners.last_col.max(more.last_col),
            last_row: corners.last_row.max(more.last_row),
        }));
    }

    fn and(mut self, other: Self) -> Self {
        if let Some(corners) = other.0 {
            self.add(corners);
        }
        self
    }

    fn add_place(&mut self, col: u32, row: u32) {
        self.add(Corners { first_col: col, first_row: row, last_col: col, last_row: row });
    }

    fn add_block(&mut self, key: &BlockKey, bits: u64) {
        if bits != 0 {
            let row = |slot: u32| key.row * 64 + slot;
            let (first_row, last_row) = (row(bits.trailing_zeros()), row(63 - bits.leading_zeros()));
            self.add(Corners { first_col: key.col, first_row, last_col: key.col, last_row });
        }
    }

    /// Columns and rows.
    fn sides(&self) -> (u64, u64) {
        let side = |first: u32, last: u32| u64::from(last) - u64::from(first) + 1;
        self.0.map_or((0, 0), |c| (side(c.first_col, c.last_col), side(c.first_row, c.last_row)))
    }

    fn fits(&self) -> bool {
        let (cols, rows) = self.sides();
        cols.checked_mul(rows).is_some_and(|places| places <= PLACES_MAX)
    }

    fn shape(&self) -> GridShape {
        let (cols, rows) = self.sides();
        let short = |side| u32::try_from(side).unwrap_or(u32::MAX);
        GridShape { cols: short(cols), rows: short(rows) }
    }
}

/// How an acquisition's places are looked at.
struct Look<'a> {
    view: &'a AcquisitionView,
    by: ExpectedBy,
    grid: GridShape,
    camera_of: CameraOf,
    filter: MosaicFilter,
}

impl<'a> Look<'a> {
    fn new(view: &'a AcquisitionView, filter: MosaicFilter) -> Self {
        Self { view, by: expected_by(view), grid: grid_of(view), camera_of: CameraOf::learn(view), filter }
    }

    fn is_of_camera(&self, col: u32, row: u32) -> bool {
        self.filter.camera.is_none_or(|camera| self.camera_of.of(col, row) == camera)
    }

    fn is_of_section(&self, roi: RoiIndex) -> bool {
        self.filter.section.is_none_or(|section| self.view.head.roi(roi).is_some_and(|roi| roi.section == section))
    }

    fn expected(&self, key: &BlockKey, block: &Block) -> u64 {
        match self.by {
            ExpectedBy::Rois => block.expected(),
            ExpectedBy::Mosaic => grid_bits(self.grid, key),
        }
    }

    /// The cell of a place that the board knows, without what others know of it.
    fn cell(&self, key: &BlockKey, block: &Block, slot: u8) -> u8 {
        let Cell(col, row, _) = key.cell(slot);
        if !self.is_of_camera(col, row) {
            return CellMark::NONE;
        }
        let state = block.rois_at(slot).find(|(roi, _)| self.is_of_section(*roi)).map(|(_, state)| state);
        if self.filter.section.is_some() && state.is_none() {
            return CellMark::NONE;
        }
        let has = |bits: u64| bits >> slot & 1 == 1;
        match state {
            Some(state) if has(block.stored) => CellMark::of_state(state.0) | quality(block, slot),
            None if has(block.stored) => CellMark::RECEIVED | quality(block, slot),
            _ if has(self.expected(key, block)) => CellMark::MISSING,
            _ => CellMark::NONE,
        }
    }

    /// The cell of a place in a block that nothing has touched.
    fn untouched(&self, col: u32, row: u32) -> u8 {
        let is_expected = self.by == ExpectedBy::Mosaic && col < self.grid.cols && row < self.grid.rows;
        let is_shown = self.filter.section.is_none() && self.is_of_camera(col, row);
        if is_expected && is_shown { CellMark::MISSING } else { CellMark::NONE }
    }

    /// A refused tile shows where none has come; outside of a section only its own places are looked at.
    fn refused(&self, col: u32, row: u32, cell: u8) -> u8 {
        let is_shown = self.is_of_camera(col, row) && (self.filter.section.is_none() || cell != CellMark::NONE);
        if cell <= CellMark::MISSING && is_shown { CellMark::REFUSED } else { cell }
    }
}

impl Catalog {
    /// A picture of an acquisition's stable tiles: around the announced grid and all places that are expected or have
    /// something; what lies absurdly far out is left off.
    ///
    /// # Errors
    /// There is no such acquisition; it is too large.
    pub fn mosaic(&self, acq: AcqId, filter: MosaicFilter) -> Result<Mosaic, MosaicError> {
        let sequence = self.journal().safe_sequence();
        let view = self.acquisition(acq).ok_or(CatalogError::UnknownAcquisition(acq))?;
        let look = Look::new(&view, filter);
        let refused = self.activity().refused_places(acq);
        let extent = self.extent(acq, &look, &refused)?;
        let shape = extent.shape();
        let corner = extent.0.map_or((0, 0), |corners| (corners.first_col, corners.first_row));
        let mut picture = Picture::new(corner, shape);
        picture.fill(|col, row| look.untouched(col, row));
        self.each_block(acq, |key, block| {
            for slot in slots(block.stored | block.expected()) {
                let Cell(col, row, _) = key.cell(slot);
                picture.change(col, row, |_| look.cell(key, block, slot));
            }
        });
        refused.iter().for_each(|(col, row)| picture.change(*col, *row, |cell| look.refused(*col, *row, cell)));
        let damaged = self.damaged_places(acq);
        damaged.iter().for_each(|(col, row)| picture.change(*col, *row, damage));
        Ok(Mosaic {
            cols: shape.cols,
            rows: shape.rows,
            first_col: corner.0,
            first_row: corner.1,
            legend: self.legend(),
            cells: picture.cells,
            sequence,
        })
    }

    /// Cells of some places, as a whole mosaic would show them.
    #[must_use]
    pub fn cells(&self, acq: AcqId, places: &[(u32, u32)]) -> Vec<(u32, u32, u8)> {
        let nothing = |places: &[(u32, u32)]| places.iter().map(|(col, row)| (*col, *row, CellMark::NONE)).collect();
        let Some(view) = self.acquisition(acq) else { return nothing(places) };
        let look = Look::new(&view, MosaicFilter::default());
        let mut cells: Vec<(u32, u32, u8)> = Vec::with_capacity(places.len());
        for slice in places.chunks(SLICE * 8) {
            self.index().with_board(acq, |board, _| {
                cells.extend(slice.iter().map(|(col, row)| {
                    let (key, slot) = BlockKey::of(Cell(*col, *row, FrameNumber::STABLE));
                    let cell = match board.block(&key) {
                        Some(block) => look.cell(&key, block, slot),
                        None => look.untouched(*col, *row),
                    };
                    (*col, *row, cell)
                }));
            });
        }
        let (refused, damaged) = (self.activity().refused_places(acq), self.damaged_places(acq));
        for (col, row, cell) in &mut cells {
            if refused.contains(&(*col, *row)) {
                *cell = look.refused(*col, *row, *cell);
            }
            if damaged.contains(&(*col, *row)) {
                *cell = damage(*cell);
            }
        }
        cells
    }

    /// Places of which a tile was refused and none has come.
    #[must_use]
    pub fn refused_and_missing(&self, acq: AcqId) -> u64 {
        let places: Vec<(u32, u32)> = self.activity().refused_places(acq).into_iter().collect();
        if places.is_empty() {
            return 0;
        }
        let cells = self.cells(acq, &places);
        cells.iter().filter(|(.., cell)| *cell == CellMark::REFUSED).count() as u64
    }

    /// What cells' indices mean.
    #[must_use]
    pub fn legend(&self) -> Vec<String> {
        // Names are those of all acquisitions: any board will do.
        self.index().with_board(AcqId(0), |_, names| CellMark::legend(names))
    }

    /// How far an acquisition is: as [`Self::completeness`] counts, without keeping writers waiting.
    #[must_use]
    pub fn progress(&self, acq: AcqId, view: &AcquisitionView) -> Progress {
        let look = Look::new(view, MosaicFilter::default());
        let (mut tally, mut extent) = (Tally3::default(), Extent::default());
        self.each_block(acq, |key, block| {
            let expected = look.expected(key, block);
            tally.add(expected, block.stored);
            extent.add_block(key, block.expected() | block.stored);
        });
        if look.by == ExpectedBy::Mosaic {
            tally.expected = u64::from(look.grid.cols) * u64::from(look.grid.rows);
            tally.missing = tally.expected.saturating_sub(tally.received);
        }
        let announced = Extent::of_grid(look.grid);
        Progress { tally, shape: if announced.0.is_some() { announced.shape() } else { extent.shape() } }
    }

    /// The first of these that is small enough: with everything that came, with everything that is expected, the ROIs.
    fn extent(&self, acq: AcqId, look: &Look<'_>, refused: &HashSet<(u32, u32)>) -> Result<Extent, MosaicError> {
        let (mut rois, mut all) = (Extent::default(), Extent::of_grid(look.grid));
        self.each_block(acq, |key, block| {
            rois.add_block(key, block.expected());
            all.add_block(key, block.expected() | block.stored);
        });
        refused.iter().for_each(|(col, row)| all.add_place(*col, *row));
        let expected = rois.and(Extent::of_grid(look.grid));
        let fitting = [all, expected, rois].into_iter().find(|extent| extent.fits());
        // An extent of nothing says nothing while there is something.
        let fitting = fitting.filter(|extent| extent.0.is_some() || all.0.is_none());
        let (cols, rows) = if expected.0.is_some() { expected.sides() } else { all.sides() };
        fitting.ok_or(MosaicError::TooLarge { cols, rows })
    }

    fn each_block(&self, acq: AcqId, mut each: impl FnMut(&BlockKey, &Block)) {
        let mut next = Some(BlockKey::FIRST);
        while let Some(from) = next {
            next = self.index().with_board(acq, |board, _| {
                let mut blocks = board.blocks_from(from).take_while(|(key, _)| !key.drift);
                blocks.by_ref().take(SLICE).for_each(|(key, block)| each(key, block));
                blocks.next().map(|(key, _)| *key)
            });
        }
    }

    /// Places whose current content is damaged.
    fn damaged_places(&self, acq: AcqId) -> HashSet<(u32, u32)> {
        let mut places = HashSet::new();
        for (n, tile) in self.damage().tiles_of(acq).into_iter().enumerate() {
            let current = if n < COMPARED_MAX { self.tile_by_id(TileId(tile.id)).ok().flatten() } else { None };
            if current.is_none_or(|entry| entry.version.0 == tile.version) {
                places.insert((tile.col, tile.row));
            }
        }
        places
    }
}

/// The marks of what was found of a stored tile's pixels.
fn quality(block: &Block, slot: u8) -> u8 {
    let (is_flagged, is_undecodable) = block.quality_bits(slot);
    (if is_flagged { CellMark::FLAGGED } else { 0 }) | (if is_undecodable { CellMark::UNREADABLE } else { 0 })
}

/// Marks what is stored as damaged.
fn damage(cell: u8) -> u8 {
    if cell & CellMark::INDEX >= CellMark::RECEIVED { cell | CellMark::DAMAGED } else { cell }
}

/// Cells, row by row.
struct Picture {
    corner: (u32, u32),
    shape: GridShape,
    cells: Vec<u8>,
}

impl Picture {
    /// The shape is within [`PLACES_MAX`].
    fn new(corner: (u32, u32), shape: GridShape) -> Self {
        let places = shape.cols as usize * shape.rows as usize;
        Self { corner, shape, cells: vec![CellMark::NONE; places] }
    }

    fn fill(&mut self, cell: impl Fn(u32, u32) -> u8) {
        let (first_col, first_row) = self.corner;
        let rows = self.cells.chunks_mut((self.shape.cols as usize).max(1));
        for (cells, row) in rows.zip(first_row..=u32::MAX) {
            cells.iter_mut().zip(first_col..=u32::MAX).for_each(|(place, col)| *place = cell(col, row));
        }
    }

    /// Changes a cell, if it is in the picture.
    fn change(&mut self, col: u32, row: u32, change: impl Fn(u8) -> u8) {
        let place = col.checked_sub(self.corner.0).zip(row.checked_sub(self.corner.1));
        if let Some((col, row)) = place.filter(|(col, row)| *col < self.shape.cols && *row < self.shape.rows) {
            let cell = &mut self.cells[row as usize * self.shape.cols as usize + col as usize];
            *cell = change(*cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corners(first_col: u32, first_row: u32, last_col: u32, last_row: u32) -> Option<Corners> {
        Some(Corners { first_col, first_row, last_col, last_row })
    }

    #[test]
    fn an_extent_grows_to_the_last_bit_of_a_block() {
        let mut extent = Extent::default();
        assert_eq!((extent.sides(), extent.fits()), ((0, 0), true));
        let (key, _) = BlockKey::of(Cell(9, 130, FrameNumber::STABLE));
        extent.add_block(&key, 0);
        assert_eq!(extent.0, None);
        extent.add_block(&key, 1 << 5 | 1 << 63);
        assert_eq!(extent.0, corners(9, 133, 9, 191));
        extent.add_place(3, 200);
        assert_eq!(extent.sides(), (7, 68));
        assert_eq!(extent.and(Extent::of_grid(GridShape { cols: 2, rows: 2 })).0, corners(0, 0, 9, 200));
        assert_eq!(Extent::of_grid(GridShape { cols: 5, rows: 0 }).0, None);
    }

    #[test]
    fn an_absurd_extent_does_not_fit_and_does_not_overflow() {
        let most = GridShape { cols: u32::MAX, rows: u32::MAX };
        assert!(!Extent::of_grid(most).fits());
        let mut all = Extent::default();
        all.add(Corners { first_col: 0, first_row: 0, last_col: u32::MAX, last_row: u32::MAX });
        assert!(!all.fits());
        assert!(Extent::of_grid(GridShape { cols: 2000, rows: 2000 }).fits());
        assert!(!Extent::of_grid(GridShape { cols: 2000, rows: 2001 }).fits());
    }

    #[test]
    fn a_picture_is_row_major_from_its_corner() {
        let mut picture = Picture::new((10, 20), GridShape { cols: 3, rows: 2 });
        picture.fill(|col, row| u8::from((col, row) == (12, 20)));
        picture.change(10, 21, |_| 7);
        [(9, 20), (13, 20), (10, 19), (10, 22)].into_iter().for_each(|(col, row)| picture.change(col, row, |_| 9));
        assert_eq!(picture.cells, [0, 0, 1, 7, 0, 0]);
    }

    #[test]
    fn states_beyond_the_legend_are_plainly_received() {
        let mut names = StateNames::default();
        (0..40).for_each(|n| _ = names.intern(&format!("S{n}")));
        let legend = CellMark::legend(&names);
        assert_eq!((legend.len(), legend[4].as_str(), legend[31].as_str()), (32, "CREATE", "S25"));
        assert_eq!((CellMark::of_state(0), CellMark::of_state(27)), (4, 31));
        assert_eq!((CellMark::of_state(28), CellMark::of_state(40_000)), (CellMark::RECEIVED, CellMark::RECEIVED));
        assert_eq!((damage(CellMark::REFUSED), damage(31)), (CellMark::REFUSED, 0x9f));
    }
}
