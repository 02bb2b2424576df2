//! What the HTTP port can be asked: acquisitions, ROIs, files, calibrations, tiles, completeness.
//!
//! Owns paths, parameters and the shapes of answers. Must never retry: whoever asks knows whether that is right.

use super::capture::Tile;
use super::http::{HttpClient, HttpClientError, Part, TileContent};
use crate::base::clock::unix_ns;
use crate::formats::TileName;
use crate::model::{AckLevel, AcqId, Checksum, FrameNumber, TileId};
use serde::Deserialize;

/// Tiles of a page of a listing.
const PAGE: usize = 10_000;
/// Numbers that are tried when one is taken.
const FREE_ATTEMPTS: usize = 100;

/// An acquisition that the server knows.
#[derive(Clone, Debug)]
pub struct KnownAcquisition {
    /// The text of its log.
    pub log: String,
    /// It was ended, and not started again since.
    pub ended: bool,
}

/// A file that is sent along.
#[derive(Clone, Copy, Debug)]
pub struct FileToStore<'a> {
    /// Its name, or path.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// A file that the server holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its base name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of its bytes.
    pub crc32: u32,
}

/// A file that the server did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// Its name as it was sent.
    pub name: String,
    /// Why.
    pub problem: String,
}

/// A tile that the server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTile {
    /// Its identifier.
    pub id: TileId,
    /// Column in the mosaic.
    pub col: u32,
    /// Row in the mosaic.
    pub row: u32,
    /// -1: a stable tile.
    pub frame: FrameNumber,
    /// Camera index.
    pub camera: i32,
    /// Version of the content, from 1.
    pub version: u32,
    /// Bytes of the image.
    pub size: u64,
    /// The sender's checksum of the image; the server's CRC-32 where the sender gave none.
    pub checksum: Checksum,
    /// The server knows that what it has of it is damaged.
    pub damaged: bool,
}

/// How complete an acquisition is, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerCompleteness {
    /// `rois`, or `mosaic` when no ROI was given.
    pub expected_by: String,
    /// Stable tiles that should be there.
    pub expected: u64,
    /// Of these, stored.
    pub received: u64,
    /// Of these, not stored.
    pub missing: u64,
    /// Stored stable tiles that nobody expects.
    pub unexpected: u64,
    /// The first of the missing ones, by column and row.
    pub missing_tiles: Vec<MissingTile>,
}

/// A place without its tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct MissingTile {
    /// Column in the mosaic.
    pub col: u32,
    /// Row in the mosaic.
    pub row: u32,
}

#[derive(Deserialize)]
struct Started {
    uid: u64,
}

