//! Reactors: threads that wait for readiness and drive connections. The first one also accepts.
//!
//! Each connection belongs to one reactor for its life. A connection that can not go on (no buffer, no room in a
//! lane, too much in flight) is left alone until a message says that it can: mio's events are edges, so whoever was
//! parked is driven from an explicit list, never from a hoped-for event.

use super::acceptor::Acceptor;
use super::connection::{Connection, Step};
use super::hasher::{HashJob, Hashers};
use super::inbox::{Inbox, Message};
use super::transport::{Encryption, Transport};
use super::visit::Visit;
use crate::access::{Access, By};
use crate::base::admission::{Admission, Admitted, LiveConnections};
use crate::base::failpoint;
use crate::base::guard::stop_on_panic;
use crate::base::life::Pulse;
use crate::base::limits::READ_TURN;
use crate::base::pool::{BufferWaiter, Reserved};
use crate::catalog::{
    Ack, AckSink, AckToken, Catalog, FrameBuffer, LaneTile, Lanes, LiveLimits, LocalActivity, Outcome, Pressures,
    ReadKey, ReceivedFrame, Route, SenderPort, Verdict, VerifyPolicy, verify,
};
use crate::model::{AcqId, GridShape, Pressure, Refusal, TileId, TileKey};
use crate::telemetry::{CloseReason, LocalCounts, LocalTimes, Metrics, Stamp};
use crate::tls::ServerTls;
use crate::wire::Response;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TLS_LISTENER: Token = Token(usize::MAX - 2);
const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Time between looks at slow and silent connections.
const TICK: Duration = Duration::from_secs(1);
/// A tick later than this means that the daemon itself stood still: suspended, or starved.
const TICK_MISSED: Duration = Duration::from_secs(3);
/// Time between two looks at what has ended, while the daemon stops.
const STOP_TICK: Duration = Duration::from_millis(50);
/// What is known of the key of a frame that was not read.
const UNREAD: ReadKey = ReadKey::Acquisition(AcqId(0));
/// Named when threads can not be started for ports that are off.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// How the capture port works.
#[derive(Clone, Copy, Debug)]
pub struct IngestOptions {
    /// Where to listen; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// Where to listen for encrypted connections; `None`: nowhere.
    pub tls_address: Option<SocketAddr>,
    /// Number of reactor threads.
    pub reactors: usize,
    /// Number of hasher threads.
    pub hashers: usize,
    /// Longest frame, bytes.
    pub frame_bytes_max: usize,
    /// Most connections.
    pub connections_max: usize,
    /// Most connections of one peer address.
    pub connections_per_peer: usize,
    /// Most buffer bytes that the unfinished frames of one peer address hold; `None`: half of all.
    pub peer_bytes_max: Option<usize>,
    /// Most unanswered requests on one connection.
    pub in_flight_max: usize,
    /// Most buffer bytes of unanswered requests on one connection.
    pub connection_bytes_max: usize,
    /// Refuse tiles without a checksum.
    pub require_checksum: bool,
    /// Accept tiles of acquisitions that were never started.
    pub accept_unknown: bool,
    /// Bytes/s below which a sender inside a frame is slow.
    pub slow_rate: usize,
    /// Time that a frame may take at any rate.
    pub slow_grace: Duration,
    /// Time that a peer may leave its answers unread.
    pub unread_max: Duration,
    /// Time for frames that have begun when the daemon stops.
    pub stop_time: Duration,
}

impl IngestOptions {
    /// Puts what may change at run time where it can be changed. From now on it is read there.
    fn live_limits(&self, limits: &LiveLimits) -> LiveConnections {
        limits.slow_rate.set_count(self.slow_rate);
        limits.slow_grace.set_time(self.slow_grace);
        limits.unread_max.set_time(self.unread_max);
        limits.capture.connections.set_count(self.connections_max);
        limits.capture.connections_per_peer.set_count(self.connections_per_peer);
        limits.capture.clone()
    }
}

/// Listeners for the capture port that exist already; what is `None` is opened as the options say.
#[derive(Debug, Default)]
pub struct CaptureListeners {
    /// For plain connections.
    pub plain: Option<std::net::TcpListener>,
    /// For encrypted ones.
    pub tls: Option<std::net::TcpListener>,
}

