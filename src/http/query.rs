//! Parameters of a request, from its query and, where a route says so, from a form in its body; times of the field.
//!
//! Empty parameters count as absent: scripts leave them empty. Unknown ones are passed over.

use super::answer::Failure;
use crate::catalog::{AcquisitionFilter, FrameType};
use crate::model::AcqId;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::collections::HashMap;
use std::convert::Infallible;
use std::str::FromStr;

/// Records given when no `length` is asked for.
pub(super) const LENGTH_DEFAULT: usize = 1000;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default().as_bytes()))
    }
}

/// A run of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageOf {
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl Query {
    pub(super) fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text).filter(|(_, value)| !value.is_empty());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// Adds what this does not say yet.
    pub(super) fn add(&mut self, other: Self) {
        for (name, value) in other.0 {
            self.0.entry(name).or_insert(value);
        }
    }

    pub(super) fn put(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name).map(|text| super::answer::number(name, text)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0" | "no") => Ok(false),
            Some("true" | "1" | "yes") => Ok(true),
            Some(other) => Err(Failure::bad_request(format!("{name} \"{other}\" is neither true nor false"))),
        }
    }

    pub(super) fn page(&self, length_max: usize) -> Result<PageOf, Failure> {
        let length = self.number("length")?.unwrap_or(LENGTH_DEFAULT);
        Ok(PageOf { offset: self.number("offset")?.unwrap_or(0), length: length.min(length_max) })
    }

    pub(super) fn frame_type(&self) -> Result<FrameType, Failure> {
        match self.text("frame-type") {
            None | Some("stable") => Ok(FrameType::Stable),
            Some("drift") => Ok(FrameType::Drift),
            Some("all") => Ok(FrameType::All),
            Some(other) => Err(Failure::bad_request(format!("frame-type \"{other}\" is none of stable, drift, all"))),
        }
    }

    pub(super) fn acquisitions(&self) -> Result<AcquisitionFilter, Failure> {
        let (from, to) = (self.day("acq-from")?, self.day("acq-to")?);
        check_order("acq-from", from, "acq-to", to)?;
        Ok(AcquisitionFilter {
            acq: self.number("acqid")?.map(AcqId),
            sample: self.owned("sample"),
            project: self.owned("project"),
            owner: self.owned("owner"),
            stack: self.owned("stack"),
            mosaic_type: self.owned("mosaic-type"),
            acquired_from_s: from,
            acquired_to_s: to,
        })
    }

    /// `yyyyMMdd[HH[mm[ss]]]`, local time, as seconds since 1970 UTC.
    fn day(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            Failure::bad_request(format!("{name} \"{text}\" is no time like 20150304, 2015030409 .. 20150304093433"))
        };
        let padded = match text.len() {
            8 | 10 | 12 | 14 => format!("{text:0<14}"),
            _ => return Err(wrong()),
        };
        local_ns(&padded, 0).map(|ns| Some(ns.div_euclid(1_000_000_000))).ok_or_else(wrong)
    }

    /// `yyyyMMddHHmmss[.SSS[SSS]]`, local time, as ns since 1970 UTC.
    pub(super) fn instant(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            Failure::bad_request(format!("{name} \"{text}\" is no time like 20150304093433 or 20150304093433.123456"))
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = matches!(fraction.len(), 0 | 3 | 6) && fraction.bytes().all(|byte| byte.is_ascii_digit());
        let ns: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        if whole.len() != 14 || !digits || text.ends_with('.') {
            return Err(wrong());
        }
        local_ns(whole, ns).map(Some).ok_or_else(wrong)
    }

    /// `tile-from` (inclusive) and `tile-to` (exclusive) as ns since 1970 UTC.
    pub(super) fn received(&self) -> Result<Option<(i64, i64)>, Failure> {
        let (from, to) = (self.instant("tile-from")?, self.instant("tile-to")?);
        check_order("tile-from", from, "tile-to", to)?;
        Ok((from.is_some() || to.is_some()).then(|| (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX))))
    }
}

fn check_order(from_name: &str, from: Option<i64>, to_name: &str, to: Option<i64>) -> Result<(), Failure> {
    match (from, to) {
        (Some(from), Some(to)) if from > to => {
            Err(Failure::bad_request(format!("{from_name} is later than {to_name}")))
        }
        _ => Ok(()),
    }
}

/// `yyyyMMddHHmmss` in the time zone of this machine.
fn local_ns(digits: &str, fraction_ns: i64) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i16>().ok();
    let small = |range| part(range).and_then(|n| i8::try_from(n).ok());
    let date = DateTime::new(part(0..4)?, small(4..6)?, small(6..8)?, small(8..10)?, small(10..12)?, small(12..14)?, 0);
    let date = date.ok()?;
    // Who means "for ever" writes the year 9999: what is beyond the numbers is as far as they go.
    let beyond = if date.year() > 1970 { i64::MAX } else { i64::MIN };
    let Ok(zoned) = date.to_zoned(TimeZone::system()) else { return Some(beyond) };
    Some(i64::try_from(zoned.timestamp().as_nanosecond()).map_or(beyond, |ns| ns.saturating_add(fraction_ns)))
}

/// `yyyyMMddHHmmss.SSSSSS`, local time.
pub(super) fn local_time(unix_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime("%Y%m%d%H%M%S.%6f").to_string()
}

/// RFC 3339, UTC.
pub(super) fn utc_time(unix_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_time_is_read_back() {
        for ns in [0, 1_425_461_673_123_456_000, 1_700_000_000_000_000_000] {
            let text = local_time(ns);
            let query = Query::parse(format!("t={text}").as_bytes());
            assert_eq!(query.instant("t").expect("a time"), Some(ns), "{text}");
        }
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for bad in
            ["2015", "20151304", "2015030x", "201503040934331", "20150304093433.12", "20150304093433.", "20150230"]
        {
            let query = Query::parse(format!("t={bad}").as_bytes());
            assert!(query.day("t").is_err() || bad.contains('.'), "{bad}");
            assert!(query.instant("t").is_err(), "{bad}");
        }
        let reversed = Query::parse(b"acq-from=20150305&acq-to=20150304");
        assert!(reversed.acquisitions().is_err());
    }

    #[test]
    fn times_beyond_the_numbers_are_as_far_as_those_go() {
        let query = Query::parse(b"t=99991231235959&u=00010101000000&v=22621231000000.999");
        assert_eq!(query.instant("t").expect("a time"), Some(i64::MAX));
        assert_eq!(query.instant("u").expect("a time"), Some(i64::MIN));
        assert_eq!(query.instant("v").expect("a time"), Some(i64::MAX));
        assert!(query.day("t").expect("a time") > query.day("u").expect("a time"));
    }

    #[test]
    fn empty_parameters_are_absent_and_bad_numbers_named() {
        let query = Query::parse(b"col=&row=-1&offset=5&length=7000000");
        assert_eq!(query.number::<u32>("col").expect("absent"), None);
        assert!(query.number::<u32>("row").is_err());
        assert_eq!(query.page(100_000).expect("a page"), PageOf { offset: 5, length: 100_000 });
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_without_a_panic(text in "[a-z=&%0-9.\\-]{0,80}") {
            let query = Query::parse(text.as_bytes());
            let _ = (query.acquisitions().is_ok(), query.received().is_ok(), query.page(10).is_ok());
        }
    }
}
