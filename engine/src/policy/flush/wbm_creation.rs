//! The memtable created first goes first, one a write group, by RocksDB's two triggers.
//!
//! * More than `mutable_ratio` of the budget is in memtables that take writes; or
//! * the whole memory usage, flushed memtables that are kept included, has reached the budget and
//!   at least `full_mutable_ratio` of it is in memtables that take writes.
//!
//! A memtable is created when the one before it is sealed, so a tree idle since then is the victim
//! as soon as it takes one write (#12157). A tree with an immutable memtable is passed over. There
//! is no bound on the number of flushes but that: each seal takes bytes out of the mutable ones.
//!
//! # Source
//!
//! `WriteBufferManager::ShouldFlush` and `DBImpl::HandleWriteBufferManagerFlush` in
//! facebook/rocksdb (1dfa729). Departures: bytes reserved by admitted writes count as used, as an
//! arena's do; so do those of a stopped write, which RocksDB admits, to stop the one after it; the
//! engine's stall policy has the part of `allow_stall`; where flushes are packed, a decision names
//! memtables enough to fill one.

use super::shortage::{IDLE_FLUSH_NS, SCOPE_WRITER, Shortage, name, scope, used_bytes};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};

const MUTABLE_RATIO: ParamInfo = ParamInfo {
    name: "mutable_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.875,
    about: "share of the budget in mutable bytes above which a memtable is flushed",
};

const FULL_MUTABLE_RATIO: ParamInfo = ParamInfo {
    name: "full_mutable_ratio",
    min: 0.0,
    max: 1.0,
    default: 0.5,
    about: "share of the budget in mutable bytes from which one is while memory usage is at it",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "wbm-creation",
        id: "P1",
        source: "RocksDB WriteBufferManager",
        params: &[MUTABLE_RATIO, FULL_MUTABLE_RATIO, SCOPE_WRITER, IDLE_FLUSH_NS],
        known_defects: &[
            "wedges: while memory usage is at the budget and less than half of it is mutable, as \
             with flushed memtables that are kept, no flush is ever named (rocksdb #11780, \
             harper #2490)",
        ],
    },
    build: |params| Box::new(WbmCreation::new(params)),
};

#[derive(Clone, Debug)]
struct WbmCreation {
    shortage: Shortage,
    full_mutable_ratio: Ratio,
    scope_writer: bool,
}

impl WbmCreation {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(MUTABLE_RATIO.name), params),
            full_mutable_ratio: params.ratio(FULL_MUTABLE_RATIO.name),
            scope_writer: params.whole(SCOPE_WRITER.name) == 1,
        }
    }

    fn should_flush(&self, view: &FlushView) -> bool {
        let kept_bytes = view.history_bytes.saturating_add(view.stopped_bytes);
        let usage_bytes = used_bytes(view).saturating_add(kept_bytes);
        view.mutable_bytes > self.shortage.trigger_bytes(view)
            || (usage_bytes >= view.budget_bytes
                && view.mutable_bytes >= self.full_mutable_ratio.of(view.budget_bytes))
    }
}

impl FlushPolicy for WbmCreation {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let mut flush = Vec::new();
        if self.should_flush(view) {
            let scope = scope(view, self.scope_writer);
            flush = name(view, 1, |slot, facts| {
                let in_scope = scope.as_ref().is_none_or(|slots| slots.contains(&slot));
                (in_scope && facts.immutable_count == 0).then_some(facts.memtable_created_ns)
            });
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
