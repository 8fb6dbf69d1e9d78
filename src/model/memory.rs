//! Trees as a flush policy sees them, kept up to date write by write, as the engine's `pressure`
//! and `log_space` do with live trees.

use std::collections::BTreeMap;

use forebay_engine::options::Options;
use forebay_engine::policy::flush::{self, FlushPolicy};
use forebay_engine::policy::view::{FlushView, StallCause, StallLimits, TreeFacts};
use forebay_engine::types::{Nanos, TreeId, to_u64, to_usize};
use forebay_workloads::rng::Rng;

use super::ModelError;
use super::arrivals::{TreeSeed, Write};

/// An immutable memtable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) slot: usize,
    /// What it is charged.
    pub(super) charge_bytes: u64,
    /// Its keys and values: what its table holds.
    pub(super) user_bytes: u64,
    /// The oldest segment that holds an entry of it.
    pub(super) anchor: u64,
}

/// The log by segments that are filled one after the other.
#[derive(Clone, Debug)]
struct Log {
    segment_bytes: u64,
    limit_bytes: u64,
    /// The segment that takes records, and its bytes.
    newest: (u64, u64),
    oldest: u64,
    /// Memtables by the segment of their oldest entry.
    anchors: BTreeMap<u64, u64>,
    bytes_max_seen: u64,
}

impl Log {
    fn bytes(&self) -> u64 {
        let whole = self.newest.0.saturating_sub(self.oldest);
        whole.saturating_mul(self.segment_bytes).saturating_add(self.newest.1)
    }

    /// The newest of the oldest segments without which the log would be within its limit; never the
    /// one that takes records.
    fn over(&self) -> Option<u64> {
        let over_bytes = self.bytes().checked_sub(self.limit_bytes).filter(|bytes| *bytes > 0)?;
        let segments = over_bytes.div_ceil(self.segment_bytes);
        let last = self.oldest.saturating_add(segments).saturating_sub(1);
        let last = last.min(self.newest.0.saturating_sub(1));
        (last >= self.oldest).then_some(last)
    }

    /// Memtables that pin this segment or an older one.
    fn pin_count(&self, segment: u64) -> u64 {
        self.anchors.range(..=segment).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn unpin(&mut self, anchor: u64) {
        if let Some(count) = self.anchors.get_mut(&anchor) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.anchors.remove(&anchor);
            }
        }
        self.oldest = self.anchors.keys().next().map_or(self.newest.0, |first| *first);
    }
}

/// Memtables without what is in them.
#[derive(Debug)]
pub(super) struct Memory {
    view: FlushView,
    policy: Box<dyn FlushPolicy>,
    draws: Rng,
    /// Keys and values in each tree's memtable.
    user_bytes: Vec<u64>,
    /// By slot: the decision before which the tree last took a write.
    written_at: Vec<u64>,
    /// Decisions asked for, plus one.
    decision: u64,
    wake_at: Option<Nanos>,
    log: Log,
    limits: StallLimits,
    l0_compaction_count: u32,
    seals_serially: bool,
    /// Whether writers wait where there is no room.
    waits: bool,
}

/// Whom a decision names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Victims {
    /// Slots, each a flush of its own unless flushes are packed.
    pub(super) flush: Vec<usize>,
    /// Slots for one flush.
    pub(super) pack: Vec<usize>,
}

impl Memory {
    /// Empty memtables of these trees at time 0.
    pub(super) fn new(
        options: &Options,
        trees: &[TreeSeed],
        seed: u64,
    ) -> Result<Self, ModelError> {
        let policy = flush::build(&options.flush_policy)
            .map_err(|error| ModelError::Refused(error.to_string()))?;
        let facts = |(id, tree): (u64, &TreeSeed)| TreeFacts {
            tree: TreeId(id),
            memtable_bytes_max: options.memtable_cap_bytes(tree.tenant_count),
            ..TreeFacts::default()
        };
        Ok(Self {
            view: FlushView {
                budget_bytes: options.budget_bytes,
                flush_slots: options.flush_slots,
                pack_bytes: options.pack_target_bytes(),
                wal_bytes_max: options.wal_limit_bytes(),
                trees: (1..).zip(trees).map(facts).collect(),
                ..FlushView::default()
            },
            policy,
            draws: Rng::new(seed, "flush policy"),
            user_bytes: vec![0; trees.len()],
            written_at: vec![0; trees.len()],
            decision: 1,
            wake_at: None,
            log: Log {
                segment_bytes: options.wal_segment_bytes.max(1),
                limit_bytes: options.wal_limit_bytes(),
                newest: (1, 0),
                oldest: 1,
                anchors: BTreeMap::new(),
                bytes_max_seen: 0,
            },
            limits: options.stall_limits(),
            l0_compaction_count: options.l0_compaction_count.max(1),
            seals_serially: options.wal_seal_serial,
            waits: options.stall_policy.name != "none",
        })
    }

