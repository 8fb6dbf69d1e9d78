//! Recovery: manifest, then WAL, then orphans. Every crash without damage to the media can be
//! opened.
//!
//! Nothing is truncated. What was replayed is synced before anything new is acknowledged, else a
//! later power loss could take it from under newer writes; then a fresh manifest and a fresh
//! segment begin.

use std::collections::BTreeSet;
use std::path::Path;

use crate::env::{Env, IoClass};
use crate::error::{Error, Result};
use crate::options::{Layout, Options};
use crate::types::{FileNumber, TreeId};
use crate::version::edit::Edit;
use crate::version::manifest::{manifest_path, read_current, read_file, read_manifest};
use crate::version::set::VersionSet;

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
    /// Files that any edit of the manifest names, live or not.
    pub(crate) mentioned: BTreeSet<FileNumber>,
}

/// Numbers of files stay far below the end of their range.
const FILE_NUMBER_MAX: FileNumber = 1 << 62;

/// And so do ids of trees and branches.
const ID_MAX: u64 = 1 << 62;

/// The number in a file name of the database, with what follows it. Names that the database would
/// not have given are not its files.
pub(crate) fn numbered(name: &str) -> Option<(FileNumber, &str)> {
    let (number, kind) = match name.strip_prefix("MANIFEST-") {
        Some(number) => (number, "manifest"),
        None => name.split_once('.')?,
    };
    let parsed: FileNumber = number.parse().ok()?;
    (format!("{parsed:06}") == number && parsed < FILE_NUMBER_MAX).then_some((parsed, kind))
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
    let set = VersionSet::new(options.layout).with_extractor(options.prefix_extractor);
    let manifest = read_current(env, dir).await?;
    let Some(number) = manifest else {
        if let Some(table) = names.iter().find(|n| matches!(numbered(n), Some((_, "sst")))) {
            let what = format!("CURRENT is missing although there are tables, such as {table}");
            return Err(Error::corruption(&dir.join("CURRENT"), 0, what));
        }
        let trees = crate::layout::initial_trees(options.layout);
        let edit = Edit::CreateTrees { trees: (1..=trees).map(TreeId).collect() };
        set.apply(&edit).map_err(Error::InvalidArgument)?;
        let mentioned = BTreeSet::new();
        return Ok(Recovered { set, manifest, names, next_file: highest + 1, mentioned });
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
    let mut mentioned = BTreeSet::new();
    for (at, edit) in edits {
        check_layout(&edit, options.layout)?;
        mention(&edit, &mut mentioned);
        set.apply(&edit).map_err(|what| Error::corruption(&path, at, what))?;
    }
    if set.next_id() >= ID_MAX {
        let what = format!("it says that ids up to {} were given, out of range", set.next_id());
        return Err(Error::corruption(&path, 0, what));
    }
    let newest_file = mentioned.last().copied().unwrap_or(0);
    highest = highest.max(newest_file).max(number).max(set.wal_floor());
    if highest >= FILE_NUMBER_MAX {
        let what = format!("it names a file with number {highest}, out of range");
        return Err(Error::corruption(&path, 0, what));
    }
    set.find_packs();
    Ok(Recovered { set, manifest, names, next_file: highest + 1, mentioned })
}

pub(crate) fn mention(edit: &Edit, files: &mut BTreeSet<FileNumber>) {
    match edit {
        Edit::Flush { table, .. } => files.extend(table.iter().map(|t| t.id.file)),
        Edit::Compact { removed, added, .. } => {
            files.extend(removed.iter().map(|id| id.file));
            files.extend(added.iter().map(|(_, t)| t.id.file));
        }
        Edit::TreeState { tables, .. }
        | Edit::SharedState { tables, .. }
        | Edit::Fork { tables, .. } => files.extend(tables.iter().map(|(_, t)| t.id.file)),
        Edit::Begin { .. }
        | Edit::CreateTrees { .. }
        | Edit::CreateTenants { .. }
        | Edit::TenantExtractor { .. }
        | Edit::DropTenant { .. }
        | Edit::Ancestry { .. }
        | Edit::WalFloor { .. }
        | Edit::Pack { .. } => {}
    }
}

/// Removes what no edit of the manifest ever named: outputs of jobs that did not end, and manifests
/// that are not live. Nothing needs to be made durable for that but the names as they are.
///
/// # Errors
///
/// The world's, where the names cannot be made durable. Then nothing was removed.
pub(crate) async fn remove_unmentioned<E: Env>(
    env: &E,
    dir: &Path,
    recovered: &Recovered,
) -> Result<()> {
    let orphan = |name: &&String| match numbered(name) {
        Some((number, "sst")) => !recovered.mentioned.contains(&number),
        Some((number, "manifest")) => recovered.manifest != Some(number),
        Some((_, "tmp")) => true,
        Some(_) | None => false,
    };
    let orphans: Vec<&String> = recovered.names.iter().filter(orphan).collect();
    if !orphans.is_empty() {
        // A rename that is not durable could bring an older CURRENT back, with another manifest.
        env.sync_dir(dir).await?;
    }
    for name in orphans {
        // One that cannot be removed now is found again by the next open.
        drop(env.remove(&dir.join(name)).await);
    }
    Ok(())
}

/// Removes segments that are newer than the log: they were made and never took part in it.
pub(crate) async fn remove_unchained<E: Env>(
    env: &E,
    dir: &Path,
    names: &[String],
    segments: &BTreeSet<u64>,
) {
    let newest = segments.last().copied().unwrap_or(0);
    for name in names {
        if matches!(numbered(name), Some((number, "wal")) if number > newest) {
            // One that cannot be removed now is found again by the next open.
            drop(env.remove(&dir.join(name)).await);
        }
    }
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
