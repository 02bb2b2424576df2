//! A configuration file to start from: every key with its meaning, defaults commented out.

use super::{Origin, Settings, environment_variable, temca_tables};
use std::fmt::Write;

const HEAD: &str = "\
# Configuration of the tilecatcher daemon. Lines that are commented out show the defaults.
#
# Variables TILECATCHER_* (such as TILECATCHER_STORAGE_DATA) and flags override this file. `tilecatcher config --config FILE`
# says what is in force, and why; an unknown key or a bad value stops the start with its name. Sizes and times carry a unit.
";

const TEMCA: &str = "
# A TEMCA is told by the IP address in an acquisition's log; sizes of its cameras' images are in pixels.
#[temca.1]
#tem_ip_address = \"192.0.2.7\"
#cameras = [{ camera = 0, width = 2560, height = 2160 }, { camera = 1, width = 2560, height = 2160 }]
";

/// The text of a file that sets what `settings` sets, and shows all else.
#[must_use]
pub fn template(settings: &Settings) -> String {
    let (mut text, mut table) = (HEAD.to_owned(), "");
    for (key, value, origin) in settings.iter() {
        let (this, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if this != table {
            _ = writeln!(text, "\n[{this}]");
            table = this;
        }
        let mark = if *origin == Origin::Default { "#" } else { "" };
        let variable = environment_variable(key);
        _ = writeln!(text, "# {} ({}; {variable})\n{mark}{name} = {}", key.about, key.unit, toml::Value::from(value));
    }
    match settings.config.temcas.as_slice() {
        [] => text + TEMCA,
        temcas => format!("{text}\n{}", temca_tables(temcas)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn load(text: &str) -> Settings {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Settings::load(Some(file.path()), [], &[]).expect("a good file")
    }

    fn values(settings: &Settings) -> BTreeMap<&str, &str> {
        settings.iter().map(|(key, value, _)| (key.name, value)).collect()
    }

    #[test]
    fn the_template_sets_nothing_and_without_its_marks_every_key_to_its_default() {
        let defaults = Settings::load(None, [], &[]).expect("defaults");
        let text = template(&defaults);
        assert!(load(&text).iter().all(|(_, _, origin)| *origin == Origin::Default));
        let live: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let live = load(&live);
        assert!(live.iter().all(|(_, _, origin)| matches!(origin, Origin::File(_))), "a key is missing");
        assert_eq!(values(&live), values(&defaults));
        assert_eq!(live.config.temcas.len(), 1, "the example of a TEMCA");
    }

    #[test]
    fn what_is_set_stands_in_the_template_as_it_is_set() {
        let flags = [("--data".to_owned(), "storage.data".to_owned(), "/var/lib/tilecatcher".to_owned())];
        let text = template(&Settings::load(None, [], &flags).expect("good"));
        let live = load(&text);
        let set: Vec<&str> =
            live.iter().filter(|(_, _, origin)| **origin != Origin::Default).map(|(key, ..)| key.name).collect();
        assert_eq!(set, ["storage.data"]);
        assert_eq!(values(&live)["storage.data"], "/var/lib/tilecatcher");
    }
}
