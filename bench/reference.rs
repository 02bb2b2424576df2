//! The machine's limit: a sink that receives, computes CRC-32, writes with O_DIRECT into preallocated files, syncs
//! a group at a time, and answers. No parsing, no index, no journal format: what any durable capture must do at least.
//!
//!     cargo bench --bench reference -- --dir DIR [--listen IP:PORT] [--prewritten]
//!
//! bench/ingest.rs starts it as a process of its own and measures it in turn with the daemon.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

pub mod sink;

use clap::Parser;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    sink: sink::SinkArgs,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let _ = args.bench;
    sink::run(&args.sink)
}
