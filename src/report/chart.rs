//! The numbers behind the page's charts, small enough that 18 arms fit beside the script.
//!
//! Samples of a run are gathered into at most [`POINTS_MAX`] equal buckets and each value is packed
//! into two letters of base64 (12 bits) after division by a step that maps the arm's largest value
//! below 4096. Counts up to 4095 are exact; larger values are off by less than 1/8000 of the
//! largest, which is less than a pixel.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::histogram::HistRow;
use crate::number::to_f64;
use crate::output::{OutputError, Result};
use crate::record::{Outcome, Param, RunRow};
use crate::report::ReportInput;
use crate::report::timeline::ArmTimeline;
use crate::series::SeriesRow;

/// Most points of one line.
pub const POINTS_MAX: usize = 300;

/// Letters that all packed lines of a page may take: for few arms, and for many, whose tables need
/// the room.
const LETTERS_MAX: [usize; 2] = [60_000, 34_000];

/// Arms with a line in the charts; the table shows all.
const ARMS_MAX: usize = 64;

/// Points of a percentile curve for each factor of ten of rarity: fine, and for many arms coarse.
const POINTS_PER_DECADE: [u32; 2] = [12, 4];

/// Arms above which the page saves on what is said of each.
pub const MANY_ARMS: usize = 24;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// One line over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What one unit of a packed value stands for.
    pub step: u64,
    /// Two letters a point.
    pub points: String,
}

/// The lines over time of one arm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArmLines {
    /// The arm.
    pub arm: String,
    /// The seed whose run is drawn: the lowest that has samples.
    pub seed: u64,
    /// Memory that its memtables may take, where the run has such a setting.
    pub budget_bytes: Option<u64>,
    /// Operations a second.
    pub ops: Line,
    /// Milliseconds of stall a second, summed over writers.
    pub stall: Line,
    /// Most bytes in memtables.
    pub memtable: Line,
    /// Most immutable memtables.
    pub imm: Line,
    /// Most tables in level 0.
    pub l0: Line,
    /// Highest 99th percentile, in microseconds.
    pub p99: Line,
}

/// A latency distribution of one arm over all its seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Curve {
    /// The arm.
    pub arm: String,
    /// `write` or `read`.
    pub op: String,
    /// Latency in nanoseconds, three digits, at one point after another of the rarity axis.
    pub ns: Vec<u64>,
}

/// All lines of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Charts {
    /// The arm that others are compared with.
    pub baseline: String,
    /// The arm that is drawn first.
    pub first: String,
    /// Width of a bucket.
    pub bucket_ms: u64,
    /// Points of a curve for each factor of ten.
    pub points_per_decade: u32,
    /// Lines over time.
    pub arms: Vec<ArmLines>,
    /// Curves by percentile.
    pub curves: Vec<Curve>,
    /// What happened, tenant by tenant; the page adds as many as it has room for.
    pub timelines: Vec<ArmTimeline>,
}

impl Charts {
    /// Gathers the lines of a report.
    ///
    /// # Errors
    ///
    /// A histogram cannot be decoded: the error names its run.
    pub fn new(input: &ReportInput, baseline: &str, first: &str) -> Result<Self> {
        let mut samples: BTreeMap<&str, Vec<&SeriesRow>> = BTreeMap::new();
        for sample in input.series.iter().filter(|sample| sample.tenant.is_empty()) {
            samples.entry(&sample.run_id).or_default().push(sample);
        }
        let mut drawn: Vec<(&RunRow, Vec<&SeriesRow>)> = Vec::new();
        let mut rows: Vec<&RunRow> = input.rows.iter().collect();
        rows.sort_by_key(|row| row.seed);
        for arm in arms(input).into_iter().take(ARMS_MAX) {
            let first = rows.iter().filter(|row| row.arm == arm);
            let first = first.filter_map(|row| Some((*row, samples.get(row.run_id.as_str())?)));
            if let Some((row, samples)) = first.min_by_key(|(row, _)| row.outcome != Outcome::Pass)
            {
                let mut samples = samples.clone();
                samples.sort_by_key(|sample| sample.at_ms);
                drawn.push((row, samples));
            }
        }
        let many = drawn.len() > MANY_ARMS;
        let [fine, coarse] = LETTERS_MAX;
        let letters_max = if many { coarse } else { fine };
        let points_max =
            letters_max.checked_div(drawn.len() * 12).unwrap_or(0).clamp(20, POINTS_MAX);
        let bucket_ms = bucket_ms(drawn.iter().map(|(_, samples)| samples.as_slice()), points_max);
        let [fine, coarse] = POINTS_PER_DECADE;
        let points_per_decade = if many { coarse } else { fine };
        Ok(Self {
            baseline: baseline.to_owned(),
            first: first.to_owned(),
            bucket_ms,
            points_per_decade,
            arms: drawn.iter().map(|(row, samples)| lines(row, samples, bucket_ms)).collect(),
            curves: curves(input, points_per_decade)?,
            timelines: Vec::new(),
        })
    }
}