/// The capture port can not be opened.
#[derive(Debug, thiserror::Error)]
#[error("capture port {address}: {source}; choose another with --capture, or stop what uses it")]
pub struct IngestError {
    /// The address.
    pub address: SocketAddr,
    /// The operating system's answer.
    pub source: io::Error,
}

/// The running capture port.
pub struct Capture {
    address: Option<SocketAddr>,
    tls_address: Option<SocketAddr>,
    inboxes: Vec<Arc<Inbox>>,
    reactors: Vec<JoinHandle<()>>,
    hashers: Vec<JoinHandle<()>>,
}

struct Reactor {
    poll: Poll,
    inbox: Arc<Inbox>,
    /// The doors of the ports: of the first reactor only.
    acceptors: Vec<(Token, Acceptor)>,
    admission: Admission,
    /// All reactors' inboxes, for handing out connections.
    peers: Vec<Arc<Inbox>>,
    options: IngestOptions,
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    access: Arc<Access>,
    lanes: Lanes,
    hashers: Hashers,
    connections: Vec<Place>,
    free: Vec<usize>,
    /// Connections that want another turn.
    turns: VecDeque<usize>,
    /// Connections that hold a tile for a full lane.
    parked: Vec<usize>,
    /// Connections whose peer has no room in its share of memory.
    short: Vec<usize>,
    /// Connections whose answers are to be sent at the end of this wake-up; those that come up meanwhile, at the next one's.
    answered: Vec<usize>,
    known: KnownAcquisitions,
    pressures: Pressures,
    counts: LocalCounts,
    seen: LocalActivity,
    ack_times: LocalTimes,
    stop_at: Option<Instant>,
    pulse: Arc<Pulse>,
}

