//! Reads a database directory as it lies on disk, damaged or not, and changes nothing.
//!
//! It takes no lock, so that a database can be looked at while it is open; files that its owner
//! removes meanwhile are then reported as missing. What cannot be read is told as an error beside
//! what can. Every byte of the live manifest, log and tables is read and checked.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::iter::{self, ScanBounds, TableIter};
use crate::options::Layout;
use crate::recovery::numbered;
use crate::table::context::Wanted;
use crate::table::{Need, ReadContext, TableMeta, TableSpace, table_path};
use crate::types::{BranchId, FileNumber, Kind, SeqNo, TableId, TreeId, to_u64};
use crate::version::edit::Edit;
use crate::version::manifest::{
    current_path, manifest_path, read_current, read_file, read_manifest_prefix,
};
use crate::version::set::VersionSet;
use crate::wal::reader::read_segment_prefix;
use crate::wal::{Record, WalEntry, segment_path};

const OPEN_TABLES_MAX: u32 = 16;
const READAHEAD_BYTES: u32 = 256 * 1024;

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
    /// Edits in the order of the live manifest.
    pub edits: Vec<EditReport>,
    /// Trees by id.
    pub trees: Vec<TreeReport>,
    /// Versions of the key, newest first.
    pub history: Vec<VersionReport>,
    /// What could not be read, and why.
    pub errors: Vec<Error>,
}

/// The key whose versions are looked for, as its tree stores it.
struct Wish {
    tree: TreeId,
    branch: BranchId,
    key: Bytes,
}

/// Reads the database in `dir`; with a tenant and a key, every version of that key too. `None`
/// where there is no database.
///
/// # Errors
///
/// The world's, where the directory cannot be listed. All else is in [`Inspection::errors`].
pub async fn inspect<E: Env>(
    env: &E,
    dir: &Path,
    key: Option<(&str, &[u8])>,
) -> Result<Option<Inspection>> {
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
    let wish = key.and_then(|(tenant, key)| {
        let branch = set.tenant(tenant);
        if branch.is_none() {
            out.errors.push(Error::UnknownTenant(tenant.to_owned()));
        }
        let branch = branch?;
        let (tree, place) = branch.places.first()?;
        Some(Wish { tree: tree.id, branch: branch.id, key: place.key(key) })
    });
    read_log(env, dir, (&names, set.wal_floor(), wish.as_ref()), &mut out).await;
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
            branches: branches.iter().filter(lives).map(|b| b.tenant.clone()).collect(),
            levels: version
                .levels
                .iter()
                .map(|tables| (to_u64(tables.len()), tables.iter().map(|t| t.bytes).sum()))
                .collect(),
        });
    }
}

/// Walks the log as recovery does, from the newest segment back along the predecessors.
async fn read_log<E: Env>(
    env: &E,
    dir: &Path,
    (names, floor, wish): (&[String], u64, Option<&Wish>),
    out: &mut Inspection,
) {
    let mut segments: Vec<u64> = names
        .iter()
        .filter_map(|name| numbered(name).filter(|(n, kind)| *kind == "wal" && *n >= floor))
        .map(|(number, _)| number)
        .collect();
    segments.sort_unstable();
    let mut next: Option<(u64, u64)> = None;
    for segment in segments.iter().rev().copied() {
        let limit = match next {
            Some((wanted, limit)) if wanted == segment => Some(limit),
            // Begun, and never part of the log.
            Some(_) => continue,
            None => None,
        };
        let path = segment_path(dir, segment);
        let bytes = match read_file(env, &path, IoClass::Wal).await {
            Ok(bytes) => bytes,
            Err(error) => {
                out.errors.push(error);
                next = None;
                continue;
            }
        };
        let (found, damage) = read_segment_prefix(&path, segment, &bytes, limit);
        out.errors.extend(damage);
        let mut records = 0;
        let mut before = None;
        for (offset, record) in found.records {
            match record {
                Record::Predecessor { segment: predecessor, valid_bytes, carried, .. } => {
                    before = Some((predecessor, valid_bytes));
                    versions_in(carried.iter(), wish, Place::Log(segment, offset), out);
                }
                Record::Batch { first_seq, entries } => {
                    records += 1;
                    let numbered: Vec<_> = (first_seq..).zip(entries).collect();
                    versions_in(numbered.iter(), wish, Place::Log(segment, offset), out);
                }
            }
        }
        // Begun, or a spare: the one before it is the newest.
        if next.is_none() && before.is_none() {
            continue;
        }
        out.wal.push(SegmentReport { segment, bytes: to_u64(bytes.len()), records });
        next = before;
    }
    out.wal.reverse();
    if let Some((missing, _)) = next
        && missing > 0
        && missing >= floor
        && !segments.contains(&missing)
    {
        let what = "a later segment names it as its predecessor, but it does not exist";
        out.errors.push(Error::corruption(&segment_path(dir, missing), 0, what));
    }
}

/// Keeps the versions of the key that is looked for.
fn versions_in<'a>(
    entries: impl Iterator<Item = &'a (SeqNo, WalEntry)>,
    wish: Option<&Wish>,
    place: Place,
    out: &mut Inspection,
) {
    let Some(wish) = wish else { return };
    for (seq, entry) in entries {
        let key = entry.data.get(..crate::types::to_usize(entry.key_bytes.into()));
        let owner = (entry.tree, entry.branch) == (wish.tree, wish.branch);
        if owner && key == Some(&wish.key[..]) {
            out.history.push(VersionReport { seq: *seq, kind: entry.kind, place });
        }
    }
}

async fn read_tables<E: Env>(env: &E, dir: &Path, wish: Option<&Wish>, out: &mut Inspection) {
    let space = Arc::new(TableSpace::new(env.clone(), dir, 0, OPEN_TABLES_MAX));
    for TableReport { tree, level, meta } in &out.tables {
        let key = wish.filter(|w| w.tree == *tree).map(|w| &w.key);
        let place = Place::Table(meta.id, *level);
        let found = &mut |seq, kind| out.history.push(VersionReport { seq, kind, place });
        if let Err(error) = read_table(&space, meta, key, found).await {
            out.errors.push(error);
        }
    }
}

/// Reads and checks every part of a table, and calls `found` with each version of a key.
async fn read_table<E: Env>(
    space: &Arc<TableSpace<E>>,
    table: &Arc<TableMeta>,
    key: Option<&Bytes>,
    found: &mut impl FnMut(SeqNo, Kind),
) -> Result<()> {
    let mut ctx = ReadContext::bulk(IoClass::Read, READAHEAD_BYTES);
    let says_otherwise = |what: &str| {
        Error::corruption(&table_path(space.dir(), table.id.file), table.id.offset, what)
    };
    if space.properties(table, &mut ctx).await?.meta != **table {
        return Err(says_otherwise("the table's properties are not what the manifest says"));
    }
    let filter = Need { table: Arc::clone(table), what: Wanted::Filter };
    space.load(filter, &mut ctx).await?;
    ctx.unpin(table);
    let mut iter = TableIter::new(Arc::clone(space), Arc::clone(table), ScanBounds::default());
    let (mut entries, mut tombstones) = (0_u64, 0_u64);
    while let Some(entry) = iter::next(&mut iter, space, &mut ctx).await? {
        entries += 1;
        tombstones += u64::from(entry.kind == Kind::Delete);
        if key == Some(&entry.key) {
            found(entry.seq, entry.kind);
        }
    }
    if (entries, tombstones) != (table.entries, table.tombstones) {
        let what = format!("{entries} entries, {tombstones} of them tombstones, are not its own");
        return Err(says_otherwise(&what));
    }
    Ok(())
}
