//! The tokens of a running daemon, as the file has them. A thread looks at the file once a second, so that a revocation acts
//! without a restart; what it can not read changes nothing, is said in the log and shown by a metric.
//!
//! Must never forget its tokens because of a broken file, nor read a file while a request waits.

use super::token::TokenDigest;
use super::token_file::{Stamp, TokenEntry, TokenFile};
use super::{AccessError, TokenFileError};
use crate::telemetry::Metrics;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Time between looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Keyring {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    wake: Sender<()>,
}

struct Shared {
    file: TokenFile,
    entries: RwLock<Vec<TokenEntry>>,
    /// The state of the file that was last tried; `None`: it could not be looked at.
    seen: Mutex<Option<Stamp>>,
    /// Why it could not be read then, if it could not.
    problem: Mutex<Option<String>>,
    metrics: Arc<Metrics>,
}

impl Keyring {
    /// Reads the tokens and starts the thread that looks after them.
    ///
    /// # Errors
    /// They can not be read.
    pub(super) fn open(path: PathBuf, metrics: &Arc<Metrics>) -> Result<Self, AccessError> {
        let shared = Arc::new(Shared::open(TokenFile::at(path), metrics)?);
        let (wake, woken) = bounded(1);
        let looking = Arc::clone(&shared);
        let look = move || {
            loop {
                match woken.recv_timeout(LOOK_EVERY) {
                    Ok(()) => looking.read_for_operator(),
                    Err(RecvTimeoutError::Timeout) => looking.look(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("tokens".into()).spawn(look).map_err(AccessError::Thread)?;
        Ok(Self { shared, wake })
    }

    /// The token with this text. All are compared, so that the time tells nothing.
    pub(super) fn find(&self, text: &str) -> Option<TokenEntry> {
        let digest = TokenDigest::of(text);
        let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .fold(None, |found, entry| if entry.digest.matches(&digest) { Some(entry) } else { found })
            .cloned()
    }

    /// True while this token is there, and may do the same.
    pub(super) fn holds(&self, entry: &TokenEntry) -> bool {
        let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().any(|known| known.digest.matches(&entry.digest) && known.scopes == entry.scopes)
    }

    /// Has the file read again, changed or not.
    pub(super) fn reload(&self) {
        // Full: it is about to be read anyway.
        let _ = self.wake.try_send(());
    }
}

impl Shared {
    fn open(file: TokenFile, metrics: &Arc<Metrics>) -> Result<Self, TokenFileError> {
        // Looked at before it is read: a change in between is found later.
        let seen = Mutex::new(file.stamp().ok());
        let entries = file.read()?;
        tracing::info!(path = %file.path().display(), tokens = entries.len(), "tokens read");
        let (entries, metrics) = (RwLock::new(entries), Arc::clone(metrics));
        Ok(Self { file, entries, seen, problem: Mutex::default(), metrics })
    }

    /// What could not be read is tried again though the file has not changed: the reason may have been of the moment, and a
    /// revocation would wait for the next change.
    fn look(&self) {
        let has_failed = lock(&self.problem).is_some();
        if has_failed || *lock(&self.seen) != self.file.stamp().ok() {
            self.read_again();
        }
    }

    /// Who asks hears of a problem again.
    fn read_for_operator(&self) {
        *lock(&self.problem) = None;
        self.read_again();
    }

    fn read_again(&self) {
        let stamp = self.file.stamp().ok();
        self.take(stamp, self.file.read());
    }

    fn take(&self, stamp: Option<Stamp>, read: Result<Vec<TokenEntry>, TokenFileError>) {
        *lock(&self.seen) = stamp;
        self.metrics.tokens_reload_failed.set(read.is_err().into());
        match read {
            Ok(entries) => {
                tracing::info!(path = %self.file.path().display(), tokens = entries.len(), "tokens read again");
                *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
                *lock(&self.problem) = None;
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Once for each problem: it is found again each second.
    fn complain(&self, error: &TokenFileError) {
        let problem = error.to_string();
        if lock(&self.problem).replace(problem.clone()).is_none_or(|told| told != problem) {
            tracing::error!(%error, "tokens can not be read again: THE OLD ONES STAY VALID, revoked ones too; mend the file");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Token;

    #[test]
    fn tokens_that_could_not_be_read_for_a_moment_are_read_at_the_next_look() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = TokenFile::at(dir.path().join("tokens"));
        let token = Token::new().expect("random");
        let (name, scopes) = ("one".parse().expect("a name"), "read".parse().expect("a scope"));
        file.add(&TokenEntry { name, scopes, digest: token.digest(), made: "2026-03-04".to_owned() }).expect("added");
        let shared = Shared::open(file.clone(), &Arc::new(Metrics::new())).expect("tokens");
        file.revoke(&"one".parse().expect("a name")).expect("revoked");
        let failed =
            TokenFileError::Io { path: file.path().to_owned(), source: std::io::Error::other("of the moment") };
        shared.take(file.stamp().ok(), Err(failed));
        assert_eq!((shared.entries.read().expect("a lock").len(), shared.metrics.tokens_reload_failed.get()), (1, 1));
        shared.look();
        assert_eq!((shared.entries.read().expect("a lock").len(), shared.metrics.tokens_reload_failed.get()), (0, 0));
    }
}
