//! The only maker of policy views from live state.
//!
//! The flush view is maintained in place: each write, seal and flush changes the facts of its own
//! tree and the totals, so that a decision costs what the policy reads and a write costs a few
//! additions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::budget::Budget;
use crate::error::Result;
use crate::options::Options;
use crate::policy::flush::{self, FlushPolicy};
use crate::policy::view::{
    ChangeKind, FlushDecision, FlushView, LoadView, StallLimits, TreeChange, TreeFacts, WriteView,
};
use crate::types::{BranchId, Nanos, TreeId};
use crate::version::tree::Tree;

#[derive(Debug)]
struct State {
    view: FlushView,
    trees: Vec<Option<Arc<Tree>>>,
    /// By slot, and their sum: what compactions have before them.
    pending: Vec<u64>,
    pending_sum: u64,
    free: Vec<usize>,
    slot_of: BTreeMap<TreeId, usize>,
    /// Trees whose entries are appended to the log again, in place of a flush. Each has a slot.
    relogging: BTreeSet<TreeId>,
    /// The newest segment for which trees were chosen.
    relog_planned: u64,
    /// By slot: the decision before which the tree last took a write.
    written_at: Vec<u64>,
    decision: u64,
    policy: Box<dyn FlushPolicy>,
    draw: u64,
    /// The stall policy's stream of draws.
    stall_draw: u64,
    wake_at: Option<Nanos>,
}

/// One write, as it asks to be admitted to one of its trees.
#[derive(Clone, Copy, Debug)]
pub struct WriteFacts {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// Whose write.
    pub branch: BranchId,
    /// Bytes that it would charge in all.
    pub write_bytes: u64,
    /// Of them, those that it would charge to the tree.
    pub tree_bytes: u64,
    /// How long it was delayed so far.
    pub delayed_ns: Nanos,
    /// Bytes of all live WAL segments.
    pub wal_bytes: u64,
}

/// Whom a decision names.
#[derive(Clone, Debug, Default)]
pub struct Victims {
    /// Trees to seal and flush, first one first.
    pub flush: Vec<Arc<Tree>>,
    /// Trees to seal and flush into one file.
    pub pack: Vec<Arc<Tree>>,
    /// The trees that the policy looked at.
    pub looked: u64,
}

/// Facts of all trees, and the flush policy that sees them.
#[derive(Debug)]
pub struct Pressure {
    state: Mutex<State>,
}

