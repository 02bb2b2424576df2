//! `status`: how a running daemon is, on one screen.

use super::http_args::HttpArgs;
use super::printable::printable;
use super::{COULD_NOT_RUN, FOUND_A_PROBLEM, OrExit, Outcome};
use crate::base::words::{bytes, clock, span};
use crate::client::{AcquisitionStatus, DaemonStatus, SenderStatus};
use clap::Args;
use serde_json::Value;
use std::process::ExitCode;

/// Lines of each list.
const SHOWN: usize = 10;

#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    at: HttpArgs,
    /// Print what the daemon answers, JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 0 healthy, 1 something is wrong, 3 not reachable.
pub(super) fn run(args: &StatusArgs) -> Outcome {
    let answer: Value = args.at.client()?.get_json("/api/v1/status").map_err(super::http_args::failure)?;
    let status: DaemonStatus = serde_json::from_value(answer.clone()).or_exit(COULD_NOT_RUN)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&answer).or_exit(COULD_NOT_RUN)?);
    } else {
        print!("{}", page(&status, &args.at.http));
    }
    Ok(if status.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn page(status: &DaemonStatus, url: &str) -> String {
    let mut lines = head(status, url);
    lines.extend(status.problems().iter().map(|problem| format!("  !! {problem}")));
    let acquisitions: Vec<&AcquisitionStatus> = status.acquisitions.iter().take(SHOWN).collect();
    lines.push(format!("acquisitions ({})", status.acquisitions_total));
    lines.extend(acquisitions.into_iter().map(acquisition_line));
    lines.push(format!("senders ({})", status.senders_total));
    lines.extend(status.senders.iter().take(SHOWN).map(sender_line));
    lines.push(format!("warnings ({})", status.warnings.len()));
    let newest = status.warnings.len().saturating_sub(SHOWN);
    let warning = status.warnings[newest..].iter();
    lines.extend(warning.map(|warning| format!("  {} {}: {}", clock(&warning.at), warning.level, warning.message)));
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn head(status: &DaemonStatus, url: &str) -> Vec<String> {
    let DaemonStatus { pressure, disk, journal, queues, now, scrub, .. } = status;
    let ack = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    let full = disk.full_in_s.map(|time| format!(", full in {}", span(time))).unwrap_or_default();
    let mirror = status.mirror.as_ref().map(|mirror| format!("; mirror {}", mirror.phase)).unwrap_or_default();
    vec![
        format!(
            "tilecatcher {} at {url}, up {}, ack level {}",
            status.version,
            span(status.uptime_s),
            status.ack_level
        ),
        format!(
            "capture {}; pressure {} (index queue {}, contents {})",
            status.capture, pressure.system, pressure.tile_queue, pressure.content_queue
        ),
        format!(
            "now {:.1} tiles/s, {}/s, {:.1} refused/s; ack p50 {}, p99 {}",
            now.tiles_per_s,
            bytes(now.bytes_per_s),
            now.refused_per_s,
            ack(now.ack_p50_ms),
            ack(now.ack_p99_ms)
        ),
        format!(
            "queues {} of {} tiles, buffers {} of {}, {} wait; index behind by {} tiles",
            queues.lane_tiles,
            queues.lane_limit_tiles,
            bytes(queues.buffer_bytes as f64),
            bytes(queues.buffer_limit_bytes as f64),
            queues.buffer_waiters,
            status.index.lag_tiles
        ),
        format!(
            "disk {} of {} free{full}; journal {} in {} segments{mirror}",
            bytes(disk.free_bytes as f64),
            bytes(disk.total_bytes as f64),
            bytes(journal.bytes as f64),
            journal.segments
        ),
        format!(
            "scrub {:.0} % of this pass, {} passes; {} damaged records",
            scrub.progress * 100.0,
            scrub.passes,
            status.damaged_records
        ),
    ]
}

fn acquisition_line(acquisition: &AcquisitionStatus) -> String {
    let AcquisitionStatus { id, name, state, expected, received, missing, refused, tiles_per_s, .. } = acquisition;
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    format!("  {id} {name} {state}: {received} of {expected}, {missing} missing{refused}, {tiles_per_s:.1} tiles/s")
}

fn sender_line(sender: &SenderStatus) -> String {
    let name = sender.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let last = sender.last_tile.as_ref().map_or("no tile yet".to_owned(), |last| format!("last {}", clock(last)));
    let SenderStatus { id, peer, port, tiles, refused, .. } = sender;
    format!("  {id} {peer}{name} on {port}: {tiles} tiles, {}, {refused} refused, {last}", bytes(sender.bytes as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_warnings_can_not_command_the_terminal() {
        let mut status = DaemonStatus::default();
        status.acquisitions.push(AcquisitionStatus { name: "a\x1b[2J".to_owned(), ..AcquisitionStatus::default() });
        let page = page(&status, "http://x");
        assert!(page.contains("a\u{fffd}[2J") && !page.contains('\x1b'), "{page}");
    }
}
