//! Thumbnails on disk: below `cache/`, a file each, at most so many bytes, the ones not used for longest go first.
//!
//! Nothing here is synced and nothing is believed: a file that is not whole, or shows other tiles than those that are
//! there now, counts as none and is removed. The directory may be deleted at any time, also while a daemon runs.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `TILEVIEW` |
//! | 8 | 8 | what stands for the tiles that it shows |
//! | 16 | 4 | 1: a PNG follows; 2: the reason, UTF-8, why the tile can not be shown |
//! | 20 | 4 | CRC-32 of bytes 0..20 and of what follows from 24 on |

use super::pyramid::Stamp;
use super::{At, Layer};
use crate::model::AcqId;
use crate::telemetry::Metrics;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 8] = b"TILEVIEW";
const HEAD_BYTES: usize = 24;
/// What a file takes of the disk, at least.
const BLOCK_BYTES: u64 = 4096;
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is kept of a square.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its image, PNG.
    Image(Bytes),
    /// Why its one tile can not be shown.
    Refused(String),
}

/// The files.
pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    metrics: Arc<Metrics>,
    files: Mutex<Files>,
}

type Key = (Layer, At);

/// The files that are there, as far as this program made or found them.
#[derive(Default)]
struct Files {
    /// Size on disk, and when it was last used.
    known: HashMap<Key, (u64, u64)>,
    by_use: BTreeMap<u64, Key>,
    bytes: u64,
    uses: u64,
}

impl Cache {
    pub(super) fn new(dir: PathBuf, bytes_max: u64, metrics: &Arc<Metrics>) -> Self {
        Self { dir, bytes_max, metrics: Arc::clone(metrics), files: Mutex::default() }
    }

    /// Looks through what an earlier run left; files of acquisitions that are not there any more are removed.
    pub(super) fn open(&self, is_there: impl Fn(AcqId) -> bool) {
        for (path, name) in children(&self.dir) {
            match name.parse().map(AcqId) {
                Ok(acq) if is_there(acq) => self.open_acquisition(acq, &path),
                Ok(_) => drop(std::fs::remove_dir_all(&path)),
                Err(_) => {}
            }
        }
        self.make_room();
    }

    fn open_acquisition(&self, acq: AcqId, dir: &Path) {
        for (path, name) in children(dir) {
            let Some((section, camera)) = read_layer(&name) else { continue };
            for (path, level) in children(&path) {
                for (path, name) in children(&path) {
                    match (level.parse(), read_place(&name), std::fs::metadata(&path)) {
                        (Ok(level), Some((x, y)), Ok(found)) if found.is_file() => {
                            self.lock().note((Layer { acq, section, camera }, At { level, x, y }), found.len());
                        }
                        // Left behind by a write that was cut off.
                        _ => drop(std::fs::remove_file(&path)),
                    }
                }
            }
        }
    }

    /// What is kept of a square, if it shows the tiles that are there now.
    pub(super) fn get(&self, layer: &Layer, at: At, stamp: Stamp) -> Option<Kept> {
        let path = self.path(layer, at);
        let len = std::fs::metadata(&path).ok()?.len();
        let bytes = if len <= FILE_BYTES_MAX { std::fs::read(&path).ok()?.into() } else { Bytes::new() };
        let kept = decode(&bytes, stamp);
        if kept.is_some() {
            self.lock().note((*layer, at), len);
        } else {
            self.remove(layer, at);
        }
        kept
    }

    /// Keeps what was made. An error is passed over: it will be made again.
    pub(super) fn put(&self, layer: &Layer, at: At, stamp: Stamp, kept: &Kept) {
        let bytes = encode(stamp, kept);
        match write(&self.path(layer, at), &bytes) {
            Ok(()) => self.lock().note((*layer, at), bytes.len() as u64),
            Err(error) => tracing::debug!(%error, dir = %self.dir.display(), "a preview could not be kept"),
        }
        self.make_room();
    }

    /// Removes a file that is of no use.
    pub(super) fn remove(&self, layer: &Layer, at: At) {
        let _ = std::fs::remove_file(self.path(layer, at));
        self.lock().forget(&(*layer, at));
        self.tell();
    }

    /// Removes all files of an acquisition.
    pub(super) fn remove_all(&self, acq: AcqId) {
        let mut files = self.lock();
        let of_acq: Vec<Key> = files.known.keys().filter(|(layer, _)| layer.acq == acq).copied().collect();
        of_acq.iter().for_each(|key| files.forget(key));
        drop(files);
        let _ = std::fs::remove_dir_all(self.dir.join(acq.to_string()));
        self.tell();
    }

    fn make_room(&self) {
        loop {
            let mut files = self.lock();
            let oldest = (files.bytes > self.bytes_max).then(|| files.by_use.values().next().copied()).flatten();
            let Some((layer, at)) = oldest else { break };
            files.forget(&(layer, at));
            drop(files);
            let _ = std::fs::remove_file(self.path(&layer, at));
        }
        self.tell();
    }

    fn tell(&self) {
        Metrics::set(&self.metrics.preview_cache_bytes, usize::try_from(self.lock().bytes).unwrap_or(usize::MAX));
    }

