//! Completeness: which tiles an acquisition should have, and which of them have come.
//!
//! Expected are the distinct places of its ROI tiles, or the mosaic's grid where there are no ROIs. Counted from the
//! boards in memory; must never read the store.

use super::commands::{Catalog, CatalogError};
use crate::index::{AcquisitionView, Block, BlockKey, Board, parity, slots};
use crate::model::{AcqId, GridShape};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counts of stable tiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally3 {
    /// Tiles that should be there.
    pub expected: u64,
    /// Of these, stored.
    pub received: u64,
    /// Of these, not stored.
    pub missing: u64,
}

impl Tally3 {
    pub(super) fn add(&mut self, expected: u64, stored: u64) {
        self.expected += u64::from(expected.count_ones());
        self.received += u64::from((expected & stored).count_ones());
        self.missing += u64::from((expected & !stored).count_ones());
    }
}

/// Where the expectation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpectedBy {
    /// The ROIs.
    Rois,
    /// The grid that the acquisition log announces.
    Mosaic,
}

/// How complete an acquisition is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Completeness {
    /// Where the expectation comes from.
    pub expected_by: ExpectedBy,
    /// All tiles, each once.
    #[serde(flatten)]
    pub all: Tally3,
    /// Stored stable tiles that nobody expects.
    pub unexpected: u64,
    /// By nominal section; a tile in two sections counts in both.
    pub sections: BTreeMap<i64, Tally3>,
    /// By camera; -1 for places of which no camera is known yet.
    pub cameras: BTreeMap<i32, Tally3>,
}

/// Missing tiles of one column, as runs of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingRun {
    /// Column.
    pub col: u32,
    /// First row.
    pub first_row: u32,
    /// Last row.
    pub last_row: u32,
}

/// A page of missing tiles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingPage {
    /// Column and row, by column.
    pub tiles: Vec<(u32, u32)>,
}

impl MissingPage {
    /// The same tiles as runs.
    #[must_use]
    pub fn runs(&self) -> Vec<MissingRun> {
        let mut runs: Vec<MissingRun> = Vec::new();
        for (col, row) in &self.tiles {
            match runs.last_mut().filter(|run| run.col == *col && run.last_row.checked_add(1) == Some(*row)) {
                Some(run) => run.last_row = *row,
                None => runs.push(MissingRun { col: *col, first_row: *row, last_row: *row }),
            }
        }
        runs
    }
}

/// The cameras of the 2 x 2 pattern, as far as received tiles tell; one camera takes them all.
pub(super) struct CameraOf([i32; 4]);

impl CameraOf {
    pub(super) fn learn(view: &AcquisitionView) -> Self {
        let most = |place: usize| {
            let counts = view.counters.cameras.iter().filter(|(_, counts)| counts[place] > 0);
            counts.max_by_key(|(camera, counts)| (counts[place], -**camera)).map_or(-1, |(camera, _)| *camera)
        };
        let cameras = view.head.started.as_ref().map_or(4, |started| started.facts.cameras.count());
        if cameras == 1 {
            let only = view.counters.cameras.iter().max_by_key(|(_, counts)| counts.iter().sum::<u64>());
            return Self([only.map_or(0, |(camera, _)| *camera); 4]);
        }
        Self([0, 1, 2, 3].map(most))
    }

    pub(super) fn of(&self, col: u32, row: u32) -> i32 {
        self.0[parity(col, row)]
    }
}

/// Blocks that are counted before writers get their turn: some microseconds.
const BLOCKS_AT_ONCE: usize = 1024;

/// Even rows of a block of 64 rows.
const EVEN_ROWS: u64 = 0x5555_5555_5555_5555;

impl Catalog {
    /// How complete an acquisition is.
    ///
    /// # Errors
    /// There is no such acquisition.
    pub fn completeness(&self, acq: AcqId) -> Result<Completeness, CatalogError> {
        let view = self.acquisition(acq).ok_or(CatalogError::UnknownAcquisition(acq))?;
        Ok(self.index().with_board(acq, |board, _| count(&view, board)))
    }