#[derive(Deserialize)]
struct Acquisitions {
    acquisitions: Vec<AcquisitionShape>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AcquisitionShape {
    completed: Option<String>,
    ini_content: String,
}

#[derive(Deserialize)]
struct Files {
    files: Vec<FileShape>,
}

#[derive(Deserialize)]
struct FileShape {
    name: String,
    size: u64,
    crc32: String,
}

#[derive(Deserialize)]
struct FileResults {
    af_results: Vec<FileResult>,
}

#[derive(Deserialize)]
struct FileResult {
    errormessage: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct TilePage {
    tiles: Vec<TileShape>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct TileShape {
    id: u64,
    acquisition: u64,
    col: u32,
    row: u32,
    frame: Option<i32>,
    camera: i32,
    version: u32,
    size: u64,
    checksum: String,
    #[serde(default)]
    damaged: bool,
}

#[derive(Deserialize)]
struct Readiness {
    ack_level: AckLevel,
}

#[derive(Deserialize)]
struct Captured {
    tile_id: u64,
}

impl HttpClient {
    /// When this server acknowledges a tile; `None`: it does not say.
    ///
    /// # Errors
    /// The server does not answer, or can not store.
    pub fn ack_level(&self) -> Result<Option<AckLevel>, HttpClientError> {
        match self.get_path("/readyz") {
            Ok(answer) => Ok(serde_json::from_slice(&answer.bytes).ok().map(|Readiness { ack_level }| ack_level)),
            Err(HttpClientError::Refused { status: 404 | 405, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A number that no acquisition of the server has, for a trial: the time, in milliseconds, or one of the next. `None`:
    /// all of them are taken.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn free_acquisition(&self) -> Result<Option<AcqId>, HttpClientError> {
        let first = u64::try_from(unix_ns() / 1_000_000).unwrap_or(1).max(1);
        for acq in (first..).take(FREE_ATTEMPTS).map(AcqId) {
            if self.is_free(acq)? {
                return Ok(Some(acq));
            }
        }
        Ok(None)
    }

    /// No acquisition has this number: none was started, and no tile of one came.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn is_free(&self, acq: AcqId) -> Result<bool, HttpClientError> {
        match self.get_path(&format!("/api/v1/acquisitions/{acq}")) {
            Ok(_) => Ok(false),
            Err(HttpClientError::Refused { status: 404, .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Starts an acquisition with its log; returns its identifier.
    ///
    /// # Errors
    /// The server refuses it or does not answer.
    pub fn start_acquisition(&self, log_name: &str, log: &[u8]) -> Result<AcqId, HttpClientError> {
        let path = "/service/v1/start-acquisition";
        let part = Part { name: "acq-inilog", file_name: Some(log_name), bytes: log };
        let started: Started = self.json(path, &self.post_parts(path, &[part])?.bytes)?;
        Ok(AcqId(started.uid))
    }

    /// What the server knows of an acquisition; `None`: it was never started there.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn acquisition(&self, acq: AcqId) -> Result<Option<KnownAcquisition>, HttpClientError> {
        let listing: Acquisitions = self.get_json(&format!("/service/v1/acquisitions?acqid={acq}"))?;
        let known =
            |shape: AcquisitionShape| KnownAcquisition { log: shape.ini_content, ended: shape.completed.is_some() };
        Ok(listing.acquisitions.into_iter().next().map(known))
    }

    /// Creates the acquisition's ROIs from the microscope's two files.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn create_rois(
        &self,
        acq: AcqId,
        tiles: FileToStore<'_>,
        spec: FileToStore<'_>,
    ) -> Result<(), HttpClientError> {
        let parts = [tiles.part("roi-tiles"), spec.part("roi-spec")];
        self.post_parts(&format!("/service/v1/create-rois/{acq}"), &parts).map(drop)
    }

    /// Imports calibrations, a JSON array.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn import_calibrations(&self, json: &[u8]) -> Result<(), HttpClientError> {
        self.post_bytes("/service/v1/calibrations", json).map(drop)
    }

    /// Stores a file with an acquisition; what the server has against it, if it does not take it.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn store_file(&self, acq: AcqId, file: FileToStore<'_>) -> Result<Option<RefusedFile>, HttpClientError> {
        let path = format!("/service/v1/store-ancillary-files/{acq}");
        let results = match self.post_parts(&path, &[file.part("ancillary-file")]) {
            Ok(answer) => self.json::<FileResults>(&path, &answer.bytes)?,
            // A mixed list comes with this status; anything else in it is the whole request refused.
            Err(HttpClientError::Refused { url, status: 400, message }) => {
                serde_json::from_str(&message).map_err(|_| HttpClientError::Refused { url, status: 400, message })?
            }
            Err(error) => return Err(error),
        };
        let refused = |result: FileResult| Some(RefusedFile { problem: result.errormessage?, name: result.name });
        Ok(results.af_results.into_iter().find_map(refused))
    }

    /// The files that are stored with an acquisition, oldest first.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn files(&self, acq: AcqId) -> Result<Vec<StoredFile>, HttpClientError> {
        let path = format!("/service/v1/acquisition/{acq}/files?length=100000");
        let listing: Files = self.get_json(&path)?;
        let bad =
            |name: &str| HttpClientError::Unexpected { url: self.url(&path), problem: format!("crc32 of {name}") };
        let file = |FileShape { name, size, crc32 }| match u32::from_str_radix(&crc32, 16) {
            Ok(crc32) => Ok(StoredFile { name, size, crc32 }),
            Err(_) => Err(bad(&name)),
        };
        listing.files.into_iter().map(file).collect()
    }

    /// Ends an acquisition.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn end_acquisition(&self, acq: AcqId) -> Result<(), HttpClientError> {
        self.post_empty(&format!("/service/v1/end-acquisition/{acq}")).map(drop)
    }

    /// Deletes an acquisition for ever.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn delete_acquisition(&self, acq: AcqId) -> Result<(), HttpClientError> {
        self.delete(&format!("/service/v1/acquisition/{acq}?confirm={acq}")).map(drop)
    }

    /// Which tiles should be there, and are not.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn completeness(&self, acq: AcqId) -> Result<ServerCompleteness, HttpClientError> {
        self.get_json(&format!("/service/v1/acquisition/{acq}/completeness"))
    }

