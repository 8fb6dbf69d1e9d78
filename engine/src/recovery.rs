//! Recovery: manifest, then WAL, then orphans. Every crash without damage to the media can be
//! opened.
//!
//! Nothing is truncated. What was replayed is synced before anything new is acknowledged, else a
//! later power loss could take it from under newer writes; then a fresh manifest and a fresh
//! segment begin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Budget;
use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::log_space::LogSpace;
use crate::memtable::{self, Memtable};
use crate::options::{Layout, Options};
use crate::pressure::Pressure;
use crate::types::{FileNumber, SeqNo, TreeId};
use crate::version::edit::Edit;
use crate::version::manifest::{manifest_path, read_current, read_file, read_manifest};
use crate::version::set::VersionSet;
use crate::version::tree::Tree;
use crate::wal::reader::{SegmentRecords, read_segment};
use crate::wal::writer::Predecessor;
use crate::wal::{Record, WalEntry, segment_path};

/// What the manifest says.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) set: VersionSet,
    /// The manifest that was read; `None` for a new database.
    pub(crate) manifest: Option<FileNumber>,
    /// Names in the directory.
    pub(crate) names: Vec<String>,
    /// A number above those of all files.
    pub(crate) next_file: FileNumber,
}

/// The number in a file name of the database, with what follows it.
pub(crate) fn numbered(name: &str) -> Option<(FileNumber, &str)> {
    if let Some(number) = name.strip_prefix("MANIFEST-") {
        return Some((number.parse().ok()?, "manifest"));
    }
    let (number, kind) = name.split_once('.')?;
    Some((number.parse().ok()?, kind))
}

/// Reads the manifest into a version set. Changes nothing on disk.
///
/// # Errors
///
/// The world's; `Corruption` for a damaged CURRENT or manifest; `InvalidArgument` for a database of
/// another layout.
pub(crate) async fn read_versions<E: Env>(
    env: &E,
    dir: &Path,
    options: &Options,
) -> Result<Recovered> {
    let names = env.list(dir).await?;
    let mut highest = names.iter().filter_map(|n| numbered(n)).map(|(n, _)| n).max().unwrap_or(0);
    let set = VersionSet::new(options.layout);
    let manifest = read_current(env, dir).await?;
    let Some(number) = manifest else {
        if let Some(table) = names.iter().find(|n| matches!(numbered(n), Some((_, "sst")))) {
            let what = format!("CURRENT is missing although there are tables, such as {table}");
            return Err(Error::corruption(&dir.join("CURRENT"), 0, what));
        }
        let trees = crate::layout::initial_trees(options.layout);
        let edit = Edit::CreateTrees { trees: (1..=trees).map(TreeId).collect() };
        set.apply(&edit).map_err(Error::InvalidArgument)?;
        return Ok(Recovered { set, manifest, names, next_file: highest + 1 });
    };
    let path = manifest_path(dir, number);
    let bytes = match read_file(env, &path, IoClass::Manifest).await {
        Err(error) if error.is_not_found() => {
            let what = "CURRENT names it, but it does not exist";
            return Err(Error::corruption(&path, 0, what));
        }
        other => other?,
    };
    let (edits, _) = read_manifest(&path, &bytes)?;
    for (at, edit) in edits {
        check_layout(&edit, options.layout)?;
        if let Edit::Flush { table: Some(table), .. } = &edit {
            highest = highest.max(table.id.file);
        }
        set.apply(&edit).map_err(|what| Error::corruption(&path, at, what))?;
    }
    for tree in set.trees() {
        for (_, table) in tree.view().version.tables() {
            highest = highest.max(table.id.file);
        }
    }
    Ok(Recovered { next_file: highest.max(number).max(set.wal_floor()) + 1, set, manifest, names })
}

fn check_layout(edit: &Edit, wanted: Layout) -> Result<()> {
    if let Edit::Begin { layout, .. } = edit
        && *layout != wanted
    {
        return Err(Error::InvalidArgument(format!(
            "layout = {wanted}, but the database was created with layout {layout}"
        )));
    }
    Ok(())
}

