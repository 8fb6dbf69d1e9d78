//! What background work waits to be done: the queue between those who cause it and those who do it.

mod flushes;

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::flushes::FlushJob;
use self::flushes::FlushQueue;
use crate::error::{Error, Result};
use crate::policy::compaction::manual::KeyRange;
use crate::signal::Signal;
use crate::types::{Nanos, TreeId};
use crate::version::tree::Tree;

/// A failed job is tried again after this long, and after twice as long each time, up to
/// [`RETRY_NS_MAX`].
const RETRY_NS_MIN: Nanos = 10_000_000;
const RETRY_NS_MAX: Nanos = 5_000_000_000;

#[derive(Debug, Default)]
struct State {
    flushes: FlushQueue,
    compactions: BTreeMap<TreeId, (u64, Nanos, Arc<Tree>)>,
    /// The same of trees that are not being compacted: those that are due by urgency, and those
    /// that are not known to be due by their time.
    compaction_ready: BTreeSet<(Reverse<u64>, TreeId)>,
    compaction_later: BTreeSet<(Nanos, TreeId)>,
    compacting: BTreeSet<TreeId>,
    /// Trees of which no compaction may begin, with the number of those who ask for that.
    held: BTreeMap<TreeId, u32>,
    /// When to ask about trees of which nothing is due, in the order of time and by tree.
    wakes: BTreeMap<(Nanos, TreeId), Arc<Tree>>,
    wake_times: BTreeMap<TreeId, Nanos>,
    manual: BTreeMap<TreeId, (Arc<Tree>, Vec<Arc<ManualCompaction>>)>,
    compaction_failures: BTreeMap<TreeId, u32>,
    /// Trees whose flush failed for good.
    failed: BTreeMap<TreeId, Arc<Tree>>,
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
pub(crate) enum Next<J> {
    /// This job.
    Run(J),
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
    /// The oldest immutable memtable of each of these trees is to be flushed; once for each
    /// memtable, with its bytes. Where `pack` is true they are to be flushed into one file.
    pub(crate) fn add_flushes(&self, sealed: &[(Arc<Tree>, u64)], pack: bool) {
        if !sealed.is_empty() {
            self.state.lock().flushes.add(sealed, pack);
            self.changed.raise();
        }
    }

    /// The next flush: first sealed, first flushed, one at a time in a tree. Where `pack_bytes` is
    /// above 0, memtables of other trees join the oldest one in their order until there are so many
    /// bytes; a tree whose flush failed is flushed alone. It counts as running until
    /// [`flush_done`](Self::flush_done).
    pub(crate) fn next_flush(&self, now: Nanos, pack_bytes: u64) -> Next<FlushJob> {
        self.state.lock().flushes.next(now, pack_bytes)
    }

    /// What a flush wrote is installed: it counts no more among those that policies see.
    pub(crate) fn flush_installed(&self, job: &FlushJob) {
        self.state.lock().flushes.installed(job);
    }

    /// A flush ended; what a failed one was to write waits at the head of the queue until it is
    /// tried again, each memtable by itself.
    pub(crate) fn flush_done(&self, job: &FlushJob, failed_at: Option<Nanos>) {
        self.state.lock().flushes.done(job, failed_at);
        self.changed.raise();
    }

    /// Flushes that wait or run and have installed nothing yet, where `pack_bytes` or a decision
    /// lets some of them write many memtables; `None` where each memtable is a flush.
    pub(crate) fn flush_job_count(&self, pack_bytes: u64) -> Option<u32> {
        self.state.lock().flushes.job_count(pack_bytes)
    }

    /// A flush of a tree failed for good.
    pub(crate) fn add_failed(&self, tree: &Arc<Tree>) {
        self.state.lock().failed.insert(tree.id, Arc::clone(tree));
    }

    /// Trees whose flush failed for good.
    pub(crate) fn failed(&self) -> Vec<Arc<Tree>> {
        self.state.lock().failed.values().cloned().collect()
    }

