//! Writes an acquisition back as the folder that the microscope made: log, tiles, drift frames, ancillary files.
//!
//! From the journal alone, read only: beside a daemon, or where none runs. A file gets its name when its content was
//! checked and synced, so that an export that was cut off can be run again: what is there and right is skipped. Must
//! never write outside the folder: every name is one of ours or checked again, and no directory may be a link.
//! Memory: the entries of all tiles, and 1 MiB a thread, however large a tile is.

use crate::catalog::{CatalogError, ContentCheck, KnownContent, OfflineAcquisition, decode_file, file_name};
use crate::formats::safe_file_name;
use crate::index::FileEntry;
use crate::journal::{Filesystem, ReadError, ReadOnlyJournal, RealFilesystem};
use crate::model::{AcqId, Checksum, TileEntry};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that write: each waits for the disk most of the time.
const THREADS: usize = 4;
/// How often what has moved in the journal is looked for.
const ROUNDS_MAX: usize = 5;
const LOG_SUFFIX: &str = "_logfile.ini";
/// What stands before and behind the number of a file that is being written.
const PARTIAL: (&str, &str) = (".tilecatcher-export-", ".part");

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The acquisition.
    pub acq: AcqId,
    /// Where the acquisition folder is made.
    pub dir: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Tiles of these nominal sections; empty: all.
    pub sections: Vec<i64>,
    /// Tiles of these cameras; empty: all.
    pub cameras: Vec<i32>,
    /// Tiles in one of these states (in a chosen section); empty: all.
    pub states: Vec<String>,
    /// Drift frames too.
    pub drift: bool,
}

/// What was exported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ExportReport {
    /// The acquisition.
    pub acquisition: u64,
    /// The acquisition folder.
    pub folder: PathBuf,
    /// Tiles that are in the folder now, checked.
    pub tiles: u64,
    /// Other files: the log, ancillary files.
    pub files: u64,
    /// Bytes of all of these.
    pub bytes: u64,
    /// How many of these were there already, and right.
    pub skipped: u64,
    /// What could not be exported, and why.
    pub problems: Vec<ExportProblem>,
}

/// A file that could not be exported, or a place in the journal that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ExportProblem {
    /// Its path in the folder; "journal" for what concerns no file alone.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

