//! `forebay sweep`: every call on the disk of short scripts fails, in every way, and the process ends at
//! every crash point.
//!
//! What is run follows from the scripts alone, so that `--slice K/N` is the same slice everywhere. A
//! failure's file is there before anything is said about it, and `runs.jsonl` has a row for each run that
//! was made, in the order of their numbers.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use forebay_sim::check::Rule;
use forebay_sim::report::Report;
use forebay_sim::run::Outcome;
use forebay_sim::sweep::{Script, Step, scripts};
use serde::{Deserialize, Serialize};

use super::{EXIT_FOUND, EXIT_INCOMPLETE, EXIT_NOTHING, Stop, complain, interrupt, pool, say};
use crate::cli::{Format, Global};
use crate::number::thousands;
use crate::output::{OutputFile, create_folder, for_each_line, write_file};
use crate::progress::Progress;

/// The schema of a row of `runs.jsonl`.
pub const ROW_SCHEMA: &str = "forebay.sweep-run/1";

/// Flags of `sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// Only scripts whose name, or name/layout, is this one
    #[arg(long, value_name = "SCRIPT")]
    pub only: Option<String>,
    /// Of all runs, each N-th from the K-th on
    #[arg(long, value_name = "K/N", default_value = "1/1", value_parser = slice)]
    pub slice: (usize, usize),
    /// Stop after this many failures
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_fail: u64,
    /// Keep the rows of runs that passed before
    #[arg(long)]
    pub resume: bool,
    /// Where results go; default target/forebay/sweep
    #[arg(long, value_name = "DIR", env = "FOREBAY_OUT")]
    pub out: Option<PathBuf>,
    /// Runs at once; default one per processor
    #[arg(short, long, value_name = "N", env = "FOREBAY_JOBS", value_parser = crate::cli::jobs)]
    pub jobs: Option<usize>,
}

fn slice(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    let sound = parts.filter(|(k, n): &(usize, usize)| (1..=*n).contains(k));
    sound.ok_or_else(|| "allowed: K/N with K from 1 to N".to_owned())
}

/// One run: the script, the number of the run among all, and what it is.
struct Task<'a> {
    script: &'a Script,
    number: usize,
    step: Step,
}

impl Task<'_> {
    fn name(&self) -> String {
        format!("{}: {}", self.script.name, self.step)
    }
}

/// One row of `runs.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRow {
    /// [`ROW_SCHEMA`].
    pub schema: String,
    /// The run's number among those of all scripts that were chosen.
    pub number: usize,
    /// The script and what happened in it.
    pub step: String,
    /// `pass` or `fail`.
    pub outcome: String,
    /// The broken rule.
    pub rule: Option<Rule>,
    /// Hash over everything that happened.
    pub trace_hash: String,
    /// States that crashes left and that were judged.
    pub crash_states: u64,
    /// Faults and crashes by name.
    pub faults: BTreeMap<String, u64>,
}

/// What all runs said together.
#[derive(Default)]
struct Sums {
    /// By number of the run.
    rows: BTreeMap<usize, SweepRow>,
    fired: u64,
    crash_states: u64,
    faults: BTreeMap<String, u64>,
    /// By number of the run, so that what is told does not depend on threads.
    failures: BTreeMap<usize, (String, PathBuf, String)>,
}

