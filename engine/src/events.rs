//! What the engine tells a listener: every flush, compaction, stall and write, as it happens.

use core::fmt;

use crate::policy::view::StallCause;
use crate::types::{BranchId, Nanos, SeqNo, TableId, TreeId};

/// Something the engine did. More kinds may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A batch got its sequence numbers and is about to be appended to the WAL. In order of
    /// numbers.
    WriteSequenced {
        /// The tag that the writer gave with its options.
        tag: u64,
        /// The number of the batch's first entry; the others follow.
        first_seq: SeqNo,
        /// Entries of the batch.
        entry_count: u64,
    },
    /// A memtable became immutable.
    Sealed {
        /// Its tree.
        tree: TreeId,
        /// Its charged bytes.
        bytes: u64,
    },
    /// A flush began.
    FlushBegin {
        /// The tree whose oldest immutable memtable it writes.
        tree: TreeId,
        /// Charged bytes of that memtable.
        bytes: u64,
    },
    /// A flush ended and its table is installed.
    FlushEnd {
        /// The tree.
        tree: TreeId,
        /// The new table and its length in bytes; `None` when nothing was left to write.
        table: Option<(TableId, u64)>,
        /// How long it took.
        elapsed_ns: Nanos,
    },
    /// A compaction began.
    CompactionBegin {
        /// The tree.
        tree: TreeId,
        /// The level that takes the output.
        level_to: u32,
        /// Bytes of its input tables.
        input_bytes: u64,
    },
    /// A compaction ended and its output is installed. Input entries = output + dropped.
    CompactionEnd {
        /// The tree.
        tree: TreeId,
        /// Bytes written; 0 for a trivial move.
        output_bytes: u64,
        /// Entries read.
        input_entries: u64,
        /// Entries written.
        output_entries: u64,
        /// Entries left out: shadowed, deleted or of a dropped branch.
        dropped_entries: u64,
        /// Whether its tables only changed their level: nothing was read or written.
        trivial_move: bool,
        /// How long it took.
        elapsed_ns: Nanos,
    },
    /// A background job failed; it is tried again unless its tree failed for good.
    JobFailed {
        /// The tree.
        tree: TreeId,
        /// The error in words.
        error: String,
    },
    /// A write begins to wait, or to wait for another cause than so far.
    StallBegin {
        /// Whose write: the branch of the batch's first entry.
        branch: BranchId,
        /// Why.
        cause: StallCause,
        /// The branch that causes it.
        caused_by: BranchId,
    },
    /// A write's wait for one cause is over.
    StallEnd {
        /// Whose write.
        branch: BranchId,
        /// Why it waited.
        cause: StallCause,
        /// The branch that caused it.
        caused_by: BranchId,
        /// How long.
        elapsed_ns: Nanos,
    },
    /// The engine flushed a tree that the policy did not name, or let go of a flushed memtable of
    /// it that was to be kept, since a writer would have waited for ever.
    PolicyOverride {
        /// The tree.
        tree: TreeId,
    },
    /// The entries of a memtable that pinned old segments are in the newest one.
    Relogged {
        /// Its tree.
        tree: TreeId,
        /// Entries appended again; 0 where all of them were in the newest segment.
        entries: u64,
        /// Bytes of their keys and values.
        bytes: u64,
        /// The oldest segment that the memtable pinned.
        from: u64,
        /// The segment that it pins.
        to: u64,
    },
    /// A branch was forked and is durable.
    Forked {
        /// The new branch.
        branch: BranchId,
        /// The branch it was forked from.
        parent: BranchId,
        /// It began with the parent's entries up to this number.
        fork_seq: SeqNo,
        /// Bytes that were copied for it.
        copied_bytes: u64,
        /// How long it took.
        elapsed_ns: Nanos,
    },
    /// An append or a sync of the log failed, and the next segment carries what was published.
    SegmentLeft {
        /// The segment that failed.
        segment: u64,
        /// The last number that is published: writes with a number above it are answered with the
        /// error.
        published: SeqNo,
        /// The error in words.
        error: String,
    },
    /// Writes are refused from here on, since the disk is full, or are taken again.
    DiskFull {
        /// Whether they are refused.
        full: bool,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes that must be free for writes.
        needed_bytes: u64,
    },
    /// A file was removed since nothing reaches it.
    FileRemoved {
        /// Its number.
        file: u64,
    },
}

/// Takes events. Called from the engine's own tasks: must return soon and must not call the engine.
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// One event, at `now` on the world's monotonic clock.
    fn event(&self, now: Nanos, event: &Event);
}
