//! When memory is short and how many victims that takes: the rule that all flush policies share.
//!
//! * **Short** is: mutable + reserved bytes >= `trigger_ratio` x budget. Victims are named until
//!   what stays mutable or reserved is below that; where flushes are packed, until it is below
//!   that by `pack_bytes`, so that a flush has as many.
//! * **At most `2 x flush_slots` flushes** wait or run at once, counting those just named. More
//!   could not run anyway; left open memtables gather writes, and tables do not get tiny. A packed
//!   flush has as many memtables as it needs. While the budget is full and nothing is immutable,
//!   one victim is named whatever the slots say.
//! * **Idle**: where `idle_flush_ns` is above 0, a tree with a memtable but no write for that long
//!   is flushed though memory is not short, longest idle first, within the same number of
//!   immutables. Trees are looked over at most eight times in that span, so such a flush may come
//!   up to an eighth of it late.
//!
//! Whom to name is a rank given by the policy: smallest first, ties to the lower slot. All victims
//! of a decision come from one pass over the trees.

use std::collections::BTreeSet;

use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params, Ratio};
use crate::types::{Nanos, TreeId, to_u64, to_usize};

/// The share of the budget from which memory is short.
pub(super) const fn trigger_ratio(default: f64) -> ParamInfo {
    ParamInfo {
        name: "trigger_ratio",
        min: 0.01,
        max: 1.0,
        default,
        about: "share of the budget in mutable and reserved bytes from which memtables are flushed",
    }
}

/// How long a tree may go without a write.
pub(super) const IDLE_FLUSH_NS: ParamInfo = ParamInfo {
    name: "idle_flush_ns",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "a tree without a write for this long is flushed though memory is not short; 0 = never",
};

/// Whether only the writing trees' memtables may be victims.
pub(super) const SCOPE_WRITER: ParamInfo = ParamInfo {
    name: "scope_writer",
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "1: victims are only trees written since the last decision, so idle ones never are",
};

/// The slots that `scope_writer` leaves as victims; `None` where all are.
pub(super) fn scope(view: &FlushView, writer: bool) -> Option<BTreeSet<usize>> {
    writer.then(|| view.written_slots.iter().copied().collect())
}

/// The shared rule's limits, and when trees are next looked over for idle ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    trigger_ratio: Ratio,
    idle_flush_ns: Nanos,
    idle_look_at: Nanos,
}

impl Shortage {
    /// The rule with a policy's parameters.
    pub(super) fn new(params: &Params<'_>) -> Self {
        Self {
            trigger_ratio: params.ratio(trigger_ratio(0.0).name),
            idle_flush_ns: params.whole(IDLE_FLUSH_NS.name),
            idle_look_at: 0,
        }
    }

    /// The limits of a policy that says in other words when memory is short: its own share of the
    /// budget, and the idle rule.
    pub(super) fn at(trigger_ratio: Ratio, params: &Params<'_>) -> Self {
        Self { trigger_ratio, idle_flush_ns: params.whole(IDLE_FLUSH_NS.name), idle_look_at: 0 }
    }

    /// The bytes from which memory is short.
    pub(super) fn trigger_bytes(&self, view: &FlushView) -> u64 {
        self.trigger_ratio.of(view.budget_bytes)
    }

    /// Whether memory is short by the shared rule.
    pub(super) fn is_short(&self, view: &FlushView) -> bool {
        view.mutable_bytes.saturating_add(view.reserved_bytes) >= self.trigger_bytes(view)
    }

    /// Names victims in the order of `rank`, which sees a tree's slot and facts, then idle trees.
    pub(super) fn decide<K: Ord + Copy>(
        &mut self,
        view: &FlushView,
        rank: impl Fn(usize, &TreeFacts) -> K,
    ) -> FlushDecision {
        let flush = self.victims(view, rank);
        self.with_idle(view, flush)
    }

    /// Names victims in the order of `rank` until memory is not short.
    pub(super) fn victims<K: Ord + Copy>(
        &self,
        view: &FlushView,
        rank: impl Fn(usize, &TreeFacts) -> K,
    ) -> Vec<TreeId> {
        self.victims_among(view, |slot, facts| Some(rank(slot, facts)))
    }

    /// Names victims as [`Shortage::victims`] does, among the trees that `rank` gives one.
    pub(super) fn victims_among<K: Ord + Copy>(
        &self,
        view: &FlushView,
        rank: impl Fn(usize, &TreeFacts) -> Option<K>,
    ) -> Vec<TreeId> {
        let mut left_bytes = view.mutable_bytes.saturating_add(view.reserved_bytes);
        let trigger_bytes = self.trigger_bytes(view);
        let mut flush = Vec::new();
        if left_bytes < trigger_bytes {
            return flush;
        }
        let trigger_bytes = trigger_bytes.saturating_sub(view.pack_bytes);
        for (_, slot) in first(view, room(view), rank) {
            if left_bytes < trigger_bytes {
                break;
            }
            let Some(facts) = view.trees.get(slot) else { break };
            left_bytes = left_bytes.saturating_sub(facts.memtable_bytes);
            flush.push(facts.tree);
        }
        flush
    }

    /// Adds the trees idle for too long, and when to ask again for the next one.
    pub(super) fn with_idle(&mut self, view: &FlushView, mut flush: Vec<TreeId>) -> FlushDecision {
        if self.idle_flush_ns == 0 || view.mutable_bytes == 0 {
            return FlushDecision { flush, ..FlushDecision::default() };
        }
        if view.now_ns >= self.idle_look_at {
            let oldest_ns = self.name_idle(view, &mut flush);
            let step_ns = (self.idle_flush_ns >> 3).max(1);
            self.idle_look_at = oldest_ns
                .saturating_add(self.idle_flush_ns)
                .max(view.now_ns.saturating_add(step_ns));
        }
        FlushDecision { flush, wake_at: Some(self.idle_look_at), ..FlushDecision::default() }
    }

