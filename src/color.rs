//! Colour on a terminal: the words that say how something ended, and nothing else.
//!
//! Text is laid out first and painted last, so that colour never moves a column; without colour the
//! same words are there.

use core::sync::atomic::{AtomicBool, Ordering};
use std::borrow::Cow;
use std::io::IsTerminal;

use crate::cli::{Color, Format};

static ON: AtomicBool = AtomicBool::new(false);

const RED: &str = "\u{1b}[31;1m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// Words that begin a line, with two spaces behind them.
const BEGINNINGS: [(&str, &str); 4] =
    [("FAIL", RED), ("fail", RED), ("ok", GREEN), ("part", YELLOW)];

/// Words that end a cell of a table.
const VERDICTS: [(&str, &str); 2] = [("WORSE", RED), ("better", GREEN)];

/// Decides once whether what [`paint`] gets is painted: text for people alone, and where nobody
/// says so a terminal's, unless `NO_COLOR` is set.
pub fn choose(color: Color, format: Format) {
    let wanted = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            !refused && std::io::stdout().is_terminal()
        }
    };
    ON.store(wanted && format == Format::Human, Ordering::Relaxed);
}

/// The text as it is shown.
pub fn paint(text: &str) -> Cow<'_, str> {
    if ON.load(Ordering::Relaxed) { Cow::Owned(painted(text)) } else { Cow::Borrowed(text) }
}

fn painted(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let begins = |(word, _): &&(&str, &str)| {
        line.strip_prefix(word).is_some_and(|rest| rest.starts_with("  "))
    };
    let (mut painted, mut rest) = match BEGINNINGS.iter().find(begins) {
        Some((word, color)) => {
            (format!("{color}{word}{PLAIN}"), line.get(word.len()..).unwrap_or_default())
        }
        None => (String::new(), line),
    };
    while let Some((at, (word, color))) = next_verdict(rest) {
        let (before, behind) = rest.split_at(at);
        painted.push_str(&format!("{before}{color}{word}{PLAIN}"));
        rest = behind.strip_prefix(word).unwrap_or_default();
    }
    painted + rest
}

/// The first verdict of a line and where it begins.
fn next_verdict(line: &str) -> Option<(usize, (&'static str, &'static str))> {
    let ends_cell = |rest: &str| {
        let end = rest.trim_end_matches('\n');
        end.is_empty() || end.starts_with("  ") || end.starts_with(" > gate")
    };
    let found = VERDICTS.into_iter().filter_map(|(word, color)| {
        let mut places = line.match_indices(word);
        let is_cell = |at: usize| {
            let (before, behind) = line.split_at(at);
            before.ends_with(' ') && ends_cell(behind.strip_prefix(word).unwrap_or_default())
        };
        let (at, _) = places.find(|(at, _)| is_cell(*at))?;
        Some((at, (word, color)))
    });
    found.min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_and_verdicts_are_painted_and_prose_is_not() {
        let text = "ok    12 seeds\nokay  is a word\na  p99  +34% WORSE > gate\n";
        let shown = "\u{1b}[32mok\u{1b}[0m    12 seeds\nokay  is a word\n\
                     a  p99  +34% \u{1b}[31;1mWORSE\u{1b}[0m > gate\n";
        assert_eq!(painted(text), shown);
        let row = "arm  -3% better  +4% WORSE  1.2% same\n";
        assert_eq!(painted(row).matches(PLAIN).count(), 2);
        for prose in ["No arm is better than this one.\n", "FAILED: x\n", "worse\n", "ok\n"] {
            assert_eq!(painted(prose), prose);
        }
        assert!(matches!(paint("ok    unless it is chosen"), Cow::Borrowed(_)));
    }
}
