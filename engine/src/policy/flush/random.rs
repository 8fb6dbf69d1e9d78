//! A random tree with a memtable goes first: the floor that a rule must beat to be worth having.
//!
//! All trees are put in an order that the view's one draw decides, so that each is as likely as
//! any other to be a victim, and a decision that needs many has them from the same draw.
//!
//! # Source
//!
//! The baseline of replacement studies; no system read for this project ships it. The trigger is
//! the shared one of [`Shortage`].

use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};
use crate::types::to_u64;

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "random",
        id: "-",
        source: "a floor for comparison",
        params: &[trigger_ratio(0.75), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Random::new(params)),
};

#[derive(Clone, Debug)]
struct Random {
    shortage: Shortage,
}

impl Random {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params) }
    }
}

impl FlushPolicy for Random {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.shortage.decide(view, |slot, _| place(view.draw, slot))
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}

/// A slot's place in the order that a draw gives: output `slot` of `SplitMix64` seeded with it
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn place(draw: u64, slot: usize) -> u64 {
    let step = to_u64(slot).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = draw.wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
