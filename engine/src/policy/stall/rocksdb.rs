//! RocksDB's write controller: stop conditions per tree, one delayed write rate for the database.
//!
//! Each change of a tree decides anew whether it stops, delays or leaves writes alone, and moves
//! the delayed write rate: down while debt grows, up while it shrinks, further down near a stop.
//! Delayed writes pay from a credit that is refilled each millisecond. One controller serves all
//! trees: one tree's state throttles and stops everybody, as one column family's does.
//!
//! # Source
//!
//! `GetWriteStallConditionAndCause`, `SetupDelay` and `RecalculateWriteStallConditions` in
//! facebook/rocksdb `db/column_family.cc`, `WriteController` in `db/write_controller.cc` (commit
//! 1dfa729). Departures: the soft limit on memtables is an option whose default is RocksDB's rule,
//! one below the stop; `min_write_buffer_number_to_merge` is 1; the stops of `hard` on WAL and
//! budget hold, and come before a delay; times are nanoseconds; ratios are integers.

use std::collections::BTreeMap;

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, ChangeKind, StallCause, StallLimits, TreeChange, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{Nanos, TreeId};

const RATE_MAX: ParamInfo = ParamInfo {
    name: "delayed_write_bytes_per_s",
    min: 1.0,
    max: 1e15,
    default: 16_777_216.0,
    about: "the rate of delayed writes at first and at most",
};

const PER_TENANT: ParamInfo = ParamInfo {
    name: "per_tenant",
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "1 for a controller of its own for each tree",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "rocksdb",
        id: "S3",
        source: "RocksDB's write controller",
        params: &[RATE_MAX, PER_TENANT],
        known_defects: &[],
    },
    build: |params| Box::new(RocksDb::new(params)),
};

/// No adjustment makes the rate smaller.
const RATE_MIN: u64 = 16 * 1024;

const REFILL_NS: Nanos = 1_000_000;

const NS_PER_S: u128 = 1_000_000_000;

/// What a tree's state asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Normal,
    Delay { cause: StallCause, near_stop: bool },
    Stop(StallCause),
}

/// The facts that a condition follows from.
struct Facts {
    immutable_count: u32,
    l0_count: u32,
    pending_bytes: u64,
    limits: StallLimits,
}

impl Facts {
    fn condition(&self) -> Condition {
        let limits = &self.limits;
        let (soft, hard) =
            (limits.pending_compaction_slowdown_bytes, limits.pending_compaction_stop_bytes);
        if self.immutable_count >= limits.memtable_stop_count {
            Condition::Stop(StallCause::Memtables)
        } else if self.l0_count >= limits.l0_stop_count || (hard > 0 && self.pending_bytes >= hard)
        {
            Condition::Stop(StallCause::L0)
        } else if limits.memtable_stop_count > 3
            && self.immutable_count >= limits.memtable_slowdown_count.max(2)
        {
            Condition::Delay { cause: StallCause::Memtables, near_stop: false }
        } else if self.l0_count >= limits.l0_slowdown_count {
            let near_stop = self.l0_count.saturating_add(2) >= limits.l0_stop_count;
            Condition::Delay { cause: StallCause::L0, near_stop }
        } else if soft > 0 && self.pending_bytes >= soft {
            let gap = u128::from(hard.saturating_sub(soft));
            let above = u128::from(self.pending_bytes - soft);
            Condition::Delay { cause: StallCause::L0, near_stop: hard > 0 && above * 4 > gap * 3 }
        } else {
            Condition::Normal
        }
    }
}

impl From<&WriteView> for Facts {
    fn from(view: &WriteView) -> Self {
        Self {
            immutable_count: view.immutable_count,
            l0_count: view.l0_count,
            pending_bytes: view.pending_compaction_bytes,
            limits: view.limits,
        }
    }
}

impl From<&TreeChange> for Facts {
    fn from(change: &TreeChange) -> Self {
        Self {
            immutable_count: change.immutable_count,
            l0_count: change.l0_count,
            pending_bytes: change.pending_compaction_bytes,
            limits: change.limits,
        }
    }
}

#[derive(Clone, Debug)]
struct Controller {
    rate: u64,
    credit: u64,
    /// 0 until the first delayed write.
    next_refill_ns: Nanos,
    stopped: BTreeMap<TreeId, StallCause>,
    delayed: BTreeMap<TreeId, StallCause>,
}

impl Controller {
    fn new(rate: u64) -> Self {
        Self {
            rate,
            credit: 0,
            next_refill_ns: 0,
            stopped: BTreeMap::new(),
            delayed: BTreeMap::new(),
        }
    }