/// Why nothing, or not everything that can be read, was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Asked for something that can not be.
    #[error("{0}")]
    Usage(String),
    /// The journal.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The folder can not be written.
    #[error("{path}: {source}; what is written so far is good: run the same command again")]
    Write {
        /// Which file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A file to be there.
struct Item {
    /// Directory in the acquisition folder; empty for the folder itself.
    dir: String,
    name: String,
    source: Source,
}

enum Source {
    Tile(TileEntry),
    File(FileEntry),
    Log(String),
}

impl Item {
    fn path(&self) -> String {
        if self.dir.is_empty() { self.name.clone() } else { format!("{}/{}", self.dir, self.name) }
    }
}

/// Why one file was not written.
enum ItemError {
    Read(ReadError),
    Damaged(&'static str),
    Write(ExportError),
}

impl From<ReadError> for ItemError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}

/// Exports. `progress` is called with (files done, files in all, bytes).
///
/// # Errors
/// The acquisition is unknown, the options can not be, the journal can not be read, the folder not be written. Damaged
/// tiles are no error: see the report.
pub fn export(options: &ExportOptions, progress: &(dyn Fn(u64, u64, u64) + Sync)) -> Result<ExportReport, ExportError> {
    let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
    refuse_inside(&options.dir, &options.data)?;
    let mut stored = OfflineAcquisition::read(&options.data, &filesystem, options.acq)?;
    let mut plan = Plan::make(&stored, options)?;
    let folder = options.dir.join(&plan.base);
    refuse_inside(&folder, &options.data)?;
    let _lock = lock(&folder)?;
    let mut problems = std::mem::take(&mut plan.problems);
    problems.extend(stored.problems().iter().map(|problem| said_of("journal", problem)));
    prepare(&folder, &plan.dirs())?;
    let work = Work { folder: &folder, total: plan.items.len() as u64, progress, tally: Mutex::default() };
    let dirs = plan.dirs();
    let mut items = plan.items;
    for round in 1.. {
        let moved = work.run(stored.journal(), &items)?;
        if moved.is_empty() {
            break;
        }
        if round == ROUNDS_MAX {
            let gone = |item: &usize| said_of(&items[*item].path(), "its segment is not in the journal any more");
            problems.extend(moved.iter().map(gone));
            break;
        }
        // Segments were removed since the journal was opened: their records are in others now.
        stored = OfflineAcquisition::read(&options.data, &filesystem, options.acq)?;
        let moved: BTreeSet<String> = moved.into_iter().map(|item| items[item].path()).collect();
        items = Plan::make(&stored, options)?.items;
        items.retain(|item| moved.contains(&item.path()));
    }
    sync_dirs(&options.dir, &folder, &dirs)?;
    let mut report = work.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.problems.extend(problems);
    report.problems.sort();
    Ok(ExportReport { acquisition: options.acq.0, folder, ..report })
}

fn said_of(name: &str, problem: &str) -> ExportProblem {
    ExportProblem { name: name.to_owned(), problem: problem.to_owned() }
}

/// What is to be in the folder.
struct Plan {
    base: String,
    items: Vec<Item>,
    problems: Vec<ExportProblem>,
}

impl Plan {
    fn make(stored: &OfflineAcquisition, options: &ExportOptions) -> Result<Self, ExportError> {
        let head = &stored.view().head;
        let sections: BTreeSet<i64> = head.rois.iter().map(|roi| roi.section).collect();
        if let Some(unknown) = options.sections.iter().find(|section| !sections.contains(section)) {
            let known: Vec<String> = sections.iter().map(ToString::to_string).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(ExportError::Usage(format!("acquisition {} has no section {unknown}: {known}", options.acq)));
        }
        let log_name = head.started.as_ref().map(|started| started.log_name.as_str());
        let base = log_name.map(|name| name.strip_suffix(LOG_SUFFIX).unwrap_or(name)).filter(|base| is_plain(base));
        let base = base.map_or_else(|| options.acq.to_string(), str::to_owned);
        let mut plan = Self { base, items: Vec::new(), problems: Vec::new() };
        plan.add_texts(stored);
        let wanted = stored.tiles().filter(|entry| is_wanted(stored, options, entry));
        let drift_dir = format!("Dump__{}", plan.base);
        plan.items.extend(wanted.map(|entry| {
            let stable = entry.key.frame.is_stable();
            let dir = if stable { format!("col{:04}", entry.key.col) } else { drift_dir.clone() };
            Item { dir, name: file_name(entry).to_string(), source: Source::Tile(*entry) }
        }));
        plan.refuse_unsafe_names();
        Ok(plan)
    }

    /// The log and the files; of one name the one that came last.
    fn add_texts(&mut self, stored: &OfflineAcquisition) {
        let files = stored.files();
        if let Some(started) = &stored.view().head.started {
            let newer = files.iter().any(|entry| entry.file.name == started.log_name && entry.id > started.last);
            if !newer {
                let (name, source) = (started.log_name.clone(), Source::Log(started.log_text.clone()));
                self.items.push(Item { dir: String::new(), name, source });
            }
        }
        for entry in files {
            if !self.items.iter().any(|item| item.name == entry.file.name) {
                let (name, source) = (entry.file.name.clone(), Source::File(entry.clone()));
                self.items.push(Item { dir: String::new(), name, source });
            }
        }
    }

    /// Names were checked when they came; what is written by them is checked again.
    fn refuse_unsafe_names(&mut self) {
        let dirs: BTreeSet<String> = self.dirs();
        let (good, bad) = std::mem::take(&mut self.items).into_iter().partition(|item| {
            let is_free = !item.dir.is_empty() || (!dirs.contains(&item.name) && !is_partial(&item.name));
            is_plain(&item.name) && (item.dir.is_empty() || is_plain(&item.dir)) && is_free
        });
        self.items = good;
        let bad: Vec<Item> = bad;
        let refused = |item: &Item| said_of(&format!("{:?}", item.path()), "no file may have this name here");
        self.problems.extend(bad.iter().map(refused));
    }

    fn dirs(&self) -> BTreeSet<String> {
        self.items.iter().filter(|item| !item.dir.is_empty()).map(|item| item.dir.clone()).collect()
    }
}

/// True for a name that is nothing but the name of one file.
fn is_plain(name: &str) -> bool {
    safe_file_name(name).is_ok_and(|safe| safe == name)
}

fn is_partial(name: &str) -> bool {
    name.starts_with(PARTIAL.0) && name.ends_with(PARTIAL.1)
}

fn is_wanted(stored: &OfflineAcquisition, options: &ExportOptions, entry: &TileEntry) -> bool {
    let ExportOptions { sections, cameras, states, drift, .. } = options;
    if !(*drift || entry.key.frame.is_stable()) || !(cameras.is_empty() || cameras.contains(&entry.camera)) {
        return false;
    }
    if sections.is_empty() && states.is_empty() {
        return true;
    }
    stored.memberships(entry).iter().any(|(roi, state)| {
        let in_section = sections.is_empty() || sections.contains(&roi.section);
        in_section && (states.is_empty() || states.iter().any(|wanted| **wanted == **state))
    })
}

/// A folder in the data directory would be mistaken for part of it.
fn refuse_inside(dir: &Path, data: &Path) -> Result<(), ExportError> {
    let data = fs::canonicalize(data).map_err(|error| ExportError::Usage(format!("{}: {error}", data.display())))?;
    let absolute =
        std::path::absolute(dir).map_err(|error| ExportError::Usage(format!("{}: {error}", dir.display())))?;
    let existing = absolute.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    let upward = absolute.components().any(|part| part == std::path::Component::ParentDir);
    if upward && !absolute.exists() {
        return Err(ExportError::Usage(format!("{}: make this directory first, or name it without ..", dir.display())));
    }
    if existing.is_some_and(|existing| existing.starts_with(&data)) {
        return Err(ExportError::Usage(format!("{}: lies in the data directory; choose another", dir.display())));
    }
    Ok(())
}

/// Makes the folder and keeps other exports out of it, where the file system has locks: their files of the moment would have
/// the same names.
fn lock(folder: &Path) -> Result<File, ExportError> {
    match fs::create_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(write_error(folder)(error)),
        _ => {}
    }
    let dir = File::open(folder).map_err(write_error(folder))?;
    match dir.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {
            Err(ExportError::Usage(format!("{}: another export is writing into this folder", folder.display())))
        }
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(dir),
    }
}

