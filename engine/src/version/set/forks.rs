//! Trees that share tables: how a fork comes to be, who else holds a table, and how a new manifest
//! writes what several trees have once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::{Applied, EditFault, State};
use crate::layout::Place;
use crate::options::Layout;
use crate::table::TableMeta;
use crate::types::{BranchId, SeqNo, TreeId};
use crate::version::Version;
use crate::version::edit::{self, Edit};
use crate::version::tree::{Branch, ForkPoint, Tree, TreeView};

/// Trees with their `flushed_upto`, and the version that all of them have.
type Holders = (Vec<(TreeId, SeqNo)>, Arc<Version>);

/// A memtable became a table, or nothing, of some trees: each tree's view changes in one step, by
/// `also` as well. Trees that had one version have one again.
pub fn change_together(
    trees: &[Arc<Tree>],
    flushed_upto: SeqNo,
    table: Option<&Arc<TableMeta>>,
    mut also: impl FnMut(&Tree, &mut TreeView),
) {
    let mut last: Option<(Arc<Version>, Arc<Version>)> = None;
    for tree in trees {
        tree.raise_flushed_upto(flushed_upto);
        tree.change(|view| {
            also(tree, view);
            let Some(table) = table else { return };
            let next = match &last {
                Some((before, next)) if Arc::ptr_eq(before, &view.version) => Arc::clone(next),
                Some(_) | None => Arc::new(view.version.with_flushed(Arc::clone(table))),
            };
            let before = core::mem::replace(&mut view.version, Arc::clone(&next));
            last = Some((before, next));
        });
    }
}

/// Refuses tables of a fork by copy that reach beyond it.
fn check_copied(
    place: Place,
    fork_seq: SeqNo,
    tables: &[(u32, TableMeta)],
) -> Result<(), EditFault> {
    let (start, end) = (place.key(&[]), place.end());
    for (_, table) in tables {
        let ends = end.as_ref().is_none_or(|end| table.largest < *end);
        if table.smallest < start || !ends || table.max_seq > fork_seq {
            return Err(format!("table {} reaches beyond the fork that it was made for", table.id));
        }
    }
    Ok(())
}

pub(super) fn ancestry_of(branch: &Branch) -> Option<Edit> {
    let ForkPoint { parent, seq } = branch.fork?;
    let (tree, _) = branch.places.first()?;
    let (family, ancestors) = (tree.family, tree.lineage.above(tree.flushed_upto()));
    Some(Edit::Ancestry { branch: branch.id, parent, fork_seq: seq, family, ancestors })
}

impl State {
    pub(super) fn fork(
        &mut self,
        name: &str,
        (id, point): (BranchId, ForkPoint),
        tables: &[(u32, TableMeta)],
        applied: &mut Applied,
    ) -> Result<(), EditFault> {
        if self.names.contains_key(name) || self.branches.contains_key(&id) {
            return Err(format!("branch {name:?}, or its id {id}, is created twice"));
        }
        self.fork_seq_max = self.fork_seq_max.max(point.seq);
        let Some(parent) = self.branches.get(&point.parent).cloned() else {
            if point.parent.0 >= self.next_id {
                return Err(format!("branch {id} forks from {}, never created", point.parent));
            }
            self.next_id = self.next_id.max(id.0.saturating_add(1));
            return Ok(());
        };
        let Some((from, _)) = parent.places.first() else { return Ok(()) };
        let home = if self.layout == Layout::PerTenant {
            self.fork_tree(TreeId(id.0), from, point.seq)?
        } else {
            check_copied(Place::new(self.layout, id), point.seq, tables)?;
            let added = edit::shared(tables.to_vec());
            from.change(|v| v.version = Arc::new(v.version.with_compacted(&[], &added)));
            Arc::clone(from)
        };
        self.add_branch(name, (id, home), Some(point), applied);
        Ok(())
    }

