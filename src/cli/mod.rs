//! The command line: arguments, output, exit codes. `anyhow` and `clap` live only here.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 ok, 1 found a problem, 2 usage, input or configuration,
//! 3 could not run, 4 storage failed.

#![allow(clippy::print_stdout)] // The one layer whose job it is.

mod demo;
mod export;
mod manifest;
mod offline;
mod replay;
mod replay_args;
mod replay_view;
mod replies;
mod sender;
mod serve;

use crate::config::{ConfigError, Settings};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A problem was found: exit code 1.
const FOUND_A_PROBLEM: u8 = 1;
/// Usage, input or configuration: exit code 2.
const BAD_INPUT: u8 = 2;
/// Could not run: exit code 3.
const COULD_NOT_RUN: u8 = 3;
/// Storage failed: exit code 4.
const STORAGE_FAILED: u8 = 4;

#[derive(Parser)]
#[command(
    name = "tilecatcher",
    version,
    about = "Catches every image tile a microscope sends, and says \"stored\" only when it is true"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: capture port, HTTP port, data directory
    Serve(ConfigArgs),
    /// Print the effective configuration: every key, unit, default, origin
    Config {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// See it work: a simulated microscope, a daemon, everything read back and compared
    Demo(demo::DemoArgs),
    /// Write an acquisition folder with real TIFF tiles
    Simulate(sender::SimulateArgs),
    /// Send an acquisition folder to a daemon
    Send(sender::SendArgs),
    /// Load test: senders like a microscope's, at a chosen rate, against a running daemon
    Replay(Box<replay_args::ReplayArgs>),
    /// Re-read every stored record against its checksums and the index
    Verify(offline::VerifyArgs),
    /// Free the space of deleted acquisitions; the daemon must not run
    Compact(offline::CompactArgs),
    /// Write an acquisition back as the folder that the microscope made
    Export(export::ExportArgs),
    /// Make and check manifests
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Work on the index
    #[command(subcommand)]
    Index(offline::IndexCommand),
}

/// Where the configuration comes from.
#[derive(Args, Clone, Default)]
struct ConfigArgs {
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory (storage.data)
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Capture port (capture.address); port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    capture: Option<String>,
    /// HTTP port (http.address); port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
    /// Any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Settings, ConfigError> {
        let mut flags = Vec::new();
        let named = [
            ("--data", "storage.data", &self.data),
            ("--capture", "capture.address", &self.capture),
            ("--http", "http.address", &self.http),
        ];
        for (flag, key, value) in named {
            flags.extend(value.iter().map(|value| (flag.to_owned(), key.to_owned(), value.clone())));
        }
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                let problem = format!("\"{assignment}\" is not KEY=VALUE");
                return Err(ConfigError { origin: "flag --set".to_owned(), problem });
            };
            flags.push(("--set".to_owned(), key.trim().to_owned(), value.trim().to_owned()));
        }
        Settings::load(self.config.as_deref(), std::env::vars(), &flags)
    }
}

/// An error with the exit code that it leads to.
struct Failure {
    code: u8,
    error: anyhow::Error,
}

/// What commands return.
type Outcome = Result<ExitCode, Failure>;

/// Gives errors their exit codes.
trait OrExit<T> {
    fn or_exit(self, code: u8) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: u8) -> Result<T, Failure> {
        self.map_err(|error| Failure { code, error: error.into() })
    }
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(config) => serve::run(&config),
        Command::Config { config, json } => serve::print_config(&config, json),
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => sender::simulate(&args),
        Command::Send(args) => sender::send(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Verify(args) => offline::verify(&args),
        Command::Compact(args) => offline::compact(&args),
        Command::Export(args) => export::run(&args),
        Command::Manifest(command) => manifest::run(&command),
        Command::Index(offline::IndexCommand::Rebuild(args)) => offline::rebuild_index(&args),
    };
    outcome.unwrap_or_else(|Failure { code, error }| {
        // Each error names its cause itself: the chain below it would say everything twice.
        eprintln!("tilecatcher: {error}");
        ExitCode::from(code)
    })
}
