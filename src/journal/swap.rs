//! Swaps: a sealed segment's compacted copy takes its place, whatever moment the power goes.
//!
//! Owns the file `compaction`, the note that a swap is under way, and the names of copies (`.tcj.new`). At most one
//! swap is under way. Must never remove a segment before its copy is sealed, synced, and durable under its final name;
//! must never leave both readable behind a recovery.

use super::JournalError;
use super::filesystem::Filesystem;
use super::format::{
    SWAP_NOTE_FILE, StoreId, SwapNote, copy_file_name, parse_copy_file_name, parse_segment_file_name, segment_file_name,
};
use super::recovery::{self, Found};
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

/// The swaps of one data directory.
pub(super) struct Swaps<'a> {
    filesystem: &'a dyn Filesystem,
    data_dir: &'a Path,
    pub(super) segments_dir: PathBuf,
    note: PathBuf,
}

/// What [`Swaps::settle`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) completed_swaps: u64,
    pub(super) removed_leftovers: u64,
}

/// What lies in the directory for a note: the paths of files that are there.
struct Parties {
    old: Option<PathBuf>,
    /// The copy under its first name.
    copy: Option<PathBuf>,
    /// The copy under its final name.
    new: Option<PathBuf>,
}

impl<'a> Swaps<'a> {
    pub(super) fn new(filesystem: &'a dyn Filesystem, data_dir: &'a Path) -> Self {
        Self { filesystem, data_dir, segments_dir: data_dir.join("journal"), note: data_dir.join(SWAP_NOTE_FILE) }
    }

    /// Puts the copy in the place of the old segment. The copy is sealed, synced and verified, and its directory entry
    /// synced.
    pub(super) fn swap(&self, note: &SwapNote) -> Result<(), JournalError> {
        self.announce(note)?;
        self.complete(note, &self.parties(note)?)?;
        self.remove_note()
    }

    /// Finishes or undoes what an earlier process began. Done a second time it changes nothing.
    pub(super) fn settle(&self, store: StoreId) -> Result<Settled, JournalError> {
        let mut settled = Settled::default();
        if self.has_note()? {
            match self.read_note()?.filter(|note| note.store == store) {
                Some(note) => self.settle_note(&note, &mut settled)?,
                None => settled.removed_leftovers += 1,
            }
            self.remove_note()?;
        }
        // Behind the note: while one may still be valid after a power cut, its copy is kept.
        self.remove_copies(&mut settled)?;
        if settled != Settled::default() {
            tracing::info!(
                completed = settled.completed_swaps,
                removed = settled.removed_leftovers,
                "a compaction had been cut off: its last swap is settled, nothing is lost"
            );
        }
        Ok(settled)
    }

    /// Of a swap whose two sides can both be read: the number of the one that a recovery would remove.
    pub(super) fn superseded(&self, store: Option<StoreId>) -> Result<Option<u64>, JournalError> {
        if !self.has_note()? {
            return Ok(None);
        }
        let Some(note) = self.read_note()?.filter(|note| store.is_none_or(|store| store == note.store)) else {
            return Ok(None);
        };
        let parties = self.parties(&note)?;
        if parties.old.is_none() || parties.new.is_none() {
            return Ok(None);
        }
        Ok(Some(if self.copy_holds(&note, &parties)? { note.old } else { note.new }))
    }

    fn settle_note(&self, note: &SwapNote, settled: &mut Settled) -> Result<(), JournalError> {
        // A process may have died between writing the note and syncing it: what follows rests on it.
        let file = self.filesystem.open_write(&self.note).map_err(JournalError::failed(&self.note, "open"))?;
        file.sync().map_err(JournalError::failed(&self.note, "sync"))?;
        self.sync_dir(self.data_dir)?;
        let parties = self.parties(note)?;
        if parties.old.is_none() || self.copy_holds(note, &parties)? {
            settled.completed_swaps += 1;
            return self.complete(note, &parties);
        }
        for copy in [parties.copy, parties.new].into_iter().flatten() {
            self.filesystem.remove(&copy).map_err(JournalError::failed(&copy, "remove"))?;
            settled.removed_leftovers += 1;
        }
        self.sync_dir(&self.segments_dir)
    }

