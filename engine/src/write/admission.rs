//! Admission: asks the stall policy, serves its delays and stops, and reserves the bytes.
//!
//! A writer waits here, outside the commit queue, so that nothing in the queue ever waits for a
//! flush. Those that wait for bytes of the budget or the log stand in one line and are admitted in
//! its order; those that wait for their own tree do not hold up others.

use std::sync::Arc;

use event_listener::EventListener;

use crate::batch::BatchOp;
use crate::budget::{Place, Reservation};
use crate::env::{Env, wait_until};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::gc;
use crate::memtable::Memtable;
use crate::policy::stall::StallPolicy;
use crate::policy::view::{Admission, ChangeKind, StallCause, TreeChange, WriteView};
use crate::pressure::WriteFacts;
use crate::shared::{Request, Shared};
use crate::types::{BranchId, Nanos, TreeId};
use crate::version::tree::{Branch, Tree};

use super::stalls::{self, Stall};
use super::{log_limit, queue};

/// What the policy said, and whose tree causes it.
enum Answer {
    Admitted(Reservation),
    Delay(Nanos, StallCause, Arc<Tree>),
    Stop(StallCause, Arc<Tree>),
}

/// What a writer that was told to stop waits for. Its listeners are taken before it asks again.
#[derive(Default)]
struct Waits {
    /// Its place in the line for bytes of the budget or the log.
    place: Option<Place>,
    /// The tree whose memtables or L0 hold it up.
    tree: Option<Arc<Tree>>,
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
    stalls::share_device(shared);
    let mut delayed_ns: Nanos = 0;
    let mut stall = Stall::new(shared, ops.first().map(|(branch, _)| branch));
    let mut waits = Waits::default();
    loop {
        let in_line = waits.place.as_ref().map(Place::listen);
        let of_tree = waits.tree.as_ref().map(|tree| (tree.id, tree.released.listen()));
        shared.check_writable()?;
        shared.disk.check()?;
        match ask(shared, ops, bytes, (delayed_ns, waits.place.as_ref()))? {
            Answer::Admitted(reservation) => return Ok(reservation),
            Answer::Delay(delay_ns, cause, tree) => {
                waits = Waits::default();
                stall.begin(cause, &tree);
                let began = shared.env.now();
                let at = Some(began.saturating_add(delay_ns));
                wait_until(&shared.env, shared.eased.listen(), at).await;
                let waited = shared.env.now().saturating_sub(began);
                delayed_ns = delayed_ns.saturating_add(waited);
            }
            Answer::Stop(cause, tree) => {
                let listener = waits.listener(shared, (cause, &tree), (in_line, of_tree));
                if let Some(listener) = listener {
                    stall.begin(cause, &tree);
                    let since = stall.since().unwrap_or_else(|| shared.env.now());
                    let facts = (tree.id, cause, since);
                    let seat = ops.first().map(|(b, _)| shared.waiting.sit(b, facts));
                    let wish = shared.budget.wish(bytes);
                    if waits.place.as_ref().is_some_and(Place::is_first) {
                        // The policy may flush for a write that does not fit as for one that does.
                        queue::seal_victims(shared).await;
                    }
                    ensure_progress(shared, cause).await;
                    listener.await;
                    drop((seat, wish));
                }
            }
        }
    }
}

impl Waits {
    /// The listener to wait on, or `None` to ask again first: whoever waits must have taken its
    /// listener before it asked.
    fn listener<E: Env>(
        &mut self,
        shared: &Shared<E>,
        (cause, tree): (StallCause, &Arc<Tree>),
        (in_line, of_tree): (Option<EventListener>, Option<(TreeId, EventListener)>),
    ) -> Option<EventListener> {
        match cause {
            StallCause::Memtables | StallCause::L0 => {
                // A tree holds it up: those behind it in the line need not wait for that.
                self.place = None;
                let was_taken = of_tree.filter(|(id, _)| *id == tree.id);
                self.tree = Some(Arc::clone(tree));
                was_taken.map(|(_, listener)| listener)
            }
            StallCause::Budget | StallCause::Wal | StallCause::DiskFull => {
                self.tree = None;
                if self.place.is_none() {
                    self.place = Some(shared.budget.queue_up());
                }
                in_line
            }
        }
    }
}

