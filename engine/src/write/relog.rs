//! Re-logging: a cold tree's few unflushed entries are appended to the log again, so that an old
//! segment can go without a tiny table.
//!
//! What is appended are entries of closed segments, each with its own number and the tree that it
//! was written to. They take no number, and who replays them is for the replay rule to say, as of
//! the first copy; an entry that is met twice counts once. They need not be one record with the
//! rest of their batch: a closed segment is durable as a whole, and so was the batch before any
//! part of it was copied. Whether the rest of it is then flushed, copied or still where it was, a
//! crash finds all of it, since the old segment goes by an edit that is written only when every
//! memtable that needed it has moved its anchor, and an anchor moves only behind a sync.
//!
//! All entries that a memtable has in closed segments are appended, not only those of the oldest
//! one. Then what it holds lies in the newest segment, which is its anchor; and an entry is copied
//! at most once while the log is written from end to end.
//!
//! A tree is re-logged in place of a flush where that pays: the smallest memtables first, as long
//! as they come to at most half of the oldest segment. Trees are chosen once for each segment that
//! has to go, so that of what is logged at most a third are copies, whatever the log's limit. A
//! tree of more than [`STEP_BYTES_MAX`] is flushed: its table is not tiny.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::env::{Env, Work};
use crate::events::Event;
use crate::memtable::Memtable;
use crate::options::Layout;
use crate::shared::{Request, Shared};
use crate::types::TreeId;
use crate::version::tree::Tree;
use crate::wal::writer::SegmentWriter;
use crate::wal::{WalEntry, encode_carried, encode_relogged_header};

use super::queue;
use super::segments::branch_in;

/// What one entry of the commit queue appends at most, lest writers behind it wait for long.
const STEP_BYTES_MAX: u64 = 256 * 1024;

/// What an entry takes in the log beyond its key and value, about.
const ENTRY_BYTES: u64 = 24;

/// What is appended at once.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// A record for each memtable that has entries in closed segments.
    pub(super) records: Vec<Vec<u8>>,
    moved: Vec<Moved>,
}

/// A memtable of a step.
#[derive(Debug)]
struct Moved {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    /// Entries in its record.
    entries: u64,
    /// Bytes of their keys and values.
    bytes: u64,
}

fn log_bytes(memtable: &Memtable) -> u64 {
    memtable.data_bytes().saturating_add(memtable.entries().saturating_mul(ENTRY_BYTES))
}

/// Where the log is above its limit: the newest segment that is to go. Where trees may be re-logged
/// that is the oldest one that is needed, and those to re-log for it are chosen; all others that
/// pin it are flushed.
pub(crate) fn plan<E: Env>(shared: &Shared<E>) -> Option<u64> {
    let limit = shared.options.wal_limit_bytes();
    if !shared.options.relog {
        return shared.log.over(limit);
    }
    let Some((segment, bytes)) = shared.log.excess(limit) else {
        shared.pressure.forget_relog();
        return None;
    };
    if shared.disk.is_full() {
        // The next segment may not be had, and a flush may use the reserve.
        shared.pressure.forget_relog();
    } else if shared.pressure.plan_relog(segment, |pinning| choose(&pinning, bytes >> 1)) {
        shared.tick.raise();
    }
    Some(segment)
}

/// The smallest of these trees that together are within some bytes.
fn choose(trees: &[Arc<Tree>], bytes_max: u64) -> BTreeSet<TreeId> {
    let weigh = |tree: &Arc<Tree>| Some((tree.with_memtable(log_bytes)?, tree.id));
    let mut weighed: Vec<(u64, TreeId)> = trees.iter().filter_map(weigh).collect();
    weighed.sort_unstable();
    let mut sum = 0;
    let within = |(bytes, _): &(u64, TreeId)| {
        sum += *bytes;
        *bytes <= STEP_BYTES_MAX && sum <= bytes_max
    };
    weighed.into_iter().take_while(within).map(|(_, id)| id).collect()
}

/// Re-logs the trees that were chosen; whether there were any. Not from the commit queue: each step
/// is an entry of it.
pub(crate) async fn run<E: Env>(shared: &Shared<E>) -> bool {
    let mut any = false;
    // No more steps than trees: while it runs, more may be chosen, and the log is to be reclaimed.
    for _ in 0..shared.pressure.relogging_count() {
        if shared.pressure.relogging_count() == 0 {
            break;
        }
        any = true;
        if queue::submit(shared, Request::Relog).await.is_err() {
            // Whoever asks next flushes them, or chooses again.
            shared.pressure.forget_relog();
        }
    }
    any
}

