//! Runs of one arm taken together, and how they differ from another arm's on the same seeds.
//!
//! Only runs that passed count: a run that broke a rule measured something else. Each number is the
//! median over seeds, but for stalls, which are means, so that the causes add up to the total.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::number::Thousandths;
use crate::record::{ByCause, LatencyNs, Outcome, Param, RunRow, TableBytes, TenantRow};

/// One arm over all its seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmSummary {
    /// The arm.
    pub arm: String,
    /// Its runs.
    pub runs: u64,
    /// Those that passed; where 0, every number below is 0 too.
    pub passed: u64,
    /// Operations served.
    pub ops_per_s: Thousandths,
    /// Latency of writes.
    pub write_latency_ns: LatencyNs,
    /// Latency of reads.
    pub read_latency_ns: LatencyNs,
    /// Time writers were stalled, mean over seeds.
    pub stall_ns: ByCause,
    /// Flushes.
    pub flush_count: u64,
    /// Sizes of tables that flushes wrote.
    pub table_bytes: TableBytes,
    /// Bytes given to the device over bytes that users wrote.
    pub write_amplification: Thousandths,
    /// The most write-ahead log kept.
    pub wal_retained_bytes_max: u64,
    /// The most bytes in memtables.
    pub memtable_bytes_max_seen: u64,
    /// Memtable bytes of idle tenants.
    pub stranded_bytes: u64,
    /// Fairness.
    pub jain: Thousandths,
    /// The smallest served share over the largest.
    pub min_max_share: Thousandths,
    /// Bytes in memtables over the budget, mean over time.
    pub memory_mean_ratio: Thousandths,
    /// The most bytes in memtables over the budget.
    pub memory_peak_ratio: Thousandths,
    /// The least and the most over seeds of what the table shows.
    pub range: Range,
    /// What the victims of an aggressor see against what they see alone.
    pub inflation: Option<Inflation>,
    /// The scenario with the parameters that it was given.
    pub workload: String,
    /// Whether the scenario has an aggressor that is silent: what others are compared with.
    pub silent: bool,
    /// Whether more than half of its runs served less than they were offered: then its queues grew
    /// until the end, and percentiles say how long it ran.
    pub saturated: bool,
}

/// The least and the most over seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Operations served, in thousandths.
    pub ops_per_s: (u64, u64),
    /// 99th percentile of writes.
    pub p99_ns: (u64, u64),
    /// 99.9th percentile of writes.
    pub p999_ns: (u64, u64),
    /// Stalls of all causes.
    pub stall_ns: (u64, u64),
    /// Flushes.
    pub flush_count: (u64, u64),
    /// Median table.
    pub table_p50_bytes: (u64, u64),
    /// Device bytes over user bytes, in thousandths.
    pub write_amplification: (u64, u64),
    /// Log kept.
    pub wal_retained_bytes_max: (u64, u64),
}

/// 99th percentiles of latency with an aggressor over the same without one: the same seed asks the
/// same of everybody else. Medians over seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflation {
    /// Of all victims taken together.
    pub all: Thousandths,
    /// Of the median victim, each by itself.
    pub median: Thousandths,
    /// Of the victim that suffers most.
    pub worst: Thousandths,
}

impl ArmSummary {
    /// The order of arms, best first: less stall, then a lower p99.9 of writes, then more
    /// throughput. An arm without a run that passed comes last.
    ///
    /// Stalls come first because they are what the policies compared here decide; p99.9 tells what
    /// they cost the unlucky; throughput is fixed by the offered load in an open loop.
    pub fn rank(&self, other: &Self) -> Ordering {
        (self.passed == 0)
            .cmp(&(other.passed == 0))
            .then_with(|| self.stall_ns.total().cmp(&other.stall_ns.total()))
            .then_with(|| self.write_latency_ns.p999.cmp(&other.write_latency_ns.p999))
            .then_with(|| other.ops_per_s.cmp(&self.ops_per_s))
    }
}

/// Device bytes over user bytes of a run.
pub fn write_amplification(row: &RunRow) -> Thousandths {
    Thousandths::ratio(u128::from(row.written_bytes.total()), u128::from(row.user_bytes))
}

/// The arms in the order of their first row.
pub fn summaries(rows: &[RunRow]) -> Vec<ArmSummary> {
    let mut order: Vec<&str> = Vec::new();
    let mut groups: BTreeMap<&str, Vec<&RunRow>> = BTreeMap::new();
    for row in rows {
        groups
            .entry(&row.arm)
            .or_insert_with(|| {
                order.push(&row.arm);
                Vec::new()
            })
            .push(row);
    }
    let inflated = |arm: &str, runs: &Vec<&RunRow>| ArmSummary {
        inflation: inflation(rows, runs),
        ..summary(arm, runs)
    };
    order.iter().filter_map(|arm| Some(inflated(arm, groups.get(arm)?))).collect()
}

