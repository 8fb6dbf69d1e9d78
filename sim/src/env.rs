//! The simulation's door to the engine: an [`Env`] that is a number.
//!
//! Each call pays the task's CPU debt, may crash, yield or fail by choice, changes the disk, and
//! waits for the modelled device. Reads and writes take effect when they start, so that nothing is
//! visible later than a caller could know; a sync takes effect when it ends, and covers what was
//! pending when it started.
//!
//! A call of a process that was killed fails and changes nothing.

use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_engine::env::{Env, File, IoClass, Nanos, Site, Work};
use forebay_engine::error::{Error, Result};
use forebay_engine::types::{to_u64, to_usize};

use crate::bugs::Bug;
use crate::disk::device::Kind;
use crate::disk::{DiskError, SyncResult};
use crate::fault::Fault;
use crate::runtime::Reschedule;
use crate::trace::{Code, mix};
use crate::world::{World, WorldId};

/// The wall clock when a world begins is a second later: 2026-01-01.
const WALL_START_NS: u64 = 1_767_225_600_000_000_000;

const HOUR_NS: u64 = 3_600_000_000_000;

/// A process in a simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimEnv {
    pub(crate) world: WorldId,
    pub(crate) epoch: u64,
}

/// An open file of a simulated disk.
#[derive(Debug)]
pub struct SimFile {
    env: SimEnv,
    ino: u64,
    path: Arc<str>,
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

fn io(op: &'static str, path: &str, offset: Option<u64>, what: (ErrorKind, &str)) -> Error {
    let (kind, detail) = what;
    Error::Io { op, path: path.into(), offset, kind, detail: detail.to_owned() }
}

fn killed(op: &'static str, path: &str) -> Error {
    io(op, path, None, (ErrorKind::NotConnected, "the process was killed"))
}

fn eio(op: &'static str, path: &str, offset: Option<u64>) -> Error {
    io(op, path, offset, (ErrorKind::Other, "input/output error (injected)"))
}

impl SimEnv {
    fn alive(self) -> Option<Rc<World>> {
        World::find(self.world).filter(|world| world.epoch.get() == self.epoch)
    }

    /// Starts a call; a dead process gets an error.
    async fn call(self, op: &'static str, path: &str) -> Result<Rc<World>> {
        let world = self.alive().ok_or_else(|| killed(op, path))?;
        world.enter().await;
        Ok(world)
    }

    /// Starts a call on a name, which may fail with or without effect: `true` says that it takes
    /// effect and fails all the same.
    async fn call_name(self, op: &'static str, path: &str) -> Result<(Rc<World>, bool)> {
        let world = self.call(op, path).await?;
        world.trace.event(Code::Name, hash_text(op, path));
        if !world.fires(Fault::EioMeta, path, None) {
            return Ok((world, false));
        }
        if world.fires(Fault::ErrorAfterEffect, path, None) {
            return Ok((world, true));
        }
        Err(eio(op, path, None))
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

    /// A choice of the harness, from the stream named `site`.
    pub fn choose(self, site: &'static str, n: u64) -> u64 {
        self.alive().map_or(0, |world| world.choices.choose(site, n))
    }

    fn handle(self, ino: u64, path: &str) -> SimFile {
        SimFile { env: self, ino, path: path.into() }
    }
}

fn hash_text(op: &str, path: &str) -> u64 {
    mix(xxhash_rust::xxh3::xxh3_64(op.as_bytes()), xxhash_rust::xxh3::xxh3_64(path.as_bytes()))
}

impl World {
    /// The engine's error for a disk's refusal.
    fn refused(&self, op: &'static str, path: &str, offset: Option<u64>, why: DiskError) -> Error {
        let what = match why {
            DiskError::NotFound => (ErrorKind::NotFound, "no such file or directory"),
            DiskError::Exists => (ErrorKind::AlreadyExists, "the name is taken"),
            DiskError::Eof => (ErrorKind::UnexpectedEof, "the file ends before"),
            DiskError::Full => {
                self.note(Fault::Enospc, path, offset);
                (ErrorKind::StorageFull, "no space left on device")
            }
        };
        io(op, path, offset, what)
    }

