//! One world: a runtime, a disk, a device, cores, choices and faults, found by the number that a
//! [`SimEnv`](crate::env::SimEnv) carries.
//!
//! A world lives in a thread-local list, so that an env is a `Copy` number and `Send + Sync` for
//! free, while everything behind it is `Rc` and `Cell`. Worlds on several threads know nothing of
//! each other.
//!
//! A process that was killed is an *epoch* that ended: its envs, files and locks carry the old
//! epoch, and what they call fails or does nothing. So destructors of a dying engine cannot touch
//! the disk of the next one.

use core::cell::{Cell, RefCell};
use core::future::{Future, pending};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use forebay_engine::env::{IoClass, Work};
use forebay_engine::types::Nanos;

use crate::bugs::Bug;
use crate::choices::Choices;
use crate::cpu::{Cores, CpuCosts, DEBT_CARRIED_NS};
use crate::diary::{Diary, What};
use crate::disk::SimDisk;
use crate::disk::device::{Device, Kind, Progress, Ticket};
use crate::fault::stall::Waits;
use crate::fault::{Fault, Faults};
use crate::ledger::Ledger;
use crate::nth::Calls;
use crate::runtime::own::entropy;
use crate::runtime::{Reschedule, Runtime, Sleep};
use crate::trace::{Code, Trace};

/// Number of a world: the thread's number, then the world's on that thread.
pub(crate) type WorldId = (u64, u64);

/// Of so many calls, one is held back.
const HOLD_CALL_ONE_IN: u64 = 128;

/// Shortest time for which a task is held back; each step doubles it, up to some 130 ms.
const HOLD_NS_MIN: Nanos = 1000;
const HOLD_STEPS: u64 = 18;

static THREADS: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Worlds {
    thread: Option<u64>,
    started: u64,
    live: Vec<(WorldId, Rc<World>)>,
}

thread_local! {
    static WORLDS: RefCell<Worlds> = RefCell::default();
}

#[derive(Debug, Default)]
struct Join {
    ended: bool,
    waiting: Vec<Waker>,
}

pub(crate) struct World {
    pub(crate) id: WorldId,
    pub(crate) runtime: Rc<dyn Runtime>,
    pub(crate) choices: Rc<Choices>,
    pub(crate) trace: Rc<Trace>,
    pub(crate) disk: RefCell<SimDisk>,
    pub(crate) device: RefCell<Device>,
    pub(crate) faults: RefCell<Faults>,
    pub(crate) ledger: RefCell<Ledger>,
    /// The call that each task is in, with its file.
    pub(crate) in_calls: RefCell<BTreeMap<u64, (&'static str, Arc<str>)>>,
    /// What [`calls`](Self::calls) held when the harness last gave up waiting.
    pub(crate) given_up: RefCell<Vec<String>>,
    pub(crate) cores: RefCell<Cores>,
    pub(crate) costs: CpuCosts,
    /// Yields, latencies and crash points are drawn.
    pub(crate) fuzz: bool,
    /// Now and then a task that could go on is held back, as by a machine that runs others.
    pub(crate) holds: Cell<bool>,
    pub(crate) bug: Cell<Option<Bug>>,
    pub(crate) epoch: Cell<u64>,
    pub(crate) locks: RefCell<BTreeSet<String>>,
    pub(crate) wall_offset: Cell<i64>,
    pub(crate) wall_frozen: Cell<Option<Nanos>>,
    pub(crate) points: Cell<u64>,
    pub(crate) crash_at: Cell<Option<u64>>,
    pub(crate) watched_syncs: Cell<u64>,
    /// The harness has asked for a close.
    pub(crate) closing: Cell<bool>,
    /// The least space that was ever left, for a planted bug.
    pub(crate) least_free: Cell<u64>,
    pub(crate) calls: Calls,
    pub(crate) diary: RefCell<Option<Diary>>,
    debt: Cell<u64>,
    joins: RefCell<BTreeMap<u64, Join>>,
    next_task: Cell<u64>,
}

/// What a world is made of.
pub(crate) struct Parts {
    pub(crate) runtime: Rc<dyn Runtime>,
    pub(crate) choices: Rc<Choices>,
    pub(crate) trace: Rc<Trace>,
    pub(crate) disk: SimDisk,
    pub(crate) device: Device,
    pub(crate) faults: Faults,
    pub(crate) cores: Cores,
    pub(crate) costs: CpuCosts,
    pub(crate) fuzz: bool,
    pub(crate) bug: Option<Bug>,
}

impl World {
    /// Makes a world and puts it on this thread's list.
    pub(crate) fn start(parts: Parts) -> Rc<Self> {
        WORLDS.with_borrow_mut(|worlds| {
            let next = || THREADS.fetch_add(1, Ordering::Relaxed);
            let thread = *worlds.thread.get_or_insert_with(next);
            worlds.started += 1;
            let id = (thread, worlds.started);
            let world = Rc::new(Self::new(id, parts));
            worlds.live.push((id, Rc::clone(&world)));
            world
        })
    }

