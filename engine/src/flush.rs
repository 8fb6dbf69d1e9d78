//! A flush: an immutable memtable becomes an L0 table by one edit; several become as many tables of
//! one file, by one group of edits.
//!
//! Order on disk: WAL durable through the memtable's last number, table synced, its directory
//! synced, edit synced, version installed, memory and WAL released. Without the first step half of
//! a batch across tenants could survive.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::budget::Budget;
use crate::env::{Env, File, IoClass, Work};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::gc;
use crate::jobs::FlushJob;
use crate::layout::branch_of;
use crate::memtable::iter::MemtableIter;
use crate::memtable::{self, Memtable};
use crate::options::Layout;
use crate::policy::view::ChangeKind;
use crate::retain::{Retention, Verdict};
use crate::shared::Shared;
use crate::table::{TableBuilder, TableMeta, table_path};
use crate::types::{Entry, FileNumber, Nanos, TableId, to_u64};
use crate::version::edit::Edit;
use crate::version::manifest::{Commit, Complete, Install};
use crate::version::set::{VersionSet, change_together};
use crate::version::tree::{Tree, TreeView};
use crate::write::{queue, stalls};

const CHUNK_BYTES: u64 = 128 * 1024;

/// What a flush has written counts as spooled until it ended.
struct Spool<'a> {
    budget: &'a Budget,
    bytes: u64,
    /// Written and not told yet.
    pending: u64,
}

impl<'a> Spool<'a> {
    fn new(budget: &'a Budget) -> Self {
        Self { budget, bytes: 0, pending: 0 }
    }

    fn add(&mut self, entry: &Entry) {
        self.pending += memtable::charge(entry.key.len(), entry.value.len());
        if self.pending >= CHUNK_BYTES {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.bytes += self.pending;
        self.budget.spool(core::mem::take(&mut self.pending));
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        self.budget.end_spool(self.bytes);
    }
}

/// A file on its way to disk, to hold one table or several, written in chunks.
pub(crate) struct TableFile<E: Env> {
    file: E::File,
    number: FileNumber,
    /// Bytes of the tables that ended.
    bytes: u64,
    /// What ended and is not written.
    pending: Vec<u8>,
    class: IoClass,
    env: E,
}

impl<E: Env> TableFile<E> {
    async fn create(
        shared: &Shared<E>,
        class: IoClass,
        begun: &mut Vec<FileNumber>,
    ) -> Result<Self> {
        let number = shared.new_file_number();
        begun.push(number);
        let file = shared.env.create(&table_path(&shared.dir, number)).await?;
        let env = shared.env.clone();
        Ok(Self { file, number, bytes: 0, pending: Vec::new(), class, env })
    }

    async fn append(&mut self, chunk: Vec<u8>) -> Result<()> {
        if self.pending.is_empty() {
            return self.file.append(&chunk, self.class).await;
        }
        self.pending.extend_from_slice(&chunk);
        let pending = core::mem::take(&mut self.pending);
        self.file.append(&pending, self.class).await
    }

    /// Writes what is left and syncs the file; its name is not durable yet.
    async fn sync(self) -> Result<()> {
        if !self.pending.is_empty() {
            self.file.append(&self.pending, self.class).await?;
        }
        self.file.sync_all(self.class).await
    }
}

/// A table on its way to disk, behind those that its file holds.
pub(crate) struct TableWriter<E: Env> {
    file: TableFile<E>,
    builder: TableBuilder,
}

impl<E: Env> TableWriter<E> {
    /// Creates the file. Its number goes to `begun` first, for whoever cleans up.
    pub(crate) async fn create(
        shared: &Shared<E>,
        tree: &Tree,
        class: IoClass,
        begun: &mut Vec<FileNumber>,
    ) -> Result<Self> {
        Ok(Self::behind(TableFile::create(shared, class, begun).await?, shared, tree))
    }

    /// Begins a table behind those that a file holds.
    fn behind(file: TableFile<E>, shared: &Shared<E>, tree: &Tree) -> Self {
        Self { file, builder: TableBuilder::new(tree.id, shared.table_format(tree)) }
    }

