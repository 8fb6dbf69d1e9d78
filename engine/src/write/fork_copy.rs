//! Forks where branches share trees: by copy, under a fresh id.
//!
//! A branch's keys carry its id there, so that a fork needs keys of its own. Between two groups of
//! writes it takes its number and pins the tree as it is; behind that the tree lives on. What the
//! parent held at that number is written into tables under the child's id, with its numbers, and
//! one edit makes the branch and its tables appear. Before that edit nobody knows the child:
//! nothing reads, compacts or throws away what was copied for it. A copy has all of a key that the
//! child will ever see below its own writes, so a tombstone that no snapshot needs is left out.
//!
//! The tables go into the last level in which no table spans the child's keys. In L0 they would
//! count like unmerged flushes, and a large fork would stop every writer of the tree. While the
//! level is looked up and the edit is on its way no compaction of the tree runs that could put a
//! table across it, and nothing else adds to deeper levels but other forks, each within its keys.
//!
//! A fork that fails, or whose future is dropped, removes what it has written. Behind the point at
//! which its edit may be in the manifest the files stay, for the next open to decide.

use core::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fork::{Forked, Wish};
use super::{queue, stalls};
use crate::env::{Env, IoClass, Work};
use crate::error::{Error, Result};
use crate::flush::{TableWriter, check_count, remove_begun};
use crate::iter::{self, ScanBounds, SortedIter as _};
use crate::layout::Place;
use crate::policy::view::ChangeKind;
use crate::read;
use crate::retain::{Retention, Verdict};
use crate::shared::{Barrier, Request, Shared};
use crate::table::{ReadContext, TableMeta};
use crate::tenancy::{self, Claim};
use crate::types::{BranchId, Entry, FileNumber, SeqNo, TableId};
use crate::version::edit::Edit;
use crate::version::manifest::{Commit, Install};
use crate::version::tree::{Branch, Tree, TreeView};
use crate::version::{LEVEL_COUNT, Version};

const READAHEAD_BYTES: u32 = 256 * 1024;

/// A branch at one place in the order of writes, with all that it reads there.
struct Pinned {
    tree: Arc<Tree>,
    place: Place,
    view: Arc<TreeView>,
    seq: SeqNo,
    /// Numbers of open snapshots: what they see of the parent they see of the child.
    snapshots: Vec<SeqNo>,
}

/// Files of tables that no edit names. Dropped, it gives them to the collector.
struct Begun<E: Env> {
    shared: Arc<Shared<E>>,
    files: Vec<FileNumber>,
}

impl<E: Env> Drop for Begun<E> {
    fn drop(&mut self) {
        discard(&self.shared, &self.files);
    }
}

/// No compaction of a tree begins until this is dropped.
struct Hold<E: Env> {
    shared: Arc<Shared<E>>,
    tree: Arc<Tree>,
}

impl<E: Env> Drop for Hold<E> {
    fn drop(&mut self) {
        self.shared.jobs.release_compactions(self.tree.id);
    }
}

/// Forks a branch by copy.
///
/// # Errors
///
/// As for a fork.
pub(super) async fn run<E: Env>(shared: &Arc<Shared<E>>, wish: Wish<E>) -> Result<Forked> {
    let from = pin(shared, &wish.parent).await?;
    let Pinned { seq, .. } = from;
    check_space(shared, expected_bytes(&from, wish.parent.id)).await?;
    // Without it half of a batch across branches could survive in the child.
    queue::sync_through(shared, seq).await?;
    let to = Place::new(shared.options.layout, wish.child);
    let mut begun = Begun { shared: Arc::clone(shared), files: Vec::new() };
    let tables = match copy(shared, (&wish.parent, &from), (to, &mut begun.files)).await {
        Ok(tables) => tables,
        Err(error) => {
            let error = told(shared, error).await;
            remove_begun(shared, &core::mem::take(&mut begun.files)).await;
            return Err(error);
        }
    };
    let Pinned { tree, .. } = from;
    let copied_bytes = tables.iter().map(|t| t.bytes).sum();
    let branch = commit(shared, (wish, seq), tree, (tables, begun)).await?;
    Ok(Forked { branch, seq, copied_bytes })
}

/// Takes the fork's place in the order of writes.
async fn pin<E: Env>(shared: &Arc<Shared<E>>, parent: &Arc<Branch>) -> Result<Pinned> {
    let pinned = Arc::new(Mutex::new(None));
    let barrier = {
        let (shared, parent) = (Arc::clone(shared), Arc::clone(parent));
        let pinned = Arc::clone(&pinned);
        move || {
            let at = pin_now(&shared, &parent)?;
            let seq = at.seq;
            *pinned.lock() = Some(at);
            Ok(seq)
        }
    };
    queue::submit(shared, Request::Barrier(Barrier::new(barrier))).await?;
    let at = pinned.lock().take();
    at.ok_or(Error::Interrupted)
}

