//! The simulation's door to the engine: an [`Env`] that is a number.
//!
//! Each call pays the task's CPU debt, may crash, yield or fail by choice, changes the disk, and
//! waits for the modelled device. Reads and writes take effect when they start, so that nothing is
//! visible later than a caller could know; a sync takes effect when it ends, and covers what was
//! pending when it started.
//!
//! A call of a process that was killed fails and changes nothing.

mod file;
mod inject;

use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Poll};
use std::path::Path;
use std::rc::Rc;

use forebay_engine::env::{Env, IoClass, Nanos, Site, Work};
use forebay_engine::error::{Error, Result};

use crate::bugs::Bug;
use crate::diary::What;
use crate::disk::device::Kind;
use crate::disk::{DiskError, SyncResult};
use crate::fault::atlas::FileKind;
use crate::fault::{Fault, FaultPlan};
use crate::ledger::Ledger;
use crate::runtime::Reschedule;
use crate::trace::{Code, mix};
use crate::world::{World, WorldId};

pub use self::file::SimFile;
use self::inject::{Failure, NameCall, failed, killed};

/// The wall clock when a world begins is a second later: 2026-01-01.
const WALL_START_NS: u64 = 1_767_225_600_000_000_000;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Of so many places where the engine lets others run, one holds the task back.
const HOLD_YIELD_ONE_IN: u64 = 4;

/// A process in a simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimEnv {
    pub(crate) world: WorldId,
    pub(crate) epoch: u64,
}

/// A directory lock; gone when dropped, or when its process dies.
#[derive(Debug)]
pub struct SimLock {
    env: SimEnv,
    path: String,
}

/// Waits for a task to end.
#[derive(Debug)]
pub struct SimTask {
    env: SimEnv,
    /// `None` where the task ended before it began: its process was dead.
    task: Option<u64>,
}

fn text(path: &Path) -> &str {
    let text = path.to_str().unwrap_or_default();
    if text.len() > 1 { text.trim_end_matches('/') } else { text }
}

impl SimEnv {
    fn alive(self) -> Option<Rc<World>> {
        World::find(self.world).filter(|world| world.epoch.get() == self.epoch)
    }

    /// Starts a call; a dead process gets an error.
    async fn call(self, op: &'static str, path: &str) -> Result<Rc<World>> {
        let world = self.alive().ok_or_else(|| killed(op, path))?;
        world.enter().await;
        let stalls = world.faults.borrow().plan().stalls();
        if stalls {
            world.stall(op, path).await;
        }
        world.calls.call(op);
        Ok(world)
    }

    /// Starts a call on a name, which may fail with or without effect: the failure is given where it
    /// takes effect and fails all the same.
    async fn call_name(self, op: NameCall, path: &str) -> Result<(Rc<World>, Option<Failure>)> {
        let name = op.name();
        let world = self.call(name, path).await?;
        world.trace.event(Code::Name, hash_text(name, path));
        if op.changes() && world.faults.borrow().is_read_only() {
            return Err(failed(name, path, None, Failure::ReadOnly));
        }
        let failure = if world.fires(Fault::EioMeta, path, None) {
            Failure::Io
        } else if op.makes_name() && world.fires(Fault::EnospcMeta, path, None) {
            Failure::Full
        } else {
            return Ok((world, None));
        };
        world.ledger.borrow_mut().name_call(name);
        if op.changes() {
            world.remount_after_error(path);
        }
        if world.fires(Fault::ErrorAfterEffect, path, None) {
            return Ok((world, Some(failure)));
        }
        Err(failed(name, path, None, failure))
    }

    /// Adds to the world's diary, where one is kept.
    pub(crate) fn write_down(self, what: impl FnOnce() -> What) {
        if let Some(world) = self.alive() {
            world.write_down(what);
        }
    }

    /// Ends the process at this point, as a kill or a power loss would.
    pub fn request_crash(self) {
        if let Some(world) = self.alive() {
            world.runtime.request_crash();
        }
    }

