//! What the policies did on sizes alone, beside what the engine did: of the rows of `forebay model`
//! that a folder keeps.

use std::path::Path;

use super::raw;
use super::tables::{cell, table};
use crate::model::row::ModelRow;
use crate::number::{bytes, digits, to_f64};
use crate::output::{OutputError, Result};
use crate::record::Outcome;
use crate::report::model::{budget, csv};
use crate::stats::location::median;
use crate::text::append;

/// The rows, in a folder as in what `forebay model` writes.
pub const ROWS: &str = "model.jsonl";

/// The table of all rows.
pub const TABLE: &str = "model.csv";

/// The rows of a folder; none where it has none.
///
/// # Errors
///
/// The file cannot be read, or a line is no row of a model: the error names it.
pub fn rows(folder: &Path) -> Result<Vec<ModelRow>> {
    let Some(path) = raw::place(folder, ROWS) else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(raw::text(&path)?.lines()) {
        let row = ModelRow::from_line(line).map_err(|detail| OutputError::Line {
            path: path.clone(),
            line: number,
            detail,
        })?;
        rows.push(row);
    }
    Ok(rows)
}

/// [`TABLE`]; nothing where there are no rows.
pub fn table_csv(rows: &[ModelRow]) -> Option<String> {
    (!rows.is_empty()).then(|| csv(rows))
}

/// The part of the summary for people: medians over seeds; empty where there are no rows.
pub fn markdown(rows: &[ModelRow]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let header = ["arm", "flushes/s", "table p1", "table p50", "merge cost", "stranded", "used"];
    let mut arms: Vec<&str> = Vec::new();
    for row in rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    let lines: Vec<Vec<String>> = arms
        .into_iter()
        .map(|arm| {
            let own = |row: &&ModelRow| row.arm == arm && row.outcome == Outcome::Pass;
            let of = |number: fn(&ModelRow) -> f64| {
                median(&mut rows.iter().filter(own).map(number).collect::<Vec<_>>())
            };
            let shown = |number: Option<f64>, show: fn(f64) -> String| {
                number.map_or_else(|| "-".to_owned(), show)
            };
            let size = |n: f64| bytes(crate::number::from_f64(n).unwrap_or(u64::MAX));
            let percent = |n: f64| format!("{} %", digits(n * 100.0));
            vec![
                cell(arm),
                shown(of(|row| row.flushes_per_s.to_f64()), digits),
                shown(of(|row| to_f64(row.table_bytes.p1)), size),
                shown(of(|row| to_f64(row.table_bytes.p50)), size),
                shown(of(|row| row.merge_cost.to_f64()), digits),
                shown(of(|row| to_f64(row.stranded_fill_bytes) / budget(row)), percent),
                shown(of(|row| row.utilisation_ratio.to_f64()), percent),
            ]
        })
        .collect();
    let trees = first.tree_count;
    let mut text = "\nOn sizes alone (`forebay model`), ".to_owned();
    append(
        &mut text,
        format_args!(
            "{trees} trees, {} of memory, {}/s:\n\n",
            bytes(crate::number::from_f64(budget(first)).unwrap_or(0)),
            bytes(first.offered_bytes_per_s)
        ),
    );
    text.push_str(&table(&header.map(str::to_owned), &lines));
    text.push_str(
        "\nMerge cost: bytes that leveled merges write for each byte flushed, T/2 x log_T(L / m). \
         Stranded: memtables without a write for as long as a fill of the budget takes, of the \
         budget.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Thousandths;
    use crate::record::Param;

    fn row(arm: &str, seed: u64, cost: u64) -> ModelRow {
        let mut row =
            ModelRow { arm: arm.to_owned(), seed, outcome: Outcome::Pass, ..ModelRow::default() };
        row.schema = crate::model::row::MODEL_SCHEMA.to_owned();
        row.merge_cost = Thousandths(cost);
        row.stranded_fill_bytes = 512;
        row.params.insert("budget_bytes".to_owned(), Param::Integer(1024));
        row
    }

    #[test]
    fn each_arm_has_the_median_of_its_seeds_and_nothing_is_made_of_nothing() {
        let rows = [row("a|b", 0, 1000), row("c", 0, 9000), row("a|b", 1, 3000)];
        let text = markdown(&rows);
        let line = text.lines().find(|line| line.starts_with("| a\\|b |")).unwrap();
        assert!(line.contains("| 2.00 | 50.0 % |"), "{line}");
        assert_eq!(text.lines().filter(|line| line.starts_with("| ")).count(), 4, "{text}");
        assert_eq!(table_csv(&rows).unwrap().lines().count(), 4);
        assert_eq!((markdown(&[]), table_csv(&[])), (String::new(), None));
    }

    #[test]
    fn rows_come_back_packed_and_a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(rows(folder.path()).unwrap(), []);
        let line = row("a", 0, 1).to_line().unwrap();
        raw::pack(&folder.path().join("raw/model.jsonl.gz"), &line).unwrap();
        assert_eq!(rows(folder.path()).unwrap(), [row("a", 0, 1)]);
        raw::pack(&folder.path().join("raw/model.jsonl.gz"), &format!("{line}{{}}\n")).unwrap();
        let told = rows(folder.path()).unwrap_err().to_string();
        assert!(told.contains("model.jsonl.gz:2: "), "{told}");
    }
}
