//! Ancillary files: stored with an acquisition, listed, read back.

use super::AppState;
use super::acquisitions::{find, require_started};
use super::answer::{Failure, Path, blocking, number};
use super::parts::{Part, Parts, read_parts};
use super::peers::Peer;
use super::query::{Query, utc_time};
use super::shapes::{FileListing, FileResult, FileResults, StoredFile};
use super::share::sending;
use super::uploads::Place;
use crate::catalog::NewFile;
use crate::formats::{ancillary_kind, safe_file_name};
use crate::index::{AcquisitionView, FileEntry};
use crate::model::AcqId;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

const FILE_PART: &str = "ancillary-file";

/// Keeps files with an acquisition, without ending it.
#[utoipa::path(post, path = "/service/v1/store-ancillary-files/{acqid}", tag = "files",
    params(("acqid" = u64, Path)),
    request_body(content_type = "multipart/form-data", content = Option<Object>, description = "File parts `ancillary-file`"),
    responses((status = 200, body = FileResults), (status = 400, body = FileResults)))]
pub(super) async fn store(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<FileResults>), Failure> {
    let (acq, files) = receive(&state, &acqid, request).await?;
    let (status, results) = store_all(&state, acq, files).await;
    Ok((status, Json(results)))
}

/// Reads the files of a request, if it is multipart, and the acquisition that its path names.
pub(super) async fn receive(
    state: &AppState,
    acqid: &str,
    request: Request,
) -> Result<(AcqId, Option<(Parts, Place)>), Failure> {
    let acq = AcqId(number("acqid", acqid)?);
    require_started(state, acq)?;
    Ok((acq, read_parts(state, request).await?))
}

/// Stores the files of a request one by one; status 400 when one of them could not be.
pub(super) async fn store_all(
    state: &AppState,
    acq: AcqId,
    files: Option<(Parts, Place)>,
) -> (StatusCode, FileResults) {
    let Some((parts, _place)) = files else {
        return (StatusCode::OK, FileResults { af_results: None, completeness: None });
    };
    let mut results = Vec::new();
    let mut status = StatusCode::OK;
    for part in parts.0.into_iter().filter(|part| part.name == FILE_PART) {
        let given = part.file_name.clone().unwrap_or_default();
        match store_one(state, acq, part).await {
            Ok(stored) => results.push(stored),
            Err(failure) => {
                status = StatusCode::BAD_REQUEST;
                results.push(FileResult::Failed { errormessage: failure.message().to_owned(), name: given });
            }
        }
    }
    (status, FileResults { af_results: Some(results), completeness: None })
}

async fn store_one(state: &AppState, acq: AcqId, part: Part) -> Result<FileResult, Failure> {
    let path = part.file_name.ok_or_else(|| Failure::bad_request("the part has no file name"))?;
    let name = safe_file_name(&path).map_err(|error| Failure::bad_request(error.to_string()))?.to_owned();
    if part.bytes.is_empty() {
        return Err(Failure::bad_request("the file is empty"));
    }
    let file = NewFile { kind: ancillary_kind(&name), name: name.clone(), path: path.clone(), content: part.bytes };
    let id = blocking(state, move |catalog| catalog.store_file(acq, file)).await?;
    let (jfs_key, jfs_path) = (format!("file-{id}"), format!("/acquisitions/{acq}/{name}"));
    Ok(FileResult::Stored { id: id.0, jfs_key, jfs_path, name, path })
}

/// The files of an acquisition, oldest first.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/files", tag = "files",
    params(("acqid" = u64, Path), ("offset" = Option<u32>, Query), ("length" = Option<u32>, Query)),
    responses((status = 200, body = FileListing)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Json<FileListing>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let (view, page) = (find(&state, acq)?, query.page(state.listing_max())?);
    let shape = |entry: &FileEntry| StoredFile {
        id: entry.id.0,
        name: entry.file.name.clone(),
        kind: entry.file.kind.name().to_owned(),
        size: entry.file.len,
        crc32: format!("{:08x}", entry.file.crc),
        stored: utc_time(entry.at_ns),
        url: format!("{}/service/v1/acquisition/{acq}/files/{}", state.public_url, escaped(&entry.file.name)),
    };
    let files: Vec<StoredFile> = view.head.files.iter().skip(page.offset).take(page.length).map(shape).collect();
    Ok(Json(FileListing { length: files.len(), files }))
}

/// A name as one part of a path.
pub(super) fn escaped(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The latest file of this name.
fn latest<'a>(view: &'a AcquisitionView, name: &str) -> Option<&'a FileEntry> {
    view.head.files.iter().rev().find(|entry| entry.file.name == name)
}

/// A file's bytes; of several with one name the latest, or that with the `id`.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/files/{name}", tag = "files",
    params(("acqid" = u64, Path), ("name" = String, Path), ("id" = Option<u64>, Query)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)))]
pub(super) async fn content(
    State(state): State<AppState>,
    Path((acqid, name)): Path<(String, String)>,
    query: Query,
    Peer(peer): Peer,
) -> Result<Response, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let view = find(&state, acq)?;
    let found = match query.number::<u64>("id")? {
        Some(id) => view.head.files.iter().find(|entry| entry.id.0 == id && entry.file.name == name),
        None => latest(&view, &name),
    };
    let Some(entry) = found.cloned() else {
        return Err(Failure::missing(format!("acquisition {acq} has no such file")));
    };
    let media_type = match entry.file.name.rsplit('.').next() {
        Some("csv") => "text/csv",
        Some("ini" | "txt" | "log") => "text/plain",
        Some("png") => "image/png",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    let etag = HeaderValue::from_str(&format!("\"file-{}-{:08x}\"", entry.id, entry.file.crc));
    let room = state.reading.take(peer, usize::try_from(entry.file.len).unwrap_or(usize::MAX)).await?;
    let content = blocking(&state, move |catalog| catalog.read_file(&entry)).await?;
    let mut response = Response::new(sending(content, room));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Whatever a stranger stored is shown as what it is called, never run as something else.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ETAG, etag.expect("made of digits and hex"));
    Ok(response)
}