/// The arms in the order of their first row.
fn arms(input: &ReportInput) -> Vec<&str> {
    let mut arms: Vec<&str> = Vec::new();
    for row in &input.rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    arms
}

/// The sampling interval, times the smallest factor that leaves `points_max` buckets at most.
fn bucket_ms<'a>(
    runs: impl Iterator<Item = &'a [&'a SeriesRow]> + Clone,
    points_max: usize,
) -> u64 {
    let end = runs.clone().filter_map(|run| run.last()).map(|sample| sample.at_ms).max();
    let mut gaps: Vec<u64> = runs
        .flat_map(|run| run.iter().zip(run.iter().skip(1)))
        .map(|(a, b)| b.at_ms.saturating_sub(a.at_ms))
        .filter(|gap| *gap > 0)
        .collect();
    gaps.sort_unstable();
    let end = end.unwrap_or(0).max(1);
    // The last sample of a run comes when the run ends: the median is the interval proper.
    let gap = gaps.get(gaps.len() >> 1).copied().unwrap_or(end).max(1);
    let points = u64::try_from(points_max).unwrap_or(1).max(1);
    gap.saturating_mul(end.div_ceil(gap).div_ceil(points))
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    covered_ms: u64,
    ops: u64,
    stall_ns: u64,
    memtable_bytes: u64,
    imm: u64,
    l0_files: u64,
    p99_ns: u64,
}

fn lines(row: &RunRow, samples: &[&SeriesRow], bucket_ms: u64) -> ArmLines {
    let buckets = buckets(samples, bucket_ms);
    let line = |of: &dyn Fn(&Bucket) -> u64| pack(&buckets.iter().map(of).collect::<Vec<_>>());
    let per_s = |n: u64, bucket: &Bucket| {
        n.saturating_mul(1000).checked_div(bucket.covered_ms).unwrap_or(0)
    };
    ArmLines {
        arm: row.arm.clone(),
        seed: row.seed,
        budget_bytes: match row.params.get("budget_bytes") {
            Some(Param::Integer(bytes)) => Some(*bytes),
            _ => None,
        },
        ops: line(&|bucket| per_s(bucket.ops, bucket)),
        stall: line(&|bucket| per_s(bucket.stall_ns.div_euclid(1_000_000), bucket)),
        memtable: line(&|bucket| bucket.memtable_bytes),
        imm: line(&|bucket| bucket.imm),
        l0: line(&|bucket| bucket.l0_files),
        p99: line(&|bucket| bucket.p99_ns.div_euclid(1000)),
    }
}

/// Sums what is counted and keeps the highest of what is gauged. A bucket without a sample repeats
/// the gauges of the one before.
fn buckets(samples: &[&SeriesRow], bucket_ms: u64) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut begin = 0;
    for sample in samples {
        let place = sample.at_ms.saturating_sub(1).checked_div(bucket_ms).unwrap_or(0);
        let place = usize::try_from(place).unwrap_or(usize::MAX).min(POINTS_MAX);
        while buckets.len() <= place {
            let last = buckets.last().copied().unwrap_or_default();
            let fresh = buckets.len() == place;
            buckets.push(if fresh {
                Bucket::default()
            } else {
                Bucket { covered_ms: 0, ops: 0, stall_ns: 0, ..last }
            });
        }
        if let Some(bucket) = buckets.get_mut(place) {
            bucket.covered_ms += sample.at_ms.saturating_sub(begin);
            bucket.ops = bucket.ops.saturating_add(sample.ops);
            bucket.stall_ns = bucket.stall_ns.saturating_add(sample.stall_ns);
            bucket.memtable_bytes = bucket.memtable_bytes.max(sample.memtable_bytes);
            bucket.imm = bucket.imm.max(sample.imm);
            bucket.l0_files = bucket.l0_files.max(sample.l0_files);
            bucket.p99_ns = bucket.p99_ns.max(sample.p99_ns);
        }
        begin = sample.at_ms;
    }
    buckets
}

fn pack(values: &[u64]) -> Line {
    let step = values.iter().max().map_or(1, |max| max.div_ceil(4095)).max(1);
    let letter = |n: u64| {
        let place = usize::try_from(n & 63).unwrap_or(0);
        char::from(LETTERS.get(place).copied().unwrap_or(b'A'))
    };
    let mut points = String::with_capacity(values.len() * 2);
    for value in values {
        let units = value.saturating_add(step >> 1).checked_div(step).unwrap_or(0).min(4095);
        points.push(letter(units >> 6));
        points.push(letter(units));
    }
    Line { step, points }
}

