//! The page's headline table: every number of an arm with its change against the baseline.
//!
//! Changes, intervals and verdicts are those of `forebay compare`, so that the page and the terminal
//! never judge differently, and only a verdict has a colour. Where a queue grows without bound its
//! percentiles say how long the run was: they are neither shown nor compared.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::compare::{self, Line, Terms};
use crate::metric::{self, Metric};
use crate::number::{bytes, count, digits, duration, seconds, thousands};
use crate::record::RunRow;
use crate::report::chart::MANY_ARMS;
use crate::report::load;
use crate::report::summary::ArmSummary;
use crate::report::table::GROWS;
use crate::stats::Verdict;

/// One number of an arm.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Cell {
    text: String,
    /// The change, with its verdict behind it where there is one.
    change: String,
    /// The change's interval.
    interval: String,
    /// Whether the seeds leave open which way it goes.
    is_open: bool,
    /// `good`, `bad` or nothing.
    tone: &'static str,
}

/// A column: its head, the number for people, and the metric by which it is compared.
type Column = (&'static str, &'static str, fn(&ArmSummary) -> String);

const COLUMNS: [Column; 15] = [
    ("throughput, op/s", "throughput", |a| count(a.ops_per_s.to_f64())),
    ("write p50", "p50", |a| duration(a.write_latency_ns.p50)),
    ("write p99", "p99", |a| duration(a.write_latency_ns.p99)),
    ("write p99.9", "p999", |a| duration(a.write_latency_ns.p999)),
    ("write max", "max", |a| duration(a.write_latency_ns.max)),
    ("read p99", "read_p99", |a| duration(a.read_latency_ns.p99)),
    ("stall, s", "stall", |a| seconds(a.stall_ns.total())),
    ("flushes", "flushes", |a| thousands(a.flush_count)),
    ("median table", "table_p50", |a| bytes(a.table_bytes.p50)),
    ("write ampl.", "write_amp", |a| digits(a.write_amplification.to_f64())),
    ("WAL retained", "wal_retained", |a| bytes(a.wal_retained_bytes_max)),
    ("memtables, peak", "memory_peak", |a| bytes(a.memtable_bytes_max_seen)),
    ("stranded", "stranded", |a| bytes(a.stranded_bytes)),
    ("fairness (Jain)", "jain", |a| format!("{:.3}", a.jain.to_f64())),
    ("runs", "", |a| thousands(a.passed)),
];

fn metric(column: &Column) -> Option<&'static Metric> {
    metric::find(column.1).ok()
}

/// The heads of the columns.
pub(super) fn columns() -> Vec<&'static str> {
    COLUMNS.iter().map(|column| column.0).collect()
}

/// The table's body, arm by arm.
pub(super) struct Headline<'a> {
    rows: &'a [RunRow],
    baseline: &'a str,
    lines: Vec<Line>,
    growing: BTreeSet<&'a str>,
    /// Intervals are left out where there are so many arms that the page would burst.
    has_intervals: bool,
}

impl<'a> Headline<'a> {
    /// Of all rows and arms, whatever of them is shown; `shown_count` arms are.
    pub(super) fn new(
        (rows, arms): (&'a [RunRow], &'a [ArmSummary]),
        shown_count: usize,
        baseline: &'a str,
    ) -> Self {
        let metrics = COLUMNS.iter().filter_map(metric).collect();
        let lines = compare::arms(rows, baseline, &Terms { metrics, gates: Vec::new() });
        let growing = arms.iter().filter(|arm| arm.saturated).map(|arm| arm.arm.as_str());
        let has_intervals = shown_count <= MANY_ARMS;
        Self { rows, baseline, lines, growing: growing.collect(), has_intervals }
    }

    /// What a reader must know of the intervals.
    pub(super) fn notes(&self) -> Vec<String> {
        compare::notes(&self.lines)
    }

    /// What stands below an arm's name.
    pub(super) fn note(&self, arm: &ArmSummary) -> String {
        let mut told = Vec::new();
        if arm.passed < arm.runs {
            told.push(format!("{} of {} runs passed", arm.passed, arm.runs));
        }
        told.extend(load::of_arm(self.rows, &arm.arm));
        told.join("; ")
    }

    /// The arm that this one is held against, where that is not the baseline.
    pub(super) fn other_base(&self, arm: &ArmSummary) -> &str {
        let line = self.lines.iter().find(|line| line.arm == arm.arm);
        line.map(|line| line.base_arm.as_str()).filter(|base| *base != self.baseline).unwrap_or("")
    }

    pub(super) fn cells(&self, arm: &ArmSummary) -> Vec<Cell> {
        COLUMNS.iter().map(|column| self.cell(column, arm)).collect()
    }

