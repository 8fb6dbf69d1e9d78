//! Counters of one database: a unit in each name.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::policy::view::StallCause;
use crate::types::{BranchId, Nanos, TableId};

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
    /// Bytes appended to the WAL, re-logged ones included.
    pub wal_bytes: Counter,
    /// Of the bytes appended to the WAL, those of entries that it held before.
    pub relog_bytes: Counter,
    /// Memtables re-logged.
    pub relog_count: Counter,
    /// Branches forked.
    pub fork_count: Counter,
    /// Bytes that forks copied: of entries in memory, and of tables where branches share trees.
    pub fork_copied_bytes: Counter,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes: Counter,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes: Counter,
    /// Bytes appended to manifests.
    pub manifest_bytes: Counter,
    /// Memtables flushed and installed.
    pub flush_count: Counter,
    /// Flushes installed; one of them may have written many memtables.
    pub flush_job_count: Counter,
    /// Of these, those that wrote a file with several tables.
    pub pack_count: Counter,
    /// Tables in such files.
    pub packed_table_count: Counter,
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
    /// Who waited, for what, on whose account.
    pub stalls: StallLedger,
    /// Most bytes of live WAL segments at any time.
    pub wal_retained_bytes_max: Counter,
    /// Most bytes reserved or in memtables at any time.
    pub memtable_bytes_max_seen: Counter,
}

/// Bytes of the tables that branches reach; one that several reach counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableBytes {
    /// Of any branch.
    pub live: u64,
    /// Of trees that hold a `main` branch. The others are there for forks alone.
    pub main: u64,
}

impl TableBytes {
    /// Adds up tables by file and offset, each with its length and whether a `main` branch's tree
    /// holds it.
    pub(crate) fn of(mut tables: Vec<(TableId, u64, bool)>) -> Self {
        // Of one table's entries that of a `main` branch comes first.
        tables.sort_unstable_by_key(|(id, _, is_main)| (*id, !is_main));
        tables.dedup_by_key(|(id, ..)| *id);
        let sum = |tables: &mut dyn Iterator<Item = &(TableId, u64, bool)>| {
            tables.fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes))
        };
        let main = sum(&mut tables.iter().filter(|(.., is_main)| *is_main));
        Self { live: sum(&mut tables.iter()), main }
    }
}

/// What writes of one branch waited, and what others waited on its account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BranchStalls {
    /// Time that its writes waited.
    pub waited_ns: Nanos,
    /// Time that writes, its own ones included, waited on its account.
    pub caused_ns: Nanos,
}

#[derive(Debug, Default)]
struct StallTotals {
    by_cause_ns: [Nanos; 5],
    count: [u64; 5],
    branches: BTreeMap<BranchId, BranchStalls>,
    dropped: BranchStalls,
}

/// Every stall, charged to its cause, to the branch that waited and to the branch that caused it.
///
/// All three under one lock, so that at any instant the sums over branches, with the remainder of
/// the dropped ones, are equal to the sum over causes: waited and caused alike.
#[derive(Debug, Default)]
pub struct StallLedger {
    totals: Mutex<StallTotals>,
}

impl StallLedger {
    /// Charges a wait for one cause. `is_first` says whether it is the write's first. What a branch
    /// waited or caused that is not live goes to the remainder.
    pub fn charge(
        &self,
        (cause, is_first): (StallCause, bool),
        (waited, caused): (BranchId, BranchId),
        elapsed_ns: Nanos,
        is_live: impl Fn(BranchId) -> bool,
    ) {
        let mut guard = self.totals.lock();
        let totals = &mut *guard;
        if let (Some(ns), Some(count)) =
            (totals.by_cause_ns.get_mut(cause.index()), totals.count.get_mut(cause.index()))
        {
            *ns += elapsed_ns;
            *count += u64::from(is_first);
        }
        let mut of = |branch: BranchId, f: &dyn Fn(&mut BranchStalls)| {
            if is_live(branch) {
                f(totals.branches.entry(branch).or_default());
            } else {
                f(&mut totals.dropped);
            }
        };
        of(waited, &|stalls| stalls.waited_ns += elapsed_ns);
        of(caused, &|stalls| stalls.caused_ns += elapsed_ns);
    }

    /// A branch is not live from here on: what it has goes to the remainder.
    pub fn drop_branch(&self, branch: BranchId) {
        let mut totals = self.totals.lock();
        if let Some(stalls) = totals.branches.remove(&branch) {
            totals.dropped.waited_ns += stalls.waited_ns;
            totals.dropped.caused_ns += stalls.caused_ns;
        }
    }

