//! The record of what was sent: an append-only file of JSON, a line for each tile that the server has acknowledged.
//!
//! ```text
//! {"path":"col0001/col0001_row0002_cam3.tif","size":5530000,"mtime_ns":1760000000123456789,
//!  "checksum":"<hex>","tile":17,"acq":9,"server":"http://127.0.0.1:5001"}          (one line)
//! ```
//!
//! A tile counts as done when its line is synced. A last line that was cut off, and any other that can not be read, is
//! passed over: its tile is compared with the server's list. Must never be held by two watches at a time, nor be the
//! only proof that a tile is stored.

use super::settle::Sighting;
use crate::model::{AcqId, Checksum, TileId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another watch holds it.
    #[error("{0}: another watch is at work on this folder: end it first")]
    Busy(PathBuf),
    /// It can not be opened.
    #[error("{path}: {source}; choose another place with --record")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A tile that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) sighting: Sighting,
    pub(super) checksum: Checksum,
    pub(super) tile: TileId,
}

/// The record, open and locked.
pub(super) struct Record {
    file: File,
    server: String,
    /// What was recorded before.
    pub(super) earlier: Earlier,
    /// Lines that could not be read.
    pub(super) bad_lines: u64,
    /// The file system knows no locks.
    pub(super) unlocked: bool,
}

/// What earlier watches recorded, by path; the last line of a path counts.
#[derive(Default)]
pub(super) struct Earlier(HashMap<String, (AcqId, Sent)>);

impl Earlier {
    /// What was recorded of a file of this acquisition, on this server.
    pub(super) fn find(&self, path: &Path, acq: AcqId) -> Option<Sent> {
        self.0.get(&record_path(path)).filter(|(of, _)| *of == acq).map(|(_, sent)| *sent)
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    size: u64,
    mtime_ns: i64,
    checksum: String,
    tile: u64,
    acq: u64,
    server: String,
}

impl Record {
    /// Opens or makes the record at `path`, for tiles sent to `server`.
    ///
    /// # Errors
    /// Another watch holds it, or it can not be read or made.
    pub(super) fn open(path: &Path, server: &str) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Io { path: path.to_owned(), source };
        // Not in append mode: where locks bind readers, too, the one handle must do everything.
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(failed)?;
        let unlocked = !lock(&file, path)?;
        let mut record = Self { file, server: server.to_owned(), earlier: Earlier::default(), bad_lines: 0, unlocked };
        record.read().map_err(failed)?;
        sync_directory_of(path);
        Ok(record)
    }

    /// Adds lines, and syncs them.
    pub(super) fn append<'a>(&mut self, sent: impl Iterator<Item = (&'a Path, Sent)>, acq: AcqId) -> io::Result<()> {
        let mut lines = Vec::new();
        for (path, Sent { sighting, checksum, tile }) in sent {
            let line = Line {
                path: record_path(path),
                size: sighting.size,
                mtime_ns: sighting.modified_ns,
                checksum: checksum.to_string(),
                tile: tile.0,
                acq: acq.0,
                server: self.server.clone(),
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.file.write_all(&lines)?;
        self.file.sync_data()
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Line>(line).ok().and_then(Line::sent) {
                Some((path, server, acq, sent)) if server == self.server => {
                    self.earlier.0.insert(path, (acq, sent));
                }
                Some(_) => {}
                None => self.bad_lines += 1,
            }
        }
        self.file.seek(SeekFrom::End(0))?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            // What was cut off gets a line of its own.
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }
}

impl Line {
    fn sent(self) -> Option<(String, String, AcqId, Sent)> {
        let checksum = if self.checksum.is_empty() { Checksum::None } else { Checksum::from_hex(&self.checksum)? };
        let sighting = Sighting { size: self.size, modified_ns: self.mtime_ns };
        Some((self.path, self.server, AcqId(self.acq), Sent { sighting, checksum, tile: TileId(self.tile) }))
    }
}

/// Keeps every other watch away: a lock on a file. False where the file system has none.
pub(super) fn lock(file: &File, path: &Path) -> Result<bool, RecordError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Err(RecordError::Busy(path.to_owned())),
        Err(TryLockError::Error(_)) => Ok(false),
    }
}

/// A path in the record: the same on every system.
fn record_path(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// Makes a new name durable, where directories can be synced.
pub(super) fn sync_directory_of(path: &Path) {
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let _ = File::open(dir).and_then(|dir| dir.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACQ: AcqId = AcqId(9);

    fn sent(n: u64) -> Sent {
        let modified_ns = -5 + i64::try_from(n).expect("small");
        Sent { sighting: Sighting { size: n, modified_ns }, checksum: Checksum::Crc32(77), tile: TileId(n) }
    }

    fn open(path: &Path) -> Record {
        Record::open(path, "http://a").expect("a record")
    }

    fn find(record: &Record, path: &str, acq: AcqId) -> Option<Sent> {
        record.earlier.find(Path::new(path), acq)
    }

    fn append(record: &mut Record, tiles: &[(&str, u64)]) {
        record.append(tiles.iter().map(|(path, n)| (Path::new(*path), sent(*n))), ACQ).expect("appended");
    }

    #[test]
    fn what_was_appended_is_found_again_the_latest_of_a_path_and_only_for_its_acquisition_and_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        append(&mut open(&path), &[("col1/a.tif", 1), ("col1/b.tif", 2), ("col1/a.tif", 3)]);
        let record = open(&path);
        assert_eq!(
            (find(&record, "col1/a.tif", ACQ), find(&record, "col1/b.tif", ACQ)),
            (Some(sent(3)), Some(sent(2)))
        );
        assert_eq!((find(&record, "col1/c.tif", ACQ), find(&record, "col1/a.tif", AcqId(8))), (None, None));
        drop(record);
        let other = Record::open(&path, "http://b").expect("a record");
        assert_eq!(find(&other, "col1/a.tif", ACQ), None);
    }

    #[test]
    fn a_record_that_was_cut_off_anywhere_gives_its_whole_lines_and_takes_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        append(&mut open(&path), &[("a", 1), ("b", 2)]);
        let whole = std::fs::read(&path).expect("readable");
        let first = whole.iter().position(|byte| *byte == b'\n').expect("a line");
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).expect("written");
            let mut record = open(&path);
            // A line without its end is whole when nothing but the end is missing.
            assert_eq!(find(&record, "a", ACQ).is_some(), len >= first, "{len}");
            assert_eq!(find(&record, "b", ACQ).is_some(), len == whole.len() - 1, "{len}");
            append(&mut record, &[("c", 3)]);
            drop(record);
            assert_eq!(find(&open(&path), "c", ACQ), Some(sent(3)), "{len}");
        }
        let zeros = [&whole[..], &[0; 500]].concat();
        std::fs::write(&path, zeros).expect("written");
        let record = open(&path);
        assert_eq!((record.bad_lines, find(&record, "b", ACQ)), (1, Some(sent(2))));
    }

    #[test]
    fn a_record_is_one_watch_s_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let first = open(&path);
        assert!(matches!(Record::open(&path, "http://a"), Err(RecordError::Busy(_))));
        drop(first);
        open(&path);
    }
}
