//! `doctor`: what this machine, or a daemon elsewhere, will hold.

use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::base::units::Span;
use crate::client::ChecksumChoice;
use crate::doctor::{
    Bottleneck, DoctorError, DoctorOptions, Forecast, HEADROOM, Load, Measures, ServerUnderTest, Stream, Verdict,
    forecast, measure,
};
use crate::replay::{Profile, profile_names};
use clap::Args;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// A directory on the disk that is to hold the data; written to and cleaned up
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Profiles to judge, by name or file; all that are part of the program when absent
    #[arg(long, value_name = "NAME|FILE")]
    profile: Vec<String>,
    /// Judge only these profiles' rates for the exit code: 1 when one of them does not hold
    #[arg(long)]
    expect: bool,
    /// The senders run on this machine, too (as for a trial with replay)
    #[arg(long)]
    senders_here: bool,
    /// A daemon elsewhere: its capture port. Its disk and processors are judged by how fast it answers
    #[arg(long, requires = "http", value_name = "IP:PORT")]
    capture: Option<SocketAddr>,
    /// A daemon elsewhere: its HTTP port
    #[arg(long, requires = "capture", value_name = "URL")]
    http: Option<String>,
    /// Time for each measurement; about ten are made
    #[arg(long, default_value = "1500ms", value_name = "TIME")]
    time: Span,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Outcome {
    let names = if args.profile.is_empty() {
        profile_names().into_iter().map(str::to_owned).collect()
    } else {
        args.profile.clone()
    };
    let profiles = names.iter().map(|name| Profile::load(name)).collect::<Result<Vec<_>, _>>().or_exit(BAD_INPUT)?;
    let server = args.capture.zip(args.http.clone()).map(|(capture, http)| ServerUnderTest { capture, http });
    let options = DoctorOptions { dir: args.dir.clone(), time: args.time.0, server };
    let measures = measure(&options, |what| eprintln!("measuring {what}")).map_err(|error| {
        let code = match error {
            DoctorError::Directory { .. } | DoctorError::NoSpace { .. } => BAD_INPUT,
            _ => COULD_NOT_RUN,
        };
        Failure { code, error: error.into() }
    })?;
    let forecasts: Vec<Forecast> =
        profiles.iter().map(|profile| forecast(&measures, &load_of(profile, args.senders_here))).collect();
    if args.json {
        println!("{:#}", as_json(&measures, &forecasts));
    } else {
        print_measures(&measures);
        print_forecasts(&forecasts, &measures, args.senders_here);
    }
    let all_hold = forecasts.iter().all(|forecast| forecast.verdict == Verdict::Holds);
    Ok(if args.expect && !all_hold { ExitCode::from(FOUND_A_PROBLEM) } else { ExitCode::SUCCESS })
}

/// A profile as the forecast sees it.
fn load_of(profile: &Profile, senders_here: bool) -> Load {
    let stream = |group: &crate::replay::SenderGroup| Stream {
        tile_bytes: group.sizes.mean(),
        tiles_per_s: group.tiles_per_s(),
        md5: group.checksum == ChecksumChoice::Md5,
    };
    Load { name: profile.name.clone(), streams: profile.senders.iter().map(stream).collect(), senders_here }
}

