//! Logs on stderr: text for people, JSON for collectors, and for systemd's journal what it does not know itself. Level = what the operator must do about it.

use super::warnings::KeepWarnings;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// The least severe events that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("\"{other}\" is no log format: text or json")),
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" | "warn" | "info" | "debug" | "trace" | "off" => {
                text.parse().map(LogLevel).map_err(|_| format!("\"{text}\" is no log level"))
            }
            other => Err(format!("\"{other}\" is no log level: off, error, warn, info, debug or trace")),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The level now, and what changes it. Empty until logging is started.
static LEVEL: Mutex<Option<(LogLevel, SetFilter)>> = Mutex::new(None);

type SetFilter = Box<dyn Fn(Targets) -> Result<(), tracing_subscriber::reload::Error> + Send>;

/// The level at which is logged now; `None`: nothing is logged by this program.
#[must_use]
pub fn log_level() -> Option<LogLevel> {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(level, _)| *level)
}

/// Logs from this level on. Returns the level before; `None`: nothing is logged by this program.
pub fn set_log_level(level: LogLevel) -> Option<LogLevel> {
    let mut held = LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, set) = held.as_mut()?;
    set(filter(level)).ok()?;
    Some(std::mem::replace(now, level))
}

fn filter(level: LogLevel) -> Targets {
    Targets::new().with_default(level.0.min(LevelFilter::WARN)).with_target("tilecatcher", level.0)
}

/// Starts logging to stderr. Once a process; a second call changes nothing.
///
/// The level holds for this program's events; the crates under it are heard from warnings on. Warnings are kept for the live
/// view whatever the level.
pub fn start_logging(format: LogFormat, level: LogLevel) {
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let journal = super::journald::is_connected();
    let kept = tracing_subscriber::registry().with(KeepWarnings.with_filter(LevelFilter::WARN));
    let started = match format {
        LogFormat::Text if journal => {
            let lines = lines.without_time().with_level(false).with_ansi(false).with_writer(super::journald::Journal);
            kept.with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Json if journal => {
            let lines = lines.json().with_writer(super::journald::Journal);
            kept.with(lines.with_filter(filter)).try_init()
        }
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            kept.with(lines.with_ansi(ansi).with_filter(filter)).try_init()
        }
        LogFormat::Json => kept.with(lines.json().with_filter(filter)).try_init(),
    };
    if started.is_ok() {
        let set: SetFilter = Box::new(move |filter| handle.reload(filter));
        *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = Some((level, set));
    }
}
