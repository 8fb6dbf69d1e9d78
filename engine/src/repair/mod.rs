//! Repair: makes a damaged directory one that opens, from whatever in it is whole.
//!
//! It writes a manifest that names every whole table, and switches CURRENT to it. Nothing is
//! deleted, neither by it nor by the open that follows: a file that the new manifest does not name
//! although it may hold data gets a second name, `NAME.lost`, which no open removes.
//!
//! # What it can know
//!
//! * A manifest is taken up to its first damage. Where all of it is whole, what it says is the
//!   truth: tables that it does not name are garbage, and only what is damaged is lost.
//! * Where it is not whole, every whole table that no edit removed is taken, by the tree that the
//!   table itself names. A tenant whose name is in no readable manifest becomes `recovered-ID`.
//! * A damaged manifest may look whole, with its tail cut off. So it counts as cut where a table or
//!   the oldest segment that it names does not exist, or the log names a branch that it does not.
//!
//! # Order
//!
//! Newer versions must stand above older ones. Tables stay where the manifest had them. A table
//! that it did not name is put on top of L0 where all of its entries are newer than those of every
//! table that shares keys with it; else the tables of that tree are merged into one run, which
//! needs no order. An entry of the log is replayed above all tables, so those at or below the
//! tree's watermark are left out, and where the watermark is lost or a table is, each entry of
//! which a table holds the same or a newer version. The log is written anew for that.
//!
//! # What it cannot know
//!
//! A compaction drops a tombstone together with what it hides. Where the manifest is damaged, its
//! inputs may still lie in the directory, or some of them, and the edit that removed them may be
//! lost. They are kept, since they may as well be live, and every table of which that may be true
//! is reported as a risk: it may contain deleted data. The same holds for a tenant that an edit in
//! the lost part dropped.
//!
//! Where a table is lost, older versions of its keys, in tables below it, are read again.

mod facts;
mod tables;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::facts::{ID_MAX, Log, Said, layout, log_line, read_log, read_manifests};
use self::tables::{Survey, Tables, TreePlan, file_name};
use self::write::{Judge, Writes};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::layout::{check_name, initial_trees, split_name};
use crate::options::Layout;
use crate::recovery::numbered;
use crate::replay::{falls_short, highest_seq};
use crate::table::{TableMeta, TableSpace};
use crate::types::{BranchId, FileNumber, SEQ_MAX, SeqNo, TreeId, to_u64};
use crate::verify::{Finding, Owners, Part, segments_of};
use crate::version::LEVEL_COUNT;
use crate::version::edit::Edit;
use crate::version::manifest::manifest_path;
use crate::version::set::VersionSet;
use crate::wal::segment_path;

const OPEN_TABLES_MAX: u32 = 64;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How to repair.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepairOptions {
    /// Only tell what would be done. Writes nothing and takes no lock.
    pub dry_run: bool,
    /// The layout, for a directory in which no manifest can be read. Ignored where one can.
    pub layout: Option<Layout>,
}

/// What became of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    /// Segments that were found.
    pub segments: u64,
    /// Entries that could be read in them.
    pub entries: u64,
    /// Whether the log was, or would be, written anew.
    pub rewritten: bool,
    /// Entries in the new log; the others are in tables, or their tenant is gone. 0 in a dry run.
    pub carried: u64,
}

/// What repair found and did.
#[derive(Clone, Debug, Default)]
pub struct RepairReport {
    /// Whether anything was to be done. A directory for which this is false was not touched.
    pub needed: bool,
    /// The manifest that was written.
    pub manifest: Option<FileNumber>,
    /// The manifest that it was built upon; `None` where none could be read.
    pub base: Option<FileNumber>,
    /// Whether that one says all of the state in which the database was.
    pub base_is_complete: bool,
    /// What could not be saved: each file with the reason and whose data may be missing.
    pub lost: Vec<Finding>,
    /// Tables that may bring deleted data back.
    pub risks: Vec<Finding>,
    /// Tenants whose names were lost, by the names they have got.
    pub recovered: Vec<String>,
    /// Tables that the database consists of, before any merge.
    pub tables: u64,
    /// Of these, tables that no readable manifest named.
    pub adopted: u64,
    /// Of these, tables that were found under another name than the manifest says.
    pub relocated: u64,
    /// Trees whose tables were, or would be, merged.
    pub merged_trees: u64,
    /// The log.
    pub log: LogLine,
    /// Files that got a second name, by that name; in a dry run by the name they have.
    pub set_aside: Vec<String>,
}

