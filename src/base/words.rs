//! Figures as people read them on a terminal.

/// The time of day of an RFC 3339 time, to the second.
#[must_use]
pub fn clock(rfc_3339: &str) -> &str {
    rfc_3339.get(11..19).unwrap_or(rfc_3339)
}

/// Bytes with a unit.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let found = units.iter().find(|(factor, _)| bytes >= *factor);
    found.map_or_else(|| format!("{bytes:.0} B"), |(factor, unit)| format!("{:.1} {unit}", bytes / factor))
}

/// Seconds in the unit that fits.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_fits() {
        assert_eq!([bytes(0.0), bytes(999.0), bytes(1500.0), bytes(2.5e9)], ["0 B", "999 B", "1.5 kB", "2.5 GB"]);
        assert_eq!([span(119), span(120), span(7200), span(200_000)], ["119 s", "2 min", "2 h", "2 days"]);
        assert_eq!((clock("2026-11-21T20:30:01.5Z"), clock("x")), ("20:30:01", "x"));
    }
}
