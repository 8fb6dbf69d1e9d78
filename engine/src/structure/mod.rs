//! What a database in memory consists of, held against itself: the state that every install
//! leaves.
//!
//! The look takes one lock after the other, so it is of one instant only where nothing runs beside
//! it: in a simulation between two polls, or once a database is quiet. It reads no file.
//!
//! What must hold, of a database that no repair gave its log back (a repaired tree may take
//! entries again that its tables hold):
//!
//! * *Tables.* L0 is newest first: every entry of a table is newer than every entry of the tables
//!   behind it, tables that a fork inherited or shares included. Tables of a deeper level are in
//!   key order and disjoint. A version names a table once. No table holds an entry above its
//!   tree's `flushed_upto`. Two trees that name one table are of one family and hold it by one
//!   pointer, so that one counter tells who reads it. What the collector may remove is in no
//!   version.
//! * *Forks.* A table that a tree did not write was inherited: the tree was forked, and the table
//!   has no entry above the fork.
//! * *Memtables.* In a tree's view the one that takes writes comes before the immutable ones,
//!   those newest first, by their entries; all their entries are above `flushed_upto`, without
//!   which a crash would lose them. Owners and views agree, and whoever is to flush one is known.
//! * *Accounts.* The budget counts each memtable once, whoever shares it; the flush policy's view
//!   agrees; the log is pinned once by each memtable. While a flush runs, what it installed and
//!   has not given back yet may be counted still.
//! * *Log.* The segment of every memtable's oldest entry is live and not below the durable floor,
//!   so that no segment goes that holds an entry's only copy.
//! * *Names.* Names, branches, trees and families agree, and every id was given.
//!
//! A tree is compacted once at a time because `jobs` holds those that are in a set; there is
//! nothing to check.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::env::Env;
use crate::memtable::Memtable;
use crate::options::Layout;
use crate::shared::Shared;
use crate::table::TableMeta;
use crate::types::{BranchId, TableId, TreeId, to_u64};
use crate::verify::overlaps;
use crate::version::set::Audit;
use crate::version::tree::{Tree, TreeView};
use crate::version::{LEVEL_COUNT, Version};

/// More findings are not told.
const FINDINGS_MAX: usize = 100;

/// The result of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// What does not hold, one line each; empty where all does.
    pub findings: Vec<String>,
    /// Trees that were looked at.
    pub trees: u64,
    /// Tables, counted once for each version that differs.
    pub tables: u64,
    /// Memtables, counted once however many trees share them.
    pub memtables: u64,
    /// Bytes that memtables hold, counted from the trees.
    pub held_bytes: u64,
    /// Whether no flush ran, so that all accounts had to be exact.
    pub is_settled: bool,
}

/// Looks at a database's structure without keeping it open.
pub struct StructureWatch<E: Env> {
    shared: Weak<Shared<E>>,
}

impl<E: Env> core::fmt::Debug for StructureWatch<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StructureWatch").finish_non_exhaustive()
    }
}

impl<E: Env> StructureWatch<E> {
    pub(crate) fn new(shared: &Arc<Shared<E>>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// Changes with every commit that the manifest installs (flushes, compactions, forks, drops and
    /// all others) and whenever flushes begin or end to run; `None` where the database is gone.
    pub fn stamp(&self) -> Option<(u64, bool)> {
        let shared = self.shared.upgrade()?;
        Some((shared.set.install_count(), shared.jobs.flushes_run()))
    }

    /// As [`Db::check_structure`](crate::Db::check_structure).
    pub fn check(&self) -> Option<Structure> {
        Some(check(&*self.shared.upgrade()?))
    }
}

/// A tree with its view at the instant of the look.
struct Seen {
    tree: Arc<Tree>,
    view: Arc<TreeView>,
    place: Where,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In the set.
    Live,
    /// None of the set, with memtables in its view that trees of the set need.
    Beside,
    /// Dropped: the queue's next leader gives back what it holds.
    Dropped,
}

struct Look<'a, E: Env> {
    shared: &'a Shared<E>,
    audit: Audit,
    seen: Vec<Seen>,
    out: Structure,
}

