//! An acquisition as the journal alone tells it, without a daemon, an index or a lock.
//!
//! Folds the acquisition's facts through the same `apply` as the index. Holds all of its tiles' entries in memory, about
//! 200 bytes a tile. Must never write.

use super::commands::CatalogError;
use super::facts::{fact_of_record, tile_entry};
use super::manifest::{ManifestPlace, ManifestSummary, ManifestWriter, manifest_place};
use crate::index::{AcquisitionView, Block, BlockKey, Counters, FileEntry, Settings, StateId, StateNames, View, apply};
use crate::journal::{Filesystem, ReadError, ReadOnlyJournal, StoredRecord};
use crate::model::{AcqId, Cell, Fact, FactBody, Judgement, Roi, RoiIndex, Sequence, TileEntry, TileId, TileKey};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often the journal is opened when segments are removed while it is read.
const OPENINGS_MAX: usize = 5;

/// An acquisition, and the journal that its tiles can be read from.
pub struct OfflineAcquisition {
    journal: ReadOnlyJournal,
    fold: Fold,
    problems: Vec<String>,
}

impl OfflineAcquisition {
    /// Reads an acquisition of `data`.
    ///
    /// # Errors
    /// The journal can not be read; there is no such acquisition in it.
    pub fn read(data: &Path, filesystem: &Arc<dyn Filesystem>, acq: AcqId) -> Result<Self, CatalogError> {
        let (journal, (fold, mut problems)) = with_journal(data, filesystem, |journal| fold(journal, acq))?;
        if fold.view.head.started.is_none() && fold.tiles.is_empty() {
            return Err(CatalogError::UnknownAcquisition(acq));
        }
        problems.extend(damage_of(&journal));
        Ok(Self { journal, fold, problems })
    }

    /// The acquisition.
    #[must_use]
    pub fn acq(&self) -> AcqId {
        self.fold.acq
    }

