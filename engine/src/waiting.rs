//! Who waits, and what there is that could end it: the facts behind the rule that nobody waits for
//! nothing.
//!
//! A writer counts as waiting from where it gives up its turn until it runs again, so that one that
//! was told and has not run yet still counts. Whoever judges must look at an instant at which
//! nothing can run, as a simulation does before it lets time pass, or look twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use core::sync::atomic::{AtomicU64, Ordering};
use parking_lot::Mutex;

use crate::env::Env;
use crate::memtable::Memtable;
use crate::policy::view::StallCause;
use crate::shared::Shared;
use crate::types::{BranchId, Nanos, TreeId, to_u64};
use crate::version::tree::Branch;

/// A write that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingWriter {
    /// Whose.
    pub tenant: String,
    /// Its branch.
    pub branch: BranchId,
    /// The tree that the stall policy was asked about.
    pub tree: TreeId,
    /// What it waits for at present.
    pub cause: StallCause,
    /// When it began to wait, delays included.
    pub since_ns: Nanos,
}

/// Memtable bytes of one tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeMemory {
    /// Which.
    pub tree: TreeId,
    /// Bytes of its memtable.
    pub mutable_bytes: u64,
    /// Bytes of its immutable memtables.
    pub immutable_bytes: u64,
    /// Bytes of its flushed memtables that are kept.
    pub history_bytes: u64,
}

/// Who waits at an instant, and what could end it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// Writers that wait, the longest first.
    pub writers: Vec<WaitingWriter>,
    /// Flushes that wait or run.
    pub flush_count: u64,
    /// Compactions that wait or run.
    pub compaction_count: u64,
    /// Background workers and writers that are about to do something for those who wait.
    pub busy_count: u64,
    /// Whether the commit queue does something: a seal, a write, a sync.
    pub commits_run: bool,
    /// Whether a WAL segment that nothing needs is still there, or trees are about to be re-logged
    /// so that one can go; the ticker comes back to both.
    pub log_lags: bool,
    /// Bytes that all memtables may hold together.
    pub budget_bytes: u64,
    /// Bytes of admitted writes that are in no memtable yet.
    pub reserved_bytes: u64,
    /// Bytes in memtables that take writes.
    pub mutable_bytes: u64,
    /// Bytes in immutable memtables.
    pub immutable_bytes: u64,
    /// Bytes in flushed memtables that are kept.
    pub history_bytes: u64,
    /// Bytes of live WAL segments.
    pub wal_bytes: u64,
}

/// What could grow without bound, at an instant: what a database holds and has before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of memtables, and of admitted writes that are in none yet.
    pub memtable_bytes: u64,
    /// Bytes in the block cache.
    pub cached_bytes: u64,
    /// Bytes of live WAL segments.
    pub wal_bytes: u64,
    /// Flushes that wait or run.
    pub flush_count: u64,
    /// Compactions that wait or run.
    pub compaction_count: u64,
    /// Requests in the commit queue that nobody has taken.
    pub commit_count: u64,
    /// Trees.
    pub tree_count: u64,
    /// L0 tables of the tree that has most of them.
    pub l0_count_max: u64,
    /// Table files that are held open.
    pub open_tables: u64,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    writers: BTreeMap<u64, (Arc<Branch>, TreeId, StallCause, Nanos)>,
}

/// Writers that wait, and how many tasks are at work for them.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    line: Mutex<Line>,
    count: AtomicU64,
    busy: AtomicU64,
}