    /// A tree wants a compaction with this urgency, or none (0). It is not tried before the time
    /// that was set before, lest a flush cut the wait after a failure short.
    pub(crate) fn set_compaction(&self, tree: &Arc<Tree>, urgency: u64, not_before: Nanos) {
        let mut state = self.state.lock();
        state.unindex_compaction(tree.id);
        let before = state.compactions.remove(&tree.id).map_or(0, |(_, at, _)| at);
        if urgency > 0 {
            let not_before = not_before.max(before);
            state.compactions.insert(tree.id, (urgency, not_before, Arc::clone(tree)));
            state.index_compaction(tree.id);
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
    pub(crate) fn next_compaction(&self, now: Nanos) -> Next<Arc<Tree>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.wake(now);
        let wished = state.manual.iter().find(|(id, _)| state.is_free(**id));
        let wished = wished.map(|(_, (tree, _))| tree);
        if let Some(tree) = wished.cloned() {
            state.unindex_compaction(tree.id);
            state.compacting.insert(tree.id);
            return Next::Run(tree);
        }
        while let Some((at, id)) = state.compaction_later.first().copied()
            && at <= now
        {
            state.compaction_later.pop_first();
            if let Some((urgency, _, _)) = state.compactions.get(&id) {
                state.compaction_ready.insert((Reverse(*urgency), id));
            }
        }
        if let Some((_, id)) = state.compaction_ready.pop_first()
            && let Some((_, _, tree)) = state.compactions.remove(&id)
        {
            state.compacting.insert(id);
            return Next::Run(tree);
        }
        let later = state.compaction_later.first().map(|(at, _)| *at);
        let wake_at = state.wakes.first_key_value().map(|((at, _), _)| *at);
        Next::Wait(later.into_iter().chain(wake_at).min())
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
        let mut state = self.state.lock();
        state.compacting.remove(&tree);
        state.index_compaction(tree);
        drop(state);
        self.changed.raise();
    }

    /// No compaction of the tree begins until this is [released](Self::release_compactions), as
    /// often as it was called. One that runs goes on.
    pub(crate) fn hold_compactions(&self, tree: TreeId) {
        let mut state = self.state.lock();
        state.unindex_compaction(tree);
        *state.held.entry(tree).or_insert(0) += 1;
    }

    /// Compactions of the tree may begin again as far as this caller is concerned.
    pub(crate) fn release_compactions(&self, tree: TreeId) {
        let mut state = self.state.lock();
        let Some(count) = state.held.get_mut(&tree) else { return };
        *count -= 1;
        if *count == 0 {
            state.held.remove(&tree);
            state.index_compaction(tree);
            drop(state);
            self.changed.raise();
        }
    }

    /// Whether a compaction of the tree runs.
    pub(crate) fn is_compacting(&self, tree: TreeId) -> bool {
        self.state.lock().compacting.contains(&tree)
    }

    /// How often the tree's flush failed since one was done.
    pub(crate) fn flush_tries(&self, tree: TreeId) -> u32 {
        self.state.lock().flushes.tries(tree)
    }

    /// How often the tree's compaction failed since one was done.
    pub(crate) fn compaction_tries(&self, tree: TreeId) -> u32 {
        self.state.lock().compaction_failures.get(&tree).copied().unwrap_or(0)
    }

    /// Memtables that wait for a flush, and trees of which one runs.
    pub(crate) fn flush_count(&self) -> usize {
        self.state.lock().flushes.count()
    }

    /// Whether a flush runs: what it installed may not be settled yet.
    pub(crate) fn flushes_run(&self) -> bool {
        self.state.lock().flushes.runs()
    }

    /// Compactions that wait or run.
    pub(crate) fn compaction_count(&self) -> usize {
        let state = self.state.lock();
        state.compactions.len() + state.manual.len() + state.compacting.len()
    }

    /// Whether nothing waits and nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.flushes.count() == 0
            && state.compactions.is_empty()
            && state.manual.is_empty()
            && state.compacting.is_empty()
    }

    /// A tree is gone: nothing of it waits any more, but flushes of what others share with it where
    /// it keeps them.
    pub(crate) fn remove_tree(&self, tree: TreeId, keeps_flushes: bool) {
        let mut state = self.state.lock();
        if !keeps_flushes {
            state.flushes.forget(tree);
        }
        state.unindex_compaction(tree);
        state.compactions.remove(&tree);
        state.remove_wake(tree);
        let wishes = state.manual.remove(&tree).map_or_else(Vec::new, |(_, wishes)| wishes);
        for wish in &wishes {
            wish.end(Err(Error::Dropped));
        }
        state.compaction_failures.remove(&tree);
        state.failed.remove(&tree);
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
            self.index_compaction(id);
        }
    }

