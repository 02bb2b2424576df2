//! What two directories are to one another when the journal is opened: equal, one behind the other, strangers, or
//! each gone on by itself.
//!
//! Runs before recovery, so that recovery finds both sides alike and seals them alike. Must never take a stale or
//! incomplete side for the truth, and never choose between two sides that both went on.

use super::copy::{self, Pace, Side, Trouble};
use super::record::{Record, Standing};
use super::{Mirror, MirrorPhase, lock};
use crate::journal::JournalError;
use crate::journal::filesystem::{DirectoryLock, Filesystem};
use crate::journal::format::StoreId;
use crate::journal::removed::Removed;
use crate::journal::store;
use crate::journal::swap::Swaps;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What one side says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) store: Option<StoreId>,
    pub(super) record: Option<Record>,
}

/// Why the mirror can not be used.
pub(super) enum NoMirror {
    /// It is not there, or can not be read: it may come back.
    Away(String),
    /// The operator must act.
    Wrong(String),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Neither holds anything.
    Fresh,
    /// Both hold everything that was acknowledged.
    Equal,
    /// The mirror is to be brought up to date.
    MirrorStale,
    /// The data directory is to be filled from the mirror.
    DataStale,
}

const BOTH_INCOMPLETE: &str = "this directory and its mirror are both incomplete: restore one of them from a backup";
const SPLIT: &str = "this directory and its mirror each went on without the other: find out which one holds what you \
    want to keep (`tilecatcher verify`), move the other one away, make an empty directory in its place and start again";

impl Found {
    pub(super) fn look(filesystem: &dyn Filesystem, dir: &Path) -> Result<Self, JournalError> {
        let failed = || JournalError::failed(dir, "read");
        Ok(Self { store: store::identity(filesystem, dir)?, record: Record::read(filesystem, dir).map_err(failed())? })
    }
}

/// What the mirror is to the data directory.
pub(super) fn relation(ours: &Found, theirs: &Found) -> Result<Relation, String> {
    use Standing::{Alone, Paired, Stale};
    let is_stale = |found: &Found| found.record.is_some_and(|record| record.standing == Stale);
    match (ours.store, theirs.store) {
        (_, None) if is_stale(ours) => return Err(BOTH_INCOMPLETE.to_owned()),
        (None, None) => return Ok(Relation::Fresh),
        (Some(_), None) => return Ok(Relation::MirrorStale),
        (None, Some(_)) if is_stale(theirs) => return Err(BOTH_INCOMPLETE.to_owned()),
        (None, Some(_)) => return Ok(Relation::DataStale),
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err("belongs to another data directory: name another one with mirror.data, or empty it".to_owned());
        }
        (Some(_), Some(_)) => {}
    }
    let standing = |found: &Found| found.record.map(|record| record.standing);
    if let (Some(ours), Some(theirs)) = (&ours.record, &theirs.record)
        && ours.standing != Stale
        && theirs.standing != Stale
    {
        let is_same = (ours.standing, ours.epoch, ours.pairing) == (Paired, theirs.epoch, theirs.pairing);
        return match (is_same && theirs.standing == Paired, ours.is_ahead_of(theirs), theirs.is_ahead_of(ours)) {
            (true, ..) => Ok(Relation::Equal),
            (_, true, _) => Ok(Relation::MirrorStale),
            (_, _, true) => Ok(Relation::DataStale),
            _ => Err(SPLIT.to_owned()),
        };
    }
    match (standing(ours), standing(theirs)) {
        (Some(Paired | Alone) | None, Some(Stale) | None) => Ok(Relation::MirrorStale),
        (Some(Stale), Some(Paired | Alone)) => Ok(Relation::DataStale),
        (_, Some(Stale)) => Err(BOTH_INCOMPLETE.to_owned()),
        _ => Err(SPLIT.to_owned()),
    }
}

