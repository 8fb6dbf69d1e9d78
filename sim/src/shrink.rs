//! Makes a failing scenario smaller: fewer phases, clients, operations and faults, with the same rule
//! broken.
//!
//! Bounded by a number of runs, not by time, so that the result is the same on every machine.
//!
//! # Source
//!
//! Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (delta debugging), IEEE TSE
//! 2002: chunks are taken away, from large to small.

use crate::bugs::Bug;
use crate::check::Rule;
use crate::fault::FaultPlan;
use crate::run::{Outcome, run_scenario};
use crate::scenario::{End, Scenario};

/// Runs that one shrink may take.
pub const RUNS_MAX: u32 = 250;

/// A smaller scenario and what it does.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// Its outcome: the same rule is broken.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: u32,
}

struct Search {
    seed: u64,
    bug: Option<Bug>,
    rule: Rule,
    best: Shrunk,
}

impl Search {
    /// Runs a candidate and keeps it where it breaks the same rule.
    fn keeps(&mut self, candidate: Scenario) -> bool {
        if self.best.runs >= RUNS_MAX || candidate == self.best.scenario {
            return false;
        }
        self.best.runs += 1;
        let outcome = run_scenario(self.seed, &candidate, self.bug);
        let same = outcome.violation.as_ref().is_some_and(|found| found.rule == self.rule);
        if same {
            self.best.scenario = candidate;
            self.best.outcome = outcome;
        }
        same
    }

    fn with(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.scenario.clone();
        change(&mut candidate);
        self.keeps(candidate)
    }

    fn phases(&mut self) {
        let mut at = self.best.scenario.phases.len();
        while at > 0 {
            at -= 1;
            self.with(|scenario| {
                scenario.phases.remove(at);
            });
        }
    }

    fn details(&mut self) {
        self.with(|scenario| scenario.creation_crashes.clear());
        for at in 0..self.best.scenario.phases.len() {
            type Change = fn(&mut crate::scenario::Phase);
            let changes: [Change; 7] = [
                |phase| phase.faults = FaultPlan::default(),
                |phase| phase.free_bytes = None,
                |phase| phase.recovery_crashes.clear(),
                |phase| phase.recovery_faults = FaultPlan::default(),
                |phase| phase.crash_states = 1,
                |phase| phase.open_twice = false,
                |phase| {
                    if phase.end == End::Close {
                        phase.end = End::GoOn;
                    }
                },
            ];
            for change in changes {
                self.with(|scenario| {
                    if let Some(phase) = scenario.phases.get_mut(at) {
                        change(phase);
                    }
                });
            }
        }
    }

    fn clients(&mut self) {
        for phase in 0..self.best.scenario.phases.len() {
            let mut at = self.best.scenario.phases.get(phase).map_or(0, |p| p.clients.len());
            while at > 0 {
                at -= 1;
                self.with(|scenario| {
                    if let Some(phase) = scenario.phases.get_mut(phase) {
                        phase.clients.remove(at);
                    }
                });
            }
        }
    }

    /// Takes away chunks of operations, from large to small.
    fn ops(&mut self) {
        for phase in 0..self.best.scenario.phases.len() {
            let clients = self.best.scenario.phases.get(phase).map_or(0, |p| p.clients.len());
            for client in 0..clients {
                let len = |scenario: &Scenario| {
                    let phase = scenario.phases.get(phase);
                    phase.and_then(|p| p.clients.get(client)).map_or(0, Vec::len)
                };
                let mut chunk = len(&self.best.scenario);
                while chunk > 0 {
                    let mut at = len(&self.best.scenario);
                    while at > 0 && self.best.runs < RUNS_MAX {
                        let from = at.saturating_sub(chunk);
                        self.with(|scenario| {
                            let phase = scenario.phases.get_mut(phase);
                            if let Some(ops) = phase.and_then(|p| p.clients.get_mut(client)) {
                                ops.drain(from..at.min(ops.len()));
                            }
                        });
                        at = from;
                    }
                    chunk >>= 1;
                }
            }
        }
    }
}

/// The smallest scenario found that breaks the same rule.
pub fn shrink(
    seed: u64,
    scenario: &Scenario,
    bug: Option<Bug>,
    failed: &Outcome,
) -> Option<Shrunk> {
    let rule = failed.violation.as_ref()?.rule;
    let best = Shrunk { scenario: scenario.clone(), outcome: failed.clone(), runs: 0 };
    let mut search = Search { seed, bug, rule, best };
    search.phases();
    search.clients();
    search.details();
    search.ops();
    Some(search.best)
}
