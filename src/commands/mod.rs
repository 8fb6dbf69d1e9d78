//! What each command does. stdout carries results, stderr everything else.

pub mod bless;
pub mod branches;
pub mod calibrate;
pub mod compare;
pub mod completions;
pub mod demo;
pub mod detach;
pub mod failure;
mod files;
pub mod fuzz;
mod grid;
pub mod inspect;
mod interrupt;
pub mod keep;
pub mod list;
pub mod man;
pub mod model;
mod pool;
mod print;
pub mod repair;
pub mod replay;
pub mod report;
pub mod run;
pub mod shell;
mod store;
pub mod sweep;
mod tables;
pub mod verify;

use std::io::{self, StdoutLock, Write};

use serde::Serialize;

use crate::color;

/// Nothing was found wrong with the engine, but a row or a check differs.
pub const EXIT_FOUND: u8 = 1;
/// The command line or a file is wrong. Nothing was run or written.
pub const EXIT_USAGE: u8 = 2;
/// The same seed gave two trace hashes.
pub const EXIT_NONDETERMINISM: u8 = 3;
/// The selection holds no run, or what is to be compared is not comparable.
pub const EXIT_NOTHING: u8 = 4;
/// A metric regressed beyond its gate, and its interval is clear of 0.
pub const EXIT_REGRESSION: u8 = 5;
/// Interrupted, to be resumed.
pub const EXIT_INCOMPLETE: u8 = 6;

/// Why a command ends with another code than 0, and what it says about it on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The exit code.
    pub code: u8,
    /// One line; `None` where everything was said.
    pub line: Option<String>,
}

impl Stop {
    /// The command line or a file is wrong.
    pub fn usage(line: impl core::fmt::Display) -> Self {
        Self { code: EXIT_USAGE, line: Some(line.to_string()) }
    }

    /// Ends with a code and a line.
    pub fn with(code: u8, line: impl core::fmt::Display) -> Self {
        Self { code, line: Some(line.to_string()) }
    }
}

/// A line on stderr. A closed stderr loses it and nothing else.
pub fn complain(line: &str) {
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}

/// A report on stdout, as one JSON object or as `show` writes it for people. A reader that went away
/// has seen what it wanted.
pub(crate) fn print_report<R: Serialize>(
    report: &R,
    json: bool,
    show: impl FnOnce(&R, &mut StdoutLock<'static>) -> io::Result<()>,
) {
    let mut out = io::stdout().lock();
    let told = if json {
        serde_json::to_writer(&mut out, report).map_err(Into::into).and_then(|()| writeln!(out))
    } else {
        show(report, &mut out)
    };
    told.unwrap_or_default();
}

/// Text on stdout, in colour where that is wanted; a reader that went away has seen enough.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    out.write_all(color::paint(text).as_bytes()).and_then(|()| out.flush()).unwrap_or_default();
}
