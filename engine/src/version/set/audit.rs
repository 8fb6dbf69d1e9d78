//! What a set of versions consists of, at one instant, for those who check it against itself.

use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::VersionSet;
use crate::options::Layout;
use crate::types::{BranchId, TreeId};
use crate::version::tree::{Branch, Tree};

/// Everything of a [`VersionSet`] but the views of its trees.
#[derive(Debug)]
pub struct Audit {
    /// The layout of the database.
    pub layout: Layout,
    /// Ids below this one were given.
    pub next_id: u64,
    /// WAL segments below this one are not needed.
    pub wal_floor: u64,
    /// Its trees.
    pub trees: BTreeMap<TreeId, Arc<Tree>>,
    /// Trees that are none of it and have memtables of it in their view.
    pub beside: BTreeMap<TreeId, Arc<Tree>>,
    /// Its branches.
    pub branches: BTreeMap<BranchId, Arc<Branch>>,
    /// Branches by full name.
    pub names: BTreeMap<String, BranchId>,
    /// Trees that were forked, by the first one of those they may share tables with.
    pub families: BTreeMap<TreeId, BTreeSet<TreeId>>,
}

impl VersionSet {
    /// What it consists of now.
    pub fn audit(&self) -> Audit {
        let state = self.state.lock();
        Audit {
            layout: state.layout,
            next_id: state.next_id,
            wal_floor: state.wal_floor,
            trees: state.trees.clone(),
            beside: state.beside.clone(),
            branches: state.branches.clone(),
            names: state.names.clone(),
            families: state.families.clone(),
        }
    }

    /// Edits that the manifest installed since the open.
    pub fn install_count(&self) -> u64 {
        self.installs.load(Ordering::Acquire)
    }

    /// The manifest installs a commit.
    pub(crate) fn count_install(&self) {
        self.installs.fetch_add(1, Ordering::AcqRel);
    }
}
