//! The numbers of a row that arms and builds are compared by: names, units, which way is good.

use crate::beside_row::{ChurnRow, ForkRow, MoveRow};
use crate::number::{Thousandths, bytes, count, digits, duration, from_f64, to_f64};
use crate::record::{ClassRow, RunRow};
use crate::report::summary::write_amplification;
use crate::stats::Direction;

/// What a metric's whole numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Thousandths of things a second.
    PerSecond,
    /// Thousandths of a ratio.
    Ratio,
}

/// One number of a row.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name on the command line and in experiment files.
    pub name: &'static str,
    /// Its name in tables.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// Which way is good.
    pub direction: Direction,
    of: fn(&RunRow) -> u64,
}

macro_rules! metric {
    ($name:literal, $label:literal, $unit:ident, $direction:ident, $of:expr) => {
        Metric {
            name: $name,
            label: $label,
            unit: Unit::$unit,
            direction: Direction::$direction,
            of: $of,
        }
    };
}

/// All metrics, in the order of tables.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric!("throughput", "throughput", PerSecond, Higher, |row| row.ops_per_s.0),
    metric!("p50", "p50", Ns, Lower, |row| row.write_latency_ns.p50),
    metric!("p99", "p99", Ns, Lower, |row| row.write_latency_ns.p99),
    metric!("p999", "p99.9", Ns, Lower, |row| row.write_latency_ns.p999),
    metric!("max", "max", Ns, Lower, |row| row.write_latency_ns.max),
    metric!("read_p50", "read p50", Ns, Lower, |row| row.read_latency_ns.p50),
    metric!("read_p99", "read p99", Ns, Lower, |row| row.read_latency_ns.p99),
    metric!("read_p999", "read p99.9", Ns, Lower, |row| row.read_latency_ns.p999),
    metric!("stall", "stall time", Ns, Lower, |row| row.stall_ns.total()),
    metric!("stall_longest", "longest stall", Ns, Lower, |row| row.stall_longest_ns),
    metric!("stalls", "stalls", Count, Lower, |row| row.stall_count.total()),
    metric!("flushes", "flushes", Count, Lower, |row| row.flush_count),
    metric!("table_p50", "median table", Bytes, Higher, |row| row.table_bytes.p50),
    metric!("tiny_tables", "tiny tables", Count, Lower, |row| row.table_bytes.tiny_count),
    metric!("write_amp", "write ampl.", Ratio, Lower, |row| write_amplification(row).0),
    metric!("wal_retained", "WAL retained", Bytes, Lower, |row| row.wal_retained_bytes_max),
    metric!("memory_peak", "memory peak", Bytes, Lower, |row| row.memtable_bytes_max_seen),
    metric!("stranded", "stranded", Bytes, Lower, |row| row.stranded_bytes),
    metric!("unflushed_age", "unflushed age", Ns, Lower, |row| row.unflushed_age.p99_ns),
    metric!("flush_amp", "flush ampl.", Ratio, Lower, |row| row.write_amplification.flush.0),
    metric!("merge_amp", "merge ampl.", Ratio, Lower, |row| row.write_amplification.compaction.0),
    metric!("merge_cost", "merged/flushed", Ratio, Lower, |row| {
        let written = &row.written_bytes;
        Thousandths::ratio(u128::from(written.compaction), u128::from(written.flush)).0
    }),
    metric!("victims_p99", "victims' p99", Ns, Lower, |row| of_victims(row, |class| class.p99_ns)),
    metric!("victims_p999", "victims' p99.9", Ns, Lower, |row| of_victims(row, |c| c.p999_ns)),
    metric!("create_p99", "create p99", Ns, Lower, |row| of_churn(row, |churn| churn.create_ns.p99)),
    metric!("drop_p99", "drop p99", Ns, Lower, |row| of_churn(row, |churn| churn.drop_ns.p99)),
    metric!("move_p99", "move p99", Ns, Lower, |row| of_moves(row, |moves| moves.latency_ns.p99)),
    metric!("move_bytes", "rewritten a move", Bytes, Lower, |row| {
        of_moves(row, |moves| moves.copied_bytes.checked_div(moves.moved).unwrap_or(0))
    }),
    metric!("fork_p99", "fork p99", Ns, Lower, |row| of_forks(row, |forks| forks.latency_ns.p99)),
    metric!("fork_bytes", "copied a fork", Bytes, Lower, |row| {
        of_forks(row, |forks| forks.copied_bytes.checked_div(forks.done).unwrap_or(0))
    }),
    metric!("fork_space", "space ampl. of forks", Ratio, Lower, |row| {
        of_forks(row, |forks| forks.space_amplification.0)
    }),
    metric!("jain", "Jain", Ratio, Higher, |row| row.jain.0),
    metric!("min_max_share", "min/max served", Ratio, Higher, |row| row.min_max_share.0),
];

