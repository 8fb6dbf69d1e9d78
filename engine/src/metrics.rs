//! Counters of one database: a unit in each name.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::policy::view::StallCause;

/// A counter that only grows, or a gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Raises to at least `n`.
    pub fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Live counters, shared by all tasks.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of keys and values that users wrote.
    pub user_bytes: Counter,
    /// Bytes appended to the WAL.
    pub wal_bytes: Counter,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes: Counter,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes: Counter,
    /// Bytes appended to manifests.
    pub manifest_bytes: Counter,
    /// Flushes installed.
    pub flush_count: Counter,
    /// Compactions installed, trivial moves included.
    pub compaction_count: Counter,
    /// Compactions that only changed the level of tables.
    pub trivial_move_count: Counter,
    /// Flushes and compactions that failed.
    pub job_failed_count: Counter,
    /// Syncs of the WAL.
    pub wal_sync_count: Counter,
    /// Times the engine flushed a tree that the policy did not name, or let go of a flushed
    /// memtable that it was to keep.
    pub policy_override_count: Counter,
    /// Time that writes waited, by cause.
    pub stall_ns: [Counter; 5],
    /// Writes that waited, by the cause they waited for first.
    pub stall_count: [Counter; 5],
    /// Most bytes of live WAL segments at any time.
    pub wal_retained_bytes_max: Counter,
    /// Most bytes reserved or in memtables at any time.
    pub memtable_bytes_max_seen: Counter,
}

/// A copy of the counters at one instant, with the gauges beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Bytes of keys and values that users wrote.
    pub user_bytes: u64,
    /// Bytes appended to the WAL.
    pub wal_bytes: u64,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes: u64,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes: u64,
    /// Bytes appended to manifests.
    pub manifest_bytes: u64,
    /// Flushes installed.
    pub flush_count: u64,
    /// Compactions installed, trivial moves included.
    pub compaction_count: u64,
    /// Compactions that only changed the level of tables.
    pub trivial_move_count: u64,
    /// Flushes and compactions that failed.
    pub job_failed_count: u64,
    /// Syncs of the WAL.
    pub wal_sync_count: u64,
    /// Times the engine flushed a tree that the policy did not name, or let go of a flushed
    /// memtable that it was to keep.
    pub policy_override_count: u64,
    /// Time that writes waited, by cause in the order of [`StallCause::ALL`].
    pub stall_ns: [u64; 5],
    /// Writes that waited, by first cause.
    pub stall_count: [u64; 5],
    /// Most bytes of live WAL segments at any time.
    pub wal_retained_bytes_max: u64,
    /// Most bytes reserved or in memtables at any time.
    pub memtable_bytes_max_seen: u64,
    /// Bytes of live WAL segments now.
    pub wal_retained_bytes: u64,
    /// Bytes in memtables that take writes, now.
    pub mutable_bytes: u64,
    /// Bytes in immutable memtables, now.
    pub immutable_bytes: u64,
    /// Bytes in flushed memtables that are kept, now.
    pub history_bytes: u64,
    /// Bytes reserved by admitted writes, now.
    pub reserved_bytes: u64,
    /// Immutable memtables, now.
    pub immutable_count: u64,
    /// L0 tables of all trees, now.
    pub l0_count: u64,
    /// Trees, now.
    pub tree_count: u64,
    /// Bytes that compactions would read until nothing is due in any tree, now, as the compaction
    /// policy estimates it.
    pub pending_compaction_bytes: u64,
}

impl Counters {
    /// Charges a stall to its cause.
    pub fn stalled(&self, cause: StallCause, elapsed_ns: u64) {
        if let (Some(ns), Some(count)) =
            (self.stall_ns.get(cause.index()), self.stall_count.get(cause.index()))
        {
            ns.add(elapsed_ns);
            count.add(1);
        }
    }

    /// The counters' values; gauges are left at 0.
    pub fn snapshot(&self) -> Metrics {
        Metrics {
            user_bytes: self.user_bytes.get(),
            wal_bytes: self.wal_bytes.get(),
            flush_bytes: self.flush_bytes.get(),
            compaction_bytes: self.compaction_bytes.get(),
            manifest_bytes: self.manifest_bytes.get(),
            flush_count: self.flush_count.get(),
            compaction_count: self.compaction_count.get(),
            trivial_move_count: self.trivial_move_count.get(),
            job_failed_count: self.job_failed_count.get(),
            wal_sync_count: self.wal_sync_count.get(),
            policy_override_count: self.policy_override_count.get(),
            stall_ns: self.stall_ns.each_ref().map(Counter::get),
            stall_count: self.stall_count.each_ref().map(Counter::get),
            wal_retained_bytes_max: self.wal_retained_bytes_max.get(),
            memtable_bytes_max_seen: self.memtable_bytes_max_seen.get(),
            ..Metrics::default()
        }
    }
}
