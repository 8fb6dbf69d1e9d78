//! What background work waits to be done: the queue between those who cause it and those who do it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::policy::compaction::manual::KeyRange;
use crate::signal::Signal;
use crate::types::{Nanos, TreeId};
use crate::version::tree::Tree;

/// A failed job is tried again after this long, and after twice as long each time, up to
/// [`RETRY_NS_MAX`].
const RETRY_NS_MIN: Nanos = 10_000_000;
const RETRY_NS_MAX: Nanos = 5_000_000_000;

#[derive(Debug)]
struct FlushEntry {
    tree: Arc<Tree>,
    not_before: Nanos,
}

#[derive(Debug, Default)]
struct State {
    flushes: VecDeque<FlushEntry>,
    flushing: BTreeSet<TreeId>,
    compactions: BTreeMap<TreeId, (u64, Nanos, Arc<Tree>)>,
    compacting: BTreeSet<TreeId>,
    /// When to ask about trees of which nothing is due, in the order of time and by tree.
    wakes: BTreeMap<(Nanos, TreeId), Arc<Tree>>,
    wake_times: BTreeMap<TreeId, Nanos>,
    manual: BTreeMap<TreeId, (Arc<Tree>, Vec<Arc<ManualCompaction>>)>,
    flush_failures: BTreeMap<TreeId, u32>,
    compaction_failures: BTreeMap<TreeId, u32>,
}

/// A wish of somebody who waits: a range of a tree in the last level.
#[derive(Debug)]
pub(crate) struct ManualCompaction {
    pub(crate) range: KeyRange,
    outcome: Mutex<Option<Result<()>>>,
}

impl ManualCompaction {
    /// How it ended, once it has.
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        self.outcome.lock().clone()
    }

    /// It ended. Who waits looks when [`Shared::job_ended`](crate::shared::Shared) is raised.
    pub(crate) fn end(&self, outcome: Result<()>) {
        *self.outcome.lock() = Some(outcome);
    }
}

/// What a worker is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// This tree's job.
    Run(Arc<Tree>),
    /// Nothing before this time, unless [`Jobs::changed`] is raised.
    Wait(Option<Nanos>),
}

/// Flushes and compactions that wait or run.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    /// Raised when there may be something to do.
    pub(crate) changed: Signal,
}

impl Jobs {
    /// A tree's oldest immutable memtable is to be flushed; once for each memtable.
    pub(crate) fn add_flush(&self, tree: &Arc<Tree>) {
        let mut state = self.state.lock();
        // Behind a flush that failed it waits as long as that one.
        let not_before = if state.flush_failures.contains_key(&tree.id) {
            let of_tree = state.flushes.iter().filter(|e| e.tree.id == tree.id);
            of_tree.map(|e| e.not_before).max().unwrap_or(0)
        } else {
            0
        };
        state.flushes.push_back(FlushEntry { tree: Arc::clone(tree), not_before });
        drop(state);
        self.changed.raise();
    }

    /// The next flush: first sealed, first flushed, one at a time in a tree. It counts as running
    /// until [`flush_done`](Self::flush_done).
    pub(crate) fn next_flush(&self, now: Nanos) -> Next {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let free = |e: &FlushEntry| !state.flushing.contains(&e.tree.id);
        if let Some(at) = state.flushes.iter().position(|e| e.not_before <= now && free(e))
            && let Some(entry) = state.flushes.remove(at)
        {
            state.flushing.insert(entry.tree.id);
            return Next::Run(entry.tree);
        }
        let soonest = state.flushes.iter().filter(|e| free(e)).map(|e| e.not_before).min();
        Next::Wait(soonest)
    }

    /// A flush ended; a failed one waits at the head of the queue until it is tried again.
    pub(crate) fn flush_done(&self, tree: &Arc<Tree>, failed_at: Option<Nanos>) {
        let mut state = self.state.lock();
        state.flushing.remove(&tree.id);
        match failed_at {
            None => {
                state.flush_failures.remove(&tree.id);
            }
            Some(now) => {
                let not_before = now + backoff(&mut state.flush_failures, tree.id);
                for entry in state.flushes.iter_mut().filter(|e| e.tree.id == tree.id) {
                    entry.not_before = not_before;
                }
                state.flushes.push_front(FlushEntry { tree: Arc::clone(tree), not_before });
            }
        }
        drop(state);
        self.changed.raise();
    }

