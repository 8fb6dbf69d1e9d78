use std::collections::BTreeMap;

use core::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::policy::view::{LEVEL_COUNT, TableFacts};
use crate::types::{SEQ_MAX, TableId, to_u64, to_usize};

/// A version of a key: its number, and whether it is a tombstone.
type Version = (u8, u64, bool);

/// A tree whose tables hold versions, as an engine would merge them. With a snapshot on each of
/// them nothing is dropped, and an output is cut wherever it is full, also between two versions of
/// one key. Without snapshots only the newest version of a key stays, and a tombstone only where a
/// table that is left behind may hold an older one.
struct Model {
    view: LevelsView,
    entries: BTreeMap<TableId, Vec<Version>>,
    newest: BTreeMap<u8, (u64, bool)>,
    next_file: u64,
    next_number: u64,
    cut: usize,
    drops: bool,
}

fn byte(key: u8) -> Bytes {
    Bytes::copy_from_slice(&[key])
}

impl Model {
    fn new(view: LevelsView, cut: usize, drops: bool) -> Self {
        let view = LevelsView {
            level_base_bytes: 6,
            level_ratio: 2,
            now_ns: u64::MAX,
            oldest_snapshot: if drops { SEQ_MAX } else { 0 },
            ..view
        };
        let (entries, newest) = (BTreeMap::new(), BTreeMap::new());
        Self { view, entries, newest, next_file: 0, next_number: 0, cut, drops }
    }

    fn flush(&mut self, keys: &[(u8, bool)]) {
        let mut entries: Vec<Version> = Vec::new();
        for (key, deleted) in keys {
            self.next_number += 1;
            entries.push((*key, self.next_number, *deleted));
            self.newest.insert(*key, (self.next_number, *deleted));
        }
        self.sort(&mut entries);
        self.add(0, 0, entries);
    }

    fn sort(&self, entries: &mut Vec<Version>) {
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        if self.drops {
            entries.dedup_by_key(|entry| entry.0);
        }
    }

    fn add(&mut self, level: usize, place: usize, entries: Vec<Version>) {
        self.next_file += 1;
        let table = TableId { file: self.next_file, offset: 0 };
        let facts = TableFacts {
            table,
            bytes: to_u64(entries.len()),
            entries: to_u64(entries.len()),
            tombstones: to_u64(entries.iter().filter(|e| e.2).count()),
            max_seq: entries.iter().map(|e| e.1).max().unwrap(),
            smallest: byte(entries.first().unwrap().0),
            largest: byte(entries.last().unwrap().0),
            ..TableFacts::default()
        };
        let levels = &mut self.view.levels;
        levels.resize(levels.len().max(level + 1), Vec::new());
        levels[level].insert(place, facts);
        self.entries.insert(table, entries);
    }

    /// Whether a table that these inputs leave behind may hold something older of a key.
    fn may_hold_older(&self, plan: &CompactionPlan, key: u8) -> bool {
        let named = |t: &TableFacts| plan.inputs.iter().any(|(_, id)| *id == t.table);
        let all = self.view.levels.iter().enumerate();
        let all = all.flat_map(|(level, run)| run.iter().map(move |t| (level, t)));
        let from = all.clone().position(|(_, t)| named(t)).unwrap();
        let newest_level = all.clone().nth(from).unwrap().0;
        all.enumerate().any(|(at, (level, t))| {
            let older = at > from || (level > 0 && level == newest_level);
            older && !named(t) && t.smallest <= byte(key) && byte(key) <= t.largest
        })
    }

