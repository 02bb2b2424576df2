//! What `systemctl status` shows of a running daemon, in a line.

use crate::catalog::Catalog;
use crate::model::Pressure;
use std::sync::Arc;
use std::time::Instant;

/// Remembers the last figures, for rates.
pub(super) struct StatusLine {
    catalog: Arc<Catalog>,
    tiles: u64,
    bytes: u64,
    at: Instant,
}

impl StatusLine {
    pub(super) fn new(catalog: Arc<Catalog>) -> Self {
        let (tiles, bytes) = figures(&catalog);
        Self { catalog, tiles, bytes, at: Instant::now() }
    }

    /// The line now; rates are since the last call.
    pub(super) fn next(&mut self) -> String {
        let ((tiles, bytes), now) = (figures(&self.catalog), Instant::now());
        let seconds = now.duration_since(self.at).as_secs_f64();
        let line = line(tiles, tiles - self.tiles, bytes - self.bytes, seconds, pressure(&self.catalog));
        (self.tiles, self.bytes, self.at) = (tiles, bytes, now);
        line
    }
}

/// Tiles accepted and bytes stored since the start.
fn figures(catalog: &Catalog) -> (u64, u64) {
    let metrics = catalog.metrics();
    (metrics.tiles_accepted(), metrics.stored_bytes.get())
}

/// The worst of what senders are told.
fn pressure(catalog: &Catalog) -> Pressure {
    if !catalog.is_healthy() {
        return Pressure::Red;
    }
    let count = |value: i64| usize::try_from(value).unwrap_or(0);
    let (metrics, pool) = (catalog.metrics(), catalog.pool());
    Pressure::of(count(metrics.lane_queue_tiles.get()), count(metrics.lane_queue_limit_tiles.get()).max(1))
        .max(Pressure::of(pool.used(), pool.capacity()))
        .max(catalog.disk_pressure())
        .max(catalog.index_pressure())
}

fn line(tiles: u64, new_tiles: u64, new_bytes: u64, seconds: f64, pressure: Pressure) -> String {
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let (tile_rate, megabytes) = (rate(new_tiles), rate(new_bytes) / 1e6);
    format!("{tiles} tiles accepted, {tile_rate:.1}/s, {megabytes:.1} MB/s, pressure {pressure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_how_fast_and_how_full() {
        let text = line(1000, 114, 570_000_000, 2.0, Pressure::Green);
        assert_eq!(text, "1000 tiles accepted, 57.0/s, 285.0 MB/s, pressure GREEN");
        assert!(line(0, 0, 0, 0.0, Pressure::Red).contains("0.0/s"));
    }
}
