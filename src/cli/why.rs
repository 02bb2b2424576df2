//! `why`: the life of a tile's place, from a running daemon or from the journal of a stopped one.

use super::http_args::{HttpArgs, failure};
use super::offline::existing;
use super::printable::printable;
use super::{COULD_NOT_RUN, FOUND_A_PROBLEM, OrExit, Outcome};
use crate::catalog::PlaceLife;
use crate::journal::{Filesystem, RealFilesystem};
use crate::model::{AcqId, FrameNumber, TileKey};
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Args)]
pub(super) struct WhyArgs {
    /// Acquisition
    acq: u64,
    /// Column in the mosaic
    col: u32,
    /// Row in the mosaic
    row: u32,
    /// A drift frame's number; without it, the stable tile
    #[arg(long)]
    frame: Option<i32>,
    /// Read this data directory instead of asking a daemon; refusals are not known then
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    at: HttpArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 0 when the tile is stored and whole, 1 when it is not.
pub(super) fn run(args: &WhyArgs) -> Outcome {
    let life = match &args.data {
        Some(data) => {
            existing(data)?;
            let frame = FrameNumber(args.frame.unwrap_or(FrameNumber::STABLE.0));
            let key = TileKey { acq: AcqId(args.acq), col: args.col, row: args.row, frame };
            let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
            let life = PlaceLife::read(data, &filesystem, &key).or_exit(COULD_NOT_RUN)?;
            serde_json::to_value(life).or_exit(COULD_NOT_RUN)?
        }
        None => {
            let frame = args.frame.map(|frame| format!("?frame={frame}")).unwrap_or_default();
            let path = format!("/api/v1/acquisitions/{}/places/{}/{}{frame}", args.acq, args.col, args.row);
            args.at.client()?.get_json(&path).map_err(failure)?
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&life).or_exit(COULD_NOT_RUN)?);
    } else {
        print(&life);
    }
    Ok(if life["verdict"] == "stored" { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn print(life: &Value) {
    let say = |line: String| println!("{}", printable(&line));
    say(format!(
        "acquisition {}, column {}, row {}: {}",
        life["acquisition"],
        life["col"],
        life["row"],
        text(&life["because"])
    ));
    for event in list(&life["events"]) {
        say(format!("  {}  {}", text(&event["at"]), told(event)));
    }
    for refusal in list(&life["refusals"]) {
        let peer = refusal["peer"].as_str().unwrap_or("unknown");
        say(format!("  {}  refused: {}, from {peer}", text(&refusal["at"]), text(&refusal["reason"])));
    }
    for roi in list(&life["rois"]) {
        say(format!("  now {} in ROI {} (section {})", text(&roi["state"]), text(&roi["roi"]), roi["section"]));
    }
    for problem in list(&life["problems"]) {
        eprintln!("tilecatcher: could not be read: {}", printable(text(problem)));
    }
}

/// An event in words.
fn told(event: &Value) -> String {
    let roi =
        event["roi"].as_str().map(|roi| format!(" by ROI {roi} (section {})", event["section"])).unwrap_or_default();
    match text(&event["event"]) {
        "started" => "acquisition started".to_owned(),
        "ended" => "acquisition ended".to_owned(),
        "deleted" => "acquisition deleted: what was stored before is gone".to_owned(),
        "expected" => format!("expected{roi}"),
        "judged" => {
            let flags: Vec<&str> = list(&event["quality_flags"]).map(text).collect();
            let said = if flags.is_empty() { "good".to_owned() } else { flags.join(", ") };
            format!("image of version {} judged: {said}", event["version"])
        }
        "state" => {
            let until = event["lent_until"].as_str().map(|until| format!(", lent until {until}")).unwrap_or_default();
            format!("state {}{}{until}", text(&event["state"]), roi.replacen(" by ", " in ", 1))
        }
        _ => format!(
            "stored as tile {}, version {}, camera {}, {} bytes, checksum {}, CRC-32 {}, from {}; segment {} at {}{}",
            event["tile"],
            event["version"],
            event["camera"],
            event["size"],
            text(&event["checksum"]),
            text(&event["crc32"]),
            event["from"].as_str().unwrap_or("somebody whom its record does not name"),
            text(&event["segment"]),
            event["offset"],
            if event["damaged"] == true { "; THE STORED BYTES ARE DAMAGED" } else { "" },
        ),
    }
}
