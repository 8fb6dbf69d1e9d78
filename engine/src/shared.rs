//! The live state that all verbs of one database work on. Handles and background tasks share it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::batch::BatchOp;
use crate::budget::{Budget, Reservation};
use crate::disk_space::DiskSpace;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::events::{Event, Listener};
use crate::group::GroupQueue;
use crate::jobs::Jobs;
use crate::log_space::LogSpace;
use crate::metrics::{Counters, Metrics};
use crate::options::Options;
use crate::policy::compaction::CompactionPolicy;
use crate::policy::stall::StallPolicy;
use crate::pressure::Pressure;
use crate::signal::Signal;
use crate::table::{TableFormat, TableMeta, TableSpace};
use crate::types::{FileNumber, Nanos, SEQ_MAX, SeqNo};
use crate::version::manifest::Manifest;
use crate::version::set::VersionSet;
use crate::version::tree::{Branch, Tree};
use crate::waiting::WaitingRoom;
use crate::wal::writer::{SegmentWriter, Spare};

/// What runs between two groups of the commit queue, with all numbers given published, and never
/// waits.
pub(crate) struct Barrier(Option<Box<dyn FnOnce() -> Result<SeqNo> + Send>>);

impl Barrier {
    pub(crate) fn new(run: impl FnOnce() -> Result<SeqNo> + Send + 'static) -> Self {
        Self(Some(Box::new(run)))
    }

    /// Runs it. Only the queue's leader may call this.
    pub(crate) fn run(&mut self) -> Result<SeqNo> {
        self.0.take().map_or(Err(Error::Interrupted), |run| run())
    }
}

impl core::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Barrier").finish()
    }
}

/// An entry of the commit queue. Nothing in it ever waits for a flush, a compaction or space.
#[derive(Debug)]
pub(crate) enum Request {
    /// An admitted batch.
    Write { ops: Vec<(Arc<Branch>, BatchOp)>, reservation: Reservation, sync: bool, tag: u64 },
    /// These trees' memtables become immutable; `overridden` when the engine and not the policy
    /// chose, `pack` when they are to be flushed into one file.
    Seal { trees: Vec<Arc<Tree>>, overridden: bool, pack: bool },
    /// Some of the trees that are to be re-logged are.
    Relog,
    /// Everything acknowledged so far becomes durable.
    Sync,
    /// Something at one place in the order of writes, such as a fork.
    Barrier(Barrier),
    /// Entries up to this number are about to be there that no record of the log tells of: later
    /// ones get higher numbers, and the log reaches it.
    Raise(SeqNo),
    /// A branch takes no writes any more.
    Drop(Arc<Branch>),
    /// Everything acknowledged becomes durable, and the log takes nothing more.
    Close,
}

/// Live state of one database.
pub(crate) struct Shared<E: Env> {
    pub(crate) env: E,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) listener: Option<Arc<dyn Listener>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) set: Arc<VersionSet>,
    pub(crate) manifest: Manifest<E>,
    pub(crate) space: Arc<TableSpace<E>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pressure: Pressure,
    pub(crate) log: LogSpace,
    pub(crate) disk: DiskSpace,
    pub(crate) jobs: Jobs,
    pub(crate) waiting: WaitingRoom,
    pub(crate) commits: GroupQueue<Request, Result<SeqNo>>,
    /// Gone while a leader writes.
    pub(crate) wal: Mutex<Option<SegmentWriter<E>>>,
    /// The file of the next segment; gone while the background makes another.
    pub(crate) spare: Mutex<Option<Spare<E>>>,
    pub(crate) stall_policy: Mutex<Box<dyn StallPolicy>>,
    /// Raised when delays that the stall policy gave may end.
    pub(crate) eased: Signal,
    /// When the stall policy may be asked again how jobs share the device.
    pub(crate) shares_at: AtomicU64,
    pub(crate) compaction_policy: Mutex<Box<dyn CompactionPolicy>>,
    pub(crate) next_file: Arc<AtomicU64>,
    pub(crate) next_seq: AtomicU64,
    /// Entries up to this number are visible.
    pub(crate) published: AtomicU64,
    /// Entries up to this number are durable.
    pub(crate) synced: AtomicU64,
    /// Open snapshots by number.
    pub(crate) snapshots: Mutex<BTreeMap<SeqNo, u64>>,
    /// Tables that left a version; a file goes when nothing else holds its table.
    pub(crate) garbage: Mutex<Vec<Arc<TableMeta>>>,
    /// Trees whose drop is durable, or whose fork came to nothing. The queue's next leader gives
    /// their memory back.
    pub(crate) dropped: Mutex<Vec<Arc<Tree>>>,
    /// Tenant names on their way into the manifest.
    pub(crate) creating: Mutex<BTreeSet<String>>,
    pub(crate) read_only: Mutex<Option<Arc<Error>>>,
    pub(crate) closing: AtomicBool,
    /// Whether the ticker knows that there is something to sync, so that only the first of many
    /// writes wakes it.
    pub(crate) sync_due: AtomicBool,
    /// Raised for the ticker: unsynced bytes, a new wake-up time, closing.
    pub(crate) tick: Signal,
    /// Raised when a job ended.
    pub(crate) job_ended: Signal,
}

