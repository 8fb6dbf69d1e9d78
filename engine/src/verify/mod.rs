//! Verification: everything that a database consists of is read and held against everything else.
//!
//! CURRENT, the manifest's edits, every table of every tree (each block's checksum, the order of
//! keys in it and across blocks and tables, index, filter, properties) and every record of the log.
//! A finding does not end it. Nothing is changed and no lock is taken.
//!
//! Beside writers, flushes and compactions one tree's version is pinned at a time: its tables stay
//! until they were read, and what the database retains meanwhile is bounded by one tree. Reads are
//! bulk and pass the caches by.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use self::table::shared_bytes;
pub(crate) use self::table::{check_table, overlaps};
use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::inspect::log::find_chain;
use crate::options::Layout;
use crate::recovery::numbered;
use crate::replay;
use crate::shared::Shared;
use crate::table::{TableMeta, TableSpace, table_path};
use crate::types::{SeqNo, TreeId, to_u64};
use crate::version::Version;
use crate::version::edit::Edit;
use crate::version::manifest::{
    current_path, manifest_path, read_current, read_file, read_manifest_prefix,
};
use crate::version::set::VersionSet;
use crate::version::tree::Branch;
use crate::wal::reader::read_segment_prefix;
use crate::wal::{Record, segment_path};

/// More are counted and not kept.
const FINDINGS_MAX: usize = 10_000;

/// More tenants of a tree are counted and not named.
const NAMES_MAX: usize = 16;

/// A manifest that is replaced while it is looked for is looked for so often.
const ROTATIONS_MAX: u32 = 16;

/// A segment in which damage is found elsewhere each time is looked at so often.
const LOOKS_MAX: u32 = 16;

const OPEN_TABLES_MAX: u32 = 16;

/// What part of a database a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The file that names the manifest.
    Current,
    /// The manifest.
    Manifest,
    /// A table.
    Table,
    /// A segment of the log.
    Log,
}

impl Part {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Manifest => "manifest",
            Self::Table => "table",
            Self::Log => "log",
        }
    }
}

/// Whose data a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The tree, where the file belongs to one.
    pub tree: Option<TreeId>,
    /// Tenants that live in the tree, the first few of them.
    pub tenants: Vec<String>,
    /// How many there are.
    pub tenant_count: u64,
}

impl Owners {
    /// The tenants of every tree.
    pub(crate) fn by_tree(branches: &[Arc<Branch>]) -> BTreeMap<TreeId, Self> {
        let mut out: BTreeMap<TreeId, Self> = BTreeMap::new();
        for branch in branches {
            let Some((home, _)) = branch.places.first() else { continue };
            let owners = out.entry(home.id).or_default();
            owners.tree = Some(home.id);
            owners.tenant_count += 1;
            if owners.tenants.len() < NAMES_MAX {
                owners.tenants.push(branch.full_name());
            }
        }
        out
    }

    /// A tree's tenants among those of every tree.
    pub(crate) fn of(tree: TreeId, by_tree: &BTreeMap<TreeId, Self>) -> Self {
        let nobody = || Self { tree: Some(tree), ..Self::default() };
        by_tree.get(&tree).cloned().unwrap_or_else(nobody)
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about.
    pub part: Part,
    /// What was found, with file and offset.
    pub error: Error,
    /// Whose data is hit, as far as that is known.
    pub owners: Owners,
}

/// What was read and checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Edits of the manifest.
    pub edits: u64,
    /// Trees.
    pub trees: u64,
    /// Tables, counted once for each tree that holds them.
    pub tables: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Their data blocks that are whole.
    pub blocks: u64,
    /// Their entries in such blocks.
    pub entries: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Whole records in them, a segment's first one included.
    pub records: u64,
}

/// The result of a verification.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// What was found, in the order CURRENT, manifest, tables by tree, log.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub left_out: u64,
    /// What was checked.
    pub checked: Checked,
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, part: Part, error: Error, owners: &Owners) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { part, error, owners: owners.clone() });
        } else {
            self.left_out += 1;
        }
    }

    fn add_loose(&mut self, part: Part, error: Error) {
        self.add(part, error, &Owners::default());
    }
}

