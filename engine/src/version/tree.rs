//! One LSM tree and the branches that read from it, as live state.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Version;
use super::lineage::Lineage;
use crate::error::Error;
use crate::layout::Place;
use crate::memtable::Memtable;
use crate::metrics::Counter;
use crate::signal::Signal;
use crate::types::{BranchId, SeqNo, TreeId};

/// What a read of a tree looks at, frozen: taking it pins everything in it.
#[derive(Clone, Debug, Default)]
pub struct TreeView {
    /// The memtable that takes writes, once there was one.
    pub memtable: Option<Arc<Memtable>>,
    /// Immutable memtables, newest first.
    pub immutables: Vec<Arc<Memtable>>,
    /// The tables.
    pub version: Arc<Version>,
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
    /// Branches that live in it.
    pub branch_count: AtomicU64,
    view: RwLock<Arc<TreeView>>,
    flushed_upto: AtomicU64,
    dropped: AtomicBool,
    failed: Mutex<Option<Arc<Error>>>,
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
            branch_count: AtomicU64::new(0),
            view: RwLock::new(Arc::new(TreeView::default())),
            flushed_upto: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
            failed: Mutex::new(None),
            compaction_failed: Mutex::new(None),
        }
    }

    /// What a read looks at.
    pub fn view(&self) -> Arc<TreeView> {
        Arc::clone(&self.view.read())
    }

    /// Replaces what reads look at, in one step.
    pub fn change(&self, f: impl FnOnce(&mut TreeView)) {
        let mut view = self.view.write();
        let mut next = TreeView::clone(&view);
        f(&mut next);
        *view = Arc::new(next);
    }

    /// Runs `f` on the memtable that takes writes, if there is one, without taking a view.
    pub fn with_memtable<R>(&self, f: impl FnOnce(&Memtable) -> R) -> Option<R> {
        self.view.read().memtable.as_deref().map(f)
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

/// A branch: what a user reads and writes.
#[derive(Debug)]
pub struct Branch {
    /// Its id.
    pub id: BranchId,
    /// The tenant's name.
    pub tenant: String,
    /// Where it reads, first place first; it writes to the first. Of length one in every layout so
    /// far.
    pub places: Vec<(Arc<Tree>, Place)>,
    /// Time its writes waited.
    pub stall_ns: Counter,
    dropped: AtomicBool,
}

impl Branch {
    /// A branch that reads and writes one tree.
    pub fn new(id: BranchId, tenant: String, tree: Arc<Tree>, place: Place) -> Self {
        tree.branch_count.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            tenant,
            places: vec![(tree, place)],
            stall_ns: Counter::default(),
            dropped: AtomicBool::new(false),
        }
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
