//! A data directory that a newer program wrote to is refused before anything in it is changed.
//!
//! Reads the first block of each file that carries a format version. Must never write.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{BadSegmentHeader, FORMAT_MAJOR, SWAP_NOTE_FILE, SegmentHeader, block_version};
use super::recovery;
use super::unreadable::Tolerant;
use crate::base::limits::BLOCK;
use std::io;
use std::path::Path;

/// Refuses a directory with a file of a higher format version, or with features that this program does not know.
pub(super) fn refuse(filesystem: &dyn Filesystem, data_dir: &Path, segments_dir: &Path) -> Result<(), JournalError> {
    let unusable = |path: &Path, problem: String| JournalError::Unusable { path: path.to_owned(), problem };
    for name in ["store", SWAP_NOTE_FILE] {
        let path = data_dir.join(name);
        let version = first_block(filesystem, &path)?.and_then(|block| block_version(&block));
        if let Some(newer) = version.filter(|version| *version > FORMAT_MAJOR) {
            return Err(unusable(&path, BadSegmentHeader::Newer(newer).to_string()));
        }
    }
    let segments = match recovery::list_segments(filesystem, segments_dir) {
        Err(JournalError::Failed { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        segments => segments?,
    };
    for (_, path) in segments {
        let decoded = first_block(filesystem, &path)?.map(|block| SegmentHeader::decode(&block));
        if let Some(Err(refused @ (BadSegmentHeader::Newer(_) | BadSegmentHeader::Incompatible(_)))) = decoded {
            return Err(unusable(&path, refused.to_string()));
        }
    }
    Ok(())
}

fn first_block(filesystem: &dyn Filesystem, path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let file = match filesystem.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(JournalError::failed(path, "open"))?,
    };
    let mut block = vec![0; BLOCK];
    // One that the disk does not give says nothing.
    let filled = Tolerant::at_start(&*file).read_at(&mut block, 0).map_err(JournalError::failed(path, "read"))?;
    block.truncate(filled);
    Ok(Some(block))
}
