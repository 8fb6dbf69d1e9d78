//! `forebay model`: the flush policies of an experiment on sizes instead of data, at the size that
//! the experiment is about; and, on request, beside the engine at the size that it runs at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;
use serde::Serialize;

use super::grid::{Source, complete, selected};
use super::print::{self, Planned};
use super::run::one_line;
use super::{EXIT_FOUND, Stop, interrupt, pool, say};
use crate::cli::{Format, Global, GridArgs};
use crate::config::Config;
use crate::experiment::Experiment;
use crate::model::peer::{self, PeerRow};
use crate::model::{self, row::ModelRow};
use crate::output::{OutputError, create_folder, for_each_line, write_file};
use crate::record::Outcome;
use crate::report::model as report;
use crate::text::append;

/// Largest step: a GiB.
const UNIT_BYTES_MAX: u64 = 1 << 30;

/// Flags of `model`.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// The experiment; the machine of its `full` table where it has one
    pub file: PathBuf,
    /// What `run` takes too.
    #[command(flatten)]
    pub grid: GridArgs,
    /// Bytes of writes that one step stands for; default a 2^21st of the budget, or a sixteenth
    /// of a tenant's share of it; 1 = each write by itself
    #[arg(long, value_name = "BYTES", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=UNIT_BYTES_MAX))]
    pub unit: u64,
    /// Compare with the engine in simulation, on the machine that `run` runs on
    #[arg(long)]
    pub check_engine: bool,
}

/// One arm with one seed.
#[derive(Clone, Debug)]
struct Task {
    row: ModelRow,
    config: Config,
}

/// What the model and the engine said of a run, or why they could not.
type Peers = BTreeMap<String, Result<PeerRow, String>>;

/// Everything that a command line and a file decide.
struct Job<'a> {
    global: &'a Global,
    args: &'a ModelArgs,
    experiment: Experiment,
    /// Every run of the experiment, in order.
    plan: Vec<Task>,
    /// Those that `--only-seeds` leaves.
    selected: Vec<Task>,
    folder: PathBuf,
}

/// Runs the models of an experiment.
///
/// # Errors
///
/// What to say and the exit code: 2 where nothing was run or written, 1 where a model wedged, 4
/// where no run is selected, 6 where it was interrupted.
pub fn model(global: &Global, args: &ModelArgs) -> Result<(), Stop> {
    let source = Source::of_file("model", &args.file)?;
    let job = Job::new(global, args, &source)?;
    if global.print_config {
        return print::config(global.format, &job.experiment, &source.label);
    }
    if args.grid.dry_run {
        let planned: Vec<Planned<'_>> = job.selected.iter().map(Task::planned).collect();
        return print::plan(global.format, &job.experiment, &planned, (&[], None));
    }
    interrupt::listen();
    create_folder(&job.folder).map_err(|error| Stop::usage(one_line(&error)))?;
    if args.check_engine { job.check_engine() } else { job.run() }
}

impl Task {
    fn planned(&self) -> Planned<'_> {
        let row = &self.row;
        Planned {
            run_id: &row.run_id,
            arm: &row.arm,
            seed: row.seed,
            world: "model",
            replay: &row.replay,
        }
    }
}

impl<'a> Job<'a> {
    fn new(global: &'a Global, args: &'a ModelArgs, source: &Source) -> Result<Self, Stop> {
        let grid = &args.grid;
        let experiment = source.experiment(grid)?;
        let mut command = source.command(grid, &experiment);
        if args.unit > 0 {
            append(&mut command, format_args!(" --unit {}", args.unit));
        }
        if args.check_engine {
            command.push_str(" --check-engine");
        }
        let mut plan = Vec::new();
        for seed in experiment.seeds.iter() {
            for arm in &experiment.arms {
                let config = if args.check_engine {
                    arm.config.clone()
                } else {
                    experiment.full_config(arm).map_err(Stop::usage)?
                };
                model::check(&config)
                    .map_err(|error| Stop::usage(format!("arm {}: {error}", arm.name)))?;
                let mut row = ModelRow::new(&config, seed, args.unit);
                row.experiment.clone_from(&experiment.name);
                row.arm.clone_from(&arm.name);
                row.replay = arm.replay(&command, seed);
                plan.push(Task { row, config });
            }
        }
        let selected = selected(&plan, (grid, &experiment), |task| task.row.seed)?;
        let folder = source.results(grid);
        Ok(Self { global, args, experiment, plan, selected, folder })
    }

