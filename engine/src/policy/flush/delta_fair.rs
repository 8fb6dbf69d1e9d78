//! Delta fair sharing: a tree below its fair share gets that share within `delta_ns`.
//!
//! Memory that one tree holds cannot be taken away at once: it must be flushed. Fair shares alone
//! therefore let a tree wait for as long as the flushes of others take. This rule bounds that time
//! and wastes no more memory than the bound asks for:
//!
//! * A tree is **active** while its last write is at most `tau_ns` old. The fair share of each of
//!   `n` active trees is budget / `n`; others have none.
//! * Active trees below their share may claim `C`, the sum of what they lack, at any time and all at
//!   once. In `delta_ns` flushes free `B x delta_ns` of it, where `B` is their measured bandwidth. So
//!   `C - B x delta_ns` bytes must be in **reserve**: free already.
//! * Shares sum up to the budget, so `C` less what is free is what all trees hold above their
//!   shares, and the reserve is kept just when **these bytes are at most `B x delta_ns`**. That is
//!   what is checked. What is above and immutable is on its way out; for the rest trees are named,
//!   most bytes above the share first.
//!
//! A large `delta_ns` leaves one shared pool; one near 0 splits the budget among active trees. With
//! no flush seen yet `B` is 0. It is measured only while flushes wait or run, so that idle time does
//! not count as slowness.
//!
//! The look over all trees comes at most eight times in `delta_ns` or `tau_ns`, whichever is less,
//! so the bound may be exceeded by an eighth. Whatever the shares, memory is also short from
//! `trigger_ratio` on, as in [`Shortage`].
//!
//! # Source
//!
//! Griggs, Ponnapalli et al., "Delta Fair Sharing: Performance Isolation for Multi-Tenant Storage
//! Systems", arXiv 2601.20030, 2026: the property and the idea of a reserve. Departures: the form
//! of the reserve is derived here from the property, not read from their implementation; all shares
//! are equal; the paper also bounds read caches and stops clients, which is a stall policy's work.

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, room, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{Nanos, TreeId, to_u64};

const DELTA_NS: ParamInfo = ParamInfo {
    name: "delta_ns",
    min: 1.0,
    max: 9e15,
    default: 1e9,
    about: "a tree below its fair share gets the share within this time",
};

const TAU_NS: ParamInfo = ParamInfo {
    name: "tau_ns",
    min: 1.0,
    max: 9e15,
    default: 10e9,
    about: "a tree is active so long after a write; also the time constant of flush bandwidth",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "delta-fair",
        id: "P13",
        source: "FairDB",
        params: &[trigger_ratio(0.9), DELTA_NS, TAU_NS, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(DeltaFair::new(params)),
};

#[derive(Clone, Debug)]
struct DeltaFair {
    shortage: Shortage,
    delta_ns: Nanos,
    tau_ns: Nanos,
    look_at: Nanos,
    bandwidth: Bandwidth,
}

impl DeltaFair {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::new(params),
            delta_ns: params.whole(DELTA_NS.name),
            tau_ns: params.whole(TAU_NS.name),
            look_at: 0,
            bandwidth: Bandwidth::default(),
        }
    }

    fn victims(&mut self, view: &FlushView) -> Vec<TreeId> {
        let left_bytes = view.mutable_bytes.saturating_add(view.reserved_bytes);
        let trigger_bytes = self.shortage.trigger_bytes(view);
        let room = room(view);
        let due = view.now_ns >= self.look_at;
        if room == 0 || view.mutable_bytes == 0 || (!due && left_bytes < trigger_bytes) {
            return Vec::new();
        }
        let shares = Shares::new(view, self.tau_ns);
        let above_bytes: u64 = view.trees.iter().map(|facts| shares.above(facts)).sum();
        let over_bytes = above_bytes.saturating_sub(self.bandwidth.frees(self.delta_ns));
        let flush = shares.victims(view, room, (trigger_bytes, over_bytes));
        // Where the slots cut the list short, the next flush that ends lets more be named at once.
        let step_ns = (self.delta_ns.min(self.tau_ns) >> 3).max(1);
        let wait_ns = if flush.len() < room { step_ns } else { 0 };
        self.look_at = view.now_ns.saturating_add(wait_ns);
        flush
    }
}

impl FlushPolicy for DeltaFair {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.bandwidth.see(view, self.tau_ns);
        let flush = self.victims(view);
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}

