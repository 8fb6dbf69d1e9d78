//! Tasks as threads, an executor with timers, and the clocks: what every world outside a simulation
//! shares.
//!
//! Each call of `block_on` runs one future on its thread. Timers live in a map of that thread and
//! wake the waker that waits for them and no other, so that thousands of sleeping futures in one
//! executor cost one poll each and no timer thread. A call inside a future of another call on the
//! same thread is fine: both serve the thread's timers, and each has its own wake flag.
#![expect(
    clippy::disallowed_types,
    reason = "the real clocks are read here and nowhere else in the engine"
)]

use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::task::Wake;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Instant, SystemTime};

use event_listener::{Event, EventListener};
use parking_lot::Mutex;

use crate::types::Nanos;

/// Nanoseconds since the process first asked, counted from 1 because 0 means never in policy views.
pub(super) fn now() -> Nanos {
    static START: OnceLock<Instant> = OnceLock::new();
    nanos(START.get_or_init(Instant::now).elapsed()).saturating_add(1)
}

/// Nanoseconds since 1970; 0 on a machine whose clock is set before that.
pub(super) fn wall() -> Nanos {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos)
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// A draw of splitmix64, seeded once per process by the operating system.
pub(super) fn random_u64() -> u64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    static STATE: OnceLock<AtomicU64> = OnceLock::new();
    let state = STATE.get_or_init(|| AtomicU64::new(RandomState::new().hash_one(0_u64)));
    let mut z = state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Default)]
struct Timers {
    next_id: u64,
    waiting: BTreeMap<(Nanos, u64), Waker>,
}

thread_local! {
    static TIMERS: RefCell<Timers> = RefCell::default();
}

/// Wakes what is due on this thread and returns the earliest deadline that is left.
fn fire_due() -> Option<Nanos> {
    loop {
        // The waker runs outside the borrow: it may drop or register a timer.
        let waker = TIMERS.with_borrow_mut(|timers| match timers.waiting.first_key_value() {
            None => Err(None),
            Some(((deadline, _), _)) if *deadline > now() => Err(Some(*deadline)),
            Some(_) => Ok(timers.waiting.pop_first().map(|(_, waker)| waker)),
        });
        match waker {
            Err(next) => return next,
            Ok(Some(waker)) => waker.wake(),
            Ok(None) => return None,
        }
    }
}

/// Ends at a deadline. Stays on the thread that polled it first.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct Sleep {
    deadline: Nanos,
    id: Option<u64>,
    // Its timer is registered with the executor of one thread.
    not_send: PhantomData<*const ()>,
}

/// A timer of this module's executor; under another executor it ends only when polled after
/// `deadline`.
pub(super) fn sleep_until(deadline: Nanos) -> Sleep {
    Sleep { deadline, id: None, not_send: PhantomData }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.deadline {
            return Poll::Ready(());
        }
        let replaced = TIMERS.with_borrow_mut(|timers| {
            let id = *self.id.get_or_insert_with(|| {
                timers.next_id += 1;
                timers.next_id
            });
            timers.waiting.insert((self.deadline, id), cx.waker().clone())
        });
        // Outside the borrow: the last waker of a task may drop a future, and with it a timer.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let key = (self.deadline, id);
        // A thread that ends has dropped its timers already. The waker is dropped outside the
        // borrow.
        drop(TIMERS.try_with(|timers| timers.borrow_mut().waiting.remove(&key)));
    }
}

struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

/// Runs a future to its end on this thread, parked while nothing is due.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let parker = Arc::new(Parker { thread: thread::current(), woken: AtomicBool::new(true) });
    let waker = Waker::from(Arc::clone(&parker));
    let mut cx = Context::from_waker(&waker);
    loop {
        if parker.woken.swap(false, Ordering::AcqRel)
            && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
        {
            return output;
        }
        let next = fire_due();
        if parker.woken.load(Ordering::Acquire) {
            continue;
        }
        match next {
            Some(deadline) => {
                thread::park_timeout(Duration::from_nanos(deadline.saturating_sub(now())));
            }
            None => thread::park(),
        }
    }
}

