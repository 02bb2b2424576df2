//! Tiles that come over HTTP: into a buffer of the pool as they arrive, then through the same verification and the same
//! lanes as those of the capture port, to the same acknowledgement.
//!
//! Must never block a thread of the runtime on a lane, nor hold more of a tile than its buffer: what does not fit is
//! refused, what stalls is given up.

use super::AppState;
use super::answer::{Failure, Path, number};
use super::health::queue_status;
use super::parts::{self, PATIENCE, is_multipart, next_chunk, next_field};
use super::peers::peer_of;
use super::query::Query;
use super::sender::HttpSender;
use super::shapes::{CapturedTile, ErrorBody};
use super::share::Room;
use crate::base::pool::{BufferWaiter, Pool, Reserved, TileBuffer};
use crate::catalog::{
    Ack, AckSink, AckToken, HashBatch, ImageUpload, LaneTile, Outcome, PendingTile, Route, Verdict, VerifiedTile,
    VerifyPolicy, verify,
};
use crate::formats::TileName;
use crate::model::{AcqId, Checksum, Refusal, TileId, TileKey};
use crate::telemetry::{LocalCounts, Stamp};
use crate::wire::RequestFields;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// Bytes of multipart around the file, at most, when the file's own length is guessed from the body's.
const TEXT_PART_MAX: usize = 64 << 10;
/// Longest wait for a lane that is full.
const LANE_PATIENCE: Duration = Duration::from_secs(30);

/// Stores a tile: the content as raw body with its name in `tile-filename`, or as multipart.
#[utoipa::path(method(put, post), path = "/service/v1/capture-image-content/{acqid}", tag = "tiles",
    params(("acqid" = u64, Path),
        ("tile-filename" = Option<String>, Query, description = "col0001_row0002_cam3.tif; not for multipart"),
        ("checksum" = Option<String>, Query, description = "of the content, hex: CRC-32, MD5, SHA-1 or SHA-256")),
    request_body(content_type = "application/octet-stream", content = Vec<u8>,
        description = "The content; or multipart/form-data with parts `tile-file` (file), `tile-filename` (text), `checksum` (raw) or `checksum-str` (hex), in any order"),
    responses((status = 200, body = CapturedTile), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn capture(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
    request: Request,
) -> Response {
    let captured = match number("acqid", &acqid).map(AcqId) {
        Ok(acq) => receive_and_store(&state, acq, &query, request).await,
        Err(failure) => {
            count(&state, |counts| counts.refused(Refusal::BadKey));
            Err(failure)
        }
    };
    match captured {
        Ok(tile) => (queue_status(&state), Json(tile)).into_response(),
        Err(failure) => (queue_status(&state), failure).into_response(),
    }
}

async fn receive_and_store(
    state: &AppState,
    acq: AcqId,
    query: &Query,
    request: Request,
) -> Result<CapturedTile, Failure> {
    let sender = HttpSender::of(state, &request, acq);
    let named = || query.text("tile-filename")?.parse().ok().map(|name: TileName| name.key(acq));
    let sent = receive(state, acq, query, request).await.map_err(|(why, failure)| {
        count_refusal(state, acq, why);
        sender.refused(state, named(), why);
        failure
    })?;
    sender.received(sent.upload.image.len());
    let key = sent.name.key(acq);
    let stored = store(state, &sender, acq, sent).await.map_err(|(why, failure)| {
        sender.refused(state, Some(key), why);
        failure
    })?;
    sender.stored();
    Ok(stored)
}

/// What can be refused without the body is, before a byte of it is read: a client that asks first is told so.
async fn receive(state: &AppState, acq: AcqId, query: &Query, request: Request) -> Received<Sent> {
    if !state.accepts(acq) {
        let failure = Failure::missing(format!("acquisition {acq} was never started"));
        return Err((Refusal::UnknownAcquisition, failure));
    }
    if state.catalog.switch().is_paused() {
        return Err((Refusal::Paused, failure_of(Refusal::Paused, &Checksum::None)));
    }
    let limit = state.frame_bytes_max;
    let length = parts::check_length(request.headers(), limit);
    let length = length.map_err(|failure| (Refusal::TooLarge, failure))?;
    // How long it may take is for the connection to say: a sender is slow only while the daemon waits for it.
    if is_multipart(request.headers()) {
        return receive_parts(state, request, length).await;
    }
    let missing = || (Refusal::BadKey, Failure::bad_request("the parameter tile-filename is missing"));
    let name = query.text("tile-filename").ok_or_else(missing)?;
    receive_raw(state, request, length, name, query.text("checksum")).await
}

/// An image on its way in, and the room that it takes of what HTTP senders may hold.
struct Upload {
    image: ImageUpload,
    room: Room,
}

/// What a request sent.
struct Sent {
    upload: Upload,
    name: TileName,
    checksum: Checksum,
}

type Received<T> = Result<T, (Refusal, Failure)>;

fn bad_message(failure: Failure) -> (Refusal, Failure) {
    (Refusal::BadMessage, failure)
}

async fn receive_raw(
    state: &AppState,
    request: Request,
    length: Option<usize>,
    name: &str,
    checksum: Option<&str>,
) -> Received<Sent> {
    let name = parse_name(name)?;
    let checksum = checksum.map_or(Ok(Checksum::None), parse_hex)?;
    let mut upload = begin(state, length, peer_of(&request)).await?;
    let mut body = request.into_body();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| bad_message(Failure::timed_out()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| bad_message(Failure::bad_request(format!("the body is cut: {error}"))))?;
        if let Ok(data) = frame.into_data() {
            push(state, &mut upload, &data)?;
        }
    }
    Ok(Sent { upload, name, checksum })
}

