//! The lanes: one thread for each open segment, from verified tile to acknowledgement.
//!
//! One batch at a time: decide (new, duplicate, new version), write all with one call, one sync for all, make
//! visible in the index, answer. A key is always in one lane, so what the lane decides about a key needs no lock,
//! and a duplicate in a batch is answered only after the record that it duplicates is synced.
//!
//! Must never answer before its ack level is reached (invariant 1), nor retry a failed sync (invariant 9).

use super::content::{StoredCopy, compare_with_stored};
use super::damage::{DamageLog, Finding, FoundBy};
use super::facts;
use super::verify::VerifiedTile;
use crate::base::failpoint;
use crate::base::guard::stop_on_panic;
use crate::base::life::Pulse;
use crate::base::limited_log::LimitedLog;
use crate::base::limits::{BATCH_RECORDS_MAX, round_up_to_block};
use crate::base::planted::{Bug, planted};
use crate::base::stop::{Stop, StopReason};
use crate::index::Index;
use crate::journal::{
    CopyState, Journal, JournalError, LaneWriter, RECORD_HEADER_BYTES, RecordDraft, RecordHeader, RecordKind, TileStamp,
};
use crate::model::{
    AckLevel, Fact, FactBody, Location, Refusal, Sequence, Tally, TileEntry, TileId, TileKey, TileVersion,
};
use crate::telemetry::{LaneTimes, LocalCounts, Metrics, Stamp, StoredAs};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded, select, unbounded};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for the index overlay before a batch is refused as overloaded.
const INDEX_PATIENCE: Duration = Duration::from_secs(30);
/// Time without work after which blocks are written ahead.
const IDLE_AFTER: Duration = Duration::from_millis(20);
/// Bytes that ack levels below `durable` leave unsynced at most.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
/// Step in which a stored image is compared with a resent one.
const COMPARE_STEP: usize = 1 << 20;

/// What happens to other content under a stored key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictPolicy {
    /// It becomes a new version; readers get it, the old one stays in the journal.
    Replace,
    /// It is refused.
    Reject,
}

impl FromStr for ConflictPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "replace" => Ok(Self::Replace),
            "reject" => Ok(Self::Reject),
            other => Err(format!("\"{other}\" is no policy: replace or reject")),
        }
    }
}

/// How lanes work.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Number of lanes.
    pub lanes: u16,
    /// Places in each lane's queue.
    pub queue_tiles: usize,
    /// Most bytes in a group commit.
    pub batch_bytes: usize,
    /// Bytes written ahead of the tail while idle; 0 for none.
    pub prewrite_bytes: u64,
    /// When tiles are acknowledged.
    pub ack: AckLevel,
    /// Other content under a stored key.
    pub conflict: ConflictPolicy,
}

/// Which request an ack belongs to; only the sink knows what the numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    /// The connection.
    pub connection: u64,
    /// The request on it.
    pub slot: u64,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted at the daemon's ack level.
    Accepted(TileId),
    /// Not accepted.
    Refused(Refusal),
}

/// An outcome on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The request.
    pub token: AckToken,
    /// Its tile.
    pub key: TileKey,
    /// Its end.
    pub outcome: Outcome,
}

/// Where acks go. Called on lane threads: must not block.
pub trait AckSink: Send + Sync {
    /// Takes an ack.
    fn put(&self, ack: Ack);
    /// All acks of a batch were put: wake whoever delivers them.
    fn flush(&self);
    /// A queue that was full has room again.
    fn room(&self);
}

/// A tile and where its ack goes.
pub struct LaneTile {
    /// The tile.
    pub tile: VerifiedTile,
    /// Which request.
    pub token: AckToken,
    /// Who answers it.
    pub sink: Arc<dyn AckSink>,
}

/// What came of routing a tile.
pub enum Route {
    /// It is in its lane's queue.
    Queued,
    /// The queue is full: keep the tile, stop reading, try again after [`AckSink::room`].
    Full(Box<LaneTile>),
}

