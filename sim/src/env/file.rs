//! An open file: writes, reads and syncs with everything that may go wrong in them.

use core::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use forebay_engine::env::{File, IoClass};
use forebay_engine::error::Result;
use forebay_engine::types::{to_u64, to_usize};

use super::SimEnv;
use super::inject::{Failure, eio, failed};
use crate::bugs::Bug;
use crate::diary::What;
use crate::disk::device::Kind;
use crate::disk::{PAGE_BYTES, SECTOR_BYTES, SyncResult};
use crate::fault::Fault;
use crate::ledger::Did;
use crate::runtime::Reschedule;
use crate::trace::{Code, mix};
use crate::world::{InCall, World};

/// An open file of a simulated disk.
#[derive(Debug)]
pub struct SimFile {
    env: SimEnv,
    ino: u64,
    path: Arc<str>,
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

/// A write after its faults: which bytes go where, and whether it fails all the same.
#[derive(Clone, Copy, Debug)]
struct Bent {
    ino: u64,
    offset: u64,
    len: usize,
    fails: Option<Failure>,
}

impl SimFile {
    pub(super) fn new(env: SimEnv, ino: u64, path: &str) -> Self {
        Self { env, ino, path: path.into() }
    }

    fn is(&self, suffix: &str) -> bool {
        self.path.ends_with(suffix)
    }

    async fn call(&self, op: &'static str, offset: u64, len: u64) -> Result<Rc<World>> {
        let world = self.env.call(op, &self.path).await?;
        world.trace.event(Code::File, mix(mix(self.ino, offset), len));
        Ok(world)
    }

    /// Where a write goes and how much of it, after its faults.
    fn bend(&self, world: &World, offset: u64, len: usize) -> Bent {
        let whole = Bent { ino: self.ino, offset, len, fails: None };
        if world.fires(Fault::ShortWrite, &self.path, Some(offset)) {
            let kept = world.choices.choose("fault.short-write-bytes", to_u64(len));
            return Bent { len: to_usize(kept), fails: Some(Failure::Io), ..whole };
        }
        if world.fires(Fault::EnospcWrite, &self.path, Some(offset)) {
            let kept = world.choices.choose("fault.enospc-write-bytes", to_u64(len));
            let quota = world.choices.choose("fault.quota", 2) == 1;
            let why = if quota { Failure::Quota } else { Failure::Full };
            return Bent { len: to_usize(kept), fails: Some(why), ..whole };
        }
        if world.fires(Fault::WriteAfterEffect, &self.path, Some(offset)) {
            return Bent { fails: Some(Failure::Io), ..whole };
        }
        let end = offset.saturating_add(to_u64(len));
        let sectors = world.disk.borrow().len(self.ino) >> 9;
        if sectors > 0 && world.damages(Fault::Misdirected, &self.path, (offset, end)) {
            let at = world.choices.choose("fault.misdirected-sector", sectors) << 9;
            world.hits(Fault::Misdirected, &self.path, (at, at.saturating_add(to_u64(len))));
            return Bent { offset: at, ..whole };
        }
        self.bend_away(world, whole).unwrap_or(whole)
    }

    /// The file and sector in which a write lands that misses its own file.
    fn bend_away(&self, world: &World, whole: Bent) -> Option<Bent> {
        let planned = world.faults.borrow().plan().misdirected_file > 0;
        if !planned && !world.calls.forces(Fault::MisdirectedFile) {
            return None;
        }
        let others = world.disk.borrow().neighbours(&self.path, self.ino);
        let end = whole.offset.saturating_add(to_u64(whole.len));
        if others.is_empty()
            || !world.damages(Fault::MisdirectedFile, &self.path, (whole.offset, end))
        {
            return None;
        }
        let pick = world.choices.choose("fault.misdirected-file", to_u64(others.len()));
        let (path, ino, victim_len) = others.get(to_usize(pick))?;
        let at = world.choices.choose("fault.misdirected-sector", *victim_len >> 9) << 9;
        // It lands on sectors that exist: the victim grows by nothing.
        let len = whole.len.min(to_usize(victim_len.saturating_sub(at)));
        world.hits(Fault::MisdirectedFile, path, (at, at.saturating_add(to_u64(len))));
        Some(Bent { ino: *ino, offset: at, len, fails: None })
    }

