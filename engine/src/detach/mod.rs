//! Detached forks: a copy of a database, or of one branch, in a directory of its own.
//!
//! A copy holds exactly what was there at one place in the order of writes. The place is a barrier
//! in the commit queue; what is copied is pinned there, and writers, flushes, compactions and forks
//! go on. A table file is linked where every byte of it belongs to the copy, so that the copy of a
//! large database costs little and yet is a database of its own: either directory can be removed.
//! A file that holds anything else, another tenant's table or one that nobody reads any more, is
//! never linked, since with the file its bytes would change hands.
//!
//! CURRENT gets its name last: before that the target is no database, and from there on a whole one.
//!
//! # Source
//!
//! Linking table files and copying the rest is `RocksDB`'s (`utilities/checkpoint/`). Departures:
//! no flush comes first, the copy gets a log of its own with what is in no table; and a branch can
//! be copied alone.

mod cut;
mod import;
mod log;
mod rewrite;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::import::import;
use self::tables::Placer;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::metrics::Counters;
use crate::open;
use crate::options::Layout;
use crate::shared::Shared;
use crate::table::TableMeta;
use crate::types::{FileNumber, SeqNo, TableId};
use crate::version::edit::Edit;
use crate::version::manifest::{Manifest, current_path};
use crate::version::set::VersionSet;
use crate::version::tree::Branch;

const LOCK: &str = "LOCK";

/// What a copy is, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// It holds every entry up to this number that was not overwritten.
    pub seq: SeqNo,
    /// Table files that both directories name.
    pub linked_files: u64,
    /// Their bytes.
    pub linked_bytes: u64,
    /// Bytes of tables that were written anew.
    pub copied_bytes: u64,
    /// Entries that are in its log.
    pub logged_entries: u64,
}

/// What an import took in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The full names of its branches here.
    pub branches: Vec<String>,
    /// The highest number that any of its entries may have.
    pub seq: SeqNo,
    /// Table files that both directories name.
    pub linked_files: u64,
    /// Their bytes.
    pub linked_bytes: u64,
    /// Bytes of tables that were written anew.
    pub copied_bytes: u64,
    /// Entries that were in no table there and are in one here.
    pub logged_entries: u64,
}

/// A directory on its way to be a database, held against other processes.
struct Target<E: Env> {
    env: E,
    dir: PathBuf,
    next_file: Arc<AtomicU64>,
    _lock: E::Lock,
}

/// A level and a table, for each tree of a copy.
type TablesOf = Vec<(u32, TableMeta)>;

/// Copies the database, or one branch of it, into another directory.
///
/// # Errors
///
/// `InvalidArgument` for a directory that is not empty, `Locked`, `Dropped`, `Closed`, `ReadOnly`,
/// the world's. The source is as it was. What was made is removed where that is possible: the
/// target is then no database, or where that is not possible the whole copy.
pub(crate) async fn fork_to<E: Env>(
    shared: &Arc<Shared<E>>,
    dir: &Path,
    only: Option<&Arc<Branch>>,
) -> Result<Detached> {
    shared.check_writable()?;
    let target = Target::begin(&shared.env, dir).await?;
    let outcome = write(shared, &target, only).await;
    if outcome.is_err() {
        target.remove().await;
    }
    outcome
}

async fn write<E: Env>(
    shared: &Arc<Shared<E>>,
    target: &Target<E>,
    only: Option<&Arc<Branch>>,
) -> Result<Detached> {
    let mut cut = cut::take(shared, only).await?;
    let mut out = Detached { seq: cut.seq, ..Detached::default() };
    let mut tables: Vec<TablesOf> = Vec::new();
    let is_rewritten = only.is_some() && cut.layout != Layout::PerTenant;
    if is_rewritten {
        for (tree, branch) in cut.trees.iter().zip(only) {
            tables.push(rewrite::tables_of(shared, target, (&cut, tree, branch)).await?);
        }
        out.copied_bytes = tables.iter().flatten().map(|(_, table)| table.bytes).sum();
        cut.leave_nothing_to_log();
    }
    let (log, logged_entries) = log::write(&shared.env, target, &mut cut).await?;
    out.logged_entries = logged_entries;
    let mut packs = Vec::new();
    if !is_rewritten {
        let mut placer = Placer::new(&shared.env, (&shared.dir, &target.dir));
        let versions = cut.trees.iter().map(|tree| &*tree.version);
        let brought = placer.place(versions, || target.new_number()).await?;
        for tree in &cut.trees {
            tables.push(tables::renamed(&tree.version, &brought.tables)?);
        }
        packs = brought.packs;
        out.linked_files = placer.linked_files;
        out.linked_bytes = placer.linked_bytes;
        out.copied_bytes = placer.copied_bytes;
    }
    let floor = log.finish().await?;
    target.env.sync_dir(&target.dir).await?;
    // With what it pins: what was taken is all there.
    let edits = cut.edits((floor, &tables, &packs));
    drop(cut);
    target.finish(&edits).await?;
    Ok(out)
}

impl<E: Env> Target<E> {
    async fn begin(env: &E, dir: &Path) -> Result<Self> {
        match env.list(dir).await {
            Ok(names) => check_empty(dir, &names)?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        open::create_dir(env, dir).await?;
        let lock = env.lock(&dir.join(LOCK)).await?;
        // Whoever had the lock before may have made a database of it.
        check_empty(dir, &env.list(dir).await?)?;
        let next_file = Arc::new(AtomicU64::new(1));
        Ok(Self { env: env.clone(), dir: dir.to_owned(), next_file, _lock: lock })
    }

    fn new_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes the manifest of these edits and makes it the live one.
    async fn finish(&self, edits: &[Edit]) -> Result<()> {
        let set = VersionSet::new(Layout::PerTenant);
        for edit in edits {
            set.apply(edit).map_err(Error::InvalidArgument)?;
        }
        let set = Arc::new(set);
        let floor = Edit::WalFloor { segment: set.wal_floor() };
        let facts = (Arc::new(Counters::default()), Arc::clone(&self.next_file));
        let manifest = Manifest::new(self.env.clone(), &self.dir, set, facts, None);
        let outcome = manifest.commit(vec![floor], None).await;
        manifest.close().await;
        outcome
    }

    /// Removes all that was made, CURRENT first: what is left is no database, or a whole one.
    async fn remove(&self) {
        match self.env.remove(&current_path(&self.dir)).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(_) => return,
        }
        // Else a crash could bring CURRENT back without what it names.
        if self.env.sync_dir(&self.dir).await.is_err() {
            return;
        }
        for name in self.env.list(&self.dir).await.unwrap_or_default() {
            if name != LOCK {
                drop(self.env.remove(&self.dir.join(&name)).await);
            }
        }
    }
}

fn check_empty(dir: &Path, names: &[String]) -> Result<()> {
    match names.iter().find(|name| *name != LOCK) {
        None => Ok(()),
        Some(name) => Err(Error::InvalidArgument(format!(
            "{} is not empty: it holds {name:?}, and a copy needs a directory of its own",
            dir.display()
        ))),
    }
}

/// Tables by where they lie in the directory that they come from.
type Renamed = BTreeMap<TableId, TableMeta>;
