//! The table under a finished command: every arm in a line, then which is best, which worst and
//! why.
//!
//! No line is wider than [`WIDTH`] columns, whatever an arm is called, so that the table survives a
//! narrow terminal, a CI log and a mail.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use forebay_engine::types::to_u64;

use crate::number::{Thousandths, bytes, count, digits, duration, seconds, thousands, to_f64};
use crate::record::{Outcome, RunRow};
use crate::report::summary::{ArmSummary, summaries};
use crate::report::{forks, load};

/// Columns of the terminal that the table uses at most.
pub const WIDTH: u16 = 100;

/// The narrowest first column that numbers of any size leave.
const ARM_WIDTH_MIN: usize = 12;

/// In place of a percentile where the queue grows without bound.
pub const GROWS: &str = "grows";

/// Columns between two columns of the table.
const GAP: u16 = 2;

const HEADER: [&str; 9] = [
    "arm",
    "throughput",
    "p99",
    "p99.9",
    "stall\ns",
    "flushes",
    "median\ntable",
    "write\nampl.",
    "WAL\nretained",
];

/// What the second table says of an arm: its smallest and largest tables, its memory, who got what.
const MORE: [&str; 9] = [
    "arm",
    "table\np1",
    "table\np99",
    "tiny\ntables",
    "memory\nmean",
    "memory\npeak",
    "stranded",
    "Jain",
    "min/max\nserved",
];

/// Columns of the second table where there is an aggressor.
const VICTIMS: [&str; 2] = ["victims'\np99", "worst\nvictim"];

/// The tables, a sentence on the best and the worst arm, and a line on runs that did not pass.
pub fn render(rows: &[RunRow]) -> String {
    let arms = summaries(rows);
    if arms.is_empty() {
        return "no runs\n".to_owned();
    }
    let mut text = String::new();
    let mut tables = vec![table(&HEADER, arms.iter().map(cells).collect()), more(&arms)];
    let forks = forks::cells(rows);
    if !forks.is_empty() {
        tables.push(table(&forks::HEADER, forks));
    }
    for table in tables {
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    for verdict in verdicts(&arms).into_iter().chain(over_budget(&arms)) {
        text.push_str(&wrap(&verdict));
    }
    for note in notes(rows) {
        text.push_str(&wrap(&note));
    }
    text
}

/// What a reader must know before comparing the numbers: runs left out, closed loops, and arms
/// whose queues grew because they served less than they were offered.
pub fn notes(rows: &[RunRow]) -> Vec<String> {
    let mut notes = Vec::new();
    let passed = || rows.iter().filter(|row| row.outcome == Outcome::Pass);
    let (runs, passed_runs) = (rows.len(), passed().count());
    if passed_runs < runs {
        notes.push(format!(
            "{} of {} runs did not pass and are left out of the numbers.",
            thousands(to_u64(runs - passed_runs)),
            thousands(to_u64(runs))
        ));
    }
    let mut seeds: BTreeMap<&str, usize> = BTreeMap::new();
    for row in passed() {
        *seeds.entry(&row.arm).or_default() += 1;
    }
    if let Some(most) = seeds.values().max().filter(|most| **most > 1) {
        notes.push(format!(
            "{most} seeds: numbers are medians (stalls: means); below each stands how far the lowest \
             and the highest seed lie from it, which is no confidence interval."
        ));
    }
    let closed = passed().filter(|row| row.offered_ops_per_s.0 == 0).count();
    if closed > 0 {
        notes.push(format!(
            "Closed loop in {} of {} runs: a stalled writer asks for less, so their latencies are too \
             kind.",
            thousands(to_u64(closed)),
            thousands(to_u64(passed_runs))
        ));
    }
    notes.extend(load::maxima(rows));
    notes.extend(load::saturated(rows));
    notes
}

/// Whether an arm took so much more memory than it may that comparing it with others is unfair.
fn is_over_budget(arm: &ArmSummary) -> bool {
    arm.memory_peak_ratio > Thousandths(1_050)
}

/// The arms that are left out of [`verdicts`] for their memory.
fn over_budget(arms: &[ArmSummary]) -> Option<String> {
    let over: Vec<&ArmSummary> = arms.iter().filter(|arm| is_over_budget(arm)).collect();
    let most = over.iter().max_by_key(|arm| arm.memory_peak_ratio)?;
    Some(format!(
        "{} of {} arms exceeded the memory budget and are not compared; most: {}, {:.0} % of it.",
        thousands(to_u64(over.len())),
        thousands(to_u64(arms.len())),
        clean(&most.arm),
        most.memory_peak_ratio.to_f64() * 100.0
    ))
}

/// A sentence for each scenario, since arms of different ones do not compare.
pub fn verdicts(arms: &[ArmSummary]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<ArmSummary>)> = Vec::new();
    let fair = |arm: &&ArmSummary| !arm.silent && !is_over_budget(arm);
    for arm in arms.iter().filter(fair) {
        match groups.iter_mut().find(|(name, _)| *name == arm.workload) {
            Some((_, group)) => group.push(arm.clone()),
            None => groups.push((&arm.workload, vec![arm.clone()])),
        }
    }
    if groups.len() < 2 {
        return vec![verdict(groups.first().map_or(arms, |(_, group)| group))];
    }
    let word = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
    let words: BTreeSet<String> = groups.iter().map(|(name, _)| word(name)).collect();
    // Parameters are told where the scenarios alone do not tell the groups apart.
    let short = words.len() == groups.len();
    let label = |name: &str| if short { word(name) } else { name.to_owned() };
    groups
        .iter()
        .map(|(name, arms)| format!("{}: {}", clean(&label(name)), verdict(arms)))
        .collect()
}