impl Mirror {
    /// Finds out what the two directories are to one another, and acts on it.
    ///
    /// # Errors
    /// They do not belong together, or the data directory can not be used.
    pub(in crate::journal) fn settle(&self) -> Result<(), JournalError> {
        let ours = Found::look(&*self.first, &self.first_dir)?;
        *lock(&self.removed) = Arc::new(Removed::read(&*self.first, &self.first_dir));
        if let Some(record) = ours.record {
            *lock(&self.record) = record;
        }
        let theirs = match self.reach(ours.record.as_ref()) {
            Ok(theirs) => theirs,
            Err(NoMirror::Wrong(problem)) => return Err(self.unusable(problem)),
            // A mirror that was never there is a mistake; one that was is lost.
            Err(NoMirror::Away(problem)) if ours.record.is_none() => return Err(self.unusable(problem)),
            Err(NoMirror::Away(problem)) => return self.start_without(&ours, &problem),
        };
        match relation(&ours, &theirs).map_err(|problem| self.unusable(problem))? {
            Relation::Fresh => self.start_fresh(),
            Relation::Equal => match self.start_equal(&ours) {
                // The mirror's disk failed while the two were compared.
                Err(JournalError::Failed { path, source, .. }) if path.starts_with(&self.options.dir) => {
                    self.start_without(&ours, &source.to_string())
                }
                started => started,
            },
            Relation::MirrorStale => self.start_ahead(&ours, &theirs),
            Relation::DataStale => self.start_behind(&ours, &theirs),
        }
    }

