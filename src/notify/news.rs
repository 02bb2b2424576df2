//! What is said of what a watcher saw: every title, every text. Pure: no daemon is needed to test it.

use super::message::{Kind, News, State};
use crate::base::stop::StopReason;
use crate::base::units::{ByteSize, Span};
use crate::catalog::{Ending, Finding, MissingRun};
use crate::index::AcquisitionView;
use crate::journal::MirrorPhase;
use crate::model::{AcqId, Pressure};
use serde_json::{Value, json};
use std::time::Duration;

/// An open acquisition that has been silent for longer was left open, and has not stalled.
const LEFT_OPEN: Duration = Duration::from_secs(24 * 3600);
/// Missing runs and damaged records that a message names.
pub(super) const NAMED_MAX: usize = 10;

/// What lasts, at a glance.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) stop: Option<StopReason>,
    pub(super) disk: Pressure,
    pub(super) free_bytes: u64,
    pub(super) index_failed: bool,
    pub(super) mirror: Option<MirrorPhase>,
    pub(super) damaged: usize,
}

/// Raised for what holds, resolved for what does not: whether that is worth a message depends on what was told before.
pub(super) fn judge(seen: &Seen, unsaid: &[Finding], disk_low_bytes: u64) -> Vec<News> {
    let mut all = vec![disk_full(seen)];
    all.extend(disk_low(seen, disk_low_bytes));
    all.extend(damage(seen.damaged, unsaid));
    all.extend(seen.mirror.and_then(mirror));
    all.extend(seen.index_failed.then(index_failed));
    all.extend(seen.stop.and_then(stopping));
    all
}

fn news(kind: Kind, state: State, subject: &str, title: String, text: &str, details: Value) -> News {
    let text = if text.is_empty() { format!("{title}.") } else { format!("{title}.\n\n{text}") };
    News { kind, state, subject: subject.to_owned(), title, text, details }
}

fn disk_full(seen: &Seen) -> News {
    let free = rounded(seen.free_bytes);
    let details = json!({"free_bytes": seen.free_bytes});
    if seen.disk < Pressure::Red {
        return news(
            Kind::DiskFull,
            State::Resolved,
            "disk",
            format!("tiles find room again, {free} are free"),
            "",
            details,
        );
    }
    let text = "Tiles are refused with status 3, or will be soon; senders keep them and try again. Free space, or delete \
        acquisitions and run `tilecatcher compact`. No restart is needed.";
    news(Kind::DiskFull, State::Raised, "disk", format!("the disk is full, {free} are free"), text, details)
}

/// Over is it only somewhat above the limit: what wavers at it is one message.
fn disk_low(seen: &Seen, low_bytes: u64) -> Option<News> {
    let free = rounded(seen.free_bytes);
    let details = json!({"free_bytes": seen.free_bytes, "disk_low_bytes": low_bytes});
    if seen.free_bytes < low_bytes && seen.disk < Pressure::Red {
        let text =
            format!("That is less than notify.disk_low ({}). Make room before tiles are refused.", ByteSize(low_bytes));
        return Some(news(
            Kind::DiskLow,
            State::Raised,
            "disk",
            format!("the disk runs low, {free} are free"),
            &text,
            details,
        ));
    }
    let is_over = seen.free_bytes > low_bytes.saturating_add(low_bytes / 20);
    is_over.then(|| {
        news(Kind::DiskLow, State::Resolved, "disk", format!("the disk ran low, {free} are free"), "", details)
    })
}

fn damage(damaged: usize, unsaid: &[Finding]) -> Option<News> {
    const SUBJECT: &str = "stored data";
    if damaged == 0 {
        let title = "all records that were damaged hold again or are gone".to_owned();
        return Some(news(Kind::Damage, State::Resolved, SUBJECT, title, "", json!({"damaged": 0})));
    }
    let first = unsaid.first()?;
    let named: Vec<String> = unsaid.iter().map(place).collect();
    let title = format!("stored records are damaged, {damaged} are known");
    let text = format!(
        "New, the first found by {:?}:\n{}\n\nThey are not served, all else is. Look at the disk (dmesg, SMART), run \
        `tilecatcher verify`, and send the tiles again from where they came.",
        first.found_by,
        named.join("\n")
    );
    let details = json!({"damaged": damaged, "new": unsaid});
    Some(news(Kind::Damage, State::Raised, SUBJECT, title, &text, details))
}

