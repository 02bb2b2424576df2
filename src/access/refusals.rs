//! Refusals on their way into the audit log: strangers cause them at any rate, so each cause gets a few lines, and from then
//! on one in a while with the number of those that were left out.
//!
//! A cause is an address (of IPv6 a network of 64 bits), a reason, and on what the rights rest. Bounded: beyond a fixed number
//! of causes all others are one. Must never lose the count of what it leaves out, nor wait but for another refusal.

use super::trail::Event;
use crate::base::network::network_of;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Time between lines of a cause that goes on.
const EVERY: Duration = Duration::from_secs(10);
/// Lines of a cause that come at once, as long as they are few.
const AT_ONCE: u32 = 5;
/// Causes that are told apart.
const CAUSES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Refusals {
    by_cause: Mutex<HashMap<Cause, Record>>,
}

/// A line that is to be written.
pub(super) struct Told {
    pub(super) time: SystemTime,
    pub(super) event: Event,
    /// Refusals of the same cause since its line before, that have none.
    pub(super) more: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Cause {
    address: IpAddr,
    reason: &'static str,
    by: String,
}

struct Record {
    /// Ahead of the time by [`EVERY`] for each line of late.
    due: Instant,
    /// Refusals without a line, and the last of them.
    kept: u64,
    last: Option<(SystemTime, Event)>,
}

impl Refusals {
    /// The line of a refusal, unless it is left out for now.
    pub(super) fn take(&self, event: Event, now: Instant) -> Option<Told> {
        let mut by_cause = self.lock();
        let mut cause = Cause::of(&event);
        if by_cause.len() >= CAUSES_MAX && !by_cause.contains_key(&cause) {
            by_cause.retain(|_, record| !record.is_over(now));
            if by_cause.len() >= CAUSES_MAX {
                cause = Cause::others();
            }
        }
        let record = by_cause.entry(cause).or_insert(Record { due: now, kept: 0, last: None });
        let time = SystemTime::now();
        if !record.may_speak(now) {
            record.kept += 1;
            record.last = Some((time, event));
            return None;
        }
        record.last = None;
        Some(Told { time, event, more: record.speak(now) })
    }

    /// Lines of causes that have been silent since something of them was left out, and whose turn it is. Forgets those that
    /// have nothing to say.
    pub(super) fn due(&self, now: Instant) -> Vec<Told> {
        let mut by_cause = self.lock();
        let due = by_cause.values_mut().filter(|record| record.may_speak(now)).filter_map(|record| record.tell(now));
        let due = due.collect();
        by_cause.retain(|_, record| !record.is_over(now));
        due
    }

    /// All that is left out so far, due or not.
    pub(super) fn rest(&self, now: Instant) -> Vec<Told> {
        self.lock().values_mut().filter_map(|record| record.tell(now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Cause, Record>> {
        self.by_cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cause {
    fn of(event: &Event) -> Self {
        let (peer, reason, by) = event.cause();
        Self { address: network_of(peer.ip()), reason, by }
    }

    fn others() -> Self {
        Self { address: Ipv4Addr::UNSPECIFIED.into(), reason: "", by: String::new() }
    }
}

impl Record {
    fn may_speak(&self, now: Instant) -> bool {
        self.due < now + EVERY * AT_ONCE
    }

    /// Counts a line; returns how many refusals are told with it.
    fn speak(&mut self, now: Instant) -> u64 {
        self.due = self.due.max(now) + EVERY;
        std::mem::take(&mut self.kept)
    }

    fn tell(&mut self, now: Instant) -> Option<Told> {
        let (time, event) = self.last.take()?;
        Some(Told { time, event, more: self.speak(now) - 1 })
    }

    fn is_over(&self, now: Instant) -> bool {
        self.due <= now && self.kept == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Event {
        Event::NotAdmitted {
            peer: format!("{address}:9").parse().expect("an address"),
            why: super::super::trail::NotAdmitted::Address,
        }
    }

    fn more(told: Option<Told>) -> Option<u64> {
        told.map(|told| told.more)
    }

    #[test]
    fn a_few_refusals_have_their_lines_and_a_flood_has_one_in_a_while_with_its_count() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let lines: Vec<_> = (0..100).map(|_| more(refusals.take(from("192.0.2.1"), start))).collect();
        assert_eq!(lines[..5], [Some(0); 5]);
        assert!(lines[5..].iter().all(Option::is_none));
        assert_eq!(more(refusals.take(from("192.0.2.2"), start)), Some(0), "another address");
        assert_eq!(more(refusals.take(from("192.0.2.1"), start + EVERY)), Some(95));
        assert_eq!(more(refusals.take(from("192.0.2.1"), start + EVERY)), None);
    }

    #[test]
    fn what_was_left_out_is_told_when_the_flood_is_over_and_at_the_end() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        (0..8).for_each(|_| drop(refusals.take(from("192.0.2.1"), start)));
        assert!(refusals.due(start).is_empty());
        let told = refusals.due(start + EVERY);
        assert_eq!(told.iter().map(|told| told.more).collect::<Vec<_>>(), [2], "one is the line itself");
        (0..2).for_each(|_| drop(refusals.take(from("192.0.2.1"), start + EVERY)));
        assert_eq!(refusals.rest(start + EVERY).len(), 1);
        assert!(refusals.due(start + EVERY * 20).is_empty() && refusals.lock().is_empty(), "forgotten");
    }

    #[test]
    fn causes_are_bounded_and_those_beyond_are_counted_together() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let address = |n: usize| Ipv4Addr::from(u32::try_from(n).expect("small")).to_string();
        (0..CAUSES_MAX + 500).for_each(|n| drop(refusals.take(from(&address(n)), now)));
        assert_eq!(refusals.lock().len(), CAUSES_MAX + 1);
        let told = refusals.rest(now);
        assert_eq!(told.iter().map(|told| told.more).collect::<Vec<_>>(), [500 - 5 - 1]);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_cause() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let told = (0..9).filter(|n| refusals.take(from(&format!("[2001:db8::{n}]")), now).is_some()).count();
        assert_eq!(told, 5);
    }
}
