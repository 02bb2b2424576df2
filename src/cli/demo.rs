//! `demo`: what a newcomer runs first. A daemon, a simulated microscope, every tile read back and compared.

use super::replies::{megabytes, tile_bar};
use super::send::{send_with_bar, summary};
use super::settings::ConfigArgs;
use super::simulate::{SpecimenArgs, simulate_with_bar};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::base::stop::{Stop, StopReason};
use crate::client::{DeliveryOptions, HttpClient, LinkOptions, Via};
use crate::formats::AcquisitionFolder;
use crate::model::AcqId;
use crate::send::SendOptions;
use crate::server::Server;
use crate::telemetry::start_logging;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    specimen: SpecimenArgs,
    /// Leave the daemon running until Ctrl-C, and its data in place afterwards
    #[arg(long)]
    keep: bool,
}

/// Free ports, small segments, a temporary directory.
fn demo_config(data: &Path) -> ConfigArgs {
    let loopback = Some("127.0.0.1:0".to_owned());
    let set = ["log.level=warn", "storage.segment_size=256MiB", "memory.buffers=256MiB", "storage.reserve=64MiB"];
    ConfigArgs {
        config: None,
        data: Some(data.to_string_lossy().into_owned()),
        capture: loopback.clone(),
        http: loopback,
        set: set.map(str::to_owned).to_vec(),
    }
}

pub(super) fn run(args: &DemoArgs) -> Outcome {
    let options = args.specimen.options()?;
    let temporary = tempfile::Builder::new().prefix("tilecatcher-demo-").tempdir().or_exit(COULD_NOT_RUN)?;
    let config = demo_config(&temporary.path().join("data")).load().or_exit(BAD_INPUT)?.config;
    start_logging(config.log_format, config.log_level);
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;

    let server = Server::start(&config, &stop).or_exit(COULD_NOT_RUN)?;
    let url = format!("http://{}", server.http_address());
    let capture = server.capture_address().expect("the demo's daemon has its plain port");
    println!("1. A daemon runs: tiles go to {capture}, questions to {url}");
    let made = simulate_with_bar(temporary.path(), &options)?;
    println!(
        "2. A simulated microscope took {} tiles ({:.1} MB of TIFF) of acquisition {}",
        made.tiles,
        megabytes(made.bytes),
        options.acq
    );
    let link = LinkOptions {
        capture,
        http: url.clone(),
        via: Via::Tcp,
        connections: options.cameras.count() as usize,
        window: 2,
        timeout: Duration::from_secs(60),
        tls: None,
        token: None,
    };
    let send_options = SendOptions::new(DeliveryOptions { link, retry_for: Duration::from_secs(60) });
    let sent = send_with_bar(&made.folder, &send_options, &stop)?;
    println!(
        "3. It sent them, one connection a camera, with MD5 checksums; each acknowledgement means synced to disk\n   {}",
        summary(&sent)
    );
    let compared = compare(&made.folder, &url, options.acq)?;
    println!(
        "4. Every tile was read back over HTTP: {} equal byte for byte, {} different",
        compared.equal, compared.different
    );
    let good = sent.is_complete() && compared.different == 0 && compared.equal == made.tiles;
    println!(
        "{}",
        if good { "All tiles are stored, and equal to what was sent." } else { "SOMETHING IS WRONG: see above." }
    );
    if args.keep {
        let kept = temporary.keep();
        println!(
            "The daemon goes on until Ctrl-C. Look at {url}/ in a browser, or try:\n  curl {url}/service/v1/acquisition/{}/tile/0/0\n  curl -o tile.tif {url}/service/v1/acquisition/{}/tile/0/0/content\n  curl {url}/metrics\nIts data stays in {}",
            options.acq,
            options.acq,
            kept.display()
        );
        let _ = stop.wait();
    }
    stop.raise(StopReason::Requested);
    server.shut_down().or_exit(COULD_NOT_RUN)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

struct Compared {
    equal: u64,
    different: u64,
}

fn compare(folder: &Path, url: &str, acq: AcqId) -> Result<Compared, Failure> {
    let listing = AcquisitionFolder::open(folder).and_then(|folder| folder.tiles()).or_exit(COULD_NOT_RUN)?;
    let http = HttpClient::new(url, Duration::from_secs(60));
    let bar = tile_bar("compare", listing.tiles.len() as u64);
    let mut compared = Compared { equal: 0, different: 0 };
    for tile in listing.tiles {
        let sent = std::fs::read(&tile.path).or_exit(COULD_NOT_RUN)?;
        let stored = http.content(acq, tile.name.col, tile.name.row).or_exit(FOUND_A_PROBLEM)?;
        if stored.bytes == sent {
            compared.equal += 1;
        } else {
            compared.different += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(compared)
}
