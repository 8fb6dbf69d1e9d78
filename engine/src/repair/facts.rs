//! What can be known of a damaged directory: its manifests as far as they are whole, and its log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{LogLine, RepairOptions};
use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::inspect::log::{Chain, find_chain};
use crate::options::Layout;
use crate::recovery::{mention, numbered};
use crate::types::{BranchId, FileNumber, SeqNo, TableId, TreeId, to_u64};
use crate::verify::{Finding, Owners, Part, segments_of};
use crate::version::edit::Edit;
use crate::version::manifest::{
    PlacedEdit, current_path, manifest_path, read_current, read_file, read_manifest_prefix,
};
use crate::version::set::VersionSet;
use crate::wal::reader::read_segment_prefix;
use crate::wal::salvage::salvage_segment;
use crate::wal::{Record, segment_path};

/// Ids and numbers of files at or above this one were never given.
pub(super) const ID_MAX: u64 = 1 << 62;

/// What the manifests say.
pub(super) struct Said {
    /// The state behind the last whole edit of the manifest that is built upon.
    pub(super) set: VersionSet,
    /// That manifest; `None` where no manifest has a whole beginning.
    pub(super) base: Option<FileNumber>,
    /// Whether that is the state in which the database was.
    pub(super) complete: bool,
    /// Files that an edit took out of a tree, or whose tree was dropped.
    pub(super) removed: BTreeSet<FileNumber>,
    /// Tables of which the same is true; their files may hold others.
    pub(super) removed_tables: BTreeSet<TableId>,
    /// Branches that an edit dropped.
    pub(super) dropped: BTreeSet<BranchId>,
    /// Names of tenants in other manifests.
    pub(super) names: BTreeMap<BranchId, String>,
    /// Above the number of every file that is there or was named.
    pub(super) next_file: FileNumber,
    /// The highest sequence number that an edit names.
    pub(super) max_seq: SeqNo,
    /// What of CURRENT and the manifests could not be read.
    pub(super) losses: Vec<Finding>,
    /// Files that the next open would remove and that repair could not make full use of.
    pub(super) spoiled: BTreeSet<String>,
}

impl Said {
    fn lose(&mut self, part: Part, error: Error) {
        self.losses.push(Finding { part, error, owners: Owners::default() });
    }
}

/// What the log holds.
#[derive(Default)]
pub(super) struct Log {
    pub(super) chain: Chain,
    /// Trees and branches that its entries name.
    pub(super) owners: BTreeSet<(TreeId, BranchId)>,
    pub(super) max_seq: SeqNo,
    pub(super) entries: u64,
    pub(super) losses: Vec<Finding>,
}

/// Reads every manifest as far as it is whole.
pub(super) async fn read_manifests<E: Env>(env: &E, dir: &Path, names: &[String]) -> Result<Said> {
    let highest = names.iter().filter_map(|n| numbered(n)).map(|(n, _)| n).max().unwrap_or(0);
    let mut said = Said {
        set: VersionSet::new(Layout::PerTenant),
        base: None,
        complete: false,
        removed: BTreeSet::new(),
        removed_tables: BTreeSet::new(),
        dropped: BTreeSet::new(),
        names: BTreeMap::new(),
        next_file: highest + 1,
        max_seq: 0,
        losses: Vec::new(),
        spoiled: BTreeSet::new(),
    };
    let current = match read_current(env, dir).await {
        Ok(Some(number)) if number < ID_MAX => Some(number),
        Ok(Some(_) | None) => {
            let what = "it names no manifest, although there are files of a database";
            said.lose(Part::Current, Error::corruption(&current_path(dir), 0, what));
            None
        }
        Err(error) => {
            said.lose(Part::Current, error);
            None
        }
    };
    if current.is_none() && names.iter().any(|name| name == "CURRENT") {
        said.spoiled.insert("CURRENT".to_owned());
    }
    let listed = names.iter().filter_map(|name| numbered(name));
    let mut numbers: Vec<FileNumber> =
        listed.filter(|(_, kind)| *kind == "manifest").map(|(number, _)| number).collect();
    // The one that CURRENT names, else the newest: it was begun from the state of those before it.
    numbers.sort_unstable_by_key(|number| (Some(*number) != current, u64::MAX - number));
    if let Some(number) = current.filter(|number| !numbers.contains(number)) {
        let what = "CURRENT names it, but it does not exist";
        said.lose(Part::Manifest, Error::corruption(&manifest_path(dir, number), 0, what));
        said.next_file = said.next_file.max(number + 1);
    }
    let first = numbers.first().copied();
    for number in numbers {
        read_one(env, dir, (number, current.or(first)), &mut said).await;
    }
    Ok(said)
}

