//! The server's side of a replay: is it there, which acquisition is free, its start and its deletion.

use super::plan::{Plan, ReplayError};
use super::report::Versions;
use crate::client::HttpClient;
use crate::model::AcqId;
use serde_json::Value;

/// Steps of the stage in both directions: no tile falls out of that grid.
const STEPS: u32 = 1_000_000;

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
        let http = HttpClient::with_tls(&plan.http, plan.timeout, plan.tls.as_ref());
        let ready: Value = http.get_json("/readyz")?;
        let described: Value = http.get_json("/service/v1/openapi.json")?;
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
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

/// The acquisition that was asked for, if there is none of this number; or one whose number is the time.
fn free_acquisition(http: &HttpClient, wanted: Option<AcqId>) -> Result<AcqId, ReplayError> {
    if let Some(acq) = wanted {
        return match http.is_free(acq)? {
            true => Ok(acq),
            false => Err(ReplayError::Usage(format!(
                "acquisition {acq} is there already, and a replay deletes its own at the end: choose another number, or none"
            ))),
        };
    }
    let none = || ReplayError::Usage("no free acquisition number found: give one with --acq".to_owned());
    http.free_acquisition()?.ok_or_else(none)
}
