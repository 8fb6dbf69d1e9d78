//! The same runs in both worlds side by side, and by how much the simulation is off: of the rows
//! that were simulated and those by the wall clock, where a folder has both.
//!
//! Rows by the wall clock were measured once and are committed; what is made of them is checked as
//! all tables are.

use crate::metric::{self, Metric};
use crate::number::to_f64;
use crate::record::{Outcome, RunRow};
use crate::report::table::clean;
use crate::stats::location::median;
use crate::text::append;

/// The table's name.
pub const TABLE: &str = "sim-or-real.csv";

/// What is compared, in order.
const METRICS: [&str; 5] = ["flushes", "write_amp", "throughput", "p50", "p999"];

/// One metric of one arm in both worlds.
#[derive(Clone, Debug)]
struct Side {
    arm: String,
    metric: &'static Metric,
    real: Vec<f64>,
    simulated: Vec<f64>,
}

impl Side {
    /// The medians, the real one first.
    fn medians(&self) -> Option<(f64, f64)> {
        median(&mut self.real.clone()).zip(median(&mut self.simulated.clone()))
    }

    /// The simulated median over the real one, less 1, in percent.
    fn error_percent(&self) -> Option<f64> {
        let (real, simulated) = self.medians()?;
        (real > 0.0).then(|| (simulated - real) / real * 100.0)
    }

    /// Half of what the real runs differ by, in percent of their median: an error below it may be
    /// the disk's.
    fn real_range_percent(&self) -> Option<f64> {
        let (real, _) = self.medians()?;
        let low = self.real.iter().copied().min_by(f64::total_cmp)?;
        let high = self.real.iter().copied().max_by(f64::total_cmp)?;
        (real > 0.0).then(|| (high - low) / real * 50.0)
    }
}

/// Whether a run by the wall clock was asked the same as a simulated one. A key that only one of
/// them has was unknown to one of two builds.
fn is_same(real: &RunRow, simulated: &RunRow) -> bool {
    let differs = |(key, value)| simulated.params.get(key).is_some_and(|other| other != value);
    real.arm == simulated.arm && !real.params.iter().any(differs)
}

fn sides(rows: &[RunRow], wall: &[RunRow]) -> Vec<Side> {
    let mut arms: Vec<&RunRow> = Vec::new();
    for row in rows {
        if !arms.iter().any(|first| first.arm == row.arm) {
            arms.push(row);
        }
    }
    let metrics: Vec<_> = METRICS.iter().filter_map(|name| metric::find(name).ok()).collect();
    let mut sides = Vec::new();
    for first in arms {
        let passed = |row: &&RunRow| row.outcome == Outcome::Pass;
        let real: Vec<_> = wall.iter().filter(passed).filter(|row| is_same(row, first)).collect();
        let simulated: Vec<_> =
            rows.iter().filter(passed).filter(|row| row.arm == first.arm).collect();
        if real.is_empty() || simulated.is_empty() {
            continue;
        }
        sides.extend(metrics.iter().map(|metric| Side {
            arm: first.arm.clone(),
            metric,
            real: real.iter().map(|row| to_f64(metric.of(row))).collect(),
            simulated: simulated.iter().map(|row| to_f64(metric.of(row))).collect(),
        }));
    }
    sides
}

/// The table as CSV; `None` where no arm has passed in both worlds with the same settings.
pub fn csv(rows: &[RunRow], wall: &[RunRow]) -> Option<String> {
    let sides = sides(rows, wall);
    if sides.is_empty() {
        return None;
    }
    let mut text = "arm,metric,real,simulated,error_percent,real_half_range_percent,\
                    real_runs,simulated_runs\n"
        .to_owned();
    for side in &sides {
        let Some((real, simulated)) = side.medians() else { continue };
        let percent = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.1}"));
        append(
            &mut text,
            format_args!(
                "\"{}\",{},{},{},{},{},{},{}\n",
                clean(&side.arm).replace('"', "\"\""),
                side.metric.column(),
                side.metric.cell(real),
                side.metric.cell(simulated),
                percent(side.error_percent()),
                percent(side.real_range_percent()),
                side.real.len(),
                side.simulated.len()
            ),
        );
    }
    Some(text)
}

/// The table for people, to be put behind a summary; empty where there are no runs by the wall
/// clock.
pub fn markdown(rows: &[RunRow], wall: &[RunRow]) -> String {
    if wall.is_empty() {
        return String::new();
    }
    let sides = sides(rows, wall);
    let mut text = String::new();
    if !sides.is_empty() {
        text.push_str("\nReal -> simulated, and by how much the simulation is off:\n\n");
        let metrics: Vec<&Metric> = METRICS.iter().filter_map(|m| metric::find(m).ok()).collect();
        let labels: Vec<&str> = metrics.iter().map(|metric| metric.label).collect();
        append(&mut text, format_args!("| arm | {} |\n", labels.join(" | ")));
        append(&mut text, format_args!("| ---{} |\n", " | ---:".repeat(labels.len())));
        for arm in sides.chunks(metrics.len().max(1)) {
            let name = arm.first().map_or("", |side| side.arm.as_str());
            append(&mut text, format_args!("| {}", clean(name).replace('|', "\\|")));
            text.extend(arm.iter().map(|side| format!(" | {}", cell(side))));
            text.push_str(" |\n");
        }
        worst(&mut text, &sides);
    }
    let other = wall.iter().filter(|real| !rows.iter().any(|row| is_same(real, row))).count();
    if other > 0 {
        let told = "runs by the wall clock had other settings and are not compared";
        append(&mut text, format_args!("\n{other} {told}.\n"));
    }
    text
}

