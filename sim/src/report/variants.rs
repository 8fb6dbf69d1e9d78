//! Reruns of variants: what else would have happened, and from where on every future fails.

use serde::Serialize;

use super::{EVENTS_MAX, Step};
use crate::check::Rule;
use crate::choices::{Mode, Then};
use crate::fault::FaultPlan;
use crate::run::{Outcome, run_watched};
use crate::scenario::{Case, Crash, CrashKind, End, Scenario};
use crate::shrink::all_lost;
use crate::view::Watch;

/// Futures that are tried from one step.
const FUTURES: u32 = 16;

/// What a variant does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhatIf {
    /// How it differs.
    pub change: String,
    /// The rule that it breaks.
    pub rule: Option<Rule>,
}

/// From where on every future fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoReturn {
    /// The step's number; none where all fail from the beginning, or some pass from the last step.
    pub step: Option<usize>,
    /// Futures that were tried from each step.
    pub futures: u32,
    /// Of those from this step, or from the last where there is none, the ones that fail.
    pub fail: u32,
    /// Of those from the step before, or from the beginning, the ones that fail.
    pub fail_before: u32,
}

/// Reruns within a budget.
pub(super) struct Reruns<'a> {
    pub(super) fixed: Case,
    pub(super) rule: Rule,
    pub(super) events: u64,
    pub(super) stop: &'a dyn Fn() -> bool,
}

impl Reruns<'_> {
    /// Runs a case, where the budget allows it.
    pub(super) fn run(&mut self, case: &Case) -> Option<Outcome> {
        self.run_from(case, None)
    }

    fn run_from(&mut self, case: &Case, then: Option<Then>) -> Option<Outcome> {
        if self.events >= EVENTS_MAX || (self.stop)() {
            return None;
        }
        let lists = case.choices.clone().unwrap_or_default();
        let watch = Watch { mode: Mode::Follow { lists, then }, ..Watch::default() };
        let (outcome, _) = run_watched(case.seed, &case.scenario, case.planted(), &watch);
        self.events = self.events.saturating_add(outcome.events);
        Some(outcome)
    }

    pub(super) fn what_if(&mut self) -> Vec<WhatIf> {
        let mut all = Vec::new();
        for (change, case) in variants(&self.fixed) {
            if case == self.fixed || case.scenario.engine_options().is_err() {
                continue;
            }
            let Some(outcome) = self.run(&case) else { break };
            let rule = outcome.violation.map(|found| found.rule);
            all.push(WhatIf { change: change.to_owned(), rule });
        }
        all
    }

    /// How many futures from a number of decisions on break the rule; none once the budget is used up.
    fn futures(&mut self, after: u64) -> Option<u32> {
        let (case, mut fail) = (self.fixed.clone(), 0);
        for seed in 0..u64::from(FUTURES) {
            let outcome = self.run_from(&case, Some(Then { after, seed }))?;
            fail += u32::from(outcome.violation.is_some_and(|found| found.rule == self.rule));
        }
        Some(fail)
    }

    /// The first step from which all futures fail, found by halving.
    pub(super) fn no_return(&mut self, history: &[Step]) -> Option<NoReturn> {
        let steps: Vec<&Step> = history.iter().filter(|step| step.is_asked()).collect();
        let found =
            |step, fail, fail_before| Some(NoReturn { step, futures: FUTURES, fail, fail_before });
        let before = self.futures(0)?;
        if before == FUTURES {
            return found(None, before, before);
        }
        let last = self.futures(steps.last()?.made)?;
        if last < FUTURES {
            return found(None, last, before);
        }
        // From `low` some pass, from `high` none does.
        let (mut low, mut high, mut fail_before) = (0, steps.len(), before);
        while low + 1 < high {
            let middle = low.midpoint(high);
            let fail = self.futures(steps.get(middle - 1)?.made)?;
            if fail == FUTURES {
                high = middle;
            } else {
                (low, fail_before) = (middle, fail);
            }
        }
        found(steps.get(high - 1).map(|step| step.number), FUTURES, fail_before)
    }
}

fn crashes(scenario: &mut Scenario, change: impl Fn(Crash) -> End) {
    for phase in &mut scenario.phases {
        if let End::Crash(crash) = phase.end {
            phase.end = change(crash);
        }
    }
}

fn set_if_there(scenario: &mut Scenario, keys: &[&str]) {
    for (key, value) in &mut scenario.options {
        if keys.contains(&key.as_str()) {
            "1".clone_into(value);
        }
    }
}

/// Variants with their names; one may be the case itself.
fn variants(case: &Case) -> Vec<(&'static str, Case)> {
    type Change = fn(&mut Scenario);
    let changes: [(&'static str, Change); 8] = [
        ("without the crash", |s| crashes(s, |_| End::GoOn)),
        ("kill -9 for power loss", |s| {
            crashes(s, |crash| End::Crash(Crash { kind: CrashKind::Kill, ..crash }));
        }),
        ("power loss for kill -9", |s| {
            crashes(s, |crash| End::Crash(Crash { kind: CrashKind::PowerLoss, ..crash }));
        }),
        ("crash one point earlier", |s| {
            let earlier = |point: u64| if point > 1 { point - 1 } else { point };
            crashes(s, |c| End::Crash(Crash { point: earlier(c.point), ..c }));
        }),
        ("crash one point later", |s| {
            let later = |point: u64| if point > 0 { point.saturating_add(1) } else { point };
            crashes(s, |c| End::Crash(Crash { point: later(c.point), ..c }));
        }),
        ("without faults", |s| {
            for phase in &mut s.phases {
                phase.faults = FaultPlan::default();
                phase.recovery_faults = FaultPlan::default();
                phase.free_bytes = None;
            }
        }),
        ("one flush worker", |s| set_if_there(s, &["flush_slots"])),
        ("one compaction worker", |s| set_if_there(s, &["compaction_slots"])),
    ];
    let mut all: Vec<(&'static str, Case)> = changes
        .into_iter()
        .map(|(name, change)| {
            let mut other = case.clone();
            change(&mut other.scenario);
            (name, other)
        })
        .collect();
    let lists = case.choices.clone().unwrap_or_default();
    let with = |choices| Case { choices: Some(choices), ..case.clone() };
    let kept = lists.clone().only(|site| !site.starts_with("crash."));
    all.push(("crashes keep all", with(kept)));
    all.push(("power losses take all unsynced", with(all_lost(&lists))));
    all.push(("tasks first come, first served", with(lists.only(|site| site != "sched"))));
    all
}
