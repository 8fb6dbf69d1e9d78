//! What each branch holds of the tables that branches share, and what would go with it.
//!
//! Everything here is counted from the versions when it is asked for; nothing of it is stored. A
//! table counts by its own length, whatever else its file holds. What a reader or a running job
//! still holds beside the versions is none of a branch's: it is told for the database as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::options::Layout;
use crate::table::TableMeta;
use crate::types::{BranchId, SeqNo, TableId, TreeId};
use crate::version::Version;
use crate::version::manifest::{manifest_path, read_current, read_file, read_manifest};
use crate::version::set::VersionSet;
use crate::version::tree::{Branch, Tree};

/// Some tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl TableSum {
    fn add(&mut self, table: &TableMeta) {
        self.count += 1;
        self.bytes += table.bytes;
    }
}

/// Where a branch began, and how much of that it still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inheritance {
    /// The branch that it was forked from, which may be gone.
    pub parent: BranchId,
    /// The parent's full name, while it lives.
    pub parent_name: Option<String>,
    /// It began with the parent's entries up to this number.
    pub fork_seq: SeqNo,
    /// Bytes of the tables that the parent had at the fork's place in the manifest. `None` where
    /// the manifest was begun anew since, which keeps no count of it, or where the fork copied.
    pub at_fork_bytes: Option<u64>,
    /// Its tables that another tree wrote, all of them with entries up to `fork_seq` alone: what it
    /// has not compacted away. Tables of memtables that were shared at the fork, and became tables
    /// afterwards, are among them and not in `at_fork_bytes`.
    pub left: TableSum,
}

/// A branch and what it holds. Where branches share a tree, the tables are those of the tree, and
/// only a branch that has it to itself holds any alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchFacts {
    /// `TENANT@BRANCH`, or `TENANT` for its `main`.
    pub name: String,
    /// Its id.
    pub branch: BranchId,
    /// The tree that it lives in.
    pub tree: TreeId,
    /// Where it came from; `None` for a branch that was not forked.
    pub inheritance: Option<Inheritance>,
    /// The tables of its version.
    pub tables: TableSum,
    /// Of them those that other branches hold too.
    pub shared: TableSum,
    /// Of them those that no other branch holds: what dropping it would free.
    pub retained: TableSum,
    /// Bytes that its memtables are charged and no other branch reads.
    pub unflushed_own_bytes: u64,
    /// Bytes of immutable memtables that it shares with other branches.
    pub unflushed_shared_bytes: u64,
}

/// Bytes of tables by what keeps them. A table counts once, under the first cause that holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Tables that a branch `main` reaches.
    pub main: TableSum,
    /// Tables that only forks reach.
    pub forks_only: TableSum,
    /// Tables that no branch reaches, and that scans, snapshots of scans or jobs still hold, or
    /// whose files are about to be removed.
    pub garbage: TableSum,
}

/// The branches of a directory, from its manifest alone: what is in the log is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// The branches of every tenant, tenants by name, each one's `main` first.
    pub branches: Vec<BranchFacts>,
    /// All tables by what keeps them.
    pub retained: Retained,
}

/// A manifest that is replaced while it is looked for is looked for so often.
const LOOKS_MAX: u32 = 16;

/// Reads the branches of the database in `dir`, without its lock and without a change, so that it
/// may be open elsewhere; `None` where there is no database.
///
/// # Errors
///
/// `Corruption` of CURRENT or the manifest; the world's.
pub async fn read_dir<E: Env>(env: &E, dir: &Path) -> Result<Option<OnDisk>> {
    let mut looks = 0;
    let (path, bytes) = loop {
        let Some(number) = read_current(env, dir).await? else { return Ok(None) };
        let path = manifest_path(dir, number);
        looks += 1;
        match read_file(env, &path, IoClass::Manifest).await {
            Ok(bytes) => break (path, bytes),
            // Another one was begun in between.
            Err(error) if error.is_not_found() && looks < LOOKS_MAX => {}
            Err(error) => return Err(error),
        }
    };
    let set = VersionSet::new(Layout::PerTenant);
    for (offset, edit) in read_manifest(&path, &bytes)?.0 {
        set.apply(&edit).map_err(|what| Error::corruption(&path, offset, what))?;
    }
    let tenants: BTreeSet<String> = set.branches().iter().map(|b| b.tenant.clone()).collect();
    let branches = tenants.iter().flat_map(|tenant| facts_of(&set, tenant)).collect();
    Ok(Some(OnDisk { branches, retained: retained(&set, &[]) }))
}

/// How many branches hold each table of some versions.
#[derive(Default)]
struct Holders {
    /// Branches by version. A version that a fork has not changed is its parent's.
    versions: BTreeMap<*const Version, (Arc<Version>, u64)>,
    tables: BTreeMap<TableId, u64>,
}

impl Holders {
    fn of<'a>(trees: impl Iterator<Item = &'a Arc<Tree>>) -> Self {
        let mut out = Self::default();
        for tree in trees {
            let version = Arc::clone(&tree.view().version);
            out.versions.entry(Arc::as_ptr(&version)).or_insert((version, 0)).1 += 1;
        }
        for (version, branches) in out.versions.values() {
            for (_, table) in version.tables() {
                *out.tables.entry(table.id).or_insert(0) += *branches;
            }
        }
        out
    }

    fn is_shared(&self, table: &TableMeta) -> bool {
        self.tables.get(&table.id).is_some_and(|branches| *branches > 1)
    }
}

