//! Forks: of any branch, at any time, with writes to all of a family and drops of its members.
//!
//! Forks and drops are put between the operations of a scenario that is drawn already, and some of
//! its operations go to a branch in place of a tenant's `main`; the streams are their own, so that
//! a scenario without forks is what it was.

use forebay_engine::types::{to_u64, to_usize};

use super::{Draw, Op, Phase, Scenario, Write};
use crate::check::value::{fork_number, tenant_of};

/// What `-s profile=` takes for seeds that are made for forks.
pub const PROFILE: &str = "forks";

/// Of a hundred seeds, those that fork.
const FORKS_PERCENT: u64 = 35;

/// Of a hundred seeds made for forks: those with a chain of them, and those with a storm.
const CHAIN_PERCENT: u64 = 30;
const STORM_PERCENT: u64 = 30;

/// Of a hundred seeds made for forks, those that fork by sharing whatever layout was drawn.
const PER_TENANT_PERCENT: u64 = 70;

/// Longest chain.
const CHAIN_MAX: u64 = 50;

/// Of a thousand storms, those that are large; most branches of either kind.
const LARGE_PERMILLE: u64 = 25;
const STORM_MAX: u64 = 60;
const LARGE_MAX: u64 = 1000;

/// Forks of other seeds.
const FEW_MAX: usize = 12;

/// What a seed does with forks.
struct Mix {
    /// Of a thousand places between operations, those with a fork and those with a drop.
    fork_permille: u64,
    drop_permille: u64,
    /// Of a hundred operations, those that go to a branch of the family.
    branch_percent: u64,
    /// Forks that there may be.
    forks_max: usize,
}

/// The branches of a scenario, as far as is drawn.
struct Family {
    /// Numbers of names that may be there.
    there: Vec<usize>,
    /// The next fork's own number.
    next: usize,
}

impl Draw {
    /// Lets some seeds fork.
    pub(super) fn add_forks(&mut self, scenario: &mut Scenario) {
        if !self.percent(FORKS_PERCENT) {
            return;
        }
        let mix = Mix {
            fork_permille: self.pick(&[10, 30, 80], 30),
            drop_permille: self.pick(&[0, 5, 30], 5),
            branch_percent: self.pick(&[30, 60], 30),
            forks_max: FEW_MAX,
        };
        self.fork_options(scenario);
        self.spread(scenario, &mix);
    }

    /// Makes a seed one of forks above all.
    pub(super) fn fork_swarm(&mut self, scenario: &mut Scenario) {
        let is_storm = self.percent(STORM_PERCENT);
        let large = is_storm && self.below(1000) < LARGE_PERMILLE;
        let memtable: u64 = self.pick(&[2048, 2048, 4096, 16_384], 2048);
        scenario.options.retain(|(known, _)| known != "memtable_bytes_max");
        scenario.options.push(("memtable_bytes_max".to_owned(), memtable.to_string()));
        // By sharing is what most forks are, and a fork by copy takes longer than the storm may.
        if large || self.percent(PER_TENANT_PERCENT) {
            scenario.options.retain(|(known, _)| known != "layout");
            scenario.options.push(("layout".to_owned(), "per-tenant".to_owned()));
        }
        self.fork_options(scenario);
        let damaged =
            |phase: &Phase| phase.faults.damages_media() || phase.recovery_faults.damages_media();
        let may_fill = !scenario.phases.iter().any(damaged);
        for phase in &mut scenario.phases {
            if phase.faults_ns > 0 && may_fill && self.percent(30) {
                phase.free_bytes = Some(self.below(120_000));
            }
        }
        if large {
            scenario.phases.truncate(2);
            for phase in &mut scenario.phases {
                (phase.crash_states, phase.open_twice) = (1, false);
            }
        }
        let mix = Mix {
            fork_permille: self.pick(&[20, 80, 200], 80),
            drop_permille: self.pick(&[0, 20, 100], 20),
            branch_percent: self.pick(&[50, 80, 95], 80),
            forks_max: if is_storm { FEW_MAX } else { 5 * FEW_MAX },
        };
        let mut first = Family::of(scenario.tenants);
        let whole = if is_storm {
            let max = if large { LARGE_MAX } else { STORM_MAX };
            let count = 5 + self.below(max - 4);
            self.storm(count, &mut first)
        } else if self.percent(CHAIN_PERCENT) {
            let depth = 2 + self.below(CHAIN_MAX - 1);
            self.chain(depth, &mut first)
        } else {
            Vec::new()
        };
        self.spread_over(scenario, &mix, &mut first);
        if let Some(ops) = scenario.phases.first_mut().and_then(|phase| phase.clients.first_mut()) {
            let at = to_usize(self.below(to_u64(ops.len()).div_euclid(2) + 1));
            ops.splice(at..at, whole);
        }
    }

