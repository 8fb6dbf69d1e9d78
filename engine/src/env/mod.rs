//! The one door to the world: files, directories, clock, chance, CPU and tasks.
//!
//! Nothing in the engine reads a clock, a file, randomness or a thread other than through [`Env`],
//! so the same engine source runs on a real filesystem and in a simulation that a seed decides.
//!
//! # Durability contract
//!
//! * Written bytes are visible to reads at once and durable only after a sync of that file that
//!   *started* after the write ended.
//! * A file's name is durable only after [`Env::sync_dir`] on its directory; so is a rename, a link
//!   and a removal.
//! * [`Env::rename`] replaces the target in one step: after a crash the target is the old or the
//!   new file, never missing and never mixed.
//! * After a sync failed, nothing is known of what it covered; calling it again proves nothing
//!   (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//!
//! Futures need not be `Send`: [`Env::spawn`] takes a closure that builds the task's future where
//! the task runs. No future of an `Env` is cancel-safe.

pub mod conformance;
pub mod mem;
pub mod os;
pub mod thread;

use core::future::Future;
use core::pin::pin;
use core::task::Poll;
use std::path::Path;

use bytes::Bytes;

use crate::error::Result;
pub use crate::types::Nanos;

/// Who an I/O is for. A modelled device shares its bandwidth by class; a real one is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoClass {
    /// Appends and syncs of the write-ahead log.
    Wal,
    /// Appends and syncs of the manifest and CURRENT.
    Manifest,
    /// Writing the table of a flush.
    Flush,
    /// Reading and writing tables in a compaction.
    Compaction,
    /// A user's read.
    Read,
}

/// A named place at which a world may choose: a yield, a draw. The name is the stream's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub &'static str);

/// CPU work, for worlds that charge for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One entry through admission, queue, log encoding and memtable insert.
    WriteEntry,
    /// One point lookup in memory: memtables, filters, cached blocks.
    PointRead,
    /// One entry handed out by an iterator.
    ScanEntry,
    /// One entry merged by a flush or a compaction, encoding included.
    MergeEntry,
    /// A block checked and decoded, by its size in bytes.
    DecodeBlock(u64),
    /// A block compressed, by its size in bytes before.
    CompressBlock(u64),
    /// One decision of a policy over this many trees.
    Decide(u64),
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Writes `data` behind the last byte. One caller at a time.
    ///
    /// # Errors
    ///
    /// Any prefix of `data` may have been written, [`len`](Self::len) covers what was.
    fn append(&self, data: &[u8], class: IoClass) -> impl Future<Output = Result<()>>;

    /// Reads exactly `len` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the file ends before; nothing was changed.
    fn read_at(
        &self,
        offset: u64,
        len: usize,
        class: IoClass,
    ) -> impl Future<Output = Result<Bytes>>;

    /// Writes `data` at `offset`, extending the file where needed.
    ///
    /// # Errors
    ///
    /// Any part of `data` may have been written.
    fn write_at(
        &self,
        offset: u64,
        data: &[u8],
        class: IoClass,
    ) -> impl Future<Output = Result<()>>;

    /// Makes every byte written so far survive a crash, with the length needed to read it.
    ///
    /// # Errors
    ///
    /// Whatever the device reports. The caller must not retry.
    fn sync_data(&self, class: IoClass) -> impl Future<Output = Result<()>>;

    /// As [`sync_data`](Self::sync_data), with all metadata of the file.
    ///
    /// # Errors
    ///
    /// As for `sync_data`.
    fn sync_all(&self, class: IoClass) -> impl Future<Output = Result<()>>;

    /// Reserves space for the first `len` bytes without changing the file's length.
    ///
    /// # Errors
    ///
    /// `StorageFull` where the space is not there; part of it may be reserved.
    fn allocate(&self, len: u64) -> impl Future<Output = Result<()>>;

    /// Cuts or extends the file to `len` bytes; new bytes read as zeros.
    ///
    /// # Errors
    ///
    /// The length is the old one, the new one or one between.
    fn set_len(&self, len: u64) -> impl Future<Output = Result<()>>;

    /// The file's length in bytes as this handle sees it; a plain function since no world waits for
    /// it.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A world.