fn place(finding: &Finding) -> String {
    let tile = finding.tile.map(|tile| format!("acquisition {} column {} row {}, ", tile.acq, tile.col, tile.row));
    format!(
        "  {}segment {:016x} offset {}: {}",
        tile.unwrap_or_default(),
        finding.segment,
        finding.offset,
        finding.what
    )
}

fn mirror(phase: MirrorPhase) -> Option<News> {
    let news = |state, title: &str, text| news(Kind::MirrorLost, state, "mirror", title.to_owned(), text, json!({}));
    match phase {
        MirrorPhase::Lost => Some(news(
            State::Raised,
            "the mirror is lost",
            "Tiles are acknowledged with one copy, or refused (mirror.when_lost). Look at the mirror's disk; it is brought up \
            to date when it is back.",
        )),
        MirrorPhase::InSync => Some(news(State::Resolved, "the mirror is back and holds everything", "")),
        // On its way back: not yet over.
        MirrorPhase::Resynchronising => None,
    }
}

fn index_failed() -> News {
    let text = "Tiles are stored until index.overlay_max are waiting, then refused with status 2. Restart the daemon: the \
        index is caught up or rebuilt.";
    news(Kind::IndexFailed, State::Raised, "index", "the index' store failed".to_owned(), text, json!({}))
}

fn stopping(reason: StopReason) -> Option<News> {
    let (kind, title, text) = match reason {
        StopReason::Requested => return None,
        StopReason::StorageFailed => (
            Kind::StorageFailed,
            "storage failed, the daemon stops",
            "Writing or syncing the journal failed; tiles that waited were refused with status 4. Everything that was \
            acknowledged is recovered by a restart. Look at the disk first (dmesg, SMART).",
        ),
        StopReason::Panicked => (
            Kind::Panicked,
            "a thread panicked, the daemon stops",
            "A fault inside: please report it, with the lines of the log. A restart recovers everything that was acknowledged.",
        ),
    };
    Some(news(kind, State::Raised, "daemon", title.to_owned(), text, json!({})))
}

pub(super) fn of_ending(ending: &Ending, missing: &[MissingRun]) -> News {
    let (acq, completeness) = (ending.acq, &ending.completeness);
    let all = completeness.all;
    let subject = format!("acquisition {acq}");
    let mut details = serde_json::to_value(completeness).unwrap_or_default();
    details["acquisition"] = acq.0.into();
    if all.missing == 0 {
        let title = format!("acquisition {acq} ended complete, {} tiles", all.received);
        return news(Kind::AcquisitionComplete, State::Happened, &subject, title, "", details);
    }
    let named = &missing[..missing.len().min(NAMED_MAX)];
    details["first_missing"] = serde_json::to_value(named).unwrap_or_default();
    let title = format!("acquisition {acq} ended with {} of {} tiles missing", all.missing, all.expected);
    let runs: Vec<String> = named.iter().map(run).collect();
    let text = format!(
        "The first of them:\n{}\n\nSend them again, or look: GET /service/v1/acquisition/{acq}/completeness",
        runs.join("\n")
    );
    news(Kind::AcquisitionIncomplete, State::Happened, &subject, title, &text, details)
}

fn run(run: &MissingRun) -> String {
    match run.last_row == run.first_row {
        true => format!("  column {} row {}", run.col, run.first_row),
        false => format!("  column {} rows {} to {}", run.col, run.first_row, run.last_row),
    }
}

/// For how long an open acquisition has been silent, if that is longer than `after` and it was not just left open.
pub(super) fn silence(view: &AcquisitionView, after: Duration, now_ns: i64) -> Option<Duration> {
    silent_for(view, now_ns).filter(|silent| (after..LEFT_OPEN + after).contains(silent))
}

