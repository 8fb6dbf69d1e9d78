//! The smallest faithful world for unit tests: files in memory, real threads and clocks.
//!
//! Clones share one filesystem, so that a database can be closed and opened again on it. Names are
//! not normalised, directories cannot be renamed or removed, and syncs do nothing: what is lost in
//! a crash is the simulated world's business.

use core::future::Future;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::thread::{self, Task};
use super::{BlockingEnv, Env, File, IoClass, Nanos, Site, Work};
use crate::error::{Error, Result};
use crate::types::{to_u64, to_usize};

/// Bytes that an empty filesystem says it can hold.
const CAPACITY_BYTES: u64 = 1 << 40;

type Content = Arc<RwLock<Vec<u8>>>;

#[derive(Debug)]
enum Node {
    Dir,
    File(Content),
}

#[derive(Debug, Default)]
struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    locks: BTreeSet<PathBuf>,
}

/// A filesystem in memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemEnv {
    tree: Arc<Mutex<Tree>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    open_files: AtomicU64,
    open_files_most: AtomicU64,
}

impl MemEnv {
    /// Reads of files so far.
    pub fn read_count(&self) -> u64 {
        self.counts.reads.load(Ordering::Relaxed)
    }

    /// The most files that were open at one time since this was asked last.
    pub fn take_open_files_most(&self) -> u64 {
        let open = self.counts.open_files.load(Ordering::Relaxed);
        self.counts.open_files_most.swap(open, Ordering::Relaxed)
    }

    fn handle(&self, path: &Path, content: Content) -> MemFile {
        let counts = Arc::clone(&self.counts);
        let open = counts.open_files.fetch_add(1, Ordering::Relaxed) + 1;
        counts.open_files_most.fetch_max(open, Ordering::Relaxed);
        MemFile { path: path.to_owned(), content, counts }
    }
}

/// An open file in memory; works on after its name was removed.
#[derive(Debug)]
pub struct MemFile {
    path: PathBuf,
    content: Content,
    counts: Arc<Counts>,
}

impl Drop for MemFile {
    fn drop(&mut self) {
        self.counts.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Holds a name in its [`MemEnv`] against other locks.
#[derive(Debug)]
pub struct MemLock {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.tree.lock().locks.remove(&self.path);
    }
}

fn fail(op: &'static str, path: &Path, kind: io::ErrorKind) -> Error {
    Error::io(op, path, None, &kind.into())
}

impl Tree {
    fn is_dir(&self, dir: &Path) -> bool {
        // A root is there without being made, and so is what a relative name starts from.
        dir.parent().is_none()
            || dir.as_os_str().is_empty()
            || matches!(self.nodes.get(dir), Some(Node::Dir))
    }

    fn file(&self, op: &'static str, path: &Path) -> Result<Content> {
        match self.nodes.get(path) {
            Some(Node::File(content)) => Ok(Arc::clone(content)),
            Some(Node::Dir) => Err(fail(op, path, io::ErrorKind::IsADirectory)),
            None => Err(fail(op, path, io::ErrorKind::NotFound)),
        }
    }

    /// Whether a file may get this name; an existing file may lose it.
    fn check_target(&self, op: &'static str, path: &Path) -> Result<()> {
        if self.is_dir(path) {
            return Err(fail(op, path, io::ErrorKind::IsADirectory));
        }
        if path.parent().is_some_and(|parent| self.is_dir(parent)) {
            return Ok(());
        }
        Err(fail(op, path, io::ErrorKind::NotFound))
    }

    fn put(&mut self, path: &Path, content: Content) {
        self.nodes.insert(path.to_owned(), Node::File(content));
    }
}

impl MemFile {
    fn write(&self, offset: usize, data: &[u8]) {
        let mut content = self.content.write();
        let end = offset.saturating_add(data.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        if let Some(target) = content.get_mut(offset..end) {
            target.copy_from_slice(data);
        }
    }
}

impl File for MemFile {
    async fn append(&self, data: &[u8], _class: IoClass) -> Result<()> {
        self.content.write().extend_from_slice(data);
        Ok(())
    }

    async fn read_at(&self, offset: u64, len: usize, _class: IoClass) -> Result<Bytes> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let content = self.content.read();
        let start = to_usize(offset);
        if let Some(found) = content.get(start..start.saturating_add(len)) {
            return Ok(Bytes::copy_from_slice(found));
        }
        let eof = io::ErrorKind::UnexpectedEof.into();
        Err(Error::io("read_at", &self.path, Some(offset), &eof))
    }

