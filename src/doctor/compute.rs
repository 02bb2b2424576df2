//! What one core does alone: checksums, copies.

use super::{mb_per_s, noise};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Longer than the caches that a tile could stay in.
const BUFFER_BYTES: usize = 32 << 20;

/// Speeds of one core, MB/s.
#[derive(Clone, Copy, Debug)]
pub struct Compute {
    /// CRC-32.
    pub crc32_mb_per_s: f64,
    /// MD5 of one stream.
    pub md5_mb_per_s: f64,
    /// A copy in memory: bytes copied, not bytes moved.
    pub copy_mb_per_s: f64,
}

impl Compute {
    pub(super) fn measure(time: Duration) -> Self {
        let from = noise(BUFFER_BYTES);
        let mut to = vec![0; BUFFER_BYTES];
        let share = time / 3;
        Self {
            crc32_mb_per_s: repeat(share, || {
                black_box(crc32fast::hash(black_box(&from)));
            }),
            md5_mb_per_s: repeat(share, || {
                black_box(md5_simd::digest(black_box(&from)));
            }),
            copy_mb_per_s: repeat(share, || black_box(&mut to).copy_from_slice(black_box(&from))),
        }
    }
}

/// Does it until the time is over, at least once; MB/s of the buffer.
fn repeat(time: Duration, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut bytes = 0;
    loop {
        work();
        bytes += BUFFER_BYTES as u64;
        let took = began.elapsed();
        if took >= time {
            return mb_per_s(bytes, took);
        }
    }
}