/// All that was found, and what is to be made of it.
struct Plan {
    names: Vec<String>,
    said: Said,
    log: Log,
    tables: Tables,
    layout: Layout,
    complete: bool,
    rewrite_log: bool,
    log_is_short: bool,
    /// Trees of which the manifest did not say all.
    unsure: BTreeSet<TreeId>,
    /// Branches that no manifest knows as live, with their names.
    recovered: BTreeMap<BranchId, (String, TreeId)>,
}

/// Repairs the database in a directory that nobody has open. See [`Db::repair`](crate::Db::repair).
///
/// # Errors
///
/// `InvalidArgument` where the directory holds no database, or its layout is lost and not given;
/// `Locked`; the world's. CURRENT then names what it named before, or the new manifest, whole;
/// repair can be run again.
pub async fn repair<E: Env>(env: &E, dir: &Path, options: &RepairOptions) -> Result<RepairReport> {
    let names = env.list(dir).await?;
    if !names.iter().any(|name| name == "CURRENT" || is_own(name)) {
        let what = format!("{} holds no database", dir.display());
        return Err(Error::InvalidArgument(what));
    }
    let lock = if options.dry_run { None } else { Some(env.lock(&dir.join("LOCK")).await?) };
    let space = TableSpace::new(env.clone(), dir, CACHE_BYTES, OPEN_TABLES_MAX);
    let space = Arc::new(space);
    let mut plan = plan(env, (dir, &space), names, options).await?;
    let mut report = plan.report();
    if report.needed && !options.dry_run {
        let next_file = Arc::new(AtomicU64::new(plan.said.next_file));
        let writes = Writes { env, dir, space: &space, next_file };
        carry_out(&writes, &mut plan, &mut report).await?;
    }
    drop(lock);
    Ok(report)
}

fn is_own(name: &str) -> bool {
    matches!(numbered(name), Some((_, "sst" | "wal" | "manifest")))
}

async fn plan<E: Env>(
    env: &E,
    (dir, space): (&Path, &Arc<TableSpace<E>>),
    names: Vec<String>,
    options: &RepairOptions,
) -> Result<Plan> {
    let mut said = read_manifests(env, dir, &names).await?;
    let mut log = read_log(env, dir, &names, said.set.wal_floor()).await;
    if let (Some(newest), true) = (segments_of(&names).last(), log.losses.is_empty()) {
        let reach = (log.max_seq, highest_seq(&said.set));
        let short = falls_short(&segment_path(dir, *newest), 0, reach);
        let lose = |error| Finding { part: Part::Log, error, owners: Owners::default() };
        log.losses.extend(short.map(lose));
    }
    let layout = layout(&said, &log, options)?;
    if said.base.is_none() {
        said.set = VersionSet::new(layout);
        let trees = (1..=initial_trees(layout)).map(TreeId).collect();
        drop(said.set.apply(&Edit::CreateTrees { trees }));
    }
    let floor = said.set.wal_floor();
    let floor_is_there = floor == 0 || names.contains(&segment_name(floor));
    let known = |(tree, branch): &(TreeId, BranchId)| {
        let next_id = said.set.next_id();
        tree.0 < next_id && branch.0 < next_id
    };
    let all_known = log.owners.iter().all(known);
    let mut complete = said.complete && floor_is_there && all_known;
    if let Some(number) = said.base.filter(|_| said.complete && !all_known) {
        let what = "its end is lost: the log names trees or branches that it does not";
        let error = Error::corruption(&manifest_path(dir, number), 0, what);
        said.losses.push(Finding { part: Part::Manifest, error, owners: Owners::default() });
    }
    let owners = Owners::by_tree(&said.set.branches());
    let survey = Survey { env, space, said: &said, owners: &owners };
    let tables = survey.run(&names, layout, !complete).await;
    complete &= !tables.missing;
    let mut plan = Plan {
        names,
        said,
        log,
        tables,
        layout,
        complete,
        rewrite_log: false,
        log_is_short: false,
        unsure: BTreeSet::new(),
        recovered: BTreeMap::new(),
    };
    plan.find_unsure();
    plan.name_the_lost();
    Ok(plan)
}

