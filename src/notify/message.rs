//! What is told: kind, state, words for people, figures for programs.

use serde::Serialize;
use serde_json::Value;
use std::str::FromStr;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An acquisition was ended, and nothing is missing.
    AcquisitionComplete,
    /// An acquisition was ended with tiles missing.
    AcquisitionIncomplete,
    /// An acquisition is open, and no tile has come for a while.
    CaptureStalled,
    /// Less free space than `notify.disk_low`.
    DiskLow,
    /// No room for another segment: tiles are refused, or about to be.
    DiskFull,
    /// Stored records are damaged.
    Damage,
    /// Writing or syncing the journal failed: the daemon stops.
    StorageFailed,
    /// The index' store failed: queries of new tiles work from memory until that is full.
    IndexFailed,
    /// A thread panicked: the daemon stops.
    Panicked,
    /// The mirror does not hold what is acknowledged.
    MirrorLost,
    /// Somebody asked for a test.
    Test,
}

/// Whether something happened, began or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It happened: there is no end to wait for.
    Happened,
    /// It is so from now on, or still.
    Raised,
    /// It is so no longer.
    Resolved,
}

/// A message, as every channel gets it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// 1; raised when the meaning of a field changes.
    pub version: u32,
    /// Differs for each message, and stays the same when it is sent again.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// Whether it happened, began or is over.
    pub state: State,
    /// What it is about, such as `acquisition 123`.
    pub subject: String,
    /// One line.
    pub title: String,
    /// The same in full, with what to do; lines.
    pub text: String,
    /// The figures in it.
    pub details: Value,
    /// RFC 3339, UTC.
    pub at: String,
    /// The machine.
    pub host: String,
    /// The data directory.
    pub data: String,
}

/// What a watcher has to say, before it is known where and when.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct News {
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) subject: String,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) details: Value,
}

impl Kind {
    /// Every kind that can be chosen.
    pub const ALL: [Kind; 10] = [
        Self::AcquisitionComplete,
        Self::AcquisitionIncomplete,
        Self::CaptureStalled,
        Self::DiskLow,
        Self::DiskFull,
        Self::Damage,
        Self::StorageFailed,
        Self::IndexFailed,
        Self::Panicked,
        Self::MirrorLost,
    ];

    /// As messages and `notify.events` have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AcquisitionComplete => "acquisition_complete",
            Self::AcquisitionIncomplete => "acquisition_incomplete",
            Self::CaptureStalled => "capture_stalled",
            Self::DiskLow => "disk_low",
            Self::DiskFull => "disk_full",
            Self::Damage => "damage",
            Self::StorageFailed => "storage_failed",
            Self::IndexFailed => "index_failed",
            Self::Panicked => "panicked",
            Self::MirrorLost => "mirror_lost",
            Self::Test => "test",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("\"{text}\" is nothing to be told of: {}", known()))
    }
}

impl Message {
    /// A message from this machine, now.
    pub(super) fn of(news: News, data: &str) -> Self {
        let News { kind, state, subject, title, text, details } = news;
        let (id, at) = (uuid::Uuid::new_v4().to_string(), jiff::Timestamp::now().to_string());
        let (host, data) = (host_name(), data.to_owned());
        Self { version: 1, id, kind, state, subject, title, text, details, at, host, data }
    }

    /// The message of `tilecatcher notify --test`.
    #[must_use]
    pub fn test(data: &str) -> Self {
        Self::of(
            News {
                kind: Kind::Test,
                state: State::Happened,
                subject: "notifications".to_owned(),
                title: "test of notifications".to_owned(),
                text: "Somebody ran `tilecatcher notify --test`. Nothing is wrong.".to_owned(),
                details: serde_json::json!({}),
            },
            data,
        )
    }

    /// The body of a webhook.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data has a JSON form")
    }

    /// One line that says where, too.
    #[must_use]
    pub fn headline(&self) -> String {
        let over = if self.state == State::Resolved { "over: " } else { "" };
        format!("[tilecatcher {}] {over}{}", self.host, self.title)
    }

    /// A letter's text.
    #[must_use]
    pub fn letter(&self) -> String {
        format!(
            "{}\n\nmachine: {}\ndata:    {}\ntime:    {}\nkind:    {}\n",
            self.text,
            self.host,
            self.data,
            self.at,
            self.kind.name()
        )
    }
}

/// The machine's name, as far as the system says it; under systemd's protection only the file is there.
fn host_name() -> String {
    let read = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let found =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].into_iter().filter_map(read).find(|name| !name.is_empty());
    found.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).expect("a name"), kind.name());
        }
        assert!("test".parse::<Kind>().is_err() && "".parse::<Kind>().is_err());
    }

    #[test]
    fn a_message_has_an_id_of_its_own_and_says_what_is_over() {
        let message = Message::test("/data");
        assert_ne!(message.id, Message::test("/data").id);
        assert!(message.headline().ends_with("] test of notifications"), "{}", message.headline());
        let over = Message { state: State::Resolved, ..message };
        assert!(over.headline().contains("over: "), "{}", over.headline());
        assert!(over.letter().contains("data:    /data"), "{}", over.letter());
    }
}
