//! Whatever the policy: a table in a file of which less than half is live is written anew, so that
//! such a file goes and disk space is bounded by twice what is live.
//!
//! The policy's own plans come first. A table below L0 is rewritten in its level; one in L0 goes
//! down with all that is older there. A table does not change its level within such a file.

use core::fmt;

use super::shape::{AT_TARGET, finish, occupied_below, push_down, tables};
use super::{CompactionPolicy, input_bytes};
use crate::policy::view::{CompactionPlan, LEVEL_COUNT, LevelsView, TableFacts};
use crate::types::{Nanos, TreeId};

/// A policy, and the tables of sparse files behind it.
pub(super) struct Unpacking {
    policy: Box<dyn CompactionPolicy>,
}

impl fmt::Debug for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)
    }
}

impl Unpacking {
    pub(super) fn new(policy: Box<dyn CompactionPolicy>) -> Self {
        Self { policy }
    }
}

fn sparse(view: &LevelsView) -> impl Iterator<Item = &TableFacts> {
    view.levels.iter().flatten().filter(|table| table.sparse_file)
}

/// The plan for the first such table, upper levels first.
fn plan(view: &LevelsView) -> Option<CompactionPlan> {
    (0..LEVEL_COUNT).find_map(|level| {
        let run = tables(view, level);
        let due = run.iter().enumerate().filter(|(_, table)| table.sparse_file);
        let mut plans = due.map(|(at, table)| {
            if level == 0 {
                // Older L0 tables must not stay above it.
                let inputs = run.get(at..).unwrap_or_default();
                push_down(view, (level, inputs), occupied_below(view, level))
            } else {
                finish(view, &[(level, table)], level)
            }
        });
        plans.find_map(|plan| plan)
    })
}

impl CompactionPolicy for Unpacking {
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan> {
        let mut plan = self.policy.decide(view).or_else(|| plan(view))?;
        let is_input = |table: &TableFacts| plan.inputs.iter().any(|(_, id)| *id == table.table);
        plan.trivial_move &= !sparse(view).any(is_input);
        Some(plan)
    }

    fn urgency(&self, view: &LevelsView) -> u64 {
        let urgency = self.policy.urgency(view);
        if urgency == 0 && plan(view).is_some() { AT_TARGET } else { urgency }
    }

    fn wake_at(&self, view: &LevelsView) -> Option<Nanos> {
        self.policy.wake_at(view)
    }

    fn pending_bytes(&self, view: &LevelsView) -> u64 {
        let bytes = self.policy.pending_bytes(view);
        if bytes > 0 || sparse(view).next().is_none() {
            return bytes;
        }
        plan(view).map_or(0, |plan| input_bytes(view, &plan))
    }

    fn forget(&mut self, tree: TreeId) {
        self.policy.forget(tree);
    }

    fn clone_box(&self) -> Box<dyn CompactionPolicy> {
        Box::new(Self { policy: self.policy.clone_box() })
    }
}
