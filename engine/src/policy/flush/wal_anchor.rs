//! The memtable that holds on to the oldest WAL segment goes first, and the WAL has a cap too.
//!
//! Where memory is short, trees go by the oldest segment their memtable needs: close to the order
//! of first writes, and what a crash would replay stays short. Apart from that, while the log is
//! at `wal_ratio` of `wal_bytes_max`, trees whose memtable needs its oldest segment are flushed
//! though memory is not short: the largest of them, one at a time, while fewer flushes wait or run
//! than may run; or with `flush_all` all of them at once, whatever their number, which for many
//! cold trees is a storm of tiny tables. The engine's own cap, `wal_bytes_max`, comes after it.
//!
//! Trees are looked over for that cap when the log's oldest segment changes, and after a look that
//! left none only once the log has grown by a sixteenth of the cap.
//!
//! # Source
//!
//! `MaintenanceManager::FindBestOp` in apache/kudu (oldest WAL anchor under memory pressure, and
//! from 1 GiB of retained log), `hbase.regionserver.maxlogs` in apache/hbase (regions of the oldest
//! log), the commit log of scylladb/scylladb and `max_total_wal_size` in facebook/rocksdb (all that
//! pin it: `flush_all`). Departures: the trigger for memory is the shared one of [`Shortage`].

use std::collections::BTreeSet;

use super::shortage::{IDLE_FLUSH_NS, Shortage, first, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};
use crate::types::TreeId;

const WAL_RATIO: ParamInfo = ParamInfo {
    name: "wal_ratio",
    min: 0.0,
    max: 1.0,
    default: 0.75,
    about: "share of wal_bytes_max from which what needs the oldest segment is flushed; 0 = never",
};

const FLUSH_ALL: ParamInfo = ParamInfo {
    name: "flush_all",
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "1: the cap has all trees flushed that need the oldest segment, not one after another",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "wal-anchor",
        id: "P4",
        source: "Kudu, HBase maxlogs, Scylla commitlog",
        params: &[trigger_ratio(0.75), WAL_RATIO, FLUSH_ALL, IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(WalAnchor::new(params)),
};

#[derive(Clone, Debug)]
struct WalAnchor {
    shortage: Shortage,
    wal_ratio: Ratio,
    flush_all: bool,
    /// The oldest segment and the log's bytes when a look found no tree but those it named.
    none_left: Option<(u64, u64)>,
}

impl WalAnchor {
    fn new(params: &Params<'_>) -> Self {
        Self {
            shortage: Shortage::new(params),
            wal_ratio: params.ratio(WAL_RATIO.name),
            flush_all: params.whole(FLUSH_ALL.name) == 1,
            none_left: None,
        }
    }

    /// Whether the log is at its cap and trees may be there that need its oldest segment.
    fn look_is_due(&self, view: &FlushView, named: usize) -> bool {
        let cap_bytes = self.wal_ratio.of(view.wal_bytes_max);
        if cap_bytes == 0 || view.wal_bytes < cap_bytes {
            return false;
        }
        // What is named for memory goes by the same order: it has the one tree in it.
        let waits = named > 0 || view.flush_job_count >= view.flush_slots;
        if waits && !self.flush_all {
            return false;
        }
        self.none_left.is_none_or(|(segment, wal_bytes)| {
            let grown = wal_bytes.saturating_add((cap_bytes >> 4).max(1))..;
            segment != view.wal_oldest_segment
                || view.wal_bytes < wal_bytes
                || grown.contains(&view.wal_bytes)
        })
    }

    /// Adds trees that need the log's oldest segment.
    fn name_pinning(&mut self, view: &FlushView, flush: &mut Vec<TreeId>) {
        let named: BTreeSet<TreeId> = flush.iter().copied().collect();
        let before = flush.len();
        let count = if self.flush_all { view.trees.len() } else { 1 };
        for (_, slot) in first(view, count, |_, facts| {
            let pins = facts.wal_anchor_segment <= view.wal_oldest_segment;
            (pins && !named.contains(&facts.tree)).then_some(u64::MAX - facts.memtable_bytes)
        }) {
            flush.extend(view.trees.get(slot).map(|facts| facts.tree));
        }
        let none_left = self.flush_all || flush.len() == before;
        self.none_left = none_left.then_some((view.wal_oldest_segment, view.wal_bytes));
    }
}

impl FlushPolicy for WalAnchor {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        let mut flush = self.shortage.victims(view, |_, facts| facts.wal_anchor_segment);
        if self.look_is_due(view, flush.len()) {
            self.name_pinning(view, &mut flush);
        }
        self.shortage.with_idle(view, flush)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