/// Asks the policy about each tree of the batch; the first answer that is not "admit" counts.
fn ask<E: Env>(
    shared: &Shared<E>,
    ops: &[(Arc<Branch>, BatchOp)],
    bytes: u64,
    (delayed_ns, place): (Nanos, Option<&Place>),
) -> Result<Answer> {
    let home = |branch: &Branch| branch.places.first().map(|(tree, _)| tree.id);
    let now = shared.env.now();
    let waiting = ops.first().map_or(BranchId(0), |(branch, _)| branch.id);
    // Held from the look to the reservation, lest two writers take the same free bytes.
    let mut policy = shared.stall_policy.lock();
    for run in ops.chunk_by(|(a, _), (b, _)| home(a) == home(b)) {
        if run.iter().any(|(branch, _)| branch.is_dropped()) {
            return Err(Error::Dropped);
        }
        let places = run.first().and_then(|(branch, _)| branch.places.first());
        let Some((tree, _)) = places else { return Err(Error::Dropped) };
        if let Some(cause) = tree.failure() {
            return Err(Error::TreeFailed { tree: tree.id, cause });
        }
        let facts = WriteFacts {
            now_ns: now,
            branch: waiting,
            write_bytes: bytes,
            tree_bytes: run.iter().map(|(_, op)| op.charge()).sum(),
            delayed_ns,
            wal_bytes: shared.log.bytes(),
        };
        let world = (&*shared.budget, &shared.options);
        let view = shared.pressure.write_view(tree, world, facts);
        if let Some(answer) = decide(shared, policy.as_mut(), &view, tree) {
            if let Answer::Stop(cause, tree) = &answer {
                refuse_endless(shared, tree, (*cause, bytes))?;
            }
            return Ok(answer);
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

/// The policy's answer about one tree; `None` to go on. Another tree may cause it only as long as
/// something can end it.
fn decide<E: Env>(
    shared: &Shared<E>,
    policy: &mut dyn StallPolicy,
    view: &WriteView,
    tree: &Arc<Tree>,
) -> Option<Answer> {
    loop {
        let answer = policy.decide(view);
        let (Admission::Delay { cause, by, .. } | Admission::Stop { cause, by }) = answer else {
            return None;
        };
        let is_own = match cause {
            StallCause::Memtables | StallCause::L0 => by == tree.id,
            StallCause::Budget | StallCause::Wal | StallCause::DiskFull => true,
        };
        let other = || shared.set.tree(by).filter(|tree| stalls::may_hold_up(tree));
        let Some(tree) = (if is_own { Some(Arc::clone(tree)) } else { other() }) else {
            let (now_ns, limits) = (view.now_ns, view.limits);
            let kind = ChangeKind::Dropped;
            policy.observe(&TreeChange { now_ns, tree: by, kind, limits, ..Default::default() });
            continue;
        };
        return match answer {
            Admission::Admit => None,
            Admission::Delay { delay_ns, .. } => Some(Answer::Delay(delay_ns, cause, tree)),
            Admission::Stop { .. } => Some(Answer::Stop(cause, tree)),
        };
    }
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
            let mut held_bytes = 0_u64;
            for tree in shared.jobs.failed() {
                let Some(failure) = tree.failure() else { continue };
                let view = tree.view();
                let memtables = || view.memtable.iter().chain(&view.immutables);
                let pins = memtables().any(|m| m.anchor_segment() <= oldest);
                let counts = |m: &&Arc<Memtable>| shared.set.is_first_owner(tree.id, m);
                held_bytes += memtables().filter(counts).map(|m| m.bytes()).sum::<u64>();
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
        drop(queue::submit(shared, Request::Seal { trees, overridden: true, pack: false }).await);
    } else if cause == StallCause::Wal && shared.pressure.relogging_count() == 0 {
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
