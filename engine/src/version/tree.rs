//! One LSM tree and the branches that read from it, as live state.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Version;
use super::lineage::Lineage;
use crate::error::Error;
use crate::layout::{Place, full_name, split_name};
use crate::memtable::Memtable;
use crate::pointer::Pointer;
use crate::policy::view::LevelsView;
use crate::prefix::{PrefixExtractor, TreeExtractor};
use crate::signal::Signal;
use crate::types::{BranchId, Nanos, SeqNo, TableId, TreeId};

/// What a read of a tree looks at, frozen: taking it pins everything in it.
#[derive(Clone, Debug, Default)]
pub struct TreeView {
    /// The memtable that takes writes, once there was one.
    pub memtable: Option<Arc<Memtable>>,
    /// Immutable memtables, newest first.
    pub immutables: Vec<Arc<Memtable>>,
    /// Flushed memtables that are kept, newest first. Everything in them is in tables: no read
    /// needs them, and reads pass them over.
    pub history: Vec<Arc<Memtable>>,
    /// The tables.
    pub version: Arc<Version>,
}

impl TreeView {
    /// Bytes of all memtables, those that are kept included.
    pub fn memtable_bytes(&self) -> u64 {
        let all = self.memtable.iter().chain(&self.immutables).chain(&self.history);
        all.map(|m| m.bytes()).sum()
    }

    /// Takes out the oldest memtables that are kept, until all memtables together are at most
    /// `history_max` bytes or none is kept. Returns the bytes of what it took out.
    ///
    /// # Source
    ///
    /// `max_write_buffer_size_to_maintain` of `RocksDB`: `MemTableListVersion::TrimHistory` in
    /// facebook/rocksdb `db/memtable_list.cc` (commit 1dfa729). Departures: there the oldest one
    /// stays until the others alone reach the limit, so that up to one memtable more is kept; and
    /// each write looks, where here seals and flushes do.
    pub fn trim_history(&mut self, history_max: u64) -> u64 {
        let mut left = self.memtable_bytes();
        let mut gone = 0;
        while left > history_max
            && let Some(oldest) = self.history.pop()
        {
            left = left.saturating_sub(oldest.bytes());
            gone += oldest.bytes();
        }
        gone
    }
}

/// A tree.
#[derive(Debug)]
pub struct Tree {
    /// Its id.
    pub id: TreeId,
    /// Its place in the flush view.
    pub slot: AtomicUsize,
    /// Raised when an immutable memtable is gone or L0 shrank.
    pub released: Signal,
    /// The trees it was forked from.
    pub lineage: Lineage,
    /// The first tree of those that may hold a table of its: those it was forked from, and those
    /// forked from any of them. Its own id where it was not forked.
    pub family: TreeId,
    /// Bytes of the tables that it began with, plus 1; 0 where it was not forked while this process
    /// lived, or where the manifest that says so was replaced.
    inherited_bytes: AtomicU64,
    /// Branches that live in it.
    pub branch_count: AtomicU64,
    /// The branch with the most bytes in the memtable that was sealed last; 0 for none. Kept only
    /// where branches share the tree.
    pub last_leader: AtomicU64,
    /// What tables are written with where the tree has no extractor of its own.
    default_extractor: Option<TreeExtractor>,
    own_extractor: Mutex<Option<PrefixExtractor>>,
    view: Pointer<TreeView>,
    flushed_upto: AtomicU64,
    dropped: AtomicBool,
    failed: Mutex<Option<Arc<Error>>>,
    /// When this process first saw the oldest tombstone of each table that holds any.
    tombstones_since: Mutex<BTreeMap<TableId, Nanos>>,
    compaction_failed: Mutex<Option<Arc<Error>>>,
}

impl Tree {
    /// An empty tree.
    pub fn new(id: TreeId) -> Self {
        Self {
            id,
            slot: AtomicUsize::new(usize::MAX),
            released: Signal::new(),
            lineage: Lineage::default(),
            family: id,
            inherited_bytes: AtomicU64::new(0),
            branch_count: AtomicU64::new(0),
            last_leader: AtomicU64::new(0),
            default_extractor: None,
            own_extractor: Mutex::new(None),
            view: Pointer::default(),
            flushed_upto: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            failed: Mutex::new(None),
            tombstones_since: Mutex::new(BTreeMap::new()),
            compaction_failed: Mutex::new(None),
        }
    }

