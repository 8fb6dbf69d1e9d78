//! Every tree and branch of a database, and the one place where edits change them.

mod audit;
mod forks;

use core::sync::atomic::AtomicU64;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use self::audit::Audit;
use self::forks::ancestry_of;
pub use self::forks::change_together;
use super::edit::Edit;
use super::lineage::Lineage;
use super::packs::Packs;
use super::tree::{Branch, ForkPoint, Tree};
use crate::layout::{self, Place};
use crate::memtable::Memtable;
use crate::options::Layout;
use crate::prefix::PrefixExtractor;
use crate::table::TableMeta;
use crate::types::{BranchId, SeqNo, TableId, TreeId};

#[derive(Debug)]
struct State {
    layout: Layout,
    extractor: Option<PrefixExtractor>,
    next_id: u64,
    wal_floor: u64,
    trees: BTreeMap<TreeId, Arc<Tree>>,
    branches: BTreeMap<BranchId, Arc<Branch>>,
    /// By full name.
    names: BTreeMap<String, BranchId>,
    /// Where branches came from whose creation is still to be read.
    ancestry: BTreeMap<BranchId, Ancestry>,
    /// Trees that are none of the set and have memtables of it in their view: those of forks whose
    /// edit is not installed, and dropped ones that keep what others need.
    beside: BTreeMap<TreeId, Arc<Tree>>,
    /// Trees that were forked, by the first one of those they may share tables with.
    families: BTreeMap<TreeId, BTreeSet<TreeId>>,
    /// Tables that several trees may hold, while a manifest is read.
    tables: BTreeMap<TableId, Weak<TableMeta>>,
    /// The highest number at which a branch was forked.
    fork_seq_max: SeqNo,
}

#[derive(Clone, Debug)]
struct Ancestry {
    point: ForkPoint,
    family: TreeId,
    lineage: Lineage,
}

/// Trees and branches by id, tenants by name.
#[derive(Debug)]
pub struct VersionSet {
    state: Mutex<State>,
    packs: Packs,
    installs: AtomicU64,
}

/// What an edit took away: for the collector and for those who account memory.
#[derive(Debug, Default)]
pub struct Applied {
    /// Tables that a version no longer names; others may.
    pub removed_tables: Vec<Arc<TableMeta>>,
    /// Trees that are gone.
    pub dropped_trees: Vec<Arc<Tree>>,
    /// Branches that are new.
    pub created_branches: Vec<Arc<Branch>>,
}

/// Why an edit read from a manifest cannot be applied.
pub type EditFault = String;

impl VersionSet {
    /// A database without trees.
    pub fn new(layout: Layout) -> Self {
        Self {
            state: Mutex::new(State {
                layout,
                extractor: None,
                next_id: 1,
                wal_floor: 0,
                trees: BTreeMap::new(),
                branches: BTreeMap::new(),
                names: BTreeMap::new(),
                ancestry: BTreeMap::new(),
                beside: BTreeMap::new(),
                families: BTreeMap::new(),
                tables: BTreeMap::new(),
                fork_seq_max: 0,
            }),
            packs: Packs::default(),
            installs: AtomicU64::new(0),
        }
    }

    /// The same with a prefix extractor for tables of trees that have none of their own.
    #[must_use]
    pub fn with_extractor(self, extractor: Option<PrefixExtractor>) -> Self {
        self.state.lock().extractor = extractor;
        self
    }