impl<E: Env> core::fmt::Debug for Shared<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<E: Env> Shared<E> {
    /// Tells the listener.
    pub(crate) fn emit(&self, event: &Event) {
        if let Some(listener) = &self.listener {
            listener.event(self.env.now(), event);
        }
    }

    /// A number no file of the directory ever had.
    pub(crate) fn new_file_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the database closes.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Refuses writes where the database takes none.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_closing() {
            return Err(Error::Closed);
        }
        match &*self.read_only.lock() {
            Some(cause) => Err(Error::ReadOnly(Arc::clone(cause))),
            None => Ok(()),
        }
    }

    /// Whether every write that was acknowledged survives a power loss.
    pub(crate) fn is_log_durable(&self) -> bool {
        self.visible_seq() <= self.synced.load(Ordering::Acquire)
    }

    /// From now on the database takes no writes; who waits gets the error.
    pub(crate) fn set_read_only(&self, cause: &Error) {
        self.read_only.lock().get_or_insert_with(|| Arc::new(cause.clone()));
        self.wake_writers();
    }

    /// Lets every writer that waits look again.
    pub(crate) fn wake_writers(&self) {
        self.budget.wake_all();
        self.eased.raise();
        for tree in self.set.trees() {
            tree.released.raise();
        }
    }

    /// The highest visible number.
    pub(crate) fn visible_seq(&self) -> SeqNo {
        self.published.load(Ordering::Acquire)
    }

    /// The numbers of open snapshots, ascending.
    pub(crate) fn snapshot_seqs(&self) -> Vec<SeqNo> {
        self.snapshots.lock().keys().copied().collect()
    }

    /// How tables of a tree are laid out from now on.
    pub(crate) fn table_format(&self, tree: &Tree) -> TableFormat {
        TableFormat {
            block_bytes: self.options.block_bytes,
            restart_interval: self.options.restart_interval,
            filter_bits_per_key: self.options.filter_bits_per_key,
            extractor: tree.prefix_extractor(),
            compression: self.options.compression,
        }
    }

    /// Tenants that live in a tree.
    pub(crate) fn tenants_of(tree: &Tree) -> u64 {
        tree.branch_count.load(Ordering::Relaxed)
    }

    /// Asks the compaction policy how urgent a tree is, and queues it.
    pub(crate) fn schedule_compaction(&self, tree: &Arc<Tree>, not_before: Nanos) {
        // Held from the look to the queue: who looks last has seen the newest levels, and whether
        // the tree is still to be compacted.
        let policy = self.compaction_policy.lock();
        if tree.is_dropped() || tree.compaction_failure().is_some() {
            self.jobs.set_compaction(tree, 0, 0);
            self.jobs.set_wake(tree, None);
            return;
        }
        let view = self.levels_view(tree);
        let urgency = policy.urgency(&view);
        self.pressure.set_pending_compaction(tree, policy.pending_bytes(&view));
        self.jobs.set_compaction(tree, urgency, not_before);
        // A tree that is compacted is asked again afterwards.
        let wake_at = if urgency == 0 { policy.wake_at(&view) } else { None };
        self.jobs.set_wake(tree, wake_at);
    }

    /// Asks the compaction policy what a tree's compactions have before them.
    pub(crate) fn estimate_pending(&self, tree: &Tree) {
        let policy = self.compaction_policy.lock();
        if !tree.is_dropped() {
            let bytes = policy.pending_bytes(&self.levels_view(tree));
            self.pressure.set_pending_compaction(tree, bytes);
        }
    }

    /// What the compaction policy sees of a tree.
    pub(crate) fn levels_view(&self, tree: &Tree) -> crate::policy::view::LevelsView {
        let now = self.env.now();
        let mut view = crate::policy::view::LevelsView {
            now_ns: now,
            oldest_snapshot: self.snapshots.lock().keys().next().copied().unwrap_or(SEQ_MAX),
            l0_slowdown_count: self.options.l0_slowdown_count,
            l0_compaction_count: self.options.l0_compaction_count,
            level_base_bytes: self.options.level_base_of(Self::tenants_of(tree)),
            level_ratio: self.options.level_ratio,
            table_bytes_max: self.options.table_bytes_max,
            ..tree.view().version.facts(tree.id, &[], now)
        };
        for table in view.levels.iter_mut().flatten() {
            table.sparse_file = self.set.packs().is_sparse(table.table.file);
        }
        view
    }

    /// Counters and gauges at this instant.
    pub(crate) fn metrics(&self) -> Metrics {
        let (immutable_count, l0_count, tree_count) = self.pressure.totals();
        Metrics {
            wal_retained_bytes: self.log.bytes(),
            mutable_bytes: self.budget.mutable_bytes(),
            immutable_bytes: self.budget.immutable_bytes(),
            history_bytes: self.budget.history_bytes(),
            reserved_bytes: self.budget.reserved_bytes(),
            immutable_count,
            l0_count,
            tree_count,
            pending_compaction_bytes: self.pressure.pending_compaction_bytes(),
            ..self.counters.snapshot()
        }
    }
}

