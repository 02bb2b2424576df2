//! All metrics of the daemon, each named, explained and given its unit once, here. deploy/README.md lists them.
//!
//! Threads on the data path count into plain numbers and publish once per wake-up ([`LocalCounts`]); nothing here
//! looks up a label per tile.

use super::HttpCloseReason;
use super::notifications::{NotificationCounts, NotifyChannel, NotifyOutcome};
use super::tls::{TlsClient, TlsClients, TlsRefusal};
use crate::base::life::Life;
use crate::model::Refusal;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::sync::Arc;

/// How an accepted tile was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// The first content of its key.
    New,
    /// The content was there already.
    Duplicate,
    /// It replaced another content.
    Replaced,
}

/// Why a capture connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed between frames.
    Peer,
    /// The peer closed inside a frame, or the connection broke.
    Cut,
    /// A frame above the limit.
    Framing,
    /// Too slow inside a frame.
    Slow,
    /// The peer does not read its answers.
    Unread,
    /// More connections than allowed.
    Limit,
    /// More connections than allowed from one address.
    PeerLimit,
    /// The daemon stops.
    Stopping,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// The peer is neither on this machine nor in a trusted network.
    NotAllowed,
}

/// Why a request to the HTTP port may not do what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedAccess {
    /// It carries no token.
    NoToken,
    /// Its token is not known.
    BadToken,
    /// Too many wrong tokens came from its address.
    TooMany,
    /// Its token or address lacks the scope.
    Scope,
    /// It names a host that is not this one.
    Host,
    /// It comes from the page of another site.
    Origin,
    /// The route has no scope.
    NoScope,
}

/// The daemon's metrics.
pub struct Metrics {
    registry: Registry,
    /// Signs of life of the threads on the way of a tile and of the HTTP port.
    pub life: Arc<Life>,
    stored: [IntCounter; 3],
    refused: [IntCounter; Refusal::ALL.len()],
    closed: [IntCounter; CloseReason::ALL.len()],
    /// Connections on the capture port now.
    pub connections: IntGauge,
    /// Connections ever accepted.
    pub connections_total: IntCounter,
    /// Bytes read from the capture port.
    pub received_bytes: IntCounter,
    /// Bytes of tile payloads written to the journal.
    pub stored_bytes: IntCounter,
    /// Tiles outside the grid that the acquisition's log announces.
    pub beyond_grid: IntCounter,
    /// Answers whose peer was gone.
    pub unanswered: IntCounter,
    /// Last byte received to answer handed to the socket.
    pub ack_seconds: Histogram,
    /// One write of a group commit.
    pub write_seconds: Histogram,
    /// One sync of a group commit.
    pub sync_seconds: Histogram,
    /// Tiles in a group commit.
    pub batch_tiles: Histogram,
    /// Bytes in a group commit.
    pub batch_bytes: Histogram,
    /// Tiles waiting in the lanes' queues.
    pub lane_queue_tiles: IntGauge,
    /// Places in the lanes' queues.
    pub lane_queue_limit_tiles: IntGauge,
    /// Bytes in tile buffers.
    pub buffer_bytes: IntGauge,
    /// Limit of the tile buffers.
    pub buffer_limit_bytes: IntGauge,
    /// Connections that wait for a buffer.
    pub buffer_waiters: IntGauge,
    /// Tiles in the overlay that the index store does not hold yet.
    pub index_lag_tiles: IntGauge,
    /// 1 after the index store failed.
    pub index_store_failed: IntGauge,
    /// Seconds that opening or rebuilding the index took.
    pub index_open_seconds: Gauge,
    /// Segment files.
    pub segments: IntGauge,
    /// Bytes of segment files.
    pub segment_bytes: IntGauge,
    /// Free bytes of the data directory's file system.
    pub disk_free_bytes: IntGauge,
    /// Segments that could not be sealed.
    pub seal_failures: IntGauge,
    /// Torn places found at the start.
    pub recovery_torn: IntGauge,
    /// Corrupt places found at the start.
    pub recovery_corrupt: IntGauge,
    /// Tiles whose stored bytes did not match their checksum when read.
    pub read_damaged: IntCounter,
    /// Stored records that are known to be damaged.
    pub corrupt_records: IntGauge,
    /// Damaged records that the scrub was the first to find.
    pub scrub_findings: IntCounter,
    /// Bytes that the scrub has read.
    pub scrub_bytes: IntCounter,
    /// Passes of the scrub that came to their end.
    pub scrub_passes: IntCounter,
    /// Share of the journal that the scrub's present pass has read, 0 to 1.
    pub scrub_progress: Gauge,
    /// Acquisitions that were ended with tiles missing.
    pub ended_incomplete: IntCounter,
    /// Tiles that were missing when their acquisition was ended.
    pub ended_missing_tiles: IntCounter,
    /// The ack level in force, 0 to 3.
    pub ack_level: IntGauge,
    /// 1 while the mirror holds everything that was acknowledged.
    pub mirror_in_sync: IntGauge,
    /// Bytes that the mirror does not hold yet.
    pub mirror_left_bytes: IntGauge,
    /// How often the mirror was lost.
    pub mirror_losses: IntGauge,
    /// Records and segments that were damaged on one side and written anew from the other.
    pub mirror_repairs: IntGauge,
    http_requests: IntCounterVec,
    tls_refused: [IntCounter; TlsRefusal::ALL.len()],
    tls_clients: TlsClients,
    /// Connections to the HTTP port now.
    pub http_connections: IntGauge,
    /// Connections ever accepted on the HTTP port.
    pub http_connections_total: IntCounter,
    http_closed: [IntCounter; HttpCloseReason::ALL.len()],
    access_refused: [IntCounter; RefusedAccess::ALL.len()],
    /// 1 while the file of tokens can not be read again.
    pub tokens_reload_failed: IntGauge,
    /// Lines of the audit log that could not be written.
    pub audit_lines_lost: IntCounter,
    notifications: NotificationCounts,
}

