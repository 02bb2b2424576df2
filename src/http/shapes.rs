//! The JSON shapes of the service, field by field as its clients know them.

use crate::formats::{TileName, TileSpec};
use crate::index::{AcquisitionView, Membership, StartedView};
use crate::model::{AcqId, AncillaryKind, CalibrationRecord, Cell, Checksum, TileEntry};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::query::{local_time, utc_time};

/// Any error.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What is wrong, for people.
    pub(super) errormessage: String,
}

/// An answer without content.
#[derive(Serialize, ToSchema)]
pub(super) struct Empty {}

/// A started acquisition.
#[derive(Serialize, ToSchema)]
pub(super) struct Started {
    /// Its identifier.
    pub(super) uid: u64,
}

/// A stored tile, or, with include-all, a tile whose content has not come.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Tile {
    tile_acq_id: u64,
    tile_temca: u32,
    /// 0: its content has not come.
    tile_id: u64,
    tile_col: u32,
    tile_row: u32,
    tile_camera: i32,
    /// -1: a stable tile.
    tile_frame: i32,
    tile_jfs_path: String,
    tile_jfs_key: String,
    /// Hex.
    tile_file_checksum: String,
    image_url: String,
    /// yyyyMMddHHmmss.SSSSSS, local time.
    tile_acquired: String,
    pub(super) state: String,
    /// Nominal section; -1: in no ROI.
    pub(super) section: i64,
    /// All nominal sections in which the tile lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sections: Option<Vec<i64>>,
    /// Version of the content, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    /// Bytes of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

/// State and section of a tile in no ROI.
const NO_ROI: (&str, i64) = (crate::model::STATE_READY, -1);

impl Tile {
    /// A stored tile in one of its ROIs, or in none.
    pub(super) fn stored(entry: &TileEntry, temca: u32, public_url: &str, place: Option<&Membership>) -> Self {
        let key = entry.key;
        let name = TileName::of(key, entry.camera);
        Self {
            tile_acq_id: key.acq.0,
            tile_temca: temca,
            tile_id: entry.id.0,
            tile_col: key.col,
            tile_row: key.row,
            tile_camera: entry.camera,
            tile_frame: key.frame.0,
            tile_jfs_path: format!("/acquisitions/{}/{name}", key.acq),
            tile_jfs_key: format!("{}-{}", entry.id, entry.version.0),
            tile_file_checksum: stored_checksum(entry).to_string(),
            image_url: image_url(public_url, entry),
            tile_acquired: local_time(entry.received_ns),
            state: place.map_or_else(|| NO_ROI.0.to_owned(), |place| place.state.to_string()),
            section: place.map_or(NO_ROI.1, |place| place.roi.section),
            sections: None,
            version: None,
            size: None,
        }
    }

    /// A stored tile with all its sections.
    pub(super) fn whole(entry: &TileEntry, temca: u32, public_url: &str, places: &[Membership]) -> Self {
        let mut tile = Self::stored(entry, temca, public_url, places.first());
        tile.sections = Some(places.iter().map(|place| place.roi.section).collect());
        (tile.version, tile.size) = (Some(entry.version.0), Some(entry.image.len));
        tile
    }

    /// A tile whose content has not come.
    pub(super) fn awaited(acq: AcqId, cell: Cell, temca: u32, place: &Membership) -> Self {
        Self {
            tile_acq_id: acq.0,
            tile_temca: temca,
            tile_id: 0,
            tile_col: cell.0,
            tile_row: cell.1,
            tile_camera: -1,
            tile_frame: cell.2.0,
            tile_jfs_path: String::new(),
            tile_jfs_key: String::new(),
            tile_file_checksum: String::new(),
            image_url: String::new(),
            tile_acquired: String::new(),
            state: place.state.to_string(),
            section: place.roi.section,
            sections: None,
            version: None,
            size: None,
        }
    }
}

/// Where a tile's content is.
pub(super) fn image_url(public_url: &str, entry: &TileEntry) -> String {
    format!("{public_url}/service/v1/tile/{}/content", entry.id)
}

/// The sender's checksum, or the stored CRC-32 when it gave none.
pub(super) fn stored_checksum(entry: &TileEntry) -> Checksum {
    match entry.checksum {
        Checksum::None => Checksum::Crc32(entry.image_crc),
        given => given,
    }
}

