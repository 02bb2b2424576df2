//! The sampler: a thread that closes a second of the figures every second, and brings gauges up to date. Reads counters and the file system's free space,
//! which may hang on a sick disk: then the figures stand still, and nobody waits for them.

use super::figures::{DiskFigures, Totals};
use crate::base::clock;
use crate::catalog::Catalog;
use crate::catalog::gauges::Gauges;
use crate::index::Counters;
use crate::model::AcqId;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);
/// Acquisitions that got no tile for so long have no rate, ns.
const QUIET_NS: i64 = 30_000_000_000;

/// The sampler's thread.
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sampler {
    /// Starts to sample.
    ///
    /// # Errors
    /// The thread can not be started.
    pub fn start(catalog: &Arc<Catalog>) -> io::Result<Self> {
        let (stop, stopping) = bounded(0);
        let catalog = Arc::clone(catalog);
        let thread = std::thread::Builder::new()
            .name("sampler".into())
            .spawn(move || run(&catalog, Gauges::new(&catalog), &stopping))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn run(catalog: &Catalog, mut gauges: Gauges, stopping: &Receiver<()>) {
    let mut next = Instant::now();
    loop {
        sample(catalog);
        gauges.look();
        let now = Instant::now();
        next = if next + EVERY > now { next + EVERY } else { now + EVERY };
        if stopping.recv_deadline(next) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn sample(catalog: &Catalog) {
    let (metrics, status, activity) = (catalog.metrics(), catalog.journal().status(), catalog.activity());
    let totals = Totals {
        tiles: metrics.tiles_accepted(),
        bytes: metrics.received_bytes.get() + activity.senders.http_bytes(),
        refused: metrics.tiles_refused(),
        written_bytes: metrics.journal_bytes.get(),
    };
    let disk = DiskFigures {
        free_bytes: status.free_bytes,
        total_bytes: status.total_bytes,
        full_in: None,
        segments: status.segments,
        segment_bytes: status.segment_bytes,
    };
    let full_in = activity.figures.end_second(Instant::now(), totals, disk, catalog.journal().room_bytes());
    metrics.show_full_in(full_in);
    activity.figures.note_acquisitions(active(catalog).into_iter());
}

/// Acquisitions that got a tile lately, and how many they have.
fn active(catalog: &Catalog) -> Vec<(AcqId, u64)> {
    let since = clock::unix_ns().saturating_sub(QUIET_NS);
    let mut active = Vec::new();
    catalog.index().each_acquisition(&mut |acq, view| {
        let Counters { tiles, drift_frames, replaced, last_received_ns, .. } = &view.counters;
        if *last_received_ns >= since {
            active.push((acq, tiles + drift_frames + replaced));
        }
    });
    active
}
