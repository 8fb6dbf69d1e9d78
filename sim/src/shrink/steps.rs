//! What a shrink tries, in the order in which it pays: decisions first, since a world without chance
//! stays the same when an operation goes; then what holds many operations, operations, and details.

use core::ops::Range;

use serde_json::Value;

use super::Search;
use crate::fault::FaultPlan;
use crate::lists::Lists;
use crate::scenario::{Crash, CrashKind, End, Op, Phase, Scenario, Write};

/// Longest list of one site whose outcomes are simplified one by one; of longer ones, chunks.
const SINGLES_MAX: usize = 24;

/// Tries for an earlier crash point.
const EARLIER_MAX: u32 = 12;

impl Search<'_> {
    pub(super) fn round(&mut self) {
        self.sites();
        self.structure();
        self.ops();
        self.details();
        self.faults();
        self.crashes();
        self.options();
        self.ops();
        self.writes();
        self.power_losses();
        self.outcomes();
    }

    /// Whole sites take the simplest outcome.
    fn sites(&mut self) {
        if self.with(|candidate| candidate.choices = Lists::default()) {
            return;
        }
        let names = |lists: &Lists| lists.sites().map(str::to_owned).collect::<Vec<String>>();
        self.chunks(
            |best| best.choices.sites().count(),
            |candidate, range| {
                let gone = names(&candidate.choices);
                let gone = gone.get(range).unwrap_or_default();
                let lists = core::mem::take(&mut candidate.choices);
                candidate.choices = lists.only(|site| !gone.iter().any(|name| name == site));
            },
        );
    }

    /// Chunks of the outcomes of each site become the simplest.
    fn outcomes(&mut self) {
        let sites: Vec<String> = self.best.choices.sites().map(str::to_owned).collect();
        for site in sites {
            let len = self.best.choices.get(&site).len();
            let mut chunk = len;
            let least = if len > SINGLES_MAX { len.div_ceil(SINGLES_MAX) } else { 1 };
            while chunk >= least && !self.is_over() {
                let mut at = self.best.choices.get(&site).len();
                while at > 0 && !self.is_over() {
                    let from = at.saturating_sub(chunk);
                    self.with(|candidate| {
                        let mut values = candidate.choices.get(&site).to_vec();
                        let end = at.min(values.len());
                        values.get_mut(from.min(end)..end).unwrap_or_default().fill(0);
                        let lists = core::mem::take(&mut candidate.choices);
                        candidate.choices = lists.with(&site, values);
                    });
                    at = from;
                }
                chunk >>= 1;
            }
        }
    }

    /// Phases, clients and tenants.
    fn structure(&mut self) {
        self.with(|candidate| candidate.scenario.creation_crashes.clear());
        self.chunks(
            |best| best.scenario.phases.len(),
            |candidate, range| {
                let phases = &mut candidate.scenario.phases;
                phases.drain(range.start..range.end.min(phases.len()));
            },
        );
        self.chunks(
            |best| best.scenario.phases.iter().map(|phase| phase.clients.len()).sum(),
            |candidate, range| {
                let mut at = 0;
                for phase in &mut candidate.scenario.phases {
                    phase.clients.retain(|_| outside(&mut at, &range));
                }
            },
        );
        for phase in 0..self.best.scenario.phases.len() {
            self.in_phase(phase, |phase| {
                phase.clients = vec![core::mem::take(&mut phase.clients).concat()];
            });
        }
        for tenants in 1..self.best.scenario.tenants {
            if self.with(|candidate| candidate.scenario.tenants = tenants) {
                break;
            }
        }
    }

    fn ops(&mut self) {
        self.chunks(
            |best| clients(&best.scenario).map(Vec::len).sum(),
            |candidate, range| {
                let mut at = 0;
                for ops in clients_mut(&mut candidate.scenario) {
                    ops.retain(|_| outside(&mut at, &range));
                }
            },
        );
        // A client without operations is one the less.
        self.with(|candidate| {
            for phase in &mut candidate.scenario.phases {
                phase.clients.retain(|ops| !ops.is_empty());
            }
        });
    }

    fn in_phase(&mut self, at: usize, change: impl FnOnce(&mut Phase)) -> bool {
        self.with(|candidate| {
            if let Some(phase) = candidate.scenario.phases.get_mut(at) {
                change(phase);
            }
        })
    }

    fn details(&mut self) {
        for at in 0..self.best.scenario.phases.len() {
            type Change = fn(&mut Phase);
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
                self.in_phase(at, change);
            }
        }
    }

    /// Each kind of fault by itself.
    fn faults(&mut self) {
        type Plan = fn(&mut Phase) -> &mut FaultPlan;
        let plans: [Plan; 2] = [|phase| &mut phase.faults, |phase| &mut phase.recovery_faults];
        for at in 0..self.best.scenario.phases.len() {
            for plan in plans {
                let mut phase = self.best.scenario.phases.get(at).cloned();
                let found = phase.as_mut().map(|phase| *plan(phase)).unwrap_or_default();
                for name in kinds(&found) {
                    self.in_phase(at, |phase| {
                        let plan = plan(phase);
                        *plan = without(plan, &name);
                    });
                }
            }
        }
    }

    /// No crash, a kill for a power loss, and a crash when all is done or earlier.
    fn crashes(&mut self) {
        for at in 0..self.best.scenario.phases.len() {
            if self.crash_of(at).is_none() || self.in_phase(at, |phase| phase.end = End::GoOn) {
                continue;
            }
            let kill = |crash| Crash { kind: CrashKind::Kill, ..crash };
            self.recrash(at, kill);
            if self.recrash(at, |crash| Crash { point: 0, ..crash }) {
                continue;
            }
            let mut step = self.crash_of(at).map_or(0, |crash| crash.point >> 1);
            for _ in 0..EARLIER_MAX {
                let moved = |crash: Crash| Crash { point: crash.point - step, ..crash };
                let fits = self.crash_of(at).is_some_and(|crash| crash.point > step);
                if step == 0 || !fits || !self.recrash(at, moved) {
                    step >>= 1;
                }
            }
        }
    }

    fn crash_of(&self, at: usize) -> Option<Crash> {
        match self.best.scenario.phases.get(at)?.end {
            End::Crash(crash) => Some(crash),
            End::Close | End::GoOn => None,
        }
    }

    fn recrash(&mut self, at: usize, change: impl FnOnce(Crash) -> Crash) -> bool {
        let Some(crash) = self.crash_of(at) else { return false };
        self.in_phase(at, |phase| phase.end = End::Crash(change(crash)))
    }

    fn options(&mut self) {
        self.chunks(
            |best| best.scenario.options.len(),
            |candidate, range| {
                let options = &mut candidate.scenario.options;
                options.drain(range.start..range.end.min(options.len()));
            },
        );
        self.with(|candidate| "none".clone_into(&mut candidate.scenario.device));
        self.with(|candidate| candidate.scenario.sync_persists_name = false);
    }

    /// Writes of a batch, sizes of values, and syncs that nobody needs.
    fn writes(&mut self) {
        self.chunks(
            |best| clients(&best.scenario).flatten().map(|op| batch(op).len()).sum(),
            |candidate, range| {
                let mut at = 0;
                for op in clients_mut(&mut candidate.scenario).flatten() {
                    if let Op::Write { writes, .. } = op
                        && writes.len() > 1
                    {
                        writes.retain(|_| outside(&mut at, &range));
                    }
                }
            },
        );
        self.chunks(
            |best| clients(&best.scenario).flatten().count(),
            |candidate, range| {
                for op in clients_mut(&mut candidate.scenario).flatten().skip_take(range) {
                    if let Op::Write { writes, .. } = op {
                        for write in writes {
                            write.bytes = write.bytes.map(|_| 0);
                        }
                    }
                }
            },
        );
        self.chunks(
            |best| clients(&best.scenario).flatten().count(),
            |candidate, range| {
                for op in clients_mut(&mut candidate.scenario).flatten().skip_take(range) {
                    if let Op::Write { sync, .. } = op {
                        *sync = false;
                    }
                }
            },
        );
    }

    /// All that was not synced survives a power loss, or none of it.
    fn power_losses(&mut self) {
        if self.with(|candidate| {
            let lists = core::mem::take(&mut candidate.choices);
            candidate.choices = lists.only(|site| !site.starts_with("crash."));
        }) {
            return;
        }
        self.with(|candidate| candidate.choices = all_lost(&candidate.choices));
    }
}

