//! What figures show of rows: a number and its range for each arm or each pair of settings.

use std::cmp::Ordering;

use crate::metric::Metric;
use crate::number::{bytes, to_f64};
use crate::record::{Outcome, RunRow};
use crate::stats::location::median;

/// A number over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) low: f64,
    pub(super) middle: f64,
    pub(super) high: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        let middle = median(&mut values)?;
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { low, middle, high })
    }
}

/// A metric of the rows that passed and that `of` takes.
pub(super) fn spread(
    rows: &[RunRow],
    metric: &Metric,
    of: impl Fn(&RunRow) -> bool,
) -> Option<Spread> {
    let passed = rows.iter().filter(|row| row.outcome == Outcome::Pass && of(row));
    Spread::of(passed.map(|row| to_f64(metric.of(row))).collect())
}

/// The arms that have a run that passed, in the order of the rows.
pub(super) fn arms(rows: &[RunRow]) -> Vec<&str> {
    let mut arms: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    arms
}

/// The value of a setting in a row, for a label.
pub(super) fn value(row: &RunRow, key: &str) -> Option<String> {
    row.params.get(key).map(ToString::to_string)
}

/// The values of a setting in rows that passed: numbers ascending, then names as they come.
pub(super) fn values(rows: &[RunRow], key: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for row in rows.iter().filter(|row| row.outcome == Outcome::Pass) {
        values.extend(value(row, key).filter(|value| !values.contains(value)));
    }
    values.sort_by(|a, b| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => Ordering::Equal,
    });
    values
}

/// A setting's value as people read it.
pub(super) fn label(key: &str, value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) if key.contains("_bytes") => bytes(number),
        Ok(_) | Err(_) => value.to_owned(),
    }
}

/// A setting's value by itself: a bare switch or number says nothing without its key.
pub(super) fn name(key: &str, value: &str) -> String {
    let is_bare = value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok();
    let shown = label(key, value);
    if is_bare { format!("{key}={shown}") } else { shown }
}

/// What stands below a figure of numbers over seeds.
pub(super) fn note(rows: &[RunRow], what: &str) -> String {
    let mut seeds: Vec<u64> = rows.iter().map(|row| row.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    match seeds.len() {
        1 => format!("one seed: {what}"),
        count => format!("{count} seeds: {what}"),
    }
}
