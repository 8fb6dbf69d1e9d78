//! `forebay compare`: two builds, or the arms of one run, on the same seeds.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{EXIT_NOTHING, EXIT_REGRESSION, Stop, files, print, say};
use crate::cli::{Format, Global};
use crate::compare::{self, CSV_HEADER, Comparison, Gate, Terms};
use crate::metric::{self, Metric};
use crate::record::RunRow;
use crate::report::table::{clean, wrap};
use crate::results::provenance;

/// Flags of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// What `run` wrote, a folder of results/, or a file of rows
    pub base: PathBuf,
    /// The same of the other build; without it the arms of BASE are compared with its baseline
    pub new: Option<PathBuf>,
    /// The metrics; default throughput, p99.9, stall time, flushes, write amplification
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = metric::find)]
    pub metric: Vec<&'static Metric>,
    /// Exit 5 where a metric is worse by more than this, and its interval is clear of 0
    #[arg(long, value_name = "METRIC:+N%")]
    pub gate: Vec<Gate>,
    /// The arm that others are compared with; default the experiment's
    #[arg(long, value_name = "ARM", conflicts_with = "new")]
    pub baseline: Option<String>,
}

/// Compares.
///
/// # Errors
///
/// 2 where a file cannot be read, 4 where rows are not comparable, 5 where a gate is broken.
pub fn compare(global: &Global, args: &CompareArgs) -> Result<(), Stop> {
    let terms = terms(args);
    let base = files::compared(&args.base)?;
    let comparison = match &args.new {
        Some(new) => {
            same_host(&args.base, new)?;
            let new = files::compared(new)?;
            let compared = compare::builds(&base, &new, &terms);
            compared.map_err(|refused| Stop::with(EXIT_NOTHING, refused.0))?
        }
        None => arms(args, &base, &terms)?,
    };
    let exact = compare::is_exact(&base);
    match global.format {
        Format::Human => say(&human(&comparison, exact)),
        Format::Csv => {
            let lines: String = comparison.lines.iter().map(compare::csv_line).collect();
            say(&format!("{CSV_HEADER}{lines}"));
        }
        Format::Json => json(args, &comparison)?,
    }
    let broken = !args.gate.is_empty() && !comparison.broken.is_empty();
    if comparison.regressions() > 0 || broken {
        return Err(Stop { code: EXIT_REGRESSION, line: None });
    }
    Ok(())
}

/// The metrics asked for and those of gates, in the order of the list of all.
fn terms(args: &CompareArgs) -> Terms {
    let asked = |metric: &Metric| {
        let usual = args.metric.is_empty() && metric::USUAL.contains(&metric.name);
        let named = args.metric.iter().any(|asked| asked.name == metric.name);
        usual || named || args.gate.iter().any(|gate| gate.metric.name == metric.name)
    };
    let metrics = metric::METRICS.iter().filter(|metric| asked(metric)).collect();
    Terms { metrics, gates: args.gate.clone() }
}

fn arms(args: &CompareArgs, rows: &[RunRow], terms: &Terms) -> Result<Comparison, Stop> {
    let baseline = args.baseline.clone().or_else(|| provenance::baseline(&args.base));
    let baseline = baseline.or_else(|| rows.first().map(|row| row.arm.clone()));
    let baseline = baseline.unwrap_or_default();
    if !rows.iter().any(|row| row.arm == baseline) {
        let mut names: Vec<&str> = rows.iter().map(|row| row.arm.as_str()).collect();
        names.dedup();
        let line = format!("baseline {baseline:?} is no arm; allowed: {}", names.join(", "));
        return Err(Stop::usage(line));
    }
    let lines = compare::arms(rows, &baseline, terms);
    if lines.is_empty() {
        let line = format!("no other arm was asked what {baseline} was: nothing to compare");
        return Err(Stop::with(EXIT_NOTHING, line));
    }
    let notes = vec![format!("Arms against {baseline}, on the same seeds.")];
    Ok(Comparison { lines, notes, broken: Vec::new() })
}

/// Wall-clock rows of two machines compare the machines.
fn same_host(base: &Path, new: &Path) -> Result<(), Stop> {
    if let (Some(base), Some(new)) = (provenance::host(base), provenance::host(new))
        && base != new
    {
        let line = format!("host differs: {base:?} against {new:?}: not comparable");
        return Err(Stop::with(EXIT_NOTHING, line));
    }
    Ok(())
}

fn human(comparison: &Comparison, exact: bool) -> String {
    let mut text = compare::table(&comparison.lines);
    text.push('\n');
    for note in comparison.notes.iter().chain(&compare::notes(&comparison.lines)) {
        text.push_str(&wrap(&clean(note)));
    }
    if !comparison.broken.is_empty() {
        let broken = comparison.broken.join(", ");
        text.push_str(&wrap(&clean(&format!("Passed in the base and not since: {broken}."))));
    }
    let clock = if exact {
        "virtual time: exact, running again will not change it"
    } else {
        "wall-clock time: another run will differ"
    };
    match comparison.regressions() {
        0 => {}
        1 => text.push_str(&format!("1 regression beyond its gate ({clock})\n")),
        many => text.push_str(&format!("{many} regressions beyond their gates ({clock})\n")),
    }
    text
}

fn json(args: &CompareArgs, comparison: &Comparison) -> Result<(), Stop> {
    for line in &comparison.lines {
        print::json(&compare::json_line(line))?;
    }
    print::json(&serde_json::json!({
        "schema": "forebay.compare-summary/1",
        "base": args.base,
        "new": args.new,
        "lines": comparison.lines.len(),
        "regressions": comparison.regressions(),
        "broken": comparison.broken,
        "notes": comparison.notes,
    }))
}