    async fn put(&self, op: &'static str, at: Option<u64>, io: (&[u8], IoClass)) -> Result<()> {
        let (data, class) = io;
        let world = self.call(op, at.unwrap_or(u64::MAX), to_u64(data.len())).await?;
        let _in_call = InCall::begin(&world, op, &self.path);
        let offset = at.unwrap_or_else(|| world.disk.borrow().len(self.ino));
        self.refuse_read_only(&world, op, Some(offset))?;
        if world.fires(Fault::EioWrite, &self.path, Some(offset)) {
            world.remount_after_error(&self.path);
            return Err(eio(op, &self.path, Some(offset)));
        }
        let bent = self.bend(&world, offset, data.len());
        let mut in_flight = InFlight { file: self, token: None };
        let written = {
            let mut disk = world.disk.borrow_mut();
            if world.fuzz && disk.config.track_durability {
                in_flight.token = Some(disk.write_begin(bent.ino, bent.offset, bent.len));
            }
            let written = disk.write(bent.ino, bent.offset, data.get(..bent.len).unwrap_or(data));
            let end = offset.saturating_add(to_u64(data.len()));
            let astray = (bent.ino, bent.offset) != (self.ino, offset);
            if astray && disk.len(self.ino) < end {
                written.and_then(|()| disk.set_len(self.ino, end))
            } else {
                written
            }
        };
        if self.is(".wal") {
            world.write_down(|| What::Logged { path: self.path.to_string(), offset });
        }
        if world.fuzz {
            world.crash_point().await;
        }
        self.pay_write(&world, class).await;
        drop(in_flight);
        if world.fuzz {
            world.crash_point().await;
        }
        written.map_err(|why| world.refused(op, &self.path, Some(offset), why))?;
        let Some(why) = bent.fails else {
            world.ledger.borrow_mut().did(Did::Write, &self.path);
            return Ok(());
        };
        if why == Failure::Io {
            world.remount_after_error(&self.path);
        }
        Err(failed(op, &self.path, Some(offset), why))
    }

    fn refuse_read_only(&self, world: &World, op: &'static str, at: Option<u64>) -> Result<()> {
        if world.faults.borrow().is_read_only() {
            return Err(failed(op, &self.path, at, Failure::ReadOnly));
        }
        Ok(())
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
            Some(Bug::StuckClose) if wal && world.closing.get() => pending().await,
            Some(Bug::SickNeighbour) if table && world.disk.borrow().has_lost_sectors() => {
                pending().await
            }
            Some(bug @ (Bug::StuckIo | Bug::SpinIo)) if wal || table => {
                let seen = world.watched_syncs.get().saturating_add(1);
                world.watched_syncs.set(seen);
                if seen > 4 && world.choices.choose("bug.stuck-io", 16) == 15 {
                    if bug == Bug::StuckIo {
                        pending::<()>().await;
                    }
                    loop {
                        Reschedule::default().await;
                    }
                }
                false
            }
            Some(_) | None => false,
        }
    }

    async fn sync(&self, op: &'static str, class: IoClass) -> Result<()> {
        let world = self.call(op, 0, 0).await?;
        let _in_call = InCall::begin(&world, op, &self.path);
        let held = world.calls.hold();
        world.write_down(|| What::SyncBegin { path: self.path.to_string() });
        let skipped = self.bugged(&world).await;
        let (token, unpaid, owed) = {
            let mut disk = world.disk.borrow_mut();
            let owed = disk.take_owed_error(self.ino);
            (disk.sync_start(self.ino), disk.take_unpaid(self.ino), owed)
        };
        world.device(class, Kind::Sync, unpaid).await;
        if world.fuzz {
            world.crash_point().await;
        }
        world.calls.resume(held);
        let (result, fails) =
            if skipped { (SyncResult::Lied, None) } else { self.sync_end(&world) };
        world.disk.borrow_mut().sync_end(token, result, &world.choices);
        let fails = fails.or(owed.then_some(Failure::Io));
        if fails == Some(Failure::Io) {
            world.remount_after_error(&self.path);
        }
        world.calls.pass();
        let ok = fails.is_none();
        world.write_down(|| What::SyncEnd { path: self.path.to_string(), ok });
        world.leave(op, &self.path, fails).await
    }