/// Checks a database against itself.
pub(crate) fn check<E: Env>(shared: &Shared<E>) -> Structure {
    let audit = shared.set.audit();
    let dropped = shared.dropped.lock().clone();
    let see = |tree: &Arc<Tree>, place| Seen { tree: Arc::clone(tree), view: tree.view(), place };
    let mut seen: Vec<Seen> = audit.trees.values().map(|t| see(t, Where::Live)).collect();
    let beside = audit.beside.values().filter(|t| dropped.iter().all(|d| d.id != t.id));
    seen.extend(beside.map(|t| see(t, Where::Beside)));
    seen.extend(dropped.iter().map(|t| see(t, Where::Dropped)));
    let is_settled = !shared.jobs.flushes_run();
    let out = Structure { trees: to_u64(seen.len()), is_settled, ..Structure::default() };
    let mut look = Look { shared, audit, seen, out };
    look.names();
    look.families();
    look.tables();
    look.memtables();
    look.accounts();
    look.out
}

impl<E: Env> Look<'_, E> {
    fn find(&mut self, what: String) {
        if self.out.findings.len() < FINDINGS_MAX {
            self.out.findings.push(what);
        }
    }

    fn find_all(&mut self, what: impl IntoIterator<Item = String>) {
        what.into_iter().for_each(|what| self.find(what));
    }

    fn names(&mut self) {
        let mut found = Vec::new();
        let Audit { names, branches, trees, next_id, .. } = &self.audit;
        let by_id: BTreeMap<BranchId, &String> = names.iter().map(|(n, id)| (*id, n)).collect();
        if names.len() != branches.len() {
            found.push(format!("{} names of {} branches", names.len(), branches.len()));
        }
        let mut homes: BTreeMap<TreeId, u64> = BTreeMap::new();
        for (id, branch) in branches {
            let name = branch.full_name();
            if by_id.get(id) != Some(&&name) {
                found.push(format!("branch {id} is {name}, but that name is not its own"));
            }
            for (tree, _) in &branch.places {
                *homes.entry(tree.id).or_insert(0) += 1;
                if !trees.get(&tree.id).is_some_and(|known| Arc::ptr_eq(known, tree)) {
                    found.push(format!("{name} lives in tree {}, none of the set", tree.id));
                }
            }
            if id.0 >= *next_id {
                found.push(format!("branch {id} has an id that was not given: next {next_id}"));
            }
        }
        for (id, tree) in trees {
            let (said, is) = (Shared::<E>::tenants_of(tree), homes.get(id).copied().unwrap_or(0));
            if said != is {
                found.push(format!("tree {id} counts {said} branches and has {is}"));
            }
            if tree.is_dropped() || (is == 0 && self.audit.layout == Layout::PerTenant) {
                found.push(format!("tree {id} is of no branch, and still there"));
            }
        }
        self.find_all(found);
    }

    fn families(&mut self) {
        let mut found = Vec::new();
        let Audit { families, trees, beside, .. } = &self.audit;
        for (family, members) in families {
            for id in members {
                if trees.get(id).is_none_or(|tree| tree.family != *family) {
                    found.push(format!("family {family} has tree {id}, which is not of it"));
                }
            }
        }
        for (id, tree) in trees {
            let is_known = families.get(&tree.family).is_some_and(|f| f.contains(id));
            if tree.family != *id && !is_known {
                found.push(format!("family {} does not know its tree {id}", tree.family));
            }
        }
        for id in beside.keys().filter(|id| trees.contains_key(id)) {
            found.push(format!("tree {id} is of the set and beside it"));
        }
        self.find_all(found);
    }

    fn tables(&mut self) {
        let mut known: BTreeMap<TableId, (Arc<TableMeta>, TreeId)> = BTreeMap::new();
        let mut versions: BTreeMap<*const Version, TreeId> = BTreeMap::new();
        let mut found = Vec::new();
        let next_file = self.shared.next_file.load(Ordering::Relaxed);
        for Seen { tree, view, .. } in self.seen.iter().filter(|s| s.place == Where::Live) {
            found.extend(self.inherited(tree, &view.version));
            // Where branches share a tree, a fork's copies keep numbers that are not flushed yet
            // of their parent.
            let is_alone = self.audit.layout == Layout::PerTenant;
            let tables = view.version.tables().filter(|_| is_alone);
            let above = tables.filter(|(_, t)| t.max_seq > tree.flushed_upto());
            found.extend(above.map(|(_, t)| {
                let (upto, max) = (tree.flushed_upto(), t.max_seq);
                format!("tree {} is flushed up to {upto}, its table {} to {max}", tree.id, t.id)
            }));
            if let Some(family) = versions.get(&Arc::as_ptr(&view.version)) {
                if *family != tree.family && !view.version.levels.is_empty() {
                    found.push(format!("tree {} has the tables of family {family}", tree.id));
                }
                continue;
            }
            versions.insert(Arc::as_ptr(&view.version), tree.family);
            found.extend(of_version(tree.id, &view.version));
            for (_, table) in view.version.tables() {
                self.out.tables += 1;
                if table.id.file >= next_file {
                    found.push(format!("the file of table {} has a number not given", table.id));
                }
                let (first, family) =
                    known.entry(table.id).or_insert_with(|| (Arc::clone(table), tree.family));
                if *family != tree.family {
                    let other = *family;
                    found.push(format!(
                        "table {} is of tree {} and of family {other}",
                        table.id, tree.id
                    ));
                }
                if !Arc::ptr_eq(first, table) {
                    found.push(format!("table {} is counted twice, as of {}", table.id, tree.id));
                }
            }
        }
        let mut free = BTreeSet::new();
        for table in &*self.shared.garbage.lock() {
            if known.contains_key(&table.id) || !free.insert(table.id) {
                found.push(format!("table {} may be removed, and is held or twice so", table.id));
            }
        }
        self.find_all(found);
    }

    /// What is wrong with the tables that a tree did not write.
    fn inherited(&self, tree: &Tree, version: &Version) -> Vec<String> {
        if self.audit.layout != Layout::PerTenant {
            return Vec::new();
        }
        let fork = self.audit.branches.get(&BranchId(tree.id.0)).and_then(|branch| branch.fork);
        // One that was not forked has tables of others only where it came in with them.
        let Some(upto) = fork.map(|fork| fork.seq) else { return Vec::new() };
        let foreign = version.tables().filter(|(_, t)| t.tree != tree.id && t.max_seq > upto);
        let line = |table: &TableMeta| {
            let (max, from) = (table.max_seq, table.tree);
            let (id, table) = (tree.id, table.id);
            format!("tree {id}, forked at {upto}, has table {table} of tree {from} up to {max}")
        };
        foreign.map(|(_, table)| line(table)).collect()
    }

    fn memtables(&mut self) {
        let mut found = Vec::new();
        let views: BTreeMap<TreeId, &Arc<TreeView>> =
            self.seen.iter().map(|seen| (seen.tree.id, &seen.view)).collect();
        let holds = |id: TreeId, memtable: &Arc<Memtable>| {
            let view = views.get(&id);
            view.is_some_and(|v| v.immutables.iter().any(|m| Arc::ptr_eq(m, memtable)))
        };
        let mut asked: BTreeSet<*const Memtable> = BTreeSet::new();
        for Seen { tree, view, place } in &self.seen {
            let (id, upto) = (tree.id, tree.flushed_upto());
            let all: Vec<&Arc<Memtable>> = view.memtable.iter().chain(&view.immutables).collect();
            if *place != Where::Dropped {
                found.extend(all.array_windows::<2>().filter_map(|[newer, older]| {
                    let (min, max) = (newer.min_seq(), older.max_seq());
                    let what = format!("tree {id}: a memtable from {min} is before one to {max}");
                    (min <= max).then_some(what)
                }));
            }
            if *place == Where::Live {
                let below = all.iter().filter(|m| m.min_seq() <= upto);
                found.extend(below.map(|m| {
                    format!("tree {id} is flushed up to {upto}, a memtable is from {}", m.min_seq())
                }));
            }
            for memtable in &view.immutables {
                let owners = memtable.owners();
                // Released by an install that came between the drop and the queue's next leader.
                if *place == Where::Dropped && owners.is_empty() {
                    continue;
                }
                if !owners.contains(&id) {
                    found.push(format!("tree {id} reads a memtable of {owners:?}"));
                }
                if !asked.insert(Arc::as_ptr(memtable)) {
                    continue;
                }
                for owner in owners.iter().filter(|owner| !holds(**owner, memtable)) {
                    found.push(format!("tree {owner} owns a memtable of {id} it does not read"));
                }
                if !owners.contains(&memtable.home) {
                    found.push(format!("nobody flushes a memtable of {owners:?}"));
                }
            }
            if view.memtable.as_ref().is_some_and(|m| m.owners() != [id]) {
                found.push(format!("the memtable of tree {id} is not its own"));
            }
        }
        self.find_all(found);
    }

    fn accounts(&mut self) {
        let (mut mutable, mut immutable, mut history) = (0, 0, 0);
        let mut anchors: BTreeMap<u64, u64> = BTreeMap::new();
        let mut counted: BTreeSet<*const Memtable> = BTreeSet::new();
        let facts = self.shared.pressure.tree_facts();
        let facts: BTreeMap<TreeId, _> = facts.into_iter().map(|f| (f.tree, f)).collect();
        let mut found = Vec::new();
        for Seen { tree, view, place } in &self.seen {
            if let Some(memtable) = &view.memtable {
                mutable += memtable.bytes();
                *anchors.entry(memtable.anchor_segment()).or_insert(0) += 1;
            }
            let unreleased = view.immutables.iter().filter(|m| !m.owners().is_empty());
            for memtable in unreleased.filter(|m| counted.insert(Arc::as_ptr(m))) {
                immutable += memtable.bytes();
                *anchors.entry(memtable.anchor_segment()).or_insert(0) += 1;
            }
            history += view.history.iter().map(|m| m.bytes()).sum::<u64>();
            if *place != Where::Live {
                continue;
            }
            let Some(facts) = facts.get(&tree.id) else {
                found.push(format!("tree {} is unknown to the policies", tree.id));
                continue;
            };
            let own = view.immutables.iter().filter(|m| m.home == tree.id);
            let own: u64 = own.map(|m| m.bytes()).sum();
            let bytes = view.memtable.as_ref().map_or(0, |m| m.bytes());
            if facts.memtable_bytes != bytes
                || facts.immutable_bytes < own
                || (self.out.is_settled && facts.immutable_bytes != own)
            {
                let said = (facts.memtable_bytes, facts.immutable_bytes);
                let is = (bytes, own);
                found.push(format!("policies see {said:?} bytes of tree {}: {is:?}", tree.id));
            }
        }
        self.out.memtables = anchors.values().sum();
        self.out.held_bytes = mutable + immutable + history;
        let budget = &self.shared.budget;
        let counts = [
            ("mutable", budget.mutable_bytes(), mutable, true),
            ("immutable", budget.immutable_bytes(), immutable, self.out.is_settled),
            ("history", budget.history_bytes(), history, self.out.is_settled),
        ];
        for (what, said, is, is_exact) in counts {
            if said < is || (is_exact && said != is) {
                found.push(format!("the budget counts {said} {what} bytes, trees hold {is}"));
            }
        }
        found.extend(self.log(&anchors));
        self.find_all(found);
    }

    /// What is wrong with the log, with so many memtables by anchor.
    fn log(&self, anchors: &BTreeMap<u64, u64>) -> Vec<String> {
        let (segments, pins) = self.shared.log.audit();
        let mut found = Vec::new();
        for (anchor, count) in anchors {
            let pinned = pins.get(anchor).copied().unwrap_or(0);
            if pinned < *count {
                found.push(format!("{count} memtables begin in segment {anchor}, {pinned} pins"));
            }
            if *anchor < self.audit.wal_floor || !segments.contains(anchor) {
                let floor = self.audit.wal_floor;
                found.push(format!("a memtable begins in segment {anchor}, the floor is {floor}"));
            }
        }
        if self.out.is_settled && pins != *anchors {
            found.push(format!("segments are pinned {pins:?}, memtables begin in {anchors:?}"));
        }
        found
    }
}