/// Counts of one thread since it last published.
#[derive(Default)]
pub struct LocalCounts {
    stored: [u64; 3],
    refused: [u64; Refusal::ALL.len()],
    /// Bytes read from sockets.
    pub received_bytes: u64,
    /// Bytes written to the journal.
    pub stored_bytes: u64,
    /// Tiles outside the announced grid.
    pub beyond_grid: u64,
    /// Answers whose peer was gone.
    pub unanswered: u64,
}

impl StoredAs {
    const ALL: [StoredAs; 3] = [Self::New, Self::Duplicate, Self::Replaced];

    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Replaced => "replaced",
        }
    }
}

impl CloseReason {
    const ALL: [CloseReason; 10] = [
        Self::Peer,
        Self::Cut,
        Self::Framing,
        Self::Slow,
        Self::Unread,
        Self::Limit,
        Self::PeerLimit,
        Self::Stopping,
        Self::Handshake,
        Self::NotAllowed,
    ];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Cut => "cut",
            Self::Framing => "framing",
            Self::Slow => "slow",
            Self::Unread => "unread",
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Stopping => "stopping",
            Self::Handshake => "handshake",
            Self::NotAllowed => "not_allowed",
        }
    }
}

impl RefusedAccess {
    const ALL: [RefusedAccess; 7] =
        [Self::NoToken, Self::BadToken, Self::TooMany, Self::Scope, Self::Host, Self::Origin, Self::NoScope];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::TooMany => "too_many",
            Self::Scope => "scope",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::NoScope => "no_scope",
        }
    }
}

impl LocalCounts {
    /// Counts an accepted tile.
    pub fn stored(&mut self, how: StoredAs) {
        self.stored[how as usize] += 1;
    }

    /// Counts a refusal.
    pub fn refused(&mut self, why: Refusal) {
        let n = Refusal::ALL.iter().position(|refusal| *refusal == why).expect("ALL names every refusal");
        self.refused[n] += 1;
    }

    /// Adds everything to the shared metrics and starts again from 0.
    pub fn publish(&mut self, metrics: &Metrics) {
        let counts = std::mem::take(self);
        let pairs = metrics.stored.iter().zip(counts.stored).chain(metrics.refused.iter().zip(counts.refused));
        for (counter, n) in pairs.filter(|(_, n)| *n > 0) {
            counter.inc_by(n);
        }
        metrics.received_bytes.inc_by(counts.received_bytes);
        metrics.stored_bytes.inc_by(counts.stored_bytes);
        metrics.beyond_grid.inc_by(counts.beyond_grid);
        metrics.unanswered.inc_by(counts.unanswered);
    }
}

/// Makes metrics and registers them.
struct Maker {
    registry: Registry,
}

const KEEP: &str = "metric names and label values are constants, each registered once";

impl Maker {
    fn name(name: &str) -> String {
        format!("tilecatcher_{name}")
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(Self::name(name), help).expect(KEEP);
        self.registry.register(Box::new(counter.clone())).expect(KEEP);
        counter
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(Self::name(name), help), &[label]).expect(KEEP);
        self.registry.register(Box::new(counters.clone())).expect(KEEP);
        counters
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(Self::name(name), help), &[label]).expect(KEEP);
        self.registry.register(Box::new(gauges.clone())).expect(KEEP);
        gauges
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(Self::name(name), help).expect(KEEP);
        self.registry.register(Box::new(gauge.clone())).expect(KEEP);
        gauge
    }

    fn gauge_f(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::new(Self::name(name), help).expect(KEEP);
        self.registry.register(Box::new(gauge.clone())).expect(KEEP);
        gauge
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        let histogram = Histogram::with_opts(HistogramOpts::new(Self::name(name), help).buckets(buckets)).expect(KEEP);
        self.registry.register(Box::new(histogram.clone())).expect(KEEP);
        histogram
    }
}

