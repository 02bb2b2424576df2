//! Hints from the operating system that something in the folder changed.
//!
//! Only a way to look sooner: inotify tells nothing of what other computers write on a share, and may lose what it tells.
//! Must never be needed.

use super::inbox::Inbox;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::path::Path;

/// Ends with its drop.
pub(super) struct Hints {
    _watcher: RecommendedWatcher,
}

impl Hints {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system can not tell of changes there: too many watches, or a file system that does not know how.
    pub(super) fn listen(dir: &Path, inbox: &Inbox) -> Result<Self, notify::Error> {
        let inbox = inbox.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if event.need_rescan() => inbox.look_everywhere(),
            Ok(event) => hint(event, &inbox),
            Err(_) => inbox.look_everywhere(),
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher })
    }
}

fn hint(event: Event, inbox: &Inbox) {
    match event.kind {
        // We open and read files ourselves.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => inbox.touched(event.paths.into_iter(), false),
        EventKind::Access(_) => {}
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => inbox.touched(event.paths.into_iter(), true),
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => inbox.touched(event.paths.into_iter().skip(1), true),
        _ => inbox.touched(event.paths.into_iter(), false),
    }
}