fn print_measures(measures: &Measures) {
    let Measures { cores, memory_bytes, free_bytes, compute, loopback, disk, pipeline } = measures;
    let memory = memory_bytes.map_or("unknown".to_owned(), |bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    println!("{cores} cores, {memory} of memory, {:.0} GB free on the disk", *free_bytes as f64 / 1e9);
    println!(
        "one core: CRC-32 {:.0} MB/s, MD5 {:.0} MB/s, copy {:.0} MB/s",
        compute.crc32_mb_per_s, compute.md5_mb_per_s, compute.copy_mb_per_s
    );
    println!(
        "loopback, one connection: {:.0} MB/s; CPU-s/GB: sending {:.2}, receiving {:.2}",
        loopback.mb_per_s, loopback.send_cpu_s_per_gb, loopback.receive_cpu_s_per_gb
    );
    if !disk.is_empty() {
        println!("\n| disk, groups synced | MB/s | group p50 ms | p99 ms | CPU-s/GB |\n|---|---|---|---|---|");
    }
    for point in disk {
        println!(
            "| tiles of {:.2} MB | {:.0} | {:.1} | {:.1} | {:.2} |",
            point.tile_bytes as f64 / 1e6,
            point.mb_per_s,
            point.group_p50_ms,
            point.group_p99_ms,
            point.cpu_s_per_gb
        );
    }
    println!(
        "\n| a whole daemon at its limit | MB/s | ack p50 ms | p99 ms | CPU-s/GB daemon | senders |\n|---|---|---|---|---|---|"
    );
    for point in pipeline {
        let server = point.server_cpu_s_per_gb.map_or("?".to_owned(), |cpu| format!("{cpu:.2}"));
        println!(
            "| tiles of {:.2} MB | {:.0} | {:.1} | {:.1} | {server} | {:.2} |",
            point.tile_bytes as f64 / 1e6,
            point.mb_per_s,
            point.ack_p50_ms,
            point.ack_p99_ms,
            point.client_cpu_s_per_gb
        );
    }
}

fn print_forecasts(forecasts: &[Forecast], measures: &Measures, senders_here: bool) {
    let place = if senders_here { "on this machine" } else { "elsewhere" };
    println!("\nWith the senders {place}, and {:.0} % of the capacity to be planned with:\n", HEADROOM * 100.0);
    println!(
        "| profile | needs MB/s | capacity MB/s | will it hold | up to | bottleneck | disk full after |\n|---|---|---|---|---|---|---|"
    );
    for forecast in forecasts {
        let minutes = measures.free_bytes as f64 / 1e6 / forecast.needed_mb_per_s / 60.0;
        let full = if minutes < 120.0 { format!("{minutes:.0} min") } else { format!("{:.1} h", minutes / 60.0) };
        println!(
            "| {} | {:.0} | {:.0} | {} | {:.1} x | {} | {full} |",
            forecast.name,
            forecast.needed_mb_per_s,
            forecast.capacity_mb_per_s,
            verdict_name(forecast.verdict),
            forecast.holds_up_to,
            bottleneck_name(forecast.bottleneck),
        );
    }
    if !senders_here {
        let most = forecasts.iter().map(|forecast| forecast.needed_mb_per_s).fold(0.0, f64::max);
        println!("\nThe network must carry it, too: {most:.0} MB/s are {:.1} Gbit/s.", most * 8.0 / 1e3);
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Tight => "tight",
        Verdict::No => "no",
    }
}

fn bottleneck_name(bottleneck: Bottleneck) -> &'static str {
    match bottleneck {
        Bottleneck::Disk => "disk",
        Bottleneck::Processors => "processors",
        Bottleneck::Server => "the server, or the way to it",
    }
}

fn as_json(measures: &Measures, forecasts: &[Forecast]) -> Value {
    let disk: Vec<Value> = measures
        .disk
        .iter()
        .map(|point| {
            json!({ "tile_bytes": point.tile_bytes, "mb_per_s": point.mb_per_s, "group_p50_ms": point.group_p50_ms,
                "group_p99_ms": point.group_p99_ms, "cpu_s_per_gb": point.cpu_s_per_gb })
        })
        .collect();
    let daemon: Vec<Value> = measures
        .pipeline
        .iter()
        .map(|point| {
            json!({ "tile_bytes": point.tile_bytes, "mb_per_s": point.mb_per_s, "ack_p50_ms": point.ack_p50_ms,
                "ack_p99_ms": point.ack_p99_ms, "client_cpu_s_per_gb": point.client_cpu_s_per_gb,
                "server_cpu_s_per_gb": point.server_cpu_s_per_gb })
        })
        .collect();
    let profiles: Vec<Value> = forecasts
        .iter()
        .map(|forecast| {
            json!({ "profile": forecast.name, "needed_mb_per_s": forecast.needed_mb_per_s,
                "capacity_mb_per_s": forecast.capacity_mb_per_s, "verdict": verdict_name(forecast.verdict),
                "margin": forecast.margin, "holds_up_to": forecast.holds_up_to,
                "bottleneck": bottleneck_name(forecast.bottleneck) })
        })
        .collect();
    json!({
        "cores": measures.cores,
        "memory_bytes": measures.memory_bytes,
        "free_bytes": measures.free_bytes,
        "crc32_mb_per_s": measures.compute.crc32_mb_per_s,
        "md5_mb_per_s": measures.compute.md5_mb_per_s,
        "copy_mb_per_s": measures.compute.copy_mb_per_s,
        "loopback": {
            "mb_per_s": measures.loopback.mb_per_s,
            "send_cpu_s_per_gb": measures.loopback.send_cpu_s_per_gb,
            "receive_cpu_s_per_gb": measures.loopback.receive_cpu_s_per_gb,
        },
        "disk": disk,
        "daemon": daemon,
        "forecasts": profiles,
    })
}
