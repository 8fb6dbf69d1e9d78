//! `ScyllaDB`'s controllers: background work gets the share of the device that its backlog needs.
//!
//! Writers are never delayed. Flushes get more shares the more of the memory for dirty data is
//! unspooled, compactions the larger their backlog is, both along lines between fixed points, so
//! that work is done just fast enough and foreground work has the rest. A write that would take
//! unspooled memory above its limit waits in line.
//!
//! # Source
//!
//! `backlog_controller` and its flush and compaction controllers, and `dirty_memory_manager`, in
//! scylladb/scylladb (commit f4a4091). There the threshold on real dirty memory is half of a
//! shard's memory; it is the budget here, and a shard's memory is two budgets. Departures: the
//! backlog is what the compaction policy estimates, not Scylla's own sum; the stops of `hard` on
//! memtables, L0 and WAL hold. A flush policy that waits for more than `hard_ratio` of the budget
//! flushes too late for it: the engine then picks a flush itself whenever a writer stops.

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, IoShares, LoadView, StallCause, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};
use crate::types::Nanos;

const HARD: ParamInfo = ParamInfo {
    name: "hard_ratio",
    min: 0.5,
    max: 1.0,
    default: 0.5,
    about: "the part of the budget that unspooled memory may fill",
};

const SOFT: ParamInfo = ParamInfo {
    name: "soft_ratio",
    min: 0.01,
    max: 0.99,
    default: 0.6,
    about: "the part of that at which flushes get more than a few shares",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "scylla",
        id: "S7",
        source: "ScyllaDB's controllers",
        params: &[HARD, SOFT],
        known_defects: &[],
    },
    build: |params| Box::new(Scylla::new(params)),
};

const COMPACTION_INTERVAL_NS: Nanos = 250_000_000;

/// A fraction's parts: inputs of controllers are in millionths.
const ONE: u64 = 1_000_000;

/// Backlog over memory, in millionths, and shares.
const COMPACTION_POINTS: [(u64, u64); 3] = [(0, 50), (1_500_000, 100), (30_000_000, 1000)];

#[derive(Clone, Debug)]
struct Scylla {
    hard: Ratio,
    /// Unspooled over the hard limit, in millionths, and shares.
    flush_points: [(u64, u64); 4],
    compaction_at_ns: Nanos,
    compaction_shares: u32,
    flush_shares: u32,
}

impl Scylla {
    fn new(params: &Params<'_>) -> Self {
        let soft = params.ratio(SOFT.name).of(ONE);
        Self {
            hard: params.ratio(HARD.name),
            flush_points: [(0, 0), (soft, 10), ((ONE + soft) >> 1, 200), (ONE, 1000)],
            compaction_at_ns: 0,
            compaction_shares: 0,
            flush_shares: 0,
        }
    }
}

/// The line through the points at `input`; flat behind the last one.
fn shares_at(points: &[(u64, u64)], input: u64) -> u32 {
    let mut shares = points.last().map_or(0, |(_, shares)| *shares);
    for pair in points.windows(2) {
        if let [(x0, y0), (x1, y1)] = pair
            && input < *x1
        {
            let (dx, dy) = (u128::from(x1 - x0).max(1), u128::from(y1.saturating_sub(*y0)));
            let risen = (u128::from(input.saturating_sub(*x0)) * dy).div_euclid(dx);
            shares = y0.saturating_add(u64::try_from(risen).unwrap_or(u64::MAX));
            break;
        }
    }
    u32::try_from(shares.max(1)).unwrap_or(u32::MAX)
}

/// Dirty memory that no flush has written. What is kept of flushed memtables is not dirty.
fn unspooled(used: u64, (spooled, history): (u64, u64)) -> u64 {
    used.saturating_sub(spooled.saturating_add(history))
}

fn millionths(part: u64, whole: u64) -> u64 {
    let ratio = (u128::from(part) * u128::from(ONE)).div_euclid(u128::from(whole.max(1)));
    u64::try_from(ratio).unwrap_or(u64::MAX)
}

impl StallPolicy for Scylla {
    fn decide(&mut self, view: &WriteView) -> Admission {
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        let unspooled = unspooled(view.used_bytes, (view.spooled_bytes, view.history_bytes));
        // What finds memory empty goes on, whatever its size.
        if unspooled > 0
            && unspooled.saturating_add(view.write_bytes) > self.hard.of(view.budget_bytes)
        {
            return Admission::Stop { cause: StallCause::Budget, by: view.tree };
        }
        Admission::Admit
    }

    fn shares(&mut self, view: &LoadView) -> Option<IoShares> {
        let unspooled = unspooled(view.used_bytes, (view.spooled_bytes, view.history_bytes));
        let flush =
            shares_at(&self.flush_points, millionths(unspooled, self.hard.of(view.budget_bytes)));
        let mut compaction = self.compaction_shares;
        if view.now_ns >= self.compaction_at_ns {
            self.compaction_at_ns = view.now_ns.saturating_add(COMPACTION_INTERVAL_NS);
            let memory = view.budget_bytes.saturating_mul(2);
            let backlog = millionths(view.pending_compaction_sum_bytes, memory);
            compaction = shares_at(&COMPACTION_POINTS, backlog);
        }
        if (flush, compaction) == (self.flush_shares, self.compaction_shares) {
            return None;
        }
        (self.flush_shares, self.compaction_shares) = (flush, compaction);
        Some(IoShares { flush, compaction })
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
