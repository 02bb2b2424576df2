//! The last warnings and errors of the process, for whoever looks on: a layer beside the log that keeps what it says.
//!
//! Of the process, as the log is. Bounded in number and length. Says nothing that the log does not say.

use crate::base::clock;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Warnings that are kept.
const KEPT: usize = 50;
/// Longest message, bytes.
const MESSAGE_BYTES_MAX: usize = 500;

/// Something that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Its number since the start of the process, from 1.
    pub number: u64,
    /// When, ns since 1970 UTC.
    pub at_ns: i64,
    /// warn or error.
    pub level: &'static str,
    /// What the log says, with its fields.
    pub message: String,
}

struct Kept {
    last: u64,
    warnings: VecDeque<Warning>,
}

static RECENT: Mutex<Kept> = Mutex::new(Kept { last: 0, warnings: VecDeque::new() });

/// The warnings behind the one with this number that are kept, oldest first.
#[must_use]
pub fn warnings_after(number: u64) -> Vec<Warning> {
    kept().warnings.iter().filter(|warning| warning.number > number).cloned().collect()
}

/// The number of the last warning; 0: there was none.
#[must_use]
pub fn last_warning() -> u64 {
    kept().last
}

fn kept() -> MutexGuard<'static, Kept> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps events that it is given.
pub(super) struct KeepWarnings;

impl<S: Subscriber> Layer<S> for KeepWarnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = if *event.metadata().level() == tracing::Level::ERROR { "error" } else { "warn" };
        let (at_ns, message) = (clock::unix_ns(), text.finish());
        let mut kept = kept();
        kept.last += 1;
        if kept.warnings.len() >= KEPT {
            kept.warnings.pop_front();
        }
        let number = kept.last;
        kept.warnings.push_back(Warning { number, at_ns, level, message });
    }
}

/// A message and its fields, as the log writes them, on one line and cut off.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > MESSAGE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
            text.push_str(" ...");
        }
        text.replace(['\n', '\r'], " ")
    }

    fn add(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if self.fields.len() <= MESSAGE_BYTES_MAX {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn warnings_are_kept_with_their_fields_and_within_bounds() {
        let before = last_warning();
        let layer = KeepWarnings.with_filter(LevelFilter::WARN);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!("nobody's business");
            tracing::warn!(acquisition = 7, path = %"/a b", "two\nlines");
            tracing::error!("{}", "\u{e9}".repeat(5000));
        });
        // Other tests of the process may warn, too; of this thread's there are two.
        let found = warnings_after(before);
        let first = found.iter().find(|warning| warning.message.starts_with("two")).expect("the first");
        assert_eq!((first.level, first.message.as_str()), ("warn", "two lines acquisition=7 path=/a b"));
        let second = found.iter().find(|warning| warning.message.starts_with('\u{e9}')).expect("the second");
        assert!(
            second.level == "error" && second.message.len() <= MESSAGE_BYTES_MAX + 4 && second.number > first.number
        );
        assert!(!found.iter().any(|warning| warning.message.contains("nobody")));
    }
}