    fn new(id: WorldId, parts: Parts) -> Self {
        Self {
            id,
            runtime: parts.runtime,
            choices: parts.choices,
            trace: parts.trace,
            disk: RefCell::new(parts.disk),
            device: RefCell::new(parts.device),
            faults: RefCell::new(parts.faults),
            ledger: RefCell::default(),
            in_calls: RefCell::default(),
            given_up: RefCell::default(),
            cores: RefCell::new(parts.cores),
            costs: parts.costs,
            fuzz: parts.fuzz,
            holds: Cell::new(false),
            bug: Cell::new(parts.bug),
            epoch: Cell::new(0),
            locks: RefCell::default(),
            wall_offset: Cell::new(0),
            wall_frozen: Cell::new(None),
            points: Cell::new(0),
            crash_at: Cell::new(None),
            watched_syncs: Cell::new(0),
            closing: Cell::new(false),
            least_free: Cell::new(u64::MAX),
            calls: Calls::default(),
            diary: RefCell::default(),
            debt: Cell::new(0),
            joins: RefCell::default(),
            next_task: Cell::new(0),
        }
    }

    /// Takes the world off its list; envs that still name it do nothing from here on.
    pub(crate) fn end(&self) {
        let gone = WORLDS.with_borrow_mut(|worlds| {
            let at = worlds.live.iter().position(|(id, _)| *id == self.id)?;
            Some(worlds.live.swap_remove(at))
        });
        drop(gone);
    }

    /// The world of this number; `None` where it ended.
    pub(crate) fn find(id: WorldId) -> Option<Rc<Self>> {
        let (thread, world) = lookup(id);
        let foreign = thread != Some(id.0);
        assert!(
            !foreign || std::thread::panicking(),
            "a SimEnv works only on the thread whose simulation made it"
        );
        world
    }

    /// As [`find`](Self::find), for destructors: never panics.
    pub(crate) fn find_quiet(id: WorldId, epoch: u64) -> Option<Rc<Self>> {
        lookup(id).1.filter(|world| world.epoch.get() == epoch)
    }

    pub(crate) fn now(&self) -> Nanos {
        self.runtime.now()
    }

    pub(crate) async fn sleep_until(&self, at: Nanos) {
        Sleep::new(&*self.runtime, at).await;
    }

    pub(crate) fn charge(&self, work: Work) {
        self.debt.set(self.debt.get().saturating_add(self.costs.ns(work)));
    }

    /// Before a call: pays the CPU debt, and may crash or let others run.
    pub(crate) async fn enter(&self) {
        if self.owes() {
            self.pay().await;
        }
        if self.fuzz {
            self.crash_point().await;
            if self.choices.choose("call.yield", 4) == 3 {
                Reschedule::default().await;
            }
            self.hold("call.hold", HOLD_CALL_ONE_IN).await;
            if self.fires(Fault::Latency, "", None) {
                let most = self.faults.borrow().plan().latency_max_ns;
                let delay = self.choices.choose("fault.latency-ns", most);
                self.sleep_until(self.now().saturating_add(delay)).await;
            }
        }
    }

    /// Holds the running task back, once in so many times, for longer than most calls take.
    pub(crate) async fn hold(&self, site: &'static str, one_in: u64) {
        if self.holds.get() && self.choices.choose(site, one_in) + 1 == one_in {
            let steps = self.choices.choose("hold.ns", HOLD_STEPS);
            self.sleep_until(self.now().saturating_add(HOLD_NS_MIN << steps)).await;
        }
    }

