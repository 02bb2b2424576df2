//! The command line: arguments, output, exit codes. `anyhow` and `clap` live only here.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 ok, 1 found a problem, 2 usage, input or configuration,
//! 3 could not run, 4 storage failed,
//! 5 a fault inside.

#![allow(clippy::print_stdout)] // The one layer whose job it is.

#[cfg(feature = "daemon")]
mod admin;
#[cfg(feature = "daemon")]
mod backup;
#[cfg(feature = "daemon")]
mod demo;
#[cfg(feature = "daemon")]
mod doctor;
#[cfg(feature = "daemon")]
mod export;
#[cfg(feature = "daemon")]
mod http_args;
#[cfg(feature = "daemon")]
mod manifest;
#[cfg(feature = "daemon")]
mod notify;
#[cfg(feature = "daemon")]
mod offline;
#[cfg(feature = "daemon")]
mod pages;
#[cfg(feature = "daemon")]
mod printable;
mod replay;
mod replay_args;
mod replay_view;
mod replies;
mod send;
#[cfg(feature = "daemon")]
mod serve;
#[cfg(feature = "daemon")]
mod settings;
mod signals;
mod simulate;
#[cfg(feature = "daemon")]
mod status;
#[cfg(feature = "daemon")]
mod status_line;
mod tls_args;
#[cfg(feature = "daemon")]
mod token;
#[cfg(feature = "top")]
mod top;
mod watch;
#[cfg(feature = "daemon")]
mod why;

#[cfg(feature = "daemon")]
use clap::CommandFactory;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A problem was found: exit code 1.
const FOUND_A_PROBLEM: u8 = 1;
/// Usage, input or configuration: exit code 2.
const BAD_INPUT: u8 = 2;
/// Could not run: exit code 3.
const COULD_NOT_RUN: u8 = 3;
/// Storage failed: exit code 4.
#[cfg(feature = "daemon")]
const STORAGE_FAILED: u8 = 4;
/// One of the daemon's threads panicked: exit code 5.
#[cfg(feature = "daemon")]
const BROKE_INSIDE: u8 = 5;

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
    #[cfg(feature = "daemon")]
    Serve(settings::ConfigArgs),
    /// Print the effective configuration: every key, unit, default, origin
    #[cfg(feature = "daemon")]
    Config {
        #[command(flatten)]
        config: settings::ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Print a file to start from: defaults are commented out, what is set elsewhere is not
        #[arg(long, conflicts_with = "json")]
        template: bool,
    },
    /// Try the notifications that are configured
    #[cfg(feature = "daemon")]
    Notify(notify::NotifyArgs),
    /// See it work: a simulated microscope, a daemon, everything read back and compared
    #[cfg(feature = "daemon")]
    Demo(demo::DemoArgs),
    /// Write an acquisition folder with real TIFF tiles
    Simulate(simulate::SimulateArgs),
    /// Send an acquisition folder to a daemon; run again, it sends what is missing there
    Send(send::SendArgs),
    /// Follow a folder that a microscope writes, and send it meanwhile
    Watch(watch::WatchArgs),
    /// Load test: senders like a microscope's, at a chosen rate, against a running daemon
    Replay(Box<replay_args::ReplayArgs>),
    /// Measure this machine, and say which microscopes' load it will hold
    #[cfg(feature = "daemon")]
    Doctor(doctor::DoctorArgs),
    /// Re-read every stored record against its checksums and the index
    #[cfg(feature = "daemon")]
    Verify(offline::VerifyArgs),
    /// Free the space of deleted acquisitions; the daemon must not run
    #[cfg(feature = "daemon")]
    Compact(offline::CompactArgs),
    /// Copy a data directory, also beside its daemon; run again, it copies what is new
    #[cfg(feature = "daemon")]
    Backup(backup::BackupArgs),
    /// Write an acquisition back as the folder that the microscope made
    #[cfg(feature = "daemon")]
    Export(export::ExportArgs),
    /// Make and check manifests
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Manifest(manifest::ManifestCommand),
    /// Make, list and revoke tokens for the HTTP port
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Tell a running daemon what to do: pause, drain, rotate, scrub, index, limits
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Admin(Box<admin::AdminCommand>),
    /// How a running daemon is, on one screen; exit code 1 when something is wrong
    #[cfg(feature = "daemon")]
    Status(status::StatusArgs),
    /// Watch a running daemon in the terminal: rates, queues, acquisitions, senders, warnings
    #[cfg(feature = "top")]
    Top(top::TopArgs),
    /// Say why a tile is there, or why not: the life of its place
    #[cfg(feature = "daemon")]
    Why(why::WhyArgs),
    /// Work on the index
    #[cfg(feature = "daemon")]
    #[command(subcommand)]
    Index(offline::IndexCommand),
    /// Print a shell's completions
    #[cfg(feature = "daemon")]
    #[command(hide = true)]
    Completions(pages::CompletionsArgs),
    /// Write the man pages
    #[cfg(feature = "daemon")]
    #[command(hide = true)]
    Man(pages::ManArgs),
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
        #[cfg(feature = "daemon")]
        Command::Serve(config) => serve::run(&config),
        #[cfg(feature = "daemon")]
        Command::Config { config, template: true, .. } => serve::print_template(&config),
        #[cfg(feature = "daemon")]
        Command::Config { config, json, .. } => serve::print_config(&config, json),
        #[cfg(feature = "daemon")]
        Command::Notify(args) => notify::run(&args),
        #[cfg(feature = "daemon")]
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Send(args) => send::send(&args),
        Command::Watch(args) => watch::watch(&args),
        Command::Replay(args) => replay::run(&args),
        #[cfg(feature = "daemon")]
        Command::Doctor(args) => doctor::run(&args),
        #[cfg(feature = "daemon")]
        Command::Verify(args) => offline::verify(&args),
        #[cfg(feature = "daemon")]
        Command::Compact(args) => offline::compact(&args),
        #[cfg(feature = "daemon")]
        Command::Backup(args) => backup::run(&args),
        #[cfg(feature = "daemon")]
        Command::Export(args) => export::run(&args),
        #[cfg(feature = "daemon")]
        Command::Manifest(command) => manifest::run(&command),
        #[cfg(feature = "daemon")]
        Command::Token(command) => token::run(command),
        #[cfg(feature = "daemon")]
        Command::Admin(command) => admin::run(&command),
        #[cfg(feature = "daemon")]
        Command::Status(args) => status::run(&args),
        #[cfg(feature = "top")]
        Command::Top(args) => top::run(&args),
        #[cfg(feature = "daemon")]
        Command::Why(args) => why::run(&args),
        #[cfg(feature = "daemon")]
        Command::Index(offline::IndexCommand::Rebuild(args)) => offline::rebuild_index(&args),
        #[cfg(feature = "daemon")]
        Command::Completions(args) => pages::completions(&args, Cli::command()),
        #[cfg(feature = "daemon")]
        Command::Man(args) => pages::man(&args, Cli::command()),
    };
    outcome.unwrap_or_else(|Failure { code, error }| {
        // Each error names its cause itself: the chain below it would say everything twice.
        eprintln!("tilecatcher: {error}");
        ExitCode::from(code)
    })
}
