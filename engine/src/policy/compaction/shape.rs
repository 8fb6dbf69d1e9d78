//! The shape of a tree: spans of keys, sorted runs in order of age, and plans that keep that order.
//!
//! * L0 tables, newest first, then each level below: that is the order of age, run by run. A plan
//!   takes data past a run only where no key of it is there, so that of each key newer versions
//!   stay above older ones.
//! * Output goes to level 1 or below: a table in L0 always came from a memtable, so a flush that
//!   ends meanwhile adds the newest one and nothing stands in its place.

use bytes::Bytes;

use crate::policy::view::{CompactionPlan, LEVEL_COUNT, LevelsView, TableFacts};
use crate::types::{to_u64, to_usize};

/// The score of what is at its target.
pub(super) const AT_TARGET: u64 = 1000;

/// The deepest level.
pub(super) const LAST_LEVEL: u32 = LEVEL_COUNT - 1;

/// A range of keys, both ends included.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) smallest: Bytes,
    pub(super) largest: Bytes,
}

impl Span {
    pub(super) fn of(table: &TableFacts) -> Self {
        Self { smallest: table.smallest.clone(), largest: table.largest.clone() }
    }

    /// From the smallest key of all these tables to the largest; `None` for no tables.
    pub(super) fn around<'a>(tables: impl Iterator<Item = &'a TableFacts>) -> Option<Self> {
        tables.map(Self::of).reduce(|a, b| Self {
            smallest: a.smallest.min(b.smallest),
            largest: a.largest.max(b.largest),
        })
    }

    /// Whether a table may hold a key of this range.
    pub(super) fn touches(&self, table: &TableFacts) -> bool {
        table.smallest <= self.largest && self.smallest <= table.largest
    }

    /// The tables of a sorted run that this range touches.
    pub(super) fn tables<'a>(&self, run: &'a [TableFacts]) -> &'a [TableFacts] {
        let from = run.partition_point(|t| t.largest < self.smallest);
        let rest = run.get(from..).unwrap_or_default();
        let count = rest.partition_point(|t| t.smallest <= self.largest);
        rest.get(..count).unwrap_or_default()
    }

    /// The range widened over the tables of a sorted run until no other table touches it.
    pub(super) fn touching(run: &[TableFacts], span: &Self) -> Self {
        let mut wide = span.clone();
        loop {
            let inside = wide.tables(run);
            let (Some(first), Some(last)) = (inside.first(), inside.last()) else { return wide };
            let grows = first.smallest < wide.smallest || last.largest > wide.largest;
            if !grows {
                return wide;
            }
            wide.smallest = first.smallest.clone().min(wide.smallest);
            wide.largest = last.largest.clone().max(wide.largest);
        }
    }
}

/// The tables of a level; none where the view has no such level.
pub(super) fn tables(view: &LevelsView, level: u32) -> &[TableFacts] {
    view.levels.get(to_usize(u64::from(level))).map_or(&[], Vec::as_slice)
}

pub(super) fn bytes_of<'a>(tables: impl IntoIterator<Item = &'a TableFacts>) -> u64 {
    tables.into_iter().fold(0, |sum, t| sum.saturating_add(t.bytes))
}

/// The first level below this one that holds tables, else the last one.
pub(super) fn occupied_below(view: &LevelsView, level: u32) -> u32 {
    (level + 1..LEVEL_COUNT).find(|l| !tables(view, *l).is_empty()).unwrap_or(LAST_LEVEL)
}

/// Whether tables below a level touch a range.
fn is_touched_below(view: &LevelsView, level: u32, span: &Span) -> bool {
    (level + 1..LEVEL_COUNT).any(|l| !span.tables(tables(view, l)).is_empty())
}

/// Whether a table may change its level without being rewritten. Not where its tombstones would go
/// by a rewrite: moved into the last level of its keys, they would stay until something else
/// rewrites it.
pub(super) fn may_move(view: &LevelsView, table: &TableFacts, level_to: u32) -> bool {
    table.tombstones == 0 || is_touched_below(view, level_to, &Span::of(table))
}

/// The plan that takes tables of one level, which nothing left behind in it touches unless it is
/// newer, down to `level_to`; no level between may hold keys of theirs. `None` where a running
/// compaction reads a table that it needs.
pub(super) fn push_down(
    view: &LevelsView,
    (level, inputs): (u32, &[TableFacts]),
    level_to: u32,
) -> Option<CompactionPlan> {
    let inputs: Vec<(u32, &TableFacts)> = inputs.iter().map(|t| (level, t)).collect();
    push_runs_down(view, inputs, level_to)
}

/// As [`push_down`], for tables of several levels, newest data first.
pub(super) fn push_runs_down<'a>(
    view: &'a LevelsView,
    mut inputs: Vec<(u32, &'a TableFacts)>,
    level_to: u32,
) -> Option<CompactionPlan> {
    let span = Span::around(inputs.iter().map(|(_, t)| *t))?;
    let lower = tables(view, level_to);
    let overlap = Span::touching(lower, &span).tables(lower);
    inputs.retain(|(level, _)| *level != level_to);
    inputs.extend(overlap.iter().map(|t| (level_to, t)));
    finish(view, &inputs, level_to)
}

