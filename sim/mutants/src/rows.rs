//! What is known of each mutant, between runs and as a table.

#![expect(clippy::disallowed_methods, reason = "rows are kept in files of the machine at hand")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::bank::{Bank, Mutant};
use crate::say;

/// The columns of the score.
const HEADER: &str = "id,difficulty,status,seeds,cpu_s,rule,shrunk_ops";

/// A line of the swarm.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct SwarmLine {
    /// Seeds run.
    pub(crate) seeds: u64,
    /// Processor seconds for them.
    pub(crate) cpu_s: f64,
    /// The seed that failed.
    pub(crate) seed: Option<u64>,
    /// The rule that was broken.
    pub(crate) rule: Option<String>,
    /// What was found.
    pub(crate) detail: String,
    /// Operations of the smallest scenario.
    pub(crate) shrunk_ops: Option<u64>,
    /// Whether a changed place was passed.
    pub(crate) reached: Option<bool>,
    /// Whether the swarm came to its end.
    pub(crate) done: bool,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// A rule was broken.
    Killed,
    /// A changed place was passed, and nothing was seen.
    Survived,
    /// No changed place was passed.
    NotReached,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Survived => "survived",
            Self::NotReached => "not-reached",
        }
    }
}

/// What is known of one mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Of the patch's text.
    pub(crate) patch_hash: String,
    /// Of the engine and the simulator.
    pub(crate) tree_hash: String,
    /// How it went.
    pub(crate) status: Status,
    /// Seeds run.
    pub(crate) seeds: u64,
    /// Processor seconds for them.
    pub(crate) cpu_s: f64,
    /// The rule that was broken.
    pub(crate) rule: Option<String>,
    /// What was found.
    pub(crate) detail: String,
    /// Operations of the smallest scenario.
    pub(crate) shrunk_ops: Option<u64>,
}

impl Row {
    /// Nothing known.
    pub(crate) fn new(patch_hash: &str, tree_hash: &str) -> Self {
        Self {
            patch_hash: patch_hash.to_owned(),
            tree_hash: tree_hash.to_owned(),
            status: Status::NotReached,
            seeds: 0,
            cpu_s: 0.0,
            rule: None,
            detail: String::new(),
            shrunk_ops: None,
        }
    }

    /// Whether more processor time would tell nothing.
    pub(crate) fn is_enough(&self, cpu_s: u32) -> bool {
        self.status == Status::Killed || self.cpu_s >= f64::from(cpu_s) - 1.0
    }

    /// With what a further slice found.
    pub(crate) fn with(&self, line: &SwarmLine) -> Self {
        let passed = line.reached == Some(true) || self.status == Status::Survived;
        let status = match &line.rule {
            Some(_) => Status::Killed,
            None if passed => Status::Survived,
            None => Status::NotReached,
        };
        Self {
            status,
            seeds: line.seeds,
            cpu_s: self.cpu_s + line.cpu_s,
            rule: line.rule.clone(),
            detail: line.detail.clone(),
            shrunk_ops: line.shrunk_ops,
            ..self.clone()
        }
    }

    /// In one line.
    pub(crate) fn told(&self) -> String {
        let rule = self.rule.as_deref().unwrap_or("-");
        let ops = self.shrunk_ops.map_or("-".to_owned(), |ops| ops.to_string());
        let detail: String = self.detail.chars().take(140).collect();
        let (status, seeds, cpu_s) = (self.status.name(), self.seeds, self.cpu_s);
        format!("{status} seeds {seeds} cpu_s {cpu_s:.1} rule {rule} shrunk_ops {ops}  {detail}")
    }
}

/// Everything known.
#[derive(Debug)]
pub(crate) struct Rows {
    folder: PathBuf,
    rows: BTreeMap<String, Row>,
}

impl Rows {
    /// Reads what earlier runs left.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let folder = root.join("target/mutants/rows");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut rows = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            // A row that cannot be read is measured again.
            if let (Some(id), Ok(row)) = (path.file_stem(), serde_json::from_str(&text)) {
                rows.insert(id.to_string_lossy().into_owned(), row);
            }
        }
        Ok(Self { folder, rows })
    }

    /// What is known of a mutant.
    pub(crate) fn of(&self, id: &str) -> Option<&Row> {
        self.rows.get(id)
    }

    /// Keeps a row for later runs.
    pub(crate) fn keep(&mut self, id: &str, row: Row) -> Result<(), String> {
        let text = serde_json::to_string(&row).map_err(|error| error.to_string())?;
        let path = self.folder.join(format!("{id}.json"));
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        self.rows.insert(id.to_owned(), row);
        Ok(())
    }
}

