//! The store that is in use, which can be replaced by another one while it is read.
//!
//! A reader that began on the old store ends on it. Replaced only by the owner's thread, with a store that holds exactly
//! the facts that the old one holds: so whoever looks into the overlay first and here next never misses a tile.

use super::store::{Row, StoreError, ViewStore};
use std::sync::{Arc, PoisonError, RwLock};

pub(super) struct Current(RwLock<Arc<dyn ViewStore>>);

impl Current {
    pub(super) fn new(store: Arc<dyn ViewStore>) -> Self {
        Self(RwLock::new(store))
    }

    /// Takes the new store into use; returns the old one.
    pub(super) fn replace(&self, store: Arc<dyn ViewStore>) -> Arc<dyn ViewStore> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), store)
    }

    fn store(&self) -> Arc<dyn ViewStore> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ViewStore for Current {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().get(key)
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.store().apply(rows)
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store().scan_from(prefix, from, each)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store().flush()
    }
}