/// One sentence that names the best and the worst arm, by [`ArmSummary::rank`], and why.
pub fn verdict(arms: &[ArmSummary]) -> String {
    let passed: Vec<_> = arms.iter().filter(|arm| arm.passed > 0).collect();
    let best = passed.iter().min_by(|a, b| a.rank(b));
    let worst = passed.iter().rev().max_by(|a, b| a.rank(b));
    let (Some(best), Some(worst)) = (best, worst) else {
        return "No arm has a run that passed.".to_owned();
    };
    if passed.len() == 1 {
        return format!("Only {} has runs that passed: {}.", clean(&best.arm), facts(best));
    }
    if best.rank(worst).is_eq() {
        return format!("No arm is best or worst: all have {}.", facts(best));
    }
    let why = reasons(best, worst);
    format!(
        "Best is {} ({}), worst is {} ({}){}{}.",
        clean(&best.arm),
        facts(best),
        clean(&worst.arm),
        facts(worst),
        if why.is_empty() { "" } else { ": " },
        why.join(", ")
    )
}

fn facts(arm: &ArmSummary) -> String {
    format!(
        "{} s of stalls, p99.9 {}, {} ops/s",
        seconds(arm.stall_ns.total()),
        if arm.saturated { GROWS.to_owned() } else { duration(arm.write_latency_ns.p999) },
        count(arm.ops_per_s.to_f64())
    )
}

/// What of the worst arm's columns explains its place, the strongest first, three at most.
fn reasons(best: &ArmSummary, worst: &ArmSummary) -> Vec<String> {
    let mut reasons = Vec::new();
    let total = worst.stall_ns.total();
    let main = worst.stall_ns.named().into_iter().max_by_key(|(_, ns)| *ns);
    if let Some((cause, ns)) = main.filter(|_| total > 0) {
        let percent = to_f64(ns) / to_f64(total) * 100.0;
        reasons.push(format!("{percent:.0} % of its stalls wait for {}", waited_for(cause)));
    }
    let mut ratios = vec![
        differs(
            "its median table is",
            (worst.table_bytes.p50, best.table_bytes.p50),
            ["larger", "smaller"],
            bytes,
        ),
        differs(
            "it writes",
            (worst.write_amplification.0, best.write_amplification.0),
            ["more per user byte", "less per user byte"],
            |n| digits(to_f64(n) / 1000.0),
        ),
        differs(
            "it retains",
            (worst.wal_retained_bytes_max, best.wal_retained_bytes_max),
            ["more WAL", "less WAL"],
            bytes,
        ),
    ];
    // Stable: among equals the order above holds.
    ratios.sort_by(|a, b| b.0.total_cmp(&a.0));
    reasons.extend(ratios.into_iter().filter(|(factor, _)| *factor >= 1.1).map(|(_, why)| why));
    reasons.truncate(3);
    reasons
}