    /// What a sync does, and what it says.
    fn sync_end(&self, world: &World) -> (SyncResult, Option<Failure>) {
        let whole = (0, u64::MAX);
        let fails = if world.faults.borrow().is_read_only() {
            Failure::ReadOnly
        } else if world.damages(Fault::SyncLies, &self.path, whole) {
            return (SyncResult::Lied, None);
        } else if world.fires(Fault::EioSync, &self.path, None) {
            Failure::Io
        } else if world.fires(Fault::EnospcSync, &self.path, None) {
            Failure::Full
        } else if world.disk.borrow().has_pending(self.ino)
            && world.damages(Fault::SyncLate, &self.path, whole)
        {
            world.disk.borrow_mut().owe_error(self.ino);
            return (SyncResult::Failed, None);
        } else {
            return (SyncResult::Done, None);
        };
        let reverts = world.fires(Fault::SyncReverted, &self.path, None);
        (if reverts { SyncResult::Reverted } else { SyncResult::Failed }, Some(fails))
    }

    /// One read of the device, with what may go wrong before it.
    async fn read_part(
        &self,
        world: &World,
        (offset, len): (u64, usize),
        class: IoClass,
    ) -> Result<Vec<u8>> {
        let bytes = to_u64(len);
        if world.fires(Fault::EioRead, &self.path, Some(offset)) {
            return Err(eio("read_at", &self.path, Some(offset)));
        }
        let inside = bytes > 0 && offset.saturating_add(bytes) <= world.disk.borrow().len(self.ino);
        if inside && world.fires(Fault::LatentSector, &self.path, Some(offset)) {
            let last = offset.saturating_add(bytes).saturating_sub(1) >> 9;
            let sector = world.choices.range("fault.latent-sector", offset >> 9, last);
            let at = sector << 9;
            world.hits(Fault::LatentSector, &self.path, (at, at.saturating_add(SECTOR_BYTES)));
            world.disk.borrow_mut().lose_sector(self.ino, at);
        }
        let hidden = world.bug.get() == Some(Bug::HiddenRot)
            && world.choices.choose("bug.hidden-rot", 64) == 63;
        if hidden || world.fires(Fault::BitRot, &self.path, Some(offset)) {
            let bit = world.choices.choose("fault.bit", bytes.saturating_mul(8));
            let low = u32::try_from(bit & 7).unwrap_or(0);
            let at = offset.saturating_add(bit >> 3);
            world.disk.borrow_mut().flip_bit(self.ino, at, low);
            if !hidden {
                world.hits(Fault::BitRot, &self.path, (at, at.saturating_add(1)));
            }
        }
        let may_forget = world.faults.borrow().plan().cache_eviction > 0;
        let unwritten = may_forget && world.disk.borrow().has_unwritten(self.ino);
        if unwritten && world.fires(Fault::CacheEviction, &self.path, Some(offset)) {
            world.disk.borrow_mut().evict_clean(self.ino);
        }
        world.device(class, Kind::Read, bytes).await;
        if world.disk.borrow().meets_lost_sector(self.ino, offset, bytes) {
            return Err(eio("read_at", &self.path, Some(offset)));
        }
        let read = world.disk.borrow().read(self.ino, offset, len);
        if read.is_ok() {
            let mut ledger = world.ledger.borrow_mut();
            ledger.did(Did::Read(offset), &self.path);
            if class == IoClass::Wal {
                ledger.read_log(bytes);
            }
        }
        read.map_err(|why| world.refused("read_at", &self.path, Some(offset), why))
    }

    /// How far a change of length or a reservation gets that fails: not at all, to a page, or to its end.
    fn resize_fails(&self, world: &World, from: u64, to: u64) -> Option<u64> {
        if !world.fires(Fault::EioResize, &self.path, Some(to)) {
            return None;
        }
        world.remount_after_error(&self.path);
        Some(match world.choices.choose("fault.resize-part", 3) {
            0 => from,
            1 => {
                let (low, high) = (from.min(to), from.max(to));
                let page = world.choices.range("fault.resize-page", low >> 12, high >> 12);
                page.saturating_mul(PAGE_BYTES).clamp(low, high)
            }
            _ => to,
        })
    }
}

