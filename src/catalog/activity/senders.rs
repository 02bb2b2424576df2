//! Who sends: the connections that are there now, with their counts. Counting takes no lock; coming and going does.

use crate::base::clock;
use crate::model::AcqId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Through which door a sender came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderPort {
    /// The capture port.
    Capture,
    /// The encrypted capture port.
    CaptureTls,
    /// The HTTP port.
    Http,
}

impl SenderPort {
    /// As the status names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::CaptureTls => "capture-tls",
            Self::Http => "http",
        }
    }
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Tiles accepted.
    pub tiles: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Tiles refused.
    pub refused: u64,
    /// For which acquisition the last one was.
    pub acq: Option<AcqId>,
}

/// A sender that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderView {
    /// Its number since the start of the daemon.
    pub id: u64,
    /// Its address.
    pub peer: SocketAddr,
    /// Through which door it came.
    pub port: SenderPort,
    /// The name in its certificate or of its token.
    pub name: Option<String>,
    /// When it connected, ns since 1970 UTC.
    pub since_ns: i64,
    /// What it did so far.
    pub counts: SenderCounts,
    /// When its last tile was accepted, ns since 1970 UTC.
    pub last_tile_ns: Option<i64>,
}

#[derive(Default)]
pub(super) struct Senders {
    next: AtomicU64,
    http_bytes: AtomicU64,
    list: Mutex<BTreeMap<u64, Arc<Sender>>>,
}

struct Sender {
    id: u64,
    peer: SocketAddr,
    port: SenderPort,
    name: Option<String>,
    since_ns: i64,
    /// Counts are each right by themselves; nobody needs them to fit each other, so all are relaxed.
    tiles: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    acq: AtomicU64,
    has_acq: AtomicBool,
    last_tile_ns: AtomicI64,
    /// Cuts the connection off; set by whoever has it.
    cut: OnceLock<Cut>,
}

type Cut = Box<dyn Fn() + Send + Sync>;

/// A sender's place in the list, given up when dropped.
pub struct Connected {
    sender: Arc<Sender>,
    senders: Arc<Senders>,
}

impl Senders {
    pub(super) fn list(&self, limit: usize) -> (Vec<SenderView>, usize) {
        let list = self.lock();
        (list.values().take(limit).map(|sender| sender.view()).collect(), list.len())
    }

    /// Cuts a sender off, if it is there. Its connection ends a moment later.
    pub(super) fn cut(&self, id: u64) -> bool {
        let sender = self.lock().get(&id).cloned();
        sender.as_ref().and_then(|sender| sender.cut.get()).inspect(|cut| cut()).is_some()
    }

    /// Bytes of tiles that ever came over HTTP.
    pub(super) fn http_bytes(&self) -> u64 {
        self.http_bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Sender>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    fn view(&self) -> SenderView {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let acq = self.has_acq.load(Ordering::Relaxed).then(|| AcqId(read(&self.acq)));
        let (tiles, bytes, refused) = (read(&self.tiles), read(&self.bytes), read(&self.refused));
        SenderView {
            id: self.id,
            peer: self.peer,
            port: self.port,
            name: self.name.clone(),
            since_ns: self.since_ns,
            counts: SenderCounts { tiles, bytes, refused, acq },
            last_tile_ns: Some(self.last_tile_ns.load(Ordering::Relaxed)).filter(|at| *at != 0),
        }
    }
}

impl Connected {
    pub(super) fn begin(senders: &Arc<Senders>, peer: SocketAddr, port: SenderPort, name: Option<String>) -> Self {
        let id = senders.next.fetch_add(1, Ordering::Relaxed) + 1;
        let sender = Arc::new(Sender {
            id,
            peer,
            port,
            name,
            since_ns: clock::unix_ns(),
            tiles: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            acq: AtomicU64::new(0),
            has_acq: AtomicBool::new(false),
            last_tile_ns: AtomicI64::new(0),
            cut: OnceLock::new(),
        });
        senders.lock().insert(id, Arc::clone(&sender));
        Self { sender, senders: Arc::clone(senders) }
    }

    /// Says how the connection is cut off. It must not block.
    pub fn when_cut(&self, cut: impl Fn() + Send + Sync + 'static) {
        let _ = self.sender.cut.set(Box::new(cut));
    }

    /// Adds what it did since the last call.
    pub fn add(&self, counts: SenderCounts) {
        let sender = &self.sender;
        sender.tiles.fetch_add(counts.tiles, Ordering::Relaxed);
        sender.bytes.fetch_add(counts.bytes, Ordering::Relaxed);
        if sender.port == SenderPort::Http {
            self.senders.http_bytes.fetch_add(counts.bytes, Ordering::Relaxed);
        }
        sender.refused.fetch_add(counts.refused, Ordering::Relaxed);
        if let Some(acq) = counts.acq {
            sender.acq.store(acq.0, Ordering::Relaxed);
            sender.has_acq.store(true, Ordering::Relaxed);
        }
        if counts.tiles > 0 {
            sender.last_tile_ns.store(clock::unix_ns(), Ordering::Relaxed);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.senders.lock().remove(&self.sender.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_listed_with_their_counts_until_they_go() {
        let senders = Arc::new(Senders::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let first = Connected::begin(&senders, peer, SenderPort::Capture, None);
        let second = Connected::begin(&senders, peer, SenderPort::CaptureTls, Some("pc-1".to_owned()));
        first.add(SenderCounts { tiles: 2, bytes: 10, refused: 0, acq: Some(AcqId(0)) });
        first.add(SenderCounts { tiles: 0, bytes: 5, refused: 1, acq: None });
        let (list, total) = senders.list(1);
        assert_eq!((list.len(), total), (1, 2));
        assert_eq!(list[0].counts, SenderCounts { tiles: 2, bytes: 15, refused: 1, acq: Some(AcqId(0)) });
        assert!(list[0].last_tile_ns.is_some());
        drop(first);
        let (list, total) = senders.list(9);
        assert_eq!((list[0].name.as_deref(), list[0].last_tile_ns, total), (Some("pc-1"), None, 1));
        drop(second);
        assert_eq!(senders.list(9).1, 0);
    }
}
