//! Forks: a branch that begins with all of another's tables, and copies none.
//!
//! The fork is a barrier in the commit queue. Between two groups it takes its number, seals the
//! parent's memtable or copies it, makes the child an owner of the parent's immutable memtables,
//! and takes its place in the order of edits. From there on every edit that adds or removes a table
//! of the parent is on one side of the fork, and what is flushed behind it goes to both. Off the
//! queue the log is made durable through the number, then the edit is written, then the fork is
//! acknowledged. The edit names no table: the child begins with what its parent has at that place,
//! so the cost does not depend on the size of the data.
//!
//! A fork that fails, or whose future is dropped before its edit is written, leaves the parent as
//! it was but for the seal, and the child is forgotten like a tree that was dropped.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::{Env, Work};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::layout;
use crate::memtable::Memtable;
use crate::options::{ForkMemtable, Layout};
use crate::policy::view::ChangeKind;
use crate::shared::{Barrier, Request, Shared};
use crate::tenancy::{self, Claim};
use crate::types::{BranchId, SeqNo, TreeId};
use crate::version::edit::Edit;
use crate::version::manifest::{Commit, CommitPlace, Install};
use crate::version::tree::{Branch, Tree};

use super::{fork_copy, queue, stalls};

/// Up to so many bytes a memtable is copied where the option says `auto`.
const AUTO_COPY_BYTES_MAX: u64 = 64 * 1024;

/// A fork that is durable.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) branch: Arc<Branch>,
    /// It began with the parent's entries up to this number.
    pub(crate) seq: SeqNo,
    /// Bytes that were copied for it: of entries in memory, and of tables where branches share
    /// trees.
    pub(crate) copied_bytes: u64,
}

/// What the barrier came to.
struct Begun {
    place: CommitPlace,
    seq: SeqNo,
    copied_bytes: u64,
}

/// Forks a branch.
///
/// # Errors
///
/// `InvalidArgument` for a bad name, `TenantExists`, `Dropped`, `DiskFull`, `Closed` or `ReadOnly`:
/// nothing changed. The world's: there is no such branch, but it may be there at the next open.
pub(crate) async fn run<E: Env>(
    shared: &Arc<Shared<E>>,
    parent: &Arc<Branch>,
    (name, memtable): (&str, ForkMemtable),
) -> Result<Forked> {
    layout::check_name(name)?;
    shared.check_writable()?;
    shared.disk.check()?;
    let full_name = layout::full_name(&parent.tenant, name);
    let claim = Claim::new(shared, &[&full_name])?;
    if shared.set.named(&full_name).is_some() {
        return Err(Error::TenantExists(full_name));
    }
    if parent.is_dropped() {
        return Err(Error::Dropped);
    }
    let child = BranchId(shared.set.take_ids(1));
    let began = shared.env.now();
    let wish = Wish { parent: Arc::clone(parent), full_name, child, memtable, claim };
    let forked = match shared.options.layout {
        Layout::PerTenant => fork_tree(shared, wish).await?,
        Layout::Grouped(_) | Layout::Shared => fork_copy::run(shared, wish).await?,
    };
    shared.counters.fork_count.add(1);
    shared.counters.fork_copied_bytes.add(forked.copied_bytes);
    let elapsed_ns = shared.env.now().saturating_sub(began);
    let (branch, parent) = (forked.branch.id, parent.id);
    let (fork_seq, copied_bytes) = (forked.seq, forked.copied_bytes);
    shared.emit(&Event::Forked { branch, parent, fork_seq, copied_bytes, elapsed_ns });
    Ok(forked)
}

/// A fork that is asked for.
pub(super) struct Wish<E: Env> {
    pub(super) parent: Arc<Branch>,
    pub(super) full_name: String,
    pub(super) child: BranchId,
    memtable: ForkMemtable,
    pub(super) claim: Claim<E>,
}

async fn fork_tree<E: Env>(shared: &Arc<Shared<E>>, wish: Wish<E>) -> Result<Forked> {
    let begun = Arc::new(Mutex::new(None));
    let branch = Arc::new(Mutex::new(None));
    let barrier = {
        let (shared, begun, branch) = (Arc::clone(shared), Arc::clone(&begun), Arc::clone(&branch));
        move || {
            let at = begin(&shared, wish, &branch)?;
            let seq = at.seq;
            *begun.lock() = Some(at);
            Ok(seq)
        }
    };
    queue::submit(shared, Request::Barrier(Barrier::new(barrier))).await?;
    let Some(Begun { place, seq, copied_bytes }) = begun.lock().take() else {
        return Err(Error::Interrupted);
    };
    let outcome = shared.manifest.finish(place).await;
    if outcome.is_err() {
        // The next leader gives back what the child held in memory.
        tenancy::settle_dropped(shared).await;
    }
    outcome?;
    // Nothing where the parent was dropped before the edit's place.
    let branch = branch.lock().take().ok_or(Error::Dropped)?;
    Ok(Forked { branch, seq, copied_bytes })
}