/// Whether it has been silent for so long that it was just left open: that is no end of a stall.
pub(super) fn is_left_open(view: &AcquisitionView, after: Duration, now_ns: i64) -> bool {
    silent_for(view, now_ns).is_some_and(|silent| silent >= LEFT_OPEN + after)
}

fn silent_for(view: &AcquisitionView, now_ns: i64) -> Option<Duration> {
    let started = view.head.started.as_ref().filter(|started| started.ended_ns.is_none())?;
    let last_ns = view.counters.last_received_ns.max(started.first_started_ns);
    u64::try_from(now_ns.saturating_sub(last_ns)).ok().map(Duration::from_nanos)
}

pub(super) fn of_stall(acq: AcqId, silence: Duration, tiles: u64) -> News {
    let silent = Span(Duration::from_secs(silence.as_secs()));
    let title = format!("acquisition {acq} has stalled");
    let text = format!(
        "It is open, tiles are missing, and for {silent} none has come; {tiles} have come so far. Look at the microscope, or \
        end the acquisition."
    );
    let details = json!({"acquisition": acq.0, "silent_s": silence.as_secs(), "tiles": tiles});
    news(Kind::CaptureStalled, State::Raised, &format!("acquisition {acq}"), title, &text, details)
}

pub(super) fn of_end_of_stall(acq: AcqId) -> News {
    let title = format!("acquisition {acq} goes on, or was ended");
    let details = json!({"acquisition": acq.0});
    news(Kind::CaptureStalled, State::Resolved, &format!("acquisition {acq}"), title, "", details)
}

