//! `forebay man`: manual pages, from the same description as the parser.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{EXIT_FOUND, Stop, say};
use crate::cli::Cli;
use crate::output::write_file;

/// Flags of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write forebay.1 and a page of each command here, instead of printing the first
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints or writes pages.
///
/// # Errors
///
/// 1 where a page cannot be written; those before it are complete.
pub fn man(args: &ManArgs) -> Result<(), Stop> {
    let mut all = Cli::command();
    all.build();
    let Some(folder) = &args.out else {
        say(&page(all)?);
        return Ok(());
    };
    let commands = all.get_subcommands().filter(|command| command.get_name() != "help");
    let mut pages: Vec<(String, Command)> = commands
        .map(|command| (format!("forebay-{}", command.get_name()), command.clone()))
        .collect();
    pages.insert(0, ("forebay".to_owned(), all));
    for (name, command) in pages {
        let path = folder.join(format!("{name}.1"));
        write_file(&path, &page(command)?).map_err(|error| Stop::with(EXIT_FOUND, error))?;
    }
    Ok(())
}

/// What every page ends with.
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
0
done, nothing found
.TP
1
a rule broke, a check differs, or a database is damaged
.TP
2
the command line or a file is wrong; nothing was written
.TP
3
one seed gave two trace hashes
.TP
4
the selection holds no run, or rows are not comparable
.TP
5
worse than a gate, with an interval clear of 0
.TP
6
interrupted or out of time; \\-\\-resume goes on
.TP
130
interrupted twice
";

fn page(command: Command) -> Result<String, Stop> {
    let mut page = Vec::new();
    // No date: the same program has the same pages.
    let man = Man::new(command).date("").source(concat!("forebay ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page).map_err(|error| Stop::with(EXIT_FOUND, error))?;
    page.extend_from_slice(EXIT_STATUS.as_bytes());
    Ok(String::from_utf8_lossy(&page).into_owned())
}
