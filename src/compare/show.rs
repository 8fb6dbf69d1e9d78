//! Comparisons as tables for people and lines for programs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Line;
use crate::report::table::{self, clean};
use crate::stats::bootstrap::FEW;
use crate::stats::paired::{MARGIN, Scale};
use crate::stats::{Paired, Verdict};

/// The first line of a comparison in CSV. Changes are shares, but where the scale is `from_zero`.
pub const CSV_HEADER: &str =
    "arm,metric,base_arm,base,new,change,low,high,scale,pairs,verdict,beyond_gate\n";

/// A share for people: `+1.6%`, `-34%`, `x12` from ten times on.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        p if p < 0.05 => "0%".to_owned(),
        p if p < 9.95 => format!("{percent:+.1}%"),
        p if p < 900.0 => format!("{percent:+.0}%"),
        _ if share > 0.0 => format!("x{:.0}", share + 1.0),
        _ => format!("{percent:+.0}%"),
    }
}

/// The change and its interval, apart: `+34%` and `[+29%, +38%]`; `from 0` has no share.
pub fn change_text(paired: &Paired) -> (String, String) {
    let change = &paired.change;
    let estimate = match change.scale {
        Scale::FromZero if paired.verdict != Verdict::Same => "from 0".to_owned(),
        Scale::FromZero | Scale::Share | Scale::ShareOfMean => percent(change.estimate),
    };
    let interval = match (&change.interval, change.scale) {
        (None, _) => "one seed".to_owned(),
        (Some(_), Scale::FromZero) => String::new(),
        (Some(i), Scale::Share | Scale::ShareOfMean) => {
            format!("[{}, {}]", percent(i.low), percent(i.high))
        }
    };
    (estimate, interval)
}

/// A verdict as tables have it: what is bad stands out.
pub(crate) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Worse => "WORSE",
        Verdict::Better | Verdict::Same | Verdict::Inconclusive => verdict.name(),
    }
}

/// The table for people; no line is wider than a hundred columns.
pub fn table(lines: &[Line]) -> String {
    let seeds: BTreeSet<usize> = lines.iter().map(|line| line.paired.pairs).collect();
    let told = match seeds.iter().copied().collect::<Vec<_>>().as_slice() {
        [one] => format!("{one} paired seeds"),
        _ => "paired seeds".to_owned(),
    };
    let heading = format!("change [95% CI]\n{told}");
    let header = ["arm", "metric", "base", "new", heading.as_str(), "verdict"];
    let mut last = "";
    let mut rows = Vec::new();
    for line in lines {
        // One arm's metrics stand below each other.
        let arm = if line.arm == last { String::new() } else { clean(&line.arm) };
        last = &line.arm;
        let (change, interval) = change_text(&line.paired);
        let few = if seeds.len() > 1 { format!(" ({})", line.paired.pairs) } else { String::new() };
        let gate = if line.beyond_gate == Some(true) { " > gate" } else { "" };
        rows.push(vec![
            arm,
            line.metric.label.to_owned(),
            line.metric.show(line.paired.base),
            line.metric.show(line.paired.new),
            format!("{change} {interval}{few}"),
            format!("{}{gate}", word(line.paired.verdict)),
        ]);
    }
    let mut text = String::new();
    for line in table::table(&header, rows).lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a reader must know of the intervals: how few seeds widen them, what is called the same.
pub fn notes(lines: &[Line]) -> Vec<String> {
    const STUDENT: [&str; 8] = ["12.7", "4.3", "3.2", "2.8", "2.6", "2.4", "2.4", "2.3"];
    let mut notes = Vec::new();
    let fewest = lines.iter().map(|line| line.paired.pairs).min().unwrap_or(0);
    let reach = fewest.checked_sub(2).and_then(|at| STUDENT.get(at));
    if let Some(reach) = reach.filter(|_| fewest < FEW) {
        notes.push(format!(
            "{fewest} paired seeds are few: an interval reaches {reach} standard errors to each \
             side, with 20 seeds it would be 2.1."
        ));
    }
    if fewest == 1 {
        notes.push(
            "One paired seed has no interval: only equal numbers have a verdict, and no gate can \
             fail. Run more seeds."
                .to_owned(),
        );
    }
    if lines.iter().any(|line| line.paired.verdict == Verdict::Same) {
        notes.push(format!("same: equal, or within {:.0}% as a whole.", MARGIN * 100.0));
    }
    if lines.iter().any(|line| line.paired.change.scale == Scale::ShareOfMean) {
        notes.push("Where some base is 0 a change is a share of the bases' mean.".to_owned());
    }
    notes
}

fn scale(paired: &Paired) -> &'static str {
    match paired.change.scale {
        Scale::Share => "share",
        Scale::ShareOfMean => "share_of_mean",
        Scale::FromZero => "from_zero",
    }
}

