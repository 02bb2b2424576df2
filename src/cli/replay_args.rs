//! The arguments of `replay`, and the plan that they make.

use super::tls_args::TlsArgs;
use super::{BAD_INPUT, Failure, OrExit};
use crate::base::units::{ByteSize, Span};
use crate::client::ChecksumChoice;
use crate::model::AcqId;
use crate::replay::{
    Arrivals, Content, Expectations, FaultPart, Mode, Phase, Plan, Profile, Rate, SenderGroup, SourceChoice, TileSizes,
    Timing, Verify,
};
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Length of tiles when nothing is said.
const TILE_BYTES: u64 = 5_300_000;
/// Connections when nothing is said.
const CONNECTIONS: u32 = 4;

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// Capture port of the daemon
    #[arg(long, default_value = "127.0.0.1:5002", value_name = "IP:PORT")]
    capture: SocketAddr,
    /// HTTP port of the daemon
    #[arg(long, default_value = "http://127.0.0.1:5001", value_name = "URL")]
    http: String,
    /// How long tiles are due
    #[arg(long, default_value = "60s", value_name = "TIME")]
    duration: Span,
    /// How fast, of all senders: tiles a second (57), times the profile (2x), or bytes a second (300MB/s)
    #[arg(long, value_name = "R")]
    rate: Option<Rate>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    senders: SenderArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Read so many stored tiles back, or all, and compare them
    #[arg(long, value_name = "N|all", value_parser = parse_verify)]
    verify: Option<Verify>,
    /// Do something wrong to a part of the tiles: cut, slow, corrupt, duplicate, reorder; such as cut=1%. May be repeated
    #[arg(long, value_name = "FAULT=PART")]
    fault: Vec<FaultPart>,
    /// Exit with 1 when the 99th percentile of the latency is longer
    #[arg(long, value_name = "TIME")]
    expect_p99: Option<Span>,
    /// Exit with 1 when fewer tiles or bytes a second are acknowledged (by more than 1 %)
    #[arg(long, value_name = "R")]
    expect_rate: Option<Rate>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Print the profiles that are part of the program
    #[arg(long)]
    pub(super) list_profiles: bool,
    /// Print a profile's text
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) print_profile: Option<String>,
}

/// Who sends what and when.
#[derive(Args)]
struct SenderArgs {
    /// Who sends what and when: a profile that is part of the program, or a file
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// open: tiles are due by the clock; closed: every connection always has a window of tiles in flight
    #[arg(long)]
    mode: Option<ModeArg>,
    /// How tiles follow one another
    #[arg(long)]
    arrivals: Option<ArrivalsArg>,
    /// Connections of each sender; without a profile: senders with one connection each
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// Most tiles in flight on each connection
    #[arg(long, value_name = "N")]
    window: Option<u32>,
    /// Length of all tiles
    #[arg(long, value_name = "SIZE")]
    tile_size: Option<ByteSize>,
    /// Checksum of each tile: none, crc32, md5, sha1 or sha256
    #[arg(long)]
    checksum: Option<ChecksumChoice>,
    /// What tiles hold
    #[arg(long)]
    content: Option<ContentArg>,
}

/// Where tiles come from; else they are made up.
#[derive(Args)]
struct SourceArgs {
    /// Send the tiles of an acquisition folder, again and again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from_data", "timing"])]
    folder: Option<PathBuf>,
    /// Send the tiles of an acquisition in a data directory, again and again; a daemon may run on it
    #[arg(long, value_name = "DIR", conflicts_with = "timing")]
    from_data: Option<PathBuf>,
    /// Which acquisition of it
    #[arg(long, value_name = "ACQ", requires = "from_data")]
    from_acq: Option<u64>,
    /// Send at the places and times of a DAQ timing table; each camera is a sender
    #[arg(long, value_name = "FILE")]
    timing: Option<PathBuf>,
    /// Time of a step, for a table without times
    #[arg(long, value_name = "TIME", requires = "timing")]
    step_period: Option<Span>,
    /// Memory for tiles of a folder or a data directory; what does not fit is read ahead
    #[arg(long, default_value = "512MiB", value_name = "SIZE")]
    memory: ByteSize,
}

#[derive(Args)]
struct TargetArgs {
    /// Number of the acquisition, which must not exist; a free one by default
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    acq: Option<u64>,
    /// Leave the acquisition; by default it is deleted (`tilecatcher compact` gives its space back)
    #[arg(long)]
    keep: bool,
    /// Threads that send; by default one for each 2 CPUs, at most 4
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// After the end, how long tiles that were due are still sent
    #[arg(long, default_value = "10s", value_name = "TIME")]
    drain: Span,
    /// Longest wait for an answer
    #[arg(long, default_value = "60s", value_name = "TIME")]
    timeout: Span,
    /// Longest wait for a daemon that is gone
    #[arg(long, default_value = "5s", value_name = "TIME")]
    patience: Span,
    /// Another seed, other random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

#[derive(Args)]
pub(super) struct OutputArgs {
    /// Write all figures as JSON; - for stdout, instead of the table
    #[arg(long, value_name = "FILE|-")]
    pub(super) json: Option<PathBuf>,
    /// Draw rate and latency over time
    #[arg(long, value_name = "FILE.svg|FILE.html", value_parser = parse_plot)]
    pub(super) plot: Option<PathBuf>,
    /// How it goes, on stderr: by default live on a terminal, else nothing
    #[arg(long)]
    pub(super) progress: Option<ProgressArg>,
    /// Nothing on stderr but errors
    #[arg(long, conflicts_with = "progress")]
    pub(super) quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Open,
    Closed,
}

#[derive(Clone, Copy, ValueEnum)]
enum ArrivalsArg {
    Constant,
    Poisson,
}

#[derive(Clone, Copy, ValueEnum)]
enum ContentArg {
    Noise,
    Tiff,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressArg {
    Live,
    Plain,
}

fn parse_verify(text: &str) -> Result<Verify, String> {
    match text {
        "all" => Ok(Verify::All),
        n => n.parse().map(Verify::Sample).map_err(|_| format!("\"{text}\" is neither a number nor all")),
    }
}

fn parse_plot(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "html") => Ok(path),
        _ => Err(format!("\"{text}\" ends in neither .svg nor .html")),
    }
}

