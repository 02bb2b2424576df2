//! The limits that may change at run time, by the name of their configuration key: only those that every reader looks up
//! anew, so that a change is whole and needs nobody's help.
//!
//! A change lasts until the daemon ends. Who is connected stays connected. Must never take a value that locks the operator
//! out or takes the files that the journal needs.

use super::Catalog;
use super::scrub::ScrubRate;
use crate::base::admission::LiveConnections;
use crate::base::descriptors;
use crate::base::live::Live;
use crate::base::units::{ByteSize, Span};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Fewest connections of the HTTP port: below, whoever set them could not set them back.
const HTTP_CONNECTIONS_MIN: u64 = 8;

/// The values that both ports read.
pub struct LiveLimits {
    /// Connections to the capture port.
    pub capture: LiveConnections,
    /// Bytes/s below which a sender inside a frame is slow.
    pub slow_rate: Live,
    /// Time that a frame may take at any rate.
    pub slow_grace: Live,
    /// Time that a sender may leave its answers unread.
    pub unread_max: Live,
    /// Connections to the HTTP port.
    pub http: LiveConnections,
    /// Most records of a listing.
    pub listing_max: Live,
    /// One change at a time: some are checked against others.
    changing: Mutex<()>,
    /// Where values come from, as the configuration says; those changed since are not in it.
    configured: Mutex<BTreeMap<&'static str, Configured>>,
}

/// What the configuration says of a key.
#[derive(Clone, Debug, Default)]
pub struct Configured {
    /// Default of the key.
    pub default: String,
    /// Where the value at the start came from.
    pub source: String,
    /// What the key means.
    pub about: String,
}

/// A limit as it is now.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Key of the configuration.
    pub key: &'static str,
    /// The value, as the configuration would have it.
    pub value: String,
    /// What the configuration says.
    pub configured: Configured,
}

/// How a key is read and set.
struct Entry {
    key: &'static str,
    read: fn(&Catalog) -> String,
    write: fn(&Catalog, &str) -> Result<(), String>,
}

static ENTRIES: [Entry; 9] = [
    Entry {
        key: "scrub.rate",
        read: |catalog| catalog.scrub().rate().to_string(),
        write: |catalog, text| text.parse::<ScrubRate>().map(|rate| catalog.scrub().set_rate(rate)),
    },
    Entry {
        key: "capture.connections_max",
        read: |catalog| catalog.limits().capture.connections.get().to_string(),
        write: |catalog, text| {
            let wanted = at_least(text, 1)?;
            fits_descriptors(wanted, catalog.limits().http.connections.get())?;
            catalog.limits().capture.connections.set(wanted);
            Ok(())
        },
    },
    Entry {
        key: "capture.connections_per_peer",
        read: |catalog| catalog.limits().capture.connections_per_peer.get().to_string(),
        write: |catalog, text| at_least(text, 1).map(|n| catalog.limits().capture.connections_per_peer.set(n)),
    },
    Entry {
        key: "capture.slow_rate",
        read: |catalog| ByteSize(catalog.limits().slow_rate.get()).to_string(),
        write: |catalog, text| text.parse().map(|ByteSize(bytes)| catalog.limits().slow_rate.set(bytes)),
    },
    Entry {
        key: "capture.slow_grace",
        read: |catalog| Span(catalog.limits().slow_grace.time()).to_string(),
        write: |catalog, text| patience(text).map(|time| catalog.limits().slow_grace.set_time(time)),
    },
    Entry {
        key: "capture.unread_max",
        read: |catalog| Span(catalog.limits().unread_max.time()).to_string(),
        write: |catalog, text| patience(text).map(|time| catalog.limits().unread_max.set_time(time)),
    },
    Entry {
        key: "http.connections_max",
        read: |catalog| catalog.limits().http.connections.get().to_string(),
        write: |catalog, text| {
            let wanted = at_least(text, HTTP_CONNECTIONS_MIN)?;
            fits_descriptors(catalog.limits().capture.connections.get(), wanted)?;
            catalog.limits().http.connections.set(wanted);
            Ok(())
        },
    },
    Entry {
        key: "http.connections_per_peer",
        read: |catalog| catalog.limits().http.connections_per_peer.get().to_string(),
        write: |catalog, text| {
            at_least(text, HTTP_CONNECTIONS_MIN).map(|n| catalog.limits().http.connections_per_peer.set(n))
        },
    },
    Entry {
        key: "http.listing_max",
        read: |catalog| catalog.limits().listing_max.get().to_string(),
        write: |catalog, text| at_least(text, 1).map(|n| catalog.limits().listing_max.set(n)),
    },
];

