//! A pointer goes round the trees and skips those without a memtable.
//!
//! It needs no facts about a tree but whether it holds anything, and over one round each tree
//! gathers bytes in proportion to its write rate.
//!
//! # Source
//!
//! `GlobalVirtualBufferCache` in apache/asterixdb, which flushes at 0.9 of its budget. Departures:
//! the pointer goes over slots of the view, so a tree that takes a dropped tree's slot takes its
//! turn.

use super::shortage::{IDLE_FLUSH_NS, Shortage, distance, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "round-robin",
        id: "P9",
        source: "AsterixDB",
        params: &[trigger_ratio(0.9), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(RoundRobin::new(params)),
};

#[derive(Clone, Debug)]
struct RoundRobin {
    shortage: Shortage,
    next_slot: usize,
}

impl RoundRobin {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params), next_slot: 0 }
    }
}

impl FlushPolicy for RoundRobin {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let slots = view.trees.len();
        let pointer = if self.next_slot < slots { self.next_slot } else { 0 };
        let flush = self.shortage.victims(view, |slot, _| distance(pointer, slot, slots));
        if let Some(last) = flush.last()
            && let Some(slot) = view.trees.iter().position(|facts| facts.tree == *last)
        {
            self.next_slot = slot + 1;
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