    /// How many tiles an acquisition should have, has, and misses. Keeps writers waiting for a few blocks at a time only.
    #[must_use]
    pub fn tally(&self, acq: AcqId) -> Tally3 {
        let Some(view) = self.acquisition(acq) else { return Tally3::default() };
        let (by, grid) = (expected_by(&view), grid_of(&view));
        let mut sum = Tally3::default();
        let mut from = Some(BlockKey::FIRST);
        while let Some(first) = from {
            from = self.index().with_board(acq, |board, _| {
                let mut blocks = board.blocks_from(first).take_while(|(key, _)| !key.drift);
                for (key, block) in blocks.by_ref().take(BLOCKS_AT_ONCE) {
                    let expected = if by == ExpectedBy::Rois { block.expected() } else { grid_bits(grid, key) };
                    sum.add(expected, block.stored);
                }
                blocks.next().map(|(key, _)| *key)
            });
        }
        if by == ExpectedBy::Mosaic {
            // Places in blocks that no tile has touched are expected, too.
            sum.expected = u64::from(grid.cols) * u64::from(grid.rows);
            sum.missing = sum.expected.saturating_sub(sum.received);
        }
        sum
    }

    /// Missing tiles of an acquisition: `limit` of them, behind the first `offset`, by column and row.
    ///
    /// # Errors
    /// There is no such acquisition.
    pub fn missing_tiles(&self, acq: AcqId, offset: u64, limit: usize) -> Result<MissingPage, CatalogError> {
        let view = self.acquisition(acq).ok_or(CatalogError::UnknownAcquisition(acq))?;
        Ok(self.index().with_board(acq, |board, _| missing(&view, board, offset, limit)))
    }
}

pub(super) fn expected_by(view: &AcquisitionView) -> ExpectedBy {
    if view.head.rois.is_empty() { ExpectedBy::Mosaic } else { ExpectedBy::Rois }
}

pub(super) fn grid_of(view: &AcquisitionView) -> GridShape {
    view.head.started.as_ref().map(|started| started.facts.grid()).unwrap_or_default()
}

fn stable_blocks(board: &Board) -> impl Iterator<Item = (&BlockKey, &Block)> {
    board.blocks_from(BlockKey::FIRST).take_while(|(key, _)| !key.drift)
}

/// The rows of a block that lie in the grid.
pub(super) fn grid_bits(grid: GridShape, key: &BlockKey) -> u64 {
    let rows_left = if key.col < grid.cols { grid.rows.saturating_sub(key.row.saturating_mul(64)) } else { 0 };
    if rows_left >= 64 { u64::MAX } else { (1 << rows_left) - 1 }
}

fn count(view: &AcquisitionView, board: &Board) -> Completeness {
    let expected_by = expected_by(view);
    let (grid, camera_of) = (grid_of(view), CameraOf::learn(view));
    let mut sums = Completeness {
        expected_by,
        all: Tally3::default(),
        unexpected: 0,
        sections: BTreeMap::new(),
        cameras: BTreeMap::new(),
    };
    for (key, block) in stable_blocks(board) {
        let expected = match expected_by {
            ExpectedBy::Rois => block.expected(),
            ExpectedBy::Mosaic => grid_bits(grid, key),
        };
        sums.all.add(expected, block.stored);
        sums.unexpected += u64::from((block.stored & !expected).count_ones());
        for (rows, row) in [(EVEN_ROWS, 0), (!EVEN_ROWS, 1)].into_iter().filter(|(rows, _)| expected & rows != 0) {
            let camera = sums.cameras.entry(camera_of.of(key.col, row)).or_default();
            camera.add(expected & rows, block.stored);
        }
        let mut by_section: BTreeMap<i64, u64> = BTreeMap::new();
        for bits in &block.states {
            let section = view.head.roi(bits.roi).map_or(-1, |roi| roi.section);
            *by_section.entry(section).or_default() |= bits.bits;
        }
        for (section, bits) in by_section {
            sums.sections.entry(section).or_default().add(bits, block.stored);
        }
    }
    if expected_by == ExpectedBy::Mosaic {
        add_untouched_grid(&mut sums, grid, &camera_of);
    }
    sums
}

