//! Runs of one arm taken together, and how they differ from another arm's on the same seeds.
//!
//! Only runs that passed count: a run that broke a rule measured something else. Each number is the
//! median over seeds, but for stalls, which are means, so that the causes add up to the total.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::number::{Thousandths, to_f64};
use crate::record::{ByCause, LatencyNs, Outcome, RunRow, TableBytes};

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

/// How one number of an arm differs from the baseline's: the median over paired seeds and the range
/// around it, as shares of the baseline's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delta {
    /// Median of the paired differences.
    pub median: f64,
    /// The lowest of them.
    pub low: f64,
    /// The highest of them.
    pub high: f64,
    /// Seeds that both arms passed.
    pub pairs: usize,
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
    order.iter().filter_map(|arm| Some(summary(arm, groups.get(arm)?))).collect()
}

/// Differences of `arm` from `baseline` in what `metric` takes from a row, over the seeds that both
/// passed; `None` without such a seed or where the baseline's number is 0.
pub fn delta(
    rows: &[RunRow],
    arm: &str,
    baseline: &str,
    metric: impl Fn(&RunRow) -> u64,
) -> Option<Delta> {
    let of = |name: &str| -> BTreeMap<u64, u64> {
        rows.iter()
            .filter(|row| row.arm == name && row.outcome == Outcome::Pass)
            .map(|row| (row.seed, metric(row)))
            .collect()
    };
    let base = of(baseline);
    let mut differences = Vec::new();
    for (seed, value) in of(arm) {
        match base.get(&seed) {
            Some(0) => return None,
            Some(&from) => differences.push((to_f64(value) - to_f64(from)) / to_f64(from)),
            None => {}
        }
    }
    differences.sort_by(f64::total_cmp);
    let upper = *differences.get(differences.len() >> 1)?;
    let lower = *differences.get(differences.len().checked_sub(1)? >> 1)?;
    Some(Delta {
        median: f64::midpoint(lower, upper),
        low: *differences.first()?,
        high: *differences.last()?,
        pairs: differences.len(),
    })
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
        },
        write_amplification: Thousandths(median(&|row| write_amplification(row).0)),
        wal_retained_bytes_max: median(&|row| row.wal_retained_bytes_max),
        memtable_bytes_max_seen: median(&|row| row.memtable_bytes_max_seen),
        stranded_bytes: median(&|row| row.stranded_bytes),
        jain: Thousandths(median(&|row| row.jain.0)),
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
    fn differences_are_paired_by_seed() {
        let rows = [
            row("a", 0, 100, Outcome::Pass),
            row("a", 1, 200, Outcome::Pass),
            row("b", 0, 150, Outcome::Pass),
            row("b", 1, 220, Outcome::Pass),
            row("b", 2, 900, Outcome::Pass),
        ];
        let delta = delta(&rows, "b", "a", |row| row.ops_per_s.0).unwrap();
        assert_eq!(delta.pairs, 2);
        assert!((delta.median - 0.3).abs() < 1e-9);
        assert!((delta.low - 0.1).abs() < 1e-9 && (delta.high - 0.5).abs() < 1e-9);
    }
}
