//! An executor over madsim, and a simulation on it.
//!
//! madsim kills a node's tasks later, when each is next scheduled. A process must die at once, or
//! its destructors would run in the next one; so a madsim task is only a shell that polls a future
//! kept here, and killing drops these futures. The shells end when they are next polled.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::{Context, Poll, Waker};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use forebay_engine::env::Nanos;
use forebay_sim::choices::Choices;
use forebay_sim::disk::CrashReport;
use forebay_sim::runtime::{RunEnd, Runtime, START_NS, TaskFuture, Timer};
use forebay_sim::trace::{Code, Trace};
use forebay_sim::{SimConfig, SimWorld};
use madsim::time::TimeHandle;

/// What madsim's panic says when nothing can run.
const NO_EVENTS: &str = "no events";

struct Task {
    name: &'static str,
    /// `None` while it is polled.
    future: Option<TaskFuture>,
    /// Wakes the shell.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Tasks {
    alive: BTreeMap<u64, Task>,
    started: u64,
    /// Started outside a run; their shells begin with the next one.
    waiting: Vec<u64>,
}

/// The executor.
pub struct MadsimRuntime {
    time: TimeHandle,
    tasks: Rc<RefCell<Tasks>>,
    crash: Cell<bool>,
    main: RefCell<Option<Waker>>,
    trace: Rc<Trace>,
}

impl fmt::Debug for MadsimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadsimRuntime").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl MadsimRuntime {
    fn shell(&self, id: u64) {
        let (tasks, trace, time) =
            (Rc::clone(&self.tasks), Rc::clone(&self.trace), self.time.clone());
        drop(madsim::task::spawn_local(poll_fn(move |cx| {
            trace.set_now(since_start(&time));
            trace.event(Code::Switch, id);
            poll_shell(&tasks, id, cx)
        })));
    }

    fn start_waiting(&self) {
        let waiting = core::mem::take(&mut self.tasks.borrow_mut().waiting);
        for id in waiting {
            self.shell(id);
        }
    }

    fn alive(&self) -> Vec<&'static str> {
        self.tasks.borrow().alive.values().map(|task| task.name).collect()
    }

    /// Drops every future at once and wakes the shells, which end.
    fn kill_all(&self) {
        self.crash.set(false);
        loop {
            let dying = core::mem::take(&mut self.tasks.borrow_mut().alive);
            if dying.is_empty() {
                return;
            }
            for task in dying.into_values() {
                drop(task.future);
                if let Some(shell) = task.waker {
                    shell.wake();
                }
            }
        }
    }
}

fn since_start(time: &TimeHandle) -> Nanos {
    let elapsed = u64::try_from(time.elapsed().as_nanos()).unwrap_or(u64::MAX);
    START_NS.saturating_add(elapsed)
}

fn poll_shell(tasks: &RefCell<Tasks>, id: u64, cx: &mut Context<'_>) -> Poll<()> {
    let taken = match tasks.borrow_mut().alive.get_mut(&id) {
        Some(task) => {
            task.waker = Some(cx.waker().clone());
            task.future.take()
        }
        None => None,
    };
    let Some(mut future) = taken else { return Poll::Ready(()) };
    let poll = future.as_mut().poll(cx);
    let ended = {
        let mut tasks = tasks.borrow_mut();
        match tasks.alive.get_mut(&id) {
            Some(task) if poll.is_pending() => {
                task.future = Some(future);
                None
            }
            _ => Some((tasks.alive.remove(&id), future)),
        }
    };
    // What the future held is dropped here, where it may call back into the runtime.
    drop(ended);
    poll
}

impl Runtime for MadsimRuntime {
    fn now(&self) -> Nanos {
        since_start(&self.time)
    }

    fn spawn(&self, name: &'static str, future: TaskFuture) {
        let id = {
            let mut tasks = self.tasks.borrow_mut();
            tasks.started += 1;
            let id = tasks.started;
            tasks.alive.insert(id, Task { name, future: Some(future), waker: None });
            id
        };
        if TimeHandle::try_current().is_some() {
            self.shell(id);
        } else {
            self.tasks.borrow_mut().waiting.push(id);
        }
    }

