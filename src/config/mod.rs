//! Configuration: a TOML file, overridden by TILECATCHER_* variables, overridden by flags.
//!
//! One table of keys (`keys.rs`) says everything: name, unit, default, meaning, where the value goes. An unknown
//! key is an error wherever it stands. Sizes and times carry their unit.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod template;

pub use keys::{Config, Key};
pub use template::template;

use crate::model::Temca;
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
        let mut settings = Self::defaults();
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

    fn defaults() -> Self {
        let defaults = keys::KEYS.iter().map(|key| (key.name, (key.default.to_owned(), Origin::Default)));
        Self { values: defaults.collect(), config: Config::default() }
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
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError { origin: origin.to_string(), problem: source.to_string() })?;
        self.add_text(&text, &origin)
    }

    fn add_text(&mut self, text: &str, origin: &Origin) -> Result<(), ConfigError> {
        let error = |problem: String| ConfigError { origin: origin.to_string(), problem };
        let table: toml::Table = text.parse().map_err(|source: toml::de::Error| error(source.to_string()))?;
        let mut table = table;
        if let Some(temcas) = table.remove(TEMCA_TABLE) {
            self.config.temcas = read_temcas(temcas).map_err(error)?;
            self.config.http.fixed_temcas = self.config.temcas.iter().map(|temca| temca.id).collect();
        }
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
            self.config.origins.insert(key.name, origin.to_string());
        }
        let settled = self.config.notify.settle();
        settled
            .and_then(|()| self.config.check())
            .map_err(|problem| ConfigError { origin: "configuration".to_owned(), problem })
    }
}

/// All keys: what each means and what it is when nobody sets it.
#[must_use]
pub fn all_keys() -> &'static [Key] {
    keys::KEYS
}

/// Tables that describe TEMCAs: `[temca.N]`, with N above 0.
const TEMCA_TABLE: &str = "temca";

fn read_temcas(tables: toml::Value) -> Result<Vec<Temca>, String> {
    let toml::Value::Table(tables) = tables else { return Err(format!("{TEMCA_TABLE}: tables [temca.N] only")) };
    let read = |(name, table): (String, toml::Value)| {
        let id: u32 = name.parse().map_err(|_| format!("temca.{name}: the name of the table is the TEMCA's number"))?;
        let toml::Value::Table(mut table) = table else { return Err(format!("temca.{name} is no table")) };
        table.insert("id".to_owned(), toml::Value::Integer(id.into()));
        let temca: Temca = table.try_into().map_err(|error| format!("temca.{name}: {error}"))?;
        temca.problem().map_or(Ok(temca), |problem| Err(format!("temca.{name}: {problem}")))
    };
    tables.into_iter().map(read).collect()
}

/// The tables of TEMCAs, as a file has them.
#[must_use]
pub fn temca_tables(temcas: &[Temca]) -> String {
    let table = |temca: &Temca| {
        let mut table = toml::Table::try_from(temca).unwrap_or_default();
        table.remove("id");
        (temca.id.to_string(), toml::Value::Table(table))
    };
    let tables: toml::Table = temcas.iter().map(table).collect();
    let all: toml::Table = [(TEMCA_TABLE.to_owned(), toml::Value::Table(tables))].into_iter().collect();
    if temcas.is_empty() { String::new() } else { all.to_string() }
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
    fn temcas_are_read_from_the_file_and_written_as_they_are_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("a.toml");
        let load = |text: &str| {
            std::fs::write(&file, text).expect("write");
            Settings::load(Some(&file), [], &[])
        };
        let text =
            "[temca.2]\ntem_ip_address = \"192.0.2.7\"\n[[temca.2.cameras]]\ncamera = 0\nwidth = 2560\nheight = 2160\n";
        let temcas = load(text).expect("good").config.temcas;
        assert_eq!((temcas[0].id, temcas[0].camera(0).and_then(|camera| camera.width)), (2, Some(2560)));
        assert_eq!(load(&temca_tables(&temcas)).expect("good").config.temcas, temcas);
        for (bad, hint) in [
            ("[temca.x]\ntem_ip_address = \"\"\n", "temca.x"),
            ("[temca.0]\ntem_ip_address = \"\"\n", "above 0"),
            ("[temca.1]\naddress = \"\"\n", "address"),
            ("temca = 5\n", "[temca.N]"),
        ] {
            let error = load(bad).expect_err("bad").to_string();
            assert!(error.contains(hint), "{error}");
        }
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
