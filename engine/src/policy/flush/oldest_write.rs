//! The memtable whose first write is oldest goes first: all trees are flushed in one cycle.
//!
//! Over one cycle a tree gathers bytes in proportion to its write rate, which for equal trees is
//! the best split of memory; and nothing pins the WAL for longer than a cycle. A tree that was idle
//! does not become the victim by its first write, as it would if age were counted from the creation
//! of an empty memtable.
//!
//! # Source
//!
//! `TabletMemoryManager` in yugabyte/yugabyte-db (oldest write in a mutable memtable) and
//! tikv/rocksdb PR 305. Departures: the trigger is the shared one of [`Shortage`], without polling.

use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "oldest-write",
        id: "P3",
        source: "YugabyteDB, TiKV v2",
        params: &[trigger_ratio(0.75), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(OldestWrite::new(params)),
};

#[derive(Clone, Debug)]
struct OldestWrite {
    shortage: Shortage,
}

impl OldestWrite {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params) }
    }
}

impl FlushPolicy for OldestWrite {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.shortage.decide(view, |_, facts| facts.first_write_ns)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
