//! A world around another one, in which chosen calls fail and space can run out.
//!
//! Calls that change something are counted, so that a test can fail the n-th one of a run, and
//! named, so that it can fail the sync of a segment. A call fails without effect, after half of
//! it, or after all of it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass, Nanos, Site, Work};
use forebay_engine::error::{Error, Result};

/// What a call that fails has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// A prefix of a write; nothing of any other call.
    Half,
    Everything,
    /// The call never ends; for futures that are dropped in the middle.
    Stuck,
}

/// Which calls fail.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// `append`, `sync_data`, `rename`, ...; empty for every call that changes something.
    pub(crate) op: &'static str,
    /// What the path ends in, or has in it.
    pub(crate) path: &'static str,
    /// Calls that pass before the first failure.
    pub(crate) pass: u64,
    /// Calls that fail then, one after another.
    pub(crate) fail: u64,
    pub(crate) effect: Effect,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    fired: u64,
    calls: u64,
    used_bytes: u64,
    capacity_bytes: Option<u64>,
    free_asked: u64,
    no_links: Option<ErrorKind>,
}

/// The world.
#[derive(Clone, Debug)]
pub(crate) struct FaultEnv<E> {
    inner: E,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct FaultFile<E: Env> {
    inner: E::File,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

fn eio(op: &'static str, path: &Path, kind: ErrorKind) -> Error {
    Error::Io { op, path: path.to_owned(), offset: None, kind, detail: "by the test".to_owned() }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

impl State {
    fn meet(&mut self, op: &'static str, path: &Path) -> Option<Effect> {
        self.calls += 1;
        let text = path.to_str().unwrap();
        let mut met = None;
        for rule in &mut self.rules {
            if (rule.op.is_empty() || rule.op == op) && text.contains(rule.path) {
                if rule.pass > 0 {
                    rule.pass -= 1;
                } else if rule.fail > 0 && met.is_none() {
                    rule.fail -= 1;
                    met = Some(rule.effect);
                }
            }
        }
        self.fired += u64::from(met.is_some());
        met
    }

    /// Takes space for an append; the bytes of it that fit.
    fn take(&mut self, len: usize) -> usize {
        let free = self.capacity_bytes.map(|all| all.saturating_sub(self.used_bytes));
        let fits = free.map_or(len, |free| len.min(usize::try_from(free).unwrap()));
        self.used_bytes += u64::try_from(fits).unwrap();
        fits
    }
}

impl<E: Env> FaultEnv<E> {
    pub(crate) fn new(inner: E) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// The same calls, rules and space around another world.
    pub(crate) fn around(&self, inner: E) -> Self {
        Self { inner, state: Arc::clone(&self.state) }
    }

    pub(crate) fn fail(&self, op: &'static str, path: &'static str, effect: Effect) {
        self.rule(Rule { op, path, pass: 0, fail: 1, effect });
    }

    pub(crate) fn fail_always(&self, op: &'static str, path: &'static str) {
        self.rule(Rule { op, path, pass: 0, fail: u64::MAX, effect: Effect::Nothing });
    }

    pub(crate) fn rule(&self, rule: Rule) {
        locked(&self.state).rules.push(rule);
    }

    pub(crate) fn heal(&self) {
        locked(&self.state).rules.clear();
    }

    /// Files get no second names.
    pub(crate) fn refuse_links(&self, kind: ErrorKind) {
        locked(&self.state).no_links = Some(kind);
    }

    /// Calls that change or read something, so far.
    pub(crate) fn calls(&self) -> u64 {
        locked(&self.state).calls
    }

    /// Calls that failed.
    pub(crate) fn fired(&self) -> u64 {
        locked(&self.state).fired
    }

    pub(crate) fn free_asked(&self) -> u64 {
        locked(&self.state).free_asked
    }

    /// Bytes that may still be appended; `None` for any number.
    pub(crate) fn set_free(&self, free: Option<u64>) {
        let mut state = locked(&self.state);
        state.capacity_bytes = free.map(|free| state.used_bytes + free);
    }

    async fn call<T>(
        &self,
        op: &'static str,
        path: &Path,
        done: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let met = locked(&self.state).meet(op, path);
        match met {
            None => done.await,
            Some(Effect::Everything) => {
                done.await?;
                Err(eio(op, path, ErrorKind::Other))
            }
            Some(Effect::Nothing | Effect::Half) => Err(eio(op, path, ErrorKind::Other)),
            Some(Effect::Stuck) => std::future::pending().await,
        }
    }

    fn file(&self, inner: E::File, path: &Path) -> FaultFile<E> {
        FaultFile { inner, path: path.to_owned(), state: Arc::clone(&self.state) }
    }

    /// Files of a directory with this extension, in the order of their names.
    pub(crate) async fn files(&self, dir: &Path, extension: &str) -> Vec<PathBuf> {
        let names = self.inner.list(dir).await.unwrap();
        let paths = names.iter().map(|name| dir.join(name));
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
    }

    /// A copy of a directory's files in another world, as a process that dies now leaves them.
    pub(crate) async fn copy_to<T: Env>(&self, dir: &Path, to: &T) {
        to.create_dir(dir).await.unwrap();
        for name in self.inner.list(dir).await.unwrap() {
            let path = dir.join(&name);
            let Ok(file) = self.inner.open(&path).await else { continue };
            let len = usize::try_from(file.len()).unwrap();
            let bytes = file.read_at(0, len, IoClass::Read).await.unwrap();
            to.create(&path).await.unwrap().append(&bytes, IoClass::Wal).await.unwrap();
        }
    }
}

impl<E: Env> FaultFile<E> {
    async fn call<T>(&self, op: &'static str, done: impl Future<Output = Result<T>>) -> Result<T> {
        let met = locked(&self.state).meet(op, &self.path);
        match met {
            None => done.await,
            Some(Effect::Everything) => {
                done.await?;
                Err(eio(op, &self.path, ErrorKind::Other))
            }
            Some(Effect::Nothing | Effect::Half) => Err(eio(op, &self.path, ErrorKind::Other)),
            Some(Effect::Stuck) => std::future::pending().await,
        }
    }
}

impl<E: Env> File for FaultFile<E> {
    async fn append(&self, data: &[u8], class: IoClass) -> Result<()> {
        let fits = locked(&self.state).take(data.len());
        if fits < data.len() {
            self.inner.append(&data[..fits], class).await?;
            return Err(eio("append", &self.path, ErrorKind::StorageFull));
        }
        let met = locked(&self.state).meet("append", &self.path);
        let kept = match met {
            None => return self.inner.append(data, class).await,
            Some(Effect::Stuck) => return std::future::pending().await,
            Some(Effect::Nothing) => 0,
            Some(Effect::Half) => data.len() >> 1,
            Some(Effect::Everything) => data.len(),
        };
        self.inner.append(&data[..kept], class).await?;
        Err(eio("append", &self.path, ErrorKind::Other))
    }

    async fn read_at(&self, offset: u64, len: usize, class: IoClass) -> Result<Bytes> {
        self.call("read_at", self.inner.read_at(offset, len, class)).await
    }

    async fn write_at(&self, offset: u64, data: &[u8], class: IoClass) -> Result<()> {
        self.call("write_at", self.inner.write_at(offset, data, class)).await
    }

    async fn sync_data(&self, class: IoClass) -> Result<()> {
        self.call("sync_data", self.inner.sync_data(class)).await
    }

    async fn sync_all(&self, class: IoClass) -> Result<()> {
        self.call("sync_all", self.inner.sync_all(class)).await
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        let free = {
            let state = locked(&self.state);
            state.capacity_bytes.map_or(u64::MAX, |all| all.saturating_sub(state.used_bytes))
        };
        if free < len {
            return Err(eio("allocate", &self.path, ErrorKind::StorageFull));
        }
        self.call("allocate", self.inner.allocate(len)).await
    }

    async fn set_len(&self, len: u64) -> Result<()> {
        self.call("set_len", self.inner.set_len(len)).await
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

impl<E: Env> Env for FaultEnv<E> {
    type File = FaultFile<E>;
    type Task = E::Task;
    type Lock = E::Lock;

    async fn open(&self, path: &Path) -> Result<Self::File> {
        Ok(self.file(self.call("open", path, self.inner.open(path)).await?, path))
    }

    async fn create(&self, path: &Path) -> Result<Self::File> {
        Ok(self.file(self.call("create", path, self.inner.create(path)).await?, path))
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        self.call("create_dir", dir, self.inner.create_dir(dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.call("rename", to, self.inner.rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let len = match self.inner.open(path).await {
            Ok(file) => file.len(),
            Err(_) => 0,
        };
        self.call("remove", path, self.inner.remove(path)).await?;
        let mut state = locked(&self.state);
        state.used_bytes = state.used_bytes.saturating_sub(len);
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        if let Some(kind) = locked(&self.state).no_links {
            return Err(eio("link", to, kind));
        }
        self.call("link", to, self.inner.link(from, to)).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        self.inner.list(dir).await
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.call("sync_dir", dir, self.inner.sync_dir(dir)).await
    }

    async fn lock(&self, path: &Path) -> Result<Self::Lock> {
        self.inner.lock(path).await
    }

    async fn free_bytes(&self, dir: &Path) -> Result<u64> {
        locked(&self.state).free_asked += 1;
        let free = self.call("free_bytes", dir, self.inner.free_bytes(dir)).await?;
        let state = locked(&self.state);
        let ours = state.capacity_bytes.map(|all| all.saturating_sub(state.used_bytes));
        Ok(ours.map_or(free, |ours| ours.min(free)))
    }

    fn now(&self) -> Nanos {
        self.inner.now()
    }

    fn wall(&self) -> Nanos {
        self.inner.wall()
    }

    async fn sleep_until(&self, at: Nanos) {
        self.inner.sleep_until(at).await;
    }

    fn charge(&self, work: Work) {
        self.inner.charge(work);
    }

    async fn yield_point(&self, site: Site) {
        self.inner.yield_point(site).await;
    }

    fn random_u64(&self, site: Site) -> u64 {
        self.inner.random_u64(site)
    }

    fn spawn<F, Fut>(&self, name: &'static str, build: F) -> E::Task
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.inner.spawn(name, build)
    }
}

impl<E: BlockingEnv> BlockingEnv for FaultEnv<E> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.block_on(future)
    }
}
