//! `forebay run`: every arm of an experiment on every seed, then a table and a page.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use forebay_engine::types::to_u64;
use forebay_workloads::trace::TRACE_OPS_MAX;
use forebay_workloads::{Workload, write_trace as write_ops};

use super::grid::{self, Source};
use super::print::{self, Planned, Results};
use super::store::Store;
use super::{EXIT_FOUND, EXIT_INCOMPLETE, Stop, files, interrupt, pool};
use crate::cli::{Format, Global, RunArgs};
use crate::driver::Recording;
use crate::estimate::{self, Estimate};
use crate::experiment::Experiment;
use crate::number::Thousandths;
use crate::outcome::{RunOutput, Task};
use crate::output::{OutputError, OutputFile, create_folder, write_file};
use crate::record::{Outcome, RunRow, World};
use crate::report::{self, ReportInput};
use crate::results::{self, Provenance, cells, provenance};
use crate::scale::{self, ScaleFact};
use crate::text::append;
use crate::trace::{TRACE_BYTES_MAX, write_trace};

/// Events of all runs together that a trace may have: what fits in its bytes, and in memory.
const TRACE_EVENTS_MAX: usize = 600_000;

/// Events that each arm of a trace may have, whatever their number.
const ARM_EVENTS_MIN: usize = 12_000;

/// Runs an experiment file.
///
/// # Errors
///
/// What to say and the exit code: 2 where nothing was run or written, 1 where a run did not pass, 4
/// where no run is selected, 6 where it was interrupted.
pub fn run_file(global: &Global, args: &RunArgs, file: &Path) -> Result<(), Stop> {
    let source = Source::of_file("run", file)?;
    run(global, args, &source)
}

/// Everything that a command line and a file decide.
struct Job<'a> {
    global: &'a Global,
    args: &'a RunArgs,
    source: &'a Source,
    experiment: Experiment,
    world: World,
    /// Every run of the experiment, in order.
    plan: Vec<Task>,
    /// Those that `--only-seeds` leaves.
    selected: Vec<Task>,
    folder: PathBuf,
}

