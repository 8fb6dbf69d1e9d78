//! The command line: names, flags, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::color;
use crate::commands::{
    self, Stop, bless, branches, calibrate, compare, detach, fuzz, inspect, keep, man, model,
    repair, replay, report, shell, sweep, verify,
};
use crate::experiment::Seeds;
use crate::progress::ProgressMode;
use crate::record::World;

/// Compares memtable flush and stall policies of multi-tenant LSM engines.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, propagate_version = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// How results are printed on stdout
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,
    /// Whether verdicts on stdout are coloured; auto: on a terminal, unless the environment refuses
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: Color,
    /// How progress is shown on stderr
    #[arg(long, global = true, value_enum, default_value_t, env = "FOREBAY_PROGRESS")]
    pub progress: ProgressMode,
    /// No progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// A line on stderr for each run
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print the resolved settings with the origin of each, and do nothing else
    #[arg(long, global = true)]
    pub print_config: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One compact object a line, the summary last.
    Json,
    /// A header and a line for each run.
    Csv,
}

/// Whether output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where stdout is a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the shipped experiment: a table, then a page
    Demo {
        /// The same path in seconds: fewer tenants, fills and arms
        #[arg(long)]
        quick: bool,
        /// What `run` takes too.
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run an experiment file
    Run {
        /// The experiment
        file: PathBuf,
        /// What `demo` takes too.
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run an experiment's flush policies on sizes alone, at the size that it is about
    Model(model::ModelArgs),
    /// Probe a disk for some seconds: the device table of experiment files that describes it
    Calibrate(calibrate::CalibrateArgs),
    /// Run random scenarios with faults against the reference model
    Fuzz(fuzz::FuzzArgs),
    /// Fail every call on the disk of short scripts, in every way and at every crash point
    Sweep(sweep::SweepArgs),
    /// Run one failure, or one seed, again
    Replay(replay::ReplayArgs),
    /// Compare runs on the same seeds: by how much each metric differs, and whether that is chance
    Compare(compare::CompareArgs),
    /// Tables, figures and a page of the rows of a folder, or whether they still are what they make
    Report(report::ReportArgs),
    /// Make a finished run committed results
    Bless(bless::BlessArgs),
    /// Make a failure file a regression test
    Keep(keep::KeepArgs),
    /// Run lines on stdin against a database on disk, one JSON object each
    Shell(shell::ShellArgs),
    /// Print what lies in a database directory, damaged or not
    Inspect(inspect::InspectArgs),
    /// Fork a branch: a name for all it holds, in constant time
    Fork(branches::ForkArgs),
    /// Copy all, or one branch, into a directory of its own, by links where that is possible
    ForkTo(detach::ForkToArgs),
    /// Take in the tenants of another directory
    Import(detach::ImportArgs),
    /// List branches: who was forked from whom, and what each holds
    Branches(branches::BranchesArgs),
    /// Check everything in a database directory
    Verify(verify::VerifyArgs),
    /// Make a damaged database directory open again; deletes nothing
    Repair(repair::RepairArgs),
    /// List what settings may name
    List {
        /// What to list
        #[arg(value_enum)]
        what: ListKind,
    },
    /// Print the manual page, or write one of each command
    Man(man::ManArgs),
    /// Print a completion script
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Flags of every command that runs the arms of an experiment.
#[derive(Clone, Debug, Default, Args)]
pub struct GridArgs {
    /// Where results go; default target/forebay/NAME
    #[arg(long, value_name = "DIR", env = "FOREBAY_OUT")]
    pub out: Option<PathBuf>,
    /// Seeds instead of the file's
    #[arg(long, value_name = "A..B", env = "FOREBAY_SEEDS")]
    pub seeds: Option<Seeds>,
    /// A setting instead of the file's; an axis becomes that one value
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Runs at once; default one per processor, on a real disk one
    #[arg(short, long, value_name = "N", env = "FOREBAY_JOBS", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Keep the runs that the folder already holds
    #[arg(long)]
    pub resume: bool,
    /// Of the seeds only these
    #[arg(long, value_name = "A..B")]
    pub only_seeds: Option<Seeds>,
    /// Show what would run, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `run` and `demo`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// What `model` takes too.
    #[command(flatten)]
    pub grid: GridArgs,
    /// Where the engine runs
    #[arg(long, value_enum, default_value_t)]
    pub world: WorldArg,
    /// Compare with the stored rows beside the file, or in DIR, and write nothing
    #[arg(long)]
    pub check_raw: bool,
    /// A timeline of each arm's first seed for Perfetto, of all tenants; up to 100 MB
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The operations of the one run that is selected, for the workload `trace` to replay
    #[arg(long, value_name = "FILE")]
    pub record_ops: Option<PathBuf>,
}

/// Where the engine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WorldArg {
    /// Simulated: virtual time.
    #[default]
    Sim,
    /// A temporary folder on a real disk.
    Os,
}

impl From<WorldArg> for World {
    fn from(world: WorldArg) -> Self {
        match world {
            WorldArg::Sim => Self::Sim,
            WorldArg::Os => Self::Os,
        }
    }
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListKind {
    /// Flush policies.
    Flush,
    /// Stall policies.
    Stall,
    /// Compaction policies.
    Compaction,
    /// Layouts.
    Layout,
    /// Workloads.
    Workload,
    /// Device presets.
    Device,
    /// Planted bugs.
    Bug,
}

/// The result of a command that said everything itself.
fn ended(code: u8) -> Result<(), Stop> {
    if code == 0 { Ok(()) } else { Err(Stop { code, line: None }) }
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("allowed: KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub(crate) fn jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse::<usize>().ok().filter(|jobs| (1..=1024).contains(jobs));
    jobs.ok_or_else(|| "allowed: 1 to 1024".to_owned())
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // The line names flag, value and what is allowed; usage would only hide it.
        Err(error) if error.kind() == ErrorKind::ValueValidation => {
            commands::complain(error.to_string().lines().next().unwrap_or_default());
            return ExitCode::from(commands::EXIT_USAGE);
        }
        Err(error) => error.exit(),
    };
    let global = &cli.global;
    color::choose(global.color, global.format);
    let result = match &cli.command {
        Command::Demo { quick, run } => commands::demo::demo(global, run, *quick),
        Command::Run { file, run } => commands::run::run_file(global, run, file),
        Command::Model(args) => model::model(global, args),
        Command::Calibrate(args) => calibrate::calibrate(global, args),
        Command::Fuzz(args) => fuzz::fuzz(global, args),
        Command::Sweep(args) => sweep::sweep(global, args),
        Command::Replay(args) => replay::replay(global, args),
        Command::Compare(args) => compare::compare(global, args),
        Command::Report(args) => report::report(global, args),
        Command::Bless(args) => bless::bless(global, args),
        Command::Keep(args) => keep::keep(args),
        Command::Shell(args) => ended(shell::run(args)),
        Command::Inspect(args) => ended(inspect::run(args, global.format == Format::Json)),
        Command::Fork(args) => branches::fork(args, global.format),
        Command::ForkTo(args) => detach::fork_to(args, global.format),
        Command::Import(args) => detach::import(args, global.format),
        Command::Branches(args) => branches::branches(args, global.format),
        Command::Verify(args) => verify::run(args, (global.format == Format::Json, global.quiet)),
        Command::Repair(args) => repair::run(args, global.format == Format::Json),
        Command::List { what } => commands::list::list(global, *what),
        Command::Man(args) => man::man(args),
        Command::Completions { shell } => commands::completions::completions(*shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { code, line }) => {
            if let Some(line) = line {
                commands::complain(&line);
            }
            ExitCode::from(code)
        }
    }
}
