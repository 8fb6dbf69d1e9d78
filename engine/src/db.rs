//! A database: open, close, tenants. Wiring only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::background;
use crate::batch::{BatchOp, WriteBatch};
use crate::budget::Budget;
use crate::env::{Env, Site};
use crate::error::{Error, Result};
use crate::events::Listener;
use crate::gc;
use crate::group::GroupQueue;
use crate::jobs::Jobs;
use crate::layout;
use crate::log_space::LogSpace;
use crate::metrics::{Counters, Metrics};
use crate::options::Options;
use crate::policy::{compaction, stall};
use crate::pressure::Pressure;
use crate::read;
use crate::recovery::{self, ReplayTo};
use crate::shared::{Request, Shared};
use crate::signal::Signal;
use crate::table::TableSpace;
use crate::tenant::Tenant;
use crate::types::{BranchId, Entry, SeqNo, TreeId, to_u64};
use crate::version::edit::Edit;
use crate::version::manifest::Manifest;
use crate::version::set::{Applied, VersionSet};
use crate::version::tree::{Branch, Tree, TreeView};
use crate::wal::writer::SegmentWriter;
use crate::write::{WriteOptions, admission, queue};

/// The part of a database that user handles hold: its drop tells the background to end.
struct Owner<E: Env> {
    shared: Arc<Shared<E>>,
    lock: Mutex<Option<E::Lock>>,
    tasks: Mutex<Vec<E::Task>>,
}

impl<E: Env> Owner<E> {
    fn signal_end(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.jobs.changed.raise();
        self.shared.tick.raise();
        self.shared.job_ended.raise();
        self.shared.wake_writers();
    }
}

impl<E: Env> Drop for Owner<E> {
    fn drop(&mut self) {
        self.signal_end();
    }
}

/// One directory: one shared WAL, one manifest, one memory budget, one block cache, one scheduler.
/// Cloning it makes another handle. Dropping the last handle ends the background work without
/// waiting for it; [`close`](Self::close) waits.
pub struct Db<E: Env> {
    owner: Arc<Owner<E>>,
}

impl<E: Env> Clone for Db<E> {
    fn clone(&self) -> Self {
        Self { owner: Arc::clone(&self.owner) }
    }
}

impl<E: Env> core::fmt::Debug for Db<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Db").field("dir", &self.shared().dir).finish_non_exhaustive()
    }
}

/// Names that are being created, lest two calls write one name into the manifest.
struct Claim<'a, E: Env> {
    shared: &'a Shared<E>,
    names: &'a [&'a str],
}

impl<'a, E: Env> Claim<'a, E> {
    fn new(shared: &'a Shared<E>, names: &'a [&'a str]) -> Result<Self> {
        let mut creating = shared.creating.lock();
        if let Some(name) = names.iter().find(|n| creating.contains(**n)) {
            return Err(Error::TenantExists((*name).to_owned()));
        }
        creating.extend(names.iter().map(|n| (*n).to_owned()));
        drop(creating);
        Ok(Self { shared, names })
    }
}

impl<E: Env> Drop for Claim<'_, E> {
    fn drop(&mut self) {
        let mut creating = self.shared.creating.lock();
        for name in self.names {
            creating.remove(*name);
        }
    }
}

/// Makes a branch's tree known to the policies, with the cap that its tenants now give it.
fn register<E: Env>(shared: &Shared<E>, branch: &Branch) {
    for (tree, _) in &branch.places {
        let cap = shared.options.memtable_cap_bytes(Shared::<E>::tenants_of(tree));
        if tree.slot.load(Ordering::Relaxed) == usize::MAX {
            shared.pressure.add_tree(tree, cap);
        } else {
            shared.pressure.set_memtable_cap(tree, cap);
        }
    }
}