/// Names content by its bytes.
pub(crate) fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// The line of a mutant in the score; none where nothing is known of it.
fn score_line(mutant: &Mutant, rows: &Rows) -> Option<String> {
    let Mutant { id, difficulty, .. } = mutant;
    if mutant.feature.is_some() {
        return Some(format!("{id},{difficulty},n/a,,,,"));
    }
    let row = rows.of(id)?;
    let (status, seeds, cpu_s) = (row.status.name(), row.seeds, row.cpu_s);
    let rule = row.rule.as_deref().unwrap_or_default();
    let ops = row.shrunk_ops.map(|ops| ops.to_string()).unwrap_or_default();
    Some(format!("{id},{difficulty},{status},{seeds},{cpu_s:.1},{rule},{ops}"))
}

/// Writes the score and says it, with totals by difficulty.
pub(crate) fn report(root: &Path, bank: &Bank, rows: &Rows) -> Result<(), String> {
    let mut csv = format!("{HEADER}\n");
    let mut totals: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for mutant in &bank.mutants {
        let line = score_line(mutant, rows);
        let status = match (&mutant.feature, rows.of(&mutant.id)) {
            (Some(_), _) => "n/a",
            (None, Some(row)) => row.status.name(),
            (None, None) => "unknown",
        };
        for group in [mutant.difficulty.as_str(), "all"] {
            *totals.entry(group).or_default().entry(status).or_default() += 1;
        }
        let columns = line.as_deref().unwrap_or_default().split(',').skip(2);
        let known: Vec<String> = columns.map(|column| format!("{column:<12}")).collect();
        let lacks = mutant.feature.as_ref().map(|feature| format!("lacks {feature}; "));
        let told = format!("{}{}", lacks.unwrap_or_default(), mutant.title);
        let Mutant { id, difficulty, area, breaks, rule, .. } = mutant;
        say(&format!("{id} {difficulty} {area:<4}  {}{told}", known.concat()));
        if matches!(status, "survived" | "not-reached") {
            say(&format!("       changed: {breaks}; to be found by: {rule}"));
        }
        if let Some(line) = line {
            csv.push_str(&line);
            csv.push('\n');
        }
    }
    for (group, counts) in totals.iter().filter(|(group, _)| **group != "all") {
        say(&told_counts(group, counts));
    }
    if let Some(counts) = totals.get("all") {
        say(&told_counts("all", counts));
    }
    let folder = root.join("results/mutants");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let path = folder.join("score.csv");
    fs::write(&path, csv).map_err(|error| format!("{}: {error}", path.display()))
}

fn told_counts(group: &str, counts: &BTreeMap<&str, u32>) -> String {
    let of = |status| counts.get(status).copied().unwrap_or(0);
    let measured: u32 = ["killed", "survived", "not-reached"].into_iter().map(of).sum();
    let told: Vec<String> =
        counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
    format!("{group:<4} {} of {measured} killed ({})", of("killed"), told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_survived_from_not_reached_over_several_slices() {
        let line = |rule: Option<&str>, reached, cpu_s| SwarmLine {
            seeds: 10,
            cpu_s,
            rule: rule.map(str::to_owned),
            reached,
            done: true,
            ..SwarmLine::default()
        };
        let row = Row::new("p", "t").with(&line(None, Some(false), 60.0));
        assert_eq!((row.status, row.is_enough(60)), (Status::NotReached, true));
        let row = row.with(&line(None, Some(true), 60.0));
        assert_eq!((row.status, row.is_enough(180)), (Status::Survived, false));
        let row = row.with(&line(None, Some(false), 60.0));
        assert_eq!((row.status, row.is_enough(180)), (Status::Survived, true));
        let row = row.with(&line(Some("C2"), None, 1.0));
        assert_eq!((row.status, row.is_enough(600)), (Status::Killed, true));
        assert!(row.told().starts_with("killed seeds 10 cpu_s 181.0 rule C2"), "{}", row.told());
    }
}
