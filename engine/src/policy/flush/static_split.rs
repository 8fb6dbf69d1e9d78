//! Every tree has an equal part of the budget, and one that reaches its part is flushed.
//!
//! No tenant can take memory from another, and none may use what others leave: idle tenants hold
//! parts of the budget that busy ones would need, and a busy one writes tables of one part each.
//!
//! A decision looks at the trees just written. Since parts shrink as trees come, all trees are
//! counted and looked over once in as many decisions as there are slots, and while no flush waits
//! or runs though all parts together are full. What such a look finds is bounded as in [`Shortage`].
//! A written tree that reached its part is flushed however many flushes wait, as a memtable at its
//! cap is. A budget full of reserved bytes, with no tree at its part and nothing immutable, has the
//! largest memtable flushed, as nothing else could end that.
//!
//! # Source
//!
//! A write buffer per tenant, as slatedb/slatedb (`l0_sst_size_bytes`) and fjall-rs/fjall
//! (`max_memtable_size`) have it and as an operator sets RocksDB's `write_buffer_size` for many
//! databases. Departures: parts follow the number of trees; `split_ratio` of the budget is split,
//! since memtables in a flush count too and stop writers at the budget.

use std::collections::BTreeSet;

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, is_wedged, name, room};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{TreeId, to_u64};

const SPLIT_RATIO: ParamInfo = ParamInfo {
    name: "split_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.75,
    about: "share of the budget that is split evenly; the rest is for memtables in a flush",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "static",
        id: "P0",
        source: "per-tenant memtables, SlateDB, Fjall",
        params: &[SPLIT_RATIO, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(StaticSplit::new(params)),
};

#[derive(Clone, Debug)]
struct StaticSplit {
    shortage: Shortage,
    /// At the last look over all trees; a part is counted by it until the next one.
    tree_count: u64,
    /// Decisions until that.
    look_in: u64,
}

impl StaticSplit {
    fn new(params: &Params<'_>) -> Self {
        let shortage = Shortage::at(params.ratio(SPLIT_RATIO.name), params);
        Self { shortage, tree_count: 0, look_in: 0 }
    }

    /// Whether all trees are to be looked over.
    fn look_is_due(&mut self, view: &FlushView) -> bool {
        let is_full = view.mutable_bytes >= self.shortage.trigger_bytes(view);
        if self.look_in > 0 && !(is_full && view.flush_job_count == 0) {
            self.look_in -= 1;
            return false;
        }
        self.look_in = to_u64(view.trees.len());
        true
    }

    fn part_bytes(&self, view: &FlushView) -> u64 {
        self.shortage.trigger_bytes(view).div_euclid(self.tree_count.max(1))
    }

    fn victims(&mut self, view: &FlushView) -> Vec<TreeId> {
        let looks = self.look_is_due(view);
        if looks {
            let exists = view.trees.iter().filter(|facts| facts.tree != TreeId::default());
            self.tree_count = to_u64(exists.count());
        }
        let part_bytes = self.part_bytes(view);
        let is_full = |slot: &usize| {
            let facts = view.trees.get(*slot);
            facts.is_some_and(|f| f.memtable_bytes > 0 && f.memtable_bytes >= part_bytes)
        };
        let mut slots: Vec<usize> = view.written_slots.iter().copied().filter(is_full).collect();
        if looks {
            let written: BTreeSet<usize> = slots.iter().copied().collect();
            let others = first(view, room(view).saturating_sub(slots.len()), |slot, facts| {
                let takes = is_full(&slot) && !written.contains(&slot);
                takes.then_some(u64::MAX - facts.memtable_bytes)
            });
            slots.extend(others.map(|(_, slot)| slot));
        }
        slots.iter().filter_map(|slot| Some(view.trees.get(*slot)?.tree)).collect()
    }
}

impl FlushPolicy for StaticSplit {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let mut flush = self.victims(view);
        if flush.is_empty() && is_wedged(view) {
            flush = name(view, 1, |_, facts| Some(u64::MAX - facts.memtable_bytes));
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
