//! Admission: asks the stall policy, serves its delays and stops, and reserves the bytes.
//!
//! A writer waits here, outside the commit queue, so that nothing in the queue ever waits for a
//! flush. Those that wait for bytes of the budget or the log stand in one line and are admitted in
//! its order; those that wait for their own tree do not hold up others.

use std::sync::Arc;

use event_listener::EventListener;

use crate::batch::BatchOp;
use crate::budget::{Place, Reservation};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::gc;
use crate::policy::view::{Admission, StallCause};
use crate::pressure;
use crate::shared::{Request, Shared};
use crate::types::{Nanos, TreeId};
use crate::version::tree::{Branch, Tree};

use super::{log_limit, queue};

/// A write that waits, from its first delay or stop to its admission.
struct Stall<'a, E: Env> {
    shared: &'a Shared<E>,
    branch: &'a Branch,
    cause: StallCause,
    caused_by: TreeId,
    began: Nanos,
}

impl<E: Env> Drop for Stall<'_, E> {
    fn drop(&mut self) {
        let elapsed_ns = self.shared.env.now().saturating_sub(self.began);
        self.shared.counters.stalled(self.cause, elapsed_ns);
        self.branch.stall_ns.add(elapsed_ns);
        self.shared.emit(&Event::StallEnd {
            branch: self.branch.id,
            cause: self.cause,
            caused_by: self.caused_by,
            elapsed_ns,
        });
    }
}

/// What the policy said, and of which tree.
enum Answer {
    Admitted(Reservation),
    Delay(Nanos, StallCause, Arc<Tree>),
    Stop(StallCause, Arc<Tree>),
}

/// Waits until a batch may be written; its bytes are then reserved for all its trees at once.
///
/// # Errors
///
/// `BatchTooLarge`, `Dropped`, `TreeFailed`, `DiskFull`, `ReadOnly` or `Closed`; nothing is
/// reserved.
pub(crate) async fn admit<E: Env>(
    shared: &Shared<E>,
    ops: &[(Arc<Branch>, BatchOp)],
) -> Result<Reservation> {
    let bytes: u64 = ops.iter().map(|(_, op)| op.charge()).sum();
    let bytes_max = shared.options.batch_limit_bytes();
    if bytes > bytes_max {
        return Err(Error::BatchTooLarge { bytes, bytes_max });
    }
    let mut delayed_ns = 0;
    let mut stall: Option<Stall<'_, E>> = None;
    let mut place: Option<Place> = None;
    loop {
        let listener = place.as_ref().map(Place::listen);
        shared.check_writable()?;
        shared.disk.check()?;
        match ask(shared, ops, bytes, (delayed_ns, place.as_ref()))? {
            Answer::Admitted(reservation) => return Ok(reservation),
            Answer::Delay(delay_ns, cause, tree) => {
                drop(place.take());
                begin(shared, ops, (cause, &tree), &mut stall);
                delayed_ns += delay_ns;
                shared.env.sleep_until(shared.env.now() + delay_ns).await;
            }
            Answer::Stop(cause, tree) => {
                begin(shared, ops, (cause, &tree), &mut stall);
                if let Some(listener) = listen(shared, cause, &tree, (&mut place, listener)) {
                    ensure_progress(shared, cause).await;
                    let since = stall.as_ref().map_or_else(|| shared.env.now(), |s| s.began);
                    let facts = (tree.id, cause, since);
                    let seat = ops.first().map(|(b, _)| shared.waiting.sit(b, facts));
                    listener.await;
                    drop(seat);
                }
            }
        }
    }
}

/// The listener to wait on, or `None` to look again first: whoever waits must have taken its
/// listener before it looked.
fn listen<E: Env>(
    shared: &Shared<E>,
    cause: StallCause,
    tree: &Tree,
    (place, listener): (&mut Option<Place>, Option<EventListener>),
) -> Option<EventListener> {
    match cause {
        StallCause::Memtables | StallCause::L0 => {
            // Its own tree holds it up: those behind it in the line need not wait for that.
            drop(place.take());
            let listener = tree.released.listen();
            let view = tree.view();
            let limits = shared.options.stall_limits();
            let memtables = u32::try_from(view.immutables.len()).unwrap_or(u32::MAX);
            let full = memtables >= limits.memtable_stop_count
                || view.version.l0_count() >= limits.l0_stop_count;
            let still = full
                && tree.failure().is_none()
                && (cause != StallCause::L0 || tree.compaction_failure().is_none())
                && !tree.is_dropped()
                && shared.check_writable().is_ok()
                && !shared.disk.is_full();
            still.then_some(listener)
        }
        StallCause::Budget | StallCause::Wal | StallCause::DiskFull => {
            if place.is_none() {
                *place = Some(shared.budget.queue_up());
            }
            listener
        }
    }
}

fn begin<'a, E: Env>(
    shared: &'a Shared<E>,
    ops: &'a [(Arc<Branch>, BatchOp)],
    (cause, tree): (StallCause, &Tree),
    stall: &mut Option<Stall<'a, E>>,
) {
    let (None, Some((branch, _))) = (&stall, ops.first()) else { return };
    let caused_by = match cause {
        StallCause::Memtables | StallCause::L0 => tree.id,
        StallCause::Budget | StallCause::Wal | StallCause::DiskFull => {
            shared.pressure.largest().unwrap_or(tree.id)
        }
    };
    shared.emit(&Event::StallBegin { branch: branch.id, cause });
    let began = shared.env.now();
    *stall = Some(Stall { shared, branch: branch.as_ref(), cause, caused_by, began });
}

