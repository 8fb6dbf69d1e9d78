//! Memory in proportion to the square root of write rates: the fewest flushes there can be.
//!
//! A tree with rate `r` and memtable `m` is flushed `r / m` times a second. With the sum of all `m`
//! given, the sum of `r / m` is least where each `m` goes with `sqrt(r)`, as the order quantities of
//! many goods in one warehouse do. Named is the tree with the largest `m / sqrt(r)`, found as the
//! largest `m^2 / r`, so that no root is taken.
//!
//! Where a flush costs `c` and a byte merged costs `a`, the best sizes have the same
//! `p (a / m + c / m^2)` for all trees: in proportion to rates for memtables far above
//! `crossover_bytes` = `c / a`, to their roots for those far below. The mixed rule names the tree for
//! which that value is least, which is the largest `m^2 / (r (m + crossover_bytes))`.
//!
//! # Source
//!
//! Own derivation, by Lagrange; the square-root rule for flushes is that of the economic order
//! quantity under a common limit (Hadley and Whitin, "Analysis of Inventory Systems", 1963). The
//! trigger is the shared one of [`Shortage`].

use super::rates::{Excess, Rates, TAU_NS, UNITS_MAX, size_shift};
use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo};

const CROSSOVER_BYTES: ParamInfo = ParamInfo {
    name: "crossover_bytes",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "memtables far above this go with the rate, not with its root; 0 = none do",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "sqrt",
        id: "P11",
        source: "order quantities, mixed with Luo and Carey 2021",
        params: &[trigger_ratio(0.75), TAU_NS, CROSSOVER_BYTES, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Sqrt::new(params)),
};

#[derive(Clone, Debug)]
struct Sqrt {
    shortage: Shortage,
    rates: Rates,
    crossover_bytes: u64,
}

impl Sqrt {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::new(params),
            rates: Rates::new(params),
            crossover_bytes: params.whole(CROSSOVER_BYTES.name),
        }
    }
}

impl FlushPolicy for Sqrt {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.rates.see(view);
        let (rates, shift) = (&self.rates, size_shift(view));
        let crossover = (self.crossover_bytes > 0).then(|| (self.crossover_bytes >> shift).max(1));
        self.shortage.decide(view, |slot, facts| {
            let size = (facts.memtable_bytes >> shift).min(UNITS_MAX);
            let beside = crossover.map_or(1, |units| size.saturating_add(units).min(UNITS_MAX));
            Excess { size: size * size, target: rates.units(slot, facts) * beside }
        })
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
