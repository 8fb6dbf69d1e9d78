//! A flush: one immutable memtable becomes one L0 table by one edit.
//!
//! Order on disk: WAL durable through the memtable's last number, table synced, its directory
//! synced, edit synced, version installed, memory and WAL released. Without the first step half of
//! a batch across tenants could survive.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::{Env, File, IoClass, Work};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::gc;
use crate::layout::branch_of;
use crate::memtable::Memtable;
use crate::memtable::iter::MemtableIter;
use crate::options::Layout;
use crate::policy::view::ChangeKind;
use crate::retain::{Retention, Verdict};
use crate::shared::Shared;
use crate::table::{TableBuilder, TableMeta, table_path};
use crate::types::{Entry, FileNumber, TableId};
use crate::version::edit::Edit;
use crate::version::manifest::Install;
use crate::version::tree::Tree;
use crate::write::{queue, stalls};

const CHUNK_BYTES: u64 = 128 * 1024;

/// A table on its way to disk, written in chunks.
pub(crate) struct TableWriter<E: Env> {
    file: E::File,
    number: FileNumber,
    builder: TableBuilder,
    class: IoClass,
    env: E,
}

impl<E: Env> TableWriter<E> {
    /// Creates the file. Its number goes to `begun` first, for whoever cleans up.
    pub(crate) async fn create(
        shared: &Shared<E>,
        tree: &Tree,
        class: IoClass,
        begun: &mut Vec<FileNumber>,
    ) -> Result<Self> {
        let number = shared.new_file_number();
        begun.push(number);
        let file = shared.env.create(&table_path(&shared.dir, number)).await?;
        let builder = TableBuilder::new(tree.id, shared.table_format(tree));
        Ok(Self { file, number, builder, class, env: shared.env.clone() })
    }

    /// Adds an entry, in internal order.
    pub(crate) async fn add(&mut self, entry: &Entry) -> Result<()> {
        self.builder.add(entry)?;
        let compressed = self.builder.take_compressed_bytes();
        charge_compression(&self.env, compressed);
        if self.builder.finished_bytes() >= CHUNK_BYTES {
            let chunk = self.builder.take_output();
            self.file.append(&chunk, self.class).await?;
        }
        Ok(())
    }

    /// Bytes that the table would have if it ended here.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        self.builder.estimated_bytes()
    }

    /// Writes what is left and syncs the file; its name is not durable yet.
    pub(crate) async fn finish(self) -> Result<TableMeta> {
        let Self { file, number, builder, class, env } = self;
        let finished = builder.finish()?;
        charge_compression(&env, finished.compressed_bytes);
        file.append(&finished.rest, class).await?;
        file.sync_all(class).await?;
        Ok(finished.meta(TableId { file: number, offset: 0 }))
    }
}

fn charge_compression<E: Env>(env: &E, bytes: u64) {
    if bytes > 0 {
        env.charge(Work::CompressBlock(bytes));
    }
}

/// Removes the outputs of a job that failed before any edit named them: on a full disk they would
/// be in the way of the next try. One that stays behind is an orphan for the next open.
pub(crate) async fn remove_begun<E: Env>(shared: &Shared<E>, begun: &[FileNumber]) {
    for number in begun {
        drop(shared.env.remove(&table_path(&shared.dir, *number)).await);
    }
}

/// Whether an entry belongs to a branch that was dropped.
pub(crate) fn is_gone<E: Env>(shared: &Shared<E>, key: &[u8]) -> Result<bool> {
    if shared.set.layout() == Layout::PerTenant {
        return Ok(false);
    }
    let fault = |what: String| Error::corruption(&shared.dir, 0, what);
    let branch = branch_of(key)
        .ok_or_else(|| fault("a key of a shared tree is too short for a branch id".to_owned()))?;
    shared.set.is_gone(branch).map_err(fault)
}

