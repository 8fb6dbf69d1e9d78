//! `forebay sweep`: every call on the disk of short scripts fails, in every way, and the process ends at
//! every crash point.
//!
//! What is run follows from the scripts alone, so that `--slice K/N` is the same slice everywhere. A
//! failure's file is there before anything is said about it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use forebay_sim::report::Report;
use forebay_sim::run::Outcome;
use forebay_sim::sweep::{Script, Step, scripts};

use super::{EXIT_FOUND, EXIT_INCOMPLETE, EXIT_NOTHING, Stop, complain, interrupt, pool, say};
use crate::cli::{Format, Global};
use crate::number::thousands;
use crate::output::{create_folder, write_file};
use crate::progress::Progress;

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
    /// Where failures go; default target/forebay/sweep
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

/// What all runs said together.
#[derive(Default)]
struct Sums {
    runs: u64,
    fired: u64,
    crash_states: u64,
    faults: BTreeMap<&'static str, u64>,
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
    let (k, n) = args.slice;
    let tasks: Vec<Task<'_>> =
        tasks.into_iter().filter(|task| task.number.rem_euclid(n) == k - 1).collect();
    pool::run(global, &tasks, threads, |task, progress: &Progress| {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = task.script.run(&task.step);
        let mut all = sums.lock().unwrap_or_else(PoisonError::into_inner);
        all.add(&outcome);
        drop(all);
        if outcome.violation.is_some() {
            keep(task.number, task.script, Some(&task.step), &outcome);
            progress.note("fail");
        }
    });
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    let whole = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
    told(global.format, &sums, (scripts.len(), whole, begun.elapsed().as_secs_f64()));
    let code = match (sums.failures.is_empty(), sums.runs < whole) {
        (false, _) => EXIT_FOUND,
        (true, true) => EXIT_INCOMPLETE,
        (true, false) => return Ok(()),
    };
    Err(Stop { code, line: None })
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
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.crash_states += outcome.crash_states;
        let errors = outcome.faults.iter().filter(|(name, _)| !is_crash(name));
        self.fired += u64::from(errors.count() > 0);
        for (name, n) in &outcome.faults {
            *self.faults.entry(name).or_default() += n;
        }
    }
}

fn is_crash(name: &str) -> bool {
    matches!(name, "power_loss" | "kill")
}

/// Writes a failure's file and remembers what to say.
fn store(
    sums: &mut Sums,
    folder: &std::path::Path,
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
    if format == Format::Json {
        let failures: Vec<serde_json::Value> = sums
            .failures
            .values()
            .map(|(name, file, _)| {
                serde_json::json!({ "step": name, "file": file.display().to_string() })
            })
            .collect();
        let line = serde_json::json!({
            "schema": "forebay.sweep/1",
            "scripts": scripts,
            "runs": sums.runs,
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
    let word = match (sums.failures.is_empty(), sums.runs < whole) {
        (false, _) => "FAIL",
        (true, true) => "part",
        (true, false) => "ok",
    };
    say(&format!(
        "{word:<5} {} of {} runs of {scripts} scripts in {elapsed_s:.1} s, {} failed\n      \
         {} faults in {} runs, {} crashes, {} crash states judged\n",
        thousands(sums.runs),
        thousands(whole),
        sums.failures.len(),
        thousands(of(false)),
        thousands(sums.fired),
        thousands(of(true)),
        thousands(sums.crash_states),
    ));
}