    /// A tree that begins with the tables of another.
    fn fork_tree(
        &mut self,
        id: TreeId,
        from: &Arc<Tree>,
        fork_seq: SeqNo,
    ) -> Result<Arc<Tree>, EditFault> {
        let version = Arc::clone(&from.view().version);
        // No table reaches above it, and looking at each of them would take longer the more there
        // are.
        let flushed_upto = from.flushed_upto();
        if flushed_upto > fork_seq {
            let from = from.id;
            return Err(format!(
                "tree {id} forks at {fork_seq}, but tree {from} is flushed up to {flushed_upto}"
            ));
        }
        let child = self.beside.remove(&id).unwrap_or_else(|| {
            let lineage = from.lineage.child_of(from.id, fork_seq);
            Arc::new(self.new_tree(id).forked(from.family, lineage))
        });
        child.set_own_extractor(from.own_extractor());
        child.raise_flushed_upto(from.flushed_upto());
        child.inherit(version);
        if self.trees.insert(id, Arc::clone(&child)).is_some() {
            return Err(format!("tree {id} is created twice"));
        }
        self.families.entry(from.family).or_default().extend([from.id, id]);
        Ok(child)
    }

    /// Whether a tree of a family holds a table.
    pub(super) fn reaches(&self, family: TreeId, table: &TableMeta) -> bool {
        let Some(members) = self.families.get(&family) else { return false };
        let all = members.iter().chain([&family]);
        all.filter_map(|id| self.trees.get(id)).any(|tree| tree.view().version.holds(table))
    }

    /// Sets the tables of trees that have the same, when a manifest is read from its beginning.
    pub(super) fn set_tables(
        &mut self,
        trees: &[(TreeId, SeqNo)],
        tables: &[(u32, TableMeta)],
    ) -> Result<(), EditFault> {
        let tables: Vec<_> = tables.iter().map(|(l, t)| (*l, self.interned(t))).collect();
        let mut version: Option<Arc<Version>> = None;
        for (id, flushed_upto) in trees {
            let tree = self.trees.get(id).ok_or_else(|| format!("tree {id} is unknown"))?;
            tree.raise_flushed_upto(*flushed_upto);
            let all = || Arc::new(tree.view().version.with_compacted(&[], &tables));
            let version = version.get_or_insert_with(all);
            tree.change(|view| view.version = Arc::clone(version));
        }
        Ok(())
    }

    /// A table as another tree holds it, if one does: who holds a table is told by one counter.
    fn interned(&mut self, table: &TableMeta) -> Arc<TableMeta> {
        if self.families.is_empty() {
            return Arc::new(table.clone());
        }
        if let Some(known) = self.tables.get(&table.id).and_then(Weak::upgrade) {
            return known;
        }
        let table = Arc::new(table.clone());
        self.tables.insert(table.id, Arc::downgrade(&table));
        table
    }

    /// Each version once, with the trees that have it and their `flushed_upto`, in the order of the
    /// first of them.
    pub(super) fn distinct_versions(&self) -> Vec<Holders> {
        let mut out: Vec<Holders> = Vec::new();
        let mut at: BTreeMap<*const Version, usize> = BTreeMap::new();
        for tree in self.trees.values() {
            let version = Arc::clone(&tree.view().version);
            let state = (tree.id, tree.flushed_upto());
            let place = *at.entry(Arc::as_ptr(&version)).or_insert(out.len());
            match out.get_mut(place) {
                Some((trees, _)) => trees.push(state),
                None => out.push((vec![state], version)),
            }
        }
        out
    }

    /// Tables of a tree that was taken out which no other tree holds.
    pub(super) fn unreached(&self, tree: &Tree) -> Vec<Arc<TableMeta>> {
        let version = Arc::clone(&tree.view().version);
        let members = self.families.get(&tree.family).into_iter().flatten();
        let mut others = members.chain([&tree.family]).filter_map(|id| self.trees.get(id));
        // A fork that has not changed its tables: no need to look at each of them.
        if others.any(|other| Arc::ptr_eq(&other.view().version, &version)) {
            return Vec::new();
        }
        let tables = version.tables().map(|(_, t)| t);
        tables.filter(|t| !self.reaches(tree.family, t)).cloned().collect()
    }
}
