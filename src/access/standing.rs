//! A token that was found right, asked again as long as what it opened goes on: a revocation ends that, too.
//!
//! Holds the token's digest, name and scopes. Must never hold the token.

use super::{Access, TokenEntry};
use std::sync::Arc;

/// What was shown when something was opened.
#[derive(Clone)]
pub struct Standing {
    access: Arc<Access>,
    /// `None`: revoked between the look that let it in and this one.
    entry: Option<TokenEntry>,
}

impl Standing {
    /// Of a request that was let in with this token.
    #[must_use]
    pub fn of(access: &Arc<Access>, bearer: &str) -> Self {
        let entry = access.keyring.as_ref().and_then(|keyring| keyring.find(bearer));
        Self { access: Arc::clone(access), entry }
    }

    /// True as long as the token is there, with the same scopes.
    #[must_use]
    pub fn holds(&self) -> bool {
        let found = self.access.keyring.as_ref().zip(self.entry.as_ref());
        found.is_some_and(|(keyring, entry)| keyring.holds(entry))
    }
}
