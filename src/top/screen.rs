//! What is shown: the last status, its history, the selected acquisition and its mosaic. Knows no terminal.

use super::follow::News;
use super::mosaic::Picture;
use crate::client::{DaemonStatus, SampleStatus};
use std::collections::VecDeque;
use std::time::Instant;

/// Seconds of history.
const HISTORY: usize = 120;
/// Warnings that are kept.
const WARNINGS: usize = 50;

/// Whether the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It has not answered yet.
    Connecting,
    /// It did, then.
    Heard(Instant),
    /// It does not, since then, for this reason.
    Lost(Instant, String),
}

/// What is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) url: String,
    pub(super) link: Link,
    pub(super) status: Option<DaemonStatus>,
    pub(super) history: VecDeque<SampleStatus>,
    /// Of the selected acquisition, or why there is none.
    pub(super) picture: Option<Result<Picture, String>>,
    pub(super) help: bool,
    selected: Option<u64>,
}

impl Screen {
    pub(super) fn new(url: &str) -> Self {
        let (url, history) = (url.to_owned(), VecDeque::new());
        Self { url, link: Link::Connecting, status: None, history, picture: None, help: false, selected: None }
    }

    /// The acquisition whose mosaic is shown.
    pub(super) fn selected(&self) -> Option<u64> {
        self.selected
    }

    /// Its place in the list.
    pub(super) fn selected_line(&self) -> Option<usize> {
        let acquisitions = &self.status.as_ref()?.acquisitions;
        acquisitions.iter().position(|acquisition| Some(acquisition.id) == self.selected)
    }

    /// Selects another one, so many lines further down.
    pub(super) fn select(&mut self, lines: isize) {
        let Some(status) = &self.status else { return };
        let last = status.acquisitions.len().saturating_sub(1);
        let line = self.selected_line().unwrap_or(0).saturating_add_signed(lines).min(last);
        self.choose(status.acquisitions.get(line).map(|acquisition| acquisition.id));
    }

    fn choose(&mut self, acquisition: Option<u64>) {
        if self.selected != acquisition {
            self.selected = acquisition;
            self.picture = None;
        }
    }

    /// Takes news in.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Lost(problem) => {
                let since = if let Link::Lost(since, _) = self.link { since } else { Instant::now() };
                self.link = Link::Lost(since, problem);
                return;
            }
            News::Whole(mut status) => {
                self.history = std::mem::take(&mut status.history).into();
                self.take(*status);
            }
            News::Second(mut status) => {
                let sample = status.sample.take();
                // Every stream begins with a second that the history may have.
                let is_new = sample.as_ref().map(|sample| &sample.at) != self.history.back().map(|sample| &sample.at);
                self.history.extend(sample.filter(|_| is_new));
                self.take(*status);
            }
            News::Picture(picture) if Some(picture.acquisition) == self.selected => self.picture = Some(Ok(picture)),
            News::NoPicture(problem) => self.picture = Some(Err(problem)),
            News::Cells(changed) if Some(changed.acquisition) == self.selected => {
                if let Some(Ok(picture)) = &mut self.picture {
                    changed.cells.iter().for_each(|(col, row, cell)| picture.set(*col, *row, *cell));
                }
            }
            News::Warning(warning) => {
                if let Some(status) = &mut self.status {
                    status.warnings.push(warning);
                    let old = status.warnings.len().saturating_sub(WARNINGS);
                    status.warnings.drain(..old);
                }
            }
            News::Picture(_) | News::Cells(_) => {}
        }
        self.link = Link::Heard(Instant::now());
    }

    fn take(&mut self, status: DaemonStatus) {
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
        let is_there = status.acquisitions.iter().any(|acquisition| Some(acquisition.id) == self.selected);
        let first = status.acquisitions.first().map(|acquisition| acquisition.id);
        self.status = Some(status);
        if !is_there {
            self.choose(first);
        }
    }
}
