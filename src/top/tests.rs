//! What is painted, on a terminal in memory.

use super::draw::draw;
use super::follow::{Cells, News};
use super::mosaic::Picture;
use super::press;
use super::screen::Screen;
use crate::client::{
    AcquisitionStatus, DaemonStatus, MosaicStatus, RateStatus, SampleStatus, SenderStatus, WarningStatus,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

fn acquisition(id: u64, received: u64) -> AcquisitionStatus {
    let (name, state) = ("fly brain".to_owned(), "open".to_owned());
    let (cols, rows, expected, missing) = (4, 4, 16, 16 - received);
    AcquisitionStatus { id, name, state, cols, rows, expected, received, missing, ..AcquisitionStatus::default() }
}

fn status() -> DaemonStatus {
    let text = str::to_owned;
    let sample = |n: u64| SampleStatus { at: format!("2026-01-01T00:00:{n:02}Z"), tiles: n, ..SampleStatus::default() };
    let mut status = DaemonStatus {
        version: text("0.1.0"),
        ready: true,
        capture: text("running"),
        ack_level: text("durable"),
        now: RateStatus { tiles_per_s: 57.5, bytes_per_s: 3e8, ack_p99_ms: Some(4.25), ..RateStatus::default() },
        history: (0..60).map(sample).collect(),
        senders: vec![SenderStatus {
            id: 3,
            peer: text("192.0.2.9:4000"),
            port: text("capture"),
            tiles: 12,
            ..SenderStatus::default()
        }],
        senders_total: 1,
        acquisitions: vec![acquisition(123, 4), acquisition(99, 16)],
        acquisitions_total: 2,
        warnings: vec![WarningStatus {
            at: text("2026-01-01T10:20:30Z"),
            level: text("warn"),
            message: text("no space"),
        }],
        ..DaemonStatus::default()
    };
    for pressure in [&mut status.pressure.system, &mut status.pressure.tile_queue, &mut status.pressure.content_queue] {
        *pressure = text("GREEN");
    }
    status
}

fn picture(acquisition: u64, cells: [u8; 4]) -> Picture {
    let legend = ["none", "missing", "refused", "received"].map(str::to_owned).to_vec();
    let cells = STANDARD.encode(cells);
    let (cols, rows) = (2, 2);
    Picture::of(&MosaicStatus { acquisition, cols, rows, legend, cells, ..MosaicStatus::default() })
        .expect("consistent")
}

fn screen() -> Screen {
    let mut screen = Screen::new("http://daemon:5001");
    screen.hear(News::Whole(Box::new(status())));
    screen
}

fn paint(screen: &Screen, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    terminal.draw(|frame| draw(frame, screen)).expect("memory");
    terminal.backend().clone()
}

fn text(backend: &TestBackend) -> String {
    let buffer = backend.buffer();
    let lines = buffer.content().chunks(usize::from(buffer.area.width));
    lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
}

fn press_char(screen: &mut Screen, code: KeyCode) -> bool {
    press(screen, KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn everything_that_the_daemon_says_is_on_the_screen() {
    let shown = text(&paint(&screen(), 120, 40));
    for wanted in [
        "tilecatcher 0.1.0  http://daemon:5001  live",
        "RUNNING  pressure GREEN  ack durable",
        "57.5 tiles/s",
        "300.0 MB/s",
        "p99 4.2 ms",
        "123 fly brain  open",
        "4/16, 12 missing",
        "192.0.2.9:4000 capture 12 tiles",
        "10:20:30 no space",
        "mosaic of 123",
        "q quit",
    ] {
        assert!(shown.contains(wanted), "{wanted} is not in\n{shown}");
    }
    assert!(shown.contains('\u{2588}') && shown.contains('\u{2591}'), "a bar: {shown}");
}

#[test]
fn any_size_of_terminal_is_painted() {
    let mut screen = screen();
    screen.hear(News::Picture(picture(123, [1, 1, 3, 3])));
    screen.help = true;
    for (width, height) in [(1, 1), (3, 2), (20, 5), (40, 12), (80, 24), (81, 23), (300, 100)] {
        paint(&screen, width, height);
    }
}

#[test]
fn the_mosaic_shows_what_changes() {
    let mut screen = screen();
    let colours = |screen: &Screen| {
        let backend = paint(screen, 120, 40);
        let painted = backend.buffer().content().iter().filter(|cell| cell.symbol() == "\u{2580}");
        painted.map(|cell| (cell.fg, cell.bg)).collect::<Vec<(Color, Color)>>()
    };
    screen.hear(News::Picture(picture(99, [3; 4])));
    assert_eq!(colours(&screen), [], "the picture of another acquisition");
    screen.hear(News::Picture(picture(123, [1, 3, 1, 2])));
    // Each place is four points wide and four high: four characters, two lines.
    let places = |upper: [Color; 2], lower: [Color; 2]| {
        let line = |[left, right]: [Color; 2]| [vec![(left, left); 4], vec![(right, right); 4]].concat();
        [line(upper), line(upper), line(lower), line(lower)].concat()
    };
    let (gray, green) = (Color::DarkGray, Color::Green);
    assert_eq!(colours(&screen), places([gray, green], [gray, Color::Magenta]));
    screen.hear(News::Cells(Cells { acquisition: 123, cells: vec![(0, 0, 3), (1, 1, 0x83)] }));
    assert_eq!(colours(&screen), places([green, green], [gray, Color::Red]));
}

#[test]
fn keys_select_help_and_quit() {
    let mut screen = screen();
    assert_eq!(screen.selected(), Some(123));
    assert!(press_char(&mut screen, KeyCode::Down) && press_char(&mut screen, KeyCode::Down));
    assert_eq!(screen.selected(), Some(99));
    assert!(press_char(&mut screen, KeyCode::Char('k')));
    assert_eq!(screen.selected(), Some(123));
    assert!(
        press_char(&mut screen, KeyCode::Char('?')) && text(&paint(&screen, 100, 30)).contains("the acquisition above")
    );
    assert!(press_char(&mut screen, KeyCode::Esc) && !screen.help);
    assert!(!press_char(&mut screen, KeyCode::Esc) && !press_char(&mut screen, KeyCode::Char('q')));
    assert!(!press(&mut screen, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
}

#[test]
fn a_daemon_that_is_away_is_called_so_and_its_last_figures_stay() {
    let mut screen = screen();
    screen.hear(News::Lost("http://daemon:5001: connection refused".to_owned()));
    let shown = text(&paint(&screen, 120, 40));
    assert!(shown.contains("NOT REACHABLE") && shown.contains("connection refused"), "{shown}");
    assert!(shown.contains("123 fly brain"), "{shown}");
    let mut after = status();
    (after.history, after.sample) = (Vec::new(), Some(SampleStatus { at: "z".to_owned(), ..SampleStatus::default() }));
    (after.acquisitions, after.capture) = (vec![acquisition(99, 16)], "paused".to_owned());
    screen.hear(News::Second(Box::new(after)));
    let shown = text(&paint(&screen, 120, 40));
    assert!(shown.contains("live") && shown.contains("PAUSED") && shown.contains("!! capture is paused"), "{shown}");
    assert_eq!((screen.selected(), screen.history.len()), (Some(99), 61), "the one that was selected is gone");
}
