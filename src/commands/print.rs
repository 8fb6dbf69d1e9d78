//! What `run` and `demo` say on stdout: settings, rows, a table, a summary.

use std::path::Path;

use serde::Serialize;

use super::{Stop, say};
use crate::cli::Format;
use crate::compare::{self, Terms};
use crate::estimate::Estimate;
use crate::experiment::{Experiment, Origin, Resolved};
use crate::outcome::{RunOutput, Task};
use crate::record::{LatencyNs, Outcome, RunRow, World};
use crate::report::against;
use crate::report::summary::{ArmSummary, summaries, write_amplification};
use crate::report::table;
use crate::scale::{self, ScaleFact};
use crate::text::append;

/// The settings with the origin of each.
pub(super) fn config(format: Format, experiment: &Experiment, label: &str) -> Result<(), Stop> {
    let origin = |resolved: &Resolved| match resolved.origin {
        Origin::Default => "default".to_owned(),
        Origin::File(line) => format!("{label}:{line}"),
        Origin::Quick(line) => format!("{label}:{line} [quick]"),
        Origin::Flag => "-s".to_owned(),
    };
    match format {
        Format::Human => {
            let mut text = format!("{:<40} # {label}\n", format!("seeds = {}", experiment.seeds));
            for resolved in &experiment.resolved {
                let values = resolved.values.join(", ");
                let line = format!("{} = {values}", resolved.key);
                append(&mut text, format_args!("{line:<40} # {}\n", origin(resolved)));
            }
            say(&text);
        }
        Format::Csv => {
            let mut text = "key,values,origin\n".to_owned();
            for resolved in &experiment.resolved {
                let values = resolved.values.join(" ");
                append(&mut text, format_args!("{},{values},{}\n", resolved.key, origin(resolved)));
            }
            say(&text);
        }
        Format::Json => {
            #[derive(Serialize)]
            struct Setting<'a> {
                key: &'a str,
                values: &'a [String],
                origin: String,
            }
            let settings: Vec<_> = experiment
                .resolved
                .iter()
                .map(|r| Setting { key: &r.key, values: &r.values, origin: origin(r) })
                .collect();
            json(&serde_json::json!({
                "schema": "forebay.config/1",
                "experiment": experiment.name,
                "seeds": experiment.seeds.to_string(),
                "settings": settings,
            }))?;
        }
    }
    Ok(())
}

pub(super) fn json(value: &impl Serialize) -> Result<(), Stop> {
    let line = serde_json::to_string(value).map_err(Stop::usage)?;
    say(&format!("{line}\n"));
    Ok(())
}

/// The line that says what runs.
pub(super) fn heading(experiment: &Experiment, world: &str, tasks: usize) -> String {
    format!(
        "{}  config xxh3:{}  seeds {}  {} arms, {tasks} runs  world {}\n",
        experiment.name,
        experiment.config_hash(),
        experiment.seeds,
        experiment.arms.len(),
        world
    )
}

/// The ratios of the machine asked about and the one run, with the broken ones named.
pub(super) fn scale_lines(facts: &[ScaleFact]) -> Vec<String> {
    let mut lines = scale::lines(facts);
    let broken = facts.iter().filter(|fact| fact.broken).count();
    if broken > 0 {
        lines.push(format!(
            "  {broken} of {} differ by more than 2x (broken): claims that rest on them do not carry over",
            facts.len()
        ));
    }
    lines
}

/// One run that would be made.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub(super) run_id: &'a str,
    pub(super) arm: &'a str,
    pub(super) seed: u64,
    pub(super) world: &'a str,
    pub(super) replay: &'a str,
}

impl<'a> Planned<'a> {
    pub(super) fn of_task(task: &'a Task) -> Self {
        let row = &task.row;
        Self {
            run_id: &row.run_id,
            arm: &task.arm,
            seed: row.seed,
            world: row.world.name(),
            replay: &row.replay,
        }
    }
}

/// What would run, and about how long that takes with so many jobs.
pub(super) fn plan(
    format: Format,
    experiment: &Experiment,
    tasks: &[Planned<'_>],
    (scale, estimate): (&[String], Option<(Estimate, usize)>),
) -> Result<(), Stop> {
    match format {
        Format::Json => {
            for task in tasks {
                json(&serde_json::json!({
                    "schema": "forebay.plan/1", "run_id": task.run_id, "arm": task.arm,
                    "seed": task.seed, "world": task.world, "replay": task.replay,
                }))?;
            }
            json(&serde_json::json!({
                "schema": "forebay.plan-summary/1", "experiment": experiment.name,
                "arms": experiment.arms.len(), "runs": tasks.len(),
                "estimated_s": estimate.map(|(all, _)| all.ns.div_ceil(1_000_000_000)),
                "unknown_runs": estimate.map(|(all, _)| all.unknown),
            }))?;
        }
        Format::Csv => {
            let mut text = "run_id,arm,seed\n".to_owned();
            for task in tasks {
                append(&mut text, format_args!("{},{},{}\n", task.run_id, task.arm, task.seed));
            }
            say(&text);
        }
        Format::Human => {
            let world = tasks.first().map_or(World::Sim.name(), |task| task.world);
            let mut text = heading(experiment, world, tasks.len());
            if let Some((all, jobs)) = estimate {
                append(&mut text, format_args!("{}\n", all.line(jobs)));
            }
            text.push_str(&block(scale));
            for task in tasks {
                append(
                    &mut text,
                    format_args!("{}  seed {:<6} {}\n", task.run_id, task.seed, task.arm),
                );
            }
            say(&text);
        }
    }
    Ok(())
}

fn block(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    if !lines.is_empty() {
        text.push('\n');
    }
    text
}

/// What ran.
#[derive(Debug)]
pub(super) struct Results<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) world: World,
    pub(super) outputs: &'a [&'a RunOutput],
    pub(super) planned: usize,
    pub(super) facts: &'a [ScaleFact],
    pub(super) folder: &'a Path,
    pub(super) page: &'a Path,
}

