//! What is known of a tile, in the legacy shape.

use super::AppState;
use super::answer::{Failure, blocking, number};
use crate::formats::TileName;
use crate::model::{AcqId, Checksum, FrameNumber, TileEntry, TileId, TileKey};
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

/// A tile as legacy clients know it.
#[derive(Serialize)]
pub(super) struct LegacyTile {
    tile_acq_id: u64,
    tile_temca: i64,
    tile_id: u64,
    tile_col: u32,
    tile_row: u32,
    tile_camera: i32,
    tile_frame: i32,
    tile_jfs_path: String,
    tile_jfs_key: String,
    tile_file_checksum: String,
    image_url: String,
    tile_acquired: String,
    state: &'static str,
    section: i64,
}

pub(super) async fn by_position(
    State(state): State<AppState>,
    Path((acqid, col, row)): Path<(String, String, String)>,
) -> Result<Json<LegacyTile>, Failure> {
    let entry = find_by_position(&state, &acqid, &col, &row).await?;
    Ok(Json(legacy_tile(&entry, &state.public_url)))
}

pub(super) async fn by_id(
    State(state): State<AppState>,
    Path(tileid): Path<String>,
) -> Result<Json<LegacyTile>, Failure> {
    let entry = find_by_id(&state, &tileid).await?;
    Ok(Json(legacy_tile(&entry, &state.public_url)))
}

/// The stable tile at a position.
pub(super) async fn find_by_position(
    state: &AppState,
    acqid: &str,
    col: &str,
    row: &str,
) -> Result<TileEntry, Failure> {
    let key = TileKey {
        acq: AcqId(number("acqid", acqid)?),
        col: number("col", col)?,
        row: number("row", row)?,
        frame: FrameNumber::STABLE,
    };
    let found = blocking(state, move |catalog| catalog.tile_by_key(&key)).await?;
    found.ok_or_else(|| Failure::missing(format!("no tile is stored for {key}")))
}

pub(super) async fn find_by_id(state: &AppState, tileid: &str) -> Result<TileEntry, Failure> {
    let id = TileId(number("tileid", tileid)?);
    let found = blocking(state, move |catalog| catalog.tile_by_id(id)).await?;
    found.ok_or_else(|| Failure::missing(format!("no tile has the id {id}")))
}

fn legacy_tile(entry: &TileEntry, public_url: &str) -> LegacyTile {
    let key = entry.key;
    let name = TileName { camera: entry.camera, col: key.col, row: key.row, frame: key.frame };
    LegacyTile {
        tile_acq_id: key.acq.0,
        tile_temca: 0,
        tile_id: entry.id.0,
        tile_col: key.col,
        tile_row: key.row,
        tile_camera: entry.camera,
        tile_frame: key.frame.0,
        tile_jfs_path: format!("/acquisitions/{}/{name}", key.acq),
        tile_jfs_key: format!("{}-{}", entry.id, entry.version.0),
        tile_file_checksum: stored_checksum(entry).to_string(),
        image_url: format!("{public_url}/service/v1/tile/{}/content", entry.id),
        tile_acquired: local_time(entry.received_ns),
        state: "READY",
        section: -1,
    }
}

/// The sender's checksum, or the stored CRC-32 when it gave none.
pub(super) fn stored_checksum(entry: &TileEntry) -> Checksum {
    match entry.checksum {
        Checksum::None => Checksum::Crc32(entry.image_crc),
        given => given,
    }
}

/// `yyyyMMddHHmmss.SSSSSS`, local time.
fn local_time(unix_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y%m%d%H%M%S.%6f").to_string()
}