    /// Adds the trees idle for too long; returns the last write of the longest idle one left.
    fn name_idle(&self, view: &FlushView, flush: &mut Vec<TreeId>) -> Nanos {
        let room = room(view);
        let mut named = flush.clone();
        named.sort_unstable();
        for (last_write_ns, slot) in first(view, room, |_, facts| Some(facts.last_write_ns)) {
            let Some(facts) = view.trees.get(slot) else { break };
            if named.binary_search(&facts.tree).is_ok() {
                continue;
            }
            let idle = last_write_ns.saturating_add(self.idle_flush_ns) <= view.now_ns;
            if !idle || flush.len() >= room {
                return last_write_ns;
            }
            flush.push(facts.tree);
        }
        // With no room left the next tree may be idle already; else there is no other tree.
        if flush.len() >= room { 0 } else { view.now_ns }
    }
}

/// Flushes that a decision may add to those that wait or run.
pub(super) fn job_room(view: &FlushView) -> u64 {
    (u64::from(view.flush_slots) << 1).saturating_sub(u64::from(view.flush_job_count))
}

/// Victims that a decision may name.
pub(super) fn room(view: &FlushView) -> usize {
    let room = to_usize(job_room(view));
    if view.pack_bytes > 0 && room > 0 {
        return view.trees.len();
    }
    room.max(usize::from(is_wedged(view)))
}

/// Whether the budget is full and no flush can end that.
pub(super) fn is_wedged(view: &FlushView) -> bool {
    view.immutable_count == 0 && used_bytes(view) >= view.budget_bytes
}

/// Reserved, mutable and immutable bytes: what the budget limits.
pub(super) fn used_bytes(view: &FlushView) -> u64 {
    view.reserved_bytes.saturating_add(view.mutable_bytes).saturating_add(view.immutable_bytes)
}

/// Names the first `count` trees in the order of `rank`, among those it gives one; where flushes
/// are packed, as many as fill one.
pub(super) fn name<K: Ord + Copy>(
    view: &FlushView,
    count: usize,
    rank: impl Fn(usize, &TreeFacts) -> Option<K>,
) -> Vec<TreeId> {
    let packs = view.pack_bytes > 0 && count > 0;
    let count = if packs { view.trees.len() } else { count };
    let (mut flush, mut named_bytes) = (Vec::new(), 0_u64);
    for (_, slot) in first(view, count, rank) {
        let Some(facts) = view.trees.get(slot) else { break };
        flush.push(facts.tree);
        named_bytes = named_bytes.saturating_add(facts.memtable_bytes);
        if packs && named_bytes >= view.pack_bytes {
            break;
        }
    }
    flush
}

/// Above this many, sorting in steps is quicker than an insertion for each.
const INSERTED_MAX: usize = 32;

/// The first step of sorting; of ten thousand trees, 28 us for 300 and 103 us for 3,100.
const STEP: usize = 512;

/// The first `count` trees with a memtable and a rank, as (rank, slot) in ascending order.
pub(super) fn first<K: Ord + Copy>(
    view: &FlushView,
    count: usize,
    rank: impl Fn(usize, &TreeFacts) -> Option<K>,
) -> impl Iterator<Item = (K, usize)> {
    let dirty = view.trees.iter().enumerate().filter(|(_, facts)| facts.memtable_bytes > 0);
    let mut ranked = dirty.filter_map(|(slot, facts)| Some((rank(slot, facts)?, slot)));
    let mut places: Vec<(K, usize)> = Vec::new();
    if count > INSERTED_MAX {
        places.reserve_exact(view.trees.len());
        places.extend(ranked);
        return Sorting { places, sorted: 0, at: 0, step: STEP }.take(count);
    }
    if count > 0 {
        for candidate in &mut ranked {
            if places.len() >= count {
                if places.last().is_none_or(|worst| candidate >= *worst) {
                    continue;
                }
                places.pop();
            }
            let place = places.partition_point(|b| *b < candidate);
            places.insert(place, candidate);
        }
    }
    let sorted = places.len();
    Sorting { places, sorted, at: 0, step: 0 }.take(count)
}

/// Sorts as far as it is asked: each step finds twice as many smallest of the rest.
struct Sorting<K> {
    places: Vec<(K, usize)>,
    sorted: usize,
    at: usize,
    step: usize,
}

impl<K: Ord + Copy> Iterator for Sorting<K> {
    type Item = (K, usize);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.sorted
            && let Some(rest) = self.places.get_mut(self.sorted..)
        {
            let step = self.step.min(rest.len());
            if step < rest.len() {
                rest.select_nth_unstable(step);
            }
            if let Some(smallest) = rest.get_mut(..step) {
                smallest.sort_unstable();
            }
            self.sorted += step;
            self.step = self.step.saturating_mul(2);
        }
        let place = self.places.get(self.at).copied()?;
        self.at += 1;
        Some(place)
    }
}

/// Slots that a pointer passes before it reaches this one; the pointer is one of the slots.
pub(super) fn distance(pointer: usize, slot: usize, slots: usize) -> u64 {
    to_u64(if slot >= pointer { slot - pointer } else { slot + slots - pointer })
}
