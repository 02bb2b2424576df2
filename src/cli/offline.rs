//! `verify`, `compact` and `index rebuild`: tools for a data directory.

use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::audit::{Audit, IndexAudit, audit_sides, rebuild};
use crate::base::units::ByteSize;
use crate::catalog::CatalogError;
use crate::compact::{CompactSettings, Compacted};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Data directory
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Its mirror, to be read, too
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
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

#[derive(Args)]
pub(super) struct CompactArgs {
    /// Data directory
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Rewrite a segment when at least this share of it is dead, 0 to 1
    #[arg(long, default_value_t = 0.25, value_name = "SHARE")]
    min_dead: f64,
    /// Free disk space that copies leave alone
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    reserve: ByteSize,
    /// Only say what is dead
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn existing(dir: &std::path::Path) -> Result<(), Failure> {
    if dir.join("journal").is_dir() {
        return Ok(());
    }
    let error = anyhow::anyhow!("{}: no data directory of a tilecatcher; name one with --data", dir.display());
    Err(Failure { code: BAD_INPUT, error })
}

/// A directory that a daemon works on is the caller's choice; all else is the machine's.
fn failure(error: CatalogError) -> Failure {
    let code = if matches!(error, CatalogError::Locked { .. }) { BAD_INPUT } else { COULD_NOT_RUN };
    Failure { code, error: error.into() }
}

/// Re-reads everything; exit code 1 when something does not hold.
pub(super) fn verify(args: &VerifyArgs) -> Outcome {
    existing(&args.data)?;
    if let Some(mirror) = &args.mirror {
        existing(mirror)?;
    }
    let audit = audit_sides(&args.data, args.mirror.as_deref()).or_exit(COULD_NOT_RUN)?;
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
    let Some(mirror) = &audit.mirror else { return };
    for problem in &mirror.journal.problems {
        println!("mirror: {} at {}: {}", problem.path.display(), problem.offset, problem.problem);
    }
    mirror.differences.iter().for_each(|difference| println!("mirror: {difference}"));
    println!(
        "mirror: {} records read: {} problems, {} differences",
        mirror.journal.records,
        mirror.journal.problems.len(),
        mirror.differences.len(),
    );
}

/// Builds the index anew.
pub(super) fn rebuild_index(args: &RebuildArgs) -> Outcome {
    existing(&args.data)?;
    let rebuilt = rebuild(&args.data).map_err(failure)?;
    println!(
        "{} facts folded in {:.2} s = {:.0} a second",
        rebuilt.folded,
        rebuilt.took.as_secs_f64(),
        super::replies::rate(rebuilt.folded as f64, rebuilt.took)
    );
    Ok(ExitCode::SUCCESS)
}

/// Frees the space of deleted acquisitions; exit code 1 when a segment had to be left alone.
pub(super) fn compact(args: &CompactArgs) -> Outcome {
    existing(&args.data)?;
    if !(0.0..=1.0).contains(&args.min_dead) {
        let error = anyhow::anyhow!("--min-dead {}: 0 to 1", args.min_dead);
        return Err(Failure { code: BAD_INPUT, error });
    }
    let settings =
        CompactSettings { min_dead_share: args.min_dead, reserve_bytes: args.reserve.0, dry_run: args.dry_run };
    let bar = super::replies::byte_bar("compact");
    let compacted = crate::compact::compact(&args.data, &settings, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let compacted = compacted.map_err(failure)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&compacted).or_exit(COULD_NOT_RUN)?);
    } else {
        print_compacted(&compacted);
    }
    let left = compacted.journal.as_ref().is_some_and(|report| !report.left_alone.is_empty());
    Ok(if left { ExitCode::from(FOUND_A_PROBLEM) } else { ExitCode::SUCCESS })
}

fn print_compacted(compacted: &Compacted) {
    println!(
        "{} deleted acquisitions, {} dead records, {:.1} MB",
        compacted.deleted_acquisitions,
        compacted.dead_records,
        super::replies::megabytes(compacted.dead_bytes),
    );
    let Some(report) = &compacted.journal else { return };
    for left in &report.left_alone {
        println!("{}: left alone: {}", left.path.display(), left.reason);
    }
    println!(
        "{} segments removed, {} rewritten, {} records dropped, {:.1} MB freed",
        report.segments_removed,
        report.segments_rewritten,
        report.records_dropped,
        super::replies::megabytes(report.bytes_freed),
    );
}