/// Everything of a fork that happens between two groups of writes. Only the queue's leader may call
/// this.
fn begin<E: Env>(
    shared: &Arc<Shared<E>>,
    wish: Wish<E>,
    branch: &Arc<Mutex<Option<Arc<Branch>>>>,
) -> Result<Begun> {
    let Wish { parent, full_name, child, memtable, claim } = wish;
    let Some((from, _)) = parent.places.first() else { return Err(Error::Dropped) };
    if parent.is_dropped() {
        return Err(Error::Dropped);
    }
    if let Some(cause) = from.failure() {
        return Err(Error::TreeFailed { tree: from.id, cause });
    }
    let seq = shared.visible_seq();
    let lineage = from.lineage.child_of(from.id, seq);
    let tree = shared.set.new_tree(TreeId(child.0)).forked(from.family, lineage);
    let tree = Arc::new(tree);
    let copied = copy(shared, from, (&tree, memtable));
    if copied.is_none() {
        queue::seal(shared, core::slice::from_ref(from), false);
    }
    let copied_bytes = copied.unwrap_or(0);
    share_immutables(shared, from, &tree);
    let undo = Undo { shared: Arc::clone(shared), tree: Arc::clone(&tree), copied_bytes };
    // Whose flush fails for good fails the owners that it knows: this one may have come too late.
    if let Some(cause) = from.failure() {
        return Err(Error::TreeFailed { tree: from.id, cause });
    }
    let parent = parent.id;
    let edit = Edit::Fork { name: full_name, branch: child, parent, fork_seq: seq, tables: vec![] };
    let install = install(edit.clone(), Arc::clone(from), (undo, claim), branch);
    let log = Arc::clone(shared);
    let durable = Box::new(move || {
        let through: core::pin::Pin<Box<dyn Future<Output = Result<()>>>> =
            Box::pin(async move { queue::sync_through(&log, seq).await });
        through
    });
    let commit = Commit::new(vec![edit], Some(install)).after(durable);
    Ok(Begun { place: shared.manifest.reserve(commit), seq, copied_bytes })
}

/// The child reads the parent's immutable memtables, and is told of each of their tables.
fn share_immutables<E: Env>(shared: &Shared<E>, from: &Tree, child: &Arc<Tree>) {
    // Known before it owns anything: whoever installs a table looks for the owners.
    shared.set.begin_fork(child);
    let immutables = from.view().immutables.clone();
    child.change(|view| view.immutables.clone_from(&immutables));
    for memtable in &immutables {
        if !memtable.add_owner(child.id) {
            // Its table was installed meanwhile, in the parent: the child begins with that.
            child.change(|view| view.immutables.retain(|m| !Arc::ptr_eq(m, memtable)));
        }
    }
}

/// Copies the parent's memtable into the child, where that is wished for and the budget has room
/// for it; `None` where it has to be shared. An empty one takes no copy and no seal.
fn copy<E: Env>(
    shared: &Shared<E>,
    from: &Tree,
    (child, wish): (&Tree, ForkMemtable),
) -> Option<u64> {
    let Some(memtable) = from.view().memtable.clone() else { return Some(0) };
    let bytes = memtable.bytes();
    match wish {
        ForkMemtable::Share => return None,
        ForkMemtable::Auto if bytes > AUTO_COPY_BYTES_MAX => return None,
        ForkMemtable::Auto | ForkMemtable::Copy => {}
    }
    let mut reservation = {
        // As in admission, lest a writer take the same free bytes.
        let _policy = shared.stall_policy.lock();
        let used = shared.budget.used_bytes().saturating_add(bytes);
        if used > shared.budget.limit_bytes() {
            return None;
        }
        shared.budget.reserve(bytes)
    };
    let anchor = memtable.anchor_segment();
    let copy = Memtable::new(memtable.created_ns, anchor).of_tree(child.id);
    let copy = copy.copied_from(child.lineage.ancestors());
    for (seq, kind, key_bytes, data) in memtable.entries_in(0, SeqNo::MAX) {
        // Bytes of its own: the parent may be dropped.
        let data = bytes::Bytes::copy_from_slice(&data);
        reservation.charge(copy.insert(data, key_bytes, seq, kind));
        shared.env.charge(Work::WriteEntry);
    }
    shared.log.pin(anchor);
    child.change(|view| view.memtable = Some(Arc::new(copy)));
    Some(bytes)
}

/// Forgets a child whose edit is not written, or came behind the parent's drop.
struct Undo<E: Env> {
    shared: Arc<Shared<E>>,
    tree: Arc<Tree>,
    copied_bytes: u64,
}

impl<E: Env> Drop for Undo<E> {
    fn drop(&mut self) {
        if self.shared.set.end_fork(self.tree.id).is_some() {
            self.tree.mark_dropped();
            self.shared.dropped.lock().push(Arc::clone(&self.tree));
        }
    }
}

fn install<E: Env>(
    edit: Edit,
    from: Arc<Tree>,
    (undo, claim): (Undo<E>, Claim<E>),
    branch: &Arc<Mutex<Option<Arc<Branch>>>>,
) -> Install {
    let branch = Arc::clone(branch);
    Box::new(move |set| {
        let created = set.apply(&edit).map(|applied| applied.created_branches);
        for created in created.into_iter().flatten() {
            let shared = &undo.shared;
            tenancy::register(shared, &created);
            if undo.copied_bytes > 0 {
                let anchor = undo.tree.with_memtable(Memtable::anchor_segment).unwrap_or(0);
                let now = shared.env.now();
                shared.pressure.on_write(&undo.tree, undo.copied_bytes, now, anchor);
            }
            // Looked at by a worker: a fork is not to take longer the more tables there are.
            shared.pressure.inherit_pending_compaction(&from, &undo.tree);
            shared.jobs.set_wake(&undo.tree, Some(shared.env.now()));
            stalls::observe(shared, &undo.tree, ChangeKind::Opened);
            *branch.lock() = Some(created);
        }
        drop((undo, claim));
    })
}
