//! Tombstone triggers, the same for every policy: a table goes down since much of it, or something
//! old in it, is a tombstone.
//!
//! * Density counts below L0 only: L0 goes down by count soon, and a load of deletes would else
//!   rewrite the tree at each flush. It is on by default at one half: such a table costs scans more
//!   than it serves, and its rewrite frees more than it keeps.
//! * Age counts in every level. It is kept by the process that is open, from the time at which it
//!   first saw the table; output inherits the oldest age of its input. So a tombstone of a table
//!   begins its way to the last level within the age after its flush, or after the last open, and
//!   does not stop on the way.
//! * In the last level a table is rewritten in place, but only where no snapshot is older than any
//!   of its entries: then all its tombstones go, and it is not due again. While a snapshot is in
//!   the way, the table is looked at again after another such age, or at the tree's next change.
//!
//! # Source
//!
//! Density: `CompactOnDeletionCollector` in facebook/rocksdb
//! `utilities/table_properties_collectors`; departure: counted over a whole table, not in a sliding
//! window, since the manifest knows that much. Age: Sarkar, Papon, Staratzis, Athanassoulis:
//! "Lethe: A Tunable Delete-Aware LSM Engine", SIGMOD 2020 (FADE); departure: one age for the way
//! down, not one for each level. In the last level: `ComputeBottommostFilesMarkedForCompaction` in
//! `db/version_set.cc`.

use super::shape::{AT_TARGET, LAST_LEVEL, Span, occupied_below, push_down, tables};
use crate::policy::view::{CompactionPlan, LEVEL_COUNT, LevelsView, TableFacts};
use crate::policy::{ParamInfo, Params};
use crate::types::Nanos;

const SECOND_NS: Nanos = 1_000_000_000;

/// The parameter of the density trigger.
pub(super) const PERCENT: ParamInfo = ParamInfo {
    name: "tombstone_percent",
    min: 0.0,
    max: 100.0,
    default: 50.0,
    about: "tombstones among the entries of a table below L0 above which it goes down; 0 = off",
};

/// The parameter of the age trigger.
pub(super) const AGE: ParamInfo = ParamInfo {
    name: "tombstone_age_s",
    min: 0.0,
    max: 1e9,
    default: 0.0,
    about: "seconds after which a table's oldest tombstone goes down; 0 = off",
};

/// Which tombstones are too many or too old.
#[derive(Clone, Copy, Debug)]
pub(super) struct Triggers {
    percent: u64,
    age_ns: Nanos,
}

impl Triggers {
    pub(super) fn new(params: &Params<'_>) -> Self {
        let age_ns = params.whole(AGE.name).saturating_mul(SECOND_NS);
        Self { percent: params.whole(PERCENT.name), age_ns }
    }

    fn is_dense(&self, level: u32, table: &TableFacts) -> bool {
        let bound = table.entries.saturating_mul(self.percent);
        level > 0 && self.percent > 0 && table.tombstones.saturating_mul(100) > bound
    }

    /// When the table's age is due; `None` where it never is.
    fn old_at(&self, table: &TableFacts) -> Option<Nanos> {
        let ages = self.age_ns > 0 && table.tombstones > 0;
        ages.then(|| table.tombstones_since_ns.saturating_add(self.age_ns))
    }

    fn is_old(&self, view: &LevelsView, table: &TableFacts) -> bool {
        self.old_at(table).is_some_and(|at| at <= view.now_ns)
    }

    /// Whether a rewrite brings the table's tombstones on.
    fn is_free(view: &LevelsView, level: u32, table: &TableFacts) -> bool {
        level < LAST_LEVEL || table.max_seq <= view.oldest_snapshot
    }

    fn is_due(&self, view: &LevelsView, level: u32, table: &TableFacts) -> bool {
        (self.is_dense(level, table) || self.is_old(view, table))
            && Self::is_free(view, level, table)
    }

    /// Above 0 where a table is due.
    pub(super) fn urgency(&self, view: &LevelsView) -> u64 {
        let due = |level| tables(view, level).iter().any(|t| self.is_due(view, level, t));
        if (0..LEVEL_COUNT).any(due) { AT_TARGET } else { 0 }
    }

    /// Takes the first table that is due, upper levels first, into the next level that holds any.
    pub(super) fn plan(&self, view: &LevelsView) -> Option<CompactionPlan> {
        (0..LEVEL_COUNT).find_map(|level| {
            let run = tables(view, level);
            let due = run.iter().enumerate().filter(|(_, t)| self.is_due(view, level, t));
            let level_to = if level == LAST_LEVEL { level } else { occupied_below(view, level) };
            let mut plans = due.map(|(at, table)| {
                let inputs = if level == 0 {
                    // Older L0 tables must not stay above it.
                    run.get(at..).unwrap_or_default()
                } else {
                    Span::touching(run, &Span::of(table)).tables(run)
                };
                push_down(view, (level, inputs), level_to)
            });
            plans.find_map(|plan| plan)
        })
    }

    /// The next time at which a table gets due by its age alone, or may be freed by a snapshot.
    pub(super) fn wake_at(&self, view: &LevelsView) -> Option<Nanos> {
        let ages = (0..LEVEL_COUNT).flat_map(|level| {
            tables(view, level).iter().filter_map(move |t| {
                let at = self.old_at(t)?;
                let blocked = at <= view.now_ns && !Self::is_free(view, level, t);
                Some(if blocked { view.now_ns.saturating_add(self.age_ns) } else { at })
            })
        });
        ages.min()
    }
}
