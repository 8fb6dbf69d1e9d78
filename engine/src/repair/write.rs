//! Writes what repair found: merged tables, a log, second names for what is left out, and last the
//! manifest that names it all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LogLine;
use super::facts::read_segment;
use crate::env::{Env, File, IoClass, Site, Work};
use crate::error::{Error, Result};
use crate::iter::{self, MergeIter, ScanBounds, SortedIter, TableIter};
use crate::metrics::Counters;
use crate::options::Layout;
use crate::table::{ReadContext, TableBuilder, TableFormat, TableMeta, TableSpace, table_path};
use crate::types::{Entry, FileNumber, SEQ_MAX, SeqNo, TableId, TreeId, to_u64, to_usize};
use crate::version::edit::Edit;
use crate::version::manifest::Manifest;
use crate::version::set::VersionSet;
use crate::version::tree::Tree;
use crate::wal::salvage::LogWriter;
use crate::wal::{Record, WalEntry, encode_batch_header, encode_entry};

const TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const PIECE_BYTES: u64 = 1024 * 1024;
/// For each of many sources.
const READAHEAD_BYTES: u32 = 64 * 1024;

/// Second names of one file; more are a directory that nobody cleans up.
const NAMES_MAX: u32 = 1_000;

pub(super) struct Writes<'a, E: Env> {
    pub(super) env: &'a E,
    pub(super) dir: &'a Path,
    pub(super) space: &'a Arc<TableSpace<E>>,
    pub(super) next_file: Arc<AtomicU64>,
}

/// What decides whether an entry of the log is carried over.
pub(super) struct Judge<'a> {
    pub(super) set: &'a VersionSet,
    /// Trees of which the manifest did not say all: their tables are asked.
    pub(super) unsure: &'a BTreeSet<TreeId>,
    /// By origin: the trees that may take its entries, with the bound of their lineage.
    takers: BTreeMap<TreeId, Vec<(Arc<Tree>, SeqNo)>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(set: &'a VersionSet, unsure: &'a BTreeSet<TreeId>) -> Self {
        let mut takers: BTreeMap<TreeId, Vec<(Arc<Tree>, SeqNo)>> = BTreeMap::new();
        for tree in set.trees() {
            let own = core::iter::once((tree.id, SeqNo::MAX));
            for (origin, bound) in own.chain(tree.lineage.above(tree.flushed_upto())) {
                takers.entry(origin).or_default().push((Arc::clone(&tree), bound));
            }
        }
        Self { set, unsure, takers }
    }
}

struct Output<E: Env> {
    builder: TableBuilder,
    file: E::File,
    number: FileNumber,
}