    async fn write_at(&self, offset: u64, data: &[u8], _class: IoClass) -> Result<()> {
        if offset.saturating_add(to_u64(data.len())) > CAPACITY_BYTES {
            let full = io::ErrorKind::StorageFull.into();
            return Err(Error::io("write_at", &self.path, Some(offset), &full));
        }
        self.write(to_usize(offset), data);
        Ok(())
    }

    async fn sync_data(&self, _class: IoClass) -> Result<()> {
        Ok(())
    }

    async fn sync_all(&self, _class: IoClass) -> Result<()> {
        Ok(())
    }

    async fn allocate(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<()> {
        if len > CAPACITY_BYTES {
            return Err(fail("set_len", &self.path, io::ErrorKind::StorageFull));
        }
        self.content.write().resize(to_usize(len), 0);
        Ok(())
    }

    fn len(&self) -> u64 {
        to_u64(self.content.read().len())
    }
}

impl Env for MemEnv {
    type File = MemFile;
    type Task = Task;
    type Lock = MemLock;

    async fn open(&self, path: &Path) -> Result<MemFile> {
        let content = self.tree.lock().file("open", path)?;
        Ok(self.handle(path, content))
    }

    async fn create(&self, path: &Path) -> Result<MemFile> {
        let mut tree = self.tree.lock();
        tree.check_target("create", path)?;
        let content = if let Some(Node::File(content)) = tree.nodes.get(path) {
            content.write().clear();
            Arc::clone(content)
        } else {
            let content = Content::default();
            tree.put(path, Arc::clone(&content));
            content
        };
        Ok(self.handle(path, content))
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        let mut tree = self.tree.lock();
        for part in dir.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            if matches!(tree.nodes.get(part), Some(Node::File(_))) {
                return Err(fail("create_dir", part, io::ErrorKind::AlreadyExists));
            }
        }
        for part in dir.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            tree.nodes.insert(part.to_owned(), Node::Dir);
        }
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut tree = self.tree.lock();
        let content = tree.file("rename", from)?;
        tree.check_target("rename", to)?;
        let same_file =
            matches!(tree.nodes.get(to), Some(Node::File(old)) if Arc::ptr_eq(old, &content));
        // Two names of one file both stay, as POSIX has it.
        if !same_file {
            tree.nodes.remove(from);
            tree.put(to, content);
        }
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let mut tree = self.tree.lock();
        tree.file("remove", path)?;
        tree.nodes.remove(path);
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut tree = self.tree.lock();
        let content = tree.file("link", from)?;
        if tree.nodes.contains_key(to) {
            return Err(fail("link", to, io::ErrorKind::AlreadyExists));
        }
        tree.check_target("link", to)?;
        tree.put(to, content);
        Ok(())
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let tree = self.tree.lock();
        if !tree.is_dir(dir) {
            return Err(fail("list", dir, io::ErrorKind::NotFound));
        }
        let mut names: Vec<String> = tree
            .nodes
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        // Paths sort by component, names by byte.
        names.sort_unstable();
        Ok(names)
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        if self.tree.lock().is_dir(dir) {
            return Ok(());
        }
        Err(fail("sync_dir", dir, io::ErrorKind::NotFound))
    }

    async fn lock(&self, path: &Path) -> Result<MemLock> {
        let mut tree = self.tree.lock();
        tree.check_target("lock", path)?;
        if !tree.locks.insert(path.to_owned()) {
            return Err(Error::Locked(path.to_owned()));
        }
        if !tree.nodes.contains_key(path) {
            tree.put(path, Content::default());
        }
        Ok(MemLock { tree: Arc::clone(&self.tree), path: path.to_owned() })
    }

    async fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let tree = self.tree.lock();
        if !tree.is_dir(dir) {
            return Err(fail("free_bytes", dir, io::ErrorKind::NotFound));
        }
        let used = tree.nodes.values().map(|node| match node {
            Node::Dir => 0,
            Node::File(content) => to_u64(content.read().len()),
        });
        Ok(CAPACITY_BYTES.saturating_sub(used.sum()))
    }

    fn now(&self) -> Nanos {
        thread::now()
    }

    fn wall(&self) -> Nanos {
        thread::wall()
    }

    fn sleep_until(&self, at: Nanos) -> impl Future<Output = ()> {
        thread::sleep_until(at)
    }

    fn charge(&self, _work: Work) {}

    async fn yield_point(&self, _site: Site) {}

    fn random_u64(&self, _site: Site) -> u64 {
        thread::random_u64()
    }

    fn spawn<F, Fut>(&self, name: &'static str, build: F) -> Task
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        thread::spawn(name, build)
    }
}

impl BlockingEnv for MemEnv {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        thread::block_on(future)
    }
}
