//! When a file that somebody else writes is complete: a small state machine for each file, fed with what was seen and a clock.
//!
//! A file may be read when it was renamed into place, or kept size and time of change for a while. What was read decides:
//! a TIFF that is not whole waits for its next change, and is given up when none comes. No I/O, no sleeping. Must never
//! let a file be sent twice at a time, nor forget one that was not stored.

use std::fs::Metadata;
use std::time::{Duration, SystemTime};

/// Pauses before a file that could not be read is tried again.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Bytes.
    pub(super) size: u64,
    /// Nanoseconds since 1970; what lies outside of i64 is its nearest end.
    pub(super) modified_ns: i64,
}

impl Sighting {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified_ns: metadata.modified().map_or(0, nanoseconds) }
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A file that kept size and time for so long is complete, as far as can be seen.
    pub(super) settle: Duration,
    /// A TIFF that is not whole and did not change for so long is given up.
    pub(super) give_up_on: Duration,
    /// What is given up is sent as it is.
    pub(super) any_content: bool,
    /// The watch ends: nothing will change any more.
    pub(super) ending: bool,
}

/// What to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again at this time.
    Look(Duration),
    /// Read and send it; `as_is`: whatever is in it.
    Send {
        /// Without asking whether it is whole.
        as_is: bool,
    },
    /// It was given up just now.
    GiveUp,
    /// Nothing, until it changes.
    Rest,
}

/// A file.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    seen: Sighting,
    /// When it was first seen like this.
    since: Duration,
    stage: Stage,
    /// The pause before it is tried again, once it could not be read.
    gap: Option<Duration>,
    /// It was read for the last time at the end.
    last_try: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Settling,
    /// With the couriers: nothing is done with it until they say what became of it.
    Sending,
    NotWhole(String),
    Unreadable {
        problem: String,
        retry_at: Duration,
    },
    GivenUp(String),
    Refused(String),
    Done,
}