async fn receive_parts(state: &AppState, request: Request, length: Option<usize>) -> Received<Sent> {
    let peer = peer_of(&request);
    let mut body = parts::open(request, state.frame_bytes_max).await.map_err(bad_message)?;
    let (mut image, mut file_name, mut name): (Option<Upload>, Option<String>, Option<String>) = (None, None, None);
    let mut checksum: Option<Checksum> = None;
    let mut left = TEXT_PART_MAX;
    while let Some(mut field) = next_field(&mut body).await.map_err(bad_message)? {
        let part = field.name().unwrap_or_default().to_owned();
        let twice = || bad_message(Failure::bad_request(format!("the part {part} is there twice")));
        match part.as_str() {
            "tile-file" if image.is_none() => {
                file_name = field.file_name().map(str::to_owned);
                let mut upload = begin(state, length, peer).await?;
                while let Some(chunk) = next_chunk(&mut field).await.map_err(bad_message)? {
                    push(state, &mut upload, &chunk)?;
                }
                image = Some(upload);
            }
            "tile-filename" if name.is_none() => {
                let read = parts::read_part(field, &mut left).await.map_err(bad_message)?;
                name = Some(String::from_utf8_lossy(&read.bytes).trim().to_owned());
            }
            "checksum" if checksum.is_none() => {
                let read = parts::read_part(field, &mut left).await.map_err(bad_message)?;
                let given = Checksum::from_wire(&read.bytes);
                checksum = Some(given.map_err(|error| bad_checksum(error.to_string()))?);
            }
            "checksum-str" if checksum.is_none() => {
                let read = parts::read_part(field, &mut left).await.map_err(bad_message)?;
                checksum = Some(parse_hex(String::from_utf8_lossy(&read.bytes).trim())?);
            }
            "tile-file" | "tile-filename" | "checksum" | "checksum-str" => return Err(twice()),
            _ => drop(parts::read_part(field, &mut left).await.map_err(bad_message)?),
        }
    }
    let image = image.ok_or_else(|| bad_message(Failure::bad_request("there is no part tile-file")))?;
    let name = name.filter(|name| !name.is_empty()).or(file_name);
    let name = name.ok_or_else(|| bad_message(Failure::bad_request("there is no part tile-filename")))?;
    Ok(Sent { upload: image, name: parse_name(&name)?, checksum: checksum.unwrap_or(Checksum::None) })
}

fn parse_name(name: &str) -> Received<TileName> {
    name.parse()
        .map_err(|error: crate::formats::FormatError| (Refusal::BadKey, Failure::bad_request(error.to_string())))
}

fn bad_checksum(problem: String) -> (Refusal, Failure) {
    (Refusal::BadChecksum, Failure::bad_request(problem))
}

/// A checksum in hex; its length names the algorithm. An empty text is none.
pub(super) fn parse_hex(text: &str) -> Received<Checksum> {
    let wrong =
        || format!("\"{}\" is no checksum in hex: 8, 32, 40 or 64 digits", text.chars().take(70).collect::<String>());
    let checksum = if text.is_empty() { Some(Checksum::None) } else { Checksum::from_hex(text) };
    checksum.ok_or_else(|| bad_checksum(wrong()))
}