/// Verifies the database in a directory that nobody has open, without changing it or taking its
/// lock; `None` where there is no database. `progress` is called behind every table and segment.
///
/// # Errors
///
/// The world's, where the directory cannot be listed. All else is a finding.
pub async fn verify_dir<E: Env>(
    env: &E,
    dir: &Path,
    mut progress: impl FnMut(&Checked),
) -> Result<Option<VerifyReport>> {
    let names = env.list(dir).await?;
    let mut out = VerifyReport::default();
    if !names.iter().any(|n| n == "CURRENT" || numbered(n).is_some()) {
        return Ok(None);
    }
    let set = read_manifest(env, dir, &mut out).await;
    let space = Arc::new(TableSpace::new(env.clone(), dir, 0, OPEN_TABLES_MAX));
    let owners = Owners::by_tree(&set.branches());
    verify_extents(dir, (&set, &owners), &mut out);
    for tree in set.trees() {
        let version = Arc::clone(&tree.view().version);
        let owners = Owners::of(tree.id, &owners);
        verify_tree(env, &space, (&version, &owners), (&mut out, &mut progress)).await;
    }
    let facts = (&names[..], set.wal_floor(), replay::highest_seq(&set));
    verify_log(env, dir, facts, (&mut out, &mut progress)).await;
    Ok(Some(out))
}

/// Verifies an open database; see [`Db::verify`](crate::Db::verify).
pub(crate) async fn verify_open<E: Env>(
    shared: &Shared<E>,
    mut progress: impl FnMut(&Checked),
) -> Result<VerifyReport> {
    let mut out = VerifyReport::default();
    drop(read_manifest(&shared.env, &shared.dir, &mut out).await);
    // A file cache of its own: the database's holds what its readers want.
    let space = TableSpace::new(shared.env.clone(), &shared.dir, 0, OPEN_TABLES_MAX);
    let space = Arc::new(space);
    let owners = Owners::by_tree(&shared.set.branches());
    verify_extents(&shared.dir, (&shared.set, &owners), &mut out);
    for tree in shared.set.trees() {
        if shared.is_closing() {
            return Err(Error::Closed);
        }
        let version = Arc::clone(&tree.view().version);
        let owners = Owners::of(tree.id, &owners);
        verify_tree(&shared.env, &space, (&version, &owners), (&mut out, &mut progress)).await;
    }
    let names = shared.env.list(&shared.dir).await?;
    let before = out.findings.len();
    // How far it must reach is known to whoever writes to it.
    let facts = (&names[..], shared.log.oldest(), 0);
    verify_log(&shared.env, &shared.dir, facts, (&mut out, &mut progress)).await;
    // Segments that were given back meanwhile are no loss.
    let oldest = shared.log.oldest();
    let late = out.findings.split_off(before.min(out.findings.len()));
    out.findings.extend(late.into_iter().filter(|finding| {
        let name = finding.error.location().0.and_then(Path::file_name).and_then(|n| n.to_str());
        name.and_then(numbered).is_none_or(|(segment, _)| segment >= oldest)
    }));
    Ok(out)
}

/// Reads CURRENT and the manifest that it names into a set, as far as they are whole.
async fn read_manifest<E: Env>(env: &E, dir: &Path, out: &mut VerifyReport) -> VersionSet {
    let set = VersionSet::new(Layout::PerTenant);
    let mut last = None;
    for _ in 0..ROTATIONS_MAX {
        let number = match read_current(env, dir).await {
            Ok(Some(number)) => number,
            Ok(None) => {
                let what = "it is missing although there are files of a database";
                let error = Error::corruption(&current_path(dir), 0, what);
                out.add_loose(Part::Current, error);
                return set;
            }
            Err(error) => {
                out.add_loose(Part::Current, error);
                return set;
            }
        };
        let path = manifest_path(dir, number);
        match read_file(env, &path, IoClass::Manifest).await {
            Ok(bytes) => {
                apply_edits(&path, &bytes, (&set, out));
                return set;
            }
            // An open database may have begun another one in between.
            Err(error) if error.is_not_found() && last != Some(number) => last = Some(number),
            Err(error) if error.is_not_found() => {
                let what = "CURRENT names it, but it does not exist";
                out.add_loose(Part::Manifest, Error::corruption(&path, 0, what));
                return set;
            }
            Err(error) => {
                out.add_loose(Part::Manifest, error);
                return set;
            }
        }
    }
    set
}

fn apply_edits(path: &Path, bytes: &[u8], (set, out): (&VersionSet, &mut VerifyReport)) {
    let (edits, _, damage) = read_manifest_prefix(path, bytes);
    if !matches!(edits.first(), None | Some((_, Edit::Begin { .. }))) {
        let what = "the first edit does not begin a manifest";
        out.add_loose(Part::Manifest, Error::corruption(path, 0, what));
    }
    for (offset, edit) in &edits {
        out.checked.edits += 1;
        if let Err(what) = set.apply(edit) {
            out.add_loose(Part::Manifest, Error::corruption(path, *offset, what));
            return;
        }
    }
    if let Some(error) = damage {
        out.add_loose(Part::Manifest, error);
    }
}