/// What is wrong with a file that was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent<'a> {
    /// It could not be read, or is not whole.
    Unreadable(&'a str),
    /// The server refused it.
    Refused(&'a str),
    /// It was not read yet.
    Waiting,
}

impl Watched {
    /// A file that is seen for the first time.
    pub(super) fn new(seen: Sighting, at: Duration) -> Self {
        Self { seen, since: at, stage: Stage::Settling, gap: None, last_try: false }
    }

    /// What was last seen of it.
    pub(super) fn seen(&self) -> Sighting {
        self.seen
    }

    /// It was looked at: true when it changed.
    pub(super) fn observe(&mut self, seen: Sighting, at: Duration) -> bool {
        if self.stage == Stage::Sending || seen == self.seen {
            return false;
        }
        *self = Self::new(seen, at);
        true
    }

    /// What to do with it, now that it was looked at. `closed`: it came to its name by a rename.
    pub(super) fn step(&mut self, at: Duration, closed: bool, rules: &Rules) -> Step {
        match &mut self.stage {
            Stage::Settling if closed || at >= self.since + rules.settle => self.send(false),
            Stage::Settling => Step::Look(self.since + rules.settle),
            Stage::NotWhole(_) if !rules.ending && at < self.since + rules.give_up_on => {
                Step::Look(self.since + rules.give_up_on)
            }
            Stage::NotWhole(_) if rules.any_content => self.send(true),
            Stage::NotWhole(problem) => {
                self.stage = Stage::GivenUp(std::mem::take(problem));
                Step::GiveUp
            }
            Stage::Unreadable { .. } if rules.ending && !self.last_try => {
                self.last_try = true;
                self.send(false)
            }
            Stage::Unreadable { problem, .. } if rules.ending => {
                self.stage = Stage::GivenUp(std::mem::take(problem));
                Step::GiveUp
            }
            Stage::Unreadable { retry_at, .. } if at < *retry_at => Step::Look(*retry_at),
            Stage::Unreadable { .. } => self.send(false),
            Stage::Sending | Stage::GivenUp(_) | Stage::Refused(_) | Stage::Done => Step::Rest,
        }
    }

    /// It is stored as it was seen then, or needs not be.
    pub(super) fn done(&mut self, as_seen: Sighting) {
        (self.stage, self.seen) = (Stage::Done, as_seen);
    }

    /// It was another when it was read: it settles anew.
    pub(super) fn changed(&mut self, at: Duration) {
        (self.stage, self.since) = (Stage::Settling, at);
    }

    /// It is no whole TIFF. One that was to be sent as it is, and can not be, is given up.
    pub(super) fn not_whole(&mut self, problem: String, as_is: bool) {
        self.stage = if as_is { Stage::GivenUp(problem) } else { Stage::NotWhole(problem) };
    }

    /// It could not be read: tried again after a pause that doubles. True the first time.
    pub(super) fn unreadable(&mut self, problem: String, at: Duration, rules: &Rules) -> bool {
        let gap = self.gap.map_or(rules.settle.max(RETRY_MIN), |gap| (gap * 2).min(RETRY_MAX));
        self.stage = Stage::Unreadable { problem, retry_at: at + gap };
        self.gap.replace(gap).is_none()
    }

    /// The server refused it for good.
    pub(super) fn refused(&mut self, problem: String) {
        self.stage = Stage::Refused(problem);
    }

    /// With the couriers.
    pub(super) fn is_sending(&self) -> bool {
        self.stage == Stage::Sending
    }

    /// Settled and needs nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Why it is not stored.
    pub(super) fn unsent(&self) -> Option<Unsent<'_>> {
        match &self.stage {
            Stage::Done => None,
            Stage::Settling | Stage::Sending => Some(Unsent::Waiting),
            Stage::NotWhole(problem) | Stage::Unreadable { problem, .. } | Stage::GivenUp(problem) => {
                Some(Unsent::Unreadable(problem))
            }
            Stage::Refused(problem) => Some(Unsent::Refused(problem)),
        }
    }

    fn send(&mut self, as_is: bool) -> Step {
        self.stage = Stage::Sending;
        Step::Send { as_is }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { settle: ms(100), give_up_on: ms(1000), any_content: false, ending: false };
    const SEND: Step = Step::Send { as_is: false };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sized(size: u64) -> Sighting {
        Sighting { size, modified_ns: 7 }
    }

    /// Looks at the file.
    fn look(file: &mut Watched, size: u64, at: u64) -> Step {
        file.observe(sized(size), ms(at));
        file.step(ms(at), false, &RULES)
    }

    #[test]
    fn a_file_that_grows_waits_until_it_has_kept_its_size_for_a_while() {
        let mut file = Watched::new(sized(1), ms(0));
        assert_eq!(look(&mut file, 1, 0), Step::Look(ms(100)));
        assert_eq!(look(&mut file, 2, 90), Step::Look(ms(190)));
        assert_eq!(look(&mut file, 2, 189), Step::Look(ms(190)));
        assert_eq!(look(&mut file, 2, 190), SEND);
        assert_eq!(look(&mut file, 3, 500), Step::Rest, "it is with the couriers");
    }

    #[test]
    fn a_file_that_keeps_its_size_and_not_its_time_goes_on_settling() {
        let mut file = Watched::new(sized(1), ms(0));
        assert!(file.observe(Sighting { size: 1, modified_ns: 8 }, ms(99)));
        assert_eq!(file.step(ms(150), false, &RULES), Step::Look(ms(199)));
    }

    #[test]
    fn a_rename_closes_a_file_at_once() {
        let mut file = Watched::new(sized(1), ms(0));
        assert_eq!(file.step(ms(0), true, &RULES), SEND);
    }

    #[test]
    fn a_file_that_is_not_whole_waits_for_its_next_change_and_is_given_up_once() {
        let mut file = Watched::new(sized(1), ms(0));
        assert_eq!(look(&mut file, 1, 100), SEND);
        file.not_whole("cut off".to_owned(), false);
        assert_eq!(look(&mut file, 1, 200), Step::Look(ms(1000)), "reading it again would tell nothing new");
        assert_eq!(look(&mut file, 2, 900), Step::Look(ms(1000)), "it changed, and settles");
        assert_eq!(look(&mut file, 2, 1000), SEND);
        file.not_whole("cut off".to_owned(), false);
        assert_eq!(look(&mut file, 2, 1899), Step::Look(ms(1900)));
        assert_eq!([look(&mut file, 2, 1900), look(&mut file, 2, 1901)], [Step::GiveUp, Step::Rest]);
        assert_eq!(file.unsent(), Some(Unsent::Unreadable("cut off")));
        assert_eq!(look(&mut file, 3, 5000), Step::Look(ms(5100)), "a change is a new beginning");
    }

    #[test]
    fn any_content_is_sent_as_it_is_only_when_it_is_given_up() {
        let rules = Rules { any_content: true, ..RULES };
        let mut file = Watched::new(sized(1), ms(0));
        assert_eq!(file.step(ms(100), false, &rules), SEND);
        file.not_whole("not a TIFF".to_owned(), false);
        assert_eq!(file.step(ms(999), false, &rules), Step::Look(ms(1000)));
        assert_eq!(file.step(ms(1000), false, &rules), Step::Send { as_is: true });
        file.not_whole("an empty file".to_owned(), true);
        assert_eq!(file.step(ms(9000), false, &rules), Step::Rest);
        assert_eq!(file.unsent(), Some(Unsent::Unreadable("an empty file")));
    }

    #[test]
    fn a_file_that_can_not_be_read_is_tried_again_less_and_less_often_and_told_of_once() {
        let mut file = Watched::new(sized(1), ms(0));
        let mut tries = Vec::new();
        let mut told = 0;
        for at in (0..=3000).step_by(10) {
            if look(&mut file, 1, at) == SEND {
                tries.push(at);
                told += u32::from(file.unreadable("locked".to_owned(), ms(at), &RULES));
            }
        }
        assert_eq!((tries, told), (vec![100, 200, 400, 800, 1600], 1));
    }

    #[test]
    fn at_the_end_nothing_is_waited_for_and_what_can_not_be_read_is_tried_once_more() {
        let rules = Rules { ending: true, ..RULES };
        let mut cut = Watched::new(sized(1), ms(0));
        assert_eq!(cut.step(ms(50), false, &rules), Step::Look(ms(100)), "it may still be written");
        assert_eq!(cut.step(ms(100), false, &rules), SEND);
        cut.not_whole("cut off".to_owned(), false);
        assert_eq!(cut.step(ms(100), false, &rules), Step::GiveUp);
        let mut locked = Watched::new(sized(1), ms(0));
        locked.unreadable("locked".to_owned(), ms(0), &RULES);
        assert_eq!(locked.step(ms(1), false, &rules), SEND);
        locked.unreadable("locked".to_owned(), ms(1), &rules);
        assert_eq!([locked.step(ms(1), false, &rules), locked.step(ms(2), false, &rules)], [Step::GiveUp, Step::Rest]);
    }

    #[test]
    fn what_is_stored_rests_until_it_changes() {
        let mut file = Watched::new(sized(1), ms(0));
        assert_eq!(look(&mut file, 1, 100), SEND);
        file.done(sized(1));
        assert_eq!((look(&mut file, 1, 9000), file.unsent()), (Step::Rest, None));
        // What was stored is what was read, even if the file is another by now.
        assert!(file.observe(sized(2), ms(9000)));
        assert_eq!(file.step(ms(9100), false, &RULES), SEND);
    }
}
