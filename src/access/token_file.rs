//! The file of tokens: a line each, with name, scopes, SHA-256 and the day it was made. Lines that begin with `#` are notes.
//!
//! ```text
//! camera-1 ingest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 2026-03-04
//! ```
//!
//! Read whole or not at all. Changed by whole replacement (temporary file, sync, rename, sync of the directory) while the
//! directory is locked, so that two who change it at a time both succeed. Must never hold a token, nor be readable by all.

use super::scope::Scopes;
use super::token::{TokenDigest, TokenName};
use crate::base::limits::SECRET_MODE_FORBIDDEN;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MODE: u32 = 0o600;
/// A file longer than this is no file of tokens.
const BYTES_MAX: u64 = 1 << 20;
const HEADING: &str =
    "# tilecatcher tokens: name, scopes, SHA-256 of the token, day. Changed by `tilecatcher token`.\n";

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// Its name.
    pub name: TokenName,
    /// What it may do.
    pub scopes: Scopes,
    /// SHA-256 of its text.
    pub digest: TokenDigest,
    /// The day on which it was made, as it stands in the file.
    pub made: String,
}

/// A file of tokens.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// A file of tokens that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// Reading or writing it failed.
    #[error("{path}: {source}; `tilecatcher token add` makes the file", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Others than its owner and group can get at it.
    #[error("{path}: mode {mode:04o} lets others in: chmod 0600 (or 0640) it", path = .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A line is none.
    #[error("{path}:{line}: {problem}", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The name is taken.
    #[error("{path}: there is a token {name}: revoke it first, or choose another name", path = .path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
    /// There is no such name.
    #[error("{path}: there is no token {name}", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name.
        name: TokenName,
    },
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    mode: u32,
}

impl TokenFile {
    /// The file at this path, which need not be there.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens.
    ///
    /// # Errors
    /// It can not be read, others can read it, or a line is none.
    pub fn read(&self) -> Result<Vec<TokenEntry>, TokenFileError> {
        self.entries(&self.text()?)
    }

