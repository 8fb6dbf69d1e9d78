//! The largest memtable of a tree without too many tables goes first, unless another is twice it.
//!
//! A tree with many L0 tables waits for a compaction rather than get one more, which keeps reads
//! and compactions of a hot tree in bounds. If the largest memtable of all is more than twice the
//! largest of such trees, it is taken all the same, else pressure would lead to many small flushes.
//!
//! Memory is short from `lower_ratio` of the budget, memtables in a flush included. One memtable is
//! taken for each flush that can start at once; a tree with an immutable memtable is passed over.
//! A tree whose memtable reached `region_flush_bytes` is flushed though memory is not short, unless
//! it has too many tables.
//!
//! # Source
//!
//! `MemStoreFlusher::flushOneForGlobalPressure` in apache/hbase, with `flusher.count` threads, the
//! lower mark 0.95 and `blockingStoreFiles` 16. Departures: the budget stands for the upper mark;
//! L0 tables stand for store files; where flushes are packed, one names memtables enough to fill
//! it; a region whose flush waits for compactions is not let go after 90 s, as the engine seals at
//! its own cap; while nothing is immutable and the budget is full, one is named whatever the slots.

use std::collections::BTreeSet;

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, is_wedged, used_bytes};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::{TreeId, to_usize};

const LOWER_RATIO: ParamInfo = ParamInfo {
    name: "lower_ratio",
    min: 0.01,
    max: 1.0,
    default: 0.95,
    about: "share of the budget in use from which memtables are flushed",
};

const FILES_MAX: ParamInfo = ParamInfo {
    name: "files_max",
    min: 0.0,
    max: 1e6,
    default: 16.0,
    about: "a tree with more L0 tables is passed over, but for one twice as large as the others",
};

const REGION_FLUSH_BYTES: ParamInfo = ParamInfo {
    name: "region_flush_bytes",
    min: 0.0,
    max: 9e15,
    default: 0.0,
    about: "a memtable of this many bytes is flushed though memory is not short; 0 = never",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "hbase",
        id: "P6",
        source: "HBase",
        params: &[LOWER_RATIO, FILES_MAX, REGION_FLUSH_BYTES, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Hbase::new(params)),
};

#[derive(Clone, Debug)]
struct Hbase {
    shortage: Shortage,
    files_max: u64,
    region_flush_bytes: u64,
}

impl Hbase {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::at(params.ratio(LOWER_RATIO.name), params),
            files_max: params.whole(FILES_MAX.name),
            region_flush_bytes: params.whole(REGION_FLUSH_BYTES.name),
        }
    }

    fn has_few_files(&self, facts: &TreeFacts) -> bool {
        u64::from(facts.l0_count) <= self.files_max
    }

    /// Trees just written whose memtable reached its own limit.
    fn full_regions(&self, view: &FlushView, count: usize) -> Vec<TreeId> {
        if self.region_flush_bytes == 0 {
            return Vec::new();
        }
        let written = view.written_slots.iter().filter_map(|slot| view.trees.get(*slot));
        let full = written.filter(|facts| {
            facts.memtable_bytes >= self.region_flush_bytes
                && facts.immutable_count == 0
                && self.has_few_files(facts)
        });
        full.map(|facts| facts.tree).take(count).collect()
    }

    /// The next victims of memory pressure: `count` of them, or packed, as many as fill one flush.
    fn victims(&self, view: &FlushView, count: usize, flush: &mut Vec<TreeId>) {
        let packs = view.pack_bytes > 0 && count > 0;
        let count = if packs { view.trees.len() } else { count };
        let mut named: BTreeSet<TreeId> = flush.iter().copied().collect();
        // Each list may begin with what the other one named.
        let listed = count.saturating_add(flush.len());
        let size = |facts: &TreeFacts| {
            (facts.immutable_count == 0).then_some(u64::MAX - facts.memtable_bytes)
        };
        let mut any = first(view, listed, |_, facts| size(facts)).peekable();
        let mut few =
            first(
                view,
                listed,
                |_, facts| {
                    if self.has_few_files(facts) { size(facts) } else { None }
                },
            )
            .peekable();
        let mut named_bytes = 0_u64;
        while flush.len() < count && (!packs || named_bytes < view.pack_bytes) {
            let facts = |place: Option<&(u64, usize)>| view.trees.get(place?.1);
            let is_named =
                |place: &_| facts(Some(place)).is_some_and(|facts| named.contains(&facts.tree));
            while any.next_if(is_named).is_some() {}
            while few.next_if(is_named).is_some() {}
            let Some(largest) = facts(any.peek()) else { break };
            let victim = match facts(few.peek()) {
                Some(few) if largest.memtable_bytes <= few.memtable_bytes.saturating_mul(2) => few,
                Some(_) | None => largest,
            };
            named.insert(victim.tree);
            flush.push(victim.tree);
            named_bytes = named_bytes.saturating_add(victim.memtable_bytes);
        }
    }
}

impl FlushPolicy for Hbase {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let free = view.flush_slots.saturating_sub(view.flush_job_count);
        let count = to_usize(u64::from(free)).max(usize::from(is_wedged(view)));
        let mut flush = self.full_regions(view, count);
        if count > 0 && used_bytes(view) >= self.shortage.trigger_bytes(view) {
            self.victims(view, count, &mut flush);
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