    /// Looks at the mirror's directory.
    pub(super) fn reach(&self, ours: Option<&Record>) -> Result<Found, NoMirror> {
        let dir = &self.options.dir;
        let away = |error: io::Error| NoMirror::Away(format!("can not be read: {error}"));
        match (self.second.list(dir), ours) {
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
                self.second.create_dir_all(dir).map_err(away)?;
            }
            (Err(error), _) => return Err(away(error)),
            (Ok(_), Some(record)) if record.mount_point && !is_mount_point(dir) => {
                return Err(NoMirror::Away("is not mounted".to_owned()));
            }
            (Ok(_), _) => {}
        }
        self.take_lock()?;
        Found::look(&*self.second, dir).map_err(|error| match error {
            JournalError::Failed { source, .. } => away(source),
            other => NoMirror::Wrong(other.to_string()),
        })
    }

    /// Nobody else may use the mirror's directory. Taken anew each time: the directory may be another one by now.
    fn take_lock(&self) -> Result<(), NoMirror> {
        if !self.options.lock {
            return Ok(());
        }
        let mut held = lock(&self.lock);
        *held = None;
        match DirectoryLock::take(&self.options.dir.join("lock")) {
            Ok(None) => Err(NoMirror::Wrong("in use by another tilecatcher: stop it first".to_owned())),
            Ok(taken) => {
                *held = taken;
                Ok(())
            }
            Err(error) => Err(NoMirror::Away(format!("can not be locked: {error}"))),
        }
    }

    fn start_without(&self, ours: &Found, problem: &str) -> Result<(), JournalError> {
        if let Some(record) = ours.record.filter(|record| record.standing == Standing::Stale) {
            return Err(incomplete(&self.first_dir, record));
        }
        self.say_alone(ours.record.map_or(0, |record| record.epoch))?;
        tracing::error!(mirror = %self.options.dir.display(), problem, "the mirror is not there: one copy only until it is back; it is tried again by itself");
        Ok(())
    }

    fn start_fresh(&self) -> Result<(), JournalError> {
        store::open_store(&*self.first, &self.first_dir, &self.first_dir.join("journal"))?;
        let prepared = self.prepare_second();
        prepared.map_err(|error| JournalError::failed(&self.options.dir, "prepare")(error))?;
        self.say_paired(1, false).map(drop)
    }

    fn start_equal(&self, ours: &Found) -> Result<(), JournalError> {
        let store = ours.store.expect("both sides have an identity when they are equal");
        self.prepare_second().map_err(|error| JournalError::failed(&self.options.dir, "prepare")(error))?;
        self.make_alike(store).map_err(|trouble| self.failed(trouble))?;
        self.set_phase(MirrorPhase::InSync);
        Ok(())
    }

    /// The mirror is brought up to date in the background.
    fn start_ahead(&self, ours: &Found, theirs: &Found) -> Result<(), JournalError> {
        let their_epoch = theirs.record.map_or(0, |record| record.epoch);
        self.say_alone(ours.record.map_or(0, |record| record.epoch).max(their_epoch))?;
        self.note_mount_point().map_err(JournalError::failed(&self.first_dir, "write"))?;
        tracing::warn!(mirror = %self.options.dir.display(), "the mirror is not up to date: one copy only until it is");
        Ok(())
    }

    /// The data directory was lost, or is older than its mirror: it is filled first, for all is read from it.
    fn start_behind(&self, ours: &Found, theirs: &Found) -> Result<(), JournalError> {
        let store = theirs.store.expect("a side that is ahead has an identity");
        let (first, second) = (self.first_side(), self.second_side());
        let in_first = |error| JournalError::failed(&self.first_dir, "write")(error);
        let in_second = |error| JournalError::failed(&self.options.dir, "write")(error);
        tracing::warn!(mirror = %second.dir.display(), "this data directory is filled from its mirror");
        let known = [ours.record, theirs.record].into_iter().flatten();
        let epoch = known.map(|record| record.epoch).max().unwrap_or(0) + 1;
        let mount_point = is_mount_point(&self.options.dir);
        let theirs = theirs.record.unwrap_or_else(|| Record::first(0, mount_point)).alone(epoch);
        theirs.write(&*self.second, second.dir).map_err(in_second)?;
        first.filesystem.create_dir_all(&first.segments_dir()).map_err(in_first)?;
        let stale = Record { standing: Standing::Stale, ..theirs };
        stale.write(&*self.first, first.dir).map_err(in_first)?;
        store::write_store(&*self.first, first.dir, store)?;
        self.prepare_second().map_err(in_second)?;
        Swaps::new(&*self.second, second.dir).settle(store)?;
        let removed = Removed::read(&*self.second, second.dir);
        self.fill(second, first, store, theirs.trusted_below, &removed).map_err(|trouble| self.failed(trouble))?;
        Removed::share((&*self.second, second.dir), (&*self.first, first.dir)).map_err(in_first)?;
        *lock(&self.removed) = Arc::new(Removed::read(&*self.first, &self.first_dir));
        let paired = theirs.paired(epoch + 1, mount_point, self.new_pairing());
        paired.write(&*self.second, second.dir).map_err(in_second)?;
        *lock(&self.record) = paired;
        self.say_paired(epoch + 1, false).map(drop)
    }

    /// Makes `to` hold what `from` holds, at once. Segments that `from` misses were `removed` by a compaction, or are taken
    /// over.
    fn fill(
        &self,
        from: Side<'_>,
        to: Side<'_>,
        store: StoreId,
        trusted_below: u64,
        removed: &Removed,
    ) -> Result<(), Trouble> {
        let pace = Pace::new(0, &|_| true);
        let listed = |side: Side<'_>| side.names().map_err(|error| Trouble::Source(side.segments_dir(), error));
        to.remove_leftovers().map_err(|error| Trouble::Target(to.segments_dir(), error))?;
        let (wanted, there) = (listed(from)?, listed(to)?);
        for name in there.iter().filter(|name| !wanted.contains(name)) {
            if copy::is_removed(to, name, store, removed) || copy::worth(to, name, store)?.0 <= 1 {
                to.filesystem.remove(&to.path(name)).map_err(|error| Trouble::Target(to.path(name), error))?;
            } else {
                copy::copy(to, from, name, &pace)?;
            }
        }
        for name in &wanted {
            let trusted = super::number_of(Path::new(name)).is_some_and(|number| number < trusted_below);
            if !(trusted && there.contains(name) && copy::are_alike(from, to, name, store)?) {
                copy::bring_over(from, to, name, store, &pace, removed)?;
            }
        }
        to.filesystem.sync_dir(&to.segments_dir()).map_err(|error| Trouble::Target(to.segments_dir(), error))
    }

    /// Both sides hold everything that was acknowledged; what was not, or was damaged since, may be on one only.
    fn make_alike(&self, store: StoreId) -> Result<(), Trouble> {
        let pace = Pace::new(0, &|_| true);
        let (first, second) = (self.first_side(), self.second_side());
        let listed = |side: Side<'_>| side.names().map_err(|error| Trouble::Source(side.segments_dir(), error));
        for side in [first, second] {
            let dir = side.segments_dir();
            let ready = side.filesystem.create_dir_all(&dir).and_then(|()| side.remove_leftovers());
            ready.map_err(|error| Trouble::Target(dir, error))?;
        }
        let (ours, theirs) = (listed(first)?, listed(second)?);
        let all: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
        for name in all {
            match (ours.contains(name), theirs.contains(name)) {
                (true, false) => self.take_over(first, second, name, store, &pace)?,
                (false, true) => self.take_over(second, first, name, store, &pace)?,
                _ if copy::are_alike(first, second, name, store)? => {}
                _ if copy::worth(second, name, store)? > copy::worth(first, name, store)? => {
                    copy::bring_over(second, first, name, store, &pace, &Removed::default())?;
                }
                _ => copy::bring_over(first, second, name, store, &pace, &Removed::default())?,
            }
        }
        Ok(())
    }

    fn take_over(
        &self,
        from: Side<'_>,
        to: Side<'_>,
        name: &str,
        store: StoreId,
        pace: &Pace<'_>,
    ) -> Result<(), Trouble> {
        copy::copy(from, to, name, pace)?;
        // One without records was just being made when the process stopped.
        if copy::worth(to, name, store)?.0 > 1 {
            tracing::warn!(path = %to.path(name).display(), "a segment was missing on one side: copied from the other");
            self.count_repair();
        }
        Ok(())
    }

    /// Directories and identity on the second side.
    pub(super) fn prepare_second(&self) -> io::Result<()> {
        let side = self.second_side();
        for dir in ["journal", "quarantine"] {
            self.second.create_dir_all(&side.dir.join(dir))?;
        }
        let store = store::identity(&*self.first, &self.first_dir).map_err(io::Error::other)?;
        let store = store.ok_or_else(|| io::Error::other("the data directory has no identity"))?;
        store::write_store(&*self.second, side.dir, store).map_err(io::Error::other)
    }

    /// Says on both sides, the first one first, that they are equal. False when the mirror was lost meanwhile.
    pub(super) fn say_paired(&self, epoch: u64, was_attached: bool) -> Result<bool, JournalError> {
        let mut record = lock(&self.record);
        if was_attached && !self.is_attached() {
            return Ok(false);
        }
        // Said anew by a start that had just filled the other side: the same.
        let paired = match record.standing {
            Standing::Paired if record.epoch == epoch && record.pairing != 0 => *record,
            _ => record.paired(epoch, is_mount_point(&self.options.dir), self.new_pairing()),
        };
        paired.write(&*self.first, &self.first_dir).map_err(JournalError::failed(&self.first_dir, "write"))?;
        *record = paired;
        paired.write(&*self.second, &self.options.dir).map_err(JournalError::failed(&self.options.dir, "write"))?;
        self.set_phase(MirrorPhase::InSync);
        Ok(true)
    }

    /// Says on the first side that the mirror is where a file system is mounted, if it is: before anything is copied there,
    /// for where it was is no mirror.
    pub(super) fn note_mount_point(&self) -> io::Result<()> {
        let mut record = lock(&self.record);
        if record.mount_point || !is_mount_point(&self.options.dir) {
            return Ok(());
        }
        let noted = Record { mount_point: true, ..*record };
        noted.write(&*self.first, &self.first_dir)?;
        *record = noted;
        Ok(())
    }

    /// Says on the first side that it goes on by itself, above `epoch` if it did not say so already.
    fn say_alone(&self, epoch: u64) -> Result<(), JournalError> {
        let mut record = lock(&self.record);
        if record.standing == Standing::Alone && record.epoch >= epoch {
            return Ok(());
        }
        let alone = record.alone(epoch + 1);
        self.first.create_dir_all(&self.first_dir).map_err(JournalError::failed(&self.first_dir, "create"))?;
        alone.write(&*self.first, &self.first_dir).map_err(JournalError::failed(&self.first_dir, "write"))?;
        *record = alone;
        Ok(())
    }

    /// Told by chance, and never 0.
    fn new_pairing(&self) -> u64 {
        let identity = self.first.new_identity();
        identity
            .chunks_exact(8)
            .filter_map(|half| half.try_into().ok())
            .fold(1, |sum, half| sum ^ u64::from_le_bytes(half))
            .max(1)
    }

    pub(super) fn first_side(&self) -> Side<'_> {
        Side { filesystem: &*self.first, dir: &self.first_dir }
    }

    pub(super) fn second_side(&self) -> Side<'_> {
        Side { filesystem: &*self.second, dir: &self.options.dir }
    }

    fn unusable(&self, problem: String) -> JournalError {
        JournalError::Unusable { path: self.options.dir.clone(), problem }
    }

    fn failed(&self, trouble: Trouble) -> JournalError {
        match trouble {
            Trouble::Source(path, source) => JournalError::Failed { path, action: "read", source },
            Trouble::Target(path, source) => JournalError::Failed { path, action: "write", source },
            Trouble::Journal(error) => error,
            Trouble::Interrupted => self.unusable("interrupted".to_owned()),
        }
    }
}