/// What is wrong with a version by itself.
fn of_version(tree: TreeId, version: &Version) -> Vec<String> {
    let mut found = Vec::new();
    for [newer, older] in version.level(0).array_windows::<2>() {
        if newer.min_seq <= older.max_seq {
            let (min, max) = (newer.min_seq, older.max_seq);
            let (newer, older) = (newer.id, older.id);
            found.push(format!("tree {tree}: table {newer} from {min} is before {older} to {max}"));
        }
    }
    let overlaps = overlaps(version.levels.iter().map(|tables| tables.as_slice())).into_iter();
    found.extend(overlaps.map(|(table, what)| format!("tree {tree}: table {}: {what}", table.id)));
    let mut ids = BTreeSet::new();
    let twice = version.tables().filter(|(_, t)| !ids.insert(t.id));
    found.extend(twice.map(|(_, t)| format!("tree {tree} has table {} twice", t.id)));
    let bad = version.tables().filter(|(_, t)| t.smallest > t.largest || t.min_seq > t.max_seq);
    found.extend(bad.map(|(_, t)| format!("tree {tree}: table {} ends before it begins", t.id)));
    if version.levels.len() > LEVEL_COUNT {
        found.push(format!("tree {tree} has {} levels", version.levels.len()));
    }
    found
}
