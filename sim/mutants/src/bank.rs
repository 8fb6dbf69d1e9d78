//! The bank: the list of bugs, and the patch of each.

#![expect(clippy::disallowed_methods, reason = "the bank is files of the source tree")]

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One bug.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// Its name: `M01` and up.
    pub(crate) id: String,
    /// What it does to a user, in one line.
    pub(crate) title: String,
    /// The part of the engine.
    pub(crate) area: String,
    /// `d1`, a plain comparison finds it, to `d4`, two conditions at once.
    pub(crate) difficulty: String,
    /// What the patch changes.
    pub(crate) breaks: String,
    /// Rules that are to find it.
    pub(crate) rule: String,
    /// What the engine would have to have before it could have the bug.
    pub(crate) feature: Option<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    mutant: Vec<Mutant>,
}

/// All bugs.
#[derive(Debug)]
pub(crate) struct Bank {
    folder: PathBuf,
    /// In the order of the file.
    pub(crate) mutants: Vec<Mutant>,
}

impl Bank {
    /// Reads the list. Every bug has a patch or names the feature that it lacks, and no patch is
    /// without an entry.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let folder = root.join("sim/mutants");
        let path = folder.join("mutants.toml");
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let File { mutant: mutants } =
            toml::from_str(&text).map_err(|error| format!("mutants.toml: {error}"))?;
        let bank = Self { folder, mutants };
        let names = fs::read_dir(&bank.folder).map_err(|error| error.to_string())?;
        for entry in names {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            let name = name.to_string_lossy();
            let Some(id) = name.strip_suffix(".patch").filter(|id| id.starts_with('M')) else {
                continue;
            };
            match bank.mutants.iter().find(|mutant| mutant.id == id) {
                None => return Err(format!("{name} has no entry in mutants.toml")),
                Some(Mutant { feature: Some(_), .. }) => {
                    return Err(format!("{id} has a patch and a missing feature"));
                }
                Some(_) => {}
            }
        }
        Ok(bank)
    }

    /// Whether there is a bug of this name.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.mutants.iter().any(|mutant| mutant.id == id)
    }

    /// The text of a bug's patch.
    pub(crate) fn patch(&self, id: &str) -> Result<String, String> {
        let path = self.folder.join(format!("{id}.patch"));
        fs::read_to_string(&path)
            .map_err(|error| format!("cannot read sim/mutants/{id}.patch: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bank_has_every_bug_once_and_in_order() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let bank = Bank::read(&root).unwrap();
        let ids: Vec<String> = bank.mutants.iter().map(|mutant| mutant.id.clone()).collect();
        let expected: Vec<String> = (1..=51).map(|number| format!("M{number:02}")).collect();
        assert_eq!(ids, expected);
        for mutant in &bank.mutants {
            let shape = ["d1", "d2", "d3", "d4"].contains(&mutant.difficulty.as_str());
            assert!(shape && !mutant.title.is_empty() && !mutant.breaks.is_empty(), "{mutant:?}");
            let told = mutant.feature.is_some() || !mutant.rule.is_empty();
            assert!(told && !mutant.area.is_empty(), "{mutant:?}");
        }
    }

    #[test]
    fn every_patch_marks_the_place_that_it_changes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let bank = Bank::read(&root).unwrap();
        for mutant in bank.mutants.iter().filter(|mutant| mutant.feature.is_none()) {
            let patch = bank.patch(&mutant.id).unwrap();
            assert!(
                patch.contains("\n+") && patch.contains("crate::reached::mark()"),
                "{}",
                mutant.id
            );
        }
    }
}