    fn cell(&self, column: &Column, arm: &ArmSummary) -> Cell {
        let plain = |text: String| Cell { text, ..Cell::default() };
        if arm.passed == 0 {
            return plain("-".to_owned());
        }
        let Some(metric) = metric(column) else { return plain(column.2(arm)) };
        let is_percentile = metric.is_percentile();
        if is_percentile && arm.saturated {
            return plain(GROWS.to_owned());
        }
        let text = column.2(arm);
        let of_both = |line: &&Line| line.arm == arm.arm && line.metric.name == metric.name;
        let Some(line) = self.lines.iter().find(of_both) else { return plain(text) };
        if is_percentile && self.growing.contains(line.base_arm.as_str()) {
            return plain(text);
        }
        let (change, interval) = compare::change_text(&line.paired);
        let (tone, word) = match line.paired.verdict {
            Verdict::Better => ("good", " better"),
            Verdict::Worse => ("bad", " worse"),
            Verdict::Same => ("", " same"),
            Verdict::Inconclusive => ("", ""),
        };
        let of_several = line.paired.change.interval.is_some();
        let ends = interval.trim_matches(['[', ']']).split_once(", ");
        let is_wide = ends.is_some_and(|(low, high)| low != high);
        let interval = if self.has_intervals && is_wide { interval } else { String::new() };
        let is_open = of_several && line.paired.verdict == Verdict::Inconclusive;
        // Numbers that are the same to every digit shown need no share.
        let is_equal = word == " same" && change == "0%";
        let change = if is_equal { "same".to_owned() } else { change + word };
        Cell { text, change, interval, is_open, tone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Thousandths;
    use crate::record::Outcome;
    use crate::report::summary::summaries;

    fn row(arm: &str, seed: u64, p999: u64) -> RunRow {
        let mut row = RunRow {
            arm: arm.to_owned(),
            seed,
            outcome: Outcome::Pass,
            ops: 117_000,
            elapsed_ns: 1_000_000_000,
            offered_ops_per_s: Thousandths(117_000_000),
            ops_per_s: Thousandths(117_000_000),
            ..RunRow::default()
        };
        row.write_latency_ns.p999 = p999;
        row
    }

    fn p999(rows: &[RunRow], arm: &str) -> Cell {
        let arms = summaries(rows);
        let of_arm = arms.iter().find(|found| found.arm == arm).unwrap();
        Headline::new((rows, &arms), arms.len(), "base").cells(of_arm).remove(3)
    }

    /// Four seeds of the baseline and of an arm that lies so many thousandths above it.
    fn rows(above: [u64; 4]) -> Vec<RunRow> {
        let pairs = (0..4).zip(above).flat_map(|(seed, above)| {
            let base = 1_000 * (seed + 10);
            [row("base", seed, base * 1_000), row("new", seed, base * (1_000 + above))]
        });
        pairs.collect()
    }

    #[test]
    fn only_a_verdict_has_a_colour_and_every_change_has_its_interval_or_a_word() {
        assert_eq!(COLUMNS.iter().filter_map(metric).count(), COLUMNS.len() - 1);
        let worse = p999(&rows([340, 350, 345, 342]), "new");
        assert_eq!((worse.tone, worse.change.as_str()), ("bad", "+34% worse"));
        assert!(worse.interval.starts_with("[+3") && !worse.is_open, "{worse:?}");
        // Every seed is above the baseline, which says nothing where they lie so far apart.
        let open = p999(&rows([5, 900, 10, 3]), "new");
        assert_eq!((open.tone, open.is_open), ("", true), "{open:?}");
        assert!(open.interval.starts_with("[-"), "{open:?}");
        let same = p999(&rows([1, 2, 1, 2]), "new");
        assert_eq!((same.tone, same.change.as_str()), ("", "+0.1% same"), "{same:?}");
        let of_one = p999(&rows([340, 350, 345, 342])[..2], "new");
        let told = (of_one.change.as_str(), of_one.interval.as_str(), of_one.tone);
        assert_eq!(told, ("+34%", "", ""), "one seed has no verdict");
        assert!(!of_one.is_open);
    }

    #[test]
    fn an_arm_whose_queue_grows_says_what_it_was_offered_and_has_no_percentile() {
        let mut rows = rows([340, 350, 345, 342]);
        for row in rows.iter_mut().filter(|row| row.arm == "new") {
            row.ops = 60_000;
        }
        assert_eq!(p999(&rows, "new"), Cell { text: "grows".to_owned(), ..Cell::default() });
        let arms = summaries(&rows);
        let headline = Headline::new((&rows, &arms), arms.len(), "base");
        let note = "offered 117k/s, served 60.0k/s: the queue grows without bound";
        assert_eq!(
            (headline.note(&arms[0]), headline.note(&arms[1])),
            (String::new(), note.into())
        );
        assert_eq!(headline.cells(&arms[1])[0].change, "same", "throughput is compared");
        // Nothing is held against a percentile that says how long a run was.
        for row in &mut rows {
            row.ops = if row.arm == "new" { 117_000 } else { 60_000 };
        }
        let alone = p999(&rows, "new");
        assert!(alone.change.is_empty() && alone.text.ends_with("ms"), "{alone:?}");
    }
}
