//! start-acquisition and end-acquisition.

use super::AppState;
use super::answer::{Failure, blocking, number};
use crate::formats::{AcquisitionLog, acq_id_from_file_name};
use crate::model::{AcqId, AcquisitionStarted};
use axum::Json;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{Path, State};
use serde_json::{Value, json};

const LOG_PART: &str = "acq-inilog";

/// Multipart file part `acq-inilog`: the acquisition's log; its name gives the identifier.
pub(super) async fn start(
    State(state): State<AppState>,
    parts: Result<Multipart, MultipartRejection>,
) -> Result<Json<Value>, Failure> {
    let parts = parts.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    let (file_name, log) = read_log_part(parts).await?;
    let unusable = |error: String| Failure::bad_request(format!("{LOG_PART} \"{file_name}\": {error}"));
    let acq = acq_id_from_file_name(&file_name).map_err(|error| unusable(error.to_string()))?;
    let (facts, warnings) = AcquisitionLog::parse(&log).map_err(|error| unusable(error.to_string()))?;
    for warning in warnings {
        tracing::warn!(acquisition = acq.0, warning, "acquisition log");
    }
    let base_name = file_name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let log_text = String::from_utf8_lossy(&log).into_owned();
    let started = AcquisitionStarted { acq, log_name: base_name, facts, log_text, temca: 0 };
    blocking(&state, move |catalog| catalog.start_acquisition(started)).await?;
    tracing::info!(acquisition = acq.0, "acquisition started");
    Ok(Json(json!({ "uid": acq.0 })))
}

async fn read_log_part(mut parts: Multipart) -> Result<(String, Vec<u8>), Failure> {
    let broken = |error: axum::extract::multipart::MultipartError| Failure::new(error.status(), error.body_text());
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        if part.name() == Some(LOG_PART) {
            let Some(file_name) = part.file_name().map(str::to_owned) else {
                return Err(Failure::bad_request(format!("the part {LOG_PART} has no file name")));
            };
            let bytes = part.bytes().await.map_err(broken)?;
            return Ok((file_name, bytes.to_vec()));
        }
    }
    Err(Failure::bad_request(format!("there is no part {LOG_PART}")))
}

/// Ends an acquisition; late tiles are still accepted.
pub(super) async fn end(State(state): State<AppState>, Path(acqid): Path<String>) -> Result<Json<Value>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    blocking(&state, move |catalog| catalog.end_acquisition(acq)).await?;
    tracing::info!(acquisition = acq.0, "acquisition ended");
    Ok(Json(json!({})))
}
