//! What /metrics says, and that deploy/README.md says the same of it.

use crate::support::{ACQ, Daemon, await_found, crc, data_dir, frame, frame_with, key};
use std::collections::{BTreeMap, BTreeSet};
use tilecatcher::model::{AcqId, Checksum, TileKey};

/// A metric, as the page or the table has it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Described {
    kind: String,
    labels: BTreeSet<String>,
}

fn page(daemon: &Daemon) -> String {
    String::from_utf8(daemon.http.get_path("/metrics").expect("metrics").bytes).expect("text")
}

/// Waits until the page is so: acquisitions are shown once a second.
fn await_page(daemon: &Daemon, holds: impl Fn(&str) -> bool) {
    await_found(|| page(daemon), |page| holds(page));
}

/// The name of a line's metric: that of a histogram, for one of its parts.
fn metric_of<'a>(line: &'a str, known: &BTreeMap<String, Described>) -> &'a str {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    parts.into_iter().find(|whole| known.contains_key(*whole)).unwrap_or(name)
}

/// The names of a line's labels. No value of ours has a quote, comma or equals sign in it.
fn labels_of(line: &str) -> impl Iterator<Item = &str> {
    let inner = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inner, _)| inner);
    inner.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name).filter(|name| *name != "le")
}

/// What the page says: every metric has one HELP, one TYPE and at least one line.
fn served(page: &str) -> BTreeMap<String, Described> {
    let mut metrics: BTreeMap<String, Described> = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# HELP tilecatcher_")) {
        let (name, help) = line.split_once(' ').expect("a help text");
        assert!(help.len() > 10, "{name}: {help}");
        assert!(metrics.insert(format!("tilecatcher_{name}"), Described::default()).is_none(), "{name} twice");
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE tilecatcher_")) {
        let (name, kind) = line.split_once(' ').expect("a kind");
        metrics.get_mut(&format!("tilecatcher_{name}")).expect("HELP before TYPE").kind = kind.to_owned();
    }
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("tilecatcher_")) {
        let name = metric_of(line, &metrics).to_owned();
        let metric = metrics.get_mut(&name).unwrap_or_else(|| panic!("no HELP for {line}"));
        metric.labels.extend(labels_of(line).map(str::to_owned));
        seen.insert(name);
    }
    let silent: Vec<&String> = metrics.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(silent.is_empty(), "without a line: {silent:?}");
    metrics
}

fn docs() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/README.md")).expect("the docs")
}

/// What the table in deploy/README.md says, with the values that it names for a label.
fn documented() -> BTreeMap<String, (Described, BTreeMap<String, BTreeSet<String>>)> {
    let docs = docs();
    let mut metrics = BTreeMap::new();
    for row in docs.lines().filter(|line| line.starts_with("| `tilecatcher_")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else { panic!("not five cells: {row}") };
        assert!(!unit.is_empty() && meaning.len() > 10, "{row}");
        let (mut names, mut values) = (BTreeSet::new(), BTreeMap::new());
        // `reason`: `a`, `b` or `acquisition`, `camera` or `client`: words.
        let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        match labels.split_once(':') {
            Some((label, of)) => {
                let label = label.trim_matches('`').to_owned();
                values.insert(label.clone(), quoted(of));
                names.insert(label);
            }
            None => names = quoted(labels),
        }
        let described = Described { kind: kind.to_owned(), labels: names };
        let name = name.trim_matches('`').to_owned();
        assert!(metrics.insert(name.clone(), (described, values)).is_none(), "{name} is documented twice");
    }
    metrics
}

/// A daemon whose page has every metric.
fn busy() -> (tempfile::TempDir, Daemon) {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), b"x"));
    connection.answer();
    daemon.http.get_path("/healthz").expect("an answer");
    await_page(&daemon, |page| page.contains("tilecatcher_acquisition_missing_tiles{acquisition=\"123\"} 63\n"));
    (data, daemon)
}

#[test]
fn every_metric_is_documented_once_and_every_documented_one_exists() {
    let (_data, daemon) = busy();
    let (served, documented) = (served(&page(&daemon)), documented());
    for (name, metric) in &served {
        let (described, _) = documented.get(name).unwrap_or_else(|| panic!("{name} is not in deploy/README.md"));
        assert_eq!(metric, described, "{name}: the page, and deploy/README.md");
    }
    let gone: Vec<&String> = documented.keys().filter(|name| !served.contains_key(*name)).collect();
    assert!(gone.is_empty(), "deploy/README.md lists metrics that do not exist: {gone:?}");
}

#[test]
fn every_value_that_is_documented_for_a_label_has_its_line_from_the_start() {
    let (_data, daemon) = busy();
    let page = page(&daemon);
    let mut values_seen = 0;
    for (name, (_, values)) in documented() {
        for (label, values) in values {
            for value in values {
                assert!(page.contains(&format!("{name}{{{label}=\"{value}\"}} ")), "{name}: {label} {value}");
                values_seen += 1;
            }
        }
    }
    assert!(values_seen > 40, "{values_seen}");
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let (_data, daemon) = busy();
    let (page, docs) = (page(&daemon), docs());
    for (name, metric) in served(&page) {
        assert_eq!(metric.kind == "counter", name.ends_with("_total"), "{name} is a {}", metric.kind);
        let unit = documented_unit(&docs, &name);
        for (said, end) in [("s", "_seconds"), ("bytes", "_bytes")] {
            let bare = name.trim_end_matches("_total");
            assert_eq!(unit == said, bare.ends_with(end), "{name} in {unit}");
        }
        assert!(!["milliseconds", "_ms", "_kb", "_mb"].iter().any(|end| name.ends_with(end)), "{name}");
    }
}

