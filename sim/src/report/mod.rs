//! A failure on one screen: what was promised and found, the shortest history known, the life of the
//! write that is missing, the disk at the crash, what else would have happened, and how to see it again.
//!
//! Everything but the verdict comes from reruns: one with a diary, and a few of variants. All of it is
//! deterministic, so that a report can be compared byte for byte.
//!
//! Invariants: at most [`LINES_MAX`] lines of at most [`COLUMNS`] characters; reruns end within
//! [`EVENTS_MAX`] events of the world, or one run after.

mod hang;
mod history;
mod life;
#[cfg(test)]
mod tests;
mod text;
mod variants;

use serde::Serialize;

use crate::check::{Rule, Violation};
use crate::choices::Mode;
use crate::diary::{Diary, Pages, What};
use crate::run::Outcome;
use crate::scenario::{Case, CrashKind};
use crate::view::{FileView, Watch};

pub use self::history::Step;
pub use self::variants::{NoReturn, WhatIf};

/// Most lines of a report's text, without the commands that the program adds.
pub const LINES_MAX: usize = 36;

/// Most characters of a line.
pub const COLUMNS: usize = 100;

/// Events that the reruns of one report may take together.
pub const EVENTS_MAX: u64 = 4_000_000;

/// Replays that must agree.
const REPLAYS: u32 = 5;

/// How a case became as small as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reduced {
    /// Operations before.
    pub ops_before: u64,
    /// Runs that it took.
    pub runs: u32,
}

/// How often a replay was the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stable {
    /// Replays.
    pub replays: u32,
    /// Of those, the ones with this hash.
    pub same: u32,
    /// Hash over everything that happened.
    pub trace_hash: String,
}

/// A failure's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The broken rule, what was promised and what was found.
    pub violation: Violation,
    /// What happened, oldest first.
    pub history: Vec<Step>,
    /// Operations of the scenario.
    pub ops: u64,
    /// Clients of the scenario.
    pub clients: usize,
    /// Crashes while clients worked, or behind them.
    pub crashes: usize,
    /// Faults that fired.
    pub faults: usize,
    /// How it was reduced.
    pub reduced: Option<Reduced>,
    /// The missing write's way through the database.
    pub life: Vec<String>,
    /// Files at the last crash, before it; at the end where there was none.
    pub files: Vec<FileView>,
    /// Files that the crash took.
    pub missing: Vec<String>,
    /// Who waits for what, of a run that hangs.
    pub waits: Vec<String>,
    /// What variants of the run do.
    pub what_if: Vec<WhatIf>,
    /// From where on every future fails.
    pub no_return: Option<NoReturn>,
    /// Whether replays agree.
    pub stable: Option<Stable>,
    /// The options that differ from the engine's defaults, and the rest of the setting.
    pub setting: String,
    /// Version of the program, and of its source where that was known when it was built.
    pub build: String,
}

impl Report {
    /// What one run says by itself, without a rerun: for a case that is not the same run twice.
    pub fn of(case: &Case, violation: Violation) -> Self {
        let scenario = &case.scenario;
        let kinds = [CrashKind::PowerLoss, CrashKind::Kill];
        Self {
            seed: case.seed,
            violation,
            history: Vec::new(),
            ops: scenario.ops(),
            clients: scenario.phases.iter().map(|phase| phase.clients.len()).max().unwrap_or(0),
            crashes: kinds.into_iter().map(|kind| scenario.crashes(kind)).sum(),
            faults: 0,
            reduced: None,
            life: Vec::new(),
            files: Vec::new(),
            missing: Vec::new(),
            waits: Vec::new(),
            what_if: Vec::new(),
            no_return: None,
            stable: None,
            setting: setting(case),
            build: build(),
        }
    }

    /// The report of a case that fails; none where it passes. `stop` ends the reruns early.
    pub fn build(case: &Case, reduced: Option<Reduced>, stop: &dyn Fn() -> bool) -> Option<Self> {
        let diary = Diary::default();
        let mode = Mode::Record;
        let watch = Watch { diary: Some(diary.clone()), mode, ..Watch::default() };
        let (outcome, view) = case.run_watched(&watch);
        let found = outcome.violation.clone()?;
        let pages = diary.pages();
        let mut report = Self::of(case, found.clone());
        report.reduced = reduced;
        report.history = history::steps(&pages);
        report.faults = count(&pages, |what| matches!(what, What::Fault { .. }));
        report.life = life::life(&pages, &found);
        (report.files, report.missing) = disk(&pages).unwrap_or((view.files, Vec::new()));
        if matches!(found.rule, Rule::L1 | Rule::L2 | Rule::L7) || !found.waits.is_empty() {
            report.waits = hang::waits(&pages, &found);
        }
        report.rerun(case, &outcome, stop);
        Some(report)
    }

    fn rerun(&mut self, case: &Case, outcome: &Outcome, stop: &dyn Fn() -> bool) {
        let fixed = Case { choices: Some(outcome.choices.clone()), ..case.clone() };
        let mut left = variants::Reruns { fixed, rule: self.violation.rule, events: 0, stop };
        let mut stable =
            Stable { replays: 0, same: 0, trace_hash: format!("{:016x}", outcome.trace_hash) };
        while stable.replays < REPLAYS
            && let Some(again) = left.run(&left.fixed.clone())
        {
            stable.replays += 1;
            stable.same += u32::from(again.trace_hash == outcome.trace_hash);
        }
        if stable.same == stable.replays {
            self.what_if = left.what_if();
            self.no_return = left.no_return(&self.history);
            let guilty = self.no_return.as_ref().and_then(|found| found.step);
            for step in &mut self.history {
                step.is_guilty = Some(step.number) == guilty;
            }
        }
        self.stable = Some(stable);
    }
}

fn count(pages: &Pages, is_one: impl Fn(&What) -> bool) -> usize {
    pages.entries.iter().filter(|entry| is_one(&entry.what)).count()
}

/// The files before the last crash, and those that it took.
fn disk(pages: &Pages) -> Option<(Vec<FileView>, Vec<String>)> {
    let crash = pages.entries.iter().rev().find_map(|entry| {
        let What::Crash { before, after, .. } = &entry.what else { return None };
        Some((before, after))
    });
    let (before, after) = crash?;
    let is_there = |path: &str| after.iter().any(|file| file.path == path);
    let gone = before.iter().filter(|file| !is_there(&file.path));
    Some((before.clone(), gone.map(|file| file_name(&file.path).to_owned()).collect()))
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn setting(case: &Case) -> String {
    let scenario = &case.scenario;
    let mut text = format!("{}, device {}, {} tenants", scenario.profile, scenario.device, {
        scenario.tenants
    });
    for (key, value) in &scenario.options {
        text.push_str(&format!(", {key}={value}"));
    }
    if let Some(bug) = &case.bug {
        text.push_str(&format!(", planted {bug}"));
    }
    text
}

fn build() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let source = option_env!("FOREBAY_GIT_HASH").map(|hash| format!(" ({hash})"));
    format!("{version}{}", source.unwrap_or_default())
}
