//! The public face for applications: the same calls, each of which waits on the calling thread.

use std::path::Path;

use bytes::Bytes;

use crate::batch::WriteBatch;
use crate::db::Db;
use crate::env::BlockingEnv;
use crate::error::Result;
use crate::options::Options;
use crate::repair::{RepairOptions, RepairReport};
use crate::tenant::Tenant;
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

    fn wrap(&self, tenant: Tenant<E>) -> BlockingTenant<E> {
        BlockingTenant { env: self.env.clone(), tenant }
    }

    /// As [`Db::tenant`].
    pub fn tenant(&self, name: &str) -> Option<BlockingTenant<E>> {
        self.db.tenant(name).map(|t| self.wrap(t))
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

    /// All keys and values of a range, in key order.
    ///
    /// # Errors
    ///
    /// As for [`Tenant::scan`] and [`Scan::next`](crate::read::Scan::next).
    pub fn scan<'k>(
        &self,
        range: impl core::ops::RangeBounds<&'k [u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let mut scan = self.tenant.scan(range)?;
        self.env.block_on(async {
            let mut out = Vec::new();
            while let Some(pair) = scan.next().await? {
                out.push(pair);
            }
            Ok(out)
        })
    }

    /// As [`Tenant::flush`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn flush(&self) -> Result<()> {
        self.env.block_on(self.tenant.flush())
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
