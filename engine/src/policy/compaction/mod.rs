//! Compaction policies: which tables of a tree are merged next.
//!
//! A policy plans for one tree at a time; which tree comes first is the scheduler's choice, by
//! [`urgency`](CompactionPolicy::urgency). A new one is a file here and a line in [`LIST`].

mod by_runs;
mod lazy_leveled;
mod leveled;
pub mod manual;
mod shape;
mod sparse;
mod tiered;
mod tombstones;

use core::fmt::Debug;

use crate::error::Result;
use crate::policy::view::{CompactionPlan, LevelsView};
use crate::policy::{self, PolicyInfo, PolicySpec};
use crate::types::{Nanos, TreeId, to_usize};

/// Plans compactions.
pub trait CompactionPolicy: Debug + Send {
    /// The tree's next compaction, or `None` where nothing is due or what is due is being
    /// compacted.
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan>;

    /// How far the tree is above its targets, in thousandths of the target; 0 = nothing is due.
    fn urgency(&self, view: &LevelsView) -> u64;

    /// When to ask for the urgency again though nothing happens to the tree.
    fn wake_at(&self, view: &LevelsView) -> Option<Nanos>;

    /// Bytes that compactions would read until nothing is due, estimated.
    fn pending_bytes(&self, view: &LevelsView) -> u64;

    /// Drops what is kept about a tree that no longer exists.
    fn forget(&mut self, tree: TreeId);

    /// The same policy with the same state.
    fn clone_box(&self) -> Box<dyn CompactionPolicy>;
}

impl Clone for Box<dyn CompactionPolicy> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// A line of [`LIST`].
pub type Entry = policy::Entry<dyn CompactionPolicy>;

/// Every compaction policy, in the order of results.
pub const LIST: &[Entry] = &[leveled::ENTRY, tiered::ENTRY, lazy_leveled::ENTRY];

/// What each compaction policy is.
pub fn list() -> impl Iterator<Item = &'static PolicyInfo> {
    LIST.iter().map(|entry| &entry.info)
}

/// Makes a compaction policy without state.
///
/// # Errors
///
/// `InvalidArgument` for an unknown name or parameter, naming those there are, or for a value out
/// of its bounds. Nothing was changed.
pub fn build(spec: &PolicySpec) -> Result<Box<dyn CompactionPolicy>> {
    Ok(Box::new(sparse::Unpacking::new(policy::build("compaction", LIST, spec)?)))
}

/// Bytes of a plan's inputs.
fn input_bytes(view: &LevelsView, plan: &CompactionPlan) -> u64 {
    let sizes = plan.inputs.iter().filter_map(|(level, table)| {
        let run = view.levels.get(to_usize(u64::from(*level)))?;
        run.iter().find(|t| t.table == *table).map(|t| t.bytes)
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests;
