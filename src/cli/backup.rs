//! `backup`: a copy of a data directory that a daemon may be working on.

use super::offline::existing;
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::catalog::{CatalogError, lock_directory};
use crate::journal::{BackupError, RealFilesystem, back_up};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct BackupArgs {
    /// Data directory; a daemon may run on it
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Directory of the backup; of an earlier one, what is new is added
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Brings a backup up to date; exit code 1 when something in the source does not hold.
pub(super) fn run(args: &BackupArgs) -> Outcome {
    existing(&args.data)?;
    let same = std::fs::canonicalize(&args.data).ok() == std::fs::canonicalize(&args.to).ok();
    if same {
        let error = anyhow::anyhow!("{}: --to names the data directory itself", args.to.display());
        return Err(Failure { code: BAD_INPUT, error });
    }
    let _lock = lock_directory(&args.to, &RealFilesystem).map_err(|error| {
        let code = if matches!(error, CatalogError::Locked { .. }) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })?;
    let report = back_up(&args.data, &args.to, &RealFilesystem).map_err(|error| {
        let code = if matches!(error, BackupError::Input { .. }) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })?;
    for problem in &report.problems {
        eprintln!("{} at {}: {}", problem.path.display(), problem.offset, problem.problem);
    }
    println!("{}", serde_json::to_string_pretty(&report).or_exit(COULD_NOT_RUN)?);
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}