/// The grid's places in blocks that no tile has touched are expected and missing, too.
fn add_untouched_grid(sums: &mut Completeness, grid: GridShape, camera_of: &CameraOf) {
    let halves = |n: u32| [u64::from(n) - u64::from(n / 2), u64::from(n / 2)];
    let (cols, rows) = (halves(grid.cols), halves(grid.rows));
    sums.all.expected = u64::from(grid.cols) * u64::from(grid.rows);
    sums.all.missing = sums.all.expected - sums.all.received;
    let received: BTreeMap<i32, u64> = sums.cameras.iter().map(|(camera, sum)| (*camera, sum.received)).collect();
    sums.cameras.clear();
    for (col, row) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sum = sums.cameras.entry(camera_of.of(col, row)).or_default();
        sum.expected += cols[col as usize] * rows[row as usize];
    }
    for (camera, sum) in &mut sums.cameras {
        sum.received = received.get(camera).copied().unwrap_or_default();
        sum.missing = sum.expected.saturating_sub(sum.received);
    }
    sums.cameras.retain(|_, sum| sum.expected > 0);
}

fn missing(view: &AcquisitionView, board: &Board, offset: u64, limit: usize) -> MissingPage {
    let mut page = Page { skip: offset, limit, tiles: Vec::new() };
    match expected_by(view) {
        ExpectedBy::Rois => {
            for (key, block) in stable_blocks(board) {
                if !page.take(key, block.expected() & !block.stored) {
                    break;
                }
            }
        }
        ExpectedBy::Mosaic => missing_in_grid(grid_of(view), board, &mut page),
    }
    MissingPage { tiles: page.tiles }
}

fn missing_in_grid(grid: GridShape, board: &Board, page: &mut Page) {
    let mut col = 0;
    while col < grid.cols {
        // Columns without a tile are passed over as a whole, so that a page far behind costs little.
        let next_touched = stable_blocks_from(board, col).next().map_or(grid.cols, |key| key.col.min(grid.cols));
        let whole = u64::from(next_touched - col);
        let passed = if grid.rows == 0 { whole } else { (page.skip / u64::from(grid.rows)).min(whole) };
        page.skip -= passed * u64::from(grid.rows);
        col += u32::try_from(passed).unwrap_or(u32::MAX);
        if col >= grid.cols {
            return;
        }
        for row in 0..grid.rows.div_ceil(64) {
            let key = BlockKey { drift: false, col, row, frame: 0 };
            let stored = board.block(&key).map_or(0, |block| block.stored);
            if !page.take(&key, grid_bits(grid, &key) & !stored) {
                return;
            }
        }
        col += 1;
    }
}

fn stable_blocks_from(board: &Board, col: u32) -> impl Iterator<Item = &BlockKey> {
    board.blocks_from(BlockKey { col, ..BlockKey::FIRST }).map(|(key, _)| key).take_while(|key| !key.drift)
}

struct Page {
    skip: u64,
    limit: usize,
    tiles: Vec<(u32, u32)>,
}

