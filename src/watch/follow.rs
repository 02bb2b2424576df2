//! The thread that follows the folder: waits for news, looks, and decides when it is over.
//!
//! Owns the table and its clock. Must never block on the server while tiles could be found, except for what has to come
//! before them (log, ROIs).

use super::inbox::{Inbox, News};
use super::names::is_temporary;
use super::settle::{Rules, Sighting};
use super::table::Table;
use super::{EndedBy, WatchError, WatchOptions};
use crate::client::{Companions, HttpClient, Patient, SendError};
use crate::formats::AcquisitionFolder;
use crate::model::AcqId;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest wait: whoever asks to stop is heard within it.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Every so many polls everything is listed and looked at.
const THOROUGH_EVERY: u32 = 12;
/// The longest wait for an answer that nothing depends on.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Follows one folder.
pub(super) struct Follower<'a> {
    pub(super) dir: PathBuf,
    pub(super) options: &'a WatchOptions,
    pub(super) patient: Patient<'a>,
    pub(super) inbox: Inbox,
    pub(super) table: Table,
    /// Why it ends, once it does.
    pub(super) ending: Option<EndedBy>,
    ignored: Vec<PathBuf>,
    clock: Instant,
    next_poll: Duration,
    polls: u32,
    /// The log as it was sent.
    log_sent: Option<Sighting>,
    told: String,
    asking: HttpClient,
}

impl<'a> Follower<'a> {
    pub(super) fn new(
        dir: &Path,
        record: &Path,
        options: &'a WatchOptions,
        patient: Patient<'a>,
        inbox: Inbox,
    ) -> Self {
        let mut ignored = vec![PathBuf::from(&options.stop_file)];
        let record = std::path::absolute(record).unwrap_or_else(|_| record.to_owned());
        ignored.extend(record.strip_prefix(dir).map(Path::to_owned));
        let link = &options.delivery.link;
        Self {
            table: Table::new(dir, ignored.clone()),
            dir: dir.to_owned(),
            options,
            patient,
            inbox,
            ending: None,
            ignored,
            clock: Instant::now(),
            next_poll: Duration::ZERO,
            polls: 0,
            log_sent: None,
            told: String::new(),
            asking: link.http_client_waiting(link.timeout.min(ASK_TIMEOUT)),
        }
    }

    /// Waits for the log, and starts the acquisition with it.
    ///
    /// # Errors
    /// The watch ended before; or the server stayed away.
    pub(super) fn await_acquisition(&mut self) -> Result<AcquisitionFolder, WatchError> {
        let mut problem = "no *_logfile.ini is here".to_owned();
        self.patient.listener.note(&format!("{}: waiting for the acquisition's log", self.dir.display()));
        loop {
            self.turn(None);
            if std::mem::take(&mut self.table.beside_settled) {
                match self.start() {
                    Ok(folder) => return Ok(folder),
                    Err(Some(SendError::Http(error))) if self.patient.stop.reason().is_none() => {
                        return Err(error.into());
                    }
                    Err(Some(error)) => problem = error.to_string(),
                    Err(None) => {}
                }
            }
            let ended_by = match self.patient.stop.reason() {
                Some(_) => Some(EndedBy::Interrupted),
                None => self.ending.filter(|_| self.table.has_calmed_down()),
            };
            if let Some(ended_by) = ended_by {
                return Err(WatchError::NoAcquisition { dir: self.dir.clone(), ended_by, problem });
            }
        }
    }

    /// One look around, after waiting for a reason to. `acq`: the acquisition that may be ended on the server.
    /// True when nothing is delivered any more.
    pub(super) fn turn(&mut self, acq: Option<AcqId>) -> bool {
        let news = self.inbox.wait(self.wait());
        let (at, rules) = (self.clock.elapsed(), self.rules());
        for (path, outcome) in news.outcomes.iter() {
            self.table.hear(path, outcome.clone(), at, &rules);
        }
        let is_poll = news.everywhere || at >= self.next_poll;
        if is_poll {
            self.poll(at, news.everywhere, &rules);
        }
        self.table.follow_hints(&news, at, &rules);
        self.table.look(at, &rules);
        self.tell_notes();
        self.decide_end(at, &news, is_poll, acq);
        news.delivery_ended
    }

    /// Whether nothing more will come, as far as a last thorough look can tell.
    pub(super) fn is_over(&mut self) -> bool {
        if self.ending.is_none() || !self.table.is_at_rest() {
            return false;
        }
        self.table.scan(self.clock.elapsed(), true, &self.rules());
        self.tell_notes();
        self.table.is_at_rest()
    }

