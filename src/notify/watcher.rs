//! Looks at the catalog, and hands what is new to every channel. What is said of it is in `news`.

use super::channel::Sender;
use super::message::{Kind, Message, News, State};
use super::news::{self, NAMED_MAX, Seen};
use super::options::NotifyOptions;
use super::repeats::Repeats;
use crate::base::clock;
use crate::catalog::{Catalog, Ending, Finding};
use crate::model::AcqId;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time between two looks at all acquisitions: there may be thousands.
const ACQUISITIONS_EVERY: Duration = Duration::from_secs(10);

/// The thread's state.
pub(super) struct Watcher {
    options: NotifyOptions,
    catalog: Arc<Catalog>,
    data: String,
    senders: Vec<Sender>,
    repeats: Repeats,
    /// Damage that nobody has been told of.
    unsaid: Vec<Finding>,
    stalled: BTreeSet<AcqId>,
    next_acquisitions: Instant,
}

impl Watcher {
    pub(super) fn new(options: NotifyOptions, catalog: Arc<Catalog>, data: &Path, senders: Vec<Sender>) -> Self {
        let (repeats, now) = (Repeats::new(options.repeat), Instant::now());
        let data = data.display().to_string();
        Self {
            options,
            catalog,
            data,
            senders,
            repeats,
            unsaid: Vec::new(),
            stalled: BTreeSet::new(),
            next_acquisitions: now,
        }
    }

    /// Looks once, and tells what is new.
    pub(super) fn look(&mut self) {
        for ending in self.catalog.endings().take() {
            let news = self.of_ending(&ending);
            self.tell(news);
        }
        self.unsaid.extend(self.catalog.damage().take_news());
        self.unsaid.truncate(NAMED_MAX);
        let seen = Seen::of(&self.catalog);
        for news in news::judge(&seen, &self.unsaid, self.options.disk_low_bytes) {
            let is_damage = news.kind == Kind::Damage && news.state == State::Raised;
            if self.tell(news) && is_damage {
                self.unsaid.clear();
            }
        }
        if Instant::now() >= self.next_acquisitions {
            let pause = (self.options.stalled_after / 4).clamp(super::LOOK, ACQUISITIONS_EVERY);
            self.next_acquisitions = Instant::now() + pause;
            self.look_at_acquisitions();
        }
    }

    fn of_ending(&self, ending: &Ending) -> News {
        let missing = self.catalog.missing_tiles(ending.acq, 0, 1000).unwrap_or_default().runs();
        news::of_ending(ending, &missing)
    }

    fn look_at_acquisitions(&mut self) {
        if self.options.stalled_after.is_zero() {
            return;
        }
        let (now_ns, after) = (clock::unix_ns(), self.options.stalled_after);
        let all = self.catalog.index().acquisitions();
        let silent: Vec<_> =
            all.into_iter().filter_map(|(acq, view)| Some((acq, news::silence(&view, after, now_ns)?, view))).collect();
        // What can not be known now is left as it was.
        let is_missing = |acq| match self.catalog.completeness(acq) {
            Ok(completeness) => completeness.all.missing > 0,
            Err(_) => self.stalled.contains(&acq),
        };
        let stalled: Vec<_> = silent.into_iter().filter(|(acq, ..)| is_missing(*acq)).collect();
        let now_stalled = stalled.iter().map(|(acq, ..)| *acq).collect();
        let before = std::mem::replace(&mut self.stalled, now_stalled);
        for (acq, silence, view) in stalled {
            self.tell(news::of_stall(acq, silence, view.counters.tiles));
        }
        for acq in before.difference(&self.stalled.clone()) {
            let view = self.catalog.acquisition(*acq);
            if !view.is_some_and(|view| news::is_left_open(&view, after, now_ns)) {
                self.tell(news::of_end_of_stall(*acq));
            }
        }
    }

    /// Hands news to every channel, if it is wanted and due. Says whether it was.
    fn tell(&mut self, news: News) -> bool {
        if !self.options.events.contains(&news.kind) || !self.repeats.is_due(&news, Instant::now()) {
            return false;
        }
        let message = Arc::new(Message::of(news, &self.data));
        self.senders.iter().for_each(|sender| sender.push(&message));
        true
    }
}

impl Seen {
    fn of(catalog: &Catalog) -> Self {
        Self {
            stop: catalog.stop().reason(),
            disk: catalog.disk_pressure(),
            free_bytes: catalog.journal().status().free_bytes,
            index_failed: catalog.index().lag().store_failed,
            mirror: catalog.journal().mirror().map(|mirror| mirror.phase()),
            damaged: catalog.damage().count(),
        }
    }
}