/// The scenario of a run with the parameters that it was given.
fn workload(row: &RunRow) -> String {
    let mut workload = row.params.get("workload").map(Param::to_string).unwrap_or_default();
    for (name, value) in &row.params {
        if let Some(name) = name.strip_prefix("workload.") {
            workload.push_str(&format!(" {name}={value}"));
        }
    }
    workload
}

/// Whether a run's scenario has an aggressor that was told to be silent.
fn is_silent(row: &RunRow) -> bool {
    let none = |name: &str| row.params.get(name) == Some(&Param::Integer(0));
    let clients = row.params.get("workload.aggressor_client_count");
    none("workload.aggressor_share_count") && clients.is_none_or(|n| *n == Param::Integer(0))
}

/// What victims see in these runs against what they see in the runs without their aggressor: that
/// of the same seed and, where there are several, of the same policies.
fn inflation(rows: &[RunRow], runs: &[&RunRow]) -> Option<Inflation> {
    let passed = |row: &&RunRow| row.outcome == Outcome::Pass;
    let mut found: Vec<[u64; 3]> = Vec::new();
    for run in runs.iter().copied().filter(passed) {
        let has_aggressor = run.tenants.iter().any(|t| is_aggressor(t) && t.ops > 0);
        let alone = rows.iter().filter(passed).filter(|row| is_silent(row) && row.seed == run.seed);
        let like = |row: &&RunRow| {
            let names = ["flush_policy", "stall_policy", "layout"];
            names.iter().filter(|name| row.params.get(**name) != run.params.get(**name)).count()
        };
        let (true, Some(alone)) = (has_aggressor, alone.min_by_key(like)) else { continue };
        let by_name: BTreeMap<&str, u64> =
            alone.tenants.iter().map(|t| (t.name.as_str(), t.p99_ns)).collect();
        let ratio =
            |with: u64, without: u64| Thousandths::ratio(u128::from(with), u128::from(without)).0;
        let mut ratios: Vec<u64> = run
            .tenants
            .iter()
            .filter(|tenant| !is_aggressor(tenant) && tenant.ops > 0)
            .filter_map(|t| Some((t.p99_ns, *by_name.get(t.name.as_str())?)))
            .filter(|(_, without)| *without > 0)
            .map(|(with, without)| ratio(with, without))
            .collect();
        ratios.sort_unstable();
        let class = |row: &RunRow| {
            row.classes.iter().find(|class| class.class == "warm").map_or(0, |class| class.p99_ns)
        };
        let worst = ratios.last().copied().unwrap_or(0);
        found.push([ratio(class(run), class(alone)), median(ratios), worst]);
    }
    let [all, of_median, worst] =
        [0, 1, 2].map(|at| found.iter().filter_map(|three| three.get(at)).copied().collect());
    (!found.is_empty()).then(|| Inflation {
        all: Thousandths(median(all)),
        median: Thousandths(median(of_median)),
        worst: Thousandths(median(worst)),
    })
}

fn is_aggressor(tenant: &TenantRow) -> bool {
    tenant.name.ends_with("-aggressor")
}

fn summary(arm: &str, runs: &[&RunRow]) -> ArmSummary {
    let passed: Vec<_> = runs.iter().copied().filter(|row| row.outcome == Outcome::Pass).collect();
    let median = |of: &dyn Fn(&RunRow) -> u64| median(passed.iter().map(|row| of(row)).collect());
    let latency = |of: &dyn Fn(&RunRow) -> LatencyNs| LatencyNs {
        p50: median(&|row| of(row).p50),
        p99: median(&|row| of(row).p99),
        p999: median(&|row| of(row).p999),
        max: median(&|row| of(row).max),
    };
    let mean = |of: &dyn Fn(&ByCause) -> u64| {
        let sum: u128 = passed.iter().map(|row| u128::from(of(&row.stall_ns))).sum();
        let count: u128 = passed.iter().map(|_| 1).sum();
        u64::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(u64::MAX)
    };
    ArmSummary {
        arm: arm.to_owned(),
        runs: runs.iter().map(|_| 1).sum(),
        passed: passed.iter().map(|_| 1).sum(),
        ops_per_s: Thousandths(median(&|row| row.ops_per_s.0)),
        write_latency_ns: latency(&|row| row.write_latency_ns),
        read_latency_ns: latency(&|row| row.read_latency_ns),
        stall_ns: ByCause {
            memtables: mean(&|stall| stall.memtables),
            l0: mean(&|stall| stall.l0),
            budget: mean(&|stall| stall.budget),
            wal: mean(&|stall| stall.wal),
            disk_full: mean(&|stall| stall.disk_full),
        },
        flush_count: median(&|row| row.flush_count),
        table_bytes: TableBytes {
            p1: median(&|row| row.table_bytes.p1),
            p50: median(&|row| row.table_bytes.p50),
            p99: median(&|row| row.table_bytes.p99),
            count: median(&|row| row.table_bytes.count),
            under_mib_count: median(&|row| row.table_bytes.under_mib_count),
            tiny_count: median(&|row| row.table_bytes.tiny_count),
        },
        write_amplification: Thousandths(median(&|row| write_amplification(row).0)),
        wal_retained_bytes_max: median(&|row| row.wal_retained_bytes_max),
        memtable_bytes_max_seen: median(&|row| row.memtable_bytes_max_seen),
        stranded_bytes: median(&|row| row.stranded_bytes),
        jain: Thousandths(median(&|row| row.jain.0)),
        min_max_share: Thousandths(median(&|row| row.min_max_share.0)),
        memory_mean_ratio: Thousandths(median(&|row| row.memory.mean_ratio.0)),
        memory_peak_ratio: Thousandths(median(&|row| row.memory.peak_ratio.0)),
        range: range(&passed),
        inflation: None,
        workload: runs.first().map(|row| workload(row)).unwrap_or_default(),
        silent: runs.first().is_some_and(|row| is_silent(row)),
        saturated: passed.iter().filter(|row| row.is_saturated()).count() > passed.len() >> 1,
    }
}