/// Runs an experiment.
pub(super) fn run(global: &Global, args: &RunArgs, source: &Source) -> Result<(), Stop> {
    let job = Job::new(global, args, source)?;
    if global.print_config {
        return print::config(global.format, &job.experiment, &source.label);
    }
    if args.grid.dry_run {
        let facts = facts(&job.experiment, &[])?;
        let lines = print::scale_lines(&facts);
        let planned: Vec<Planned<'_>> = job.selected.iter().map(Planned::of_task).collect();
        let estimate = Some((job.estimate(), job.threads()));
        return print::plan(global.format, &job.experiment, &planned, (&lines, estimate));
    }
    job.can_record()?;
    interrupt::listen();
    if args.check_raw {
        return job.check_raw();
    }
    create_folder(&job.folder).map_err(|error| Stop::usage(one_line(&error)))?;
    let order = job.plan.iter().map(|task| task.row.run_id.clone()).collect();
    let mut store = Store::new(&job.folder, job.world, order);
    if args.grid.resume {
        store.resume().map_err(|error| Stop::usage(one_line(&error)))?;
    }
    let todo: Vec<Task> =
        job.selected.iter().filter(|task| !store.holds(&task.row.run_id)).cloned().collect();
    let store = Mutex::new(store);
    let broken: Mutex<Option<OutputError>> = Mutex::new(None);
    job.execute(&todo, |output| {
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = store.add(output) {
            broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    });
    if let Some(error) = broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(Stop::with(EXIT_FOUND, one_line(&error)));
    }
    job.finish(store.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The scale block, with the write amplification of the arm that others are compared with.
pub(super) fn facts(experiment: &Experiment, rows: &[RunRow]) -> Result<Vec<ScaleFact>, Stop> {
    let (Some(full), Some(arm)) = (&experiment.full, experiment.baseline_arm()) else {
        return Ok(Vec::new());
    };
    let row = rows.iter().find(|row| row.arm == arm.name && row.outcome == Outcome::Pass);
    let amplification = row.map(|row| {
        let written = row.written_bytes.flush.saturating_add(row.written_bytes.compaction);
        Thousandths::ratio(u128::from(written), u128::from(row.user_bytes)).to_f64()
    });
    scale::facts(full, &arm.config, amplification).map_err(Stop::usage)
}

impl<'a> Job<'a> {
    fn new(global: &'a Global, args: &'a RunArgs, source: &'a Source) -> Result<Self, Stop> {
        let experiment = source.experiment(&args.grid)?;
        let world = World::from(args.world);
        let command = source.command(&args.grid, &experiment);
        let mut plan = Vec::new();
        let share = TRACE_EVENTS_MAX.checked_div(experiment.arms.len()).unwrap_or(0);
        let recording = match args.trace {
            Some(_) => Recording::Everybody(share.max(ARM_EVENTS_MIN)),
            None => Recording::Busiest,
        };
        let first_seed = experiment.seeds.iter().next();
        for seed in experiment.seeds.iter() {
            for arm in &experiment.arms {
                let mut task = Task::new(&experiment, arm, (seed, world), &command);
                if Some(seed) == first_seed {
                    task.recording = recording;
                }
                plan.push(task);
            }
        }
        let selected = grid::selected(&plan, (&args.grid, &experiment), |task| task.row.seed)?;
        let folder = source.results(&args.grid);
        Ok(Self { global, args, source, experiment, world, plan, selected, folder })
    }

    /// Runs at a time.
    fn threads(&self) -> usize {
        // Runs on a real disk beside each other would measure each other.
        let default = if self.world == World::Os { 1 } else { pool::processors() };
        self.args.grid.jobs.unwrap_or(default)
    }

    /// How long the selected runs take; seeds of an arm are alike.
    fn estimate(&self) -> Estimate {
        let mut estimate = Estimate::default();
        let mut last: Option<(&str, Option<u64>)> = None;
        let mut tasks: Vec<&Task> = self.selected.iter().collect();
        tasks.sort_by(|a, b| a.arm.cmp(&b.arm));
        for task in tasks {
            let known = last.filter(|(arm, _)| *arm == task.arm);
            let run_ns = known.map_or_else(
                || estimate::run_ns(&task.config, task.row.seed, self.world),
                |(_, run_ns)| run_ns,
            );
            estimate = estimate.with(run_ns);
            last = Some((&task.arm, run_ns));
        }
        estimate
    }

    /// Runs tasks, handing on each output as it comes.
    fn execute(&self, tasks: &[Task], each: impl Fn(RunOutput) + Sync) {
        pool::run(self.global, tasks, self.threads(), |task, progress| {
            progress.note(&task.arm);
            let output = task.run();
            if self.global.verbose > 0 || output.failure.is_some() {
                progress.line(&told(&output));
            }
            each(output);
        });
    }

    /// Writes what there is and says it.
    fn finish(&self, mut store: Store) -> Result<(), Stop> {
        let failed = |error: OutputError| Stop::with(EXIT_FOUND, one_line(&error));
        store.save().map_err(failed)?;
        self.keep_origin(&store).map_err(failed)?;
        let outputs = store.outputs();
        if let Some(path) = &self.args.trace {
            let events: Vec<_> = outputs.iter().filter_map(|o| o.events.as_ref()).collect();
            let cut = write_trace(path, &events, TRACE_BYTES_MAX).map_err(failed)?;
            if let Some(at_ns) = cut {
                let at = crate::number::duration(at_ns);
                let path = path.display();
                super::complain(&format!(
                    "{path}: truncated at vt={at}; fewer arms have more room"
                ));
            }
        }
        if let Some(path) = &self.args.record_ops {
            self.record(path, &outputs)?;
        }
        let rows: Vec<RunRow> = outputs.iter().map(|output| output.row.clone()).collect();
        let facts = facts(&self.experiment, &rows)?;
        let page = store.page(self.report(&facts)).map_err(failed)?;
        let results = Results {
            experiment: &self.experiment,
            world: self.world,
            outputs: &outputs,
            planned: self.plan.len(),
            facts: &facts,
            folder: &self.folder,
            page: &page,
        };
        print::results(self.global.format, &results)?;
        grid::complete(&self.selected, |task| store.holds(&task.row.run_id))?;
        if rows.iter().any(|row| row.outcome != Outcome::Pass) {
            return Err(Stop { code: EXIT_FOUND, line: None });
        }
        Ok(())
    }

    /// Refuses to record what is more than one stream of operations.
    fn can_record(&self) -> Result<(), Stop> {
        if self.args.record_ops.is_none() {
            return Ok(());
        }
        let refused = |what: String| Err(Stop::usage(format!("--record-ops {what}")));
        let [task] = self.selected.as_slice() else {
            let runs = self.selected.len();
            return refused(format!("records one run, but {runs} are selected: see --only-seeds"));
        };
        let workload = Workload::new(task.config.workload_spec(task.row.seed));
        let workload = workload.map_err(Stop::usage)?;
        if workload.flat_out().is_some() || workload.churn().is_some() {
            return refused("records no tenant flat out and no visitors".to_owned());
        }
        if task.config.two_phase_percent > 0 || task.config.fork_interval_ns > 0 {
            return refused("records no run of two phases and none with forks".to_owned());
        }
        Ok(())
    }

    /// Writes what the selected run asked for: what its workload yields, as far as the run came.
    fn record(&self, path: &Path, outputs: &[&RunOutput]) -> Result<(), Stop> {
        let [task] = self.selected.as_slice() else { return Ok(()) };
        let of_task = outputs.iter().find(|output| output.row.run_id == task.row.run_id);
        let asked = of_task.map_or(0, |output| output.asked);
        let shown = path.display();
        if asked == 0 {
            let line =
                format!("{shown}: not written: the run asked for nothing, or is a stored one");
            return Err(Stop::with(EXIT_FOUND, line));
        }
        let workload = Workload::new(task.config.workload_spec(task.row.seed));
        let workload = workload.map_err(Stop::usage)?;
        if asked > to_u64(TRACE_OPS_MAX) {
            let line = format!(
                "{shown}: not written: {asked} operations, and a file holds {TRACE_OPS_MAX}; see \
                 op_count"
            );
            return Err(Stop::with(EXIT_FOUND, line));
        }
        let mut file = OutputFile::create(path).map_err(Stop::usage)?;
        let failed = |error: &dyn core::fmt::Display| Stop::with(EXIT_FOUND, one_line(error));
        write_ops(&workload, asked, &mut file).map_err(|error| failed(&error))?;
        file.finish().map_err(|error| failed(&error))
    }

    /// Writes what the rows come from: the experiment, and who ran it.
    fn keep_origin(&self, store: &Store) -> Result<(), OutputError> {
        let outputs = store.outputs();
        let passed = outputs.iter().filter(|output| output.row.outcome == Outcome::Pass).count();
        let mut command = self.source.command(&self.args.grid, &self.experiment);
        if let Some(seeds) = self.args.grid.seeds {
            append(&mut command, format_args!(" --seeds {seeds}"));
        }
        let made = Provenance {
            schema: provenance::SCHEMA.to_owned(),
            experiment: self.experiment.name.clone(),
            command,
            config_hash: self.experiment.config_hash(),
            baseline: self.experiment.baseline.clone(),
            seeds: self.experiment.seeds.to_string(),
            arms: self.experiment.arms.len(),
            runs: outputs.len(),
            passed,
            world: self.world,
            commit: option_env!("FOREBAY_COMMIT").unwrap_or_default().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            binary_sha256: files::this_program(),
            host: if self.world == World::Os { provenance::this_host() } else { String::new() },
            ..Provenance::default()
        };
        write_file(&self.folder.join(results::EXPERIMENT), &self.source.text)?;
        made.write(&self.folder)
    }

    fn report(&self, facts: &[ScaleFact]) -> ReportInput {
        ReportInput {
            title: self.experiment.title.clone(),
            question: self.experiment.question.clone(),
            scale_lines: if facts.is_empty() { Vec::new() } else { print::scale_lines(facts) },
            baseline_arm: self.experiment.baseline.clone(),
            provenance: report::Provenance {
                commit: option_env!("FOREBAY_COMMIT").unwrap_or_default().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                toolchain: concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), " or newer")
                    .to_owned(),
                seeds: self.experiment.seeds.to_string(),
                config_hash: self.experiment.config_hash(),
                command: self.source.command.clone(),
            },
            ..ReportInput::default()
        }
    }

    /// Runs the selection again and compares with stored rows.
    fn check_raw(&self) -> Result<(), Stop> {
        let mut places = vec![self.folder.join("runs.jsonl")];
        if let Some(folder) = &self.source.folder {
            places.insert(0, folder.join("raw/runs.jsonl"));
            places.insert(0, folder.join("raw/runs.jsonl.gz"));
        }
        let names =
            || places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        let stored = files::first_there(&places)
            .ok_or_else(|| Stop::usage(format!("no stored rows; looked for {}", names())))?;
        let stored = files::rows(stored)?;
        let fresh: Mutex<Vec<RunOutput>> = Mutex::default();
        self.execute(&self.selected, |output| {
            fresh.lock().unwrap_or_else(PoisonError::into_inner).push(output);
        });
        let fresh = fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
        if fresh.len() < self.selected.len() {
            return Err(Stop::with(EXIT_INCOMPLETE, "interrupted before all rows were compared"));
        }
        let mut differing = 0;
        for task in &self.selected {
            let run_id = &task.row.run_id;
            let new = fresh.iter().find(|output| output.row.run_id == *run_id);
            let old = stored_row(&stored, &task.row);
            let told = differences(old, new.map(|output| &output.row));
            differing += usize::from(!told.is_empty());
            for line in told {
                super::say(&format!("{} seed {}: {line}\n", task.arm, task.row.seed));
            }
        }
        if differing > 0 {
            let line = format!("{differing} of {} rows differ", self.selected.len());
            return Err(Stop::with(EXIT_FOUND, line));
        }
        if self.global.format == Format::Human {
            super::say(&format!("{} rows are the same\n", self.selected.len()));
        }
        Ok(())
    }
}