/// Asks the policy about each tree of the batch; the first answer that is not "admit" counts.
fn ask<E: Env>(
    shared: &Shared<E>,
    ops: &[(Arc<Branch>, BatchOp)],
    bytes: u64,
    (delayed_ns, place): (Nanos, Option<&Place>),
) -> Result<Answer> {
    let now = shared.env.now();
    // Held from the look to the reservation, lest two writers take the same free bytes.
    let mut policy = shared.stall_policy.lock();
    let mut last: Option<TreeId> = None;
    for (branch, _) in ops {
        if branch.is_dropped() {
            return Err(Error::Dropped);
        }
        let Some((tree, _)) = branch.places.first() else { return Err(Error::Dropped) };
        if last == Some(tree.id) {
            continue;
        }
        last = Some(tree.id);
        if let Some(cause) = tree.failure() {
            return Err(Error::TreeFailed { tree: tree.id, cause });
        }
        let wal_bytes = shared.log.bytes();
        let facts = (now, bytes, delayed_ns);
        let view = pressure::write_view(tree, &shared.budget, &shared.options, wal_bytes, facts);
        match policy.decide(&view) {
            Admission::Admit => {}
            Admission::Delay { delay_ns, cause } => {
                return Ok(Answer::Delay(delay_ns, cause, Arc::clone(tree)));
            }
            Admission::Stop { cause } => {
                refuse_endless(shared, tree, (cause, bytes))?;
                return Ok(Answer::Stop(cause, Arc::clone(tree)));
            }
        }
    }
    let in_line = place.map_or_else(|| shared.budget.has_waiters(), |p| !p.is_first());
    if in_line && let Some((tree, _)) = ops.first().and_then(|(b, _)| b.places.first()) {
        return Ok(Answer::Stop(StallCause::Budget, Arc::clone(tree)));
    }
    let reservation = shared.budget.reserve(bytes);
    shared.counters.memtable_bytes_max_seen.raise_to(shared.budget.used_bytes());
    Ok(Answer::Admitted(reservation))
}

/// A stop that would never end, since the job that could end it failed for good, is an error.
fn refuse_endless<E: Env>(
    shared: &Shared<E>,
    tree: &Tree,
    (cause, bytes): (StallCause, u64),
) -> Result<()> {
    let refuse = |tree: TreeId, cause| Err(Error::TreeFailed { tree, cause });
    match cause {
        StallCause::L0 => tree.compaction_failure().map_or(Ok(()), |cause| refuse(tree.id, cause)),
        // Asked for this tree already, and no other holds it up.
        StallCause::Memtables | StallCause::DiskFull => Ok(()),
        StallCause::Wal | StallCause::Budget => {
            let oldest = shared.log.oldest();
            let mut held_bytes = 0;
            let failed = shared.set.trees().into_iter().filter_map(|t| Some((t.failure()?, t)));
            for (failure, tree) in failed {
                let view = tree.view();
                let memtables = || view.memtable.iter().chain(&view.immutables);
                let pins = memtables().any(|m| m.anchor_segment <= oldest);
                held_bytes += memtables().map(|m| m.bytes()).sum::<u64>();
                let too_much = held_bytes.saturating_add(bytes) > shared.budget.limit_bytes();
                if (cause == StallCause::Wal && pins) || (cause == StallCause::Budget && too_much) {
                    return refuse(tree.id, failure);
                }
            }
            Ok(())
        }
    }
}

/// Liveness is the engine's, not the policy's: where a writer waits and no job runs that can end
/// its cause, a flush is picked here. While flushed memtables are kept, that frees nothing: then
/// the oldest of them goes.
pub(crate) async fn ensure_progress<E: Env>(shared: &Shared<E>, cause: StallCause) {
    if !shared.options.policy_override || shared.jobs.flush_count() > 0 {
        return;
    }
    let _at_work = shared.waiting.work();
    let trees: Vec<Arc<Tree>> = match cause {
        StallCause::Budget | StallCause::DiskFull => {
            if release_history(shared) {
                return;
            }
            shared.pressure.override_victim().into_iter().collect()
        }
        StallCause::Wal => log_limit::overridden(shared),
        StallCause::Memtables | StallCause::L0 => return,
    };
    // Where the queue refuses, the database closes or is read-only, and the writer is told.
    if !trees.is_empty() {
        drop(queue::submit(shared, Request::Seal { trees, overridden: true }).await);
    } else if cause == StallCause::Wal {
        // Nothing pins the log but its newest segment: the queue's leader begins the next one.
        drop(queue::submit(shared, Request::Sync).await);
        gc::reclaim_log(shared).await;
    }
}

/// Lets go of the oldest flushed memtable that is kept. Returns whether there was one.
fn release_history<E: Env>(shared: &Shared<E>) -> bool {
    if shared.budget.history_bytes() == 0 {
        return false;
    }
    let oldest = |tree: Arc<Tree>| Some((tree.view().history.last().cloned()?, tree));
    let kept = shared.set.trees().into_iter().filter_map(oldest);
    let Some((memtable, tree)) = kept.min_by_key(|(m, tree)| (m.max_seq(), tree.id)) else {
        return false;
    };
    let mut gone = false;
    tree.change(|view| {
        gone = view.history.pop_if(|m| Arc::ptr_eq(m, &memtable)).is_some();
    });
    if gone {
        shared.counters.policy_override_count.add(1);
        shared.emit(&Event::PolicyOverride { tree: tree.id });
        shared.budget.release_history(memtable.bytes());
    }
    // Where another took it, memory is free all the same.
    true
}