    /// Before a call on an open file, or a sync: may have to wait for a stall, or begin one.
    pub(crate) async fn stall(&self, op: &str, path: &str) {
        let is_sync = matches!(op, "sync_data" | "sync_all" | "sync_dir");
        let is_io = matches!(op, "append" | "write_at" | "read_at" | "allocate" | "set_len");
        if !is_sync && !is_io {
            return;
        }
        let tree = self.faults.borrow().atlas().tree_of(path);
        let (file, trees, syncs) = (
            self.fires(Fault::StallFile, path, None),
            tree.filter(|_| self.fires(Fault::StallTree, path, None)),
            is_sync && self.fires(Fault::StallSyncs, path, None),
        );
        if file || trees.is_some() || syncs {
            let most = self.faults.borrow().plan().stall_max_ns;
            let lasts = self.choices.range("fault.stall-ns", 1, most);
            let until = self.now().saturating_add(lasts);
            let stalls = &mut self.faults.borrow_mut().stalls;
            if file {
                stalls.files.insert(path.to_owned(), until);
            }
            if let Some(tree) = trees {
                stalls.trees.insert(tree, until);
            }
            if syncs {
                stalls.syncs = until;
            }
        }
        let until = self.faults.borrow().stalls.until(Waits { path, tree, is_sync });
        if until > self.now() {
            self.sleep_until(until).await;
        }
    }

    /// Whether the running task owes more than it may carry on.
    pub(crate) fn owes(&self) -> bool {
        self.debt.get() >= DEBT_CARRIED_NS
    }

    /// Waits until the cores have done what the task owes.
    pub(crate) async fn pay(&self) {
        let owed = self.debt.take();
        let done = self.cores.borrow_mut().run(self.now(), owed);
        self.sleep_until(done).await;
    }

    /// A place of a call at which the process may die.
    pub(crate) async fn crash_point(&self) {
        self.calls.point(self.points.get().saturating_add(1));
        self.crash_point_between().await;
    }

    /// A place between calls at which the process may die.
    pub(crate) async fn crash_point_between(&self) {
        let point = self.points.get().saturating_add(1);
        self.points.set(point);
        if self.crash_at.get() == Some(point) {
            self.crash_at.set(None);
            self.runtime.request_crash();
            pending::<()>().await;
        }
    }

    /// Waits for the device; in fuzz mode with a latency drawn on top.
    pub(crate) async fn device(&self, class: IoClass, kind: Kind, bytes: u64) {
        if self.fuzz {
            let steps = self.choices.choose("io.latency", 16);
            if steps > 0 {
                let slower =
                    if self.bug.get() == Some(Bug::Unseeded) { entropy() & 1023 } else { 0 };
                let ns = (1_u64 << steps).saturating_mul(64).saturating_add(slower);
                self.sleep_until(self.now().saturating_add(ns)).await;
            }
        }
        let ticket = self.device.borrow_mut().submit(self.now(), class, kind, bytes);
        let Some(ticket) = ticket else { return };
        let waiting = Waiting { world: self, ticket };
        loop {
            let progress = self.device.borrow_mut().poll(self.now(), &waiting.ticket);
            match progress {
                Progress::Done => return,
                Progress::NotBefore(at) => self.sleep_until(at).await,
            }
        }
    }

    /// Whether a fault happens now; one that does is counted.
    pub(crate) fn fires(&self, fault: Fault, path: &str, offset: Option<u64>) -> bool {
        let forced = self.calls.forces(fault);
        let fires = forced || self.faults.borrow().fires(fault, &self.choices);
        if fires {
            self.note(fault, path, offset);
        }
        fires
    }

    /// Adds to the diary, where one is kept.
    pub(crate) fn write_down(&self, what: impl FnOnce() -> What) {
        let diary = self.diary.borrow();
        let Some(diary) = diary.as_ref() else { return };
        diary.add(self.now(), self.choices.made(), what());
    }

    pub(crate) fn note(&self, fault: Fault, path: &str, offset: Option<u64>) {
        if !matches!(fault, Fault::PowerLoss | Fault::Kill) {
            self.write_down(|| What::Fault { name: fault.name(), path: path.to_owned() });
        }
        self.faults.borrow_mut().note(fault, self.now(), path, offset);
        self.ledger.borrow_mut().failed(fault, self.now(), path, offset);
        self.trace.event(Code::Fault, u64::from(fault as u8));
    }

