//! TiKV's flow control: chance turns writes away by compaction debt, a limiter holds back the flow.
//!
//! Debt is looked at on a logarithmic scale and smoothed; the part of the way from the soft to the
//! hard limit is the part of writes that are dropped. Too many L0 tables or memtables of a tree
//! throttle the flow of all writes, beginning at what was written lately. One tree at a time
//! decides: the one that is worst.
//!
//! # Source
//!
//! `FlowChecker` in tikv/tikv `src/storage/txn/flow_controller/singleton_flow_controller.rs`
//! (commit 8e96471). Departures: a dropped write is `TiDB`'s client trying again after a back-off
//! that doubles, so it is a delay here, and one that was dropped for long enough goes on; nothing
//! is exempt at the start; averages are over a number of changes, however old; the stops of `hard`
//! hold, where TiKV switches RocksDB's off; logarithms and ratios are fixed-point.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, ChangeKind, StallCause, TreeChange, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{Nanos, TreeId, to_u64};

const BACKOFF: ParamInfo = ParamInfo {
    name: "backoff_ns",
    min: 1.0,
    max: 1e10,
    default: 2e9,
    about: "how long a client waits after its write was first dropped; twice as long each time",
};

const DELAY_MAX: ParamInfo = ParamInfo {
    name: "delay_max_ns",
    min: 1.0,
    max: 6e10,
    default: 1e10,
    about: "how long a write is dropped at most",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "tikv",
        id: "S4",
        source: "TiKV's flow control",
        params: &[BACKOFF, DELAY_MAX],
        known_defects: &[],
    },
    build: |params| Box::new(Tikv::new(params)),
};

const MIB: u64 = 1 << 20;
const RATE_MIN: u64 = 16 * 1024;
const RATE_MAX: u64 = 200 * MIB;
const TICK_NS: Nanos = 50_000_000;
const NS_PER_S: u128 = 1_000_000_000;

/// Drop ratios are in millionths.
const ONE: u64 = 1_000_000;
const FIRST_RATIO_MAX: u64 = 10_000;

const FLOWS: usize = 30;
const MEMTABLE_COUNTS: usize = 20;
const L0_COUNTS: usize = 60;
const PENDINGS: usize = 60;

/// Another tree takes over the limiter when its L0 is larger by more than this.
const L0_LEAD: u64 = 4;

/// Binary places behind the point of a logarithm.
const LOG_PLACES: u32 = 16;

/// The logarithm to base 2, with [`LOG_PLACES`] binary places; 0 of 0.
fn log2(n: u64) -> u64 {
    let Some(whole) = n.checked_ilog2() else { return 0 };
    // The mantissa as 1.63, squared for each place.
    let mut mantissa = u128::from(n) << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..LOG_PLACES {
        mantissa = (mantissa * mantissa) >> 63;
        let bit = mantissa >> 64;
        mantissa >>= bit;
        log = (log << 1) | u64::from(bit == 1);
    }
    log
}

/// The last few values of something.
#[derive(Clone, Debug, Default)]
struct Recent(VecDeque<u64>);

