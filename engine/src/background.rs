//! The one scheduler: workers for flushes and compactions, and the ticker for what is due by time.

use std::sync::Arc;

use crate::compaction;
use crate::env::{Env, wait_until};
use crate::error::Error;
use crate::events::Event;
use crate::flush;
use crate::gc;
use crate::jobs::{FlushJob, Next};
use crate::policy::view::StallCause;
use crate::shared::{Request, Shared};
use crate::space;
use crate::types::Nanos;
use crate::version::tree::Tree;
use crate::write::{admission, queue, relog, stalls};

/// A reclaim or a spare segment that failed is tried again after this long.
const RETRY_NS: Nanos = 100_000_000;

/// How often tables that a reader still holds are looked at again.
const COLLECT_NS: Nanos = 1_000_000_000;

/// A job that failed so often in a row fails its tree: with the waits between, after some ten
/// seconds.
const TRIES_MAX: u32 = 10;

/// Starts the background tasks. Each holds the directory's lock until it has ended.
pub(crate) fn start<E: Env>(shared: &Arc<Shared<E>>, lock: &Arc<E::Lock>) -> Vec<E::Task> {
    let mut tasks = Vec::new();
    for _ in 0..shared.options.flush_slots {
        let shared = Arc::clone(shared);
        let (env, lock) = (shared.env.clone(), Arc::clone(lock));
        tasks.push(env.spawn("flush", move || async move {
            flush_worker(&shared).await;
            drop(lock);
        }));
    }
    for _ in 0..shared.options.compaction_slots {
        let shared = Arc::clone(shared);
        let (env, lock) = (shared.env.clone(), Arc::clone(lock));
        tasks.push(env.spawn("compaction", move || async move {
            compaction_worker(&shared).await;
            drop(lock);
        }));
    }
    let ticking = Arc::clone(shared);
    let lock = Arc::clone(lock);
    tasks.push(shared.env.spawn("ticker", move || async move {
        ticker(&ticking).await;
        drop(lock);
    }));
    tasks
}

async fn flush_worker<E: Env>(shared: &Arc<Shared<E>>) {
    loop {
        let listener = shared.jobs.changed.listen();
        if shared.is_closing() {
            return;
        }
        match shared.jobs.next_flush(shared.env.now(), shared.options.pack_target_bytes()) {
            Next::Wait(at) => wait_until(&shared.env, listener, at).await,
            Next::Run(job) => {
                let at_work = shared.waiting.work();
                let failed = match flush::run(shared, &job).await {
                    Ok(()) => false,
                    Err(error) => flush_failed(shared, &job, &error),
                };
                shared.jobs.flush_done(&job, failed.then(|| shared.env.now()));
                stalls::share_device(shared);
                space::ask(shared).await;
                shared.job_ended.raise();
                // A writer may wait for a budget that no seal would free any more.
                if shared.budget.has_waiters() {
                    admission::ensure_progress(shared, StallCause::Budget).await;
                }
                drop(at_work);
            }
        }
    }
}

/// Tells of a failed flush. Returns whether it is tried again. What failed together is tried again
/// one by one, whatever the error: it may be that of one tree.
fn flush_failed<E: Env>(shared: &Shared<E>, job: &FlushJob, error: &Error) -> bool {
    let mut again = job.is_packed();
    for (tree, _) in job.members() {
        let tries = shared.jobs.flush_tries(tree.id);
        again |= report(shared, tree, (error, tries));
        if !again {
            fail_for_good(shared, tree, error);
        }
    }
    again
}

/// A flush of a tree failed for good, and with it every tree that shares a memtable which a failed
/// one would have to flush: its own are newer and are not flushed before that.
fn fail_for_good<E: Env>(shared: &Shared<E>, tree: &Arc<Tree>, error: &Error) {
    let mut failed = vec![Arc::clone(tree)];
    let fail = |tree: &Arc<Tree>| {
        tree.fail(error.clone());
        if !tree.is_dropped() {
            shared.jobs.add_failed(tree);
        }
    };
    fail(tree);
    // Until nothing is new: a fork may become an owner meanwhile. One that does so behind the last
    // look finds its parent failed.
    loop {
        let mut more = Vec::new();
        for home in &failed {
            for memtable in home.view().immutables.iter().filter(|m| m.home == home.id) {
                let (trees, beside) = shared.set.owners(&memtable.owners());
                more.extend(trees.into_iter().chain(beside).filter(|t| t.failure().is_none()));
            }
        }
        if more.is_empty() {
            break;
        }
        more.iter().for_each(fail);
        failed.extend(more);
    }
    // Whoever waits for what they hold is told.
    shared.wake_writers();
}

