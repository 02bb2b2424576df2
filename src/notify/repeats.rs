//! Which news is told: not the same thing over and over, and an end only of what was told.

use super::message::{Kind, News, State};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Things that are remembered; beyond, the one that was told longest ago is forgotten.
const REMEMBERED_MAX: usize = 1000;
/// Whoever was told last that it is over is told after this that it is not.
const BACK_AFTER: Duration = Duration::from_secs(600);

/// What was told when.
pub(super) struct Repeats {
    shortest: Duration,
    told: HashMap<(Kind, String), Told>,
}

struct Told {
    at: Instant,
    state: State,
}

impl Repeats {
    pub(super) fn new(shortest: Duration) -> Self {
        Self { shortest, told: HashMap::new() }
    }

    /// Whether this is to be told now. What lasts may be handed in as often as one likes.
    pub(super) fn is_due(&mut self, news: &News, now: Instant) -> bool {
        // What happens twice with other figures is news.
        let about = if news.state == State::Happened { &news.title } else { &news.subject };
        let key = (news.kind, about.clone());
        match news.state {
            State::Resolved => {
                let told = self.told.get_mut(&key).filter(|told| told.state == State::Raised);
                told.map(|told| *told = Told { at: now, state: State::Resolved }).is_some()
            }
            State::Happened | State::Raised => {
                let is_recent = |told: &Told| now.saturating_duration_since(told.at) < self.pause(told.state);
                if self.told.get(&key).is_some_and(is_recent) {
                    return false;
                }
                self.make_room();
                self.told.insert(key, Told { at: now, state: news.state });
                true
            }
        }
    }

    /// Shortest time behind what was told before something is told again.
    fn pause(&self, told: State) -> Duration {
        if told == State::Resolved { self.shortest.min(BACK_AFTER) } else { self.shortest }
    }

    fn make_room(&mut self) {
        if self.told.len() < REMEMBERED_MAX {
            return;
        }
        let oldest = self.told.iter().min_by_key(|(_, told)| told.at).map(|(key, _)| key.clone());
        oldest.map(|key| self.told.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn news(state: State, subject: &str, title: &str) -> News {
        let kind = if state == State::Happened { Kind::AcquisitionIncomplete } else { Kind::DiskLow };
        let (subject, title) = (subject.to_owned(), title.to_owned());
        News { kind, state, subject, title, text: String::new(), details: serde_json::json!({}) }
    }

    #[test]
    fn what_lasts_is_told_at_once_and_again_after_the_interval() {
        let (mut repeats, now) = (Repeats::new(HOUR), Instant::now());
        let low = |title| news(State::Raised, "disk", title);
        assert!(repeats.is_due(&low("5 GiB"), now));
        assert!(!repeats.is_due(&low("4 GiB"), now + HOUR / 2));
        assert!(repeats.is_due(&low("3 GiB"), now + HOUR));
    }

    #[test]
    fn an_end_is_told_once_and_only_of_what_was_told() {
        let (mut repeats, now) = (Repeats::new(HOUR), Instant::now());
        let (low, over) = (news(State::Raised, "disk", ""), news(State::Resolved, "disk", ""));
        assert!(!repeats.is_due(&over, now));
        assert!(repeats.is_due(&low, now) && repeats.is_due(&over, now));
        assert!(!repeats.is_due(&over, now));
    }

    #[test]
    fn what_is_back_is_told_long_before_the_interval_is_over_but_not_at_once() {
        let (mut repeats, now) = (Repeats::new(HOUR), Instant::now());
        let (low, over) = (news(State::Raised, "disk", ""), news(State::Resolved, "disk", ""));
        let ended = now + HOUR / 4;
        assert!(repeats.is_due(&low, now) && repeats.is_due(&over, ended));
        let soon = ended + BACK_AFTER / 2;
        assert!(!repeats.is_due(&low, soon) && !repeats.is_due(&over, soon), "it wavers");
        let back = ended + BACK_AFTER;
        assert!(repeats.is_due(&low, back) && repeats.is_due(&over, back + BACK_AFTER));
    }

    #[test]
    fn what_happens_again_with_other_figures_is_told() {
        let (mut repeats, now) = (Repeats::new(HOUR), Instant::now());
        let ended = |title| news(State::Happened, "acquisition 1", title);
        assert!(repeats.is_due(&ended("3 missing"), now) && !repeats.is_due(&ended("3 missing"), now));
        assert!(repeats.is_due(&ended("2 missing"), now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repeats, now) = (Repeats::new(HOUR), Instant::now());
        for n in 0..3 * REMEMBERED_MAX {
            assert!(repeats.is_due(&news(State::Raised, &n.to_string(), ""), now + Duration::from_millis(n as u64)));
        }
        assert_eq!(repeats.told.len(), REMEMBERED_MAX);
    }
}
