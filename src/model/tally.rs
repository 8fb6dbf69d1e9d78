//! What a model adds up while it is measured.

use forebay_engine::policy::view::StallCause;
use forebay_engine::types::{Nanos, to_u64};

use super::memory::Sealed;
use crate::number::to_f64;

/// A table below this is small.
pub const SMALL_TABLE_BYTES: u64 = 1 << 20;

/// Why a memtable was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealCause {
    /// The flush policy named its tree.
    Policy,
    /// It was as large as it may be.
    Cap,
    /// It pinned a log that was too long.
    Log,
    /// A writer waited and the policy named none.
    Override,
}

/// Sums since measuring began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Files that flushes wrote.
    pub flush_count: u64,
    /// Bytes of keys and values of each table, in ascending order.
    pub table_bytes: Vec<u64>,
    /// Charged bytes of each memtable that was flushed, in ascending order.
    pub memtable_bytes: Vec<u64>,
    /// Of the seals, those by policy, by cap, for the log and against a wedge.
    pub seal_counts: [u64; 4],
    /// User bytes admitted.
    pub user_bytes: u64,
    /// Steps admitted.
    pub step_count: u64,
    /// Time that steps waited, by cause.
    pub stall_ns: [u64; 5],
    /// How many waited, by cause.
    pub stall_count: [u64; 5],
    /// The longest wait.
    pub stall_ns_max: u64,
    /// When measuring began, and how long it lasted.
    pub begin_ns: Nanos,
    /// How long it lasted.
    pub elapsed_ns: Nanos,
    /// Most bytes that memtables held.
    pub used_bytes_max: u64,
    /// Bytes in memtables, summed over nanoseconds.
    pub used_byte_ns: u128,
    /// Of them, those above the budget.
    pub over_byte_ns: u128,
    /// Bytes in memtables of idle trees, summed over samples: idle for a fixed time, and for as
    /// long as a fill takes.
    pub idle_bytes: (u128, u128),
    /// Samples.
    pub sample_count: u64,
    /// Bytes that merges write, summed over tables.
    pub merge_bytes: f64,
    /// Decisions asked for before measuring began, then those after.
    pub decision_count: u64,
    last_ns: Nanos,
}

impl Tally {
    /// Measuring begins.
    pub(super) fn begin(now: Nanos, decisions: u64) -> Self {
        Self { begin_ns: now, last_ns: now, decision_count: decisions, ..Self::default() }
    }

    /// Memtables held this much from the last call until now.
    pub(super) fn held(&mut self, now: Nanos, used_bytes: u64, budget_bytes: u64) {
        let ns = u128::from(now.saturating_sub(self.last_ns));
        self.last_ns = self.last_ns.max(now);
        let over = used_bytes.saturating_sub(budget_bytes);
        self.used_byte_ns = self.used_byte_ns.saturating_add(u128::from(used_bytes) * ns);
        self.over_byte_ns = self.over_byte_ns.saturating_add(u128::from(over) * ns);
    }

    pub(super) fn peak(&mut self, used_bytes: u64) {
        self.used_bytes_max = self.used_bytes_max.max(used_bytes);
    }

    pub(super) fn sealed(&mut self, cause: SealCause) {
        let at = match cause {
            SealCause::Policy => 0,
            SealCause::Cap => 1,
            SealCause::Log => 2,
            SealCause::Override => 3,
        };
        if let Some(count) = self.seal_counts.get_mut(at) {
            *count = count.saturating_add(1);
        }
    }

    /// A memtable became a table of a tree with this much data.
    pub(super) fn flushed(&mut self, sealed: &Sealed, data_bytes: u64, level_ratio: u32) {
        self.table_bytes.push(sealed.user_bytes);
        self.memtable_bytes.push(sealed.charge_bytes);
        let cost = merge_cost(sealed.user_bytes, data_bytes, level_ratio);
        self.merge_bytes += cost * to_f64(sealed.user_bytes);
    }

    pub(super) fn waited(&mut self, cause: StallCause, ns: Nanos) {
        let at = cause.index();
        if let (Some(sum), Some(count)) = (self.stall_ns.get_mut(at), self.stall_count.get_mut(at))
        {
            *sum = sum.saturating_add(ns);
            *count = count.saturating_add(1);
        }
        self.stall_ns_max = self.stall_ns_max.max(ns);
    }

    pub(super) fn sample(&mut self, idle_bytes: (u64, u64)) {
        self.idle_bytes.0 = self.idle_bytes.0.saturating_add(u128::from(idle_bytes.0));
        self.idle_bytes.1 = self.idle_bytes.1.saturating_add(u128::from(idle_bytes.1));
        self.sample_count = self.sample_count.saturating_add(1);
    }

    pub(super) fn end(&mut self, now: Nanos, decisions: u64) {
        self.elapsed_ns = now.saturating_sub(self.begin_ns);
        self.decision_count = decisions.saturating_sub(self.decision_count);
        self.table_bytes.sort_unstable();
        self.memtable_bytes.sort_unstable();
    }

    /// Tables below [`SMALL_TABLE_BYTES`].
    pub fn small_table_count(&self) -> u64 {
        to_u64(self.table_bytes.partition_point(|bytes| *bytes < SMALL_TABLE_BYTES))
    }

    /// Bytes that merges write for each byte flushed, mean over bytes.
    pub fn merge_cost(&self) -> f64 {
        let flushed = self.table_bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        if flushed == 0 { 0.0 } else { self.merge_bytes / to_f64(flushed) }
    }
}

/// Bytes that leveled merges write for each byte of a table of `bytes` in a tree of `data_bytes`:
/// `T/2 x log_T(L / m)`, T the ratio of levels, L the tree's data, m the table; 0 for a table as
/// large as the data. A byte goes through as many levels as lie between the two, and each time half
/// a level's worth of T bytes is written with it on average.
///
/// # Source
///
/// C. Luo, M. Carey, "Breaking Down Memory Walls in LSM-based Storage Systems", PVLDB 14(3), 2020:
/// the write cost of a tree.
pub fn merge_cost(bytes: u64, data_bytes: u64, level_ratio: u32) -> f64 {
    if bytes == 0 || data_bytes <= bytes {
        return 0.0;
    }
    let ratio = f64::from(level_ratio.max(2));
    ratio * 0.5 * libm::log(to_f64(data_bytes) / to_f64(bytes)) / libm::log(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_costs_half_a_ratio_for_each_level_it_goes_through() {
        assert!((merge_cost(1 << 20, 1000 << 20, 10) - 15.0).abs() < 1e-9);
        assert!((merge_cost(1 << 20, 8 << 20, 2) - 3.0).abs() < 1e-9);
        assert!(merge_cost(5, 5, 10).abs() < 1e-9 && merge_cost(0, 5, 10).abs() < 1e-9);
    }

    #[test]
    fn bytes_held_are_summed_over_time_and_apart_above_the_budget() {
        let mut tally = Tally::begin(100, 0);
        tally.held(110, 50, 40);
        tally.held(110, 90, 40);
        tally.held(130, 10, 40);
        assert_eq!((tally.used_byte_ns, tally.over_byte_ns), (700, 100));
    }
}
