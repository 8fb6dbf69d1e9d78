//! Kudu's maintenance manager: what pins most of the log while memory is short, else the best score.
//!
//! At each look as many flushes are named as slots are free, by the first rule that applies:
//!
//! * Reserved, mutable and immutable bytes reach `pressure_ratio` of the budget: the memtable whose
//!   oldest entry lies in the oldest WAL segment, of equals the one with the most bytes.
//! * The WAL has `wal_retained_bytes`: the memtables that pin it furthest back, most bytes first.
//! * Else the highest score above 0. From `flush_bytes` on that is 1 and more, growing with the bytes
//!   above; below it, a memtable older than `young_ns` scores the larger of its age over `old_ns` and
//!   its bytes over `flush_bytes`, at most 1; a younger one scores nothing.
//!
//! It looks every `poll_ns`, when a flush has ended, and on each write while memory is short. Where
//! flushes are packed, each named flush takes memtables in the same order up to its bytes.
//!
//! # Source
//!
//! `MaintenanceManager::FindBestOp` and `FlushOpPerfImprovementPolicy` in apache/kudu
//! (`src/kudu/util/maintenance_manager.cc`, `src/kudu/tablet/tablet_replica_mm_ops.cc`, commit
//! 22028a2). Departures:
//!
//! * The memory limit is the budget of memtables, not that of the process.
//! * `flush_bytes` and `wal_retained_bytes` are 1 GiB each there. Their defaults here are a 32nd of
//!   the budget, which is 1 GiB for a limit of 32 GiB, and half of `wal_bytes_max`.
//! * A view tells the segment that a memtable pins, not how many log bytes that keeps: the tree that
//!   pins the oldest segment is taken to keep all of the log.
//! * Compactions have slots of their own, so a flush competes with nothing: Kudu's
//!   `run_non_memory_ops_prob` (KUDU-3407), which gives other work a chance under pressure, is left
//!   out, and so are priorities of tables, which no tenant has.

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, is_wedged, used_bytes};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{Nanos, TreeId, to_usize};

const PRESSURE_RATIO: ParamInfo = ParamInfo {
    name: "pressure_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.6,
    about: "share of the budget, immutable bytes included, from which memory is short",
};

const POLL_NS: ParamInfo = ParamInfo {
    name: "poll_ns",
    min: 1e6,
    max: 9e15,
    default: 250e6,
    about: "time between two looks while memory is not short",
};

const FLUSH_BYTES: ParamInfo = ParamInfo {
    name: "flush_bytes",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "memtable bytes that score 1; 0 = a 32nd of the budget",
};

const WAL_RETAINED_BYTES: ParamInfo = ParamInfo {
    name: "wal_retained_bytes",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "WAL bytes from which memtables that pin it are flushed; 0 = half of wal_bytes_max",
};

const YOUNG_NS: ParamInfo = ParamInfo {
    name: "young_ns",
    min: 0.0,
    max: 9e15,
    default: 120e9,
    about: "age up to which a memtable below flush_bytes scores nothing",
};

const OLD_NS: ParamInfo = ParamInfo {
    name: "old_ns",
    min: 1.0,
    max: 9e15,
    default: 3600e9,
    about: "age at which any memtable scores 1",
};

const PARAMS: &[ParamInfo] =
    &[PRESSURE_RATIO, POLL_NS, FLUSH_BYTES, WAL_RETAINED_BYTES, YOUNG_NS, OLD_NS, IDLE_FLUSH_NS];

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo { name: "kudu", id: "P8", source: "Kudu", params: PARAMS, known_defects: &[] },
    build: |params| Box::new(Kudu::new(params)),
};

/// A score of 1, as an integer.
const ONE_BITS: u32 = 20;
const ONE: u64 = 1 << ONE_BITS;

#[derive(Clone, Debug)]
struct Kudu {
    shortage: Shortage,
    poll_ns: Nanos,
    flush_bytes: u64,
    wal_retained_bytes: u64,
    young_ns: Nanos,
    old_ns: Nanos,
    look_at: Nanos,
    job_count: u32,
}

