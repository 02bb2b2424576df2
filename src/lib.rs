//! # tilecatcher: the architecture
//!
//! A daemon that takes microscope tiles over raw TCP, checks them, writes them durably, indexes them, acknowledges
//! them, and serves them back. This page is the map: the picture, the layers, the rules that hold everywhere.
//!
//! ```text
//!  camera PC        reactor threads (mio)                          lane threads (one per open segment)
//!    sender --TCP--> connection -> frame -> verify -> route ==bounded queue==> write -> sync -> index overlay
//!      ^                            |  MD5, SHA: hasher threads ------^                              |
//!      +----- answers, in request order <------ inbox + waker <--------------------------------------+
//!
//!  browser, scripts --HTTP (axum on tokio)--> catalog commands and queries, contents, health, metrics
//!
//!  control thread: decides commands one after another, one sync for those that come together
//!  keeper thread: makes segments ahead, seals full ones        index thread: folds facts into sled, in order
//! ```
//!
//! The **journal** is the truth: append-only segment files with every tile and every other fact as a checksummed
//! record. The **index** is a view of it: the fold of the journal's facts through one function, [`index::apply`],
//! the same live and in recovery. The index may be deleted at any time.
//!
//! ## Layers: import downward only
//!
//! ```text
//!  cli                           arguments, output, exit codes (clap, anyhow)
//!  top                           a running daemon in a terminal (ratatui)
//!  doctor                        what a machine will hold: measures, a daemon at its limit, arithmetic
//!  server, config, simulate      start and stop in order; keys; input for everyone
//!  service                       listeners of a service manager, readiness, watchdog (listenfd, sd-notify)
//!  audit, compact, export, verify_manifest   tools on a data directory, without a daemon or beside one
//!  send, watch | replay          a folder to a daemon, whole or while it is written (notify) | a load test
//!  ingest | http | client        data plane (mio) | side port (axum) | the protocol's other end (ureq)
//!  preview | quality             images of tiles and mosaics, kept on disk | what the pixels of tiles say of them
//!  notify                        tells people: webhook (ureq, hmac), e-mail (lettre); beside http
//!  catalog                       lanes, verification, commands and queries over journal and index
//!  journal | index | access      bytes on disk | views of them (sled) | who may do what (ipnet, subtle, getrandom)
//!  tls                           encryption of ports and clients (rustls)
//!  pixels                        what a stored image shows: smaller, brighter, cut out (png; decodes with formats' tiff)
//!  wire | formats | telemetry    frames (flatbuffers) | the field's files (tiff) | metrics, logs (prometheus)
//!  model                         the domain's nouns, no I/O
//!  base                          buffers, limits, units, clock, stop; knows no tile, protocol or file
//! ```
//!
//! Commands other than tiles: HTTP handler -> control thread (decide, append, sync, publish) -> answer. What depends on
//! the moment (TEMCA of an IP address, number of earlier acquisitions, end of a lease) is written into the fact, so that
//! a rebuild at another time gives the same answers.
//!
//! Siblings do not know each other. Each crate in brackets is imported in that one place. Lanes live in the catalog,
//! not in ingest, so that other ways in (HTTP capture) can hand tiles to the same lanes.
//!
//! ## The way of a tile, and its bounds
//!
//! | hop | from -> to | bound | when it fails |
//! |---|---|---|---|
//! | [`ingest`] connection | readiness -> bytes in a [`base::pool::TileBuffer`] | connections and unfinished bytes, of all and of one peer ([`base::admission`]); bytes a turn | peer gone or too slow: drop what is incomplete, count |
//! | [`catalog::FrameBuffer`] | bytes -> [`catalog::ReceivedFrame`]; CRC-32 while the bytes are hot | length checked before a buffer is taken | too long: answer, shut down writing, drain a bounded amount, close |
//! | [`catalog::verify`] | frame -> [`catalog::VerifiedTile`] | the tile's own bytes | refused with a status; the connection stays |
//! | [`catalog::Lanes::route`] | tile -> the lane of its key | places in the queue | full: that connection is not read; TCP pushes back |
//! | lane | batch -> records, one write, one sync | tiles and bytes in a batch | failed sync: all unacknowledged are refused, the process reports and exits with 4 |
//! | [`index::Index::publish`] | facts -> overlay, visible; sled follows | tiles in the overlay | full: lanes wait, then refuse as overloaded |
//! | answer | outcome -> response in its slot | requests in flight | peer gone: the tile stays; a resend gets the same id |
//!
//! Who looks on ([`catalog::Activity`]: live view, status) is off that way: writers tell it of a batch behind the index,
//! reactors once a wake-up. It keeps a bounded past, drops rather than waits, and a reader that is slow is told so.
//! [`preview`] and [`quality`] are off it, too: threads of the lowest importance that hold a bounded share of the buffers,
//! and look at verified bytes only. What quality control finds is recorded through the control thread.
//!
//! ## Invariants
//!
//! 1. No ack before the record is synced (ack level `durable`, the default) and visible in the index.
//! 2. The journal is the truth; index = fold(journal); deleting the index loses nothing.
//! 3. One lane owns one open segment. Sharing is by bounded queue only.
//! 4. Everything is bounded, and the bounds multiply out to the memory limits; full means push back, never drop,
//!    never grow. Buffers: one mapping of `memory.buffers`, so that the limit is the region itself. Queues that are
//!    unbounded in type (inbox, hashers, index) hold only what holds a buffer, a slot or a place in the overlay.
//! 5. A reactor never blocks, and neither allocates nor logs per tile. (It takes the pool's lock twice a tile, for
//!    tens of nanoseconds; a lock-free pool would need size classes and could not promise its limit.)
//! 6. Answers leave a connection in request order; every complete frame gets exactly one.
//! 7. Same key, same content = duplicate, same tile id; same key, other content = new version (or refused, by
//!    policy), never a silent overwrite. Equal CRC and length are not identity: digests or the bytes decide.
//! 8. A framing error closes the connection; a content error is answered.
//! 9. A failed sync is never retried on the same file.
//! 10. What is served was verified against its stored checksum, or carries it.
//!
//! ## Decisions that differ from the obvious
//!
//! - **Facts are folded in the journal's order** although lanes finish in any order: each writer keeps a floor, the
//!   lowest sequence that may still be on its way, and the index thread folds only what lies below all floors
//!   ([`journal::Journal::safe_sequence`]). Visibility does not wait for that: the overlay takes facts as they come.
//! - **Packed rows**: 64 tiles share a row of sled, for sled pays by the row in disk, memory and time to open.
//!   That makes reading the whole index at every start affordable, and so its check complete: row CRCs, sums over
//!   all rows, and count and digest of the facts against the journal's own.
//! - **A trailer vouches for its table**: the table of a sealed segment is synced before the trailer is written, so a
//!   start reads one block a sealed segment. What a record vouches for (`durable`) is judged against the end of the
//!   lane's earlier segments, or a torn first record would look like corruption. Both were found by tests/crash.
//! - **A segment tells where the one before it ended**: a writer syncs before it goes on in the next one, whose first record
//!   says so. A full segment that could not be sealed needs no other witness for its last records, nor against those that
//!   a full disk refused half way.
//! - **Losing records gives nothing twice**: the index that notices the loss knows what was given; before it goes, a record
//!   keeps the highest numbers, with a margin for what the index had not seen.
//! - **What can not be read is not judged**: a segment in which the disk refuses blocks at a start is neither sealed nor set
//!   aside. It is served by what can be read, from a list in memory, and the next start looks again; until then numbers
//!   behind a margin are given, for those in the refused blocks are not known.
//! - **A compacted segment gets a new number**, and a note while it replaces the old one: under the old number a stale
//!   location would lead to another record instead of nowhere. Its copy is read back whole before the old one goes.
//! - **A mirror is a file system of two sides** ([`journal::MirroredFilesystem`]): writer, keeper and recovery know one
//!   directory. A side that fails is recorded as out of date on the other one before anything further is acknowledged;
//!   an epoch in both decides at the next start which of them is to be believed.
//! - **The index can hold lanes back** when its overlay is full: a tile that is acknowledged must be visible and
//!   recognised when sent again, and memory is bounded. The overlay covers sled's slow moments (100 ms, observed).
//! - **The index is built anew beside itself**: the journal is folded into a second store while the first one answers, and
//!   the index thread swaps the two at a moment when both hold the same facts. Readers and lanes know nothing of it.
//! - **Paused capture is not read**: senders wait, as they do for a full lane. A refusal would cost the tile with senders
//!   that take every answer for an end.
//! - **Boards stay in memory** ([`index::Board`]): 64 places share a block of bitmaps, so distribution, completeness and
//!   states cost no look-up in the store, and counts need no scan. They are rows of the store like everything else.
//! - **Commands are decided on one thread** ([`catalog`]'s control), against the index as all earlier ones left it: two
//!   callers of next-tile can not get one tile, and need no lock for that. Those that do not depend on one another share
//!   a sync.
//! - **Lanes and commands publish out of order**, so [`index::apply`] gives the same result in either order: sums do by
//!   themselves; where a new version and a change of state meet, the higher sequence wins; a deletion names the sequence
//!   below which all is dead.
//! - **A tile over HTTP becomes the frame that a sender would have sent** ([`catalog::ImageUpload`]): one kind of record,
//!   one verification, one acknowledgement for both ways in.
//! - **Blocks are not written ahead by default** (`storage.prewrite`): writing neighbours with one call gains more,
//!   and every byte written ahead is wear.

#[cfg(feature = "daemon")]
pub mod access;
#[cfg(feature = "daemon")]
pub mod audit;
pub mod base;
#[cfg(feature = "daemon")]
pub mod catalog;
pub mod cli;
pub mod client;
#[cfg(feature = "daemon")]
pub mod compact;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod doctor;
#[cfg(feature = "daemon")]
pub mod export;
pub mod formats;
#[cfg(all(feature = "daemon", any(test, fuzzing)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
pub mod index;
#[cfg(feature = "daemon")]
pub mod ingest;
#[cfg(feature = "daemon")]
pub mod journal;
pub mod model;
#[cfg(feature = "daemon")]
pub mod notify;
#[cfg(feature = "daemon")]
pub mod pixels;
#[cfg(feature = "daemon")]
pub mod preview;
#[cfg(feature = "daemon")]
pub mod quality;
pub mod replay;
pub mod send;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod service;
pub mod simulate;
#[cfg(feature = "daemon")]
pub mod telemetry;
pub mod tls;
#[cfg(feature = "top")]
pub mod top;
#[cfg(test)]
mod unsafe_files;
#[cfg(feature = "daemon")]
pub mod verify_manifest;
pub mod watch;
pub mod wire;
