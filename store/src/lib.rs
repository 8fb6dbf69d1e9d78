//! Carries closed database directories through an object store, where forks share their tables.
//!
//! [`ForkStore::push`] takes a directory that a detached fork made, or any other that no one has
//! open, and a name; [`ForkStore::pull`] makes the directory again out of the store alone. Files
//! are cut into pieces that are named by their hash, so what two forks share is one object.
//!
//! # Protocol
//!
//! 1. All changes have one order: `catalog/NUMBER` is put if absent, and the highest number is the
//!    state: each fork's version and manifest, a *generation*, a *boundary* and an *index*.
//! 2. An object's name is its hash and the generation in which it was put.
//! 3. A push reads the head. What the index names it shares; all else it puts, unless it is there,
//!    under the head's generation. Then the fork's manifest, then the catalog that names it.
//! 4. A push may commit onto a head only if all that it names is of the head's boundary or later,
//!    or in the head's index. It lost the number to another: it reads the new head and asks again;
//!    what fails is put again under the new generation.
//! 5. A collection reads every fork of the head. It writes what they name as the new index, and
//!    commits it with its own number as generation and as boundary ([`Grace::One`]: with the
//!    generation before as boundary). Only then it deletes what is older than its boundary and not
//!    in its index.
//! 6. So a collection and a stalled push compete for one name, the next catalog. If the push is
//!    first, the collection sees its fork; if the collection is first, the push sees its boundary.
//! 7. No push names what a collection may delete, however late: up to the last collection because
//!    of 4, after it because of 6. A name that was condemned is of a past generation for ever.
//! 8. Catalogs but the last few are deleted. A writer that stalled so long that its number is free
//!    again looks after its put whether it is the head, or the next one's parent; if not, it says
//!    [`Error::Overtaken`], and a collection deletes nothing.
//!
//! No clock is asked. Uploads that ended in nothing, stalled puts that land late and catalogs of
//! the past are removed by the next collection. What a long push has not committed when a
//! collection overtakes it, it uploads again; [`Grace::One`] spares those that overlap only one.
//!
//! `model` runs all of it under seeded schedules with stalls, crashes and failing calls, and shows
//! for each rule what is lost without it.
//!
//! # Source
//!
//! The hazard is issue 1622 of slatedb/slatedb: a collector deletes an object, a stalled writer
//! puts it again and takes it for committed. The boundary is that of its RFC 0026. Departures: it
//! is committed in one order with the manifests instead of in an object of its own that each
//! writer looks at again; objects are named by content, and a generation in the name makes a delete
//! that arrives late harmless.
//!
//! # Costs
//!
//! A commit rewrites the catalog, some 250 bytes for each fork, and forks of one store take turns.
//! A push reads the index, 40 bytes for each piece that was live at the last collection.
//!
//! ```
//! use std::path::Path;
//!
//! use forebay_engine::blocking::BlockingDb;
//! use forebay_engine::env::BlockingEnv;
//! use forebay_engine::env::mem::MemEnv;
//! use forebay_engine::{Options, WriteOptions};
//! use forebay_store::{Expect, ForkStore, Objects, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let here = MemEnv::default();
//! let db = BlockingDb::open(here.clone(), Path::new("/db"), Options::default())?;
//! let tenants = db.create_tenants(&["alice"])?;
//! tenants[0].put(b"k", b"v", WriteOptions::synced())?;
//! drop(tenants);
//! db.close()?;
//!
//! let store = ForkStore::new(Objects::memory(), StoreOptions::default().writer(1));
//! here.block_on(store.push(&here, Path::new("/db"), "monday", Expect::Absent))?;
//!
//! let there = MemEnv::default();
//! there.block_on(store.pull(&there, "monday", Path::new("/copy")))?;
//! let copy = BlockingDb::open(there, Path::new("/copy"), Options::default())?;
//! assert_eq!(copy.tenant("alice").ok_or("gone")?.get(b"k")?.as_deref(), Some(&b"v"[..]));
//! # copy.close()?;
//! # Ok(())
//! # }
//! ```

mod catalog;
mod collect;
pub mod error;
mod format;
mod names;
mod objects;
mod pull;
mod push;

#[cfg(test)]
mod model;

use core::sync::atomic::{AtomicU64, Ordering};

pub use collect::{Collected, Grace};
pub use error::{Error, Result};
pub use objects::{Objects, Store};
pub use pull::Pulled;
pub use push::{Expect, Pushed};

use crate::catalog::Committed;
use crate::names::check_fork;