    fn fork_options(&mut self, scenario: &mut Scenario) {
        let memtable = self.pick(&["share", "copy", "auto"], "auto").to_owned();
        scenario.options.push(("fork_memtable".to_owned(), memtable));
    }

    fn spread(&mut self, scenario: &mut Scenario, mix: &Mix) {
        let mut family = Family::of(scenario.tenants);
        self.spread_over(scenario, mix, &mut family);
    }

    /// Forks, drops and branches all over a scenario, one place after another of all clients.
    fn spread_over(&mut self, scenario: &mut Scenario, mix: &Mix, family: &mut Family) {
        let mut left = mix.forks_max;
        for phase in &mut scenario.phases {
            let places = phase.clients.iter().map(Vec::len).max().unwrap_or(0);
            let mut out = vec![Vec::new(); phase.clients.len()];
            for at in 0..places {
                for (ops, out) in phase.clients.iter().zip(&mut out) {
                    let Some(op) = ops.get(at) else { continue };
                    if left > 0 && self.below(1000) < mix.fork_permille {
                        left -= 1;
                        out.push(self.fork(family));
                    }
                    if self.below(1000) < mix.drop_permille {
                        out.push(self.drop_one(family));
                    }
                    let mut op = op.clone();
                    self.retarget(&mut op, mix.branch_percent, family);
                    out.push(op);
                }
            }
            phase.clients = out;
        }
    }

    /// A branch: as often one of the last five as any.
    fn branch(&mut self, family: &Family) -> usize {
        let count = to_u64(family.there.len());
        let of = if self.percent(50) { count.min(5) } else { count };
        let back = self.below(of) + 1;
        family.there.get(to_usize(count.saturating_sub(back))).copied().unwrap_or(0)
    }

    fn memtable(&mut self) -> Option<String> {
        let names = [None, Some("share"), Some("copy"), Some("auto")];
        self.pick(&names, None).map(str::to_owned)
    }

    fn fork(&mut self, family: &mut Family) -> Op {
        let parent = self.branch(family);
        // Now and then the name of one that was there before.
        let again = family.next > 1 && self.percent(15);
        let fork =
            if again { 1 + to_usize(self.below(to_u64(family.next) - 1)) } else { family.next };
        family.next = family.next.max(fork + 1);
        let number = fork_number(parent, fork);
        family.there.retain(|known| *known != number);
        family.there.push(number);
        Op::Fork { tenant: parent, fork, memtable: self.memtable() }
    }

    fn drop_one(&mut self, family: &mut Family) -> Op {
        let tenant = self.branch(family);
        if family.there.len() > 2 {
            family.there.retain(|known| *known != tenant);
        }
        Op::DropBranch { tenant }
    }

    fn retarget(&mut self, op: &mut Op, percent: u64, family: &Family) {
        let mut turn = |tenant: &mut usize| {
            if self.percent(percent) {
                *tenant = self.branch(family);
            }
        };
        if let Op::Extractor { tenant, .. } = op {
            turn(tenant);
        } else {
            op.each_target(turn);
        }
    }

