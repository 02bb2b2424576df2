//! The reference sink itself: one thread that reads and hashes, one that writes, syncs and answers.
//!
//! One reading thread, because it is the fastest here: a thread a connection moves a quarter less on two cores.

use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Events, Interest, Poll, Token};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilecatcher::base::limits::{BLOCK, READ_CHUNK, round_up_to_block};
use tilecatcher::base::pool::{Pool, TileBuffer};
use tilecatcher::model::{Pressure, TileId};
use tilecatcher::wire::{RESPONSE_BYTES, Response, encode_response};

const FILE_BYTES: u64 = 1 << 30;
const BATCH_BYTES: usize = 32 << 20;
const BATCH_TILES: usize = 512;
const POOL_BYTES: usize = 1 << 30;

#[derive(Args, Clone)]
pub struct SinkArgs {
    /// Where its files go
    #[arg(long)]
    dir: PathBuf,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Write every block once before it is used
    #[arg(long)]
    prewritten: bool,
}

struct Received {
    buffer: TileBuffer,
    len: usize,
    crc: u32,
    peer: Arc<TcpStream>,
}

/// Prints `ready capture=ADDRESS` and serves until it is killed.
pub fn run(args: &SinkArgs) -> io::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let listener = TcpListener::bind(args.listen)?;
    let pool = Pool::new(POOL_BYTES)?;
    let (tiles, queue) = bounded::<Received>(4096);
    let files = start_files(&args.dir, args.prewritten);
    // The first two files are there before anybody is served, as the daemon's are.
    while files.len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::spawn(move || write_all(&queue, &files));
    println!("ready capture={}", listener.local_addr()?);
    io::stdout().flush()?;
    receive_all(listener, &pool, &tiles)
}

/// A connection: inside a prefix, or inside a tile.
struct Peer {
    stream: mio::net::TcpStream,
    answers: Arc<TcpStream>,
    prefix: [u8; 4],
    tile: Option<(TileBuffer, crc32fast::Hasher)>,
    len: usize,
    filled: usize,
}

fn receive_all(listener: TcpListener, pool: &Pool, tiles: &Sender<Received>) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(64);
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                while peers[event.token().0].read(pool, tiles)? {}
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                let stream = TcpStream::from(stream);
                stream.set_nodelay(true)?;
                let answers = Arc::new(stream.try_clone()?);
                let mut stream = mio::net::TcpStream::from_std(stream);
                poll.registry().register(&mut stream, Token(peers.len()), Interest::READABLE)?;
                peers.push(Peer { stream, answers, prefix: [0; 4], tile: None, len: 0, filled: 0 });
            }
        }
    }
}

impl Peer {
    /// One read; false when there is nothing more.
    fn read(&mut self, pool: &Pool, tiles: &Sender<Received>) -> io::Result<bool> {
        let room = match &mut self.tile {
            Some((buffer, _)) => &mut buffer[self.filled..self.len.min(self.filled + READ_CHUNK)],
            None => &mut self.prefix[self.filled..],
        };
        let read = match self.stream.read(room) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some((buffer, hasher)) = &mut self.tile {
            hasher.update(&buffer[self.filled..self.filled + read]);
        }
        self.filled += read;
        if self.tile.is_none() && self.filled == 4 {
            (self.len, self.filled) = (u32::from_le_bytes(self.prefix) as usize, 0);
            let buffer = loop {
                match pool.try_reserve(self.len) {
                    Some(buffer) => break buffer,
                    None => std::thread::yield_now(),
                }
            };
            self.tile = Some((buffer, crc32fast::Hasher::new()));
        } else if self.filled == self.len
            && let Some((buffer, hasher)) = self.tile.take()
        {
            self.filled = 0;
            let peer = Arc::clone(&self.answers);
            let _ = tiles.send(Received { buffer, len: self.len, crc: hasher.finalize(), peer });
        }
        Ok(true)
    }
}

/// Files of 1 GiB, made ahead of their use.
fn start_files(dir: &Path, prewritten: bool) -> Receiver<OwnedFd> {
    let (made, files) = bounded(2);
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for n in 0.. {
            let file = make_file(&dir.join(format!("{n:06}.bin")), prewritten).expect("a file for the benchmark");
            if made.send(file).is_err() {
                return;
            }
        }
    });
    files
}

fn make_file(path: &Path, prewritten: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?;
    if prewritten {
        let zeros = Pool::new(8 << 20)?.try_reserve(8 << 20).expect("an empty pool");
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            rustix::io::pwrite(&file, &zeros, offset)?;
        }
    }
    rustix::fs::fsync(&file)?;
    Ok(file)
}

fn write_all(queue: &Receiver<Received>, files: &Receiver<OwnedFd>) {
    let accepted = Response {
        acq: 1,
        tile: TileId(1),
        status: 0,
        system: Pressure::Green,
        tile_queue: Pressure::Green,
        content_queue: Pressure::Green,
    };
    let answer: [u8; RESPONSE_BYTES] = encode_response(&accepted);
    let mut file = files.recv().expect("a file");
    let mut offset = 0;
    let mut crcs = 0u32;
    let mut batch = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut bytes = first.len;
        batch.push(first);
        while batch.len() < BATCH_TILES && bytes < BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.len;
            batch.push(next);
        }
        for tile in &batch {
            let whole = round_up_to_block(tile.len).max(BLOCK);
            if offset + whole as u64 > FILE_BYTES {
                rustix::fs::fdatasync(&file).expect("a sync");
                (file, offset) = (files.recv().expect("a file"), 0);
            }
            let written = rustix::io::pwrite(&file, &tile.buffer[..whole], offset).expect("a write");
            assert_eq!(written, whole, "a short write");
            offset += whole as u64;
            crcs ^= tile.crc;
        }
        rustix::fs::fdatasync(&file).expect("a sync");
        for tile in batch.drain(..) {
            let _ = (&*tile.peer).write_all(&answer);
        }
    }
    println!("crc {crcs:08x}");
}
