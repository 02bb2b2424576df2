//! `verify` and `index rebuild`: tools for a data directory.

use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::audit::{Audit, IndexAudit, audit, rebuild};
use crate::catalog::CatalogError;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Data directory
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
pub(super) enum IndexCommand {
    /// Build the index anew from the journal; the daemon must not run
    Rebuild(RebuildArgs),
}

#[derive(Args)]
pub(super) struct RebuildArgs {
    /// Data directory
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
}

pub(super) fn existing(dir: &std::path::Path) -> Result<(), Failure> {
    if dir.join("journal").is_dir() {
        return Ok(());
    }
    let error = anyhow::anyhow!("{}: no data directory of a tilecatcher; name one with --data", dir.display());
    Err(Failure { code: BAD_INPUT, error })
}

/// Re-reads everything; exit code 1 when something does not hold.
pub(super) fn verify(args: &VerifyArgs) -> Outcome {
    existing(&args.data)?;
    let audit = audit(&args.data).or_exit(COULD_NOT_RUN)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&audit).or_exit(COULD_NOT_RUN)?);
    } else {
        print(&audit);
    }
    Ok(if audit.is_good() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn print(audit: &Audit) {
    for problem in &audit.journal.problems {
        println!("{} at {}: {}", problem.path.display(), problem.offset, problem.problem);
    }
    let index = match &audit.index {
        IndexAudit::Agrees { tiles, behind: 0 } => format!("the index agrees with all {tiles} tile records"),
        IndexAudit::Agrees { tiles, behind } => {
            format!("the index agrees with {tiles} tile records; the next start adds {behind} newer ones")
        }
        IndexAudit::Differs { problems } => {
            problems.iter().for_each(|problem| println!("index: {problem}"));
            "the index differs: `tilecatcher index rebuild`, or the next start, mends it".to_owned()
        }
        IndexAudit::Skipped { reason } => format!("index not compared: {reason}"),
    };
    let journal = &audit.journal;
    println!(
        "{} records, {:.1} MB in {} segments read: {} problems, {} torn places (never acknowledged); {index}",
        journal.records,
        super::replies::megabytes(journal.payload_bytes),
        journal.segments,
        journal.problems.len(),
        journal.torn,
    );
}

/// Builds the index anew.
pub(super) fn rebuild_index(args: &RebuildArgs) -> Outcome {
    existing(&args.data)?;
    let rebuilt = rebuild(&args.data).map_err(|error| {
        let code = if matches!(error, CatalogError::Locked { .. }) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })?;
    println!(
        "{} facts folded in {:.2} s = {:.0} a second",
        rebuilt.folded,
        rebuilt.took.as_secs_f64(),
        super::replies::rate(rebuilt.folded as f64, rebuilt.took)
    );
    Ok(ExitCode::SUCCESS)
}
