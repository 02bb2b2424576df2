//! A picture of a replay: rate and latency over time, as SVG, and as a page that holds it.
//!
//! No PNG: that would need a font and a rasteriser for what every browser does.

use super::figures::Point;
use super::report::Report;
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const PANEL_HEIGHT: f64 = 200.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 60.0;
const GAP: f64 = 70.0;
const COLOURS: [&str; 3] = ["#1f6fb4", "#d9730d", "#b02a37"];

/// A panel: its title, unit, and lines.
struct Panel<'a> {
    title: &'a str,
    top: f64,
    log: bool,
    lines: Vec<(&'a str, Vec<f64>)>,
}

/// The picture.
#[must_use]
pub fn svg(report: &Report) -> String {
    let of = |value: fn(&Point) -> f64| report.series.iter().map(value).collect::<Vec<f64>>();
    let panels = [
        Panel { title: "MB/s", top: TOP, log: false, lines: vec![("acknowledged", of(|point| point.mb))] },
        Panel {
            title: "tiles/s",
            top: TOP + PANEL_HEIGHT + GAP,
            log: false,
            lines: vec![
                ("acknowledged", of(|point| point.tiles as f64)),
                ("refused", of(|point| point.refused.values().sum::<u64>() as f64)),
            ],
        },
        Panel {
            title: "latency from when a tile was due, ms",
            top: TOP + 2.0 * (PANEL_HEIGHT + GAP),
            log: true,
            lines: vec![
                ("p50", of(|point| point.latency.p50_ms)),
                ("p99", of(|point| point.latency.p99_ms)),
                ("max", of(|point| point.latency.max_ms)),
            ],
        },
    ];
    let height = TOP + 3.0 * (PANEL_HEIGHT + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    text(&mut out, LEFT, 24.0, "start", &title(report));
    panels.iter().for_each(|panel| panel.draw(&mut out));
    out.push_str("</svg>\n");
    out
}

/// A page that holds the picture.
#[must_use]
pub fn html(report: &Report) -> String {
    let title = escaped(&title(report));
    let svg = svg(report);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body>\n{svg}</body>\n</html>\n"
    )
}

fn title(report: &Report) -> String {
    format!(
        "replay of {}: {:.1} tiles/s, {:.1} MB/s acknowledged, p50 {:.1} ms, p99 {:.1} ms",
        report.settings.profile, report.tiles_per_s, report.mb_per_s, report.latency.p50_ms, report.latency.p99_ms
    )
}

impl Panel<'_> {
    fn draw(&self, out: &mut String) {
        let bottom = self.top + PANEL_HEIGHT;
        text(out, LEFT, self.top - 8.0, "start", self.title);
        let (low, high) = self.range();
        for tick in self.ticks(low, high) {
            let y = self.y(tick, low, high);
            let _ = writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
                WIDTH - RIGHT
            );
            text(out, LEFT - 8.0, y + 4.0, "end", &number(tick));
        }
        let seconds = self.lines.iter().map(|(_, values)| values.len()).max().unwrap_or(0).max(1);
        for share in 0..=4u32 {
            let at = seconds as f64 * f64::from(share) / 4.0;
            text(out, x(at, seconds), bottom + 18.0, "middle", &format!("{} s", number(at)));
        }
        for (n, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let mut points = String::new();
            for (second, value) in values.iter().enumerate() {
                // A second's value stands in its middle.
                let at = x(second as f64 + 0.5, seconds);
                let _ = write!(points, "{at:.1},{:.1} ", self.y(*value, low, high));
            }
            let points = points.trim_end();
            let _ =
                writeln!(out, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{points}\"/>");
            let y = self.top + 14.0 + 18.0 * n as f64;
            let from = WIDTH - RIGHT + 12.0;
            let _ =
                writeln!(out, "<rect x=\"{from}\" y=\"{:.1}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>", y - 5.0);
            text(out, from + 18.0, y, "start", name);
        }
    }

    /// What the axis shows: for logarithms whole powers of ten.
    fn range(&self) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|(_, values)| values.iter().copied()).filter(|value| *value > 0.0);
        let (least, most) = values.fold((f64::INFINITY, 0.0f64), |(least, most), v| (least.min(v), most.max(v)));
        if !self.log {
            return (0.0, if most > 0.0 { most * 1.1 } else { 1.0 });
        }
        if most <= 0.0 {
            return (1.0, 10.0);
        }
        let (low, high) = (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()));
        (low, high.max(low * 10.0))
    }

    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        if !self.log {
            return (0..=4u32).map(|n| low + (high - low) * f64::from(n) / 4.0).collect();
        }
        std::iter::successors(Some(low), |tick| Some(tick * 10.0)).take_while(|tick| *tick <= high * 1.001).collect()
    }

    fn y(&self, value: f64, low: f64, high: f64) -> f64 {
        let share = if self.log {
            (value.max(low).log10() - low.log10()) / (high.log10() - low.log10())
        } else {
            (value - low) / (high - low)
        };
        self.top + PANEL_HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }
}

fn x(second: f64, seconds: usize) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * second / seconds as f64
}

fn number(value: f64) -> String {
    if value >= 100.0 || value == value.round() { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::tally::Interval;
    use crate::replay::{Expectations, report};

    fn report_of(seconds: u64, profile: &str) -> Report {
        let points = (0..seconds).map(|second| {
            let mut interval = Interval::new(second);
            interval.tiles = 50 + second;
            interval.bytes = 300_000_000 + second;
            interval.latency.saturating_record(5000 * (second + 1));
            Point::of(&interval)
        });
        let mut report = report::tests::empty();
        report.settings.profile = profile.to_owned();
        report.series = points.collect();
        report.expect(&Expectations::default());
        report
    }

    /// The names of open elements match those that close them, and attributes are quoted: enough for what is written here.
    fn assert_well_formed(xml: &str) {
        let mut open = Vec::new();
        let mut rest = xml;
        while let Some(at) = rest.find('<') {
            assert!(!rest[..at].contains('>'), "a stray > in {:?}", &rest[..at]);
            let end = at + rest[at..].find('>').expect("a tag ends");
            let tag = &rest[at + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') || tag.starts_with('!') => {}
                None => open.push(tag.split_whitespace().next().expect("a name")),
            }
            rest = &rest[end + 1..];
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    #[test]
    fn the_picture_is_well_formed_whatever_it_shows() {
        for (seconds, profile) in [(0, "none"), (1, "a <b> & \"c\""), (90, "temca2")] {
            let report = report_of(seconds, profile);
            let picture = svg(&report);
            assert_well_formed(&picture);
            assert_eq!(picture.matches("<polyline").count(), 6);
            let shown = picture.matches(',').count();
            assert!(seconds == 0 || shown >= 6 * usize::try_from(seconds).expect("small"), "{shown}");
        }
    }

    #[test]
    fn lines_lie_inside_their_panels() {
        let picture = svg(&report_of(90, "temca2"));
        for points in picture.split("points=\"").skip(1) {
            for pair in points.split('"').next().expect("points").split_whitespace() {
                let (x, y) = pair.split_once(',').expect("a pair");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=WIDTH).contains(&y), "{pair}");
            }
        }
        assert!(html(&report_of(2, "x")).contains("<svg "));
    }
}