    /// Tells the livelock detector that an operation ended, and marks the trace with `mark`.
    pub fn note_progress(self, mark: u64) {
        if let Some(world) = self.alive() {
            world.trace.event(Code::Mark, mark);
            world.runtime.note_progress();
        }
    }

    /// Whether damage of the file that an error names excuses the failure of a request to this tree. A
    /// manifest that lost its last edits names tables that were removed.
    pub fn excuses(self, error: &Error, tree: Option<u64>) -> bool {
        let (Some(world), Some(path)) = (self.alive(), error.location().0) else { return false };
        let path = text(path);
        let is_gone =
            FileKind::of(path) == FileKind::Table && world.disk.borrow().ino(path).is_none();
        let mut faults = world.faults.borrow_mut();
        faults.excuses(path, tree) || (is_gone && faults.atlas().is_manifest_hit())
    }

    /// Tells the atlas that a tree began with all tables of another.
    pub fn share_tables(self, child: u64, parent: u64) {
        if let Some(world) = self.alive() {
            world.faults.borrow_mut().share_tables(child, parent);
        }
    }

    /// Whether faults damaged anything.
    pub fn is_damaged(self) -> bool {
        self.alive().is_some_and(|world| !world.faults.borrow().atlas().is_empty())
    }

    /// What the world has kept of its own doings; nothing where the process is dead.
    pub fn ledger<T>(self, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        self.alive().map(|world| look(&world.ledger.borrow()))
    }

    /// The harness gives up waiting: keeps what the running task, which is its own, was waiting for.
    pub fn give_up(self) {
        let Some(world) = self.alive() else { return };
        let task = world.runtime.current_task();
        let call = world.in_calls.borrow().get(&task).cloned();
        let line = call.map(|(op, path)| format!("main waits for the device: {op} {path}"));
        *world.given_up.borrow_mut() = line.into_iter().collect();
    }

    /// Whether faults may happen now.
    pub fn is_faulty(self) -> bool {
        let plan = |world: Rc<World>| *world.faults.borrow().plan() != FaultPlan::default();
        self.alive().is_some_and(plan)
    }

    /// Open file handles of the whole disk.
    pub fn open_handles(self) -> u64 {
        self.alive().map_or(0, |world| world.disk.borrow().open_handles())
    }

    /// Whether somebody holds the lock of this name.
    pub fn is_locked(self) -> bool {
        self.alive().is_some_and(|world| !world.locks.borrow().is_empty())
    }

    /// A choice of the harness, from the stream named `site`.
    pub fn choose(self, site: &'static str, n: u64) -> u64 {
        self.alive().map_or(0, |world| world.choices.choose(site, n))
    }

    fn handle(self, ino: u64, path: &str) -> SimFile {
        SimFile::new(self, ino, path)
    }
}

fn hash_text(op: &str, path: &str) -> u64 {
    mix(xxhash_rust::xxh3::xxh3_64(op.as_bytes()), xxhash_rust::xxh3::xxh3_64(path.as_bytes()))
}

impl Env for SimEnv {
    type File = SimFile;
    type Task = SimTask;
    type Lock = SimLock;

    async fn open(&self, path: &Path) -> Result<SimFile> {
        let path = text(path);
        let (world, fails) = self.call_name(NameCall::Open, path).await?;
        world.emfile("open", path)?;
        let opened = world.disk.borrow_mut().open(path);
        let info = opened.map_err(|why| world.refused("open", path, None, why))?;
        let file = self.handle(info.ino, path);
        world.leave("open", path, fails).await?;
        Ok(file)
    }

