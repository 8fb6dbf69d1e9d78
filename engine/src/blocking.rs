//! The public face for applications: the same calls, each of which waits on the calling thread.
//!
//! ```
//! use forebay_engine::blocking::BlockingDb;
//! use forebay_engine::env::os::OsEnv;
//! use forebay_engine::options::Options;
//! use forebay_engine::tenant::ScanOptions;
//! use forebay_engine::{WriteBatch, WriteOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! // Open: an empty directory becomes a database.
//! let db = BlockingDb::open(OsEnv::default(), dir.path(), Options::default())?;
//!
//! // A tenant is a database of its own, by name.
//! db.create_tenants(&["alice"])?;
//! let alice = db.tenant("alice").ok_or("no such tenant")?;
//!
//! // Put and get. A synced write is durable when the call returns.
//! alice.put(b"user/1", b"Ann", WriteOptions::synced())?;
//! assert_eq!(alice.get(b"user/1")?.as_deref(), Some(&b"Ann"[..]));
//!
//! // A batch is written as a whole or not at all.
//! let mut batch = WriteBatch::new();
//! alice.tenant().put_in(&mut batch, b"order/7", b"tea")?;
//! alice.tenant().put_in(&mut batch, b"user/2", b"Bob")?;
//! alice.tenant().delete_in(&mut batch, b"user/1")?;
//! let before = alice.snapshot();
//! db.write(batch, WriteOptions::default())?;
//!
//! // Scan a range: any bounds, keys in order, blocks loaded as they are needed.
//! let users: &[u8] = b"user/";
//! let found = alice.scan(users..)?.collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(found, [("user/2".into(), "Bob".into())]);
//!
//! // All keys with a prefix.
//! assert_eq!(alice.prefix(b"order/")?.count(), 1);
//!
//! // In reverse, and moved to a place in the range.
//! let mut scan = alice.scan_with(.., ScanOptions::default().reversed())?;
//! assert_eq!(scan.next().transpose()?.ok_or("empty")?.0, "user/2");
//! scan.seek(b"user/1");
//! assert_eq!(scan.next().transpose()?.ok_or("empty")?.0, "order/7");
//! assert_eq!(scan.stats().data_blocks(), 0, "all of it is in the memtable");
//!
//! // A snapshot sees what was there when it was taken, until it is dropped.
//! assert_eq!(alice.get_at(&before, b"user/1")?.as_deref(), Some(&b"Ann"[..]));
//! assert_eq!(alice.get_at(&before, b"order/7")?, None);
//! assert_eq!(alice.scan_with(.., ScanOptions::default().at(&before))?.count(), 1);
//!
//! drop((scan, before));
//! db.close()?;
//! # Ok(())
//! # }
//! ```

use core::ops::RangeBounds;
use std::path::Path;

use bytes::Bytes;

use crate::batch::WriteBatch;
use crate::db::Db;
use crate::detach::{Detached, Imported};
use crate::env::BlockingEnv;
use crate::error::Result;
use crate::options::{Options, TenantOptions};
use crate::prefix::PrefixExtractor;
use crate::read::Scan;
use crate::repair::{RepairOptions, RepairReport};
use crate::table::ReadStats;
use crate::tenant::{ScanOptions, Snapshot, Tenant};
use crate::types::SeqNo;
use crate::verify::{Checked, VerifyReport};
use crate::write::WriteOptions;

/// A database whose calls block.
///
/// ```
/// use forebay_engine::blocking::BlockingDb;
/// use forebay_engine::env::mem::MemEnv;
/// use forebay_engine::options::Options;
/// use forebay_engine::write::WriteOptions;
///
/// # fn main() -> forebay_engine::Result<()> {
/// let db = BlockingDb::open(MemEnv::default(), "/db".as_ref(), Options::default())?;
/// let tenants = db.create_tenants(&["alice", "bob"])?;
/// let alice = &tenants[0];
/// alice.put(b"k", b"v", WriteOptions::synced())?;
/// assert_eq!(alice.get(b"k")?.as_deref(), Some(&b"v"[..]));
/// assert_eq!(tenants[1].get(b"k")?, None);
/// db.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BlockingDb<E: BlockingEnv> {
    env: E,
    db: Db<E>,
}