/// Gives back what a dropped tree held in memory and in the log.
fn release<E: Env>(shared: &Shared<E>, tree: &Tree) {
    let mut gone = TreeView::default();
    tree.change(|view| {
        gone.memtable = view.memtable.take();
        gone.immutables = core::mem::take(&mut view.immutables);
    });
    shared.jobs.remove_tree(tree.id);
    shared.pressure.remove_tree(tree);
    shared.compaction_policy.lock().forget(tree.id);
    for memtable in &gone.immutables {
        shared.log.unpin(memtable.anchor_segment);
        shared.budget.release_immutable(memtable.bytes());
    }
    if let Some(memtable) = &gone.memtable {
        shared.log.unpin(memtable.anchor_segment);
        shared.budget.release_mutable(memtable.bytes());
    }
    tree.released.raise();
    shared.job_ended.raise();
}

async fn open_shared<E: Env>(
    env: E,
    dir: &Path,
    options: Options,
    listener: Option<Arc<dyn Listener>>,
) -> Result<Arc<Shared<E>>> {
    let recovered = recovery::read_versions(&env, dir, &options).await?;
    let set = Arc::new(recovered.set);
    let pressure = Pressure::new(&options, env.random_u64(Site("flush-policy")))?;
    let budget = Arc::new(Budget::new(options.budget_bytes));
    let log = LogSpace::default();
    for tree in set.trees() {
        let cap = options.memtable_cap_bytes(Shared::<E>::tenants_of(&tree));
        pressure.add_tree(&tree, cap);
    }
    let now = env.now();
    let to = ReplayTo { set: &set, budget: &budget, log: &log, pressure: &pressure, now };
    let replayed = recovery::replay(&env, dir, &recovered.names, &to).await?;
    let counters = Arc::new(Counters::default());
    let next_file = Arc::new(AtomicU64::new(recovered.next_file));
    let facts = (Arc::clone(&counters), Arc::clone(&next_file));
    let manifest = Manifest::new(env.clone(), dir, Arc::clone(&set), facts, recovered.manifest);
    // The first commit begins a new manifest, so that nothing is appended behind a torn tail.
    manifest.commit(vec![Edit::WalFloor { segment: set.wal_floor() }], None).await?;
    let segment = next_file.fetch_add(1, Ordering::Relaxed);
    let preallocate = options.wal_segment_bytes;
    let wal = SegmentWriter::create(&env, dir, segment, replayed.newest, preallocate).await?;
    log.add_segment(segment, wal.valid_bytes());
    let live = (&*set, &replayed.segments);
    recovery::remove_orphans(&env, dir, &recovered.names, live).await;
    let space =
        TableSpace::new(env.clone(), dir, options.block_cache_bytes, options.open_tables_max);
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        listener,
        counters,
        manifest,
        space: Arc::new(space),
        budget,
        pressure,
        log,
        jobs: Jobs::default(),
        commits: GroupQueue::default(),
        wal: Mutex::new(Some(wal)),
        stall_policy: Mutex::new(stall::build(&options.stall_policy)?),
        compaction_policy: Mutex::new(compaction::build(&options.compaction_policy)?),
        next_file,
        next_seq: AtomicU64::new(replayed.last_seq + 1),
        published: AtomicU64::new(replayed.last_seq),
        synced: AtomicU64::new(replayed.last_seq),
        snapshots: Mutex::new(BTreeMap::new()),
        garbage: Mutex::new(Vec::new()),
        creating: Mutex::new(BTreeSet::new()),
        read_only: Mutex::new(None),
        closing: AtomicBool::new(false),
        tick: Signal::new(),
        job_ended: Signal::new(),
        set,
        options,
        env,
    });
    for tree in shared.set.trees() {
        shared.schedule_compaction(&tree, 0);
    }
    Ok(shared)
}

impl<E: Env> Db<E> {
    /// Opens the database in `dir`, which is created where it is missing, and recovers it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for bad options; `Locked`; `Corruption` that names the damaged file; the
    /// world's. Acknowledged data on disk is as it was.
    pub async fn open(env: E, dir: &Path, options: Options) -> Result<Self> {
        Self::open_with_listener(env, dir, options, None).await
    }

