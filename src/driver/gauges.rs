//! What memory, log and trees look like over a run: integrals between answers, and samples.

use std::collections::BTreeMap;

use forebay_engine::metrics::TableBytes;
use forebay_engine::policy::view::TreeFacts;
use forebay_engine::types::{Nanos, TreeId};

use crate::number::rank;

/// Gauges over the measured part of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes in memtables, mean over time.
    pub memtable_bytes_mean: u64,
    /// Bytes above the budget times how long, in byte-nanoseconds.
    pub overshoot_byte_ns: u128,
    /// The log bytes of the sample that had most, and the tree that pinned its oldest segment;
    /// `None` where no memtable that takes writes did.
    pub wal_pin: Option<(u64, TreeId)>,
    /// How old the oldest unflushed byte of a tree is: 99th percentile over trees, mean over
    /// samples. Of memtables that take writes.
    pub unflushed_age_p99_ns: Nanos,
    /// How old the oldest unflushed byte of any tree ever was at a sample.
    pub unflushed_age_max_ns: Nanos,
    /// L0 tables of a tree: 99th percentile over trees, most over samples.
    pub l0_count_p99_max: u64,
    /// Memtable bytes of idle trees, mean over samples.
    pub stranded_bytes: u64,
    /// Bytes of the tables that branches reach, mean over samples.
    pub table_bytes_mean: TableBytes,
    /// The same at the last sample.
    pub table_bytes_last: TableBytes,
    /// Bytes of the tables that only forks reach, most over samples.
    pub fork_table_bytes_max: u64,
}

/// Adds gauges up. What memory holds is read at every answer and taken to hold until the next: a
/// reading costs three loads, and nothing but writes and flushes changes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    budget_bytes: u64,
    begin_ns: Nanos,
    last: (Nanos, u64),
    byte_ns: u128,
    overshoot_byte_ns: u128,
    sample_count: u64,
    age_p99_sum: u128,
    stranded_sum: u128,
    table_sample_count: u64,
    table_bytes_sum: u128,
    main_table_bytes_sum: u128,
    most: Gauges,
    wal_bytes_max: u64,
}

impl Watch {
    pub(super) fn new(budget_bytes: u64, now: Nanos, memtable_bytes: u64) -> Self {
        Self { budget_bytes, begin_ns: now, last: (now, memtable_bytes), ..Self::default() }
    }

    /// Memory holds this much from now on.
    pub(super) fn memory(&mut self, now: Nanos, memtable_bytes: u64) {
        let (since, bytes) = self.last;
        let elapsed = u128::from(now.saturating_sub(since));
        self.byte_ns = self.byte_ns.saturating_add(u128::from(bytes).saturating_mul(elapsed));
        let over = u128::from(bytes.saturating_sub(self.budget_bytes));
        self.overshoot_byte_ns =
            self.overshoot_byte_ns.saturating_add(over.saturating_mul(elapsed));
        self.last = (now.max(since), memtable_bytes);
    }

    /// A look at all trees; a tree without a write since `idle_since` is idle.
    pub(super) fn trees(
        &mut self,
        now: Nanos,
        idle_since: Nanos,
        (trees, wal_bytes): (&[TreeFacts], u64),
    ) {
        let held = || trees.iter().filter(|facts| facts.memtable_bytes > 0);
        let mut ages: Vec<u64> =
            held().map(|facts| now.saturating_sub(facts.first_write_ns)).collect();
        ages.sort_unstable();
        let mut l0: Vec<u64> = trees.iter().map(|facts| u64::from(facts.l0_count)).collect();
        l0.sort_unstable();
        let idle = held().filter(|facts| facts.last_write_ns < idle_since);
        let stranded: u128 = idle.map(|facts| u128::from(facts.memtable_bytes)).sum();
        self.sample_count = self.sample_count.saturating_add(1);
        self.age_p99_sum = self.age_p99_sum.saturating_add(u128::from(rank(&ages, 99)));
        self.stranded_sum = self.stranded_sum.saturating_add(stranded);
        let most = &mut self.most;
        let oldest = ages.last().copied().unwrap_or(0);
        most.unflushed_age_max_ns = most.unflushed_age_max_ns.max(oldest);
        most.l0_count_p99_max = most.l0_count_p99_max.max(rank(&l0, 99));
        if wal_bytes > self.wal_bytes_max {
            self.wal_bytes_max = wal_bytes;
            let pin = held().min_by_key(|facts| {
                (facts.wal_anchor_segment, u64::MAX - facts.memtable_bytes, facts.tree)
            });
            most.wal_pin = pin.map(|facts| (wal_bytes, facts.tree));
        }
    }

