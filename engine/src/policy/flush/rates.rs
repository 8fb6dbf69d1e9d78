//! How fast each tree takes writes, and fractions that compare memtables with it.
//!
//! A tree's rate is an exponentially weighted sum of the bytes written to it. Trees are looked over
//! in steps of at least an eighth of the time constant. A step of length `d` with `w` bytes written
//! turns a rate `r` into `(r + w) tau / (tau + d)`, so that a tree of constant rate holds what it
//! writes in `tau`, whatever the steps are. Between steps a tree's rate is `r + w`: all trees owe
//! the same factor, which no comparison of two sees. So a decision needs no step to be up to date.
//!
//! With `tau_ns` at 0 the clock is the bytes that all trees wrote, and the time constant is the
//! budget: as memory is full after as many bytes, estimates follow the memtables' own cycle whether
//! it takes seconds or hours, and do not fade while nobody writes.

use core::cmp::Ordering;

use crate::policy::view::{FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params};
use crate::types::{Nanos, TreeId};

/// The time constant of write rates.
pub(super) const TAU_NS: ParamInfo = ParamInfo {
    name: "tau_ns",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "time constant of write rates; 0 = as long as it takes to write the budget's bytes",
};

#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    tree: TreeId,
    seen_bytes: u64,
    bytes: u64,
}

impl Rate {
    /// With what was written since the last step.
    fn gained(&self, facts: &TreeFacts) -> u64 {
        if self.tree == facts.tree {
            self.bytes.saturating_add(facts.written_bytes.saturating_sub(self.seen_bytes))
        } else {
            facts.written_bytes
        }
    }
}

/// Write rates of all trees, by slot. A tree that took another's slot starts afresh.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    tau_ns: Nanos,
    stepped_at: Option<u64>,
    /// Bits dropped of every rate, so that the sum of all has half of [`UNIT_BITS`]' range.
    shift: u32,
    rates: Vec<Rate>,
}

impl Rates {
    pub(super) fn new(params: &Params<'_>) -> Self {
        let tau_ns = params.whole(TAU_NS.name);
        Self { tau_ns, stepped_at: None, shift: 0, rates: Vec::new() }
    }

    /// Makes a step where it is time for one. Called once for each view.
    pub(super) fn see(&mut self, view: &FlushView) {
        let (now, tau) = if self.tau_ns > 0 {
            (view.now_ns, self.tau_ns)
        } else {
            // Each byte ever written is mutable, immutable or flushed.
            let held_bytes = view.mutable_bytes.saturating_add(view.immutable_bytes);
            (held_bytes.saturating_add(view.flushed_bytes), view.budget_bytes.max(1))
        };
        let passed = self.stepped_at.map_or(0, |at| now.saturating_sub(at));
        if self.stepped_at.is_some() && passed < (tau >> 3).max(1) {
            return;
        }
        self.stepped_at = Some(now);
        let kept = (u128::from(tau) << 32).div_euclid(u128::from(tau) + u128::from(passed));
        self.rates.resize(view.trees.len(), Rate::default());
        let mut sum = 0_u64;
        for (rate, facts) in self.rates.iter_mut().zip(&view.trees) {
            let bytes = (u128::from(rate.gained(facts)) * kept) >> 32;
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            sum = sum.saturating_add(bytes);
            *rate = Rate { tree: facts.tree, seen_bytes: facts.written_bytes, bytes };
        }
        self.shift = bits_above(sum, UNIT_BITS - 1);
    }

    /// A tree's rate in units in which that of all trees has at most [`UNIT_BITS`]; never 0.
    pub(super) fn units(&self, slot: usize, facts: &TreeFacts) -> u64 {
        let bytes = self.rates.get(slot).map_or(facts.written_bytes, |rate| rate.gained(facts));
        (bytes >> self.shift).clamp(1, UNITS_MAX)
    }
}

/// Sizes and rates are compared with so many bits, so that a product of four fits into 128.
const UNIT_BITS: u32 = 32;

/// The largest size or rate in units.
pub(super) const UNITS_MAX: u64 = (1 << UNIT_BITS) - 1;

/// How many bits of `n` are above the lowest `bits`.
fn bits_above(n: u64, bits: u32) -> u32 {
    (u64::BITS - n.leading_zeros()).saturating_sub(bits)
}

/// Bits dropped of every size, so that the budget has half of [`UNIT_BITS`]' range.
pub(super) fn size_shift(view: &FlushView) -> u32 {
    bits_above(view.budget_bytes, UNIT_BITS - 1)
}

/// A tree's size over what it should be. The largest is first in the order, and nothing is divided:
/// two are compared by their cross products.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excess {
    pub(super) size: u64,
    pub(super) target: u64,
}

impl Ord for Excess {
    fn cmp(&self, other: &Self) -> Ordering {
        let own = u128::from(self.size) * u128::from(other.target);
        (u128::from(other.size) * u128::from(self.target)).cmp(&own)
    }
}

impl PartialOrd for Excess {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Excess {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Excess {}
