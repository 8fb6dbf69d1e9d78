//! LevelDB's two steps: one short delay, then a full stop.
//!
//! Above a soft limit on immutable memtables or L0 tables each write pays one fixed delay; at a
//! hard limit writes stop. The single delay spreads over many writes the wait that one write would
//! otherwise bear alone, and hands the CPU to the compaction.
//!
//! # Source
//!
//! `DBImpl::MakeRoomForWrite` in google/leveldb `db/db_impl.cc` (commit 78a352f). Departures: the
//! number of immutable memtables is a limit, one there; it has a soft limit too; the stops of
//! `hard` on WAL and budget hold; and stops come before the delay, so that no write is delayed only
//! to stop.

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, StallCause, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::Nanos;

const DELAY_NS: ParamInfo = ParamInfo {
    name: "delay_ns",
    min: 1.0,
    max: 1e9,
    default: 1e6,
    about: "the one delay of a write above a soft limit",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "leveldb",
        id: "S2",
        source: "LevelDB",
        params: &[DELAY_NS],
        known_defects: &[],
    },
    build: |params| Box::new(LevelDb::new(params)),
};

#[derive(Clone, Debug)]
struct LevelDb {
    delay_ns: Nanos,
}

impl LevelDb {
    fn new(params: &Params<'_>) -> Self {
        Self { delay_ns: params.whole(DELAY_NS.name) }
    }
}

impl StallPolicy for LevelDb {
    fn decide(&mut self, view: &WriteView) -> Admission {
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        let cause = if view.immutable_count >= view.limits.memtable_slowdown_count {
            StallCause::Memtables
        } else if view.l0_count >= view.limits.l0_slowdown_count {
            StallCause::L0
        } else {
            return Admission::Admit;
        };
        if view.delayed_ns > 0 {
            return Admission::Admit;
        }
        Admission::Delay { delay_ns: self.delay_ns, cause, by: view.tree }
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
