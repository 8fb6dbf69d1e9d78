//! Plain facts that policies decide from, frozen at one instant. No policy sees more.

use bytes::Bytes;

use crate::types::{BranchId, Nanos, SeqNo, TableId, TreeId};

/// One tree, as a flush policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeFacts {
    /// Which tree.
    pub tree: TreeId,
    /// Bytes charged to its memtable; 0 when it has none.
    pub memtable_bytes: u64,
    /// Bytes at which the engine seals its memtable by itself.
    pub memtable_bytes_max: u64,
    /// Bytes charged to its immutable memtables.
    pub immutable_bytes: u64,
    /// Its immutable memtables.
    pub immutable_count: u32,
    /// When its memtable would have been made, were one made ahead of its first write: when the one
    /// before it was sealed, or the tree was opened.
    pub memtable_created_ns: Nanos,
    /// First write in its memtable; 0 when it has none.
    pub first_write_ns: Nanos,
    /// Last write to the tree, in whatever memtable; 0 when never.
    pub last_write_ns: Nanos,
    /// Bytes ever charged to its memtables.
    pub written_bytes: u64,
    /// Oldest WAL segment that holds an entry of its memtable; 0 when it has none.
    pub wal_anchor_segment: u64,
    /// Its L0 tables.
    pub l0_count: u32,
}

/// All trees, as a flush policy sees them. Maintained in place, never rebuilt per write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushView {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// Bytes that all memtables may hold together.
    pub budget_bytes: u64,
    /// Bytes reserved by admitted writes that are not in a memtable yet.
    pub reserved_bytes: u64,
    /// Bytes in memtables that take writes.
    pub mutable_bytes: u64,
    /// Bytes in immutable memtables, running flushes included.
    pub immutable_bytes: u64,
    /// Immutable memtables waiting for a flush or in one.
    pub immutable_count: u32,
    /// Of the immutable bytes, those that running flushes have written to their tables.
    pub spooled_bytes: u64,
    /// Bytes of flushed memtables that are kept. They count in no other field.
    pub history_bytes: u64,
    /// Memtable bytes that flushes wrote and released since the database was opened.
    pub flushed_bytes: u64,
    /// Flushes that wait or run; one of them may write many memtables.
    pub flush_job_count: u32,
    /// Flushes that may run at once.
    pub flush_slots: u32,
    /// Memtable bytes that one flush should write, in one file for many trees; 0 where each
    /// memtable is a flush of its own.
    pub pack_bytes: u64,
    /// Bytes of all live WAL segments.
    pub wal_bytes: u64,
    /// The option of that name.
    pub wal_bytes_max: u64,
    /// Oldest live WAL segment.
    pub wal_oldest_segment: u64,
    /// The decision's one seeded draw.
    pub draw: u64,
    /// Slots of the trees that took writes since the last decision, each once, in the order of
    /// their first.
    pub written_slots: Vec<usize>,
    /// One slot per tree; a slot whose tree was dropped has `memtable_bytes` 0 and is reused.
    pub trees: Vec<TreeFacts>,
}

/// What a flush policy chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushDecision {
    /// Trees whose memtable is to be sealed and flushed, first one first. Trees without a memtable
    /// are ignored.
    pub flush: Vec<TreeId>,
    /// Trees whose memtables are to be sealed and flushed into one file together, whatever
    /// `pack_bytes` is.
    pub pack: Vec<TreeId>,
    /// When to ask again though nothing happens.
    pub wake_at: Option<Nanos>,
}

/// One write, as a stall policy sees it. Built in constant time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteView {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// The tree that is asked about; a batch is asked about once for each of its trees.
    pub tree: TreeId,
    /// The branch that waits where the answer is to wait: that of the batch's first entry.
    pub branch: BranchId,
    /// The decision's one seeded draw.
    pub draw: u64,
    /// Bytes that this write would charge in all.
    pub write_bytes: u64,
    /// Of them, those that it would charge to the tree.
    pub tree_bytes: u64,
    /// Bytes that all memtables may hold together.
    pub budget_bytes: u64,
    /// Reserved, mutable and immutable bytes.
    pub used_bytes: u64,
    /// Bytes in memtables that take writes.
    pub mutable_bytes: u64,
    /// Of the immutable bytes, those that running flushes have written to their tables.
    pub spooled_bytes: u64,
    /// Bytes of flushed memtables that are kept.
    pub history_bytes: u64,
    /// Immutable memtables of the tree.
    pub immutable_count: u32,
    /// L0 tables of the tree.
    pub l0_count: u32,
    /// What compactions of the tree have before them.
    pub pending_compaction_bytes: u64,
    /// What compactions of all trees have before them.
    pub pending_compaction_sum_bytes: u64,
    /// Bytes of all live WAL segments.
    pub wal_bytes: u64,
    /// How long this write was delayed so far.
    pub delayed_ns: Nanos,
    /// The options of the same names.
    pub limits: StallLimits,
}

/// Thresholds of the stall policies, from the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallLimits {
    /// Immutable memtables of a tree from which writes to it are delayed.
    pub memtable_slowdown_count: u32,
    /// Immutable memtables of a tree from which writes to it stop.
    pub memtable_stop_count: u32,
    /// L0 tables of a tree from which writes to it are delayed.
    pub l0_slowdown_count: u32,
    /// L0 tables of a tree from which writes to it stop.
    pub l0_stop_count: u32,
    /// What compactions of a tree have before them from which writes are delayed; 0 for none.
    pub pending_compaction_slowdown_bytes: u64,
    /// What compactions of a tree have before them from which writes stop; 0 for none.
    pub pending_compaction_stop_bytes: u64,
    /// WAL bytes from which all writes stop.
    pub wal_bytes_stop: u64,
}