    /// The token that a tree holds changes to what its condition asks for.
    fn recalculate(
        &mut self,
        tree: TreeId,
        condition: Condition,
        (pending_before, pending): (u64, u64),
        rate_max: u64,
    ) {
        let (was_stopped, needed_delay) = (!self.stopped.is_empty(), !self.delayed.is_empty());
        let scaled = |rate: u64, percent: u128| {
            let scaled = (u128::from(rate) * percent).div_euclid(100);
            u64::try_from(scaled).unwrap_or(u64::MAX).min(rate_max)
        };
        match condition {
            Condition::Stop(cause) => {
                self.delayed.remove(&tree);
                self.stopped.insert(tree, cause);
            }
            Condition::Delay { cause, near_stop } => {
                if !needed_delay {
                    (self.credit, self.next_refill_ns) = (0, 0);
                } else if rate_max > RATE_MIN {
                    if was_stopped || near_stop {
                        self.rate = scaled(self.rate, 60).max(RATE_MIN);
                    } else if pending_before > 0 && pending_before <= pending {
                        self.rate = scaled(self.rate, 80).max(RATE_MIN);
                    } else if pending_before > pending {
                        self.rate = scaled(self.rate, 125);
                    }
                }
                self.stopped.remove(&tree);
                self.delayed.insert(tree, cause);
            }
            Condition::Normal => {
                if needed_delay {
                    self.rate = scaled(self.rate, 140).max(1);
                }
                self.stopped.remove(&tree);
                self.delayed.remove(&tree);
            }
        }
    }

    /// How long a delayed write of these bytes waits; 0 where the credit covers them.
    fn delay_ns(&mut self, now: Nanos, bytes: u64) -> Nanos {
        let rate = u128::from(self.rate.max(1));
        if self.credit >= bytes {
            self.credit -= bytes;
            return 0;
        }
        if self.next_refill_ns == 0 {
            self.next_refill_ns = now;
        }
        if self.next_refill_ns <= now {
            let elapsed = u128::from((now - self.next_refill_ns).saturating_add(REFILL_NS));
            let refill = elapsed.saturating_mul(rate).div_ceil(NS_PER_S);
            self.credit = self.credit.saturating_add(u64::try_from(refill).unwrap_or(u64::MAX));
            self.next_refill_ns = now.saturating_add(REFILL_NS);
            if self.credit >= bytes {
                self.credit -= bytes;
                return 0;
            }
        }
        let over = u128::from(bytes - self.credit);
        let needed = over.saturating_mul(NS_PER_S).div_euclid(rate);
        self.credit = 0;
        self.next_refill_ns =
            self.next_refill_ns.saturating_add(Nanos::try_from(needed).unwrap_or(Nanos::MAX));
        self.next_refill_ns.saturating_sub(now).max(REFILL_NS)
    }
}

#[derive(Clone, Debug)]
struct RocksDb {
    rate_max: u64,
    per_tenant: bool,
    /// By tree, or one of all trees.
    controllers: BTreeMap<TreeId, Controller>,
    /// What compactions of a tree had before them at its last change, where that was anything.
    pending: BTreeMap<TreeId, u64>,
}

impl RocksDb {
    fn new(params: &Params<'_>) -> Self {
        Self {
            rate_max: params.whole(RATE_MAX.name),
            per_tenant: params.whole(PER_TENANT.name) == 1,
            controllers: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    fn key(&self, tree: TreeId) -> TreeId {
        if self.per_tenant { tree } else { TreeId::default() }
    }
}

/// What one tree, the write's own if it is among them, asks for.
fn of_trees(trees: &BTreeMap<TreeId, StallCause>, own: TreeId) -> Option<(TreeId, StallCause)> {
    let own = trees.get_key_value(&own);
    own.or_else(|| trees.first_key_value()).map(|(tree, cause)| (*tree, *cause))
}

impl StallPolicy for RocksDb {
    fn decide(&mut self, view: &WriteView) -> Admission {
        // What was told of the tree may be behind what the view sees.
        if let Condition::Stop(cause) = Facts::from(view).condition() {
            return Admission::Stop { cause, by: view.tree };
        }
        let key = self.key(view.tree);
        let mut controller = self.controllers.get_mut(&key);
        let stopped = controller.as_ref().and_then(|c| of_trees(&c.stopped, view.tree));
        if let Some((by, cause)) = stopped {
            return Admission::Stop { cause, by };
        }
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        let Some(controller) = controller.as_mut() else { return Admission::Admit };
        let Some((by, cause)) = of_trees(&controller.delayed, view.tree) else {
            return Admission::Admit;
        };
        if view.delayed_ns > 0 {
            return Admission::Admit;
        }
        match controller.delay_ns(view.now_ns, view.tree_bytes) {
            0 => Admission::Admit,
            delay_ns => Admission::Delay { delay_ns, cause, by },
        }
    }

    fn observe(&mut self, change: &TreeChange) -> bool {
        let tree = change.tree;
        let key = self.key(tree);
        let pending = change.pending_compaction_bytes;
        let before = if pending == 0 {
            self.pending.remove(&tree)
        } else {
            self.pending.insert(tree, pending)
        };
        let condition = match change.kind {
            ChangeKind::Dropped => Condition::Normal,
            ChangeKind::Opened
            | ChangeKind::Sealed { .. }
            | ChangeKind::Flushed { .. }
            | ChangeKind::Compacted { .. } => Facts::from(change).condition(),
        };
        if condition == Condition::Normal && !self.controllers.contains_key(&key) {
            return false;
        }
        let (rate_max, is_gone) = (self.rate_max, change.kind == ChangeKind::Dropped);
        let controller = self.controllers.entry(key).or_insert_with(|| Controller::new(rate_max));
        let needed_delay = !controller.delayed.is_empty();
        let pending = (before.unwrap_or(0), pending);
        controller.recalculate(tree, condition, pending, rate_max);
        let eased = needed_delay && controller.delayed.is_empty();
        if self.per_tenant && is_gone {
            self.controllers.remove(&key);
        }
        eased
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
