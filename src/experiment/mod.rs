//! An experiment: one question, the arms that answer it, and the seeds they run on.
//!
//! Values come from three places: defaults, the file, `-s` (and, in a quick run, the file's
//! `[quick]` table between the last two). [`Experiment::resolve`] puts them together and keeps of
//! each where it came from.

pub mod figure;
mod file;
mod grid;
mod seeds;

#[cfg(test)]
mod tests;

use core::fmt;

pub use figure::Figure;
pub use file::{Assignment, ExperimentFile, Setting, check};
pub use grid::Arm;
pub use seeds::Seeds;

use crate::config::Config;
use crate::metric::{self, Metric};
use crate::scale;

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
    /// What its arms are compared by.
    pub metrics: Vec<&'static Metric>,
    /// The seeds.
    pub seeds: Seeds,
    /// The arms in the order in which they are shown.
    pub arms: Vec<Arm>,
    /// The figures of its results, where the file names some.
    pub figures: Vec<Figure>,
    /// Every key that is set, and every default, with where it comes from.
    pub resolved: Vec<Resolved>,
    /// The machine that the question is about, with its number of times the run's; `None` where the
    /// run is that machine.
    pub full: Option<Config>,
    /// What the file's `[full]` table sets and the command line does not.
    full_values: Vec<(String, String)>,
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
            metrics: match file.metrics.as_slice() {
                [] => metric::usual(),
                named => named.to_vec(),
            },
            seeds,
            figures: file.figures.clone(),
            full: layers.full(file, arms.first())?,
            full_values: layers.full_values(file),
            resolved: layers.resolved(),
            arms,
        })
    }

    /// The arm that others are compared with; the first where none has that name.
    pub fn baseline_arm(&self) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == self.baseline).or_else(|| self.arms.first())
    }

    /// The configuration of an arm on the machine that the question is about: the arm's, with what
    /// `[full]` sets but for the arm's values on the axes and those of the command line. Where it
    /// does not set the rate of arrivals, that is multiplied as the device is.
    ///
    /// # Errors
    ///
    /// [`ExperimentError`] where the values do not go together.
    pub fn full_config(&self, arm: &Arm) -> Result<Config, ExperimentError> {
        if self.full.is_none() {
            return Ok(arm.config.clone());
        }
        let refused =
            |detail: String| ExperimentError(format!("{}: arm {}: {detail}", self.name, arm.name));
        let mut config = arm.config.clone();
        if !self.is_flag("device_scale") {
            config.device_scale = 1;
        }
        if !self.is_flag("offered_ops_per_s") {
            config.offered_ops_per_s = scale::full_rate(&config, &arm.config);
        }
        for (key, value) in self.full_values.iter().filter(|(key, _)| !arm.values.contains_key(key))
        {
            config.set(key, value).map_err(refused)?;
        }
        config.validate().map_err(refused)?;
        Ok(config)
    }

    fn is_flag(&self, key: &str) -> bool {
        self.resolved.iter().any(|r| r.key == key && r.origin == Origin::Flag)
    }

    /// Hash over the configurations of all arms, 16 hex digits.
    pub fn config_hash(&self) -> String {
        let hashes: Vec<String> = self.arms.iter().map(|arm| arm.config.hash()).collect();
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(hashes.join("\n").as_bytes()))
    }
}
