//! What is known to be damaged: every stored record that does not hold, once, in memory and in a report file.
//!
//! The report is `quarantine/damage.jsonl`: a line when a record is found damaged, another when it holds again. It is
//! read at the start, so that what was found before a restart is still counted. It is information for the operator:
//! no answer is decided by it, and one that can not be written keeps nothing from being served.

use super::activity::Activity;
use crate::journal::{BadRecord, Damage, DamageKind, ReadError, parse_segment_file_name};
use crate::model::{AcqId, FrameNumber, Location, TileEntry, TileId, TileKey, TileVersion};
use crate::telemetry::Metrics;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most damaged records that are told apart: a disk that is all damage must not fill memory or the disk with reports.
const RECORDS_MAX: usize = 100_000;
/// Findings that are kept for who asks what is new.
const NEWS_MAX: usize = 16;
/// Longest report that is read at a start, bytes.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// Who found a damaged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundBy {
    /// The background scrub.
    Scrub,
    /// A reader, who got an error instead.
    Read,
    /// `verify-tile`.
    Verify,
    /// A sender that sent the tile again, which was stored anew.
    Resend,
    /// Recovery, at a start.
    Start,
}

impl FoundBy {
    /// As the report has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::Read => "read",
            Self::Verify => "verify",
            Self::Resend => "resend",
            Self::Start => "start",
        }
    }
}

/// The tile that a damaged record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedTile {
    /// Its identifier.
    pub id: u64,
    /// Its acquisition.
    pub acq: u64,
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// Frame; -1 for a stable tile.
    pub frame: i32,
    /// Version.
    pub version: u32,
}

/// A damaged record, or another damaged place of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Number of the segment, as in its file's name.
    pub segment: u64,
    /// Offset in it, bytes.
    pub offset: u64,
    /// The record's sequence, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Its tile, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<DamagedTile>,
    /// What does not hold.
    pub what: String,
    /// Who found it.
    pub found_by: FoundBy,
}

/// A damaged record as the report has it.
#[derive(Clone, Debug)]
pub struct ReportedDamage {
    /// When it was found, RFC 3339 UTC.
    pub time: String,
    /// What was found.
    pub finding: Finding,
}

/// A line of the report.
#[derive(Serialize, Deserialize)]
struct Line {
    /// RFC 3339, UTC.
    time: String,
    event: Event,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Damaged,
    Holds,
}

/// Segment and offset, and what is known of it.
type Places = BTreeMap<(u64, u64), Known>;

#[derive(Clone, Copy)]
struct Known {
    found_by: FoundBy,
    /// Only not to be read: it may be whole.
    is_unread: bool,
    tile: Option<DamagedTile>,
}

/// What is said of what the disk did not give at a start.
const UNREAD: &str = "can not be read";

impl Known {
    fn of(finding: &Finding) -> Self {
        Self { found_by: finding.found_by, is_unread: finding.what == UNREAD, tile: finding.tile }
    }
}

/// The damaged records of a data directory. Clones share it.
#[derive(Clone)]
pub struct DamageLog {
    path: Arc<Path>,
    metrics: Arc<Metrics>,
    damaged: Arc<Mutex<Places>>,
    /// Found since somebody asked, at most [`NEWS_MAX`]: the first ones.
    news: Arc<Mutex<Vec<Finding>>>,
    activity: Arc<Activity>,
}

impl Finding {
    /// A tile whose bytes could not be given.
    #[must_use]
    pub fn of_tile(entry: &TileEntry, error: &ReadError, found_by: FoundBy) -> Self {
        let tile = DamagedTile::new(entry.id, &entry.key, entry.version);
        let Location { segment, offset, .. } = entry.location;
        let sequence = Some(entry.sequence.0);
        Self { segment, offset, sequence, tile: Some(tile), what: error.what(), found_by }
    }

    /// Any record that could not be read.
    #[must_use]
    pub fn of_record(location: Location, sequence: Option<u64>, error: &ReadError, found_by: FoundBy) -> Self {
        let Location { segment, offset, .. } = location;
        Self { segment, offset, sequence, tile: None, what: error.what(), found_by }
    }

    /// What recovery came upon, if it is damage to what had been synced.
    #[must_use]
    pub fn of_recovery(damage: &Damage) -> Option<Self> {
        let (segment, _) = parse_segment_file_name(damage.path.file_name()?.to_str()?)?;
        let what = match (damage.kind, damage.offset) {
            (DamageKind::Unreadable, _) => UNREAD,
            (_, 0) => "the segment header is damaged",
            _ => "not a record: the header is damaged",
        };
        damage.kind.may_be_loss().then(|| Self {
            segment,
            offset: damage.offset,
            sequence: None,
            tile: None,
            what: what.to_owned(),
            found_by: FoundBy::Start,
        })
    }