    /// As [`open`](Self::open), with a listener for events.
    ///
    /// # Errors
    ///
    /// As for `open`.
    pub async fn open_with_listener(
        env: E,
        dir: &Path,
        options: Options,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Self> {
        options.validate()?;
        env.create_dir(dir).await?;
        let lock = env.lock(&dir.join("LOCK")).await?;
        let shared = open_shared(env, dir, options, listener).await?;
        let tasks = background::start(&shared);
        let owner = Owner { shared, lock: Mutex::new(Some(lock)), tasks: Mutex::new(tasks) };
        Ok(Self { owner: Arc::new(owner) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<E>> {
        &self.owner.shared
    }

    /// Stops taking writes, makes every acknowledged write durable, and waits for the background to
    /// end. A second call does nothing. Memtables stay in the WAL.
    ///
    /// # Errors
    ///
    /// The world's, from the last sync. The database is closed all the same.
    pub async fn close(&self) -> Result<()> {
        let shared = self.shared();
        let synced = if shared.is_closing() || shared.read_only.lock().is_some() {
            Ok(0)
        } else {
            queue::submit(shared, Request::Sync).await
        };
        self.owner.signal_end();
        let tasks = core::mem::take(&mut *self.owner.tasks.lock());
        for task in tasks {
            task.await;
        }
        drop(self.owner.lock.lock().take());
        synced.map(|_| ())
    }

    /// Creates tenants, all in one durable edit: all of them exist afterwards, or none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a bad name or one given twice, `TenantExists`; the world's, after
    /// which the tenants may exist at the next open.
    pub async fn create_tenants(&self, names: &[&str]) -> Result<Vec<Tenant<E>>> {
        let shared = self.shared();
        shared.check_writable()?;
        let mut sorted: Vec<&&str> = names.iter().collect();
        sorted.sort_unstable();
        if let Some([twice, _]) = sorted.array_windows::<2>().find(|[a, b]| a == b) {
            return Err(Error::InvalidArgument(format!("tenant name {twice:?} is given twice")));
        }
        for name in names {
            layout::check_name(name)?;
            if shared.set.tenant(name).is_some() {
                return Err(Error::TenantExists((*name).to_owned()));
            }
        }
        let claim = Claim::new(shared, names)?;
        let first = shared.set.take_ids(to_u64(names.len()));
        let tenants: Vec<(String, BranchId, TreeId)> = (first..)
            .zip(names)
            .map(|(id, name)| {
                let tree = layout::tree_of(shared.options.layout, name, BranchId(id));
                ((*name).to_owned(), BranchId(id), tree)
            })
            .collect();
        shared.manifest.commit(vec![Edit::CreateTenants { tenants }], None).await?;
        drop(claim);
        let tenants: Vec<Tenant<E>> = names.iter().filter_map(|name| self.tenant(name)).collect();
        for tenant in &tenants {
            register(shared, &tenant.branch);
        }
        Ok(tenants)
    }

    /// Drops a tenant: its handles get [`Error::Dropped`] from now on, scans that run finish, its
    /// memory is free at once and its files when nothing reads them any more.
    ///
    /// # Errors
    ///
    /// `UnknownTenant`; `Dropped` where another call is dropping it; the world's, after which the
    /// tenant is whole and writable, but may be gone at the next open.
    pub async fn drop_tenant(&self, name: &str) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        let unknown = || Error::UnknownTenant(name.to_owned());
        let branch = shared.set.tenant(name).ok_or_else(unknown)?;
        queue::submit(shared, Request::Drop(Arc::clone(&branch))).await?;
        let applied = Arc::new(Mutex::new(Applied::default()));
        let (edit, outcome) = (Edit::DropTenant { branch: branch.id }, Arc::clone(&applied));
        let installed = edit.clone();
        let install = Box::new(move |set: &VersionSet| {
            if let Ok(applied) = set.apply(&installed) {
                *outcome.lock() = applied;
            }
        });
        if let Err(error) = shared.manifest.commit(vec![edit], Some(install)).await {
            branch.set_dropped(false);
            return Err(error);
        }
        let applied = core::mem::take(&mut *applied.lock());
        for tree in &applied.dropped_trees {
            release(shared, tree);
        }
        for (tree, _) in branch.places.iter().filter(|(tree, _)| !tree.is_dropped()) {
            let cap = shared.options.memtable_cap_bytes(Shared::<E>::tenants_of(tree));
            shared.pressure.set_memtable_cap(tree, cap);
        }
        // Writers of the tenant that wait in line are told.
        shared.budget.wake_all();
        shared.garbage.lock().extend(applied.removed_tables);
        gc::collect(shared).await;
        gc::reclaim_log(shared).await;
        Ok(())
    }

    /// The tenant of this name, if there is one.
    pub fn tenant(&self, name: &str) -> Option<Tenant<E>> {
        let branch = self.shared().set.tenant(name)?;
        Some(Tenant { db: self.clone(), branch })
    }

    /// The names of all tenants, in the order of their creation.
    pub fn tenants(&self) -> Vec<String> {
        self.shared().set.branches().iter().map(|b| b.tenant.clone()).collect()
    }

    /// Writes a batch: all of it becomes visible, and survives a crash, or none. Returns the number
    /// of its last entry. Not cancel-safe: dropping the future leaves open whether the batch is
    /// written.
    ///
    /// # Errors
    ///
    /// `BatchTooLarge`, `Dropped`, `TreeFailed`, `Closed`: nothing was written. `Io` or `ReadOnly`:
    /// the batch is not visible, and may or may not come back at the next open.
    pub async fn write(&self, batch: WriteBatch, options: WriteOptions) -> Result<SeqNo> {
        let shared = self.shared();
        if batch.is_empty() {
            return Ok(shared.visible_seq());
        }
        let mut ops = Vec::with_capacity(batch.len());
        for op in batch.ops {
            let branch = shared.set.branch(op.branch).ok_or(Error::Dropped)?;
            ops.push((branch, op));
        }
        self.write_ops(ops, options).await
    }

    pub(crate) async fn write_ops(
        &self,
        ops: Vec<(Arc<Branch>, BatchOp)>,
        options: WriteOptions,
    ) -> Result<SeqNo> {
        let shared = self.shared();
        let reservation = admission::admit(shared, &ops).await?;
        let WriteOptions { sync, tag } = options;
        queue::submit(shared, Request::Write { ops, reservation, sync, tag }).await
    }

    /// Makes every acknowledged write durable.
    ///
    /// # Errors
    ///
    /// The world's; the database is then read-only.
    pub async fn sync(&self) -> Result<()> {
        queue::submit(self.shared(), Request::Sync).await.map(|_| ())
    }

    /// Waits until no flush and no compaction is due or running.
    ///
    /// # Errors
    ///
    /// `Closed`, `ReadOnly`.
    pub async fn wait_idle(&self) -> Result<()> {
        let shared = self.shared();
        loop {
            let listener = shared.job_ended.listen();
            shared.check_writable()?;
            if shared.jobs.is_idle() {
                return Ok(());
            }
            listener.await;
        }
    }

    /// Every version of every key of a tenant, newest first within a key, deletes included: for
    /// tests and inspection.
    ///
    /// # Errors
    ///
    /// As for a scan.
    pub async fn entries(&self, tenant: &str) -> Result<Vec<Entry>> {
        let branch = self.shared().set.tenant(tenant);
        let branch = branch.ok_or_else(|| Error::UnknownTenant(tenant.to_owned()))?;
        read::entries(self.shared(), &branch).await
    }

    /// Counters and gauges at this instant.
    pub fn metrics(&self) -> Metrics {
        self.shared().metrics()
    }

    /// Bytes in memtables of trees without a write since `since`, on the world's monotonic clock.
    pub fn stranded_bytes(&self, since: crate::types::Nanos) -> u64 {
        self.shared().pressure.stranded_bytes(since)
    }
}