fn waited_for(cause: &str) -> &'static str {
    match cause {
        "memtables" => "a flush of the tree's own memtables",
        "l0" => "level 0 to be compacted",
        "budget" => "the memory budget",
        "wal" => "WAL space",
        _ => "disk space",
    }
}

/// A difference as a sentence's part, with the factor it is ordered by.
fn differs(
    lead: &str,
    (worst, best): (u64, u64),
    words: [&str; 2],
    show: fn(u64) -> String,
) -> (f64, String) {
    if worst == 0 || best == 0 {
        return (0.0, String::new());
    }
    let [more, less] = words;
    let (high, low, word) = if worst > best { (worst, best, more) } else { (best, worst, less) };
    let factor = to_f64(high) / to_f64(low);
    let (worst, best) = (show(worst), show(best));
    (factor, format!("{lead} {}x {word} ({worst} against {best})", digits(factor)))
}

/// The second table.
fn more(arms: &[ArmSummary]) -> String {
    let has_victims = arms.iter().any(|arm| arm.inflation.is_some());
    let mut header = MORE.to_vec();
    header.extend(VICTIMS.iter().filter(|_| has_victims));
    let rows = arms.iter().map(|arm| {
        let mut cells = vec![clean(&arm.arm)];
        if arm.passed > 0 {
            let percent = |ratio: Thousandths| format!("{:.0}%", ratio.to_f64() * 100.0);
            let tables = &arm.table_bytes;
            let tiny = Thousandths::ratio(u128::from(tables.tiny_count), u128::from(tables.count));
            cells.extend([
                bytes(tables.p1),
                bytes(tables.p99),
                percent(tiny),
                percent(arm.memory_mean_ratio),
                percent(arm.memory_peak_ratio),
                bytes(arm.stranded_bytes),
                format!("{:.3}", arm.jain.to_f64()),
                format!("{:.3}", arm.min_max_share.to_f64()),
            ]);
            if let Some(inflation) = arm.inflation {
                let times = |ratio: Thousandths| format!("x{}", digits(ratio.to_f64()));
                cells.extend([times(inflation.all), times(inflation.worst)]);
            }
        }
        cells.resize(header.len(), "-".to_owned());
        cells
    });
    table(&header, rows.collect())
}

pub(crate) fn table(header: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header);
    let mut widths: Vec<usize> = header.iter().map(|header| widest(header)).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = widest(cell).max(*width);
        }
    }
    let gaps = usize::from(GAP) * header.len().saturating_sub(1);
    let numbers: usize = widths.iter().skip(1).sum::<usize>() + gaps;
    let left = usize::from(WIDTH).saturating_sub(numbers).max(ARM_WIDTH_MIN);
    if let Some(width) = widths.first_mut() {
        *width = left.min(*width);
    }
    table.add_row(widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    for row in &mut rows {
        if let Some(name) = row.first_mut() {
            *name = split_name(name, left);
        }
        table.add_row(core::mem::take(row));
    }
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if number + 1 == header.len() { 0 } else { GAP }));
        if number > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn percentile(arm: &ArmSummary, ns: u64, range: (u64, u64)) -> String {
    if arm.saturated { GROWS.to_owned() } else { spread(arm, duration(ns), ns, range) }
}

