//! A file of which the disk refuses to give some blocks: they read as zeros, and are known.
//!
//! For those who go on with what is left: checksums tell what the zeros stand for. Must never take another error for
//! that, nor pass such bytes on without anybody being told.

use super::filesystem::{SegmentFile, refuse_writes};
use crate::base::limits::BLOCK;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Blocks of one segment that a start reads past, 1 MiB: with more, it is the disk that fails, and each such read may take
/// the disk seconds.
const AT_START_MAX: usize = 256;

/// Reads past what can not be read.
pub(super) struct Tolerant<'a> {
    file: &'a dyn SegmentFile,
    refused: Mutex<BTreeSet<u64>>,
    most: usize,
}

/// Blocks that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Offset of the first one.
    pub(super) first: u64,
    /// How many there are.
    pub(super) blocks: usize,
}

impl Refused {
    pub(super) fn problem(self) -> String {
        format!("{} blocks can not be read, this is the first: check the disk", self.blocks)
    }
}

impl<'a> Tolerant<'a> {
    pub(super) fn new(file: &'a dyn SegmentFile) -> Self {
        Self { file, refused: Mutex::default(), most: usize::MAX }
    }

    /// For a start: reads past a few blocks only.
    pub(super) fn at_start(file: &'a dyn SegmentFile) -> Self {
        Self { most: AT_START_MAX, ..Self::new(file) }
    }

    /// Offsets of the blocks that could not be read so far.
    pub(super) fn blocks(&self) -> Vec<u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// What could not be read so far.
    pub(super) fn refused(&self) -> Option<Refused> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.first().map(|first| Refused { first: *first, blocks: refused.len() })
    }

    fn read_by_blocks(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = usize::try_from(self.file.length()?.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let inside = usize::try_from(at % BLOCK as u64).unwrap_or(0);
            let part = &mut bytes[done..len.min(done + BLOCK - inside)];
            let filled = self.file.read_at(part, at).or_else(|error| {
                if !is_refusal(&error) {
                    return Err(error);
                }
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.insert(at - inside as u64);
                if refused.len() > self.most { Err(error) } else { Ok(0) }
            })?;
            part[filled..].fill(0);
            done += part.len();
        }
        Ok(len)
    }
}

/// True for what the kernel says of a block that the disk or the file system can not give.
fn is_refusal(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::IO, Errno::NODATA, Errno::ILSEQ, Errno::BADMSG].contains(&errno))
}

impl SegmentFile for Tolerant<'_> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(bytes, offset) {
            Err(error) if is_refusal(&error) => self.read_by_blocks(bytes, offset),
            read => read,
        }
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    refuse_writes!();
}
