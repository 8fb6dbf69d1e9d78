//! The tables under a finished model: what each arm came to, and how far model and engine agree.
//!
//! No line is wider than [`WIDTH`] columns, as in the table of runs.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::table::{WIDTH, clean, split_name, wrap};
use crate::model::peer::PeerRow;
use crate::model::row::ModelRow;
use crate::number::{bytes, count, digits, seconds, thousands, to_f64};
use crate::record::Outcome;
use crate::text::append;

/// Columns that the name of an arm takes at most.
const ARM_WIDTH: usize = 28;

const HEADER: [&str; 9] = [
    "arm",
    "flushes\nper s",
    "table\np1",
    "table\np50",
    "table\np99",
    "under\n1MiB",
    "merge\ncost",
    "stranded\nof budget",
    "used of\nbudget",
];

/// What a reader needs to know of the columns.
const NOTE: &str = "Sizes are keys and values of a table. Merge cost: bytes that leveled merges write \
    for each byte flushed, T/2 x log_T(L / m). Stranded: memtables without a write for as long as a \
    fill of the budget takes.";

/// Every row in a line, then what the columns mean and what did not pass.
pub fn render(rows: &[ModelRow]) -> String {
    let many = rows.iter().any(|row| rows.first().is_some_and(|first| first.seed != row.seed));
    let mut table = begin(&HEADER);
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        let arm = if many { format!("{} seed {}", row.arm, row.seed) } else { row.arm.clone() };
        let budget = budget(row);
        let share = |n: u64| format!("{} %", digits(to_f64(n) / budget * 100.0));
        table.add_row([
            named(&arm),
            digits(row.flushes_per_s.to_f64()),
            bytes(row.table_bytes.p1),
            bytes(row.table_bytes.p50),
            bytes(row.table_bytes.p99),
            count(to_f64(row.small_table_count)),
            digits(row.merge_cost.to_f64()),
            share(row.stranded_fill_bytes),
            format!("{} %", digits(row.utilisation_ratio.to_f64() * 100.0)),
        ]);
    }
    let mut text = end(&table);
    text.push_str(&wrap(NOTE));
    for row in rows {
        if let Some(failure) = &row.failure {
            let line = format!("{}  {}  {failure}", row.outcome.name(), row.arm);
            append(&mut text, format_args!("{}\n", cut(&line)));
        } else if row.stall_ns.total() > 0 {
            let (waited, stall) = (thousands(row.stall_count.total()), row.stall_ns.total());
            let (stall, longest) = (seconds(stall), seconds(row.stall_ns_max));
            let line =
                format!("{waited} writes waited {stall} s, {longest} s at most: {}", row.arm);
            append(&mut text, format_args!("{}\n", cut(&line)));
        }
    }
    text
}

/// The budget of a row, of which its bytes are shares.
pub(crate) fn budget(row: &ModelRow) -> f64 {
    match row.params.get("budget_bytes") {
        Some(crate::record::Param::Integer(bytes)) => to_f64(*bytes).max(1.0),
        _ => f64::NAN,
    }
}

/// The table of [`render`] with more columns, for programs.
pub fn csv(rows: &[ModelRow]) -> String {
    let mut text = "run_id,arm,seed,outcome,elapsed_ns,user_bytes,flush_count,flushes_per_s,\
        table_count,table_p1_bytes,table_p50_bytes,table_p99_bytes,small_table_count,merge_cost,\
        memtable_bytes_max_seen,utilisation_ratio,overshoot_bytes,stranded_bytes,\
        stranded_fill_bytes,stall_ns,stall_ns_max,wal_retained_bytes_max,decision_count\n"
        .to_owned();
    for row in rows {
        let arm = row.arm.replace('"', "\"\"");
        append(&mut text, format_args!("{},\"{arm}\",{},", row.run_id, row.seed));
        append(&mut text, format_args!("{},{},", row.outcome.name(), row.elapsed_ns));
        let counts = [row.user_bytes, row.flush_count].map(|n| n.to_string());
        let table = &row.table_bytes;
        let sizes = [row.table_count, table.p1, table.p50, table.p99, row.small_table_count];
        let held = [row.overshoot_bytes, row.stranded_bytes, row.stranded_fill_bytes];
        let waits = [row.stall_ns.total(), row.stall_ns_max];
        let last = [row.wal_retained_bytes_max, row.decision_count];
        let cells: Vec<String> = counts
            .into_iter()
            .chain([row.flushes_per_s.to_string()])
            .chain(sizes.map(|n| n.to_string()))
            .chain([row.merge_cost.to_string(), row.memtable_bytes_max_seen.to_string()])
            .chain([row.utilisation_ratio.to_string()])
            .chain(held.map(|n| n.to_string()))
            .chain(waits.map(|n| n.to_string()))
            .chain(last.map(|n| n.to_string()))
            .collect();
        append(&mut text, format_args!("{}\n", cells.join(",")));
    }
    text
}