fn pin_now<E: Env>(shared: &Shared<E>, parent: &Branch) -> Result<Pinned> {
    let Some((tree, place)) = parent.places.first() else { return Err(Error::Dropped) };
    if parent.is_dropped() {
        return Err(Error::Dropped);
    }
    if let Some(cause) = tree.failure() {
        return Err(Error::TreeFailed { tree: tree.id, cause });
    }
    Ok(Pinned {
        tree: Arc::clone(tree),
        place: *place,
        view: tree.view(),
        seq: shared.visible_seq(),
        // One that is opened later sees this number or a higher one.
        snapshots: shared.snapshot_seqs(),
    })
}

/// About what a copy takes on disk: the tables that hold nothing else, and what is in memory. Of a
/// table that others are in as well nobody knows the part without reading it.
fn expected_bytes(from: &Pinned, parent: BranchId) -> u64 {
    let end = from.place.end();
    let start = from.place.key(&[]);
    let inside = |t: &TableMeta| t.smallest >= start && end.as_ref().is_none_or(|e| t.largest < *e);
    let tables = from.view.version.tables().filter(|(_, t)| inside(t)).map(|(_, t)| t.bytes);
    let mut in_memory = std::collections::BTreeMap::new();
    for memtable in from.view.memtable.iter().chain(&from.view.immutables) {
        memtable.add_bytes_by_branch(&mut in_memory);
    }
    tables.chain(in_memory.get(&parent).copied()).sum()
}

/// Refuses a copy that would leave too little space for what writes may need.
async fn check_space<E: Env>(shared: &Shared<E>, bytes: u64) -> Result<()> {
    shared.disk.check()?;
    let Ok(free_bytes) = shared.env.free_bytes(&shared.dir).await else {
        // What it said last holds.
        return Ok(());
    };
    let needed_bytes = shared.disk.needed_bytes().saturating_add(bytes);
    if free_bytes < needed_bytes {
        return Err(Error::DiskFull { free_bytes, needed_bytes });
    }
    Ok(())
}

/// An error as the caller is told: that of a full disk is one, wherever it was met.
async fn told<E: Env>(shared: &Shared<E>, error: Error) -> Error {
    if !error.is_storage_full() || matches!(error, Error::DiskFull { .. }) {
        return error;
    }
    shared.disk.suspect();
    shared.tick.raise();
    let free_bytes = shared.env.free_bytes(&shared.dir).await.unwrap_or(0);
    Error::DiskFull { free_bytes, needed_bytes: shared.disk.needed_bytes() }
}

/// Writes what the parent holds at its place under the child's keys, durably.
async fn copy<E: Env>(
    shared: &Arc<Shared<E>>,
    (parent, from): (&Branch, &Pinned),
    (to, begun): (Place, &mut Vec<FileNumber>),
) -> Result<Vec<TableMeta>> {
    let (lower, upper) = read::edges(&from.place, (Bound::Unbounded, Bound::Unbounded));
    let bounds = ScanBounds { lower, upper, seq: from.seq, ..ScanBounds::default() };
    let (mut iter, _) = read::sources(shared, &from.view, &bounds);
    iter.seek(bounds.start());
    let mut ctx = ReadContext::bulk(IoClass::Compaction, READAHEAD_BYTES);
    let mut retention = Retention::new(from.snapshots.clone());
    let (mut out, mut kept) = (Vec::new(), 0_u64);
    let mut writer: Option<TableWriter<E>> = None;
    let mut last = None;
    while let Some(entry) = iter::next(&mut iter, &shared.space, &mut ctx).await? {
        shared.env.charge(Work::MergeEntry);
        if bounds.is_past(&entry.key) {
            break;
        }
        // Written behind the fork; and what nobody can see of the child.
        if entry.seq > from.seq || retention.judge(&entry) != Verdict::Keep {
            continue;
        }
        // Versions of one key stay in one table.
        let new_key = last.as_ref() != Some(&entry.key);
        let full = |w: &TableWriter<E>| w.estimated_bytes() >= shared.options.table_bytes_max;
        if new_key && let Some(done) = writer.take_if(|w| full(w)) {
            out.push(done.finish().await?);
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            none @ None => {
                check_goes_on(shared, parent)?;
                check_space(shared, 0).await?;
                let class = IoClass::Compaction;
                none.insert(TableWriter::create(shared, &from.tree, class, begun).await?)
            }
        };
        last = Some(entry.key.clone());
        let key = to.key(&from.place.user_key(&entry.key));
        writer.add(&Entry { key, ..entry }).await?;
        kept += 1;
    }
    if let Some(writer) = writer {
        out.push(writer.finish().await?);
    }
    let written = out.iter().map(|t| t.entries).sum();
    check_count(&shared.dir, "the copy of a branch", (kept, written))?;
    if !out.is_empty() {
        shared.env.sync_dir(&shared.dir).await?;
    }
    Ok(out)
}

