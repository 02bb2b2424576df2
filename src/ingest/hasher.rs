//! Hasher threads: verify tiles whose checksum needs a pass over the bytes (MD5, SHA-1, SHA-256), off the reactors.
//!
//! Takes what is waiting, never waits for more: MD5 of several tiles is computed side by side in SIMD lanes.

use crate::base::failpoint;
use crate::base::guard::stop_on_panic;
use crate::base::stop::Stop;
use crate::catalog::{Ack, AckSink, AckToken, HashBatch, LaneTile, Lanes, Outcome, PendingTile};
use crate::model::Refusal;
use crate::telemetry::{LocalCounts, Metrics};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Tiles hashed side by side: the lanes of a 512-bit SIMD unit.
const SIDE_BY_SIDE: usize = 16;

/// A tile to be hashed, and where its ack goes.
pub(super) struct HashJob {
    pub(super) tile: PendingTile,
    pub(super) token: AckToken,
    pub(super) sink: Arc<dyn AckSink>,
}

/// The way to the hashers. Unbounded in type; every job holds a buffer of the bounded pool.
#[derive(Clone)]
pub(super) struct Hashers {
    jobs: Sender<HashJob>,
}

impl Hashers {
    pub(super) fn start(
        threads: usize,
        lanes: &Lanes,
        metrics: &Arc<Metrics>,
        stop: &Stop,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (jobs, inbox) = unbounded();
        let start = |n| {
            let (inbox, lanes, metrics, stop) = (inbox.clone(), lanes.clone(), Arc::clone(metrics), stop.clone());
            let run = move || stop_on_panic("hasher", &stop, || run(&inbox, &lanes, &metrics)).unwrap_or(());
            std::thread::Builder::new().name(format!("hasher-{n}")).spawn(run)
        };
        let handles = (0..threads.max(1)).map(start).collect::<std::io::Result<_>>()?;
        Ok((Self { jobs }, handles))
    }

    pub(super) fn hash(&self, job: HashJob) {
        // Hashers live as long as somebody can send to them: sending can not fail.
        let _ = self.jobs.send(job);
    }
}

fn run(inbox: &Receiver<HashJob>, lanes: &Lanes, metrics: &Metrics) {
    let mut hashes = HashBatch::default();
    let mut counts = LocalCounts::default();
    let mut batch = Vec::with_capacity(SIDE_BY_SIDE);
    while let Ok(first) = inbox.recv() {
        let waiting = std::iter::once(first).chain(inbox.try_iter()).take(SIDE_BY_SIDE);
        batch.extend(waiting.map(|HashJob { tile, token, sink }| (tile, (token, sink))));
        failpoint::pass("hasher");
        hashes.verify(&mut batch, |verified, (token, sink)| match verified {
            Ok(tile) => lanes.route_blocking(LaneTile { tile, token, sink }),
            Err(key) => {
                counts.refused(Refusal::BadChecksum);
                counts.refused_of(key.acq);
                sink.put(Ack { token, key, outcome: Outcome::Refused(Refusal::BadChecksum) });
                sink.flush();
            }
        });
        counts.publish(metrics);
    }
}
