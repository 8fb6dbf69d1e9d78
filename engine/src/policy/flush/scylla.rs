//! The largest memtable goes first, one flush at a time, and what a flush has written counts as
//! free before it is.
//!
//! Memory is short while the *unspooled* bytes, those in memtables and not in a table yet, are
//! above a soft limit. They fall while a flush writes, so a writer that waits for memory is let go
//! by the speed of the disk and not by the end of a long flush. One flush writes tables at a time;
//! the next one may start while the one before it syncs and installs its table.
//!
//! # Source
//!
//! `dirty_memory_manager` in scylladb/scylladb (f4a4091): of a shard's memory half may be dirty,
//! unspooled bytes above half of that block requests (the hard limit), above 0.6 of the hard limit
//! memtables are flushed (the soft one). Departures: the budget stands for the shard's dirty
//! memory, as the engine stops writers at the budget where Scylla does at that; reserved bytes
//! count as unspooled. Where flushes are packed, one names memtables enough to fill it.

use super::shortage::{IDLE_FLUSH_NS, Shortage, name, room, used_bytes};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};

const HARD_RATIO: ParamInfo = ParamInfo {
    name: "hard_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.5,
    about: "share of the budget that is the hard limit of unspooled bytes",
};

const SOFT_RATIO: ParamInfo = ParamInfo {
    name: "soft_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.6,
    about: "share of the hard limit above which memtables are flushed",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "scylla",
        id: "P5",
        source: "ScyllaDB",
        params: &[HARD_RATIO, SOFT_RATIO, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Scylla::new(params)),
};

#[derive(Clone, Debug)]
struct Scylla {
    shortage: Shortage,
    soft_ratio: Ratio,
}

impl Scylla {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(HARD_RATIO.name), params),
            soft_ratio: params.ratio(SOFT_RATIO.name),
        }
    }
}

impl FlushPolicy for Scylla {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let unspooled_bytes = used_bytes(view).saturating_sub(view.spooled_bytes);
        let soft_bytes = self.soft_ratio.of(self.shortage.trigger_bytes(view));
        let mut flush = Vec::new();
        let is_writing = view.flush_job_count > 0 && view.spooled_bytes < view.immutable_bytes;
        if unspooled_bytes > soft_bytes && !is_writing {
            let count = room(view).min(1);
            flush = name(view, count, |_, facts| Some(u64::MAX - facts.memtable_bytes));
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
