//! What a caller may do, and what a route needs. Must never let one scope stand for another but as it is written here.

use std::fmt;
use std::str::FromStr;

/// A right that a token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Queries and contents.
    Read,
    /// Start, fill and end acquisitions, take tiles out of the work queue; and what a sender reads for that.
    Ingest,
    /// Everything: deletions and settings, too.
    Admin,
}

/// Several rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No scope: it holds no data.
    Nothing,
    /// The scope read.
    Reading,
    /// Read or ingest: what senders ask about their acquisitions.
    SenderReading,
    /// The scope ingest.
    Ingesting,
    /// The scope admin.
    Administering,
}

impl Scope {
    /// All.
    pub const ALL: [Scope; 3] = [Self::Read, Self::Ingest, Self::Admin];

    /// As files and commands have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Ingest => 2,
            Self::Admin => 4,
        }
    }
}

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// These and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names, in order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect()
    }

    /// True when whoever has these may do that.
    #[must_use]
    pub fn allow(self, need: Need) -> bool {
        need == Need::Nothing || need.scopes().iter().any(|scope| self.has(*scope)) || self.has(Scope::Admin)
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl Need {
    /// Any of these will do.
    #[must_use]
    pub fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Nothing => &[],
            Self::Reading => &[Scope::Read],
            Self::SenderReading => &[Scope::Read, Scope::Ingest],
            Self::Ingesting => &[Scope::Ingest],
            Self::Administering => &[Scope::Admin],
        }
    }

    /// True when it changes something.
    #[must_use]
    pub fn is_writing(self) -> bool {
        matches!(self, Self::Ingesting | Self::Administering)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("\"{text}\" is no scope: read, ingest or admin"))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

impl FromStr for Scopes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scopes = text.split(',').map(Scope::from_str).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of(&scopes))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::Nothing {
            return f.write_str("none");
        }
        let names: Vec<&str> = self.scopes().iter().map(|scope| scope.name()).collect();
        f.write_str(&names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_all_and_ingest_what_a_sender_reads() {
        let allowed = |scope| {
            let scopes = Scopes::of(&[scope]);
            [Need::Reading, Need::SenderReading, Need::Ingesting, Need::Administering].map(|need| scopes.allow(need))
        };
        assert_eq!(allowed(Scope::Read), [true, true, false, false]);
        assert_eq!(allowed(Scope::Ingest), [false, true, true, false]);
        assert_eq!(allowed(Scope::Admin), [true; 4]);
        assert!(!Scopes::NONE.allow(Need::SenderReading));
        assert!(Scopes::NONE.allow(Need::Nothing));
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        let both: Scopes = "ingest,read".parse().expect("two scopes");
        assert_eq!(both.to_string(), "read,ingest");
        assert!("".parse::<Scopes>().is_err() && "write".parse::<Scopes>().is_err());
    }
}
