//! Two stores, row by row: which rows differ. One of them may be written meanwhile, so what differs is looked at again
//! when it rests ([`settle`]). Holds a bounded number of rows and names.

use super::rows::row_name;
use super::store::{Row, StoreError, ViewStore};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Rows read at a time.
const STEP: usize = 512;
/// Most rows that are looked at again: more than that is an index to be rebuilt.
const DOUBTS_MAX: usize = 100_000;
/// Differences that are named.
const NAMED_MAX: usize = 100;

/// What is wrong with a row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowProblem {
    /// The journal says it, the index does not.
    Missing,
    /// The index says it, the journal does not.
    Extra,
    /// They say different things.
    Differs,
}

/// Where index and journal do not agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// How many rows.
    pub rows: u64,
    /// The first of them, by name.
    pub named: Vec<(String, RowProblem)>,
    /// There may be more: too many differed to look at all of them again.
    pub more: bool,
}

/// Keys whose rows may differ.
#[derive(Default)]
pub(super) struct Doubts {
    keys: BTreeSet<Vec<u8>>,
    more: bool,
}

impl Doubts {
    pub(super) fn add(&mut self, key: Vec<u8>) {
        if self.keys.len() < DOUBTS_MAX {
            self.keys.insert(key);
        } else {
            self.more = true;
        }
    }
}

/// Key and value.
type Pair = (Vec<u8>, Vec<u8>);

/// The rows of a store in order, a few at a time.
struct Rows<'a> {
    store: &'a dyn ViewStore,
    ahead: VecDeque<Pair>,
    from: Option<Vec<u8>>,
}

impl<'a> Rows<'a> {
    fn new(store: &'a dyn ViewStore) -> Self {
        Self { store, ahead: VecDeque::new(), from: Some(Vec::new()) }
    }

    fn first(&mut self) -> Result<Option<&Pair>, StoreError> {
        if let Some(from) = self.from.take_if(|_| self.ahead.is_empty()) {
            self.store.scan_from(&[], &from, &mut |key, value| {
                self.ahead.push_back((key.to_vec(), value.to_vec()));
                self.ahead.len() < STEP
            })?;
            // Behind the last one: the smallest key that is greater.
            self.from = self.ahead.back().map(|(key, _)| [key.as_slice(), &[0]].concat());
        }
        Ok(self.ahead.front())
    }

    fn next(&mut self) -> Vec<u8> {
        self.ahead.pop_front().map(|(key, _)| key).unwrap_or_default()
    }
}

/// Rows that differ now, for whatever reason.
pub(super) fn doubts(
    index: &dyn ViewStore,
    journal: &dyn ViewStore,
    go_on: &dyn Fn() -> Result<(), StoreError>,
) -> Result<Doubts, StoreError> {
    let (mut left, mut right) = (Rows::new(index), Rows::new(journal));
    let mut doubts = Doubts::default();
    for n in 0_u64.. {
        if n.is_multiple_of(STEP as u64) {
            go_on()?;
        }
        let order = match (left.first()?, right.first()?) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(one), Some(other)) => {
                let order = one.0.cmp(&other.0);
                if order.is_eq() && one.1 != other.1 {
                    doubts.add(one.0.clone());
                }
                order
            }
        };
        match order {
            std::cmp::Ordering::Less => doubts.add(left.next()),
            std::cmp::Ordering::Greater => doubts.add(right.next()),
            std::cmp::Ordering::Equal => drop((left.next(), right.next())),
        }
    }
    Ok(doubts)
}

/// Looks again at all rows in doubt, while both stores rest and hold the same facts.
pub(super) fn settle(
    index: &dyn ViewStore,
    journal: &dyn ViewStore,
    doubts: Doubts,
) -> Result<Differences, StoreError> {
    let mut found = Differences { more: doubts.more, ..Differences::default() };
    for key in doubts.keys {
        let problem = match (index.get(&key)?, journal.get(&key)?) {
            (one, other) if one == other => continue,
            (None, _) => RowProblem::Missing,
            (_, None) => RowProblem::Extra,
            _ => RowProblem::Differs,
        };
        found.rows += 1;
        if found.named.len() < NAMED_MAX {
            found.named.push((row_name(&key), problem));
        }
    }
    Ok(found)
}

/// A store that notes which rows are written.
pub(super) struct Noting<'a> {
    store: &'a dyn ViewStore,
    written: Mutex<Vec<Vec<u8>>>,
}

impl<'a> Noting<'a> {
    pub(super) fn new(store: &'a dyn ViewStore) -> Self {
        Self { store, written: Mutex::default() }
    }

    pub(super) fn into_written(self) -> Vec<Vec<u8>> {
        self.written.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ViewStore for Noting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let keys = rows.iter().map(|(key, _)| key.clone());
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.store.apply(rows)
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan_from(prefix, from, each)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::MemoryStore;
    use super::*;

    fn store(rows: &[(&str, &str)]) -> MemoryStore {
        let store = MemoryStore::default();
        let rows = rows.iter().map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
        store.apply(rows.collect()).expect("memory");
        store
    }

    #[test]
    fn rows_that_differ_are_named_and_others_are_not() {
        let many: Vec<(String, String)> = (0..2000).map(|n| (format!("m{n:05}"), n.to_string())).collect();
        let common: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let index = store(&[&common[..], &[("a", "1"), ("b", "1"), ("z", "1")]].concat());
        let journal = store(&[&common[..], &[("a", "1"), ("b", "2"), ("y", "1")]].concat());
        let doubts = doubts(&index, &journal, &|| Ok(())).expect("memory");
        assert_eq!(doubts.keys.len(), 3);
        let found = settle(&index, &journal, doubts).expect("memory");
        let expected = [("b ", RowProblem::Differs), ("y ", RowProblem::Missing), ("z ", RowProblem::Extra)];
        assert_eq!(found.named, expected.map(|(name, problem)| (name.to_owned(), problem)));
        assert!(found.rows == 3 && !found.more);
    }
}