    /// A tree wants a compaction with this urgency, or none (0). It is not tried before the time
    /// that was set before, lest a flush cut the wait after a failure short.
    pub(crate) fn set_compaction(&self, tree: &Arc<Tree>, urgency: u64, not_before: Nanos) {
        let mut state = self.state.lock();
        let before = state.compactions.remove(&tree.id).map_or(0, |(_, at, _)| at);
        if urgency > 0 {
            let not_before = not_before.max(before);
            state.compactions.insert(tree.id, (urgency, not_before, Arc::clone(tree)));
            drop(state);
            self.changed.raise();
        }
    }

    /// A tree of which nothing is due is to be looked at again at this time.
    pub(crate) fn set_wake(&self, tree: &Arc<Tree>, at: Option<Nanos>) {
        let mut state = self.state.lock();
        state.remove_wake(tree.id);
        let Some(at) = at else { return };
        let soonest = state.wakes.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.wakes.insert((at, tree.id), Arc::clone(tree));
        state.wake_times.insert(tree.id, at);
        drop(state);
        if soonest {
            self.changed.raise();
        }
    }

    /// The most urgent compaction, one at a time in a tree; equal ones by tree.
    pub(crate) fn next_compaction(&self, now: Nanos) -> Next {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.wake(now);
        let free = |id: &TreeId| !state.compacting.contains(id);
        let wished = state.manual.iter().find(|(id, _)| free(id)).map(|(_, (tree, _))| tree);
        if let Some(tree) = wished.cloned() {
            state.compacting.insert(tree.id);
            return Next::Run(tree);
        }
        let due = state.compactions.iter().filter(|(id, (_, at, _))| *at <= now && free(id));
        let best = due.max_by_key(|(id, (urgency, _, _))| (*urgency, core::cmp::Reverse(**id)));
        if let Some(id) = best.map(|(id, _)| *id)
            && let Some((_, _, tree)) = state.compactions.remove(&id)
        {
            state.compacting.insert(id);
            return Next::Run(tree);
        }
        let later = state.compactions.iter().filter(|(id, _)| free(id)).map(|(_, (_, at, _))| *at);
        let wake_at = state.wakes.first_key_value().map(|((at, _), _)| *at);
        Next::Wait(later.chain(wake_at).min())
    }

    /// Somebody waits for a range of a tree to be merged into the last level.
    pub(crate) fn add_manual_compaction(
        &self,
        tree: &Arc<Tree>,
        range: KeyRange,
    ) -> Arc<ManualCompaction> {
        let wish = Arc::new(ManualCompaction { range, outcome: Mutex::new(None) });
        let mut state = self.state.lock();
        let entry = state.manual.entry(tree.id).or_insert_with(|| (Arc::clone(tree), Vec::new()));
        entry.1.push(Arc::clone(&wish));
        drop(state);
        self.changed.raise();
        wish
    }

    /// The wishes that a compaction of the tree, which is about to begin, is to fulfil.
    pub(crate) fn take_manual_compactions(&self, tree: TreeId) -> Vec<Arc<ManualCompaction>> {
        self.state.lock().manual.remove(&tree).map_or_else(Vec::new, |(_, wishes)| wishes)
    }

    /// Counts how a compaction ended. Returns how long to wait before the tree's next one when it
    /// failed.
    pub(crate) fn compaction_outcome(&self, tree: TreeId, failed: bool) -> Nanos {
        let mut state = self.state.lock();
        if failed {
            return backoff(&mut state.compaction_failures, tree);
        }
        state.compaction_failures.remove(&tree);
        0
    }

    /// A compaction ended and what is due next is queued: in between the tree is not idle.
    pub(crate) fn compaction_done(&self, tree: TreeId) {
        self.state.lock().compacting.remove(&tree);
        self.changed.raise();
    }

    /// How often the tree's flush failed since one was done.
    pub(crate) fn flush_tries(&self, tree: TreeId) -> u32 {
        self.state.lock().flush_failures.get(&tree).copied().unwrap_or(0)
    }

    /// How often the tree's compaction failed since one was done.
    pub(crate) fn compaction_tries(&self, tree: TreeId) -> u32 {
        self.state.lock().compaction_failures.get(&tree).copied().unwrap_or(0)
    }

    /// Flushes that wait or run.
    pub(crate) fn flush_count(&self) -> usize {
        let state = self.state.lock();
        state.flushes.len() + state.flushing.len()
    }

    /// Compactions that wait or run.
    pub(crate) fn compaction_count(&self) -> usize {
        let state = self.state.lock();
        state.compactions.len() + state.manual.len() + state.compacting.len()
    }