/// The lanes' queues. Dropping all clones ends the lanes.
#[derive(Clone)]
pub struct Lanes {
    queues: Arc<[LaneQueue]>,
    capacity: usize,
    hot: Arc<OnceLock<Arc<dyn HotTiles>>>,
}

/// Takes tiles with their bytes as soon as they are stored and acknowledged.
pub trait HotTiles: Send + Sync {
    /// On the lane's thread: must not block, allocate or hold more bytes than a bounded share of the buffers.
    fn stored(&self, entry: TileEntry, tile: VerifiedTile);
}

/// A lane is to have its segment sealed: where it says whether it had one. Nothing said: it could not.
type Rotation = Sender<bool>;

struct LaneQueue {
    tiles: Sender<LaneTile>,
    /// Unbounded in type; one for each caller that waits.
    rotations: Sender<Rotation>,
    /// Somebody found the queue full: pairs with the swap in [`Lane::tell_of_room`].
    starved: Arc<Starved>,
}

#[derive(Default)]
struct Starved {
    any: AtomicBool,
    sinks: Mutex<Vec<Arc<dyn AckSink>>>,
}

struct Lane {
    options: LaneOptions,
    queue: Receiver<LaneTile>,
    rotations: Receiver<Rotation>,
    starved: Arc<Starved>,
    writer: LaneWriter,
    journal: Arc<Journal>,
    index: Arc<Index>,
    next_tile: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    counts: LocalCounts,
    times: LaneTimes,
    stop: Stop,
    pulse: Arc<Pulse>,
    unsynced_bytes: u64,
    failed: bool,
    no_space_log: LimitedLog,
    compare: Vec<u8>,
    damage: DamageLog,
    hot: Arc<OnceLock<Arc<dyn HotTiles>>>,
    /// What of the batch was stored, by its place in it.
    fresh: Vec<(usize, TileEntry)>,
}

/// What is to be done with a tile of the batch.
#[derive(Clone, Copy)]
enum Decision {
    Store(TileId, TileVersion),
    /// Equal to what the index holds.
    Duplicate(TileId),
    /// Equal to an earlier tile of this batch.
    DuplicateOf(usize),
    Refuse(Refusal),
}

impl Lanes {
    /// Starts the lane threads. `next_tile` hands out identifiers.
    ///
    /// # Errors
    /// A thread can not be started.
    pub fn start(
        options: LaneOptions,
        journal: &Arc<Journal>,
        index: &Arc<Index>,
        next_tile: &Arc<AtomicU64>,
        metrics: &Arc<Metrics>,
        damage: &DamageLog,
        stop: &Stop,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        let hot: Arc<OnceLock<Arc<dyn HotTiles>>> = Arc::default();
        for number in 0..options.lanes.max(1) {
            let (tiles, queue) = bounded(options.queue_tiles);
            let (rotations, to_rotate) = unbounded();
            let starved = Arc::new(Starved::default());
            let lane = Lane {
                options,
                queue,
                rotations: to_rotate,
                starved: Arc::clone(&starved),
                writer: journal.lane_writer(number),
                journal: Arc::clone(journal),
                index: Arc::clone(index),
                next_tile: Arc::clone(next_tile),
                metrics: Arc::clone(metrics),
                counts: LocalCounts::default(),
                times: metrics.lane_times(),
                stop: stop.clone(),
                pulse: metrics.life.pulse(&format!("lane-{number}")),
                unsynced_bytes: 0,
                failed: false,
                no_space_log: LimitedLog::default(),
                compare: Vec::new(),
                damage: damage.clone(),
                hot: Arc::clone(&hot),
                fresh: Vec::new(),
            };
            queues.push(LaneQueue { tiles, rotations, starved });
            let stop = stop.clone();
            let run = move || stop_on_panic("lane", &stop, || lane.run()).unwrap_or(());
            threads.push(std::thread::Builder::new().name(format!("lane-{number}")).spawn(run)?);
        }
        Ok((Self { queues: queues.into(), capacity: options.queue_tiles, hot }, threads))
    }

