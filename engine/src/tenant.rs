//! The user's handle to one tenant: put, get, delete, scan, snapshot.

use core::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{BatchOp, WriteBatch};
use crate::db::Db;
use crate::detach::{self, Detached};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::Place;
use crate::options::{ForkMemtable, Layout, TenantOptions};
use crate::prefix::PrefixExtractor;
use crate::read::{self, Scan};
use crate::shared::{Request, Shared};
use crate::table::ReadStats;
use crate::types::{BranchId, Kind, Nanos, SeqNo, TreeId};
use crate::version::edit::Edit;
use crate::version::tree::{Branch, ForkPoint};
use crate::write::{WriteOptions, fork, queue};

/// One branch of a tenant: its `main`, or a fork.
#[derive(Debug)]
pub struct Tenant<E: Env> {
    pub(crate) db: Db<E>,
    pub(crate) branch: Arc<Branch>,
}

/// A fork, and what it cost.
#[derive(Debug)]
pub struct Forked<E: Env> {
    /// The new branch.
    pub tenant: Tenant<E>,
    /// It began with the parent's entries up to this number.
    pub seq: SeqNo,
    /// Bytes that were copied for it: of entries in memory, and of tables where branches share
    /// trees.
    pub copied_bytes: u64,
}

impl<E: Env> Clone for Tenant<E> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), branch: Arc::clone(&self.branch) }
    }
}

/// A read view at one sequence number: what it sees stays, whatever is written, flushed or
/// compacted, until it is dropped.
#[derive(Debug)]
pub struct Snapshot<E: Env> {
    shared: Arc<Shared<E>>,
    seq: SeqNo,
}

impl<E: Env> Snapshot<E> {
    /// The number: the snapshot sees entries up to it.
    pub fn seq(&self) -> SeqNo {
        self.seq
    }
}

impl<E: Env> Drop for Snapshot<E> {
    fn drop(&mut self) {
        let mut snapshots = self.shared.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&self.seq);
            }
        }
    }
}

/// How a scan runs: forward as of now, if nothing else is asked for.
#[derive(Debug)]
pub struct ScanOptions<'s, E: Env> {
    reverse: bool,
    snapshot: Option<&'s Snapshot<E>>,
}

impl<E: Env> Clone for ScanOptions<'_, E> {
    fn clone(&self) -> Self {
        Self { reverse: self.reverse, snapshot: self.snapshot }
    }
}

impl<E: Env> Default for ScanOptions<'_, E> {
    fn default() -> Self {
        Self { reverse: false, snapshot: None }
    }
}

impl<'s, E: Env> ScanOptions<'s, E> {
    /// The same, from the last key to the first.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// The same, as of a snapshot of the same database.
    #[must_use]
    pub fn at(self, snapshot: &'s Snapshot<E>) -> Self {
        Self { snapshot: Some(snapshot), ..self }
    }

    fn parts(self) -> (bool, Option<SeqNo>) {
        (self.reverse, self.snapshot.map(Snapshot::seq))
    }
}

/// What a tenant's writes waited, and what writes waited on its account. Over all tenants, with
/// [`Metrics::stall_dropped`](crate::metrics::Metrics::stall_dropped), either adds up to the
/// database's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantStats {
    /// Time that its writes waited. A batch waits on the account of its first entry's tenant.
    pub stall_ns: Nanos,
    /// Time that writes, its own ones included, waited on its account.
    pub stall_caused_ns: Nanos,
}

impl<E: Env> Tenant<E> {
    /// The tenant's name.
    #[expect(clippy::misnamed_getters, reason = "a handle is named after its tenant")]
    pub fn name(&self) -> &str {
        &self.branch.tenant
    }

    /// The branch's name: `main` where it was not forked.
    pub fn branch_name(&self) -> &str {
        &self.branch.name
    }

    /// The branch's name with its tenant's: `TENANT@BRANCH`, and `TENANT` alone for its `main`.
    pub fn full_name(&self) -> String {
        self.branch.full_name()
    }

    /// Where the branch began, if it was forked.
    pub fn fork_point(&self) -> Option<ForkPoint> {
        self.branch.fork
    }

    /// Makes a branch of the same tenant that begins with all that this one holds now, and is
    /// independent of it from there on: nothing that is done to one shows in the other. It is
    /// durable, with everything written before it, when this returns. No table is copied: the cost
    /// does not depend on the size of the data. Where branches share trees (layouts `shared` and
    /// `grouped-N`) its entries are copied instead, and the cost grows with them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a bad name, `TenantExists` for one that is taken, `TreeFailed`,
    /// `Dropped`, `DiskFull`, `Closed` or `ReadOnly`: nothing changed. The world's: there is no
    /// such branch, but it may be there at the next open.
    pub async fn fork(&self, name: &str) -> Result<Self> {
        let memtable = self.db.shared().options.fork_memtable;
        Ok(self.fork_with(name, memtable).await?.tenant)
    }