#[derive(Default)]
struct Ended {
    flag: AtomicBool,
    event: Event,
}

/// Says that the thread is through, also when it panicked.
struct EndOnDrop(Arc<Ended>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.flag.store(true, Ordering::Release);
        self.0.event.notify(usize::MAX);
    }
}

/// The join handle of a background thread: ready when its future ended. Dropping it lets the thread
/// run on.
///
/// # Panics
///
/// Polling it panics where the task panicked, with the task's own payload: a dead background task
/// must not look like one that finished.
pub struct Task {
    ended: Arc<Ended>,
    listener: Option<EventListener>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.ended.flag.load(Ordering::Acquire);
        f.debug_struct("Task").field("ended", &ended).finish_non_exhaustive()
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.ended.flag.load(Ordering::Acquire) {
                let thread = self.thread.lock().take();
                if let Some(Err(panic)) = thread.map(JoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                return Poll::Ready(());
            }
            match &mut self.listener {
                None => self.listener = Some(self.ended.event.listen()),
                Some(listener) => match Pin::new(listener).poll(cx) {
                    Poll::Ready(()) => self.listener = None,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

/// Runs what `build` makes on a thread of this name.
///
/// # Panics
///
/// Where the operating system has no thread to give, as `std::thread::spawn` does: a database
/// without its background tasks would wait for ever.
#[expect(
    clippy::panic,
    reason = "Env::spawn cannot fail, and going on without the task would hang"
)]
pub(super) fn spawn<F, Fut>(name: &'static str, build: F) -> Task
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let ended = Arc::new(Ended::default());
    let end = EndOnDrop(Arc::clone(&ended));
    let run = move || {
        let _end = end;
        block_on(build());
    };
    match thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(thread) => Task { ended, listener: None, thread: Mutex::new(Some(thread)) },
        Err(error) => panic!("cannot start the thread {name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    #[test]
    fn thousands_of_sleeps_in_one_executor_all_end_and_none_before_its_deadline() {
        let start = now();
        let ends = block_on(async {
            let mut sleeps: FuturesUnordered<_> = (0..5_000_u64)
                .map(|i| {
                    let at = start + 1_000 * (i * 7_919 % 5_000) + 5_000_000;
                    async move {
                        sleep_until(at).await;
                        (at, now())
                    }
                })
                .collect();
            let mut ends = Vec::new();
            while let Some(end) = sleeps.next().await {
                ends.push(end);
            }
            ends
        });
        assert_eq!(ends.len(), 5_000);
        assert!(ends.iter().all(|(at, end)| end >= at));
        TIMERS.with_borrow(|timers| assert!(timers.waiting.is_empty()));
    }

    #[test]
    fn a_dropped_sleep_leaves_no_timer() {
        let mut sleep = Box::pin(sleep_until(now() + 60_000_000_000));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        drop(sleep);
        TIMERS.with_borrow(|timers| assert!(timers.waiting.is_empty()));
    }

    #[test]
    fn an_executor_inside_another_serves_the_timers_of_both() {
        block_on(async {
            let outer = sleep_until(now() + 1_000_000);
            let mut outer = pin!(outer);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(outer.as_mut().poll(&mut cx).is_pending());
            block_on(sleep_until(now() + 3_000_000));
            outer.await;
        });
    }

    #[test]
    fn a_wake_from_another_thread_ends_a_park() {
        let event = Arc::new(Event::new());
        let listener = event.listen();
        let task = spawn("waker", {
            let event = Arc::clone(&event);
            move || async move {
                sleep_until(now() + 2_000_000).await;
                event.notify(1);
            }
        });
        block_on(listener);
        block_on(task);
    }

    #[test]
    #[should_panic(expected = "from the task")]
    fn a_panic_of_a_task_reaches_who_waits_for_it() {
        block_on(spawn("panics", || async { panic!("from the task") }));
    }
}
