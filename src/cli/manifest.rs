//! `manifest make` and `manifest verify`.

use super::offline::existing;
use super::replies::{megabytes, tile_bar};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::catalog::{CatalogError, OfflineAcquisition};
use crate::journal::{Filesystem, RealFilesystem};
use crate::model::AcqId;
use crate::verify_manifest::{ManifestAudit, VerifyManifestError, verify_manifest};
use clap::{Args, Subcommand};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Subcommand)]
pub(super) enum ManifestCommand {
    /// Write an acquisition's manifest to stdout
    Make(MakeArgs),
    /// Re-read everything that a manifest names, and compare
    Verify(VerifyArgs),
}

#[derive(Args)]
pub(super) struct MakeArgs {
    /// Acquisition identifier
    acq: u64,
    /// Data directory; a daemon may run on it
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The manifest
    file: PathBuf,
    /// Data directory; a daemon may run on it
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ManifestCommand) -> Outcome {
    match command {
        ManifestCommand::Make(args) => make(args),
        ManifestCommand::Verify(args) => verify(args),
    }
}

/// Writes a manifest; exit code 1 when something could not be read, so that it may be incomplete.
fn make(args: &MakeArgs) -> Outcome {
    existing(&args.data)?;
    let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
    let stored = OfflineAcquisition::read(&args.data, &filesystem, AcqId(args.acq)).map_err(|error| {
        let code = if matches!(error, CatalogError::UnknownAcquisition(_)) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let made = stored.manifest(&mut |line| writeln!(out, "{line}")).or_exit(COULD_NOT_RUN)?;
    out.flush().or_exit(COULD_NOT_RUN)?;
    eprintln!("{} tiles, root {}", made.tiles, made.root);
    stored.problems().iter().for_each(|problem| eprintln!("the manifest may be incomplete: {problem}"));
    let good = stored.problems().is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

/// Holds a manifest against the data; exit code 1 when a tile is not as it says.
fn verify(args: &VerifyArgs) -> Outcome {
    existing(&args.data)?;
    let bar = tile_bar("verify", 0);
    let audit = verify_manifest(&args.file, &args.data, &mut |done, total, bytes| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(format!("{:.0} MB", megabytes(bytes)));
    });
    bar.finish_and_clear();
    let audit = audit.map_err(|error| {
        let code = if matches!(error, VerifyManifestError::Manifest { .. }) { BAD_INPUT } else { COULD_NOT_RUN };
        Failure { code, error: error.into() }
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&audit).or_exit(COULD_NOT_RUN)?);
    } else {
        print(&audit);
    }
    Ok(if audit.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn print(audit: &ManifestAudit) {
    for problem in &audit.problems {
        println!("line {}: {} {}: {}", problem.line, problem.kind.name(), problem.name, problem.problem);
    }
    audit.damage.iter().for_each(|damage| eprintln!("journal: {damage}"));
    println!(
        "acquisition {}: {} of {} tiles are there and unaltered, {:.1} MB read; {} problems",
        audit.acquisition,
        audit.good,
        audit.tiles,
        megabytes(audit.bytes),
        audit.problems.len(),
    );
}