    /// What is known of it but its tiles.
    #[must_use]
    pub fn view(&self) -> &AcquisitionView {
        &self.fold.view
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &ReadOnlyJournal {
        &self.journal
    }

    /// What could not be read: something of this acquisition, or of another, may be missing for it.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Current versions of its tiles, in the order of a manifest.
    pub fn tiles(&self) -> impl Iterator<Item = &TileEntry> {
        self.fold.tiles.values()
    }

    /// The current version of the tile at a place.
    #[must_use]
    pub fn tile(&self, place: ManifestPlace) -> Option<&TileEntry> {
        self.fold.tiles.get(&place)
    }

    /// The current version of the tile with a key. Looks at all.
    #[must_use]
    pub fn tile_at(&self, key: &TileKey) -> Option<&TileEntry> {
        self.tiles().find(|entry| entry.key == *key)
    }

    /// Its files, of each name the latest.
    #[must_use]
    pub fn files(&self) -> Vec<&FileEntry> {
        let newest: BTreeMap<&str, &FileEntry> =
            self.fold.view.head.files.iter().map(|entry| (entry.file.name.as_str(), entry)).collect();
        newest.into_values().collect()
    }

    /// The ROIs in which a tile lies, and its state in each.
    #[must_use]
    pub fn memberships(&self, entry: &TileEntry) -> Vec<(&Roi, Arc<str>)> {
        self.memberships_at(&entry.key)
    }

    /// The same for a place, whether or not its tile has come.
    #[must_use]
    pub fn memberships_at(&self, key: &TileKey) -> Vec<(&Roi, Arc<str>)> {
        let (key, slot) = BlockKey::of_tile(key);
        let Some(block) = self.fold.blocks.get(&key) else { return Vec::new() };
        let head = &self.fold.view.head;
        let found = block.rois_at(slot).filter_map(|(roi, state)| Some((head.roi(roi)?, state)));
        found.map(|(roi, state)| (roi, self.fold.states.name(state))).collect()
    }

    /// Its manifest; each line, without its end, goes to `each_line`.
    ///
    /// # Errors
    /// Those of `each_line`.
    pub fn manifest(&self, each_line: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<ManifestSummary> {
        let mut writer = ManifestWriter::new(self.acq());
        each_line(writer.header())?;
        for entry in self.tiles() {
            each_line(&writer.push(entry))?;
        }
        let (last, summary) = writer.finish();
        each_line(&last)?;
        Ok(summary)
    }
}

/// All tile records of an acquisition, current or not, deleted or not, and the journal that they can be read from.
pub struct OfflineTiles {
    journal: ReadOnlyJournal,
    /// By place, version and age.
    entries: Vec<TileEntry>,
    problems: Vec<String>,
}

impl OfflineTiles {
    /// Reads the tile records of an acquisition of `data`.
    ///
    /// # Errors
    /// The journal can not be read.
    pub fn read(data: &Path, filesystem: &Arc<dyn Filesystem>, acq: AcqId) -> Result<Self, CatalogError> {
        let (journal, mut entries) = with_journal(data, filesystem, |journal| {
            let entries = journal.records().filter_map(|record| match record {
                Ok(record) => {
                    tile_entry(&record.header, record.location()).filter(|entry| entry.key.acq == acq).map(Ok)
                }
                Err(error) => Some(Err(error)),
            });
            entries.collect::<Result<Vec<TileEntry>, ReadError>>()
        })?;
        entries.sort_unstable_by_key(|entry| (manifest_place(entry), entry.version, entry.sequence));
        let problems = damage_of(&journal);
        Ok(Self { journal, entries, problems })
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &ReadOnlyJournal {
        &self.journal
    }

    /// What could not be read of the journal.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The records of a tile's version: several when the acquisition was deleted and taken again.
    #[must_use]
    pub fn find(&self, place: ManifestPlace, version: u32) -> &[TileEntry] {
        let at = |entry: &TileEntry| (manifest_place(entry), entry.version.0);
        let from = self.entries.partition_point(|entry| at(entry) < (place, version));
        let len = self.entries[from..].partition_point(|entry| at(entry) == (place, version));
        &self.entries[from..from + len]
    }
}

/// Opens the journal and reads it; again when a segment was removed before it was read.
fn with_journal<T>(
    data: &Path,
    filesystem: &Arc<dyn Filesystem>,
    read: impl Fn(&ReadOnlyJournal) -> Result<T, ReadError>,
) -> Result<(ReadOnlyJournal, T), CatalogError> {
    let mut opening = 1;
    loop {
        let journal = ReadOnlyJournal::open(data, Arc::clone(filesystem))?;
        match read(&journal) {
            Ok(value) => return Ok((journal, value)),
            Err(ReadError::Missing(_)) if opening < OPENINGS_MAX => opening += 1,
            Err(error) => return Err(CatalogError::Storage(error.to_string())),
        }
    }
}

/// Places where acknowledged data may be lost.
fn damage_of(journal: &ReadOnlyJournal) -> Vec<String> {
    let damage = journal.damage().into_iter().filter(|damage| damage.kind.may_be_loss());
    let text = |path: &Path, offset, len| {
        format!("{} at {offset}: {len} bytes are damaged; run `tilecatcher verify`", path.display())
    };
    damage.map(|damage| text(&damage.path, damage.offset, damage.len)).collect()
}

fn fold(journal: &ReadOnlyJournal, acq: AcqId) -> Result<(Fold, Vec<String>), ReadError> {
    let mut fold = Fold::new(acq);
    let mut problems = Vec::new();
    for record in journal.records() {
        let record = record?;
        match fact_of(journal, &record)? {
            Ok(fact) if concerns(&fact.body, acq) => apply(&fact, &mut fold),
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    Ok((fold, problems))
}

/// The record as a fact, or why it can not be read. An error of its own when its segment is gone.
fn fact_of(journal: &ReadOnlyJournal, record: &StoredRecord) -> Result<Result<Fact, String>, ReadError> {
    let mut gone = None;
    let fact = fact_of_record(record, &mut || {
        journal.payload(record.location()).inspect_err(|error| {
            if let ReadError::Missing(segment) = error {
                gone = Some(*segment);
            }
        })
    });
    match gone {
        Some(segment) => Err(ReadError::Missing(segment)),
        None => Ok(fact.map_err(|error| format!("{error}: what this record said is missing"))),
    }
}

fn concerns(body: &FactBody, acq: AcqId) -> bool {
    match body {
        FactBody::TileStored(entry) => entry.key.acq == acq,
        FactBody::AcquisitionStarted(started) => started.acq == acq,
        FactBody::AcquisitionEnded(ended) => ended.acq == acq,
        FactBody::RoisCreated(created) => created.acq == acq,
        FactBody::FileStored(file) => file.acq == acq,
        FactBody::StatesChanged(changed) => changed.tiles.iter().any(|tiles| tiles.acq == acq),
        FactBody::AcquisitionDeleted(deleted) => deleted.acq == acq,
        FactBody::ManifestMade(made) => made.acq == acq,
        FactBody::TilesJudged(judged) => judged.acq == acq,
        FactBody::CalibrationsImported(_)
        | FactBody::TemcaConfigured(_)
        | FactBody::NumbersGiven(_)
        | FactBody::Unknown { .. }
        | FactBody::Unread => false,
    }
}

/// A view of one acquisition.
struct Fold {
    acq: AcqId,
    view: AcquisitionView,
    tiles: BTreeMap<ManifestPlace, TileEntry>,
    blocks: BTreeMap<BlockKey, Block>,
    states: StateNames,
}

impl Fold {
    fn new(acq: AcqId) -> Self {
        let (tiles, blocks) = (BTreeMap::new(), BTreeMap::new());
        Self { acq, view: AcquisitionView::default(), tiles, blocks, states: StateNames::default() }
    }
}

impl View for Fold {
    fn put_tile(&mut self, entry: &TileEntry) {
        self.tiles.insert(manifest_place(entry), *entry);
    }

    fn acquisition(&self, acq: AcqId) -> Option<&AcquisitionView> {
        (acq == self.acq).then_some(&self.view)
    }

    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView)) {
        if acq == self.acq {
            change(&mut self.view);
        }
    }

    fn update_counters(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut Counters)) {
        if acq == self.acq {
            change(&mut self.view.counters);
        }
    }

    fn update_block(&mut self, acq: AcqId, key: BlockKey, change: &mut dyn FnMut(&mut Block)) {
        if acq == self.acq {
            change(self.blocks.entry(key).or_default());
        }
    }

    fn block(&mut self, acq: AcqId, key: BlockKey) -> Option<Block> {
        self.blocks.get(&key).filter(|_| acq == self.acq).cloned()
    }

    fn drift_blocks(&mut self, _: AcqId) -> Vec<BlockKey> {
        self.blocks.keys().filter(|key| key.drift).copied().collect()
    }

    fn state_id(&mut self, name: &str) -> StateId {
        self.states.intern(name)
    }

    fn update_settings(&mut self, _: &mut dyn FnMut(&mut Settings)) {}

    fn remove_tiles(&mut self, _: AcqId, _: Sequence) {
        self.tiles.clear();
        self.blocks.clear();
        self.view.counters = Counters::default();
    }

    /// Judgements are not looked at offline.
    fn put_judgement(&mut self, _: AcqId, _: TileId, _: Sequence, _: Option<Judgement>) {}

    /// Facts come in order here.
    fn is_judged_behind(&mut self, _: AcqId, _: TileId, _: Sequence) -> bool {
        false
    }

    /// Facts come in order here.
    fn is_overtaken(&mut self, _: AcqId, _: RoiIndex, _: Cell, _: Sequence) -> bool {
        false
    }
}
