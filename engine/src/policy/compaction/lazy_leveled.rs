//! Tiering above, leveling at the last level: cheap to write, and most data still is one run.
//!
//! Runs above the last level are merged as by `tiered`. From the same number of runs on, all of
//! them go into the last level at once where together they are as large as the level above the last
//! one may be: its size over the ratio between levels. Of the last level only tables that they
//! touch are rewritten. So the last level stays one run, and what lies above it is a small part.
//!
//! * A merge takes runs that are neighbours in age, so no older data comes to lie above newer.
//! * Each merge leaves fewer runs above the last level, so merges end; L0 tables are among them and
//!   stay below the number at which writes are delayed.
//!
//! # Source
//!
//! Dayan, Idreos: "Dostoevsky: Better Space-Time Trade-Offs for LSM-Tree Based Key-Value Stores via
//! Adaptive Removal of Superfluous Merging", SIGMOD 2018 (lazy leveling). Departures: a tree here
//! has one sorted run in each level below L0, so the runs of all upper tiers share one count and
//! are told apart by size, as RocksDB does it; a tier has no fixed size.

use super::Entry;
use super::by_runs::ByRuns;
use super::shape::{
    LAST_LEVEL, Run, Widths, bytes_of, due_runs, l0_runs, merge_runs, push_runs_down, run_score,
    runs, tables,
};
use super::tiered::{RUN_COUNT, SIZE_RATIO, WIDTH_MAX, WIDTH_MIN, widths};
use super::tombstones::{self, Triggers};
use crate::policy::view::{CompactionPlan, LevelsView, TableFacts};
use crate::policy::{ParamInfo, PolicyInfo};

const LEVEL_RATIO: ParamInfo = ParamInfo {
    name: "last_level_factor",
    min: 0.0,
    max: 1000.0,
    default: 0.0,
    about: "bytes of the last level over those above it at which these join it; 0 = level_ratio",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "lazy-leveled",
        id: "-",
        source: "Dayan, Idreos, SIGMOD 2018",
        params: &[
            LEVEL_RATIO,
            SIZE_RATIO,
            WIDTH_MIN,
            WIDTH_MAX,
            RUN_COUNT,
            tombstones::PERCENT,
            tombstones::AGE,
        ],
        known_defects: &[],
    },
    build: |params| {
        Box::new(LazyLeveled {
            factor: params.whole(LEVEL_RATIO.name),
            widths: widths(params),
            run_count: params.whole(RUN_COUNT.name),
            tombstones: Triggers::new(params),
        })
    },
};

#[derive(Clone, Debug)]
struct LazyLeveled {
    factor: u64,
    widths: Widths,
    run_count: u64,
    tombstones: Triggers,
}

/// The runs above the last level.
fn upper_runs(view: &LevelsView) -> Vec<Run<'_>> {
    let mut runs = runs(view);
    runs.retain(|run| run.level < LAST_LEVEL);
    runs
}

impl LazyLeveled {
    /// Whether what lies above the last level is as large as it may be.
    fn is_full(&self, view: &LevelsView, upper: &[Run<'_>]) -> bool {
        let factor =
            if self.factor == 0 { u64::from(view.level_ratio.max(2)) } else { self.factor };
        let bytes = upper.iter().fold(0_u64, |sum, r| sum.saturating_add(r.bytes));
        bytes.saturating_mul(factor) >= bytes_of(tables(view, LAST_LEVEL))
    }
}

impl ByRuns for LazyLeveled {
    fn score(&self, view: &LevelsView) -> u64 {
        let (upper, due) = (upper_runs(view), due_runs(view, self.run_count));
        // One run that is no L0 table and not large enough stays where it is.
        let settled = upper.len() < 2 && l0_runs(&upper) == 0 && !self.is_full(view, &upper);
        if upper.len() < due || settled { 0 } else { run_score(upper.len(), due) }
    }

    fn plan(&self, view: &LevelsView) -> Option<CompactionPlan> {
        if self.score(view) == 0 {
            return None;
        }
        let (upper, due) = (upper_runs(view), due_runs(view, self.run_count));
        if self.is_full(view, &upper) {
            let inputs: Vec<(u32, &TableFacts)> =
                upper.iter().flat_map(|run| run.tables.iter().map(|t| (run.level, t))).collect();
            return push_runs_down(view, inputs, LAST_LEVEL);
        }
        let alike = self.widths.alike(&upper);
        let picked = alike.or_else(|| self.widths.newest(&upper, due))?;
        merge_runs(view, &runs(view), picked)
    }

    fn tombstones(&self) -> &Triggers {
        &self.tombstones
    }
}