fn range(passed: &[&RunRow]) -> Range {
    let of = |number: &dyn Fn(&RunRow) -> u64| {
        let numbers = || passed.iter().map(|row| number(row));
        (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
    };
    Range {
        ops_per_s: of(&|row| row.ops_per_s.0),
        p99_ns: of(&|row| row.write_latency_ns.p99),
        p999_ns: of(&|row| row.write_latency_ns.p999),
        stall_ns: of(&|row| row.stall_ns.total()),
        flush_count: of(&|row| row.flush_count),
        table_p50_bytes: of(&|row| row.table_bytes.p50),
        write_amplification: of(&|row| write_amplification(row).0),
        wal_retained_bytes_max: of(&|row| row.wal_retained_bytes_max),
    }
}

pub(super) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let upper = values.get(values.len() >> 1);
    let lower = values.get(values.len().saturating_sub(1) >> 1);
    upper.zip(lower).map_or(0, |(a, b)| a.midpoint(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ClassRow;

    fn row(arm: &str, seed: u64, ops: u64, outcome: Outcome) -> RunRow {
        RunRow {
            arm: arm.to_owned(),
            seed,
            outcome,
            ops_per_s: Thousandths(ops),
            ..RunRow::default()
        }
    }

    #[test]
    fn failed_runs_do_not_count_and_arms_keep_their_order() {
        let rows = [
            row("b", 0, 10, Outcome::Pass),
            row("b", 1, 999, Outcome::Fail),
            row("a", 0, 5, Outcome::Pass),
            row("b", 2, 20, Outcome::Pass),
            row("c", 0, 1, Outcome::Timeout),
        ];
        let arms = summaries(&rows);
        let names: Vec<_> = arms.iter().map(|arm| arm.arm.as_str()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        assert_eq!((arms[0].runs, arms[0].passed, arms[0].ops_per_s), (3, 2, Thousandths(15)));
        assert_eq!(arms[2].passed, 0);
        assert_eq!(arms[2].rank(&arms[0]), Ordering::Greater);
    }

    #[test]
    fn several_seeds_have_a_range_around_their_median() {
        let rows = [("a", 0, 30), ("a", 1, 10), ("a", 2, 20)]
            .map(|(arm, seed, ops)| row(arm, seed, ops, Outcome::Pass));
        let arm = &summaries(&rows)[0];
        assert_eq!((arm.ops_per_s, arm.range.ops_per_s), (Thousandths(20), (10, 30)));
    }

    #[test]
    fn victims_are_compared_with_themselves_alone() {
        let tenant = |name: &str, p99_ns: u64| TenantRow {
            name: name.to_owned(),
            ops: 1,
            p99_ns,
            ..TenantRow::default()
        };
        let class = |p99_ns| ClassRow { class: "warm".to_owned(), p99_ns, ..ClassRow::default() };
        let make = |arm: &str, seed, share, tenants: Vec<TenantRow>, p99_ns| RunRow {
            params: [("workload.aggressor_share_count".to_owned(), Param::Integer(share))].into(),
            tenants,
            classes: vec![class(p99_ns)],
            ..row(arm, seed, 1, Outcome::Pass)
        };
        let silent = TenantRow { ops: 0, ..tenant("c-aggressor", 0) };
        let alone = vec![tenant("a", 10), tenant("b", 20), silent];
        let noisy = vec![tenant("a", 30), tenant("b", 200), tenant("c-aggressor", 999)];
        let rows = [make("alone", 0, 0, alone, 20), make("noisy", 0, 9, noisy.clone(), 100)];
        let arms = summaries(&rows);
        assert!(arms[0].silent && arms[0].inflation.is_none() && !arms[1].silent);
        let inflation = arms[1].inflation.unwrap();
        assert_eq!((inflation.all, inflation.worst), (Thousandths(5_000), Thousandths(10_000)));
        assert_eq!(inflation.median, Thousandths(6_500));
        // Another seed asks something else.
        let rows = [rows[0].clone(), make("noisy", 1, 9, noisy, 100)];
        assert_eq!(summaries(&rows)[1].inflation, None);
    }
}
