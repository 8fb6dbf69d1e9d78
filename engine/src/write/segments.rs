//! The next segment: when the newest one is full, and when it failed.
//!
//! A spare segment, preallocated and with a durable name, waits for both, so that neither needs
//! space or a call on a name. Its first record voids everything behind the synced length of the
//! segment before it, and carries again what that one acknowledged behind it. What is published is
//! in the memtables, since a flush waits until the log is durable through its memtable: so they are
//! where the carried entries come from, and the write path keeps nothing for this.
//!
//! # Source
//!
//! Not trusting a file after a failed sync is what Rebello et al. conclude ("Can Applications
//! Recover from fsync Failures?", USENIX ATC 2020).

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::layout::{branch_of, sole_branch_of};
use crate::options::Layout;
use crate::shared::Shared;
use crate::types::{BranchId, SeqNo, TreeId, to_u64};
use crate::wal::writer::{SegmentWriter, Spare};
use crate::wal::{WalEntry, segment_path};

/// More than this is not carried: the database is read-only then, as it is where the spare fails.
const CARRIED_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Removes a segment's file that means nothing. One that stays is an orphan for the next open.
pub(crate) async fn remove_segment<E: Env>(shared: &Shared<E>, segment: u64) {
    drop(shared.env.remove(&segment_path(&shared.dir, segment)).await);
}

/// Makes a file that a later segment will be.
///
/// # Errors
///
/// The world's; the file was removed where that was possible.
pub(crate) async fn create_spare<E: Env>(shared: &Shared<E>) -> Result<Spare<E>> {
    let number = shared.new_file_number();
    let bytes = shared.options.wal_segment_bytes;
    let made = Spare::create(&shared.env, &shared.dir, number, bytes).await;
    if made.is_err() {
        // Without a first record the file means nothing; on a full disk it would be in the way.
        remove_segment(shared, number).await;
    }
    made
}

/// Whether a spare may be the next segment: numbers ascend along the log, and while the background
/// made this one, a segment with a higher number may have begun.
pub(crate) fn is_newest<E: Env>(shared: &Shared<E>, spare: &Spare<E>) -> bool {
    spare.segment() > shared.log.highest_begun()
}

/// Begins the successor of a segment, which takes no more records from here on, and makes `writer`
/// the successor. Everything published is durable then, and the log reaches `last_seq`, which is
/// the last published number or one above it.
///
/// # Errors
///
/// The world's. The segment stays the newest one.
pub(super) async fn begin_next<E: Env>(
    shared: &Shared<E>,
    writer: &mut SegmentWriter<E>,
    last_seq: SeqNo,
) -> Result<()> {
    writer.end();
    let published = shared.visible_seq();
    let carried = unsynced(shared, writer.synced_seq(), published)?;
    let spare = shared.spare.lock().take();
    let spare = match spare {
        Some(spare) if is_newest(shared, &spare) => spare,
        Some(stale) => {
            remove_segment(shared, stale.segment()).await;
            create_spare(shared).await?
        }
        None => create_spare(shared).await?,
    };
    let segment = spare.segment();
    let before = writer.as_predecessor(last_seq);
    shared.log.begin(segment);
    match SegmentWriter::begin(&shared.env, spare, before, &carried).await {
        Ok(next) => *writer = next,
        Err(error) => {
            // Where more may follow, it goes; else it may be worth more than what it carries over.
            if !writer.has_failed() || error.is_storage_full() {
                remove_segment(shared, segment).await;
            }
            return Err(error);
        }
    }
    shared.counters.wal_sync_count.add(1);
    shared.synced.fetch_max(writer.synced_seq(), Ordering::AcqRel);
    shared.log.add_segment(segment, writer.valid_bytes());
    shared.counters.wal_retained_bytes_max.raise_to(shared.log.bytes());
    // Another spare is due.
    shared.tick.raise();
    Ok(())
}

/// After a failed append or sync: begins the next segment, or makes the database read-only. On a
/// full disk it does neither, and the next request tries again.
pub(super) async fn leave_failed<E: Env>(
    shared: &Shared<E>,
    writer: &mut SegmentWriter<E>,
    cause: &Error,
) {
    let failed = writer.segment();
    if cause.is_storage_full() {
        shared.disk.suspect();
        shared.tick.raise();
    }
    // Where that fails too, the database is read-only, or the next request tries again.
    if retry_failed(shared, writer).await.is_ok() {
        let published = shared.visible_seq();
        let error = cause.to_string();
        shared.emit(&Event::SegmentLeft { segment: failed, published, error });
    }
}

/// Begins the successor of a segment that failed.
///
/// # Errors
///
/// The world's; the database is read-only then, but where the disk is full.
pub(super) async fn retry_failed<E: Env>(
    shared: &Shared<E>,
    writer: &mut SegmentWriter<E>,
) -> Result<()> {
    let outcome = begin_next(shared, writer, shared.visible_seq()).await;
    if let Err(error) = &outcome {
        if error.is_storage_full() {
            shared.disk.suspect();
            shared.tick.raise();
        } else {
            shared.set_read_only(error);
        }
    }
    outcome
}

/// Published entries above a number, in the order of their numbers.
fn unsynced<E: Env>(
    shared: &Shared<E>,
    synced: SeqNo,
    published: SeqNo,
) -> Result<Vec<(SeqNo, WalEntry)>> {
    let mut out = Vec::new();
    if published <= synced {
        return Ok(out);
    }
    let layout = shared.options.layout;
    let mut bytes = 0;
    for tree in shared.set.trees() {
        let view = tree.view();
        for memtable in view.memtable.iter().chain(&view.immutables) {
            if memtable.max_seq() <= synced || !shared.set.is_first_owner(tree.id, memtable) {
                continue;
            }
            for (seq, kind, key_bytes, data) in memtable.entries_in(synced, published) {
                let tree = memtable.origin_of(seq);
                let Some(branch) = branch_in(layout, tree, &data) else { continue };
                bytes += to_u64(data.len());
                if bytes > CARRIED_BYTES_MAX {
                    return Err(too_much(shared, bytes));
                }
                out.push((seq, WalEntry { tree, branch, kind, key_bytes, data }));
            }
        }
    }
    out.sort_by_key(|(seq, _)| *seq);
    // A fork's copy of its parent's memtable holds the same entries.
    out.dedup_by_key(|(seq, _)| *seq);
    Ok(out)
}

/// Through which branch an entry of a memtable was written, which does not say so itself; `None`
/// for a key that no branch has.
pub(super) fn branch_in(layout: Layout, origin: TreeId, data: &[u8]) -> Option<BranchId> {
    sole_branch_of(layout, origin).or_else(|| branch_of(data))
}

fn too_much<E: Env>(shared: &Shared<E>, bytes: u64) -> Error {
    Error::Io {
        op: "carry",
        path: shared.dir.clone(),
        offset: None,
        kind: ErrorKind::OutOfMemory,
        detail: format!("above {CARRIED_BYTES_MAX} bytes, at least {bytes}, are not synced"),
    }
}