impl<E: Env> Writes<'_, E> {
    fn take_number(&self) -> FileNumber {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Merges tables into one sorted run that holds every version of every key once.
    pub(super) async fn merge(
        &self,
        tree: TreeId,
        inputs: &[Arc<TableMeta>],
    ) -> Result<Vec<TableMeta>> {
        let sources = inputs.iter().map(|table| {
            let (space, table) = (Arc::clone(self.space), Arc::clone(table));
            Box::new(TableIter::new(space, table, ScanBounds::default())) as Box<dyn SortedIter>
        });
        let mut merged = MergeIter::new(sources.collect());
        let mut ctx = ReadContext::bulk(IoClass::Compaction, READAHEAD_BYTES);
        let (mut out, mut open) = (Vec::new(), None::<Output<E>>);
        let mut last: Option<Entry> = None;
        while let Some(entry) = iter::next(&mut merged, self.space, &mut ctx).await? {
            self.env.charge(Work::MergeEntry);
            // Versions of one key stay in one table.
            let new_key = last.as_ref().is_none_or(|l| l.key != entry.key);
            let full = |o: &mut Output<E>| o.builder.estimated_bytes() >= TABLE_BYTES_MAX;
            if new_key && let Some(done) = open.take_if(full) {
                out.push(finish(done).await?);
            }
            let to = match &mut open {
                Some(output) => output,
                None => open.insert(self.begin(tree).await?),
            };
            to.builder.add(&entry)?;
            if to.builder.finished_bytes() >= PIECE_BYTES {
                to.file.append(&to.builder.take_output(), IoClass::Compaction).await?;
            }
            last = Some(entry);
        }
        if let Some(done) = open {
            out.push(finish(done).await?);
        }
        Ok(out)
    }

    async fn begin(&self, tree: TreeId) -> Result<Output<E>> {
        let number = self.take_number();
        let file = self.env.create(&table_path(self.dir, number)).await?;
        let builder = TableBuilder::new(tree, TableFormat::default());
        Ok(Output { builder, file, number })
    }

    /// Writes the log anew, with what the tables do not hold; the number of its first segment.
    pub(super) async fn log(
        &self,
        segments: &[(u64, Option<u64>)],
        judge: &Judge<'_>,
        (last_seq, line): (SeqNo, &mut LogLine),
    ) -> Result<u64> {
        let salt = u32::try_from(self.env.random_u64(Site("wal-salt")) >> 32).unwrap_or(0);
        let mut log = LogWriter::new(self.env.clone(), self.dir, (salt, last_seq));
        log.begin(self.take_number()).await?;
        for part in segments {
            let Ok((records, _)) = read_segment(self.env, self.dir, *part).await else { continue };
            for (_, record) in records {
                if log.is_full() {
                    log.begin(self.take_number()).await?;
                }
                match record {
                    Record::Predecessor { carried: entries, .. } | Record::Relogged { entries } => {
                        for (seq, entry) in entries {
                            let one = core::slice::from_ref(&entry);
                            line.carried += self.carry(&mut log, (seq, one), judge).await?;
                        }
                    }
                    Record::Batch { first_seq, entries } => {
                        let kept = self.carry(&mut log, (first_seq, &entries), judge).await?;
                        line.carried += kept;
                    }
                }
            }
        }
        log.finish().await
    }

    /// Carries a batch over, as one record for each run of entries that stay.
    async fn carry(
        &self,
        log: &mut LogWriter<E>,
        (first_seq, entries): (SeqNo, &[WalEntry]),
        judge: &Judge<'_>,
    ) -> Result<u64> {
        let mut kept = 0;
        let mut run: Vec<&WalEntry> = Vec::new();
        let mut seq = first_seq;
        for entry in entries {
            if self.is_needed((seq, entry), judge).await? {
                kept += 1;
                run.push(entry);
            } else {
                put_run(log, (seq, &run)).await?;
                run.clear();
            }
            seq += 1;
        }
        put_run(log, (seq, &run)).await?;
        Ok(kept)
    }

    async fn is_needed(&self, (seq, entry): (SeqNo, &WalEntry), judge: &Judge<'_>) -> Result<bool> {
        let is_shared = judge.set.layout() != Layout::PerTenant;
        if is_shared && judge.set.branch(entry.branch).is_none() {
            return Ok(false);
        }
        for (tree, bound) in judge.takers.get(&entry.tree).into_iter().flatten() {
            if seq > tree.flushed_upto()
                && seq <= *bound
                && (!judge.unsure.contains(&tree.id) || self.is_newest(tree, (seq, entry)).await?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no table of a tree has the entry, or a newer one of its key.
    async fn is_newest(&self, tree: &Tree, (seq, entry): (SeqNo, &WalEntry)) -> Result<bool> {
        let key = entry.data.get(..to_usize(u64::from(entry.key_bytes))).unwrap_or_default();
        let version = Arc::clone(&tree.view().version);
        let mut ctx = ReadContext::new(IoClass::Read);
        for (_, table) in version.tables().filter(|(_, t)| t.max_seq >= seq) {
            // Memtables stand above tables: what a table has newer must not be hidden.
            let newest = self.space.get(table, key, SEQ_MAX, &mut ctx).await?;
            if newest.is_some_and(|found| found.seq >= seq) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives a file a second name that no open removes; the name. `None` where it has one already,
    /// or is not there.
    pub(super) async fn set_aside(&self, name: &str) -> Result<Option<String>> {
        let from = self.dir.join(name);
        for again in 0..NAMES_MAX {
            let aside = match again {
                0 => format!("{name}.lost"),
                n => format!("{name}.lost-{n}"),
            };
            let to = self.dir.join(&aside);
            match self.env.link(&from, &to).await {
                Ok(()) => return Ok(Some(aside)),
                Err(error) if error.is_not_found() => return Ok(None),
                Err(Error::Io { kind: std::io::ErrorKind::AlreadyExists, .. }) => {
                    if self.is_same(&from, &to).await? {
                        return Ok(None);
                    }
                }
                // Not a file: no open removes it.
                Err(_) if is_directory(self.env, &from).await => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(Error::InvalidArgument(format!("{name} was set aside {NAMES_MAX} times already")))
    }

    async fn is_same(&self, a: &Path, b: &Path) -> Result<bool> {
        let (a, b) = (self.env.open(a).await?, self.env.open(b).await?);
        if a.len() != b.len() {
            return Ok(false);
        }
        let mut at = 0;
        while at < a.len() {
            let len = to_usize(PIECE_BYTES.min(a.len() - at));
            if a.read_at(at, len, IoClass::Read).await? != b.read_at(at, len, IoClass::Read).await?
            {
                return Ok(false);
            }
            at += to_u64(len);
        }
        Ok(true)
    }

    /// Writes a manifest of the state and switches CURRENT to it; its number.
    pub(super) async fn manifest(&self, set: VersionSet) -> Result<FileNumber> {
        let set = Arc::new(set);
        let number = self.next_file.load(Ordering::Relaxed);
        let facts = (Arc::new(Counters::default()), Arc::clone(&self.next_file));
        // It replaces none: the one before it stays.
        let manifest = Manifest::new(self.env.clone(), self.dir, Arc::clone(&set), facts, None);
        manifest.commit(vec![Edit::WalFloor { segment: set.wal_floor() }], None).await?;
        manifest.close().await;
        Ok(number)
    }
}

async fn is_directory<E: Env>(env: &E, path: &Path) -> bool {
    let outcome = env.open(path).await;
    matches!(outcome, Err(Error::Io { kind: std::io::ErrorKind::IsADirectory, .. }))
}

async fn finish<E: Env>(output: Output<E>) -> Result<TableMeta> {
    let Output { builder, file, number } = output;
    let finished = builder.finish()?;
    file.append(&finished.rest, IoClass::Compaction).await?;
    file.sync_all(IoClass::Compaction).await?;
    Ok(finished.meta(TableId { file: number, offset: 0 }))
}

/// Appends a run of entries, the last of which has the number before `end`.
async fn put_run<E: Env>(log: &mut LogWriter<E>, (end, run): (SeqNo, &[&WalEntry])) -> Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    let count = to_u64(run.len());
    let mut out = Vec::new();
    encode_batch_header(&mut out, end - count, count);
    for entry in run {
        let owner = (entry.tree, entry.branch);
        encode_entry(&mut out, owner, entry.kind, entry.key_bytes, &entry.data);
    }
    log.append(&out).await
}