#[cfg(test)]
mod tests {
    use core::future::Future as _;
    use core::pin::Pin;
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::env::BlockingEnv as _;
    use crate::env::mem::MemEnv;
    use crate::jobs::Next;
    use crate::types::{BranchId, TreeId};
    use crate::version::edit::Edit;
    use crate::write::queue;

    /// A database without background tasks, and a tree of it.
    fn shared(env: &MemEnv) -> (Arc<Shared<MemEnv>>, Arc<Tree>) {
        let dir = std::path::Path::new("/db");
        let opened = async {
            env.create_dir(dir).await.unwrap();
            crate::open::shared(env.clone(), dir, Options::default(), None).await.unwrap()
        };
        let shared = env.block_on(opened);
        let tenants = vec![("t".to_owned(), BranchId(1), TreeId(1))];
        shared.set.apply(&Edit::CreateTenants { tenants }).unwrap();
        let tree = shared.set.tree(TreeId(1)).unwrap();
        shared.pressure.add_tree(&tree, 1 << 20, 0);
        (shared, tree)
    }

    #[test]
    fn nothing_stays_queued_of_a_tree_whose_compaction_failed_for_good() {
        let (shared, tree) = shared(&MemEnv::default());
        // A flush that ended while the compaction ran.
        shared.jobs.set_compaction(&tree, 2_000, 0);
        shared.jobs.set_wake(&tree, Some(7));
        tree.fail_compaction(Some(Error::Closed));
        shared.schedule_compaction(&tree, 0);
        assert!(matches!(shared.jobs.next_compaction(u64::MAX), Next::Wait(None)));
        assert!(shared.jobs.is_idle());
    }

    #[test]
    fn who_waits_for_jobs_is_told_when_a_drop_takes_them_away() {
        let env = MemEnv::default();
        let (shared, tree) = shared(&env);
        shared.jobs.set_compaction(&tree, 2_000, u64::MAX);
        let range = (core::ops::Bound::Unbounded, core::ops::Bound::Unbounded);
        let wish = shared.jobs.add_manual_compaction(&tree, range);
        let mut listener = shared.job_ended.listen();
        shared.set.apply(&Edit::DropTenant { branch: BranchId(1) }).unwrap();
        shared.dropped.lock().push(Arc::clone(&tree));
        let seal = Request::Seal { trees: Vec::new(), overridden: false, pack: false };
        env.block_on(queue::submit(&shared, seal)).unwrap();
        assert!(matches!(wish.outcome(), Some(Err(Error::Dropped))));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut listener).poll(&mut cx), Poll::Ready(()));
        // Nor does a flush that ends now queue it again.
        shared.schedule_compaction(&tree, 0);
        assert!(shared.jobs.is_idle());
    }
}