    fn apply(&mut self, plan: &CompactionPlan) {
        let to = to_usize(u64::from(plan.level_to));
        assert!(to > 0 && plan.level_to < LEVEL_COUNT, "{plan:?}");
        assert!(!plan.inputs.is_empty());
        let mut merged = Vec::new();
        let drops = self.drops && !plan.trivial_move;
        let kept: Vec<u8> =
            (0..=u8::MAX).filter(|key| !drops || self.may_hold_older(plan, *key)).collect();
        for (level, table) in &plan.inputs {
            let tables = &mut self.view.levels[to_usize(u64::from(*level))];
            let place = tables.iter().position(|facts| facts.table == *table).unwrap();
            tables.remove(place);
            merged.extend(self.entries.remove(table).unwrap());
        }
        if plan.trivial_move {
            assert_eq!(plan.inputs.len(), 1);
            assert_ne!(plan.inputs[0].0, plan.level_to);
        }
        self.sort(&mut merged);
        merged.retain(|(key, _, deleted)| !deleted || kept.contains(key));
        let Some(first) = merged.first() else { return };
        let start = match self.view.levels.get(to) {
            Some(tables) => tables.partition_point(|facts| facts.largest < byte(first.0)),
            None => 0,
        };
        let cut = if plan.trivial_move { usize::MAX } else { self.cut };
        for (nth, entries) in merged.chunks(cut).enumerate() {
            self.add(to, start + nth, entries.to_vec());
        }
    }

    /// Tables below L0 are in key order, each key's versions get older on the way down, and the
    /// first one on the way is the newest there is, or there is none since it was deleted.
    fn check(&self) {
        let mut last: BTreeMap<u8, u64> = BTreeMap::new();
        let mut first: BTreeMap<u8, u64> = BTreeMap::new();
        for (level, tables) in self.view.levels.iter().enumerate() {
            for pair in tables.windows(2) {
                assert!(level == 0 || pair[0].largest <= pair[1].smallest, "level {level}");
            }
            for table in tables {
                for (key, number, _) in &self.entries[&table.table] {
                    let newer = last.insert(*key, *number);
                    assert!(newer.is_none_or(|newer| newer > *number), "key {key} L{level}");
                    first.entry(*key).or_insert(*number);
                }
            }
        }
        for (key, (number, deleted)) in &self.newest {
            match first.get(key) {
                Some(found) => assert_eq!(found, number, "key {key}"),
                None => assert!(self.drops && *deleted, "key {key} is lost"),
            }
        }
    }

    /// Runs compactions until nothing is due.
    fn settle(&mut self, policy: &mut dyn CompactionPolicy) {
        for _ in 0..10_000 {
            let urgency = policy.urgency(&self.view);
            let Some(plan) = policy.decide(&self.view) else {
                assert_eq!(urgency, 0, "due and not planned");
                return;
            };
            assert!(urgency > 0, "planned and not due");
            self.apply(&plan);
            self.check();
        }
        panic!("compactions do not end");
    }

    fn l0_count(&self) -> u32 {
        u32::try_from(self.view.levels.first().map_or(0, Vec::len)).unwrap()
    }

    /// Levels with versions of keys in a range, and whether there is a tombstone among them.
    fn found_in(&self, range: core::ops::RangeInclusive<u8>) -> Vec<(usize, bool)> {
        let tables = self.view.levels.iter().enumerate();
        let tables = tables.flat_map(|(level, run)| run.iter().map(move |t| (level, t)));
        tables
            .flat_map(|(level, t)| self.entries[&t.table].iter().map(move |e| (level, e)))
            .filter(|(_, e)| range.contains(&e.0))
            .map(|(level, e)| (level, e.2))
            .collect()
    }
}

fn spec() -> impl Strategy<Value = PolicySpec> {
    let named = prop_oneof![
        Just(PolicySpec::named("leveled")),
        Just(PolicySpec::named("leveled").with("dynamic", 0.0)),
        Just(PolicySpec::named("tiered")),
        (0..4_u8, 2..4_u8, 2..5_u8, 0..6_u8).prop_map(|(ratio, min, max, runs)| {
            PolicySpec::named("tiered")
                .with("size_ratio_percent", f64::from(ratio) * 100.0)
                .with("merge_width_min_count", f64::from(min))
                .with("merge_width_max_count", f64::from(max))
                .with("run_count", f64::from(runs))
        }),
        Just(PolicySpec::named("lazy-leveled")),
        (1..12_u8, 0..8_u8, 2..4_u8).prop_map(|(factor, runs, max)| {
            PolicySpec::named("lazy-leveled")
                .with("last_level_factor", f64::from(factor))
                .with("merge_width_max_count", f64::from(max))
                .with("run_count", f64::from(runs))
        }),
    ];
    let percent = prop_oneof![Just(0.0), Just(20.0), Just(50.0)];
    let age_s = prop_oneof![Just(0.0), Just(1.0)];
    (named, percent, age_s).prop_map(|(spec, percent, age_s)| {
        spec.with("tombstone_percent", percent).with("tombstone_age_s", age_s)
    })
}

