//! The table under a run of several seeds: every arm against the baseline, metric by metric.

use crate::compare::{self, Line, Terms};
use crate::metric::Metric;
use crate::record::RunRow;
use crate::report::table::{clean, table, wrap};
use crate::stats::Verdict;
use crate::stats::paired::Scale;

/// The table with its legend; nothing where no arm shares two seeds with the baseline.
pub fn render(rows: &[RunRow], baseline: &str, metrics: &[&'static Metric]) -> String {
    let terms = Terms { metrics: metrics.to_vec(), gates: Vec::new() };
    let lines = compare::arms(rows, baseline, &terms);
    if lines.iter().all(|line| line.paired.pairs < 2) {
        return String::new();
    }
    let mut header = vec!["arm"];
    header.extend(terms.metrics.iter().map(|metric| metric.label));
    let mut cells: Vec<Vec<String>> = Vec::new();
    let mut last = None;
    for line in &lines {
        if last != Some(&line.arm) {
            cells.push(vec![clean(&line.arm)]);
            last = Some(&line.arm);
        }
        if let Some(row) = cells.last_mut() {
            row.push(cell(line));
        }
    }
    let mut text = "\n".to_owned();
    for line in table(&header, cells).lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&wrap(&format!(
        "Against {} on the same seeds: the change, below it its 95% interval. Where nothing \
         follows it the change is inconclusive.",
        clean(baseline)
    )));
    if lines.iter().any(|line| line.base_arm != baseline) {
        text.push_str(&wrap(
            "Arms that were asked something else are held against the arm with the baseline's \
             options that was asked the same.",
        ));
    }
    for note in compare::notes(&lines) {
        text.push_str(&wrap(&note));
    }
    text
}

/// `+34% WORSE` over `+22 to +45%`.
fn cell(line: &Line) -> String {
    let paired = &line.paired;
    let (change, interval) = compare::change_text(paired);
    let verdict = match paired.verdict {
        Verdict::Inconclusive => "",
        Verdict::Worse => " WORSE",
        Verdict::Better => " better",
        Verdict::Same => " same",
    };
    let interval = match paired.change.scale {
        Scale::FromZero => line.metric.show(paired.new),
        Scale::Share | Scale::ShareOfMean => {
            interval.trim_matches(['[', ']']).replace("%, ", " to ").replace(", ", " to ")
        }
    };
    format!("{change}{verdict}\n{interval}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::usual;
    use crate::report::mock;

    #[test]
    fn arms_have_verdicts_where_there_are_seeds_and_lines_fit() {
        let rows = mock::rows(3);
        let text = render(&rows, &rows[0].arm, &usual());
        println!("{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("better") && text.contains("reaches 4.3 standard errors"), "{text}");
        assert!(text.contains(&format!("Against {} on", rows[0].arm)), "{text}");
        let of_one = text.lines().filter(|line| line.starts_with("shared/largest/stop=2")).count();
        assert_eq!(of_one, 1, "{text}");
        assert_eq!(render(&mock::rows(1), &rows[0].arm, &usual()), "");
        assert_eq!(render(&rows, "none", &usual()), "");
    }
}
