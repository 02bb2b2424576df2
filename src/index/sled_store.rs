//! The view store on sled. The only place that imports `sled`.
//!
//! sled 0.34.7's `flush` is not a sync: rows may be lost or the files damaged by a crash. That is why everything
//! in here can be thrown away at any time.

use super::store::{Row, StoreError, ViewStore};
use std::path::Path;

/// One sled tree.
pub struct SledStore {
    db: sled::Db,
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::Store(error.to_string())
    }
}

impl SledStore {
    /// Opens or makes the store. May fail, panic or hang on damaged files: call it where all three are survived.
    ///
    /// # Errors
    /// sled can not open the files.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None);
        Ok(Self { db: config.open()? })
    }
}

impl ViewStore for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for row in self.db.range(from..) {
            let (key, value) = row?;
            if !key.starts_with(prefix) || !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }
}
