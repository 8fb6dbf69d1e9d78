//! Which tables are whole, whose they are, and in which order they can stand.
//!
//! A point read takes the first version that it meets, memtables first, then L0 from the newest,
//! then level by level. So of two tables that share a range of keys the one with the newer entries
//! must stand above, and where neither has all the newer ones, both are merged into one run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::facts::{ID_MAX, Said};
use crate::env::Env;
use crate::error::Error;
use crate::inspect::table::tables_in;
use crate::layout::branch_of;
use crate::options::Layout;
use crate::recovery::numbered;
use crate::table::{TableMeta, TableSpace, table_path};
use crate::types::{BranchId, Entry, FileNumber, TreeId};
use crate::verify::{Finding, Owners, Part, check_table, overlaps};

/// A tree's tables as they will stand.
#[derive(Debug, Default)]
pub(super) struct TreePlan {
    /// With their levels, L0 newest first.
    pub(super) tables: Vec<(u32, Arc<TableMeta>)>,
    /// They are to be merged into the last level instead.
    pub(super) merge: bool,
    /// Tables that no manifest named are among them.
    pub(super) adopted: bool,
    /// A table of it is lost.
    pub(super) lost: bool,
}

/// What became of the tables.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) trees: BTreeMap<TreeId, TreePlan>,
    /// Branches whose keys are in tables that no manifest named, with their tree.
    pub(super) seen: BTreeSet<(TreeId, BranchId)>,
    pub(super) losses: Vec<Finding>,
    pub(super) risks: Vec<Finding>,
    /// A live table's file is not there, or another one has its name.
    pub(super) missing: bool,
    /// Tables that were found under another name.
    pub(super) relocated: u64,
    pub(super) adopted: u64,
    pub(super) spoiled: BTreeSet<String>,
}

/// A live table that its file does not hold.
struct Lost {
    tree: TreeId,
    level: u32,
    /// Its place among the tables of its tree.
    place: usize,
    meta: Arc<TableMeta>,
    errors: Vec<Error>,
}

pub(super) struct Survey<'a, E: Env> {
    pub(super) env: &'a E,
    pub(super) space: &'a Arc<TableSpace<E>>,
    pub(super) said: &'a Said,
    pub(super) owners: &'a BTreeMap<TreeId, Owners>,
}

pub(super) fn file_name(number: FileNumber) -> String {
    table_path(Path::new(""), number).to_string_lossy().into_owned()
}

fn key_overlap(a: &TableMeta, b: &TableMeta) -> bool {
    a.smallest <= b.largest && b.smallest <= a.largest
}