fn documented_unit<'a>(docs: &'a str, name: &str) -> &'a str {
    let row = docs.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect("documented");
    row.split('|').nth(3).expect("a unit").trim()
}

#[test]
fn an_acquisition_has_its_lines_from_start_to_deletion() {
    let (_data, daemon) = busy();
    let of = |name: &str| format!("tilecatcher_acquisition_{name}{{acquisition=\"123\"}}");
    let mut connection = daemon.connect();
    for col in 1..4 {
        connection.send(&frame(key(col, 0), b"image"));
        connection.answer();
    }
    connection.send(&frame_with(key(5, 5), b"image", Checksum::Crc32(1)));
    assert_ne!(connection.answer().status, 0);
    let stranger = TileKey { acq: AcqId(4711), ..key(0, 0) };
    connection.send(&frame_with(stranger, b"image", crc(b"image")));
    assert_ne!(connection.answer().status, 0);
    daemon.await_metric(&of("missing_tiles"), 60.0);
    daemon.await_metric(&of("expected_tiles"), 64.0);
    daemon.await_metric(&of("open"), 1.0);
    daemon.await_metric(&of("refused_tiles_total"), 1.0);
    daemon.await_metric("tilecatcher_acquisition_refused_tiles_total{acquisition=\"other\"}", 1.0);
    daemon.await_metric("tilecatcher_acquisition_tiles_total{acquisition=\"123\",camera=\"1\"}", 4.0);
    daemon.await_metric("tilecatcher_acquisition_bytes_total{acquisition=\"123\",camera=\"1\"}", 16.0);
    let memory = "tilecatcher_acquisitions_memory_bytes";
    daemon.await_metric_that(memory, |bytes| (100.0..10_000.0).contains(&bytes));
    daemon.await_metric_that(&of("idle_seconds"), |seconds| (0.0..30.0).contains(&seconds));
    daemon.http.end_acquisition(ACQ).expect("ended");
    daemon.await_metric(&of("open"), 0.0);
    // Nobody waits for an ended one.
    await_page(&daemon, |page| !page.contains("acquisition_idle_seconds{acquisition=\"123\""));
    daemon.http.delete_acquisition(ACQ).expect("deleted");
    await_page(&daemon, |page| !page.contains("acquisition=\"123\""));
    daemon.await_metric(memory, 0.0);
}

#[test]
fn every_stage_of_a_tile_is_timed_once_and_none_takes_longer_than_all() {
    let (_data, daemon) = busy();
    let count = |stage: &str| daemon.metric(&format!("tilecatcher_{stage}_seconds_count"));
    let stages = ["receive", "verify", "queue", "journal_write", "journal_sync", "index", "ack"];
    for stage in stages {
        daemon.await_metric(&format!("tilecatcher_{stage}_seconds_count"), 1.0);
    }
    let mut connection = daemon.connect();
    connection.send(&frame(key(1, 1), b"y"));
    connection.answer();
    daemon.await_metric("tilecatcher_ack_seconds_count", 2.0);
    // The last one that a lane publishes.
    daemon.await_metric("tilecatcher_index_seconds_count", 2.0);
    let sum = |stage: &str| daemon.metric(&format!("tilecatcher_{stage}_seconds_sum"));
    // One tile a group commit: what all stages behind the last byte take is in the whole.
    let parts: f64 = stages[1..6].iter().map(|stage| sum(stage)).sum();
    assert!(parts > 0.0 && parts <= sum("ack"), "{parts} of {}", sum("ack"));
    assert_eq!(count("journal_sync"), 2.0);
}

#[test]
fn the_disk_is_full_in_finite_time_only_while_tiles_come() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    daemon.await_metric("tilecatcher_disk_full_seconds", f64::INFINITY);
    let mut connection = daemon.connect();
    // As long as the forecast needs to see a rate.
    for row in 0.. {
        connection.send(&frame(key(0, row), &vec![7; 10_000]));
        connection.answer();
        if daemon.metric("tilecatcher_disk_full_seconds").is_finite() {
            break;
        }
    }
    assert!(daemon.metric("tilecatcher_disk_full_seconds") > 0.0);
    let written = daemon.metric("tilecatcher_journal_written_bytes_total");
    assert!(written >= daemon.metric("tilecatcher_stored_bytes_total") && written % 4096.0 == 0.0, "{written}");
}

#[test]
fn pressure_and_build_are_on_the_page() {
    let (_data, daemon) = busy();
    for of in ["system", "tile_queue", "content_queue"] {
        assert_eq!(daemon.metric(&format!("tilecatcher_pressure{{of=\"{of}\"}}")), 0.0);
    }
    let version = env!("CARGO_PKG_VERSION");
    let build = page(&daemon).lines().filter(|line| line.starts_with("tilecatcher_build_info{")).count();
    assert_eq!(build, 1);
    assert!(page(&daemon).contains(&format!("version=\"{version}\"")));
    assert!(daemon.metric("process_start_time_seconds") > 1.6e9);
}