const PEER_HEADER: [&str; 9] = [
    "arm",
    "flushes\nengine",
    "\nmodel",
    "\noff",
    "memtable\np50",
    "\noff",
    "memtable\np99",
    "\noff",
    "mean\noff",
];

/// Model and engine beside each other.
pub fn peers(rows: &[&PeerRow]) -> String {
    let mut table = begin(&PEER_HEADER);
    let off = |percent: f64| format!("{percent:+.1} %");
    for row in rows {
        let [flushes, p50, p99, mean] = row.percents();
        table.add_row([
            named(&format!("{} seed {}", row.arm, row.seed)),
            thousands(row.engine.count),
            thousands(row.model.count),
            off(flushes),
            bytes(row.engine.memtable_bytes.p50),
            off(p50),
            bytes(row.engine.memtable_bytes.p99),
            off(p99),
            off(mean),
        ]);
    }
    end(&table)
}

/// The table of [`peers`] for programs.
pub fn peers_csv(rows: &[&PeerRow]) -> String {
    let mut text = "arm,seed,engine_count,model_count,engine_p50_bytes,model_p50_bytes,\
        engine_p99_bytes,model_p99_bytes,engine_mean_bytes,model_mean_bytes\n"
        .to_owned();
    for row in rows {
        let (engine, model) = (&row.engine, &row.model);
        let arm = row.arm.replace('"', "\"\"");
        append(&mut text, format_args!("\"{arm}\",{},", row.seed));
        append(&mut text, format_args!("{},{},", engine.count, model.count));
        let sizes = |of: fn(&crate::model::row::Sizes) -> u64| {
            format!("{},{}", of(&engine.memtable_bytes), of(&model.memtable_bytes))
        };
        append(&mut text, format_args!("{},{},", sizes(|t| t.p50), sizes(|t| t.p99)));
        let means = (engine.memtable_bytes_mean, model.memtable_bytes_mean);
        append(&mut text, format_args!("{},{}\n", means.0, means.1));
    }
    text
}

/// The name of an arm in as many lines as it takes.
fn named(arm: &str) -> String {
    split_name(&clean(arm), ARM_WIDTH)
}

/// A line cut to the width of a table.
fn cut(line: &str) -> String {
    clean(line).chars().take(usize::from(WIDTH)).collect()
}

fn begin(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled).set_width(WIDTH);
    table.set_header(header);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn end(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::number::Thousandths;

    #[test]
    fn no_line_is_wider_than_a_hundred_columns() {
        let mut row = ModelRow::new(&Config::default(), 1, 0);
        row.outcome = Outcome::Pass;
        row.arm = "an-arm/".repeat(20);
        row.flushes_per_s = Thousandths(12_345_678);
        row.table_bytes.p1 = 1023 << 20;
        (row.table_bytes.p50, row.table_bytes.p99) = (1023 << 20, 1023 << 20);
        row.small_table_count = 12_345_678;
        row.merge_cost = Thousandths(123_456);
        row.utilisation_ratio = Thousandths(999);
        row.stall_ns.budget = 1 << 60;
        let wedged = ModelRow {
            outcome: Outcome::Fail,
            failure: Some("wedged".to_owned()),
            seed: 2,
            ..row.clone()
        };
        let text = render(&[row, wedged]);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("fail  an-arm") && text.contains("99.9 %"), "{text}");
    }

    #[test]
    fn differences_are_told_with_their_sign() {
        let mut row = PeerRow { arm: "x".to_owned(), ..PeerRow::default() };
        (row.engine.count, row.model.count) = (200, 210);
        (row.engine.memtable_bytes_mean, row.model.memtable_bytes_mean) = (1000, 900);
        let text = peers(&[&row]);
        assert!(text.contains("+5.0 %") && text.contains("-10.0 %"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(peers_csv(&[&row]).lines().nth(1), Some("\"x\",0,200,210,0,0,0,0,1000,900"));
    }
}