/// How a store is written.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of a piece of a file, which is one object; held in memory while it travels. At most 8
    /// MiB, which is the default.
    piece_bytes: u64,
    /// Catalogs that are kept behind the head for those who still read them. At least 2; 64.
    keep_count: u64,
    /// Attempts to commit against other writers before [`Error::Contended`]. At least 1; 256.
    attempts_max: u32,
    /// Tells this writer from others.
    writer: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let piece_bytes = format::PIECE_BYTES_MAX;
        Self { piece_bytes, keep_count: 64, attempts_max: 256, writer: 0 }
    }
}

impl StoreOptions {
    /// Sets the bytes of a piece: 1 to 8 MiB, default 8 MiB. Only pieces of equal size are shared.
    #[must_use]
    pub fn piece_bytes(mut self, bytes: u64) -> Self {
        self.piece_bytes = bytes;
        self
    }

    /// Sets how many catalogs stay for those who read them, 2 or more, default 64. With more, a
    /// writer may stall longer and still learn whether it committed.
    #[must_use]
    pub fn keep_count(mut self, count: u64) -> Self {
        self.keep_count = count;
        self
    }

    /// Sets how often a call tries against faster writers, default 256.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// Sets a number that no other running writer has, such as a random one. Two of one number that
    /// push one content under one name at once may both be told that theirs is the fork.
    #[must_use]
    pub fn writer(mut self, writer: u64) -> Self {
        self.writer = writer;
        self
    }
}

/// A fork in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEntry {
    /// Its name.
    pub name: String,
    /// Its version: the number of the catalog that introduced it, so never given twice.
    pub version: u64,
}

/// Forks in an object store.
#[derive(Debug)]
pub struct ForkStore<S> {
    store: S,
    options: StoreOptions,
    calls: AtomicU64,
    #[cfg(test)]
    flaw: Option<Flaw>,
}

/// A rule of the protocol left out, to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A push that lost its number commits onto the new head without asking again (rule 4).
    NoRecheck,
    /// Names have no generation (rule 2).
    NoGeneration,
    /// A collection deletes before it commits (rule 5).
    DeleteFirst,
    /// Nobody looks whether a put was of the past (rule 8).
    NoConfirm,
    /// The head is not looked for again after it was read.
    OneLook,
    /// A collection deletes what is not in its index, whatever its generation.
    NoBoundary,
}

impl<S: Store> ForkStore<S> {
    /// Uses a store; an empty one needs no preparation.
    pub fn new(store: S, options: StoreOptions) -> Self {
        Self {
            store,
            options,
            calls: AtomicU64::new(0),
            #[cfg(test)]
            flaw: None,
        }
    }

    /// All forks, by name.
    ///
    /// # Errors
    ///
    /// The store's; [`Error::Damaged`].
    pub async fn list_forks(&self) -> Result<Vec<ForkEntry>> {
        let forks = self.head().await?.catalog.forks.into_iter();
        Ok(forks.map(|(name, fork)| ForkEntry { name, version: fork.version }).collect())
    }

    /// Deletes a fork, at `version` only where one is given. Its objects go with a later
    /// collection, unless another fork names them.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchFork`], [`Error::Conflict`]: nothing was changed. [`Error::Store`]: it may
    /// have been deleted. [`Error::Overtaken`]: it may have been deleted and pushed again.
    pub async fn delete_fork(&self, fork: &str, version: Option<u64>) -> Result<()> {
        check_fork(fork)?;
        let by = self.signature();
        for _ in 0..self.options.attempts_max {
            let head = self.head().await?;
            let mut next = head.catalog.clone();
            let Some(entry) = next.forks.remove(fork) else {
                return Err(Error::NoSuchFork(fork.to_owned()));
            };
            if let Some(expected) = version.filter(|version| *version != entry.version) {
                let found = Some(entry.version);
                return Err(Error::Conflict { fork: fork.to_owned(), expected, found });
            }
            next.by.clone_from(&by);
            match self.commit(&head, next).await? {
                Committed::Done => return Ok(()),
                Committed::Lost => {}
                Committed::Overtaken => return Err(Error::Overtaken(format!("deleting {fork}"))),
            }
        }
        Err(self.contended("deleting a fork"))
    }

    /// Who writes this, told apart from all other calls.
    fn signature(&self) -> String {
        format!("{:016x}-{}", self.options.writer, self.calls.fetch_add(1, Ordering::Relaxed))
    }

    #[cfg(test)]
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests' twin looks")]
    const fn has(&self, _: Flaw) -> bool {
        false
    }
}