fn is_full_name(name: &str) -> bool {
    let (tenant, branch) = split_name(name);
    check_name(tenant).is_ok() && check_name(branch).is_ok()
}

fn segment_name(segment: u64) -> String {
    segment_path(Path::new(""), segment).to_string_lossy().into_owned()
}

impl Plan {
    fn find_unsure(&mut self) {
        for (tree, plan) in &self.tables.trees {
            if !self.complete || plan.lost || plan.merge {
                self.unsure.insert(*tree);
            }
        }
        if !self.complete {
            self.unsure.extend(self.log.owners.iter().map(|(tree, _)| *tree));
        }
        // An open refuses a log that ends before what was flushed.
        let trees = self.said.set.trees();
        let flushed = trees.iter().map(|tree| tree.flushed_upto()).max().unwrap_or(0);
        self.log_is_short = self.log.max_seq < flushed;
        self.rewrite_log =
            self.log_is_short || !self.unsure.is_empty() || !self.log.losses.is_empty();
    }

    /// Gives a name to every branch that has data and is in no manifest that could be read.
    fn name_the_lost(&mut self) {
        if self.complete {
            return;
        }
        let mut taken: BTreeSet<String> =
            self.said.set.branches().iter().map(|b| b.full_name()).collect();
        let seen: BTreeSet<(TreeId, BranchId)> =
            self.tables.seen.union(&self.log.owners).copied().collect();
        for (tree, branch) in seen {
            let own_tree = tree.0 == branch.0;
            let is_odd = own_tree != (self.layout == Layout::PerTenant);
            if is_odd
                || tree.0.max(branch.0) >= ID_MAX
                || self.said.set.branch(branch).is_some()
                || self.said.dropped.contains(&branch)
            {
                continue;
            }
            let old = self.said.names.get(&branch).filter(|name| is_full_name(name));
            let mut name = old.cloned().unwrap_or_else(|| format!("recovered-{branch}"));
            let mut again = 1_u64;
            while !taken.insert(name.clone()) {
                again += 1;
                name = format!("recovered-{branch}-{again}");
            }
            self.recovered.insert(branch, (name, tree));
        }
    }

    fn report(&self) -> RepairReport {
        let (said, tables) = (&self.said, &self.tables);
        let mut lost = said.losses.clone();
        lost.extend(tables.losses.iter().cloned());
        lost.extend(self.log.losses.iter().cloned());
        let plans = tables.trees.values();
        let merged_trees = to_u64(plans.clone().filter(|plan| plan.merge).count());
        let whole = self.complete && lost.is_empty() && !self.log_is_short;
        let needed = !whole || tables.relocated > 0 || merged_trees > 0;
        let mut report = RepairReport {
            needed,
            base: said.base,
            base_is_complete: self.complete,
            lost,
            risks: tables.risks.clone(),
            recovered: self.recovered.values().map(|(name, _)| name.clone()).collect(),
            tables: to_u64(plans.map(|plan| plan.tables.len()).sum()),
            adopted: tables.adopted,
            relocated: tables.relocated,
            merged_trees,
            log: log_line(&self.log),
            ..RepairReport::default()
        };
        report.log.rewritten = needed && self.rewrite_log;
        if needed {
            report.set_aside = self.to_set_aside().into_iter().collect();
        }
        report
    }

    /// Files that the next open would remove and that may hold what nothing else does.
    fn to_set_aside(&self) -> BTreeSet<String> {
        let mut out: BTreeSet<String> =
            self.said.spoiled.union(&self.tables.spoiled).cloned().collect();
        let merged = self.tables.trees.values().filter(|plan| plan.merge);
        out.extend(merged.flat_map(|p| p.tables.iter().map(|(_, t)| file_name(t.id.file))));
        for finding in &self.log.losses {
            let name = finding.error.location().0.and_then(Path::file_name);
            out.extend(name.map(|name| name.to_string_lossy().into_owned()));
        }
        out.retain(|name| self.names.contains(name));
        out
    }

