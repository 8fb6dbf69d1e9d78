//! The largest memtable first: the fewest flushes for the most memory.
//!
//! Small memtables of slow tenants are never chosen while a larger one exists; what they hold may
//! pin the WAL for long. With `scope_writer` only trees just written are victims, as in RocksDB a
//! writer flushes its own database only: what idle tenants hold is never given back (speedb #155).
//!
//! # Source
//!
//! `MemtablePool` in apache/cassandra, `dirty_memory_manager` in scylladb/scylladb and
//! facebook/rocksdb PR 15047 name the largest, each with a trigger of its own. Departures: the
//! trigger is the shared one of [`Shortage`], and victims come from all tenants unless
//! `scope_writer` says otherwise.

use super::shortage::{IDLE_FLUSH_NS, SCOPE_WRITER, Shortage, scope, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "largest",
        id: "P2",
        source: "RocksDB PR 15047, Cassandra, IOx",
        params: &[trigger_ratio(0.75), SCOPE_WRITER, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Largest::new(params)),
};

#[derive(Clone, Debug)]
struct Largest {
    shortage: Shortage,
    scope_writer: bool,
}

impl Largest {
    fn new(params: &Params<'_>) -> Self {
        let scope_writer = params.whole(SCOPE_WRITER.name) == 1;
        Self { shortage: Shortage::new(params), scope_writer }
    }
}

impl FlushPolicy for Largest {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let scope = scope(view, self.scope_writer);
        let flush = self.shortage.victims_among(view, |slot, facts| {
            let in_scope = scope.as_ref().is_none_or(|slots| slots.contains(&slot));
            in_scope.then_some(u64::MAX - facts.memtable_bytes)
        });
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
