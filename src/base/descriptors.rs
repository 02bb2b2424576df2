//! File descriptors: as many as the system allows, and limits on connections that fit.
//!
//! A daemon whose connections have taken every descriptor can not open its next segment, and storage would fail because
//! of strangers. So some are kept for its own files, whatever the configuration says.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for segments, the index, the system's own: 64 sealed segments open for reading and two each for the open ones,
/// twice with a mirror.
const OWN: usize = 512;

/// Raises the soft limit to the hard one. Returns what holds now; `None`: there is no limit.
#[must_use]
pub fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.map(|descriptors| usize::try_from(descriptors).unwrap_or(usize::MAX))
}

/// Connections of two ports, in the proportion wanted, so that `limit` descriptors hold them and the daemon's own.
#[must_use]
pub fn fit(wanted: [usize; 2], limit: usize) -> [usize; 2] {
    let all = wanted[0].saturating_add(wanted[1]);
    let room = limit.saturating_sub(OWN.min(limit / 2));
    if all <= room {
        return wanted;
    }
    let part = |n: usize| usize::try_from(n as u128 * room as u128 / all as u128).unwrap_or(room).max(1);
    wanted.map(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_is_cut_in_proportion() {
        assert_eq!(fit([1024, 512], 4096), [1024, 512]);
        assert_eq!(fit([1024, 512], 1024), [341, 170]);
        assert_eq!(fit([12_000, 1000], 20_000), [12_000, 1000]);
        assert_eq!(fit([100, 100], 100), [25, 25]);
        assert_eq!(fit([10, 1], 4), [1, 1], "a port that may have no connection is of no use");
        assert_eq!(fit([usize::MAX, 1], 1512), [1000, 1]);
    }
}
