//! Each level but the first is one sorted run, ten times as large as the one above.
//!
//! L0 goes down once it has enough tables: as a whole, or only its oldest table where that one
//! touches nothing and need not be rewritten. A deeper level above its target gives one table at a
//! time to the level below, in turn by key, so that every part of the key space moves alike. The
//! level furthest above its target comes first.
//!
//! With `dynamic` = 1 the targets follow the data: the largest level is at its target, each level
//! above is smaller by the ratio, and L0 goes into the first level whose target would not fall
//! below the base size over the ratio. So all but a tenth of the data is in the last level, and a
//! small tree has one level. With 0, level 1 has the base size and levels fill from above.
//!
//! * Versions of one key never end up with the older above the newer: inputs of the upper level are
//!   widened until no table left behind touches their key range, and all tables below that the
//!   range touches take part.
//! * A table that a running compaction reads is in no plan.
//!
//! # Source
//!
//! `VersionSet::PickCompaction` and `AddBoundaryInputs` in google/leveldb `db/version_set.cc`
//! (commit 78a352f); scores and dynamic targets as in facebook/rocksdb `db/version_set.cc`
//! `ComputeCompactionScore`, `CalculateBaseBytes` and `EstimateCompactionBytesNeeded`. Departures:
//! all of L0 goes at once; inputs are not widened further where that would be free; no limit on the
//! overlap with the level after next; levels that a shrunken tree no longer needs are not emptied;
//! bytes of L0 count for nothing but the estimate.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::shape::{AT_TARGET, LAST_LEVEL, Span, bytes_of, finish, may_move, push_down, tables};
use super::tombstones::{self, Triggers};
use super::{CompactionPolicy, Entry};
use crate::policy::view::{CompactionPlan, LEVEL_COUNT, LevelsView, TableFacts};
use crate::policy::{ParamInfo, PolicyInfo};
use crate::types::{Nanos, TreeId, to_u64};

const DYNAMIC: ParamInfo = ParamInfo {
    name: "dynamic",
    min: 0.0,
    max: 1.0,
    default: 1.0,
    about: "1 = level targets follow the last level's size; 0 = they grow from level 1 down",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "leveled",
        id: "-",
        source: "LevelDB, RocksDB",
        params: &[DYNAMIC, tombstones::PERCENT, tombstones::AGE],
        known_defects: &[],
    },
    build: |params| {
        Box::new(Leveled {
            dynamic: params.whole(DYNAMIC.name) > 0,
            tombstones: Triggers::new(params),
            cursors: BTreeMap::new(),
        })
    },
};

#[derive(Clone, Debug)]
struct Leveled {
    dynamic: bool,
    tombstones: Triggers,
    /// Where the turn of a level's tables stands: the largest key taken last.
    cursors: BTreeMap<(TreeId, u32), Bytes>,
}

impl CompactionPolicy for Leveled {
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan> {
        let targets = self.targets(view);
        let mut due: Vec<(u64, u32)> =
            (0..LAST_LEVEL).map(|level| (score(view, &targets, level), level)).collect();
        due.retain(|(score, _)| *score > 0);
        due.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let plan = due.into_iter().find_map(|(_, level)| match level {
            0 => plan_l0(view, targets.base),
            _ => self.plan_level(view, level),
        });
        plan.or_else(|| self.tombstones.plan(view))
    }

    fn urgency(&self, view: &LevelsView) -> u64 {
        let targets = self.targets(view);
        let scores = (0..LAST_LEVEL).map(|level| score(view, &targets, level));
        scores.max().unwrap_or(0).max(self.tombstones.urgency(view))
    }

    fn wake_at(&self, view: &LevelsView) -> Option<Nanos> {
        self.tombstones.wake_at(view)
    }

