//! `forebay replay`: runs one failure or one seed again and prints its verdict.

use std::path::PathBuf;

use clap::Args;
use forebay_sim::bugs::Bug;
use forebay_sim::run::{check_settings, run_scenario, scenario_of};
use forebay_sim::scenario::{CASE_SCHEMA, Case};

use super::fuzz::failure_block;
use super::{EXIT_FOUND, EXIT_NONDETERMINISM, Stop, files, say};
use crate::cli::{Format, Global};

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
}

/// Runs it twice: the verdict is the first run's, and the trace hashes must be equal.
///
/// # Errors
///
/// What to say and the exit code: 1 where it still fails, 3 where the two runs differ, 2 for a file that
/// is none.
pub fn replay(global: &Global, args: &ReplayArgs) -> Result<(), Stop> {
    let case = case(args)?;
    let outcome = run_scenario(case.seed, &case.scenario, case.planted());
    let again = run_scenario(case.seed, &case.scenario, case.planted());
    let same = outcome.trace_hash == again.trace_hash;
    if global.format == Format::Json {
        let line = serde_json::to_string(&serde_json::json!({
            "schema": "forebay.replay/1",
            "seed": case.seed,
            "outcome": match (&outcome.violation, same) {
                (_, false) => "nondeterministic",
                (Some(_), true) => "fail",
                (None, true) => "pass",
            },
            "rule": outcome.violation.as_ref().map(|found| found.rule),
            "violation": outcome.violation,
            "trace_hash": format!("{:016x}", outcome.trace_hash),
            "ops": outcome.ops,
            "story": outcome.story,
        }));
        say(&format!("{}\n", line.map_err(Stop::usage)?));
    } else if outcome.violation.is_some() {
        say(&failure_block(&outcome, None));
    } else {
        say(&format!("ok    seed {} passes: {} ops\n", case.seed, outcome.ops));
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

fn case(args: &ReplayArgs) -> Result<Case, Stop> {
    if let Some(file) = &args.file {
        let refused = |detail: String| Stop::usage(format!("{}: {detail}", file.display()));
        return Case::parse(&files::text(file)?).map_err(refused);
    }
    let seed = args.seed.unwrap_or(0);
    check_settings(seed, &args.settings).map_err(Stop::usage)?;
    Ok(Case {
        schema: CASE_SCHEMA.to_owned(),
        seed,
        rule: None,
        bug: args.bug.map(|bug| bug.name().to_owned()),
        scenario: scenario_of(seed, &args.settings),
    })
}
