//! The report as an SVG: for each size and level a bar of MB/s, and one of CPU time.

use crate::contender::Level;
use crate::report::{Report, Row, Run};
use std::fmt::Write;

const WIDTH: f64 = 940.0;
const LABEL_X: f64 = 140.0;
const BAR_LENGTH: f64 = 300.0;
const CPU_X: f64 = LABEL_X + BAR_LENGTH + 90.0;
const LINE: f64 = 22.0;
const OURS: &str = "#1b6ca8";
const THEIRS: &str = "#9aa5b1";

/// A picture of all rows.
pub fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 30.0;
    text(&mut body, LABEL_X, y, "start", "MB/s acknowledged (longer is better)");
    text(&mut body, CPU_X, y, "start", "server CPU-s/GB (shorter is better)");
    for tile in report.tiles() {
        let rows = report.rows_of(tile);
        let most =
            |figure: fn(&Run) -> f64| rows.iter().map(|row| row.median(figure)).fold(f64::MIN_POSITIVE, f64::max);
        let (speed, cpu) = (most(|run| run.mb_per_s), most(|run| run.cpu_s_per_gb));
        for level in Level::ALL {
            y += LINE * 1.6;
            text(&mut body, 10.0, y, "start", &format!("{tile} tiles, {}", level.name()));
            for row in rows.iter().filter(|row| row.level == level) {
                y += LINE;
                text(&mut body, LABEL_X - 8.0, y, "end", row.server);
                bar(&mut body, (LABEL_X, y), row, (row.median(|run| run.mb_per_s), speed), 0);
                bar(&mut body, (CPU_X, y), row, (row.median(|run| run.cpu_s_per_gb), cpu), 2);
            }
        }
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// A bar with its value behind it, beside the text line at `y`.
fn bar(body: &mut String, (x, y): (f64, f64), row: &Row, (value, longest): (f64, f64), digits: usize) {
    let (length, top) = (BAR_LENGTH * value / longest, y - LINE * 0.62);
    let colour = if row.server == "tilecatcher" { OURS } else { THEIRS };
    let height = LINE * 0.75;
    // Writing to a String can not fail.
    let _ = writeln!(
        body,
        "<rect x=\"{x}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
    text(body, x + length + 5.0, y, "start", &format!("{value:.digits$}"));
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
