//! Configuration: a TOML file, overridden by TILECATCHER_* variables, overridden by flags.
//!
//! One table of keys (`keys.rs`) says everything: name, unit, default, meaning, where the value goes. An unknown
//! key is an error wherever it stands. Sizes and times carry their unit.

mod keys;

pub use keys::{Config, Key};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

/// A configuration that can not be used; the message names the key, its origin and the remedy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// Where the wrong value stands.
    pub origin: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The effective configuration with the origin of each value.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, Origin)>,
    /// The values, read.
    pub config: Config,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

const ENVIRONMENT_PREFIX: &str = "TILECATCHER_";

impl Settings {
    /// Layers the file, then `environment`, then `flags` (flag name, key, value) over the defaults.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, a value that its key can not take.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String, String)],
    ) -> Result<Self, ConfigError> {
        let defaults = keys::KEYS.iter().map(|key| (key.name, (key.default.to_owned(), Origin::Default)));
        let mut settings = Self { values: defaults.collect(), config: Config::default() };
        if let Some(path) = file {
            settings.add_file(path)?;
        }
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let dotted = keys::KEYS.iter().find(|known| environment_name(known.name) == key);
                let origin = Origin::Environment(name.clone());
                settings.set(dotted.map_or(key, |known| known.name), &value, origin)?;
            }
        }
        for (flag, key, value) in flags {
            settings.set(key, value, Origin::Flag(flag.clone()))?;
        }
        settings.read_all()?;
        Ok(settings)
    }

    /// Each key in the table's order, with its value and where that comes from.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &str, &Origin)> {
        keys::KEYS.iter().map(|key| {
            let (value, origin) = &self.values[key.name];
            (key, value.as_str(), origin)
        })
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_owned());
        let error = |problem: String| ConfigError { origin: origin.to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        let table: toml::Table = text.parse().map_err(|source: toml::de::Error| error(source.to_string()))?;
        let mut values = Vec::new();
        flatten("", &table, &mut values);
        for (key, value) in values {
            self.set(&key, &value, origin.clone())?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let Some(known) = keys::KEYS.iter().find(|known| known.name == key) else {
            let problem = format!("unknown key {key}; `tilecatcher config` lists all keys");
            return Err(ConfigError { origin: origin.to_string(), problem });
        };
        self.values.insert(known.name, (value.to_owned(), origin));
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), ConfigError> {
        for key in keys::KEYS {
            let (value, origin) = &self.values[key.name];
            (key.put)(&mut self.config, value).map_err(|problem| ConfigError {
                origin: origin.to_string(),
                problem: format!("{}: {problem}", key.name),
            })?;
        }
        self.config.check().map_err(|problem| ConfigError { origin: "configuration".to_owned(), problem })
    }
}

/// A key's environment variable, without the prefix: upper case, dots become underscores.
fn environment_name(key: &str) -> String {
    key.to_uppercase().replace('.', "_")
}

/// A key's environment variable.
#[must_use]
pub fn environment_variable(key: &Key) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", environment_name(key.name))
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, out),
            toml::Value::String(text) => out.push((key, text.clone())),
            other => out.push((key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AckLevel;

    fn flag(key: &str, value: &str) -> (String, String, String) {
        ("--set".to_owned(), key.to_owned(), value.to_owned())
    }

    #[test]
    fn defaults_are_valid_and_every_key_is_listed() {
        let settings = Settings::load(None, [], &[]).expect("defaults");
        assert_eq!(settings.iter().count(), keys::KEYS.len());
        assert!(settings.iter().all(|(_, _, origin)| *origin == Origin::Default));
        assert_eq!(settings.config.catalog.lanes.ack, AckLevel::Durable);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a.toml");
        std::fs::write(&file, "[storage]\nack = \"received\"\nlanes = 3\n[memory]\nbuffers = \"128MiB\"\n")
            .expect("write");
        let environment = [("TILECATCHER_STORAGE_ACK".to_owned(), "written".to_owned())];
        let flags = [flag("storage.lanes", "2")];
        let settings = Settings::load(Some(&file), environment, &flags).expect("good values");
        assert_eq!(settings.config.catalog.lanes.ack, AckLevel::Written);
        assert_eq!(settings.config.catalog.lanes.lanes, 2);
        assert_eq!(settings.config.catalog.memory_bytes, 128 << 20);
        let origins: Vec<String> = settings.iter().map(|(_, _, origin)| origin.to_string()).collect();
        assert!(origins.iter().any(|origin| origin == "environment TILECATCHER_STORAGE_ACK"), "{origins:?}");
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named_with_their_origin() {
        let unknown =
            Settings::load(None, [("TILECATCHER_NONSENSE".to_owned(), "1".to_owned())], &[]).expect_err("unknown");
        assert!(unknown.to_string().contains("TILECATCHER_NONSENSE"), "{unknown}");
        let bad = Settings::load(None, [], &[flag("memory.buffers", "lots")]).expect_err("bad value");
        assert!(bad.to_string().contains("memory.buffers") && bad.to_string().contains("lots"), "{bad}");
        let small = Settings::load(None, [], &[flag("memory.buffers", "1MiB")]).expect_err("too small");
        assert!(small.to_string().contains("memory.buffers"), "{small}");
    }
}
