//! Paints a [`Screen`]. Everything fits into what there is: what has no room is left out, from the bottom up.

use super::mosaic::{Picture, Point};
use super::screen::{Link, Screen};
use crate::base::words::{bytes, clock, span};
use crate::client::{AcquisitionStatus, DaemonStatus, SampleStatus, SenderStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline, Wrap};

/// Silence after which the picture is called old, s.
const OLD_S: u64 = 5;
const HELP: [&str; 8] = [
    "up, k       the acquisition above",
    "down, j     the acquisition below",
    "h, ?        this help",
    "q, Esc      quit",
    "",
    "The mosaic shows the worst of the places",
    "that share a point. Nothing can be changed",
    "from here: tilecatcher admin does that.",
];

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [head, rest, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(screen)), head);
    let keys = " q quit   up/down select   h help ";
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
    match &screen.status {
        Some(status) => draw_status(frame, rest, screen, status),
        None => frame.render_widget(Paragraph::new("waiting for the daemon ..."), rest),
    }
    if screen.help {
        draw_help(frame, rest);
    }
}

fn draw_status(frame: &mut Frame<'_>, area: Rect, screen: &Screen, status: &DaemonStatus) {
    // Middle and lists share what the figures leave; low terminals have no lists.
    let lists = if area.height >= 22 { 7 } else { 0 };
    let rows = [Constraint::Length(5), Constraint::Length(3), Constraint::Min(0), Constraint::Length(lists)];
    let [rates, figures, middle, lists] = Layout::vertical(rows).areas(area);
    draw_rates(frame, rates, screen, status);
    frame.render_widget(Paragraph::new(figure_lines(status)), figures);
    let [left, right] = Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(middle);
    draw_acquisitions(frame, left, screen, status);
    draw_mosaic(frame, right, screen);
    let [left, right] = Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(lists);
    let title = format!(" senders ({}) ", status.senders_total);
    let senders: Vec<Line<'_>> = status.senders.iter().map(sender_line).collect();
    frame.render_widget(Paragraph::new(senders).block(Block::bordered().title(title)), left);
    let room = usize::from(right.height.saturating_sub(2));
    let newest = status.warnings.iter().rev().take(room).rev();
    let warnings: Vec<Line<'_>> = newest
        .map(|warning| {
            let style = if warning.level == "error" { Color::Red } else { Color::Yellow };
            let text = format!("{} {}", clock(&warning.at), warning.message);
            Line::styled(text, style)
        })
        .collect();
    frame.render_widget(Paragraph::new(warnings).block(Block::bordered().title(" warnings ")), right);
}

fn head_lines(screen: &Screen) -> Vec<Line<'static>> {
    let link = match &screen.link {
        Link::Connecting => Span::styled("connecting", Color::Yellow),
        Link::Heard(at) if at.elapsed().as_secs() >= OLD_S => {
            Span::styled(format!("nothing heard for {} s", at.elapsed().as_secs()), Color::Yellow)
        }
        Link::Heard(_) => Span::styled("live", Color::Green),
        Link::Lost(since, _) => {
            let text = format!("NOT REACHABLE for {} s, trying again", since.elapsed().as_secs());
            Span::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        }
    };
    let version = screen.status.as_ref().map(|status| format!(" {}", status.version)).unwrap_or_default();
    let first = vec![Span::raw(format!("tilecatcher{version}  {}  ", screen.url)), link];
    let second = match (&screen.link, &screen.status) {
        (Link::Lost(_, problem), _) => vec![Span::styled(problem.clone(), Color::Red)],
        (_, None) => Vec::new(),
        (_, Some(status)) => state_spans(status),
    };
    vec![Line::from(first), Line::from(second)]
}

fn state_spans(status: &DaemonStatus) -> Vec<Span<'static>> {
    let colour = match status.capture.as_str() {
        "running" => Color::Green,
        _ => Color::Yellow,
    };
    let mut spans = vec![
        Span::styled(status.capture.to_uppercase(), colour),
        Span::raw("  pressure "),
        Span::styled(status.pressure.system.clone(), pressure_colour(&status.pressure.system)),
        Span::raw(format!("  ack {}  up {}", status.ack_level, span(status.uptime_s))),
    ];
    if let Some(problem) = status.problems().into_iter().next() {
        spans.push(Span::styled(format!("  !! {problem}"), Color::Red));
    }
    spans
}

fn pressure_colour(pressure: &str) -> Color {
    match pressure {
        "GREEN" => Color::Green,
        "YELLOW" => Color::Yellow,
        _ => Color::Red,
    }
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, screen: &Screen, status: &DaemonStatus) {
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas(area);
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    let now = &status.now;
    let refused = if now.refused_per_s > 0.0 { format!(", {:.1} refused", now.refused_per_s) } else { String::new() };
    let titles = [
        format!(" {:.1} tiles/s{refused} ", now.tiles_per_s),
        format!(" {}/s ", bytes(now.bytes_per_s)),
        format!(" ack p50 {} p99 {} ms ", ms(now.ack_p50_ms), ms(now.ack_p99_ms)),
    ];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A latency in us: above 0, far below the limit.
    let latency = |sample: &SampleStatus| (sample.ack_p99_ms.unwrap_or(0.0).max(0.0) * 1000.0) as u64;
    let values: [fn(&SampleStatus) -> u64; 3] = [|sample| sample.tiles, |sample| sample.bytes, latency];
    for ((area, title), value) in areas.into_iter().zip(titles).zip(values) {
        let block = Block::bordered().title(title);
        let width = usize::from(block.inner(area).width);
        let newest = screen.history.iter().rev().take(width).rev();
        let data: Vec<u64> = newest.map(value).collect();
        frame.render_widget(Sparkline::default().data(&data).block(block).style(Color::Cyan), area);
    }
}

