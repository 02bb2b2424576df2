//! What happens to a tile's file when the tile is stored: it stays, is moved, or is deleted.
//!
//! Must never touch a file that is not what was sent, put one file over another, or delete one before its copy was
//! synced and read back.

use super::record::sync_directory_of;
use super::settle::Sighting;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What happens to files that are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// They stay.
    Keep,
    /// They are moved into this directory, under the folder's name.
    Move(PathBuf),
    /// They are deleted.
    Delete,
}

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "keep" => Ok(Self::Keep),
            None if text == "delete" => Ok(Self::Delete),
            Some(("move", dir)) if !dir.is_empty() => Ok(Self::Move(dir.into())),
            _ => Err(format!("\"{text}\" is nothing to do with a file: keep, move:DIR or delete")),
        }
    }
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is not there any more.
    Done,
    /// It is another than the one that was sent.
    Changed,
    /// It was left where it is.
    Left(String),
}

/// Removes a file that is still what was sent. `moved_to`: where to; deleted when absent.
pub(super) fn remove(path: &Path, as_sent: Sighting, moved_to: Option<&Path>) -> Removal {
    match fs::metadata(path) {
        Ok(metadata) if Sighting::of(&metadata) != as_sent => return Removal::Changed,
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Removal::Done,
        Err(error) => return Removal::Left(error.to_string()),
    }
    let removed = match moved_to {
        Some(target) => move_file(path, target),
        None => fs::remove_file(path),
    };
    match removed {
        Ok(()) => Removal::Done,
        Err(error) => Removal::Left(error.to_string()),
    }
}

/// Moves a file; over a border between file systems as a copy that is synced and compared.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    if to.try_exists()? {
        if is_one_file(from, to)? {
            return Err(io::Error::other(format!("{} is this very file", to.display())));
        }
        if same_content(from, to)? {
            File::open(to)?.sync_all()?;
            return fs::remove_file(from);
        }
        return Err(io::Error::other(format!("{} is there, with other content", to.display())));
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => move_across(from, to),
        renamed => {
            renamed?;
            sync_directory_of(to);
            Ok(())
        }
    }
}

/// True for two names of one file: what is moved must not go as its own copy. By way of two mounts a file may have two
/// devices, but hardly another one the same number and time of its last change of any kind.
#[cfg(unix)]
fn is_one_file(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| fs::metadata(path).map(|found| (found.ino(), found.ctime(), found.ctime_nsec()));
    Ok(of(one)? == of(other)?)
}

#[cfg(not(unix))]
fn is_one_file(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(one.canonicalize()? == other.canonicalize()?)
}

fn move_across(from: &Path, to: &Path) -> io::Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let part = to.with_file_name(format!(".{name}.part"));
    // From a move that was cut off; it may be one that can not be written to.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let metadata = fs::metadata(from)?;
    let mut copy = File::options().write(true).create_new(true).open(&part)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    if let Ok(modified) = metadata.modified() {
        copy.set_modified(modified)?;
    }
    copy.set_permissions(metadata.permissions())?;
    copy.sync_all()?;
    drop(copy);
    if !same_content(from, &part)? {
        let _ = fs::remove_file(&part);
        return Err(io::Error::other(format!("the copy at {} is not what was copied", to.display())));
    }
    fs::rename(&part, to)?;
    sync_directory_of(to);
    fs::remove_file(from)
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = one.read(&mut left)?;
        if n == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        match other.read_exact(&mut right[..n]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &Path) -> Sighting {
        Sighting::of(&fs::metadata(path).expect("a file"))
    }

    #[test]
    fn ways_are_read_from_their_names() {
        let parsed = ["keep", "delete", "move:/a:b"].map(|text| text.parse::<After>().expect(text));
        assert_eq!(parsed, [After::Keep, After::Delete, After::Move("/a:b".into())]);
        assert!(["", "move", "move:", "delete:x", "burn"].iter().all(|text| text.parse::<After>().is_err()));
    }

    #[test]
    fn only_what_was_sent_is_removed_and_what_has_gone_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.tif");
        fs::write(&path, b"one").expect("written");
        let sent = seen(&path);
        fs::write(&path, b"other").expect("written");
        assert_eq!(remove(&path, sent, None), Removal::Changed);
        assert_eq!(remove(&path, seen(&path), None), Removal::Done);
        assert!(!path.exists());
        assert_eq!(remove(&path, sent, None), Removal::Done);
    }

    #[test]
    fn a_move_puts_nothing_over_another_file_and_takes_an_equal_one_for_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("a.tif"), dir.path().join("there/col1/a.tif"));
        fs::write(&from, b"one").expect("written");
        assert_eq!(remove(&from, seen(&from), Some(&to)), Removal::Done);
        fs::write(&from, b"two").expect("written");
        assert!(matches!(remove(&from, seen(&from), Some(&to)), Removal::Left(why) if why.contains("other content")));
        assert_eq!((fs::read(&from).expect("left"), fs::read(&to).expect("kept")), (b"two".to_vec(), b"one".to_vec()));
        fs::write(&from, b"one").expect("written");
        assert_eq!(remove(&from, seen(&from), Some(&to)), Removal::Done);
        assert!(!from.exists());
    }

    #[test]
    fn a_file_that_is_moved_to_itself_by_another_way_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("a/a.tif"), dir.path().join("link/a.tif"));
        fs::create_dir(dir.path().join("a")).expect("made");
        fs::write(&from, b"one").expect("written");
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).expect("linked");
        for to in [&to, &from] {
            assert!(
                matches!(remove(&from, seen(&from), Some(to)), Removal::Left(why) if why.contains("this very file"))
            );
        }
        assert_eq!(fs::read(&from).expect("there"), b"one");
    }

    #[test]
    fn a_move_between_file_systems_leaves_a_whole_copy_with_its_time_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("a.tif"), dir.path().join("b.tif"));
        let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&from, &content).expect("written");
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o444);
        fs::set_permissions(&from, mode.clone()).expect("read-only");
        // What a move that was cut off left.
        fs::write(dir.path().join(".b.tif.part"), b"a part").expect("written");
        fs::set_permissions(dir.path().join(".b.tif.part"), mode).expect("read-only");
        let before = seen(&from);
        move_across(&from, &to).expect("moved");
        assert_eq!((fs::read(&to).expect("there"), seen(&to)), (content, before));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
    }
}
