//! Sizes and times that carry their unit: `64MiB`, `50ms`.

use std::{fmt, str::FromStr, time::Duration};

/// A number of bytes. Parses `4096`, `64KiB`, `64MiB`, `1GiB`, `1MB` (decimal) and prints the shortest exact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time. Parses `250us`, `50ms`, `10s`, `5min`, `2h`, `7d` and prints the shortest exact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const TIME_UNITS: [(&str, u64); 6] =
    [("min", 60_000_000), ("us", 1), ("ms", 1_000), ("s", 1_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

impl ByteSize {
    /// The size as `usize`, at most `usize::MAX`.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no size: a whole number with B, KiB, MiB, GiB, TiB, kB, MB or GB");
        let (number, unit) = split_number(text);
        let factor = match unit {
            "" => 1,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
        };
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(ByteSize).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZE_UNITS
            .iter()
            .filter(|(unit, _)| unit.contains('i') || *unit == "B")
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Span {
    /// Parses a time that may not be shorter than `least`.
    ///
    /// # Errors
    /// It is shorter, or no time; as a line for whoever wrote it.
    pub fn at_least(text: &str, least: Duration) -> Result<Self, String> {
        let span: Self = text.parse()?;
        if span.0 < least { Err(format!("\"{text}\": at least {}", Self(least))) } else { Ok(span) }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no time: a whole number with us, ms, s, min, h or d");
        let (number, unit) = split_number(text);
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .map(|us| Span(Duration::from_micros(us)))
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        if us.is_multiple_of(1_000_000) {
            write!(f, "{}s", us / 1_000_000)
        } else if us.is_multiple_of(1_000) {
            write!(f, "{}ms", us / 1_000)
        } else {
            write!(f, "{us}us")
        }
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_their_units_and_print_back() {
        for (text, bytes, printed) in
            [("64MiB", 64 << 20, "64MiB"), ("1000", 1000, "1000B"), ("1 MB", 1_000_000, "1000000B"), ("0", 0, "0B")]
        {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string(), printed);
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "1 XB", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad} parsed");
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!("50ms".parse(), Ok(Span(Duration::from_millis(50))));
        assert_eq!("2min".parse::<Span>().map(|s| s.to_string()), Ok("120s".to_owned()));
        assert!("50".parse::<Span>().is_err());
    }

    #[test]
    fn a_time_below_the_least_is_refused_with_the_least() {
        let second = Duration::from_secs(1);
        assert_eq!(Span::at_least("1000ms", second), Ok(Span(second)));
        assert_eq!(Span::at_least("999ms", second), Err("\"999ms\": at least 1s".to_owned()));
        assert!(Span::at_least("1", second).is_err());
    }
}