async fn read_one<E: Env>(
    env: &E,
    dir: &Path,
    (number, live): (FileNumber, Option<FileNumber>),
    said: &mut Said,
) {
    let path = manifest_path(dir, number);
    let (edits, mut damage) = match read_file(env, &path, IoClass::Manifest).await {
        Ok(bytes) => {
            let (edits, _, damage) = read_manifest_prefix(&path, &bytes);
            (edits, damage)
        }
        Err(error) => (Vec::new(), Some(error)),
    };
    let begins = matches!(edits.first(), Some((_, Edit::Begin { .. })));
    if !begins && damage.is_none() {
        damage = Some(Error::corruption(&path, 0, "the first edit does not begin a manifest"));
    }
    // What lies beside the live manifest was begun and never live, or is about to be removed.
    if said.base.is_none() && begins {
        said.base = Some(number);
        let contradiction = apply(&path, &edits, said);
        damage = damage.or(contradiction);
        said.complete = damage.is_none() && Some(number) == live;
    } else if said.base.is_none() || !said.complete {
        take_names(&edits, said);
    } else {
        return;
    }
    let mut files = BTreeSet::new();
    for (_, edit) in &edits {
        mention(edit, &mut files);
    }
    let newest = files.range(..ID_MAX).next_back().copied().unwrap_or(0);
    said.next_file = said.next_file.max(newest + 1);
    if let Some(error) = damage {
        said.lose(Part::Manifest, error);
    }
    if !said.complete {
        said.spoiled.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
}

/// Applies edits up to the first that contradicts those before it.
fn apply(path: &Path, edits: &[PlacedEdit], said: &mut Said) -> Option<Error> {
    let mut gone: BTreeSet<TableId> = BTreeSet::new();
    for (count, (offset, edit)) in edits.iter().enumerate() {
        let applied = match said.set.apply(edit) {
            Ok(applied) => applied,
            Err(what) => {
                // A part of the edit may be in the set: it is built again without it.
                said.set = VersionSet::new(Layout::PerTenant);
                for (_, edit) in edits.iter().take(count) {
                    drop(said.set.apply(edit));
                }
                return Some(Error::corruption(path, *offset, what));
            }
        };
        gone.extend(applied.removed_tables.iter().map(|t| t.id));
        said.max_seq = said.max_seq.max(highest_seq(edit));
        if let Edit::DropTenant { branch } = edit {
            said.dropped.insert(*branch);
        }
    }
    let live = live_tables(&said.set);
    gone.retain(|id| !live.contains(id));
    let live: BTreeSet<FileNumber> = live.iter().map(|id| id.file).collect();
    let files = gone.iter().map(|id| id.file);
    said.removed = files.filter(|file| !live.contains(file)).collect();
    said.removed_tables = gone;
    None
}

fn live_tables(set: &VersionSet) -> BTreeSet<TableId> {
    let mut live = BTreeSet::new();
    for tree in set.trees() {
        live.extend(tree.view().version.tables().map(|(_, t)| t.id));
    }
    live
}

fn highest_seq(edit: &Edit) -> SeqNo {
    match edit {
        Edit::Flush { flushed_upto, table, .. } => {
            table.as_ref().map_or(0, |t| t.max_seq).max(*flushed_upto)
        }
        Edit::TreeState { flushed_upto, tables, .. } => {
            tables.iter().map(|(_, t)| t.max_seq).max().unwrap_or(0).max(*flushed_upto)
        }
        Edit::SharedState { trees, tables } => {
            let tables = tables.iter().map(|(_, t)| t.max_seq).max().unwrap_or(0);
            trees.iter().map(|(_, upto)| *upto).max().unwrap_or(0).max(tables)
        }
        Edit::Fork { fork_seq, .. } | Edit::Ancestry { fork_seq, .. } => *fork_seq,
        Edit::Compact { added, .. } => added.iter().map(|(_, t)| t.max_seq).max().unwrap_or(0),
        Edit::Begin { .. }
        | Edit::CreateTrees { .. }
        | Edit::CreateTenants { .. }
        | Edit::DropTenant { .. }
        | Edit::TenantExtractor { .. }
        | Edit::WalFloor { .. }
        | Edit::Pack { .. } => 0,
    }
}

fn take_names(edits: &[PlacedEdit], said: &mut Said) {
    for (_, edit) in edits {
        match edit {
            Edit::CreateTenants { tenants } => {
                for (name, branch, _) in tenants {
                    said.names.entry(*branch).or_insert_with(|| name.clone());
                }
            }
            Edit::Fork { name, branch, .. } => {
                said.names.entry(*branch).or_insert_with(|| name.clone());
            }
            Edit::DropTenant { branch } => {
                said.dropped.insert(*branch);
            }
            Edit::Begin { .. }
            | Edit::CreateTrees { .. }
            | Edit::Flush { .. }
            | Edit::Compact { .. }
            | Edit::TenantExtractor { .. }
            | Edit::WalFloor { .. }
            | Edit::Pack { .. }
            | Edit::Ancestry { .. }
            | Edit::SharedState { .. }
            | Edit::TreeState { .. } => {}
        }
    }
}

/// Reads every segment of the log, and what is whole of those that are damaged.
pub(super) async fn read_log<E: Env>(env: &E, dir: &Path, names: &[String], floor: u64) -> Log {
    let mut out =
        Log { chain: find_chain(env, dir, &segments_of(names), floor).await, ..Log::default() };
    let lose = |error| Finding { part: Part::Log, error, owners: Owners::default() };
    out.losses.extend(core::mem::take(&mut out.chain.errors).into_iter().map(lose));
    for (segment, limit) in out.chain.segments.clone() {
        let records = match read_segment(env, dir, (segment, limit)).await {
            Ok((records, holes)) => {
                out.losses.extend(holes.into_iter().map(lose));
                records
            }
            Err(error) => {
                out.losses.push(lose(error));
                continue;
            }
        };
        for (_, record) in records {
            match record {
                Record::Predecessor { last_seq, carried, .. } => {
                    out.entries += to_u64(carried.len());
                    out.max_seq = out.max_seq.max(last_seq);
                    out.owners.extend(carried.iter().map(|(_, e)| (e.tree, e.branch)));
                }
                Record::Batch { first_seq, entries } => {
                    out.entries += to_u64(entries.len());
                    let last = first_seq + to_u64(entries.len());
                    out.max_seq = out.max_seq.max(last.saturating_sub(1));
                    out.owners.extend(entries.iter().map(|e| (e.tree, e.branch)));
                }
                Record::Relogged { entries } => {
                    out.entries += to_u64(entries.len());
                    let last = entries.iter().map(|(seq, _)| *seq).max().unwrap_or(0);
                    out.max_seq = out.max_seq.max(last);
                    out.owners.extend(entries.iter().map(|(_, e)| (e.tree, e.branch)));
                }
            }
        }
    }
    out
}

/// A segment's whole records, and an error for every hole between them.
pub(super) async fn read_segment<E: Env>(
    env: &E,
    dir: &Path,
    (segment, limit): (u64, Option<u64>),
) -> Result<(Vec<(u64, Record)>, Vec<Error>)> {
    let path = segment_path(dir, segment);
    let bytes = read_file(env, &path, IoClass::Wal).await?;
    let (found, damage) = read_segment_prefix(&path, segment, &bytes, limit);
    let Some(damage) = damage else { return Ok((found.records, Vec::new())) };
    let salvage = salvage_segment(segment, &bytes, limit);
    let hole = |(from, to): &(u64, u64)| {
        let what = format!("no whole record up to byte {to}: what was logged there is lost");
        Error::corruption(&path, *from, what)
    };
    let mut holes: Vec<Error> = salvage.holes.iter().map(hole).collect();
    if holes.is_empty() {
        holes.push(damage);
    }
    Ok((salvage.records, holes))
}

/// The layout, which only a manifest knows. Without one it is the caller's word, or follows from
/// the log where every entry's branch has a tree of its own.
///
/// # Errors
///
/// `InvalidArgument` where it is not known: a wrong one would give one tenant the keys of others.
pub(super) fn layout(said: &Said, log: &Log, options: &RepairOptions) -> Result<Layout> {
    if said.base.is_some() {
        return Ok(said.set.layout());
    }
    if let Some(layout) = options.layout {
        return Ok(layout);
    }
    let own_trees = log.owners.iter().all(|(tree, branch)| tree.0 == branch.0);
    if own_trees && !log.owners.is_empty() {
        return Ok(Layout::PerTenant);
    }
    let what = "no manifest can be read, and with it the layout is lost: say which it was";
    Err(Error::InvalidArgument(what.to_owned()))
}

/// A line of the report for each part of the log that was walked.
pub(super) fn log_line(log: &Log) -> LogLine {
    LogLine {
        segments: to_u64(log.chain.segments.len()),
        entries: log.entries,
        ..LogLine::default()
    }
}