    /// The highest sequence number that was ever given, as far as anything tells.
    fn last_seq(&self) -> SeqNo {
        let plans = self.tables.trees.values();
        let tables = plans.flat_map(|p| p.tables.iter().map(|(_, t)| t.max_seq)).max();
        self.said.max_seq.max(self.log.max_seq).max(tables.unwrap_or(0)).min(SEQ_MAX - 1)
    }

    fn next_id(&self) -> u64 {
        let seen = self.tables.seen.iter().chain(&self.log.owners);
        let ids = seen.flat_map(|(tree, branch)| [tree.0, branch.0]);
        let trees = self.tables.trees.keys().map(|tree| tree.0);
        let highest = ids.chain(trees).filter(|id| *id < ID_MAX).max().unwrap_or(0);
        self.said.set.next_id().max(highest + 1)
    }

    /// The state that the new manifest begins with.
    fn new_set(&self, wal_floor: u64) -> Result<VersionSet> {
        let set = VersionSet::new(self.layout);
        let apply = |edit: &Edit| set.apply(edit).map(drop).map_err(Error::InvalidArgument);
        apply(&Edit::Begin { layout: self.layout, next_id: self.next_id(), wal_floor })?;
        for edit in self.said.set.edits() {
            // These are written anew; whatever else a manifest holds stays as it is.
            if !matches!(
                edit,
                Edit::Begin { .. } | Edit::TreeState { .. } | Edit::SharedState { .. }
            ) {
                apply(&edit)?;
            }
        }
        for (branch, (name, tree)) in &self.recovered {
            apply(&Edit::CreateTenants { tenants: vec![(name.clone(), *branch, *tree)] })?;
        }
        for (tree, plan) in &self.tables.trees {
            if set.tree(*tree).is_none() {
                if plan.tables.is_empty() {
                    continue;
                }
                apply(&Edit::CreateTrees { trees: vec![*tree] })?;
            }
            let known = self.said.set.tree(*tree).map_or(0, |t| t.flushed_upto());
            let flushed_upto = if plan.lost { 0 } else { known };
            let tables: Vec<(u32, TableMeta)> =
                plan.tables.iter().map(|(l, t)| (*l, TableMeta::clone(t))).collect();
            apply(&Edit::TreeState { tree: *tree, flushed_upto, tables })?;
        }
        Ok(set)
    }
}

/// Writes what the plan says. The switch of CURRENT is the last step.
async fn carry_out<E: Env>(
    writes: &Writes<'_, E>,
    plan: &mut Plan,
    report: &mut RepairReport,
) -> Result<()> {
    let mut aside = Vec::new();
    for name in plan.to_set_aside() {
        aside.extend(writes.set_aside(&name).await?);
    }
    report.set_aside = aside;
    let last_level = u32::try_from(LEVEL_COUNT - 1).unwrap_or(0);
    for (tree, tables) in plan.tables.trees.iter_mut().filter(|(_, tables)| tables.merge) {
        let inputs: Vec<_> = tables.tables.iter().map(|(_, t)| Arc::clone(t)).collect();
        let merged = writes.merge(*tree, &inputs).await?;
        let place = |meta| (last_level, Arc::new(meta));
        *tables = TreePlan { tables: merged.into_iter().map(place).collect(), ..*tables };
    }
    // The second names and the tables, before anything may make an open remove the first names.
    writes.env.sync_dir(writes.dir).await?;
    let mut floor = plan.said.set.wal_floor();
    if plan.rewrite_log {
        let set = plan.new_set(0)?;
        let judge = Judge::new(&set, &plan.unsure);
        let segments = &plan.log.chain.segments;
        let line = (plan.last_seq(), &mut report.log);
        floor = writes.log(segments, &judge, line).await?;
    }
    report.manifest = Some(writes.manifest(plan.new_set(floor)?).await?);
    debug_assert!(writes.next_file.load(Ordering::Relaxed) > plan.said.next_file);
    Ok(())
}
