//! The command line.
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forebay::commands::{inspect, shell};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How results are printed
    #[arg(long, global = true, value_parser = ["human", "json"], default_value = "human")]
    format: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs lines on stdin against a database on disk, one JSON object each
    Shell(shell::ShellArgs),
    /// Prints what lies in a database directory, damaged or not
    Inspect(inspect::InspectArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(match &cli.command {
        Command::Shell(args) => shell::run(args),
        Command::Inspect(args) => inspect::run(args, cli.format == "json"),
    })
}
