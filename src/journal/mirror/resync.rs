//! The mirror's thread: looks whether the mirror is still there, and brings it up to date when it is back.
//!
//! Beside the writers: from the moment it begins, new files are made on both sides; files that were open before are
//! copied and joined one by one ([`Mirror::join`]), for the last bytes under their writer's lock; sealed ones are copied
//! at a bounded rate. Must never call the sides equal before every file is on both.

use super::copy::{self, Pace, Side, Trouble};
use super::files::Pair;
use super::record::{Record, Standing};
use super::start::{Found, NoMirror, Relation, relation};
use super::{Mirror, MirrorPhase, lock, number_of};
use crate::journal::JournalError;
use crate::journal::filesystem::SegmentFile;
use crate::journal::format::StoreId;
use crate::journal::removed::Removed;
use crate::journal::unreadable::Tolerant;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// What may be left of an open file when its writer is made to wait for it, bytes.
const LAST_BYTES_MAX: u64 = 8 << 20;
/// Segments that are made and filled while others are copied are new work: how often the list is gone through.
const ROUNDS_MAX: usize = 100;

/// The mirror's thread.
pub(in crate::journal) struct MirrorKeeper {
    mirror: Arc<Mirror>,
    thread: Option<JoinHandle<()>>,
}

impl MirrorKeeper {
    pub(in crate::journal) fn start(mirror: &Arc<Mirror>) -> std::io::Result<Self> {
        let own = Arc::clone(mirror);
        let thread = std::thread::Builder::new().name("mirror".into()).spawn(move || own.keep())?;
        Ok(Self { mirror: Arc::clone(mirror), thread: Some(thread) })
    }
}

