//! Judgements on their way into the journal: many in one record, an acquisition each, after at most a second.

use super::Left;
use crate::catalog::Catalog;
use crate::model::{AcqId, JudgedTile, Pressure, TileId, TileVersion, TilesJudged};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tiles of one record.
const TILES_MAX: usize = 256;
/// Longest wait for company.
const WAIT: Duration = Duration::from_millis(500);
/// Pause behind records that could not be written: judging again at once would end the same way.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Pending {
    catalog: Arc<Catalog>,
    left: Left,
    tiles: BTreeMap<AcqId, Vec<JudgedTile>>,
    count: usize,
    since: Option<Instant>,
    /// When records could not be written the last time.
    failed: Arc<Mutex<Option<Instant>>>,
}

impl Pending {
    pub(super) fn new(catalog: &Arc<Catalog>, left: &Left) -> Self {
        let (catalog, left) = (Arc::clone(catalog), Arc::clone(left));
        Self { catalog, left, tiles: BTreeMap::new(), count: 0, since: None, failed: Arc::default() }
    }

    /// True while there is no use in judging what can wait: it would not be recorded.
    pub(super) fn is_in_vain(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        self.catalog.disk_pressure() == Pressure::Red || failed.is_some_and(|at| at.elapsed() < FAILED_PAUSE)
    }

    pub(super) fn add(&mut self, acq: AcqId, tile: JudgedTile) {
        self.tiles.entry(acq).or_default().push(tile);
        self.count += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// True when the tile's version is among them.
    pub(super) fn has(&self, acq: AcqId, id: TileId, version: TileVersion) -> bool {
        self.tiles.get(&acq).is_some_and(|tiles| tiles.iter().any(|tile| (tile.id, tile.version) == (id, version)))
    }

    /// Time until they are recorded.
    pub(super) fn due_in(&self) -> Duration {
        self.since.map_or(WAIT, |since| WAIT.saturating_sub(since.elapsed()))
    }

    pub(super) fn flush_if_due(&mut self) {
        if self.count >= TILES_MAX || self.since.is_some_and(|since| since.elapsed() >= WAIT) {
            self.flush();
        }
    }

    /// Has them recorded; what can not be is judged again later.
    pub(super) fn flush(&mut self) {
        (self.count, self.since) = (0, None);
        for (acq, tiles) in std::mem::take(&mut self.tiles) {
            let leave = || {
                let (left, failed) = (Arc::clone(&self.left), Arc::clone(&self.failed));
                move || {
                    left.lock().unwrap_or_else(PoisonError::into_inner).insert(acq, TileId::NONE);
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            };
            let (if_refused, if_failed) = (leave(), leave());
            let recorded = self.catalog.record_judgements(TilesJudged { acq, tiles }, move |done| {
                if let Err(error) = done {
                    tracing::debug!(%error, acquisition = acq.0, "what was found of tiles could not be recorded");
                    if_failed();
                }
            });
            if recorded.is_err() {
                if_refused();
            }
        }
    }
}
