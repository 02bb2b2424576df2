//! The closed loop: as many tiles in flight as the window allows, on every connection, until the time is over.

use crate::contender::Client;
use anyhow::anyhow;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is sent, the same to every server.
pub struct Load<'a> {
    pub image: &'a [u8],
    /// Tiles in flight on a connection.
    pub window: usize,
    pub bytes_max: u64,
}

/// What came of it.
pub struct Driven {
    pub tiles: u64,
    /// From the first byte sent to the last tile acknowledged.
    pub took: Duration,
    /// From before the first byte of a tile to its acknowledgement, us.
    pub acks: Histogram<u64>,
}

impl Load<'_> {
    /// Sends until the time is over; every tile that was sent is acknowledged at the end.
    ///
    /// # Errors
    /// A connection broke, or a tile was refused.
    pub fn drive(&self, clients: &mut [Box<dyn Client>], time: Duration) -> anyhow::Result<Driven> {
        let began = Instant::now();
        let until = began + time;
        let sent = AtomicU64::new(0);
        let mut all = histogram();
        std::thread::scope(|scope| {
            let drive = |client| scope.spawn(|| self.drive_one(client, until, &sent));
            let threads: Vec<_> = clients.iter_mut().map(drive).collect();
            for thread in threads {
                all.add(thread.join().map_err(|_| anyhow!("a sender panicked"))??)?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(Driven { tiles: all.len(), took: began.elapsed(), acks: all })
    }

    fn drive_one(
        &self,
        client: &mut Box<dyn Client>,
        until: Instant,
        sent: &AtomicU64,
    ) -> anyhow::Result<Histogram<u64>> {
        let image_bytes = u64::try_from(self.image.len())?;
        let mut acks = histogram();
        let mut in_flight = VecDeque::with_capacity(self.window);
        loop {
            let more = Instant::now() < until && sent.load(Ordering::Relaxed) < self.bytes_max;
            if more && in_flight.len() < self.window {
                sent.fetch_add(image_bytes, Ordering::Relaxed);
                in_flight.push_back(Instant::now());
                client.send(self.image)?;
            } else if let Some(began) = in_flight.pop_front() {
                client.receive()?;
                acks.saturating_record(u64::try_from(began.elapsed().as_micros())?);
            } else {
                return Ok(acks);
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("sane bounds")
}
