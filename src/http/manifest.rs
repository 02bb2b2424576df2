//! An acquisition's manifest: every stored tile with its checksums, in a canonical text with a Merkle root.
//!
//! Made while it is sent: never held whole. One at a time, and a reader that stops is given up.

use super::AppState;
use super::acquisitions::find;
use super::answer::{Failure, Path, blocking, number};
use super::query::Query;
use crate::catalog::{CatalogError, MakeManifestError, ManifestSummary};
use crate::model::{AcqId, ManifestMade};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::io;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use utoipa::ToSchema;

/// Bytes that are sent at a time, and how many such pieces may wait.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 8;
/// Longest wait for a reader.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a manifest comes to.
#[derive(Serialize, ToSchema)]
pub(super) struct ManifestRoot {
    acquisition: u64,
    tiles: u64,
    /// SHA-256, hex.
    root: String,
    /// What was recorded in the journal at the last end of the acquisition.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<RecordedRoot>,
}

/// A root that was recorded.
#[derive(Serialize, ToSchema)]
pub(super) struct RecordedRoot {
    tiles: u64,
    root: String,
    /// RFC 3339 UTC.
    at: String,
}

/// Every stored tile of an acquisition (current versions): one JSON object a line, with a header line before them and
/// number of tiles and Merkle root behind.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/manifest", tag = "acquisitions",
    params(("acqid" = u64, Path),
        ("summary" = Option<bool>, Query, description = "only number of tiles and root, as JSON")),
    responses((status = 200, description = "The manifest",
        content((String = "application/x-ndjson"), (ManifestRoot = "application/json")))))]
pub(super) async fn manifest(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Response, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let view = find(&state, acq)?;
    let place = tokio::time::timeout(PATIENCE, state.long_listings.clone().acquire_owned()).await;
    let Ok(Ok(place)) = place else { return Err(Failure::busy()) };
    if query.flag("summary")? {
        let ManifestSummary { tiles, root } = blocking(&state, move |catalog| {
            let _place = place;
            summary(catalog, acq)
        })
        .await?;
        let recorded = view.head.manifest.as_ref().map(|made| RecordedRoot {
            tiles: made.tiles,
            root: made.root.clone(),
            at: super::query::utc_time(made.at_ns),
        });
        return Ok(Json(ManifestRoot { acquisition: acq.0, tiles, root, recorded }).into_response());
    }
    let pieces = start(&state, acq, place);
    let stream = futures_util::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(stream)).into_response())
}

/// Computes an acquisition's manifest and records its root.
pub(super) fn record(catalog: &crate::catalog::Catalog, acq: AcqId) -> Result<(), CatalogError> {
    let ManifestSummary { tiles, root } = summary(catalog, acq)?;
    tracing::info!(acquisition = acq.0, tiles, root, "manifest recorded");
    catalog.record_manifest(ManifestMade { acq, tiles, root })
}

fn summary(catalog: &crate::catalog::Catalog, acq: AcqId) -> Result<ManifestSummary, CatalogError> {
    catalog.manifest(acq, &mut |_| Ok(())).map_err(|error| match error {
        MakeManifestError::Catalog(error) => error,
        MakeManifestError::Write(error) => CatalogError::Storage(error.to_string()),
    })
}

type Piece = io::Result<Bytes>;

/// Makes the manifest on a thread of its own, piece by piece as they are taken.
fn start(state: &AppState, acq: AcqId, place: OwnedSemaphorePermit) -> mpsc::Receiver<Piece> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let catalog = state.catalog.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let send = |piece: Piece| {
            let sent = runtime.block_on(tokio::time::timeout(PATIENCE, sender.send(piece)));
            if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::TimedOut)) }
        };
        let mut waiting = Vec::with_capacity(PIECE_BYTES);
        let made = catalog.manifest(acq, &mut |line| {
            waiting.extend_from_slice(line.as_bytes());
            waiting.push(b'\n');
            if waiting.len() < PIECE_BYTES {
                return Ok(());
            }
            send(Ok(std::mem::replace(&mut waiting, Vec::with_capacity(PIECE_BYTES)).into()))
        });
        // A manifest that ends without its last line is none: the connection is cut instead.
        let _ = match made {
            Ok(_) => send(Ok(waiting.into())),
            Err(error) => {
                tracing::warn!(acquisition = acq.0, %error, "a manifest could not be sent to its end");
                send(Err(io::Error::other(error.to_string())))
            }
        };
    });
    pieces
}
