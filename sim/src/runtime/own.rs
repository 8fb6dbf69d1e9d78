//! forebay's own executor: one thread, virtual nanoseconds, the next task drawn from the seed.
//!
//! Killing is immediate: every task is dropped at once, in slot order, which is what a killed
//! process looks like to its disk. No process-wide trick is played, so any number of runtimes can
//! live in one process, one after another or on several threads.
//!
//! Invariants: a task is in the ready queue at most once; a waker of a task that ended wakes
//! nobody; wakers are `Send + Sync` without unsafe code, since primitives in the engine may store
//! them.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::hash::BuildHasher;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use forebay_engine::types::{Nanos, to_u64, to_usize};

use super::{RunEnd, Runtime, START_NS, TaskFuture, Timer, WaitingTask};
use crate::choices::Choices;
use crate::clock::Timers;
use crate::trace::{Code, Trace};

/// Most ready tasks among which one choice is made; those behind wait their turn.
const CANDIDATES_MAX: usize = 64;

/// Who runs next among ready tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that waits longest: fast, for experiments.
    Fifo,
    /// A choice at the site `sched`.
    Seeded,
    /// A choice mixed with real entropy: the planted bug [`Unseeded`](crate::bugs::Bug::Unseeded).
    Unseeded,
}

type Key = (usize, u64);

#[derive(Debug, Default)]
struct ReadyQueue(Mutex<VecDeque<Key>>);

impl ReadyQueue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct TaskWaker {
    key: Key,
    queued: AtomicBool,
    ready: Arc<ReadyQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.lock().push_back(self.key);
        }
    }
}

struct Task {
    name: &'static str,
    generation: u64,
    /// `None` while it is polled.
    future: Option<TaskFuture>,
    state: Arc<TaskWaker>,
    waker: Waker,
    /// When it was last polled.
    ran_at: Nanos,
    /// Until when it sleeps, where its last poll asked for a timer.
    sleeps: Option<Nanos>,
}

#[derive(Default)]
struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<usize>,
    started: u64,
}

/// The executor.
pub struct OwnRuntime {
    order: Order,
    polls_max: u64,
    now: Cell<Nanos>,
    polls: Cell<u64>,
    crash: Cell<bool>,
    /// The task that was polled last.
    current: Cell<Option<Key>>,
    tasks: RefCell<Tasks>,
    ready: Arc<ReadyQueue>,
    timers: RefCell<Timers>,
    choices: Rc<Choices>,
    trace: Rc<Trace>,
    idle: RefCell<Option<Rc<dyn Fn()>>>,
}