/// Makes the directories, and removes what an export that was cut off left in them.
fn prepare(folder: &Path, dirs: &BTreeSet<String>) -> Result<(), ExportError> {
    for dir in std::iter::once(folder.to_owned()).chain(dirs.iter().map(|dir| folder.join(dir))) {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(write_error(&dir)(error)),
            _ => {}
        }
        if !fs::symlink_metadata(&dir).map_err(write_error(&dir))?.is_dir() {
            return Err(write_error(&dir)(io::Error::other("exists and is no directory")));
        }
        for entry in fs::read_dir(&dir).map_err(write_error(&dir))? {
            let entry = entry.map_err(write_error(&dir))?;
            if is_partial(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(write_error(&entry.path()))?;
            }
        }
    }
    Ok(())
}

fn sync_dirs(parent: &Path, folder: &Path, dirs: &BTreeSet<String>) -> Result<(), ExportError> {
    let dirs = dirs.iter().map(|dir| folder.join(dir)).chain([folder.to_owned(), parent.to_owned()]);
    for dir in dirs {
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(write_error(&dir))?;
    }
    Ok(())
}

/// The writing of files, shared by the threads.
struct Work<'a> {
    folder: &'a Path,
    total: u64,
    progress: &'a (dyn Fn(u64, u64, u64) + Sync),
    tally: Mutex<ExportReport>,
}

