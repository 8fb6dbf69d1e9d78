//! The tables of results, of the experiment and its rows alone: CSV for programs and for the check,
//! Markdown for people.

use std::collections::BTreeMap;

use forebay_engine::types::to_u64;

use crate::compare::{self, CSV_HEADER, Line, Terms};
use crate::experiment::Experiment;
use crate::metric::{METRICS, Metric};
use crate::number::to_f64;
use crate::record::{Outcome, RunRow};
use crate::report::table::{GROWS, clean, notes};
use crate::results::side;
use crate::stats::Verdict;
use crate::stats::location::median;
use crate::text::append;

/// Every table of results, with how many columns of it name a row.
pub const KEY_COLUMNS: [(&str, usize); 4] =
    [("arms.csv", 1), ("runs.csv", 2), ("against-baseline.csv", 2), (side::TABLE, 2)];

/// All tables by file name.
pub fn tables(experiment: &Experiment, rows: &[RunRow]) -> BTreeMap<String, String> {
    let baseline = experiment.baseline_arm().map_or("", |arm| arm.name.as_str());
    let terms = Terms { metrics: METRICS.iter().collect(), gates: Vec::new() };
    let lines = compare::arms(rows, baseline, &terms);
    let mut against = CSV_HEADER.to_owned();
    against.extend(lines.iter().map(compare::csv_line));
    [
        ("arms.csv", arms(rows)),
        ("runs.csv", runs(rows)),
        ("against-baseline.csv", against),
        ("summary.md", summary(experiment, (rows, baseline), &lines)),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text).replace('"', "\"\""))
}

fn columns() -> String {
    let mut text = String::new();
    for metric in METRICS {
        append(&mut text, format_args!(",{}", metric.column()));
    }
    text
}

/// The arms in the order of the rows, each with its rows that passed.
fn by_arm(rows: &[RunRow]) -> Vec<(&str, Vec<&RunRow>)> {
    let mut arms: Vec<(&str, Vec<&RunRow>)> = Vec::new();
    for row in rows {
        let at = arms.iter().position(|(arm, _)| *arm == row.arm).unwrap_or_else(|| {
            arms.push((&row.arm, Vec::new()));
            arms.len() - 1
        });
        if row.outcome == Outcome::Pass {
            arms.get_mut(at).map(|(_, passed)| passed.push(row)).unwrap_or_default();
        }
    }
    arms
}

fn middle(rows: &[&RunRow], metric: &Metric) -> Option<f64> {
    median(&mut rows.iter().map(|row| to_f64(metric.of(row))).collect::<Vec<_>>())
}

