//! One way to reach somebody: what it must be able to do, and the thread that does it, a few times where it fails.

use super::message::Message;
use super::queue::Queue;
use super::{NotifyError, WAITING_MAX};
use crate::telemetry::{Metrics, NotifyChannel, NotifyOutcome};
use std::sync::Arc;
use std::time::Duration;

/// A way to reach somebody.
pub trait Channel: Send {
    /// Whom it reaches, for people. Without secrets.
    fn target(&self) -> String;

    /// Sends a message, within a bounded time; says what the other side answered.
    ///
    /// # Errors
    /// It did not arrive, as far as can be known.
    fn send(&self, message: &Message) -> Result<String, SendError>;
}

/// A message did not arrive.
#[derive(Debug, PartialEq, Eq)]
pub struct SendError {
    /// What happened.
    pub problem: String,
    /// Whether another attempt may go better.
    pub is_passing: bool,
}

impl SendError {
    pub(super) fn passing(problem: impl ToString) -> Self {
        Self { problem: problem.to_string(), is_passing: true }
    }

    pub(super) fn lasting(problem: impl ToString) -> Self {
        Self { problem: problem.to_string(), is_passing: false }
    }
}

impl From<NotifyError> for SendError {
    /// A file that was good at the start: whoever changed it may change it back.
    fn from(error: NotifyError) -> Self {
        Self::passing(error)
    }
}

/// How often a message is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempts: u32,
    /// Pause behind the first attempt; each further one is twice as long.
    pub(super) first_pause: Duration,
}

impl Default for Patience {
    /// Given up after 5 attempts and 15 s of pauses.
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_secs(1) }
    }
}

/// The running thread of a channel. Dropped, it sends what waits, each once, and ends.
pub(super) struct Sender {
    kind: NotifyChannel,
    metrics: Arc<Metrics>,
    queue: Arc<Queue<Arc<Message>>>,
}

impl Sender {
    /// Starts the thread; it holds `alive` as long as it runs.
    pub(super) fn start(
        kind: NotifyChannel,
        channel: Box<dyn Channel>,
        patience: Patience,
        metrics: &Arc<Metrics>,
        alive: crossbeam_channel::Sender<()>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::<Arc<Message>>::new(WAITING_MAX));
        let (waiting, counts) = (Arc::clone(&queue), Arc::clone(metrics));
        let work = move || {
            let _alive = alive;
            while let Some(message) = waiting.pop() {
                let outcome = deliver(&*channel, &message, patience, |pause| waiting.rest(pause));
                counts.notified(kind, outcome);
            }
        };
        std::thread::Builder::new().name(format!("notify-{}", kind.name())).spawn(work)?;
        Ok(Self { kind, metrics: Arc::clone(metrics), queue })
    }

    /// Hands a message over. Never waits.
    pub(super) fn push(&self, message: &Arc<Message>) {
        if let Some(dropped) = self.queue.push(Arc::clone(message)) {
            self.metrics.notified(self.kind, NotifyOutcome::Dropped);
            tracing::warn!(
                channel = self.kind.name(),
                title = dropped.title,
                "too many notifications wait: the oldest is dropped"
            );
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Tries until it arrives, or there is no use in it. `rest` says whether there is no time for another attempt.
fn deliver(
    channel: &dyn Channel,
    message: &Message,
    patience: Patience,
    rest: impl Fn(Duration) -> bool,
) -> NotifyOutcome {
    let mut pause = patience.first_pause;
    for attempt in 1..=patience.attempts {
        let error = match channel.send(message) {
            Ok(_) => return NotifyOutcome::Sent,
            Err(error) => error,
        };
        let is_last = attempt == patience.attempts || !error.is_passing || rest(pause);
        if is_last {
            let (target, problem, title) = (channel.target(), error.problem, &message.title);
            tracing::warn!(
                target,
                problem,
                title,
                attempt,
                "a notification could not be sent: see notify.* in the configuration"
            );
            break;
        }
        pause *= 2;
    }
    NotifyOutcome::Failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Fails so many times.
    struct Flaky(AtomicU32, bool);

    impl Channel for Flaky {
        fn target(&self) -> String {
            "nobody".to_owned()
        }

        fn send(&self, _: &Message) -> Result<String, SendError> {
            let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            left.map_or(Ok(String::new()), |_| Err(SendError { problem: "no".to_owned(), is_passing: self.1 }))
        }
    }

    const PATIENCE: Patience = Patience { attempts: 3, first_pause: Duration::from_millis(1) };

    #[test]
    fn a_message_is_tried_a_few_times_with_longer_and_longer_pauses() {
        let pauses = std::cell::RefCell::new(Vec::new());
        let rest = |pause| {
            pauses.borrow_mut().push(pause);
            false
        };
        let deliver =
            |fails, is_passing| deliver(&Flaky(AtomicU32::new(fails), is_passing), &Message::test(""), PATIENCE, rest);
        assert_eq!(deliver(2, true), NotifyOutcome::Sent);
        assert_eq!(pauses.take(), [Duration::from_millis(1), Duration::from_millis(2)]);
        assert_eq!(deliver(3, true), NotifyOutcome::Failed);
        assert_eq!(pauses.take().len(), 2);
        assert_eq!(deliver(1, false), NotifyOutcome::Failed);
        assert!(pauses.take().is_empty(), "what is refused for good is not tried again");
    }

    #[test]
    fn at_the_end_each_message_is_tried_once_more_and_the_thread_ends() {
        let metrics = Arc::new(Metrics::new());
        let (alive, ended) = crossbeam_channel::bounded(0);
        let patience = Patience { attempts: 3, first_pause: Duration::from_secs(3600) };
        let channel = Box::new(Flaky(AtomicU32::new(1), true));
        let sender = Sender::start(NotifyChannel::Webhook, channel, patience, &metrics, alive).expect("started");
        sender.push(&Arc::new(Message::test("")));
        sender.push(&Arc::new(Message::test("")));
        drop(sender);
        let end = ended.recv_timeout(Duration::from_secs(30));
        assert_eq!(end, Err(crossbeam_channel::RecvTimeoutError::Disconnected));
        let page = metrics.render();
        for line in [
            "tilecatcher_notifications_sent_total{channel=\"webhook\"} 1",
            "tilecatcher_notifications_failed_total{channel=\"webhook\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
        }
    }
}
