//! How far a long command is, on stderr, for the person who waits.
//!
//! stdout carries results only. On a terminal there is a bar that redraws itself; elsewhere one
//! plain line every ten seconds, so that a CI log stays readable. The clock here is the machine's:
//! nothing it says reaches a result.

#![expect(clippy::disallowed_types, reason = "a person's waiting time, outside every world")]

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::number::{digits, thousands, to_f64};

/// Time between two plain lines.
pub const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar where stderr is a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// A plain line every ten seconds.
    Plain,
    /// Nothing.
    None,
}

/// Counts what is done. Shared by reference between threads.
pub struct Progress {
    state: Mutex<State>,
    total: u64,
    unit: &'static str,
    begun: Instant,
}

struct State {
    done: u64,
    note: String,
    next_line: Duration,
    face: Face,
}

enum Face {
    Bar(ProgressBar),
    Plain(Box<dyn Write + Send>),
    Nothing,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Progress {
    /// Starts at 0 of `total`; `unit` is the plural of what is counted, `runs` or `seeds`.
    pub fn new(mode: ProgressMode, total: u64, unit: &'static str) -> Self {
        let bar = match mode {
            ProgressMode::Auto => std::io::stderr().is_terminal(),
            ProgressMode::Bar => true,
            ProgressMode::Plain => false,
            ProgressMode::None => return Self::with_face(Face::Nothing, total, unit),
        };
        let face = if bar {
            Face::Bar(drawn_bar(total, unit))
        } else {
            Face::Plain(Box::new(std::io::stderr()))
        };
        Self::with_face(face, total, unit)
    }

    fn with_face(face: Face, total: u64, unit: &'static str) -> Self {
        let state = State { done: 0, note: String::new(), next_line: PLAIN_EVERY, face };
        Self { state: Mutex::new(state), total, unit, begun: Instant::now() }
    }

    /// Counts `n` more as done.
    pub fn add(&self, n: u64) {
        self.advance(n, self.begun.elapsed());
    }

    /// Says something beside the count from now on: `fail 0`.
    pub fn note(&self, note: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone_into(&mut state.note);
        if let Face::Bar(bar) = &state.face {
            bar.set_message(note.to_owned());
        }
    }

    /// Prints a line above the bar, or as a plain line; nothing where progress is off.
    pub fn line(&self, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.face {
            Face::Bar(bar) => bar.suspend(|| print_line(&mut std::io::stderr(), text)),
            Face::Plain(out) => print_line(out.as_mut(), text),
            Face::Nothing => {}
        }
    }

    /// Removes the bar. Plain lines end with what was reached.
    pub fn finish(&self) {
        let elapsed = self.begun.elapsed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = self.text(state.done, &state.note, elapsed);
        match core::mem::replace(&mut state.face, Face::Nothing) {
            Face::Bar(bar) => bar.finish_and_clear(),
            Face::Plain(mut out) => print_line(out.as_mut(), &line),
            Face::Nothing => {}
        }
    }

    fn advance(&self, n: u64, elapsed: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = state.done.saturating_add(n);
        let due = elapsed >= state.next_line;
        if due {
            state.next_line = elapsed.saturating_add(PLAIN_EVERY);
        }
        let line = self.text(state.done, &state.note, elapsed);
        match &mut state.face {
            Face::Bar(bar) => bar.inc(n),
            Face::Plain(out) if due => print_line(out.as_mut(), &line),
            Face::Plain(_) | Face::Nothing => {}
        }
    }

    fn text(&self, done: u64, note: &str, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64();
        let per_s = if seconds > 0.0 { to_f64(done) / seconds } else { 0.0 };
        let left = to_f64(self.total.saturating_sub(done));
        let eta = if per_s > 0.0 { format!("{:.0}s", left / per_s) } else { "?".to_owned() };
        let (done, total) = (thousands(done), thousands(self.total));
        let gap = if note.is_empty() { "" } else { "  " };
        format!("{done}/{total} {}  {}/s  ETA {eta}{gap}{note}", self.unit, digits(per_s))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Face::Bar(bar) = &state.face {
            bar.finish_and_clear();
        }
    }
}

fn drawn_bar(total: u64, unit: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = format!(
        "  [{{bar:20}}] {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  ETA {{eta}}  {{msg}}"
    );
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("##-"));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn print_line(out: &mut dyn Write, text: &str) {
    // A closed stderr loses progress lines and nothing else.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_lines_come_every_ten_seconds_and_at_the_end() {
        let out = Shared::default();
        let face = Face::Plain(Box::new(out.clone()));
        let progress = Progress::with_face(face, 4612, "seeds");
        progress.note("fail 0");
        for second in 1..=25 {
            progress.advance(100, Duration::from_secs(second));
        }
        progress.finish();
        progress.finish();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1,000/4,612 seeds  100/s  ETA 36s  fail 0");
        assert_eq!(lines[1], "2,000/4,612 seeds  100/s  ETA 26s  fail 0");
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[2].starts_with("2,500/4,612"));
    }

    #[test]
    fn nothing_is_printed_when_nothing_is_asked_for() {
        let progress = Progress::new(ProgressMode::None, 10, "runs");
        progress.add(10);
        progress.line("text");
        progress.finish();
    }
}