/// Where a value comes from that was set at run time.
const SET_AT_RUN_TIME: &str = "admin";

impl Default for LiveLimits {
    /// No limits, until whoever has a configuration sets them.
    fn default() -> Self {
        let all = || Live::new(u64::MAX);
        let connections = || LiveConnections { connections: all(), connections_per_peer: all() };
        Self {
            capture: connections(),
            slow_rate: Live::default(),
            slow_grace: all(),
            unread_max: all(),
            http: connections(),
            listing_max: all(),
            changing: Mutex::default(),
            configured: Mutex::default(),
        }
    }
}

impl LiveLimits {
    /// Notes what the configuration says of a key; of others it is passed over.
    pub fn configure(&self, key: &str, configured: Configured) {
        if let Some(entry) = ENTRIES.iter().find(|entry| entry.key == key) {
            self.configured.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.key, configured);
        }
    }

    fn configured(&self, key: &'static str) -> Configured {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }
}

impl Catalog {
    /// All limits that can be changed now.
    #[must_use]
    pub fn list_limits(&self) -> Vec<Limit> {
        let limit = |entry: &Entry| Limit {
            key: entry.key,
            value: (entry.read)(self),
            configured: self.limits().configured(entry.key),
        };
        ENTRIES.iter().map(limit).collect()
    }

    /// Sets all of these limits, or none, and nobody else any meanwhile. Returns key, value before and value now of each.
    ///
    /// # Errors
    /// A key is none of these, or can not take its value; nothing is changed.
    pub fn set_limits(&self, wanted: &BTreeMap<String, String>) -> Result<Vec<(String, String, String)>, String> {
        let limits = self.limits();
        let _one_at_a_time = limits.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done: Vec<(&Entry, String)> = Vec::new();
        for (key, value) in wanted {
            match self.set(key, value) {
                Ok(set) => done.push(set),
                Err(problem) => {
                    done.iter().rev().for_each(|(entry, before)| self.put_back(entry, before));
                    return Err(problem);
                }
            }
        }
        let told = |(entry, before): (&Entry, String)| {
            let configured = Configured { source: SET_AT_RUN_TIME.to_owned(), ..limits.configured(entry.key) };
            limits.configure(entry.key, configured);
            (entry.key.to_owned(), before, (entry.read)(self))
        };
        Ok(done.into_iter().map(told).collect())
    }

    /// Gives what was set, and its value before.
    fn set(&self, key: &str, value: &str) -> Result<(&'static Entry, String), String> {
        let names = || ENTRIES.iter().map(|entry| entry.key).collect::<Vec<_>>().join(", ");
        let entry = ENTRIES.iter().find(|entry| entry.key == key);
        let entry = entry.ok_or_else(|| format!("{key} can not be changed at run time: {} can", names()))?;
        let before = (entry.read)(self);
        (entry.write)(self, value).map_err(|problem| format!("{key}: {problem}"))?;
        Ok((entry, before))
    }

    fn put_back(&self, entry: &Entry, before: &str) {
        if let Err(problem) = (entry.write)(self, before) {
            tracing::error!(key = entry.key, before, problem, "a limit could not be put back");
        }
    }
}

fn at_least(text: &str, least: u64) -> Result<u64, String> {
    let n: u64 = text.parse().map_err(|_| format!("\"{text}\" is no count"))?;
    if n < least { Err(format!("\"{text}\": at least {least}")) } else { Ok(n) }
}

/// A time that a sender is given: none would cut all of them off.
fn patience(text: &str) -> Result<Duration, String> {
    Span::at_least(text, Duration::from_secs(1)).map(|Span(time)| time)
}

/// Connections beyond the descriptors that there are would take those of the journal.
fn fits_descriptors(capture: u64, http: u64) -> Result<(), String> {
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let wanted = [count(capture), count(http)];
    let Some(limit) = descriptors::raise() else { return Ok(()) };
    if descriptors::fit(wanted, limit) == wanted {
        return Ok(());
    }
    Err(format!("the limit on open files, {limit}, does not hold so many: raise LimitNOFILE and restart"))
}