/// A tile whose content was read again.
#[derive(Serialize, ToSchema)]
pub(super) struct VerifiedTile {
    #[serde(flatten)]
    pub(super) tile: Tile,
    /// Hex.
    #[serde(rename = "calculatedChecksum")]
    pub(super) calculated_checksum: String,
}

/// Tiles of one acquisition.
#[derive(Serialize, ToSchema)]
pub(super) struct TilesOfAcquisition {
    pub(super) acq_id: u64,
    /// When it was acquired, RFC 3339 UTC.
    pub(super) acq_timestamp: String,
    /// When it was completed, RFC 3339 UTC.
    pub(super) acq_completed: Option<String>,
    pub(super) n_tiles: usize,
    pub(super) tiles: Vec<Tile>,
}

/// Tiles by acquisition.
#[derive(Serialize, ToSchema)]
pub(super) struct TileListing {
    pub(super) n_returned_acqs: usize,
    pub(super) n_returned_tiles_for_all_acqs: usize,
    pub(super) acquisitions: Vec<TilesOfAcquisition>,
}

/// Tiles in one list (`flat=true`).
#[derive(Serialize, ToSchema)]
pub(super) struct FlatTileListing {
    pub(super) length: usize,
    pub(super) tiles: Vec<Tile>,
}

/// Tiles in either form.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum TilesAnswer {
    /// By acquisition.
    ByAcquisition(TileListing),
    /// In one list (`flat=true`).
    Flat(FlatTileListing),
}

/// An acquisition.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Acquisition {
    #[serde(rename = "IniFileID")]
    ini_file_id: u64,
    #[serde(rename = "ImageMosaicID")]
    image_mosaic_id: u64,
    /// RFC 3339 UTC; the year 1 when the log does not say.
    acquired: String,
    inserted: String,
    completed: Option<String>,
    #[serde(rename = "AcqUID")]
    acq_uid: u64,
    number_of_cameras: u32,
    x_small_step_pix: i64,
    y_small_step_pix: i64,
    x_big_step_pix: i64,
    y_big_step_pix: i64,
    #[serde(rename = "NXSteps")]
    nx_steps: u32,
    #[serde(rename = "NYSteps")]
    ny_steps: u32,
    #[serde(rename = "NTargetCols")]
    n_target_cols: u32,
    #[serde(rename = "NTargetRows")]
    n_target_rows: u32,
    x_center: f64,
    y_center: f64,
    y_tem: f64,
    pix_per_um: f64,
    magnification: f64,
    #[serde(rename = "TemIPAddress")]
    tem_ip_address: String,
    #[serde(rename = "URL")]
    url: String,
    sample_name: String,
    project_name: String,
    project_owner: String,
    stack_name: String,
    mosaic_type: String,
    roi_tiles_file: String,
    roi_spec_file: String,
    microscopist_name: String,
    notes: String,
    ini_content: String,
}

/// A time that is not known, as the original writes it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// When an acquisition was acquired.
pub(super) fn acquired(started: &StartedView) -> String {
    started.facts.acquired_unix_s.map_or_else(|| NO_TIME.to_owned(), |s| utc_time(s.saturating_mul(1_000_000_000)))
}

impl Acquisition {
    pub(super) fn of(acq: AcqId, view: &AcquisitionView, public_url: &str) -> Option<Self> {
        let started = view.head.started.as_ref()?;
        let facts = &started.facts;
        let grid = facts.grid();
        let file = |kind: AncillaryKind| {
            let found = view.head.files.iter().rev().find(|entry| entry.file.kind == kind);
            found.map(|entry| entry.file.name.clone()).unwrap_or_default()
        };
        Some(Self {
            ini_file_id: started.last.0,
            image_mosaic_id: started.first.0,
            acquired: acquired(started),
            inserted: utc_time(started.first_started_ns),
            completed: started.ended_ns.map(utc_time),
            acq_uid: acq.0,
            number_of_cameras: facts.cameras.count(),
            x_small_step_pix: facts.x_small_step_pix,
            y_small_step_pix: facts.y_small_step_pix,
            x_big_step_pix: facts.x_big_step_pix,
            y_big_step_pix: facts.y_big_step_pix,
            nx_steps: facts.x_steps,
            ny_steps: facts.y_steps,
            n_target_cols: grid.cols,
            n_target_rows: grid.rows,
            x_center: facts.x_center_m,
            y_center: facts.y_center_m,
            y_tem: facts.y_tem_m,
            pix_per_um: facts.pix_per_um,
            magnification: facts.magnification,
            tem_ip_address: facts.tem_ip_address.clone(),
            url: format!("{public_url}/service/v1/acquisition/{acq}/tiles"),
            sample_name: facts.sample_name.clone(),
            project_name: facts.project_name.clone(),
            project_owner: facts.project_owner.clone(),
            stack_name: facts.stack_name.clone(),
            mosaic_type: facts.mosaic_type.clone(),
            roi_tiles_file: file(AncillaryKind::RoiTiles),
            roi_spec_file: file(AncillaryKind::RoiSpec),
            microscopist_name: facts.microscopist_name.clone(),
            notes: facts.notes.clone(),
            ini_content: started.log_text.clone(),
        })
    }
}