impl Kudu {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(PRESSURE_RATIO.name), params),
            poll_ns: params.whole(POLL_NS.name),
            flush_bytes: params.whole(FLUSH_BYTES.name),
            wal_retained_bytes: params.whole(WAL_RETAINED_BYTES.name),
            young_ns: params.whole(YOUNG_NS.name),
            old_ns: params.whole(OLD_NS.name),
            look_at: 0,
            job_count: 0,
        }
    }

    fn victims(&mut self, view: &FlushView) -> Vec<TreeId> {
        let ended = view.flush_job_count < self.job_count;
        self.job_count = view.flush_job_count;
        let due = ended || view.now_ns >= self.look_at;
        if due {
            self.look_at = view.now_ns.saturating_add(self.poll_ns);
        }
        let free = view.flush_slots.saturating_sub(view.flush_job_count);
        let free = free.max(u32::from(is_wedged(view)));
        if free == 0 || view.mutable_bytes == 0 {
            return Vec::new();
        }
        let count = if view.pack_bytes > 0 { view.trees.len() } else { to_usize(u64::from(free)) };
        let by_log = |_, facts: &TreeFacts| {
            Some((facts.wal_anchor_segment, u64::MAX - facts.memtable_bytes))
        };
        if used_bytes(view) >= self.shortage.trigger_bytes(view) {
            return packs(view, free, first(view, count, by_log));
        }
        if due && view.wal_bytes >= self.wal_retained(view) {
            let mut pinning = first(view, count, by_log).peekable();
            let furthest = pinning.peek().map(|((segment, _), _)| *segment);
            let pinning = pinning.take_while(|((segment, _), _)| Some(*segment) == furthest);
            return packs(view, free, pinning);
        }
        if !due {
            return Vec::new();
        }
        let score = Score::new(self, view);
        let by_score = |_, facts: &TreeFacts| {
            Some(score.of(facts)).filter(|score| *score > 0).map(|score| u64::MAX - score)
        };
        packs(view, free, first(view, count, by_score))
    }

    fn wal_retained(&self, view: &FlushView) -> u64 {
        let derived = (view.wal_bytes_max >> 1).max(1);
        if self.wal_retained_bytes == 0 { derived } else { self.wal_retained_bytes }
    }
}

impl FlushPolicy for Kudu {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let flush = self.victims(view);
        let mut decision = self.shortage.with_idle(view, flush);
        if view.mutable_bytes > 0 {
            decision.wake_at = decision.wake_at.into_iter().chain([self.look_at]).min();
        }
        decision
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}

/// The trees of so many flushes: as many trees where flushes are not packed, else as many as have
/// the bytes of these packs.
fn packs<K>(view: &FlushView, free: u32, places: impl Iterator<Item = (K, usize)>) -> Vec<TreeId> {
    let mut left_bytes = view.pack_bytes.saturating_mul(u64::from(free));
    let mut flush = Vec::new();
    for facts in places.filter_map(|(_, slot)| view.trees.get(slot)) {
        flush.push(facts.tree);
        left_bytes = left_bytes.saturating_sub(facts.memtable_bytes);
        if view.pack_bytes > 0 && left_bytes == 0 {
            break;
        }
    }
    flush
}

/// Scores of one look.
struct Score {
    now_ns: Nanos,
    young_ns: Nanos,
    flush_bytes: u64,
    by_bytes: Fraction,
    by_age: Fraction,
}

impl Score {
    fn new(kudu: &Kudu, view: &FlushView) -> Self {
        let derived = (view.budget_bytes >> 5).max(1);
        let flush_bytes = if kudu.flush_bytes == 0 { derived } else { kudu.flush_bytes };
        Self {
            now_ns: view.now_ns,
            young_ns: kudu.young_ns,
            flush_bytes,
            by_bytes: Fraction::of_one(flush_bytes),
            by_age: Fraction::of_one(kudu.old_ns),
        }
    }

    fn of(&self, facts: &TreeFacts) -> u64 {
        if facts.memtable_bytes >= self.flush_bytes {
            // There a score grows by 1 with each MiB above 1 GiB.
            let above = self.by_bytes.times(facts.memtable_bytes - self.flush_bytes);
            return above.saturating_mul(1024).max(ONE);
        }
        let age_ns = self.now_ns.saturating_sub(facts.memtable_created_ns);
        if age_ns <= self.young_ns {
            return 0;
        }
        self.by_age.times(age_ns).max(self.by_bytes.times(facts.memtable_bytes)).min(ONE)
    }
}

/// Multiplies where thousands of numbers would be divided by the same one.
struct Fraction(u64);

impl Fraction {
    const BITS: u32 = 63;

    fn of_one(whole: u64) -> Self {
        Self((1_u64 << Self::BITS).div_ceil(whole.max(1)))
    }

    /// `n` of the whole, in [`ONE`]s.
    fn times(&self, n: u64) -> u64 {
        let product = (u128::from(n) * u128::from(self.0)) >> (Self::BITS - ONE_BITS);
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}
