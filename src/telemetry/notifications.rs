//! Counts of notifications, by channel and by what came of them.

use prometheus::{IntCounter, IntCounterVec};

/// By which way people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyChannel {
    /// HTTP POST.
    Webhook,
    /// E-mail.
    Mail,
}

/// What came of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// The other side took it.
    Sent,
    /// It was given up.
    Failed,
    /// There was no room for it to wait.
    Dropped,
}

impl NotifyChannel {
    const ALL: [NotifyChannel; 2] = [Self::Webhook, Self::Mail];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }
}

/// A counter for each outcome and channel, in the order of the enums.
pub(super) struct NotificationCounts([[IntCounter; 2]; 3]);

impl NotificationCounts {
    /// `make` registers counters by channel, given a name and an explanation.
    pub(super) fn new(make: impl Fn(&str, &str) -> IntCounterVec) -> Self {
        let by_channel =
            |counters: IntCounterVec| NotifyChannel::ALL.map(|channel| counters.with_label_values(&[channel.name()]));
        Self([
            by_channel(make("notifications_sent_total", "Notifications that the other side took")),
            by_channel(make("notifications_failed_total", "Notifications that were given up after all attempts")),
            by_channel(make("notifications_dropped_total", "Notifications for which there was no room to wait")),
        ])
    }

    pub(super) fn count(&self, channel: NotifyChannel, outcome: NotifyOutcome) {
        self.0[outcome as usize][channel as usize].inc();
    }
}
