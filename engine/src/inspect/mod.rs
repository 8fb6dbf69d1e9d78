//! Reads a database directory as it lies on disk, damaged or not, and changes nothing.
//!
//! It takes no lock, so that a database can be looked at while it is open; files that its owner
//! removes meanwhile are then reported as missing. What cannot be read is told as an error beside
//! what can. Every byte of the live manifest, log and tables is read and checked.

pub(crate) mod log;
pub mod own;
pub mod table;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::inspect::log::find_chain;
use crate::options::Layout;
use crate::recovery::numbered;
use crate::table::{TableMeta, TableSpace};
use crate::types::{BranchId, Entry, FileNumber, Kind, SeqNo, TableId, TreeId, to_u64, to_usize};
use crate::verify::{check_table, segments_of};
use crate::version::edit::Edit;
use crate::version::manifest::{
    current_path, manifest_path, read_current, read_file, read_manifest_prefix,
};
use crate::version::set::VersionSet;
use crate::wal::reader::read_segment_prefix;
use crate::wal::{Record, segment_path};

const OPEN_TABLES_MAX: u32 = 16;

/// A table of a tree. One table in two trees is listed twice.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// The tree.
    pub tree: TreeId,
    /// Its level there.
    pub level: u32,
    /// What the manifest says of it.
    pub meta: Arc<TableMeta>,
}

/// A segment of the log.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its number.
    pub segment: u64,
    /// The length of its file.
    pub bytes: u64,
    /// Whole batches in it.
    pub records: u64,
}

/// A record of the log.
#[derive(Clone, Debug)]
pub struct RecordReport {
    /// Its segment.
    pub segment: u64,
    /// Where it begins there.
    pub offset: u64,
    /// Its kind.
    pub kind: &'static str,
    /// The number of its first entry; of a segment's first record the highest number before it.
    pub seq: SeqNo,
    /// Its entries.
    pub entries: u64,
    /// Trees that they were written to, each once.
    pub trees: Vec<TreeId>,
}

/// An edit of the live manifest.
#[derive(Clone, Debug)]
pub struct EditReport {
    /// The manifest's number.
    pub file: FileNumber,
    /// Where its record begins.
    pub offset: u64,
    /// The edit.
    pub edit: Edit,
}

/// A tree.
#[derive(Clone, Debug)]
pub struct TreeReport {
    /// Its id.
    pub tree: TreeId,
    /// The tenants whose branch `main` lives in it.
    pub branches: Vec<String>,
    /// Tables and their bytes, by level.
    pub levels: Vec<(u64, u64)>,
}

/// Where a version of a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the batch at this offset of a segment.
    Log(u64, u64),
    /// In a table at this level.
    Table(TableId, u32),
}

/// One version of the key that was asked for.
#[derive(Clone, Debug)]
pub struct VersionReport {
    /// Its place in the order of writes.
    pub seq: SeqNo,
    /// Put or delete.
    pub kind: Kind,
    /// Where it is. A flushed version is in the log too, until its segment goes.
    pub place: Place,
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Tables by tree, L0 first and newest first in it.
    pub tables: Vec<TableReport>,
    /// Segments that the log needs, oldest first.
    pub wal: Vec<SegmentReport>,
    /// Records of the log, where they were asked for.
    pub records: Vec<RecordReport>,
    /// Edits in the order of the live manifest.
    pub edits: Vec<EditReport>,
    /// Trees by id.
    pub trees: Vec<TreeReport>,
    /// Versions of the key, newest first.
    pub history: Vec<VersionReport>,
    /// What could not be read, and why.
    pub errors: Vec<Error>,
}

/// What to look for beside what lies there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look<'a> {
    /// Every version of a tenant's key.
    pub key: Option<(&'a str, &'a [u8])>,
    /// Every record of the log.
    pub records: bool,
}

/// The key whose versions are looked for, as its tree stores it.
struct Wish {
    tree: TreeId,
    branch: BranchId,
    key: Bytes,
}

/// Reads the database in `dir`, and what `look` asks for; `None` where there is no database.
///
/// # Errors
///
/// The world's, where the directory cannot be listed. All else is in [`Inspection::errors`].
pub async fn inspect<E: Env>(env: &E, dir: &Path, look: Look<'_>) -> Result<Option<Inspection>> {
    let names = env.list(dir).await?;
    let mut out = Inspection::default();
    let set = VersionSet::new(Layout::PerTenant);
    match read_current(env, dir).await {
        Ok(Some(number)) => read_edits(env, dir, (number, &set), &mut out).await,
        Ok(None) if !names.iter().any(|n| matches!(numbered(n), Some((_, "sst")))) => {
            return Ok(None);
        }
        Ok(None) => {
            let what = "CURRENT is missing although there are tables";
            out.errors.push(Error::corruption(&current_path(dir), 0, what));
        }
        Err(error) => out.errors.push(error),
    }
    list_trees(&set, &mut out);
    let wish = look.key.and_then(|(tenant, key)| {
        let branch = set.named(tenant);
        if branch.is_none() {
            out.errors.push(Error::UnknownTenant(tenant.to_owned()));
        }
        let branch = branch?;
        let (tree, place) = branch.places.first()?;
        Some(Wish { tree: tree.id, branch: branch.id, key: place.key(key) })
    });
    read_log(env, dir, (&names, set.wal_floor(), (wish.as_ref(), look.records)), &mut out).await;
    read_tables(env, dir, wish.as_ref(), &mut out).await;
    out.history.sort_by_key(|version| (u64::MAX - version.seq, version.place));
    Ok(Some(out))
}