/// Runs the sweep.
///
/// # Errors
///
/// What to say and the exit code: 2 where nothing was run or written, 4 where the selection holds no run,
/// 1 where a rule was broken, 6 where the user ended it before the last run.
#[expect(clippy::disallowed_types, reason = "a person's waiting time, outside every world")]
pub fn sweep(global: &Global, args: &SweepArgs) -> Result<(), Stop> {
    let begun = std::time::Instant::now();
    let scripts = scripts().map_err(Stop::usage)?;
    let wanted = |script: &&Script| {
        let base = script.name.split('/').next();
        args.only.as_ref().is_none_or(|only| *only == script.name || Some(&**only) == base)
    };
    let scripts: Vec<&Script> = scripts.iter().filter(wanted).collect();
    if scripts.is_empty() {
        return Err(Stop::with(EXIT_NOTHING, "no script has this name"));
    }
    if global.print_config {
        say(&config(&scripts, args));
        return Ok(());
    }
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("target/forebay/sweep"));
    create_folder(&folder).map_err(Stop::usage)?;
    interrupt::listen();
    let threads = args.jobs.unwrap_or_else(pool::processors);
    let (sums, stop) = (Mutex::new(Sums::default()), AtomicBool::new(false));
    let keep = |number: usize, script: &Script, step: Option<&Step>, outcome: &Outcome| {
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        store(&mut sums, &folder, (number, script, step), outcome);
        if u64::try_from(sums.failures.len()).unwrap_or(u64::MAX) >= args.max_fail {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let tasks = counted(global, &scripts, threads, &keep);
    if interrupt::asked() {
        let line = "interrupted while calls were counted: nothing was run; --resume goes on";
        return Err(Stop::with(EXIT_INCOMPLETE, line));
    }
    let runs = folder.join("runs.jsonl");
    let known = if args.resume { known(&runs, &tasks)? } else { BTreeMap::new() };
    let (k, n) = args.slice;
    let mut tasks = tasks;
    tasks.retain(|task| task.number.rem_euclid(n) == k - 1);
    let whole = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
    sums.lock().unwrap_or_else(PoisonError::into_inner).take_known(known, &tasks);
    let todo: Vec<&Task<'_>> = {
        let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().filter(|task| !sums.rows.contains_key(&task.number)).collect()
    };
    pool::run(global, &todo, threads, |task, progress: &Progress| {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = task.script.run(&task.step);
        let row = row(task, &outcome);
        if global.verbose > 0 {
            progress.line(&format!("{} {}", row.outcome, row.step));
        }
        sums.lock().unwrap_or_else(PoisonError::into_inner).add(row);
        if outcome.violation.is_some() {
            keep(task.number, task.script, Some(&task.step), &outcome);
            progress.note("fail");
        }
    });
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    store_rows(&runs, sums.rows.values())?;
    told(global.format, &sums, (scripts.len(), whole, begun.elapsed().as_secs_f64()));
    ended(&sums, whole)
}

/// How the sweep ends, with so many runs to be made.
fn ended(sums: &Sums, whole: u64) -> Result<(), Stop> {
    let code = match (sums.failures.is_empty(), sums.runs() < whole) {
        (false, _) => EXIT_FOUND,
        (true, true) => EXIT_INCOMPLETE,
        (true, false) => return Ok(()),
    };
    Err(Stop { code, line: None })
}

/// The rows of an earlier sweep that passed, by number. Refuses those of another sweep.
fn known(runs: &Path, tasks: &[Task<'_>]) -> Result<BTreeMap<usize, SweepRow>, Stop> {
    let mut known = BTreeMap::new();
    if !runs.is_file() {
        return Ok(known);
    }
    let read = for_each_line(runs, |_, line| {
        let row: SweepRow = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if tasks.get(row.number).is_none_or(|task| task.name() != row.step) {
            return Err("this row is of other scripts: leave out --resume, or take another --out"
                .to_owned());
        }
        if row.outcome == "pass" {
            known.insert(row.number, row);
        }
        Ok(())
    });
    read.map_err(Stop::usage)?;
    Ok(known)
}

fn row(task: &Task<'_>, outcome: &Outcome) -> SweepRow {
    SweepRow {
        schema: ROW_SCHEMA.to_owned(),
        number: task.number,
        step: task.name(),
        outcome: if outcome.violation.is_some() { "fail" } else { "pass" }.to_owned(),
        rule: outcome.violation.as_ref().map(|violation| violation.rule),
        trace_hash: format!("{:016x}", outcome.trace_hash),
        crash_states: outcome.crash_states,
        faults: outcome.faults.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
    }
}

fn store_rows<'a>(runs: &Path, rows: impl Iterator<Item = &'a SweepRow>) -> Result<(), Stop> {
    let failed = |error: crate::output::OutputError| Stop::with(EXIT_FOUND, error);
    let mut file = OutputFile::create(runs).map_err(failed)?;
    for row in rows {
        let line = serde_json::to_string(row).map_err(Stop::usage)?;
        file.text(&format!("{line}\n")).map_err(failed)?;
    }
    file.finish().map_err(failed)
}

/// The runs of every script, in an order that is always the same. Scripts are counted on all threads.
fn counted<'a>(
    global: &Global,
    scripts: &[&'a Script],
    threads: usize,
    keep: &(impl Fn(usize, &Script, Option<&Step>, &Outcome) + Sync),
) -> Vec<Task<'a>> {
    let quiet = Global { quiet: true, ..global.clone() };
    let counted = Mutex::new(BTreeMap::new());
    let numbered: Vec<(usize, &'a Script)> = (0..).zip(scripts.iter().copied()).collect();
    pool::run(&quiet, &numbered, threads, |(at, script), _| match script.steps() {
        Ok(steps) => {
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.insert(*at, (*script, steps));
        }
        Err(outcome) => keep(*at, script, None, &outcome),
    });
    let counted = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let all = counted
        .into_values()
        .flat_map(|(script, steps)| steps.into_iter().map(move |step| (script, step)));
    (0..).zip(all).map(|(number, (script, step))| Task { script, number, step }).collect()
}

