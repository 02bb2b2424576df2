//! The server's side of a replay: is it there, which acquisition is free, its start and its deletion.

use super::plan::{Plan, ReplayError};
use super::report::Versions;
use crate::base::clock::unix_ns;
use crate::client::{HttpClient, HttpClientError};
use crate::model::AcqId;

/// Steps of the stage in both directions: no tile falls out of that grid.
const STEPS: u32 = 1_000_000;
/// Numbers that are tried when one is taken.
const ATTEMPTS: u64 = 100;

/// A server, and the acquisition that is the replay's own.
pub(super) struct Target {
    pub(super) http: HttpClient,
    pub(super) acq: AcqId,
    pub(super) versions: Versions,
    profile: String,
}

impl Target {
    /// Looks whether the server is there, and which acquisition is free.
    pub(super) fn greet(plan: &Plan) -> Result<Self, ReplayError> {
        let http = HttpClient::new(&plan.http, plan.timeout);
        let ready = json(&http, "/readyz")?;
        let described = json(&http, "/service/v1/openapi.json")?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
        let versions = Versions {
            replay: env!("CARGO_PKG_VERSION").to_owned(),
            server: text(&described["info"]["version"]),
            ack_level: text(&ready["ack_level"]),
        };
        let acq = free_acquisition(&http, plan.acq)?;
        Ok(Self { http, acq, versions, profile: plan.profile.name.clone() })
    }

    /// Starts the acquisition.
    pub(super) fn start(&self) -> Result<(), ReplayError> {
        let acq = self.acq;
        let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%m/%d/%Y %I:%M:%S %p");
        let profile = self.profile.replace(['\r', '\n', '"'], " ");
        let log = format!(
            "[General]\nDate = \"{date}\"\nSample name = \"replay\"\nNotes = \"load test, made by tilecatcher replay\"\n\
             [Camera Connections]\nAcq1 = TRUE\nAcq2 = TRUE\nAcq3 = TRUE\nAcq4 = TRUE\n\
             [Mosaic Settings]\nNumber of X steps = {STEPS}\nNumber of Y steps = {STEPS}\n\
             [TEM Settings]\nPixels per um = 250\n\
             [ImageCatcher]\nproject = replay\nowner = tilecatcher\nstack = {profile}\nmosaicType = replay\n"
        );
        self.http.start_acquisition(&format!("{acq}_replay_logfile.ini"), log.as_bytes())?;
        Ok(())
    }

    /// Deletes the acquisition.
    pub(super) fn delete(&self) -> Result<(), ReplayError> {
        Ok(self.http.delete_acquisition(self.acq)?)
    }
}

fn json(http: &HttpClient, path: &str) -> Result<serde_json::Value, ReplayError> {
    let answer = http.get_path(path)?;
    let parsed = serde_json::from_slice(&answer.bytes);
    Ok(parsed.map_err(|error| HttpClientError::Unexpected { url: path.to_owned(), problem: error.to_string() })?)
}

/// The acquisition that was asked for, if there is none of this number; or one whose number is the time.
fn free_acquisition(http: &HttpClient, wanted: Option<AcqId>) -> Result<AcqId, ReplayError> {
    if let Some(acq) = wanted {
        return match is_free(http, acq)? {
            true => Ok(acq),
            false => Err(ReplayError::Usage(format!(
                "acquisition {acq} is there already, and a replay deletes its own at the end: choose another number, or none"
            ))),
        };
    }
    let from = u64::try_from(unix_ns() / 1_000_000).unwrap_or(1).max(1);
    for number in from..from + ATTEMPTS {
        if is_free(http, AcqId(number))? {
            return Ok(AcqId(number));
        }
    }
    Err(ReplayError::Usage("no free acquisition number found: give one with --acq".to_owned()))
}

fn is_free(http: &HttpClient, acq: AcqId) -> Result<bool, ReplayError> {
    match http.get_path(&format!("/api/v1/acquisitions/{acq}")) {
        Ok(_) => Ok(false),
        Err(HttpClientError::Refused { status: 404, .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
