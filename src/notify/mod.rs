//! Notifications: tells people what they would want to be woken for, by webhook and by e-mail.
//!
//! ```text
//!  catalog --(looked at once a second)--> watcher --> repeats --> queue of a channel --> its thread --> webhook
//!     endings, damage, disk, mirror       thread                  (bounded)          \-> its thread --> SMTP server
//! ```
//!
//! Owns three threads at most, all away from the way of a tile: nothing ever waits for a message, and a server that is dead
//! costs messages, which are counted, and nothing else. Bounded everywhere: each queue drops its oldest message, each
//! message is tried a few times. Nothing is kept over a restart: what holds then is told anew, and what had not left is lost.
//!
//! The only place that imports `lettre` and `hmac`; `ureq` only [`crate::client`] and [`crate::tls`] import, too. Must never do
//! anything on the threads of ingest, lanes or HTTP, and never put a secret into a message or a log line.

mod channel;
#[cfg(all(test, feature = "tls"))]
mod encrypted_tests;
#[cfg(feature = "mail")]
mod mail;
mod message;
mod news;
mod options;
mod queue;
mod repeats;
mod secret;
mod watcher;
mod webhook;

pub use channel::Channel;
pub use message::{Kind, Message, State};
pub use options::{MailOptions, MailSecurity, NotifyOptions, WebhookOptions};
pub use webhook::signature;

use crate::catalog::Catalog;
use crate::telemetry::NotifyChannel;
use channel::{Patience, Sender};
use crossbeam_channel::{Receiver, bounded};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use watcher::Watcher;

/// Pause between two looks at the catalog.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that may wait for one channel.
const WAITING_MAX: usize = 64;

/// A channel that can not work as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct NotifyError {
    /// The key of the configuration.
    pub key: &'static str,
    /// What is wrong, and what would help.
    pub problem: String,
}

impl NotifyError {
    fn new(key: &'static str, problem: impl ToString) -> Self {
        Self { key, problem: problem.to_string() }
    }
}

/// The channels that the configuration names, ready to send.
pub struct Channels {
    options: NotifyOptions,
    all: Vec<(NotifyChannel, Box<dyn Channel>)>,
}

impl Channels {
    /// Reads the files that the channels need.
    ///
    /// # Errors
    /// A channel can not work as it is configured.
    pub fn load(options: &NotifyOptions) -> Result<Self, NotifyError> {
        let mut all: Vec<(NotifyChannel, Box<dyn Channel>)> = Vec::new();
        if let Some(webhook) = &options.webhook {
            all.push((NotifyChannel::Webhook, Box::new(webhook::Webhook::load(webhook, &options.ca)?)));
        }
        if let Some(mail) = &options.mail {
            all.push((NotifyChannel::Mail, load_mail(mail, &options.ca)?));
        }
        Ok(Self { options: options.clone(), all })
    }

    /// True when nobody is told anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Sends one message to every channel, once, and says for each what came of it.
    pub fn test<'a>(&'a self, message: &'a Message) -> impl Iterator<Item = (String, Result<String, String>)> + 'a {
        self.all.iter().map(|(_, channel)| (channel.target(), channel.send(message).map_err(|error| error.problem)))
    }
}

#[cfg(feature = "mail")]
fn load_mail(options: &MailOptions, ca: &Path) -> Result<Box<dyn Channel>, NotifyError> {
    Ok(Box::new(mail::Mail::load(options, ca)?))
}

#[cfg(not(feature = "mail"))]
fn load_mail(_: &MailOptions, _: &Path) -> Result<Box<dyn Channel>, NotifyError> {
    Err(NotifyError::new("notify.mail_server", "this program was built without e-mail (feature mail): leave it empty"))
}

/// The running notifier.
pub struct Notifier {
    look: crossbeam_channel::Sender<()>,
    /// Disconnected when all threads have ended.
    ended: Receiver<()>,
}

impl Notifier {
    /// Starts watching the catalog; does nothing when no channel is configured.
    ///
    /// # Errors
    /// A thread can not be started.
    pub fn start(channels: Channels, catalog: &Arc<Catalog>, data: &Path) -> std::io::Result<Self> {
        let (look, looks) = bounded(1);
        let (alive, ended) = bounded::<()>(0);
        if channels.is_empty() {
            return Ok(Self { look, ended });
        }
        let Channels { options, all } = channels;
        let mut senders = Vec::new();
        for (kind, channel) in all {
            senders.push(Sender::start(kind, channel, Patience::default(), catalog.metrics(), alive.clone())?);
        }
        let mut watcher = Watcher::new(options, Arc::clone(catalog), data, senders);
        let watch = move || {
            let _alive = alive;
            watcher.look();
            // Asked to look: at once. Not asked: after a while. Nobody left to ask: a last time.
            while !matches!(looks.recv_timeout(LOOK), Err(crossbeam_channel::RecvTimeoutError::Disconnected)) {
                watcher.look();
            }
            watcher.look();
        };
        std::thread::Builder::new().name("notify".into()).spawn(watch)?;
        Ok(Self { look, ended })
    }

    /// Has it look now instead of within a second: what stops the daemon is told while it stops.
    pub fn look_now(&self) {
        let _ = self.look.try_send(());
    }

    /// Has it look a last time, and waits within `limit` for what is to be sent.
    pub fn stop(self, limit: Duration) {
        drop(self.look);
        let until = Instant::now() + limit;
        if self.ended.recv_deadline(until) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            tracing::warn!("notifications that had not left yet are lost: their server did not answer in time");
        }
    }
}