    /// Applies an edit to the live state.
    ///
    /// # Errors
    ///
    /// Words for an edit that contradicts the state, such as one of a damaged manifest; the state
    /// is then unchanged or holds a part of the edit, and must not be used.
    pub fn apply(&self, edit: &Edit) -> Result<Applied, EditFault> {
        let mut state = self.state.lock();
        let mut applied = Applied::default();
        match edit {
            Edit::Begin { layout, next_id, wal_floor } => {
                state.layout = *layout;
                state.next_id = state.next_id.max(*next_id);
                state.wal_floor = *wal_floor;
            }
            Edit::CreateTrees { trees } => {
                for id in trees {
                    state.create_tree(*id)?;
                }
            }
            Edit::CreateTenants { tenants } => {
                for (name, branch, tree) in tenants {
                    state.create_tenant(name, *branch, *tree, &mut applied)?;
                }
            }
            Edit::TenantExtractor { branch, extractor } => {
                state.set_extractor(*branch, *extractor)?;
            }
            Edit::DropTenant { branch } => state.drop_tenant(*branch, &mut applied)?,
            Edit::Flush { owners, flushed_upto, table } => {
                let table = table.clone().map(Arc::new);
                // A tree that was dropped while its flush ran takes nothing, nor does a fork whose
                // edit comes later: it begins with what its parent has by then.
                let owners = owners.iter().filter_map(|id| state.trees.get(id).cloned());
                let owners: Vec<Arc<Tree>> = owners.collect();
                change_together(&owners, *flushed_upto, table.as_ref(), |_, _| {});
            }
            Edit::Compact { tree, removed, added } => {
                if let Some(tree) = state.trees.get(tree) {
                    let view = tree.view();
                    let ids: BTreeSet<TableId> = removed.iter().copied().collect();
                    let gone = view.version.tables().filter(|(_, t)| ids.contains(&t.id));
                    let mut gone: BTreeMap<TableId, Arc<TableMeta>> =
                        gone.map(|(_, t)| (t.id, Arc::clone(t))).collect();
                    // A table that changes its level stays the one that readers hold.
                    let added: Vec<_> = added
                        .iter()
                        .map(|(l, t)| (*l, gone.remove(&t.id).unwrap_or_else(|| t.clone().into())))
                        .collect();
                    tree.change(|v| {
                        v.version = Arc::new(v.version.with_compacted(removed, &added));
                    });
                    let gone = gone.into_values().filter(|t| !state.reaches(tree.family, t));
                    applied.removed_tables.extend(gone);
                }
            }
            Edit::WalFloor { segment } => state.wal_floor = state.wal_floor.max(*segment),
            Edit::Pack { file, bytes } => self.packs.add(*file, *bytes, []),
            Edit::TreeState { tree, flushed_upto, tables } => {
                state.set_tables(&[(*tree, *flushed_upto)], tables)?;
            }
            Edit::SharedState { trees, tables } => state.set_tables(trees, tables)?,
            Edit::Fork { name, branch, parent, fork_seq, tables } => {
                let fork = (*branch, ForkPoint { parent: *parent, seq: *fork_seq });
                state.fork(name, fork, tables, &mut applied)?;
            }
            Edit::Ancestry { branch, parent, fork_seq, family, ancestors } => {
                let point = ForkPoint { parent: *parent, seq: *fork_seq };
                let lineage = Lineage::of(ancestors.clone());
                let ancestry = Ancestry { point, family: *family, lineage };
                state.fork_seq_max = state.fork_seq_max.max(*fork_seq);
                state.ancestry.insert(*branch, ancestry);
            }
        }
        Ok(applied)
    }

    /// The edits that lead from nothing to the present state: the beginning of a new manifest.
    pub fn edits(&self) -> Vec<Edit> {
        let state = self.state.lock();
        let mut edits = vec![Edit::Begin {
            layout: state.layout,
            next_id: state.next_id,
            wal_floor: state.wal_floor,
        }];
        edits.extend(state.branches.values().filter_map(|b| ancestry_of(b)));
        let trees = state.trees.keys().copied().collect();
        edits.push(Edit::CreateTrees { trees });
        let tenants = state
            .branches
            .values()
            .filter_map(|b| Some((b.full_name(), b.id, b.places.first()?.0.id)))
            .collect();
        edits.push(Edit::CreateTenants { tenants });
        for branch in state.branches.values() {
            let own = branch.places.first().and_then(|(tree, _)| tree.own_extractor());
            if own.is_some() {
                edits.push(Edit::TenantExtractor { branch: branch.id, extractor: own });
            }
        }
        let mut files = BTreeSet::new();
        for (trees, version) in state.distinct_versions() {
            let tables: Vec<_> = version.tables().map(|(l, t)| (l, TableMeta::clone(t))).collect();
            files.extend(tables.iter().map(|(_, t)| t.id.file));
            match trees.as_slice() {
                [(_, 0)] if tables.is_empty() => {}
                [(tree, flushed_upto)] => {
                    let (tree, flushed_upto) = (*tree, *flushed_upto);
                    edits.push(Edit::TreeState { tree, flushed_upto, tables });
                }
                _ => edits.push(Edit::SharedState { trees, tables }),
            }
        }
        let packs = self.packs.lengths().into_iter().filter(|(file, _)| files.contains(file));
        edits.extend(packs.map(|(file, bytes)| Edit::Pack { file, bytes }));
        edits
    }