impl Work<'_> {
    /// Writes the items; returns those whose segment was not there any more.
    fn run(&self, journal: &ReadOnlyJournal, items: &[Item]) -> Result<Vec<usize>, ExportError> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let moved = Mutex::new(Vec::new());
        let thread = |number: usize| -> Result<(), ExportError> {
            while !failed.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(n) else { break };
                match self.bring(journal, item, number) {
                    Ok(skipped) => self.note_good(item, skipped),
                    Err(ItemError::Read(ReadError::Missing(_))) => {
                        moved.lock().unwrap_or_else(PoisonError::into_inner).push(n);
                    }
                    Err(ItemError::Read(error)) => self.note_bad(item, &error.to_string()),
                    Err(ItemError::Damaged(what)) => self.note_bad(item, what),
                    Err(ItemError::Write(error)) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || thread(number))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), ExportError>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).fold(Ok(()), Result::and)
        })?;
        Ok(moved.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sees to it that the item's file is there and right. True when it was.
    fn bring(&self, journal: &ReadOnlyJournal, item: &Item, thread: usize) -> Result<bool, ItemError> {
        let (known, content) = match &item.source {
            Source::Tile(entry) => (KnownContent::of_image(entry), None),
            Source::Log(text) => (KnownContent::of_bytes(text.as_bytes()), Some(text.as_bytes().to_vec())),
            Source::File(entry) => {
                let known = KnownContent { len: entry.file.len, crc: entry.file.crc, checksum: Checksum::None };
                let payload = journal.payload(entry.location)?;
                let (_, content) = decode_file(&payload).ok_or(ItemError::Damaged("no description of a file"))?;
                (known, Some(content.to_vec()))
            }
        };
        let dir = self.folder.join(&item.dir);
        let target = dir.join(&item.name);
        if is_there(&target, known) {
            return Ok(true);
        }
        let partial = Partial::create(&dir, thread).map_err(ItemError::Write)?;
        let mut check = ContentCheck::new(known);
        let mut take = |bytes: &[u8]| {
            check.update(bytes);
            partial.write(bytes).map_err(ItemError::Write)
        };
        match (&item.source, content) {
            (Source::Tile(entry), _) => {
                let header = journal.copy_payload(entry.location, entry.image, &mut take)?;
                if header.sequence != entry.sequence {
                    return Err(ItemError::Damaged("another record lies in its place"));
                }
            }
            (_, content) => take(&content.unwrap_or_default())?,
        }
        if let Some(problem) = check.problem() {
            return Err(ItemError::Damaged(problem));
        }
        partial.finish(&target).map_err(ItemError::Write)?;
        Ok(false)
    }

    fn note_good(&self, item: &Item, skipped: bool) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let (tiles, len) = match &item.source {
            Source::Tile(entry) => (1, u64::from(entry.image.len)),
            Source::File(entry) => (0, entry.file.len),
            Source::Log(text) => (0, text.len() as u64),
        };
        tally.tiles += tiles;
        tally.files += 1 - tiles;
        tally.bytes += len;
        tally.skipped += u64::from(skipped);
        self.tell(&tally);
    }

    /// A file that could not be made and is there is from an earlier export, and not right.
    fn note_bad(&self, item: &Item, problem: &str) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = fs::symlink_metadata(self.folder.join(item.path())).is_ok();
        let stale = if stale { "; the file of this name is not the stored one" } else { "" };
        tally.problems.push(said_of(&item.path(), &format!("{problem}{stale}")));
        self.tell(&tally);
    }

    fn tell(&self, tally: &ExportReport) {
        (self.progress)(tally.tiles + tally.files + tally.problems.len() as u64, self.total, tally.bytes);
    }
}

/// True when the file holds these bytes already.
fn is_there(path: &Path, known: KnownContent) -> bool {
    let is_same_size = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == known.len);
    is_same_size && read_and_check(path, known).is_ok_and(|problem| problem.is_none())
}

fn read_and_check(path: &Path, known: KnownContent) -> io::Result<Option<&'static str>> {
    let mut file = File::open(path)?;
    let mut check = ContentCheck::new(known);
    let mut step = vec![0; 1 << 20];
    loop {
        match file.read(&mut step)? {
            0 => return Ok(check.problem()),
            n => check.update(&step[..n]),
        }
    }
}

/// A file that is being written; removed when it does not come to its end.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn create(dir: &Path, thread: usize) -> Result<Self, ExportError> {
        let path = dir.join(format!("{}{thread}{}", PARTIAL.0, PARTIAL.1));
        let file = File::options().write(true).create_new(true).open(&path).map_err(write_error(&path))?;
        Ok(Self { path, file })
    }

    fn write(&self, bytes: &[u8]) -> Result<(), ExportError> {
        (&self.file).write_all(bytes).map_err(write_error(&self.path))
    }

    fn finish(self, target: &Path) -> Result<(), ExportError> {
        self.file.sync_all().map_err(write_error(&self.path))?;
        fs::rename(&self.path, target).map_err(write_error(target))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // After a rename there is nothing to remove.
    }
}
