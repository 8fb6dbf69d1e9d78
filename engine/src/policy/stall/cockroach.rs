//! `CockroachDB`'s admission control: tokens for bytes, and who used least goes first.
//!
//! Every interval it is reckoned how many bytes of writes the store can take: what compactions took
//! out of L0, the fuller L0 is the smaller a part of it, and what flushes can write at their peak.
//! The tokens are handed out in small ticks. Among tenants that wait, the one that used least of
//! late goes first; one that used more yields to it.
//!
//! # Source
//!
//! `ioLoadListener` in cockroachdb/cockroach `pkg/util/admission/io_load_listener.go` and the
//! tenant heap of `work_queue.go`. Departures: there is one LSM tree there, so that its L0 score is
//! that of the fullest tree here, with `l0_slowdown_count` as the threshold of sublevels; tenants
//! weigh the same; tokens never run dry, lest a store whose compactions are idle stop for ever;
//! nobody yields for longer than an interval; the stops of `hard` hold.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, ChangeKind, StallCause, TreeChange, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{BranchId, Nanos, TreeId};

const INTERVAL: ParamInfo = ParamInfo {
    name: "interval_ns",
    min: 1e6,
    max: 6e11,
    default: 1.5e10,
    about: "how often tokens are reckoned anew",
};

const TICK: ParamInfo = ParamInfo {
    name: "tick_ns",
    min: 1e6,
    max: 1e10,
    default: 2.5e8,
    about: "how often tokens are handed out while nobody waits, and the longest delay",
};

const RATE_MIN: ParamInfo = ParamInfo {
    name: "bytes_per_s_min",
    min: 1.0,
    max: 1e12,
    default: 65_536.0,
    about: "tokens are never fewer than this",
};

const FILES: ParamInfo = ParamInfo {
    name: "l0_files",
    min: 1.0,
    max: 1e6,
    default: 1000.0,
    about: "L0 tables of all trees at which the store is overloaded",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "cockroach",
        id: "S5",
        source: "CockroachDB's admission control",
        params: &[INTERVAL, TICK, RATE_MIN, FILES],
        known_defects: &[],
    },
    build: |params| Box::new(Cockroach::new(params)),
};

/// How often tokens are handed out while somebody waits.
const LOADED_TICK_NS: Nanos = 1_000_000;

/// Use is counted from zero again after this long.
const USE_NS: Nanos = 1_000_000_000;

const NS_PER_S: u128 = 1_000_000_000;

/// Scores and multipliers are in thousandths.
const ONE: u64 = 1000;
const MULTIPLIER_STEP: u64 = 25;

/// Busy for less than a twentieth of an interval, flushes limit nothing.
const BUSY_MIN_PART: u64 = 20;