/// What each tree is entitled to, at one instant.
struct Shares {
    active_since: Nanos,
    share_bytes: u64,
}

impl Shares {
    fn new(view: &FlushView, tau_ns: Nanos) -> Self {
        let mut shares = Self { active_since: view.now_ns.saturating_sub(tau_ns), share_bytes: 0 };
        let active = view.trees.iter().filter(|facts| shares.is_active(facts)).count();
        shares.share_bytes = view.budget_bytes.div_euclid(to_u64(active).max(1));
        shares
    }

    fn is_active(&self, facts: &TreeFacts) -> bool {
        // A tree never written has no last write.
        facts.last_write_ns >= self.active_since.max(u64::from(facts.memtable_bytes == 0))
    }

    /// The bytes of its memtable that a tree holds above its share.
    fn above(&self, facts: &TreeFacts) -> u64 {
        let share_bytes = if self.is_active(facts) { self.share_bytes } else { 0 };
        let held_bytes = facts.memtable_bytes.saturating_add(facts.immutable_bytes);
        held_bytes.saturating_sub(share_bytes).min(facts.memtable_bytes)
    }

    /// Those with most above their share first, until less is left than at the trigger and no more
    /// is above shares than may be; of equals the largest.
    fn victims(
        &self,
        view: &FlushView,
        room: usize,
        (trigger_bytes, mut over_bytes): (u64, u64),
    ) -> Vec<TreeId> {
        let mut left_bytes = view.mutable_bytes.saturating_add(view.reserved_bytes);
        let mut flush = Vec::new();
        if left_bytes < trigger_bytes && over_bytes == 0 {
            return flush;
        }
        // A pack beyond what is needed, so that a flush has as many.
        let goal_bytes = trigger_bytes.min(left_bytes).saturating_sub(view.pack_bytes);
        let rank = |_, facts: &TreeFacts| {
            Some((u64::MAX - self.above(facts), u64::MAX - facts.memtable_bytes))
        };
        for (_, slot) in first(view, room, rank) {
            let Some(facts) = view.trees.get(slot) else { break };
            if left_bytes < goal_bytes.max(1) && over_bytes == 0 {
                break;
            }
            over_bytes = over_bytes.saturating_sub(self.above(facts));
            left_bytes = left_bytes.saturating_sub(facts.memtable_bytes);
            flush.push(facts.tree);
        }
        flush
    }
}

/// Bytes that flushes wrote over the time in which there were any: both fade alike, so that their
/// ratio has no bias from the start.
#[derive(Clone, Debug, Default)]
struct Bandwidth {
    seen_ns: Nanos,
    seen_bytes: u64,
    busy: bool,
    bytes: u64,
    busy_ns: Nanos,
    new_bytes: u64,
    new_busy_ns: Nanos,
}

impl Bandwidth {
    fn see(&mut self, view: &FlushView, tau_ns: Nanos) {
        if self.busy {
            let passed_ns = view.now_ns.saturating_sub(self.seen_ns);
            self.new_busy_ns = self.new_busy_ns.saturating_add(passed_ns);
            let bytes = view.flushed_bytes.saturating_sub(self.seen_bytes);
            self.new_bytes = self.new_bytes.saturating_add(bytes);
        }
        self.busy = view.flush_job_count > 0;
        self.seen_ns = view.now_ns;
        self.seen_bytes = view.flushed_bytes;
        if self.new_busy_ns > tau_ns >> 3 {
            let (tau, passed) = (u128::from(tau_ns), u128::from(self.new_busy_ns));
            let kept = |n: u64| {
                let kept = (u128::from(n) * tau).div_euclid(tau + passed);
                u64::try_from(kept).unwrap_or(u64::MAX)
            };
            self.bytes = kept(self.bytes.saturating_add(self.new_bytes));
            self.busy_ns = kept(self.busy_ns.saturating_add(self.new_busy_ns));
            (self.new_bytes, self.new_busy_ns) = (0, 0);
        }
    }

    /// Bytes that flushes free in this time.
    fn frees(&self, ns: Nanos) -> u64 {
        let bytes = u128::from(self.bytes.saturating_add(self.new_bytes));
        let busy_ns = u128::from(self.busy_ns.saturating_add(self.new_busy_ns).max(1));
        u64::try_from((bytes * u128::from(ns)).div_euclid(busy_ns)).unwrap_or(u64::MAX)
    }
}