pub trait Env: Clone + Send + Sync + 'static {
    /// Its open files.
    type File: File;
    /// A join handle: ready when the task has ended.
    type Task: Future<Output = ()> + Send + 'static;
    /// Holds a directory against other processes until it is dropped.
    type Lock: Send + Sync + 'static;

    /// Opens an existing file for reading and writing; where the world permits reading alone, for
    /// that, and writes to it fail.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is none.
    fn open(&self, path: &Path) -> impl Future<Output = Result<Self::File>>;

    /// Creates a file, empty; an existing file of that name is emptied.
    ///
    /// # Errors
    ///
    /// The name may exist, with an empty file, although an error was returned.
    fn create(&self, path: &Path) -> impl Future<Output = Result<Self::File>>;

    /// Creates a directory and its missing parents; one that exists is fine.
    ///
    /// # Errors
    ///
    /// Some parents may have been created.
    fn create_dir(&self, dir: &Path) -> impl Future<Output = Result<()>>;

    /// Gives `from` the name `to` in one step, replacing a file that has it.
    ///
    /// # Errors
    ///
    /// It was done or not done.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    /// Removes a file's name; open handles keep working.
    ///
    /// # Errors
    ///
    /// It was done or not done; `NotFound` where there was none.
    fn remove(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Gives a file a second name.
    ///
    /// # Errors
    ///
    /// It was done or not done; `AlreadyExists` where the name is taken.
    fn link(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    /// The names in a directory, sorted, so that no order of the filesystem decides anything.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no such directory.
    fn list(&self, dir: &Path) -> impl Future<Output = Result<Vec<String>>>;

    /// Makes the names in a directory survive a crash.
    ///
    /// # Errors
    ///
    /// Some of the changes may be durable.
    fn sync_dir(&self, dir: &Path) -> impl Future<Output = Result<()>>;

    /// Takes the lock file at `path` for this process, creating it where needed. A lock dies with
    /// its process; the file stays.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`](crate::Error::Locked) where another process, or another open database of
    /// this one, holds it.
    fn lock(&self, path: &Path) -> impl Future<Output = Result<Self::Lock>>;

    /// Bytes that can still be written below a directory.
    ///
    /// # Errors
    ///
    /// `NotFound` where there is no such directory.
    fn free_bytes(&self, dir: &Path) -> impl Future<Output = Result<u64>>;

    /// The monotonic clock.
    fn now(&self) -> Nanos;

    /// The wall clock; may jump. Never used for ordering or ages.
    fn wall(&self) -> Nanos;

    /// Ends at `at` on the monotonic clock, or at once where that is past.
    fn sleep_until(&self, at: Nanos) -> impl Future<Output = ()>;

    /// Charges CPU work: nothing in the real world, virtual time at the task's next await in a
    /// simulation.
    fn charge(&self, work: Work);

    /// Nothing in the real world; in a simulation another task may run here.
    fn yield_point(&self, site: Site) -> impl Future<Output = ()>;

    /// Chance, from the stream named by `site`.
    fn random_u64(&self, site: Site) -> u64;

    /// Shares of the device's bandwidth for flushes and compactions, where the log and users' reads
    /// have 1000 each. Nothing in a world whose device takes no such wishes.
    fn set_io_shares(&self, _flush: u32, _compaction: u32) {}

    /// Starts a background task. `build` runs where the task runs, so that its future need not be
    /// `Send`.
    fn spawn<F, Fut>(&self, name: &'static str, build: F) -> Self::Task
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static;
}

/// A world whose futures a plain thread can wait for: not the simulation.
pub trait BlockingEnv: Env {
    /// Runs a future to its end on this thread.
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

/// Ends with `wake`, or at a time, whichever is first.
pub(crate) async fn wait_until<E: Env>(env: &E, wake: impl Future<Output = ()>, at: Option<Nanos>) {
    let Some(at) = at else { return wake.await };
    let mut wake = pin!(wake);
    let mut sleep = pin!(env.sleep_until(at));
    core::future::poll_fn(|cx| {
        if wake.as_mut().poll(cx).is_ready() || sleep.as_mut().poll(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
