//! Smaller images by box average: every pixel of the source counts once.
//!
//! Rows are summed column by column, which a compiler turns into vector instructions; boxes are cut across only once for
//! each row of the result. Holds the result and one row of sums.

use super::{Depth, GreyTiff, OUTPUT_PIXELS_MAX, Piece, PixelError, Region, Samples};

/// Rows of 8 bits whose sums fit into 16 bits.
const EIGHT_ROWS_MAX: u32 = 256;

/// Grey values; `samples` are `width` x `height`, row-major, up to `depth.max()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raster {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What the samples' highest value is.
    pub depth: Depth,
    /// The values.
    pub samples: Vec<u16>,
}

/// Takes the rows of a region, gives the region in another size.
pub struct Reducer {
    region: Region,
    depth: Depth,
    /// Columns, then rows of the region at which boxes begin; the last one is the region's end.
    edges: [Vec<u32>; 2],
    sums: Vec<u64>,
    strip: Strip,
}

/// Sums of rows that belong to one row of the result, column by column.
#[derive(Default)]
struct Strip {
    out_row: usize,
    /// First column, counted in the region.
    x: u32,
    rows: u32,
    eight: Vec<u16>,
    sixteen: Vec<u32>,
}

impl Raster {
    /// A region of an image, in `width` x `height` pixels, neither larger than the region's.
    ///
    /// # Errors
    /// The region is not in the image, the result too large, the file damaged.
    pub fn of(tiff: &mut GreyTiff<'_>, region: Region, (width, height): (u32, u32)) -> Result<Self, PixelError> {
        if u64::from(width) * u64::from(height) > OUTPUT_PIXELS_MAX {
            let problem = format!("{width} x {height} pixels are too many for one image: ask for a size or a region");
            return Err(PixelError::OutOfRange(problem));
        }
        tiff.check(region)?;
        let mut reducer = Reducer::new(region, (width, height), tiff.depth);
        tiff.visit(region, &|_| true, &mut |piece| reducer.add(&piece))?;
        Ok(reducer.finish())
    }
}

impl Reducer {
    /// For rows of `region`; the result's sides are at most the region's.
    #[must_use]
    pub fn new(region: Region, (width, height): (u32, u32), depth: Depth) -> Self {
        let edges = |len: u32, boxes: u32| {
            let boxes = boxes.clamp(1, len);
            let edge = |n: u32| u64::from(n) * u64::from(len) / u64::from(boxes);
            (0..=boxes).map(|n| u32::try_from(edge(n)).expect("not above len")).collect::<Vec<u32>>()
        };
        let edges = [edges(region.width, width), edges(region.height, height)];
        let sums = vec![0; (edges[0].len() - 1) * (edges[1].len() - 1)];
        Self { region, depth, edges, sums, strip: Strip::default() }
    }

    /// Adds samples of a row that lies in the region.
    pub fn add(&mut self, piece: &Piece<'_>) {
        let (x, y) = (piece.x - self.region.x, piece.y - self.region.y);
        let out_row = self.edges[1].partition_point(|edge| *edge <= y) - 1;
        let len = piece.samples.len();
        let strip = &self.strip;
        let is_same = (strip.out_row, strip.x) == (out_row, x) && strip.len() == len && strip.rows < EIGHT_ROWS_MAX;
        if !is_same {
            self.flush();
            self.strip.begin(out_row, x, &piece.samples);
        }
        self.strip.add(&piece.samples);
    }

    /// The averages, rounded.
    #[must_use]
    pub fn finish(mut self) -> Raster {
        self.flush();
        let [columns, rows] = &self.edges;
        let wide = columns.len() - 1;
        let area = |n: usize| {
            let (column, row) = (n % wide, n / wide);
            u64::from(columns[column + 1] - columns[column]) * u64::from(rows[row + 1] - rows[row])
        };
        let mean = |(n, sum): (usize, &u64)| u16::try_from((sum + area(n) / 2) / area(n)).unwrap_or(u16::MAX);
        let side = |edges: &[u32]| u32::try_from(edges.len() - 1).expect("at most the region's side");
        Raster {
            width: side(columns),
            height: side(rows),
            depth: self.depth,
            samples: self.sums.iter().enumerate().map(mean).collect(),
        }
    }

    /// Cuts the summed rows into boxes.
    fn flush(&mut self) {
        let len = self.strip.len();
        if self.strip.rows == 0 || len == 0 {
            return;
        }
        let columns = &self.edges[0];
        let (start, wide) = (self.strip.x as usize, columns.len() - 1);
        let out = &mut self.sums[self.strip.out_row * wide..][..wide];
        let mut column = columns.partition_point(|edge| *edge <= self.strip.x) - 1;
        let mut from = 0;
        while from < len {
            let end = (columns[column + 1] as usize - start).min(len);
            out[column] += self.strip.sum(from..end);
            (from, column) = (end, column + 1);
        }
        self.strip.rows = 0;
    }
}

impl Strip {
    fn len(&self) -> usize {
        self.eight.len().max(self.sixteen.len())
    }

    fn begin(&mut self, out_row: usize, x: u32, samples: &Samples<'_>) {
        (self.out_row, self.x, self.rows) = (out_row, x, 0);
        self.eight.clear();
        self.sixteen.clear();
        match samples {
            Samples::Eight(samples) => self.eight.resize(samples.len(), 0),
            Samples::Sixteen(samples) => self.sixteen.resize(samples.len(), 0),
        }
    }

    /// Wrapping, for a check at each sample would keep the compiler from vectors: at most 256 rows are added.
    fn add(&mut self, samples: &Samples<'_>) {
        match samples {
            Samples::Eight(samples) => {
                for (sum, sample) in self.eight.iter_mut().zip(*samples) {
                    *sum = sum.wrapping_add(u16::from(*sample));
                }
            }
            Samples::Sixteen(samples) => {
                for (sum, sample) in self.sixteen.iter_mut().zip(*samples) {
                    *sum = sum.wrapping_add(u32::from(*sample));
                }
            }
        }
        self.rows += 1;
    }

    fn sum(&self, range: std::ops::Range<usize>) -> u64 {
        if self.eight.is_empty() {
            self.sixteen[range].iter().fold(0, |all, sum| all + u64::from(*sum))
        } else {
            self.eight[range].iter().fold(0, |all, sum| all + u64::from(*sum))
        }
    }
}

impl Samples<'_> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Eight(samples) => samples.len(),
            Self::Sixteen(samples) => samples.len(),
        }
    }

    /// True for none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
