//! What a world needs of an executor: time, timers, tasks, and a way to die at a chosen point.
//!
//! Two executors exist: [`own`] (the default) and madsim's, in a crate of its own that nothing
//! depends on. Everything above (disk, device, faults, CPU) is written against [`Runtime`] and is
//! the same under both. Yielding needs no method: waking oneself and returning `Pending` works
//! everywhere.

pub mod own;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use forebay_engine::types::Nanos;

use crate::clock::TimerKey;

/// Virtual time at which a world begins: not 0, which stands for "never" in an engine's views.
pub const START_NS: Nanos = 1_000_000_000;

/// A task. Lives on one thread.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// What a sleeper keeps between polls.
#[derive(Default)]
pub enum Timer {
    /// Not asleep yet, or awake again.
    #[default]
    Idle,
    /// A timer of [`own`].
    Key(TimerKey),
    /// A foreign executor's own future.
    Future(TaskFuture),
}

impl core::fmt::Debug for Timer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Key(key) => f.debug_tuple("Key").field(key).finish(),
            Self::Future(_) => f.write_str("Future"),
        }
    }
}

/// An executor under a world.
pub trait Runtime {
    /// Virtual monotonic time.
    fn now(&self) -> Nanos;

    /// Starts a task. The name is shown when the world hangs.
    fn spawn(&self, name: &'static str, task: TaskFuture);

    /// Ready at `at`; before that, sets or renews `timer`.
    fn poll_sleep(&self, at: Nanos, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<()>;

    /// Gives up a sleep.
    fn cancel_sleep(&self, timer: &mut Timer);

    /// Ends the run after the current poll: the process dies here.
    fn request_crash(&self);

    /// Tells the livelock detector that an operation ended.
    fn note_progress(&self);

    /// Number of the task that runs; 0 where it is not known.
    fn current_task(&self) -> u64 {
        0
    }
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingTask {
    /// Its number.
    pub task: u64,
    /// Its name.
    pub name: &'static str,
    /// When it last ran.
    pub ran_at: Nanos,
    /// Until when it sleeps, unless a signal comes before.
    pub sleeps: Option<Nanos>,
    /// Whether it could run.
    pub is_ready: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd<T> {
    /// The main future ended with this.
    Done(T),
    /// Nothing can run and no timer is set; the names of the tasks that wait.
    Deadlock {
        /// Names of waiting tasks, the main future included, in the order in which they began.
        waiting: Vec<&'static str>,
    },
    /// Too many polls without virtual time moving or progress being noted.
    Livelock {
        /// How many polls.
        polls: u64,
        /// Names of the tasks alive.
        alive: Vec<&'static str>,
    },
    /// A crash was requested. Tasks are still there until killed.
    Crashed,
}

impl<T> RunEnd<T> {
    /// The result of a main future that ended.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Deadlock { .. } | Self::Livelock { .. } | Self::Crashed => None,
        }
    }
}

/// Lets other tasks run once.
#[derive(Debug, Default)]
pub struct Reschedule {
    done: bool,
}

impl Future for Reschedule {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Ready(());
        }
        self.done = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Ends at an instant of a runtime.
pub struct Sleep<'a> {
    runtime: &'a dyn Runtime,
    at: Nanos,
    timer: Timer,
}

impl<'a> Sleep<'a> {
    /// A sleep until `at`.
    pub fn new(runtime: &'a dyn Runtime, at: Nanos) -> Self {
        Self { runtime, at, timer: Timer::Idle }
    }
}

impl core::fmt::Debug for Sleep<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sleep").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.runtime.poll_sleep(this.at, &mut this.timer, cx)
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if !matches!(self.timer, Timer::Idle) {
            self.runtime.cancel_sleep(&mut self.timer);
        }
    }
}