/// The same decisions, and each power loss takes all that was not synced.
pub(crate) fn all_lost(choices: &Lists) -> Lists {
    const LOSSES_MAX: usize = 64;
    let lists = choices.clone().only(|site| !site.starts_with("crash."));
    lists.with("crash.pages", vec![1; LOSSES_MAX]).with("crash.names", vec![1; LOSSES_MAX])
}

fn clients(scenario: &Scenario) -> impl Iterator<Item = &Vec<Op>> {
    scenario.phases.iter().flat_map(|phase| &phase.clients)
}

fn clients_mut(scenario: &mut Scenario) -> impl Iterator<Item = &mut Vec<Op>> {
    scenario.phases.iter_mut().flat_map(|phase| &mut phase.clients)
}

/// The writes of a batch that has several.
fn batch(op: &Op) -> &[Write] {
    if let Op::Write { writes, .. } = op
        && writes.len() > 1
    {
        return writes;
    }
    &[]
}

/// Counts one more; whether it is outside the range.
fn outside(at: &mut usize, range: &Range<usize>) -> bool {
    let is_in = range.contains(at);
    *at += 1;
    !is_in
}

trait SkipTake: Iterator + Sized {
    fn skip_take(self, range: Range<usize>) -> impl Iterator<Item = Self::Item> {
        self.skip(range.start).take(range.end.saturating_sub(range.start))
    }
}

impl<I: Iterator> SkipTake for I {}

/// Kinds of faults that a plan lets happen, by the names of its fields.
pub(crate) fn kinds(plan: &FaultPlan) -> Vec<String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(plan) else { return Vec::new() };
    let on = fields.into_iter().filter(|(_, rate)| rate.as_u64() != Some(0));
    on.map(|(name, _)| name).collect()
}

fn without(plan: &FaultPlan, name: &str) -> FaultPlan {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(plan) else { return *plan };
    fields.remove(name);
    serde_json::from_value(Value::Object(fields)).unwrap_or(*plan)
}
