//! Where a daemon's HTTP port is and how to speak to it: for the commands that only ask and tell, and send nothing.

use super::send::read_token;
use super::tls_args::TlsArgs;
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure};
use crate::base::units::Span;
use crate::client::{BearerToken, HttpClient, HttpClientError};
use clap::Args;

/// The HTTP port of a daemon.
#[derive(Args, Clone)]
pub(super) struct HttpArgs {
    /// HTTP port of the daemon
    #[arg(long, default_value = "http://127.0.0.1:5001", value_name = "URL")]
    pub(super) http: String,
    /// Show it the token in this file (`tilecatcher token add` made it)
    #[arg(long = "token-file", value_name = "FILE", value_parser = read_token)]
    token: Option<BearerToken>,
    /// Longest wait for an answer of the daemon
    #[arg(long, default_value = "60s", value_name = "TIME")]
    timeout: Span,
    #[command(flatten)]
    tls: TlsArgs,
}

impl HttpArgs {
    /// A client of that daemon.
    pub(super) fn client(&self) -> Result<HttpClient, Failure> {
        let tls = self.tls.load(&self.http)?;
        Ok(HttpClient::with(&self.http, self.timeout.0, tls.as_ref(), self.token.as_ref()))
    }
}

/// Not there: could not run. Says no: what was asked for is wrong, or can not be now.
pub(super) fn failure(error: HttpClientError) -> Failure {
    let code = match &error {
        HttpClientError::Refused { status: 409, .. } => FOUND_A_PROBLEM,
        HttpClientError::Refused { status: 400..500, .. } => BAD_INPUT,
        _ => COULD_NOT_RUN,
    };
    Failure { code, error: error.into() }
}
