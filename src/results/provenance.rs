//! `provenance.json`: who made rows, and with what. The rows hold nothing of it, lest the same run
//! differ between machines.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PROVENANCE, raw};
use crate::output::{Result, write_file};
use crate::record::World;

/// The schema of the file.
pub const SCHEMA: &str = "forebay.provenance/1";

/// What a folder's rows come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// [`SCHEMA`].
    pub schema: String,
    /// The experiment.
    pub experiment: String,
    /// The command, without folders.
    pub command: String,
    /// Hash over the configurations of all arms.
    pub config_hash: String,
    /// The arm that others are compared with.
    pub baseline: String,
    /// The seeds.
    pub seeds: String,
    /// Arms.
    pub arms: usize,
    /// Runs.
    pub runs: usize,
    /// Of them, those that passed.
    pub passed: usize,
    /// The world and so the clock.
    pub world: World,
    /// Commit of the code; empty where the build did not know it.
    pub commit: String,
    /// Version of forebay.
    pub version: String,
    /// sha256 of the program.
    pub binary_sha256: String,
    /// The machine, where the clock is its own; empty in a simulation.
    pub host: String,
    /// Raw files too large to be kept beside the tables: sha256 of each, unpacked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub large: BTreeMap<String, String>,
}

impl Provenance {
    /// That of a folder. `None` where it has none that can be read.
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let text = raw::text(&folder.join(PROVENANCE)).ok()?;
        serde_json::from_str(&text).ok().filter(|found: &Self| found.schema == SCHEMA)
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    ///
    /// The file cannot be written; an older one is still there.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        write_file(&folder.join(PROVENANCE), &text)
    }
}

/// That of a folder, or of the folder that a file of rows lies in.
fn beside(path: &Path) -> Option<Provenance> {
    path.ancestors().take(3).find_map(Provenance::of_folder)
}

/// The arm that the rows of a folder or file are compared with.
pub fn baseline(path: &Path) -> Option<String> {
    beside(path).map(|found| found.baseline)
}

/// The machine of the rows of a folder or file; `None` where virtual time makes it none of theirs.
pub fn host(path: &Path) -> Option<String> {
    beside(path).map(|found| found.host).filter(|host| !host.is_empty())
}

/// This machine in words: processor, how many, kernel.
pub fn this_host() -> String {
    let read = |path: &str| raw::text(Path::new(path)).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("{} x {count}, {} {}", model, std::env::consts::OS, kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_from_the_folder_and_from_a_file_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        assert_eq!(baseline(here), None);
        let made = Provenance {
            schema: SCHEMA.to_owned(),
            baseline: "a".to_owned(),
            host: this_host(),
            ..Provenance::default()
        };
        made.write(here).unwrap();
        assert_eq!(Provenance::of_folder(here), Some(made.clone()));
        assert_eq!(baseline(&here.join("runs.jsonl")), Some("a".to_owned()));
        assert_eq!(host(&here.join("raw/runs.jsonl.gz")), Some(made.host.clone()));
        Provenance { host: String::new(), ..made.clone() }.write(here).unwrap();
        assert_eq!(host(here), None);
        Provenance { schema: "other/1".to_owned(), ..made }.write(here).unwrap();
        assert_eq!(Provenance::of_folder(here), None);
    }
}
