//! What a name in the folder stands for.
//!
//! Must never look at the disk.

use crate::formats::{OWN_FILES, TileName, is_tile_directory};
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tile or drift frame.
    Tile(TileName),
    /// `col*` or `Dump__*`.
    TileDirectory,
    /// A file beside the tiles.
    Beside,
}

impl Kind {
    /// Of a path below the folder; `None`: nothing of the acquisition.
    pub(super) fn of(path: &Path, ignored: &[PathBuf]) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        if is_temporary(&name) || ignored.iter().any(|ignored| ignored == path) {
            return None;
        }
        match path.parent()? {
            root if root.as_os_str().is_empty() && is_tile_directory(&name) => Some(Self::TileDirectory),
            root if root.as_os_str().is_empty() => Some(Self::Beside),
            dir if dir.parent() == Some(Path::new("")) && is_tile_directory(&dir.to_string_lossy()) => {
                name.parse().ok().map(Self::Tile)
            }
            _ => None,
        }
    }
}

/// A name under which a file is not complete, or not the microscope's.
pub(super) fn is_temporary(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with('.') || name.starts_with(OWN_FILES) || lower.ends_with(".part") || lower.ends_with(".tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_they_say_and_strangers_for_nothing() {
        let ignored = ["STOP".into()];
        let kind = |path: &str| Kind::of(Path::new(path), &ignored);
        for tile in ["col0001/col0001_row0002_cam3.tif", "Dump__9/Dump_cam0_frame000001_col0000_row0000.tif"] {
            assert!(matches!(kind(tile), Some(Kind::Tile(_))), "{tile}");
        }
        assert_eq!([kind("col0001"), kind("Dump__9_8x4")], [Some(Kind::TileDirectory); 2]);
        assert_eq!([kind("9_logfile.ini"), kind("notes.txt")], [Some(Kind::Beside); 2]);
        for stranger in [
            "STOP",
            ".tilecatcher-sent",
            ".hidden",
            "9_logfile.ini.part",
            "x.TMP",
            "",
            "col0001/Thumbs.db",
            "col0001/.col0001_row0002_cam3.tif",
            "col0001/col0001_row0002_cam3.tif.tmp",
            "other/col0001_row0002_cam3.tif",
            "col0001/deeper/col0001_row0002_cam3.tif",
        ] {
            assert_eq!(kind(stranger), None, "{stranger}");
        }
    }
}
