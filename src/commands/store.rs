//! The folder that a command fills: rows, samples, distributions, a page.
//!
//! Files hold the runs that are done, in the order of the plan, so that whatever order they ended
//! in, on however many threads, with or without an interrupt between, the bytes are the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::events::{read_events, write_events};
use crate::histogram::{read_histograms, write_histograms};
use crate::outcome::RunOutput;
use crate::output::{OutputError, write_file};
use crate::record::{World, read_runs, write_runs};
use crate::report::{ReportInput, html};
use crate::series::{read_series, write_series};

/// Runs that are done, and where they go.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    world: World,
    order: Vec<String>,
    done: BTreeMap<String, RunOutput>,
    unsaved: usize,
}

impl Store {
    /// An empty store for these runs; `order` is the plan's.
    pub(super) fn new(folder: &Path, world: World, order: Vec<String>) -> Self {
        Self { folder: folder.to_owned(), world, order, done: BTreeMap::new(), unsaved: 0 }
    }

    fn runs_path(&self) -> PathBuf {
        self.folder.join(match self.world {
            World::Sim => "runs.jsonl",
            World::Os => "runs.wall.jsonl",
        })
    }

    fn events_path(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    /// Takes over the runs of the plan that the folder holds.
    pub(super) fn resume(&mut self) -> Result<(), OutputError> {
        let runs = self.runs_path();
        if !runs.exists() {
            return Ok(());
        }
        for row in read_runs(&runs)? {
            if self.order.contains(&row.run_id) {
                let output = RunOutput { row, ..RunOutput::default() };
                self.done.insert(output.row.run_id.clone(), output);
            }
        }
        for row in read_series(&self.folder.join("series.csv"))? {
            if let Some(output) = self.done.get_mut(&row.run_id) {
                output.series.push(row);
            }
        }
        for row in read_histograms(&self.folder.join("hist.jsonl"))? {
            if let Some(output) = self.done.get_mut(&row.run_id) {
                output.histograms.push(row);
            }
        }
        let events = self.events_path();
        if events.exists() {
            for run in read_events(&events)? {
                if let Some(output) = self.done.get_mut(&run.head.run_id) {
                    output.events = Some(run);
                }
            }
        }
        Ok(())
    }

    pub(super) fn holds(&self, run_id: &str) -> bool {
        self.done.contains_key(run_id)
    }

    /// Adds a run that ended. Files follow when a part of all runs is not in them yet, so that a
    /// kill loses little and a long sweep does not write its files over and over.
    pub(super) fn add(&mut self, output: RunOutput) -> Result<(), OutputError> {
        self.done.insert(output.row.run_id.clone(), output);
        self.unsaved += 1;
        if self.unsaved.saturating_mul(8) >= self.done.len() {
            self.save()?;
        }
        Ok(())
    }

    /// The runs that are done, in the order of the plan.
    pub(super) fn outputs(&self) -> Vec<&RunOutput> {
        self.order.iter().filter_map(|run_id| self.done.get(run_id)).collect()
    }

    /// Writes rows, samples and distributions.
    pub(super) fn save(&mut self) -> Result<(), OutputError> {
        let outputs = self.outputs();
        let rows: Vec<_> = outputs.iter().map(|output| output.row.clone()).collect();
        let series: Vec<_> = outputs.iter().flat_map(|o| o.series.iter().cloned()).collect();
        let histograms: Vec<_> =
            outputs.iter().flat_map(|o| o.histograms.iter().cloned()).collect();
        // Rows last: a row that is there has its samples.
        write_series(&self.folder.join("series.csv"), &series)?;
        write_histograms(&self.folder.join("hist.jsonl"), &histograms)?;
        write_events(&self.events_path(), outputs.iter().filter_map(|o| o.events.as_ref()))?;
        write_runs(&self.runs_path(), &rows)?;
        self.unsaved = 0;
        Ok(())
    }

    /// Writes the page, of these facts and the runs that are done; gives back its path.
    pub(super) fn page(&self, mut input: ReportInput) -> Result<PathBuf, OutputError> {
        for output in self.outputs() {
            input.rows.push(output.row.clone());
            input.series.extend(output.series.iter().cloned());
            input.histograms.extend(output.histograms.iter().cloned());
            input.events.extend(output.events.iter().cloned());
        }
        let path = self.folder.join("report.html");
        write_file(&path, &html::render(&input)?)?;
        Ok(path)
    }
}
