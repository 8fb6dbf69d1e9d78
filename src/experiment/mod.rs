//! An experiment: one question, the arms that answer it, and the seeds they run on.
//!
//! Values come from three places: defaults, the file, `-s` (and, in a quick run, the file's
//! `[quick]` table between the last two). [`Experiment::resolve`] puts them together and keeps of
//! each where it came from.

mod file;
mod grid;
mod seeds;

#[cfg(test)]
mod tests;

use core::fmt;

pub use file::{Assignment, ExperimentFile, Setting, check};
pub use grid::Arm;
pub use seeds::Seeds;

use crate::config::Config;

/// Why there is no experiment, in one line. Nothing was run or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentError(pub String);

impl fmt::Display for ExperimentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ExperimentError {}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file, in this line.
    File(usize),
    /// The file's `[quick]` table, in this line.
    Quick(usize),
    /// `-s`.
    Flag,
}

/// One key with its values in this experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The key.
    pub key: String,
    /// One value, or those of an axis.
    pub values: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
}

/// What the command line changes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-s key=value`, in order.
    pub settings: Vec<(String, String)>,
    /// `--seeds`.
    pub seeds: Option<Seeds>,
    /// Whether the file's `[quick]` table counts.
    pub quick: bool,
}

/// An experiment, ready to be run.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its short name: the file's, without folder and extension.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What it asks.
    pub question: String,
    /// The arm that others are compared with.
    pub baseline: String,
    /// The seeds.
    pub seeds: Seeds,
    /// The arms in the order in which they are shown.
    pub arms: Vec<Arm>,
    /// Every key that is set, and every default, with where it comes from.
    pub resolved: Vec<Resolved>,
    /// The machine that the question is about, with its number of times the run's; `None` where the
    /// run is that machine.
    pub full: Option<Config>,
}

impl Experiment {
    /// Puts a file and the command line together.
    ///
    /// # Errors
    ///
    /// [`ExperimentError`] in one line; nothing was run or written.
    pub fn resolve(
        name: &str,
        file: &ExperimentFile,
        overrides: &Overrides,
    ) -> Result<Self, ExperimentError> {
        let layers = grid::Layers::new(file, overrides)?;
        let arms = layers.arms(file)?;
        let baseline = match &file.baseline {
            Some((arm, line)) => {
                let known = arms.iter().any(|known| known.name == *arm);
                if !known && !overrides.quick && overrides.settings.is_empty() {
                    let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
                    return Err(ExperimentError(format!(
                        "{}:{line}: baseline {arm:?} is no arm; allowed: {}",
                        file.label,
                        names.join(", ")
                    )));
                }
                arm.clone()
            }
            None => arms.first().map(|arm| arm.name.clone()).unwrap_or_default(),
        };
        let seeds = overrides.seeds.or(file.seeds).unwrap_or(Seeds { start: 0, end: 1 });
        Ok(Self {
            name: name.to_owned(),
            title: if file.title.is_empty() { name.to_owned() } else { file.title.clone() },
            question: file.question.clone(),
            baseline,
            seeds,
            full: layers.full(file, arms.first())?,
            resolved: layers.resolved(),
            arms,
        })
    }

    /// The arm that others are compared with; the first where none has that name.
    pub fn baseline_arm(&self) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == self.baseline).or_else(|| self.arms.first())
    }

    /// Hash over the configurations of all arms, 16 hex digits.
    pub fn config_hash(&self) -> String {
        let hashes: Vec<String> = self.arms.iter().map(|arm| arm.config.hash()).collect();
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(hashes.join("\n").as_bytes()))
    }
}