/// Adds bytes to an image.
fn push(state: &AppState, upload: &mut Upload, bytes: &[u8]) -> Received<()> {
    let image = &mut upload.image;
    if image.len() + bytes.len() > state.frame_bytes_max || image.room() < bytes.len() {
        return Err((Refusal::TooLarge, parts::too_large(state.frame_bytes_max)));
    }
    image.push(bytes);
    Ok(())
}

/// Takes a granted buffer to whoever awaits it.
struct Grant(Mutex<Option<oneshot::Sender<TileBuffer>>>);

impl BufferWaiter for Grant {
    fn granted(&self, _: u64, buffer: TileBuffer) {
        if let Some(waiting) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Whoever gave up waiting gets it no more: it goes back.
            drop(waiting.send(buffer));
        }
    }
}

/// A place in the pool's queue; left when this is dropped.
struct Turn<'a> {
    pool: &'a Pool,
    waiter: Arc<dyn BufferWaiter>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pool.cancel(0, &self.waiter);
    }
}

/// An empty image, with room for as much as the request says that it sends; for the longest if it does not say. All of it at
/// once: whoever holds some and waits for more can wait for ever.
async fn begin(state: &AppState, length: Option<usize>, peer: IpAddr) -> Received<Upload> {
    let pool = state.catalog.pool();
    let longest = || ImageUpload::buffer_bytes(state.frame_bytes_max).min(pool.capacity());
    let bytes = length.map_or_else(longest, ImageUpload::buffer_bytes);
    let room = state.sending.take(peer, bytes).await.map_err(|failure| (Refusal::Overloaded, failure))?;
    let buffer = reserve(pool, bytes).await?;
    Ok(Upload { image: ImageUpload::new(buffer), room })
}

/// A buffer; waits its turn when the pool is full.
async fn reserve(pool: &Pool, bytes: usize) -> Received<TileBuffer> {
    let (sender, granted) = oneshot::channel();
    let waiter: Arc<dyn BufferWaiter> = Arc::new(Grant(Mutex::new(Some(sender))));
    match pool.reserve_or_wait(bytes, 0, &waiter) {
        Some(Reserved::Now(buffer)) => Ok(buffer),
        Some(Reserved::Later) => {
            // Whoever gives up, or goes away, must not stand in the way of those behind.
            let _turn = Turn { pool, waiter };
            let buffer = timeout(PATIENCE, granted).await.ok().and_then(Result::ok);
            buffer.ok_or_else(|| (Refusal::Overloaded, Failure::busy()))
        }
        None => Err((Refusal::TooLarge, parts::too_large(pool.capacity()))),
    }
}

/// Awaits one tile's acknowledgement, and room in its lane.
#[derive(Default)]
struct OneAck {
    answer: Mutex<Option<oneshot::Sender<Outcome>>>,
    room: Notify,
}

impl AckSink for OneAck {
    fn put(&self, ack: Ack) {
        if let Some(answer) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = answer.send(ack.outcome);
        }
    }

    fn flush(&self) {}

    fn room(&self) {
        self.room.notify_one();
    }
}

async fn store(state: &AppState, sender: &HttpSender, acq: AcqId, sent: Sent) -> Received<CapturedTile> {
    let Sent { upload: Upload { image, room }, name, checksum } = sent;
    if image.is_empty() {
        count_refusal(state, acq, Refusal::BadMessage);
        return Err(bad_message(Failure::bad_request("the content is empty")));
    }
    let key = name.key(acq);
    let fields = RequestFields { key, camera: name.camera, checksum };
    let too_large = || (Refusal::TooLarge, parts::too_large(state.frame_bytes_max));
    let frame = image.finish(&fields).ok_or_else(too_large)?.sent_by(sender.peer());
    let verified = match verify(frame, VerifyPolicy { require_checksum: false }, &mut |_| true) {
        Verdict::Verified(tile) => tile,
        Verdict::Pending(tile) => {
            hash(tile).await.ok_or_else(|| refused(state, acq, Refusal::BadChecksum, &checksum))?
        }
        Verdict::Refused(_, why) => return Err(refused(state, acq, why, &checksum)),
    };
    // The rest of its way is bounded by the lanes' queues, as for every tile.
    drop(room);
    match acknowledge(state, verified).await? {
        Outcome::Accepted(TileId(tile_id)) => {
            count_beyond_grid(state, key);
            Ok(CapturedTile {
                tile_acq_id: acq.0,
                tile_temca: state.temca_of(acq),
                tile_id,
                tile_col: key.col,
                tile_row: key.row,
                tile_camera: name.camera,
                tile_frame: key.frame.0,
            })
        }
        // The lane has counted this one.
        Outcome::Refused(why) => Err((why, failure_of(why, &checksum))),
    }
}