/// The worst class but the busiest one: those who suffer where one tenant writes flat out.
fn of_victims(row: &RunRow, of: fn(&ClassRow) -> u64) -> u64 {
    row.classes.iter().filter(|class| class.class != "hot").map(of).max().unwrap_or(0)
}

fn of_churn(row: &RunRow, of: fn(&ChurnRow) -> u64) -> u64 {
    row.churn.as_ref().map_or(0, of)
}

fn of_moves(row: &RunRow, of: fn(&MoveRow) -> u64) -> u64 {
    row.churn.as_ref().and_then(|churn| churn.moves.as_ref()).map_or(0, of)
}

fn of_forks(row: &RunRow, of: fn(&ForkRow) -> u64) -> u64 {
    row.forks.as_ref().map_or(0, of)
}

/// What is compared where nobody names a metric.
pub const USUAL: [&str; 5] = ["throughput", "p999", "stall", "flushes", "write_amp"];

/// The metrics of [`USUAL`].
pub fn usual() -> Vec<&'static Metric> {
    METRICS.iter().filter(|metric| USUAL.contains(&metric.name)).collect()
}

/// A metric by name, or by its name in tables.
///
/// # Errors
///
/// One line with all names that there are.
pub fn find(name: &str) -> Result<&'static Metric, String> {
    let known = METRICS.iter().find(|metric| metric.name == name || metric.label == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        format!("unknown metric {name:?}; allowed: {}", names.join(", "))
    })
}

impl Metric {
    /// The number of a row.
    pub fn of(&self, row: &RunRow) -> u64 {
        (self.of)(row)
    }

    /// Whether it is a latency, which has no value where a queue grows without bound.
    pub fn is_percentile(&self) -> bool {
        const NAMES: [&str; 9] = [
            "p50",
            "p99",
            "p999",
            "max",
            "read_p50",
            "read_p99",
            "read_p999",
            "victims_p99",
            "victims_p999",
        ];
        NAMES.contains(&self.name)
    }

    /// Whether it is of what may happen beside a load; 0 is then that it did not.
    pub fn is_beside(&self) -> bool {
        ["create_", "drop_", "move_", "fork_"].iter().any(|kind| self.name.starts_with(kind))
    }

    /// Its column in CSV: the name with its unit.
    pub fn column(&self) -> String {
        let unit = match self.unit {
            Unit::Ns => "_ns",
            Unit::Bytes => "_bytes",
            Unit::Count => "_count",
            Unit::PerSecond => "_per_s",
            Unit::Ratio => "_ratio",
        };
        format!("{}{unit}", self.name)
    }

    /// The number for people.
    pub fn show(&self, value: f64) -> String {
        let whole = || from_f64(value).unwrap_or(u64::MAX);
        match self.unit {
            Unit::Ns => duration(whole()),
            Unit::Bytes => bytes(whole()),
            Unit::Count if value < 999.5 && value.fract().abs() < 1e-9 => format!("{value:.0}"),
            Unit::Count => count(value),
            Unit::PerSecond => format!("{}/s", count(value / 1e3)),
            Unit::Ratio => digits(value / 1e3),
        }
    }

    /// The number for programs: whole, but for thousandths and medians of an even count.
    pub fn cell(&self, value: f64) -> String {
        match self.unit {
            Unit::Ns | Unit::Bytes | Unit::Count => format!("{value}"),
            Unit::PerSecond | Unit::Ratio => format!("{}", value / 1e3),
        }
    }

    /// The number of a row for programs.
    pub fn row_cell(&self, row: &RunRow) -> String {
        self.cell(to_f64(self.of(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_both_names_and_others_are_told_what_there_is() {
        assert_eq!(find("p999").unwrap().label, "p99.9");
        assert_eq!(find("p99.9").unwrap().name, "p999");
        let refused = find("latency").unwrap_err();
        assert!(refused.contains("\"latency\"") && refused.contains("throughput, p50"));
        assert!(METRICS.iter().all(|metric| find(metric.name).unwrap().name == metric.name));
        assert_eq!(usual().len(), USUAL.len());
    }

    #[test]
    fn numbers_have_the_unit_of_their_column() {
        let row = RunRow { ops_per_s: Thousandths(44_100_500), ..RunRow::default() };
        let throughput = find("throughput").unwrap();
        assert_eq!(throughput.row_cell(&row), "44100.5");
        assert_eq!(throughput.column(), "throughput_per_s");
        assert_eq!(throughput.show(44_100_500.0), "44.1k/s");
        assert_eq!(find("p999").unwrap().show(23_700_000.0), "23.7ms");
        assert_eq!(find("stranded").unwrap().column(), "stranded_bytes");
        let flushes = find("flushes").unwrap();
        assert_eq!([18.0, 18.5, 1_771.0].map(|n| flushes.show(n)), ["18", "18.5", "1.77k"]);
    }
}
