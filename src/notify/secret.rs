//! Secrets from files, which only those may read who must.

use super::NotifyError;
use crate::base::limits::SECRET_MODE_FORBIDDEN;
use std::path::Path;

/// The first line of a file that others can not read. Read anew for each use, so that a new secret needs no restart.
///
/// # Errors
/// It can not be read, is empty, or others may read it, or its group write it.
pub(super) fn read(key: &'static str, path: &Path) -> Result<String, NotifyError> {
    let wrong = |problem: String| NotifyError::new(key, format!("{}: {problem}", path.display()));
    let about = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions());
    if mode & SECRET_MODE_FORBIDDEN != 0 {
        return Err(wrong(format!("others may use this secret (mode {:04o}): chmod 0640 it", mode & 0o7777)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.lines().next().map(str::trim_end) {
        Some(secret) if !secret.is_empty() => Ok(secret.to_owned()),
        _ => Err(wrong("is empty: the secret is its first line".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_may_use_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
            read("a.key", &path).map_err(|error| error.to_string())
        };
        assert_eq!(write("s3cret \nsecond line\n", 0o640), Ok("s3cret".to_owned()));
        for mode in [0o644, 0o660, 0o620, 0o650, 0o604] {
            assert!(write("s3cret\n", mode).expect_err("open").contains("chmod"), "{mode:o}");
        }
        assert!(write("\n", 0o600).expect_err("empty").contains("a.key"));
    }
}