    /// Whether nothing waits and nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.flushes.is_empty()
            && state.flushing.is_empty()
            && state.compactions.is_empty()
            && state.manual.is_empty()
            && state.compacting.is_empty()
    }

    /// A tree is gone: nothing of it waits any more.
    pub(crate) fn remove_tree(&self, tree: TreeId) {
        let mut state = self.state.lock();
        state.flushes.retain(|e| e.tree.id != tree);
        state.compactions.remove(&tree);
        state.remove_wake(tree);
        let wishes = state.manual.remove(&tree).map_or_else(Vec::new, |(_, wishes)| wishes);
        for wish in &wishes {
            wish.end(Err(Error::Dropped));
        }
        state.flush_failures.remove(&tree);
        state.compaction_failures.remove(&tree);
        drop(state);
        self.changed.raise();
    }
}

impl State {
    fn remove_wake(&mut self, tree: TreeId) {
        if let Some(at) = self.wake_times.remove(&tree) {
            self.wakes.remove(&(at, tree));
        }
    }

    /// Queues the trees that were to be looked at by now.
    fn wake(&mut self, now: Nanos) {
        while let Some(entry) = self.wakes.first_entry()
            && entry.key().0 <= now
        {
            let ((_, id), tree) = entry.remove_entry();
            self.wake_times.remove(&id);
            self.compactions.entry(id).or_insert((1, 0, tree));
        }
    }
}

/// Counts a failure of a tree's job; how long to wait before it is tried again.
fn backoff(failures: &mut BTreeMap<TreeId, u32>, tree: TreeId) -> Nanos {
    let count = failures.entry(tree).or_insert(0);
    *count = count.saturating_add(1);
    (RETRY_NS_MIN << (*count - 1).min(9)).min(RETRY_NS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_looked_at_again_at_its_time_and_is_idle_until_then() {
        let jobs = Jobs::default();
        let trees: Vec<Arc<Tree>> = (1..4).map(|id| Arc::new(Tree::new(TreeId(id)))).collect();
        for (at, tree) in [30, 10, 20].into_iter().zip(&trees) {
            jobs.set_wake(tree, Some(at));
        }
        jobs.set_wake(&trees[2], Some(40));
        assert!(jobs.is_idle());
        assert!(matches!(jobs.next_compaction(9), Next::Wait(Some(10))));
        assert!(matches!(jobs.next_compaction(10), Next::Run(tree) if tree.id == TreeId(2)));
        jobs.compaction_done(TreeId(2));
        jobs.set_wake(&trees[0], None);
        assert!(matches!(jobs.next_compaction(39), Next::Wait(Some(40))));
        jobs.remove_tree(TreeId(3));
        assert!(matches!(jobs.next_compaction(100), Next::Wait(None)));
    }

    #[test]
    fn what_comes_behind_a_failed_job_waits_as_long_as_that() {
        let (jobs, tree) = (Jobs::default(), Arc::new(Tree::new(TreeId(1))));
        jobs.add_flush(&tree);
        jobs.add_flush(&tree);
        assert!(matches!(jobs.next_flush(0), Next::Run(_)));
        jobs.flush_done(&tree, Some(100));
        jobs.add_flush(&tree);
        let due = 100 + RETRY_NS_MIN;
        assert!(matches!(jobs.next_flush(due - 1), Next::Wait(Some(at)) if at == due));
        for _ in 0..3 {
            assert!(matches!(jobs.next_flush(due), Next::Run(_)));
            jobs.flush_done(&tree, None);
        }
        assert_eq!(jobs.flush_count(), 0);
        let at = 100 + jobs.compaction_outcome(tree.id, true);
        jobs.set_compaction(&tree, 2, at);
        // A flush ends meanwhile.
        jobs.set_compaction(&tree, 3, 0);
        assert!(matches!(jobs.next_compaction(at - 1), Next::Wait(Some(next)) if next == at));
        assert!(matches!(jobs.next_compaction(at), Next::Run(_)));
    }

    #[test]
    fn a_tree_is_not_idle_between_a_compaction_and_the_next() {
        let (jobs, tree) = (Jobs::default(), Arc::new(Tree::new(TreeId(1))));
        jobs.set_compaction(&tree, 1, 0);
        assert!(matches!(jobs.next_compaction(0), Next::Run(_)));
        assert_eq!(jobs.compaction_outcome(tree.id, false), 0);
        assert!(!jobs.is_idle());
        jobs.set_compaction(&tree, 1, 0);
        // Not twice at a time in a tree.
        assert!(matches!(jobs.next_compaction(0), Next::Wait(None)));
        jobs.compaction_done(tree.id);
        assert!(matches!(jobs.next_compaction(0), Next::Run(_)));
    }
}
