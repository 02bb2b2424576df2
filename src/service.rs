//! The service manager's side of the daemon: listeners that it holds, readiness, the watchdog. The only place that
//! imports `listenfd` and `sd_notify`.
//!
//! A listener that is inherited outlives the process, so a restart refuses no connection: clients wait in the listener's
//! queue meanwhile. Without a service manager nothing here does anything. Must never fail a start because the manager does
//! not listen.

use crate::base::life::Life;
use crate::base::stop::Stop;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// The name of the capture listener (`FileDescriptorName=` of its socket unit).
const CAPTURE: &str = "capture";
/// The name of the HTTP listener.
const HTTP: &str = "http";
/// The name of the capture listener for encrypted connections.
const CAPTURE_TLS: &str = "capture-tls";
/// Pause between two lines for `systemctl status`.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Without names: the order of listeners.
const ORDER: [&str; 3] = [CAPTURE, HTTP, CAPTURE_TLS];

/// Listeners that somebody else opened; what is `None` the daemon opens itself.
#[derive(Debug, Default)]
pub struct Ports {
    /// For senders.
    pub capture: Option<TcpListener>,
    /// For HTTP.
    pub http: Option<TcpListener>,
    /// For senders that encrypt.
    pub capture_tls: Option<TcpListener>,
}

/// Listeners were handed over that the daemon can not use.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// It is none, or not for TCP.
    #[error("inherited listener {name}: {source}; ListenStream= takes IP:PORT")]
    NotTcp {
        /// Its name, by the manager or by its place.
        name: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Nobody knows what it is for.
    #[error(
        "inherited listener {0}: unknown; FileDescriptorName= is capture, http or capture-tls, without names they come in this order"
    )]
    Unknown(String),
    /// Two for one purpose.
    #[error("two inherited listeners for {0}: pass one")]
    Twice(&'static str),
}

impl Ports {
    /// Takes over what LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES tell of. To be called once, before any thread is started:
    /// it takes the first two out of the environment.
    ///
    /// # Errors
    /// A listener is none, or one that the daemon has no use for.
    pub fn inherited() -> Result<Self, PortsError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut inherited = ListenFd::from_env();
        let mut ports = Self::default();
        for (n, purpose) in purposes(&names, inherited.len())?.into_iter().enumerate() {
            let not_tcp = |source| PortsError::NotTcp { name: purpose.to_owned(), source };
            let listener = inherited.take_tcp_listener(n).map_err(not_tcp)?;
            let place = match purpose {
                CAPTURE => &mut ports.capture,
                HTTP => &mut ports.http,
                _ => &mut ports.capture_tls,
            };
            if place.is_some() {
                return Err(PortsError::Twice(purpose));
            }
            *place = listener;
        }
        Ok(ports)
    }

    /// True when there is a listener that outlives this process.
    #[must_use]
    pub fn any(&self) -> bool {
        self.capture.is_some() || self.http.is_some() || self.capture_tls.is_some()
    }
}

/// What each of `count` listeners is for, by `names` (separated by colons) if the daemon knows one of them, else by order.
fn purposes(names: &str, count: usize) -> Result<Vec<&'static str>, PortsError> {
    let known = |name: &str| ORDER.into_iter().find(|known| *known == name);
    let names: Vec<&str> = names.split(':').collect();
    let named = names.iter().any(|name| known(name).is_some());
    let purpose = |n: usize| {
        let name = if named { names.get(n).copied().unwrap_or_default() } else { "" };
        let found = if named { known(name) } else { ORDER.get(n).copied() };
        found
            .ok_or_else(|| PortsError::Unknown(if named { format!("\"{name}\"") } else { format!("number {}", n + 1) }))
    };
    (0..count).map(purpose).collect()
}

/// Tells the service manager that tiles are accepted.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells the service manager that the daemon ends.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the service manager how the daemon is, for people to read.
pub fn notify_status(line: &str) {
    notify(&[NotifyState::Status(line)]);
}

/// Reads settings again between telling the service manager that this begins and that it is done.
pub fn reload(read_again: impl FnOnce()) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    read_again();
    notify_ready();
}

/// If there is a service manager, tells it every few seconds how the daemon is, when that has changed, until the stop.
///
/// # Errors
/// The thread can not be started.
pub fn start_status(mut line: impl FnMut() -> String + Send + 'static, stop: Stop) -> std::io::Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let tell = move || {
        let mut told = String::new();
        while stop.wait_for(STATUS_EVERY).is_none() {
            let line = line();
            if line != told {
                notify_status(&line);
                told = line;
            }
        }
    };
    std::thread::Builder::new().name("status".into()).spawn(tell).map(drop)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told about a change of state (NOTIFY_SOCKET)");
    }
}

/// If the service manager wants signs of life, gives them as long as no thread is stuck, until the stop.
///
/// # Errors
/// The thread can not be started.
pub fn start_watchdog(life: Arc<Life>, stop: Stop) -> std::io::Result<()> {
    let Some(patience) = sd_notify::watchdog_enabled() else { return Ok(()) };
    std::thread::Builder::new().name("watchdog".into()).spawn(move || watch(&life, &stop, patience))?;
    Ok(())
}

/// Several signs within the manager's patience; a thread is stuck when it has not moved for half of that.
fn watch(life: &Life, stop: &Stop, patience: Duration) {
    while stop.wait_for(patience / 4).is_none() {
        match life.stuck(patience / 2) {
            None => notify(&[NotifyState::Watchdog]),
            Some(thread) => {
                tracing::error!(
                    thread,
                    "a thread is stuck: the service manager gets no sign of life, and will end this process"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_by_name_in_any_order() {
        assert_eq!(purposes("http:capture", 2).expect("good"), [HTTP, CAPTURE]);
        assert_eq!(purposes("http", 1).expect("good"), [HTTP]);
        assert_eq!(purposes("capture-tls:http", 2).expect("good"), [CAPTURE_TLS, HTTP]);
        assert_eq!(purposes("", 0).expect("good"), [""; 0]);
    }

    #[test]
    fn without_names_of_ours_the_order_decides() {
        for names in ["", "unknown:unknown", "tilecatcher.socket:tilecatcher.socket"] {
            assert_eq!(purposes(names, 2).expect("good"), [CAPTURE, HTTP]);
        }
        assert_eq!(purposes("", 1).expect("good"), [CAPTURE]);
    }

    #[test]
    fn a_listener_without_a_purpose_is_an_error_that_names_it() {
        let error = |names, count| purposes(names, count).expect_err("no purpose").to_string();
        assert!(error("capture:metrics", 2).contains("\"metrics\""));
        assert!(error("capture", 2).contains("\"\""));
        assert!(error("", 4).contains("number 4"));
    }
}
