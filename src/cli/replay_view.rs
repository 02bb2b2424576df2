//! How a replay is shown: live on a terminal, in plain lines, as a table at the end.

use super::replay_args::{OutputArgs, ProgressArg};
use super::replies::megabytes;
use crate::replay::{Distribution, Fault, Progress, Report};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// Seconds between plain lines.
const PLAIN_SECONDS: u64 = 5;

/// Shows how it goes.
pub(super) struct View {
    kind: Kind,
    duration: Duration,
}

enum Kind {
    Live(ProgressBar),
    Plain,
    Nothing,
}

impl View {
    pub(super) fn new(output: &OutputArgs, duration: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let kind = match output.progress {
            Some(ProgressArg::Plain) => Kind::Plain,
            Some(ProgressArg::Live) => Kind::Live(bar()),
            None if terminal && !output.quiet => Kind::Live(bar()),
            None => Kind::Nothing,
        };
        Self { kind, duration }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        match &self.kind {
            Kind::Live(bar) => bar.set_message(self.live(progress)),
            Kind::Plain if (progress.point.second + 1).is_multiple_of(PLAIN_SECONDS) => {
                eprintln!("{}", plain(progress))
            }
            Kind::Plain | Kind::Nothing => {}
        }
    }

    pub(super) fn clear(&self) {
        if let Kind::Live(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }

    fn live(&self, progress: &Progress) -> String {
        let point = &progress.point;
        let all = format!("in all {} tiles, {:.1} GB", progress.tiles, megabytes(progress.bytes) / 1e3);
        format!(
            "{} of {} s   {} tiles/s   {:.1} MB/s   in flight {}   behind {:.0} ms   {}   refused {}\n\
             latency ms   last second {}   in all {}   {all}",
            point.second + 1,
            self.duration.as_secs(),
            point.tiles,
            point.mb,
            point.in_flight,
            point.late_ms,
            coloured(point.pressure.as_deref()),
            by_status(&progress.refused),
            short(&point.latency),
            short(&progress.latency),
        )
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn plain(progress: &Progress) -> String {
    let point = &progress.point;
    format!(
        "{} s: {} tiles/s, {:.1} MB/s, in flight {}, behind {:.0} ms, {}, refused {}, latency {} ms",
        point.second + 1,
        point.tiles,
        point.mb,
        point.in_flight,
        point.late_ms,
        point.pressure.as_deref().unwrap_or("no answer"),
        by_status(&progress.refused),
        short(&point.latency),
    )
}

fn coloured(pressure: Option<&str>) -> String {
    let colour = match pressure {
        Some("GREEN") => 32,
        Some("YELLOW") => 33,
        _ => 31,
    };
    format!("\x1b[{colour}m{}\x1b[0m", pressure.unwrap_or("no answer"))
}

fn short(times: &Distribution) -> String {
    format!("p50 {:.1} p99 {:.1} max {:.1}", times.p50_ms, times.p99_ms, times.max_ms)
}

fn by_status(refused: &BTreeMap<String, u64>) -> String {
    if refused.is_empty() {
        return "0".to_owned();
    }
    refused.iter().map(|(status, count)| format!("{count} with status {status}")).collect::<Vec<_>>().join(", ")
}

/// What came of it, for people.
pub(super) fn table(report: &Report) -> String {
    let mut out = String::new();
    let settings = &report.settings;
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<16} {text}");
    };
    line(
        "replay",
        format!(
            "{} ({:?} loop, {}), {} senders, {} connections, {} threads; acquisition {}{}",
            settings.profile,
            settings.mode,
            settings.source,
            settings.senders,
            settings.connections,
            settings.threads,
            report.acquisition,
            if report.kept { " is left" } else { ", deleted: `tilecatcher compact` gives its space back" },
        )
        .replace("Open loop", "open loop")
        .replace("Closed loop", "closed loop"),
    );
    line("due", format!("{} tiles in {:.1} s = {:.2} tiles/s", report.due, report.seconds, report.due_per_s));
    line(
        "acknowledged",
        format!(
            "{} tiles, {:.1} MB; {:.2} tiles/s, {:.1} MB/s",
            report.acknowledged,
            megabytes(report.bytes),
            report.tiles_per_s,
            report.mb_per_s
        ),
    );
    line("refused", by_status(&report.refused));
    line("not sent", format!("{} never sent, {} without an answer", report.unsent, report.unanswered));
    line("connections", format!("{} broken", report.connections_broken));
    let pressure: Vec<String> = ["GREEN", "YELLOW", "RED"]
        .iter()
        .map(|name| format!("{name} {}", report.pressure.get(name).copied().unwrap_or(0)))
        .collect();
    line("pressure", pressure.join(", "));
    let waits = &report.waits;
    line(
        "behind",
        format!(
            "{} tiles had to wait: {} for the window, {} for the tile before, {} for the source, {} for a connection",
            waits.all(),
            waits.window,
            waits.writing,
            waits.source,
            waits.connection
        ),
    );
    if let Some((cpu_s, per_gb)) = report.client.cpu_s.zip(report.client.cpu_s_per_gb) {
        line("this program", format!("{cpu_s:.2} CPU-s, {per_gb:.3} CPU-s/GB"));
    }
    out.push('\n');
    out.push_str(&times(report));
    out.push_str(&checks(report));
    out
}

fn times(report: &Report) -> String {
    let mut out = format!(
        "{:<16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "ms", "tiles", "mean", "p50", "p90", "p99", "p99.9", "max"
    );
    let rows = [
        ("latency", &report.latency),
        ("service", &report.service),
        ("schedule error", &report.schedule_error),
        ("behind", &report.behind),
    ];
    for (name, times) in rows {
        let Distribution { count, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = times;
        let _ = writeln!(
            out,
            "{name:<16} {count:>9} {mean_ms:>9.2} {p50_ms:>9.2} {p90_ms:>9.2} {p99_ms:>9.2} {p999_ms:>9.2} {max_ms:>9.2}"
        );
    }
    out
}

fn checks(report: &Report) -> String {
    let mut out = String::new();
    for fault in Fault::ALL {
        let Some(count) = report.faults.get(fault.name()) else { continue };
        let (made, good, bad) = (count.made, count.as_expected, count.unexpected);
        let _ = writeln!(
            out,
            "fault {:<10} {made} made, {good} as expected ({}), {bad} not",
            fault.name(),
            fault.expected()
        );
    }
    if report.verify.checked > 0 {
        let verify = &report.verify;
        let _ = writeln!(
            out,
            "read back        {} tiles: {} equal byte for byte, {} not",
            verify.checked, verify.equal, verify.different
        );
    }
    for expectation in &report.expectations {
        let met = if expectation.met { "met" } else { "NOT MET" };
        let _ = writeln!(out, "expected {:<7} {}: {}, {met}", expectation.name, expectation.wanted, expectation.got);
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}
