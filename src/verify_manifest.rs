//! Holds a manifest against a data directory: is everything that it names there, and unaltered?
//!
//! From the journal alone, read only: beside a daemon, or where none runs. Every payload is read again. Must never trust
//! the index, nor the manifest before its own root was checked.

use crate::catalog::{
    CatalogError, ContentCheck, KnownContent, ManifestError, ManifestReader, ManifestTile, OfflineTiles, manifest_line,
    parse_manifest,
};
use crate::journal::{Filesystem, ReadError, RealFilesystem};
use crate::model::TileEntry;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often the journal is opened again for one tile whose segment was removed meanwhile.
const REOPENINGS_MAX: usize = 5;

/// What holding a manifest against a data directory found.
#[derive(Debug, Serialize)]
pub struct ManifestAudit {
    /// The acquisition.
    pub acquisition: u64,
    /// Tiles in the manifest.
    pub tiles: u64,
    /// Its root.
    pub root: String,
    /// Tiles that are there and unaltered.
    pub good: u64,
    /// Bytes of images read.
    pub bytes: u64,
    /// One for each other tile.
    pub problems: Vec<ManifestProblem>,
    /// Places of the journal that could not be read: what is missing may have been there.
    pub damage: Vec<String>,
}

/// A tile that is not as the manifest says.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ManifestProblem {
    /// The line in the manifest, from 1.
    pub line: u64,
    /// Name of the tile's file.
    pub name: String,
    /// In which way.
    pub kind: ProblemKind,
    /// More exactly.
    pub problem: String,
}

/// In which way a tile is not as the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// The journal has no record of this version.
    Missing,
    /// It has another size, checksum or camera.
    Differs,
    /// Its bytes are not what was stored.
    Damaged,
}

impl ProblemKind {
    /// In one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Damaged => "damaged",
        }
    }
}

/// Why a manifest was not held against the data.
#[derive(Debug, thiserror::Error)]
pub enum VerifyManifestError {
    /// The manifest can not be read, or does not hold in itself.
    #[error("{path}: {source}")]
    Manifest {
        /// The manifest's file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The journal.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Checks the manifest in itself, then each of its tiles. `progress` is called with (tiles, tiles in all, bytes).
///
/// # Errors
/// The manifest does not hold in itself; it or the journal can not be read.
pub fn verify_manifest(
    file: &Path,
    data: &Path,
    progress: &mut dyn FnMut(u64, u64, u64),
) -> Result<ManifestAudit, VerifyManifestError> {
    let at_file = |source: ManifestError| VerifyManifestError::Manifest { path: file.to_owned(), source };
    let opened = || File::open(file).map(BufReader::new).map_err(|error| at_file(error.into()));
    let (acq, summary) = parse_manifest(&mut opened()?, &mut |_, _| {}).map_err(at_file)?;
    let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
    let open_tiles = || OfflineTiles::read(data, &filesystem, acq);
    let mut stored = open_tiles()?;
    let mut audit = ManifestAudit {
        acquisition: acq.0,
        tiles: summary.tiles,
        root: summary.root.clone(),
        good: 0,
        bytes: 0,
        problems: Vec::new(),
        damage: Vec::new(),
    };
    let mut reader = ManifestReader::open(opened()?).map_err(at_file)?;
    while let Some((tile, line)) = reader.next_tile().map_err(at_file)? {
        let mut checked = check(&stored, &tile, &line);
        for _ in 0..REOPENINGS_MAX {
            if !matches!(checked, Err(NotGood::Gone)) {
                break;
            }
            stored = open_tiles()?;
            checked = check(&stored, &tile, &line);
        }
        match checked.map_err(NotGood::explained) {
            Ok(()) => (audit.good, audit.bytes) = (audit.good + 1, audit.bytes + u64::from(tile.size)),
            Err((kind, problem)) => {
                audit.problems.push(ManifestProblem { line: reader.line(), name: tile.name, kind, problem });
            }
        }
        progress(audit.good + audit.problems.len() as u64, audit.tiles, audit.bytes);
    }
    if reader.summary() != Some(&summary) {
        return Err(at_file(io::Error::other("changed while it was read: try again").into()));
    }
    audit.damage = stored.problems().to_vec();
    Ok(audit)
}

enum NotGood {
    Missing,
    Differs(String),
    Damaged(String),
    /// Its segment is not there any more.
    Gone,
}

impl NotGood {
    fn explained(self) -> (ProblemKind, String) {
        match self {
            Self::Missing => (ProblemKind::Missing, "the journal has no record of this version".to_owned()),
            Self::Differs(how) => (ProblemKind::Differs, how),
            Self::Damaged(how) => (ProblemKind::Damaged, how),
            Self::Gone => (ProblemKind::Missing, "its segment is not in the journal any more".to_owned()),
        }
    }
}

impl From<ReadError> for NotGood {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(_) => Self::Gone,
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Whether one of the records of this version is what the line says, and can be read.
fn check(stored: &OfflineTiles, tile: &ManifestTile, line: &str) -> Result<(), NotGood> {
    let mut worst = NotGood::Missing;
    for entry in stored.find(tile.place(), tile.version) {
        let found = manifest_line(entry);
        if found != line {
            worst = NotGood::Differs(format!("the journal has {found}"));
            continue;
        }
        match read_again(stored, entry) {
            Ok(()) => return Ok(()),
            Err(NotGood::Gone) => return Err(NotGood::Gone),
            Err(error) => worst = error,
        }
    }
    Err(worst)
}

fn read_again(stored: &OfflineTiles, entry: &TileEntry) -> Result<(), NotGood> {
    let mut check = ContentCheck::new(KnownContent::of_image(entry));
    let header = stored.journal().copy_payload(entry.location, entry.image, &mut |bytes| {
        check.update(bytes);
        Ok::<_, NotGood>(())
    })?;
    if header.sequence != entry.sequence {
        return Err(NotGood::Damaged("another record lies in its place".to_owned()));
    }
    check.problem().map_or(Ok(()), |problem| Err(NotGood::Damaged(problem.to_owned())))
}