    fn emfile(&self, op: &'static str, path: &str) -> Result<()> {
        if self.fires(Fault::Emfile, path, None) {
            return Err(io(op, path, None, (ErrorKind::Other, "too many open files (injected)")));
        }
        Ok(())
    }

    /// After a call on a name: may crash, and reports the error of a call that took effect.
    async fn leave(&self, op: &'static str, path: &str, fails: bool) -> Result<()> {
        if self.fuzz {
            self.crash_point().await;
        }
        if fails { Err(eio(op, path, None)) } else { Ok(()) }
    }
}

impl Env for SimEnv {
    type File = SimFile;
    type Task = SimTask;
    type Lock = SimLock;

    async fn open(&self, path: &Path) -> Result<SimFile> {
        let path = text(path);
        let (world, fails) = self.call_name("open", path).await?;
        world.emfile("open", path)?;
        let opened = world.disk.borrow_mut().open(path);
        let info = opened.map_err(|why| world.refused("open", path, None, why))?;
        let file = self.handle(info.ino, path);
        world.leave("open", path, fails).await?;
        Ok(file)
    }

    async fn create(&self, path: &Path) -> Result<SimFile> {
        let path = text(path);
        let (world, fails) = self.call_name("create", path).await?;
        world.emfile("create", path)?;
        let created = world.disk.borrow_mut().create(path);
        let info = created.map_err(|why| world.refused("create", path, None, why))?;
        let file = self.handle(info.ino, path);
        world.leave("create", path, fails).await?;
        Ok(file)
    }

    async fn create_dir(&self, dir: &Path) -> Result<()> {
        let path = text(dir);
        let (world, fails) = self.call_name("create_dir", path).await?;
        world.disk.borrow_mut().create_dir(path);
        world.leave("create_dir", path, fails).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let path = text(from);
        let (world, fails) = self.call_name("rename", path).await?;
        let done = world.disk.borrow_mut().rename(path, text(to));
        done.map_err(|why| world.refused("rename", path, None, why))?;
        world.leave("rename", path, fails).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let path = text(path);
        let (world, fails) = self.call_name("remove", path).await?;
        let done = world.disk.borrow_mut().remove(path);
        done.map_err(|why| world.refused("remove", path, None, why))?;
        world.leave("remove", path, fails).await
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let path = text(from);
        let (world, fails) = self.call_name("link", path).await?;
        let done = world.disk.borrow_mut().link(path, text(to));
        done.map_err(|why| world.refused("link", text(to), None, why))?;
        world.leave("link", path, fails).await
    }

    async fn list(&self, dir: &Path) -> Result<Vec<String>> {
        let path = text(dir);
        let (world, fails) = self.call_name("list", path).await?;
        let names = world.disk.borrow().list(path);
        let names = names.map_err(|why| world.refused("list", path, None, why))?;
        world.leave("list", path, fails).await?;
        Ok(names)
    }

    async fn sync_dir(&self, dir: &Path) -> Result<()> {
        let path = text(dir);
        let (world, after_effect) = match self.call_name("sync_dir", path).await {
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
        let started = world.disk.borrow().sync_dir_start(path);
        let start = started.map_err(|why| world.refused("sync_dir", path, None, why))?;
        world.device(IoClass::Manifest, Kind::Sync, 0).await;
        if world.fuzz {
            world.crash_point().await;
        }
        let lies =
            world.bug.get() == Some(Bug::DirSkipSync) || world.fires(Fault::SyncLies, path, None);
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
        Ok(disk.free_bytes())
    }

    fn now(&self) -> Nanos {
        World::find(self.world).map_or(0, |world| world.now())
    }

    fn wall(&self) -> Nanos {
        let Some(world) = World::find(self.world) else { return 0 };
        if world.fires(Fault::ClockJump, "", None) {
            let span = world.choices.range("fault.clock-jump-ns", 1, 25 * HOUR_NS);
            let jump = i64::try_from(span).unwrap_or(0);
            let back = i64::try_from(HOUR_NS).unwrap_or(0);
            world.wall_offset.set(world.wall_offset.get().saturating_add(jump - back));
        }
        let steady = WALL_START_NS.saturating_add(world.now());
        steady.saturating_add_signed(world.wall_offset.get())
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
            world.crash_point().await;
            if world.choices.choose(site.0, 2) == 1 {
                Reschedule::default().await;
            }
        }
    }

