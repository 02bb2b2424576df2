//! All metrics of the daemon, each named, explained and given its unit once, here. deploy/README.md lists them.
//!
//! Threads on the data path count into plain numbers and publish once per wake-up ([`super::LocalCounts`]); nothing here
//! looks up a label per tile.

use super::acquisitions::{AcquisitionLines, AcquisitionState};
use super::maker::{KEEP, Maker};
use super::notifications::{NotificationCounts, NotifyChannel, NotifyOutcome};
use super::tls::{TlsClient, TlsClients, TlsRefusal};
use super::{CloseReason, HttpCloseReason, LaneTimes, LocalTimes, RefusedAccess, StoredAs};
use crate::base::life::Life;
use crate::model::{Pressure, QualityFlag, QualityFlags, Refusal};
use prometheus::{Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};
use std::sync::Arc;
use std::time::Duration;

/// What pressure is measured of, in the order of [`Metrics::show_pressure`].
const PRESSURES: [&str; 3] = ["system", "tile_queue", "content_queue"];

/// What kind of build this is.
const PROFILE: &str = match (cfg!(debug_assertions), cfg!(feature = "no-telemetry")) {
    (true, _) => "debug",
    (false, true) => "no-telemetry",
    (false, false) => "release",
};

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
    /// 1 while an operator holds tiles back.
    pub capture_paused: IntGauge,
    /// Bytes read from the capture port.
    pub received_bytes: IntCounter,
    /// Bytes of tile payloads written to the journal.
    pub stored_bytes: IntCounter,
    /// Bytes of whole records written to the journal.
    pub journal_bytes: IntCounter,
    /// Tiles outside the grid that the acquisition's log announces.
    pub beyond_grid: IntCounter,
    /// Answers whose peer was gone.
    pub unanswered: IntCounter,
    pub(super) acquisitions: AcquisitionLines,
    receive_seconds: Histogram,
    verify_seconds: Histogram,
    queue_seconds: Histogram,
    write_seconds: Histogram,
    sync_seconds: Histogram,
    index_seconds: Histogram,
    ack_seconds: Histogram,
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
    /// Tiles, each version of one, in the overlay that the index store does not hold yet.
    pub index_lag_tiles: IntGauge,
    /// Memory that logs, ROIs and files of acquisitions take.
    pub acquisitions_memory_bytes: IntGauge,
    /// How much they may take.
    pub acquisitions_memory_limit_bytes: IntGauge,
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
    disk_full_seconds: Gauge,
    pressure: [IntGauge; 3],
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
    /// 1 when there is to be a mirror.
    pub mirror_configured: IntGauge,
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
    /// Images of tiles and mosaics that preview threads made.
    pub previews_made: IntCounter,
    /// Bytes of thumbnails below `cache/`.
    pub preview_cache_bytes: IntGauge,
    /// Tiles that were judged by their pixels.
    pub quality_judged: IntCounter,
    /// Tiles that were left for later, because judging could not keep up.
    pub quality_deferred: IntCounter,
    quality_flagged: [IntCounter; QualityFlag::ALL.len()],
    blank_run: IntGaugeVec,
    saturated_run: IntGaugeVec,
    notifications: NotificationCounts,
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
        let run = |name, help| {
            let run = make.gauges(name, help, "camera");
            // There from the start: a metric without a line would not be on the page.
            run.with_label_values(&["other"]);
            run
        };
        let blank_run = run("camera_blank_run_tiles", "The camera's last tiles that were all blank");
        let saturated_run = run("camera_saturated_run_tiles", "The camera's last tiles that were all saturated");
        let pressure = make.gauges("pressure", "How full the queues are: 0 GREEN, 1 YELLOW, 2 RED", "of");
        let build = make.gauges_by("build_info", "1, with what is running", &["version", "profile"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), PROFILE]).set(1);
        let flagged = make.counters("quality_flagged_total", "Judged tiles with a flag", "flag");
        let access_refused = make.counters("access_refused_total", "Requests to the HTTP port not allowed", "reason");
        Self {
            stored: StoredAs::ALL.map(|how| stored.with_label_values(&[how.name()])),
            refused: Refusal::ALL.map(|why| refused.with_label_values(&[why.name()])),
            closed: CloseReason::ALL.map(|why| closed.with_label_values(&[why.name()])),
            connections: make.gauge("connections", "Connections on the capture port now"),
            connections_total: make.counter("connections_total", "Connections accepted on the capture port"),
            capture_paused: make.gauge("capture_paused", "1 while an operator holds tiles back"),
            received_bytes: make.counter("received_bytes_total", "Bytes read from capture connections"),
            stored_bytes: make.counter("stored_bytes_total", "Bytes of tile payloads written to the journal"),
            beyond_grid: make.counter("tiles_beyond_grid_total", "Tiles outside the grid that the log announces"),
            unanswered: make.counter("answers_undelivered_total", "Answers whose peer had gone"),
            journal_bytes: make
                .counter("journal_written_bytes_total", "Bytes of whole tile records written to the journal"),
            acquisitions: AcquisitionLines::new(&make),
            receive_seconds: make.times("receive_seconds", "Room for a tile given to its last byte received, seconds"),
            verify_seconds: make
                .times("verify_seconds", "Last byte of a tile received to its content verified, seconds"),
            queue_seconds: make.times("queue_seconds", "A tile verified to its group commit begun, seconds"),
            write_seconds: make.times("journal_write_seconds", "Writing the records of one group commit, seconds"),
            sync_seconds: make.times("journal_sync_seconds", "Syncing one group commit, seconds"),
            index_seconds: make
                .times("index_seconds", "Waiting for room in the index and making one group commit visible, seconds"),
            ack_seconds: make
                .times("ack_seconds", "Last byte of a tile received to its answer handed to the socket, seconds"),
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
            index_lag_tiles: make
                .gauge("index_lag_tiles", "Stored tiles that the index store does not hold yet, each version of one"),
            acquisitions_memory_bytes: make
                .gauge("acquisitions_memory_bytes", "Memory of the logs, ROIs and files of acquisitions, bytes"),
            acquisitions_memory_limit_bytes: make
                .gauge("acquisitions_memory_limit_bytes", "Limit of the memory of logs, ROIs and files, bytes"),
            index_store_failed: make.gauge("index_store_failed", "1 after the index store failed, until a restart"),
            index_open_seconds: make.gauge_f("index_open_seconds", "Opening the index at the start, seconds"),
            segments: make.gauge("journal_segments", "Segment files of the journal"),
            segment_bytes: make.gauge("journal_bytes", "Bytes of the journal's segment files, as allocated"),
            disk_free_bytes: make.gauge("disk_free_bytes", "Free bytes of the data directory's file system"),
            disk_full_seconds: make
                .gauge_f("disk_full_seconds", "Seconds until the disk is full at the rate of the last minutes"),
            pressure: PRESSURES.map(|of| pressure.with_label_values(&[of])),
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
            mirror_configured: make.gauge("mirror_configured", "1 when every record is to be written twice"),
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
            previews_made: make.counter("previews_made_total", "Images of tiles and mosaics made by preview threads"),
            quality_judged: make.counter("quality_judged_total", "Tiles that were judged by their pixels"),
            quality_deferred: make.counter("quality_deferred_total", "Tiles whose judgement was left for later"),
            quality_flagged: QualityFlag::ALL.map(|flag| flagged.with_label_values(&[flag.name()])),
            blank_run,
            saturated_run,
            preview_cache_bytes: make.gauge("preview_cache_bytes", "Bytes of thumbnails that are kept"),
            notifications: NotificationCounts::new(|name, help| make.counters(name, help, "channel")),
            registry: make.registry,
            life: Arc::default(),
        }
    }

    /// Histograms for a lane.
    #[must_use]
    pub fn lane_times(&self) -> LaneTimes {
        LaneTimes {
            receive: LocalTimes::of(&self.receive_seconds),
            verify: LocalTimes::of(&self.verify_seconds),
            queue: LocalTimes::of(&self.queue_seconds),
            write: LocalTimes::of(&self.write_seconds),
            sync: LocalTimes::of(&self.sync_seconds),
            index: LocalTimes::of(&self.index_seconds),
        }
    }

    /// From a tile's last byte to its answer handed to the socket: for a reactor.
    #[must_use]
    pub fn ack_times(&self) -> LocalTimes {
        LocalTimes::of(&self.ack_seconds)
    }

    /// Adds tiles by how they were accepted and why they were refused.
    pub(super) fn count(&self, stored: &[u64; 3], refused: &[u64; Refusal::ALL.len()]) {
        let pairs = self.stored.iter().zip(stored).chain(self.refused.iter().zip(refused));
        pairs.filter(|(_, n)| **n > 0).for_each(|(counter, n)| counter.inc_by(*n));
    }

    /// Shows how acquisitions stand. Those that are not among them lose their lines.
    pub fn show_acquisitions(&self, states: &[AcquisitionState]) {
        self.acquisitions.keep(states);
    }

    /// Shows when the disk will be full; `None`: never, as it looks.
    pub fn show_full_in(&self, full_in: Option<Duration>) {
        self.disk_full_seconds.set(full_in.map_or(f64::INFINITY, |time| time.as_secs_f64()));
    }

    /// Shows how full things are: all together, the index' queue, and what waits for the disk.
    pub fn show_pressure(&self, system: Pressure, tile_queue: Pressure, content_queue: Pressure) {
        for (gauge, pressure) in self.pressure.iter().zip([system, tile_queue, content_queue]) {
            gauge.set(i64::from(pressure as u8));
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

    /// Counts a judged tile's flags.
    pub fn quality_flagged(&self, flags: QualityFlags) {
        let counters = QualityFlag::ALL.iter().zip(&self.quality_flagged);
        counters.filter(|(flag, _)| flags.has(**flag)).for_each(|(_, counter)| counter.inc());
    }

    /// How many of a camera's last tiles were all blank, and all saturated. `camera` is of a small set.
    pub fn camera_runs(&self, camera: &str, blank: i64, saturated: i64) {
        self.blank_run.with_label_values(&[camera]).set(blank);
        self.saturated_run.with_label_values(&[camera]).set(saturated);
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
