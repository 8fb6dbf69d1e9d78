//! The oldest first write among the memtables at or above the mean size goes first.
//!
//! Oldest-first alone empties a tenant's nearly empty memtable as soon as its turn comes; largest
//! alone never takes memory back from a tenant that went idle. Here a victim is worth a table of
//! its own, as no memtable below the mean of the dirty ones is taken while there is another, and
//! what went idle at a fair size still leaves by age. Nothing is estimated, so nothing is wrong
//! when tenants come and go. Where all at or above the mean are named and memory is still short,
//! the rest follow, oldest first write first.
//!
//! # Source
//!
//! None: it joins the victims of neondatabase/neon (size against the mean of open layers, at its
//! `max_dirty` limit) with the order of `TabletMemoryManager` in yugabyte/yugabyte-db. The trigger
//! is the shared one of [`Shortage`].

use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "above-mean-oldest",
        id: "P7b",
        source: "Neon's victims in YugabyteDB's order",
        params: &[trigger_ratio(0.75), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(AboveMeanOldest::new(params)),
};

#[derive(Clone, Debug)]
struct AboveMeanOldest {
    shortage: Shortage,
}

impl AboveMeanOldest {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params) }
    }
}

/// Comes before the first write of a memtable below the mean; no clock reaches it.
const BELOW: u64 = 1 << 63;

/// The least bytes that are at or above the mean of the memtables there are.
fn mean_bytes(trees: &[TreeFacts]) -> u64 {
    let dirty = trees.iter().map(|facts| facts.memtable_bytes).filter(|bytes| *bytes > 0);
    let (count, sum) = dirty.fold((0_u64, 0_u64), |(n, sum), b| (n + 1, sum.saturating_add(b)));
    sum.div_ceil(count.max(1))
}

impl FlushPolicy for AboveMeanOldest {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let mut flush = Vec::new();
        if self.shortage.is_short(view) {
            let mean_bytes = mean_bytes(&view.trees);
            flush = self.shortage.victims(view, |_, facts| {
                let below = if facts.memtable_bytes < mean_bytes { BELOW } else { 0 };
                facts.first_write_ns.min(BELOW - 1) | below
            });
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
