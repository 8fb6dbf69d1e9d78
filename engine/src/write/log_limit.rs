//! What is sealed when the log is above `wal_bytes_max`: the memtables that pin its oldest
//! segments, a few at a time.
//!
//! **The rule.** While live segments hold more than `wal_bytes_max`, *over* are the oldest ones
//! without which they would not. At most `2 x flush_slots` memtables that pin those wait for their
//! flush at once; as one is done, the next one is sealed, the oldest anchor first, of equal ones
//! the one whose tree was written to longest ago. More could not run anyway, and a tree that takes
//! many writes meanwhile fills its memtable, or is the flush policy's choice, before its turn
//! comes: its table is then not a tiny one.
//!
//! It is asked where its answer can change: at open, since the limit may have been higher before,
//! when a segment ends, when an append takes the log over the limit, and when a flush ended.
//! Writers that outrun the flushes are held by `wal_bytes_stop`, one segment above the limit or
//! less where a bound is wanted.
//!
//! Where flushes are packed, as many are sealed at once as a packed flush should have bytes, while
//! fewer than `2 x flush_slots` flushes wait or run.
//!
//! With `wal_seal_serial` off, the end of a segment seals every tree that pins the oldest one.
//!
//! # Source
//!
//! All at once is `DBImpl::SwitchWAL` of facebook/rocksdb (commit 1dfa729, `max_total_wal_size`).
//! What it does to thousands of trees, and one at a time as the cure: scylladb issues #26823 and
//! #23636. Departure: two for each flush that can run, so that no slot is idle.

use std::sync::Arc;

use crate::env::Env;
use crate::memtable::Memtable;
use crate::shared::Shared;
use crate::types::to_usize;
use crate::version::tree::Tree;

use super::relog;

/// Which trees are to be sealed now since they pin the log. `at_roll` where a segment has just
/// ended.
pub(crate) fn victims<E: Env>(shared: &Shared<E>, at_roll: bool) -> Vec<Arc<Tree>> {
    if shared.log.bytes() <= shared.options.wal_limit_bytes() {
        return Vec::new();
    }
    let over = relog::plan(shared);
    if !shared.options.wal_seal_serial {
        let all = || shared.pressure.without_relogged(shared.pressure.pinning(shared.log.oldest()));
        // Re-logging chooses again once a segment is done with, and who is not chosen is flushed.
        return if at_roll || shared.options.relog { all() } else { Vec::new() };
    }
    let Some(over) = over else { return Vec::new() };
    let pinning = shared.pressure.pinning(over);
    // What pins them and takes no writes any more waits for its flush, or is in it.
    let waiting = shared.log.pin_count(over).saturating_sub(pinning.len());
    a_few(shared, shared.pressure.without_relogged(pinning), waiting)
}

/// Which trees the engine seals where a writer waits for the log, and nothing is being flushed.
pub(crate) fn overridden<E: Env>(shared: &Shared<E>) -> Vec<Arc<Tree>> {
    relog::plan(shared);
    let pinning = shared.pressure.pinning(shared.log.oldest());
    let pinning = shared.pressure.without_relogged(pinning);
    if shared.options.wal_seal_serial { a_few(shared, pinning, 0) } else { pinning }
}

/// The first of these trees that can be flushed beside `waiting` memtables that pin the log too.
fn a_few<E: Env>(shared: &Shared<E>, mut trees: Vec<Arc<Tree>>, waiting: usize) -> Vec<Arc<Tree>> {
    let pack_bytes = shared.options.pack_target_bytes();
    let Some(jobs) = shared.jobs.flush_job_count(pack_bytes) else {
        trees.truncate(room(shared).saturating_sub(waiting));
        return trees;
    };
    if to_usize(u64::from(jobs)) >= room(shared) {
        return Vec::new();
    }
    let mut bytes = 0;
    let mut more = |tree: &Arc<Tree>| {
        let before = bytes;
        bytes += tree.with_memtable(Memtable::bytes).unwrap_or(0);
        before < pack_bytes
    };
    let count = trees.iter().map_while(|tree| more(tree).then_some(())).count();
    trees.truncate(count.max(1));
    trees
}

fn room<E: Env>(shared: &Shared<E>) -> usize {
    to_usize(u64::from(shared.options.flush_slots) << 1)
}