/// What is wrong between a data directory and its mirror, as their files say. For a look from outside.
///
/// # Errors
/// A directory can not be read.
pub fn mirror_problem(filesystem: &dyn Filesystem, data: &Path, mirror: &Path) -> Result<Option<String>, JournalError> {
    let (ours, theirs) = (Found::look(filesystem, data)?, Found::look(filesystem, mirror)?);
    Ok(match relation(&ours, &theirs) {
        Ok(Relation::Equal) => None,
        Ok(Relation::Fresh) => Some("neither directory holds a journal".to_owned()),
        Ok(Relation::MirrorStale) => Some("the mirror is not up to date: the daemon brings it up to date".to_owned()),
        Ok(Relation::DataStale) => {
            Some("the data directory is older than its mirror: the next start fills it".to_owned())
        }
        Err(problem) => Some(problem),
    })
}

/// A journal that is opened without its mirror: the mirror is stale from now on.
///
/// # Errors
/// The directory is incomplete, or can not say so.
pub(in crate::journal) fn go_alone(filesystem: &dyn Filesystem, dir: &Path) -> Result<(), JournalError> {
    match Record::read(filesystem, dir).map_err(JournalError::failed(dir, "read"))? {
        Some(record) if record.standing == Standing::Stale => Err(incomplete(dir, record)),
        Some(record) if record.standing == Standing::Paired => {
            tracing::warn!(dir = %dir.display(), "opened without its mirror, which is out of date from now on");
            record.alone(record.epoch + 1).write(filesystem, dir).map_err(JournalError::failed(dir, "write"))
        }
        _ => Ok(()),
    }
}