    fn announce(&self, note: &SwapNote) -> Result<(), JournalError> {
        let failed = |action| JournalError::failed(&self.note, action);
        let file = self.filesystem.create(&self.note, BLOCK as u64).map_err(failed("create"))?;
        let mut block = AlignedBytes::zeroed(BLOCK);
        block.copy_from_slice(&note.encode());
        file.write_all_at(&mut [IoSlice::new(&block)], 0).map_err(failed("write"))?;
        file.sync().map_err(failed("sync"))?;
        self.sync_dir(self.data_dir)
    }

    /// The final name is durable before the old segment goes: a reader of the directory always finds one of them.
    fn complete(&self, note: &SwapNote, parties: &Parties) -> Result<(), JournalError> {
        if let Some(copy) = &parties.copy {
            let new = self.segments_dir.join(segment_file_name(note.new, note.lane));
            self.filesystem.rename(copy, &new).map_err(JournalError::failed(copy, "rename"))?;
        }
        self.sync_dir(&self.segments_dir)?;
        if let Some(old) = &parties.old {
            self.filesystem.remove(old).map_err(JournalError::failed(old, "remove"))?;
            self.sync_dir(&self.segments_dir)?;
        }
        Ok(())
    }

    /// True when the copy, under either name, is a sealed segment. It was verified before the note was written.
    fn copy_holds(&self, note: &SwapNote, parties: &Parties) -> Result<bool, JournalError> {
        let Some(path) = parties.copy.as_ref().or(parties.new.as_ref()) else { return Ok(false) };
        let file = self.filesystem.open_read(path).map_err(JournalError::failed(path, "open"))?;
        Ok(match recovery::identify(&*file, path, Some(note.store))? {
            Found::Sealed(header, ..) => (header.number, header.lane) == (note.new, note.lane),
            _ => false,
        })
    }

    fn parties(&self, note: &SwapNote) -> Result<Parties, JournalError> {
        let names = self.list(&self.segments_dir)?;
        let there = |name: String| names.contains(&name).then(|| self.segments_dir.join(name));
        Ok(Parties {
            old: there(segment_file_name(note.old, note.lane)),
            copy: there(copy_file_name(note.new, note.lane)),
            new: there(segment_file_name(note.new, note.lane)),
        })
    }

    fn has_note(&self) -> Result<bool, JournalError> {
        Ok(self.list(self.data_dir)?.iter().any(|name| name == SWAP_NOTE_FILE))
    }

    fn read_note(&self) -> Result<Option<SwapNote>, JournalError> {
        let file = match self.filesystem.open_read(&self.note) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(JournalError::failed(&self.note, "open"))?,
        };
        let mut block = [0; BLOCK];
        let filled = file.read_at(&mut block, 0).map_err(JournalError::failed(&self.note, "read"))?;
        // A note that replaces a segment by itself would remove what it names.
        Ok(SwapNote::decode(&block[..filled]).filter(|note| note.old != note.new))
    }

    fn remove_note(&self) -> Result<(), JournalError> {
        self.filesystem.remove(&self.note).map_err(JournalError::failed(&self.note, "remove"))?;
        self.sync_dir(self.data_dir)
    }

    fn remove_copies(&self, settled: &mut Settled) -> Result<(), JournalError> {
        let names = self.list(&self.segments_dir)?;
        let copies: Vec<PathBuf> = names
            .iter()
            .filter(|name| parse_copy_file_name(name).is_some())
            .map(|name| self.segments_dir.join(name))
            .collect();
        for copy in &copies {
            self.filesystem.remove(copy).map_err(JournalError::failed(copy, "remove"))?;
            settled.removed_leftovers += 1;
        }
        if copies.is_empty() { Ok(()) } else { self.sync_dir(&self.segments_dir) }
    }

    /// A number above those of all segments and copies.
    pub(super) fn free_number(&self) -> Result<u64, JournalError> {
        let names = self.list(&self.segments_dir)?;
        let numbers = names.iter().filter_map(|name| parse_segment_file_name(name).or(parse_copy_file_name(name)));
        Ok(numbers.map(|(number, _)| number).max().unwrap_or(0) + 1)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, JournalError> {
        self.filesystem.list(dir).map_err(JournalError::failed(dir, "list"))
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), JournalError> {
        self.filesystem.sync_dir(dir).map_err(JournalError::failed(dir, "sync"))
    }
}