    /// The same, forked from others.
    #[must_use]
    pub fn forked(self, family: TreeId, lineage: Lineage) -> Self {
        Self { lineage, family, ..self }
    }

    /// Bytes of the tables that it began with; `None` where nothing in memory tells.
    pub fn inherited_bytes(&self) -> Option<u64> {
        self.inherited_bytes.load(Ordering::Relaxed).checked_sub(1)
    }

    /// It begins with the tables of its parent.
    pub fn inherit(&self, version: Arc<Version>) {
        let bytes: u64 = version.tables().map(|(_, t)| t.bytes).sum();
        self.inherited_bytes.store(bytes.saturating_add(1), Ordering::Relaxed);
        self.change(|view| view.version = version);
    }

    /// The oldest immutable memtable.
    pub fn oldest_immutable(&self) -> Option<Arc<Memtable>> {
        self.view.with(|view| view.immutables.last().cloned())
    }

    /// Immutable memtables that count towards a stop of writes: those that no other tree shares.
    pub fn own_immutable_count(&self) -> u32 {
        let own = |view: &TreeView| view.immutables.iter().filter(|m| !m.is_shared()).count();
        u32::try_from(self.view.with(own)).unwrap_or(u32::MAX)
    }

    /// Tells a view of this tree since when there are tombstones in its tables.
    pub fn age_tombstones(&self, view: &mut LevelsView) {
        let mut since = self.tombstones_since.lock();
        for table in view.levels.iter_mut().flatten().filter(|t| t.tombstones > 0) {
            table.tombstones_since_ns = *since.entry(table.table).or_insert(view.now_ns);
        }
    }

    /// Tables that a compaction is about to install hold the tombstones of its inputs.
    pub fn inherit_tombstones(&self, inputs: &[TableId], outputs: &[TableId]) {
        let mut since = self.tombstones_since.lock();
        let oldest = inputs.iter().filter_map(|id| since.get(id).copied()).min();
        for id in outputs {
            if let Some(oldest) = oldest {
                since.insert(*id, oldest);
            }
        }
    }

    /// Forgets tombstones of tables that left the tree.
    pub fn forget_tombstones(&self) {
        let version = Arc::clone(&self.view().version);
        let mut since = self.tombstones_since.lock();
        if !since.is_empty() {
            let held: BTreeSet<TableId> = version.tables().map(|(_, t)| t.id).collect();
            since.retain(|id, _| held.contains(id));
        }
    }

    /// The tree with the extractor that it writes with unless it gets its own.
    #[must_use]
    pub fn with_default_extractor(self, extractor: Option<TreeExtractor>) -> Self {
        Self { default_extractor: extractor, ..self }
    }

    /// What tables of the tree are written with from now on. Tables that are there may have been
    /// written with another, which each of them names.
    pub fn prefix_extractor(&self) -> Option<TreeExtractor> {
        let own = *self.own_extractor.lock();
        // Only a tree without a layout's prefix has its own.
        own.map(|extractor| TreeExtractor { layout_bytes: 0, extractor }).or(self.default_extractor)
    }

    /// The extractor that it has of its own.
    pub fn own_extractor(&self) -> Option<PrefixExtractor> {
        *self.own_extractor.lock()
    }

    /// Gives it an extractor of its own, or that of the database.
    pub fn set_own_extractor(&self, extractor: Option<PrefixExtractor>) {
        *self.own_extractor.lock() = extractor;
    }

    /// What a read looks at.
    pub fn view(&self) -> Arc<TreeView> {
        self.view.load()
    }

    /// Replaces what reads look at, in one step.
    pub fn change(&self, f: impl FnOnce(&mut TreeView)) {
        self.view.change(f);
    }

    /// Runs `f` on the memtable that takes writes, if there is one, without taking a view.
    pub fn with_memtable<R>(&self, f: impl FnOnce(&Memtable) -> R) -> Option<R> {
        self.view.with(|view| view.memtable.as_deref().map(f))
    }

    /// The branch with the most bytes in its memtables, where branches share it; where they hold
    /// nothing, that of the memtable sealed last.
    pub fn leading_branch(&self) -> Option<BranchId> {
        let view = self.view();
        let mut bytes = BTreeMap::new();
        for memtable in view.memtable.iter().chain(&view.immutables) {
            memtable.add_bytes_by_branch(&mut bytes);
        }
        let most = bytes.into_iter().max_by_key(|(id, n)| (*n, core::cmp::Reverse(*id)));
        let last = || match self.last_leader.load(Ordering::Relaxed) {
            0 => None,
            id => Some(BranchId(id)),
        };
        most.map(|(id, _)| id).or_else(last)
    }