fn cells(arm: &ArmSummary) -> Vec<String> {
    let mut cells = vec![clean(&arm.arm)];
    if arm.passed == 0 {
        cells.extend(HEADER.iter().skip(1).map(|_| "-".to_owned()));
        return cells;
    }
    let range = &arm.range;
    cells.extend([
        spread(
            arm,
            format!("{}/s", count(arm.ops_per_s.to_f64())),
            arm.ops_per_s.0,
            range.ops_per_s,
        ),
        percentile(arm, arm.write_latency_ns.p99, range.p99_ns),
        percentile(arm, arm.write_latency_ns.p999, range.p999_ns),
        spread(arm, seconds(arm.stall_ns.total()), arm.stall_ns.total(), range.stall_ns),
        spread(
            arm,
            if arm.flush_count < 1_000_000 {
                thousands(arm.flush_count)
            } else {
                count(to_f64(arm.flush_count))
            },
            arm.flush_count,
            range.flush_count,
        ),
        spread(arm, bytes(arm.table_bytes.p50), arm.table_bytes.p50, range.table_p50_bytes),
        spread(
            arm,
            digits(arm.write_amplification.to_f64()),
            arm.write_amplification.0,
            range.write_amplification,
        ),
        spread(
            arm,
            bytes(arm.wal_retained_bytes_max),
            arm.wal_retained_bytes_max,
            range.wal_retained_bytes_max,
        ),
    ]);
    cells
}

/// A number and, below it, how far the seeds lie from it: `-8+12%`.
fn spread(arm: &ArmSummary, text: String, middle: u64, (low, high): (u64, u64)) -> String {
    if arm.passed < 2 || middle == 0 {
        return text;
    }
    let percent = |from: u64, to: u64| to_f64(to.saturating_sub(from)) / to_f64(middle) * 100.0;
    let (below, above) = (percent(low, middle), percent(middle, high));
    let above = if above < 1_000.0 { format!("{above:.0}%") } else { "..".to_owned() };
    format!("{text}\n-{below:.0}+{above}")
}

/// Text as a terminal may show it: no control characters, whatever an experiment calls its arms.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// Breaks a name into lines of at most `width`: after a `/` where there is one, else after `-`, `=`
/// or a space, else anywhere.
pub(super) fn split_name(name: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line: Vec<char> = Vec::new();
    for letter in name.chars() {
        if line.len() == width {
            let last = |of: &str| line.iter().rposition(|c| of.contains(*c));
            let after = last("/").or_else(|| last("-= ")).map_or(width, |at| at + 1);
            let rest = line.split_off(after);
            lines.extend(line.drain(..));
            lines.push('\n');
            line = rest;
        }
        line.push(letter);
    }
    lines.extend(line);
    lines
}

