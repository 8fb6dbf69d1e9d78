//! Each level but the first is one sorted run, ten times as large as the one above.
//!
//! L0 goes down as a whole once it has enough tables. A deeper level above its target gives one
//! table at a time to the level below, in turn by key, so that every part of the key space moves
//! alike. The level furthest above its target comes first.
//!
//! * Versions of one key never end up with the older above the newer: inputs of the upper level are
//!   widened until no table left behind touches their key range, and all tables below that the
//!   range touches take part.
//! * A table that a running compaction reads is in no plan.
//!
//! # Source
//!
//! `VersionSet::PickCompaction` and `AddBoundaryInputs` in google/leveldb `db/version_set.cc`
//! (commit 78a352f); scores as in facebook/rocksdb `db/version_set.cc` `ComputeCompactionScore`.
//! Departures: all of L0 goes at once; inputs are not widened further where that would be free; no
//! limit on the overlap with the level after next.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{CompactionPolicy, Entry};
use crate::policy::PolicyInfo;
use crate::policy::view::{CompactionPlan, LevelsView, TableFacts};
use crate::types::{TreeId, to_u64, to_usize};

/// Levels of a tree, L0 included.
const LEVEL_COUNT: u32 = 7;

/// The score of a level at its target.
const AT_TARGET: u64 = 1000;

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "leveled",
        id: "-",
        source: "LevelDB, RocksDB",
        params: &[],
        known_defects: &[],
    },
    build: |_| Box::new(Leveled::default()),
};

#[derive(Clone, Debug, Default)]
struct Leveled {
    /// Where the turn of a level's tables stands: the largest key taken last.
    cursors: BTreeMap<(TreeId, u32), Bytes>,
}

impl CompactionPolicy for Leveled {
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan> {
        let mut due: Vec<(u64, u32)> =
            (0..LEVEL_COUNT).map(|level| (score(view, level), level)).collect();
        due.retain(|(score, _)| *score > 0);
        due.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        due.into_iter().find_map(|(_, level)| match level {
            0 => plan_l0(view),
            _ => self.plan_level(view, level),
        })
    }

    fn urgency(&self, view: &LevelsView) -> u64 {
        (0..LEVEL_COUNT).map(|level| score(view, level)).max().unwrap_or(0)
    }

    fn forget(&mut self, tree: TreeId) {
        for level in 0..LEVEL_COUNT {
            self.cursors.remove(&(tree, level));
        }
    }

    fn clone_box(&self) -> Box<dyn CompactionPolicy> {
        Box::new(self.clone())
    }
}

impl Leveled {
    /// Moves one table of a level, and what must go with it, to the level below.
    fn plan_level(&mut self, view: &LevelsView, level: u32) -> Option<CompactionPlan> {
        let upper = tables(view, level);
        let key = (view.tree, level);
        let start = self.cursors.get(&key).map_or(0, |cursor| {
            let start = upper.partition_point(|t| t.smallest <= *cursor);
            if start < upper.len() { start } else { 0 }
        });
        let (before, after) = upper.split_at_checked(start)?;
        for picked in after.iter().chain(before) {
            let span = Span::touching(upper, &Span::of(picked));
            let inputs = span.tables(upper);
            if let Some(plan) = plan(view, level, inputs, &span) {
                self.cursors.insert(key, span.largest);
                return Some(plan);
            }
        }
        None
    }
}

/// Moves all of L0 into level 1.
fn plan_l0(view: &LevelsView) -> Option<CompactionPlan> {
    let inputs = tables(view, 0);
    let span = Span {
        smallest: inputs.iter().map(|t| &t.smallest).min()?.clone(),
        largest: inputs.iter().map(|t| &t.largest).max()?.clone(),
    };
    plan(view, 0, inputs, &span)
}

/// The plan for these inputs of a level, unless a running compaction reads a table it needs.
fn plan(
    view: &LevelsView,
    level: u32,
    inputs: &[TableFacts],
    span: &Span,
) -> Option<CompactionPlan> {
    let level_to = level + 1;
    let lower = tables(view, level_to);
    let overlap = Span::touching(lower, span).tables(lower);
    if inputs.iter().chain(overlap).any(|t| t.compacting) {
        return None;
    }
    let named = |level: u32| move |t: &TableFacts| (level, t.table);
    Some(CompactionPlan {
        tree: view.tree,
        inputs: inputs
            .iter()
            .map(named(level))
            .chain(overlap.iter().map(named(level_to)))
            .collect(),
        level_to,
        trivial_move: inputs.len() == 1 && overlap.is_empty(),
    })
}

/// A range of keys, both ends included.
struct Span {
    smallest: Bytes,
    largest: Bytes,
}

impl Span {
    fn of(table: &TableFacts) -> Self {
        Self { smallest: table.smallest.clone(), largest: table.largest.clone() }
    }

    /// The tables of a sorted run that this range touches.
    fn tables<'a>(&self, run: &'a [TableFacts]) -> &'a [TableFacts] {
        let from = run.partition_point(|t| t.largest < self.smallest);
        let rest = run.get(from..).unwrap_or_default();
        let count = rest.partition_point(|t| t.smallest <= self.largest);
        rest.get(..count).unwrap_or_default()
    }

    /// The range widened over the tables of a sorted run until no other table touches it.
    fn touching(run: &[TableFacts], span: &Self) -> Self {
        let mut wide = Self { smallest: span.smallest.clone(), largest: span.largest.clone() };
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
fn tables(view: &LevelsView, level: u32) -> &[TableFacts] {
    view.levels.get(to_usize(u64::from(level))).map_or(&[], Vec::as_slice)
}

/// How full a level is, in thousandths of its target; 0 where nothing of it is due.
fn score(view: &LevelsView, level: u32) -> u64 {
    let tables = tables(view, level);
    if level + 1 >= LEVEL_COUNT {
        return 0;
    }
    if level == 0 {
        let due = u64::from(view.l0_compaction_count.max(1));
        let score = to_u64(tables.len()).saturating_mul(AT_TARGET).div_euclid(due);
        let busy = tables.iter().any(|t| t.compacting);
        return if busy || score < AT_TARGET { 0 } else { score };
    }
    let target = (1..level).fold(view.level_base_bytes.max(1), |bytes, _| {
        bytes.saturating_mul(u64::from(view.level_ratio.max(2)))
    });
    let bytes =
        tables.iter().filter(|t| !t.compacting).fold(0_u64, |sum, t| sum.saturating_add(t.bytes));
    if bytes <= target { 0 } else { bytes.saturating_mul(AT_TARGET).div_euclid(target) }
}
