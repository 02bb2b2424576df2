//! Made-up tiles: a few prepared images, sent to ever new places.
//!
//! Content repeats, places do not: the server must store each one. All images of noise are views of one buffer, so that
//! memory does not grow with their number.

use super::{Feed, Image, ImageId, Kind, Place, SourceError, SourceTile};
use crate::formats::encode_gray8;
use crate::model::FrameNumber;
use crate::replay::profile::{Content, SenderGroup};
use crate::replay::sizes::TileSizes;
use bytes::Bytes;
use fastrand::Rng;
use std::sync::Arc;

/// Images where all have one length, and where lengths differ.
const IMAGES_ALIKE: usize = 4;
const IMAGES_VARIED: usize = 32;
/// By how much the views of the buffer are shifted.
const SHIFT: usize = 64;
/// Rows of the made-up mosaic: then the stage goes on to other columns.
const ROWS: u64 = 1000;

/// The images of a group of senders.
pub struct Prepared {
    group: u32,
    images: Vec<Image>,
}

impl Prepared {
    /// Makes them.
    ///
    /// # Errors
    /// A TIFF can not be encoded.
    pub fn make(group: u32, senders: &SenderGroup, seed: u64) -> Result<Self, SourceError> {
        let n = if matches!(senders.sizes, TileSizes::Fixed(_)) { IMAGES_ALIKE } else { IMAGES_VARIED };
        let sizes: Vec<usize> =
            senders.sizes.strata(n).into_iter().map(|size| usize::try_from(size).unwrap_or(1)).collect();
        let longest = sizes.iter().copied().max().unwrap_or(1);
        let mut noise = vec![0; longest + SHIFT * n];
        Rng::with_seed(seed ^ u64::from(group)).fill(&mut noise);
        let noise = Bytes::from(noise);
        let view = |(i, size): (usize, usize)| {
            let view = noise.slice(SHIFT * i..SHIFT * i + size);
            let bytes = if senders.content == Content::Tiff { tiff(&view)? } else { view };
            Ok(Image::new(bytes, senders.checksum))
        };
        let images = sizes.into_iter().enumerate().map(view).collect::<Result<_, SourceError>>()?;
        Ok(Self { group, images })
    }

    /// One of them.
    #[must_use]
    pub fn image(&self, index: u32) -> Image {
        self.images[index as usize % self.images.len()].clone()
    }

    /// Mean length of an image, bytes.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        self.images.iter().map(|image| image.bytes.len() as f64).sum::<f64>() / self.images.len() as f64
    }

    /// One of them at a place.
    pub(super) fn tile(&self, place: Place, random: &mut Rng) -> SourceTile {
        let index = random.u32(..u32::try_from(self.images.len()).unwrap_or(1));
        SourceTile { place, id: ImageId { group: self.group, index }, image: self.images[index as usize].clone() }
    }
}

/// A TIFF of about as many bytes as the noise has.
fn tiff(noise: &[u8]) -> Result<Bytes, SourceError> {
    let pixels = noise.len().saturating_sub(256).max(1);
    let (width, height) = (pixels.isqrt(), pixels / pixels.isqrt());
    let narrow = |n: usize| u32::try_from(n).unwrap_or(1);
    let encoded = encode_gray8(narrow(width), narrow(height), &noise[..width * height]);
    encoded.map(Bytes::from).map_err(|error| SourceError::Unusable(error.to_string()))
}

/// Which of how many senders.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// This one, from 0.
    pub sender: u32,
    /// In all.
    pub senders: u32,
}

pub(super) struct GridFeed {
    prepared: Arc<Prepared>,
    share: Share,
    cameras: u32,
    n: u64,
    random: Rng,
}

impl Feed {
    /// Prepared images at the places that the stage of one of several senders comes to.
    #[must_use]
    pub fn grid(prepared: Arc<Prepared>, sender: u32, senders: u32, cameras: u32, seed: u64) -> Self {
        let share = Share { sender, senders };
        Self(Kind::Grid(GridFeed { prepared, share, cameras, n: 0, random: Rng::with_seed(seed) }))
    }
}

impl GridFeed {
    pub(super) fn next(&mut self) -> SourceTile {
        let place = place(self.n, self.share, self.cameras);
        self.n += 1;
        self.prepared.tile(place, &mut self.random)
    }
}

/// A sender's `n`th place. Senders have strips of two columns in turn; four cameras take blocks of 2 x 2.
fn place(n: u64, Share { sender, senders }: Share, cameras: u32) -> Place {
    let strip = n / (2 * ROWS) * u64::from(senders) + u64::from(sender);
    let in_strip = n % (2 * ROWS);
    let (side, row) = if cameras == 4 {
        let (step, camera) = (in_strip / 4, in_strip % 4);
        (camera % 2, 2 * step + camera / 2)
    } else {
        (in_strip / ROWS, in_strip % ROWS)
    };
    let camera = n % u64::from(cameras.max(1));
    // Wraps after 2^31 columns, which no server has room for.
    let narrow = |n: u64| u32::try_from(n & 0x7fff_ffff).unwrap_or(0);
    Place {
        col: narrow(2 * strip + side),
        row: narrow(row),
        frame: FrameNumber::STABLE,
        camera: i32::try_from(camera).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::profile::Profile;
    use std::collections::HashSet;

    fn group(size: &str, content: &str) -> SenderGroup {
        let text = format!(
            "name = \"x\"\nassumption = \"all\"\n[[sender]]\nname = \"a\"\n{size}\ncontent = \"{content}\"\nrate = 1.0\n"
        );
        Profile::parse(&text).expect("a good profile").senders.remove(0)
    }

    #[test]
    fn no_place_is_taken_twice_by_senders_with_one_and_with_four_cameras() {
        let mut seen = HashSet::new();
        for sender in 0..3 {
            let cameras = if sender == 1 { 4 } else { 1 };
            for n in 0..5000 {
                let place = place(n, Share { sender, senders: 3 }, cameras);
                assert!(seen.insert((place.col, place.row)), "{place:?}");
                assert!(place.row < 1000 && place.camera < 4);
            }
        }
    }

    #[test]
    fn four_cameras_take_a_block() {
        let places: Vec<_> = (0..4).map(|n| place(n, Share { sender: 0, senders: 1 }, 4)).collect();
        let expected = [(0, 0, 0), (1, 0, 1), (0, 1, 2), (1, 1, 3)];
        assert_eq!(places.iter().map(|p| (p.col, p.row, p.camera)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn images_have_their_lengths_differ_and_are_tiffs_where_asked_for() {
        let fixed = Prepared::make(0, &group("tile_bytes = \"5kB\"", "noise"), 1).expect("made");
        assert!(fixed.images.iter().all(|image| image.bytes.len() == 5000));
        let contents: HashSet<_> = fixed.images.iter().map(|image| image.bytes.clone()).collect();
        assert_eq!(contents.len(), IMAGES_ALIKE);
        let varied = Prepared::make(0, &group("tile_bytes_uniform = [\"1kB\", \"9kB\"]", "noise"), 1).expect("made");
        assert!((4900.0..5100.0).contains(&varied.mean_bytes()));
        let tiffs = Prepared::make(0, &group("tile_bytes = \"50kB\"", "tiff"), 1).expect("made");
        for image in &tiffs.images {
            assert!(crate::formats::dimensions(&image.bytes).is_ok_and(|(w, h)| w > 100 && h > 100));
            assert!((49_000..51_000).contains(&image.bytes.len()), "{}", image.bytes.len());
        }
    }
}