/// What the log said.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The highest sequence number anywhere.
    pub(crate) last_seq: SeqNo,
    /// What the next segment says of the newest valid one.
    pub(crate) newest: Predecessor,
    /// Segments that hold records.
    pub(crate) segments: BTreeSet<u64>,
}

/// Where replayed entries go.
pub(crate) struct ReplayTo<'a> {
    pub(crate) set: &'a VersionSet,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) log: &'a LogSpace,
    pub(crate) pressure: &'a Pressure,
    pub(crate) now: u64,
}

/// Replays the log into memtables and makes what was replayed durable.
///
/// # Errors
///
/// The world's, or `Corruption` of a segment. Memtables then hold a part of the log.
pub(crate) async fn replay<E: Env>(
    env: &E,
    dir: &Path,
    names: &[String],
    to: &ReplayTo<'_>,
) -> Result<Replayed> {
    let floor = to.set.wal_floor();
    let mut files = BTreeMap::new();
    for (number, kind) in names.iter().filter_map(|n| numbered(n)) {
        if kind == "wal" && number >= floor {
            let bytes = read_file(env, &segment_path(dir, number), IoClass::Wal).await?;
            files.insert(number, bytes);
        }
    }
    if floor > 0 && !files.contains_key(&floor) {
        let what = "the manifest needs the log from this segment on, but it does not exist";
        return Err(Error::corruption(&segment_path(dir, floor), 0, what));
    }
    let chain = chain(dir, &files, floor)?;
    let mut out = Replayed { last_seq: highest_seq(to.set), ..Replayed::default() };
    for (segment, records) in &chain {
        to.log.add_segment(*segment, records.valid_bytes);
        out.segments.insert(*segment);
        for (at, record) in &records.records {
            match record {
                Record::Predecessor { last_seq, .. } => out.last_seq = out.last_seq.max(*last_seq),
                Record::Batch { first_seq, entries } => {
                    for (seq, entry) in (*first_seq..).zip(entries) {
                        out.last_seq = out.last_seq.max(seq);
                        apply(to, (*segment, seq), entry).map_err(|what| {
                            Error::corruption(&segment_path(dir, *segment), *at, what)
                        })?;
                    }
                }
            }
        }
        out.newest = Predecessor {
            segment: *segment,
            valid_bytes: records.valid_bytes,
            last_seq: out.last_seq,
        };
    }
    if let Some((segment, records)) = chain.last() {
        let valid = usize::try_from(records.valid_bytes).unwrap_or(usize::MAX);
        let bytes = files.get(segment).map_or(&[][..], |b| b.get(..valid).unwrap_or(b));
        settle_newest(env, &segment_path(dir, *segment), bytes).await?;
    }
    out.newest.last_seq = out.last_seq;
    if !chain.is_empty() {
        env.sync_dir(dir).await?;
    }
    Ok(out)
}

/// Makes the newest segment durable as it was read. Those before it were synced before their
/// successors began. The bytes are written again, since a sync alone may prove nothing: where the
/// process that died had met a failed sync, the page cache still shows pages that it holds to be
/// clean, and that are not on the disk.
async fn settle_newest<E: Env>(env: &E, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = env.open(path).await?;
    file.write_at(0, bytes, IoClass::Wal).await?;
    file.sync_all(IoClass::Wal).await
}