    /// Where the log changed after it was sent, the server gets it again: what came of it.
    pub(super) fn send_log_again(&mut self, folder: &AcquisitionFolder) -> Option<Result<(), SendError>> {
        let settled = self.table.has_settled(folder.log_path());
        if settled.is_none() || settled == self.log_sent || self.ending == Some(EndedBy::Server) {
            return None;
        }
        self.patient.listener.note(&format!("{}: the log changed, and is sent again", folder.log_path().display()));
        let sent = Companions { patient: self.patient, folder }.send_log();
        self.note_log(settled, &sent);
        Some(sent)
    }

    /// A file beside the tiles that is part of the acquisition.
    pub(super) fn is_part(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        !is_temporary(&name.to_string_lossy()) && !self.ignored.iter().any(|ignored| ignored.as_os_str() == name)
    }

    /// The folder as it is; what is wrong with it is told once.
    pub(super) fn open_folder(&mut self) -> Option<AcquisitionFolder> {
        match AcquisitionFolder::open(&self.dir) {
            Ok(folder) => Some(folder),
            Err(error) => {
                self.tell_once(error.to_string());
                None
            }
        }
    }

    /// Starts the acquisition, if its log has settled. `None`: not yet.
    fn start(&mut self) -> Result<AcquisitionFolder, Option<SendError>> {
        let folder = AcquisitionFolder::open(&self.dir).map_err(|error| Some(SendError::Folder(error)))?;
        let settled = self.table.has_settled(folder.log_path());
        if settled.is_none() || settled == self.log_sent {
            return Err(None);
        }
        let started = Companions { patient: self.patient, folder: &folder }.send_log();
        self.note_log(settled, &started);
        if let Err(error) = started {
            if error.is_input() {
                self.tell_once(format!("{error}; waiting for it to change"));
            }
            return Err(Some(error));
        }
        folder.warnings().iter().for_each(|warning| self.patient.listener.note(warning));
        self.patient.listener.note(&format!(
            "acquisition {} is started: following {}",
            folder.acq(),
            self.dir.display()
        ));
        Ok(folder)
    }

    /// A log that was taken, or will not be, is not sent again before it changes.
    fn note_log(&mut self, settled: Option<Sighting>, sent: &Result<(), SendError>) {
        if !matches!(sent, Err(SendError::Http(_))) {
            self.log_sent = settled;
        }
    }

    fn poll(&mut self, at: Duration, everywhere: bool, rules: &Rules) {
        let thorough = everywhere || self.polls.is_multiple_of(THOROUGH_EVERY);
        self.polls = self.polls.wrapping_add(1);
        self.table.scan(at, thorough, rules);
        self.next_poll = self.clock.elapsed() + self.options.poll;
    }

    fn decide_end(&mut self, at: Duration, news: &News, is_poll: bool, acq: Option<AcqId>) {
        if self.ending == Some(EndedBy::Idle) && !self.is_idle(at) {
            self.ending = None;
            self.patient.listener.note("the folder changes again");
        }
        if self.ending.is_some() {
            return;
        }
        let stop_file = self.dir.join(&self.options.stop_file);
        let is_hinted = news.touched.contains(&stop_file) || news.renamed.contains(&stop_file);
        let reason = if (is_poll || is_hinted) && stop_file.exists() {
            Some((EndedBy::StopFile, format!("{}: found", stop_file.display())))
        } else if self.is_idle(at) {
            Some((EndedBy::Idle, format!("{}: nothing changed for long", self.dir.display())))
        } else if is_poll && acq.is_some_and(|acq| self.is_ended_on_server(acq)) {
            Some((EndedBy::Server, "the acquisition is ended on the server".to_owned()))
        } else {
            None
        };
        if let Some((reason, why)) = reason {
            self.ending = Some(reason);
            self.patient.listener.note(&format!("{why}: sending what is left"));
            self.table.look_soon(at);
            self.table.scan(at, true, &self.rules());
        }
    }

    fn is_idle(&self, at: Duration) -> bool {
        self.options.idle.is_some_and(|idle| at.saturating_sub(self.table.last_change) >= idle)
    }

    /// A server that does not answer is the couriers' trouble.
    fn is_ended_on_server(&self, acq: AcqId) -> bool {
        matches!(self.asking.acquisition(acq), Ok(Some(known)) if known.ended)
    }

    fn rules(&self) -> Rules {
        Rules {
            settle: self.options.settle,
            give_up_on: self.options.give_up_on,
            any_content: self.options.any_content,
            ending: self.ending.is_some(),
        }
    }

    fn wait(&self) -> Duration {
        let due = self.table.next_look().map_or(self.next_poll, |look| look.min(self.next_poll));
        due.saturating_sub(self.clock.elapsed()).min(WAIT_MAX)
    }

    fn tell_notes(&mut self) {
        self.table.take_notes().iter().for_each(|note| self.patient.listener.note(note));
    }

    fn tell_once(&mut self, line: String) {
        if self.told != line {
            self.patient.listener.note(&line);
            self.told = line;
        }
    }
}