/// Keys of a flush, and how many compactions follow it; the last of them ends behind the next
/// flush.
fn flushes() -> impl Strategy<Value = Vec<(Vec<(u8, bool)>, u32)>> {
    let key = (0..30_u8, prop::bool::weighted(0.3));
    prop::collection::vec((prop::collection::vec(key, 1..8), 0..4_u32), 1..60)
}

fn view() -> impl Strategy<Value = LevelsView> {
    (1..4_u32, 0..3_u32).prop_map(|(l0_compaction_count, more)| LevelsView {
        l0_compaction_count,
        l0_slowdown_count: l0_compaction_count + more,
        ..LevelsView::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    // Strategy: flushes of a few keys with every policy and trigger, some compactions between, one
    // of which ends only behind the next flush; with and without dropping versions. Invariants:
    // newer versions stay above older ones and the newest is found; what is due is planned; no plan
    // makes output in L0; compactions end, with L0 below the number that delays writes.
    #[test]
    fn compactions_keep_versions_in_order(
        spec in spec(),
        flushes in flushes(),
        view in view(),
        cut in 1..5_usize,
        drops in any::<bool>(),
    ) {
        let mut model = Model::new(view, cut, drops);
        let mut policy = build(&spec).unwrap();
        let mut running: Option<CompactionPlan> = None;
        for (keys, compactions) in flushes {
            model.flush(&keys);
            for _ in 0..compactions {
                if let Some(plan) = running.take() {
                    model.apply(&plan);
                    model.check();
                }
                running = policy.decide(&model.view);
            }
        }
        if let Some(plan) = running {
            model.apply(&plan);
        }
        model.settle(&mut *policy);
        prop_assert!(model.l0_count() < model.view.l0_slowdown_count);
    }

    // Strategy: a tree in whatever shape, then a manual compaction of a range. Invariants: as
    // above after each step; all that is left of the range lies in the last level, without
    // tombstones where no snapshot keeps them.
    #[test]
    fn a_manual_compaction_takes_a_range_to_the_last_level(
        spec in spec(),
        flushes in flushes(),
        cut in 1..5_usize,
        drops in any::<bool>(),
        (a, b) in (0..30_u8, 0..30_u8),
    ) {
        let view = LevelsView { l0_compaction_count: 3, ..LevelsView::default() };
        let mut model = Model::new(view, cut, drops);
        let mut policy = build(&spec).unwrap();
        for (keys, compactions) in flushes {
            model.flush(&keys);
            for _ in 0..compactions {
                let Some(plan) = policy.decide(&model.view) else { break };
                model.apply(&plan);
            }
        }
        let (from, to) = (a.min(b), a.max(b));
        let range = (Bound::Included(byte(from)), Bound::Included(byte(to)));
        let last = LEVEL_COUNT - 1;
        let mut is_rewritten = false;
        for level in 0..last {
            if let Some(plan) = manual::step(&model.view, level, &range) {
                is_rewritten = plan.level_to == last;
                prop_assert!(!is_rewritten || !plan.trivial_move);
                model.apply(&plan);
                model.check();
            }
        }
        if !is_rewritten && let Some(plan) = manual::rewrite_last(&model.view, &range) {
            model.apply(&plan);
            model.check();
        }
        for (level, deleted) in model.found_in(from..=to) {
            prop_assert_eq!(level, to_usize(u64::from(last)));
            prop_assert!(!drops || !deleted, "a tombstone stayed");
        }
    }
}