/// Wraps a sentence to [`WIDTH`] columns, at spaces and inside words that are longer than a line.
pub(crate) fn wrap(text: &str) -> String {
    let width = usize::from(WIDTH);
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let word = split_name(word, width);
        let first = word.lines().next().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + first > width {
            wrapped.push('\n');
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(&word);
        let last = word.lines().last().map_or(0, |line| line.chars().count());
        used = if word.contains('\n') { last } else { used + last };
    }
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    #[test]
    fn no_line_is_wider_than_a_hundred_columns() {
        let mut rows = mock::rows(3);
        let text = render(&rows);
        println!("{text}");
        assert!(widest(&text) <= 100, "{text}");
        for (number, row) in rows.iter_mut().enumerate() {
            row.arm.push_str(&"-long-name/of_an_arm".repeat(number % 9));
            row.ops_per_s = Thousandths(u64::MAX);
            row.flush_count = u64::MAX;
            row.stall_ns.budget = u64::MAX;
            row.write_latency_ns.p99 = u64::MAX;
            row.write_latency_ns.p999 = u64::MAX;
            row.table_bytes.p50 = u64::MAX;
            row.wal_retained_bytes_max = u64::MAX;
            row.written_bytes.flush = u64::MAX;
        }
        let text = render(&rows);
        assert!(widest(&text) <= 100, "{text}");
        rows[0].arm = "x".repeat(400);
        assert!(widest(&render(&rows)) <= 100);
    }

    #[test]
    fn an_ordinary_arm_keeps_its_name_in_one_line() {
        let mut rows = mock::rows(1);
        rows[1].arm = "grouped-16/round-robin/stop=4".to_owned();
        let text = render(&rows);
        assert!(text.contains("\ngrouped-16/round-robin/stop=4 "), "{text}");
        assert!(text.contains("\nper-tenant/above-mean-oldest/ "), "{text}");
    }

    #[test]
    fn who_exceeds_the_budget_is_not_the_best() {
        let mut rows = mock::rows(1);
        rows.truncate(3);
        let rank =
            |rows: &[RunRow]| render(rows).lines().any(|line| line.starts_with("Best is over"));
        rows[0].arm = "over".to_owned();
        rows[0].stall_ns = crate::record::ByCause::default();
        assert!(rank(&rows));
        rows[0].memory.peak_ratio = Thousandths(9_280);
        let text = render(&rows);
        assert!(!rank(&rows) && text.contains("1 of 3 arms exceeded"), "{text}");
        assert!(text.contains("most: over, 928 % of it"), "{text}");
    }

    #[test]
    fn each_scenario_has_its_own_best_and_seeds_their_spread() {
        let mut rows = mock::rows(3);
        let names = ["steady-zipf", "rotating-burst"];
        for (number, row) in rows.iter_mut().enumerate() {
            let name = names[usize::from(number >= 27)].to_owned();
            row.params.insert("workload".to_owned(), crate::record::Param::Text(name));
        }
        let text = render(&rows);
        for name in names {
            assert!(text.contains(&format!("\n{name}: Best is ")), "{text}");
        }
        assert!(text.contains("3 seeds: numbers are medians"), "{text}");
        let spread: Vec<&str> = text.lines().filter(|line| line.contains("+0%")).collect();
        assert!(!spread.is_empty() && widest(&text) <= 100, "{text}");
        assert!(!render(&mock::rows(1)).contains("seeds: numbers"));
    }

    #[test]
    fn the_sentence_names_best_and_worst_and_why() {
        let arms = summaries(&mock::rows(3));
        let text = verdict(&arms);
        let mut ranked = arms.clone();
        ranked.sort_by(ArmSummary::rank);
        assert!(text.starts_with(&format!("Best is {} (", ranked[0].arm)), "{text}");
        assert!(text.contains(&format!("worst is {} (", ranked[17].arm)), "{text}");
        assert!(text.contains("% of its stalls wait for"), "{text}");
        assert_eq!(text.matches(". ").count(), 0, "{text}");
    }

    #[test]
    fn failed_runs_equal_arms_and_control_characters_are_told() {
        let mut rows = mock::rows(1);
        rows.truncate(2);
        rows[0].offered_ops_per_s = Thousandths(45_000_000);
        rows[1] = RunRow { arm: "same\u{1b}[31m".to_owned(), ..rows[0].clone() };
        let text = render(&rows);
        assert!(text.contains("No arm is best or worst") && text.contains("same?[31m"), "{text}");
        rows[1].outcome = Outcome::Fail;
        let text = render(&rows);
        assert!(text.contains("1 of 2 runs did not pass"), "{text}");
        assert!(text.contains("Only per-tenant"), "{text}");
        assert!(text.contains(": the queue grows without bound, and"), "{text}");
        assert!(text.contains(" grows "), "{text}");
        assert!(rows[0].is_saturated());
        rows[0].offered_ops_per_s = Thousandths(0);
        assert!(render(&rows).contains("Closed loop in 1 of 1 runs"));
        assert_eq!(render(&[]), "no runs\n");
    }
}