/// The listener that exists already, or one at the address.
fn open(
    existing: Option<std::net::TcpListener>,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, IngestError> {
    let failed = |source| IngestError { address: address.unwrap_or(NOWHERE), source };
    let listener = match (existing, address) {
        (Some(listener), _) => Some(from_std(listener)),
        (None, address) => address.map(TcpListener::bind),
    };
    listener.transpose().map_err(failed)
}

/// A place for a connection; the generation tells a later tenant from an earlier one.
#[derive(Default)]
struct Place {
    connection: Option<Connection>,
    generation: u32,
    visit: Visit,
}

/// Acquisitions that this reactor has found started, with their grids. Emptied when acquisitions change.
#[derive(Default)]
struct KnownAcquisitions {
    generation: u64,
    grids: HashMap<AcqId, GridShape>,
}

impl Capture {
    /// As [`Self::start_guarded`], for peers on this machine only.
    ///
    /// # Errors
    /// As there.
    pub fn start(
        options: IngestOptions,
        listeners: CaptureListeners,
        tls: Option<&ServerTls>,
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
    ) -> Result<Self, IngestError> {
        Self::start_guarded(options, listeners, tls, catalog, lanes, &Access::loopback_only(catalog.metrics()))
    }

    /// Starts reactors and hashers, on the listeners or on some that it opens; `access` says who may connect without a
    /// certificate.
    ///
    /// # Errors
    /// The port can not be bound, a thread not started.
    pub fn start_guarded(
        options: IngestOptions,
        listeners: CaptureListeners,
        tls: Option<&ServerTls>,
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
        access: &Arc<Access>,
    ) -> Result<Self, IngestError> {
        let listener = open(listeners.plain, options.address)?;
        let tls_listener = open(listeners.tls, options.tls_address.filter(|_| tls.is_some()))?;
        let named = options.address.or(options.tls_address).unwrap_or(NOWHERE);
        let encryption = tls.map(|tls| Encryption::new(tls.clone(), catalog.metrics()));
        Self::try_start(options, (listener, tls_listener.zip(encryption)), catalog, lanes, access)
            .map_err(|source| IngestError { address: named, source })
    }

    fn try_start(
        options: IngestOptions,
        (listener, tls_listener): (Option<TcpListener>, Option<(TcpListener, Encryption)>),
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
        access: &Arc<Access>,
    ) -> io::Result<Self> {
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let tls_address = tls_listener.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
        let metrics = catalog.metrics();
        let (hashers, hasher_threads) = Hashers::start(options.hashers, lanes, metrics, catalog.stop())?;
        let polls = (0..options.reactors.max(1)).map(|_| Poll::new()).collect::<io::Result<Vec<Poll>>>()?;
        let inboxes = polls
            .iter()
            .map(|poll| Ok(Arc::new(Inbox::new(Waker::new(poll.registry(), WAKER)?))))
            .collect::<io::Result<Vec<Arc<Inbox>>>>()?;
        let live = options.live_limits(catalog.limits());
        let admission = Admission::live(live, options.peer_bytes_max.unwrap_or(catalog.pool().capacity() / 2));
        let all = inboxes.clone();
        catalog.switch().watch(move || all.iter().for_each(|inbox| inbox.send(Message::Switched)));
        let plain = listener.map(|listener| (LISTENER, listener, None));
        let encrypted = tls_listener.map(|(listener, encryption)| (TLS_LISTENER, listener, Some(encryption)));
        let mut acceptors = Vec::new();
        for (token, listener, encryption) in plain.into_iter().chain(encrypted) {
            let registry = polls[0].registry();
            acceptors.push((token, Acceptor::new(listener, encryption, admission.clone(), registry, token)?));
        }
        let mut reactors = Vec::new();
        for (n, poll) in polls.into_iter().enumerate() {
            let reactor = Reactor {
                poll,
                inbox: Arc::clone(&inboxes[n]),
                acceptors: if n == 0 { std::mem::take(&mut acceptors) } else { Vec::new() },
                admission: admission.clone(),
                peers: inboxes.clone(),
                options,
                catalog: Arc::clone(catalog),
                metrics: Arc::clone(metrics),
                access: Arc::clone(access),
                lanes: lanes.clone(),
                hashers: hashers.clone(),
                connections: Vec::new(),
                free: Vec::new(),
                turns: VecDeque::new(),
                parked: Vec::new(),
                short: Vec::new(),
                answered: Vec::new(),
                known: KnownAcquisitions::default(),
                pressures: Pressures::default(),
                counts: LocalCounts::default(),
                seen: LocalActivity::new(catalog.activity()),
                ack_times: metrics.ack_times(),
                stop_at: None,
                pulse: metrics.life.pulse(&format!("reactor-{n}")),
            };
            let stop = catalog.stop().clone();
            let peers = inboxes.clone();
            // One that broke can tell the others nothing more: they would wait for it for ever.
            let tell_all = move || peers.iter().for_each(|inbox| inbox.send(Message::Stop));
            let run = move || stop_on_panic("reactor", &stop, || reactor.run()).unwrap_or_else(tell_all);
            reactors.push(std::thread::Builder::new().name(format!("reactor-{n}")).spawn(run)?);
        }
        Ok(Self { address, tls_address, inboxes, reactors, hashers: hasher_threads })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The bound address for encrypted connections.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Stops accepting, lets begun frames end within the configured time, answers what is in flight, closes.
    pub fn stop(self) {
        // The first reactor tells the others when it accepts no more: who is cut off and comes again must not meet the same
        // process again.
        self.inboxes[0].send(Message::Stop);
        for thread in self.reactors.into_iter().chain(self.hashers) {
            let _ = thread.join();
        }
    }
}

impl Reactor {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut ticked = Instant::now();
        while !self.has_stopped() {
            let is_idle = self.turns.is_empty() && self.answered.is_empty();
            let wait = if is_idle { self.patience() } else { Duration::ZERO };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the capture port's poll failed");
                return;
            }
            for event in &events {
                self.on_event(event);
            }
            self.pulse.moves();
            // Once a wake-up: what all answers of it say.
            self.pressures = self.catalog.pressures(&self.lanes);
            self.read_inbox();
            for _ in 0..self.turns.len() {
                if let Some(n) = self.turns.pop_front() {
                    if let Some(connection) = self.connections[n].connection.as_mut() {
                        connection.queued = false;
                    }
                    self.drive(n);
                }
            }
            self.send_answers();
            self.pass_on_shares();
            if self.stop_at.is_some() {
                self.close_finished();
            }
            let since_tick = ticked.elapsed();
            if since_tick >= TICK {
                ticked = Instant::now();
                self.tick(since_tick >= TICK_MISSED);
            }
            self.publish();
        }
        self.close_all();
    }

    fn on_event(&mut self, event: &mio::event::Event) {
        match event.token() {
            token @ (LISTENER | TLS_LISTENER) => self.accept(token),
            WAKER => {}
            Token(n) => {
                if event.is_writable() {
                    self.answered.push(n);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    if let Some(connection) = self.connections[n].connection.as_mut()
                        && (event.is_read_closed() || event.is_error())
                    {
                        connection.note_half_closed();
                        // Nobody reads from it now, so nobody would find out that it broke.
                        if event.is_error() && (connection.waits_for_memory() || connection.is_held_back()) {
                            return self.close(n, CloseReason::Cut);
                        }
                    }
                    self.drive(n);
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        let tick = if self.stop_at.is_some() { STOP_TICK } else { TICK };
        let again = self.acceptors.iter().filter_map(|(_, acceptor)| acceptor.again_at());
        let soonest = again.chain(self.stop_at).min();
        soonest.map_or(tick, |at| at.saturating_duration_since(Instant::now()).min(tick))
    }

    /// Gives each new connection of a port to the reactor with the fewest.
    fn accept(&mut self, port: Token) {
        let (peers, metrics) = (&self.peers, &self.metrics);
        let Some((_, acceptor)) = self.acceptors.iter_mut().find(|(token, _)| *token == port) else { return };
        acceptor.accept(metrics, &self.access, |stream, place, peer| {
            if let Some(inbox) = peers.iter().min_by_key(|inbox| inbox.load.load(Ordering::Relaxed)) {
                inbox.load.fetch_add(1, Ordering::Relaxed);
                metrics.connections.inc();
                inbox.send(Message::Connection(stream, place, peer));
            }
        });
    }

    fn read_inbox(&mut self) {
        let inbox = Arc::clone(&self.inbox);
        for message in inbox.open() {
            match message {
                Message::Connection(stream, place, peer) => self.adopt(stream, place, peer),
                Message::Ack(ack) => self.on_ack(ack),
                Message::Buffer { ticket, buffer } => {
                    if let Some((n, connection)) = self.tenant(ticket)
                        && connection.waits_for_pool()
                    {
                        connection.give_awaited(buffer);
                        self.drive(n);
                    }
                }
                Message::LaneRoom => {
                    for n in std::mem::take(&mut self.parked) {
                        self.retry_parked(n);
                    }
                }
                Message::PeerRoom => {
                    for n in std::mem::take(&mut self.short) {
                        self.retry_short(n);
                    }
                }
                Message::CutOff(ticket) => {
                    if let Some((n, _)) = self.tenant(ticket) {
                        self.close(n, CloseReason::Operator);
                    }
                }
                Message::Switched => (0..self.connections.len()).for_each(|n| self.drive(n)),
                Message::Stop => self.begin_stop(),
            }
        }
        for port in 0..self.acceptors.len() {
            let (token, acceptor) = &mut self.acceptors[port];
            if acceptor.has_rested() {
                let token = *token;
                self.accept(token);
            }
        }
    }

    fn adopt(&mut self, mut stream: Transport, place: Admitted, peer: SocketAddr) {
        let n = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Place::default());
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.stop_at.is_some() || self.poll.registry().register(stream.socket(), Token(n), interest).is_err() {
            self.free.push(n);
            return self.count_closed(CloseReason::Stopping);
        }
        self.connections[n].connection = Some(Connection::new(stream, place));
        self.connections[n].visit = Visit::begin(peer);
        self.tell_of_sender(n);
        self.drive(n);
    }

    /// Lets a connection go on as far as it can.
    fn drive(&mut self, n: usize) {
        let (window, bytes_max) = (self.options.in_flight_max, self.options.connection_bytes_max);
        let mut turn = READ_TURN;
        if let Some(connection) = self.connections[n].connection.as_mut() {
            connection.rearm();
            connection.paused = self.catalog.switch().is_paused();
        }
        loop {
            let place = &mut self.connections[n];
            let Some(connection) = place.connection.as_mut() else { return };
            let step = connection.advance(window, bytes_max, &mut turn);
            let received = std::mem::take(&mut connection.received_bytes);
            place.visit.received(received);
            self.counts.received_bytes += received;
            match step {
                Step::Readable | Step::Memory | Step::Answers | Step::Lane => return self.close_if_finished(n),
                Step::Turn => {
                    if !std::mem::replace(&mut connection.queued, true) {
                        self.turns.push_back(n);
                    }
                    return;
                }
                Step::Buffer(len) => {
                    if !self.provide_buffer(n, len) {
                        return;
                    }
                }
                Step::Frame(frame) => self.on_frame(n, frame),
                Step::Ended => return self.close_if_finished(n),
                Step::Broken => return self.close(n, CloseReason::Cut),
            }
        }
    }

    /// Gets the buffer for a frame, or refuses the frame. False: the connection waits.
    fn provide_buffer(&mut self, n: usize, len: u32) -> bool {
        let bytes = FrameBuffer::buffer_bytes(len as usize);
        let ticket = self.ticket(n);
        let Some(connection) = self.connections[n].connection.as_mut() else { return false };
        if len == 0 {
            connection.skip_empty_frame();
            self.refuse_now(n, UNREAD, Refusal::EmptyFrame);
            return true;
        }
        if len as usize > self.options.frame_bytes_max {
            connection.drain();
            self.refuse_now(n, UNREAD, Refusal::TooLarge);
            return true;
        }
        let Some(held) = connection.hold_share(bytes) else {
            self.short.push(n);
            return false;
        };
        match self.catalog.pool().reserve_or_wait(bytes, ticket, &waiter(&self.inbox)) {
            Some(Reserved::Now(buffer)) => {
                connection.give_buffer(buffer, held);
                true
            }
            Some(Reserved::Later) => {
                connection.wait_for_pool(held);
                false
            }
            None => {
                connection.drain();
                self.refuse_now(n, UNREAD, Refusal::TooLarge);
                true
            }
        }
    }

    /// Tries again for a connection whose peer's share had no room.
    fn retry_short(&mut self, n: usize) {
        let connection = self.connections[n].connection.as_ref();
        let len = connection.and_then(Connection::short_of_share);
        if len.is_some_and(|len| self.provide_buffer(n, len)) {
            self.drive(n);
        }
    }

    /// Tells the reactors that a peer's share has room, if somebody waits for one.
    fn pass_on_shares(&self) {
        if self.admission.take_freed() {
            self.peers.iter().for_each(|inbox| inbox.send(Message::PeerRoom));
        }
    }

    fn on_frame(&mut self, n: usize, frame: ReceivedFrame) {
        failpoint::pass("reactor");
        let policy = VerifyPolicy { require_checksum: self.options.require_checksum };
        let bytes = FrameBuffer::buffer_bytes(frame.bytes().len());
        let (known, index, accept_unknown) = (&mut self.known, self.catalog.index(), self.options.accept_unknown);
        let frame = frame.sent_by(self.connections[n].visit.peer());
        let verdict = verify(frame, policy, &mut |acq| known.contains(acq, index) || accept_unknown);
        let ticket = self.ticket(n);
        let Some(connection) = self.connections[n].connection.as_mut() else { return };
        match verdict {
            Verdict::Refused(key, refusal) => self.refuse_now(n, key, refusal),
            Verdict::Pending(tile) => {
                let slot = connection.open_slot(tile.received_at(), bytes);
                let token = AckToken { connection: ticket, slot };
                self.counts.beyond_grid += u64::from(self.known.is_beyond_grid(tile.key()));
                self.hashers.hash(HashJob { tile, token, sink: Arc::clone(&self.inbox) as Arc<dyn AckSink> });
            }
            Verdict::Verified(tile) => {
                let slot = connection.open_slot(tile.received_at(), bytes);
                let token = AckToken { connection: ticket, slot };
                self.counts.beyond_grid += u64::from(self.known.is_beyond_grid(tile.key()));
                let sink = Arc::clone(&self.inbox) as Arc<dyn AckSink>;
                self.route(n, LaneTile { tile, token, sink });
            }
        }
    }

    fn route(&mut self, n: usize, tile: LaneTile) {
        if let Route::Full(tile) = self.lanes.route(tile)
            && let Some(connection) = self.connections[n].connection.as_mut()
        {
            connection.park(tile);
            self.parked.push(n);
        }
    }

    fn retry_parked(&mut self, n: usize) {
        let tile = self.connections[n].connection.as_mut().and_then(Connection::unpark);
        if let Some(tile) = tile {
            self.route(n, *tile);
            self.drive(n);
        }
    }

    fn on_ack(&mut self, ack: Ack) {
        let is_stored = matches!(ack.outcome, Outcome::Accepted(_));
        let response = response(ack.key.acq, ack.outcome, self.pressures);
        let mut peer = None;
        match self.tenant(ack.token.connection) {
            Some((n, connection)) => {
                connection.answer(ack.token.slot, response);
                peer = self.connections[n].visit.peer();
                self.connections[n].visit.count(ack.key.acq, is_stored);
                self.answered.push(n);
            }
            None => self.counts.unanswered += 1,
        }
        if let Outcome::Refused(why) = ack.outcome {
            self.seen.refused(ack.key, why, peer);
        }
    }

    fn refuse_now(&mut self, n: usize, key: ReadKey, refusal: Refusal) {
        self.counts.refused(refusal);
        self.counts.refused_of(key.acq());
        if let ReadKey::Whole(key) = key {
            self.seen.refused(key, refusal, self.connections[n].visit.peer());
        }
        let response = response(key.acq(), Outcome::Refused(refusal), self.pressures);
        if let Some(connection) = self.connections[n].connection.as_mut() {
            let slot = connection.open_slot(Stamp::now(), 0);
            connection.answer(slot, response);
            self.connections[n].visit.count(key.acq(), false);
            self.answered.push(n);
        }
    }

    /// Sends what has become answerable in this wake-up, and lets connections read on that waited for it. One pass: a peer
    /// whose frames are refused as fast as they come would keep it going for ever, and everybody else waiting.
    fn send_answers(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        answered.sort_unstable();
        answered.dedup();
        for n in answered {
            self.tell_of_sender(n);
            let Some(connection) = self.connections[n].connection.as_mut() else { continue };
            let (times, seen) = (&self.ack_times, &mut self.seen);
            let sent = connection.send_answers(|age| {
                times.add(age);
                seen.answered(age);
            });
            match sent {
                Ok(()) => self.drive(n),
                Err(_) => self.close(n, CloseReason::Cut),
            }
        }
    }

    /// Once a wake-up and connection: who sends, and how much.
    fn tell_of_sender(&mut self, n: usize) {
        let (ticket, inbox) = (self.ticket(n), &self.inbox);
        let Place { connection: Some(connection), visit, .. } = &mut self.connections[n] else { return };
        let stream = connection.stream();
        let cut = || {
            let inbox = Arc::clone(inbox);
            move || inbox.send(Message::CutOff(ticket))
        };
        match (stream.is_encrypted(), stream.client()) {
            (false, _) => {
                visit.let_in(|peer| self.access.by_address(peer.ip()), &self.access);
                visit.list(self.seen.activity(), SenderPort::Capture, None, cut());
            }
            (true, Some(name)) => {
                visit.let_in(|_| By::Certificate(name.to_owned()), &self.access);
                visit.list(self.seen.activity(), SenderPort::CaptureTls, Some(name), cut());
            }
            (true, None) => {}
        }
        visit.publish();
    }

    /// Looks after slow, silent and finished connections. Nobody is slow because the daemon stood still.
    fn tick(&mut self, stood_still: bool) {
        let limits = self.catalog.limits();
        let (slow_grace, slow_rate) = (limits.slow_grace.time(), limits.slow_rate.count());
        let unread_max = limits.unread_max.time();
        let contended = self.catalog.pool().waiting() > 0 || self.admission.is_short();
        // While others wait for memory, a slow sender gets less time.
        let grace = if contended { slow_grace / 6 } else { slow_grace };
        let window = (slow_grace / 3).min(grace);
        for n in 0..self.connections.len() {
            self.tell_of_sender(n);
            let Some(connection) = self.connections[n].connection.as_mut() else { continue };
            if stood_still {
                connection.forgive();
            } else if connection.unread_for() > unread_max {
                self.close(n, CloseReason::Unread);
            } else if connection.is_slow(grace, window, slow_rate) {
                tracing::debug!(connection = n, "closed: slower than the configured rate inside a frame");
                self.close(n, CloseReason::Slow);
            } else if connection.has_drained() && self.stop_at.is_none() {
                // What came before the framing error may still be on its way to its answer.
                connection.end_drain();
                self.close_if_finished(n);
            } else if connection.stream().is_overdue() {
                self.close(n, CloseReason::Handshake);
            }
        }
        let (waiting, places) = self.lanes.fill();
        Metrics::set(&self.metrics.lane_queue_tiles, waiting);
        Metrics::set(&self.metrics.lane_queue_limit_tiles, places);
    }

    /// Closes a connection that has ended and been answered; until then what is in flight is waited for.
    fn close_if_finished(&mut self, n: usize) {
        let Some(connection) = self.connections[n].connection.as_mut() else { return };
        if connection.is_finished() {
            if self.stop_at.is_some() && connection.linger() {
                return self.drive(n);
            }
            let why = if self.stop_at.is_some() { CloseReason::Stopping } else { connection.end_reason() };
            self.close(n, why);
        }
    }

    fn close(&mut self, n: usize, why: CloseReason) {
        // One that came and went in one wake-up.
        self.tell_of_sender(n);
        let place = &mut self.connections[n];
        if let Some(mut connection) = place.connection.take() {
            let ticket = (u64::from(place.generation) << 32) | n as u64;
            place.generation = place.generation.wrapping_add(1);
            if connection.short_of_share().is_some() {
                self.short.retain(|short| *short != n);
            }
            if connection.waits_for_pool() {
                self.catalog.pool().cancel(ticket, &waiter(&self.inbox));
            }
            self.counts.unanswered += connection.undelivered() as u64;
            let _ = self.poll.registry().deregister(connection.stream().socket());
            std::mem::take(&mut place.visit).end(why, &self.access);
            self.free.push(n);
            self.count_closed(why);
        }
    }

    fn count_closed(&self, why: CloseReason) {
        self.inbox.load.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections.dec();
        self.metrics.connection_closed(why);
    }

    fn begin_stop(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        self.stop_at = Some(Instant::now() + self.options.stop_time);
        for (_, acceptor) in &mut self.acceptors {
            acceptor.close(self.poll.registry());
        }
        // Only the first reactor has listeners; now they are closed.
        if Arc::ptr_eq(&self.inbox, &self.peers[0]) {
            self.peers[1..].iter().for_each(|peer| peer.send(Message::Stop));
        }
        for n in 0..self.connections.len() {
            if let Some(connection) = self.connections[n].connection.as_mut() {
                connection.stop();
                self.drive(n);
            }
        }
    }

    /// What lingers comes to its end by time, not by an event.
    fn close_finished(&mut self) {
        for n in 0..self.connections.len() {
            self.close_if_finished(n);
        }
    }

    fn has_stopped(&self) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        Instant::now() >= stop_at || self.connections.iter().all(|place| place.connection.is_none())
    }

    fn close_all(&mut self) {
        for n in 0..self.connections.len() {
            self.close(n, CloseReason::Stopping);
        }
        self.publish();
    }

    /// What this wake-up has counted and timed.
    fn publish(&mut self) {
        self.counts.publish(&self.metrics);
        self.ack_times.publish();
        self.seen.publish();
    }

    /// Names a connection for other threads.
    fn ticket(&self, n: usize) -> u64 {
        (u64::from(self.connections[n].generation) << 32) | n as u64
    }

    /// The connection of a ticket, if it is still there.
    fn tenant(&mut self, ticket: u64) -> Option<(usize, &mut Connection)> {
        let n = usize::try_from(ticket & u64::from(u32::MAX)).ok()?;
        let place = self.connections.get_mut(n)?;
        let same = u64::from(place.generation) == ticket >> 32;
        place.connection.as_mut().filter(|_| same).map(|connection| (n, connection))
    }
}

fn response(acq: AcqId, outcome: Outcome, pressure: Pressures) -> Response {
    let Pressures { tile_queue, content_queue } = pressure;
    let (tile, status, system) = match outcome {
        Outcome::Accepted(tile) => (tile, 0, tile_queue.max(content_queue)),
        Outcome::Refused(refusal) => (TileId::NONE, refusal.status(), Pressure::Red),
    };
    Response { acq: acq.0, tile, status, system, tile_queue, content_queue }
}

fn waiter(inbox: &Arc<Inbox>) -> Arc<dyn BufferWaiter> {
    Arc::clone(inbox) as Arc<dyn BufferWaiter>
}

/// A listener that was opened elsewhere.
fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener))
}

impl KnownAcquisitions {
    fn contains(&mut self, acq: AcqId, index: &crate::index::Index) -> bool {
        let generation = index.acquisitions_generation();
        if generation != self.generation {
            (self.generation, self.grids) = (generation, HashMap::new());
        }
        if self.grids.contains_key(&acq) {
            return true;
        }
        let Some(view) = index.acquisition(acq) else { return false };
        let Some(started) = &view.head.started else { return false };
        self.grids.insert(acq, started.facts.grid());
        true
    }

    fn is_beyond_grid(&self, key: TileKey) -> bool {
        self.grids.get(&key.acq).is_some_and(|grid| grid.leaves_out(key.col, key.row))
    }
}
