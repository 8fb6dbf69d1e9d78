//! A branch's own manifest: the edits that make it up, from where it began.
//!
//! All branches write one manifest. A branch's own is the part of it that concerns the branch: how
//! it began (created, forked, or taken over when the manifest was begun anew), the tables that it
//! had there, and each edit behind that changed it. Applied in that order to nothing else, they are
//! the branch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::EditReport;
use crate::options::Layout;
use crate::table::TableMeta;
use crate::types::{BranchId, FileNumber, SeqNo, TreeId};
use crate::version::edit::Edit;
use crate::version::set::VersionSet;
use crate::version::tree::ForkPoint;

/// How a branch's own manifest begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The branch was created, with nothing in it.
    Created,
    /// It was forked: it began with its parent's tables.
    Forked,
    /// The manifest was begun anew behind its creation, with the tables that it had then.
    TakenOver,
}

/// A branch's own manifest.
#[derive(Clone, Debug)]
pub struct OwnManifest {
    /// Its id.
    pub branch: BranchId,
    /// The tree that it lives in, which other branches share in some layouts.
    pub tree: TreeId,
    /// How it begins.
    pub beginning: Beginning,
    /// Where the branch was forked, if it was.
    pub fork: Option<ForkPoint>,
    /// The parent's full name, if it was known at the beginning.
    pub parent_name: Option<String>,
    /// Entries up to this number were in tables at the beginning.
    pub flushed_upto: SeqNo,
    /// The tables at the beginning, with their level.
    pub tables: Vec<(u32, Arc<TableMeta>)>,
    /// Places among the edits that were given: those of the beginning, then those behind it.
    pub edits: Vec<usize>,
}

/// What is known of branches while edits are read.
struct Reader<'a> {
    name: &'a str,
    set: VersionSet,
    /// Of branches that are still to be created: their ancestry's place among the edits.
    ancestries: BTreeMap<BranchId, usize>,
    /// Files that hold a table of the branch, or held one.
    files: BTreeSet<FileNumber>,
    own: Option<OwnManifest>,
}

/// Finds a branch's own manifest among the edits of the live one, as far as they are whole; `None`
/// where no branch of this full name is there at their end.
pub fn own_manifest(edits: &[EditReport], full_name: &str) -> Option<OwnManifest> {
    let (set, own) = (VersionSet::new(Layout::PerTenant), None);
    let (ancestries, files) = (BTreeMap::new(), BTreeSet::new());
    let mut reader = Reader { name: full_name, set, ancestries, files, own };
    for (at, report) in edits.iter().enumerate() {
        // An inspection tells of edits that contradict those before.
        if reader.set.apply(&report.edit).is_err() {
            break;
        }
        reader.read(at, &report.edit);
    }
    let own = reader.own?;
    reader.set.branch(own.branch).map(|_| own)
}

impl Reader<'_> {
    fn read(&mut self, at: usize, edit: &Edit) {
        match edit {
            Edit::Ancestry { branch, .. } => drop(self.ancestries.insert(*branch, at)),
            Edit::CreateTenants { tenants } => {
                if let Some((_, branch, _)) = tenants.iter().find(|(name, ..)| name == self.name) {
                    self.begin((*branch, at), Beginning::Created);
                }
            }
            Edit::Fork { name, branch, .. } if name == self.name => {
                self.begin((*branch, at), Beginning::Forked);
            }
            Edit::TreeState { tree, .. } => self.take_over(at, &[*tree]),
            Edit::SharedState { trees, .. } => {
                let trees: Vec<TreeId> = trees.iter().map(|(tree, _)| *tree).collect();
                self.take_over(at, &trees);
            }
            Edit::Flush { owners, table, .. } => self.change(at, owners, table.as_slice()),
            Edit::Compact { tree, added, .. } => {
                let added: Vec<TableMeta> = added.iter().map(|(_, table)| table.clone()).collect();
                self.change(at, &[*tree], &added);
            }
            Edit::TenantExtractor { branch, .. } => {
                if let Some(own) = self.own.as_mut().filter(|own| own.branch == *branch) {
                    own.edits.push(at);
                }
            }
            Edit::Pack { file, .. } => {
                if let Some(own) = self.own.as_mut().filter(|_| self.files.contains(file)) {
                    own.edits.push(at);
                }
            }
            // Its own drop leaves no branch to tell of.
            Edit::DropTenant { .. }
            | Edit::Fork { .. }
            | Edit::Begin { .. }
            | Edit::CreateTrees { .. }
            | Edit::WalFloor { .. } => {}
        }
    }

    /// The branch of the name begins here; an earlier one of the name is gone.
    fn begin(&mut self, (id, at): (BranchId, usize), beginning: Beginning) {
        self.own = None;
        // A fork whose parent was gone is nothing.
        let Some(branch) = self.set.branch(id) else { return };
        let Some((home, _)) = branch.places.first() else { return };
        let parent = branch.fork.and_then(|fork| self.set.branch(fork.parent));
        let tables = home.view().version.tables().map(|(l, t)| (l, Arc::clone(t))).collect();
        let ancestry = self.ancestries.remove(&id);
        let beginning = if ancestry.is_some() { Beginning::TakenOver } else { beginning };
        self.own = Some(OwnManifest {
            branch: id,
            tree: home.id,
            beginning,
            fork: branch.fork,
            parent_name: parent.map(|parent| parent.full_name()),
            flushed_upto: home.flushed_upto(),
            tables,
            edits: ancestry.into_iter().chain([at]).collect(),
        });
        self.files.clear();
        self.know_files();
    }

    /// The tables that trees had when the manifest was begun.
    fn take_over(&mut self, at: usize, trees: &[TreeId]) {
        let Some(own) = self.own.as_mut().filter(|own| trees.contains(&own.tree)) else { return };
        let Some(home) = self.set.tree(own.tree) else { return };
        own.beginning = Beginning::TakenOver;
        own.flushed_upto = home.flushed_upto();
        own.tables = home.view().version.tables().map(|(l, t)| (l, Arc::clone(t))).collect();
        own.edits.push(at);
        self.know_files();
    }

    fn know_files(&mut self) {
        let tables = self.own.iter().flat_map(|own| &own.tables);
        self.files.extend(tables.map(|(_, table)| table.id.file));
    }

    fn change(&mut self, at: usize, trees: &[TreeId], added: &[TableMeta]) {
        if let Some(own) = self.own.as_mut().filter(|own| trees.contains(&own.tree)) {
            own.edits.push(at);
            self.files.extend(added.iter().map(|table| table.id.file));
        }
    }
}