    /// Adds a token. The file is made when it is not there.
    ///
    /// # Errors
    /// As [`Self::read`], or the name is taken, or the file can not be replaced.
    pub fn add(&self, entry: &TokenEntry) -> Result<(), TokenFileError> {
        let directory = self.lock()?;
        let mut text = match self.text() {
            Err(TokenFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => HEADING.to_owned(),
            text => text?,
        };
        if self.entries(&text)?.iter().any(|known| known.name == entry.name) {
            return Err(TokenFileError::Taken { path: self.path.clone(), name: entry.name.clone() });
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let TokenEntry { name, scopes, digest, made } = entry;
        text += &format!("{name} {scopes} {digest} {made}\n");
        self.replace(&directory, &text)
    }

    /// Takes a token away.
    ///
    /// # Errors
    /// As [`Self::read`], or there is none of this name, or the file can not be replaced.
    pub fn revoke(&self, name: &TokenName) -> Result<(), TokenFileError> {
        let directory = self.lock()?;
        let text = self.text()?;
        if !self.entries(&text)?.iter().any(|known| known.name == *name) {
            return Err(TokenFileError::Missing { path: self.path.clone(), name: name.clone() });
        }
        let stays = |line: &&str| line.split_whitespace().next() != Some(name.to_string().as_str());
        let kept: String = text.lines().filter(stays).map(|line| format!("{line}\n")).collect();
        self.replace(&directory, &kept)
    }

    /// The file as it is now.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        let about = std::fs::metadata(&self.path)?;
        let changed = (about.ctime(), about.ctime_nsec());
        Ok(Stamp { inode: about.ino(), bytes: about.len(), changed, mode: about.mode() })
    }

    fn text(&self) -> Result<String, TokenFileError> {
        let file = File::open(&self.path).map_err(|source| self.io(source))?;
        let about = file.metadata().map_err(|source| self.io(source))?;
        let mode = about.mode() & 0o777;
        if mode & SECRET_MODE_FORBIDDEN != 0 {
            return Err(TokenFileError::Mode { path: self.path.clone(), mode });
        }
        if !about.is_file() || about.len() > BYTES_MAX {
            return Err(self.io(io::Error::other("this is no file of tokens")));
        }
        io::read_to_string(file).map_err(|source| self.io(source))
    }

    fn entries(&self, text: &str) -> Result<Vec<TokenEntry>, TokenFileError> {
        let mut entries: Vec<TokenEntry> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| TokenFileError::Line { path: self.path.clone(), line: n + 1, problem };
            let entry = read_line(line).map_err(wrong)?;
            if entries.iter().any(|known| known.name == entry.name) {
                return Err(wrong(format!("a second token {}", entry.name)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The directory, locked until it is closed.
    fn lock(&self) -> Result<File, TokenFileError> {
        let directory = File::open(self.directory()).map_err(|source| self.io(source))?;
        directory.lock().map_err(|source| self.io(source))?;
        Ok(directory)
    }

    fn replace(&self, directory: &File, text: &str) -> Result<(), TokenFileError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.directory().join(format!(".{name}.new"));
        let replaced = write_new(&temporary, text, self.owner())
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .and_then(|()| directory.sync_all());
        if replaced.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        replaced.map_err(|source| self.io(source))
    }

    /// Owner, group and mode that the operator gave the file: a daemon that may read it still may when root replaced it.
    fn owner(&self) -> Option<(u32, u32, u32)> {
        let about = std::fs::metadata(&self.path).ok()?;
        Some((about.uid(), about.gid(), about.mode() & 0o777 & !SECRET_MODE_FORBIDDEN))
    }

    fn io(&self, source: io::Error) -> TokenFileError {
        TokenFileError::Io { path: self.path.clone(), source }
    }
}

fn write_new(path: &Path, text: &str, owner: Option<(u32, u32, u32)>) -> io::Result<()> {
    // What a killed command left, nobody else writes: the directory is locked.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some((user, group, mode)) = owner {
        let about = file.metadata()?;
        if (about.uid(), about.gid()) != (user, group) {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    file.sync_all()
}

fn read_line(line: &str) -> Result<TokenEntry, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, scopes, digest, made] = fields[..] else {
        return Err(format!("{} fields instead of 4: name, scopes, SHA-256, day", fields.len()));
    };
    Ok(TokenEntry { name: name.parse()?, scopes: scopes.parse()?, digest: digest.parse()?, made: made.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Token;
    use std::os::unix::fs::PermissionsExt;

    fn entry(name: &str) -> TokenEntry {
        let digest = Token::new().expect("random").digest();
        let scopes = "read".parse().expect("a scope");
        TokenEntry { name: name.parse().expect("a name"), scopes, digest, made: "2026-03-04".to_owned() }
    }

    fn file() -> (tempfile::TempDir, TokenFile) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = TokenFile::at(dir.path().join("tokens"));
        (dir, file)
    }

    #[test]
    fn tokens_are_added_listed_and_revoked_and_notes_stay() {
        let (_dir, file) = file();
        let (one, other) = (entry("one"), entry("one-more"));
        file.add(&one).expect("added");
        file.add(&other).expect("added");
        assert_eq!(file.read().expect("read"), [one.clone(), other.clone()]);
        assert!(matches!(file.add(&one), Err(TokenFileError::Taken { .. })));
        file.revoke(&one.name).expect("revoked");
        assert_eq!(file.read().expect("read"), [other]);
        assert!(matches!(file.revoke(&one.name), Err(TokenFileError::Missing { .. })));
        assert!(std::fs::read_to_string(file.path()).expect("text").starts_with(HEADING));
        assert_eq!(std::fs::metadata(file.path()).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let (_dir, file) = file();
        file.add(&entry("one")).expect("added");
        for (mode, is_good) in [(0o644, false), (0o604, false), (0o660, false), (0o640, true), (0o400, true)] {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).expect("chmod");
            let read = file.read();
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 0600"), "{error}");
            }
        }
    }

    #[test]
    fn a_broken_line_is_named_and_nothing_is_taken() {
        let (_dir, file) = file();
        file.add(&entry("one")).expect("added");
        let good = std::fs::read_to_string(file.path()).expect("text");
        let line = good.lines().last().expect("a line");
        for (bad, hint) in [("x", "4"), (&line.replace("read", "all") as &str, "scope"), (line, "second")] {
            std::fs::write(file.path(), format!("{good}{bad}\n")).expect("written");
            let error = file.read().expect_err(bad).to_string();
            assert!(error.contains(":3:") && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn those_who_change_the_file_at_a_time_all_succeed() {
        let (_dir, file) = file();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let file = &file;
                scope.spawn(move || file.add(&entry(&format!("token-{n}"))).expect("added"));
            }
        });
        assert_eq!(file.read().expect("read").len(), 8);
    }
}
