//! The file `mirror`, in each of two directories that hold the same journal: which of them is to be believed.
//!
//! Written whole under another name, synced, renamed, and the directory synced, so that it is there as it was or as it
//! is now. Must never be written on a side that is not known to hold what it says.

use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use crate::journal::Filesystem;
use std::io::{self, IoSlice};
use std::path::Path;

/// Its name, in the data directory.
pub(super) const RECORD_FILE: &str = "mirror";
const NEW_FILE: &str = "mirror.new";
/// Pairings that a side remembers.
const FORMER_MAX: usize = 128;
const FORMER_AT: usize = 64;
/// Behind what earlier programs wrote: of them there is none.
const PAIRING_AT: usize = 40;
const MAGIC: [u8; 8] = *b"TILEMIRR";
const VERSION: u8 = 1;

/// What a side says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Both sides hold everything that was acknowledged.
    Paired,
    /// This side went on without the other, which is stale.
    Alone,
    /// This side is being filled from the other and is incomplete.
    Stale,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) standing: Standing,
    /// Raised whenever one side goes on without the other, and when they are equal again.
    pub(super) epoch: u64,
    /// Segments of the other side from this number on were open when it failed: what it holds of them proves nothing.
    pub(super) trusted_below: u64,
    /// Told by chance each time the two sides are found equal, and the same on both: epochs are counted by each side for
    /// itself. 0 before the first time.
    pub(super) pairing: u64,
    /// Earlier pairings of this side, the newest first: a side that stands where one of them left it is an old copy of this
    /// one, any other went on by itself.
    pub(super) former: [u64; FORMER_MAX],
    /// The mirror's directory is where a file system is mounted: without that it is not there.
    pub(super) mount_point: bool,
}

impl Record {
    /// Of a side that was never paired.
    pub(super) fn first(epoch: u64, mount_point: bool) -> Self {
        let (pairing, former) = (0, [0; FORMER_MAX]);
        Self { standing: Standing::Paired, epoch, trusted_below: u64::MAX, pairing, former, mount_point }
    }

    /// The two sides are equal; `pairing` is told by chance.
    pub(super) fn paired(self, epoch: u64, mount_point: bool, pairing: u64) -> Self {
        let mut former = self.former;
        if self.pairing != 0 {
            former.rotate_right(1);
            former[0] = self.pairing;
        }
        Self { standing: Standing::Paired, epoch, trusted_below: u64::MAX, pairing, former, mount_point }
    }

    /// True when a side that says `other` stands where this one was once, and did nothing since.
    pub(super) fn is_ahead_of(&self, other: &Self) -> bool {
        let is_known = [0, self.pairing].contains(&other.pairing) || self.former.contains(&other.pairing);
        other.standing == Standing::Paired && self.epoch > other.epoch && is_known
    }

    /// The same side, gone on without the other.
    pub(super) fn alone(self, epoch: u64) -> Self {
        Self { standing: Standing::Alone, epoch, ..self }
    }

    fn encode(&self) -> AlignedBytes {
        let mut block = AlignedBytes::zeroed(BLOCK);
        block[..8].copy_from_slice(&MAGIC);
        block[8] = VERSION;
        block[9] = match self.standing {
            Standing::Paired => 1,
            Standing::Alone => 2,
            Standing::Stale => 3,
        };
        block[10] = u8::from(self.mount_point);
        let mut put = |at: usize, number: u64| block[at..at + 8].copy_from_slice(&number.to_le_bytes());
        put(16, self.epoch);
        put(24, self.trusted_below);
        put(PAIRING_AT, self.pairing);
        self.former.iter().enumerate().for_each(|(n, pairing)| put(FORMER_AT + 8 * n, *pairing));
        let crc = crc32fast::hash(&block[..BLOCK - 4]);
        block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let number = |at: usize| block.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let crc = u32::from_le_bytes(block.get(BLOCK - 4..BLOCK)?.try_into().ok()?);
        if crc32fast::hash(&block[..BLOCK - 4]) != crc || block[..8] != MAGIC || block[8] != VERSION {
            return None;
        }
        let standing = match block[9] {
            1 => Standing::Paired,
            2 => Standing::Alone,
            3 => Standing::Stale,
            _ => return None,
        };
        let (epoch, trusted_below, pairing) = (number(16)?, number(24)?, number(PAIRING_AT)?);
        let mut former = [0; FORMER_MAX];
        for (n, pairing) in former.iter_mut().enumerate() {
            *pairing = number(FORMER_AT + 8 * n)?;
        }
        Some(Self { standing, epoch, trusted_below, pairing, former, mount_point: block[10] == 1 })
    }

    /// What the side in `dir` says. `None`: it says nothing, or nothing that can be read.
    pub(super) fn read(filesystem: &dyn Filesystem, dir: &Path) -> io::Result<Option<Self>> {
        if !filesystem.list(dir)?.iter().any(|name| name == RECORD_FILE) {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let filled = filesystem.open_read(&dir.join(RECORD_FILE))?.read_at(&mut block, 0)?;
        Ok(Self::decode(&block[..filled]))
    }

    /// Makes the side in `dir` say this, whatever moment the power goes.
    pub(super) fn write(&self, filesystem: &dyn Filesystem, dir: &Path) -> io::Result<()> {
        let (new, path) = (dir.join(NEW_FILE), dir.join(RECORD_FILE));
        if filesystem.list(dir)?.iter().any(|name| name == NEW_FILE) {
            filesystem.remove(&new)?;
        }
        let file = filesystem.create(&new, BLOCK as u64)?;
        file.write_all_at(&mut [IoSlice::new(&self.encode())], 0)?;
        file.sync()?;
        filesystem.rename(&new, &path)?;
        filesystem.sync_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_no_flipped_bit_goes_unnoticed() {
        let paired = Record::first(1, false).paired(2, false, 5).paired(6, true, 8);
        assert_eq!((paired.pairing, paired.former[..2].to_vec()), (8, vec![5, 0]));
        let record = Record { trusted_below: 9, ..paired.alone(7) };
        let block = record.encode();
        assert_eq!(Record::decode(&block), Some(record));
        for bit in (0..BLOCK * 8).step_by(7) {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Record::decode(&block[..BLOCK - 1]), None);
    }
}
