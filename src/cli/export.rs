//! `export`: an acquisition back as a folder.

use super::offline::existing;
use super::replies::{megabytes, tile_bar};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::catalog::CatalogError;
use crate::export::{ExportError, ExportOptions, ExportReport, export};
use crate::model::AcqId;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct ExportArgs {
    /// Acquisition identifier
    acq: u64,
    /// Directory in which the acquisition folder is made
    dir: PathBuf,
    /// Data directory; a daemon may run on it
    #[arg(long, default_value = "./tilecatcher-data", value_name = "DIR")]
    data: PathBuf,
    /// Only tiles of this nominal section; may be repeated
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    section: Vec<i64>,
    /// Only tiles of this camera; may be repeated
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    camera: Vec<i32>,
    /// Only tiles in this state, in a chosen section if any was; may be repeated
    #[arg(long, value_name = "S")]
    state: Vec<String>,
    /// Drift frames too (the default)
    #[arg(long, overrides_with = "no_drift")]
    drift: bool,
    /// No drift frames
    #[arg(long, overrides_with = "drift")]
    no_drift: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Exports; exit code 1 when something could not be read.
pub(super) fn run(args: &ExportArgs) -> Outcome {
    existing(&args.data)?;
    let options = ExportOptions {
        acq: AcqId(args.acq),
        dir: args.dir.clone(),
        data: args.data.clone(),
        sections: args.section.clone(),
        cameras: args.camera.clone(),
        states: args.state.clone(),
        drift: args.drift || !args.no_drift,
    };
    let bar = tile_bar("export", 0);
    let exported = export(&options, &|done, total, bytes| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(format!("{:.0} MB", megabytes(bytes)));
    });
    bar.finish_and_clear();
    let report = exported.map_err(|error| {
        let code = match &error {
            ExportError::Usage(_) | ExportError::Catalog(CatalogError::UnknownAcquisition(_)) => BAD_INPUT,
            ExportError::Catalog(_) | ExportError::Write { .. } => COULD_NOT_RUN,
        };
        Failure { code, error: error.into() }
    })?;
    for problem in &report.problems {
        eprintln!("not exported {}: {}", problem.name, problem.problem);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).or_exit(COULD_NOT_RUN)?);
    } else {
        println!("{}", summary(&report));
    }
    let good = report.problems.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn summary(report: &ExportReport) -> String {
    format!(
        "{}: {} tiles, {} other files, {:.1} MB; {} of them were there already; {} problems",
        report.folder.display(),
        report.tiles,
        report.files,
        megabytes(report.bytes),
        report.skipped,
        report.problems.len(),
    )
}