impl SimFile {
    /// A call on a segment is about to begin.
    fn begin_log(&self, call: &'static str) {
        if let Some(world) = self.env.alive().filter(|_| self.is(".wal")) {
            world.ledger.borrow_mut().log_called(self.ino, call, world.now());
        }
    }

    /// A call on a segment ended: one that failed is never to be trusted again.
    fn end_log(&self, done: Result<()>) -> Result<()> {
        let Some(world) = self.env.alive().filter(|_| self.is(".wal") && done.is_err()) else {
            return done;
        };
        world.ledger.borrow_mut().log_failed(self.ino, &self.path, world.now());
        if world.bug.get() == Some(Bug::SwallowedSync) { Ok(()) } else { done }
    }
}

impl File for SimFile {
    async fn append(&self, data: &[u8], class: IoClass) -> Result<()> {
        self.begin_log("append");
        self.end_log(self.put("append", None, (data, class)).await)
    }

    /// As the operating system's: a read that gives less is continued where it stopped.
    async fn read_at(&self, offset: u64, len: usize, class: IoClass) -> Result<Bytes> {
        let world = self.call("read_at", offset, to_u64(len)).await?;
        let _in_call = InCall::begin(&world, "read_at", &self.path);
        if len < 2 || !world.fires(Fault::ShortRead, &self.path, Some(offset)) {
            return Ok(Bytes::from(self.read_part(&world, (offset, len), class).await?));
        }
        let first = world.choices.range("fault.short-read-bytes", 1, to_u64(len) - 1);
        let mut bytes = self.read_part(&world, (offset, to_usize(first)), class).await?;
        if world.fuzz {
            world.crash_point().await;
            Reschedule::default().await;
        }
        let rest = (offset.saturating_add(first), len - to_usize(first));
        bytes.extend(self.read_part(&world, rest, class).await?);
        Ok(Bytes::from(bytes))
    }

    async fn write_at(&self, offset: u64, data: &[u8], class: IoClass) -> Result<()> {
        self.put("write_at", Some(offset), (data, class)).await
    }

    async fn sync_data(&self, class: IoClass) -> Result<()> {
        self.begin_log("sync_data");
        self.end_log(self.sync("sync_data", class).await)
    }

    async fn sync_all(&self, class: IoClass) -> Result<()> {
        self.begin_log("sync_all");
        self.end_log(self.sync("sync_all", class).await)
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        let world = self.call("allocate", 0, len).await?;
        self.refuse_read_only(&world, "allocate", None)?;
        if let Some(part) = self.resize_fails(&world, 0, len) {
            // A disk that is full as well leaves less.
            world.disk.borrow_mut().allocate(self.ino, part).unwrap_or_default();
            return Err(eio("allocate", &self.path, None));
        }
        let done = world.disk.borrow_mut().allocate(self.ino, len);
        if done.is_ok() {
            world.ledger.borrow_mut().did(Did::Resize, &self.path);
        }
        done.map_err(|why| world.refused("allocate", &self.path, None, why))
    }

    async fn set_len(&self, len: u64) -> Result<()> {
        let world = self.call("set_len", 0, len).await?;
        self.refuse_read_only(&world, "set_len", Some(len))?;
        if world.fires(Fault::EioMeta, &self.path, Some(len)) {
            return Err(eio("set_len", &self.path, Some(len)));
        }
        let before = world.disk.borrow().len(self.ino);
        let (target, fails) = match self.resize_fails(&world, before, len) {
            Some(part) => (part, Some(Failure::Io)),
            None => (len, None),
        };
        let done = world.disk.borrow_mut().set_len(self.ino, target);
        done.map_err(|why| world.refused("set_len", &self.path, Some(len), why))?;
        world.leave("set_len", &self.path, fails).await
    }

    fn len(&self) -> u64 {
        self.env.alive().map_or(0, |world| world.disk.borrow().len(self.ino))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(world) = World::find_quiet(self.env.world, self.env.epoch)
            && world.bug.get() != Some(Bug::LeakedHandle)
            && let Ok(mut disk) = world.disk.try_borrow_mut()
        {
            disk.close(self.ino);
        }
    }
}