    /// As [`fork`](Self::fork), with a say in what happens to entries that are in no table yet, and
    /// with what it cost.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn fork_with(&self, name: &str, memtable: ForkMemtable) -> Result<Forked<E>> {
        let shared = self.db.shared();
        // Nobody else opens the directory while files may still be written to it.
        let lock = self.db.lock();
        let forked = fork::run(shared, &self.branch, (name, memtable)).await;
        drop(lock);
        let forked = forked?;
        let tenant = Self { db: self.db.clone(), branch: forked.branch };
        Ok(Forked { tenant, seq: forked.seq, copied_bytes: forked.copied_bytes })
    }

    /// Makes a database of its own in another directory, which must be empty or missing, with this
    /// branch and nothing else: there it is the branch `main` of a tenant of the same name. As
    /// [`Db::fork_to`] else. Where tenants share trees, the branch's entries are written anew.
    ///
    /// # Errors
    ///
    /// As for [`Db::fork_to`]; `Dropped`.
    pub async fn fork_to(&self, dir: &Path) -> Result<Detached> {
        detach::fork_to(self.db.shared(), dir, Some(&self.branch)).await
    }

    /// The id of its branch, as events name it.
    pub fn branch_id(&self) -> BranchId {
        self.branch.id
    }

    /// The tree it lives in, as events name it.
    pub fn tree_id(&self) -> Option<TreeId> {
        self.branch.places.first().map(|(tree, _)| tree.id)
    }

    /// What its writes waited, and what it made others wait; 0 once it is dropped.
    pub fn stats(&self) -> TenantStats {
        let stalls = self.db.shared().counters.stalls.of(self.branch.id);
        TenantStats { stall_ns: stalls.waited_ns, stall_caused_ns: stalls.caused_ns }
    }

    /// Bytes in the block cache that its reads loaded.
    pub fn cached_bytes(&self) -> u64 {
        self.db.shared().space.block_cache().bytes_of(self.branch.id)
    }

    /// Gives the tenant's tables a prefix extractor of their own, or with `None` that of the
    /// database, from here on. Tables that are there stay as they are until a compaction rewrites
    /// them, and are not asked by the other's prefixes.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a length out of bounds, and in layouts in which tenants share tables;
    /// `Dropped`; the world's, after which the extractor may have changed at the next open.
    pub async fn set_prefix_extractor(&self, extractor: Option<PrefixExtractor>) -> Result<()> {
        let shared = self.db.shared();
        shared.check_writable()?;
        let layout = shared.options.layout;
        TenantOptions { prefix_extractor: extractor }.check(layout)?;
        if self.branch.is_dropped() {
            return Err(Error::Dropped);
        }
        if layout != Layout::PerTenant {
            // It has none of its own and keeps none.
            return Ok(());
        }
        let edit = Edit::TenantExtractor { branch: self.branch.id, extractor };
        shared.manifest.commit(vec![edit], None).await
    }

    /// The prefix extractor that the tenant's tables are written with from now on.
    pub fn prefix_extractor(&self) -> Option<PrefixExtractor> {
        let (tree, _) = self.branch.places.first()?;
        tree.prefix_extractor().map(|of_tree| of_tree.extractor)
    }

    fn owner(&self) -> (BranchId, Place) {
        (self.branch.id, self.branch.places.first().map(|(_, p)| *p).unwrap_or_default())
    }

    async fn write_one(
        &self,
        kind: Kind,
        (key, value): (&[u8], &[u8]),
        options: WriteOptions,
    ) -> Result<SeqNo> {
        let op = BatchOp::new(self.owner(), kind, key, value)?;
        self.db.write_ops(vec![(Arc::clone(&self.branch), op)], options).await
    }

    /// Gives a key a value. Returns the write's sequence number.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub async fn put(&self, key: &[u8], value: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.write_one(Kind::Put, (key, value), options).await
    }

    /// Deletes a key: appends a tombstone, whether there is a value or not.
    ///
    /// # Errors
    ///
    /// As for [`Db::write`].
    pub async fn delete(&self, key: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.write_one(Kind::Delete, (key, &[]), options).await
    }

    /// Adds a put to a batch.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a key or a value that is too long; the batch is unchanged.
    pub fn put_in(&self, batch: &mut WriteBatch, key: &[u8], value: &[u8]) -> Result<()> {
        batch.push(self.owner(), Kind::Put, key, value)
    }

    /// Adds a delete to a batch.
    ///
    /// # Errors
    ///
    /// As for [`put_in`](Self::put_in).
    pub fn delete_in(&self, batch: &mut WriteBatch, key: &[u8]) -> Result<()> {
        batch.push(self.owner(), Kind::Delete, key, &[])
    }

    /// The value of a key now.
    ///
    /// # Errors
    ///
    /// `Dropped`, `Closed`, the world's, or `Corruption` of a table that may hold the key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(read::get(self.db.shared(), &self.branch, key, None).await?.0)
    }

    /// The value of a key now, with what the read cost.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub async fn get_with_stats(&self, key: &[u8]) -> Result<(Option<Bytes>, ReadStats)> {
        read::get(self.db.shared(), &self.branch, key, None).await
    }

    /// The value of a key at a snapshot.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub async fn get_at(&self, snapshot: &Snapshot<E>, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(read::get(self.db.shared(), &self.branch, key, Some(snapshot.seq)).await?.0)
    }

    /// A scan of a range of keys, in key order, as of now.
    ///
    /// # Errors
    ///
    /// `Dropped`, `Closed`.
    pub fn scan<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Result<Scan<E>> {
        self.scan_with(range, ScanOptions::default())
    }

    /// A scan at a snapshot.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    pub fn scan_at<'k>(
        &self,
        snapshot: &Snapshot<E>,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<Scan<E>> {
        self.scan_with(range, ScanOptions::default().at(snapshot))
    }

    /// A scan of a range of keys in either direction, as of now or at a snapshot. A range that
    /// holds no key, or whose bounds are the wrong way round, gives an empty scan.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    pub fn scan_with<'k>(
        &self,
        range: impl RangeBounds<&'k [u8]>,
        options: ScanOptions<'_, E>,
    ) -> Result<Scan<E>> {
        Scan::new(self.db.shared(), &self.branch, bounds(&range), options.parts())
    }

    /// A scan of all keys that begin with `prefix`, in key order, as of now. Where the tenant has a
    /// prefix extractor and `prefix` holds all of an extracted prefix, tables without it cost no
    /// data block.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    pub fn prefix(&self, prefix: &[u8]) -> Result<Scan<E>> {
        self.prefix_with(prefix, ScanOptions::default())
    }

    /// As [`prefix`](Self::prefix), in either direction, as of now or at a snapshot.
    ///
    /// # Errors
    ///
    /// As for [`scan`](Self::scan).
    pub fn prefix_with(&self, prefix: &[u8], options: ScanOptions<'_, E>) -> Result<Scan<E>> {
        Scan::of_prefix(self.db.shared(), &self.branch, prefix, options.parts())
    }

    /// Pins what is visible now.
    pub fn snapshot(&self) -> Snapshot<E> {
        let shared = self.db.shared();
        // The number is read and registered under one lock: a flush between the two could drop what
        // the snapshot must see.
        let mut snapshots = shared.snapshots.lock();
        let seq = shared.visible_seq();
        *snapshots.entry(seq).or_insert(0) += 1;
        drop(snapshots);
        Snapshot { shared: Arc::clone(shared), seq }
    }

    /// Seals the memtable of the tenant's tree and waits until all that was written is in tables.
    ///
    /// # Errors
    ///
    /// `Closed`, `ReadOnly`, `Dropped`, `TreeFailed`.
    pub async fn flush(&self) -> Result<()> {
        let shared = self.db.shared();
        let Some((tree, _)) = self.branch.places.first() else { return Err(Error::Dropped) };
        let upto = shared.visible_seq();
        let trees = vec![Arc::clone(tree)];
        queue::submit(shared, Request::Seal { trees, overridden: false, pack: false }).await?;
        loop {
            let listener = tree.released.listen();
            shared.check_writable()?;
            if self.branch.is_dropped() {
                return Err(Error::Dropped);
            }
            if let Some(cause) = tree.failure() {
                return Err(Error::TreeFailed { tree: tree.id, cause });
            }
            if tree.view().immutables.iter().all(|m| m.min_seq() > upto) {
                return Ok(());
            }
            listener.await;
        }
    }

    /// As [`compact_range`](Self::compact_range), of all keys of the tenant.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn compact(&self) -> Result<()> {
        self.compact_range(..).await
    }

    /// Flushes the tenant's tree, then merges its tables that touch a range of keys into the last
    /// level, and waits. Every such table is rewritten, so that of the range's keys what no
    /// snapshot sees is gone, and every tombstone. Where tenants share a tree, tables that hold
    /// keys of several are rewritten for all of them.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush), and those of the compaction: the range is then part of the
    /// way down, and reads as before.
    pub async fn compact_range<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Result<()> {
        let (from, to) = bounds(&range);
        self.flush().await?;
        let shared = self.db.shared();
        let Some((tree, place)) = self.branch.places.first() else { return Err(Error::Dropped) };
        let stored = |bound: Bound<&[u8]>| bound.map(|key| place.key(key));
        let from = match stored(from) {
            Bound::Unbounded => Bound::Included(place.key(&[])),
            bound @ (Bound::Included(_) | Bound::Excluded(_)) => bound,
        };
        let to = match stored(to) {
            Bound::Unbounded => place.end().map_or(Bound::Unbounded, Bound::Excluded),
            bound @ (Bound::Included(_) | Bound::Excluded(_)) => bound,
        };
        let wish = shared.jobs.add_manual_compaction(tree, (from, to));
        loop {
            let listener = shared.job_ended.listen();
            if let Some(outcome) = wish.outcome() {
                return outcome;
            }
            if self.branch.is_dropped() {
                return Err(Error::Dropped);
            }
            shared.check_writable()?;
            listener.await;
        }
    }
}

fn bounds<'k>(range: &impl RangeBounds<&'k [u8]>) -> (Bound<&'k [u8]>, Bound<&'k [u8]>) {
    (range.start_bound().cloned(), range.end_bound().cloned())
}