impl Sums {
    fn runs(&self) -> u64 {
        u64::try_from(self.rows.len()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, row: SweepRow) {
        self.crash_states += row.crash_states;
        let errors = row.faults.iter().filter(|(name, _)| !is_crash(name));
        self.fired += u64::from(errors.count() > 0);
        for (name, n) in &row.faults {
            *self.faults.entry(name.clone()).or_default() += n;
        }
        self.rows.insert(row.number, row);
    }

    /// Takes over the rows of these runs.
    fn take_known(&mut self, mut known: BTreeMap<usize, SweepRow>, tasks: &[Task<'_>]) {
        for task in tasks {
            if let Some(row) = known.remove(&task.number) {
                self.add(row);
            }
        }
    }
}

fn is_crash(name: &str) -> bool {
    matches!(name, "power_loss" | "kill")
}

/// Writes a failure's file and remembers what to say.
fn store(
    sums: &mut Sums,
    folder: &Path,
    (number, script, step): (usize, &Script, Option<&Step>),
    outcome: &Outcome,
) {
    let rule = outcome.violation.as_ref().map(|violation| violation.rule);
    let (case, name) = match step {
        Some(step) => (script.case(step, rule), format!("{}: {step}", script.name)),
        None => (script.clean_case(rule), format!("{}: without a fault", script.name)),
    };
    let plain = script.name.replace('/', "-");
    let file = folder.join("failures").join(format!("{plain}-{number}.json"));
    let text = serde_json::to_string_pretty(&case).unwrap_or_default();
    if let Err(error) = write_file(&file, &format!("{text}\n")) {
        complain(&error.to_string());
    }
    let file = std::path::absolute(&file).unwrap_or(file);
    let report = outcome.violation.clone().map(|found| Report::of(&case, found).to_string());
    sums.failures.insert(number, (name, file, report.unwrap_or_default()));
}

fn config(scripts: &[&Script], args: &SweepArgs) -> String {
    let mut text =
        format!("{:<40} # --slice\n", format!("slice = {}/{}", args.slice.0, args.slice.1));
    for script in scripts {
        text.push_str(&format!("{:<40} # {} ops\n", script.name, script.ops()));
    }
    text
}

fn told(format: Format, sums: &Sums, (scripts, whole, elapsed_s): (usize, u64, f64)) {
    if format == Format::Csv {
        let mut text = "number,step,outcome,rule,crash_states,trace_hash\n".to_owned();
        for row in sums.rows.values() {
            let rule = row.rule.map_or_else(String::new, |rule| rule.to_string());
            let SweepRow { number, step, outcome, crash_states, trace_hash, .. } = row;
            text.push_str(&format!(
                "{number},\"{step}\",{outcome},{rule},{crash_states},{trace_hash}\n"
            ));
        }
        return say(&text);
    }
    if format == Format::Json {
        let failures: Vec<serde_json::Value> = sums
            .failures
            .values()
            .map(|(name, file, _)| {
                serde_json::json!({ "step": name, "file": file.display().to_string() })
            })
            .collect();
        let mut text = String::new();
        for row in sums.rows.values() {
            let line = serde_json::to_string(row).unwrap_or_default();
            text.push_str(&format!("{line}\n"));
        }
        say(&text);
        let line = serde_json::json!({
            "schema": "forebay.sweep/1",
            "scripts": scripts,
            "runs": sums.runs(),
            "wanted": whole,
            "with_fault": sums.fired,
            "crash_states": sums.crash_states,
            "faults": sums.faults,
            "elapsed_wall_s": (elapsed_s * 1000.0).round() / 1000.0,
            "failures": failures,
        });
        return say(&format!("{line}\n"));
    }
    for (name, file, block) in sums.failures.values() {
        say(&format!(
            "{block}      step    {name}\nReproduce:  forebay replay {}\n",
            file.display()
        ));
    }
    let of = |crash: bool| -> u64 {
        sums.faults.iter().filter(|(name, _)| is_crash(name) == crash).map(|(_, n)| *n).sum()
    };
    let word = match (sums.failures.is_empty(), sums.runs() < whole) {
        (false, _) => "FAIL",
        (true, true) => "part",
        (true, false) => "ok",
    };
    say(&format!(
        "{word:<5} {} of {} runs of {scripts} scripts in {elapsed_s:.1} s, {} failed\n      \
         {} faults in {} runs, {} crashes, {} crash states judged\n",
        thousands(sums.runs()),
        thousands(whole),
        sums.failures.len(),
        thousands(of(false)),
        thousands(sums.fired),
        thousands(of(true)),
        thousands(sums.crash_states),
    ));
    if word == "part" {
        let left = thousands(whole.saturating_sub(sums.runs()));
        say(&format!("      {left} runs left; --resume goes on from here\n"));
    }
}
