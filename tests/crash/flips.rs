//! Single flipped bits in sealed and open segments: found by `verify`, never served as wrong bytes, and what lies beside
//! them is served.

use crate::dice::{Dice, cuts_wanted};
use crate::disk::CrashFs;
use crate::history::{image_of, key, started};
use crate::store::{Store, copy_of};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tilecatcher::index::MemoryStore;
use tilecatcher::journal::{
    RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES, Trailer, verify_segments,
};
use tilecatcher::model::TileKey;

/// What a bit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    SegmentHeader,
    RecordHeader,
    Payload,
    /// Zeros behind a record or a table.
    Padding,
    Table,
    Trailer,
    /// What an open segment has not used yet.
    Unused,
}

#[derive(Clone, Debug)]
pub struct Flip {
    pub path: PathBuf,
    pub bit: usize,
    pub region: Region,
}

/// A store with tiles in sealed and in open segments, all acknowledged, and the index' rows as they were.
pub struct Rotting {
    dir: tempfile::TempDir,
    fs: CrashFs,
    rows: MemoryStore,
    tiles: Vec<(TileKey, u64)>,
}

/// A segment's places.
struct Segment {
    path: PathBuf,
    len: usize,
    sealed: Option<Trailer>,
    records: Vec<RecordHeader>,
}