/// The segments that make up the log, oldest first: from the newest whose first record is whole
/// back along the predecessors. Any other segment was begun and never took an acknowledged record.
fn chain(
    dir: &Path,
    files: &BTreeMap<u64, Bytes>,
    floor: u64,
) -> Result<Vec<(u64, SegmentRecords)>> {
    let mut chain = Vec::new();
    let mut next: Option<(u64, Option<u64>)> = None;
    for (&segment, bytes) in files.iter().rev() {
        let path = segment_path(dir, segment);
        let limit = match next {
            None => None,
            Some((wanted, limit)) if wanted == segment => limit,
            Some(_) => continue,
        };
        let records = read_segment(&path, segment, bytes, limit)?;
        match records.records.first() {
            Some((_, Record::Predecessor { segment: before, valid_bytes, .. })) => {
                next = Some((*before, Some(*valid_bytes)));
            }
            Some((at, Record::Batch { .. })) => {
                return Err(Error::corruption(&path, *at, "the first record names no predecessor"));
            }
            // The newest file may be one that was just begun; then the one before is the newest.
            None if next.is_none() => continue,
            None => {
                return Err(Error::corruption(
                    &path,
                    0,
                    "a later segment names it, but it is empty",
                ));
            }
        }
        chain.push((segment, records));
    }
    if let Some((missing, _)) = next
        && missing > 0
        && missing >= floor
        && !files.contains_key(&missing)
    {
        let what = "a later segment names it as its predecessor, but it does not exist";
        return Err(Error::corruption(&segment_path(dir, missing), 0, what));
    }
    chain.reverse();
    Ok(chain)
}

fn highest_seq(set: &VersionSet) -> SeqNo {
    let trees = set.trees();
    let tables = |tree: &Arc<Tree>| {
        let view = tree.view();
        view.version.tables().map(|(_, t)| t.max_seq).max().unwrap_or(0)
    };
    trees.iter().map(|t| t.flushed_upto().max(tables(t))).max().unwrap_or(0)
}

/// Puts an entry into the memtable of every tree that takes it.
fn apply(
    to: &ReplayTo<'_>,
    (segment, seq): (u64, SeqNo),
    entry: &WalEntry,
) -> core::result::Result<(), String> {
    let Some(tree) = to.set.tree(entry.tree) else {
        let known = entry.tree.0 < to.set.next_id();
        let what = format!("tree {} was never created", entry.tree);
        return if known { Ok(()) } else { Err(what) };
    };
    if to.set.is_gone(entry.branch)? {
        return Ok(());
    }
    if !tree.lineage.takes(tree.id, tree.flushed_upto(), entry.tree, seq) {
        return Ok(());
    }
    let key_bytes = usize::try_from(entry.key_bytes).unwrap_or(usize::MAX);
    let bytes = memtable::charge(key_bytes, entry.data.len().saturating_sub(key_bytes));
    // A copy of its own: one small entry must not pin its whole segment in memory.
    let data = Bytes::copy_from_slice(&entry.data);
    let view = tree.view();
    let memtable = view.memtable.clone().unwrap_or_else(|| {
        let memtable = Arc::new(Memtable::new(to.now, segment));
        to.log.pin(segment);
        tree.change(|v| v.memtable = Some(Arc::clone(&memtable)));
        memtable
    });
    memtable.insert(data, entry.key_bytes, seq, entry.kind);
    to.budget.reserve(bytes).charge(bytes);
    to.pressure.on_write(&tree, bytes, to.now, memtable.anchor_segment);
    Ok(())
}

/// Removes files that neither the manifest nor the log names. Called once the new manifest is live.
pub(crate) async fn remove_orphans<E: Env>(
    env: &E,
    dir: &Path,
    names: &[String],
    (set, segments): (&VersionSet, &BTreeSet<u64>),
) -> u64 {
    let mut live = BTreeSet::new();
    for tree in set.trees() {
        live.extend(tree.view().version.tables().map(|(_, t)| t.id.file));
    }
    let mut removed = 0;
    for name in names {
        let orphan = match numbered(name) {
            Some((number, "sst")) => !live.contains(&number),
            Some((number, "wal")) => !segments.contains(&number),
            Some((_, "tmp" | "manifest")) => true,
            Some(_) | None => false,
        };
        // One that cannot be removed now is found again by the next open.
        if orphan && env.remove(&dir.join(name)).await.is_ok() {
            removed += 1;
        }
    }
    removed
}