    fn path(&self, layer: &Layer, at: At) -> PathBuf {
        let any = |number: Option<i64>| number.map_or_else(|| "all".to_owned(), |number| number.to_string());
        let tiles = format!("{}_{}", any(layer.section), any(layer.camera.map(i64::from)));
        let mut path = self.dir.join(layer.acq.to_string());
        path.extend([tiles, at.level.to_string(), format!("{}_{}", at.x, at.y)]);
        path
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// It is there, of this length, and was used now.
    fn note(&mut self, key: Key, len: u64) {
        self.forget(&key);
        let bytes = len.next_multiple_of(BLOCK_BYTES);
        self.uses += 1;
        self.known.insert(key, (bytes, self.uses));
        self.by_use.insert(self.uses, key);
        self.bytes += bytes;
    }

    fn forget(&mut self, key: &Key) {
        if let Some((bytes, used)) = self.known.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= bytes;
        }
    }
}

/// What is in a directory: path and name.
fn children(dir: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))
}

fn read_layer(name: &str) -> Option<(Option<i64>, Option<i32>)> {
    let (section, camera) = name.split_once('_')?;
    let section = if section == "all" { None } else { Some(section.parse().ok()?) };
    let camera = if camera == "all" { None } else { Some(camera.parse().ok()?) };
    Some((section, camera))
}

fn read_place(name: &str) -> Option<(u32, u32)> {
    let (x, y) = name.split_once('_')?;
    Some((x.parse().ok()?, y.parse().ok()?))
}

/// Never half of a file under its name: not while the system runs, that is.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path).inspect_err(|_| drop(std::fs::remove_file(&new)))
}

fn encode(stamp: Stamp, kept: &Kept) -> Vec<u8> {
    let (kind, body): (u32, &[u8]) = match kept {
        Kept::Image(png) => (1, png),
        Kept::Refused(reason) => (2, reason.as_bytes()),
    };
    [&head(stamp, kind, body), body].concat()
}

fn head(stamp: Stamp, kind: u32, body: &[u8]) -> Vec<u8> {
    let fields = [MAGIC, &stamp.0.to_le_bytes()[..], &kind.to_le_bytes()];
    let mut head = fields.concat();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head);
    crc.update(body);
    head.extend_from_slice(&crc.finalize().to_le_bytes());
    head
}

fn decode(file: &Bytes, stamp: Stamp) -> Option<Kept> {
    let (found, body) = file.split_at_checked(HEAD_BYTES)?;
    let kind = found[16];
    // What is the same in every byte is whole, and of the tiles that are asked for.
    if found != head(stamp, u32::from(kind), body) {
        return None;
    }
    match kind {
        1 => Some(Kept::Image(file.slice(HEAD_BYTES..))),
        2 => String::from_utf8(body.to_vec()).ok().map(Kept::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp(7 << 32 | 9);

    fn layer(acq: u64) -> Layer {
        Layer { acq: AcqId(acq), section: Some(-1), camera: None }
    }

    fn at(x: u32) -> At {
        At { level: 3, x, y: 1 }
    }

    fn cache(dir: &Path, bytes_max: u64) -> Cache {
        Cache::new(dir.join("cache"), bytes_max, &Arc::new(Metrics::new()))
    }

    fn image(len: usize) -> Kept {
        Kept::Image(vec![3; len].into())
    }

    #[test]
    fn what_is_kept_is_found_until_the_tiles_are_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = cache(dir.path(), 1 << 20);
        cache.put(&layer(1), at(0), STAMP, &image(100));
        cache.put(&layer(1), at(1), STAMP, &Kept::Refused("no TIFF".to_owned()));
        assert_eq!(cache.get(&layer(1), at(0), STAMP), Some(image(100)));
        assert_eq!(cache.get(&layer(1), at(1), STAMP), Some(Kept::Refused("no TIFF".to_owned())));
        for other in [Stamp(STAMP.0 + 1), Stamp(STAMP.0 ^ 1 << 40)] {
            cache.put(&layer(1), at(0), STAMP, &image(100));
            assert_eq!(cache.get(&layer(1), at(0), other), None);
        }
        assert_eq!(cache.get(&layer(1), at(0), STAMP), None, "what is out of date is removed");
    }

    #[test]
    fn every_damage_is_noticed() {
        let whole = Bytes::from(encode(STAMP, &image(50)));
        assert!(decode(&whole, STAMP).is_some());
        for n in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[n] ^= 1;
            assert_eq!(decode(&changed.into(), STAMP), None, "byte {n}");
            assert_eq!(decode(&whole.slice(..n), STAMP), None, "cut at {n}");
        }
    }

    #[test]
    fn the_files_not_used_for_longest_go_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = cache(dir.path(), 3 * BLOCK_BYTES);
        (0..3).for_each(|x| cache.put(&layer(1), at(x), STAMP, &image(10)));
        assert!(cache.get(&layer(1), at(0), STAMP).is_some());
        cache.put(&layer(1), at(3), STAMP, &image(10));
        let there = [0, 1, 2, 3].map(|x| cache.path(&layer(1), at(x)).exists());
        assert_eq!(there, [true, false, true, true]);
    }

    #[test]
    fn a_later_run_knows_the_files_and_removes_those_of_acquisitions_that_are_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = cache(dir.path(), 1 << 20);
        [1, 2].into_iter().for_each(|acq| first.put(&layer(acq), at(0), STAMP, &image(5000)));
        std::fs::write(first.path(&layer(1), at(1)).with_extension("new"), "half").expect("written");
        let second = cache(dir.path(), 1 << 20);
        second.open(|acq| acq == AcqId(1));
        assert_eq!(second.lock().bytes, 2 * BLOCK_BYTES);
        assert!(second.get(&layer(1), at(0), STAMP).is_some() && second.get(&layer(2), at(0), STAMP).is_none());
        assert!(!second.path(&layer(1), at(1)).with_extension("new").exists());
        second.remove_all(AcqId(1));
        assert_eq!((second.lock().bytes, second.dir.join("1").exists()), (0, false));
    }
}