impl Rotting {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (fs, rows) = (CrashFs::default(), Arc::new(MemoryStore::default()));
        let mut rotting = Self { dir, fs, rows: MemoryStore::default(), tiles: Vec::new() };
        for life in 0..2 {
            let (store, _) = Store::open(rotting.dir.path(), &rotting.fs, Arc::clone(&rows)).expect("opens");
            store.catalog.start_acquisition(started(1 + life)).expect("started");
            for col in 0..6 {
                let tile = (key(1 + life, col), 100 * life + col);
                store.send(&[(tile.0, image_of(tile.1))], 0);
                rotting.tiles.push(tile);
            }
            store.catalog.end_acquisition(tile_acq(1 + life)).expect("ended");
            let killed = rotting.fs.copy();
            store.close().expect("the disk works");
            if life == 1 {
                rotting.fs = killed;
            }
        }
        rotting.rows = copy_of(&rows);
        rotting
    }

    fn segments(&self) -> Vec<Segment> {
        let paths = self.fs.files(self.dir.path().join("journal"));
        paths.into_iter().map(|path| segment(&self.fs, path)).collect()
    }

    /// Of one sealed, one open and one control segment every bit of headers and trailer that says something, and so many
    /// of all the rest.
    pub fn flips(&self, elsewhere: u64, dice: &mut Dice) -> Vec<Flip> {
        let mut flips = Vec::new();
        let segments = self.segments();
        let used = |wanted: &dyn Fn(&&Segment) -> bool| {
            segments.iter().find(|segment| segment.records.len() > 2 && wanted(segment))
        };
        let is_control = |segment: &&Segment| segment.path.to_string_lossy().ends_with("-ffff.tcj");
        let kinds = [
            used(&|segment| segment.sealed.is_some() && !is_control(segment)),
            used(&|segment| segment.sealed.is_none() && !is_control(segment)),
            segments.iter().find(|segment| is_control(segment)),
        ];
        for segment in kinds.into_iter().map(|found| found.expect("there is one of each kind")) {
            let mut add = |bytes: std::ops::Range<usize>, region| {
                let bits = bytes.start * 8..bytes.end * 8;
                flips.extend(bits.map(|bit| Flip { path: segment.path.clone(), bit, region }));
            };
            add(0..72, Region::SegmentHeader);
            add(SEGMENT_HEADER_BYTES - 4..SEGMENT_HEADER_BYTES, Region::SegmentHeader);
            if segment.sealed.is_some() {
                add(segment.len - TRAILER_BYTES..segment.len - TRAILER_BYTES + 112, Region::Trailer);
                add(segment.len - 4..segment.len, Region::Trailer);
            }
            let start = usize::try_from(segment.records[0].offset).expect("small");
            add(start..start + RECORD_HEADER_BYTES, Region::RecordHeader);
        }
        for _ in 0..elsewhere {
            let segment = &segments[dice.index(segments.len())];
            let bit = dice.index(segment.len * 8);
            flips.push(Flip { path: segment.path.clone(), bit, region: segment.region(bit / 8) });
        }
        flips
    }

    /// Flips a bit; looks at it with `verify`, then starts a store and asks for every tile.
    pub fn check(&self, flip: &Flip, tally: &Tally) {
        let fs = self.fs.copy();
        fs.flip_bit(&flip.path, flip.bit);
        let verified = verify_segments(self.dir.path(), &fs, &mut |_| {}).expect("readable");
        let is_found = !verified.problems.is_empty() || verified.torn > 0;
        assert!(is_found || flip.region == Region::Padding, "{flip:?}: not found");
        tally.flips.fetch_add(1, Ordering::SeqCst);
        tally.found.fetch_add(u64::from(is_found), Ordering::SeqCst);
        // Of headers, where the bits are many and alike, one in four.
        if flip.bit % 4 != 0 && !matches!(flip.region, Region::Payload | Region::Padding | Region::Table) {
            return;
        }
        // The worker's own directory: only its lock is real.
        let own = tempfile::tempdir().expect("a temporary directory");
        let moved = fs.moved(self.dir.path(), own.path());
        let (store, _) =
            Store::open(own.path(), &moved, Arc::new(copy_of(&self.rows))).expect("a start on a flipped bit");
        let mut gone = 0;
        for (key, content) in &self.tiles {
            match store.image(key) {
                Some((_, Ok(image))) => assert!(image == image_of(*content), "{flip:?}: wrong bytes of {key}"),
                Some((_, Err(_))) | None => gone += 1,
            }
        }
        let may_go = u64::from(matches!(flip.region, Region::RecordHeader | Region::Payload));
        assert!(gone <= may_go, "{flip:?}: {gone} tiles are not served");
        tally.refused.fetch_add(gone, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    pub flips: AtomicU64,
    pub found: AtomicU64,
    pub refused: AtomicU64,
}

fn tile_acq(acq: u64) -> tilecatcher::model::AcqId {
    tilecatcher::model::AcqId(acq)
}

fn segment(fs: &CrashFs, path: PathBuf) -> Segment {
    let bytes = fs.bytes_of(&path);
    let header = SegmentHeader::decode(&bytes).expect("whole");
    let sealed = Trailer::decode(&bytes[bytes.len() - TRAILER_BYTES..], &header);
    let end = sealed.map_or(bytes.len(), |trailer| usize::try_from(trailer.table_offset).expect("small"));
    let starts = (SEGMENT_HEADER_BYTES..end).step_by(64);
    let decoded = starts.filter_map(|at| RecordHeader::decode(&bytes[at..end], &header.marker(), at as u64));
    Segment { path, len: bytes.len(), sealed, records: decoded.collect() }
}

impl Segment {
    fn region(&self, byte: usize) -> Region {
        let at = byte as u64;
        if byte < SEGMENT_HEADER_BYTES {
            // A segment that holds nothing counts as one whose making was cut off, and goes.
            return if self.records.is_empty() { Region::Padding } else { Region::SegmentHeader };
        }
        if let Some(record) = self.records.iter().rev().find(|record| record.offset <= at) {
            let inside = at - record.offset;
            if inside < RECORD_HEADER_BYTES as u64 {
                return Region::RecordHeader;
            } else if inside < record.occupied() {
                return Region::Payload;
            } else if at < record.next_block() {
                return Region::Padding;
            }
        }
        match self.sealed {
            Some(_) if byte >= self.len - TRAILER_BYTES => Region::Trailer,
            Some(trailer) if at < trailer.table_offset + trailer.records * RECORD_HEADER_BYTES as u64 => Region::Table,
            Some(_) => Region::Padding,
            None => Region::Unused,
        }
    }
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn a_flipped_bit_is_found_and_never_served() {
    let rotting = Rotting::new();
    let flips = rotting.flips(cuts_wanted(2000), &mut Dice::new(11));
    let tally = Tally::default();
    let is_last = |seed: u64| seed >= flips.len() as u64;
    crate::threads::over_seeds("a_flipped_bit", 0, is_last, |seed| {
        rotting.check(&flips[usize::try_from(seed).expect("small")], &tally);
    });
    let of = |region| flips.iter().filter(|flip| flip.region == region).count();
    eprintln!("{tally:?}; {} of payloads, {} of padding", of(Region::Payload), of(Region::Padding));
    assert!(
        tally.refused.load(Ordering::SeqCst) > 100 && of(Region::Padding) > 10 && of(Region::Table) > 10,
        "{tally:?}"
    );
}