fn cell(side: &Side) -> String {
    let Some((real, simulated)) = side.medians() else { return "-".to_owned() };
    let error = side.error_percent().map_or_else(String::new, |error| format!(" ({error:+.1}%)"));
    format!("{} -> {}{error}", side.metric.show(real), side.metric.show(simulated))
}

/// For each metric the largest error of any arm, and how much real runs of one arm differ.
fn worst(text: &mut String, sides: &[Side]) {
    text.push_str("\nThe largest error of an arm, and half the range of its real runs:");
    for name in METRICS {
        let of_metric = || sides.iter().filter(|side| side.metric.name == name);
        let errors = of_metric().filter_map(|side| Some((side, side.error_percent()?)));
        let Some((side, error)) = errors.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else {
            continue;
        };
        let range = side.real_range_percent().unwrap_or(0.0);
        let label = side.metric.label;
        append(text, format_args!("\n* {label}: {error:+.1}% (`{}`, {range:.1}%)", side.arm));
    }
    let count = |of: fn(&Side) -> usize| sides.iter().map(of).max().unwrap_or(0);
    let (real, simulated) = (count(|side| side.real.len()), count(|side| side.simulated.len()));
    append(
        text,
        format_args!(
            "\n\nMedians over {real} real and {simulated} simulated runs of an arm. What is real \
             is of one machine on one day.\n"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Thousandths;
    use crate::record::{LatencyNs, Param, World};
    use crate::results::cells;

    fn row(world: World, (arm, seed): (&str, u64), flushes: u64, per_s: u64) -> RunRow {
        RunRow {
            arm: arm.to_owned(),
            seed,
            world,
            params: [("tenant_count".to_owned(), Param::Integer(5))].into(),
            flush_count: flushes,
            ops_per_s: Thousandths(per_s * 1_000),
            write_latency_ns: LatencyNs { p50: 100, p99: 0, p999: 900, max: 0 },
            ..RunRow::default()
        }
    }

    fn both() -> (Vec<RunRow>, Vec<RunRow>) {
        let sim = |arm, flushes| row(World::Sim, (arm, 0), flushes, 1_200);
        let real = |seed, flushes, per_s| row(World::Os, ("a|b", seed), flushes, per_s);
        (
            vec![sim("a|b", 50), sim("only simulated", 7)],
            vec![real(0, 39, 900), real(1, 40, 1_000), real(2, 44, 1_300)],
        )
    }

    #[test]
    fn medians_stand_beside_each_other_with_the_error() {
        let (rows, wall) = both();
        let text = csv(&rows, &wall).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "\"a|b\",flushes_count,40,50,25.0,6.2,3,1");
        assert_eq!(lines[3], "\"a|b\",throughput_per_s,1000,1200,20.0,20.0,3,1");
        // Nothing was written in a real run: no error can be told.
        assert_eq!(lines[2], "\"a|b\",write_amp_ratio,0,0,,,3,1");
        assert_eq!(lines.len(), 1 + METRICS.len());
        assert!(cells::differing(&text, &text.replace("25.0", "5"), 2).unwrap().len() == 1);
        let told = markdown(&rows, &wall);
        assert!(told.contains("| a\\|b | 40 -> 50 (+25.0%) | 0 -> 0 | "), "{told}");
        assert!(told.contains("\n* flushes: +25.0% (`a|b`, 6.2%)\n"), "{told}");
        assert!(told.contains("over 3 real and 1 simulated runs"), "{told}");
    }

    #[test]
    fn what_did_not_pass_or_had_other_settings_is_not_compared() {
        let (rows, mut wall) = both();
        wall[2].outcome = Outcome::Fail;
        wall[1].params.insert("tenant_count".to_owned(), Param::Integer(6));
        let text = csv(&rows, &wall).unwrap();
        assert!(text.contains("flushes_count,39,50,"), "{text}");
        let told = markdown(&rows, &wall);
        assert!(told.contains("\n1 runs by the wall clock had other settings"), "{told}");
        wall.truncate(2);
        wall.remove(0);
        assert_eq!(csv(&rows, &wall), None);
        assert!(!markdown(&rows, &wall).contains("| arm |"));
        assert_eq!((csv(&rows, &[]), markdown(&rows, &[])), (None, String::new()));
    }
}
