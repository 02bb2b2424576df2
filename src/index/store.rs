//! The narrow seam to a key-value store, and the memory store that tests and rebuild checks use.

use crate::model::NumbersGiven;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

/// A row to write; no value: to remove.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// The store or the journal under it can not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store says no.
    #[error("index store: {0}")]
    Store(String),
    /// A row is not what was written.
    #[error("index store: the row {0} is damaged; stop the daemon and run `tilecatcher index rebuild`")]
    Damaged(String),
    /// The facts can not be read.
    #[error("index: {0}")]
    Facts(String),
    /// The index has folded in records that the journal does not hold any more.
    #[error("index: {records} records that it has folded in are not in the journal")]
    Lost {
        /// How many.
        records: u64,
        /// What the index knows to have been given.
        given: NumbersGiven,
    },
}

/// An ordered map of byte strings. Reads from any thread; writes from one thread only.
pub trait ViewStore: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The store can not be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes rows, all or nothing.
    ///
    /// # Errors
    /// The store can not be written.
    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError>;

    /// Gives every row whose key starts with `prefix` to `each`, in order, until it returns false.
    ///
    /// # Errors
    /// The store can not be read.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.scan_from(prefix, prefix, each)
    }

    /// As [`Self::scan`], from the first key that is not below `from`.
    ///
    /// # Errors
    /// The store can not be read.
    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Writes what is buffered to the file system. A hint: durability rests on the journal.
    ///
    /// # Errors
    /// The store can not be written.
    fn flush(&self) -> Result<(), StoreError>;
}

/// Rows in memory.
#[derive(Default)]
pub struct MemoryStore {
    rows: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl ViewStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut map = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in rows {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let map = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let rows = map.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        for (key, value) in rows.take_while(|(key, _)| key.starts_with(prefix)) {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