/// The stored row of a run: of its configuration or, where that has changed, of its arm.
fn stored_row<'r>(stored: &'r [RunRow], run: &RunRow) -> Option<&'r RunRow> {
    let by_arm = |row: &&RunRow| (&row.arm, row.seed, row.world) == (&run.arm, run.seed, run.world);
    let same = stored.iter().find(|row| row.run_id == run.run_id);
    same.or_else(|| stored.iter().find(by_arm))
}

/// A replay line behind the file's name, which differs where the file was copied.
fn behind_file(replay: &str) -> Option<&str> {
    replay.splitn(4, ' ').nth(3)
}

/// The fields in which two rows differ: `write_latency_ns.p99 25 -> 31 (+24%)`.
fn differences(old: Option<&RunRow>, new: Option<&RunRow>) -> Vec<String> {
    let (Some(old), Some(new)) = (old, new) else {
        return vec!["no stored row".to_owned()];
    };
    let mut new = new.clone();
    if behind_file(&old.replay) == behind_file(&new.replay) {
        new.replay.clone_from(&old.replay);
    }
    let mut lines = Vec::new();
    if *old != new {
        let value = |row: &RunRow| serde_json::to_value(row).unwrap_or_default();
        compare("", &value(old), &value(&new), &mut lines);
    }
    lines.truncate(20);
    lines
}

fn compare(path: &str, old: &serde_json::Value, new: &serde_json::Value, out: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
            for (key, value) in a {
                let other = b.get(key).unwrap_or(&serde_json::Value::Null);
                let dot = if path.is_empty() { "" } else { "." };
                compare(&format!("{path}{dot}{key}"), value, other, out);
            }
        }
        (serde_json::Value::Array(_), serde_json::Value::Array(_)) => {
            out.push(format!("{path} differ"));
        }
        _ => out.push(format!("{path} {}", cells::change(&old.to_string(), &new.to_string()))),
    }
}

fn told(output: &RunOutput) -> String {
    let row = &output.row;
    let failure = output.failure.as_deref().unwrap_or_default();
    let failure = failure.lines().next().unwrap_or_default();
    let text = format!("{} {} seed {} {failure}", row.outcome.name(), row.arm, row.seed);
    one_line(&text)
}

pub(super) fn one_line(text: &dyn core::fmt::Display) -> String {
    text.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
