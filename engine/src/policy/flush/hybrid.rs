//! Cold trees share one flush, hot ones have their own.
//!
//! Ten thousand memtables of a few records make as many tiny tables. So trees whose memtable never
//! reached `promote_ratio` of an even split of the budget form the **pool**, which is chosen as if
//! it were one tree and leaves in one flush and one file. A tree is promoted out of it by a memtable
//! of that size, and goes back when one of less than `demote_ratio` of an even split was sealed,
//! whoever asked for that: in between it stays what it is. With steady writes the pool has the trees
//! below the average, and a decision names either all of them or a few large ones. Idle trees leave
//! in one file too, hot ones among them.
//!
//! The victim is the largest of the pool and the promoted trees, or with `oldest` the one with the
//! oldest first write. When memory is short is the shared rule of [`Shortage`].
//!
//! # Source
//!
//! The question between one shared memtable (CockroachDB on Pebble) and one for each tenant
//! (RocksDB's column families); a third way that no system read for this project ships. Departures
//! from a pool in the full sense: in memory each cold tree keeps a skip list of its own, since an
//! iterator, a fork and a drop are of one tree; the file is shared, the tables in it are not.

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, room, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView, TreeFacts};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};
use crate::types::{TreeId, to_u64};

const PROMOTE_RATIO: ParamInfo = ParamInfo {
    name: "promote_ratio",
    min: 0.001,
    max: 1000.0,
    default: 1.0,
    about: "of budget / trees: a memtable of this size takes its tree out of the pool",
};

const DEMOTE_RATIO: ParamInfo = ParamInfo {
    name: "demote_ratio",
    min: 0.0,
    max: 1000.0,
    default: 0.5,
    about: "of budget / trees: sealed with less than this, a tree goes back to the pool",
};

const OLDEST: ParamInfo = ParamInfo {
    name: "oldest",
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "1 = the oldest first write is the victim, 0 = the largest",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "hybrid",
        id: "P15",
        source: "a shared memtable for cold tenants",
        params: &[trigger_ratio(0.75), PROMOTE_RATIO, DEMOTE_RATIO, OLDEST, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Hybrid::new(params)),
};

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    tree: TreeId,
    is_hot: bool,
    /// Bytes ever written to the tree but to its memtable.
    sealed_bytes: u64,
}

#[derive(Clone, Debug)]
struct Hybrid {
    shortage: Shortage,
    promote: Ratio,
    demote: Ratio,
    oldest: bool,
    /// By slot.
    standings: Vec<Standing>,
}

impl Hybrid {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::new(params),
            promote: params.ratio(PROMOTE_RATIO.name),
            demote: params.ratio(DEMOTE_RATIO.name),
            oldest: params.whole(OLDEST.name) > 0,
            standings: Vec::new(),
        }
    }

    /// Promotes and demotes the trees that were written.
    fn see(&mut self, view: &FlushView) {
        self.standings.resize(view.trees.len(), Standing::default());
        let even_bytes = view.budget_bytes.div_euclid(to_u64(view.trees.len()).max(1));
        let promote_bytes = self.promote.of(even_bytes).max(1);
        let demote_bytes = self.demote.of(even_bytes).min(promote_bytes);
        for slot in &view.written_slots {
            let pair = view.trees.get(*slot).zip(self.standings.get_mut(*slot));
            let Some((facts, standing)) = pair else { continue };
            if standing.tree != facts.tree {
                *standing = Standing { tree: facts.tree, ..Standing::default() };
            }
            let sealed_bytes = facts.written_bytes.saturating_sub(facts.memtable_bytes);
            let bytes = sealed_bytes.saturating_sub(standing.sealed_bytes);
            standing.sealed_bytes = sealed_bytes;
            standing.is_hot &= bytes == 0 || bytes >= demote_bytes;
            standing.is_hot |= bytes.max(facts.memtable_bytes) >= promote_bytes;
        }
    }

    fn is_hot(&self, slot: usize, facts: &TreeFacts) -> bool {
        self.standings.get(slot).is_some_and(|s| s.is_hot && s.tree == facts.tree)
    }

    fn rank(&self, bytes: u64, first_write_ns: u64) -> u64 {
        if self.oldest { first_write_ns } else { u64::MAX - bytes }
    }

    /// The trees with a memtable in the pool, their bytes and the pool's rank.
    fn pool(&self, view: &FlushView) -> (Vec<TreeId>, u64, u64) {
        let (mut trees, mut bytes, mut first_write_ns) = (Vec::new(), 0_u64, u64::MAX);
        for (slot, facts) in view.trees.iter().enumerate() {
            if facts.memtable_bytes > 0 && !self.is_hot(slot, facts) {
                trees.push(facts.tree);
                bytes = bytes.saturating_add(facts.memtable_bytes);
                first_write_ns = first_write_ns.min(facts.first_write_ns);
            }
        }
        (trees, bytes, self.rank(bytes, first_write_ns))
    }

    /// The promoted trees named, and those of the pool if it is.
    fn victims(&self, view: &FlushView) -> (Vec<TreeId>, Vec<TreeId>) {
        let (mut flush, mut pack) = (Vec::new(), Vec::new());
        let mut left_bytes = view.mutable_bytes.saturating_add(view.reserved_bytes);
        let mut room = room(view);
        let trigger_bytes = self.shortage.trigger_bytes(view);
        if left_bytes < trigger_bytes || room == 0 {
            return (flush, pack);
        }
        let trigger_bytes = trigger_bytes.saturating_sub(view.pack_bytes);
        let (mut pool, pool_bytes, pool_rank) = self.pool(view);
        let mut hot = first(view, room, |slot, facts| {
            let rank = self.rank(facts.memtable_bytes, facts.first_write_ns);
            self.is_hot(slot, facts).then_some(rank)
        })
        .peekable();
        while left_bytes >= trigger_bytes && room > 0 {
            room -= 1;
            let next = hot.peek().map(|(rank, _)| *rank);
            if !pool.is_empty() && next.is_none_or(|rank| pool_rank <= rank) {
                pack = core::mem::take(&mut pool);
                left_bytes = left_bytes.saturating_sub(pool_bytes);
                continue;
            }
            let Some(facts) = hot.next().and_then(|(_, slot)| view.trees.get(slot)) else { break };
            left_bytes = left_bytes.saturating_sub(facts.memtable_bytes);
            flush.push(facts.tree);
        }
        (flush, pack)
    }
}

impl FlushPolicy for Hybrid {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.see(view);
        let (mut flush, mut pack) = self.victims(view);
        let hot = flush.len();
        flush.append(&mut pack);
        let mut decision = self.shortage.with_idle(view, flush);
        decision.pack = decision.flush.split_off(hot);
        decision
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