impl<E: Env> Survey<'_, E> {
    /// Checks the tables of the manifest, then, where one is lost or the manifest is not whole,
    /// all others.
    pub(super) async fn run(&self, names: &[String], layout: Layout, adopt: bool) -> Tables {
        let mut out = Tables::default();
        let (mut lost, mut whole) = (Vec::new(), BTreeSet::new());
        for tree in self.said.set.trees() {
            let mut plan = TreePlan::default();
            let version = Arc::clone(&tree.view().version);
            for (place, (level, meta)) in version.tables().enumerate() {
                let errors = check_table(self.env, self.space, meta, &mut |_| {}).await.errors;
                if errors.is_empty() {
                    whole.insert(meta.id.file);
                    plan.tables.push((level, Arc::clone(meta)));
                } else {
                    out.missing |= errors.iter().any(Error::is_not_found);
                    let meta = Arc::clone(meta);
                    lost.push(Lost { tree: tree.id, level, place, meta, errors });
                }
            }
            out.trees.insert(tree.id, plan);
        }
        let adopt = adopt || out.missing;
        let mut extras = Vec::new();
        if adopt || !lost.is_empty() {
            let listed = names.iter().filter_map(|name| numbered(name));
            let others = listed.filter(|(n, kind)| *kind == "sst" && !whole.contains(n));
            let numbers: Vec<FileNumber> = others.map(|(number, _)| number).collect();
            for number in numbers {
                self.survey(number, (&mut lost, &mut extras), (layout, adopt), &mut out).await;
            }
        }
        for lost in lost {
            self.lose(lost, &mut out);
        }
        for plan in out.trees.values_mut() {
            let mut levels = vec![Vec::new(); crate::version::LEVEL_COUNT];
            for (level, meta) in &plan.tables {
                if let Some(tables) = usize::try_from(*level).ok().and_then(|l| levels.get_mut(l)) {
                    tables.push(Arc::clone(meta));
                }
            }
            plan.merge = !overlaps(levels.iter().map(Vec::as_slice)).is_empty();
        }
        self.adopt(extras, &mut out);
        out
    }

    fn lose(&self, lost: Lost, out: &mut Tables) {
        let owners = Owners::of(lost.tree, self.owners);
        for error in lost.errors {
            out.losses.push(Finding { part: Part::Table, error, owners: owners.clone() });
        }
        out.spoiled.insert(file_name(lost.meta.id.file));
        out.trees.entry(lost.tree).or_default().lost = true;
    }

    /// Looks at a file whose content nobody claimed.
    async fn survey(
        &self,
        number: FileNumber,
        (lost, extras): (&mut Vec<Lost>, &mut Vec<Arc<TableMeta>>),
        (layout, adopt): (Layout, bool),
        out: &mut Tables,
    ) {
        let is_lost = lost.iter().any(|l| l.meta.id.file == number);
        let (found, damage) = tables_in(self.env, self.space, number).await;
        let mut errors: Vec<Error> = damage.into_iter().collect();
        let mut claimed = 0_usize;
        for meta in found.iter().map(|properties| Arc::new(properties.meta.clone())) {
            let meta = &meta;
            let mut branches = BTreeSet::new();
            let mut see = |entry: &Entry| {
                if layout != Layout::PerTenant {
                    branches.extend(branch_of(&entry.key));
                }
            };
            let check = check_table(self.env, self.space, meta, &mut see).await;
            if !check.errors.is_empty() {
                errors.extend(check.errors);
                continue;
            }
            // The same table under another name.
            let same = |l: &Lost| TableMeta { id: meta.id, ..TableMeta::clone(&l.meta) } == **meta;
            let mut is_found = false;
            // Branches that share it lost it together.
            while let Some(at) = lost.iter().position(same) {
                let Lost { tree, level, place, .. } = lost.swap_remove(at);
                let plan = out.trees.entry(tree).or_default();
                let place = place.min(plan.tables.len());
                plan.tables.insert(place, (level, Arc::clone(meta)));
                plan.tables.sort_by_key(|(level, _)| *level);
                is_found = true;
            }
            if is_found {
                out.relocated += 1;
                claimed += 1;
            } else if adopt && self.may_adopt(meta) {
                if layout == Layout::PerTenant {
                    branches.insert(BranchId(meta.tree.0));
                }
                out.seen.extend(branches.into_iter().map(|branch| (meta.tree, branch)));
                extras.push(Arc::clone(meta));
                claimed += 1;
            }
        }
        if !is_lost && adopt && !self.said.removed.contains(&number) {
            let finding = |error| {
                let owners = Owners::default();
                Finding { part: Part::Table, error, owners }
            };
            out.losses.extend(errors.into_iter().map(finding));
        }
        if claimed < found.len() || claimed == 0 {
            out.spoiled.insert(file_name(number));
        }
        if self.said.removed.contains(&number) {
            out.spoiled.remove(&file_name(number));
        }
    }

    fn may_adopt(&self, meta: &TableMeta) -> bool {
        let dropped = self.said.dropped.contains(&BranchId(meta.tree.0))
            && self.said.set.layout() == Layout::PerTenant;
        let removed = self.said.removed.contains(&meta.id.file)
            || self.said.removed_tables.contains(&meta.id);
        !dropped && !removed && meta.tree.0 < ID_MAX
    }

    /// Puts tables that no manifest named where they can stand.
    fn adopt(&self, mut extras: Vec<Arc<TableMeta>>, out: &mut Tables) {
        // Oldest first: each is put on top of those before it.
        extras.sort_by_key(|t| (t.max_seq, t.id));
        for extra in extras {
            let plan = out.trees.entry(extra.tree).or_default();
            let newest = plan
                .tables
                .iter()
                .all(|(_, t)| !key_overlap(t, &extra) || t.max_seq < extra.min_seq);
            plan.merge |= !newest;
            plan.adopted = true;
            out.adopted += 1;
            plan.tables.insert(0, (0, Arc::clone(&extra)));
        }
        for (tree, plan) in out.trees.iter().filter(|(_, plan)| plan.adopted) {
            let owners = Owners::of(*tree, self.owners);
            for (_, table) in &plan.tables {
                if let Some(error) = self.risk(table, plan) {
                    let owners = owners.clone();
                    out.risks.push(Finding { part: Part::Table, error, owners });
                }
            }
        }
    }

    /// Why a table may bring deleted data back: a table that was written later covers the same keys
    /// and the same times, as the output of a compaction of it would, and a tombstone that both
    /// once had below it may be gone.
    fn risk(&self, table: &TableMeta, plan: &TreePlan) -> Option<Error> {
        let later = plan.tables.iter().map(|(_, t)| t).find(|t| {
            t.id.file > table.id.file
                && key_overlap(t, table)
                && t.min_seq <= table.max_seq
                && table.min_seq <= t.max_seq
        })?;
        let what = format!(
            "it may contain deleted data: table {} may be the output of a compaction of it",
            later.id
        );
        let path = table_path(self.space.dir(), table.id.file);
        Some(Error::corruption(&path, table.id.offset, what))
    }
}