fn curves(input: &ReportInput, points_per_decade: u32) -> Result<Vec<Curve>> {
    let mut merged: BTreeMap<(&str, &str), Histogram<u64>> = BTreeMap::new();
    let arm_of: BTreeMap<&str, &str> = input
        .rows
        .iter()
        .filter(|row| row.outcome == Outcome::Pass)
        .map(|row| (row.run_id.as_str(), row.arm.as_str()))
        .collect();
    for row in input.histograms.iter().filter(|row| row.tenant.is_empty() && row.class.is_empty()) {
        let Some(arm) = arm_of.get(row.run_id.as_str()) else { continue };
        let histogram = row.decode()?;
        match merged.entry((row.op.as_str(), arm)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(histogram);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                add(entry.get_mut(), &histogram, row)?;
            }
        }
    }
    let mut curves = Vec::new();
    for op in ["write", "read"] {
        for arm in arms(input).into_iter().take(ARMS_MAX) {
            if let Some(histogram) = merged.get(&(op, arm)) {
                curves.push(Curve {
                    arm: arm.to_owned(),
                    op: op.to_owned(),
                    ns: curve_points(histogram, points_per_decade),
                });
            }
        }
    }
    Ok(curves)
}

fn add(into: &mut Histogram<u64>, from: &Histogram<u64>, row: &HistRow) -> Result<()> {
    into.auto(true);
    into.add(from).map_err(|error| OutputError::Histogram {
        run_id: row.run_id.clone(),
        detail: error.to_string(),
    })
}

/// Latencies at 1 - 10^-(n / `per_decade`), as far as at least one operation is rarer, and
/// up to 99.999 %.
fn curve_points(histogram: &Histogram<u64>, per_decade: u32) -> Vec<u64> {
    let mut points = Vec::new();
    for n in 0..=(5 * per_decade) {
        let rarity = libm::pow(10.0, -f64::from(n) / f64::from(per_decade));
        if to_f64(histogram.len()) * rarity < 1.0 {
            break;
        }
        points.push(three_digits(histogram.value_at_quantile(1.0 - rarity)));
    }
    points
}

fn three_digits(value: u64) -> u64 {
    let mut unit: u64 = 1;
    while value.checked_div(unit).unwrap_or(0) >= 1000 {
        unit = unit.saturating_mul(10);
    }
    value.checked_div(unit).unwrap_or(0) * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    fn unpack(line: &Line) -> Vec<u64> {
        let place = |letter: u8| LETTERS.iter().position(|l| *l == letter).unwrap() as u64;
        line.points
            .as_bytes()
            .chunks(2)
            .map(|p| (place(p[0]) * 64 + place(p[1])) * line.step)
            .collect()
    }

    #[test]
    fn small_counts_are_packed_exactly_and_large_ones_nearly() {
        let small = [0, 1, 63, 64, 4095];
        assert_eq!(unpack(&pack(&small)), small);
        let large = [0, 1 << 40, (1 << 40) + 12_345_678, 3 << 39];
        for (packed, value) in unpack(&pack(&large)).into_iter().zip(large) {
            assert!(packed.abs_diff(value) <= 3 << 26, "{packed} for {value}");
        }
        assert_eq!(pack(&[]).points, "");
        assert_eq!(unpack(&pack(&[u64::MAX])).len(), 1);
    }

    #[test]
    fn samples_are_gathered_without_losing_an_operation_or_a_peak() {
        let mut input = mock::input(1, 1200);
        input.series[700].imm = 77;
        let charts = Charts::new(&input, "", "").unwrap();
        assert_eq!(charts.bucket_ms, 500);
        let ops = unpack(&charts.arms[0].ops);
        assert_eq!(ops.len(), 240);
        let drawn: u64 = ops.iter().map(|per_s| per_s * 500).sum::<u64>().div_euclid(1000);
        let told: u64 = input.series[..1200].iter().map(|sample| sample.ops).sum();
        assert!(drawn.abs_diff(told) < told >> 9, "{drawn} for {told}");
        assert_eq!(unpack(&charts.arms[0].imm)[140], 77);
    }

    #[test]
    fn a_run_with_a_gap_or_without_samples_is_drawn_as_far_as_it_goes() {
        let mut input = mock::input(1, 30);
        input.series.drain(5..60);
        let charts = Charts::new(&input, "", "").unwrap();
        assert_eq!(charts.arms.len(), 17);
        assert_eq!(unpack(&charts.arms[0].ops).len(), 5);
        input.series.clear();
        input.histograms.clear();
        let charts = Charts::new(&input, "", "").unwrap();
        assert!(charts.arms.is_empty() && charts.curves.is_empty());
    }

    #[test]
    fn curves_end_where_the_counts_end() {
        let charts = Charts::new(&mock::input(1, 2), "", "").unwrap();
        let curve = &charts.curves[0];
        assert_eq!(charts.curves.len(), 36);
        assert_eq!(curve.op, "write");
        assert_eq!(curve.ns.len(), 52, "20,000 operations reach 4.3 decades");
        assert!(curve.ns.is_sorted());
        assert_eq!((three_digits(999), three_digits(123_456)), (999, 123_000));
    }
}