    /// What a scrub came upon.
    #[must_use]
    pub fn of_bad(segment: u64, bad: &BadRecord, found_by: FoundBy) -> Self {
        let sequence = bad.header.map(|header| header.sequence.0);
        let stamp = bad.header.and_then(|header| header.tile);
        let tile = stamp.map(|tile| DamagedTile::new(tile.id, &tile.key, tile.version));
        Self { segment, offset: bad.offset, sequence, tile, what: bad.what.clone(), found_by }
    }
}

impl DamagedTile {
    fn new(id: TileId, key: &TileKey, version: TileVersion) -> Self {
        let TileKey { acq, col, row, frame } = *key;
        Self { id: id.0, acq: acq.0, col, row, frame: frame.0, version: version.0 }
    }
}

impl DamageLog {
    /// Reads the report of a data directory. What it says of segments that are gone is passed over.
    #[must_use]
    pub fn open(
        data_dir: &Path,
        metrics: &Arc<Metrics>,
        activity: &Arc<Activity>,
        is_there: impl Fn(u64) -> bool,
    ) -> Self {
        let path = data_dir.join("quarantine").join("damage.jsonl");
        let damaged = match read_report(&path) {
            Ok(lines) => damaged_by(lines).into_iter().filter(|((segment, _), _)| is_there(*segment)).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Places::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the report of damaged records can not be read: what it says is counted again when it is found again");
                Places::new()
            }
        };
        Metrics::set(&metrics.corrupt_records, damaged.len());
        let (metrics, activity) = (Arc::clone(metrics), Arc::clone(activity));
        let (damaged, news) = (Arc::new(Mutex::new(damaged)), Arc::default());
        Self { path: path.into(), metrics, damaged, news, activity }
    }

    /// Number of records that are known to be damaged now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes a finding in: reported and logged if it is a new one. Returns whether it is.
    pub fn found(&self, finding: &Finding) -> bool {
        let mut damaged = self.lock();
        let place = (finding.segment, finding.offset);
        if damaged.len() >= RECORDS_MAX || damaged.contains_key(&place) {
            return false;
        }
        damaged.insert(place, Known::of(finding));
        let Finding { segment, offset, sequence, tile, what, found_by } = finding;
        let tile = tile.map(|tile| format!("{}/{}/{}/{} id {}", tile.acq, tile.col, tile.row, tile.frame, tile.id));
        tracing::error!(
            segment = format!("{segment:016x}"),
            offset,
            sequence,
            tile,
            what,
            ?found_by,
            report = %self.path.display(),
            "a stored record is damaged: it is not served, all else is; see \"Scrub and damaged data\" in deploy/README.md"
        );
        self.report(Event::Damaged, finding);
        // Who has seen it counted finds it in the report, also behind a kill.
        Metrics::set(&self.metrics.corrupt_records, damaged.len());
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() < NEWS_MAX {
            news.push(finding.clone());
        }
        drop(news);
        self.tell(finding.tile);
        true
    }

    /// The first `most` records that are known to be damaged, as the report has them.
    #[must_use]
    pub fn list(&self, most: usize) -> Vec<ReportedDamage> {
        let known: BTreeSet<(u64, u64)> = self.lock().keys().copied().take(most).collect();
        let Some(lines) = read_report(&self.path).ok().filter(|_| !known.is_empty()) else { return Vec::new() };
        let mut found = BTreeMap::new();
        for line in lines.filter(|line| line.event == Event::Damaged) {
            let place = (line.finding.segment, line.finding.offset);
            if known.contains(&place) {
                // The last word on a place is the one that holds.
                found.insert(place, ReportedDamage { time: line.time, finding: line.finding });
            }
        }
        found.into_values().collect()
    }

    /// What was found since this was last asked, at most the first 16.
    #[must_use]
    pub fn take_news(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stable tiles of an acquisition that are known to be damaged.
    #[must_use]
    pub fn tiles_of(&self, acq: AcqId) -> Vec<DamagedTile> {
        let is_meant = |tile: &DamagedTile| tile.acq == acq.0 && tile.frame == FrameNumber::STABLE.0;
        self.lock().values().filter_map(|known| known.tile).filter(is_meant).collect()
    }

    /// A tile's place looks different now.
    fn tell(&self, tile: Option<DamagedTile>) {
        if let Some(tile) = tile.filter(|tile| tile.frame == FrameNumber::STABLE.0) {
            self.activity.place_changed(AcqId(tile.acq), tile.col, tile.row);
        }
    }

    /// Whether a place is known to be damaged.
    #[must_use]
    pub fn is_known(&self, segment: u64, offset: u64) -> bool {
        self.lock().contains_key(&(segment, offset))
    }

    /// Whether this version of a tile is known to be damaged.
    #[must_use]
    pub fn has(&self, entry: &TileEntry) -> bool {
        self.is_known(entry.location.segment, entry.location.offset)
    }

    /// Takes notice that a segment was read whole: what was damaged in it and is not among `bad` holds again. Not a record
    /// that recovery missed: the segment's table does not name it, so nobody looks for it any more. One that it could not
    /// read is looked at again by each start.
    pub fn settle(&self, segment: u64, bad: &[Finding]) {
        let mut damaged = self.lock();
        let known = damaged.range((segment, 0)..=(segment, u64::MAX));
        let known =
            known.filter(|((_, offset), known)| known.found_by != FoundBy::Start || known.is_unread || *offset == 0);
        let known: Vec<u64> = known.map(|((_, offset), _)| *offset).collect();
        for offset in known.into_iter().filter(|offset| !bad.iter().any(|finding| finding.offset == *offset)) {
            let known = damaged.remove(&(segment, offset));
            self.tell(known.and_then(|known| known.tile));
            tracing::warn!(segment = format!("{segment:016x}"), offset, "a record that was damaged holds again");
            let what = "holds again".to_owned();
            let finding = Finding { segment, offset, sequence: None, tile: None, what, found_by: FoundBy::Scrub };
            self.report(Event::Holds, &finding);
        }
        Metrics::set(&self.metrics.corrupt_records, damaged.len());
    }

    /// Appends a line. One write, so that lines stay whole.
    fn report(&self, event: Event, finding: &Finding) {
        let line = Line { time: jiff::Timestamp::now().to_string(), event, finding: finding.clone() };
        let mut text = serde_json::to_vec(&line).expect("plain data has a JSON form");
        text.push(b'\n');
        let append = || {
            let mut file = File::options().create(true).append(true).open(&self.path)?;
            file.write_all(&text)?;
            file.sync_data()
        };
        if let Err(error) = append() {
            tracing::warn!(path = %self.path.display(), %error, "the report of damaged records can not be written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of a report, one at a time: it may be long. Those that are none (cut off, edited) are passed over.
fn read_report(path: &Path) -> io::Result<impl Iterator<Item = Line>> {
    let report = io::BufReader::new(io::Read::take(File::open(path)?, REPORT_BYTES_MAX));
    let lines = report.split(b'\n').map_while(Result::ok);
    Ok(lines.filter_map(|line| serde_json::from_slice(&line).ok()))
}

/// The places that a report leaves damaged.
fn damaged_by(report: impl Iterator<Item = Line>) -> Places {
    let mut damaged = Places::new();
    for line in report {
        let place = (line.finding.segment, line.finding.offset);
        match line.event {
            Event::Damaged if damaged.len() < RECORDS_MAX => {
                _ = damaged.entry(place).or_insert(Known::of(&line.finding))
            }
            Event::Damaged => {}
            Event::Holds => _ = damaged.remove(&place),
        }
    }
    damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(segment: u64, offset: u64) -> Finding {
        let what = "x".to_owned();
        Finding { segment, offset, sequence: Some(7), tile: None, what, found_by: FoundBy::Scrub }
    }

    fn open(dir: &Path) -> DamageLog {
        DamageLog::open(dir, &Arc::new(Metrics::new()), &Arc::default(), |segment| segment < 10)
    }

    #[test]
    fn a_record_is_counted_once_until_it_holds_again_over_restarts_too() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("quarantine")).expect("made");
        let log = open(dir.path());
        assert!(log.found(&finding(1, 4096)) && log.found(&finding(1, 8192)) && log.found(&finding(20, 4096)));
        assert!(!log.found(&finding(1, 4096)));
        // A line that a power cut left half: the next one must still be read.
        let report = dir.path().join("quarantine/damage.jsonl");
        let text = std::fs::read_to_string(&report).expect("a report");
        std::fs::write(&report, format!("{text}{{\"time\":\n")).expect("written");
        let log = open(dir.path());
        assert_eq!(log.count(), 2, "segment 20 is gone");
        log.settle(1, &[finding(1, 8192)]);
        assert!(!log.is_known(1, 4096) && log.is_known(1, 8192));
        assert_eq!(open(dir.path()).count(), 1);
        assert_eq!(std::fs::read_to_string(&report).expect("a report").lines().count(), 5);
    }
}