/// A number with six decimals: what differs behind them is rounding. Never a negative 0.
fn decimals(value: f64) -> String {
    let text = format!("{value:.6}");
    if text == "-0.000000" { "0.000000".to_owned() } else { text }
}

/// A line of CSV.
pub fn csv_line(line: &Line) -> String {
    let paired = &line.paired;
    let interval = paired.change.interval;
    let end = |value: Option<f64>| value.map(decimals).unwrap_or_default();
    format!(
        "\"{}\",{},\"{}\",{},{},{},{},{},{},{},{},{}\n",
        line.arm.replace('"', "\"\""),
        line.metric.column(),
        line.base_arm.replace('"', "\"\""),
        line.metric.cell(paired.base),
        line.metric.cell(paired.new),
        decimals(paired.change.estimate),
        end(interval.map(|i| i.low)),
        end(interval.map(|i| i.high)),
        scale(paired),
        paired.pairs,
        paired.verdict.name(),
        line.beyond_gate.map(|beyond| beyond.to_string()).unwrap_or_default(),
    )
}

/// An object for a line of JSON.
pub fn json_line(line: &Line) -> Value {
    let paired = &line.paired;
    let interval = paired.change.interval;
    json!({
        "schema": "forebay.compare/1",
        "arm": line.arm,
        "metric": line.metric.column(),
        "base_arm": line.base_arm,
        "base": line.metric.cell(paired.base).parse::<f64>().ok(),
        "new": line.metric.cell(paired.new).parse::<f64>().ok(),
        "change": paired.change.estimate,
        "low": interval.map(|i| i.low),
        "high": interval.map(|i| i.high),
        "scale": scale(paired),
        "pairs": paired.pairs,
        "verdict": paired.verdict.name(),
        "beyond_gate": line.beyond_gate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric;
    use crate::stats::{Direction, compare};

    fn line(pairs: &[(u64, u64)]) -> Line {
        let paired = compare(pairs, Direction::Lower, MARGIN).unwrap();
        let metric = metric::find("p999").unwrap();
        let (arm, base_arm) = ("a \"b\"".to_owned(), "c".to_owned());
        Line { arm, base_arm, metric, paired, beyond_gate: Some(true) }
    }

    #[test]
    fn changes_are_short_and_zeros_are_told() {
        let texts = |pairs: &[(u64, u64)]| change_text(&line(pairs).paired);
        let text = texts(&[(100, 129), (100, 134), (100, 138)]);
        assert_eq!((text.0.as_str(), text.1.as_str()), ("+34%", "[+22%, +45%]"));
        assert_eq!(texts(&[(100, 134)]), ("+34%".to_owned(), "one seed".to_owned()));
        assert_eq!(texts(&[(0, 5), (0, 6)]).0, "from 0");
        assert_eq!(texts(&[(0, 0), (0, 0)]).0, "0%");
        assert_eq!(texts(&[(10, 210), (10, 210)]).0, "x21");
        assert_eq!(texts(&[(1000, 984), (1000, 984)]).0, "-1.6%");
    }

    #[test]
    fn tables_fit_and_programs_get_whole_numbers() {
        let mut slow = line(&[(23_700_000, 31_800_000), (23_000_000, 30_900_000)]);
        slow.arm = "per-tenant/above-mean-oldest/memtable_stop_count=4/and-more-of-it".to_owned();
        let text = table(&[slow.clone(), slow.clone()]);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("WORSE > gate") || text.contains("inconclusive > gate"), "{text}");
        assert!(text.contains("2 paired seeds") && text.contains("23.4ms"), "{text}");
        let csv = csv_line(&line(&[(100, 200)]));
        assert_eq!(
            csv,
            "\"a \"\"b\"\"\",p999_ns,\"c\",100,200,1.000000,,,share,1,inconclusive,true\n"
        );
        assert_eq!(csv.matches(',').count(), CSV_HEADER.matches(',').count());
        let object = json_line(&line(&[(100, 200)]));
        assert_eq!((&object["base"], &object["low"]), (&json!(100.0), &Value::Null));
        assert!(notes(&[slow])[0].contains("12.7 standard errors"));
        assert!(notes(&[line(&[(1, 2)])])[0].contains("no gate can fail"));
    }
}