/// Flushes a tree's oldest immutable memtable. Nothing happens where there is none, or
/// where a flush of the tree failed for good.
///
/// # Errors
///
/// The world's. The memtable stays and is flushed later; a table that was begun is removed at the
/// next open, since a failed edit that names it may still come back.
pub(crate) async fn run<E: Env>(shared: &Arc<Shared<E>>, tree: &Arc<Tree>) -> Result<()> {
    if tree.failure().is_some() {
        return Ok(());
    }
    let Some(memtable) = tree.view().immutables.last().cloned() else { return Ok(()) };
    let start_ns = shared.env.now();
    shared.emit(&Event::FlushBegin { tree: tree.id, bytes: memtable.bytes() });
    queue::sync_through(shared, memtable.max_seq()).await?;
    let mut begun = Vec::new();
    let table = match write_table(shared, tree, &memtable, &mut begun).await {
        Ok(table) => table,
        Err(error) => {
            remove_begun(shared, &begun).await;
            return Err(error);
        }
    };
    let edit = Edit::Flush {
        owners: vec![tree.id],
        flushed_upto: memtable.max_seq(),
        table: table.clone(),
    };
    let installed = Arc::new(Mutex::new(Installed::default()));
    let install = install(&edit, tree, &memtable, &installed);
    shared.manifest.commit(vec![edit], Some(install)).await?;
    let installed = core::mem::take(&mut *installed.lock());
    if installed.released {
        shared.log.unpin(memtable.anchor_segment);
        shared.pressure.on_flushed(tree, memtable.bytes());
        shared.budget.release_immutable(memtable.bytes());
    }
    if let Some(orphan) = installed.orphan {
        shared.garbage.lock().push(orphan);
        shared.tick.raise();
    }
    let bytes = table.as_ref().map_or(0, |t| t.bytes);
    shared.counters.flush_count.add(1);
    shared.counters.flush_bytes.add(bytes);
    let elapsed_ns = shared.env.now().saturating_sub(start_ns);
    let table = table.map(|t| (t.id, t.bytes));
    shared.emit(&Event::FlushEnd { tree: tree.id, table, elapsed_ns });
    shared.schedule_compaction(tree, 0);
    let change = ChangeKind::Flushed { bytes: memtable.bytes(), table_bytes: bytes, elapsed_ns };
    stalls::observe(shared, tree, change);
    // Who is woken asks a policy that knows of it.
    tree.released.raise();
    queue::seal_victims(shared).await;
    gc::reclaim_log(shared).await;
    Ok(())
}

/// What installing a flush came to.
#[derive(Debug, Default)]
struct Installed {
    /// The memtable left the tree by this; a tree that was dropped has released it already.
    released: bool,
    /// The table, where the tree was dropped before: nobody reads it.
    orphan: Option<Arc<TableMeta>>,
}

/// Swaps the memtable for its table in one step.
fn install(
    edit: &Edit,
    tree: &Arc<Tree>,
    memtable: &Arc<Memtable>,
    installed: &Arc<Mutex<Installed>>,
) -> Install {
    let (edit, tree, memtable) = (edit.clone(), Arc::clone(tree), Arc::clone(memtable));
    let installed = Arc::clone(installed);
    Box::new(move |_set| {
        let Edit::Flush { flushed_upto, table, .. } = edit else { return };
        let table = table.map(Arc::new);
        let mut outcome = installed.lock();
        // Drops are installed by the same leader, so this does not change in between.
        if tree.is_dropped() {
            outcome.orphan = table;
            return;
        }
        tree.raise_flushed_upto(flushed_upto);
        tree.change(|view| {
            let before = view.immutables.len();
            view.immutables.retain(|m| !Arc::ptr_eq(m, &memtable));
            outcome.released = view.immutables.len() < before;
            if let Some(table) = &table {
                view.version = Arc::new(view.version.with_flushed(Arc::clone(table)));
            }
        });
    })
}

/// Refuses a job whose entries do not add up: its edit must not be written.
pub(crate) fn check_count(dir: &Path, what: &str, (said, met): (u64, u64)) -> Result<()> {
    if said == met {
        return Ok(());
    }
    Err(Error::corruption(dir, 0, format!("{what} should hold {said} entries and has {met}")))
}

async fn write_table<E: Env>(
    shared: &Shared<E>,
    tree: &Tree,
    memtable: &Arc<Memtable>,
    begun: &mut Vec<FileNumber>,
) -> Result<Option<TableMeta>> {
    let mut retention = Retention::new(shared.snapshot_seqs());
    let mut iter = MemtableIter::new(Arc::clone(memtable));
    let mut writer: Option<TableWriter<E>> = None;
    let (mut read, mut written) = (0_u64, 0_u64);
    while let Some(entry) = iter.advance() {
        shared.env.charge(Work::MergeEntry);
        read += 1;
        if retention.judge(&entry) == Verdict::Drop || is_gone(shared, &entry.key)? {
            continue;
        }
        let writer = match &mut writer {
            Some(w) => w,
            None => writer.insert(TableWriter::create(shared, tree, IoClass::Flush, begun).await?),
        };
        writer.add(&entry).await?;
        written += 1;
    }
    check_count(&shared.dir, "a memtable", (memtable.entries(), read))?;
    let Some(writer) = writer else { return Ok(None) };
    let table = writer.finish().await?;
    check_count(&shared.dir, "the table of a flush", (written, table.entries))?;
    shared.env.sync_dir(&shared.dir).await?;
    Ok(Some(table))
}
