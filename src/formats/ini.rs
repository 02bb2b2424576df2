//! INI text as the microscope's software writes it, read into values by (section, key).
//!
//! Owns the rules of lines, quotes and case; must never interpret a value: backslashes, `;` and further `=` in it
//! stay as they are.

use super::{FormatError, excerpt};
use std::collections::HashMap;

/// The values of an INI file; of a key given twice in one section the last counts.
#[derive(Debug, Default)]
pub(super) struct Ini {
    /// Section -> key in lower case -> entry.
    sections: HashMap<String, HashMap<String, Entry>>,
}

/// A key with its value, and where they stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As written.
    pub(super) key: String,
    /// Without the quotes around it.
    pub(super) value: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// What one line says.
enum Line<'a> {
    Nothing,
    Section(&'a str),
    Value { key: &'a str, value: &'a str },
}

impl Ini {
    /// Reads a whole file; bytes that are no UTF-8 are replaced, a byte order mark is passed over.
    ///
    /// # Errors
    /// The first line that is neither blank, comment, `[section]` nor `key = value`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut ini = Self::default();
        let mut current = String::new();
        for (line, number) in text.lines().zip(1..) {
            let read = Line::read(line.trim()).map_err(|problem| FormatError::Line { line: number, problem })?;
            match read {
                Line::Nothing => {}
                Line::Section(name) => name.clone_into(&mut current),
                Line::Value { key, value } => {
                    let section = ini.sections.entry(current.clone()).or_default();
                    let entry = Entry { key: key.to_owned(), value: value.to_owned(), line: number };
                    section.insert(key.to_lowercase(), entry);
                }
            }
        }
        Ok(ini)
    }

    /// The value of `key` in `section`: sections are compared with case, keys without.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(&key.to_lowercase()).map(|entry| entry.value.as_str())
    }

    /// All that `section` holds, in the order of the lines; empty without such a section.
    pub(super) fn entries(&self, section: &str) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.sections.get(section).into_iter().flat_map(HashMap::values).collect();
        entries.sort_unstable_by_key(|entry| entry.line);
        entries
    }
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Result<Self, String> {
        if line.is_empty() || line.starts_with([';', '#']) {
            return Ok(Self::Nothing);
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| format!("no closing bracket in \"{}\"", excerpt(line)))?;
            return Ok(Self::Section(name.trim()));
        }
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if !key.is_empty() => Ok(Self::Value { key, value: unquoted(value) }),
            _ => Err(format!("neither [section] nor key = value: \"{}\"", excerpt(line))),
        }
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ini(text: &str) -> Ini {
        Ini::parse(text.as_bytes()).expect("a good file")
    }

    fn error(text: &str) -> String {
        Ini::parse(text.as_bytes()).expect_err("a bad line").to_string()
    }

    #[test]
    fn keys_are_compared_without_case_and_sections_with_it() {
        let ini = ini("[Main]\nFirst Key = 1\n[MAIN]\nfirst key = 2\n");
        assert_eq!(ini.get("Main", "FIRST KEY"), Some("1"));
        assert_eq!(ini.get("MAIN", "First Key"), Some("2"));
        assert_eq!(ini.get("main", "First Key"), None);
    }

    #[test]
    fn a_section_is_listed_in_the_order_of_its_lines() {
        let ini = ini("[s]\nB = 1\na = 2\n[t]\nc = 3\n[s]\nb = \"4\"\n");
        let listed: Vec<_> = ini.entries("s").iter().map(|e| (e.key.as_str(), e.value.as_str(), e.line)).collect();
        assert_eq!(listed, [("a", "2", 3), ("b", "4", 7)]);
        assert!(ini.entries("S").is_empty());
    }

    #[test]
    fn values_keep_escapes_semicolons_and_equal_signs() {
        let ini = ini("[s]\na = \"x\\0Ay\"\nb = D:\\new\\tab\nc = \"p;q = r # s\"\nd=1=2;3\ne = \"\"\nf = \"\ng =\n");
        let values = ["a", "b", "c", "d", "e", "f", "g"].map(|key| ini.get("s", key).expect("a value"));
        assert_eq!(values, ["x\\0Ay", "D:\\new\\tab", "p;q = r # s", "1=2;3", "", "\"", ""]);
    }

    #[test]
    fn comments_blank_lines_byte_order_mark_and_carriage_returns_are_passed_over() {
        let ini = ini("\u{feff}[s]\r\n\r\n; c = 1\r\n  # d = 2\r\n k = v \r\n[ t ]\r\nl = w");
        assert_eq!((ini.get("s", "k"), ini.get("t", "l")), (Some("v"), Some("w")));
        assert_eq!((ini.get("s", "; c"), ini.get("s", "c")), (None, None));
    }

    #[test]
    fn bytes_that_are_no_utf8_do_not_hide_the_rest() {
        let ini = Ini::parse(b"[s]\nunit = 5 \xb5m\nk = v\n").expect("a good file");
        assert_eq!((ini.get("s", "unit"), ini.get("s", "k")), (Some("5 \u{fffd}m"), Some("v")));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        assert_eq!(
            error("[s]\r\n\r\nk = v\r\nnonsense\r\n"),
            "line 4: neither [section] nor key = value: \"nonsense\""
        );
        assert_eq!(error("[s\n"), "line 1: no closing bracket in \"[s\"");
        assert!(error("[s]\n = v\n").starts_with("line 2: "));
        assert!(error(&"x".repeat(10_000)).len() < 150, "a long line is cut in the message");
    }
}