impl ReplayArgs {
    /// What is to be replayed.
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let (source, target) = (&self.source, &self.target);
        Ok(Plan {
            capture: self.capture,
            http: self.http.clone(),
            tls: self.tls.load(&self.http)?,
            profile: self.profile()?,
            rate: self.rate,
            source: source.choice(),
            duration: self.duration.0,
            drain: target.drain.0,
            timeout: target.timeout.0.max(Duration::from_millis(1)),
            patience: target.patience.0,
            acq: target.acq.map(AcqId),
            keep: target.keep,
            threads: target.threads,
            memory: source.memory.0,
            verify: self.verify.unwrap_or(Verify::Nothing),
            faults: self.fault.clone(),
            seed: target.seed,
        })
    }

    /// What is expected of the figures.
    pub(super) fn expectations(&self) -> Expectations {
        Expectations { p99: self.expect_p99.map(|span| span.0), rate: self.expect_rate }
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let senders = &self.senders;
        let mut profile = match &senders.profile {
            Some(name) => Profile::load(name).or_exit(BAD_INPUT)?,
            None => self.plain_profile()?,
        };
        profile.mode = match senders.mode {
            Some(ModeArg::Open) => Mode::Open,
            Some(ModeArg::Closed) => Mode::Closed,
            None => profile.mode,
        };
        profile.timing.arrivals = match senders.arrivals {
            Some(ArrivalsArg::Constant) => Arrivals::Constant,
            Some(ArrivalsArg::Poisson) => Arrivals::Poisson,
            None => profile.timing.arrivals,
        };
        profile.senders.iter_mut().for_each(|group| senders.change(group));
        Ok(profile)
    }

    /// Senders with one connection each, at the rate of `--rate`.
    fn plain_profile(&self) -> Result<Profile, Failure> {
        let closed = matches!(self.senders.mode, Some(ModeArg::Closed));
        if !closed && self.rate.is_none() && self.source.timing.is_none() {
            let what = "how fast? give --profile (see --list-profiles), --rate, or --mode closed";
            return Err(Failure { code: BAD_INPUT, error: anyhow::anyhow!(what) });
        }
        let group = SenderGroup {
            name: "plain".to_owned(),
            count: self.senders.connections.unwrap_or(CONNECTIONS),
            sizes: TileSizes::Fixed(TILE_BYTES),
            bursts_per_s: 1.0,
            burst: 1,
            cameras: 1,
            checksum: ChecksumChoice::Crc32,
            connections: 1,
            window: 2,
            content: Content::Noise,
        };
        let timing = Timing { arrivals: Arrivals::Constant, phase: Phase::Spread, ramp: None, run_and_break: None };
        let (name, about, none) = ("plain".to_owned(), "from flags".to_owned(), String::new());
        let (source, mode, senders) = (none.clone(), if closed { Mode::Closed } else { Mode::Open }, vec![group]);
        let profile = Profile { name, about, source, assumption: none, mode, timing, senders };
        // A multiple needs something to be a multiple of.
        if let Some(Rate::Times(_)) = self.rate {
            let what = "--rate as a multiple needs a --profile";
            return Err(Failure { code: BAD_INPUT, error: anyhow::anyhow!(what) });
        }
        profile.check().map_err(|what| Failure { code: BAD_INPUT, error: anyhow::anyhow!(what) })?;
        Ok(profile)
    }
}

impl SenderArgs {
    /// What the flags say of every sender.
    fn change(&self, group: &mut SenderGroup) {
        if let Some(connections) = self.connections.filter(|_| self.profile.is_some()) {
            group.connections = connections;
        }
        group.window = self.window.unwrap_or(group.window);
        group.checksum = self.checksum.unwrap_or(group.checksum);
        if let Some(size) = self.tile_size {
            group.sizes = TileSizes::Fixed(size.0);
        }
        group.content = match self.content {
            Some(ContentArg::Noise) => Content::Noise,
            Some(ContentArg::Tiff) => Content::Tiff,
            None => group.content,
        };
    }
}

impl SourceArgs {
    fn choice(&self) -> SourceChoice {
        if let Some(dir) = &self.folder {
            return SourceChoice::Folder(dir.clone());
        }
        if let Some(data) = &self.from_data {
            return SourceChoice::Journal { data: data.clone(), acq: self.from_acq.map(AcqId) };
        }
        match &self.timing {
            Some(file) => SourceChoice::Timing { file: file.clone(), step: self.step_period.map(|span| span.0) },
            None => SourceChoice::Synthetic,
        }
    }
}
