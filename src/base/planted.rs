//! Planted bugs: what the crash tests must find, or they show nothing.
//!
//! Without the feature `planted-bugs` every [`planted`] is `false` at compile time and nothing is left of it. With the
//! feature nothing but a debug build compiles. Must never be set by anything but a test.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted-bugs breaks promises on purpose: it is for tests of debug builds only");

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A writer does not sync.
    NoSync = 1,
    /// Directory entries of segments are not synced.
    NoDirectorySync,
    /// A lane answers before it has synced.
    AckBeforeSync,
    /// A writer tries a failed sync again on the same file, and believes it.
    RetriedSync,
    /// A recovery that finds damage drops all that lies behind it.
    TruncatedOnRot,
    /// A write that was done in part counts as done.
    IgnoredShortWrite,
    /// A record's header is taken without looking at its checksum.
    HeaderWithoutCrc,
    /// A recovery syncs nothing that a killed process left: duplicates are answered from the page cache.
    DuplicateFromPageCache,
    /// Other content under a stored key takes the place of what was stored.
    OverwrittenOnResend,
    /// The index is believed without asking the journal.
    IndexAsTruth,
}

/// All of them.
#[cfg(feature = "planted-bugs")]
pub const ALL: [Bug; 10] = [
    Bug::NoSync,
    Bug::NoDirectorySync,
    Bug::AckBeforeSync,
    Bug::RetriedSync,
    Bug::TruncatedOnRot,
    Bug::IgnoredShortWrite,
    Bug::HeaderWithoutCrc,
    Bug::DuplicateFromPageCache,
    Bug::OverwrittenOnResend,
    Bug::IndexAsTruth,
];

/// True while a test has planted this bug.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// True while a test has planted this bug.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) == bug as u8
}

/// Plants one bug, or none, in the whole process.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::SeqCst);
}
