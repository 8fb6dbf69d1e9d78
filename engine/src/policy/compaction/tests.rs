use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::policy::view::TableFacts;
use crate::types::{TableId, to_u64, to_usize};

/// A tree whose tables hold (key, number) pairs, as an engine would merge them: nothing is dropped,
/// and an output is cut wherever it is full, also between two versions of one key.
struct Model {
    view: LevelsView,
    entries: BTreeMap<TableId, Vec<(u8, u64)>>,
    next_file: u64,
    cut: usize,
}

impl Model {
    fn add(&mut self, level: usize, place: usize, entries: Vec<(u8, u64)>) {
        self.next_file += 1;
        let table = TableId { file: self.next_file, offset: 0 };
        let key = |entry: Option<&(u8, u64)>| Bytes::copy_from_slice(&[entry.unwrap().0]);
        let facts = TableFacts {
            table,
            bytes: to_u64(entries.len()),
            smallest: key(entries.first()),
            largest: key(entries.last()),
            ..TableFacts::default()
        };
        let levels = &mut self.view.levels;
        levels.resize(levels.len().max(level + 1), Vec::new());
        levels[level].insert(place, facts);
        self.entries.insert(table, entries);
    }

    fn apply(&mut self, plan: &CompactionPlan) {
        let to = to_usize(u64::from(plan.level_to));
        let mut merged = Vec::new();
        for (level, table) in &plan.inputs {
            let tables = &mut self.view.levels[to_usize(u64::from(*level))];
            let place = tables.iter().position(|facts| facts.table == *table).unwrap();
            tables.remove(place);
            merged.extend(self.entries.remove(table).unwrap());
        }
        merged.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        let first = Bytes::copy_from_slice(&[merged[0].0]);
        let start = match self.view.levels.get(to) {
            Some(tables) => tables.partition_point(|facts| facts.largest < first),
            None => 0,
        };
        for (nth, entries) in merged.chunks(self.cut).enumerate() {
            self.add(to, start + nth, entries.to_vec());
        }
    }

    /// Tables below L0 are in key order, and each key's versions get older on the way down.
    fn check(&self) {
        let mut versions: BTreeMap<u8, u64> = BTreeMap::new();
        for (level, tables) in self.view.levels.iter().enumerate() {
            for pair in tables.windows(2) {
                assert!(level == 0 || pair[0].largest <= pair[1].smallest, "level {level}");
            }
            for table in tables {
                for (key, number) in &self.entries[&table.table] {
                    let newer = versions.insert(*key, *number);
                    assert!(newer.is_none_or(|newer| newer > *number), "key {key} L{level}");
                }
            }
        }
    }
}

proptest! {
    // Strategy: flushes of a few keys, each followed by some compactions; outputs are cut between
    // versions of one key. Invariants: no older version above a newer one; no plan is empty; a
    // trivial move has one input; compactions end, and then nothing is due.
    #[test]
    fn compactions_keep_versions_in_order(
        flushes in prop::collection::vec((prop::collection::vec(0..30_u8, 1..8), 0..4_u32), 1..60),
        cut in 1..5_usize,
    ) {
        let view = LevelsView {
            l0_compaction_count: 2,
            level_base_bytes: 6,
            level_ratio: 2,
            ..LevelsView::default()
        };
        let mut model = Model { view, entries: BTreeMap::new(), next_file: 0, cut };
        let mut policy = build(&PolicySpec::named("leveled")).unwrap();
        let mut number = 0;
        for (keys, compactions) in flushes {
            let mut entries: Vec<(u8, u64)> = Vec::new();
            for key in keys {
                number += 1;
                entries.push((key, number));
            }
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            model.add(0, 0, entries);
            for _ in 0..compactions {
                let Some(plan) = policy.decide(&model.view) else { break };
                prop_assert!(policy.urgency(&model.view) > 0);
                prop_assert!(!plan.inputs.is_empty());
                prop_assert!(!plan.trivial_move || plan.inputs.len() == 1);
                model.apply(&plan);
                model.check();
            }
        }
        let mut steps = 0;
        while let Some(plan) = policy.decide(&model.view) {
            model.apply(&plan);
            model.check();
            steps += 1;
            prop_assert!(steps < 10_000, "compactions do not end");
        }
        prop_assert_eq!(policy.urgency(&model.view), 0);
    }
}