    fn pending_bytes(&self, view: &LevelsView) -> u64 {
        pending_bytes(view, &self.targets(view))
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

/// How large each level is meant to be.
#[derive(Clone, Debug)]
struct Targets {
    /// The level that L0 goes into.
    base: u32,
    base_bytes: u64,
    /// No level below the base one is meant to be smaller.
    floor_bytes: u64,
    ratio: u64,
}

impl Targets {
    fn of(&self, level: u32) -> u64 {
        let bytes =
            (self.base..level).fold(self.base_bytes, |bytes, _| bytes.saturating_mul(self.ratio));
        if level > self.base { bytes.max(self.floor_bytes) } else { bytes }
    }
}

impl Leveled {
    fn targets(&self, view: &LevelsView) -> Targets {
        let ratio = u64::from(view.level_ratio.max(2));
        let base_max = view.level_base_bytes.max(1);
        let fixed = Targets { base: 1, base_bytes: base_max, floor_bytes: 0, ratio };
        if !self.dynamic {
            return fixed;
        }
        let bytes = |level: u32| bytes_of(tables(view, level));
        let largest = (1..LEVEL_COUNT).map(bytes).max().unwrap_or(0);
        let first = (1..LEVEL_COUNT).find(|level| !tables(view, *level).is_empty());
        let Some(first) = first else {
            return Targets { base: LAST_LEVEL, floor_bytes: base_max, ..fixed };
        };
        let base_min = base_max.div_euclid(ratio);
        let mut size = (first..LAST_LEVEL).fold(largest, |size, _| size.div_euclid(ratio));
        let mut base = first;
        if size <= base_min {
            // The tree shrank, or levels were filled from above.
            size = base_min + 1;
        }
        while base > 1 && size > base_max {
            base -= 1;
            size = size.div_euclid(ratio);
        }
        Targets { base, base_bytes: size.clamp(1, base_max), floor_bytes: base_max, ratio }
    }

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
            if let Some(plan) = push_down(view, (level, inputs), level + 1) {
                self.cursors.insert(key, span.largest);
                return Some(plan);
            }
        }
        None
    }
}

/// Moves L0 into the base level; only its oldest table where that one need not be rewritten.
fn plan_l0(view: &LevelsView, base: u32) -> Option<CompactionPlan> {
    let all = tables(view, 0);
    if let Some((oldest, newer)) = all.split_last() {
        let span = Span::of(oldest);
        let apart = !newer.iter().any(|t| span.touches(t));
        if apart && span.tables(tables(view, base)).is_empty() && may_move(view, oldest, base) {
            return finish(view, &[(0, oldest)], base);
        }
    }
    push_down(view, (0, all), base)
}

/// How full a level is, in thousandths of its target; 0 where nothing of it is due.
fn score(view: &LevelsView, targets: &Targets, level: u32) -> u64 {
    let tables = tables(view, level);
    if level == 0 {
        let due = u64::from(view.l0_compaction_count.max(1));
        let score = to_u64(tables.len()).saturating_mul(AT_TARGET).div_euclid(due);
        let busy = tables.iter().any(|t| t.compacting);
        return if busy || score < AT_TARGET { 0 } else { score };
    }
    let idle: Vec<&TableFacts> = tables.iter().filter(|t| !t.compacting).collect();
    let (bytes, target) = (bytes_of(idle), targets.of(level));
    if bytes <= target { 0 } else { bytes.saturating_mul(AT_TARGET).div_euclid(target) }
}

/// What is above the targets, level by level, with its share of the level below that is rewritten
/// on the way.
fn pending_bytes(view: &LevelsView, targets: &Targets) -> u64 {
    let bytes = |level: u32| bytes_of(tables(view, level));
    let (mut pending, mut moved) = (0_u64, 0_u64);
    if score(view, targets, 0) > 0 {
        moved = bytes(0);
        pending = moved.saturating_add(bytes(targets.base));
    }
    for level in targets.base..LAST_LEVEL {
        let (size, target) = (bytes(level).saturating_add(moved), targets.of(level));
        moved = size.saturating_sub(target);
        if moved > 0 {
            // The part of the level that leaves meets the same part of the level below.
            let share = u128::from(moved) * u128::from(bytes(level + 1));
            let share = share.div_euclid(u128::from(size.max(1)));
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            pending = pending.saturating_add(moved).saturating_add(share);
        }
    }
    pending
}
