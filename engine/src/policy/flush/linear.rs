//! Memory in proportion to write rates: the tree furthest above its share goes first.
//!
//! Tree `i`, which takes the part `p_i` of all written bytes, should hold `p_i` of the budget. Under
//! leveled compaction that split makes the least merge work, whatever the trees' sizes. At constant
//! rates it is what the oldest first write gives without any estimate; while rates change, it is as
//! good as the estimates are.
//!
//! # Source
//!
//! OPT in Luo and Carey, "Breaking Down Memory Walls in LSM-based Storage Systems", PVLDB 14(3),
//! 2021. Departures: rates are estimated while trees are written; the victim is the tree with the
//! largest memtable over its share, where there it is a tree above its share, and it is flushed
//! whole, not by key ranges; the trigger is the shared one of [`Shortage`].

use super::rates::{Excess, Rates, TAU_NS, UNITS_MAX, size_shift};
use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "linear",
        id: "P10",
        source: "Luo and Carey 2021",
        params: &[trigger_ratio(0.75), TAU_NS, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Linear::new(params)),
};

#[derive(Clone, Debug)]
struct Linear {
    shortage: Shortage,
    rates: Rates,
}

impl Linear {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params), rates: Rates::new(params) }
    }
}

impl FlushPolicy for Linear {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.rates.see(view);
        let (rates, shift) = (&self.rates, size_shift(view));
        self.shortage.decide(view, |slot, facts| Excess {
            size: (facts.memtable_bytes >> shift).min(UNITS_MAX),
            target: rates.units(slot, facts),
        })
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
