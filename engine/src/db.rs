//! A database: open, close, tenants. Wiring only.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::background;
use crate::batch::{BatchOp, WriteBatch};
use crate::branches::{self, BranchFacts, Retained};
use crate::detach::{self, Detached, Imported};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::events::Listener;
use crate::gc;
use crate::layout;
use crate::metrics::{Metrics, TableBytes};
use crate::open;
use crate::options::{Options, TenantOptions};
use crate::policy::view::TreeFacts;
use crate::read;
use crate::repair::{self, RepairOptions, RepairReport};
use crate::shared::{Request, Shared};
use crate::signal::Signal;
use crate::space;
use crate::structure::{self, Structure, StructureWatch};
use crate::tenancy::{self, Claim};
use crate::tenant::Tenant;
use crate::types::{BranchId, Entry, SeqNo, TreeId, to_u64};
use crate::verify::{self, VerifyReport};
use crate::version::edit::Edit;
use crate::version::tree::{Branch, Tree};
use crate::waiting::Watch;
use crate::write::segments::remove_segment;
use crate::write::{WriteOptions, admission, queue};

/// The part of a database that user handles hold: its drop tells the background to end.
struct Owner<E: Env> {
    shared: Arc<Shared<E>>,
    /// Held by the background tasks too: the directory is free when all of them have ended.
    lock: Mutex<Option<Arc<E::Lock>>>,
    tasks: Mutex<Vec<E::Task>>,
    closed: Signal,
    /// How the first close ended.
    outcome: OnceLock<Result<()>>,
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
        open::create_dir(&env, dir).await?;
        let lock = Arc::new(env.lock(&dir.join("LOCK")).await?);
        let shared = open::shared(env, dir, options, listener).await?;
        let tasks = background::start(&shared, &lock);
        let owner = Owner {
            shared,
            lock: Mutex::new(Some(lock)),
            tasks: Mutex::new(tasks),
            closed: Signal::new(),
            outcome: OnceLock::new(),
        };
        Ok(Self { owner: Arc::new(owner) })
    }

    /// Makes a damaged directory, which nobody has open, one that opens again, from whatever in it
    /// is whole: see [`repair`]. Nothing is deleted.
    ///
    /// # Errors
    ///
    /// As for [`repair::repair`].
    pub async fn repair(env: &E, dir: &Path, options: &RepairOptions) -> Result<RepairReport> {
        repair::repair(env, dir, options).await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<E>> {
        &self.owner.shared
    }

    /// What holds the directory, until it is closed.
    pub(crate) fn lock(&self) -> Option<Arc<E::Lock>> {
        self.owner.lock.lock().clone()
    }

    /// Stops taking writes, makes every acknowledged write durable, and waits for the background to
    /// end. A second call waits for the first and says what it said. Memtables stay in the WAL.
    ///
    /// # Errors
    ///
    /// The world's, from the last sync; `ReadOnly` where writes that were acknowledged unsynced
    /// could not be made durable. The database is closed all the same, and whether they survive is
    /// the operating system's.
    pub async fn close(&self) -> Result<()> {
        let shared = self.shared();
        if shared.options.flush_on_close {
            // Where that fails, or a job does meanwhile, the log has it all.
            drop(self.flush_or_fail(shared.counters.job_failed_count.get()).await);
        }
        let first = !shared.closing.load(Ordering::Acquire);
        self.owner.signal_end();
        if !first {
            loop {
                let listener = self.owner.closed.listen();
                if let Some(outcome) = self.owner.outcome.get() {
                    return outcome.clone();
                }
                listener.await;
            }
        }
        // Behind it in the queue nothing is written any more.
        let synced = queue::submit(shared, Request::Close).await;
        let tasks = core::mem::take(&mut *self.owner.tasks.lock());
        for task in tasks {
            task.await;
        }
        gc::collect(shared).await;
        shared.manifest.close().await;
        let spare = shared.spare.lock().take();
        if let Some(spare) = spare {
            remove_segment(shared, spare.segment()).await;
        }
        drop(self.owner.lock.lock().take());
        // Only the first close comes here.
        let outcome = self.owner.outcome.get_or_init(|| synced.map(|_| ())).clone();
        self.owner.closed.raise();
        outcome
    }

    /// Creates tenants, all in one durable edit: all of them exist afterwards, or none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a bad name or one given twice, `TenantExists`, `DiskFull`; or the
    /// world's, after which the tenants may exist at the next open.
    pub async fn create_tenants(&self, names: &[&str]) -> Result<Vec<Tenant<E>>> {
        self.create_tenants_with(names, &TenantOptions::default()).await
    }

    /// Creates a tenant with options of its own.
    ///
    /// # Errors
    ///
    /// As for [`create_tenants`](Self::create_tenants); `InvalidArgument` for options that the
    /// layout does not allow.
    pub async fn create_tenant_with(
        &self,
        name: &str,
        options: &TenantOptions,
    ) -> Result<Tenant<E>> {
        // It is gone only where another call dropped it meanwhile.
        self.create_tenants_with(&[name], options).await?.pop().ok_or(Error::Dropped)
    }

    async fn create_tenants_with(
        &self,
        names: &[&str],
        options: &TenantOptions,
    ) -> Result<Vec<Tenant<E>>> {
        let shared = self.shared();
        shared.check_writable()?;
        options.check(shared.options.layout)?;
        shared.disk.check()?;
        let mut sorted: Vec<&&str> = names.iter().collect();
        sorted.sort_unstable();
        if let Some([twice, _]) = sorted.array_windows::<2>().find(|[a, b]| a == b) {
            return Err(Error::InvalidArgument(format!("tenant name {twice:?} is given twice")));
        }
        for name in names {
            layout::check_name(name)?;
        }
        // First the claim, then the look: whoever claimed before has installed, or failed.
        let claim = Claim::new(shared, names)?;
        if let Some(name) = names.iter().find(|n| !shared.set.branches_of(n).is_empty()) {
            return Err(Error::TenantExists((*name).to_owned()));
        }
        let first = shared.set.take_ids(to_u64(names.len()));
        let tenants: Vec<(String, BranchId, TreeId)> = (first..)
            .zip(names)
            .map(|(id, name)| {
                let tree = layout::tree_of(shared.options.layout, name, BranchId(id));
                ((*name).to_owned(), BranchId(id), tree)
            })
            .collect();
        let extractor = options.prefix_extractor;
        let own = tenants.iter().filter(|_| extractor.is_some());
        let own = own.map(|(_, branch, _)| Edit::TenantExtractor { branch: *branch, extractor });
        let own: Vec<Edit> = own.collect();
        let mut edits = vec![Edit::CreateTenants { tenants }];
        edits.extend(own);
        let install = tenancy::install_create(shared, &edits, claim);
        shared.manifest.commit(edits, Some(install)).await?;
        Ok(names.iter().filter_map(|name| self.tenant(name)).collect())
    }

    /// Drops a tenant with all its branches: their handles get
    /// [`Error::Dropped`] from then on, scans that run finish, their memory is free at once and
    /// their files when nothing reads them any more.
    ///
    /// # Errors
    ///
    /// `UnknownTenant`; `Dropped` where another call is dropping it; the world's, after which the
    /// tenant is whole and writable, but may be gone at the next open.
    pub async fn drop_tenant(&self, name: &str) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        let mut branches = shared.set.branches_of(name);
        if branches.is_empty() {
            return Err(Error::UnknownTenant(name.to_owned()));
        }
        // A fork that was on its way when its parent was dropped has come to be behind it.
        while !branches.is_empty() {
            self.drop_branches(branches).await?;
            branches = shared.set.branches_of(name);
        }
        Ok(())
    }

    /// Drops one branch, by its full name: `TENANT@BRANCH`, or `TENANT` for its `main`. Branches
    /// forked from it stay whole, and files go when no branch has their tables any more.
    ///
    /// # Errors
    ///
    /// As for [`drop_tenant`](Self::drop_tenant).
    pub async fn drop_branch(&self, full_name: &str) -> Result<()> {
        let shared = self.shared();
        shared.check_writable()?;
        let unknown = || Error::UnknownTenant(full_name.to_owned());
        let branch = shared.set.named(full_name).ok_or_else(unknown)?;
        self.drop_branches(vec![branch]).await
    }

    async fn drop_branches(&self, branches: Vec<Arc<Branch>>) -> Result<()> {
        let shared = self.shared();
        let mut undo = Vec::new();
        for branch in &branches {
            queue::submit(shared, Request::Drop(Arc::clone(branch))).await?;
            undo.push(tenancy::UndoDrop::new(shared, branch));
        }
        let edits = branches.iter().map(|b| Edit::DropTenant { branch: b.id }).collect();
        let install = tenancy::install_drop(shared, &branches);
        shared.manifest.commit(edits, Some(install)).await?;
        drop(undo);
        tenancy::settle_dropped(shared).await;
        // Writers of the tenant that wait in line are told.
        shared.budget.wake_all();
        gc::collect_or_later(shared).await;
        gc::reclaim_log(shared).await;
        space::ask(shared).await;
        Ok(())
    }

    /// Makes a database of its own in another directory, which must be empty or missing: all
    /// tenants with all branches, as they are at one place in the order of writes, while this one
    /// goes on. Table files are linked where all of their bytes are part of it, else copied. It is
    /// durable when this returns, and either directory may be removed then.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a directory that is not empty, `Locked`, `Closed` or `ReadOnly`:
    /// nothing changed. The world's: this database is as it was, and the directory holds no
    /// database, or where it could not be cleaned up perhaps the whole one.
    pub async fn fork_to(&self, dir: &Path) -> Result<Detached> {
        detach::fork_to(self.shared(), dir, None).await
    }

    /// Takes in every tenant, with all its branches, of a directory that nobody has open, such as
    /// [`fork_to`](Self::fork_to) makes. The directory stays as it is, and may be removed.
    ///
    /// # Errors
    ///
    /// `TenantExists` where one of the names is taken; `InvalidArgument` where the directory holds
    /// no database, and in layouts other than per-tenant; `Locked`; `Corruption`; `DiskFull`,
    /// `Closed` or `ReadOnly`: nothing changed. The world's, after which the tenants may be there
    /// at the next open.
    pub async fn import(&self, dir: &Path) -> Result<Imported> {
        detach::import(self.shared(), dir, None).await
    }

    /// As [`import`](Self::import), of a directory that holds one tenant, which gets another name.
    ///
    /// # Errors
    ///
    /// As there; `InvalidArgument` for a bad name, and where the directory holds several tenants.
    pub async fn import_as(&self, dir: &Path, tenant: &str) -> Result<Imported> {
        detach::import(self.shared(), dir, Some(tenant)).await
    }

    /// The branch of this full name: `TENANT@BRANCH`, or `TENANT` for its `main`.
    pub fn branch(&self, full_name: &str) -> Option<Tenant<E>> {
        let branch = self.shared().set.named(full_name)?;
        Some(Tenant { db: self.clone(), branch })
    }

    /// The branches of a tenant: `main` first, if it is there, then the others by name.
    pub fn branches(&self, tenant: &str) -> Vec<Tenant<E>> {
        let branches = self.shared().set.branches_of(tenant).into_iter();
        branches.map(|branch| Tenant { db: self.clone(), branch }).collect()
    }

    /// What each branch of a tenant holds, and what would go with it: `main` first, if it is there,
    /// then the others by name. Costs the tables of all these branches.
    pub fn branch_facts(&self, tenant: &str) -> Vec<BranchFacts> {
        branches::facts_of(&self.shared().set, tenant)
    }

    /// Bytes of all tables by what keeps them. Costs the tables of the database.
    pub fn retained(&self) -> Retained {
        // Before the versions: what leaves one of them meanwhile is then counted there.
        let garbage = self.shared().garbage.lock().clone();
        branches::retained(&self.shared().set, &garbage)
    }

    /// The branch `main` of the tenant of this name, if it is there.
    pub fn tenant(&self, name: &str) -> Option<Tenant<E>> {
        self.branch(name)
    }

    /// The full names of all branches, in the order of their creation.
    pub fn tenants(&self) -> Vec<String> {
        self.shared().set.branches().iter().map(|b| b.full_name()).collect()
    }

    /// Writes a batch: all of it becomes visible, and survives a crash, or none. Returns the number
    /// of its last entry. Not cancel-safe: dropping the future leaves open whether the batch is
    /// written.
    ///
    /// # Errors
    ///
    /// `BatchTooLarge`, `Dropped`, `TreeFailed`, `DiskFull`, `Closed`: nothing was written. `Io`,
    /// `Interrupted` or `ReadOnly`: the batch is not visible, and may or may not come back at the
    /// next open.
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
    /// The world's. The next sync may succeed, unless the database is read-only then.
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

    /// Flushes every memtable, all into one file, and waits until what was written before is in
    /// tables. Trees whose flush failed for good are left out.
    ///
    /// # Errors
    ///
    /// `Closed` or `ReadOnly`; memtables that are not flushed by then stay in the log.
    pub async fn flush(&self) -> Result<()> {
        self.flush_or_fail(u64::MAX).await
    }

    /// As [`flush`](Self::flush), but ends as well once more than this many jobs failed.
    async fn flush_or_fail(&self, failed_max: u64) -> Result<()> {
        let shared = self.shared();
        let upto = shared.visible_seq();
        let trees = shared.set.trees();
        queue::submit(
            shared,
            Request::Seal { trees: trees.clone(), overridden: false, pack: true },
        )
        .await?;
        let is_flushed = |tree: &Arc<Tree>| {
            tree.failure().is_some() || tree.view().immutables.iter().all(|m| m.min_seq() > upto)
        };
        loop {
            let listener = shared.job_ended.listen();
            shared.check_writable()?;
            let failed = shared.counters.job_failed_count.get() > failed_max;
            if failed || trees.iter().all(is_flushed) {
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
        let branch = self.shared().set.named(tenant);
        let branch = branch.ok_or_else(|| Error::UnknownTenant(tenant.to_owned()))?;
        read::entries(self.shared(), &branch).await
    }

    /// Reads and checks everything that the database consists of, beside whatever it does, and
    /// reports what is not as it should be: see [`verify`]. Long; `progress` is
    /// called behind every table and segment.
    ///
    /// # Errors
    ///
    /// `Closed`; the world's, where the directory cannot be listed. All else is in the report.
    pub async fn verify(&self, progress: impl FnMut(&verify::Checked)) -> Result<VerifyReport> {
        verify::verify_open(self.shared(), progress).await
    }

    /// Counters and gauges at this instant.
    pub fn metrics(&self) -> Metrics {
        self.shared().metrics()
    }

    /// Bytes in the block cache: of data blocks, indexes and filters, of all tenants together.
    pub fn cached_bytes(&self) -> u64 {
        self.shared().space.block_cache().bytes()
    }

    /// The same by the branch whose reads loaded them. A dropped tenant is listed until its tables'
    /// files are gone.
    pub fn cached_bytes_by_branch(&self) -> Vec<(BranchId, u64)> {
        self.shared().space.block_cache().bytes_by_branch()
    }

    /// Table files that are held open.
    pub fn open_table_count(&self) -> usize {
        self.shared().space.open_count()
    }

    /// Looks at who waits, and at memory by tree, without keeping the database open.
    pub fn watch(&self) -> Watch<E> {
        Watch::new(self.shared())
    }

    /// Checks what lies in memory against itself, while nothing else runs: see [`structure`].
    pub fn check_structure(&self) -> Structure {
        structure::check(self.shared())
    }

    /// The same, without keeping the database open.
    pub fn watch_structure(&self) -> StructureWatch<E> {
        StructureWatch::new(self.shared())
    }

    /// Bytes that memtables hold and admitted writes have reserved, now. Takes constant time.
    pub fn memtable_bytes(&self) -> u64 {
        self.shared().budget.used_bytes()
    }

    /// Bytes of the tables that branches reach, now. Takes time in proportion to them.
    pub fn table_bytes(&self) -> TableBytes {
        let set = &self.shared().set;
        let is_main = |branch: &Arc<Branch>| branch.name == layout::MAIN;
        let trees = |branch: Arc<Branch>| branch.places.iter().map(|(tree, _)| tree.id).collect();
        let branches = set.branches().into_iter().filter(is_main);
        let main: BTreeSet<TreeId> = branches.flat_map::<Vec<_>, _>(trees).collect();
        let mut tables = Vec::new();
        for tree in set.trees() {
            let (view, is_main) = (tree.view(), main.contains(&tree.id));
            tables.extend(view.version.tables().map(|(_, table)| (table.id, table.bytes, is_main)));
        }
        TableBytes::of(tables)
    }

    /// What flush policies see of every tree, now.
    pub fn tree_facts(&self) -> Vec<TreeFacts> {
        self.shared().pressure.tree_facts()
    }

    /// Bytes in memtables of trees without a write since `since`, on the world's monotonic clock.
    pub fn stranded_bytes(&self, since: crate::types::Nanos) -> u64 {
        self.shared().pressure.stranded_bytes(since)
    }
}