/// Acquisitions.
#[derive(Serialize, ToSchema)]
pub(super) struct AcquisitionListing {
    pub(super) length: usize,
    pub(super) acquisitions: Vec<Acquisition>,
}

/// A project and its owner.
#[derive(Serialize, ToSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Project {
    pub(super) project_name: String,
    pub(super) project_owner: String,
}

/// Projects.
#[derive(Serialize, ToSchema)]
pub(super) struct ProjectListing {
    pub(super) length: usize,
    pub(super) projects: Vec<Project>,
}

/// What became of a tile that was sent.
#[derive(Serialize, ToSchema)]
pub(super) struct CapturedTile {
    pub(super) tile_acq_id: u64,
    pub(super) tile_temca: u32,
    pub(super) tile_id: u64,
    pub(super) tile_col: u32,
    pub(super) tile_row: u32,
    pub(super) tile_camera: i32,
    pub(super) tile_frame: i32,
}

/// What became of a file that was sent: the identifiers, or the message.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum FileResult {
    /// It is stored.
    Stored {
        /// Its identifier.
        id: u64,
        /// Stable key of its content.
        jfs_key: String,
        /// Its place in the store.
        jfs_path: String,
        /// Base name.
        name: String,
        /// Where its content is.
        path: String,
    },
    /// It is not.
    Failed {
        /// Why.
        errormessage: String,
        /// The name that was given.
        name: String,
    },
}

/// What became of the files that were sent.
#[derive(Serialize, ToSchema)]
pub(super) struct FileResults {
    /// In the order of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) af_results: Option<Vec<FileResult>>,
    /// How complete the acquisition was at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) completeness: Option<Value>,
}

/// A file of an acquisition.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredFile {
    pub(super) id: u64,
    pub(super) name: String,
    /// What it is, by its suffix.
    pub(super) kind: String,
    pub(super) size: u64,
    /// CRC-32, hex.
    pub(super) crc32: String,
    /// RFC 3339 UTC.
    pub(super) stored: String,
    pub(super) url: String,
}

/// Files of an acquisition.
#[derive(Serialize, ToSchema)]
pub(super) struct FileListing {
    pub(super) length: usize,
    pub(super) files: Vec<StoredFile>,
}

/// A calibration.
#[derive(Serialize, ToSchema)]
pub(super) struct CalibrationShape {
    pub(super) id: u64,
    pub(super) name: String,
    /// yyyymmdd.
    pub(super) calibration_date: String,
    /// The record as it was sent.
    #[schema(value_type = Object)]
    pub(super) content: CalibrationRecord,
}

/// Calibrations.
#[derive(Serialize, ToSchema)]
pub(super) struct CalibrationListing {
    pub(super) length: usize,
    pub(super) calibrations: Vec<CalibrationShape>,
}

/// A tile that is handed out.
#[derive(Serialize, ToSchema)]
pub(super) struct NextTile {
    pub(super) acqid: u64,
    pub(super) section: i64,
    #[schema(value_type = Object)]
    pub(super) tilespec: TileSpec,
}

/// Tiles that are handed out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NextTilesAnswer {
    /// TILE_FOUND, NO_TILE_READY, NO_TILE_READY_IN_SECTION, SERVED_ALL_ACQ or SERVED_ALL_SECTION.
    pub(super) result_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requested_acq_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requested_section: Option<i64>,
    pub(super) n_tiles_requested: usize,
    pub(super) n_tiles_found: usize,
    pub(super) results: Vec<NextTile>,
}

/// How many tiles have another state.
#[derive(Serialize, ToSchema)]
pub(super) struct StateUpdates {
    #[serde(rename = "nUpdates")]
    pub(super) n_updates: usize,
}