    fn put(&mut self, tenant: usize) -> Op {
        let key = u32::try_from(self.below(8)).unwrap_or(0);
        let bytes = (!self.percent(20)).then(|| u32::try_from(self.below(300)).unwrap_or(0));
        Op::Write { writes: vec![Write { tenant, key, bytes }], sync: self.percent(10) }
    }

    /// Forks of forks, with writes to the last branch and to one above it, and drops above.
    fn chain(&mut self, depth: u64, family: &mut Family) -> Vec<Op> {
        let drops = self.pick(&[0, 10, 40], 10);
        let mut ops = Vec::new();
        let mut line = vec![0];
        for _ in 0..depth {
            let Some(last) = line.last().copied() else { break };
            ops.push(self.put(last));
            let any = line.get(to_usize(self.below(to_u64(line.len())))).copied();
            ops.push(self.put(any.unwrap_or(0)));
            let fork = family.next;
            family.next += 1;
            ops.push(Op::Fork { tenant: last, fork, memtable: self.memtable() });
            if line.len() > 1 && self.percent(drops) {
                let at = to_usize(self.below(to_u64(line.len())));
                ops.push(Op::DropBranch { tenant: line.swap_remove(at) });
            }
            line.push(fork_number(0, fork));
        }
        family.there.extend(line);
        ops
    }

    /// Many forks of one branch, with writes to it in between and now and then to a child; some seeds
    /// drop most of them again, and some the parent.
    fn storm(&mut self, count: u64, family: &mut Family) -> Vec<Op> {
        let mut ops = Vec::new();
        let parent = to_usize(self.below(2));
        let mut made = Vec::new();
        for _ in 0..count {
            if self.percent(30) {
                ops.push(self.put(parent));
            }
            let fork = family.next;
            family.next += 1;
            ops.push(Op::Fork { tenant: parent, fork, memtable: self.memtable() });
            let child = fork_number(tenant_of(parent), fork);
            if self.percent(20) {
                ops.push(self.put(child));
            }
            made.push(child);
        }
        if self.percent(40) {
            ops.push(Op::DropBranch { tenant: parent });
        }
        if self.percent(50) {
            while made.len() > 3 {
                let at = to_usize(self.below(to_u64(made.len())));
                ops.push(Op::DropBranch { tenant: made.swap_remove(at) });
            }
        }
        family.there.extend(made);
        ops
    }
}

impl Family {
    fn of(tenants: usize) -> Self {
        Self { there: (0..tenants).collect(), next: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forks(scenario: &Scenario) -> usize {
        let ops = scenario.phases.iter().flat_map(|phase| phase.clients.iter().flatten());
        ops.filter(|op| matches!(op, Op::Fork { .. })).count()
    }

    #[test]
    fn a_share_of_ordinary_seeds_forks_and_the_others_are_what_they_were() {
        let mut with = 0;
        for seed in 0..400 {
            let scenario = Scenario::draw(seed);
            let plain = Scenario::draw_without_forks(seed);
            let changed = scenario != plain;
            assert!(changed || forks(&scenario) == 0, "seed {seed}");
            with += usize::from(forks(&scenario) > 0);
        }
        assert!((100..190).contains(&with), "{with} of 400 seeds fork");
    }

    #[test]
    fn the_swarm_holds_deep_chains_storms_drops_and_full_disks() {
        let all: Vec<Scenario> = (0..400).map(Scenario::draw_forks).collect();
        for scenario in &all {
            assert_eq!(scenario.engine_options().err(), None);
        }
        let counts: Vec<usize> = all.iter().map(forks).collect();
        let many = counts.iter().filter(|count| **count > 20).count();
        let huge = counts.iter().filter(|count| **count > 150).count();
        assert!(many > 100 && (1..16).contains(&huge), "{many} with many, {huge} with very many");
        let full = all.iter().flat_map(|s| &s.phases).filter(|p| p.free_bytes.is_some()).count();
        assert!(full > 40, "{full} full disks");
        assert_eq!(Scenario::draw_forks(7), Scenario::draw_forks(7));
    }
}