    /// All tiles of an acquisition, stable ones and drift frames, page by page.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn stored_tiles(&self, acq: AcqId, mut each: impl FnMut(StoredTile)) -> Result<(), HttpClientError> {
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/acquisitions/{acq}/tiles?frame-type=all&length={PAGE}{cursor}");
            let page: TilePage = self.get_json(&path)?;
            for shape in page.tiles {
                each(self.stored_tile(&path, shape)?);
            }
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(()),
            }
        }
    }

    /// The tile of an acquisition with this identifier, in its latest version.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn tile_by_id(&self, acq: AcqId, id: TileId) -> Result<Option<StoredTile>, HttpClientError> {
        let path = format!("/api/v1/tiles/{id}");
        match self.get_json::<TileShape>(&path) {
            Ok(shape) if shape.acquisition == acq.0 => self.stored_tile(&path, shape).map(Some),
            Ok(_) | Err(HttpClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stored_tile(&self, path: &str, shape: TileShape) -> Result<StoredTile, HttpClientError> {
        let problem = format!("checksum {:?}", shape.checksum);
        shape.tile().ok_or_else(|| HttpClientError::Unexpected { url: self.url(path), problem })
    }

    /// The stable tile at a position, as the server describes it.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn tile(&self, acq: AcqId, col: u32, row: u32) -> Result<serde_json::Value, HttpClientError> {
        self.get_json(&format!("/service/v1/acquisition/{acq}/tile/{col}/{row}"))
    }

    /// The content of the stable tile at a position.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn content(&self, acq: AcqId, col: u32, row: u32) -> Result<TileContent, HttpClientError> {
        self.get_path(&format!("/service/v1/acquisition/{acq}/tile/{col}/{row}/content"))
    }

    /// Sends a tile as a raw body (PUT); its name says column, row, camera and frame.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn put_tile(&self, tile: &Tile<'_>) -> Result<TileId, HttpClientError> {
        let checksum = hex_of(tile).map_or(String::new(), |hex| format!("&checksum={hex}"));
        let path = format!("{}?tile-filename={}{checksum}", capture_path(tile), TileName::of(tile.key, tile.camera));
        self.captured(&path, self.put_bytes(&path, tile.image)?)
    }

    /// Sends a tile as a form (POST), as some older senders do.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn post_tile(&self, tile: &Tile<'_>) -> Result<TileId, HttpClientError> {
        let (path, name, hex) = (capture_path(tile), TileName::of(tile.key, tile.camera).to_string(), hex_of(tile));
        let mut parts = vec![
            Part { name: "tile-file", file_name: Some(&name), bytes: tile.image },
            Part { name: "tile-filename", file_name: None, bytes: name.as_bytes() },
        ];
        parts.extend(hex.as_ref().map(|hex| Part { name: "checksum-str", file_name: None, bytes: hex.as_bytes() }));
        self.captured(&path, self.post_parts(&path, &parts)?)
    }

    fn captured(&self, path: &str, answer: TileContent) -> Result<TileId, HttpClientError> {
        let captured: Captured = self.json(path, &answer.bytes)?;
        Ok(TileId(captured.tile_id))
    }
}

fn capture_path(tile: &Tile<'_>) -> String {
    format!("/service/v1/capture-image-content/{}", tile.key.acq)
}

/// The checksum that goes with a tile, if one does.
fn hex_of(tile: &Tile<'_>) -> Option<String> {
    (!tile.checksum.kind().is_empty()).then(|| tile.checksum.to_string())
}

impl<'a> FileToStore<'a> {
    fn part(self, name: &'a str) -> Part<'a> {
        Part { name, file_name: Some(self.name), bytes: self.bytes }
    }
}

impl TileShape {
    fn tile(self) -> Option<StoredTile> {
        let (_, hex) = self.checksum.split_once(':')?;
        Some(StoredTile {
            id: TileId(self.id),
            col: self.col,
            row: self.row,
            frame: self.frame.map_or(FrameNumber::STABLE, FrameNumber),
            camera: self.camera,
            version: self.version,
            size: self.size,
            checksum: Checksum::from_hex(hex)?,
            damaged: self.damaged,
        })
    }
}
