//! A folder of results as it lies there, what its raw rows make of it, and where the two differ.

#![expect(
    clippy::disallowed_methods,
    reason = "result files are outside every world; the engine never sees them"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::tables::{KEY_COLUMNS, tables};
use super::{EXPERIMENT, Provenance, WALL, cells, raw, side, sizes};
use crate::experiment::{Experiment, ExperimentFile, Overrides};
use crate::figures::figures;
use crate::model::row::ModelRow;
use crate::output::{OutputError, write_file};
use crate::record::RunRow;

/// A folder with an experiment and its rows.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// The experiment, as its file says.
    pub experiment: Experiment,
    /// The rows, in the order of the file.
    pub rows: Vec<RunRow>,
    /// Rows of runs on a real disk, kept beside them.
    pub wall: Vec<RunRow>,
    /// Rows of models on sizes alone, kept beside them.
    pub sizes: Vec<ModelRow>,
    /// Who made them, where that is told.
    pub provenance: Option<Provenance>,
}

/// The folders of results in one: itself, or those below it that hold an experiment; others are
/// passed over.
///
/// # Errors
///
/// The folder cannot be listed.
pub fn folders(path: &Path) -> Result<Vec<PathBuf>, OutputError> {
    if path.join(EXPERIMENT).is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| OutputError::Io { op: "read", path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let folder = entry.map_err(failed)?.path();
        if folder.join(EXPERIMENT).is_file() {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}

impl Folder {
    /// Reads a folder of results, or of a run.
    ///
    /// # Errors
    ///
    /// One line: the experiment or the rows are not there or cannot be read.
    pub fn open(path: &Path) -> Result<Self, String> {
        Self::read(path, raw::place)
    }

    /// Reads what a run left, though an earlier one be packed in the same folder.
    ///
    /// # Errors
    ///
    /// As [`Folder::open`].
    pub fn open_run(path: &Path) -> Result<Self, String> {
        Self::read(path, raw::fresh)
    }

    fn read(path: &Path, place: fn(&Path, &str) -> Option<PathBuf>) -> Result<Self, String> {
        let file = path.join(EXPERIMENT);
        let text = raw::text(&file).map_err(|error| error.to_string())?;
        let provenance = Provenance::of_folder(path);
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = provenance.as_ref().map_or(name, |made| made.experiment.clone());
        let experiment = ExperimentFile::parse(&file.display().to_string(), &text)
            .and_then(|file| Experiment::resolve(&name, &file, &Overrides::default()))
            .map_err(|error| error.0)?;
        let Some(place) = place(path, "runs.jsonl") else {
            return Err(format!("no rows in {}", path.display()));
        };
        let rows = raw::rows(&place).map_err(|error| error.to_string())?;
        let wall = Self::wall(path)?;
        let sizes = sizes::rows(path).map_err(|error| error.to_string())?;
        Ok(Self { path: path.to_owned(), experiment, rows, wall, sizes, provenance })
    }

    /// The rows of runs on a real disk that a folder keeps; none where it has none.
    ///
    /// # Errors
    ///
    /// One line: the rows cannot be read.
    pub fn wall(path: &Path) -> Result<Vec<RunRow>, String> {
        let place = path.join(WALL).join("runs.jsonl.gz");
        if !place.is_file() {
            return Ok(Vec::new());
        }
        raw::rows(&place).map_err(|error| error.to_string())
    }

    /// What the rows make: text by path in the folder.
    pub fn made(&self) -> BTreeMap<String, String> {
        let tables = tables(&self.experiment, &self.rows).into_iter();
        let mut made: BTreeMap<String, String> =
            tables.map(|(name, text)| (format!("tables/{name}"), text)).collect();
        let figures = figures(&self.experiment, &self.rows).into_iter();
        made.extend(figures.map(|(name, text)| (format!("figures/{name}"), text)));
        if let Some(text) = side::csv(&self.rows, &self.wall) {
            made.insert(format!("tables/{}", side::TABLE), text);
        }
        if let Some(text) = sizes::table_csv(&self.sizes) {
            made.insert(format!("tables/{}", sizes::TABLE), text);
        }
        if let Some(summary) = made.get_mut("tables/summary.md") {
            summary.push_str(&sizes::markdown(&self.sizes));
            summary.push_str(&side::markdown(&self.rows, &self.wall));
        }
        made
    }

    /// Writes what the rows make, and removes tables and figures that they make no more.
    ///
    /// # Errors
    ///
    /// A file cannot be written or removed; those before it were.
    pub fn write(&self) -> Result<usize, OutputError> {
        let made = self.made();
        for (name, text) in &made {
            write_file(&self.path.join(name), text)?;
        }
        for name in self.there().into_iter().filter(|name| !made.contains_key(name)) {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(|source| OutputError::Io {
                op: "remove",
                path: path.clone(),
                source,
            })?;
        }
        Ok(made.len())
    }

    /// The tables and figures that lie there.
    fn there(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (folder, ends) in [("tables", &["csv", "md"][..]), ("figures", &["svg"])] {
            let Ok(entries) = fs::read_dir(self.path.join(folder)) else { continue };
            for name in entries.flatten().map(|entry| entry.file_name()) {
                let name = name.to_string_lossy().into_owned();
                if ends.iter().any(|end| name.ends_with(&format!(".{end}"))) {
                    found.push(format!("{folder}/{name}"));
                }
            }
        }
        found.sort();
        found
    }

    /// Where the folder is not what its experiment and rows make: changed cells first, then files.
    pub fn differences(&self) -> Vec<String> {
        let mut told = self.missing();
        told.extend(self.edited());
        told.extend(self.unlike_provenance());
        let made = self.made();
        let mut files = Vec::new();
        for (name, new) in &made {
            let Ok(old) = raw::text(&self.path.join(name)) else {
                files.push(format!("{name} is not there"));
                continue;
            };
            if old == *new {
                continue;
            }
            let table = KEY_COLUMNS.iter().find(|(table, _)| name.ends_with(table));
            let changed = table.and_then(|(_, keys)| cells::differing(&old, new, *keys));
            match changed.filter(|changed| !changed.is_empty()) {
                Some(changed) => told.extend(changed),
                None => files.push(format!("{name} differs")),
            }
        }
        let more = self.there().into_iter().filter(|name| !made.contains_key(name));
        files.extend(more.map(|name| format!("{name} is made by nothing")));
        told.extend(files);
        told
    }

    /// Runs of the experiment without a row, and rows without a run of it.
    pub fn missing(&self) -> Vec<String> {
        let experiment = &self.experiment;
        let mut told = Vec::new();
        for arm in &experiment.arms {
            for seed in experiment.seeds.iter() {
                if !self.rows.iter().any(|row| row.arm == arm.name && row.seed == seed) {
                    told.push(format!("{} seed {seed}: no row", arm.name));
                }
            }
        }
        for row in &self.rows {
            let known = experiment.arms.iter().any(|arm| arm.name == row.arm);
            if !known || !experiment.seeds.contains(row.seed) {
                told.push(format!("{} seed {}: no run of the experiment", row.arm, row.seed));
            }
        }
        told
    }

    /// Arms whose rows were run with another value than the experiment's file names. A key that only
    /// one of them has was unknown to one of two builds, and re-running tells what it does.
    fn edited(&self) -> Vec<String> {
        let mut told = Vec::new();
        for arm in &self.experiment.arms {
            let asked = arm.config.params();
            let mut rows = self.rows.iter().filter(|row| row.arm == arm.name);
            let unlike = |row: &RunRow| {
                let mut pairs = row.params.iter().filter_map(|(k, v)| Some((k, v, asked.get(k)?)));
                pairs.find(|(_, was, is)| was != is).map(|(key, was, is)| {
                    let change = cells::change(&was.to_string(), &is.to_string());
                    format!("{}: {key} {change} in {EXPERIMENT} since its rows", arm.name)
                })
            };
            told.extend(rows.find_map(unlike));
        }
        told
    }

    fn unlike_provenance(&self) -> Vec<String> {
        let Some(made) = &self.provenance else {
            return vec![format!("{} is not there", super::PROVENANCE)];
        };
        let mut told = Vec::new();
        if made.runs != self.rows.len() {
            let change = cells::change(&made.runs.to_string(), &self.rows.len().to_string());
            told.push(format!("provenance runs {change}"));
        }
        for (file, sha256) in &made.large {
            let Some(path) = raw::place(&self.path, file) else { continue };
            if raw::text(&path).is_ok_and(|text| raw::sha256_of(&text) != *sha256) {
                told.push(format!("raw/{file} is not the file of provenance.json (sha256)"));
            }
        }
        told
    }
}
