//! `forebay replay`: runs one failure or one seed again and prints its verdict.

use std::path::PathBuf;

use clap::Args;
use forebay_sim::bugs::Bug;
use forebay_sim::report::Report;
use forebay_sim::run::{Outcome, check_settings, scenario_of};
use forebay_sim::scenario::Case;
use forebay_sim::timeline::Timeline;
use forebay_sim::view::{View, Watch};

use super::fuzz::{reproduce, told};
use super::{EXIT_FOUND, EXIT_NONDETERMINISM, Stop, files, say};
use crate::cli::{Format, Global};
use crate::output::write_file;

/// Flags of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// A failure file
    #[arg(required_unless_present = "seed", conflicts_with_all = ["seed", "settings", "bug"])]
    pub file: Option<PathBuf>,
    /// A seed
    #[arg(long, value_name = "N", env = "FOREBAY_SEED")]
    pub seed: Option<u64>,
    /// A setting instead of what the seed draws
    #[arg(short = 's', long = "set", value_name = "KEY=VALUE", value_parser = crate::cli::setting)]
    pub settings: Vec<(String, String)>,
    /// The bug that the seed ran with
    #[arg(long, value_name = "NAME", value_parser = super::fuzz::planted)]
    pub bug: Option<Bug>,
    /// Stop at this virtual time, as reports print it, and show model and disk: 96s, 1.5s, 200ms
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
    /// Write a timeline in virtual time, for Perfetto
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

/// A time in nanoseconds.
fn moment(text: &str) -> Result<u64, String> {
    let refused = || "allowed: a number with s, ms, us or ns behind it".to_owned();
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
    let (number, unit) = text.split_at_checked(digits).ok_or_else(refused)?;
    let decimals = match unit {
        "s" => 9_usize,
        "ms" => 6,
        "us" => 3,
        "ns" => 0,
        _ => return Err(refused()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let known = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    if !known || whole.is_empty() || part.len() > decimals {
        return Err(refused());
    }
    // Zeros behind the decimals make it nanoseconds.
    format!("{whole}{part:0<decimals$}").parse().ok().ok_or_else(refused)
}

/// Runs it twice: the verdict is the first run's, and the trace hashes must be equal.
///
/// # Errors
///
/// What to say and the exit code: 1 where it still fails, 3 where the two runs differ, 2 for a file that
/// is none or a timeline that cannot be written.
pub fn replay(global: &Global, args: &ReplayArgs) -> Result<(), Stop> {
    let case = case(args)?;
    let timeline = args.trace.as_ref().map(|_| Timeline::default());
    let watch = Watch { until: args.until, timeline, ..Watch::default() };
    let (outcome, view) = case.run_watched(&watch);
    let unwatched = Watch { until: args.until, ..Watch::default() };
    let (again, _) = case.run_watched(&unwatched);
    if let (Some(file), Some(timeline)) = (&args.trace, &watch.timeline) {
        write_file(file, &format!("{}\n", timeline.chrome_json())).map_err(Stop::usage)?;
    }
    let same = outcome.trace_hash == again.trace_hash;
    let view = args.until.map(|_| view);
    let report = if same { told(&case, (&outcome, None)) } else { None };
    let report = report.as_deref();
    tell(global.format, (&case, &outcome, report), same, view.as_ref())?;
    if let (Format::Human, Some(_), Some(file)) = (global.format, report, &args.file) {
        say(&reproduce(&std::path::absolute(file).unwrap_or_else(|_| file.clone()), None));
    }
    if !same {
        let line = format!(
            "the same run gave two trace hashes: {:016x} and {:016x}",
            outcome.trace_hash, again.trace_hash
        );
        return Err(Stop::with(EXIT_NONDETERMINISM, line));
    }
    match outcome.violation {
        Some(_) => Err(Stop { code: EXIT_FOUND, line: None }),
        None => Ok(()),
    }
}

fn tell(
    format: Format,
    (case, outcome, report): (&Case, &Outcome, Option<&Report>),
    same: bool,
    view: Option<&View>,
) -> Result<(), Stop> {
    let stopped = view.is_some_and(|view| view.stopped);
    if format == Format::Json {
        let mut line = serde_json::json!({
            "schema": "forebay.replay/1",
            "seed": case.seed,
            "outcome": match (&outcome.violation, same) {
                (_, false) => "nondeterministic",
                (Some(_), true) => "fail",
                (None, true) if stopped => "stopped",
                (None, true) => "pass",
            },
            "rule": outcome.violation.as_ref().map(|found| found.rule),
            "violation": outcome.violation,
            "trace_hash": format!("{:016x}", outcome.trace_hash),
            "ops": outcome.ops,
            "story": outcome.story,
            "report": report,
        });
        if let (Some(view), Some(fields)) = (view, line.as_object_mut()) {
            let view = serde_json::to_value(view).map_err(Stop::usage)?;
            fields.insert("view".to_owned(), view);
        }
        say(&format!("{line}\n"));
        return Ok(());
    }
    if let Some(found) = &outcome.violation {
        let bare = || Report::of(case, found.clone()).to_string();
        say(&report.map_or_else(bare, ToString::to_string));
    } else if !stopped {
        say(&format!("ok    seed {} passes: {} ops\n", case.seed, outcome.ops));
    } else {
        say(&format!("part  seed {}: {} ops\n", case.seed, outcome.ops));
        for line in &outcome.story {
            say(&format!("{line}\n"));
        }
    }
    if let Some(view) = view {
        say(&view.to_string());
    }
    Ok(())
}

fn case(args: &ReplayArgs) -> Result<Case, Stop> {
    if let Some(file) = &args.file {
        let refused = |detail: String| Stop::usage(format!("{}: {detail}", file.display()));
        return Case::parse(&files::text(file)?).map_err(refused);
    }
    let seed = args.seed.unwrap_or(0);
    check_settings(seed, &args.settings).map_err(Stop::usage)?;
    Ok(Case::new(seed, scenario_of(seed, &args.settings), args.bug))
}