/// The facts of a tenant's branches, `main` first, then the others by name; none where there is no
/// such tenant. Branches share tables with branches of their tenant alone, or live in one tree with
/// all that share it: each tenant's facts need its own branches, and of a shared tree the count of
/// those that live there. Costs the tables of all these branches.
pub(crate) fn facts_of(set: &VersionSet, tenant: &str) -> Vec<BranchFacts> {
    let branches = set.branches_of(tenant);
    let home = |branch: &Arc<Branch>| branch.places.first().map(|(tree, _)| Arc::clone(tree));
    let homes: Vec<Arc<Tree>> = branches.iter().filter_map(home).collect();
    let holders = Holders::of(homes.iter());
    let facts = branches.iter().filter_map(|branch| Some((branch, home(branch)?)));
    facts.map(|(branch, tree)| facts_of_one(set, (branch, &tree), &holders)).collect()
}

fn facts_of_one(
    set: &VersionSet,
    (branch, tree): (&Branch, &Tree),
    holders: &Holders,
) -> BranchFacts {
    let view = tree.view();
    let is_alone = tree.branch_count.load(Ordering::Relaxed) <= 1;
    let mut facts = BranchFacts {
        name: branch.full_name(),
        branch: branch.id,
        tree: tree.id,
        inheritance: None,
        tables: TableSum::default(),
        shared: TableSum::default(),
        retained: TableSum::default(),
        unflushed_own_bytes: 0,
        unflushed_shared_bytes: 0,
    };
    let mut left = TableSum::default();
    let fork = branch.fork;
    for (_, table) in view.version.tables() {
        facts.tables.add(table);
        let is_shared = !is_alone || holders.is_shared(table);
        if is_shared { &mut facts.shared } else { &mut facts.retained }.add(table);
        if fork.is_some_and(|fork| table.tree != tree.id && table.max_seq <= fork.seq) {
            left.add(table);
        }
    }
    facts.inheritance = fork.map(|fork| Inheritance {
        parent: fork.parent,
        parent_name: set.branch(fork.parent).map(|parent| parent.full_name()),
        fork_seq: fork.seq,
        at_fork_bytes: tree.inherited_bytes(),
        left,
    });
    for memtable in view.memtable.iter().chain(&view.immutables) {
        if memtable.is_shared() {
            facts.unflushed_shared_bytes += memtable.bytes();
        } else if branch.places.iter().any(|(_, place)| place.prefix.is_some()) {
            let mut by_branch = BTreeMap::new();
            memtable.add_bytes_by_branch(&mut by_branch);
            facts.unflushed_own_bytes += by_branch.get(&branch.id).copied().unwrap_or(0);
        } else {
            facts.unflushed_own_bytes += memtable.bytes();
        }
    }
    facts
}

/// Bytes of all tables by what keeps them. Costs the tables of the database.
pub(crate) fn retained(set: &VersionSet, garbage: &[Arc<TableMeta>]) -> Retained {
    let mut out = Retained::default();
    let mut seen = BTreeSet::new();
    let (mains, forks): (Vec<Arc<Branch>>, Vec<Arc<Branch>>) =
        set.branches().into_iter().partition(|branch| branch.fork.is_none());
    for (branches, sum) in [(&mains, &mut out.main), (&forks, &mut out.forks_only)] {
        let trees = branches.iter().flat_map(|b| b.places.iter().map(|(tree, _)| tree));
        for (version, _) in Holders::of(trees).versions.values() {
            for (_, table) in version.tables().filter(|(_, t)| seen.insert(t.id)) {
                sum.add(table);
            }
        }
    }
    for table in garbage.iter().filter(|t| seen.insert(t.id)) {
        out.garbage.add(table);
    }
    out
}

impl BranchFacts {
    /// Bytes of its tables that it wrote itself.
    pub fn own_table_bytes(&self) -> u64 {
        let left = self.inheritance.as_ref().map_or(0, |i| i.left.bytes);
        self.tables.bytes.saturating_sub(left)
    }
}

/// Orders facts so that each branch comes behind its parent, with its depth below the first of its
/// line: branches whose parent is gone, or not among them, begin a line.
pub fn in_order_of_descent(facts: &[BranchFacts]) -> Vec<(usize, &BranchFacts)> {
    let known: BTreeSet<BranchId> = facts.iter().map(|f| f.branch).collect();
    let parent = |f: &BranchFacts| {
        f.inheritance.as_ref().map(|i| i.parent).filter(|parent| known.contains(parent))
    };
    let mut children: BTreeMap<Option<BranchId>, Vec<&BranchFacts>> = BTreeMap::new();
    for one in facts {
        children.entry(parent(one)).or_default().push(one);
    }
    // A walk without recursion: lines of forks may be deep. Last in, first out.
    let mut todo: Vec<(usize, &BranchFacts)> = Vec::new();
    let mut push = |todo: &mut Vec<_>, depth: usize, of: Option<BranchId>| {
        let found = children.remove(&of).unwrap_or_default();
        todo.extend(found.into_iter().rev().map(|one| (depth, one)));
    };
    push(&mut todo, 0, None);
    let mut out = Vec::with_capacity(facts.len());
    while let Some((depth, one)) = todo.pop() {
        out.push((depth, one));
        push(&mut todo, depth + 1, Some(one.branch));
    }
    out
}
