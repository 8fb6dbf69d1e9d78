//! The largest memtable first: the fewest flushes for the most memory.
//!
//! Small memtables of slow tenants are never chosen while a larger one exists; what they hold may
//! pin the WAL for long.
//!
//! # Source
//!
//! `MemtablePool` in apache/cassandra, `dirty_memory_manager` in scylladb/scylladb and
//! facebook/rocksdb PR 15047 name the largest, each with a trigger of its own. Departures: the
//! trigger is the shared one of [`Shortage`], and victims come from all tenants.

use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "largest",
        id: "P2",
        source: "RocksDB PR 15047, Cassandra, IOx",
        params: &[trigger_ratio(0.75), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Largest::new(params)),
};

#[derive(Clone, Debug)]
struct Largest {
    shortage: Shortage,
}

impl Largest {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params) }
    }
}

impl FlushPolicy for Largest {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.shortage.decide(view, |_, facts| u64::MAX - facts.memtable_bytes)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