    fn random_u64(&self, site: Site) -> u64 {
        World::find(self.world).map_or(0, |world| world.choices.choose(site.0, u64::MAX))
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

/// A write that a kill may cut, until it is over.
struct InFlight<'a> {
    file: &'a SimFile,
    token: Option<u64>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Some(token) = self.token else { return };
        if let Some(world) = World::find_quiet(self.file.env.world, self.file.env.epoch)
            && let Ok(mut disk) = world.disk.try_borrow_mut()
        {
            disk.write_end(token);
        }
    }
}

impl SimFile {
    fn is(&self, suffix: &str) -> bool {
        self.path.ends_with(suffix)
    }

    async fn call(&self, op: &'static str, offset: u64, len: u64) -> Result<Rc<World>> {
        let world = self.env.call(op, &self.path).await?;
        world.trace.event(Code::File, mix(mix(self.ino, offset), len));
        Ok(world)
    }

    /// Where a write goes and how much of it, after its faults.
    fn bend(&self, world: &World, offset: u64, len: usize) -> (u64, usize, bool) {
        if world.fires(Fault::ShortWrite, &self.path, Some(offset)) {
            let kept = world.choices.choose("fault.short-write-bytes", to_u64(len));
            return (offset, to_usize(kept), true);
        }
        let sectors = world.disk.borrow().len(self.ino) >> 9;
        if sectors > 0 && world.fires(Fault::Misdirected, &self.path, Some(offset)) {
            return (world.choices.choose("fault.misdirected-sector", sectors) << 9, len, false);
        }
        (offset, len, false)
    }

    async fn put(&self, op: &'static str, at: Option<u64>, io: (&[u8], IoClass)) -> Result<()> {
        let (data, class) = io;
        let world = self.call(op, at.unwrap_or(u64::MAX), to_u64(data.len())).await?;
        let offset = at.unwrap_or_else(|| world.disk.borrow().len(self.ino));
        if world.fires(Fault::EioWrite, &self.path, Some(offset)) {
            return Err(eio(op, &self.path, Some(offset)));
        }
        let (target, len, short) = self.bend(&world, offset, data.len());
        let mut in_flight = InFlight { file: self, token: None };
        let written = {
            let mut disk = world.disk.borrow_mut();
            if world.fuzz && disk.config.track_durability {
                in_flight.token = Some(disk.write_begin(self.ino, target, len));
            }
            let written = disk.write(self.ino, target, data.get(..len).unwrap_or(data));
            let end = offset.saturating_add(to_u64(data.len()));
            if target != offset && disk.len(self.ino) < end {
                written.and_then(|()| disk.set_len(self.ino, end))
            } else {
                written
            }
        };
        if world.fuzz {
            world.crash_point().await;
        }
        self.pay_write(&world, class).await;
        drop(in_flight);
        if world.fuzz {
            world.crash_point().await;
        }
        written.map_err(|why| world.refused(op, &self.path, Some(offset), why))?;
        if short { Err(eio(op, &self.path, Some(offset))) } else { Ok(()) }
    }

    /// Tables are written through; logs stay in the page cache up to a limit.
    async fn pay_write(&self, world: &World, class: IoClass) {
        let cached = matches!(class, IoClass::Wal | IoClass::Manifest);
        let limit = if cached { world.device.borrow().spec().writeback_bytes } else { 0 };
        let unpaid = {
            let mut disk = world.disk.borrow_mut();
            if disk.unpaid(self.ino) <= limit {
                return;
            }
            disk.take_unpaid(self.ino)
        };
        world.device(class, Kind::Write, unpaid).await;
    }