    /// Finds the files that hold several tables, once all that an open read is applied.
    pub fn find_packs(&self) {
        let views: Vec<_> = self.trees().iter().map(|tree| tree.view()).collect();
        self.packs.find(views.iter().map(|view| &*view.version));
        self.state.lock().tables.clear();
    }

    /// No more tables are read that several trees hold.
    pub fn end_interning(&self) {
        self.state.lock().tables.clear();
    }

    /// The files that hold several tables.
    pub fn packs(&self) -> &Packs {
        &self.packs
    }

    /// The layout of the database.
    pub fn layout(&self) -> Layout {
        self.state.lock().layout
    }

    /// Takes `count` ids of trees and branches; the first of them.
    pub fn take_ids(&self, count: u64) -> u64 {
        let mut state = self.state.lock();
        let first = state.next_id;
        state.next_id += count;
        first
    }

    /// Ids below this one were given.
    pub fn next_id(&self) -> u64 {
        self.state.lock().next_id
    }

    /// WAL segments below this one are not needed.
    pub fn wal_floor(&self) -> u64 {
        self.state.lock().wal_floor
    }

    /// A tree.
    pub fn tree(&self, id: TreeId) -> Option<Arc<Tree>> {
        self.state.lock().trees.get(&id).cloned()
    }

    /// Every tree, by id.
    pub fn trees(&self) -> Vec<Arc<Tree>> {
        self.state.lock().trees.values().cloned().collect()
    }

    /// A branch.
    pub fn branch(&self, id: BranchId) -> Option<Arc<Branch>> {
        self.state.lock().branches.get(&id).cloned()
    }

    /// The branch of this full name: a tenant's `main`, or `TENANT@BRANCH`.
    pub fn named(&self, full_name: &str) -> Option<Arc<Branch>> {
        let state = self.state.lock();
        let id = state.names.get(full_name)?;
        state.branches.get(id).cloned()
    }

    /// The branches of a tenant: `main` first, if it is there, then the others by name.
    pub fn branches_of(&self, tenant: &str) -> Vec<Arc<Branch>> {
        let state = self.state.lock();
        let first = format!("{tenant}{}", layout::BRANCH_MARK);
        let forks = state.names.range(first.clone()..);
        let forks = forks.take_while(|(name, _)| name.starts_with(&first));
        let ids = state.names.get_key_value(tenant).into_iter().chain(forks);
        ids.filter_map(|(_, id)| state.branches.get(id).cloned()).collect()
    }

    /// The highest number at which a branch was forked; 0 for none.
    pub fn fork_seq_max(&self) -> SeqNo {
        self.state.lock().fork_seq_max
    }

    /// A tree that forks from another: it is no tree of the set before its edit is applied, and has
    /// memtables of it in its view.
    pub fn begin_fork(&self, tree: &Arc<Tree>) {
        self.state.lock().beside.insert(tree.id, Arc::clone(tree));
    }

    /// Forgets a dropped tree that has no memtable in its view any more.
    pub fn leave_beside(&self, tree: &Tree) {
        if tree.is_dropped() && tree.oldest_immutable().is_none() {
            self.state.lock().beside.remove(&tree.id);
        }
    }

    /// The tree of a fork whose edit is not to come; `None` where it was applied. It stays known
    /// until what it holds is given back.
    pub fn end_fork(&self, tree: TreeId) -> Option<Arc<Tree>> {
        self.state.lock().beside.get(&tree).cloned()
    }

