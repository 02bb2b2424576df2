//! Lines for the journal of systemd: it has the time, and takes a line's priority from `<N>` in front of it.

use std::io::{self, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Priority of lines that are no event of ours, as syslog counts: informational.
const INFO: u8 = 6;

/// True when stderr is the journal's: JOURNAL_STREAM names device and inode of what the manager connected.
pub(super) fn is_connected() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(about) = rustix::fs::fstat(io::stderr()) else { return false };
    named == format!("{}:{}", about.st_dev, about.st_ino)
}

/// Makes writers that put an event's priority in front of each of its lines.
#[derive(Clone, Copy)]
pub(super) struct Journal;

/// Writes to stderr at a priority.
pub(super) struct AtPriority(u8);

impl<'a> MakeWriter<'a> for Journal {
    type Writer = AtPriority;

    fn make_writer(&'a self) -> AtPriority {
        AtPriority(INFO)
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> AtPriority {
        AtPriority(priority(*about.level()))
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => INFO,
        _ => 7,
    }
}

impl Write for AtPriority {
    /// An event comes as one buffer, and leaves as one, so that lines of different threads do not mix.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&marked(self.0, event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn marked(priority: u8, event: &[u8]) -> Vec<u8> {
    let lines = event.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|line| [format!("<{priority}>").as_bytes(), line].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_event_carries_its_priority() {
        assert_eq!(marked(4, b"one\ntwo\n"), b"<4>one\n<4>two\n");
        assert_eq!([Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(priority), [3, 4, 6, 7]);
    }
}