impl Drop for MirrorKeeper {
    fn drop(&mut self) {
        self.mirror.stop.raise(crate::base::stop::StopReason::Requested);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Mirror {
    fn keep(self: Arc<Self>) {
        let mut said = String::new();
        loop {
            let problem = if self.is_in_sync() { self.probe() } else { self.bring_up_to_date() };
            match problem {
                Err(problem) if problem != said => {
                    tracing::error!(mirror = %self.options.dir.display(), problem, "the mirror can not be used; it is tried again by itself");
                    said = problem;
                }
                Ok(()) => said.clear(),
                Err(_) => {}
            }
            if self.stop.wait_for(self.options.retry).is_some() {
                return;
            }
        }
    }

    /// Open files of a directory that was removed or unmounted can still be written: nobody else would notice.
    fn probe(&self) -> Result<(), String> {
        let expected = *lock(&self.record);
        let found = Record::read(&*self.second, &self.options.dir);
        let why = match found {
            Ok(Some(found)) if found == expected => return Ok(()),
            Ok(Some(_)) => "the directory belongs to another time or mirror now".to_owned(),
            Ok(None) => "the directory was emptied or replaced".to_owned(),
            Err(error) => error.to_string(),
        };
        self.lose(&why).map_err(|error| error.to_string())
    }

    fn bring_up_to_date(&self) -> Result<(), String> {
        let ours = Found::look(&*self.first, &self.first_dir).map_err(|error| error.to_string())?;
        let theirs = self.reach(ours.record.as_ref()).map_err(|error| match error {
            NoMirror::Away(problem) | NoMirror::Wrong(problem) => problem,
        })?;
        match relation(&ours, &theirs)? {
            Relation::MirrorStale => {}
            other => {
                return Err(format!(
                    "is {other:?} as seen from the data directory: stop the daemon and start it again"
                ));
            }
        }
        let store = ours.store.ok_or("the data directory has no identity")?;
        let done = self.begin(&ours).and_then(|()| self.copy_all(store));
        self.left_bytes.store(0, Ordering::Relaxed);
        match done {
            Ok(()) => {
                tracing::info!(mirror = %self.options.dir.display(), "the mirror is up to date: two copies again");
                Ok(())
            }
            Err(Trouble::Interrupted) => Ok(()),
            Err(trouble) => {
                let problem = trouble.to_string();
                self.lose(&problem).map_err(|error| error.to_string())?;
                Err(problem)
            }
        }
    }

    /// From now on, what is new goes to both sides.
    fn begin(&self, ours: &Found) -> Result<(), Trouble> {
        let _names = lock(&self.names);
        self.note_mount_point().map_err(|error| Trouble::Source(self.first_dir.clone(), error))?;
        let record = lock(&self.record);
        let second = self.second_side();
        let failed = |error| Trouble::Target(second.dir.to_owned(), error);
        let stale = Record { standing: Standing::Stale, ..*record };
        stale.write(&*self.second, second.dir).map_err(failed)?;
        self.prepare_second().map_err(failed)?;
        second.remove_leftovers().map_err(failed)?;
        lock(&self.made_on_both).clear();
        debug_assert!(ours.record.is_none_or(|ours| ours.epoch <= record.epoch));
        self.set_phase(MirrorPhase::Resynchronising);
        Ok(())
    }

    fn copy_all(&self, store: StoreId) -> Result<(), Trouble> {
        let mut done = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            self.copy_round(store, &mut done)?;
            if self.finish(store, &done)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn copy_round(&self, store: StoreId, done: &mut HashSet<String>) -> Result<(), Trouble> {
        let (first, second) = (self.first_side(), self.second_side());
        let trusted_below = lock(&self.record).trusted_below;
        let listed = {
            // A file that is just being made has no pair yet: it would be copied over its own twin.
            let _names = lock(&self.names);
            first.names()
        };
        let names = listed.map_err(|error| Trouble::Source(first.segments_dir(), error))?;
        let todo: Vec<String> = names.into_iter().filter(|name| !done.contains(name)).collect();
        let mut left: u64 = todo.iter().map(|name| first.length(name).unwrap_or(0)).sum();
        for name in todo {
            self.left_bytes.store(left, Ordering::Relaxed);
            left = left.saturating_sub(first.length(&name).unwrap_or(0));
            match self.copy_one(first, second, &name, store, trusted_below) {
                // An empty segment was removed instead of sealed.
                Err(Trouble::Source(path, error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), "gone before it was copied");
                }
                copied => copied?,
            }
            done.insert(name);
        }
        self.left_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn copy_one(
        &self,
        first: Side<'_>,
        second: Side<'_>,
        name: &str,
        store: StoreId,
        trusted_below: u64,
    ) -> Result<(), Trouble> {
        let wait = |time: Duration| self.go_on_after(time);
        let pace = Pace::new(self.options.rate_bytes, &wait);
        if let Some(pair) = self.open_pair(&first.path(name)) {
            return self.join(&pair, name, store, &pace);
        }
        let there = second.names().map_err(|error| Trouble::Target(second.segments_dir(), error))?;
        let trusted = number_of(Path::new(name)).is_some_and(|number| number < trusted_below);
        if trusted && there.iter().any(|found| found == name) && copy::are_alike(first, second, name, store)? {
            return Ok(());
        }
        copy::bring_over(first, second, name, store, &pace, &self.removed())
    }

    /// False when copying must stop: the daemon stops, or the mirror was lost meanwhile.
    fn go_on_after(&self, time: Duration) -> bool {
        self.stop.wait_for(time).is_none() && self.is_attached()
    }

    fn open_pair(&self, path: &Path) -> Option<Arc<Pair>> {
        lock(&self.open).get(path).and_then(std::sync::Weak::upgrade)
    }

    /// Copies a file that is being written, then has its writer write both sides.
    fn join(&self, pair: &Pair, name: &str, store: StoreId, pace: &Pace<'_>) -> Result<(), Trouble> {
        let generation = self.generation();
        {
            let mut twin = lock(&pair.twin);
            if twin.file.as_ref().is_some_and(|(made_in, _)| *made_in == generation) {
                return Ok(());
            }
            (twin.file, twin.missed) = (None, Some(Vec::new()));
        }
        let joined = self.merge_open(name, store).and_then(|left| self.copy_open(pair, name, pace, generation, left));
        if joined.is_err() {
            lock(&pair.twin).missed = None;
        }
        joined
    }

    /// The mirror's copy is replaced by what is read here: records that were damaged here meanwhile are mended first.
    /// Returns how many could not be.
    fn merge_open(&self, name: &str, store: StoreId) -> Result<usize, Trouble> {
        let _one_at_a_time = lock(&self.repairing);
        copy::merge(self.second_side(), self.first_side(), name, store, &self.removed())
    }

    fn copy_open(&self, pair: &Pair, name: &str, pace: &Pace<'_>, generation: u64, left: usize) -> Result<(), Trouble> {
        let (second, source) = (self.second_side(), &Tolerant::new(&*pair.first));
        let copy_path = second.path(name);
        let source_failed = |error| Trouble::Source(pair.path.clone(), error);
        let target_failed = |error| Trouble::Target(copy_path.clone(), error);
        let target = copy::begin_copy(second, name, source.length().map_err(source_failed)?)?;
        copy::copy_data(source, &*target, &pair.path, &copy_path, pace)?;
        loop {
            let mut twin = lock(&pair.twin);
            let missed = twin.missed.replace(Vec::new()).unwrap_or_default();
            let is_last = missed.iter().map(|(_, len)| len).sum::<u64>() <= LAST_BYTES_MAX;
            if !is_last {
                drop(twin);
                missed.iter().try_for_each(|range| copy::copy_range(source, &*target, *range, &copy_path))?;
                if !self.go_on_after(Duration::ZERO) {
                    return Err(Trouble::Interrupted);
                }
                continue;
            }
            // While the lock is held, nothing is written: what is copied now is the last.
            missed.iter().try_for_each(|range| copy::copy_range(source, &*target, *range, &copy_path))?;
            target.set_len(source.length().map_err(source_failed)?).map_err(target_failed)?;
            target.sync().map_err(target_failed)?;
            if left > 0 {
                copy::keep_aside(second, name, left)?;
            }
            copy::finish_copy(second, name)?;
            copy::tell_refused(&pair.path, source.refused());
            (twin.file, twin.missed) = (Some((generation, target)), None);
            return Ok(());
        }
    }

    /// Says on both sides that they are equal, if every file is on both. No file is made or removed meanwhile.
    fn finish(&self, store: StoreId, done: &HashSet<String>) -> Result<bool, Trouble> {
        let _names = lock(&self.names);
        if !self.is_attached() {
            return Err(Trouble::Interrupted);
        }
        let (first, second) = (self.first_side(), self.second_side());
        let ours = first.names().map_err(|error| Trouble::Source(first.segments_dir(), error))?;
        let theirs = second.names().map_err(|error| Trouble::Target(second.segments_dir(), error))?;
        let made = lock(&self.made_on_both);
        if !ours.iter().all(|name| theirs.contains(name) && (done.contains(name) || made.contains(&first.path(name)))) {
            return Ok(false);
        }
        drop(made);
        for name in theirs.iter().filter(|name| !ours.contains(name)) {
            self.remove_extra(second, name, store)?;
        }
        let shared = Removed::share((&*self.first, &self.first_dir), (&*self.second, second.dir));
        shared.map_err(|error| Trouble::Target(second.dir.to_owned(), error))?;
        let synced = second.filesystem.sync_dir(&second.segments_dir());
        synced.map_err(|error| Trouble::Target(second.segments_dir(), error))?;
        let epoch = lock(&self.record).epoch + 1;
        let paired = self.say_paired(epoch, true).map_err(|error| match error {
            JournalError::Failed { path, source, .. } if path == self.options.dir => Trouble::Target(path, source),
            other => other.into(),
        });
        if !paired? {
            return Err(Trouble::Interrupted);
        }
        Ok(true)
    }

    /// A segment that only the mirror has: compacted away, or empty. What is neither is kept under another name: beside a
    /// running journal it can not come back, for its number and its records' may have been given again.
    pub(super) fn remove_extra(&self, second: Side<'_>, name: &str, store: StoreId) -> Result<(), Trouble> {
        let is_removed = copy::is_removed(second, name, store, &self.removed());
        let records = if is_removed { 0 } else { copy::worth(second, name, store)?.0.saturating_sub(1) };
        if records > 0 {
            return copy::keep_aside(second, name, usize::try_from(records).unwrap_or(usize::MAX));
        }
        let path = second.path(name);
        second.filesystem.remove(&path).map_err(|error| Trouble::Target(path, error))
    }

    fn removed(&self) -> Arc<Removed> {
        Arc::clone(&lock(&self.removed))
    }
}
