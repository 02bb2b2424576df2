//! The view store on sled. The only place that imports `sled`.
//!
//! sled 0.34.7's `flush` is not a sync: rows may be lost or the files damaged by a crash. That is why everything
//! in here can be thrown away at any time.

use super::store::{Row, StoreError, ViewStore};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// One sled tree.
pub struct SledStore {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    /// The same file as sled's: what fails to be synced here fails there, too.
    file: File,
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
        let db = Some(config.open()?);
        let file = File::open(dir.join("db")).map_err(sled::Error::from)?;
        Ok(Self { db, file })
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("there until it is dropped")
    }
}

/// sled panics in its own end when the disk fails then: a daemon that stops because the disk failed must get to its exit code.
/// So a store that can not be synced is left as it is; the next start checks it, and if need be builds it anew.
impl Drop for SledStore {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let sync = || db.flush().and_then(|_| self.file.sync_data().map_err(sled::Error::from));
        let is_synced = catch_unwind(AssertUnwindSafe(sync)).is_ok_and(|synced| synced.is_ok());
        if !is_synced {
            std::mem::forget(db);
        } else if catch_unwind(AssertUnwindSafe(|| drop(db))).is_ok() {
            return;
        }
        tracing::warn!("the index store could not be synced at its end: the next start checks it");
    }
}

impl ViewStore for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db().get(key)?.map(|value| value.to_vec()))
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.db().apply_batch(batch)?)
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for row in self.db().range(from..) {
            let (key, value) = row?;
            if !key.starts_with(prefix) || !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db().flush()?;
        Ok(())
    }
}
