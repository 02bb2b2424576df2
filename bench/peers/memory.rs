//! Memory that is really there: the host of a virtual machine gives memory on first use, and takes back what is free.
//!
//! A server that writes through the page cache would pay for that in each run, several times the cost of the copy
//! itself, and a server on a machine of its own never. So this program holds memory between runs, and frees it when a
//! run begins.

use std::thread;

const PAGE: usize = 4096;
const BYTES_MAX: usize = 8 << 30;
const PART: usize = 256 << 20;

/// Memory that was written to, kept until it is dropped.
pub struct Reserve(#[allow(dead_code)] Vec<Vec<u8>>); // Held, never read.

impl Reserve {
    /// Takes a part of what is available, 8 GiB at most.
    pub fn take() -> Self {
        let parts = (available_bytes() / 2).min(BYTES_MAX) / PART;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let take = |n| (n..parts).step_by(threads).map(|_| touched()).collect::<Vec<_>>();
        thread::scope(|scope| {
            let takers: Vec<_> = (0..threads).map(|n| scope.spawn(move || take(n))).collect();
            Self(takers.into_iter().flat_map(|taker| taker.join().expect("takes memory only")).collect())
        })
    }
}

fn touched() -> Vec<u8> {
    let mut memory = vec![0u8; PART];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    memory
}

fn available_bytes() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}
