//! Delivers tiles over several connections until each is stored or refused for good: reconnects, backs off, sends again
//! what was not acknowledged.
//!
//! Owns retries and their limits. One thread a connection, one image buffer a thread. Must never count a tile as stored
//! before the server has said so, and never drop one: each item given is settled, or named in [`Undelivered`].

use super::capture::Tile;
use super::link::{Link, LinkError, LinkOptions, Refused, Reply, Verdict};
use super::outbox::{Outbox, Parcel, Take};
use super::patience::{PAUSE_MAX, pause};
use crate::base::stop::Stop;
use crate::model::{Checksum, TileId, TileKey};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A tile during whose sending the connection broke so often, while others were stored in between, is the cause.
const BREAKS_MAX: u32 = 20;
/// A connection over which nothing went for so long is closed, and made again when there is a tile: a server may have
/// closed it meanwhile, and what forwards packets may have forgotten it without a word to either side.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The frame's length has 32 bits.
const IMAGE_BYTES_MAX: usize = (u32::MAX - 4096) as usize;

/// How to deliver.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// Where to, over how many connections.
    pub link: LinkOptions,
    /// How long to go on while the server is away or refuses everything.
    pub retry_for: Duration,
}

/// What is sent with an image.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Acquisition, column, row, frame.
    pub key: TileKey,
    /// Camera index.
    pub camera: i32,
    /// Checksum of the image.
    pub checksum: Checksum,
}

/// What became of an item.
#[derive(Clone, Debug)]
pub enum Settled {
    /// The server stored it.
    Stored {
        /// Its identifier there.
        tile: TileId,
        /// Bytes of the image.
        bytes: u64,
        /// From the first byte sent to the answer.
        took: Duration,
    },
    /// The server refuses it for good, or has refused it for too long.
    Refused(Refused),
}

/// What the delivery tells of itself.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection broke; it is tried again after a pause.
    Broken {
        /// Why.
        problem: String,
        /// Tiles that are sent again.
        unanswered: usize,
    },
    /// Tiles are acknowledged again.
    Restored,
    /// A tile was refused and is sent again later.
    Deferred(Refused),
}

/// Where items come from, and who hears of them. Called by several threads at once.
pub trait Tiles: Sync {
    /// Names a tile; cheap to keep.
    type Item: Send;

    /// Reads the item's image into `image`, which is empty and whose room is kept. `None`: there is nothing to send,
    /// and the reason is noted: the item is done with. Called again when the tile has to be sent again.
    fn load(&self, item: &Self::Item, image: &mut Vec<u8>) -> Option<Label>;

    /// An item's end.
    fn settled(&self, item: Self::Item, settled: Settled);

    /// What happens meanwhile.
    fn noticed(&self, event: Event);
}

/// The delivery ended before its items did.
#[derive(Debug, thiserror::Error)]
#[error("{cause}; gave up with {left} tiles undelivered: send again, what is stored is not sent twice")]
pub struct Undelivered {
    /// The last problem.
    pub cause: LinkError,
    /// Items that were not settled.
    pub left: usize,
}

