//! `top`: a running daemon in a terminal, as it is told by its HTTP port. The only place that imports `ratatui`.
//!
//! A thread follows the daemon (`follow`), a screen knows what is shown (`screen`), `draw` paints it; this file takes
//! keys and turns. Must never change anything in the daemon, and must leave the terminal as it was.

mod draw;
mod follow;
mod mosaic;
mod screen;
#[cfg(test)]
mod tests;

use crate::base::stop::Stop;
use crate::client::HttpClient;
use follow::Follower;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use screen::Screen;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Longest time between two pictures; a key is heard at once.
const TURN: Duration = Duration::from_millis(200);

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Standard input or output is something else.
    #[error("top needs a terminal: `tilecatcher status` says the same once, `status --json` for scripts")]
    NoTerminal,
    /// The terminal does not do what is asked of it.
    #[error("the terminal: {0}; `tilecatcher status` needs none")]
    Terminal(#[from] io::Error),
}

/// Shows the daemon behind `client` until a key or a signal ends it. `url` is what it is called.
///
/// # Errors
/// There is no terminal, or it fails.
pub fn show(client: HttpClient, url: &str, stop: &Stop) -> Result<(), TopError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let follower = Follower::start(client)?;
    let mut terminal = ratatui::try_init()?;
    let ended = turn(&mut terminal, &follower, Screen::new(url), stop);
    ratatui::try_restore()?;
    ended
}

fn turn(
    terminal: &mut ratatui::DefaultTerminal,
    follower: &Follower,
    mut screen: Screen,
    stop: &Stop,
) -> Result<(), TopError> {
    while stop.reason().is_none() {
        follower.news().for_each(|news| screen.hear(news));
        follower.watch(screen.selected());
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        if !event::poll(TURN)? {
            continue;
        }
        // A resize is heard here too: the next picture is of the new size.
        if let Event::Key(key) = event::read()?
            && !press(&mut screen, key)
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Does what a key stands for. False: the end.
fn press(screen: &mut Screen, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return true;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return false,
        KeyCode::Char('q') => return false,
        KeyCode::Esc if screen.help => screen.help = false,
        KeyCode::Esc => return false,
        KeyCode::Char('h' | '?') => screen.help = !screen.help,
        KeyCode::Down | KeyCode::Char('j') => screen.select(1),
        KeyCode::Up | KeyCode::Char('k') => screen.select(-1),
        _ => {}
    }
    true
}