/// Whether a copy is still of use.
fn check_goes_on<E: Env>(shared: &Shared<E>, parent: &Branch) -> Result<()> {
    shared.check_writable()?;
    if parent.is_dropped() { Err(Error::Dropped) } else { Ok(()) }
}

/// Makes the branch appear with its tables.
async fn commit<E: Env>(
    shared: &Arc<Shared<E>>,
    (wish, seq): (Wish<E>, SeqNo),
    tree: Arc<Tree>,
    (tables, mut begun): (Vec<TableMeta>, Begun<E>),
) -> Result<Arc<Branch>> {
    let hold = hold_compactions(shared, &tree).await;
    let level = level_for(&tree.view().version, &tables);
    let files = begun.files.clone();
    let edit = Edit::Fork {
        name: wish.full_name,
        branch: wish.child,
        parent: wish.parent.id,
        fork_seq: seq,
        tables: tables.into_iter().map(|table| (level, table)).collect(),
    };
    let branch = Arc::new(Mutex::new(None));
    let install = install((edit.clone(), files), (hold, wish.claim), &branch);
    // From the write on the manifest may name them, whatever comes of it.
    let written = Box::new(move |_: &mut Vec<Edit>| begun.files.clear());
    let commit = Commit::new(vec![edit], Some(install)).completed_by(written);
    shared.manifest.submit(commit).await?;
    // Nothing where the parent was dropped before the edit's place.
    let branch = branch.lock().take();
    branch.ok_or(Error::Dropped)
}

fn install<E: Env>(
    (edit, files): (Edit, Vec<FileNumber>),
    (hold, claim): (Hold<E>, Claim<E>),
    branch: &Arc<Mutex<Option<Arc<Branch>>>>,
) -> Install {
    let branch = Arc::clone(branch);
    Box::new(move |set| {
        let (shared, tree) = (&hold.shared, &hold.tree);
        let created = set.apply(&edit).map(|applied| applied.created_branches);
        let created = created.unwrap_or_default();
        if created.is_empty() {
            discard(shared, &files);
        }
        for created in created {
            tenancy::register(shared, &created);
            shared.pressure.on_compacted(tree);
            shared.schedule_compaction(tree, 0);
            stalls::observe(shared, tree, ChangeKind::Opened);
            *branch.lock() = Some(created);
        }
        drop((hold, claim));
    })
}

/// Gives files to the collector of which no edit will name a table.
fn discard<E: Env>(shared: &Shared<E>, files: &[FileNumber]) {
    if files.is_empty() {
        return;
    }
    let table = |file: &FileNumber| {
        let id = TableId { file: *file, offset: 0 };
        Arc::new(TableMeta { id, ..TableMeta::default() })
    };
    shared.garbage.lock().extend(files.iter().map(table));
    shared.tick.raise();
}

/// Waits for the tree's compaction and lets no other one begin.
async fn hold_compactions<E: Env>(shared: &Arc<Shared<E>>, tree: &Arc<Tree>) -> Hold<E> {
    shared.jobs.hold_compactions(tree.id);
    let hold = Hold { shared: Arc::clone(shared), tree: Arc::clone(tree) };
    loop {
        let listener = shared.job_ended.listen();
        if !shared.jobs.is_compacting(tree.id) {
            return hold;
        }
        listener.await;
    }
}

/// The last level in which no table spans the tables' keys; L0 where there is none.
fn level_for(version: &Version, tables: &[TableMeta]) -> u32 {
    let (Some(first), Some(last)) = (tables.first(), tables.last()) else { return 0 };
    let spans = |t: &Arc<TableMeta>| t.smallest <= last.largest && first.smallest <= t.largest;
    let free = (1..LEVEL_COUNT).rev().find(|level| !version.level(*level).iter().any(spans));
    free.and_then(|level| u32::try_from(level).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn table(smallest: &'static str, largest: &'static str) -> TableMeta {
        let [smallest, largest] = [smallest, largest].map(|k| Bytes::from_static(k.as_bytes()));
        TableMeta { smallest, largest, ..TableMeta::default() }
    }

    #[test]
    fn a_copy_goes_as_deep_as_no_table_is_across_it() {
        let copy = [table("m1", "m3"), table("m4", "m6")];
        let level = |tables: &[(u32, TableMeta)]| {
            let tables: Vec<_> = tables.iter().map(|(l, t)| (*l, Arc::new(t.clone()))).collect();
            level_for(&Version::default().with_compacted(&[], &tables), &copy)
        };
        assert_eq!(level(&[]), 6);
        // Tables of L0 may span anything, and those beside it are in nobody's way.
        assert_eq!(level(&[(0, table("a", "z")), (6, table("a", "m0")), (6, table("n", "z"))]), 6);
        assert_eq!(level(&[(6, table("a", "z"))]), 5);
        assert_eq!(level(&[(6, table("m3x", "m3y")), (4, table("m6", "z"))]), 5);
        let all: Vec<_> = (1..7).map(|level| (level, table("a", "m1"))).collect();
        assert_eq!(level(&all), 0);
    }
}