/// Prints it: for people the path of the page comes last, for programs the summary.
pub(super) fn results(format: Format, results: &Results<'_>) -> Result<(), Stop> {
    let rows: Vec<RunRow> = results.outputs.iter().map(|output| output.row.clone()).collect();
    match format {
        Format::Human => say(&human(results, &rows)),
        Format::Csv => say(&csv(&rows)),
        Format::Json => {
            for row in &rows {
                say(&row.to_line().map_err(Stop::usage)?);
            }
            json(&summary(results, &rows))?;
        }
    }
    Ok(())
}

fn human(results: &Results<'_>, rows: &[RunRow]) -> String {
    let mut text = heading(results.experiment, results.world.name(), results.planned);
    text.push_str(&block(&scale_lines(results.facts)));
    text.push_str(&table::render(rows));
    if let Some(baseline) = results.experiment.baseline_arm() {
        text.push_str(&against::render(rows, &baseline.name, &results.experiment.metrics));
    }
    for output in results.outputs {
        if let Some(failure) = &output.failure {
            let row = &output.row;
            append(
                &mut text,
                format_args!("{}  {}  {}\n", row.outcome.name(), row.arm, first_line(failure)),
            );
            for line in failure.lines().skip(1) {
                append(&mut text, format_args!("      {line}\n"));
            }
            append(&mut text, format_args!("Reproduce:  {}\n", row.replay));
        }
    }
    append(&mut text, format_args!("\n{}\n", results.page.display()));
    text
}

/// Most letters of a failure beside its arm.
const FAILURE_CHARS: usize = 72;

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(FAILURE_CHARS).collect()
}

fn summary(results: &Results<'_>, rows: &[RunRow]) -> serde_json::Value {
    let arms = summaries(rows);
    let passed = rows.iter().filter(|row| row.outcome == Outcome::Pass).count();
    let of_passed = || arms.iter().filter(|arm| arm.passed > 0);
    let name = |arm: Option<&ArmSummary>| arm.map(|arm| arm.arm.clone());
    serde_json::json!({
        "schema": "forebay.summary/1",
        "experiment": results.experiment.name,
        "world": results.world,
        "config_hash": results.experiment.config_hash(),
        "seeds": results.experiment.seeds.to_string(),
        "arms": arms.len(),
        "runs": rows.len(),
        "planned": results.planned,
        "passed": passed,
        "failed": rows.len().saturating_sub(passed),
        "best": name(of_passed().min_by(|a, b| a.rank(b))),
        "worst": name(of_passed().max_by(|a, b| a.rank(b))),
        "verdict": table::verdict(&arms),
        "against_baseline": against_baseline(results, rows),
        "scale": results.facts,
        "out": results.folder.display().to_string(),
        "report": results.page.display().to_string(),
    })
}

/// The experiment's metrics of each arm against the baseline, where several seeds can be paired.
fn against_baseline(results: &Results<'_>, rows: &[RunRow]) -> Vec<serde_json::Value> {
    let Some(baseline) = results.experiment.baseline_arm() else { return Vec::new() };
    let terms = Terms { metrics: results.experiment.metrics.clone(), gates: Vec::new() };
    let lines = compare::arms(rows, &baseline.name, &terms);
    lines.iter().filter(|line| line.paired.pairs > 1).map(compare::json_line).collect()
}

fn csv(rows: &[RunRow]) -> String {
    let mut text = "run_id,arm,seed,world,outcome,ops,elapsed_ns,offered_ops_per_s,ops_per_s,\
        write_p50_ns,write_p99_ns,write_p999_ns,write_max_ns,read_p50_ns,read_p99_ns,read_p999_ns,\
        read_max_ns,stall_ns,flush_count,table_p50_bytes,user_bytes,write_amplification,\
        wal_retained_bytes_max,memtable_bytes_max_seen,stranded_bytes,jain\n"
        .to_owned();
    for row in rows {
        let latency = |l: &LatencyNs| format!("{},{},{},{}", l.p50, l.p99, l.p999, l.max);
        append(
            &mut text,
            format_args!(
                "{},\"{}\",{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n",
                row.run_id,
                row.arm.replace('"', "\"\""),
                row.seed,
                row.world.name(),
                row.outcome.name(),
                row.ops,
                row.elapsed_ns,
                row.offered_ops_per_s,
                row.ops_per_s,
                latency(&row.write_latency_ns),
                latency(&row.read_latency_ns),
                row.stall_ns.total(),
                row.flush_count,
                row.table_bytes.p50,
                row.user_bytes,
                write_amplification(row),
                row.wal_retained_bytes_max,
                row.memtable_bytes_max_seen,
                row.stranded_bytes,
                row.jain,
            ),
        );
    }
    text
}