async fn compaction_worker<E: Env>(shared: &Arc<Shared<E>>) {
    loop {
        let listener = shared.jobs.changed.listen();
        if shared.is_closing() {
            return;
        }
        match shared.jobs.next_compaction(shared.env.now()) {
            Next::Wait(at) => wait_until(&shared.env, listener, at).await,
            Next::Run(tree) => {
                let at_work = shared.waiting.work();
                let failed = match compaction::run(shared, &tree).await {
                    Ok(()) => {
                        if tree.compaction_failure().is_some() {
                            tree.fail_compaction(None);
                        }
                        false
                    }
                    Err(error) => {
                        let tries = shared.jobs.compaction_tries(tree.id);
                        let again = report(shared, &tree, (&error, tries));
                        if !again {
                            tree.fail_compaction(Some(error));
                        }
                        again
                    }
                };
                space::ask(shared).await;
                let wait = shared.jobs.compaction_outcome(tree.id, failed);
                shared.schedule_compaction(&tree, shared.env.now() + wait);
                shared.jobs.compaction_done(tree.id);
                stalls::share_device(shared);
                shared.job_ended.raise();
                drop(at_work);
            }
        }
    }
}

/// Tells of a failed job. Returns whether it is tried again: damage is for good, and so is what
/// failed too often. A full disk ends by itself.
fn report<E: Env>(shared: &Shared<E>, tree: &Tree, (error, tries): (&Error, u32)) -> bool {
    shared.counters.job_failed_count.add(1);
    shared.emit(&Event::JobFailed { tree: tree.id, error: error.to_string() });
    if error.is_storage_full() {
        shared.disk.suspect();
        return true;
    }
    let for_good = matches!(error, Error::Corruption { .. } | Error::InvalidArgument(_));
    let often = matches!(error, Error::Io { .. }) && tries + 1 >= TRIES_MAX;
    !for_good && !often
}

/// Interval syncs, and the times at which the flush policy asked to be asked.
async fn ticker<E: Env>(shared: &Arc<Shared<E>>) {
    let interval = shared.options.sync_interval_ns;
    // What recovery replayed may fill the budget already.
    queue::seal_victims(shared).await;
    // The log may be above a limit that was higher when it was written.
    queue::seal_pinning_at_open(shared).await;
    let mut next_sync: Option<Nanos> = None;
    let mut sync_failed = false;
    let mut spare_at: Option<Nanos> = None;
    loop {
        let listener = shared.tick.listen();
        if shared.is_closing() {
            return;
        }
        let now = shared.env.now();
        if next_sync.is_none() {
            // Cleared before the look: a write that comes after it raises the signal again.
            shared.sync_due.swap(false, core::sync::atomic::Ordering::AcqRel);
        }
        let unsynced = !shared.is_log_durable();
        match next_sync {
            Some(at) if at <= now => {
                // A failure makes the database read-only, but on a full disk.
                sync_failed = queue::submit(shared, Request::Sync).await.is_err();
                next_sync = None;
                continue;
            }
            None if interval > 0 && unsynced && shared.check_writable().is_ok() => {
                // A sync that fails on a full disk is not to be tried without pause.
                let pause = if sync_failed || shared.disk.is_full() { RETRY_NS } else { 0 };
                next_sync = Some(now + interval.max(pause));
                shared.sync_due.store(true, core::sync::atomic::Ordering::Release);
            }
            Some(_) | None => {}
        }
        let policy_at = shared.pressure.wake_at();
        if policy_at.is_some_and(|at| at <= now) {
            queue::seal_victims(shared).await;
        }
        let policy_at = shared.pressure.wake_at().filter(|at| *at > now);
        gc::collect(shared).await;
        let relogged = relog::run(shared).await;
        gc::reclaim_log(shared).await;
        if relogged {
            // The next segment's turn.
            queue::seal_pinning(shared).await;
        }
        // Where the reclaim failed, it is tried again: writers may wait for it.
        let lagging = shared.log.floor() > shared.log.oldest();
        let retry_at = lagging.then(|| shared.env.now() + RETRY_NS);
        // Readers do not tell when they let go of a table, and an idle database gets no other tick.
        let is_left = !shared.garbage.lock().is_empty();
        let collect_at = is_left.then(|| shared.env.now() + COLLECT_NS);
        if shared.disk.is_full() || shared.disk.is_suspected() {
            space::ask(shared).await;
        }
        let now = shared.env.now();
        if spare_at.is_none_or(|at| at <= now) {
            spare_at = space::ensure_spare(shared).await.then(|| shared.env.now() + RETRY_NS);
        }
        let ask_at = shared.disk.is_full().then(|| shared.disk.ask_at());
        let at = [next_sync, policy_at, retry_at, collect_at, ask_at, spare_at]
            .into_iter()
            .flatten()
            .min();
        wait_until(&shared.env, listener, at).await;
    }
}