    async fn create(&self, path: &Path) -> Result<SimFile> {
        let path = text(path);
        let (world, fails) = self.call_name(NameCall::Create, path).await?;
        world.emfile("create", path)?;
        let created = world.disk.borrow_mut().create(path);
        let info = created.map_err(|why| world.refused("create", path, None, why))?;
        world.faults.borrow_mut().created(path);
        let file = self.handle(info.ino, path);
        world.leave("create", path, fails).await?;
        Ok(file)
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        let path = text(dir);
        let (world, fails) = self.call_name(NameCall::CreateDir, path).await?;
        world.disk.borrow_mut().create_dir(path);
        world.leave("create_dir", path, fails).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let path = text(from);
        let (world, fails) = self.call_name(NameCall::Rename, path).await?;
        let done = world.disk.borrow_mut().rename(path, text(to));
        done.map_err(|why| world.refused("rename", path, None, why))?;
        world.faults.borrow_mut().renamed(path, text(to));
        world.leave("rename", path, fails).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let path = text(path);
        let (world, fails) = self.call_name(NameCall::Remove, path).await?;
        let data = matches!(FileKind::of(path), FileKind::Table | FileKind::Wal);
        if data && world.bug.get() == Some(Bug::LeakedFile) {
            return world.leave("remove", path, fails).await;
        }
        let done = world.disk.borrow_mut().remove(path);
        done.map_err(|why| world.refused("remove", path, None, why))?;
        world.write_down(|| What::Removed { path: path.to_owned() });
        world.leave("remove", path, fails).await
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let path = text(from);
        let (world, fails) = self.call_name(NameCall::Link, path).await?;
        let done = world.disk.borrow_mut().link(path, text(to));
        done.map_err(|why| world.refused("link", text(to), None, why))?;
        world.leave("link", path, fails).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let path = text(dir);
        let (world, fails) = self.call_name(NameCall::List, path).await?;
        let names = world.disk.borrow().list(path);
        let names = names.map_err(|why| world.refused("list", path, None, why))?;
        world.leave("list", path, fails).await?;
        Ok(names)
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        let path = text(dir);
        let (world, after_effect) = match self.call_name(NameCall::SyncDir, path).await {
            Ok(called) => called,
            Err(error) => {
                // A failed sync of a directory leaves a part durable.
                if let Some(world) = self.alive() {
                    let part = SyncResult::Failed;
                    let start = world.disk.borrow().sync_dir_start(path).unwrap_or(0);
                    let mut disk = world.disk.borrow_mut();
                    let ended = disk.sync_dir_end(path, start, part, &world.choices);
                    ended.map_err(|why| world.refused("sync_dir", path, None, why))?;
                }
                return Err(error);
            }
        };
        let held = world.calls.hold();
        let started = world.disk.borrow().sync_dir_start(path);
        let start = started.map_err(|why| world.refused("sync_dir", path, None, why))?;
        world.device(IoClass::Manifest, Kind::Sync, 0).await;
        if world.fuzz {
            world.crash_point().await;
        }
        world.calls.resume(held);
        let lies = world.bug.get() == Some(Bug::DirSkipSync)
            || world.damages(Fault::SyncLies, path, (0, u64::MAX));
        world.calls.pass();
        let result = if lies { SyncResult::Lied } else { SyncResult::Done };
        let ended = world.disk.borrow_mut().sync_dir_end(path, start, result, &world.choices);
        ended.map_err(|why| world.refused("sync_dir", path, None, why))?;
        world.leave("sync_dir", path, after_effect).await
    }

    async fn lock(&self, path: &Path) -> Result<SimLock> {
        let name = text(path);
        let world = self.call("lock", name).await?;
        if world.locks.borrow().contains(name) {
            return Err(Error::Locked(path.to_owned()));
        }
        let mut disk = world.disk.borrow_mut();
        let opened = disk.open(name).or_else(|_missing| disk.create(name));
        drop(disk);
        let info = opened.map_err(|why| world.refused("lock", name, None, why))?;
        world.disk.borrow_mut().close(info.ino);
        world.locks.borrow_mut().insert(name.to_owned());
        Ok(SimLock { env: *self, path: name.to_owned() })
    }

