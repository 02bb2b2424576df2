//! Wrong tokens by address: who shows too many in a minute hears for a minute that it is to wait.
//!
//! Bounded: a fixed number of addresses; of IPv6 a network of 64 bits counts as one, for its owner has all of it. Must never
//! grow by what peers do.

use crate::base::network::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens within [`WINDOW`] that are answered as such.
const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
const REFUSAL: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Failures {
    by_address: Mutex<HashMap<IpAddr, Record>>,
}

#[derive(Clone, Copy)]
struct Record {
    since: Instant,
    count: u32,
    refused_until: Option<Instant>,
}

impl Failures {
    /// How long a wrong token from this address is told to wait.
    pub(super) fn refused_for(&self, address: IpAddr) -> Option<Duration> {
        self.refused_at(address, Instant::now())
    }

    /// Counts a wrong token.
    pub(super) fn note(&self, address: IpAddr) {
        self.note_at(address, Instant::now());
    }

    fn refused_at(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let records = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let until = records.get(&network_of(address))?.refused_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn note_at(&self, address: IpAddr, now: Instant) {
        let mut records = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network_of(address);
        if records.len() >= ADDRESSES_MAX && !records.contains_key(&address) {
            make_room(&mut records, now);
        }
        let fresh = Record { since: now, count: 0, refused_until: None };
        let record = records.entry(address).or_insert(fresh);
        if record.is_over(now) {
            *record = fresh;
        }
        record.count += 1;
        if record.count >= FAILURES_MAX {
            record.refused_until = Some(now + REFUSAL);
        }
    }
}

impl Record {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.refused_until.unwrap_or(self.since + WINDOW)
    }
}

/// Takes out what is over; if nothing is, whoever has been there longest.
fn make_room(records: &mut HashMap<IpAddr, Record>, now: Instant) {
    records.retain(|_, record| !record.is_over(now));
    if records.len() >= ADDRESSES_MAX {
        let oldest = records.iter().min_by_key(|(_, record)| record.since).map(|(address, _)| *address);
        oldest.and_then(|address| records.remove(&address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn ten_wrong_tokens_in_a_minute_are_followed_by_a_minute_of_silence() {
        let (failures, start) = (Failures::default(), Instant::now());
        for n in 0..10 {
            let now = start + Duration::from_secs(n);
            assert_eq!(failures.refused_at(address(1), now), None, "{n}");
            failures.note_at(address(1), now);
        }
        let last = start + Duration::from_secs(9);
        assert_eq!(failures.refused_at(address(1), last), Some(REFUSAL));
        assert_eq!(failures.refused_at(address(2), last), None, "another address");
        assert_eq!(failures.refused_at(address(1), last + REFUSAL), None);
        failures.note_at(address(1), last + REFUSAL);
        assert_eq!(failures.refused_at(address(1), last + REFUSAL), None, "it counts from the beginning");
    }

    #[test]
    fn wrong_tokens_that_are_far_apart_are_forgotten() {
        let (failures, start) = (Failures::default(), Instant::now());
        for n in 0..30 {
            let now = start + Duration::from_secs(n * 7);
            failures.note_at(address(1), now);
            assert_eq!(failures.refused_at(address(1), now), None, "{n}");
        }
    }

    #[test]
    fn the_table_is_bounded_whatever_comes() {
        let (failures, start) = (Failures::default(), Instant::now());
        for n in 0..3 * u32::try_from(ADDRESSES_MAX).expect("small") {
            failures.note_at(address(n), start + Duration::from_millis(n.into()));
        }
        assert_eq!(failures.by_address.lock().expect("a lock").len(), ADDRESSES_MAX);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let (failures, now) = (Failures::default(), Instant::now());
        for n in 0..10 {
            failures.note_at(format!("2001:db8::{n}").parse().expect("an address"), now);
        }
        assert!(failures.refused_at("2001:db8::ffff:1".parse().expect("an address"), now).is_some());
        assert!(failures.refused_at("2001:db8:0:1::1".parse().expect("an address"), now).is_none());
    }
}