    /// Time and waits by cause, and the remainder of dropped branches.
    fn totals(&self) -> ([Nanos; 5], [u64; 5], BranchStalls) {
        let totals = self.totals.lock();
        (totals.by_cause_ns, totals.count, totals.dropped)
    }

    /// What a live branch waited and caused.
    pub fn of(&self, branch: BranchId) -> BranchStalls {
        self.totals.lock().branches.get(&branch).copied().unwrap_or_default()
    }
}

/// A copy of the counters at one instant, with the gauges beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Bytes of keys and values that users wrote.
    pub user_bytes: u64,
    /// Bytes appended to the WAL, re-logged ones included.
    pub wal_bytes: u64,
    /// Of the bytes appended to the WAL, those of entries that it held before.
    pub relog_bytes: u64,
    /// Memtables re-logged: a flush less each, and an old segment that can go.
    pub relog_count: u64,
    /// Branches forked.
    pub fork_count: u64,
    /// Bytes that forks copied: of entries in memory, and of tables where branches share trees.
    pub fork_copied_bytes: u64,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes: u64,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes: u64,
    /// Bytes appended to manifests.
    pub manifest_bytes: u64,
    /// Memtables flushed and installed.
    pub flush_count: u64,
    /// Flushes installed; one of them may have written many memtables.
    pub flush_job_count: u64,
    /// Of these, those that wrote a file with several tables.
    pub pack_count: u64,
    /// Tables in such files.
    pub packed_table_count: u64,
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
    /// Time that writes waited, by cause in the order of [`StallCause::ALL`]; of waits that ended.
    pub stall_ns: [u64; 5],
    /// Writes that waited, by first cause.
    pub stall_count: [u64; 5],
    /// What tenants waited and caused that were dropped since: with it, the sums over tenants are
    /// equal to the sum over causes.
    pub stall_dropped: BranchStalls,
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
    /// The counters' values; gauges are left at 0.
    pub fn snapshot(&self) -> Metrics {
        let (stall_ns, stall_count, stall_dropped) = self.stalls.totals();
        Metrics {
            user_bytes: self.user_bytes.get(),
            wal_bytes: self.wal_bytes.get(),
            relog_bytes: self.relog_bytes.get(),
            relog_count: self.relog_count.get(),
            fork_count: self.fork_count.get(),
            fork_copied_bytes: self.fork_copied_bytes.get(),
            flush_bytes: self.flush_bytes.get(),
            compaction_bytes: self.compaction_bytes.get(),
            manifest_bytes: self.manifest_bytes.get(),
            flush_count: self.flush_count.get(),
            flush_job_count: self.flush_job_count.get(),
            pack_count: self.pack_count.get(),
            packed_table_count: self.packed_table_count.get(),
            compaction_count: self.compaction_count.get(),
            trivial_move_count: self.trivial_move_count.get(),
            job_failed_count: self.job_failed_count.get(),
            wal_sync_count: self.wal_sync_count.get(),
            policy_override_count: self.policy_override_count.get(),
            stall_ns,
            stall_count,
            stall_dropped,
            wal_retained_bytes_max: self.wal_retained_bytes_max.get(),
            memtable_bytes_max_seen: self.memtable_bytes_max_seen.get(),
            ..Metrics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dropped_branch_has_and_gets_goes_to_the_remainder() {
        let ledger = StallLedger::default();
        let (a, b) = (BranchId(1), BranchId(2));
        ledger.charge((StallCause::L0, true), (a, b), 5, |_| true);
        ledger.charge((StallCause::Wal, false), (a, a), 7, |_| true);
        assert_eq!(ledger.of(a), BranchStalls { waited_ns: 12, caused_ns: 7 });
        ledger.drop_branch(b);
        assert_eq!(ledger.of(b), BranchStalls::default());
        // A wait that began before the drop.
        ledger.charge((StallCause::L0, true), (b, a), 11, |id| id != b);
        let (by_cause, count, dropped) = ledger.totals();
        assert_eq!((by_cause, count), ([0, 16, 0, 7, 0], [0, 2, 0, 0, 0]));
        assert_eq!(dropped, BranchStalls { waited_ns: 11, caused_ns: 5 });
        assert_eq!(ledger.of(a), BranchStalls { waited_ns: 12, caused_ns: 18 });
    }

    #[test]
    fn a_table_counts_once_and_for_main_where_main_has_it() {
        let table = |file, is_main| (TableId { file, offset: 0 }, 10 * file, is_main);
        let tables = vec![table(1, false), table(2, true), table(1, true), table(3, false)];
        assert_eq!(TableBytes::of(tables), TableBytes { live: 60, main: 30 });
    }
}
