//! Where a daemon's configuration comes from: a file, the environment, flags.

use crate::config::{ConfigError, Settings};
use clap::Args;
use std::path::PathBuf;

/// Where the configuration comes from.
#[derive(Args, Clone, Default)]
pub(super) struct ConfigArgs {
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Data directory (storage.data)
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<String>,
    /// Capture port (capture.address); port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    pub(super) capture: Option<String>,
    /// HTTP port (http.address); port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    pub(super) http: Option<String>,
    /// Any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

impl ConfigArgs {
    pub(super) fn load(&self) -> Result<Settings, ConfigError> {
        let mut flags = Vec::new();
        let named = [
            ("--data", "storage.data", &self.data),
            ("--capture", "capture.address", &self.capture),
            ("--http", "http.address", &self.http),
        ];
        for (flag, key, value) in named {
            flags.extend(value.iter().map(|value| (flag.to_owned(), key.to_owned(), value.clone())));
        }
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                let problem = format!("\"{assignment}\" is not KEY=VALUE");
                return Err(ConfigError { origin: "flag --set".to_owned(), problem });
            };
            flags.push(("--set".to_owned(), key.trim().to_owned(), value.trim().to_owned()));
        }
        Settings::load(self.config.as_deref(), std::env::vars(), &flags)
    }
}