    /// A tree, or one that is none of the set and has memtables of it in its view.
    pub fn tree_or_beside(&self, id: TreeId) -> Option<Arc<Tree>> {
        let state = self.state.lock();
        state.trees.get(&id).or_else(|| state.beside.get(&id)).cloned()
    }

    /// Whether a memtable that trees share counts as this tree's: it counts once.
    pub fn is_first_owner(&self, tree: TreeId, memtable: &Memtable) -> bool {
        if !memtable.is_shared() {
            return true;
        }
        let state = self.state.lock();
        memtable.owners().into_iter().find(|id| state.trees.contains_key(id)) == Some(tree)
    }

    /// Of some trees those of the set, and those beside it.
    pub fn owners(&self, ids: &[TreeId]) -> (Vec<Arc<Tree>>, Vec<Arc<Tree>>) {
        let state = self.state.lock();
        let of = |trees: &BTreeMap<TreeId, Arc<Tree>>| {
            ids.iter().filter_map(|id| trees.get(id).cloned()).collect()
        };
        (of(&state.trees), of(&state.beside))
    }

    /// An empty tree, none of the set.
    pub fn new_tree(&self, id: TreeId) -> Tree {
        self.state.lock().new_tree(id)
    }

    /// Trees that hold one of some tables, by id.
    pub fn trees_holding(&self, holds: impl Fn(&TableMeta) -> bool) -> Vec<Arc<Tree>> {
        let trees = self.trees().into_iter();
        trees.filter(|tree| tree.view().version.tables().any(|(_, t)| holds(t))).collect()
    }

    /// Every branch, by id.
    pub fn branches(&self) -> Vec<Arc<Branch>> {
        self.state.lock().branches.values().cloned().collect()
    }

    /// Whether entries of this branch may be thrown away: it was given and is not live.
    ///
    /// # Errors
    ///
    /// Words for an id that was never given: damage.
    pub fn is_gone(&self, branch: BranchId) -> Result<bool, EditFault> {
        let state = self.state.lock();
        if state.branches.contains_key(&branch) {
            Ok(false)
        } else if branch.0 < state.next_id {
            Ok(true)
        } else {
            Err(format!("branch {branch} was never created"))
        }
    }
}

impl State {
    fn new_tree(&self, id: TreeId) -> Tree {
        let extractor = self.extractor.map(|e| layout::extractor_of(self.layout, e));
        Tree::new(id).with_default_extractor(extractor)
    }

    fn create_tree(&mut self, id: TreeId) -> Result<Arc<Tree>, EditFault> {
        let mut tree = self.new_tree(id);
        if let Some(ancestry) = self.ancestry.get(&BranchId(id.0))
            && self.layout == Layout::PerTenant
        {
            tree = tree.forked(ancestry.family, ancestry.lineage.clone());
            self.families.entry(ancestry.family).or_default().insert(id);
        }
        let tree = Arc::new(tree);
        if self.trees.insert(id, Arc::clone(&tree)).is_some() {
            return Err(format!("tree {id} is created twice"));
        }
        self.next_id = self.next_id.max(id.0.saturating_add(1));
        Ok(tree)
    }

    fn create_tenant(
        &mut self,
        name: &str,
        id: BranchId,
        tree: TreeId,
        applied: &mut Applied,
    ) -> Result<(), EditFault> {
        if self.names.contains_key(name) || self.branches.contains_key(&id) {
            return Err(format!("tenant {name:?} or its branch {id} is created twice"));
        }
        let fork = self.ancestry.get(&id).map(|ancestry| ancestry.point);
        let home = match self.trees.get(&tree) {
            Some(tree) => Arc::clone(tree),
            None => self.create_tree(tree)?,
        };
        self.ancestry.remove(&id);
        self.add_branch(name, (id, home), fork, applied);
        Ok(())
    }

    fn add_branch(
        &mut self,
        name: &str,
        (id, home): (BranchId, Arc<Tree>),
        fork: Option<ForkPoint>,
        applied: &mut Applied,
    ) {
        let place = Place::new(self.layout, id);
        let branch = Arc::new(Branch::new(id, name, home, place).forked_at(fork));
        self.branches.insert(id, Arc::clone(&branch));
        self.names.insert(name.to_owned(), id);
        applied.created_branches.push(branch);
        self.next_id = self.next_id.max(id.0.saturating_add(1));
    }