/// Tables of one file lie apart: what two of them held would be one tenant's in another's hands.
fn verify_extents(
    dir: &Path,
    (set, owners): (&VersionSet, &BTreeMap<TreeId, Owners>),
    out: &mut VerifyReport,
) {
    let mut extents = BTreeMap::new();
    for tree in set.trees() {
        let view = tree.view();
        extents.extend(view.version.tables().map(|(_, t)| (t.id, (t.bytes, tree.id))));
    }
    for (id, tree, what) in shared_bytes(&extents) {
        let error = Error::corruption(&table_path(dir, id.file), id.offset, what);
        out.add(Part::Table, error, &Owners::of(tree, owners));
    }
}

async fn verify_tree<E: Env>(
    env: &E,
    space: &Arc<TableSpace<E>>,
    (version, owners): (&Version, &Owners),
    (out, progress): (&mut VerifyReport, &mut impl FnMut(&Checked)),
) {
    out.checked.trees += 1;
    for (table, what) in overlaps(version.levels.iter().map(|tables| tables.as_slice())) {
        let path = table_path(space.dir(), table.id.file);
        out.add(Part::Table, Error::corruption(&path, table.id.offset, what), owners);
    }
    for (_, table) in version.tables() {
        verify_table(env, space, (table, owners), out).await;
        progress(&out.checked);
    }
}

async fn verify_table<E: Env>(
    env: &E,
    space: &Arc<TableSpace<E>>,
    (table, owners): (&Arc<TableMeta>, &Owners),
    out: &mut VerifyReport,
) {
    let check = check_table(env, space, table, &mut |_| {}).await;
    out.checked.tables += 1;
    out.checked.table_bytes += table.bytes;
    out.checked.blocks += check.blocks;
    out.checked.entries += check.entries;
    for error in check.errors {
        out.add(Part::Table, error, owners);
    }
}

async fn verify_log<E: Env>(
    env: &E,
    dir: &Path,
    (names, floor, flushed): (&[String], u64, SeqNo),
    (out, progress): (&mut VerifyReport, &mut impl FnMut(&Checked)),
) {
    let before = out.findings.len();
    let mut reached = 0;
    let chain = find_chain(env, dir, &segments_of(names), floor).await;
    for error in chain.errors {
        out.add_loose(Part::Log, error);
    }
    for (segment, limit) in chain.segments {
        let path = segment_path(dir, segment);
        match read_settled(env, (&path, segment), limit).await {
            Ok((records, last_seq, damage)) => {
                out.checked.records += records;
                reached = reached.max(last_seq);
                if let Some(error) = damage {
                    out.add_loose(Part::Log, error);
                }
            }
            Err(error) => out.add_loose(Part::Log, error),
        }
        out.checked.segments += 1;
        progress(&out.checked);
    }
    if let (Some(newest), true) = (segments_of(names).last(), out.findings.len() == before) {
        let path = segment_path(dir, *newest);
        if let Some(error) = replay::falls_short(&path, 0, (reached, flushed)) {
            out.add_loose(Part::Log, error);
        }
    }
}

/// How many whole records a segment holds, the last number in them, and its damage. What a reader
/// finds damaged in a segment that is written to meanwhile may be what was not there yet when it
/// read that part: damage is what a second look finds at the same place.
async fn read_settled<E: Env>(
    env: &E,
    (path, segment): (&Path, u64),
    limit: Option<u64>,
) -> Result<(u64, SeqNo, Option<Error>)> {
    let mut told = None;
    let mut looks = 0;
    loop {
        let bytes = read_file(env, path, IoClass::Wal).await?;
        let (found, damage) = read_segment_prefix(path, segment, &bytes, limit);
        let damage = damage.or_else(|| first_fault(path, &found.records));
        let at = damage.as_ref().map(|error| error.location().1);
        looks += 1;
        if at.is_none() || at == told || looks == LOOKS_MAX {
            let last_seq = found.records.iter().map(|(_, record)| record.last_seq()).max();
            return Ok((to_u64(found.records.len()), last_seq.unwrap_or(0), damage));
        }
        told = at;
    }
}

/// Only the first record of a segment names its predecessor.
fn first_fault(path: &Path, records: &[(u64, Record)]) -> Option<Error> {
    let mut names_again =
        records.iter().skip(1).filter(|(_, record)| matches!(record, Record::Predecessor { .. }));
    let (at, _) = names_again.next()?;
    Some(Error::corruption(path, *at, "a second record names a predecessor"))
}

/// The segments among the names of a directory.
pub(crate) fn segments_of(names: &[String]) -> BTreeSet<u64> {
    let numbers = names.iter().filter_map(|name| numbered(name));
    numbers.filter(|(_, kind)| *kind == "wal").map(|(number, _)| number).collect()
}
