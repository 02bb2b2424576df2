//! `simulate` and `send`: what stands on the microscope's side.

use super::replies::{megabytes, quantile, rate, tile_bar};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::client::{ChecksumChoice, SendError, SendOptions, SendReport, send_folder};
use crate::model::{AcqId, CameraCount};
use crate::simulate::{Bits, SimulateOptions, Simulated};
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
pub(super) struct SimulateArgs {
    /// Directory in which the acquisition folder is made
    dir: PathBuf,
    #[command(flatten)]
    specimen: SpecimenArgs,
}

/// What is simulated.
#[derive(Args, Clone)]
pub(super) struct SpecimenArgs {
    /// Acquisition identifier
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) acq: u64,
    /// Cameras: 1 or 4
    #[arg(long, default_value_t = 4)]
    cameras: u32,
    /// Stage steps, X x Y
    #[arg(long, default_value = "6x4", value_name = "XxY")]
    steps: Pair,
    /// Tile size in pixels, WIDTH x HEIGHT
    #[arg(long, default_value = "2560x2160", value_name = "WxH")]
    size: Pair,
    /// Bits a pixel: 8 or 16
    #[arg(long, default_value_t = 8)]
    bits: u32,
    /// Another seed, another specimen
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Two numbers above 0, written with an x between.
#[derive(Clone, Copy, Debug)]
struct Pair(u32, u32);

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not like 6x4");
        let (a, b) = text.split_once('x').ok_or_else(wrong)?;
        match (a.parse(), b.parse()) {
            (Ok(a), Ok(b)) if a > 0 && b > 0 => Ok(Self(a, b)),
            _ => Err(wrong()),
        }
    }
}

impl SpecimenArgs {
    pub(super) fn options(&self) -> Result<SimulateOptions, Failure> {
        let bad = |what: String| Failure { code: BAD_INPUT, error: anyhow::anyhow!(what) };
        let cameras = match self.cameras {
            1 => CameraCount::One,
            4 => CameraCount::Four,
            other => return Err(bad(format!("--cameras {other}: a TEMCA has 1 or 4"))),
        };
        let bits = match self.bits {
            8 => Bits::Eight,
            16 => Bits::Sixteen,
            other => return Err(bad(format!("--bits {other}: 8 or 16"))),
        };
        let (Pair(x_steps, y_steps), Pair(width, height)) = (self.steps, self.size);
        if u64::from(width) * u64::from(height) > 1 << 28 || u64::from(x_steps) * u64::from(y_steps) > 1 << 20 {
            return Err(bad("--size: at most 2^28 pixels, --steps: at most 2^20".to_owned()));
        }
        Ok(SimulateOptions { acq: AcqId(self.acq), cameras, x_steps, y_steps, width, height, bits, seed: self.seed })
    }
}

/// Simulates with a progress bar.
pub(super) fn simulate_with_bar(dir: &std::path::Path, options: &SimulateOptions) -> Result<Simulated, Failure> {
    let bar = tile_bar("simulate", 0);
    let made = crate::simulate::simulate(dir, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    made.or_exit(BAD_INPUT)
}

pub(super) fn simulate(args: &SimulateArgs) -> Outcome {
    let made = simulate_with_bar(&args.dir, &args.specimen.options()?)?;
    eprintln!("{} tiles, {:.1} MB", made.tiles, megabytes(made.bytes));
    println!("{}", made.folder.display());
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub(super) struct SendArgs {
    /// Acquisition folder: a *_logfile.ini and tiles in col0000/, col0001/, ...
    dir: PathBuf,
    /// Capture port of the daemon
    #[arg(long, default_value = "127.0.0.1:5002", value_name = "IP:PORT")]
    capture: SocketAddr,
    /// HTTP port of the daemon
    #[arg(long, default_value = "http://127.0.0.1:5001", value_name = "URL")]
    http: String,
    /// Number of connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Tiles in flight on each connection
    #[arg(long, default_value_t = 2)]
    window: usize,
    /// Checksum of each tile: none, crc32, md5, sha1 or sha256
    #[arg(long, default_value = "md5")]
    checksum: ChecksumChoice,
    /// Longest wait for the daemon, seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Sends with a progress bar.
pub(super) fn send_with_bar(dir: &std::path::Path, options: &SendOptions) -> Result<SendReport, Failure> {
    let bar = tile_bar("send", 0);
    let sent = send_folder(dir, options, &|done, total, bytes| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(format!("{:.0} MB", megabytes(bytes)));
    });
    bar.finish_and_clear();
    sent.map_err(|error| {
        let code = match error {
            SendError::Folder(_) | SendError::File { .. } => BAD_INPUT,
            SendError::Http(_) | SendError::Capture(_) => COULD_NOT_RUN,
        };
        Failure { code, error: error.into() }
    })
}

pub(super) fn send(args: &SendArgs) -> Outcome {
    let options = SendOptions {
        capture: args.capture,
        http: args.http.clone(),
        connections: args.connections,
        window: args.window,
        checksum: args.checksum,
        timeout: Duration::from_secs(args.timeout.max(1)),
    };
    let report = send_with_bar(&args.dir, &options)?;
    for path in &report.skipped {
        eprintln!("skipped {}: no tile by its name", path.display());
    }
    for (path, status) in &report.refused {
        eprintln!("refused {}: status {status} ({})", path.display(), status_meaning(*status));
    }
    if args.json {
        println!("{}", json_summary(&report));
    } else {
        println!("{}", summary(&report));
    }
    let failed = !report.refused.is_empty();
    Ok(if failed { ExitCode::from(FOUND_A_PROBLEM) } else { ExitCode::SUCCESS })
}

fn status_meaning(status: i16) -> &'static str {
    match status {
        1 => "do not resend unchanged: unknown acquisition, bad key, bad checksum or bad message",
        2 => "the daemon is overloaded: resend later",
        3 => "the daemon has no space: resend later",
        4 => "the daemon's storage failed",
        _ => "unknown to this program",
    }
}

/// One line for people.
pub(super) fn summary(report: &SendReport) -> String {
    format!(
        "acquisition {}: {} tiles acknowledged, {} refused; {:.1} MB in {:.2} s = {:.0} MB/s; ack p50 {:.1} ms, p99 {:.1} ms",
        report.acq,
        report.acknowledged,
        report.refused.len(),
        megabytes(report.bytes),
        report.took.as_secs_f64(),
        rate(megabytes(report.bytes), report.took),
        quantile(&report.ack_times, 0.5).as_secs_f64() * 1e3,
        quantile(&report.ack_times, 0.99).as_secs_f64() * 1e3,
    )
}

fn json_summary(report: &SendReport) -> serde_json::Value {
    json!({
        "acquisition": report.acq,
        "acknowledged": report.acknowledged,
        "refused": report.refused.iter().map(|(path, status)| json!({ "path": path, "status": status })).collect::<Vec<_>>(),
        "skipped": report.skipped,
        "bytes": report.bytes,
        "seconds": report.took.as_secs_f64(),
        "ack_p50_ms": quantile(&report.ack_times, 0.5).as_secs_f64() * 1e3,
        "ack_p99_ms": quantile(&report.ack_times, 0.99).as_secs_f64() * 1e3,
    })
}
