//! Each tree looks at itself by a tick of its own, and a memtable at or above the mean is flushed.
//!
//! No place sees all trees: each tells the size of its memtable at its tick, and between ticks when
//! it grew by `drift_bytes`. From those sizes come the dirty bytes, their number and their mean.
//! While the dirty bytes are above `dirty_ratio` of the budget, a tree whose tick comes has its
//! memtable flushed if that is at or above the mean. So memory may pass the limit by what is
//! written in a tick (the leak of neon PR 7594), the order is that of ticks, and no more than the
//! bytes above the limit bounds the number of flushes. A memtable of `age_ns` or more is flushed
//! at its tree's tick though memory is not short.
//!
//! Ticks of the trees are spread over the period by slot, in 64 steps; a decision looks at the
//! trees whose step has come since the last one. While the dirty bytes are within their limit
//! nothing but age is to be seen, and an idle database is asked eight times in `age_ns`.
//!
//! # Source
//!
//! `maybe_freeze_ephemeral_layer`, `should_roll` and `GlobalResources::publish_size` in
//! neondatabase/neon (6a35a3e, PR 7594), with a drift of 10 MiB and an age of 10 min. Departures:
//! the period is 1 s, not the 20 s of Neon's housekeeping, as here writers stop at the budget;
//! reserved bytes count as dirty; the engine's cap of a memtable stands for the checkpoint distance.

use super::shortage::{IDLE_FLUSH_NS, Shortage};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{Nanos, to_usize};

const DIRTY_RATIO: ParamInfo = ParamInfo {
    name: "dirty_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.75,
    about: "share of the budget in dirty bytes above which a tick flushes what is above the mean",
};

const TICK_NS: ParamInfo = ParamInfo {
    name: "tick_ns",
    min: 64.0,
    max: 9e15,
    default: 1e9,
    about: "each tree looks at its memtable once in this long",
};

const DRIFT_BYTES: ParamInfo = ParamInfo {
    name: "drift_bytes",
    min: 1.0,
    max: 9e15,
    default: 10_485_760.0,
    about: "a memtable that grew by this is counted anew before its tree's tick",
};

const AGE_NS: ParamInfo = ParamInfo {
    name: "age_ns",
    min: 0.0,
    max: 9e15,
    default: 600e9,
    about: "a memtable whose first write is this old is flushed at its tree's tick; 0 = never",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "above-mean-tick",
        id: "P7a",
        source: "Neon",
        params: &[DIRTY_RATIO, TICK_NS, DRIFT_BYTES, AGE_NS, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(AboveMeanTick::new(params)),
};

/// Steps of a period: trees of equal slots modulo this tick together.
const STEPS: u64 = 64;

#[derive(Clone, Debug)]
struct AboveMeanTick {
    shortage: Shortage,
    tick_ns: Nanos,
    drift_bytes: u64,
    age_ns: Nanos,
    /// By slot: the memtable's bytes when they were last told.
    told: Vec<u64>,
    /// Their sum.
    told_bytes: u64,
    /// Those above 0.
    told_count: u64,
    /// The step up to which trees have had their ticks.
    step: Option<u64>,
}

impl AboveMeanTick {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(DIRTY_RATIO.name), params),
            tick_ns: params.whole(TICK_NS.name),
            drift_bytes: params.whole(DRIFT_BYTES.name),
            age_ns: params.whole(AGE_NS.name),
            told: Vec::new(),
            told_bytes: 0,
            told_count: 0,
            step: None,
        }
    }

    fn step_ns(&self) -> Nanos {
        self.tick_ns.div_euclid(STEPS).max(1)
    }

    /// A tree tells the size of its memtable.
    fn tell(&mut self, slot: usize, bytes: u64) {
        if let Some(told) = self.told.get_mut(slot) {
            self.told_bytes = self.told_bytes.saturating_sub(*told).saturating_add(bytes);
            self.told_count -= u64::from(*told > 0);
            self.told_count += u64::from(bytes > 0);
            *told = bytes;
        }
    }

    /// Trees just written tell their size if it drifted, or if their memtable is another one.
    fn tell_drifted(&mut self, view: &FlushView) {
        for slot in &view.written_slots {
            let (Some(facts), Some(told)) = (view.trees.get(*slot), self.told.get(*slot)) else {
                continue;
            };
            let grown = facts.memtable_bytes.checked_sub(*told);
            if grown.is_none_or(|bytes| bytes >= self.drift_bytes) {
                self.tell(*slot, facts.memtable_bytes);
            }
        }
    }

    fn is_over(&self, view: &FlushView, dirty_bytes: u64) -> bool {
        dirty_bytes.saturating_add(view.reserved_bytes) > self.shortage.trigger_bytes(view)
    }

    /// A tree's tick. Returns whether its memtable is to be flushed.
    fn tick(&mut self, view: &FlushView, slot: usize) -> bool {
        let Some(facts) = view.trees.get(slot) else { return false };
        self.tell(slot, facts.memtable_bytes);
        if facts.memtable_bytes == 0 {
            return false;
        }
        let mean_bytes = self.told_bytes.div_euclid(self.told_count.max(1));
        let above = self.is_over(view, self.told_bytes) && facts.memtable_bytes >= mean_bytes;
        let born_ns = facts.first_write_ns;
        let old = self.age_ns > 0 && born_ns.saturating_add(self.age_ns) <= view.now_ns;
        if above || old {
            self.tell(slot, 0);
        }
        above || old
    }

    /// When ticks may have something to see though nothing is written.
    fn wake_at(&self, view: &FlushView, step: u64) -> Option<Nanos> {
        if view.mutable_bytes == 0 {
            return None;
        }
        if self.is_over(view, view.mutable_bytes.max(self.told_bytes)) {
            return Some(step.saturating_add(1).saturating_mul(self.step_ns()));
        }
        (self.age_ns > 0).then(|| view.now_ns.saturating_add((self.age_ns >> 3).max(1)))
    }
}

impl FlushPolicy for AboveMeanTick {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        if self.told.len() < view.trees.len() {
            self.told.resize(view.trees.len(), 0);
        }
        self.tell_drifted(view);
        let step = view.now_ns.div_euclid(self.step_ns());
        let last = self.step.replace(step).unwrap_or(step);
        let mut flush = Vec::new();
        for due in step.saturating_sub(STEPS).max(last)..step {
            let phase = to_usize((due + 1).rem_euclid(STEPS));
            for slot in (phase..view.trees.len()).step_by(to_usize(STEPS)) {
                if self.tick(view, slot) {
                    flush.extend(view.trees.get(slot).map(|facts| facts.tree));
                }
            }
        }
        let tick_at = self.wake_at(view, step);
        let mut decision = self.shortage.with_idle(view, flush);
        decision.wake_at = decision.wake_at.into_iter().chain(tick_at).min();
        decision
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
