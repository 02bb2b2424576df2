//! A report that several threads write to while tiles are delivered.
//!
//! Must never hold its lock while somebody is told.

use super::delivery::Event;
use super::patience::{Listener, Reminder};
use super::report::{Problem, SendReport};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts, and tells.
pub struct Tally<'a> {
    listener: &'a dyn Listener,
    report: Mutex<SendReport>,
    /// Several connections have the same trouble, again and again.
    reminder: Mutex<Reminder>,
}

impl<'a> Tally<'a> {
    /// Goes on with a report.
    pub fn new(report: SendReport, listener: &'a dyn Listener) -> Self {
        Self { listener, report: Mutex::new(report), reminder: Mutex::default() }
    }

    /// Tells people something.
    pub fn note(&self, line: &str) {
        self.listener.note(line);
    }

    /// The server has acknowledged a tile.
    pub fn acknowledged(&self, bytes: u64, took: Duration) {
        self.done(|report| {
            report.acknowledged += 1;
            report.bytes += bytes;
            report.ack_times.push(took);
        });
    }

    /// The server has refused a tile.
    pub fn refused(&self, path: &Path, what: String) {
        self.note(&format!("refused {}: {what}", path.display()));
        self.done(|report| report.refused.push(Problem::new(path, what)));
    }

    /// Another tile is done with.
    pub fn done(&self, change: impl FnOnce(&mut SendReport)) {
        let mut report = self.lock();
        change(&mut report);
        let problems = report.refused.len() + report.unreadable.len();
        let done = report.acknowledged + report.already_stored + problems as u64;
        let (total, bytes) = (report.tiles, report.bytes);
        drop(report);
        self.listener.progress(done, total, bytes);
    }

    /// What the delivery tells of itself.
    pub fn noticed(&self, event: Event) {
        match event {
            Event::Broken { problem, unanswered } => {
                self.change(|report| {
                    report.reconnects += 1;
                    report.resent += unanswered as u64;
                });
                self.trouble(&problem);
            }
            Event::Restored => {
                *self.reminder.lock().unwrap_or_else(PoisonError::into_inner) = Reminder::default();
                self.note("the server takes tiles again");
            }
            Event::Deferred(refused) => {
                self.change(|report| report.resent += 1);
                self.trouble(&refused.reason);
            }
        }
    }

    /// Something that does not end a tile.
    pub fn change(&self, change: impl FnOnce(&mut SendReport)) {
        change(&mut self.lock());
    }

    /// The report, when all threads are done.
    pub fn into_report(self) -> SendReport {
        self.report.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, problem: &str) {
        let is_due = self.reminder.lock().unwrap_or_else(PoisonError::into_inner).is_due();
        if is_due {
            self.note(&format!("{problem}; trying again"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, SendReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