impl Page {
    /// Takes the missing tiles of a block; false when the page is full.
    fn take(&mut self, key: &BlockKey, missing: u64) -> bool {
        let here = u64::from(missing.count_ones());
        if self.skip >= here {
            self.skip -= here;
            return self.tiles.len() < self.limit;
        }
        let skip = usize::try_from(std::mem::take(&mut self.skip)).unwrap_or(usize::MAX);
        let room = self.limit - self.tiles.len();
        let cells = slots(missing).skip(skip).take(room).map(|slot| key.cell(slot));
        self.tiles.extend(cells.map(|cell| (cell.0, cell.1)));
        self.tiles.len() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{AcquisitionHead, StartedView, StateId};
    use crate::model::{AcquisitionFacts, CameraCount, Cell, FrameNumber, Roi, RoiIndex};
    use std::sync::Arc;

    fn view(cols: u32, rows: u32, rois: &[i64]) -> AcquisitionView {
        let facts =
            AcquisitionFacts { x_steps: cols, y_steps: rows, cameras: CameraCount::One, ..AcquisitionFacts::default() };
        let started = StartedView { facts, ..StartedView::default() };
        let roi = |section: &i64| Roi { name: section.to_string(), section: *section, prev: 0 };
        let head = AcquisitionHead {
            started: Some(started),
            rois: rois.iter().map(roi).collect(),
            ..AcquisitionHead::default()
        };
        AcquisitionView { head: Arc::new(head), ..AcquisitionView::default() }
    }

    fn put(board: &mut Board, col: u32, row: u32, stored: bool, rois: &[u16]) {
        let (key, slot) = BlockKey::of(Cell(col, row, FrameNumber::STABLE));
        board.update(key, &mut |block| {
            block.stored |= u64::from(stored) << slot;
            rois.iter().for_each(|roi| block.set(RoiIndex(*roi), 1 << slot, StateId::READY));
        });
    }

    #[test]
    fn a_tile_in_two_sections_is_expected_once_and_counted_in_both() {
        let mut board = Board::default();
        put(&mut board, 0, 0, true, &[0, 1]);
        put(&mut board, 0, 1, false, &[0]);
        put(&mut board, 9, 9, true, &[]);
        let sums = count(&view(100, 100, &[5, 6]), &board);
        assert_eq!(sums.all, Tally3 { expected: 2, received: 1, missing: 1 });
        assert_eq!(sums.sections[&5], Tally3 { expected: 2, received: 1, missing: 1 });
        assert_eq!(sums.sections[&6], Tally3 { expected: 1, received: 1, missing: 0 });
        assert_eq!((sums.unexpected, sums.expected_by), (1, ExpectedBy::Rois));
        assert_eq!(missing(&view(100, 100, &[5, 6]), &board, 0, 10).tiles, [(0, 1)]);
    }

    #[test]
    fn without_rois_the_grid_is_expected_wherever_tiles_have_come() {
        let mut board = Board::default();
        put(&mut board, 2, 65, true, &[]);
        put(&mut board, 2, 200, true, &[]);
        put(&mut board, 7, 0, true, &[]);
        let view = view(5, 130, &[]);
        let sums = count(&view, &board);
        assert_eq!(sums.all, Tally3 { expected: 650, received: 1, missing: 649 });
        assert_eq!((sums.unexpected, sums.cameras[&0].missing), (2, 649));
        let all: Vec<(u32, u32)> = missing(&view, &board, 0, 10_000).tiles;
        assert_eq!(all.len(), 649);
        assert!(!all.contains(&(2, 65)));
        for offset in [0, 1, 129, 130, 260, 300, 325, 600, 648, 649, 700] {
            let page = missing(&view, &board, offset, 3).tiles;
            let start = usize::try_from(offset).expect("small").min(all.len());
            assert_eq!(page, all[start..].iter().copied().take(3).collect::<Vec<_>>(), "offset {offset}");
        }
    }

    #[test]
    fn a_page_far_into_an_absurd_grid_is_found_at_once() {
        let view = view(u32::MAX, u32::MAX, &[]);
        let far = u64::from(u32::MAX) * 4_000_000_000 + 5;
        assert_eq!(missing(&view, &Board::default(), far, 1).tiles, [(4_000_000_000, 5)]);
        let sums = count(&view, &Board::default());
        assert_eq!(sums.all.expected, u64::from(u32::MAX) * u64::from(u32::MAX));
    }

    #[test]
    fn runs_are_compact() {
        let page = MissingPage { tiles: vec![(1, 3), (1, 4), (1, 5), (1, 9), (2, 10)] };
        let runs: Vec<(u32, u32, u32)> = page.runs().iter().map(|run| (run.col, run.first_row, run.last_row)).collect();
        assert_eq!(runs, [(1, 3, 5), (1, 9, 9), (2, 10, 10)]);
    }
}