impl fmt::Debug for OwnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRuntime")
            .field("order", &self.order)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl OwnRuntime {
    /// A runtime at [`START_NS`]. After `polls_max` polls without progress a run is a livelock.
    pub fn new(order: Order, polls_max: u64, choices: Rc<Choices>, trace: Rc<Trace>) -> Self {
        Self {
            order,
            polls_max,
            now: Cell::new(START_NS),
            polls: Cell::new(0),
            crash: Cell::new(false),
            current: Cell::new(None),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            choices,
            trace,
            idle: RefCell::default(),
        }
    }

    /// Calls this whenever nothing can run, before time moves on. It must not touch the world.
    pub fn on_idle(&self, look: Option<Rc<dyn Fn()>>) {
        *self.idle.borrow_mut() = look;
    }

    /// Runs tasks until the main future ends, or nothing can. Other tasks stay for the next run.
    pub fn run<T, F>(&self, main: F) -> RunEnd<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let slot = Rc::new(RefCell::new(None));
        let result = Rc::clone(&slot);
        self.spawn(
            "main",
            Box::pin(async move {
                let value = main.await;
                result.replace(Some(value));
            }),
        );
        self.polls.set(0);
        loop {
            if let Some(value) = slot.take() {
                return RunEnd::Done(value);
            }
            if self.crash.take() {
                return RunEnd::Crashed;
            }
            if let Some(key) = self.next_ready() {
                self.poll_task(key);
                let polls = self.polls.get().saturating_add(1);
                self.polls.set(polls);
                if polls > self.polls_max {
                    return RunEnd::Livelock { polls, alive: self.alive() };
                }
                continue;
            }
            let look = self.idle.borrow().clone();
            if let Some(look) = look {
                look();
            }
            if !self.advance() {
                return RunEnd::Deadlock { waiting: self.alive() };
            }
        }
    }

    /// Names of the tasks that have not ended, oldest slot first.
    pub fn alive(&self) -> Vec<&'static str> {
        self.tasks.borrow().slots.iter().flatten().map(|task| task.name).collect()
    }

    /// Every task that has not ended, oldest slot first: which, and what for it waits.
    pub fn waiting(&self) -> Vec<WaitingTask> {
        let tasks = self.tasks.borrow();
        let of = |task: &Task| WaitingTask {
            task: task.generation,
            name: task.name,
            ran_at: task.ran_at,
            sleeps: task.sleeps,
            is_ready: task.state.queued.load(Ordering::Acquire),
        };
        tasks.slots.iter().flatten().map(of).collect()
    }

    /// Drops every task at once, with those that dying tasks start.
    pub fn kill_all(&self) {
        self.crash.set(false);
        loop {
            let dying: Vec<Task> = {
                let mut tasks = self.tasks.borrow_mut();
                tasks.free.clear();
                core::mem::take(&mut tasks.slots).into_iter().flatten().collect()
            };
            if dying.is_empty() {
                break;
            }
            drop(dying);
        }
        self.ready.lock().clear();
        let wakers = self.timers.borrow_mut().clear();
        drop(wakers);
    }

    /// Jumps to the next timer and wakes all that are due; false where there is none.
    fn advance(&self) -> bool {
        let next = self.timers.borrow().next_at();
        let Some(at) = next else { return false };
        if at > self.now.get() {
            self.now.set(at);
            self.trace.set_now(at);
            self.polls.set(0);
        }
        loop {
            let due = self.timers.borrow_mut().pop_due(self.now.get());
            let Some(waker) = due else { return true };
            waker.wake();
        }
    }

    fn next_ready(&self) -> Option<Key> {
        let mut ready = self.ready.lock();
        let n = to_u64(ready.len().min(CANDIDATES_MAX));
        let at = match self.order {
            Order::Fifo => 0,
            Order::Seeded => self.choices.choose("sched", n),
            Order::Unseeded => {
                let drawn = self.choices.choose("sched", n);
                drawn.wrapping_add(entropy()).checked_rem(n).unwrap_or(0)
            }
        };
        if at == 0 { ready.pop_front() } else { ready.remove(to_usize(at)) }
    }

    fn poll_task(&self, (slot, generation): Key) {
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(Some(task)) = tasks.slots.get_mut(slot) else { return };
            if task.generation != generation {
                return;
            }
            task.state.queued.store(false, Ordering::Release);
            task.ran_at = self.now.get();
            task.sleeps = None;
            task.future.take().map(|future| (future, task.waker.clone()))
        };
        let Some((mut future, waker)) = taken else { return };
        self.current.set(Some((slot, generation)));
        self.trace.event(Code::Switch, generation);
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        let ended = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(entry) = tasks.slots.get_mut(slot) else { return };
            match (poll, entry.as_mut()) {
                (Poll::Pending, Some(task)) => {
                    task.future = Some(future);
                    None
                }
                (Poll::Ready(()), Some(_)) => {
                    let task = entry.take();
                    tasks.free.push(slot);
                    Some((task, future))
                }
                (_, None) => None,
            }
        };
        // What the future held is dropped here, where it may call back into the runtime.
        drop(ended);
    }
}

impl Runtime for OwnRuntime {
    fn now(&self) -> Nanos {
        self.now.get()
    }

    fn spawn(&self, name: &'static str, future: TaskFuture) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.started = tasks.started.wrapping_add(1);
        let generation = tasks.started;
        let slot = tasks.free.pop().unwrap_or(tasks.slots.len());
        let key = (slot, generation);
        let ready = Arc::clone(&self.ready);
        let state = Arc::new(TaskWaker { key, queued: AtomicBool::new(false), ready });
        let waker = Waker::from(Arc::clone(&state));
        let task = Task {
            name,
            generation,
            future: Some(future),
            state,
            waker: waker.clone(),
            ran_at: 0,
            sleeps: None,
        };
        if let Some(entry) = tasks.slots.get_mut(slot) {
            *entry = Some(task);
        } else {
            tasks.slots.push(Some(task));
        }
        waker.wake();
    }

    fn poll_sleep(&self, at: Nanos, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
        if at <= self.now.get() {
            self.cancel_sleep(timer);
            return Poll::Ready(());
        }
        if let Some((slot, _)) = self.current.get()
            && let Some(Some(task)) = self.tasks.borrow_mut().slots.get_mut(slot)
        {
            task.sleeps = Some(at);
        }
        let mut timers = self.timers.borrow_mut();
        match timer {
            Timer::Key(key) => timers.renew(*key, cx.waker()),
            Timer::Idle | Timer::Future(_) => {
                *timer = Timer::Key(timers.set(at, cx.waker().clone()));
            }
        }
        Poll::Pending
    }

    fn cancel_sleep(&self, timer: &mut Timer) {
        if let Timer::Key(key) = core::mem::take(timer) {
            self.timers.borrow_mut().cancel(key);
        }
    }

    fn request_crash(&self) {
        self.crash.set(true);
    }

    fn note_progress(&self) {
        self.polls.set(0);
    }

    fn current_task(&self) -> u64 {
        self.current.get().map_or(0, |(_, generation)| generation)
    }
}

/// Entropy that no seed decides, for the planted bug alone.
pub(crate) fn entropy() -> u64 {
    RandomState::new().hash_one(0_u8)
}
