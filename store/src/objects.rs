//! The few calls that are asked of an object store, and the adapter over the `object_store` crate.
//!
//! Put-if-absent is all that writers compete by, since every store has it: `If-None-Match: *` on
//! S3, a hard link on a filesystem. No object is ever overwritten.

use core::future::Future;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use forebay_engine::types::to_u64;
use futures_util::StreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::error::{Error, Result};

/// Names that one listing may return.
const LIST_COUNT_MAX: usize = 1 << 20;

/// An object store.
///
/// # Contract
///
/// A put is whole or not there, and is seen by every call that begins after it ended. A listing
/// returns every object that is there from its start to its end. A call whose future was dropped,
/// or that failed, may still be carried out, at any later time.
pub trait Store {
    /// Puts an object unless one has this name. Whether it was put.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; the object may be there, or appear later.
    fn put_new(&self, name: &str, bytes: Bytes) -> impl Future<Output = Result<bool>>;

    /// At most the first `bytes_max` bytes of an object from `offset` on, or nothing where there is
    /// no such object.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    fn get(
        &self,
        name: &str,
        offset: u64,
        bytes_max: u64,
    ) -> impl Future<Output = Result<Option<Bytes>>>;

    /// An object's length in bytes, or nothing where there is no such object.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    fn size(&self, name: &str) -> impl Future<Output = Result<Option<u64>>>;

    /// The names of all objects below `prefix` and a slash, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::TooLarge`] where there are more than a million.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<String>>>;

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; the object may be there or vanish later.
    fn delete(&self, name: &str) -> impl Future<Output = Result<()>>;
}

impl<S: Store> Store for &S {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        (*self).put_new(name, bytes).await
    }

    async fn get(&self, name: &str, offset: u64, bytes_max: u64) -> Result<Option<Bytes>> {
        (*self).get(name, offset, bytes_max).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>> {
        (*self).size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        (*self).list(prefix).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        (*self).delete(name).await
    }
}

/// A store of the `object_store` crate. One in a cloud comes from that crate with its feature for
/// it; its `PrefixStore` keeps everything below a prefix.
#[derive(Clone, Debug)]
pub struct Objects(Arc<dyn ObjectStore>);

impl Objects {
    /// Adapts a store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// Objects in memory; clones share them.
    pub fn memory() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    /// Objects as files below a directory that exists, each synced before its put returns.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] where there is no such directory.
    pub fn local(dir: &FilePath) -> Result<Self> {
        let name = dir.display().to_string();
        let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| failed("open", &name, &e))?;
        Ok(Self(Arc::new(store.with_fsync(true))))
    }
}

fn failed(op: &'static str, object: &str, cause: &dyn core::error::Error) -> Error {
    Error::Store { op, object: object.to_owned(), detail: cause.to_string() }
}

fn path(op: &'static str, name: &str) -> Result<Path> {
    Path::parse(name).map_err(|e| failed(op, name, &e))
}

impl Store for Objects {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.0.put_opts(&path("put", name)?, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(failed("put", name, &error)),
        }
    }

    async fn get(&self, name: &str, offset: u64, bytes_max: u64) -> Result<Option<Bytes>> {
        let range = GetRange::Bounded(offset..offset.saturating_add(bytes_max));
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let found = match self.0.get_opts(&path("get", name)?, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed("get", name, &error)),
        };
        // What a store sends beyond what it was asked for is not collected.
        let (mut stream, mut bytes) = (found.into_stream(), Vec::new());
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| failed("get", name, &e))?);
            if to_u64(bytes.len()) > bytes_max {
                return Err(Error::damaged(name, "the store sent more than it was asked for"));
            }
        }
        Ok(Some(bytes.into()))
    }

    async fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.0.head(&path("head", name)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("head", name, &error)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut stream = self.0.list(Some(&path("list", prefix)?));
        let mut names = Vec::new();
        while let Some(meta) = stream.next().await {
            names.push(meta.map_err(|e| failed("list", prefix, &e))?.location.to_string());
            if names.len() > LIST_COUNT_MAX {
                return Err(Error::TooLarge {
                    what: format!("objects below {prefix}"),
                    count: to_u64(names.len()),
                    count_max: to_u64(LIST_COUNT_MAX),
                });
            }
        }
        Ok(names)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.0.delete(&path("delete", name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("delete", name, &error)),
        }
    }
}
