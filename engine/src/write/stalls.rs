//! Who waits for what on whose account, and what the stall policy is told between writes.
//!
//! A wait is charged when its cause ends or changes: each part to its own cause. The branch that
//! waits is that of the batch's first entry. The branch that causes it is found when the part
//! begins: of a tree, its branch or, where branches share it, the one with the most bytes in its
//! memtables; of the budget, that of the tree with the most memtable bytes; of the log, that of the
//! tree whose memtable pins the oldest segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::Env;
use crate::events::Event;
use crate::layout::sole_branch_of;
use crate::policy::stall::SHARES_NS;
use crate::policy::view::{ChangeKind, StallCause};
use crate::shared::Shared;
use crate::types::{BranchId, Nanos, TreeId};
use crate::version::tree::{Branch, Tree};

/// A part of a wait: for one cause, on one tree's account where the cause is one tree's.
struct Part {
    cause: StallCause,
    by: Option<TreeId>,
    caused_by: BranchId,
    began: Nanos,
}

/// A write's wait, if it waits, up to its admission, its error or the drop of its future.
pub(crate) struct Stall<'a, E: Env> {
    shared: &'a Shared<E>,
    branch: Option<&'a Branch>,
    part: Option<Part>,
    since: Option<Nanos>,
    waited: bool,
}

impl<E: Env> Drop for Stall<'_, E> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<'a, E: Env> Stall<'a, E> {
    /// A write of this branch that does not wait so far.
    pub(crate) fn new(shared: &'a Shared<E>, branch: Option<&'a Arc<Branch>>) -> Self {
        Self { shared, branch: branch.map(AsRef::as_ref), part: None, since: None, waited: false }
    }

    /// From here on the write waits for this cause.
    pub(crate) fn begin(&mut self, cause: StallCause, tree: &Tree) {
        let by = match cause {
            StallCause::Memtables | StallCause::L0 => Some(tree.id),
            StallCause::Budget | StallCause::Wal | StallCause::DiskFull => None,
        };
        if self.part.as_ref().is_some_and(|p| p.cause == cause && p.by == by) {
            return;
        }
        self.end();
        let Some(branch) = self.branch else { return };
        let caused_by = blame(self.shared, cause, tree).unwrap_or(branch.id);
        self.shared.emit(&Event::StallBegin { branch: branch.id, cause, caused_by });
        let began = self.shared.env.now();
        self.since.get_or_insert(began);
        self.part = Some(Part { cause, by, caused_by, began });
    }

    /// When it began to wait, if it did.
    pub(crate) fn since(&self) -> Option<Nanos> {
        self.since
    }

    fn end(&mut self) {
        let (Some(part), Some(branch)) = (self.part.take(), self.branch) else { return };
        let Part { cause, caused_by, began, .. } = part;
        let elapsed_ns = self.shared.env.now().saturating_sub(began);
        let is_live = |id: BranchId| self.shared.set.branch(id).is_some();
        let stalls = &self.shared.counters.stalls;
        stalls.charge((cause, !self.waited), (branch.id, caused_by), elapsed_ns, is_live);
        self.waited = true;
        self.shared.emit(&Event::StallEnd { branch: branch.id, cause, caused_by, elapsed_ns });
    }
}

/// The branch that causes a wait; `None` where nothing that is held has one.
fn blame<E: Env>(shared: &Shared<E>, cause: StallCause, tree: &Tree) -> Option<BranchId> {
    match cause {
        StallCause::Memtables | StallCause::L0 => branch_of(shared, tree),
        StallCause::Budget | StallCause::DiskFull => {
            branch_of(shared, shared.pressure.largest()?.as_ref())
        }
        StallCause::Wal => {
            let anchor = |tree: &Tree| {
                let view = tree.view();
                let memtables = view.memtable.iter().chain(&view.immutables);
                memtables.map(|m| m.anchor_segment()).min()
            };
            let trees = shared.set.trees();
            let holding = trees.iter().filter_map(|t| Some((anchor(t)?, t)));
            let (_, oldest) = holding.min_by_key(|(anchor, tree)| (*anchor, tree.id))?;
            branch_of(shared, oldest)
        }
    }
}

fn branch_of<E: Env>(shared: &Shared<E>, tree: &Tree) -> Option<BranchId> {
    sole_branch_of(shared.set.layout(), tree.id).or_else(|| tree.leading_branch())
}

/// Whether a tree may hold up writes to others: what holds them up ends by a job of it.
pub(crate) fn may_hold_up(tree: &Tree) -> bool {
    !tree.is_dropped() && tree.failure().is_none() && tree.compaction_failure().is_none()
}

/// Tells the stall policy that a tree changed. Who waits for the tree is woken after this.
pub(crate) fn observe<E: Env>(shared: &Shared<E>, tree: &Tree, kind: ChangeKind) {
    let limits = shared.options.stall_limits();
    let mut policy = shared.stall_policy.lock();
    // Asked under the lock: of a tree that is gone nothing is told but that.
    let kind = if may_hold_up(tree) { kind } else { ChangeKind::Dropped };
    let change = shared.pressure.tree_change(tree, kind, (shared.env.now(), limits));
    let eased = policy.observe(&change);
    drop(policy);
    if eased {
        shared.eased.raise();
    }
}

/// Lets a stall policy that controls shares set them, where it is time to.
pub(crate) fn share_device<E: Env>(shared: &Shared<E>) {
    let now = shared.env.now();
    let at = shared.shares_at.load(Ordering::Relaxed);
    let next = now.saturating_add(SHARES_NS);
    let claim =
        || shared.shares_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    if now < at || claim().is_err() {
        return;
    }
    let view = shared.pressure.load_view(now, &shared.budget);
    let wished = shared.stall_policy.lock().shares(&view);
    if let Some(wished) = wished {
        shared.env.set_io_shares(wished.flush, wished.compaction);
    }
}