/// A writer's place among those that wait; left when dropped.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    room: &'a WaitingRoom,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.room.line.lock().writers.remove(&self.number).is_some() {
            self.room.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Somebody is at work for those who wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct AtWork<'a>(&'a WaitingRoom);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WaitingRoom {
    /// A writer stands still.
    pub(crate) fn sit(
        &self,
        branch: &Arc<Branch>,
        (tree, cause, since): (TreeId, StallCause, Nanos),
    ) -> Seat<'_> {
        let mut line = self.line.lock();
        let number = line.next;
        line.next += 1;
        line.writers.insert(number, (Arc::clone(branch), tree, cause, since));
        self.count.fetch_add(1, Ordering::Relaxed);
        Seat { room: self, number }
    }

    /// Somebody begins to work for those who wait.
    pub(crate) fn work(&self) -> AtWork<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        AtWork(self)
    }

    fn writers(&self) -> Vec<WaitingWriter> {
        let line = self.line.lock();
        let writer = |(branch, tree, cause, since): &(Arc<Branch>, TreeId, StallCause, Nanos)| {
            WaitingWriter {
                tenant: branch.full_name(),
                branch: branch.id,
                tree: *tree,
                cause: *cause,
                since_ns: *since,
            }
        };
        let mut writers: Vec<WaitingWriter> = line.writers.values().map(writer).collect();
        writers.sort_by_key(|w| w.since_ns);
        writers
    }
}

/// Looks at who waits without keeping the database open.
pub struct Watch<E: Env> {
    shared: Weak<Shared<E>>,
}

impl<E: Env> core::fmt::Debug for Watch<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl<E: Env> Watch<E> {
    pub(crate) fn new(shared: &Arc<Shared<E>>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// Who waits, and what could end it; `None` where nobody does or the database is gone. Costs
    /// next to nothing while nobody waits.
    pub fn waiting(&self) -> Option<Waiting> {
        let shared = self.shared.upgrade()?;
        if shared.waiting.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let budget = &shared.budget;
        Some(Waiting {
            now_ns: shared.env.now(),
            writers: shared.waiting.writers(),
            flush_count: to_u64(shared.jobs.flush_count()),
            compaction_count: to_u64(shared.jobs.compaction_count()),
            busy_count: shared.waiting.busy.load(Ordering::Relaxed),
            commits_run: shared.commits.is_led(),
            log_lags: shared.log.floor() > shared.log.oldest()
                || shared.pressure.relogging_count() > 0,
            budget_bytes: budget.limit_bytes(),
            reserved_bytes: budget.reserved_bytes(),
            mutable_bytes: budget.mutable_bytes(),
            immutable_bytes: budget.immutable_bytes(),
            history_bytes: budget.history_bytes(),
            wal_bytes: shared.log.bytes(),
        })
    }

    /// What the database holds and has before it; `None` where it is gone. Takes time in proportion
    /// to trees.
    pub fn load(&self) -> Option<Load> {
        let shared = self.shared.upgrade()?;
        let trees = shared.pressure.tree_facts();
        Some(Load {
            memtable_bytes: shared.budget.used_bytes(),
            cached_bytes: shared.space.block_cache().bytes(),
            wal_bytes: shared.log.bytes(),
            flush_count: to_u64(shared.jobs.flush_count()),
            compaction_count: to_u64(shared.jobs.compaction_count()),
            commit_count: to_u64(shared.commits.len()),
            tree_count: to_u64(trees.len()),
            l0_count_max: trees.iter().map(|tree| u64::from(tree.l0_count)).max().unwrap_or(0),
            open_tables: to_u64(shared.space.open_count()),
        })
    }

    /// Memtable bytes counted anew from what each tree holds, by tree; trees without any are left
    /// out, and what forks share is counted once. While jobs or commits run the sums may be ahead
    /// of the budget's, or behind.
    pub fn memory(&self) -> Vec<TreeMemory> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let trees = shared.set.trees();
        let of = |tree: &Arc<crate::version::tree::Tree>| {
            let view = tree.view();
            TreeMemory {
                tree: tree.id,
                mutable_bytes: view.memtable.iter().map(|m| m.bytes()).sum(),
                immutable_bytes: {
                    let counts = |m: &&Arc<Memtable>| shared.set.is_first_owner(tree.id, m);
                    view.immutables.iter().filter(counts).map(|m| m.bytes()).sum()
                },
                history_bytes: view.history.iter().map(|m| m.bytes()).sum(),
            }
        };
        trees.iter().map(of).filter(|m| m.bytes() > 0).collect()
    }
}

impl TreeMemory {
    /// All of them.
    pub fn bytes(&self) -> u64 {
        self.mutable_bytes + self.immutable_bytes + self.history_bytes
    }
}
