//! `forebay completions`: a script for a shell, from the same description as the parser.

use clap::CommandFactory;

use super::Stop;
use crate::cli::Cli;

/// Prints the script.
///
/// # Errors
///
/// None.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut script);
    super::say(&String::from_utf8_lossy(&script));
    Ok(())
}