    fn threads(&self) -> usize {
        self.args.grid.jobs.unwrap_or_else(pool::processors)
    }

    fn run(&self) -> Result<(), Stop> {
        let mut store = Store::new(self.folder.join("model.jsonl"), &self.plan);
        if self.args.grid.resume {
            store.resume().map_err(|error| Stop::usage(one_line(&error)))?;
        }
        let left = |task: &&Task| !store.done.contains_key(&task.row.run_id);
        let todo: Vec<Task> = self.selected.iter().filter(left).cloned().collect();
        let store = Mutex::new(store);
        pool::run(self.global, &todo, self.threads(), |task, progress| {
            progress.note(&task.row.arm);
            let mut row = task.row.clone();
            row.store(model::run(&task.config, row.seed, self.args.unit));
            if self.global.verbose > 0 || row.failure.is_some() {
                let failure = row.failure.as_deref().unwrap_or_default();
                let text =
                    format!("{} {} seed {} {failure}", row.outcome.name(), row.arm, row.seed);
                progress.line(&one_line(&text));
            }
            lock(&store).add(row);
        });
        self.finish(&store.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(&self, store: &Store) -> Result<(), Stop> {
        let failed = |error: &OutputError| Stop::with(EXIT_FOUND, one_line(error));
        if let Some(error) = &store.broken {
            return Err(failed(error));
        }
        store.save().map_err(|error| failed(&error))?;
        let rows = store.rows();
        match self.global.format {
            Format::Human => {
                let mut text = print::heading(&self.experiment, "model", self.plan.len());
                text.push_str(&report::render(&rows));
                append(&mut text, format_args!("\n{}\n", store.path.display()));
                say(&text);
            }
            Format::Csv => say(&report::csv(&rows)),
            Format::Json => {
                for row in &rows {
                    say(&row.to_line().map_err(Stop::usage)?);
                }
                let passed = rows.iter().filter(|row| row.outcome == Outcome::Pass).count();
                print::json(&serde_json::json!({
                    "schema": "forebay.model-summary/1",
                    "experiment": self.experiment.name,
                    "config_hash": self.experiment.config_hash(),
                    "seeds": self.experiment.seeds.to_string(),
                    "arms": self.experiment.arms.len(),
                    "runs": rows.len(),
                    "planned": self.plan.len(),
                    "passed": passed,
                    "failed": rows.len().saturating_sub(passed),
                    "out": self.folder.display().to_string(),
                }))?;
            }
        }
        complete(&self.selected, |task| store.done.contains_key(&task.row.run_id))?;
        if rows.iter().any(|row| row.outcome != Outcome::Pass) {
            return Err(Stop { code: EXIT_FOUND, line: None });
        }
        Ok(())
    }

    /// The rows of the plan that an earlier check left, by run, where they are to be kept.
    fn known_peers(&self, path: &Path) -> Result<Peers, OutputError> {
        let mut known = Peers::new();
        if !self.args.grid.resume || !path.exists() {
            return Ok(known);
        }
        for_each_line(path, |_, line| {
            let row: PeerRow = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let is_of = |task: &&Task| {
                let asked = &task.row;
                (&asked.arm, asked.seed, &asked.config_hash)
                    == (&row.arm, row.seed, &row.config_hash)
            };
            if let Some(task) = self.plan.iter().find(is_of) {
                known.insert(task.row.run_id.clone(), Ok(row));
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// Runs each arm in the engine too, and tells by how much the two differ.
    fn check_engine(&self) -> Result<(), Stop> {
        let path = self.folder.join("model-check.jsonl");
        let known = self.known_peers(&path).map_err(|error| Stop::usage(one_line(&error)))?;
        let left = |task: &&Task| !known.contains_key(&task.row.run_id);
        let todo: Vec<Task> = self.selected.iter().filter(left).cloned().collect();
        let done = Mutex::new(known);
        pool::run(self.global, &todo, self.threads(), |task, progress| {
            progress.note(&task.row.arm);
            let row = peer::compare(&task.row.arm, &task.config, task.row.seed);
            if self.global.verbose > 0 {
                let word = if row.is_ok() { "pass" } else { "fail" };
                progress.line(&format!("{word} {} seed {}", task.row.arm, task.row.seed));
            }
            lock(&done).insert(task.row.run_id.clone(), row);
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let results = || self.selected.iter().filter_map(|task| done.get(&task.row.run_id));
        let rows: Vec<&PeerRow> = results().filter_map(|row| row.as_ref().ok()).collect();
        let text = lines(&rows).map_err(Stop::usage)?;
        write_file(&path, &text).map_err(|error| Stop::with(EXIT_FOUND, one_line(&error)))?;
        match self.global.format {
            Format::Human => {
                let heading =
                    print::heading(&self.experiment, "model and engine", self.selected.len());
                say(&format!("{heading}{}\n{}\n", report::peers(&rows), path.display()));
            }
            Format::Csv => say(&report::peers_csv(&rows)),
            Format::Json => say(&text),
        }
        complete(&self.selected, |task| done.contains_key(&task.row.run_id))?;
        let mut failed = self.selected.iter().filter_map(|task| {
            let failure = done.get(&task.row.run_id)?.as_ref().err()?;
            Some(format!("arm {} seed {}: {failure}", task.row.arm, task.row.seed))
        });
        match failed.next() {
            Some(line) => Err(Stop::with(EXIT_FOUND, one_line(&line))),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines(rows: &[impl Serialize]) -> serde_json::Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(text)
}

/// Rows that are done, and the file they go to: in the order of the plan, whatever order they
/// ended in.
struct Store {
    path: PathBuf,
    order: Vec<String>,
    done: BTreeMap<String, ModelRow>,
    broken: Option<OutputError>,
}

impl Store {
    fn new(path: PathBuf, plan: &[Task]) -> Self {
        let order = plan.iter().map(|task| task.row.run_id.clone()).collect();
        Self { path, order, done: BTreeMap::new(), broken: None }
    }

    /// Takes over the rows of the plan that the file holds.
    fn resume(&mut self) -> Result<(), OutputError> {
        if !self.path.exists() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for_each_line(&self.path, |_, line| {
            rows.push(ModelRow::from_line(line)?);
            Ok(())
        })?;
        rows.retain(|row| self.order.contains(&row.run_id));
        self.done.extend(rows.into_iter().map(|row| (row.run_id.clone(), row)));
        Ok(())
    }

    /// Adds a row; a model takes long and the file is short, so that it is written each time.
    fn add(&mut self, row: ModelRow) {
        self.done.insert(row.run_id.clone(), row);
        if let Err(error) = self.save() {
            self.broken.get_or_insert(error);
        }
    }

    fn rows(&self) -> Vec<ModelRow> {
        self.order.iter().filter_map(|run_id| self.done.get(run_id)).cloned().collect()
    }

    fn save(&self) -> Result<(), OutputError> {
        let text = lines(&self.rows()).map_err(|error| OutputError::Line {
            path: self.path.clone(),
            line: 0,
            detail: error.to_string(),
        })?;
        write_file(&self.path, &text)
    }
}