    /// Whether the planted bugs take this sync; never returns where it is stuck.
    async fn bugged(&self, world: &World) -> bool {
        let (wal, table) = (self.is(".wal"), self.is(".sst"));
        match world.bug.get() {
            Some(Bug::WalSkipSync) => wal,
            Some(Bug::TableSkipSync) => table,
            Some(Bug::StuckIo) if wal || table => {
                let seen = world.watched_syncs.get().saturating_add(1);
                world.watched_syncs.set(seen);
                if seen > 4 && world.choices.choose("bug.stuck-io", 16) == 15 {
                    pending::<()>().await;
                }
                false
            }
            Some(_) | None => false,
        }
    }

    async fn sync(&self, op: &'static str, class: IoClass) -> Result<()> {
        let world = self.call(op, 0, 0).await?;
        let skipped = self.bugged(&world).await;
        let (token, unpaid) = {
            let mut disk = world.disk.borrow_mut();
            (disk.sync_start(self.ino), disk.take_unpaid(self.ino))
        };
        world.device(class, Kind::Sync, unpaid).await;
        if world.fuzz {
            world.crash_point().await;
        }
        let result = if skipped || world.fires(Fault::SyncLies, &self.path, None) {
            SyncResult::Lied
        } else if world.fires(Fault::EioSync, &self.path, None) {
            SyncResult::Failed
        } else {
            SyncResult::Done
        };
        world.disk.borrow_mut().sync_end(token, result, &world.choices);
        world.leave(op, &self.path, result == SyncResult::Failed).await
    }
}

impl File for SimFile {
    async fn append(&self, data: &[u8], class: IoClass) -> Result<()> {
        self.put("append", None, (data, class)).await
    }

    async fn read_at(&self, offset: u64, len: usize, class: IoClass) -> Result<Bytes> {
        let world = self.call("read_at", offset, to_u64(len)).await?;
        if world.fires(Fault::EioRead, &self.path, Some(offset)) {
            return Err(eio("read_at", &self.path, Some(offset)));
        }
        if world.fires(Fault::BitRot, &self.path, Some(offset)) {
            let bit = world.choices.choose("fault.bit", to_u64(len).saturating_mul(8));
            let mut disk = world.disk.borrow_mut();
            let low = u32::try_from(bit & 7).unwrap_or(0);
            disk.flip_bit(self.ino, offset.saturating_add(bit >> 3), low);
        }
        world.device(class, Kind::Read, to_u64(len)).await;
        let read = world.disk.borrow().read(self.ino, offset, len);
        let bytes = read.map_err(|why| world.refused("read_at", &self.path, Some(offset), why))?;
        Ok(Bytes::from(bytes))
    }

    async fn write_at(&self, offset: u64, data: &[u8], class: IoClass) -> Result<()> {
        self.put("write_at", Some(offset), (data, class)).await
    }

    async fn sync_data(&self, class: IoClass) -> Result<()> {
        self.sync("sync_data", class).await
    }

    async fn sync_all(&self, class: IoClass) -> Result<()> {
        self.sync("sync_all", class).await
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        let world = self.call("allocate", 0, len).await?;
        let done = world.disk.borrow_mut().allocate(self.ino, len);
        done.map_err(|why| world.refused("allocate", &self.path, None, why))
    }

    async fn set_len(&self, len: u64) -> Result<()> {
        let world = self.call("set_len", 0, len).await?;
        if world.fires(Fault::EioMeta, &self.path, Some(len)) {
            return Err(eio("set_len", &self.path, Some(len)));
        }
        let done = world.disk.borrow_mut().set_len(self.ino, len);
        done.map_err(|why| world.refused("set_len", &self.path, Some(len), why))?;
        world.leave("set_len", &self.path, false).await
    }

    fn len(&self) -> u64 {
        self.env.alive().map_or(0, |world| world.disk.borrow().len(self.ino))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(world) = World::find_quiet(self.env.world, self.env.epoch)
            && let Ok(mut disk) = world.disk.try_borrow_mut()
        {
            disk.close(self.ino);
        }
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
