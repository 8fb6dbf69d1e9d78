//! A limit for every memtable that falls as memory fills: `alpha` times what is free.
//!
//! A tree is flushed once its memtable has more than `alpha x (M - V)` bytes, where `M` is the part
//! `limit_ratio` of the budget and `V` is what is reserved or held by memtables. One busy tree gets
//! `alpha / (1 + alpha)` of `M`, and `n` of them together `n alpha / (1 + n alpha)`: what stays free
//! is there for a tree that begins to write. Largest first; where flushes are packed and some tree is
//! above the limit, the largest others fill the pack, and no more is named than fills the slots.
//!
//! Trees are looked over only when one may be above the limit: memtables grow by writes alone, so the
//! larger of the largest one left at the last look and those written since bounds them all.
//!
//! # Source
//!
//! Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
//! IEEE/ACM Transactions on Networking 6(2), 1998. Departures: a switch drops what comes above the
//! limit, here the whole queue is flushed; and `M` is less than the budget, as an admitted batch is
//! reserved whole and would else wait though no memtable is above the limit.

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, job_room, room, used_bytes};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};
use crate::types::TreeId;

const LIMIT_RATIO: ParamInfo = ParamInfo {
    name: "limit_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.9,
    about: "share of the budget that memtables are to share",
};

const ALPHA_RATIO: ParamInfo = ParamInfo {
    name: "alpha_ratio",
    min: 0.125,
    max: 4.0,
    default: 1.0,
    about: "a memtable may have this many times the bytes that are free",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "dynamic-threshold",
        id: "P12",
        source: "Choudhury and Hahne 1998",
        params: &[LIMIT_RATIO, ALPHA_RATIO, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(DynamicThreshold::new(params)),
};

#[derive(Clone, Debug)]
struct DynamicThreshold {
    shortage: Shortage,
    alpha: Ratio,
    /// No memtable has more bytes.
    bound_bytes: u64,
}

impl DynamicThreshold {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(LIMIT_RATIO.name), params),
            alpha: params.ratio(ALPHA_RATIO.name),
            bound_bytes: u64::MAX,
        }
    }

    fn victims(&mut self, view: &FlushView) -> Vec<TreeId> {
        let written = view.written_slots.iter().filter_map(|slot| view.trees.get(*slot));
        let written_bytes = written.map(|facts| facts.memtable_bytes).max();
        self.bound_bytes = self.bound_bytes.max(written_bytes.unwrap_or(0));
        let free_bytes = self.shortage.trigger_bytes(view).saturating_sub(used_bytes(view));
        let limit_bytes = self.alpha.of(free_bytes);
        let room = room(view);
        let nobody = self.bound_bytes <= limit_bytes && limit_bytes > 0;
        if nobody || room == 0 || view.mutable_bytes == 0 {
            return Vec::new();
        }
        let mut flush = Vec::new();
        let mut named_bytes = 0_u64;
        let packs_bytes = view.pack_bytes.saturating_mul(job_room(view));
        self.bound_bytes = 0;
        for (smallness, slot) in first(view, room + 1, |_, f| Some(u64::MAX - f.memtable_bytes)) {
            let Some(facts) = view.trees.get(slot) else { break };
            let is_full = if view.pack_bytes > 0 {
                named_bytes >= packs_bytes && !flush.is_empty()
            } else {
                flush.len() >= room
            };
            let fills = !flush.is_empty() && named_bytes < view.pack_bytes;
            if is_full || (facts.memtable_bytes <= limit_bytes && !fills) {
                self.bound_bytes = u64::MAX - smallness;
                break;
            }
            named_bytes = named_bytes.saturating_add(facts.memtable_bytes);
            flush.push(facts.tree);
        }
        flush
    }
}

impl FlushPolicy for DynamicThreshold {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let flush = self.victims(view);
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
