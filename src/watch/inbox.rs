//! What the follower is told by others: changes in the folder, and what became of the tiles it gave away.
//!
//! Hints are only hints: one that is lost costs the time to the next poll. Bounded: above [`HINTS_MAX`] names, all of
//! them become "look everywhere". Must never block who tells.

use super::settle::Sighting;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

const HINTS_MAX: usize = 10_000;

/// What became of a tile that was given to the couriers.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Stored, recorded, and removed where that was asked for.
    Done(Sighting),
    /// The file was another when it was read, or when it was to be removed.
    Changed,
    /// No whole TIFF.
    NotWhole { problem: String, as_is: bool },
    /// The file can not be read.
    Unreadable(String),
    /// The file has gone.
    Gone,
    /// The server does not want it.
    Refused(String),
}

/// What came since the last look.
#[derive(Default)]
pub(super) struct News {
    /// Something happened to these.
    pub(super) touched: HashSet<PathBuf>,
    /// These came to their name by a rename.
    pub(super) renamed: HashSet<PathBuf>,
    /// Hints were lost.
    pub(super) everywhere: bool,
    pub(super) outcomes: Vec<(Arc<Path>, Outcome)>,
    /// Nothing is delivered any more.
    pub(super) delivery_ended: bool,
}

/// Shared by all who tell.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    shared: Arc<(Mutex<News>, Condvar)>,
}

impl Inbox {
    /// Something happened to these paths.
    pub(super) fn touched(&self, paths: impl Iterator<Item = PathBuf>, renamed: bool) {
        self.change(|news| {
            let hints = if renamed { &mut news.renamed } else { &mut news.touched };
            hints.extend(paths);
            if news.touched.len() + news.renamed.len() > HINTS_MAX {
                news.lose_hints();
            }
        });
    }

    /// Hints were lost.
    pub(super) fn look_everywhere(&self) {
        self.change(News::lose_hints);
    }

    pub(super) fn tell(&self, path: Arc<Path>, outcome: Outcome) {
        self.change(|news| news.outcomes.push((path, outcome)));
    }

    pub(super) fn delivery_ended(&self) {
        self.change(|news| news.delivery_ended = true);
    }

    /// Waits for news, at most so long.
    pub(super) fn wait(&self, limit: Duration) -> News {
        let (news, changed) = &*self.shared;
        let news = news.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut news, _) =
            changed.wait_timeout_while(news, limit, |news| news.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let ended = news.delivery_ended;
        std::mem::replace(&mut *news, News { delivery_ended: ended, ..News::default() })
    }

    fn change(&self, change: impl FnOnce(&mut News)) {
        let (news, changed) = &*self.shared;
        change(&mut news.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

impl News {
    fn is_empty(&self) -> bool {
        let hints = !self.touched.is_empty() || !self.renamed.is_empty() || self.everywhere;
        !hints && self.outcomes.is_empty()
    }

    fn lose_hints(&mut self) {
        self.touched.clear();
        self.renamed.clear();
        self.everywhere = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_hints_become_a_look_everywhere_and_outcomes_are_kept() {
        let inbox = Inbox::default();
        inbox.tell(Path::new("a").into(), Outcome::Changed);
        inbox.touched((0..HINTS_MAX).map(|n| n.to_string().into()), false);
        inbox.touched(std::iter::once("one more".into()), true);
        let news = inbox.wait(Duration::ZERO);
        assert!(news.everywhere && news.touched.is_empty() && news.renamed.is_empty());
        assert_eq!(news.outcomes.len(), 1);
        assert!(inbox.wait(Duration::ZERO).is_empty());
    }
}
