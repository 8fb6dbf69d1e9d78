//! Write p99.9 of arms that are a grid: policies against the last axis.

use serde::Serialize;

use crate::number::{duration, to_f64};
use crate::record::{Outcome, RunRow};
use crate::report::summary::ArmSummary;
use crate::report::table::GROWS;

/// Shade of the slowest arm, in percent.
const SHADE_MAX: u64 = 80;

/// The grid.
#[derive(Serialize)]
pub(super) struct Heat {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<(String, Vec<HeatCell>)>,
}

/// Text, range over seeds, shade in percent, and whether no cell is better.
type HeatCell = (String, String, u64, bool);

/// p99.9 as a grid, where the arms' names are one: everything before the last `/` against the rest.
pub(super) fn heat(all: &[RunRow], summaries: &[ArmSummary]) -> Option<Heat> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<String> = Vec::new();
    for arm in summaries {
        let (row, column) = arm.arm.rsplit_once('/')?;
        if !rows.iter().any(|known| known == row) {
            rows.push(row.to_owned());
        }
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    if rows.len() < 2 || columns.len() < 2 || columns.len() > 12 {
        return None;
    }
    let passed = || summaries.iter().filter(|arm| arm.passed > 0);
    // Of a queue that grows a percentile says how long the run was.
    let values = || passed().filter(|arm| !arm.saturated).map(|arm| arm.write_latency_ns.p999);
    let (best, worst) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let scale = |ns: u64| libm::log2(to_f64(ns.max(1)));
    let cell = |row: &String, column: &String| {
        let name = format!("{row}/{column}");
        passed().find(|arm| arm.arm == name).map_or_else(Default::default, |arm| {
            if arm.saturated {
                return (GROWS.to_owned(), String::new(), SHADE_MAX, false);
            }
            let ns = arm.write_latency_ns.p999;
            let share = (scale(ns) - scale(best)) / (scale(worst) - scale(best)).max(1e-9);
            let darkness = crate::number::from_f64(share * to_f64(SHADE_MAX)).unwrap_or(0);
            // What reads the same is a tie.
            let (text, is_best) = (duration(ns), duration(ns) == duration(best));
            (text, seeds_range(all, &name), darkness, is_best)
        })
    };
    let rows = rows
        .iter()
        .map(|row| (row.clone(), columns.iter().map(|column| cell(row, column)).collect()))
        .collect();
    Some(Heat { columns, rows })
}

/// Lowest and highest write p99.9 over the seeds of an arm, where they read differently.
fn seeds_range(rows: &[RunRow], arm: &str) -> String {
    let passed = rows.iter().filter(|row| row.arm == arm && row.outcome == Outcome::Pass);
    let values = passed.map(|row| row.write_latency_ns.p999);
    let (low, high) = (values.clone().min(), values.max());
    let (low, high) = (duration(low.unwrap_or(0)), duration(high.unwrap_or(0)));
    if low == high { String::new() } else { format!("[{low}, {high}]") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;
    use crate::report::summary::summaries;

    #[test]
    fn what_reads_the_same_is_a_tie_and_seeds_have_a_range() {
        let mut rows = mock::rows(2);
        rows.retain(|row| row.arm.starts_with("shared/"));
        for (n, row) in (0..).zip(&mut rows) {
            row.write_latency_ns.p999 = 20_000_000 + n * 1_000_000;
        }
        let names: Vec<String> = rows.iter().map(|row| row.arm.clone()).collect();
        rows[0].write_latency_ns.p999 = 10_001_000;
        rows[1].write_latency_ns.p999 = 10_001_000;
        rows[6].write_latency_ns.p999 = 10_002_000;
        rows[7].write_latency_ns.p999 = 10_002_000;
        let heat = heat(&rows, &summaries(&rows)).unwrap();
        assert_eq!(heat.columns, ["stop=2", "stop=4"]);
        let cells: Vec<&HeatCell> = heat.rows.iter().flat_map(|(_, cells)| cells).collect();
        let best: Vec<bool> = cells.iter().map(|cell| cell.3).collect();
        assert_eq!(best, [true, false, false, true, false, false], "{names:?}");
        assert_eq!((cells[0].0.as_str(), cells[0].1.as_str()), ("10.0ms", ""));
        assert_eq!(cells[1].1, "[22.0ms, 23.0ms]");
        assert_eq!((cells[0].2, cells[5].2), (0, 80), "shades from best to worst");
    }

    #[test]
    fn arms_that_are_no_grid_have_none() {
        let mut rows = mock::rows(1);
        rows[3].arm = "alone".to_owned();
        assert!(heat(&rows, &summaries(&rows)).is_none());
    }
}
