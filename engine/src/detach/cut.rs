//! What a database holds at one place in the order of writes, pinned.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::TablesOf;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout;
use crate::memtable::Memtable;
use crate::options::Layout;
use crate::prefix::PrefixExtractor;
use crate::shared::{Barrier, Request, Shared};
use crate::types::{BranchId, FileNumber, SeqNo, TreeId};
use crate::version::Version;
use crate::version::edit::Edit;
use crate::version::lineage::Lineage;
use crate::version::tree::{Branch, ForkPoint, Tree};
use crate::write::queue;

/// A tree as it is at the cut.
pub(super) struct TreeCut {
    pub(super) id: TreeId,
    pub(super) family: TreeId,
    pub(super) lineage: Lineage,
    /// Memtables that may hold entries up to the cut's number, in no order.
    pub(super) memtables: Vec<Arc<Memtable>>,
    pub(super) version: Arc<Version>,
    /// Entries up to this number are in tables, or gone.
    flushed_upto: SeqNo,
}

/// A branch as it will be in the copy.
pub(super) struct BranchCut {
    pub(super) id: BranchId,
    full_name: String,
    fork: Option<ForkPoint>,
    tree: TreeId,
    extractor: Option<PrefixExtractor>,
}

/// Everything that a copy is made of.
pub(super) struct Cut {
    pub(super) seq: SeqNo,
    pub(super) layout: Layout,
    next_id: u64,
    pub(super) branches: Vec<BranchCut>,
    pub(super) trees: Vec<TreeCut>,
}

/// Takes the whole database, or one branch alone.
///
/// # Errors
///
/// `Dropped`, `Closed`, `ReadOnly`.
pub(super) async fn take<E: Env>(
    shared: &Arc<Shared<E>>,
    only: Option<&Arc<Branch>>,
) -> Result<Cut> {
    let taken = Arc::new(Mutex::new(None));
    let barrier = {
        let (shared, taken, only) = (Arc::clone(shared), Arc::clone(&taken), only.cloned());
        move || {
            let cut = at_barrier(&shared, only.as_ref())?;
            let seq = cut.seq;
            *taken.lock() = Some(cut);
            Ok(seq)
        }
    };
    queue::submit(shared, Request::Barrier(Barrier::new(barrier))).await?;
    let cut = taken.lock().take();
    cut.ok_or(Error::Interrupted)
}

/// Only the queue's leader may call this: no memtable is written to, sealed or given back meanwhile.
fn at_barrier<E: Env>(shared: &Shared<E>, only: Option<&Arc<Branch>>) -> Result<Cut> {
    let seq = shared.visible_seq();
    let layout = shared.options.layout;
    let mut cut = Cut { seq, layout, next_id: 0, branches: Vec::new(), trees: Vec::new() };
    if let Some(branch) = only {
        let Some((tree, _)) = branch.places.first() else { return Err(Error::Dropped) };
        if branch.is_dropped() {
            return Err(Error::Dropped);
        }
        let alone = BranchCut { full_name: branch.tenant.clone(), fork: None, ..of(branch, tree) };
        cut.branches.push(alone);
        let (family, lineage) = (tree.id, Lineage::default());
        cut.trees.push(TreeCut { family, lineage, ..tree_of(tree, seq) });
    } else {
        // A branch is listed once its edit is installed, and its tree keeps what it holds until the
        // queue's leader has seen its drop.
        let branches = shared.set.branches();
        for branch in &branches {
            if let Some((tree, _)) = branch.places.first() {
                cut.branches.push(of(branch, tree));
            }
        }
        let trees: Vec<Arc<Tree>> = match layout {
            Layout::PerTenant => {
                branches.iter().flat_map(|b| b.places.iter().map(|(t, _)| Arc::clone(t))).collect()
            }
            Layout::Grouped(_) | Layout::Shared => shared.set.trees(),
        };
        cut.trees.extend(trees.iter().map(|tree| tree_of(tree, seq)));
    }
    // Behind the looks: no id in them is above it.
    cut.next_id = shared.set.next_id();
    Ok(cut)
}

fn of(branch: &Branch, tree: &Tree) -> BranchCut {
    BranchCut {
        id: branch.id,
        full_name: branch.full_name(),
        fork: branch.fork,
        tree: tree.id,
        extractor: tree.own_extractor(),
    }
}