impl Pressure {
    /// No trees yet. `draw` seeds the streams of draws of the flush and the stall policy.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an unknown flush policy.
    pub fn new(options: &Options, draw: u64) -> Result<Self> {
        let view = FlushView {
            budget_bytes: options.budget_bytes,
            flush_slots: options.flush_slots,
            wal_bytes_max: options.wal_limit_bytes(),
            pack_bytes: options.pack_target_bytes(),
            ..FlushView::default()
        };
        let policy = flush::build(&options.flush_policy)?;
        let state = State {
            view,
            trees: Vec::new(),
            pending: Vec::new(),
            pending_sum: 0,
            free: Vec::new(),
            slot_of: BTreeMap::new(),
            relogging: BTreeSet::new(),
            relog_planned: 0,
            written_at: Vec::new(),
            decision: 1,
            policy,
            draw,
            stall_draw: mix(splitmix(!draw)),
            wake_at: None,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    /// A tree that policies may name from now on.
    pub fn add_tree(&self, tree: &Arc<Tree>, memtable_bytes_max: u64, now: Nanos) {
        let mut state = self.state.lock();
        let facts = TreeFacts {
            tree: tree.id,
            memtable_bytes_max,
            memtable_created_ns: now,
            l0_count: tree.view().version.l0_count(),
            ..TreeFacts::default()
        };
        let slot = if let Some(slot) = state.free.pop() {
            slot
        } else {
            state.view.trees.push(TreeFacts::default());
            state.trees.push(None);
            state.pending.push(0);
            state.written_at.push(0);
            state.trees.len() - 1
        };
        if let Some(place) = state.view.trees.get_mut(slot) {
            *place = facts;
        }
        if let Some(place) = state.trees.get_mut(slot) {
            *place = Some(Arc::clone(tree));
        }
        state.slot_of.insert(tree.id, slot);
        tree.slot.store(slot, Ordering::Relaxed);
    }

    /// A tree that is gone. Its memtables' bytes leave the totals.
    pub fn remove_tree(&self, tree: &Tree) {
        let slot = tree.slot.swap(usize::MAX, Ordering::Relaxed);
        let mut state = self.state.lock();
        if let Some(place) = state.trees.get_mut(slot) {
            *place = None;
            state.free.push(slot);
            state.slot_of.remove(&tree.id);
            state.relogging.remove(&tree.id);
            state.set_pending(slot, 0);
        }
        if let Some(facts) = state.view.trees.get_mut(slot) {
            let gone = core::mem::take(facts);
            state.view.immutable_count =
                state.view.immutable_count.saturating_sub(gone.immutable_count);
        }
    }

    /// The bytes at which a tree's memtable is sealed changed with its tenants.
    pub fn set_memtable_cap(&self, tree: &Tree, memtable_bytes_max: u64) {
        self.with(tree, |facts| facts.memtable_bytes_max = memtable_bytes_max);
    }

    fn with(&self, tree: &Tree, f: impl FnOnce(&mut TreeFacts)) {
        let mut state = self.state.lock();
        if let Some(facts) = state.view.trees.get_mut(tree.slot.load(Ordering::Relaxed)) {
            f(facts);
        }
    }

    /// An entry went into a tree's memtable, whose oldest entry lies in segment `anchor_segment`.
    /// Returns whether the memtable reached its cap.
    pub fn on_write(&self, tree: &Tree, bytes: u64, now: Nanos, anchor_segment: u64) -> bool {
        let slot = tree.slot.load(Ordering::Relaxed);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(facts) = state.view.trees.get_mut(slot) else { return false };
        if facts.memtable_bytes == 0 {
            facts.first_write_ns = now;
            facts.wal_anchor_segment = anchor_segment;
        }
        facts.memtable_bytes += bytes;
        facts.written_bytes += bytes;
        facts.last_write_ns = now;
        let full = facts.memtable_bytes >= facts.memtable_bytes_max;
        if let Some(at) = state.written_at.get_mut(slot)
            && *at < state.decision
        {
            *at = state.decision;
            state.view.written_slots.push(slot);
        }
        full
    }

    /// A tree's memtable became immutable.
    pub fn on_seal(&self, tree: &Tree, now: Nanos) {
        let mut state = self.state.lock();
        if let Some(facts) = state.view.trees.get_mut(tree.slot.load(Ordering::Relaxed)) {
            facts.immutable_bytes += facts.memtable_bytes;
            facts.immutable_count += 1;
            facts.memtable_bytes = 0;
            facts.memtable_created_ns = now;
            facts.first_write_ns = 0;
            facts.wal_anchor_segment = 0;
            state.view.immutable_count += 1;
        }
        state.relogging.remove(&tree.id);
    }

    /// An immutable memtable of a tree is in a table.
    pub fn on_flushed(&self, tree: &Tree, bytes: u64) {
        let l0_count = tree.view().version.l0_count();
        let mut state = self.state.lock();
        if let Some(facts) = state.view.trees.get_mut(tree.slot.load(Ordering::Relaxed)) {
            facts.immutable_bytes = facts.immutable_bytes.saturating_sub(bytes);
            facts.immutable_count = facts.immutable_count.saturating_sub(1);
            facts.l0_count = l0_count;
            state.view.flushed_bytes = state.view.flushed_bytes.saturating_add(bytes);
            state.view.immutable_count = state.view.immutable_count.saturating_sub(1);
        }
    }

    /// A compaction of a tree ended.
    pub fn on_compacted(&self, tree: &Tree) {
        let l0_count = tree.view().version.l0_count();
        self.with(tree, |facts| facts.l0_count = l0_count);
    }

    /// What compactions of a tree have before them.
    pub fn set_pending_compaction(&self, tree: &Tree, bytes: u64) {
        let mut state = self.state.lock();
        state.set_pending(tree.slot.load(Ordering::Relaxed), bytes);
    }

    /// What compactions of a fork have before them is what those of its parent have.
    pub fn inherit_pending_compaction(&self, parent: &Tree, fork: &Tree) {
        let mut state = self.state.lock();
        let bytes = state.pending_of(parent);
        state.set_pending(fork.slot.load(Ordering::Relaxed), bytes);
    }

    /// What compactions of all trees have before them.
    pub fn pending_compaction_bytes(&self) -> u64 {
        self.state.lock().pending_sum
    }

    /// Asks the flush policy whom to seal.
    /// `jobs` is how many flushes wait or run, where some of them write many memtables.
    pub fn decide(
        &self,
        now: Nanos,
        budget: &Budget,
        wal: (u64, u64),
        jobs: Option<u32>,
    ) -> Victims {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.draw = splitmix(state.draw);
        state.view.now_ns = now;
        state.view.reserved_bytes = budget.reserved_bytes();
        state.view.mutable_bytes = budget.mutable_bytes();
        state.view.immutable_bytes = budget.immutable_bytes();
        state.view.history_bytes = budget.history_bytes();
        state.view.spooled_bytes = budget.spooled_bytes().min(state.view.immutable_bytes);
        state.view.stopped_bytes = budget.wished_bytes();
        (state.view.wal_bytes, state.view.wal_oldest_segment) = wal;
        state.view.draw = mix(state.draw);
        state.view.flush_job_count = jobs.unwrap_or(state.view.immutable_count);
        let FlushDecision { flush, pack, wake_at } = state.policy.decide(&state.view);
        state.view.written_slots.clear();
        state.decision += 1;
        state.wake_at = wake_at;
        if flush.is_empty() && pack.is_empty() {
            return Victims::default();
        }
        let find = |ids: &[TreeId]| ids.iter().filter_map(|id| state.find(*id)).collect();
        Victims {
            flush: find(&flush),
            pack: find(&pack),
            looked: u64::try_from(state.trees.len()).unwrap_or(u64::MAX),
        }
    }

    /// When the flush policy wants to be asked again.
    pub fn wake_at(&self) -> Option<Nanos> {
        self.state.lock().wake_at
    }

    /// The tree that the engine flushes itself where the policy names none: the one that pins the
    /// oldest WAL segment, the larger one of equals.
    pub fn override_victim(&self) -> Option<Arc<Tree>> {
        let state = self.state.lock();
        let slots = state.slots().filter(|(f, _)| f.memtable_bytes > 0);
        let key = |f: &TreeFacts| (f.wal_anchor_segment, u64::MAX - f.memtable_bytes);
        slots.min_by_key(|(f, _)| key(f)).map(|(_, tree)| Arc::clone(tree))
    }

    /// The tree with the most memtable bytes: who is to blame when the budget is full. The oldest
    /// of equals.
    pub fn largest(&self) -> Option<Arc<Tree>> {
        let state = self.state.lock();
        let key = |f: &TreeFacts| {
            (f.memtable_bytes.saturating_add(f.immutable_bytes), core::cmp::Reverse(f.tree))
        };
        state.slots().max_by_key(|(f, _)| key(f)).map(|(_, tree)| Arc::clone(tree))
    }

    /// What the stall policy sees of one tree of a write.
    pub fn write_view(
        &self,
        tree: &Tree,
        (budget, options): (&Budget, &Options),
        facts: WriteFacts,
    ) -> WriteView {
        let of_tree = tree.view();
        let mut state = self.state.lock();
        state.stall_draw = splitmix(state.stall_draw);
        WriteView {
            now_ns: facts.now_ns,
            tree: tree.id,
            branch: facts.branch,
            draw: mix(state.stall_draw),
            write_bytes: facts.write_bytes,
            tree_bytes: facts.tree_bytes,
            budget_bytes: budget.limit_bytes(),
            used_bytes: budget.used_bytes(),
            mutable_bytes: budget.mutable_bytes(),
            spooled_bytes: budget.spooled_bytes(),
            history_bytes: budget.history_bytes(),
            immutable_count: tree.own_immutable_count(),
            l0_count: of_tree.version.l0_count(),
            pending_compaction_bytes: state.pending_of(tree),
            pending_compaction_sum_bytes: state.pending_sum,
            wal_bytes: facts.wal_bytes,
            delayed_ns: facts.delayed_ns,
            limits: options.stall_limits(),
        }
    }

    /// What the stall policy is told of a tree that changed.
    pub fn tree_change(
        &self,
        tree: &Tree,
        kind: ChangeKind,
        (now_ns, limits): (Nanos, StallLimits),
    ) -> TreeChange {
        if kind == ChangeKind::Dropped {
            return TreeChange { now_ns, tree: tree.id, kind, limits, ..TreeChange::default() };
        }
        let of_tree = tree.view();
        TreeChange {
            now_ns,
            tree: tree.id,
            kind,
            immutable_count: tree.own_immutable_count(),
            l0_count: of_tree.version.l0_count(),
            pending_compaction_bytes: self.state.lock().pending_of(tree),
            limits,
        }
    }

    /// What a stall policy sees that shares the device.
    pub fn load_view(&self, now_ns: Nanos, budget: &Budget) -> LoadView {
        let state = self.state.lock();
        LoadView {
            now_ns,
            budget_bytes: budget.limit_bytes(),
            used_bytes: budget.used_bytes(),
            spooled_bytes: budget.spooled_bytes(),
            history_bytes: budget.history_bytes(),
            pending_compaction_sum_bytes: state.pending_sum,
        }
    }

    /// Trees whose memtable pins this segment or an older one: the oldest anchor first, of equal
    /// ones the tree written to longest ago.
    pub fn pinning(&self, segment: u64) -> Vec<Arc<Tree>> {
        let state = self.state.lock();
        let mut pinning: Vec<(&TreeFacts, &Arc<Tree>)> = state.pinning(segment).collect();
        // Of equal ones the lower slot comes first.
        pinning.sort_by_key(|(facts, _)| (facts.wal_anchor_segment, facts.last_write_ns));
        pinning.into_iter().map(|(_, tree)| Arc::clone(tree)).collect()
    }

    /// Of these trees, those that are not to be re-logged.
    pub fn without_relogged(&self, mut trees: Vec<Arc<Tree>>) -> Vec<Arc<Tree>> {
        let state = self.state.lock();
        trees.retain(|tree| !state.relogging.contains(&tree.id));
        trees
    }

    /// Of the trees whose memtable pins this segment or an older one, `choose` says which are to be
    /// re-logged, in place of those of which it was said before; once for each segment. Returns
    /// whether there are any.
    pub fn plan_relog(
        &self,
        segment: u64,
        choose: impl FnOnce(Vec<Arc<Tree>>) -> BTreeSet<TreeId>,
    ) -> bool {
        let mut state = self.state.lock();
        if state.relog_planned < segment {
            state.relog_planned = segment;
            let pinning = state.pinning(segment).map(|(_, tree)| Arc::clone(tree)).collect();
            state.relogging = choose(pinning);
        }
        !state.relogging.is_empty()
    }

    /// None is to be re-logged any more.
    pub fn forget_relog(&self) {
        self.state.lock().relogging.clear();
    }

    /// Trees to re-log, in the order of their ids.
    pub fn relogging(&self) -> Vec<Arc<Tree>> {
        let state = self.state.lock();
        state.relogging.iter().filter_map(|id| state.find(*id)).collect()
    }

    /// How many trees are to be re-logged.
    pub fn relogging_count(&self) -> usize {
        self.state.lock().relogging.len()
    }

    /// A tree is not to be re-logged any more. Where it was, the oldest entry of its memtable lies
    /// in segment `anchor_segment`.
    pub fn on_relogged(&self, tree: &Tree, anchor_segment: Option<u64>) {
        self.state.lock().relogging.remove(&tree.id);
        if let Some(anchor_segment) = anchor_segment {
            self.with(tree, |facts| facts.wal_anchor_segment = anchor_segment);
        }
    }

    /// Bytes in memtables of trees without a write since `since`.
    pub fn stranded_bytes(&self, since: Nanos) -> u64 {
        let state = self.state.lock();
        let idle = state.view.trees.iter().filter(|f| f.last_write_ns < since);
        idle.map(|f| f.memtable_bytes).sum()
    }

    /// The facts of the trees that are there.
    pub fn tree_facts(&self) -> Vec<TreeFacts> {
        self.state.lock().slots().map(|(facts, _)| facts.clone()).collect()
    }

    /// Immutable memtables of all trees, and their L0 tables.
    pub fn totals(&self) -> (u64, u64, u64) {
        let state = self.state.lock();
        let l0 = state.view.trees.iter().map(|f| u64::from(f.l0_count)).sum();
        let trees = state.trees.len() - state.free.len();
        (u64::from(state.view.immutable_count), l0, u64::try_from(trees).unwrap_or(u64::MAX))
    }
}

impl State {
    fn pending_of(&self, tree: &Tree) -> u64 {
        self.pending.get(tree.slot.load(Ordering::Relaxed)).copied().unwrap_or(0)
    }

    fn set_pending(&mut self, slot: usize, bytes: u64) {
        if let Some(place) = self.pending.get_mut(slot) {
            let before = core::mem::replace(place, bytes);
            self.pending_sum = self.pending_sum.saturating_sub(before).saturating_add(bytes);
        }
    }

    /// The trees that are there, each with its facts.
    fn slots(&self) -> impl Iterator<Item = (&TreeFacts, &Arc<Tree>)> {
        let slots = self.view.trees.iter().zip(&self.trees);
        slots.filter_map(|(facts, tree)| Some((facts, tree.as_ref()?)))
    }

    /// Trees whose memtable pins this segment or an older one.
    fn pinning(&self, segment: u64) -> impl Iterator<Item = (&TreeFacts, &Arc<Tree>)> {
        let pins = move |f: &TreeFacts| f.memtable_bytes > 0 && f.wal_anchor_segment <= segment;
        self.slots().filter(move |(facts, _)| pins(facts))
    }

    fn find(&self, id: TreeId) -> Option<Arc<Tree>> {
        self.trees.get(*self.slot_of.get(&id)?)?.clone()
    }
}

/// The next state of a stream of draws (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
fn splitmix(state: u64) -> u64 {
    state.wrapping_add(0x9e37_79b9_7f4a_7c15)
}

fn mix(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_bytes_are_summed_and_leave_with_their_tree() {
        let pressure = Pressure::new(&Options::default(), 1).unwrap();
        let trees: Vec<Arc<Tree>> = (1..4).map(|id| Arc::new(Tree::new(TreeId(id)))).collect();
        for (bytes, tree) in (1..).zip(&trees) {
            pressure.add_tree(tree, 1, 0);
            pressure.set_pending_compaction(tree, bytes * 10);
        }
        assert_eq!(pressure.pending_compaction_bytes(), 60);
        pressure.set_pending_compaction(&trees[1], 5);
        assert_eq!(pressure.pending_compaction_bytes(), 45);
        pressure.remove_tree(&trees[2]);
        pressure.set_pending_compaction(&trees[2], 100);
        assert_eq!(pressure.pending_compaction_bytes(), 15);
    }
}
