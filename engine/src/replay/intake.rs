//! Which memtable takes which entry of the log, with forks.
//!
//! A tree takes the entries of its ancestors too, each up to a bound, and each tree has flushed up
//! to a number of its own. Between two such numbers the trees that take an origin's entries are the
//! same: there is one memtable for each origin and interval, and those trees share it, as they did
//! before the crash. A tree's memtables, in the order of age: those of its farthest ancestor first,
//! its own last, of one origin the older interval first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::ReplayTo;
use crate::layout::sole_branch_of;
use crate::memtable::{self, Memtable};
use crate::types::{SeqNo, TreeId};
use crate::version::tree::Tree;
use crate::wal::WalEntry;

/// A tree that takes entries of an origin above one number and up to another.
#[derive(Clone, Copy, Debug)]
struct Taker {
    tree: TreeId,
    above: SeqNo,
    upto: SeqNo,
}

/// Who takes the entries of one origin.
#[derive(Debug, Default)]
struct Origin {
    takers: Vec<Taker>,
    /// Last numbers of intervals, ascending.
    ends: Vec<SeqNo>,
}

/// Takes the log's entries, then gives each tree its memtables.
pub(super) struct Intake<'a, 'b> {
    to: &'a ReplayTo<'b>,
    origins: BTreeMap<TreeId, Origin>,
    memtables: BTreeMap<(TreeId, usize), Arc<Memtable>>,
}

impl<'a, 'b> Intake<'a, 'b> {
    pub(super) fn new(to: &'a ReplayTo<'b>) -> Self {
        let mut origins: BTreeMap<TreeId, Origin> = BTreeMap::new();
        for tree in to.set.trees() {
            let above = tree.flushed_upto();
            let own = core::iter::once((tree.id, SeqNo::MAX));
            for (id, upto) in own.chain(tree.lineage.above(above)) {
                let origin = origins.entry(id).or_default();
                origin.takers.push(Taker { tree: tree.id, above, upto });
                origin.ends.extend([above, upto]);
            }
        }
        for origin in origins.values_mut() {
            origin.ends.sort_unstable();
            origin.ends.dedup();
        }
        Self { to, origins, memtables: BTreeMap::new() }
    }

    /// Puts an entry into the memtable of the trees that take it, if any does.
    ///
    /// # Errors
    ///
    /// Words for an entry of a tree or a branch that was never created.
    pub(super) fn take(
        &mut self,
        (segment, seq): (u64, SeqNo),
        entry: &WalEntry,
    ) -> Result<(), String> {
        let to = self.to;
        let is_sole = sole_branch_of(to.set.layout(), entry.tree).is_some();
        let Some(origin) = self.origins.get(&entry.tree) else {
            let known = entry.tree.0 < to.set.next_id();
            let what = format!("tree {} was never created", entry.tree);
            return if known { Ok(()) } else { Err(what) };
        };
        if !is_sole && to.set.is_gone(entry.branch)? {
            return Ok(());
        }
        let place = (entry.tree, origin.ends.partition_point(|end| *end < seq));
        let memtable = if let Some(memtable) = self.memtables.get(&place) {
            memtable
        } else {
            let takes = |t: &&Taker| seq > t.above && seq <= t.upto;
            let mut owners: Vec<TreeId> =
                origin.takers.iter().filter(takes).map(|t| t.tree).collect();
            if owners.is_empty() {
                return Ok(());
            }
            // The origin flushes it where it is one of them.
            owners.sort_by_key(|tree| (*tree != entry.tree, *tree));
            to.log.pin(segment);
            let memtable = Memtable::new(to.now, segment).of_trees(entry.tree, &owners);
            self.memtables.entry(place).or_insert(Arc::new(memtable))
        };
        let key_bytes = crate::types::to_usize(u64::from(entry.key_bytes));
        let key = entry.data.get(..key_bytes).unwrap_or_default();
        if memtable.holds(key, seq) {
            // It was re-logged, and the segment that it came from is still there.
            return Ok(());
        }
        // A copy of its own: one small entry must not pin its whole segment in memory.
        let data = Bytes::copy_from_slice(&entry.data);
        let bytes = memtable::charge(key_bytes, entry.data.len().saturating_sub(key_bytes));
        memtable.insert(data, entry.key_bytes, seq, entry.kind);
        if !is_sole {
            memtable.charge_to(entry.branch, bytes);
        }
        to.budget.reserve(bytes).charge(bytes);
        Ok(())
    }

    /// Gives each tree its memtables. One that takes writes again is the tree's own and its newest;
    /// the others are to be flushed: the tree that flushes each, with its bytes.
    pub(super) fn finish(self) -> Vec<(Arc<Tree>, u64)> {
        let mut by_tree: BTreeMap<TreeId, Vec<(TreeId, Arc<Memtable>)>> = BTreeMap::new();
        for ((origin, _), memtable) in &self.memtables {
            for owner in memtable.owners() {
                by_tree.entry(owner).or_default().push((*origin, Arc::clone(memtable)));
            }
        }
        let mut sealed = Vec::new();
        for (id, mut memtables) in by_tree {
            let Some(tree) = self.to.set.tree(id) else { continue };
            let ancestors = tree.lineage.ancestors();
            let distance = |origin: TreeId| {
                ancestors.iter().position(|(a, _)| *a == origin).map_or(0, |at| at + 1)
            };
            // A stable sort: of one origin they are in the order of their intervals.
            memtables.sort_by_key(|(origin, _)| core::cmp::Reverse(distance(*origin)));
            let memtables: Vec<Arc<Memtable>> = memtables.into_iter().map(|(_, m)| m).collect();
            self.give(&tree, memtables, &mut sealed);
        }
        sealed
    }

    fn give(
        &self,
        tree: &Arc<Tree>,
        mut memtables: Vec<Arc<Memtable>>,
        sealed: &mut Vec<(Arc<Tree>, u64)>,
    ) {
        let ReplayTo { budget, pressure, now, .. } = self.to;
        let written = |m: &Memtable| {
            pressure.on_write(tree, m.bytes(), *now, m.anchor_segment());
        };
        let own = memtables.pop_if(|m| m.origin == tree.id && m.owners() == [tree.id]);
        for memtable in memtables.iter().filter(|m| m.home == tree.id) {
            written(memtable);
            pressure.on_seal(tree, *now);
            budget.seal(memtable.bytes());
            sealed.push((Arc::clone(tree), memtable.bytes()));
        }
        if let Some(own) = &own {
            written(own);
        }
        memtables.reverse();
        tree.change(|view| {
            view.memtable = own;
            view.immutables = memtables;
        });
    }
}