/// Names the inputs of a plan, unless a running compaction reads one of them.
pub(super) fn finish(
    view: &LevelsView,
    inputs: &[(u32, &TableFacts)],
    level_to: u32,
) -> Option<CompactionPlan> {
    if inputs.is_empty() || inputs.iter().any(|(_, t)| t.compacting) {
        return None;
    }
    let trivial_move = match inputs {
        [(level, table)] => *level != level_to && may_move(view, table, level_to),
        _ => false,
    };
    let inputs = inputs.iter().map(|(level, t)| (*level, t.table)).collect();
    Some(CompactionPlan { tree: view.tree, inputs, level_to, trivial_move })
}

/// One sorted run: a table of L0, or a level below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) level: u32,
    pub(super) tables: &'a [TableFacts],
    pub(super) bytes: u64,
}

/// All sorted runs of a tree, newest first.
pub(super) fn runs(view: &LevelsView) -> Vec<Run<'_>> {
    let run = |level: u32, tables| Run { level, tables, bytes: bytes_of(tables) };
    let mut runs: Vec<Run<'_>> = tables(view, 0).chunks(1).map(|t| run(0, t)).collect();
    let deeper = (1..LEVEL_COUNT).filter(|level| !tables(view, *level).is_empty());
    runs.extend(deeper.map(|level| run(level, tables(view, level))));
    runs
}

/// The runs of L0 among these.
pub(super) fn l0_runs(runs: &[Run<'_>]) -> usize {
    runs.iter().take_while(|run| run.level == 0).count()
}

/// How runs of like size are found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    /// The next older run may be larger than those taken so far by this much.
    pub(super) ratio_percent: u64,
    /// Fewest runs that are merged since they are alike.
    pub(super) min: usize,
    /// Most runs of one merge, L0 tables that cannot stay behind apart.
    pub(super) max: usize,
}

impl Widths {
    /// The runs from which a merge may begin. L0 tables leave only with all older ones.
    fn starts(&self, runs: &[Run<'_>]) -> impl Iterator<Item = (usize, usize)> + use<> {
        let l0 = l0_runs(runs);
        let first = (l0 > 0).then(|| (l0.saturating_sub(self.max), l0));
        first.into_iter().chain((l0..runs.len()).map(|start| (start, start + 1)))
    }

    /// The newest neighbours of like size, as a range of `runs`.
    pub(super) fn alike(&self, runs: &[Run<'_>]) -> Option<(usize, usize)> {
        self.starts(runs).find_map(|(start, mut end)| {
            let taken = runs.get(start..end)?;
            let mut bytes = taken.iter().fold(0_u64, |sum, r| sum.saturating_add(r.bytes));
            while end - start < self.max
                && let Some(next) = runs.get(end)
                && percent_of(bytes, 100 + self.ratio_percent) >= next.bytes
            {
                bytes = bytes.saturating_add(next.bytes);
                end += 1;
            }
            (end - start >= self.min.min(self.max)).then_some((start, end))
        })
    }

    /// The newest runs, so many that fewer than `due` are left, within the width.
    pub(super) fn newest(&self, runs: &[Run<'_>], due: usize) -> Option<(usize, usize)> {
        let (start, end) = self.starts(runs).next()?;
        let wanted = (runs.len() + 2).saturating_sub(due).max(2).min(self.max);
        Some((start, end.max(start + wanted).min(runs.len())))
    }
}

/// Merges a range of runs into the deepest level that is empty above the next older run. The next
/// older run is taken in too where there is no such level.
pub(super) fn merge_runs(
    view: &LevelsView,
    runs: &[Run<'_>],
    (start, mut end): (usize, usize),
) -> Option<CompactionPlan> {
    let level_to = loop {
        match runs.get(end).map_or(LEVEL_COUNT, |next| next.level) {
            // Above a run in L1 there is only L0, and above one in L0 only newer data.
            0 | 1 => end += 1,
            level => break level - 1,
        }
    };
    let taken = runs.get(start..end)?;
    let inputs: Vec<(u32, &TableFacts)> =
        taken.iter().flat_map(|run| run.tables.iter().map(|t| (run.level, t))).collect();
    finish(view, &inputs, level_to)
}

/// How far a number of runs is above the number at which they are merged.
pub(super) fn run_score(count: usize, due: usize) -> u64 {
    to_u64(count).saturating_mul(AT_TARGET).div_euclid(to_u64(due.max(1)))
}

/// The number of runs at which they are merged: what a parameter says, 0 for the option on L0
/// tables, and never above the number of L0 tables at which writes are delayed, lest they stop for
/// ever.
pub(super) fn due_runs(view: &LevelsView, run_count: u64) -> usize {
    let wanted =
        if run_count == 0 { u64::from(view.l0_compaction_count) } else { run_count }.max(1);
    let guard = match view.l0_slowdown_count {
        0 => u64::MAX,
        count => u64::from(count),
    };
    to_usize(wanted.min(guard))
}

/// So many per cent of a number, rounded down; saturates.
pub(super) fn percent_of(n: u64, percent: u64) -> u64 {
    n.saturating_mul(percent).div_euclid(100)
}
