#![cfg(test)]
//! Strategy: each unit under many interleavings, half of them random, half by priorities (PCT finds
//! bugs that need few, but awkward, switches). Both are seeded, so a failure comes back.
//! Invariants: one leader at a time, each request done at most once and answered exactly once; the
//! budget is never exceeded, nobody waits for ever, and at the end it is zero; a read sees every
//! write acknowledged before it began. Each model is also run with a known mistake, which it must
//! find.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use forebay_engine_shuttle::budget::Budget;
use forebay_engine_shuttle::group::{GroupQueue, Work};
use forebay_engine_shuttle::pointer::Pointer;
use forebay_engine_shuttle::signal::Signal;
use forebay_engine_shuttle::sync::{AtomicU64, Mutex, Ordering};
use shuttle::future::{block_on, yield_now};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;
use shuttle::{Config, Runner};

const SEED: u64 = 0xf0_4e_ba;
const ITERATIONS: usize = 2_000;

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    config
}

fn check(model: fn()) {
    Runner::new(RandomScheduler::new_from_seed(SEED, ITERATIONS), config()).run(model);
    Runner::new(PctScheduler::new_from_seed(SEED, 3, ITERATIONS), config()).run(model);
}

/// The model must fail under some interleaving.
fn must_fail(model: fn()) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(model)));
    assert!(outcome.is_err(), "the known mistake was not found");
}

/// What the leaders of a commit queue did.
#[derive(Debug, Default)]
struct Log {
    leaders: AtomicU64,
    done: Mutex<Vec<u64>>,
}

impl Work for Log {
    type Item = u64;
    type Reply = Option<usize>;

    fn joins(&self, group: &[u64], _next: &u64) -> bool {
        group.len() < 2
    }

    async fn run(&self, items: &mut Vec<u64>) -> Vec<Option<usize>> {
        assert_eq!(self.leaders.fetch_add(1, Ordering::SeqCst), 0, "two leaders at once");
        let leading = Leading(self);
        yield_now().await;
        let mut places = Vec::new();
        for item in items.iter() {
            let mut done = self.done.lock();
            places.push(Some(done.len()));
            done.push(*item);
        }
        yield_now().await;
        drop(leading);
        places
    }

    fn abandoned(&self) -> Option<usize> {
        None
    }
}

struct Leading<'a>(&'a Log);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.leaders.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn every_request_of_the_commit_queue_is_done_once_and_answered_with_its_place() {
    check(|| {
        let queue = Arc::new((GroupQueue::default(), Log::default()));
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for item in [writer * 10, writer * 10 + 1] {
                        let place = block_on(queue.0.submit(item, &queue.1)).unwrap();
                        assert_eq!(queue.1.done.lock().get(place), Some(&item));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        let mut done = queue.1.done.lock().clone();
        done.sort_unstable();
        assert_eq!(done, [0, 1, 10, 11, 20, 21]);
        assert!(queue.0.is_empty());
    });
}

#[test]
fn a_request_dropped_at_any_moment_wedges_nobody_and_nothing_is_done_twice() {
    check(|| {
        let queue = Arc::new((GroupQueue::default(), Log::default()));
        let fickle = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for item in [90, 91] {
                    let polls =
                        shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 1..4);
                    let mut request = pin!(queue.0.submit(item, &queue.1));
                    let mut cx = Context::from_waker(Waker::noop());
                    for _ in 0..polls {
                        if request.as_mut().poll(&mut cx).is_ready() {
                            break;
                        }
                        thread::yield_now();
                    }
                }
            })
        };
        let writers: Vec<_> = (0..2_u64)
            .map(|item| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || (item, block_on(queue.0.submit(item, &queue.1))))
            })
            .collect();
        fickle.join().unwrap();
        for writer in writers {
            let (item, place) = writer.join().unwrap();
            let times = queue.1.done.lock().iter().filter(|done| **done == item).count();
            // Without an answer the leader vanished: before its work or behind it.
            assert!(if place.is_some() { times == 1 } else { times <= 1 }, "{item}: {times}");
        }
        // The role was handed on by whoever vanished with it.
        assert!(block_on(queue.0.submit(7, &queue.1)).is_some());
        assert!(queue.0.is_empty());
    });
}

const LIMIT: u64 = 2;