    /// The process died: its handles, locks and queued work are void.
    pub(crate) fn end_epoch(&self) {
        self.epoch.set(self.epoch.get().saturating_add(1));
        if self.bug.get() != Some(Bug::StaleLock) {
            self.locks.borrow_mut().clear();
        }
        self.crash_at.set(None);
        self.ledger.borrow_mut().end_process();
        self.closing.set(false);
        self.least_free.set(u64::MAX);
        self.device.borrow_mut().reset();
        self.cores.borrow_mut().reset();
        self.joins.borrow_mut().clear();
        self.debt.set(0);
        self.trace.event(Code::Crash, self.epoch.get());
    }

    /// Starts a task that others can wait for.
    pub(crate) fn spawn<F>(self: &Rc<Self>, name: &'static str, future: F) -> u64
    where
        F: Future<Output = ()> + 'static,
    {
        let task = self.next_task.get();
        self.next_task.set(task.wrapping_add(1));
        self.joins.borrow_mut().insert(task, Join::default());
        self.ledger.borrow_mut().task_began();
        let ending = Ending { world: Rc::clone(self), task };
        let body = async move {
            // The mark is set when the task ends, and also when it is dropped.
            let _ending = ending;
            future.await;
        };
        self.runtime.spawn(name, Box::pin(self.track(body)));
        task
    }

    /// Gives a future a CPU debt of its own.
    pub(crate) fn track<F: Future>(self: &Rc<Self>, future: F) -> Tracked<F> {
        Tracked { world: Rc::clone(self), debt: 0, future: Box::pin(future) }
    }

    pub(crate) fn poll_join(&self, task: u64, waker: &Waker) -> Poll<()> {
        let mut joins = self.joins.borrow_mut();
        match joins.get_mut(&task) {
            None => Poll::Ready(()),
            Some(join) if join.ended => {
                joins.remove(&task);
                Poll::Ready(())
            }
            Some(join) => {
                if !join.waiting.iter().any(|known| known.will_wake(waker)) {
                    join.waiting.push(waker.clone());
                }
                Poll::Pending
            }
        }
    }

    /// Nobody waits for a task any more.
    pub(crate) fn forget_join(&self, task: u64) {
        self.joins.borrow_mut().remove(&task);
    }
}

fn lookup(id: WorldId) -> (Option<u64>, Option<Rc<World>>) {
    let found = WORLDS.try_with(|worlds| {
        let Ok(worlds) = worlds.try_borrow() else { return (Some(id.0), None) };
        let world = worlds.live.iter().rfind(|(live, _)| *live == id);
        (worlds.thread, world.map(|(_, world)| Rc::clone(world)))
    });
    found.unwrap_or((Some(id.0), None))
}

/// A task is in a call, until this is dropped.
pub(crate) struct InCall {
    world: Rc<World>,
    task: u64,
}

impl InCall {
    pub(crate) fn begin(world: &Rc<World>, op: &'static str, path: &Arc<str>) -> Self {
        let task = world.runtime.current_task();
        world.in_calls.borrow_mut().insert(task, (op, Arc::clone(path)));
        Self { world: Rc::clone(world), task }
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        if let Ok(mut calls) = self.world.in_calls.try_borrow_mut() {
            calls.remove(&self.task);
        }
    }
}

/// A request at the device; a task that goes away leaves nothing behind.
struct Waiting<'a> {
    world: &'a World,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Ok(mut device) = self.world.device.try_borrow_mut() {
            device.forget(&self.ticket);
        }
    }
}

struct Ending {
    world: Rc<World>,
    task: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(mut ledger) = self.world.ledger.try_borrow_mut() {
            ledger.task_ended();
        }
        let waiting = match self.world.joins.borrow_mut().get_mut(&self.task) {
            Some(join) => {
                join.ended = true;
                core::mem::take(&mut join.waiting)
            }
            None => return,
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

/// A task's future with its CPU debt.
pub(crate) struct Tracked<F: Future> {
    world: Rc<World>,
    debt: u64,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let outer = this.world.debt.replace(this.debt);
        let poll = this.future.as_mut().poll(cx);
        this.debt = this.world.debt.replace(outer);
        if poll.is_ready() && this.debt > 0 {
            // Nobody waits for it, but it keeps a core busy.
            let now = this.world.now();
            this.world.cores.borrow_mut().run(now, core::mem::take(&mut this.debt));
        }
        poll
    }
}