/// A tenant whose calls block.
#[derive(Clone, Debug)]
pub struct BlockingTenant<E: BlockingEnv> {
    env: E,
    tenant: Tenant<E>,
}

impl<E: BlockingEnv> BlockingDb<E> {
    /// As [`Db::open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(env: E, dir: &Path, options: Options) -> Result<Self> {
        let db = env.block_on(Db::open(env.clone(), dir, options))?;
        Ok(Self { env, db })
    }

    /// As [`Db::repair`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn repair(env: &E, dir: &Path, options: &RepairOptions) -> Result<RepairReport> {
        env.block_on(Db::repair(env, dir, options))
    }

    /// The same database for callers that await.
    pub fn db(&self) -> &Db<E> {
        &self.db
    }

    /// As [`Db::create_tenants`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_tenants(&self, names: &[&str]) -> Result<Vec<BlockingTenant<E>>> {
        let tenants = self.env.block_on(self.db.create_tenants(names))?;
        Ok(tenants.into_iter().map(|t| self.wrap(t)).collect())
    }

    /// As [`Db::create_tenant_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn create_tenant_with(
        &self,
        name: &str,
        options: &TenantOptions,
    ) -> Result<BlockingTenant<E>> {
        Ok(self.wrap(self.env.block_on(self.db.create_tenant_with(name, options))?))
    }

    fn wrap(&self, tenant: Tenant<E>) -> BlockingTenant<E> {
        BlockingTenant { env: self.env.clone(), tenant }
    }

    /// As [`Db::tenant`].
    pub fn tenant(&self, name: &str) -> Option<BlockingTenant<E>> {
        self.db.tenant(name).map(|t| self.wrap(t))
    }

    /// As [`Db::branch`].
    pub fn branch(&self, full_name: &str) -> Option<BlockingTenant<E>> {
        self.db.branch(full_name).map(|t| self.wrap(t))
    }

    /// As [`Db::branches`].
    pub fn branches(&self, tenant: &str) -> Vec<BlockingTenant<E>> {
        self.db.branches(tenant).into_iter().map(|t| self.wrap(t)).collect()
    }

    /// As [`Db::drop_branch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn drop_branch(&self, full_name: &str) -> Result<()> {
        self.env.block_on(self.db.drop_branch(full_name))
    }

    /// As [`Db::fork_to`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fork_to(&self, dir: &Path) -> Result<Detached> {
        self.env.block_on(self.db.fork_to(dir))
    }

    /// As [`Db::import`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn import(&self, dir: &Path) -> Result<Imported> {
        self.env.block_on(self.db.import(dir))
    }

    /// As [`Db::import_as`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn import_as(&self, dir: &Path, tenant: &str) -> Result<Imported> {
        self.env.block_on(self.db.import_as(dir, tenant))
    }

    /// As [`Db::drop_tenant`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn drop_tenant(&self, name: &str) -> Result<()> {
        self.env.block_on(self.db.drop_tenant(name))
    }

    /// As [`Db::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&self, batch: WriteBatch, options: WriteOptions) -> Result<SeqNo> {
        self.env.block_on(self.db.write(batch, options))
    }

    /// As [`Db::verify`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify(&self, progress: impl FnMut(&Checked)) -> Result<VerifyReport> {
        self.env.block_on(self.db.verify(progress))
    }

    /// As [`Db::flush`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn flush(&self) -> Result<()> {
        self.env.block_on(self.db.flush())
    }

    /// As [`Db::close`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn close(&self) -> Result<()> {
        self.env.block_on(self.db.close())
    }
}

impl<E: BlockingEnv> BlockingTenant<E> {
    /// The same tenant for callers that await; batches are filled through it.
    pub fn tenant(&self) -> &Tenant<E> {
        &self.tenant
    }