    fn poll_sleep(&self, at: Nanos, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        if at <= now {
            *timer = Timer::Idle;
            return Poll::Ready(());
        }
        if !matches!(timer, Timer::Future(_)) {
            let deadline = self.time.now_instant() + Duration::from_nanos(at.saturating_sub(now));
            let mut sleep = Box::pin(self.time.sleep_until(deadline));
            // `sleep_until` has a floor of 1 ms; a reset has none.
            sleep.as_mut().reset(deadline);
            *timer = Timer::Future(sleep);
        }
        match timer {
            Timer::Future(sleep) => sleep.as_mut().poll(cx),
            Timer::Idle | Timer::Key(_) => Poll::Pending,
        }
    }

    fn cancel_sleep(&self, timer: &mut Timer) {
        *timer = Timer::Idle;
    }

    fn request_crash(&self) {
        self.crash.set(true);
        if let Some(main) = self.main.take() {
            main.wake();
        }
    }

    fn note_progress(&self) {}
}

/// A world on madsim's scheduler.
pub struct MadsimSim {
    // Field order is drop order: the world ends before the scheduler.
    world: SimWorld,
    executor: Rc<MadsimRuntime>,
    madsim: madsim::runtime::Runtime,
}

impl fmt::Debug for MadsimSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadsimSim").field("world", &self.world).finish_non_exhaustive()
    }
}

impl MadsimSim {
    /// A world at its start with an empty disk. The seed decides choices and schedule.
    pub fn new(config: &SimConfig) -> Self {
        let madsim =
            madsim::runtime::Runtime::with_seed_and_config(config.seed, madsim::Config::default());
        let time = madsim.block_on(async { TimeHandle::current() });
        let trace = Rc::new(Trace::new(config.trace_log));
        let choices = Rc::new(Choices::new(config.seed, config.mode.clone(), Rc::clone(&trace)));
        let executor = Rc::new(MadsimRuntime {
            time,
            tasks: Rc::default(),
            crash: Cell::new(false),
            main: RefCell::new(None),
            trace: Rc::clone(&trace),
        });
        let shared: Rc<dyn Runtime> = Rc::<MadsimRuntime>::clone(&executor);
        let world = SimWorld::new(config, shared, choices, trace);
        Self { world, executor, madsim }
    }

    /// Runs until the future ends, or nothing can, or the process dies.
    pub fn run<T, F>(&self, main: F) -> RunEnd<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let executor = Rc::clone(&self.executor);
        let mut main = Box::pin(self.world.track(main));
        let watched = poll_fn(move |cx| {
            executor.main.replace(Some(cx.waker().clone()));
            executor.start_waiting();
            let poll = main.as_mut().poll(cx);
            match poll {
                Poll::Ready(value) => Poll::Ready(RunEnd::Done(value)),
                Poll::Pending if executor.crash.take() => Poll::Ready(RunEnd::Crashed),
                Poll::Pending => Poll::Pending,
            }
        });
        match catch_unwind(AssertUnwindSafe(|| self.madsim.block_on(watched))) {
            Ok(end) => end,
            Err(panic) => {
                let words = panic.downcast_ref::<&str>().copied().unwrap_or_default();
                if !words.starts_with(NO_EVENTS) {
                    resume_unwind(panic);
                }
                let mut waiting = vec!["main"];
                waiting.extend(self.executor.alive());
                RunEnd::Deadlock { waiting }
            }
        }
    }

    /// Names of the tasks that have not ended.
    pub fn alive(&self) -> Vec<&'static str> {
        self.executor.alive()
    }

    /// Kills the process: every task is dropped at once. The disk is left as it is.
    pub fn kill_all(&self) {
        self.world.end_epoch();
        self.executor.kill_all();
        // Lets the shells end, which would leak otherwise.
        self.madsim.block_on(async {});
    }

    /// Kills the process and goes on with what a kill leaves of the disk.
    pub fn kill(&self) -> CrashReport {
        self.kill_all();
        self.world.settle_kill()
    }

    /// Takes the power and goes on with what that leaves of the disk.
    pub fn power_loss(&self) -> CrashReport {
        self.kill_all();
        self.world.settle_power_loss()
    }
}

impl core::ops::Deref for MadsimSim {
    type Target = SimWorld;

    fn deref(&self) -> &SimWorld {
        &self.world
    }
}

impl Drop for MadsimSim {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.kill_all();
        }
    }
}