/// The records of the next trees to re-log, for the newest segment. Only the queue's leader may
/// call this.
pub(super) fn gather<E: Env>(shared: &Shared<E>, writer: &SegmentWriter<E>) -> Step {
    let layout = shared.options.layout;
    let mut step = Step::default();
    let mut left = STEP_BYTES_MAX;
    for tree in shared.pressure.relogging() {
        let memtable = tree.view().memtable.clone();
        let needed = memtable.filter(|m| m.anchor_segment() < writer.segment());
        // Sealed, grown or re-logged meanwhile.
        let Some(memtable) = needed.filter(|m| log_bytes(m) <= STEP_BYTES_MAX) else {
            shared.pressure.on_relogged(&tree, None);
            continue;
        };
        let Some(rest) = left.checked_sub(log_bytes(&memtable)) else { break };
        left = rest;
        let (entries, bytes) = encode(layout, (&memtable, writer.begun_seq()), &mut step);
        for _ in 0..entries {
            shared.env.charge(Work::WriteEntry);
        }
        step.moved.push(Moved { tree, memtable, entries, bytes });
    }
    step
}

/// Encodes the entries of a memtable up to a number; how many, and the bytes of keys and values.
fn encode(layout: Layout, (memtable, upto): (&Memtable, u64), step: &mut Step) -> (u64, u64) {
    let (mut body, mut count, mut bytes) = (Vec::new(), 0, 0);
    for (seq, kind, key_bytes, data) in memtable.entries_in(0, upto) {
        let tree = memtable.origin_of(seq);
        let Some(branch) = branch_in(layout, tree, &data) else { continue };
        (count, bytes) = (count + 1, bytes + data.len());
        encode_carried(&mut body, seq, &WalEntry { tree, branch, kind, key_bytes, data });
    }
    if count > 0 {
        let mut record = Vec::with_capacity(body.len() + 10);
        encode_relogged_header(&mut record, count);
        record.append(&mut body);
        step.records.push(record);
    }
    (count, crate::types::to_u64(bytes))
}

/// The records of a step are durable in this segment: older ones are not needed for its memtables.
/// Only the queue's leader may call this.
pub(super) fn release<E: Env>(shared: &Shared<E>, step: &Step, segment: u64) {
    for Moved { tree, memtable, entries, bytes } in &step.moved {
        let from = memtable.anchor_segment();
        memtable.move_anchor(segment);
        shared.log.move_pin(from, segment);
        shared.pressure.on_relogged(tree, Some(segment));
        shared.counters.relog_count.add(1);
        let (tree, entries, bytes) = (tree.id, *entries, *bytes);
        shared.emit(&Event::Relogged { tree, entries, bytes, from, to: segment });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Kind;

    fn tree(id: u64, entries: &[usize]) -> Arc<Tree> {
        let tree = Arc::new(Tree::new(TreeId(id)));
        let memtable = Memtable::new(0, 1);
        for (seq, len) in (1..).zip(entries) {
            memtable.insert(Bytes::from(vec![7; 1 + len]), 1, seq, Kind::Put);
        }
        tree.change(|view| view.memtable = Some(Arc::new(memtable)));
        tree
    }

    #[test]
    fn the_smallest_trees_within_the_bytes_are_chosen_and_none_that_a_step_cannot_hold() {
        let step = usize::try_from(STEP_BYTES_MAX).unwrap();
        // 1 + 24 bytes an entry beyond its value.
        let trees = [tree(1, &[75]), tree(2, &[25; 2]), tree(3, &[75; 3]), tree(4, &[step])];
        let ids = |bytes_max| {
            let chosen = choose(&trees, bytes_max);
            chosen.into_iter().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(ids(99), []);
        assert_eq!(ids(100), [1]);
        assert_eq!((ids(199), ids(200)), (vec![1], vec![1, 2]));
        assert_eq!((ids(499), ids(500)), (vec![1, 2], vec![1, 2, 3]));
        assert_eq!(ids(u64::MAX), [1, 2, 3]);
        assert!(choose(&[Arc::new(Tree::new(TreeId(5)))], u64::MAX).is_empty(), "no memtable");
    }
}