    /// Puts a tile into its key's lane, without waiting.
    #[must_use]
    pub fn route(&self, tile: LaneTile) -> Route {
        let queue = self.queue_of(&tile.tile);
        match queue.try_send(tile) {
            Ok(()) => Route::Queued,
            Err(tile) => {
                queue.starved.wait(&tile.sink);
                // The lane may have drained its queue before it saw the flag: try once more.
                queue.try_send(*tile).map_or_else(Route::Full, |()| Route::Queued)
            }
        }
    }

    /// Puts a tile into its key's lane, waiting for room. For threads that may block.
    pub fn route_blocking(&self, tile: LaneTile) {
        // A lane lives as long as its queue has senders: sending can not fail.
        let _ = self.queue_of(&tile.tile).tiles.send(tile);
    }

    /// Has the bytes of tiles handed to `hot` once they are stored and acknowledged. Only the first call counts.
    pub fn keep_hot(&self, hot: Arc<dyn HotTiles>) {
        let _ = self.hot.set(hot);
    }

    /// Tiles waiting, and places, of the fullest lane.
    #[must_use]
    pub fn fill(&self) -> (usize, usize) {
        (self.queues.iter().map(|queue| queue.tiles.len()).max().unwrap_or(0), self.capacity)
    }

    /// Has every lane hand its open segment over to be sealed, and go on in a new one. Waits for the syncs that takes.
    /// Returns how many there were; `None`: a lane could not.
    #[must_use]
    pub fn rotate(&self) -> Option<usize> {
        let asked: Vec<Receiver<bool>> = self
            .queues
            .iter()
            .map(|queue| {
                let (reply, rotated) = bounded(1);
                let _ = queue.rotations.send(reply);
                rotated
            })
            .collect();
        asked.into_iter().map(|rotated| rotated.recv().ok().map(usize::from)).sum()
    }

    fn queue_of(&self, tile: &VerifiedTile) -> &LaneQueue {
        let lane = tile.key().spread() % self.queues.len() as u64;
        &self.queues[usize::try_from(lane).expect("below the number of lanes")]
    }
}

impl LaneQueue {
    fn try_send(&self, tile: LaneTile) -> Result<(), Box<LaneTile>> {
        match self.tiles.try_send(tile) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(tile) | TrySendError::Disconnected(tile)) => Err(Box::new(tile)),
        }
    }
}

impl Starved {
    fn wait(&self, sink: &Arc<dyn AckSink>) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if !sinks.iter().any(|waiting| Arc::ptr_eq(waiting, sink)) {
            sinks.push(Arc::clone(sink));
        }
        self.any.store(true, Ordering::SeqCst);
    }
}

impl Lane {
    fn run(mut self) {
        let mut batch = Vec::new();
        while self.next_batch(&mut batch) {
            self.pulse.moves();
            self.tell_of_room();
            failpoint::pass("lane");
            self.observe(&batch);
            self.commit(&mut batch);
            self.hand_on(&mut batch);
            self.counts.publish(&self.metrics);
            self.times.publish();
        }
        self.pulse.waits();
        if !self.failed
            && let Err(error) = self.writer.close()
        {
            tracing::error!(%error, "could not sync at the end: restart recovers what was acknowledged");
            self.stop.raise(StopReason::StorageFailed);
        }
    }

    /// Takes note of how the tiles of a batch have come here.
    fn observe(&self, batch: &[LaneTile]) {
        if cfg!(feature = "no-telemetry") {
            return;
        }
        self.metrics.batch_tiles.observe(batch.len() as f64);
        let now = Stamp::now();
        for LaneTile { tile, .. } in batch {
            self.times.receive.add(tile.received_at.since(tile.begun_at));
            self.times.verify.add(tile.verified_at.since(tile.received_at));
            self.times.queue.add(now.since(tile.verified_at));
        }
    }

