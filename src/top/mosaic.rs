//! A mosaic made coarse: as many places as there are go into as many points as the terminal has.

use crate::client::MosaicStatus;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The bits of a cell that name what the place is.
const KIND_BITS: u8 = 0x1f;
const FLAGGED_BITS: u8 = 0x60;
const DAMAGED_BIT: u8 = 0x80;
/// Points on a side of a place, at most: a mosaic of one tile is no wall.
const POINTS_MAX: u32 = 4;
/// Most places of a picture; more are not shown.
const PLACES_MAX: usize = 64 << 20;

/// A mosaic's places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) acquisition: u64,
    cols: u32,
    rows: u32,
    first_col: u32,
    first_row: u32,
    /// What the lower five bits of a cell mean.
    kinds: Vec<Kind>,
    cells: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Missing,
    Refused,
    Stored,
    Complete,
}

/// How many places a point has on a side, or how many points a place: one of the two is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    places: u32,
    points: u32,
}

/// What a point of the terminal stands for: the worst of it, or how much of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// No place.
    Nothing,
    /// Nothing has come.
    Missing,
    /// Some of it has come.
    Partly,
    /// All of it has come.
    Stored,
    /// All of it is done with.
    Complete,
    /// An image of it is doubtful.
    Flagged,
    /// A tile of it was refused, and none has come.
    Refused,
    /// A stored tile of it is damaged.
    Damaged,
}

impl Point {
    /// All, as the legend has them.
    pub(super) const ALL: [Point; 7] =
        [Self::Stored, Self::Partly, Self::Missing, Self::Complete, Self::Flagged, Self::Refused, Self::Damaged];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Missing => "missing",
            Self::Partly => "partly",
            Self::Stored => "stored",
            Self::Complete => "complete",
            Self::Flagged => "flagged",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
        }
    }
}

impl Picture {
    /// The mosaic that the daemon gave; `None`: it contradicts itself.
    pub(super) fn of(mosaic: &MosaicStatus) -> Option<Self> {
        let cells = STANDARD.decode(&mosaic.cells).ok()?;
        let places = usize::try_from(u64::from(mosaic.cols) * u64::from(mosaic.rows)).ok()?;
        let kinds = mosaic.legend.iter().enumerate().map(|(n, name)| match (n, name.as_str()) {
            (0, _) => Kind::Nothing,
            (1, _) | (_, "CREATE") => Kind::Missing,
            (2, _) => Kind::Refused,
            (_, "COMPLETE") => Kind::Complete,
            _ => Kind::Stored,
        });
        let MosaicStatus { acquisition, cols, rows, first_col, first_row, .. } = *mosaic;
        let picture = Self { acquisition, cols, rows, first_col, first_row, kinds: kinds.collect(), cells };
        (picture.cells.len() == places && places <= PLACES_MAX).then_some(picture)
    }

    /// A cell has changed. One outside, or of a kind that was not known, waits for the next whole picture.
    pub(super) fn set(&mut self, col: u32, row: u32, cell: u8) {
        let (Some(x), Some(y)) = (col.checked_sub(self.first_col), row.checked_sub(self.first_row)) else { return };
        if x < self.cols && y < self.rows {
            let n = y as usize * self.cols as usize + x as usize;
            self.cells[n] = cell;
        }
    }

    /// How the picture fits into `width` x `height` points.
    pub(super) fn scale(&self, width: u16, height: u16) -> Scale {
        let (width, height) = (u32::from(width.max(1)), u32::from(height.max(1)));
        let places = self.cols.div_ceil(width).max(self.rows.div_ceil(height)).max(1);
        let points = (width / self.cols.max(1)).min(height / self.rows.max(1)).clamp(1, POINTS_MAX);
        Scale { places, points }
    }

    /// The point at column `x`, row `y` at a scale.
    pub(super) fn point(&self, x: u16, y: u16, Scale { places, points }: Scale) -> Point {
        let (left, top) = (u32::from(x) / points * places, u32::from(y) / points * places);
        let (right, bottom) = ((left + places).min(self.cols), (top + places).min(self.rows));
        let mut sums = Sums::default();
        for row in top..bottom.max(top) {
            let line = row as usize * self.cols as usize;
            let cells = self.cells.get(line + left as usize..line + right.max(left) as usize).unwrap_or_default();
            cells.iter().for_each(|cell| sums.add(*cell, self.kind(*cell)));
        }
        sums.point()
    }

    fn kind(&self, cell: u8) -> Kind {
        self.kinds.get(usize::from(cell & KIND_BITS)).copied().unwrap_or(Kind::Stored)
    }
}

#[derive(Default)]
struct Sums {
    missing: u32,
    refused: u32,
    stored: u32,
    complete: u32,
    flagged: u32,
    damaged: u32,
}

impl Sums {
    fn add(&mut self, cell: u8, kind: Kind) {
        self.flagged += u32::from(cell & FLAGGED_BITS != 0);
        self.damaged += u32::from(cell & DAMAGED_BIT != 0);
        match kind {
            Kind::Nothing => {}
            Kind::Missing => self.missing += 1,
            Kind::Refused => self.refused += 1,
            Kind::Stored => self.stored += 1,
            Kind::Complete => self.complete += 1,
        }
    }

    fn point(&self) -> Point {
        let there = self.stored + self.complete;
        match self {
            Self { damaged: 1.., .. } => Point::Damaged,
            Self { refused: 1.., .. } => Point::Refused,
            Self { flagged: 1.., .. } => Point::Flagged,
            Self { missing: 0, .. } if there == 0 => Point::Nothing,
            Self { missing: 1.., .. } if there == 0 => Point::Missing,
            Self { missing: 1.., .. } => Point::Partly,
            Self { stored: 0, .. } => Point::Complete,
            _ => Point::Stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_worst_of_its_places() {
        let legend = ["none", "missing", "refused", "received", "CREATE", "READY", "COMPLETE"];
        let cells = [0, 1, 3, 3, 6, 6, 3, 1, 2, 3, 3 | DAMAGED_BIT, 3 | 0x20];
        let mosaic = MosaicStatus {
            acquisition: 1,
            cols: 4,
            rows: 3,
            legend: legend.map(str::to_owned).to_vec(),
            cells: STANDARD.encode(cells),
            ..MosaicStatus::default()
        };
        let mut picture = Picture::of(&mosaic).expect("consistent");
        let one = Scale { places: 1, points: 1 };
        assert_eq!(picture.scale(4, 3), one);
        let row = |picture: &Picture, y| [0, 1, 2, 3].map(|x| picture.point(x, y, one));
        assert_eq!(row(&picture, 0), [Point::Nothing, Point::Missing, Point::Stored, Point::Stored]);
        assert_eq!(row(&picture, 2), [Point::Refused, Point::Stored, Point::Damaged, Point::Flagged]);
        let half = Scale { places: 2, points: 1 };
        assert_eq!(picture.scale(2, 9), half);
        assert_eq!([0, 1].map(|x| picture.point(x, 0, half)), [Point::Partly, Point::Partly]);
        assert_eq!(picture.point(1, 1, half), Point::Damaged);
        let double = picture.scale(9, 7);
        assert_eq!(double, Scale { places: 1, points: 2 });
        assert_eq!((picture.point(1, 5, double), picture.point(2, 5, double)), (Point::Refused, Point::Stored));
        assert_eq!(picture.point(8, 0, double), Point::Nothing);
        picture.set(1, 0, 3);
        picture.set(9, 9, 3);
        assert_eq!(picture.point(1, 0, one), Point::Stored);
        assert_eq!(Picture::of(&MosaicStatus { cols: 5, ..mosaic }), None);
    }
}