/// A tree changed, as a stall policy is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeChange {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// Which tree.
    pub tree: TreeId,
    /// How it changed.
    pub kind: ChangeKind,
    /// Its immutable memtables after it.
    pub immutable_count: u32,
    /// Its L0 tables after it.
    pub l0_count: u32,
    /// What its compactions have before them after it.
    pub pending_compaction_bytes: u64,
    /// The options of the same names.
    pub limits: StallLimits,
}

/// How a tree changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is there, or was there when the database was opened.
    #[default]
    Opened,
    /// Its memtable became immutable.
    Sealed {
        /// The memtable's charged bytes.
        bytes: u64,
    },
    /// An immutable memtable of it is in a table.
    Flushed {
        /// The memtable's charged bytes.
        bytes: u64,
        /// The table's bytes; 0 where nothing was left to write.
        table_bytes: u64,
        /// How long the flush took.
        elapsed_ns: Nanos,
    },
    /// A compaction of it is installed.
    Compacted {
        /// Bytes of the input tables of L0.
        l0_input_bytes: u64,
        /// Bytes of all input tables.
        input_bytes: u64,
        /// Bytes written; 0 for a move.
        output_bytes: u64,
        /// How long it took.
        elapsed_ns: Nanos,
    },
    /// It is gone, or a job of it failed for good: it is to hold up no other tree's writes. Told at
    /// least once; the counts are then 0.
    Dropped,
}

/// What all of a database's background work has before it, as a stall policy sees it that shares
/// the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadView {
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// Bytes that all memtables may hold together.
    pub budget_bytes: u64,
    /// Reserved, mutable and immutable bytes.
    pub used_bytes: u64,
    /// Of the immutable bytes, those that running flushes have written to their tables.
    pub spooled_bytes: u64,
    /// Bytes of flushed memtables that are kept.
    pub history_bytes: u64,
    /// What compactions of all trees have before them.
    pub pending_compaction_sum_bytes: u64,
}

/// Shares of the device, where the log and users' reads have 1000 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoShares {
    /// Of flushes.
    pub flush: u32,
    /// Of compactions.
    pub compaction: u32,
}

/// Why a write waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StallCause {
    /// Too many immutable memtables of the tree.
    Memtables,
    /// Too many L0 tables of the tree, or too many bytes that its compactions have before them.
    L0,
    /// The memtables of all trees fill the budget.
    Budget,
    /// The WAL is as large as it may be.
    Wal,
    /// The disk is full.
    DiskFull,
}

impl StallCause {
    /// Every cause, in the order of results.
    pub const ALL: [Self; 5] = [Self::Memtables, Self::L0, Self::Budget, Self::Wal, Self::DiskFull];

    /// The cause's place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        match self {
            Self::Memtables => 0,
            Self::L0 => 1,
            Self::Budget => 2,
            Self::Wal => 3,
            Self::DiskFull => 4,
        }
    }

    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memtables => "memtables",
            Self::L0 => "l0",
            Self::Budget => "budget",
            Self::Wal => "wal",
            Self::DiskFull => "disk_full",
        }
    }
}

/// A stall policy's answer to a write.
///
/// `by` is the tree that causes it where the cause is one tree's; for the causes that are all
/// trees' the engine finds who is to blame, and `by` says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Admit,
    /// Wait this long, then ask again with `delayed_ns` raised by it.
    Delay {
        /// How long, in nanoseconds; above 0.
        delay_ns: Nanos,
        /// Why.
        cause: StallCause,
        /// Whose state asks for it.
        by: TreeId,
    },
    /// Wait until what causes it ends, then ask again.
    Stop {
        /// Why.
        cause: StallCause,
        /// Whose state asks for it.
        by: TreeId,
    },
}

/// Levels of a tree, L0 included.
pub const LEVEL_COUNT: u32 = 7;

/// One table, as a compaction policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFacts {
    /// Which table.
    pub table: TableId,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its entries, tombstones included.
    pub entries: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// When this process first saw the oldest of them, in this table or in one that it was made
    /// from; 0 when it has none.
    pub tombstones_since_ns: Nanos,
    /// Its largest sequence number.
    pub max_seq: SeqNo,
    /// Its smallest key.
    pub smallest: Bytes,
    /// Its largest key.
    pub largest: Bytes,
    /// Whether a running compaction of this tree reads it.
    pub compacting: bool,
}

/// One tree's levels, as a compaction policy sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelsView {
    /// Which tree.
    pub tree: TreeId,
    /// The monotonic clock.
    pub now_ns: Nanos,
    /// The number of the oldest open snapshot; the largest there is when none is open.
    pub oldest_snapshot: SeqNo,
    /// Level 0 first, its tables newest first; in other levels tables are in key order and
    /// disjoint.
    pub levels: Vec<Vec<TableFacts>>,
    /// L0 tables from which they are compacted.
    pub l0_compaction_count: u32,
    /// L0 tables from which writes to the tree are delayed; 0 for no such number.
    pub l0_slowdown_count: u32,
    /// Target bytes of level 1.
    pub level_base_bytes: u64,
    /// Target bytes of a level over those of the level above it.
    pub level_ratio: u32,
    /// The bytes at which an output table is cut.
    pub table_bytes_max: u64,
}

/// What a compaction policy chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Which tree.
    pub tree: TreeId,
    /// Input tables with their level, newest data first.
    pub inputs: Vec<(u32, TableId)>,
    /// The level that takes the output.
    pub level_to: u32,
    /// The one input, of another level, changes its level and is not rewritten.
    pub trivial_move: bool,
}