/// For people: three digits and a unit.
fn rounded(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{}.{} {unit}", bytes / factor, bytes % factor * 10 / factor),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Completeness, ExpectedBy, FoundBy, Tally3};
    use crate::index::{AcquisitionHead, StartedView};
    use crate::notify::repeats::Repeats;
    use std::sync::Arc;
    use std::time::Instant;

    const WELL: Seen = Seen {
        stop: None,
        disk: Pressure::Green,
        free_bytes: 1000,
        index_failed: false,
        mirror: Some(MirrorPhase::InSync),
        damaged: 0,
    };

    fn raised(seen: &Seen, unsaid: &[Finding]) -> Vec<Kind> {
        let all = judge(seen, unsaid, 500);
        all.iter().filter(|news| news.state == State::Raised).map(|news| news.kind).collect()
    }

    fn finding() -> Finding {
        Finding { segment: 3, offset: 4096, sequence: None, tile: None, what: "crc".into(), found_by: FoundBy::Scrub }
    }

    #[test]
    fn a_daemon_that_is_well_gives_no_cause_for_a_message() {
        assert_eq!(raised(&WELL, &[]), []);
        let mut repeats = Repeats::new(Duration::ZERO);
        assert!(!judge(&WELL, &[], 500).iter().any(|news| repeats.is_due(news, Instant::now())));
    }

    #[test]
    fn each_trouble_is_raised_by_itself() {
        assert_eq!(raised(&Seen { free_bytes: 499, ..WELL }, &[]), [Kind::DiskLow]);
        assert_eq!(raised(&Seen { free_bytes: 1, disk: Pressure::Red, ..WELL }, &[]), [Kind::DiskFull]);
        assert_eq!(raised(&Seen { mirror: Some(MirrorPhase::Lost), ..WELL }, &[]), [Kind::MirrorLost]);
        assert_eq!(raised(&Seen { index_failed: true, ..WELL }, &[]), [Kind::IndexFailed]);
        assert_eq!(raised(&Seen { stop: Some(StopReason::StorageFailed), ..WELL }, &[]), [Kind::StorageFailed]);
        assert_eq!(raised(&Seen { stop: Some(StopReason::Panicked), ..WELL }, &[]), [Kind::Panicked]);
        assert_eq!(raised(&Seen { stop: Some(StopReason::Requested), ..WELL }, &[]), []);
        assert_eq!(raised(&Seen { damaged: 1, ..WELL }, &[finding()]), [Kind::Damage]);
        assert_eq!(raised(&Seen { damaged: 1, ..WELL }, &[]), [], "known from an earlier life, or told");
    }

    #[test]
    fn what_is_over_is_resolved_and_what_wavers_is_not() {
        let resolved = |seen: &Seen| {
            let all = judge(seen, &[], 500);
            all.iter().filter(|news| news.state == State::Resolved).map(|news| news.kind).collect::<Vec<_>>()
        };
        assert_eq!(resolved(&WELL), [Kind::DiskFull, Kind::DiskLow, Kind::Damage, Kind::MirrorLost]);
        assert!(!resolved(&Seen { free_bytes: 510, ..WELL }).contains(&Kind::DiskLow), "hardly above the limit");
        let returning = Seen { mirror: Some(MirrorPhase::Resynchronising), ..WELL };
        assert!(!resolved(&returning).contains(&Kind::MirrorLost), "not back yet");
    }

    fn ending(expected: u64, received: u64) -> Ending {
        let all = Tally3 { expected, received, missing: expected - received };
        let (sections, cameras) = Default::default();
        let completeness = Completeness { expected_by: ExpectedBy::Mosaic, all, unexpected: 0, sections, cameras };
        Ending { acq: AcqId(7), completeness }
    }

    #[test]
    fn an_end_says_how_complete_it_was_and_names_the_first_missing_tiles() {
        let missing: Vec<MissingRun> = (0..20).map(|col| MissingRun { col, first_row: 3, last_row: 4 }).collect();
        let news = of_ending(&ending(64, 24), &missing);
        assert_eq!(
            (news.kind, news.title.as_str()),
            (Kind::AcquisitionIncomplete, "acquisition 7 ended with 40 of 64 tiles missing")
        );
        assert!(news.text.contains("column 9 rows 3 to 4") && !news.text.contains("column 10"), "{}", news.text);
        assert_eq!(news.details["missing"], 40);
        assert_eq!(news.details["first_missing"][0], json!({"col": 0, "first_row": 3, "last_row": 4}));
        let news = of_ending(&ending(64, 64), &[]);
        assert_eq!(
            (news.kind, news.title.as_str()),
            (Kind::AcquisitionComplete, "acquisition 7 ended complete, 64 tiles")
        );
    }

    fn open(last_received_s: i64, ended_ns: Option<i64>) -> AcquisitionView {
        let started = StartedView { first_started_ns: 1_000_000_000, ended_ns, ..StartedView::default() };
        let head = AcquisitionHead { started: Some(started), ..AcquisitionHead::default() };
        let mut view = AcquisitionView { head: Arc::new(head), ..AcquisitionView::default() };
        view.counters.last_received_ns = last_received_s * 1_000_000_000;
        view
    }

    #[test]
    fn an_acquisition_has_stalled_when_it_is_open_and_silent_but_not_for_days() {
        let after = Duration::from_secs(600);
        let silence = |view: &AcquisitionView, now_s: i64| silence(view, after, now_s * 1_000_000_000);
        assert_eq!(silence(&open(1000, None), 1599), None);
        assert_eq!(silence(&open(1000, None), 1600), Some(after));
        assert_eq!(silence(&open(0, None), 601), Some(after), "no tile yet: since the start");
        assert_eq!(silence(&open(1000, Some(5)), 1600), None, "ended");
        assert_eq!(silence(&open(1000, None), 1000 + 3 * 86400), None, "left open");
        assert_eq!(silence(&open(1000, None), 10), None, "the clock was set back");
    }

    #[test]
    fn an_acquisition_that_is_left_open_has_not_gone_on() {
        let after = Duration::from_secs(600);
        let is_left_open = |view: &AcquisitionView, now_s: i64| is_left_open(view, after, now_s * 1_000_000_000);
        assert!(is_left_open(&open(1000, None), 1000 + 86400 + 600));
        assert!(!is_left_open(&open(1000, None), 1000 + 86400 + 599), "it still stalls");
        assert!(!is_left_open(&open(1000, Some(5)), 1000 + 3 * 86400), "ended");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([rounded(999), rounded(1536), rounded(5 << 40)], ["999 B", "1.5 KiB", "5.0 TiB"]);
    }
}