    /// As [`Tenant::fork`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fork(&self, name: &str) -> Result<Self> {
        let tenant = self.env.block_on(self.tenant.fork(name))?;
        Ok(Self { env: self.env.clone(), tenant })
    }

    /// As [`Tenant::fork_to`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fork_to(&self, dir: &Path) -> Result<Detached> {
        self.env.block_on(self.tenant.fork_to(dir))
    }

    /// As [`Tenant::put`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put(&self, key: &[u8], value: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.env.block_on(self.tenant.put(key, value, options))
    }

    /// As [`Tenant::delete`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn delete(&self, key: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.env.block_on(self.tenant.delete(key, options))
    }

    /// As [`Tenant::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.env.block_on(self.tenant.get(key))
    }

    /// As [`Tenant::get_at`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_at(&self, snapshot: &Snapshot<E>, key: &[u8]) -> Result<Option<Bytes>> {
        self.env.block_on(self.tenant.get_at(snapshot, key))
    }

    /// As [`Tenant::get_with_stats`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_with_stats(&self, key: &[u8]) -> Result<(Option<Bytes>, ReadStats)> {
        self.env.block_on(self.tenant.get_with_stats(key))
    }

    /// As [`Tenant::snapshot`].
    pub fn snapshot(&self) -> Snapshot<E> {
        self.tenant.snapshot()
    }

    fn wrap(&self, scan: Scan<E>) -> BlockingScan<E> {
        BlockingScan { env: self.env.clone(), scan, has_failed: false }
    }

    /// As [`Tenant::scan`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn scan<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Result<BlockingScan<E>> {
        Ok(self.wrap(self.tenant.scan(range)?))
    }

    /// As [`Tenant::scan_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn scan_with<'k>(
        &self,
        range: impl RangeBounds<&'k [u8]>,
        options: ScanOptions<'_, E>,
    ) -> Result<BlockingScan<E>> {
        Ok(self.wrap(self.tenant.scan_with(range, options)?))
    }

    /// As [`Tenant::prefix`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn prefix(&self, prefix: &[u8]) -> Result<BlockingScan<E>> {
        Ok(self.wrap(self.tenant.prefix(prefix)?))
    }

    /// As [`Tenant::prefix_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn prefix_with(
        &self,
        prefix: &[u8],
        options: ScanOptions<'_, E>,
    ) -> Result<BlockingScan<E>> {
        Ok(self.wrap(self.tenant.prefix_with(prefix, options)?))
    }

    /// As [`Tenant::set_prefix_extractor`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set_prefix_extractor(&self, extractor: Option<PrefixExtractor>) -> Result<()> {
        self.env.block_on(self.tenant.set_prefix_extractor(extractor))
    }

    /// As [`Tenant::flush`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn flush(&self) -> Result<()> {
        self.env.block_on(self.tenant.flush())
    }

    /// As [`Tenant::compact_range`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn compact_range<'k>(&self, range: impl RangeBounds<&'k [u8]>) -> Result<()> {
        self.env.block_on(self.tenant.compact_range(range))
    }

    /// As [`Tenant::compact`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn compact(&self) -> Result<()> {
        self.env.block_on(self.tenant.compact())
    }
}

/// A running scan whose steps block, as an iterator over keys and values.
///
/// An item is an error where a block could not be read or makes no sense; the iterator then ends,
/// so that no loop over it runs for ever. [`try_next`](Self::try_next) tries again.
#[derive(Debug)]
pub struct BlockingScan<E: BlockingEnv> {
    env: E,
    scan: Scan<E>,
    has_failed: bool,
}

impl<E: BlockingEnv> BlockingScan<E> {
    /// As [`Scan::next`]: where it fails it did not move, and tries again when it is asked again.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.env.block_on(self.scan.next())
    }

    /// As [`Scan::start`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn start(&mut self) -> Result<()> {
        self.env.block_on(self.scan.start())
    }

    /// As [`Scan::seek`].
    pub fn seek(&mut self, key: &[u8]) {
        self.has_failed = false;
        self.scan.seek(key);
    }

    /// As [`Scan::stats`].
    pub fn stats(&self) -> &ReadStats {
        self.scan.stats()
    }
}

impl<E: BlockingEnv> Iterator for BlockingScan<E> {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let item = self.try_next();
        self.has_failed = item.is_err();
        item.transpose()
    }
}
