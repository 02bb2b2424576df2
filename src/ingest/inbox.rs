//! A reactor's inbox: what other threads have for it, and the waker that ends its wait for readiness.
//!
//! Bounded by what can be in flight: one message for each connection handed over, buffer waited for, tile accepted.

use super::transport::Transport;
use crate::base::admission::Admitted;
use crate::base::pool::{BufferWaiter, TileBuffer};
use crate::catalog::{Ack, AckSink};
use crossbeam_queue::SegQueue;
use mio::Waker;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) enum Message {
    Connection(Transport, Admitted, SocketAddr),
    Ack(Ack),
    Buffer {
        ticket: u64,
        buffer: TileBuffer,
    },
    LaneRoom,
    /// A peer's share of memory has room again.
    PeerRoom,
    /// An operator wants this connection to end.
    CutOff(u64),
    /// Capture was paused or resumed.
    Switched,
    Stop,
}

pub(super) struct Inbox {
    messages: SegQueue<Message>,
    waker: Waker,
    /// Set by the first sender since the reactor last looked: pairs with the swap in [`Inbox::open`].
    woken: AtomicBool,
    /// Connections that the reactor has or is about to get.
    pub(super) load: AtomicUsize,
}

impl Inbox {
    pub(super) fn new(waker: Waker) -> Self {
        Self { messages: SegQueue::new(), waker, woken: AtomicBool::new(false), load: AtomicUsize::new(0) }
    }

    pub(super) fn send(&self, message: Message) {
        self.messages.push(message);
        self.wake();
    }

    /// The messages so far. Later senders will wake the reactor again.
    pub(super) fn open(&self) -> impl Iterator<Item = Message> {
        self.woken.swap(false, Ordering::SeqCst);
        std::iter::from_fn(|| self.messages.pop())
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // Fails only when the reactor's poll is gone, and then nobody waits.
            let _ = self.waker.wake();
        }
    }
}

impl AckSink for Inbox {
    fn put(&self, ack: Ack) {
        self.messages.push(Message::Ack(ack));
    }

    fn flush(&self) {
        self.wake();
    }

    fn room(&self) {
        self.send(Message::LaneRoom);
    }
}

impl BufferWaiter for Inbox {
    fn granted(&self, ticket: u64, buffer: TileBuffer) {
        self.send(Message::Buffer { ticket, buffer });
    }
}