    /// Lets trees grow as large as the budget allows, for a comparison with theory.
    #[cfg(test)]
    pub(super) fn without_caps(&mut self) {
        for facts in &mut self.view.trees {
            facts.memtable_bytes_max = u64::MAX;
        }
    }

    /// Mutable and immutable bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        self.view.mutable_bytes.saturating_add(self.view.immutable_bytes)
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.view.budget_bytes
    }

    pub(super) fn log_bytes_max_seen(&self) -> u64 {
        self.log.bytes_max_seen
    }

    pub(super) fn decision_count(&self) -> u64 {
        self.decision.saturating_sub(1)
    }

    pub(super) fn wake_at(&self) -> Option<Nanos> {
        self.wake_at
    }

    /// Forgets a time to ask that has come.
    pub(super) fn asked_at(&mut self, now: Nanos) {
        self.wake_at = self.wake_at.filter(|at| *at > now);
    }

    /// Bytes in memtables of trees without a write since `since`.
    pub(super) fn idle_bytes(&self, since: Nanos) -> u64 {
        let idle = self.view.trees.iter().filter(|facts| facts.last_write_ns < since);
        idle.fold(0, |sum, facts| sum.saturating_add(facts.memtable_bytes))
    }

    /// Why a write must wait, by the rules of stall policy `hard`.
    pub(super) fn stop_cause(&self, write: &Write) -> Option<StallCause> {
        if !self.waits {
            return None;
        }
        let memtables = self.view.trees.get(write.slot).map_or(0, |facts| facts.immutable_count);
        if memtables >= self.limits.memtable_stop_count {
            Some(StallCause::Memtables)
        } else if self.limits.wal_bytes_stop > 0 && self.log.bytes() >= self.limits.wal_bytes_stop {
            Some(StallCause::Wal)
        } else if self.used_bytes().saturating_add(write.charge_bytes) > self.view.budget_bytes {
            Some(StallCause::Budget)
        } else {
            None
        }
    }

    /// Begins the next segment where the newest is full; whether it was.
    pub(super) fn roll_log(&mut self) -> bool {
        if self.log.newest.1 < self.log.segment_bytes {
            return false;
        }
        self.log.newest = (self.log.newest.0.saturating_add(1), 0);
        if self.log.anchors.is_empty() {
            self.log.oldest = self.log.newest.0;
        }
        true
    }

    /// Whether the log is longer than it may be.
    pub(super) fn is_log_over(&self) -> bool {
        self.log.bytes() > self.log.limit_bytes
    }

    /// Trees to be sealed since they pin a log that is too long, by the engine's rule: at most two
    /// for each flush slot wait for their flush at once, the oldest anchor first, of equal ones the
    /// tree written to longest ago. Where seals are not serial, the end of a segment seals every
    /// tree that pins the oldest one.
    pub(super) fn log_victims(&self, at_roll: bool) -> Vec<usize> {
        if !self.seals_serially {
            let all = || self.pinning(self.log.oldest);
            return if at_roll && self.is_log_over() { all() } else { Vec::new() };
        }
        let Some(over) = self.log.over() else { return Vec::new() };
        let mut pinning = self.pinning(over);
        // What pins them and takes no writes any more waits for its flush, or is in it.
        let waiting = to_usize(self.log.pin_count(over)).saturating_sub(pinning.len());
        let room = to_usize(u64::from(self.view.flush_slots) << 1);
        pinning.truncate(room.saturating_sub(waiting));
        pinning
    }

    /// Trees whose memtable pins the oldest segment; of serial seals as many as may wait at once.
    pub(super) fn pinning_oldest(&self) -> Vec<usize> {
        let mut pinning = self.pinning(self.log.oldest);
        if !self.seals_serially {
            return pinning;
        }
        pinning.truncate(to_usize(u64::from(self.view.flush_slots) << 1));
        pinning
    }

    fn pinning(&self, segment: u64) -> Vec<usize> {
        let pins = |f: &TreeFacts| f.memtable_bytes > 0 && f.wal_anchor_segment <= segment;
        let slots = self.view.trees.iter().enumerate().filter(|(_, facts)| pins(facts));
        let mut ranked: Vec<(u64, Nanos, usize)> =
            slots.map(|(slot, f)| (f.wal_anchor_segment, f.last_write_ns, slot)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, slot)| slot).collect()
    }

    /// The tree that the engine flushes itself where the policy names none: the one that pins the
    /// oldest segment, the larger one of equals.
    pub(super) fn override_victim(&self) -> Option<usize> {
        let dirty = self.view.trees.iter().enumerate().filter(|(_, f)| f.memtable_bytes > 0);
        let key = |f: &TreeFacts| (f.wal_anchor_segment, u64::MAX - f.memtable_bytes);
        dirty.min_by_key(|(_, facts)| key(facts)).map(|(slot, _)| slot)
    }

    /// A write goes into its tree's memtable. Returns whether the memtable reached its cap.
    pub(super) fn write(&mut self, write: &Write, now: Nanos) -> bool {
        let segment = self.log.newest.0;
        self.log.newest.1 = self.log.newest.1.saturating_add(write.log_bytes);
        self.log.bytes_max_seen = self.log.bytes_max_seen.max(self.log.bytes());
        let Some(facts) = self.view.trees.get_mut(write.slot) else { return false };
        if facts.memtable_bytes == 0 {
            facts.first_write_ns = now;
            facts.wal_anchor_segment = segment;
            let pins = self.log.anchors.entry(segment).or_insert(0);
            *pins = pins.saturating_add(1);
        }
        facts.memtable_bytes = facts.memtable_bytes.saturating_add(write.charge_bytes);
        facts.written_bytes = facts.written_bytes.saturating_add(write.charge_bytes);
        facts.last_write_ns = now;
        let full = facts.memtable_bytes >= facts.memtable_bytes_max;
        self.view.mutable_bytes = self.view.mutable_bytes.saturating_add(write.charge_bytes);
        if let Some(bytes) = self.user_bytes.get_mut(write.slot) {
            *bytes = bytes.saturating_add(write.user_bytes);
        }
        if let Some(at) = self.written_at.get_mut(write.slot)
            && *at < self.decision
        {
            *at = self.decision;
            self.view.written_slots.push(write.slot);
        }
        full
    }

    /// A tree's memtable becomes immutable; `None` where it has none.
    pub(super) fn seal(&mut self, slot: usize, now: Nanos) -> Option<Sealed> {
        let facts = self.view.trees.get_mut(slot).filter(|facts| facts.memtable_bytes > 0)?;
        let charge_bytes = core::mem::take(&mut facts.memtable_bytes);
        facts.immutable_bytes = facts.immutable_bytes.saturating_add(charge_bytes);
        facts.immutable_count = facts.immutable_count.saturating_add(1);
        facts.memtable_created_ns = now;
        facts.first_write_ns = 0;
        let anchor = core::mem::take(&mut facts.wal_anchor_segment);
        self.view.mutable_bytes = self.view.mutable_bytes.saturating_sub(charge_bytes);
        self.view.immutable_bytes = self.view.immutable_bytes.saturating_add(charge_bytes);
        self.view.immutable_count = self.view.immutable_count.saturating_add(1);
        let user_bytes = self.user_bytes.get_mut(slot).map(core::mem::take).unwrap_or_default();
        Some(Sealed { slot, charge_bytes, user_bytes, anchor })
    }

    /// An immutable memtable is in a table. Tables of L0 are merged as soon as there are as many as
    /// are to be compacted.
    pub(super) fn flushed(&mut self, sealed: &Sealed) {
        let bytes = sealed.charge_bytes;
        if let Some(facts) = self.view.trees.get_mut(sealed.slot) {
            facts.immutable_bytes = facts.immutable_bytes.saturating_sub(bytes);
            facts.immutable_count = facts.immutable_count.saturating_sub(1);
            facts.l0_count = facts.l0_count.saturating_add(1);
            if facts.l0_count >= self.l0_compaction_count {
                facts.l0_count = 0;
            }
        }
        self.view.immutable_bytes = self.view.immutable_bytes.saturating_sub(bytes);
        self.view.immutable_count = self.view.immutable_count.saturating_sub(1);
        self.view.flushed_bytes = self.view.flushed_bytes.saturating_add(bytes);
        self.log.unpin(sealed.anchor);
    }

    /// Asks the policy whom to seal; `flushes` is how many wait or run and what they have written.
    pub(super) fn decide(&mut self, now: Nanos, flushes: (usize, u64)) -> Victims {
        self.view.now_ns = now;
        self.view.flush_job_count = u32::try_from(flushes.0).unwrap_or(u32::MAX);
        self.view.spooled_bytes = flushes.1;
        self.view.wal_bytes = self.log.bytes();
        self.view.wal_oldest_segment = self.log.oldest;
        self.view.draw = self.draws.next_u64();
        let decision = self.policy.decide(&self.view);
        self.view.written_slots.clear();
        self.decision = self.decision.saturating_add(1);
        self.wake_at = decision.wake_at;
        let slots =
            |ids: &[TreeId]| ids.iter().map(|id| to_usize(id.0.saturating_sub(1))).collect();
        Victims { flush: slots(&decision.flush), pack: slots(&decision.pack) }
    }

    /// Memtable bytes that one flush of many trees has; 0 where each memtable is a flush.
    pub(super) fn pack_bytes(&self) -> u64 {
        self.view.pack_bytes
    }

    /// Trees.
    pub(super) fn tree_count(&self) -> u64 {
        to_u64(self.view.trees.len())
    }
}
