//! Full stops and nothing before them.
//!
//! A write stops while its tree has too many immutable memtables or L0 tables, while the WAL is as
//! large as it may be, or while the write does not fit into the budget. The first cause that holds,
//! in this order, is the one that is charged.
//!
//! # Source
//!
//! `ColumnFamilyData::GetWriteStallConditionAndCause` in facebook/rocksdb `db/column_family.cc`
//! (commit 1dfa729): memtables before L0. Departures: no stop on pending compaction bytes; the WAL
//! has a stop of its own; a write that would exceed the budget stops, where RocksDB stops the one
//! after it.

use super::{Entry, StallPolicy};
use crate::policy::PolicyInfo;
use crate::policy::view::{Admission, StallCause, WriteView};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "hard",
        id: "S1",
        source: "RocksDB's stops",
        params: &[],
        known_defects: &[],
    },
    build: |_| Box::new(Hard),
};

#[derive(Clone, Debug)]
struct Hard;

impl StallPolicy for Hard {
    fn decide(&mut self, view: &WriteView) -> Admission {
        stop(view).map_or(Admission::Admit, |cause| Admission::Stop { cause, by: view.tree })
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}

/// Why this write must stop, if it must.
pub(super) fn stop(view: &WriteView) -> Option<StallCause> {
    let limits = &view.limits;
    if view.immutable_count >= limits.memtable_stop_count {
        Some(StallCause::Memtables)
    } else if view.l0_count >= limits.l0_stop_count {
        Some(StallCause::L0)
    } else if limits.wal_bytes_stop > 0 && view.wal_bytes >= limits.wal_bytes_stop {
        Some(StallCause::Wal)
    } else if view.used_bytes.saturating_add(view.write_bytes) > view.budget_bytes {
        Some(StallCause::Budget)
    } else {
        None
    }
}