/// A view says by itself what of a tree is in tables: the rest is in its memtables.
fn tree_of(tree: &Tree, seq: SeqNo) -> TreeCut {
    let view = tree.view();
    let all = view.memtable.iter().chain(&view.immutables);
    let memtables: Vec<Arc<Memtable>> = all.filter(|m| m.min_seq() <= seq).cloned().collect();
    let oldest = memtables.iter().map(|m| m.min_seq()).min();
    TreeCut {
        id: tree.id,
        family: tree.family,
        lineage: tree.lineage.clone(),
        memtables,
        version: Arc::clone(&view.version),
        flushed_upto: oldest.map_or(seq, |oldest| oldest.saturating_sub(1)),
    }
}

impl Cut {
    /// The log has nothing of it: all of it is in tables.
    pub(super) fn leave_nothing_to_log(&mut self) {
        for tree in &mut self.trees {
            tree.memtables.clear();
            tree.flushed_upto = self.seq;
        }
    }

    /// The tree under which the log holds an entry that `tree` has in a memtable: the one that it
    /// was written to. A fork's own entries have numbers above the one at which it was forked, so
    /// it is the farthest ancestor that reaches up to the entry.
    pub(super) fn origin(tree: &TreeCut, seq: SeqNo) -> TreeId {
        let mut ancestors = tree.lineage.ancestors().iter().rev();
        ancestors.find(|(_, bound)| seq <= *bound).map_or(tree.id, |(id, _)| *id)
    }

    /// The edits of the copy's manifest: its log begins with the segment `floor`, its trees have
    /// these tables, and these files hold several.
    pub(super) fn edits(
        &self,
        (floor, tables, packs): (u64, &[TablesOf], &[(FileNumber, u64)]),
    ) -> Vec<Edit> {
        let (layout, next_id) = (self.layout, self.next_id);
        let mut edits = vec![Edit::Begin { layout, next_id, wal_floor: floor }];
        let by_id = self.trees.iter().map(|tree| (tree.id, tree)).collect();
        edits.extend(self.branches.iter().filter_map(|branch| ancestry(branch, &by_id)));
        let shared = (1..=layout::initial_trees(layout)).map(TreeId);
        let own = self.branches.iter().map(|branch| branch.tree);
        let mut trees: Vec<TreeId> = shared.chain(own).collect();
        trees.sort_unstable();
        trees.dedup();
        edits.push(Edit::CreateTrees { trees });
        let tenants = self.branches.iter().map(|b| (b.full_name.clone(), b.id, b.tree));
        edits.push(Edit::CreateTenants { tenants: tenants.collect() });
        let own = self.branches.iter().filter(|branch| branch.extractor.is_some());
        edits.extend(own.map(|branch| Edit::TenantExtractor {
            branch: branch.id,
            extractor: branch.extractor,
        }));
        edits.extend(self.states(tables));
        edits.extend(packs.iter().map(|(file, bytes)| Edit::Pack { file: *file, bytes: *bytes }));
        edits
    }

    /// Each version once, with the trees that have it.
    fn states(&self, tables: &[TablesOf]) -> Vec<Edit> {
        let mut groups: Vec<(Vec<(TreeId, SeqNo)>, &TablesOf)> = Vec::new();
        let mut at: BTreeMap<*const Version, usize> = BTreeMap::new();
        for (tree, tables) in self.trees.iter().zip(tables) {
            let state = (tree.id, tree.flushed_upto);
            let place = *at.entry(Arc::as_ptr(&tree.version)).or_insert(groups.len());
            match groups.get_mut(place) {
                Some((trees, _)) => trees.push(state),
                None => groups.push((vec![state], tables)),
            }
        }
        let states = groups.into_iter().map(|(trees, tables)| {
            let tables = tables.clone();
            match trees.as_slice() {
                [(tree, flushed_upto)] => {
                    Edit::TreeState { tree: *tree, flushed_upto: *flushed_upto, tables }
                }
                _ => Edit::SharedState { trees, tables },
            }
        });
        states.collect()
    }
}

fn ancestry(branch: &BranchCut, trees: &BTreeMap<TreeId, &TreeCut>) -> Option<Edit> {
    let ForkPoint { parent, seq } = branch.fork?;
    let tree = trees.get(&branch.tree)?;
    Some(Edit::Ancestry {
        branch: branch.id,
        parent,
        fork_seq: seq,
        family: tree.family,
        ancestors: tree.lineage.above(tree.flushed_upto),
    })
}