/// Why a directory that is being filled from its other side is no journal to read from; `None`: it is whole.
pub(in crate::journal) fn is_incomplete(filesystem: &dyn Filesystem, dir: &Path) -> io::Result<Option<JournalError>> {
    let record = Record::read(filesystem, dir)?.filter(|record| record.standing == Standing::Stale);
    Ok(record.map(|record| incomplete(dir, record)))
}

fn incomplete(dir: &Path, record: Record) -> JournalError {
    let file = dir.join(super::record::RECORD_FILE);
    let problem = format!(
        "was being filled from its other side (epoch {}) and is incomplete: start from the other side; if that is lost, \
         remove {} to go on with what is here",
        record.epoch,
        file.display()
    );
    JournalError::Unusable { path: dir.to_owned(), problem }
}

/// True when a file system is mounted at `dir`.
pub(super) fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    match (device(dir), device(&dir.join(".."))) {
        (Ok(own), Ok(parent)) => own != parent,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(standing: Standing, epoch: u64) -> Found {
        paired_as(standing, epoch, 7, &[])
    }

    fn paired_as(standing: Standing, epoch: u64, pairing: u64, earlier: &[u64]) -> Found {
        let all = earlier.iter().chain([&pairing]);
        let paired = all.fold(Record::first(0, false), |record, pairing| record.paired(epoch, false, *pairing));
        let record = Record { standing, ..paired };
        Found { store: Some(StoreId([1; 16])), record: Some(record) }
    }

    #[test]
    fn a_stale_side_is_never_taken_for_the_truth_and_two_truths_are_refused() {
        use Standing::{Alone, Paired, Stale};
        let none = Found { store: Some(StoreId([1; 16])), record: None };
        let empty = Found { store: None, record: None };
        let cases = [
            (found(Paired, 3), found(Paired, 3), Some(Relation::Equal)),
            (found(Paired, 4), found(Paired, 3), Some(Relation::MirrorStale)),
            (found(Paired, 3), found(Paired, 4), Some(Relation::DataStale)),
            (found(Alone, 4), found(Paired, 3), Some(Relation::MirrorStale)),
            (found(Paired, 3), found(Alone, 4), Some(Relation::DataStale)),
            (found(Alone, 3), found(Paired, 3), None),
            (found(Alone, 3), found(Paired, 4), None),
            (found(Paired, 3), found(Alone, 3), None),
            (found(Alone, 3), found(Alone, 4), None),
            (found(Alone, 3), found(Stale, 9), Some(Relation::MirrorStale)),
            (found(Stale, 9), found(Alone, 3), Some(Relation::DataStale)),
            (found(Stale, 3), found(Stale, 3), None),
            (empty, found(Stale, 3), None),
            (empty, found(Paired, 3), Some(Relation::DataStale)),
            (found(Paired, 3), empty, Some(Relation::MirrorStale)),
            (found(Alone, 3), empty, Some(Relation::MirrorStale)),
            (found(Stale, 3), empty, None),
            (Found { store: None, ..found(Stale, 3) }, empty, None),
            (none, none, Some(Relation::MirrorStale)),
            (none, found(Stale, 3), Some(Relation::MirrorStale)),
            (none, found(Paired, 3), None),
            (found(Stale, 3), none, None),
            // Both went on, each with another mirror, and count alike.
            (paired_as(Paired, 5, 2, &[7]), paired_as(Paired, 5, 3, &[7]), None),
            (paired_as(Alone, 6, 2, &[7]), paired_as(Paired, 5, 3, &[7]), None),
            (paired_as(Paired, 7, 2, &[7]), paired_as(Alone, 8, 3, &[7]), None),
            // A mirror that takes turns with others, and did nothing meanwhile.
            (paired_as(Alone, 6, 2, &[7]), found(Paired, 3), Some(Relation::MirrorStale)),
            (found(Paired, 3), paired_as(Paired, 5, 2, &[7]), Some(Relation::DataStale)),
            (empty, empty, Some(Relation::Fresh)),
            (none, Found { store: Some(StoreId([2; 16])), record: None }, None),
        ];
        for (ours, theirs, wanted) in cases {
            assert_eq!(relation(&ours, &theirs).ok(), wanted, "{ours:?} {theirs:?}");
        }
    }
}