/// Seconds from 50 us to 26 s, each bound twice the one before.
fn latency_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(50e-6, 2.0, 20).expect(KEEP)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at 0.
    #[must_use]
    pub fn new() -> Self {
        let make = Maker { registry: Registry::new() };
        let stored = make.counters("tiles_stored_total", "Tiles accepted, by what they were", "as");
        let refused = make.counters("tiles_refused_total", "Requests refused, by reason", "reason");
        let tls_refused = make.counters("tls_refused_total", "TLS handshakes that failed, by reason", "reason");
        let tls_clients = make.gauges("tls_connections", "Encrypted capture connections now, by client", "client");
        let closed = make.counters("connections_closed_total", "Capture connections ended, by reason", "reason");
        let http_closed = make.counters("http_connections_closed_total", "HTTP connections ended, by reason", "reason");
        let access_refused = make.counters("access_refused_total", "Requests to the HTTP port not allowed", "reason");
        Self {
            stored: StoredAs::ALL.map(|how| stored.with_label_values(&[how.name()])),
            refused: Refusal::ALL.map(|why| refused.with_label_values(&[why.name()])),
            closed: CloseReason::ALL.map(|why| closed.with_label_values(&[why.name()])),
            connections: make.gauge("connections", "Connections on the capture port now"),
            connections_total: make.counter("connections_total", "Connections accepted on the capture port"),
            received_bytes: make.counter("received_bytes_total", "Bytes read from capture connections"),
            stored_bytes: make.counter("stored_bytes_total", "Bytes of tile payloads written to the journal"),
            beyond_grid: make.counter("tiles_beyond_grid_total", "Tiles outside the grid that the log announces"),
            unanswered: make.counter("answers_undelivered_total", "Answers whose peer had gone"),
            ack_seconds: make.histogram(
                "ack_seconds",
                "Last byte of a tile received to its answer handed to the socket, seconds",
                latency_buckets(),
            ),
            write_seconds: make.histogram(
                "journal_write_seconds",
                "Writing the records of one group commit, seconds",
                latency_buckets(),
            ),
            sync_seconds: make.histogram(
                "journal_sync_seconds",
                "Syncing one group commit, seconds",
                latency_buckets(),
            ),
            batch_tiles: make.histogram(
                "batch_tiles",
                "Tiles in one group commit",
                prometheus::exponential_buckets(1.0, 2.0, 10).expect(KEEP),
            ),
            batch_bytes: make.histogram(
                "batch_bytes",
                "Bytes in one group commit",
                prometheus::exponential_buckets(65536.0, 2.0, 12).expect(KEEP),
            ),
            lane_queue_tiles: make.gauge("lane_queue_tiles", "Tiles waiting to be written"),
            lane_queue_limit_tiles: make.gauge("lane_queue_limit_tiles", "Places for tiles waiting to be written"),
            buffer_bytes: make.gauge("buffer_bytes", "Bytes in tile buffers"),
            buffer_limit_bytes: make.gauge("buffer_limit_bytes", "Limit of the tile buffers, bytes"),
            buffer_waiters: make.gauge("buffer_waiters", "Connections that wait for a tile buffer"),
            index_lag_tiles: make.gauge("index_lag_tiles", "Stored tiles that the index store does not hold yet"),
            index_store_failed: make.gauge("index_store_failed", "1 after the index store failed, until a restart"),
            index_open_seconds: make.gauge_f("index_open_seconds", "Opening the index at the start, seconds"),
            segments: make.gauge("journal_segments", "Segment files of the journal"),
            segment_bytes: make.gauge("journal_bytes", "Bytes of the journal's segment files, as allocated"),
            disk_free_bytes: make.gauge("disk_free_bytes", "Free bytes of the data directory's file system"),
            seal_failures: make.gauge("journal_seal_failures", "Segments that could not be sealed since the start"),
            recovery_torn: make.gauge("recovery_torn", "Torn places that the last start found and set aside"),
            recovery_corrupt: make.gauge("recovery_corrupt", "Corrupt places that the last start found"),
            read_damaged: make.counter("read_damaged_total", "Tiles read whose bytes did not match their checksum"),
            corrupt_records: make.gauge("corrupt_records", "Stored records that are known to be damaged"),
            scrub_findings: make
                .counter("scrub_findings_total", "Damaged records that the scrub was the first to find"),
            scrub_bytes: make.counter("scrub_bytes_total", "Bytes that the scrub has read again"),
            scrub_passes: make.counter("scrub_passes_total", "Passes of the scrub over the whole journal"),
            scrub_progress: make
                .gauge_f("scrub_progress", "Share of the journal that the scrub's pass has read, 0 to 1"),
            ended_incomplete: make
                .counter("acquisitions_ended_incomplete_total", "Acquisitions that were ended with tiles missing"),
            ended_missing_tiles: make
                .counter("ended_missing_tiles_total", "Tiles that were missing when their acquisition was ended"),
            ack_level: make
                .gauge("ack_level", "The ack level in force: 0 received, 1 written, 2 durable, 3 replicated"),
            mirror_in_sync: make.gauge("mirror_in_sync", "1 while the mirror holds everything that was acknowledged"),
            mirror_left_bytes: make.gauge("mirror_left_bytes", "Bytes that the mirror does not hold yet"),
            mirror_losses: make.gauge("mirror_losses", "How often the mirror was lost since the start"),
            mirror_repairs: make
                .gauge("mirror_repairs", "Damaged copies written anew from the other one since the start"),
            http_requests: make.counters("http_requests_total", "Requests to the HTTP port, by status", "status"),
            tls_refused: TlsRefusal::ALL.map(|why| tls_refused.with_label_values(&[why.name()])),
            tls_clients: TlsClients::new(tls_clients),
            http_connections: make.gauge("http_connections", "Connections on the HTTP port now"),
            http_connections_total: make.counter("http_connections_total", "Connections accepted on the HTTP port"),
            http_closed: HttpCloseReason::ALL.map(|why| http_closed.with_label_values(&[why.name()])),
            access_refused: RefusedAccess::ALL.map(|why| access_refused.with_label_values(&[why.name()])),
            tokens_reload_failed: make
                .gauge("tokens_reload_failed", "1 while the file of tokens can not be read again"),
            audit_lines_lost: make.counter("audit_lines_lost_total", "Lines of the audit log that were not written"),
            notifications: NotificationCounts::new(|name, help| make.counters(name, help, "channel")),
            registry: make.registry,
            life: Arc::default(),
        }
    }

    /// Counts the end of a connection.
    pub fn connection_closed(&self, why: CloseReason) {
        self.closed[why as usize].inc();
    }

    /// Counts a TLS handshake that failed, on either port.
    pub fn tls_refused(&self, why: TlsRefusal) {
        self.tls_refused[why as usize].inc();
    }

    /// Counts an encrypted capture connection of this client for as long as the result lives.
    #[must_use]
    pub fn tls_client(&self, name: &str) -> TlsClient {
        self.tls_clients.connected(name)
    }

    /// Counts the end of a connection to the HTTP port.
    pub fn http_connection_closed(&self, why: HttpCloseReason) {
        self.http_closed[why as usize].inc();
    }

    /// Counts a request that was not allowed.
    pub fn access_refused(&self, why: RefusedAccess) {
        self.access_refused[why as usize].inc();
    }

    /// Counts a notification by what came of it.
    pub fn notified(&self, channel: NotifyChannel, outcome: NotifyOutcome) {
        self.notifications.count(channel, outcome);
    }

    /// Sets a gauge, at most to what it can show.
    pub fn set(gauge: &IntGauge, value: usize) {
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Counts an HTTP request by its status.
    pub fn http_request(&self, status: u16) {
        self.http_requests.with_label_values(&[&status.to_string()]).inc();
    }

    /// Tiles accepted so far, however.
    #[must_use]
    pub fn tiles_accepted(&self) -> u64 {
        self.stored.iter().map(IntCounter::get).sum()
    }

    /// Requests refused so far, for whatever reason.
    #[must_use]
    pub fn tiles_refused(&self) -> u64 {
        self.refused.iter().map(IntCounter::get).sum()
    }

    /// Adds the process' own figures (memory, descriptors, CPU) as the prometheus crate names them.
    pub fn add_process_metrics(&self) {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let _ = self.registry.register(Box::new(process));
    }

    /// The text exposition format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.map(|()| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_counts_reach_the_page_once() {
        let metrics = Metrics::new();
        let mut counts = LocalCounts { received_bytes: 10, ..LocalCounts::default() };
        counts.stored(StoredAs::Duplicate);
        counts.refused(Refusal::BadKey);
        counts.publish(&metrics);
        counts.publish(&metrics);
        metrics.connection_closed(CloseReason::Slow);
        let page = metrics.render();
        for line in [
            "tilecatcher_tiles_stored_total{as=\"duplicate\"} 1",
            "tilecatcher_tiles_stored_total{as=\"new\"} 0",
            "tilecatcher_tiles_refused_total{reason=\"bad_key\"} 1",
            "tilecatcher_received_bytes_total 10",
            "tilecatcher_connections_closed_total{reason=\"slow\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
        }
    }
}
