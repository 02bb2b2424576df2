//! How much ROIs may ask for: places without tiles take memory, and nothing on the disk but a few bytes.
//!
//! Decides only. Must never refuse what is there already and is said again.

use super::commands::CatalogError;
use crate::index::{AcquisitionView, BlockKey, Board, Index};
use crate::model::{AcqId, Cell, FrameNumber, Roi, RoiIndex};
use std::collections::{HashMap, HashSet};

/// Places that the ROIs of one file may name.
const PLACES_MAX: usize = 1_000_000;
/// ROIs in which a place may lie.
const ROIS_AT_A_PLACE_MAX: usize = 64;
/// Blocks of 64 rows of a column, of an acquisition and of all, that ROIs may add to.
const BLOCKS_MAX: usize = 1 << 18;
const BLOCKS_OF_ALL_MAX: usize = 1 << 22;

/// What ROIs would come to.
#[derive(Default)]
struct Growth {
    /// The most ROIs of a place that gets one more.
    rois_at_a_place: usize,
    /// Blocks that are not there yet.
    new_blocks: usize,
    /// All blocks of the acquisition then.
    blocks: usize,
}

/// Refuses ROIs that are larger than any microscope's.
pub(super) fn check(
    index: &Index,
    acq: AcqId,
    view: &AcquisitionView,
    rois: &[(Roi, Vec<(u32, u32)>)],
) -> Result<(), CatalogError> {
    let invalid = |problem: String| Err(CatalogError::Invalid(problem));
    let places: usize = rois.iter().map(|(_, places)| places.len()).sum();
    if places > PLACES_MAX {
        return invalid(format!("the ROIs have {places} places: at most {PLACES_MAX}"));
    }
    let known = view.head.rois.iter().map(|roi| roi.name.as_str()).zip((0..).map(RoiIndex)).collect();
    let growth = index.with_board(acq, |board, _| growth(board, &known, rois));
    if growth.rois_at_a_place > ROIS_AT_A_PLACE_MAX {
        return invalid(format!("a place would lie in {} ROIs: at most {ROIS_AT_A_PLACE_MAX}", growth.rois_at_a_place));
    }
    let of_all = index.blocks() + growth.new_blocks;
    if growth.new_blocks > 0 && (growth.blocks > BLOCKS_MAX || of_all > BLOCKS_OF_ALL_MAX) {
        return invalid(format!(
            "the ROIs' places are spread too widely: over {} blocks of 64 rows of a column (at most {BLOCKS_MAX}), of {of_all} in all \
             acquisitions (at most {BLOCKS_OF_ALL_MAX})",
            growth.blocks
        ));
    }
    Ok(())
}

fn growth(board: &Board, known: &HashMap<&str, RoiIndex>, rois: &[(Roi, Vec<(u32, u32)>)]) -> Growth {
    let mut at_place: HashMap<(u32, u32), usize> = HashMap::new();
    let mut new_blocks: HashSet<BlockKey> = HashSet::new();
    for (roi, places) in rois {
        let index = known.get(roi.name.as_str());
        for (col, row) in places {
            let (key, slot) = BlockKey::of(Cell(*col, *row, FrameNumber::STABLE));
            let Some(block) = board.block(&key) else {
                new_blocks.insert(key);
                *at_place.entry((*col, *row)).or_default() += 1;
                continue;
            };
            if index.is_none_or(|index| block.state(*index, slot).is_none()) {
                *at_place.entry((*col, *row)).or_insert_with(|| block.rois_at(slot).count()) += 1;
            }
        }
    }
    let rois_at_a_place = at_place.into_values().max().unwrap_or(0);
    Growth { rois_at_a_place, new_blocks: new_blocks.len(), blocks: board.len() + new_blocks.len() }
}
