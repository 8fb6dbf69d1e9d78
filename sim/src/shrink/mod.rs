//! Makes a failing case smaller, with the same rule broken: fewer phases, clients, tenants,
//! operations, writes of a batch, faults, options, and simpler decisions.
//!
//! The first run records every decision; from there candidates follow the recorded lists, and take the
//! simplest outcome where a list ends. So decisions shrink like everything else, and the result replays
//! without the seed.
//!
//! Bounded by a number of runs and of simulated events, not by time, so that the result is the same on
//! every machine; a caller may stop it earlier and gets the best so far.
//!
//! Invariants: the result breaks the rule that was broken, about a tenant or a key where that was;
//! no run begins once the budget is used up.
//!
//! # Source
//!
//! Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (delta debugging), IEEE TSE
//! 2002: chunks are taken away, from large to small. Departure: no test of complements, since later
//! rounds come back to what was kept.

mod steps;
pub(crate) use self::steps::all_lost;
#[cfg(test)]
mod tests;

use core::ops::Range;

use crate::bugs::Bug;
use crate::check::Violation;
use crate::choices::Mode;
use crate::lists::Lists;
use crate::run::{Outcome, run_watched};
use crate::scenario::{Case, Scenario};
use crate::view::Watch;

/// Runs that one shrink may take.
pub const RUNS_MAX: u32 = 3000;

/// Events of the world that all runs of one shrink may take together: about 10 s of one core.
pub const EVENTS_MAX: u64 = 8_000_000;

/// What a shrink may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Runs.
    pub runs: u32,
    /// Events of all runs together; the last run may go beyond.
    pub events: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs: RUNS_MAX, events: EVENTS_MAX }
    }
}

/// A smaller case and what it does.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// What is decided where the scenario leaves it open.
    pub choices: Lists,
    /// Its outcome: the same rule is broken.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: u32,
    /// Events of those runs.
    pub events: u64,
}

impl Shrunk {
    /// As a case that replays without a seed.
    pub fn case(&self, seed: u64, bug: Option<Bug>) -> Case {
        let mut case = Case::new(seed, self.scenario.clone(), bug);
        case.rule = self.outcome.violation.as_ref().map(|found| found.rule);
        case.choices = Some(self.choices.clone());
        case
    }
}

/// The smallest case found that breaks the same rule, within [`Budget::default`]; none where nothing
/// was broken, or a second run breaks nothing.
pub fn shrink(
    seed: u64,
    scenario: &Scenario,
    bug: Option<Bug>,
    failed: &Outcome,
) -> Option<Shrunk> {
    shrink_within(&Case::new(seed, scenario.clone(), bug), failed, Budget::default(), &|| false)
}

/// As [`shrink`], within a budget, and only until `stop` says so.
pub fn shrink_within(
    case: &Case,
    failed: &Outcome,
    budget: Budget,
    stop: &dyn Fn() -> bool,
) -> Option<Shrunk> {
    let wanted = failed.violation.clone()?;
    let watch = Watch { mode: Mode::Record, ..Watch::default() };
    let (outcome, _) = case.run_watched(&watch);
    let best = Shrunk {
        scenario: case.scenario.clone(),
        choices: outcome.choices.clone(),
        runs: 1,
        events: outcome.events,
        outcome,
    };
    let mut search = Search { seed: case.seed, bug: case.planted(), wanted, budget, stop, best };
    if !search.is_same(&search.best.outcome) {
        return None;
    }
    loop {
        let before = (search.best.scenario.clone(), search.best.choices.clone());
        search.round();
        let found = (&search.best.scenario, &search.best.choices);
        if search.is_over() || found == (&before.0, &before.1) {
            return Some(search.best);
        }
    }
}

/// A candidate: what is changed in a step.
#[derive(Clone, Debug)]
struct Candidate {
    scenario: Scenario,
    choices: Lists,
}

struct Search<'a> {
    seed: u64,
    bug: Option<Bug>,
    wanted: Violation,
    budget: Budget,
    stop: &'a dyn Fn() -> bool,
    best: Shrunk,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.best.runs >= self.budget.runs
            || self.best.events >= self.budget.events
            || (self.stop)()
    }

    /// The same rule, about a tenant and a key where the failure was, and the same promise where it
    /// was about no key.
    fn is_same(&self, outcome: &Outcome) -> bool {
        let root = |of: &Violation| {
            let words = of.promised.chars().filter(|c| !c.is_ascii_digit());
            let words = of.key.is_none().then(|| words.collect::<String>());
            (of.rule, of.tenant.is_some(), of.key.is_some(), words)
        };
        outcome.violation.as_ref().is_some_and(|found| root(found) == root(&self.wanted))
    }

    /// Runs what a change makes of the best and keeps it where it is the same failure.
    fn with(&mut self, change: impl FnOnce(&mut Candidate)) -> bool {
        let mut candidate =
            Candidate { scenario: self.best.scenario.clone(), choices: self.best.choices.clone() };
        change(&mut candidate);
        let Candidate { scenario, choices } = candidate;
        let is_new = scenario != self.best.scenario || choices != self.best.choices;
        if !is_new || self.is_over() || scenario.engine_options().is_err() {
            return false;
        }
        let watch = Watch { mode: Mode::follow(choices), ..Watch::default() };
        let (outcome, _) = run_watched(self.seed, &scenario, self.bug, &watch);
        self.best.runs += 1;
        self.best.events = self.best.events.saturating_add(outcome.events);
        let same = self.is_same(&outcome);
        if same {
            self.best.scenario = scenario;
            // What was asked of the lists, no more.
            self.best.choices = outcome.choices.clone();
            self.best.outcome = outcome;
        }
        same
    }

    /// Takes away chunks of something, from large to small and from the last to the first.
    fn chunks(
        &mut self,
        count: impl Fn(&Shrunk) -> usize,
        take: impl Fn(&mut Candidate, Range<usize>),
    ) {
        let mut chunk = count(&self.best);
        while chunk > 0 {
            let mut at = count(&self.best);
            while at > 0 && !self.is_over() {
                let from = at.saturating_sub(chunk);
                self.with(|candidate| take(candidate, from..at));
                at = from;
            }
            chunk >>= 1;
        }
    }
}