fn figure_lines(status: &DaemonStatus) -> Vec<Line<'static>> {
    let DaemonStatus { queues, disk, journal, index, scrub, .. } = status;
    let full = disk.full_in_s.map(|time| format!(", full in {}", span(time))).unwrap_or_default();
    let mirror = status.mirror.as_ref().map(|mirror| format!("   mirror {}", mirror.phase)).unwrap_or_default();
    let damaged = Span::styled(
        format!("{} damaged records", status.damaged_records),
        if status.damaged_records > 0 { Color::Red } else { Color::Reset },
    );
    vec![
        Line::from(format!(
            "queue {}/{} tiles ({})   buffers {}/{} ({})   {} wait   index behind {}",
            queues.lane_tiles,
            queues.lane_limit_tiles,
            status.pressure.tile_queue,
            bytes(queues.buffer_bytes as f64),
            bytes(queues.buffer_limit_bytes as f64),
            status.pressure.content_queue,
            queues.buffer_waiters,
            index.lag_tiles
        )),
        Line::from(format!(
            "disk {} of {} free{full}   journal {} in {} segments{mirror}",
            bytes(disk.free_bytes as f64),
            bytes(disk.total_bytes as f64),
            bytes(journal.bytes as f64),
            journal.segments
        )),
        Line::from(vec![
            Span::raw(format!("scrub {:.0} % of pass {}   ", scrub.progress * 100.0, scrub.passes + 1)),
            damaged,
        ]),
    ]
}

fn draw_acquisitions(frame: &mut Frame<'_>, area: Rect, screen: &Screen, status: &DaemonStatus) {
    let block = Block::bordered().title(format!(" acquisitions ({}) ", status.acquisitions_total));
    let inner = block.inner(area);
    let selected = screen.selected_line().unwrap_or(0);
    // Two lines each; the selected one stays in sight.
    let room = usize::from(inner.height / 2).max(1);
    let first = selected.saturating_sub(room - 1);
    let shown = status.acquisitions.iter().enumerate().skip(first).take(room);
    let lines = shown.flat_map(|(n, acquisition)| acquisition_lines(acquisition, n == selected, inner.width));
    let lines: Vec<Line<'_>> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn acquisition_lines(acquisition: &AcquisitionStatus, is_selected: bool, width: u16) -> [Line<'static>; 2] {
    let AcquisitionStatus { id, name, state, expected, received, missing, refused, tiles_per_s, .. } = acquisition;
    let style = if is_selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    let first = format!("{id} {name}  {state}, {tiles_per_s:.1}/s{refused}");
    let share = *received as f64 / (*expected).max(1) as f64;
    let figures = format!(" {received}/{expected}, {missing} missing");
    let bar = usize::from(width).saturating_sub(figures.chars().count());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A share of a terminal's width.
    let filled = ((share.clamp(0.0, 1.0) * bar as f64) as usize).min(bar);
    let colour = if *missing == 0 { Color::Green } else { Color::Cyan };
    let second = vec![
        Span::styled("\u{2588}".repeat(filled), colour),
        Span::styled("\u{2591}".repeat(bar - filled), Color::DarkGray),
        Span::raw(figures),
    ];
    [Line::styled(first, style), Line::from(second)]
}

fn draw_mosaic(frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
    let title = screen.selected().map_or(" mosaic ".to_owned(), |acq| format!(" mosaic of {acq} "));
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [points, legend] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(inner);
    let picture = match &screen.picture {
        Some(Ok(picture)) => picture,
        Some(Err(problem)) => {
            let text = format!("no picture: {problem}");
            return frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), points);
        }
        None => return frame.render_widget(Paragraph::new("waiting for the picture ..."), points),
    };
    paint(frame, points, picture);
    let names =
        Point::ALL.map(|point| [Span::styled("\u{2588}", colour(point)), Span::raw(format!("{} ", point.name()))]);
    frame.render_widget(Paragraph::new(Line::from(names.concat())), legend);
}

/// Two points a character, one above the other: about as high as wide.
fn paint(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let scale = picture.scale(area.width, area.height.saturating_mul(2));
    for y in 0..area.height {
        for x in 0..area.width {
            let (upper, lower) = (picture.point(x, y * 2, scale), picture.point(x, y * 2 + 1, scale));
            if let Some(cell) = frame.buffer_mut().cell_mut((area.x + x, area.y + y)) {
                cell.set_char(if upper == Point::Nothing && lower == Point::Nothing { ' ' } else { '\u{2580}' });
                cell.set_fg(colour(upper)).set_bg(colour(lower));
            }
        }
    }
}

fn colour(point: Point) -> Color {
    match point {
        Point::Nothing => Color::Reset,
        Point::Missing => Color::DarkGray,
        Point::Partly => Color::LightBlue,
        Point::Stored => Color::Green,
        Point::Complete => Color::Cyan,
        Point::Flagged => Color::Yellow,
        Point::Refused => Color::Magenta,
        Point::Damaged => Color::Red,
    }
}

fn sender_line(sender: &SenderStatus) -> Line<'static> {
    let who = sender.name.as_ref().map_or(sender.peer.clone(), |name| format!("{name} {}", sender.peer));
    let last = sender.last_tile.as_ref().map(|last| format!(" last {}", clock(last))).unwrap_or_default();
    let SenderStatus { id, port, tiles, refused, .. } = sender;
    Line::from(format!("{id} {who} {port} {tiles} tiles, {refused} refused{last}"))
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (46.min(area.width), 10.min(area.height));
    let at = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, at);
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" help ")), at);
}