    /// Entries up to this number are in tables, or gone.
    pub fn flushed_upto(&self) -> SeqNo {
        self.flushed_upto.load(Ordering::Acquire)
    }

    /// Raises [`flushed_upto`](Self::flushed_upto).
    pub fn raise_flushed_upto(&self, seq: SeqNo) {
        self.flushed_upto.fetch_max(seq, Ordering::AcqRel);
    }

    /// Whether it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// It takes part in nothing any more.
    pub fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        self.released.raise();
    }

    /// Why it takes no writes, if a job of it failed for good.
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.failed.lock().clone()
    }

    /// Why it is not compacted, if a compaction failed for good. It takes writes until its L0 is
    /// full.
    pub fn compaction_failure(&self) -> Option<Arc<Error>> {
        self.compaction_failed.lock().clone()
    }

    /// A compaction of it failed for good, or one was done all the same.
    pub fn fail_compaction(&self, error: Option<Error>) {
        *self.compaction_failed.lock() = error.map(Arc::new);
        self.released.raise();
    }

    /// A flush of it failed for good: its writers get this error from now on.
    pub fn fail(&self, error: Error) {
        self.failed.lock().get_or_insert_with(|| Arc::new(error));
        self.released.raise();
    }
}

/// Where a fork began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkPoint {
    /// The branch it was forked from, which may be gone.
    pub parent: BranchId,
    /// It began with the parent's entries up to this number.
    pub seq: SeqNo,
}

/// A branch: what a user reads and writes.
#[derive(Debug)]
pub struct Branch {
    /// Its id.
    pub id: BranchId,
    /// The tenant's name.
    pub tenant: String,
    /// Its name among the tenant's branches.
    pub name: String,
    /// Where it began, if it was forked.
    pub fork: Option<ForkPoint>,
    /// Where it reads, first place first; it writes to the first. Of length one in every layout so
    /// far.
    pub places: Vec<(Arc<Tree>, Place)>,
    dropped: AtomicBool,
}

impl Branch {
    /// A branch that reads and writes one tree.
    pub fn new(id: BranchId, full_name: &str, tree: Arc<Tree>, place: Place) -> Self {
        tree.branch_count.fetch_add(1, Ordering::Relaxed);
        let (tenant, name) = split_name(full_name);
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        let dropped = AtomicBool::new(false);
        Self { id, tenant, name, fork: None, places: vec![(tree, place)], dropped }
    }

    /// The same, forked from another.
    #[must_use]
    pub fn forked_at(self, fork: Option<ForkPoint>) -> Self {
        Self { fork, ..self }
    }

    /// Its name with its tenant's: see [`full_name`].
    pub fn full_name(&self) -> String {
        full_name(&self.tenant, &self.name)
    }

    /// Whether it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Its handles get errors from now on, or work again where the drop failed.
    pub fn set_dropped(&self, dropped: bool) {
        self.dropped.store(dropped, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::view::TableFacts;

    fn since(tree: &Tree, now_ns: Nanos, tables: &[TableId]) -> Vec<Nanos> {
        let facts = |id: &TableId| TableFacts { table: *id, tombstones: 1, ..Default::default() };
        let levels = vec![tables.iter().map(facts).collect()];
        let mut view = LevelsView { now_ns, levels, ..LevelsView::default() };
        tree.age_tombstones(&mut view);
        view.levels.iter().flatten().map(|t| t.tombstones_since_ns).collect()
    }

    #[test]
    fn tombstones_keep_their_age_through_compactions() {
        let tree = Tree::new(TreeId(1));
        let ids: Vec<TableId> = (1..5).map(|file| TableId { file, offset: 0 }).collect();
        assert_eq!(since(&tree, 10, &ids[..1]), [10]);
        assert_eq!(since(&tree, 20, &ids[..2]), [10, 20]);
        tree.inherit_tombstones(&ids[..2], &ids[2..3]);
        assert_eq!(since(&tree, 30, &ids[2..]), [10, 30]);
        // The tree holds none of them.
        tree.forget_tombstones();
        assert_eq!(since(&tree, 40, &ids[2..]), [40, 40]);
    }
}