    /// Adds an entry, in internal order.
    pub(crate) async fn add(&mut self, entry: &Entry) -> Result<()> {
        self.builder.add(entry)?;
        let compressed = self.builder.take_compressed_bytes();
        charge_compression(&self.file.env, compressed);
        let bytes = self.builder.finished_bytes() + to_u64(self.file.pending.len());
        if bytes >= CHUNK_BYTES && self.builder.finished_bytes() > 0 {
            let chunk = self.builder.take_output();
            self.file.append(chunk).await?;
        }
        Ok(())
    }

    /// Bytes that the table would have if it ended here.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        self.builder.estimated_bytes()
    }

    /// Ends the table; another one may come behind it in its file.
    async fn end(self) -> Result<(TableMeta, TableFile<E>)> {
        let Self { mut file, builder } = self;
        let finished = builder.finish()?;
        charge_compression(&file.env, finished.compressed_bytes);
        let table = finished.meta(TableId { file: file.number, offset: file.bytes });
        file.bytes += table.bytes;
        file.pending.extend_from_slice(&finished.rest);
        if to_u64(file.pending.len()) >= CHUNK_BYTES {
            file.append(Vec::new()).await?;
        }
        Ok((table, file))
    }

    /// Writes what is left and syncs the file; its name is not durable yet.
    pub(crate) async fn finish(self) -> Result<TableMeta> {
        let (table, file) = self.end().await?;
        file.sync().await?;
        Ok(table)
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

/// One memtable of a flush, and its table once it is written.
#[derive(Debug)]
struct Part {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    /// `None` as well where nothing was left to write.
    table: Option<TableMeta>,
}

/// The memtables of a job, each tree's oldest first. A tree whose flush failed for good has none.
fn parts_of(job: &FlushJob) -> Vec<Part> {
    let mut parts = Vec::new();
    for (tree, count) in job.members().filter(|(tree, _)| tree.failure().is_none()) {
        let view = tree.view();
        // Of those that another tree has to flush there may be some behind one that was released.
        let own = view.immutables.iter().rev().take_while(|m| m.home == tree.id);
        parts.extend(own.take(count).map(|memtable| Part {
            tree: Arc::clone(tree),
            memtable: Arc::clone(memtable),
            table: None,
        }));
    }
    parts
}

/// Flushes the oldest immutable memtables of trees, together or not at all. Nothing happens where
/// there is none, or where a flush of the tree failed for good.
///
/// # Errors
///
/// The world's. The memtables stay and are flushed later; a table that was begun is removed at the
/// next open, since a failed edit that names it may still come back.
pub(crate) async fn run<E: Env>(shared: &Arc<Shared<E>>, job: &FlushJob) -> Result<()> {
    let mut parts = parts_of(job);
    let Some(last_seq) = parts.iter().map(|part| part.memtable.max_seq()).max() else {
        return Ok(());
    };
    let start_ns = shared.env.now();
    for part in &parts {
        shared.emit(&Event::FlushBegin { tree: part.tree.id, bytes: part.memtable.bytes() });
    }
    queue::sync_through(shared, last_seq).await?;
    let mut begun = Vec::new();
    let mut spool = Spool::new(&shared.budget);
    let pack = match write_tables(shared, &mut parts, (&mut begun, &mut spool)).await {
        Ok(pack) => pack,
        Err(error) => {
            remove_begun(shared, &begun).await;
            return Err(error);
        }
    };
    let flush = |part: &Part| Edit::Flush {
        owners: vec![part.tree.id],
        flushed_upto: part.memtable.max_seq(),
        table: part.table.clone(),
    };
    let mut edits: Vec<Edit> = parts.iter().map(flush).collect();
    if let Some((file, bytes)) = pack {
        edits.push(Edit::Pack { file, bytes });
        // Before a table of it can leave its tree again.
        let tables = parts.iter().filter_map(|part| part.table.as_ref());
        shared.set.packs().add(file, bytes, tables);
    }
    let parts = Arc::new(parts);
    let installed = Arc::new(Mutex::new(Vec::new()));
    let history = (Arc::clone(&shared.budget), shared.options.memtable_history_bytes);
    let install = install(&parts, &installed, history);
    let commit = Commit::new(edits, Some(install)).completed_by(name_owners(&parts));
    if let Err(error) = shared.manifest.submit(commit).await {
        if let Some((file, _)) = pack {
            shared.set.packs().forget(file);
        }
        return Err(error);
    }
    shared.jobs.flush_installed(job);
    shared.counters.flush_job_count.add(1);
    shared.counters.pack_count.add(u64::from(pack.is_some()));
    let installed = core::mem::take(&mut *installed.lock());
    for (part, installed) in parts.iter().zip(installed) {
        settle(shared, part, installed, (pack.is_some(), start_ns));
    }
    drop((parts, spool));
    queue::seal_victims(shared).await;
    gc::reclaim_log(shared).await;
    queue::seal_pinning(shared).await;
    Ok(())
}

/// Names the owners of each memtable when the edits are written: a fork that comes before them in
/// the order of edits has made its tree an owner by then.
fn name_owners(parts: &Arc<Vec<Part>>) -> Complete {
    let parts = Arc::clone(parts);
    Box::new(move |edits| {
        for (edit, part) in edits.iter_mut().zip(parts.iter()) {
            if let Edit::Flush { owners, .. } = edit {
                *owners = part.memtable.owners();
            }
        }
    })
}

/// Gives back what a memtable held, now that its table is installed, and tells of it.
fn settle<E: Env>(
    shared: &Shared<E>,
    part: &Part,
    installed: Installed,
    (packed, start_ns): (bool, Nanos),
) {
    let Part { tree, memtable, table } = part;
    if installed.released {
        shared.log.unpin(memtable.anchor_segment());
        shared.pressure.on_flushed(tree, memtable.bytes());
        if installed.kept {
            shared.budget.release_history(installed.trimmed_bytes);
        } else {
            shared.budget.release_immutable(memtable.bytes());
        }
    }
    if let Some(orphan) = installed.orphan {
        shared.garbage.lock().push(orphan);
        shared.tick.raise();
    }
    shared.counters.flush_count.add(1);
    let bytes = table.as_ref().map_or(0, |t| t.bytes);
    shared.counters.flush_bytes.add(bytes);
    shared.counters.packed_table_count.add(u64::from(packed && table.is_some()));
    let elapsed_ns = shared.env.now().saturating_sub(start_ns);
    let table = table.as_ref().map(|t| (t.id, t.bytes));
    shared.emit(&Event::FlushEnd { tree: tree.id, table, elapsed_ns });
    let change = ChangeKind::Flushed { bytes: memtable.bytes(), table_bytes: bytes, elapsed_ns };
    let forks = installed.trees.iter().filter(|other| other.id != tree.id);
    let forks = forks.map(|fork| (fork, ChangeKind::Opened));
    for (tree, change) in core::iter::once((tree, change)).chain(forks) {
        // Of a tree that only has one table more, no flush and no memtable was spent.
        shared.pressure.on_compacted(tree);
        shared.schedule_compaction(tree, 0);
        stalls::observe(shared, tree, change);
        // Who is woken asks a policy that knows of it.
        tree.released.raise();
    }
}

/// What installing a flush came to.
#[derive(Debug, Default)]
struct Installed {
    /// The memtable left its trees by this; it was released already where all were dropped.
    released: bool,
    /// Its bytes count as history by now.
    kept: bool,
    /// Bytes of memtables that were kept before, and are not any more.
    trimmed_bytes: u64,
    /// The trees that have the table.
    trees: Vec<Arc<Tree>>,
    /// The table, where all of them were dropped before: nobody reads it.
    orphan: Option<Arc<TableMeta>>,
}

/// Swaps each memtable for its table in one step; it may be kept as history.
fn install(
    parts: &Arc<Vec<Part>>,
    installed: &Arc<Mutex<Vec<Installed>>>,
    (budget, history_max): (Arc<Budget>, u64),
) -> Install {
    let (parts, installed) = (Arc::clone(parts), Arc::clone(installed));
    Box::new(move |set| {
        let one = |part: &Part| install_one(set, part, (&budget, history_max));
        installed.lock().extend(parts.iter().map(one));
    })
}

fn install_one(set: &VersionSet, part: &Part, (budget, history_max): (&Budget, u64)) -> Installed {
    let Part { tree: home, memtable, table } = part;
    let table = table.clone().map(Arc::new);
    let owners = memtable.take_owners();
    let (trees, beside) = set.owners(&owners);
    let mut installed = Installed { released: !owners.is_empty(), ..Installed::default() };
    let forget = |view: &mut TreeView| view.immutables.retain(|m| !Arc::ptr_eq(m, memtable));
    change_together(&trees, memtable.max_seq(), table.as_ref(), |tree, view| {
        forget(view);
        if history_max > 0 && tree.id == home.id {
            // Charged before anybody can see it, and release it.
            budget.keep(memtable.bytes());
            view.history.insert(0, Arc::clone(memtable));
            installed.kept = true;
            installed.trimmed_bytes = view.trim_history(history_max);
        }
    });
    for tree in beside {
        // A fork whose edit comes later begins with the table, and a dropped tree needs none.
        tree.change(forget);
        set.leave_beside(&tree);
    }
    installed.orphan = table.filter(|_| trees.is_empty());
    installed.trees = trees;
    installed
}

/// Refuses a job whose entries do not add up: its edit must not be written.
pub(crate) fn check_count(dir: &Path, what: &str, (said, met): (u64, u64)) -> Result<()> {
    if said == met {
        return Ok(());
    }
    Err(Error::corruption(dir, 0, format!("{what} should hold {said} entries and has {met}")))
}

/// Writes the tables of a flush, one behind the other, and makes them durable. Returns the file and
/// its length where it holds several.
async fn write_tables<E: Env>(
    shared: &Shared<E>,
    parts: &mut [Part],
    (begun, spool): (&mut Vec<FileNumber>, &mut Spool<'_>),
) -> Result<Option<(FileNumber, u64)>> {
    let mut file = None;
    for part in parts.iter_mut() {
        (part.table, file) = write_table(shared, part, file, (begun, spool)).await?;
    }
    let Some(file) = file else { return Ok(None) };
    let place = (file.number, file.bytes);
    file.sync().await?;
    shared.env.sync_dir(&shared.dir).await?;
    let count = parts.iter().filter(|part| part.table.is_some()).count();
    Ok((count > 1).then_some(place))
}

/// Writes the table of one memtable, behind those that `file` holds; `None` where nothing is left
/// to write.
async fn write_table<E: Env>(
    shared: &Shared<E>,
    part: &Part,
    mut file: Option<TableFile<E>>,
    (begun, spool): (&mut Vec<FileNumber>, &mut Spool<'_>),
) -> Result<(Option<TableMeta>, Option<TableFile<E>>)> {
    let Part { tree, memtable, .. } = part;
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
        let writer = match (&mut writer, file.take()) {
            (Some(w), _) => w,
            (none, Some(file)) => none.insert(TableWriter::behind(file, shared, tree)),
            (none, None) => {
                let class = IoClass::Flush;
                none.insert(TableWriter::create(shared, tree, class, begun).await?)
            }
        };
        writer.add(&entry).await?;
        spool.add(&entry);
        written += 1;
    }
    spool.tell();
    check_count(&shared.dir, "a memtable", (memtable.entries(), read))?;
    let Some(writer) = writer else { return Ok((None, file)) };
    let (table, file) = writer.end().await?;
    check_count(&shared.dir, "the table of a flush", (written, table.entries))?;
    Ok((Some(table), Some(file)))
}
