//! What the commands share that run the arms of an experiment: where it comes from, which of its
//! runs are selected, and what is said of those that are left.

use std::path::{Path, PathBuf};

use super::{EXIT_INCOMPLETE, EXIT_NOTHING, Stop, files};
use crate::cli::GridArgs;
use crate::experiment::{Experiment, ExperimentFile, Overrides};
use crate::results;
use crate::text::append;

/// Where an experiment's text comes from, and how its command is called.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) label: String,
    pub(super) name: String,
    pub(super) text: String,
    /// The command without folders, as replay lines begin.
    pub(super) command: String,
    /// The file's folder, where stored rows may lie.
    pub(super) folder: Option<PathBuf>,
    pub(super) quick: bool,
}

impl Source {
    /// A file that `forebay VERB` was given.
    pub(super) fn of_file(verb: &str, file: &Path) -> Result<Self, Stop> {
        let shown = if file.is_absolute() { file.file_name().map(Path::new) } else { Some(file) };
        // A folder of results is called after its experiment, and the file in it is not.
        let is_kept = file.file_name().is_some_and(|name| name == results::EXPERIMENT);
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let name = match absolute.parent().and_then(Path::file_name).filter(|_| is_kept) {
            Some(folder) => folder,
            None => file.file_stem().unwrap_or_default(),
        };
        let name = name.to_string_lossy().into_owned();
        Ok(Self {
            label: file.display().to_string(),
            text: files::text(file)?,
            command: format!("forebay {verb} {}", shown.unwrap_or(file).display()),
            folder: file.parent().map(Path::to_owned),
            name,
            quick: false,
        })
    }

    /// The experiment with what the command line changes of it.
    pub(super) fn experiment(&self, grid: &GridArgs) -> Result<Experiment, Stop> {
        let overrides =
            Overrides { settings: grid.settings.clone(), seeds: grid.seeds, quick: self.quick };
        ExperimentFile::parse(&self.label, &self.text)
            .and_then(|file| Experiment::resolve(&self.name, &file, &overrides))
            .map_err(Stop::usage)
    }

    /// The command with the settings that an arm's values do not tell.
    pub(super) fn command(&self, grid: &GridArgs, experiment: &Experiment) -> String {
        let mut command = self.command.clone();
        for (key, value) in &grid.settings {
            let on_axis = experiment.arms.iter().all(|arm| arm.values.contains_key(key));
            if !on_axis {
                append(&mut command, format_args!(" -s {key}={value}"));
            }
        }
        command
    }

    /// Where results go.
    pub(super) fn results(&self, grid: &GridArgs) -> PathBuf {
        let default = || Path::new("target/forebay").join(&self.name);
        grid.out.clone().unwrap_or_else(default)
    }
}

/// The runs of a plan that `--only-seeds` leaves; refused where it leaves none.
pub(super) fn selected<T: Clone>(
    plan: &[T],
    (grid, experiment): (&GridArgs, &Experiment),
    seed_of: impl Fn(&T) -> u64,
) -> Result<Vec<T>, Stop> {
    let chosen = |task: &&T| grid.only_seeds.is_none_or(|only| only.contains(seed_of(task)));
    let selected: Vec<T> = plan.iter().filter(chosen).cloned().collect();
    if selected.is_empty() {
        let line = format!("--only-seeds selects none of the seeds {}", experiment.seeds);
        return Err(Stop::with(EXIT_NOTHING, line));
    }
    Ok(selected)
}

/// Whether every run that was selected is there; an interrupt leaves some.
pub(super) fn complete<T>(selected: &[T], is_there: impl Fn(&T) -> bool) -> Result<(), Stop> {
    let missing = selected.iter().filter(|task| !is_there(task)).count();
    if missing == 0 {
        return Ok(());
    }
    let line = format!("interrupted: {missing} runs left; --resume goes on from here");
    Err(Stop::with(EXIT_INCOMPLETE, line))
}
