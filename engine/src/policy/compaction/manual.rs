//! Manual compaction of a range of keys: level by level, whatever the policy would do.
//!
//! Each step takes the tables of one level that touch the range into the next level that holds any.
//! The range itself does not grow from step to step, or a chain of tables that overlap across
//! levels would make every range the whole tree. The last step rewrites the last level's tables of
//! the range too, so that tombstones and hidden versions of it go.
//!
//! # Source
//!
//! `DBImpl::CompactRangeInternal` in facebook/rocksdb `db/db_impl/db_impl_compaction_flush.cc`
//! with `BottommostLevelCompaction::kForce`. Departure: the rewrite of the last level is part of
//! the step that reaches it.

use core::ops::Bound;

use bytes::Bytes;

use super::shape::{LAST_LEVEL, Span, occupied_below, push_down, push_runs_down, tables};
use crate::policy::view::{CompactionPlan, LevelsView, TableFacts};

/// A range of keys as a tree stores them.
pub type KeyRange = (Bound<Bytes>, Bound<Bytes>);

fn touches(range: &KeyRange, table: &TableFacts) -> bool {
    let starts = match &range.0 {
        Bound::Included(from) => table.largest >= *from,
        Bound::Excluded(from) => table.largest > *from,
        Bound::Unbounded => true,
    };
    let ends = match &range.1 {
        Bound::Included(to) => table.smallest <= *to,
        Bound::Excluded(to) => table.smallest < *to,
        Bound::Unbounded => true,
    };
    starts && ends
}

/// The step that takes a level's part of a range down, `None` where it holds none of it. Steps are
/// asked for from level 0 to the last but one; where that gives no step into the last level,
/// [`rewrite_last`] is to follow.
pub fn step(view: &LevelsView, level: u32, range: &KeyRange) -> Option<CompactionPlan> {
    let run = tables(view, level);
    let inputs: Vec<(u32, &TableFacts)> = if level == 0 {
        with_older(run, range).into_iter().map(|t| (0, t)).collect()
    } else {
        let touched = run.iter().filter(|t| touches(range, t));
        let span = Span::touching(run, &Span::around(touched)?);
        span.tables(run).iter().map(|t| (level, t)).collect()
    };
    if inputs.is_empty() {
        return None;
    }
    let level_to = occupied_below(view, level);
    let mut all = inputs;
    if level_to == LAST_LEVEL {
        // Its tables of the range widen the span, and those between join.
        let last = tables(view, LAST_LEVEL).iter().filter(|t| touches(range, t));
        all.extend(last.map(|t| (LAST_LEVEL, t)));
    }
    let plan = push_runs_down(view, all, level_to)?;
    Some(CompactionPlan { trivial_move: plan.trivial_move && level_to != LAST_LEVEL, ..plan })
}

/// The step that rewrites a range of the last level in place.
pub fn rewrite_last(view: &LevelsView, range: &KeyRange) -> Option<CompactionPlan> {
    let run = tables(view, LAST_LEVEL);
    let span = Span::around(run.iter().filter(|t| touches(range, t)))?;
    let inputs = Span::touching(run, &span).tables(run);
    push_down(view, (LAST_LEVEL, inputs), LAST_LEVEL)
}

/// Tables of L0 that touch a range, with every older one that must not stay above them, newest
/// first.
fn with_older<'a>(run: &'a [TableFacts], range: &KeyRange) -> Vec<&'a TableFacts> {
    let mut taken: Vec<&TableFacts> = Vec::new();
    for table in run {
        if touches(range, table) || taken.iter().any(|newer| Span::of(newer).touches(table)) {
            taken.push(table);
        }
    }
    taken
}
