//! The log of a copy: what of it is in no table, each entry with the number that it always had.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Target;
use super::cut::Cut;
use crate::env::{Env, Site};
use crate::error::Result;
use crate::layout::{branch_of, sole_branch_of};
use crate::memtable::Memtable;
use crate::types::{BranchId, SeqNo, to_u64};
use crate::wal::salvage::LogWriter;
use crate::wal::{WalEntry, encode_carried, encode_relogged_header};

/// A record ends behind the entry that takes it to this size.
const RECORD_BYTES: u64 = 256 * 1024;

/// Entries on their way into a record.
#[derive(Default)]
struct Pending {
    entries: Vec<(SeqNo, WalEntry)>,
    bytes: u64,
}

/// Writes the log of a copy, whose files get their names by [`LogWriter::finish`]. Lets go of the
/// memtables. Returns the log with the number of its entries.
///
/// # Errors
///
/// The world's. Temporary files may be left.
pub(super) async fn write<E: Env>(
    env: &E,
    target: &Target<E>,
    cut: &mut Cut,
) -> Result<(LogWriter<E>, u64)> {
    let salt = u32::try_from(env.random_u64(Site("wal-salt")) >> 32).unwrap_or(0);
    let mut log = LogWriter::new(env.clone(), &target.dir, (salt, cut.seq));
    log.begin(target.new_number()).await?;
    let live: BTreeSet<BranchId> = cut.branches.iter().map(|branch| branch.id).collect();
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    let mut pending = Pending::default();
    for tree in &cut.trees {
        for memtable in &tree.memtables {
            // Trees that share it would tell the same of each entry.
            if !seen.insert(Arc::as_ptr(memtable)) {
                continue;
            }
            for (seq, kind, key_bytes, data) in Memtable::entries_in(memtable, 0, cut.seq) {
                let origin = Cut::origin(tree, seq);
                // Of a dropped tenant nothing goes with a copy.
                let sole = sole_branch_of(cut.layout, origin);
                let Some(branch) = sole.or_else(|| branch_of(&data).filter(|b| live.contains(b)))
                else {
                    continue;
                };
                count += 1;
                pending.bytes += to_u64(data.len());
                let entry = WalEntry { tree: origin, branch, kind, key_bytes, data };
                pending.entries.push((seq, entry));
                if pending.bytes >= RECORD_BYTES {
                    put(&mut log, target, &mut pending).await?;
                }
            }
        }
    }
    put(&mut log, target, &mut pending).await?;
    for tree in &mut cut.trees {
        tree.memtables = Vec::new();
    }
    Ok((log, count))
}

async fn put<E: Env>(
    log: &mut LogWriter<E>,
    target: &Target<E>,
    pending: &mut Pending,
) -> Result<()> {
    let Pending { entries, .. } = core::mem::take(pending);
    if entries.is_empty() {
        return Ok(());
    }
    if log.is_full() {
        log.begin(target.new_number()).await?;
    }
    let mut record = Vec::new();
    encode_relogged_header(&mut record, to_u64(entries.len()));
    for (seq, entry) in &entries {
        encode_carried(&mut record, *seq, entry);
    }
    log.append(&record).await
}