fn part(n: u64, times: u128, of: u128) -> u64 {
    let part = u128::from(n).saturating_mul(times).checked_div(of).unwrap_or(0);
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The mean of a value and the smoothed one before it; the first is taken as it is.
fn smoothed(before: u64, value: u64) -> u64 {
    if before == 0 { value } else { (before >> 1).saturating_add(value >> 1) }
}

/// What happened since the interval began.
#[derive(Clone, Debug, Default)]
struct Interval {
    began_ns: Nanos,
    l0_compacted_bytes: u64,
    flush_bytes_per_s_max: u64,
    flush_ns: Nanos,
    stall_count: u64,
    admitted_bytes: u64,
}

/// Smoothed over intervals.
#[derive(Clone, Debug, Default)]
struct Smoothed {
    l0_compacted_bytes: u64,
    compaction_tokens: u64,
    flush_tokens: u64,
}

#[derive(Clone, Debug)]
struct Cockroach {
    interval_ns: Nanos,
    tick_ns: Nanos,
    rate_min: u64,
    files: u64,
    l0: BTreeMap<TreeId, u32>,
    /// Trees by L0 tables, the fullest last.
    fullest: BTreeSet<(u32, TreeId)>,
    l0_sum: u64,
    l0_threshold: u64,
    interval: Interval,
    smoothed: Smoothed,
    /// Of flush tokens, in thousandths.
    multiplier: u64,
    /// Tokens of an interval, and what limits them; `None` for no limit.
    tokens: Option<(u64, StallCause)>,
    available: i128,
    handed_out_ns: Nanos,
    used: BTreeMap<BranchId, u64>,
    used_since_ns: Nanos,
    /// Who waits: how much it had used then, and when it asks again at the latest.
    waiting: BTreeMap<BranchId, (u64, Nanos)>,
    order: BTreeSet<(u64, BranchId)>,
}

impl Cockroach {
    fn new(params: &Params<'_>) -> Self {
        Self {
            interval_ns: params.whole(INTERVAL.name),
            tick_ns: params.whole(TICK.name),
            rate_min: params.whole(RATE_MIN.name),
            files: params.whole(FILES.name),
            l0: BTreeMap::new(),
            fullest: BTreeSet::new(),
            l0_sum: 0,
            l0_threshold: 1,
            interval: Interval::default(),
            smoothed: Smoothed::default(),
            multiplier: ONE + (ONE >> 1),
            tokens: None,
            available: 0,
            handed_out_ns: 0,
            used: BTreeMap::new(),
            used_since_ns: 0,
            waiting: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    fn set_l0(&mut self, tree: TreeId, count: u32) {
        if let Some(before) = self.l0.remove(&tree) {
            self.fullest.remove(&(before, tree));
            self.l0_sum = self.l0_sum.saturating_sub(u64::from(before));
        }
        if count > 0 {
            self.l0.insert(tree, count);
            self.fullest.insert((count, tree));
            self.l0_sum = self.l0_sum.saturating_add(u64::from(count));
        }
    }

    /// Twice the part of the overload threshold that L0 reached, in thousandths.
    fn score(&self) -> u64 {
        let most = self.fullest.last().map_or(0, |(count, _)| u64::from(*count));
        let of_files = self.l0_sum.saturating_mul(2 * ONE).div_euclid(self.files.max(1));
        let of_levels = most.saturating_mul(2 * ONE).div_euclid(self.l0_threshold.max(1));
        of_files.max(of_levels)
    }

    /// Begins the next interval where this one is over.
    fn roll(&mut self, now: Nanos) {
        if now.saturating_sub(self.used_since_ns) >= USE_NS {
            self.used_since_ns = now;
            self.used.clear();
            self.waiting.clear();
            self.order.clear();
        }
        let elapsed = now.saturating_sub(self.interval.began_ns);
        if elapsed < self.interval_ns {
            return;
        }
        let next = Interval { began_ns: now, ..Interval::default() };
        let over = core::mem::replace(&mut self.interval, next);
        let compaction = self.compaction_tokens(&over);
        let flush = self.flush_tokens(&over);
        let floor = part(self.interval_ns, u128::from(self.rate_min), NS_PER_S).max(1);
        let of_flush = flush.map(|tokens| (tokens, StallCause::Budget));
        let of_compaction = compaction.map(|tokens| (tokens, StallCause::L0));
        let least = of_compaction.into_iter().chain(of_flush).min_by_key(|(tokens, _)| *tokens);
        if self.tokens.is_none() {
            (self.available, self.handed_out_ns) = (0, now);
        }
        self.tokens = least.map(|(tokens, cause)| (tokens.max(floor), cause));
    }

    fn compaction_tokens(&mut self, over: &Interval) -> Option<u64> {
        let bytes = smoothed(self.smoothed.l0_compacted_bytes, over.l0_compacted_bytes);
        self.smoothed.l0_compacted_bytes = bytes;
        let score = self.score();
        let of = |thousandths: u64| part(bytes, u128::from(thousandths), u128::from(ONE));
        let tokens = match score {
            0..500 => {
                self.smoothed.compaction_tokens = bytes;
                return None;
            }
            500..1000 => of(3 * ONE - 2 * score),
            1000..2000 => of((3 * ONE - score) >> 1),
            2000.. => of(ONE >> 1),
        };
        self.smoothed.compaction_tokens = smoothed(self.smoothed.compaction_tokens, tokens);
        Some(self.smoothed.compaction_tokens)
    }

    fn flush_tokens(&mut self, over: &Interval) -> Option<u64> {
        let peak = part(over.flush_bytes_per_s_max, u128::from(self.interval_ns), NS_PER_S);
        if peak > 0 {
            self.smoothed.flush_tokens = smoothed(self.smoothed.flush_tokens, peak);
        }
        if over.flush_ns.saturating_mul(BUSY_MIN_PART) < self.interval_ns {
            return None;
        }
        let given = self.tokens.map_or(u64::MAX, |(tokens, _)| tokens);
        let is_used = part(given, 9, 10) < over.admitted_bytes;
        let steps = match over.stall_count {
            0 => 0,
            1 => 1,
            2..5 => 2,
            5.. => 3,
        };
        let lower = self.multiplier.saturating_sub(steps * MULTIPLIER_STEP);
        let raised = if steps == 0 && is_used { lower + MULTIPLIER_STEP } else { lower };
        self.multiplier = raised.clamp(ONE >> 1, ONE + (ONE >> 1));
        Some(part(self.smoothed.flush_tokens, u128::from(self.multiplier), u128::from(ONE)))
    }

    /// Hands out what the ticks since the last time have brought.
    fn hand_out(&mut self, now: Nanos, tokens: u64) {
        let tick_ns = if self.order.is_empty() { self.tick_ns } else { LOADED_TICK_NS };
        let ticks = now.saturating_sub(self.handed_out_ns).div_euclid(tick_ns.max(1));
        let elapsed = ticks.saturating_mul(tick_ns);
        let of = |ns: Nanos| part(tokens, u128::from(ns), u128::from(self.interval_ns));
        let burst = i128::from(of(self.tick_ns).max(1));
        let fresh = i128::from(of(elapsed));
        // What is too little for a token is not lost: its time is counted again.
        if fresh > 0 {
            self.handed_out_ns = self.handed_out_ns.saturating_add(elapsed);
            self.available = self.available.saturating_add(fresh).min(burst);
        }
    }

    /// Whether a tenant waits that used less. One that did not come back in time waits no more.
    fn must_yield(&mut self, now: Nanos, branch: BranchId, used: u64) -> bool {
        while let Some((least, first)) = self.order.first().copied() {
            if first != branch && self.waiting.get(&first).is_some_and(|(_, at)| *at >= now) {
                return least < used;
            }
            self.leave(first);
        }
        false
    }

    fn leave(&mut self, branch: BranchId) {
        if let Some((used, _)) = self.waiting.remove(&branch) {
            self.order.remove(&(used, branch));
        }
    }

    /// How long until there is a token.
    fn wait_ns(&self, tokens: u64) -> Nanos {
        if self.available > 0 {
            return LOADED_TICK_NS;
        }
        let lacking = u64::try_from(1 - self.available).unwrap_or(u64::MAX);
        let wait = part(self.interval_ns, u128::from(lacking), u128::from(tokens.max(1)));
        wait.clamp(LOADED_TICK_NS, self.tick_ns.max(LOADED_TICK_NS))
    }
}

impl StallPolicy for Cockroach {
    fn decide(&mut self, view: &WriteView) -> Admission {
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        let (now, branch) = (view.now_ns, view.branch);
        self.roll(now);
        let Some((tokens, cause)) = self.tokens else {
            let bytes = &mut self.interval.admitted_bytes;
            *bytes = bytes.saturating_add(view.tree_bytes);
            return Admission::Admit;
        };
        self.hand_out(now, tokens);
        let used = self.used.get(&branch).copied().unwrap_or(0);
        self.leave(branch);
        let waited = view.delayed_ns >= self.interval_ns;
        let may_go = self.available > 0 && !self.must_yield(now, branch, used);
        if may_go || waited {
            self.available = self.available.saturating_sub(i128::from(view.tree_bytes));
            let of_branch = self.used.entry(branch).or_default();
            *of_branch = of_branch.saturating_add(view.tree_bytes);
            let bytes = &mut self.interval.admitted_bytes;
            *bytes = bytes.saturating_add(view.tree_bytes);
            return Admission::Admit;
        }
        let delay_ns = self.wait_ns(tokens);
        let until = now.saturating_add(delay_ns).saturating_add(LOADED_TICK_NS);
        self.waiting.insert(branch, (used, until));
        self.order.insert((used, branch));
        let by = self.fullest.last().map_or(view.tree, |(_, tree)| *tree);
        Admission::Delay { delay_ns, cause, by }
    }

    fn observe(&mut self, change: &TreeChange) -> bool {
        self.l0_threshold = u64::from(change.limits.l0_slowdown_count);
        self.roll(change.now_ns);
        let interval = &mut self.interval;
        match change.kind {
            ChangeKind::Opened | ChangeKind::Dropped => {}
            ChangeKind::Sealed { .. } => {
                let is_stall = change.immutable_count >= change.limits.memtable_stop_count;
                interval.stall_count = interval.stall_count.saturating_add(u64::from(is_stall));
            }
            ChangeKind::Flushed { bytes, elapsed_ns, .. } => {
                let rate = part(bytes, NS_PER_S, u128::from(elapsed_ns.max(1)));
                interval.flush_bytes_per_s_max = interval.flush_bytes_per_s_max.max(rate);
                interval.flush_ns = interval.flush_ns.saturating_add(elapsed_ns);
            }
            ChangeKind::Compacted { l0_input_bytes, .. } => {
                interval.l0_compacted_bytes =
                    interval.l0_compacted_bytes.saturating_add(l0_input_bytes);
            }
        }
        self.set_l0(change.tree, change.l0_count);
        false
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