    fn set_extractor(
        &self,
        id: BranchId,
        extractor: Option<PrefixExtractor>,
    ) -> Result<(), EditFault> {
        if self.layout != Layout::PerTenant {
            return Err(format!("branch {id} gets a prefix extractor in layout {}", self.layout));
        }
        // A tenant may be dropped between the edit and the one before it.
        if let Some(branch) = self.branches.get(&id) {
            for (tree, _) in &branch.places {
                tree.set_own_extractor(extractor);
            }
        } else if id.0 >= self.next_id {
            return Err(format!("branch {id} gets a prefix extractor and was never created"));
        }
        Ok(())
    }

    fn drop_tenant(&mut self, id: BranchId, applied: &mut Applied) -> Result<(), EditFault> {
        let branch =
            self.branches.remove(&id).ok_or_else(|| format!("branch {id} is dropped unknown"))?;
        branch.set_dropped(true);
        self.names.remove(&branch.full_name());
        for (tree, _) in &branch.places {
            let others = tree.branch_count.fetch_sub(1, core::sync::atomic::Ordering::Relaxed) > 1;
            if others || self.layout != Layout::PerTenant {
                continue;
            }
            if let Some(tree) = self.trees.remove(&tree.id) {
                tree.mark_dropped();
                if let Some(members) = self.families.get_mut(&tree.family) {
                    members.remove(&tree.id);
                }
                applied.removed_tables.extend(self.unreached(&tree));
                if self.families.get(&tree.family).is_some_and(BTreeSet::is_empty) {
                    self.families.remove(&tree.family);
                }
                // A flush that ends before its memory is given back finds it among the owners.
                let view = tree.view();
                if view.memtable.is_some() || !view.immutables.is_empty() {
                    self.beside.insert(tree.id, Arc::clone(&tree));
                }
                applied.dropped_trees.push(tree);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::TreeExtractor;

    fn extractor(set: &VersionSet, tree: u64) -> Option<TreeExtractor> {
        set.tree(TreeId(tree)).unwrap().prefix_extractor()
    }

    #[test]
    fn an_extractor_of_one_tenant_reaches_its_tree_and_a_new_manifest() {
        let of_db = PrefixExtractor::FixedLength(8);
        let own = Some(PrefixExtractor::Delimiter(b'/'));
        let tenants = (3..=4).map(|id| (format!("t{id}"), BranchId(id), TreeId(id))).collect();
        let set = VersionSet::new(Layout::PerTenant).with_extractor(Some(of_db));
        set.apply(&Edit::CreateTenants { tenants }).unwrap();
        let edit =
            |branch, extractor| Edit::TenantExtractor { branch: BranchId(branch), extractor };
        set.apply(&edit(3, own)).unwrap();
        let default = Some(TreeExtractor { layout_bytes: 0, extractor: of_db });
        let by_tree = |set: &VersionSet| (extractor(set, 3), extractor(set, 4));
        let expected = (own.map(|e| TreeExtractor { layout_bytes: 0, extractor: e }), default);
        assert_eq!(by_tree(&set), expected);
        let again = VersionSet::new(Layout::PerTenant).with_extractor(Some(of_db));
        for edit in set.edits() {
            again.apply(&edit).unwrap();
        }
        assert_eq!(by_tree(&again), expected);
        again.apply(&edit(3, None)).unwrap();
        assert_eq!(by_tree(&again), (default, default));
        assert!(again.apply(&edit(9, own)).is_err());
        again.apply(&Edit::DropTenant { branch: BranchId(3) }).unwrap();
        again.apply(&edit(3, own)).unwrap();
        let shared = VersionSet::new(Layout::Shared).with_extractor(Some(of_db));
        shared.apply(&Edit::CreateTrees { trees: vec![TreeId(1)] }).unwrap();
        assert!(shared.apply(&edit(1, own)).is_err());
        let behind = TreeExtractor { layout_bytes: 8, extractor: of_db };
        assert_eq!(extractor(&shared, 1), Some(behind));
    }
}
