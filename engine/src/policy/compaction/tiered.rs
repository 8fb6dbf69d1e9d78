//! Sorted runs of like size are merged, as few times as the bounds on their number and on space
//! allow.
//!
//! L0 tables and each level below are sorted runs, in order of age. Nothing is due below a number
//! of runs. From there on, in this order: all runs are merged where those above the oldest are too
//! large beside it; else the newest neighbours of like size; else the newest runs, whatever their
//! size. Output goes to the deepest level that is empty above the next older run.
//!
//! * A merge takes runs that are neighbours in age, so no older data comes to lie above newer.
//! * Each merge leaves fewer runs, so merges end. Below the number at which runs are due there are
//!   fewer L0 tables too, and that number is never above the one at which writes are delayed: no
//!   writer waits for a merge that is not due.
//!
//! # Source
//!
//! `UniversalCompactionBuilder` in facebook/rocksdb `db/compaction/compaction_picker_universal.cc`
//! (`PickCompactionToReduceSizeAmp`, `PickCompactionToReduceSortedRuns`). Departures: L0 tables
//! leave only together with all older L0 tables, so that no output lies in L0; runs are due at the
//! number of runs itself, where RocksDB waits for one more when sizes differ; no incremental
//! merges, and no stop by total size.

use super::Entry;
use super::by_runs::ByRuns;
use super::shape::{Widths, due_runs, l0_runs, merge_runs, percent_of, run_score, runs};
use super::tombstones::{self, Triggers};
use crate::policy::view::{CompactionPlan, LevelsView};
use crate::policy::{ParamInfo, Params, PolicyInfo};
use crate::types::to_usize;

/// Shared with other policies that merge runs of like size.
pub(super) const SIZE_RATIO: ParamInfo = ParamInfo {
    name: "size_ratio_percent",
    min: 0.0,
    max: 1000.0,
    default: 1.0,
    about: "a run joins a merge of newer ones if it is at most this much larger than all of them",
};

/// As [`SIZE_RATIO`].
pub(super) const RUN_COUNT: ParamInfo = ParamInfo {
    name: "run_count",
    min: 0.0,
    max: 10_000.0,
    default: 0.0,
    about: "sorted runs from which some are merged; 0 = l0_compaction_count",
};

/// As [`SIZE_RATIO`].
pub(super) const WIDTH_MIN: ParamInfo = ParamInfo {
    name: "merge_width_min_count",
    min: 2.0,
    max: 10_000.0,
    default: 2.0,
    about: "fewest runs that are merged since their sizes are alike",
};

/// As [`SIZE_RATIO`].
pub(super) const WIDTH_MAX: ParamInfo = ParamInfo {
    name: "merge_width_max_count",
    min: 2.0,
    max: 10_000.0,
    default: 10_000.0,
    about: "most runs of one merge, unless space is short or no level is free for less",
};

const SPACE_AMP: ParamInfo = ParamInfo {
    name: "space_amp_percent",
    min: 1.0,
    max: 100_000.0,
    default: 200.0,
    about: "bytes above the oldest run, over those in it, from which all runs are merged",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "tiered",
        id: "-",
        source: "RocksDB universal",
        params: &[
            SIZE_RATIO,
            WIDTH_MIN,
            WIDTH_MAX,
            RUN_COUNT,
            SPACE_AMP,
            tombstones::PERCENT,
            tombstones::AGE,
        ],
        known_defects: &[],
    },
    build: |params| {
        Box::new(Tiered {
            widths: widths(params),
            run_count: params.whole(RUN_COUNT.name),
            space_amp_percent: params.whole(SPACE_AMP.name),
            tombstones: Triggers::new(params),
        })
    },
};

pub(super) fn widths(params: &Params<'_>) -> Widths {
    Widths {
        ratio_percent: params.whole(SIZE_RATIO.name),
        min: to_usize(params.whole(WIDTH_MIN.name)),
        max: to_usize(params.whole(WIDTH_MAX.name)),
    }
}

#[derive(Clone, Debug)]
struct Tiered {
    widths: Widths,
    run_count: u64,
    space_amp_percent: u64,
    tombstones: Triggers,
}

impl ByRuns for Tiered {
    fn score(&self, view: &LevelsView) -> u64 {
        let (runs, due) = (runs(view), due_runs(view, self.run_count));
        // One run has nothing to be merged with, but may have to leave L0.
        let alone = runs.len() < 2 && l0_runs(&runs) == 0;
        if runs.len() < due || alone { 0 } else { run_score(runs.len(), due) }
    }

    fn plan(&self, view: &LevelsView) -> Option<CompactionPlan> {
        if self.score(view) == 0 {
            return None;
        }
        let (runs, due) = (runs(view), due_runs(view, self.run_count));
        let (oldest, newer) = runs.split_last()?;
        let newer_bytes = newer.iter().fold(0_u64, |sum, r| sum.saturating_add(r.bytes));
        let picked = if newer_bytes >= percent_of(oldest.bytes, self.space_amp_percent) {
            (0, runs.len())
        } else {
            let alike = self.widths.alike(&runs);
            alike.or_else(|| self.widths.newest(&runs, due))?
        };
        merge_runs(view, &runs, picked)
    }

    fn tombstones(&self) -> &Triggers {
        &self.tombstones
    }
}