impl Recent {
    fn push(&mut self, value: u64, cap: usize) {
        if self.0.len() >= cap {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn last(&self) -> u64 {
        self.0.back().copied().unwrap_or(0)
    }

    fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    fn average(&self) -> u64 {
        self.sum().checked_div(to_u64(self.0.len())).unwrap_or(0)
    }

    /// The value that nine of ten do not exceed; 0 of nothing.
    fn percentile_90(&self) -> u64 {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = (sorted.len() * 9).div_ceil(10).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(0)
    }
}

/// What is known of a tree.
#[derive(Clone, Debug, Default)]
struct Checker {
    memtables: Recent,
    l0: Recent,
    /// Logarithms.
    pending: Recent,
    /// Steps of 1 MiB/s that memtables took off the limit and owe.
    memtable_debt: i64,
    /// Memtables began the throttling.
    memtable_init: bool,
}

/// Something of each tree, and whose is largest.
#[derive(Clone, Debug, Default)]
struct Ranking {
    of: BTreeMap<TreeId, u64>,
    order: BTreeSet<(u64, TreeId)>,
}

impl Ranking {
    fn set(&mut self, tree: TreeId, value: u64) {
        self.remove(tree);
        if value > 0 {
            self.of.insert(tree, value);
            self.order.insert((value, tree));
        }
    }

    fn remove(&mut self, tree: TreeId) {
        if let Some(value) = self.of.remove(&tree) {
            self.order.remove(&(value, tree));
        }
    }

    fn largest(&self) -> Option<(u64, TreeId)> {
        self.order.last().copied()
    }

    fn is_largest(&self, value: u64) -> bool {
        self.largest().is_none_or(|(largest, _)| value >= largest)
    }
}

#[derive(Clone, Debug)]
struct Tikv {
    backoff_ns: Nanos,
    delay_max_ns: Nanos,
    trees: BTreeMap<TreeId, Checker>,
    most_memtables: Ranking,
    most_pending: Ranking,
    drop_ratio: u64,
    /// The limiter: bytes a second for all writes, and when what was let through is paid.
    rate: Option<u64>,
    paid_at_ns: Nanos,
    /// Who throttles, and why.
    throttled_by: Option<(TreeId, StallCause)>,
    last_rate: u64,
    /// Bytes let through since a time, and the flows before it.
    tick: (Nanos, u64),
    flows: Recent,
}

impl Tikv {
    fn new(params: &Params<'_>) -> Self {
        Self {
            backoff_ns: params.whole(BACKOFF.name),
            delay_max_ns: params.whole(DELAY_MAX.name),
            trees: BTreeMap::new(),
            most_memtables: Ranking::default(),
            most_pending: Ranking::default(),
            drop_ratio: 0,
            rate: None,
            paid_at_ns: 0,
            throttled_by: None,
            last_rate: 0,
            tick: (0, 0),
            flows: Recent::default(),
        }
    }

    /// Ends the tick where it is over; one without a write says nothing of what writers want.
    fn roll(&mut self, now: Nanos) {
        let (since, bytes) = self.tick;
        let elapsed = now.saturating_sub(since);
        if elapsed < TICK_NS {
            return;
        }
        if bytes > 0 {
            let flow = (u128::from(bytes) * NS_PER_S).div_euclid(u128::from(elapsed));
            self.flows.push(u64::try_from(flow).unwrap_or(u64::MAX), FLOWS);
        }
        self.tick = (now, 0);
    }

    fn limit(&mut self, rate: Option<u64>) {
        self.rate = rate.map(|rate| rate.max(RATE_MIN)).filter(|rate| *rate <= RATE_MAX);
        if self.rate.is_none() {
            self.throttled_by = None;
        }
    }

    fn on_pending(&mut self, change: &TreeChange) {
        let value = log2(change.pending_compaction_bytes);
        let checker = self.trees.entry(change.tree).or_default();
        checker.pending.push(value, PENDINGS);
        let average = checker.pending.average();
        self.most_pending.set(change.tree, value);
        if !self.most_pending.is_largest(value) {
            return;
        }
        let limits = &change.limits;
        let soft = log2(limits.pending_compaction_slowdown_bytes);
        let hard = log2(limits.pending_compaction_stop_bytes);
        if soft == 0 || hard <= soft || average < soft {
            self.drop_ratio = 0;
            return;
        }
        let wanted = ((average - soft) * ONE).div_euclid(hard - soft);
        self.drop_ratio = match self.drop_ratio {
            0 => wanted.min(FIRST_RATIO_MAX),
            old => (old * 6 + wanted * 4).div_euclid(10),
        }
        .min(ONE);
    }

    fn on_memtables(&mut self, change: &TreeChange) {
        let (tree, count) = (change.tree, u64::from(change.immutable_count));
        let threshold = u64::from(change.limits.memtable_slowdown_count);
        let wanted = self.flows.percentile_90();
        let checker = self.trees.entry(tree).or_default();
        let before = checker.memtables.last();
        checker.memtables.push(count, MEMTABLE_COUNTS);
        self.most_memtables.set(tree, count);
        if !self.most_memtables.is_largest(count) {
            return;
        }
        let should = checker.memtables.sum() > threshold * to_u64(checker.memtables.0.len());
        let rate = match self.rate {
            None if should && wanted > 0 => {
                checker.memtable_init = true;
                self.throttled_by = Some((tree, StallCause::Memtables));
                Some(wanted)
            }
            None => None,
            Some(_) if (!should || count < threshold) && checker.memtable_init => {
                checker.memtable_init = false;
                None
            }
            Some(rate) if !should || count < threshold => {
                let debt = core::mem::take(&mut checker.memtable_debt);
                Some(stepped(rate, debt))
            }
            Some(rate) => match count.cmp(&before) {
                core::cmp::Ordering::Greater => {
                    checker.memtable_debt = checker.memtable_debt.saturating_add(1);
                    Some(stepped(rate, -1))
                }
                core::cmp::Ordering::Less => {
                    checker.memtable_debt = checker.memtable_debt.saturating_sub(1);
                    Some(stepped(rate, 1))
                }
                core::cmp::Ordering::Equal => Some(rate),
            },
        };
        self.limit(rate);
    }

    fn on_l0(&mut self, change: &TreeChange) {
        let (tree, count) = (change.tree, u64::from(change.l0_count));
        self.trees.entry(tree).or_default().l0.push(count, L0_COUNTS);
        if let Some((holder, _)) = self.throttled_by.filter(|(holder, _)| *holder != tree) {
            // Not back and forth: only to a tree that is much worse.
            let of_holder = self.trees.get(&holder);
            let most = of_holder.and_then(|c| c.l0.0.iter().max().copied()).unwrap_or(0);
            if count <= most.saturating_add(L0_LEAD) {
                return;
            }
            self.throttled_by = Some((tree, StallCause::L0));
        }
        if self.trees.get(&tree).is_some_and(|checker| checker.memtable_init) {
            return;
        }
        let should = count > u64::from(change.limits.l0_slowdown_count);
        let rate = match self.rate {
            None if should => {
                self.throttled_by = Some((tree, StallCause::L0));
                let first = match self.last_rate {
                    0 => self.flows.percentile_90(),
                    last => last,
                };
                (first > 0).then_some(first)
            }
            None => None,
            Some(rate) if should => Some(rate.saturating_mul(4).div_euclid(5)),
            Some(rate) => {
                self.last_rate = rate.saturating_mul(5).div_euclid(4);
                None
            }
        };
        self.limit(rate);
    }

    fn forget(&mut self, tree: TreeId) {
        self.trees.remove(&tree);
        self.most_memtables.remove(tree);
        if self.most_pending.largest().is_some_and(|(_, largest)| largest == tree) {
            self.drop_ratio = 0;
        }
        self.most_pending.remove(tree);
        if self.throttled_by.is_some_and(|(holder, _)| holder == tree) {
            self.limit(None);
        }
    }
}

/// A rate some steps of 1 MiB/s higher or lower.
fn stepped(rate: u64, steps: i64) -> u64 {
    let bytes = steps.unsigned_abs().saturating_mul(MIB);
    if steps < 0 { rate.saturating_sub(bytes) } else { rate.saturating_add(bytes) }
}

impl StallPolicy for Tikv {
    fn decide(&mut self, view: &WriteView) -> Admission {
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        self.roll(view.now_ns);
        let left = self.delay_max_ns.saturating_sub(view.delayed_ns);
        let is_dropped =
            u128::from(view.draw) * u128::from(ONE) < u128::from(self.drop_ratio) << 64;
        if left > 0 && is_dropped {
            let delay_ns = self.backoff_ns.max(view.delayed_ns).min(left);
            let by = self.most_pending.largest().map_or(view.tree, |(_, tree)| tree);
            return Admission::Delay { delay_ns, cause: StallCause::L0, by };
        }
        let wait_ns = self.paid_at_ns.saturating_sub(view.now_ns);
        if view.delayed_ns == 0 {
            if let Some(rate) = self.rate {
                let cost = (u128::from(view.tree_bytes) * NS_PER_S).div_euclid(u128::from(rate));
                let cost = Nanos::try_from(cost).unwrap_or(Nanos::MAX);
                self.paid_at_ns = self.paid_at_ns.max(view.now_ns).saturating_add(cost);
                self.tick.1 = self.tick.1.saturating_add(view.tree_bytes);
                if wait_ns > 0 {
                    let (by, cause) = self.throttled_by.unwrap_or((view.tree, StallCause::L0));
                    return Admission::Delay { delay_ns: wait_ns, cause, by };
                }
                return Admission::Admit;
            }
            self.paid_at_ns = 0;
            self.tick.1 = self.tick.1.saturating_add(view.tree_bytes);
        }
        Admission::Admit
    }

    fn observe(&mut self, change: &TreeChange) -> bool {
        let was_limited = self.rate.is_some();
        self.roll(change.now_ns);
        match change.kind {
            ChangeKind::Opened | ChangeKind::Sealed { .. } => {}
            ChangeKind::Flushed { .. } => {
                self.on_memtables(change);
                self.on_l0(change);
            }
            ChangeKind::Compacted { l0_input_bytes, .. } => {
                if l0_input_bytes > 0 {
                    self.on_l0(change);
                }
                self.on_pending(change);
            }
            ChangeKind::Dropped => self.forget(change.tree),
        }
        was_limited && self.rate.is_none()
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_the_last_place() {
        assert_eq!((log2(0), log2(1), log2(2), log2(u64::MAX) >> LOG_PLACES), (0, 0, 1 << 16, 63));
        // Logarithms times 65536, rounded down.
        for (n, log) in [(3, 103_872), (5, 152_169), (1000, 653_117), (64 << 30, 36 << 16)] {
            assert!(log2(n).abs_diff(log) <= 1, "{n}: {}", log2(n));
        }
    }
}
