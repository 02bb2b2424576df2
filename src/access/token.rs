//! Tokens: 256 random bits, shown once. What is kept of one is its SHA-256; what is compared takes the same time, right or
//! wrong. Must never print a token by accident: it has no `Debug` that shows it.

use crate::model::hex;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Tells a token from other secrets, for people and for scanners of leaked ones.
const PREFIX: &str = "tilecatcher_";
const RANDOM_BYTES: usize = 32;
const NAME_MAX: usize = 64;

/// A token in the clear.
pub struct Token(String);

/// SHA-256 of a token's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

/// What a token is called in listings and in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenName(String);

impl Token {
    /// A new one, out of the operating system's random numbers.
    ///
    /// # Errors
    /// It has none.
    pub fn new() -> std::io::Result<Self> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(format!("{PREFIX}{}", hex(&random))))
    }

    /// The text, for whoever it was made for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

impl TokenDigest {
    /// Of a token's text, right or wrong.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Compared in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no SHA-256: 64 hex digits");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        // Somebody who mixes up the two must not have the token in the file.
        if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(is_known) || text.starts_with(PREFIX) {
            return Err(format!("a token's name is 1 to {NAME_MAX} of A-Z a-z 0-9 . _ - @, and no token"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_only_their_own_digest_matches() {
        let (one, other) = (Token::new().expect("random"), Token::new().expect("random"));
        assert_eq!(one.reveal().len(), PREFIX.len() + 2 * RANDOM_BYTES);
        assert!(one.digest().matches(&TokenDigest::of(one.reveal())));
        assert!(!one.digest().matches(&other.digest()));
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[test]
    fn digests_are_written_as_they_are_read() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenDigest::of("abc").to_string(), known);
        assert_eq!(known.parse::<TokenDigest>().expect("hex"), TokenDigest::of("abc"));
        for wrong in ["", "ba78", &format!("+{}", &known[1..]), &known.replace('b', "g")] {
            assert!(wrong.parse::<TokenDigest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_no_name() {
        assert!("camera-1.lab@site".parse::<TokenName>().is_ok());
        let token = Token::new().expect("random");
        for wrong in ["", "a b", "a\nb", "\u{e9}", token.reveal(), &"x".repeat(65)] {
            assert!(wrong.parse::<TokenName>().is_err(), "{wrong:?}");
        }
    }
}