async fn read_edits<E: Env>(
    env: &E,
    dir: &Path,
    (number, set): (FileNumber, &VersionSet),
    out: &mut Inspection,
) {
    let path = manifest_path(dir, number);
    let bytes = match read_file(env, &path, IoClass::Manifest).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => {
            let what = "CURRENT names it, but it does not exist";
            out.errors.push(Error::corruption(&path, 0, what));
            return;
        }
        Err(error) => {
            out.errors.push(error);
            return;
        }
    };
    let (edits, _, damage) = read_manifest_prefix(&path, &bytes);
    let mut contradicted = false;
    for (offset, edit) in edits {
        if !contradicted && let Err(what) = set.apply(&edit) {
            contradicted = true;
            out.errors.push(Error::corruption(&path, offset, what));
        }
        out.edits.push(EditReport { file: number, offset, edit });
    }
    out.errors.extend(damage);
}

fn list_trees(set: &VersionSet, out: &mut Inspection) {
    let branches = set.branches();
    for tree in set.trees() {
        let version = Arc::clone(&tree.view().version);
        for (level, meta) in version.tables() {
            out.tables.push(TableReport { tree: tree.id, level, meta: Arc::clone(meta) });
        }
        let lives = |b: &&Arc<crate::version::tree::Branch>| {
            b.places.first().is_some_and(|(home, _)| home.id == tree.id)
        };
        out.trees.push(TreeReport {
            tree: tree.id,
            branches: branches.iter().filter(lives).map(|b| b.full_name()).collect(),
            levels: version
                .levels
                .iter()
                .map(|tables| (to_u64(tables.len()), tables.iter().map(|t| t.bytes).sum()))
                .collect(),
        });
    }
}

async fn read_log<E: Env>(
    env: &E,
    dir: &Path,
    (names, floor, asked): (&[String], u64, (Option<&Wish>, bool)),
    out: &mut Inspection,
) {
    let chain = find_chain(env, dir, &segments_of(names), floor).await;
    out.errors.extend(chain.errors);
    for (segment, limit) in chain.segments {
        let path = segment_path(dir, segment);
        let bytes = match read_file(env, &path, IoClass::Wal).await {
            Ok(bytes) => bytes,
            Err(error) => {
                out.errors.push(error);
                continue;
            }
        };
        let (found, damage) = read_segment_prefix(&path, segment, &bytes, limit);
        out.errors.extend(damage);
        let is_opening = |(_, r): &&(u64, Record)| matches!(r, Record::Predecessor { .. });
        let openings = found.records.iter().filter(is_opening).count();
        let records = to_u64(found.records.len() - openings);
        for (offset, record) in found.records {
            read_record((segment, offset), record, asked, out);
        }
        out.wal.push(SegmentReport { segment, bytes: to_u64(bytes.len()), records });
    }
}

fn read_record(
    (segment, offset): (u64, u64),
    record: Record,
    (wish, listed): (Option<&Wish>, bool),
    out: &mut Inspection,
) {
    let (kind, seq, entries) = match record {
        Record::Predecessor { last_seq, carried, .. } => ("predecessor", last_seq, carried),
        Record::Batch { first_seq, entries } => {
            ("batch", first_seq, (first_seq..).zip(entries).collect())
        }
        Record::Relogged { entries } => {
            ("relogged", entries.iter().map(|(seq, _)| *seq).min().unwrap_or(0), entries)
        }
    };
    if listed {
        let trees: BTreeSet<TreeId> = entries.iter().map(|(_, e)| e.tree).collect();
        let (trees, count) = (trees.into_iter().collect(), to_u64(entries.len()));
        out.records.push(RecordReport { segment, offset, kind, seq, entries: count, trees });
    }
    let Some(wish) = wish else { return };
    for (seq, entry) in entries {
        let key = entry.data.get(..to_usize(u64::from(entry.key_bytes)));
        let owner = (entry.tree, entry.branch) == (wish.tree, wish.branch);
        if owner && key == Some(&wish.key[..]) {
            let place = Place::Log(segment, offset);
            out.history.push(VersionReport { seq, kind: entry.kind, place });
        }
    }
}

async fn read_tables<E: Env>(env: &E, dir: &Path, wish: Option<&Wish>, out: &mut Inspection) {
    let space = Arc::new(TableSpace::new(env.clone(), dir, 0, OPEN_TABLES_MAX));
    for TableReport { tree, level, meta } in &out.tables {
        let key = wish.filter(|w| w.tree == *tree).map(|w| &w.key);
        let place = Place::Table(meta.id, *level);
        let mut see = |entry: &Entry| {
            if key == Some(&entry.key) {
                out.history.push(VersionReport { seq: entry.seq, kind: entry.kind, place });
            }
        };
        let check = check_table(env, &space, meta, &mut see).await;
        out.errors.extend(check.errors);
    }
}
