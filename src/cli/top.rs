//! `top`: a running daemon in a terminal.

use super::http_args::HttpArgs;
use super::{BAD_INPUT, COULD_NOT_RUN, Failure, OrExit, Outcome};
use crate::base::stop::Stop;
use crate::top::{TopError, show};
use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    at: HttpArgs,
}

pub(super) fn run(args: &TopArgs) -> Outcome {
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;
    let shown = show(args.at.client()?, &args.at.http, &stop);
    shown.map(|()| ExitCode::SUCCESS).map_err(|error| {
        let code = if matches!(error, TopError::NoTerminal) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })
}
