//! Text of strangers on a terminal: names, warnings, addresses. Must never let a control character through.

/// The text with another character in place of each control character: no colours, no moved cursor, no second line.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_command_the_terminal() {
        assert_eq!(printable("S1\x1b[2J\u{9b}1m\r\n\x7f é"), "S1\u{fffd}[2J\u{fffd}1m\u{fffd}\u{fffd}\u{fffd} é");
    }
}