    async fn free_bytes(&self, dir: &Path) -> Result<u64> {
        let path = text(dir);
        let world = self.call("free_bytes", path).await?;
        let disk = world.disk.borrow();
        let known = disk.names.id(path).ok_or(DiskError::NotFound);
        known.map_err(|why| world.refused("free_bytes", path, None, why))?;
        world.ledger.borrow_mut().asked_space();
        let free = disk.free_bytes();
        if world.bug.get() == Some(Bug::StaleFree) {
            world.least_free.set(world.least_free.get().min(free));
            return Ok(world.least_free.get());
        }
        Ok(free)
    }

    fn now(&self) -> Nanos {
        World::find(self.world).map_or(0, |world| world.now())
    }

    fn wall(&self) -> Nanos {
        let Some(world) = World::find(self.world) else { return 0 };
        if world.fires(Fault::ClockJump, "", None) {
            world.move_wall("fault.clock-jump-ns");
        }
        if !world.faults.borrow().plan().bends_clocks() {
            world.wall_frozen.set(None);
        }
        if let Some(frozen) = world.wall_frozen.get() {
            return frozen;
        }
        let wall = world.wall();
        if world.fires(Fault::ClockFrozen, "", None) {
            world.wall_frozen.set(Some(wall));
        }
        wall
    }

    async fn sleep_until(&self, at: Nanos) {
        let Some(world) = self.alive() else { return pending().await };
        if world.owes() {
            world.pay().await;
        }
        world.sleep_until(at).await;
    }

    fn charge(&self, work: Work) {
        if let Some(world) = World::find(self.world) {
            world.charge(work);
        }
    }

    async fn yield_point(&self, site: Site) {
        let Some(world) = self.alive() else { return pending().await };
        if world.owes() {
            world.pay().await;
        }
        if world.fuzz {
            world.crash_point_between().await;
            if world.choices.choose(site.0, 2) == 1 {
                Reschedule::default().await;
            }
            world.hold("yield.hold", HOLD_YIELD_ONE_IN).await;
        }
    }

    fn random_u64(&self, site: Site) -> u64 {
        World::find(self.world).map_or(0, |world| world.choices.choose(site.0, u64::MAX))
    }

    fn set_io_shares(&self, flush: u32, compaction: u32) {
        if let Some(world) = self.alive() {
            world.device.borrow_mut().set_shares(flush, compaction);
        }
    }

    fn spawn<F, Fut>(&self, name: &'static str, build: F) -> SimTask
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let task = self.alive().map(|world| world.spawn(name, async move { build().await }));
        SimTask { env: *self, task }
    }
}

impl World {
    /// The wall clock jumps: an hour back to a day ahead.
    pub(crate) fn move_wall(&self, site: &'static str) {
        let jump = i64::try_from(self.choices.range(site, 1, 25 * HOUR_NS)).unwrap_or(0);
        let back = i64::try_from(HOUR_NS).unwrap_or(0);
        self.wall_offset.set(self.wall_offset.get().saturating_add(jump - back));
    }

    fn wall(&self) -> Nanos {
        WALL_START_NS.saturating_add(self.now()).saturating_add_signed(self.wall_offset.get())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Some(world) = World::find_quiet(self.env.world, self.env.epoch)
            && let Ok(mut locks) = world.locks.try_borrow_mut()
        {
            locks.remove(&self.path);
        }
    }
}

impl Future for SimTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(task) = self.task else { return Poll::Ready(()) };
        let Some(world) = World::find(self.env.world) else { return Poll::Ready(()) };
        let poll = world.poll_join(task, cx.waker());
        if poll.is_ready() {
            self.task = None;
        }
        poll
    }
}

impl Drop for SimTask {
    fn drop(&mut self) {
        if let Some(task) = self.task
            && let Some(world) = World::find_quiet(self.env.world, self.env.epoch)
        {
            world.forget_join(task);
        }
    }
}