    /// A look at all tables.
    pub(super) fn tables(&mut self, tables: TableBytes) {
        let add = |sum: &mut u128, bytes: u64| *sum = sum.saturating_add(u128::from(bytes));
        self.table_sample_count = self.table_sample_count.saturating_add(1);
        add(&mut self.table_bytes_sum, tables.live);
        add(&mut self.main_table_bytes_sum, tables.main);
        let of_forks = tables.live.saturating_sub(tables.main);
        self.most.fork_table_bytes_max = self.most.fork_table_bytes_max.max(of_forks);
        self.most.table_bytes_last = tables;
    }

    pub(super) fn finish(&self) -> Gauges {
        let elapsed = u128::from(self.last.0.saturating_sub(self.begin_ns));
        let mean = |sum: u128, count: u128| {
            u64::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        let samples = u128::from(self.sample_count);
        let looks = u128::from(self.table_sample_count);
        Gauges {
            memtable_bytes_mean: mean(self.byte_ns, elapsed),
            overshoot_byte_ns: self.overshoot_byte_ns,
            unflushed_age_p99_ns: mean(self.age_p99_sum, samples),
            stranded_bytes: mean(self.stranded_sum, samples),
            table_bytes_mean: TableBytes {
                live: mean(self.table_bytes_sum, looks),
                main: mean(self.main_table_bytes_sum, looks),
            },
            ..self.most.clone()
        }
    }
}

/// Who a tree is: its tenant's name, or how many share it.
pub fn tree_name<'a>(tree: TreeId, tenants: impl Iterator<Item = (TreeId, &'a str)>) -> String {
    let mut members: BTreeMap<TreeId, (u64, &str)> = BTreeMap::new();
    for (of, name) in tenants {
        members.entry(of).or_insert((0, name)).0 += 1;
    }
    match members.get(&tree) {
        Some((1, name)) => (*name).to_owned(),
        Some((count, _)) => format!("tree {} of {count} tenants", tree.0),
        None => format!("tree {}", tree.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(tree: u64, bytes: u64, (first, last): (u64, u64), anchor: u64) -> TreeFacts {
        TreeFacts {
            tree: TreeId(tree),
            memtable_bytes: bytes,
            first_write_ns: first,
            last_write_ns: last,
            wal_anchor_segment: anchor,
            l0_count: u32::try_from(tree).unwrap(),
            ..TreeFacts::default()
        }
    }

    #[test]
    fn memory_is_weighed_by_time_and_what_is_above_the_budget_counts() {
        let mut watch = Watch::new(100, 10, 50);
        watch.memory(20, 130);
        watch.memory(25, 80);
        watch.memory(40, 0);
        let gauges = watch.finish();
        assert_eq!(gauges.overshoot_byte_ns, 30 * 5);
        assert_eq!(gauges.memtable_bytes_mean, (50_u64 * 10 + 130 * 5 + 80 * 15).div_euclid(30));
        assert_eq!(Watch::default().finish(), Gauges::default());
    }

    #[test]
    fn the_pin_is_that_of_the_sample_with_most_log() {
        let mut watch = Watch::new(100, 0, 0);
        let trees = [facts(1, 5, (10, 90), 7), facts(2, 6, (50, 60), 3), facts(3, 0, (0, 0), 0)];
        watch.trees(100, 80, (&trees, 1_000));
        let later = [facts(1, 5, (10, 90), 7), facts(2, 0, (0, 0), 0)];
        watch.trees(200, 150, (&later, 900));
        let gauges = watch.finish();
        assert_eq!(gauges.wal_pin, Some((1_000, TreeId(2))));
        assert_eq!((gauges.unflushed_age_p99_ns, gauges.unflushed_age_max_ns), (140, 190));
        assert_eq!((gauges.stranded_bytes, gauges.l0_count_p99_max), (5, 3));
    }

    #[test]
    fn bytes_that_only_forks_reach_have_a_mean_and_a_most() {
        let mut watch = Watch::default();
        for (live, main) in [(100, 60), (200, 200), (300, 270)] {
            watch.tables(TableBytes { live, main });
        }
        let gauges = watch.finish();
        assert_eq!(gauges.table_bytes_mean, TableBytes { live: 200, main: 176 });
        assert_eq!(gauges.table_bytes_last, TableBytes { live: 300, main: 270 });
        assert_eq!(gauges.fork_table_bytes_max, 40);
    }

    #[test]
    fn a_tree_is_called_after_its_tenant_or_by_how_many_share_it() {
        let name = |tree| {
            let tenants = [(TreeId(4), "a"), (TreeId(5), "b"), (TreeId(5), "c")];
            tree_name(TreeId(tree), tenants.into_iter())
        };
        assert_eq!((name(4), name(5)), ("a".to_owned(), "tree 5 of 2 tenants".to_owned()));
        assert_eq!(name(9), "tree 9");
    }
}