    /// Waits for a tile, then takes all that are waiting, up to the batch's bounds. Never waits for company.
    fn next_batch(&mut self, batch: &mut Vec<LaneTile>) -> bool {
        while let Ok(rotation) = self.rotations.try_recv() {
            self.rotate(&rotation);
        }
        let Some(first) = self.next_tile_or_idle() else { return false };
        let mut bytes = first.tile.buffer.len();
        batch.push(first);
        while batch.len() < BATCH_RECORDS_MAX && bytes < self.options.batch_bytes {
            let Ok(tile) = self.queue.try_recv() else { break };
            bytes += tile.tile.buffer.len();
            batch.push(tile);
        }
        true
    }

    /// The next tile; what can be done while there is none is done meanwhile. `None`: there will be no more.
    fn next_tile_or_idle(&mut self) -> Option<LaneTile> {
        match self.queue.try_recv() {
            Ok(tile) => return Some(tile),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        if self.unsynced_bytes > 0 {
            self.sync_late();
        }
        self.pulse.waits();
        while self.options.prewrite_bytes > 0 && !self.failed {
            match self.queue.recv_timeout(IDLE_AFTER) {
                Ok(tile) => return Some(tile),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.writer.prewrite(self.options.prewrite_bytes) {
                Ok(true) => {}
                // Without space the next tile finds out, and is refused with the right status.
                Ok(false) | Err(JournalError::NoSpace { .. }) => break,
                Err(error) => self.fail(&error),
            }
        }
        loop {
            select! {
                recv(self.queue) -> tile => return tile.ok(),
                recv(self.rotations) -> rotation => match rotation {
                    Ok(rotation) => self.rotate(&rotation),
                    Err(_) => return self.queue.recv().ok(),
                },
            }
        }
    }

    /// Between two batches: what was written is synced, the next record goes into a new segment.
    fn rotate(&mut self, rotation: &Rotation) {
        if self.failed {
            return;
        }
        match self.sync().and_then(|()| self.writer.rotate()) {
            Ok(had_one) => _ = rotation.send(had_one),
            Err(error) => self.fail(&error),
        }
        self.pulse.waits();
    }

    fn tell_of_room(&self) {
        if self.starved.any.swap(false, Ordering::SeqCst) {
            let mut sinks = self.starved.sinks.lock().unwrap_or_else(PoisonError::into_inner);
            sinks.drain(..).for_each(|sink| sink.room());
        }
    }

    fn commit(&mut self, batch: &mut [LaneTile]) {
        if self.failed {
            return self.refuse_all(batch, Refusal::StorageFailed);
        }
        if self.mirror_refuses() {
            return self.refuse_all(batch, Refusal::MirrorLost);
        }
        let began = Stamp::now();
        self.pulse.waits();
        let has_room = self.index.wait_for_room(batch.len(), INDEX_PATIENCE);
        self.pulse.moves();
        let waited = Stamp::now().since(began);
        if !has_room {
            return self.refuse_all(batch, Refusal::Overloaded);
        }
        let mut decisions = self.decide_all(batch);
        let early = self.options.ack == AckLevel::Received && self.has_room(batch, &decisions);
        let early = early || planted(Bug::AckBeforeSync);
        if early {
            self.answer(batch, &decisions);
        }
        self.store(batch, &mut decisions, waited);
        // Lost with this batch: what was stored has one copy. Sent again when the mirror is back, it is a duplicate.
        if self.mirror_refuses() {
            decisions.fill(Decision::Refuse(Refusal::MirrorLost));
        }
        if !early {
            self.answer(batch, &decisions);
        }
    }

    /// Whether all that is to be stored fits into the open segment: what a full disk may refuse is not acknowledged before.
    fn has_room(&self, batch: &[LaneTile], decisions: &[Decision]) -> bool {
        let stored = batch.iter().zip(decisions).filter(|(_, decision)| matches!(decision, Decision::Store(..)));
        let bytes = stored
            .map(|(LaneTile { tile, .. }, _)| round_up_to_block(RECORD_HEADER_BYTES + tile.frame_len as usize) as u64);
        let (records, bytes) = bytes.fold((0, 0), |(records, sum), bytes| (records + 1, sum + bytes));
        records == 0 || self.writer.has_room_for(records, bytes)
    }

    /// Gives the bytes of what was stored to who looks at them while they are in memory, or lets go of them.
    fn hand_on(&mut self, batch: &mut Vec<LaneTile>) {
        let mut fresh = self.fresh.drain(..).peekable();
        for (n, tile) in batch.drain(..).enumerate() {
            if let (Some((_, entry)), Some(hot)) = (fresh.next_if(|(at, _)| *at == n), self.hot.get()) {
                hot.stored(entry, tile.tile);
            }
        }
    }

    fn mirror_refuses(&self) -> bool {
        self.journal.mirror().is_some_and(|mirror| mirror.refuses())
    }

    /// Decides about each tile of the batch, in order.
    fn decide_all(&mut self, batch: &[LaneTile]) -> Vec<Decision> {
        let mut decisions: Vec<Decision> = Vec::with_capacity(batch.len());
        let mut latest: HashMap<TileKey, usize> = HashMap::with_capacity(batch.len());
        for (n, LaneTile { tile, .. }) in batch.iter().enumerate() {
            let decision = match latest.get(&tile.key) {
                Some(&earlier) => self.decide_against_batch(tile, &batch[earlier].tile, earlier, decisions[earlier]),
                None => self.decide_against_index(tile),
            };
            if matches!(decision, Decision::Store(..)) {
                latest.insert(tile.key, n);
            }
            decisions.push(decision);
        }
        decisions
    }

    fn decide_against_batch(
        &self,
        tile: &VerifiedTile,
        earlier: &VerifiedTile,
        n: usize,
        decided: Decision,
    ) -> Decision {
        match decided {
            Decision::Store(..) if tile.image() == earlier.image() => Decision::DuplicateOf(n),
            Decision::Store(id, version) => self.decide_conflict(id, version),
            other => other,
        }
    }

    fn decide_against_index(&mut self, tile: &VerifiedTile) -> Decision {
        match self.index.tile_by_key(&tile.key) {
            Ok(None) => self.take_tile_id(),
            Ok(Some(stored)) => self.decide_against_stored(tile, &stored),
            Err(error) => {
                tracing::warn!(%error, "the index can not say whether a tile is stored: refused, to be resent later");
                Decision::Refuse(Refusal::Overloaded)
            }
        }
    }

    /// Equal length and checksums are not identity, nor do they say that the stored bytes are still there: the bytes
    /// decide. A copy that is damaged is no copy, and the tile is stored again, whatever the policy for other content.
    fn decide_against_stored(&mut self, tile: &VerifiedTile, stored: &TileEntry) -> Decision {
        if tile.image.len != stored.image.len || tile.image_crc != stored.image_crc {
            return self.decide_conflict(stored.id, stored.version);
        }
        self.compare.resize(COMPARE_STEP, 0);
        self.pulse.waits();
        let compared = compare_with_stored(&self.journal, stored, tile.image(), &mut self.compare);
        // Where a mirror has a copy that holds, the damaged one is written anew from it.
        let compared = compared.or_else(|error| match self.journal.check_record(stored.location) {
            Ok(copies) if copies.data != CopyState::Damaged => {
                compare_with_stored(&self.journal, stored, tile.image(), &mut self.compare)
            }
            _ => Err(error),
        });
        self.pulse.moves();
        match compared {
            Ok(StoredCopy::Same) => Decision::Duplicate(stored.id),
            Ok(StoredCopy::Other) => self.decide_conflict(stored.id, stored.version),
            Err(error) => {
                self.metrics.read_damaged.inc();
                self.damage.found(&Finding::of_tile(stored, &error, FoundBy::Resend));
                let next = stored.version.0.checked_add(1);
                next.map_or(Decision::Refuse(Refusal::Conflict), |next| Decision::Store(stored.id, TileVersion(next)))
            }
        }
    }

    fn decide_conflict(&self, id: TileId, version: TileVersion) -> Decision {
        if planted(Bug::OverwrittenOnResend) {
            return Decision::Store(id, version);
        }
        match (self.options.conflict, version.0.checked_add(1)) {
            (ConflictPolicy::Replace, Some(next)) => Decision::Store(id, TileVersion(next)),
            _ => Decision::Refuse(Refusal::Conflict),
        }
    }

    fn take_tile_id(&self) -> Decision {
        match self.next_tile.fetch_add(1, Ordering::Relaxed) {
            id if id < TileId::LIMIT => Decision::Store(TileId(id), TileVersion::FIRST),
            _ => Decision::Refuse(Refusal::StorageFailed),
        }
    }

    /// Writes and, at level durable, syncs what is to be stored; publishes what is. Decisions of tiles that could
    /// not be stored become refusals. `waited` for room in the index.
    fn store(&mut self, batch: &mut [LaneTile], decisions: &mut [Decision], waited: Duration) {
        let mut members: Vec<usize> = Vec::with_capacity(batch.len());
        let mut drafts: Vec<RecordDraft<'_>> = Vec::with_capacity(batch.len());
        for (n, (LaneTile { tile, .. }, decision)) in batch.iter_mut().zip(decisions.iter()).enumerate() {
            if let Decision::Store(id, version) = *decision {
                members.push(n);
                drafts.push(draft(tile, id, version));
            }
        }
        if drafts.is_empty() {
            return;
        }
        let written = self.write(&mut drafts);
        let facts: Vec<Fact> = drafts.iter().filter_map(fact_of_draft).collect();
        let durable = if self.options.ack >= AckLevel::Durable && !facts.is_empty() { self.sync() } else { Ok(()) };
        let failure = written.err().map(|error| self.refusal_for(&error));
        if let Err(error) = durable {
            let refusal = self.refusal_for(&error);
            members.iter().for_each(|n| decisions[*n] = Decision::Refuse(refusal));
            return;
        }
        if let Some(refusal) = failure {
            let unplaced = members.iter().zip(&drafts).filter(|(_, draft)| draft.placed.is_none());
            unplaced.for_each(|(n, _)| decisions[*n] = Decision::Refuse(refusal));
        }
        if self.hot.get().is_some() {
            let placed = members.iter().zip(&drafts).filter(|(_, draft)| draft.placed.is_some());
            self.fresh.extend(placed.zip(&facts).filter_map(|((n, _), fact)| match &fact.body {
                FactBody::TileStored(entry) => Some((*n, *entry)),
                _ => None,
            }));
        }
        let began = Stamp::now();
        self.index.publish(facts);
        self.times.index.add(waited + Stamp::now().since(began));
        self.writer.release_floor();
    }

    fn write(&mut self, drafts: &mut [RecordDraft<'_>]) -> Result<(), JournalError> {
        let bytes: u64 = drafts.iter().map(|draft| u64::from(draft.payload_len)).sum();
        let began = Stamp::now();
        self.pulse.waits();
        let written = self.writer.append(drafts);
        self.pulse.moves();
        self.times.write.add(Stamp::now().since(began));
        if !cfg!(feature = "no-telemetry") {
            self.metrics.batch_bytes.observe(bytes as f64);
        }
        for draft in drafts.iter().filter(|draft| draft.placed.is_some()) {
            self.counts.stored_bytes += u64::from(draft.payload_len);
            self.counts.journal_bytes += round_up_to_block(RECORD_HEADER_BYTES + draft.payload_len as usize) as u64;
        }
        self.unsynced_bytes += bytes;
        if self.options.ack < AckLevel::Durable && self.unsynced_bytes > UNSYNCED_BYTES_MAX {
            self.sync_late();
        }
        written
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        let began = Stamp::now();
        self.pulse.waits();
        let synced = self.writer.sync();
        self.pulse.moves();
        self.times.sync.add(Stamp::now().since(began));
        self.unsynced_bytes = 0;
        synced
    }

    /// For ack levels below durable: nobody waits for this sync, but a failure still ends the process.
    fn sync_late(&mut self) {
        let synced = self.sync();
        // There may be no batch for long.
        self.times.sync.publish();
        if let Err(error) = synced {
            self.fail(&error);
        }
    }

    fn refusal_for(&mut self, error: &JournalError) -> Refusal {
        if let JournalError::NoSpace { .. } = error {
            self.no_space_log.warn(|more| tracing::warn!(%error, more, "refusing tiles"));
            return Refusal::NoSpace;
        }
        self.fail(error);
        Refusal::StorageFailed
    }

    fn fail(&mut self, error: &JournalError) {
        self.failed = true;
        tracing::error!(%error, "storage failed: what is not acknowledged is refused, the daemon stops");
        self.stop.raise(StopReason::StorageFailed);
    }

    fn refuse_all(&mut self, batch: &[LaneTile], refusal: Refusal) {
        let decisions = vec![Decision::Refuse(refusal); batch.len()];
        self.answer(batch, &decisions);
    }

    fn answer(&mut self, batch: &[LaneTile], decisions: &[Decision]) {
        let mut sinks: Vec<&Arc<dyn AckSink>> = Vec::new();
        for (LaneTile { tile, token, sink }, decision) in batch.iter().zip(decisions) {
            let outcome = self.outcome(decision, decisions);
            match outcome {
                Outcome::Accepted(_) => self.counts.accepted_of(tile.key.acq, tile.camera, tile.image.len),
                Outcome::Refused(_) => self.counts.refused_of(tile.key.acq),
            }
            sink.put(Ack { token: *token, key: tile.key, outcome });
            if !sinks.iter().any(|known| Arc::ptr_eq(known, sink)) {
                sinks.push(sink);
            }
        }
        sinks.into_iter().for_each(|sink| sink.flush());
    }

    fn outcome(&mut self, decision: &Decision, all: &[Decision]) -> Outcome {
        let (id, how) = match *decision {
            Decision::Store(id, TileVersion::FIRST) => (id, StoredAs::New),
            Decision::Store(id, _) => (id, StoredAs::Replaced),
            Decision::Duplicate(id) => (id, StoredAs::Duplicate),
            Decision::DuplicateOf(n) => match all[n] {
                Decision::Store(id, _) => (id, StoredAs::Duplicate),
                Decision::Refuse(refusal) => return self.refused(refusal),
                Decision::Duplicate(_) | Decision::DuplicateOf(_) => {
                    unreachable!("only tiles to be stored are entered as an original")
                }
            },
            Decision::Refuse(refusal) => return self.refused(refusal),
        };
        self.counts.stored(how);
        Outcome::Accepted(id)
    }

    fn refused(&mut self, refusal: Refusal) -> Outcome {
        self.counts.refused(refusal);
        Outcome::Refused(refusal)
    }
}

fn draft(tile: &mut VerifiedTile, id: TileId, version: TileVersion) -> RecordDraft<'_> {
    let stamp = TileStamp {
        id,
        key: tile.key,
        camera: tile.camera,
        version,
        image: tile.image,
        image_crc: tile.image_crc,
        checksum: tile.checksum,
        peer: tile.peer,
    };
    debug_assert!(tile.buffer.len() >= RECORD_HEADER_BYTES + tile.frame_len as usize);
    RecordDraft {
        kind: RecordKind::TILE,
        payload_len: tile.frame_len,
        payload_crc: tile.frame_crc,
        received_ns: tile.received_ns,
        tile: Some(stamp),
        bytes: &mut tile.buffer,
        placed: None,
    }
}

fn fact_of_draft(draft: &RecordDraft<'_>) -> Option<Fact> {
    let (sequence, location): (Sequence, Location) = draft.placed?;
    let header = RecordHeader {
        kind: draft.kind,
        sequence,
        offset: location.offset,
        payload_len: draft.payload_len,
        payload_crc: draft.payload_crc,
        durable: Sequence(0),
        received_ns: draft.received_ns,
        tile: draft.tile,
    };
    let entry = facts::tile_entry(&header, location)?;
    let digest = Tally::digest_of(sequence, draft.payload_crc);
    Some(Fact { sequence, at_ns: draft.received_ns, digest, location, body: FactBody::TileStored(entry) })
}