/// Medians over the seeds that passed.
fn arms(rows: &[RunRow]) -> String {
    let mut text = format!("arm,passed{}\n", columns());
    for (arm, passed) in by_arm(rows) {
        append(&mut text, format_args!("{},{}", quoted(arm), passed.len()));
        for metric in METRICS {
            let cell = middle(&passed, metric).map(|value| metric.cell(value));
            append(&mut text, format_args!(",{}", cell.unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

fn runs(rows: &[RunRow]) -> String {
    let mut text = format!("arm,seed,outcome,trace_hash{}\n", columns());
    for row in rows {
        append(
            &mut text,
            format_args!(
                "{},{},{},{}",
                quoted(&row.arm),
                row.seed,
                row.outcome.name(),
                row.trace_hash
            ),
        );
        for metric in METRICS {
            append(&mut text, format_args!(",{}", metric.row_cell(row)));
        }
        text.push('\n');
    }
    text
}

/// Text in a cell of Markdown.
pub(super) fn cell(text: &str) -> String {
    clean(text).replace('|', "\\|")
}

/// A table of Markdown.
pub(super) fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(header);
    let mut rule = vec!["---".to_owned()];
    rule.extend(header.iter().skip(1).map(|_| "---:".to_owned()));
    text.push_str(&line(&rule));
    text.extend(rows.iter().map(|row| line(row)));
    text
}

fn summary(experiment: &Experiment, (rows, baseline): (&[RunRow], &str), lines: &[Line]) -> String {
    let shown = &experiment.metrics;
    let mut header = vec!["arm".to_owned()];
    header.extend(shown.iter().map(|metric| metric.label.to_owned()));
    let mut text = format!("# {}\n\n", clean(&experiment.title));
    let question = experiment.question.split_whitespace().collect::<Vec<_>>().join(" ");
    if !question.is_empty() {
        append(&mut text, format_args!("{}\n\n", clean(&question)));
    }
    let cells = |(arm, passed): &(&str, Vec<&RunRow>)| {
        let mut cells = vec![cell(arm)];
        let behind = passed.iter().filter(|row| row.is_saturated()).count();
        let grows = behind > passed.len() >> 1;
        let show = |metric: &&&Metric| {
            if grows && metric.is_percentile() {
                return Some(GROWS.to_owned());
            }
            let value = middle(passed, metric);
            value
                .filter(|value| !metric.is_beside() || *value > 0.0)
                .map(|value| metric.show(value))
        };
        cells.extend(shown.iter().map(|metric| show(&metric).unwrap_or_else(|| "-".to_owned())));
        cells
    };
    let arms: Vec<Vec<String>> = by_arm(rows).iter().map(cells).collect();
    text.push_str(&table(&header, &arms));
    let seen = |line: &&Line| shown.iter().any(|metric| metric.name == line.metric.name);
    let mut told: Vec<Vec<String>> = Vec::new();
    for of_arm in lines.chunk_by(|a, b| (&a.arm, &a.base_arm) == (&b.arm, &b.base_arm)) {
        let Some(first) = of_arm.first() else { continue };
        let other = Some(&first.base_arm).filter(|base| *base != baseline);
        let other = other.map(|base| format!(" (`{}`)", cell(base))).unwrap_or_default();
        let mut row = vec![format!("{}{other}", cell(&first.arm))];
        row.extend(shown.iter().map(|metric| {
            let line = of_arm.iter().find(|line| line.metric.name == metric.name);
            line.map_or_else(|| "-".to_owned(), change)
        }));
        told.push(row);
    }
    if !told.is_empty() {
        append(&mut text, format_args!("\nAgainst `{}` on the same seeds:\n\n", clean(baseline)));
        text.push_str(&table(&header, &told));
        text.push_str("\nThe change, its 95% interval, the verdict; `?`: inconclusive.\n");
    }
    let of_intervals = compare::notes(&lines.iter().filter(seen).cloned().collect::<Vec<_>>());
    for note in notes(rows).iter().filter(|note| !note.contains("seeds: numbers are")) {
        append(&mut text, format_args!("\n{note}\n"));
    }
    for note in of_intervals {
        append(&mut text, format_args!("\n{note}\n"));
    }
    append(&mut text, format_args!("\n{} runs, medians over seeds.\n", to_u64(rows.len())));
    text
}

fn change(line: &Line) -> String {
    let is_nothing = line.paired.base == 0.0 && line.paired.new == 0.0;
    if line.metric.is_beside() && is_nothing {
        return "-".to_owned();
    }
    let (change, interval) = compare::change_text(&line.paired);
    let verdict = match line.paired.verdict {
        Verdict::Worse => "**worse**",
        Verdict::Better => "better",
        Verdict::Same => "same",
        Verdict::Inconclusive => "?",
    };
    format!("{change} {interval} {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{ExperimentFile, Overrides};
    use crate::report::mock;
    use crate::results::cells;

    fn experiment() -> Experiment {
        let text = "title = \"T|x\"\nquestion = \"Which?\"\n[arms]\nflush_policy = [\"largest\"]";
        let file = ExperimentFile::parse("t", text).unwrap();
        Experiment::resolve("t", &file, &Overrides::default()).unwrap()
    }

    #[test]
    fn tables_have_a_row_for_each_arm_and_run_and_a_changed_row_is_one_cell_of_them() {
        let mut rows = mock::rows(3);
        rows[0].arm = "a,\"b\"|c".to_owned();
        let mut experiment = experiment();
        experiment.arms[0].name = rows[3].arm.clone();
        experiment.baseline = rows[3].arm.clone();
        let made = tables(&experiment, &rows);
        assert_eq!(made["arms.csv"].lines().count(), 1 + 19);
        assert_eq!(made["runs.csv"].lines().count(), 1 + 54);
        assert!(made["summary.md"].contains("| a,\"b\"\\|c |"), "{}", made["summary.md"]);
        assert!(made["summary.md"].contains(&format!("Against `{}`", rows[3].arm)));
        let mut changed = rows.clone();
        changed[10].wal_retained_bytes_max += 1;
        let other = tables(&experiment, &changed);
        let (name, keys) = KEY_COLUMNS[1];
        let told = cells::differing(&made[name], &other[name], keys).unwrap();
        assert_eq!(told.len(), 1);
        let start = format!("{} seed 1 wal_retained_bytes ", rows[10].arm);
        assert!(told[0].starts_with(&start), "{told:?}");
        for (name, keys) in KEY_COLUMNS.into_iter().filter(|(name, _)| made.contains_key(*name)) {
            assert_eq!(cells::differing(&made[name], &made[name], keys).unwrap().len(), 0);
        }
    }

    #[test]
    fn the_summary_has_the_metrics_that_the_experiment_names_in_its_order() {
        let mut rows = mock::rows(2);
        let mut experiment = experiment();
        experiment.metrics =
            ["write_amp", "p999", "fork_p99"].map(|name| crate::metric::find(name).unwrap()).into();
        for (row, n) in rows.iter_mut().zip(1..) {
            row.write_latency_ns.p999 = 7_000_000;
            row.written_bytes.flush = 1_000_000_000_000 * n * n;
        }
        experiment.arms[0].name = rows[0].arm.clone();
        experiment.baseline = rows[0].arm.clone();
        let made = tables(&experiment, &rows)["summary.md"].clone();
        let header = "| arm | write ampl. | p99.9 | fork p99 |";
        assert_eq!(made.lines().filter(|line| *line == header).count(), 2, "{made}");
        // p99.9 is the same in all rows, write amplification in none, and nothing was forked.
        let (_, against) = made.split_once("Against ").unwrap();
        let told: Vec<_> = against.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        assert!(!told.is_empty(), "{made}");
        for line in told {
            let cells: Vec<&str> = line.split(" | ").collect();
            assert!(cells[1].ends_with('?') || cells[1].contains("**worse**"), "{line}");
            assert!(cells[2].starts_with("0% ") && cells[2].ends_with("same"), "{line}");
            assert_eq!(cells[3], "- |", "{line}");
        }
    }

    #[test]
    fn runs_that_failed_are_rows_and_no_numbers() {
        let mut rows = mock::rows(1);
        rows.truncate(2);
        rows[1].outcome = Outcome::Fail;
        let made = tables(&experiment(), &rows);
        assert!(made["runs.csv"].contains(",fail,"));
        let last = made["arms.csv"].lines().last().unwrap();
        assert!(last.ends_with(&format!(",0{}", ",".repeat(METRICS.len()))), "{last}");
        assert!(made["summary.md"].contains("1 of 2 runs did not pass"));
    }
}