/// Computes the digest away from the runtime's threads. `None`: it does not match.
async fn hash(tile: PendingTile) -> Option<VerifiedTile> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut verified = None;
        HashBatch::default().verify(&mut vec![(tile, ())], |result, ()| verified = result.ok());
        verified
    });
    hashed.await.ok().flatten()
}

/// Puts a tile into its lane and awaits the end.
async fn acknowledge(state: &AppState, tile: VerifiedTile) -> Received<Outcome> {
    let (acq, received_at) = (tile.key().acq, tile.received_at());
    let (answer, answered) = oneshot::channel();
    let sink = Arc::new(OneAck { answer: Mutex::new(Some(answer)), room: Notify::new() });
    let token = AckToken { connection: 0, slot: 0 };
    let mut tile = Box::new(LaneTile { tile, token, sink: Arc::clone(&sink) as Arc<dyn AckSink> });
    while let Route::Full(back) = state.lanes.route(*tile) {
        tile = back;
        if timeout(LANE_PATIENCE, sink.room.notified()).await.is_err() {
            return Err(refused(state, acq, Refusal::Overloaded, &Checksum::None));
        }
    }
    let outcome = answered.await.map_err(|_| (Refusal::Overloaded, Failure::busy()))?;
    state.catalog.activity().answered(&[Stamp::now().since(received_at)]);
    Ok(outcome)
}

fn refused(state: &AppState, acq: AcqId, why: Refusal, checksum: &Checksum) -> (Refusal, Failure) {
    count_refusal(state, acq, why);
    (why, failure_of(why, checksum))
}

fn failure_of(why: Refusal, checksum: &Checksum) -> Failure {
    match why {
        Refusal::BadChecksum => {
            let kind = checksum.kind().name();
            Failure::bad_request(format!("the content does not match its {kind} checksum {checksum}"))
        }
        Refusal::Conflict => {
            Failure::new(StatusCode::CONFLICT, "another content is stored under this name, and the policy is to reject")
        }
        Refusal::NoSpace => Failure::new(StatusCode::INSUFFICIENT_STORAGE, "there is no space for the tile"),
        Refusal::MirrorLost => {
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, "the mirror is lost: tiles are refused until it is back")
        }
        Refusal::Overloaded => Failure::busy(),
        Refusal::Paused => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "capture is paused: try again later"),
        Refusal::StorageFailed => {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the storage failed: the tile is not stored")
        }
        Refusal::UnknownAcquisition => Failure::missing("the acquisition was never started"),
        other => Failure::bad_request(format!("the tile is refused: {}", other.name())),
    }
}

fn count_refusal(state: &AppState, acq: AcqId, why: Refusal) {
    count(state, |counts| {
        counts.refused(why);
        counts.refused_of(acq);
    });
}

fn count_beyond_grid(state: &AppState, key: TileKey) {
    let view = state.catalog.acquisition(key.acq);
    let grid = view.and_then(|view| view.head.started.as_ref().map(|started| started.facts.grid()));
    if grid.is_some_and(|grid| grid.leaves_out(key.col, key.row)) {
        count(state, |counts| counts.beyond_grid += 1);
    }
}

fn count(state: &AppState, add: impl FnOnce(&mut LocalCounts)) {
    let mut counts = LocalCounts::default();
    add(&mut counts);
    counts.publish(state.catalog.metrics());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::BLOCK;

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_or_goes_away_leaves_the_pools_queue() {
        let pool = Pool::new(4 * BLOCK).expect("a small mapping");
        let held = pool.try_reserve(3 * BLOCK).expect("room");
        assert!(reserve(&pool, 4 * BLOCK).await.is_err(), "waited in vain");
        assert_eq!(pool.waiting(), 0);
        let gone = timeout(Duration::from_secs(1), reserve(&pool, 2 * BLOCK)).await;
        assert!(gone.is_err() && pool.waiting() == 0);
        let (first, _) = tokio::join!(reserve(&pool, 4 * BLOCK), async move { drop(held) });
        assert_eq!((first.expect("granted").len(), pool.waiting()), (4 * BLOCK, 0));
        assert_eq!(pool.used(), 0);
    }
}
