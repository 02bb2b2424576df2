//! The file `removed`: segments that compactions took away on purpose, by number and identity.
//!
//! A copy of a segment that its directory has no more is of use, unless it stands in this list: a mirror or a backup that
//! was away can not tell otherwise. Written whole under another name, synced, renamed, before a segment goes. Must never
//! name one that was lost; one that it fails to name is kept where it could go.

use super::JournalError;
use super::filesystem::Filesystem;
use super::format::SegmentHeader;
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use std::io::{self, IoSlice};
use std::path::Path;

/// Its name, in the data directory.
const FILE: &str = "removed";
const NEW_FILE: &str = "removed.new";
const MAGIC: [u8; 8] = *b"TILERMVD";
const VERSION: u8 = 1;
/// Bytes of a block before its entries, and of an entry.
const HEAD: usize = 16;
const ENTRY: usize = 24;
const IN_BLOCK: usize = (BLOCK - HEAD - 4) / ENTRY;
/// The newest that are kept: some 64 TiB of segments.
const ENTRIES_MAX: usize = 1 << 16;

/// Number and identity of a segment.
type Entry = (u64, [u8; 16]);

/// Segments that were removed on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed(Vec<Entry>);

impl Removed {
    /// What the list of a directory says, as far as it can be read.
    pub(super) fn read(filesystem: &dyn Filesystem, dir: &Path) -> Self {
        let mut removed = Self::default();
        let Ok(file) = filesystem.open_read(&dir.join(FILE)) else { return removed };
        let mut block = AlignedBytes::zeroed(BLOCK);
        for at in (0..).map(|n| n * BLOCK as u64) {
            match file.read_at(&mut block, at) {
                Ok(BLOCK) => removed.0.extend(decode(&block)),
                Ok(_) => return removed,
                // Those in a block that can not be read are kept where they could go.
                Err(_) if file.length().is_ok_and(|len| at < len) => {}
                Err(_) => return removed,
            }
        }
        removed
    }

    /// True if this segment was removed on purpose.
    pub(super) fn has(&self, segment: &SegmentHeader) -> bool {
        self.0.contains(&(segment.number, segment.uuid))
    }

    /// Makes the list of a directory name this segment, too, before it goes. A full disk leaves it as it is.
    pub(super) fn note(filesystem: &dyn Filesystem, dir: &Path, segment: &SegmentHeader) -> Result<(), JournalError> {
        let mut removed = Self::read(filesystem, dir);
        removed.0.push((segment.number, segment.uuid));
        match removed.write(filesystem, dir) {
            Err(error) if super::is_full(&error) => {
                tracing::warn!(dir = %dir.display(), "no space to note which segment is removed: a mirror that is away will keep it");
                Ok(())
            }
            written => written.map_err(JournalError::failed(&dir.join(FILE), "write")),
        }
    }

    /// Removes what a list that was being written left when the process or machine stopped.
    pub(super) fn clean(filesystem: &dyn Filesystem, dir: &Path) -> Result<(), JournalError> {
        let new = dir.join(NEW_FILE);
        let names = filesystem.list(dir).map_err(JournalError::failed(dir, "list"))?;
        if names.iter().any(|name| name == NEW_FILE) {
            filesystem.remove(&new).map_err(JournalError::failed(&new, "remove"))?;
        }
        Ok(())
    }

    /// Makes the list of `to` name everything that the one of `from` names.
    pub(super) fn share(from: (&dyn Filesystem, &Path), to: (&dyn Filesystem, &Path)) -> io::Result<()> {
        let (theirs, mut ours) = (Self::read(from.0, from.1), Self::read(to.0, to.1));
        let before = ours.0.len();
        ours.0.extend(theirs.0.into_iter().filter(|entry| !ours.0.contains(entry)).collect::<Vec<_>>());
        if ours.0.len() == before { Ok(()) } else { ours.write(to.0, to.1) }
    }

    fn write(&self, filesystem: &dyn Filesystem, dir: &Path) -> io::Result<()> {
        let (new, path) = (dir.join(NEW_FILE), dir.join(FILE));
        if filesystem.list(dir)?.iter().any(|name| name == NEW_FILE) {
            filesystem.remove(&new)?;
        }
        let entries = &self.0[self.0.len().saturating_sub(ENTRIES_MAX)..];
        let blocks = entries.chunks(IN_BLOCK);
        let file = filesystem.create(&new, (blocks.len() * BLOCK) as u64)?;
        for (n, entries) in blocks.enumerate() {
            file.write_all_at(&mut [IoSlice::new(&encode(entries))], (n * BLOCK) as u64)?;
        }
        file.sync()?;
        filesystem.rename(&new, &path)?;
        filesystem.sync_dir(dir)
    }
}

fn encode(entries: &[Entry]) -> AlignedBytes {
    let mut block = AlignedBytes::zeroed(BLOCK);
    block[..8].copy_from_slice(&MAGIC);
    block[8] = VERSION;
    block[12..16].copy_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for ((number, uuid), place) in entries.iter().zip(block[HEAD..].chunks_exact_mut(ENTRY)) {
        place[..8].copy_from_slice(&number.to_le_bytes());
        place[8..].copy_from_slice(uuid);
    }
    let crc = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
    block
}

fn decode(block: &[u8]) -> Vec<Entry> {
    let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let holds = block.len() == BLOCK && word(BLOCK - 4) == Some(crc32fast::hash(&block[..BLOCK - 4]));
    if !holds || block[..8] != MAGIC || block[8] != VERSION {
        return Vec::new();
    }
    let count = word(12).map_or(0, |count| usize::try_from(count).unwrap_or(0).min(IN_BLOCK));
    let entries = block[HEAD..].chunks_exact(ENTRY).take(count);
    let entry = |place: &[u8]| Some((u64::from_le_bytes(place[..8].try_into().ok()?), place[8..].try_into().ok()?));
    entries.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::RealFilesystem;
    use crate::journal::format::StoreId;

    fn segment(number: u64) -> SegmentHeader {
        SegmentHeader { store: StoreId([1; 16]), uuid: [7; 16], number, lane: 0, created_ns: 0 }
    }

    #[test]
    fn every_segment_that_was_noted_is_named_over_many_blocks_and_by_its_identity() {
        let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        (0..400).for_each(|n| Removed::note(&RealFilesystem, dir.path(), &segment(n)).expect("noted"));
        Removed::note(&RealFilesystem, other.path(), &segment(1000)).expect("noted");
        Removed::share((&RealFilesystem, dir.path()), (&RealFilesystem, other.path())).expect("shared");
        let shared = Removed::read(&RealFilesystem, other.path());
        assert!((0..400).chain([1000]).all(|n| shared.has(&segment(n))) && !shared.has(&segment(400)));
        assert!(!shared.has(&SegmentHeader { uuid: [8; 16], ..segment(3) }));
    }

    #[test]
    fn a_damaged_block_names_nothing_and_the_others_do() {
        let dir = tempfile::tempdir().expect("a directory");
        (0..400).for_each(|n| Removed::note(&RealFilesystem, dir.path(), &segment(n)).expect("noted"));
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).expect("a list");
        bytes[BLOCK + 100] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let removed = Removed::read(&RealFilesystem, dir.path());
        let named: Vec<u64> = (0..400).filter(|n| removed.has(&segment(*n))).collect();
        assert_eq!(named, (0..IN_BLOCK as u64).chain(2 * IN_BLOCK as u64..400).collect::<Vec<_>>());
    }
}
