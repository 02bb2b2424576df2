//! The token that a client shows to the HTTP port. Read from a file, for arguments and variables are seen by others.
//!
//! Must never print it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A token as it was given to us.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(String);

/// A file that holds no token.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}; it must hold what `tilecatcher token add` printed", path = .path.display())]
pub struct TokenReadError {
    path: PathBuf,
    problem: String,
}

/// A token is longer than none, and shorter than this.
const BYTES_MAX: usize = 1024;

impl BearerToken {
    /// The token in this file, blanks around it left out.
    ///
    /// # Errors
    /// The file can not be read, or holds something else.
    pub fn from_file(path: &Path) -> Result<Self, TokenReadError> {
        let error = |problem| TokenReadError { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        text.parse().map_err(error)
    }

    /// The header's value.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl FromStr for BearerToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_token = !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_token { Ok(Self(text.to_owned())) } else { Err("this is no token".to_owned()) }
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token: BearerToken = " tilecatcher_1234\n".parse().expect("a token");
        assert_eq!(token.header(), "Bearer tilecatcher_1234");
        assert!(!format!("{token:?}").contains("1234"));
        for wrong in ["", " \n", "two words", "two\nlines", "\u{e9}", &"x".repeat(1025)] {
            assert!(wrong.parse::<BearerToken>().is_err(), "{wrong:?}");
        }
    }
}
