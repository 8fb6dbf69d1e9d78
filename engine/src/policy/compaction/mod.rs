//! Compaction policies: which tables of a tree are merged next.
//!
//! A policy plans for one tree at a time; which tree comes first is the scheduler's choice, by
//! [`urgency`](CompactionPolicy::urgency). A new one is a file here and a line in [`LIST`].

mod leveled;

use core::fmt::Debug;

use crate::error::Result;
use crate::policy::view::{CompactionPlan, LevelsView};
use crate::policy::{self, PolicyInfo, PolicySpec};
use crate::types::TreeId;

/// Plans compactions.
pub trait CompactionPolicy: Debug + Send {
    /// The tree's next compaction, or `None` where nothing is due or what is due is being
    /// compacted.
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan>;

    /// How far the tree is above its targets, in thousandths of the target; 0 = nothing is due.
    fn urgency(&self, view: &LevelsView) -> u64;

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
pub const LIST: &[Entry] = &[leveled::ENTRY];

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
    policy::build("compaction", LIST, spec)
}

#[cfg(test)]
mod tests;
