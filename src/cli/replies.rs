//! How commands talk to people: progress bars, sizes, rates.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar on stderr that counts tiles; invisible when stderr is no terminal.
pub(super) fn tile_bar(what: &'static str, tiles: u64) -> ProgressBar {
    let bar = ProgressBar::new(tiles);
    let style = ProgressStyle::with_template("{prefix:>10} [{bar:40}] {pos}/{len} tiles {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.with_prefix(what)
}

/// A bar on stderr that counts bytes.
#[cfg(feature = "daemon")]
pub(super) fn byte_bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix:>10} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.with_prefix(what)
}

/// Bytes as MB.
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// `n` a second.
pub(super) fn rate(n: f64, took: Duration) -> f64 {
    n / took.as_secs_f64().max(1e-9)
}

/// The value below which `part` (0..1) of the ascending times lie.
pub(super) fn quantile(ascending: &[Duration], part: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 <= part <= 1, and lists are short.
    let n = (ascending.len() as f64 * part) as usize;
    ascending.get(n.min(ascending.len().saturating_sub(1))).copied().unwrap_or_default()
}