/// Delivers all items of the outbox, and those that are pushed until it is closed. Returns when each is settled, or,
/// after a stop, when what was in flight is.
///
/// # Errors
/// The server is away for longer than the options allow, or is no tilecatcher.
pub fn deliver<S: Tiles>(
    tiles: &S,
    outbox: &Outbox<S::Item>,
    options: &DeliveryOptions,
    stop: &Stop,
) -> Result<(), Undelivered> {
    let run = Run { tiles, outbox, options, stop, stored: AtomicU64::new(0), health: Mutex::default() };
    let failed: Mutex<Option<LinkError>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.link.connections.max(1) {
            scope.spawn(|| {
                if let Err(error) = Courier::new(&run).work() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    run.outbox.stop();
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(cause) => Err(Undelivered { cause, left: outbox.left() }),
        None => Ok(()),
    }
}

struct Run<'a, S: Tiles> {
    tiles: &'a S,
    outbox: &'a Outbox<S::Item>,
    options: &'a DeliveryOptions,
    stop: &'a Stop,
    /// Tiles stored so far.
    stored: AtomicU64,
    health: Mutex<Health>,
}

/// Whether the server takes anything at all.
#[derive(Default)]
struct Health {
    /// When it first and last failed since it last stored a tile.
    trouble: Option<(Instant, Instant)>,
    broken: bool,
}

impl<S: Tiles> Run<'_, S> {
    /// Notes the failure of what began then: true when there has been nothing else for longer than allowed.
    fn is_out_of_patience(&self, began: Instant) -> bool {
        let (now, mut health) = (Instant::now(), self.health());
        // Behind a failure lies a pause, and what others of the couriers do; after a longer silence this is other trouble.
        // How long an attempt takes does not count: the larger a body, the longer.
        let silence_max = 2 * self.options.link.timeout + PAUSE_MAX;
        let goes_on = health.trouble.filter(|(_, last)| began.saturating_duration_since(*last) <= silence_max);
        let first = goes_on.map_or(now, |(first, _)| first);
        health.trouble = Some((first, now));
        now.duration_since(first) > self.options.retry_for
    }

    fn note_progress(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
        let before = std::mem::take(&mut *self.health());
        if before.broken {
            self.tiles.noticed(Event::Restored);
        }
    }

    fn note_break(&self, problem: String, unanswered: usize) {
        self.health().broken = true;
        self.tiles.noticed(Event::Broken { problem, unanswered });
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer: the item is settled, or comes back.
    fn answered(&self, reply: Reply<Parcel<S::Item>>) {
        let Reply { tag: mut parcel, verdict, took } = reply;
        let settled = match verdict {
            Verdict::Stored(tile) => Settled::Stored { tile, bytes: parcel.bytes, took },
            Verdict::Refused(refused) if refused.is_passing() && !self.is_out_of_patience(Instant::now()) => {
                self.tiles.noticed(Event::Deferred(refused));
                let delay = pause(parcel.deferrals);
                parcel.deferrals += 1;
                return self.outbox.give_back(parcel, delay);
            }
            Verdict::Refused(refused) => Settled::Refused(refused),
        };
        if matches!(settled, Settled::Stored { .. }) {
            self.note_progress();
        }
        self.tiles.settled(parcel.item, settled);
        self.outbox.settle();
    }
}

/// One connection's thread.
struct Courier<'a, 'r, S: Tiles> {
    run: &'r Run<'a, S>,
    link: Option<Link<Parcel<S::Item>>>,
    image: Vec<u8>,
    attempts: u32,
    /// When something last went over the link.
    used: Instant,
}

impl<'a, 'r, S: Tiles> Courier<'a, 'r, S> {
    fn new(run: &'r Run<'a, S>) -> Self {
        Self { run, link: None, image: Vec::new(), attempts: 0, used: Instant::now() }
    }

    fn work(mut self) -> Result<(), LinkError> {
        loop {
            if self.run.stop.reason().is_some() {
                self.run.outbox.stop();
            }
            let idle = self.link.as_ref().is_none_or(|link| link.in_flight() == 0);
            if idle && self.used.elapsed() > IDLE_MAX {
                self.link = None;
                self.image = Vec::new();
            }
            match self.run.outbox.take(idle) {
                Take::Item(parcel) => self.send(parcel)?,
                Take::NotYet => self.receive()?,
                // Stopped with answers outstanding: they are still wanted.
                Take::Over if !idle => self.receive()?,
                Take::Over => return Ok(()),
            }
        }
    }

    fn send(&mut self, mut parcel: Parcel<S::Item>) -> Result<(), LinkError> {
        self.image.clear();
        let Some(label) = self.run.tiles.load(&parcel.item, &mut self.image) else {
            self.run.outbox.settle();
            return Ok(());
        };
        parcel.bytes = self.image.len() as u64;
        if self.image.len() > IMAGE_BYTES_MAX {
            let reason = format!("{} bytes are more than a frame can hold", self.image.len());
            self.refuse(parcel, reason);
            return Ok(());
        }
        self.used = Instant::now();
        let link = match self.link.as_mut() {
            Some(link) => link,
            None => match Link::connect(&self.run.options.link) {
                Ok(link) => self.link.insert(link),
                Err(error) => {
                    self.run.outbox.give_back(parcel, Duration::ZERO);
                    return self.back_off(error, 0);
                }
            },
        };
        self.used = Instant::now();
        let tile = Tile { key: label.key, camera: label.camera, checksum: label.checksum, image: &self.image };
        match link.send(&tile, parcel) {
            Ok(reply) => {
                self.heard(reply);
                Ok(())
            }
            Err(error) => self.broken(error),
        }
    }

    fn receive(&mut self) -> Result<(), LinkError> {
        match self.link.as_mut().map(Link::receive) {
            Some(Ok(reply)) => {
                self.heard(reply);
                Ok(())
            }
            Some(Err(error)) => self.broken(error),
            None => Ok(()),
        }
    }

    fn heard(&mut self, reply: Option<Reply<Parcel<S::Item>>>) {
        if let Some(reply) = reply {
            (self.attempts, self.used) = (0, Instant::now());
            self.run.answered(reply);
        }
    }

    /// The link broke: what has no answer is sent again, by whoever is free.
    fn broken(&mut self, error: LinkError) -> Result<(), LinkError> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let unanswered = link.give_up(|reply| self.run.answered(reply));
        let (count, stored) = (unanswered.len(), self.run.stored.load(Ordering::Relaxed));
        for (at, mut parcel) in unanswered.into_iter().enumerate() {
            // The last of them was being sent when it broke.
            if at + 1 < count {
                self.run.outbox.give_back(parcel, Duration::ZERO);
                continue;
            }
            parcel.note_break(stored);
            if parcel.breaks > BREAKS_MAX {
                let reason = format!("the connection broke {BREAKS_MAX} times while it was sent: {error}");
                self.refuse(parcel, reason);
            } else {
                // Others go first: only what becomes of them tells this tile from a server that is away.
                let behind_others = pause(self.attempts) + pause(parcel.breaks);
                self.run.outbox.give_back(parcel, behind_others);
            }
        }
        self.back_off(error, count)
    }

    /// Settles what can not be sent at all.
    fn refuse(&self, parcel: Parcel<S::Item>, reason: String) {
        self.run.tiles.settled(parcel.item, Settled::Refused(Refused { status: 1, reason }));
        self.run.outbox.settle();
    }

    /// Waits before the next attempt, unless there is none.
    fn back_off(&mut self, error: LinkError, unanswered: usize) -> Result<(), LinkError> {
        if !error.is_passing() || self.run.is_out_of_patience(self.used) {
            return Err(error);
        }
        self.run.note_break(error.to_string(), unanswered);
        self.run.outbox.pause(pause(self.attempts));
        self.attempts += 1;
        Ok(())
    }
}