    /// Whether a compaction of the tree may begin.
    fn is_free(&self, id: TreeId) -> bool {
        !self.compacting.contains(&id) && !self.held.contains_key(&id)
    }

    /// Where a tree's compaction waits to be picked, unless one of it runs or none may begin.
    fn index_compaction(&mut self, id: TreeId) {
        self.unindex_compaction(id);
        if let Some((_, at, _)) =
            self.compactions.get(&id).filter(|_| !self.compacting.contains(&id))
        {
            self.compaction_later.insert((*at, id));
        }
    }

    fn unindex_compaction(&mut self, id: TreeId) {
        if let Some((urgency, at, _)) = self.compactions.get(&id) {
            self.compaction_ready.remove(&(Reverse(*urgency), id));
            self.compaction_later.remove(&(*at, id));
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
        jobs.remove_tree(TreeId(3), false);
        assert!(matches!(jobs.next_compaction(100), Next::Wait(None)));
    }

    #[test]
    fn what_comes_behind_a_failed_job_waits_as_long_as_that() {
        let (jobs, tree) = (Jobs::default(), Arc::new(Tree::new(TreeId(1))));
        let add = || jobs.add_flushes(&[(Arc::clone(&tree), 1)], false);
        add();
        add();
        let Next::Run(job) = jobs.next_flush(0, 0) else { panic!("nothing is due") };
        jobs.flush_done(&job, Some(100));
        add();
        let due = 100 + RETRY_NS_MIN;
        assert!(matches!(jobs.next_flush(due - 1, 0), Next::Wait(Some(at)) if at == due));
        for _ in 0..3 {
            let Next::Run(job) = jobs.next_flush(due, 0) else { panic!("nothing is due") };
            jobs.flush_done(&job, None);
        }
        assert_eq!(jobs.flush_count(), 0);
        let at = 100 + jobs.compaction_outcome(tree.id, true);
        jobs.set_compaction(&tree, 2, at);
        // A flush ends meanwhile.
        jobs.set_compaction(&tree, 3, 0);
        assert!(matches!(jobs.next_compaction(at - 1), Next::Wait(Some(next)) if next == at));
        assert!(matches!(jobs.next_compaction(at), Next::Run(_)));
    }

    fn tree(id: u64) -> Arc<Tree> {
        Arc::new(Tree::new(TreeId(id)))
    }

    /// The trees of the next flush, each with its memtables.
    fn picked(jobs: &Jobs, now: Nanos, pack_bytes: u64) -> (FlushJob, Vec<(u64, usize)>) {
        let Next::Run(job) = jobs.next_flush(now, pack_bytes) else { panic!("nothing is due") };
        let members = job.members().map(|(tree, count)| (tree.id.0, count)).collect();
        (job, members)
    }

    #[test]
    fn flushes_are_packed_oldest_first_and_one_at_a_time_in_a_tree() {
        let jobs = Jobs::default();
        let sealed: Vec<_> = [5, 3, 5, 4, 1].map(|id| (tree(id), 10)).into();
        jobs.add_flushes(&sealed, false);
        assert_eq!(jobs.flush_job_count(0), None);
        assert_eq!(jobs.flush_job_count(30), Some(2));
        let (first, members) = picked(&jobs, 0, 30);
        assert_eq!(members, [(5, 1), (3, 1), (4, 1)]);
        assert_eq!(jobs.flush_job_count(30), Some(2));
        // The second memtable of 5 waits for the first.
        let (second, members) = picked(&jobs, 0, 30);
        assert_eq!(members, [(1, 1)]);
        assert!(!second.is_packed());
        assert!(matches!(jobs.next_flush(0, 30), Next::Wait(None)));
        jobs.flush_installed(&first);
        assert_eq!((jobs.flush_job_count(30), jobs.flush_count()), (Some(2), 5));
        jobs.flush_done(&first, None);
        jobs.flush_done(&second, None);
        assert_eq!((jobs.flush_job_count(30), jobs.flush_count()), (Some(1), 1));
        let (third, members) = picked(&jobs, 0, 30);
        assert_eq!(members, [(5, 1)]);
        jobs.flush_done(&third, None);
        assert!(jobs.is_idle());
    }

    #[test]
    fn what_failed_together_is_tried_again_one_by_one_in_its_order() {
        let jobs = Jobs::default();
        let trees = [tree(2), tree(1), tree(3)];
        let sealed =
            |of: &[usize]| of.iter().map(|t| (Arc::clone(&trees[*t]), 1)).collect::<Vec<_>>();
        jobs.add_flushes(&sealed(&[0, 1]), false);
        let (job, members) = picked(&jobs, 0, 100);
        assert_eq!(members, [(2, 1), (1, 1)]);
        jobs.add_flushes(&sealed(&[2, 0]), false);
        jobs.flush_done(&job, Some(50));
        let due = 50 + RETRY_NS_MIN;
        let (other, members) = picked(&jobs, due - 1, 100);
        assert_eq!(members, [(3, 1)]);
        jobs.flush_done(&other, None);
        for expected in [(2, 1), (1, 1), (2, 1)] {
            let (job, members) = picked(&jobs, due, 100);
            assert_eq!(members, [expected]);
            jobs.flush_done(&job, None);
        }
        assert!(jobs.is_idle());
    }

    #[test]
    fn what_a_decision_packs_is_one_flush_but_for_trees_that_are_being_flushed() {
        let jobs = Jobs::default();
        let trees = [tree(2), tree(1), tree(3), tree(4)];
        let sealed =
            |of: &[usize]| of.iter().map(|t| (Arc::clone(&trees[*t]), 1)).collect::<Vec<_>>();
        jobs.add_flushes(&sealed(&[3, 0]), false);
        let (running, members) = picked(&jobs, 0, 0);
        assert_eq!(members, [(4, 1)]);
        jobs.add_flushes(&sealed(&[1, 0, 3, 2]), true);
        assert_eq!(jobs.flush_job_count(0), Some(3));
        jobs.remove_tree(TreeId(3), false);
        let (old, members) = picked(&jobs, 0, 0);
        assert_eq!(members, [(2, 1)]);
        let (pack, members) = picked(&jobs, 0, 0);
        // 2 and 4 are being flushed, and 3 is gone.
        assert_eq!(members, [(1, 1)]);
        for job in [running, old, pack] {
            jobs.flush_done(&job, None);
        }
        jobs.add_flushes(&sealed(&[1, 2]), true);
        let (first, members) = picked(&jobs, 0, 0);
        assert_eq!(members, [(2, 1)]);
        let (second, members) = picked(&jobs, 0, 0);
        assert_eq!(members, [(4, 1)]);
        let (third, members) = picked(&jobs, 0, 0);
        assert_eq!(members, [(1, 1), (3, 1)]);
        assert!(third.is_packed());
        for job in [first, second, third] {
            jobs.flush_done(&job, None);
        }
        assert!(jobs.is_idle());
        assert_eq!(jobs.flush_job_count(0), None);
    }

    #[test]
    fn no_compaction_begins_while_one_holds_the_tree() {
        let (jobs, tree) = (Jobs::default(), tree(1));
        jobs.set_compaction(&tree, 1, 0);
        jobs.hold_compactions(tree.id);
        jobs.hold_compactions(tree.id);
        jobs.set_compaction(&tree, 2, 0);
        let range = (core::ops::Bound::Unbounded, core::ops::Bound::Unbounded);
        let wish = jobs.add_manual_compaction(&tree, range);
        for _ in 0..2 {
            assert!(matches!(jobs.next_compaction(9), Next::Wait(None)));
            assert!(!jobs.is_idle() && !jobs.is_compacting(tree.id));
            jobs.release_compactions(tree.id);
        }
        assert!(matches!(jobs.next_compaction(9), Next::Run(_)));
        drop((wish, jobs.take_manual_compactions(tree.id)));
        // One that runs goes on, and none comes behind it.
        jobs.hold_compactions(tree.id);
        assert!(jobs.is_compacting(tree.id));
        jobs.compaction_done(tree.id);
        assert!(matches!(jobs.next_compaction(9), Next::Wait(None)));
        jobs.release_compactions(tree.id);
        assert!(matches!(jobs.next_compaction(9), Next::Run(_)));
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
