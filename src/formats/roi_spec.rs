//! The ROI specification (`*_ROI_spec.ini`): which region of interest is which section of the sample.
//!
//! Owns the rule by which a section's name gives its number. Must never take part of a file: one bad region refuses
//! it, for tiles would be filed under the wrong section.

use super::ini::{Entry, Ini};
use super::{FormatError, excerpt};
use std::collections::{BTreeMap, HashSet};

/// The INI section with one `Region N = "<name>"` for each region.
const NUMBERS: &str = "Inclusion Section Numbers";

/// Regions of one file; a mosaic of the field has a handful.
const REGIONS_MAX: usize = 10_000;

/// Longest name of a section: each is in memory, in listings and in addresses.
const NAME_BYTES_MAX: usize = 1 << 10;

/// A region of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoiSection {
    /// The region's number in the file.
    pub region: u32,
    /// The section's name as written, without spaces around it; never empty.
    pub name: String,
    /// Nominal section, not negative: the number after the name's last dot, or the whole name.
    pub section: i64,
}

/// Reads the regions in the order of their numbers; of regions with the same name the first stays.
///
/// # Errors
/// A line that is no INI; no region or above 10 000; a key other than `Region <number>`, or one number under two keys;
/// an empty name, one above 1 KiB, or one that ends in no section number (digits, up to 2^63 - 1).
pub fn parse_roi_spec(bytes: &[u8]) -> Result<Vec<RoiSection>, FormatError> {
    let ini = Ini::parse(bytes)?;
    let entries = ini.entries(NUMBERS);
    if entries.is_empty() || entries.len() > REGIONS_MAX {
        let problem = format!("{} regions in [{NUMBERS}]: not 1 to {REGIONS_MAX}", entries.len());
        return Err(FormatError::Content(problem));
    }
    let mut regions = BTreeMap::new();
    for entry in entries {
        add(&mut regions, entry).map_err(|problem| FormatError::Line { line: entry.line, problem })?;
    }
    let mut names = HashSet::new();
    Ok(regions.into_values().filter(|section| names.insert(section.name.clone())).collect())
}

fn add(regions: &mut BTreeMap<u32, RoiSection>, entry: &Entry) -> Result<(), String> {
    let region = region(&entry.key).ok_or_else(|| format!("\"{}\" is no \"Region <number>\"", excerpt(&entry.key)))?;
    let name = entry.value.trim();
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("\"{}\" is longer than {NAME_BYTES_MAX} bytes", excerpt(name)));
    }
    let section = nominal_section(name).ok_or_else(|| format!("\"{}\" ends in no section number", excerpt(name)))?;
    match regions.insert(region, RoiSection { region, name: name.to_owned(), section }) {
        Some(_) => Err(format!("region {region} is given twice")),
        None => Ok(()),
    }
}

fn region(key: &str) -> Option<u32> {
    let mut words = key.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(word), Some(number), None) if word.eq_ignore_ascii_case("Region") => digits(number)?.parse().ok(),
        _ => None,
    }
}

fn nominal_section(name: &str) -> Option<i64> {
    digits(name.rsplit('.').next()?)?.parse().ok()
}

/// The text when it is nothing but digits: `parse` alone would let a sign pass.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(regions: &str) -> String {
        format!(
            "[General]\nnote = x\n[Inclusion Section Numbers]\n{regions}\n[Inclusion Regions (m)]\nRegion 9 = \"\"\n"
        )
    }

    fn parse(regions: &str) -> Vec<(u32, String, i64)> {
        let sections = parse_roi_spec(spec(regions).as_bytes()).expect("a good file");
        sections.into_iter().map(|s| (s.region, s.name, s.section)).collect()
    }

    fn error(text: &str) -> String {
        parse_roi_spec(text.as_bytes()).expect_err("a bad file").to_string()
    }

    #[test]
    fn the_section_is_the_number_after_the_last_dot() {
        let expected = [("71", 71), (".A.001", 1), ("456.B.123", 123), ("0", 0), ("x.9223372036854775807", i64::MAX)];
        for (name, section) in expected {
            assert_eq!(parse(&format!("Region 4 = \"{name}\"")), [(4, name.to_owned(), section)]);
        }
    }

    #[test]
    fn a_name_without_a_section_number_is_refused_by_its_line() {
        for name in [".A", "A", "7.", "", "-5", "+5", "A.-1", "9223372036854775808", "\u{661}", "1 2"] {
            let problem = error(&spec(&format!("Region 0 = \"1\"\nRegion 1 = \"{name}\"")));
            assert_eq!(problem, format!("line 5: \"{name}\" ends in no section number"));
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_by_its_line() {
        let named = |bytes: usize| format!("Region 0 = \"{}.7\"", "x".repeat(bytes - 2));
        assert_eq!(parse(&named(1024))[0].2, 7);
        let problem = error(&spec(&named(1025)));
        assert!(problem.starts_with("line 4: ") && problem.ends_with("is longer than 1024 bytes"), "{problem}");
    }

    #[test]
    fn regions_come_in_the_order_of_their_numbers() {
        let regions = parse("Region 10 = c.1\nregion 2 = \" b.1 \"\nREGION  0 = \"9\"");
        assert_eq!(regions, [(0, "9".to_owned(), 9), (2, "b.1".to_owned(), 1), (10, "c.1".to_owned(), 1)]);
    }

    #[test]
    fn regions_of_one_name_become_the_first_of_them() {
        let regions = parse("Region 2 = 7\nRegion 1 = 8\nRegion 0 = 7");
        assert_eq!(regions, [(0, "7".to_owned(), 7), (1, "8".to_owned(), 8)]);
    }

    #[test]
    fn a_number_under_two_keys_is_refused() {
        assert_eq!(error(&spec("Region 1 = 7\nRegion 01 = 8")), "line 5: region 1 is given twice");
    }

    #[test]
    fn other_keys_are_refused() {
        for key in ["Region", "Region x", "Region -1", "Region +1", "Region 1 2", "Area 1", "Region 4294967296", "1"] {
            let problem = error(&spec(&format!("{key} = 7")));
            assert_eq!(problem, format!("line 4: \"{key}\" is no \"Region <number>\""));
        }
    }

    #[test]
    fn a_file_without_regions_is_refused() {
        for text in ["", "[Inclusion Section Numbers]\n", "[inclusion section numbers]\nRegion 0 = 7\n", &spec("")] {
            assert_eq!(error(text), "0 regions in [Inclusion Section Numbers]: not 1 to 10000");
        }
    }

    #[test]
    fn ten_thousand_regions_are_the_most() {
        let regions = |count: u32| (0..count).map(|n| format!("Region {n} = {n}\n")).collect::<String>();
        assert_eq!(parse(&regions(10_000)).len(), 10_000);
        assert!(error(&spec(&regions(10_001))).starts_with("10001 regions"));
    }
}
