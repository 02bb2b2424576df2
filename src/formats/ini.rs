//! INI as microscope software writes it: `key = value` up to the first `=`, values perhaps quoted.
//!
//! Our own reader, because no crate gives the line of an error, keeps `;` and backslashes inside values, and compares
//! sections with case but keys without.

use super::FormatError;
use std::collections::HashMap;

/// A parsed INI file.
#[derive(Debug, Default)]
pub(super) struct Ini {
    values: HashMap<(String, String), String>,
}

impl Ini {
    /// Parses text; a byte order mark and either kind of line end are fine.
    pub(super) fn parse(text: &str) -> Result<Self, FormatError> {
        let mut ini = Self::default();
        let mut section = String::new();
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let wrong =
                |problem: &str| FormatError::Line { line: n + 1, problem: format!("{problem}: {}", shorten(line)) };
            if let Some(name) = line.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(|| wrong("a section without its closing bracket"))?;
                name.trim().clone_into(&mut section);
            } else {
                let (key, value) = line.split_once('=').ok_or_else(|| wrong("neither a section nor key = value"))?;
                let key = key.trim().to_lowercase();
                ini.values.insert((section.clone(), key), unquote(value.trim()).to_owned());
            }
        }
        Ok(ini)
    }

    /// The value of a key; the section counts case, the key does not.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.values.get(&(section.to_owned(), key.to_lowercase())).map(String::as_str)
    }
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value)
}

fn shorten(line: &str) -> String {
    if line.chars().count() <= 60 { line.to_owned() } else { line.chars().take(60).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ignore_case_sections_do_not_and_values_keep_what_they_hold() {
        let text = "\u{feff}; a comment\r\n[General]\r\nNotes = \"a;b = c\\0Ad\"\r\n# more\r\n[general]\r\nnotes=x";
        let ini = Ini::parse(text).expect("good");
        assert_eq!(ini.get("General", "NOTES"), Some("a;b = c\\0Ad"));
        assert_eq!(ini.get("general", "Notes"), Some("x"));
        assert_eq!(ini.get("GENERAL", "Notes"), None);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let error = Ini::parse("[a]\n\nno equals sign\n").expect_err("bad");
        assert_eq!(error.to_string(), "line 3: neither a section nor key = value: no equals sign");
        assert!(Ini::parse("[a\n").is_err());
    }
}