/// A writer from its place in the line to the flush of what it wrote. `held` counts apart from the
/// budget, whose sum counts a byte twice for the moment in which it moves.
fn write_within(budget: &Arc<Budget>, held: &AtomicU64, look_first: bool) {
    let place = budget.queue_up();
    let reservation = loop {
        let listener = (!look_first).then(|| place.listen());
        if place.is_first() && budget.used_bytes() < LIMIT {
            assert!(held.fetch_add(1, Ordering::SeqCst) < LIMIT, "the budget is exceeded");
            break budget.reserve(1);
        }
        block_on(listener.unwrap_or_else(|| {
            thread::yield_now();
            place.listen()
        }));
    };
    drop(place);
    let mut reservation = reservation;
    reservation.charge(1);
    budget.seal(1);
    held.fetch_sub(1, Ordering::SeqCst);
    budget.release_immutable(1);
}

fn writers_share_a_budget(look_first: bool) {
    let (budget, held) = (Arc::new(Budget::new(LIMIT)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (budget, held) = (Arc::clone(&budget), Arc::clone(&held));
            thread::spawn(move || write_within(&budget, &held, look_first))
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(budget.used_bytes(), 0);
    assert!(!budget.has_waiters());
}

#[test]
fn writers_in_line_never_exceed_the_budget_and_all_get_through() {
    check(|| writers_share_a_budget(false));
}

#[test]
fn a_writer_that_looks_before_it_listens_is_found_to_wait_for_ever() {
    must_fail(|| writers_share_a_budget(true));
}

/// A tree of one key: its memtable, the sealed one, and its table, by sequence numbers.
#[derive(Clone, Debug, Default)]
struct View {
    memtable: Arc<Mutex<Vec<u64>>>,
    sealed: Option<Arc<Mutex<Vec<u64>>>>,
    table: Option<u64>,
}

#[derive(Debug, Default)]
struct Tree {
    view: Pointer<View>,
    published: AtomicU64,
    sealed: Signal,
}

impl Tree {
    fn write(&self, seq: u64) {
        self.view.with(|view| view.memtable.lock().push(seq));
        self.published.store(seq, Ordering::SeqCst);
    }

    fn seal(&self) {
        self.view.change(|view| view.sealed = Some(core::mem::take(&mut view.memtable)));
        self.sealed.raise();
    }

    /// Keeps the newest version only, as a flush without snapshots does.
    fn flush(&self) {
        let sealed = loop {
            let listener = self.sealed.listen();
            if let Some(sealed) = self.view.load().sealed.clone() {
                break sealed;
            }
            block_on(listener);
        };
        let newest = sealed.lock().iter().copied().max();
        self.view.change(|view| {
            view.sealed = None;
            view.table = newest.max(view.table);
        });
    }

    fn read(&self, number_first: bool) -> Option<u64> {
        let early = number_first.then(|| self.published.load(Ordering::SeqCst));
        let view = self.view.load();
        let at = early.unwrap_or_else(|| self.published.load(Ordering::SeqCst));
        let sealed = view.sealed.as_ref().map(|m| m.lock().clone()).unwrap_or_default();
        let memtable = view.memtable.lock().clone();
        memtable.into_iter().chain(sealed).chain(view.table).filter(|seq| *seq <= at).max()
    }
}

fn reads_beside_a_swap(number_first: bool) {
    let tree = Arc::new(Tree::default());
    tree.write(1);
    let flusher = {
        let tree = Arc::clone(&tree);
        thread::spawn(move || tree.flush())
    };
    let writer = {
        let tree = Arc::clone(&tree);
        thread::spawn(move || {
            tree.write(2);
            tree.seal();
            tree.write(3);
        })
    };
    let mut before = 0;
    for _ in 0..3 {
        let acknowledged = tree.published.load(Ordering::SeqCst);
        let seen = tree.read(number_first).unwrap_or(0);
        assert!(seen >= acknowledged.max(before), "{seen} read, {acknowledged} was acknowledged");
        before = seen;
    }
    writer.join().unwrap();
    flusher.join().unwrap();
    assert_eq!(tree.read(number_first), Some(3));
}

#[test]
fn a_read_beside_a_memtable_swap_sees_what_was_acknowledged_before_it() {
    check(|| reads_beside_a_swap(false));
}

#[test]
fn a_read_that_takes_its_number_before_the_view_is_found_to_lose_a_version() {
    must_fail(|| reads_beside_a_swap(true));
}
