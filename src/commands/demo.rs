//! `forebay demo`: the shipped experiment, built into the program so that it runs from any folder.

use super::Stop;
use super::grid::Source;
use super::run::run;
use crate::cli::{Global, RunArgs};

const TEXT: &str = include_str!("../../experiments/demo.toml");

/// Runs it.
///
/// # Errors
///
/// As for any run.
pub fn demo(global: &Global, args: &RunArgs, quick: bool) -> Result<(), Stop> {
    let command = if quick { "forebay demo --quick" } else { "forebay demo" };
    let source = Source {
        label: "experiments/demo.toml".to_owned(),
        name: "demo".to_owned(),
        text: TEXT.to_owned(),
        command: command.to_owned(),
        folder: None,
        quick,
    };
    run(global, args, &source)
}
