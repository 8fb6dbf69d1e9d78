//! Confidence intervals of the Hodges-Lehmann estimate by resampling (bias-corrected and
//! accelerated).
//!
//! Up to [`WHOLE_MAX`] numbers every resample is made, above it [`RESAMPLES`] are drawn from one
//! fixed seed: the same numbers have the same interval everywhere.
//!
//! **Few numbers.** No resample leaves the range of the numbers, and the range of n numbers covers
//! their distribution's median in `1 - 2^(1-n)` of cases: 50, 75, 88 and 94 % for two to five. An
//! interval that is to hold in 95 % must be wider than that. Below [`FEW`] numbers it is the hull
//! of that and of Student's t, which reaches over the range by what n - 1 degrees of freedom ask.
//!
//! # Source
//!
//! Efron: Better bootstrap confidence intervals, J. Am. Stat. Assoc. 82 (1987); Efron, Tibshirani:
//! An introduction to the bootstrap (1993), chapter 14. *Departures*: resamples that equal the
//! estimate count half towards the bias correction, since small counts make many of them.

use forebay_workloads::rng::Rng;

use super::location::hodges_lehmann;
use super::normal;
use crate::number::{from_f64, to_f64};

/// The share of intervals that hold what they are an interval of.
pub const CONFIDENCE: f64 = 0.95;

/// The seed of every draw.
pub const SEED: u64 = 0x666f_7265_6261_7901;

/// Resamples where not all are made.
pub const RESAMPLES: usize = 2_000;

/// Up to so many numbers all n^n resamples are made.
pub const WHOLE_MAX: usize = 5;

/// Below so many numbers the interval reaches as far as Student's t, too.
pub const FEW: usize = 10;

/// Student's t at 97.5 %, by degrees of freedom from 1.
const STUDENT: [f64; 8] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306];

/// Where the number lies that a sample estimates, in 95 of 100 samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether it lies above or below 0 as a whole.
    pub fn is_clear_of_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Whether it lies within `margin` of 0 as a whole.
    pub fn is_within(&self, margin: f64) -> bool {
        self.low >= -margin && self.high <= margin
    }

    fn hull(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// The interval of the Hodges-Lehmann estimate; `None` of fewer than two numbers, which tell
/// nothing about their spread.
pub fn interval(sample: &[f64]) -> Option<Interval> {
    let (first, rest) = sample.split_first()?;
    if rest.is_empty() {
        return None;
    }
    if rest.iter().all(|x| x.total_cmp(first).is_eq()) {
        return Some(Interval { low: *first, high: *first });
    }
    let resampled = bca(sample)?;
    Some(match student(sample) {
        Some(wide) if sample.len() < FEW => resampled.hull(wide),
        _ => resampled,
    })
}

fn student(sample: &[f64]) -> Option<Interval> {
    let t = STUDENT.get(sample.len().checked_sub(2)?)?;
    let n = count(sample);
    let mean = sample.iter().sum::<f64>() / n;
    let squares: f64 = sample.iter().map(|x| (x - mean) * (x - mean)).sum();
    let reach = t * libm::sqrt(squares / (n - 1.0) / n);
    Some(Interval { low: mean - reach, high: mean + reach })
}

fn bca(sample: &[f64]) -> Option<Interval> {
    let estimate = hodges_lehmann(sample)?;
    let mut resampled = resample(sample);
    resampled.sort_by(f64::total_cmp);
    let total = count(&resampled);
    let below = count(resampled.get(..resampled.partition_point(|x| *x < estimate))?);
    let through = count(resampled.get(..resampled.partition_point(|x| *x <= estimate))?);
    let share = f64::midpoint(below, through) / total;
    let bias = normal::quantile(share.clamp(0.5 / total, 1.0 - 0.5 / total));
    let acceleration = acceleration(sample)?;
    let end = |tail: f64| {
        let z = bias + normal::quantile(tail);
        let adjusted = normal::cdf(bias + z / (1.0 - acceleration * z));
        let last = resampled.len().saturating_sub(1);
        let rank = from_f64(libm::floor(adjusted * total)).and_then(|r| usize::try_from(r).ok());
        resampled.get(rank.unwrap_or(0).min(last)).copied()
    };
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval { low: end(tail)?, high: end(1.0 - tail)? })
}

/// How the spread changes with the estimate, from what leaving each number out does to it.
fn acceleration(sample: &[f64]) -> Option<f64> {
    let without = |out: usize| {
        let kept = sample.iter().enumerate().filter(|(at, _)| *at != out);
        hodges_lehmann(&kept.map(|(_, x)| *x).collect::<Vec<_>>())
    };
    let left: Vec<f64> = (0..sample.len()).map(without).collect::<Option<_>>()?;
    let mean = left.iter().sum::<f64>() / count(&left);
    let (mut squares, mut cubes) = (0.0, 0.0);
    for x in left {
        let d = mean - x;
        squares += d * d;
        cubes += d * d * d;
    }
    // Where no number moves the estimate there is nothing to correct.
    Some(if squares > 0.0 { cubes / (6.0 * squares * libm::sqrt(squares)) } else { 0.0 })
}

/// The estimates of all resamples, or of so many of them.
fn resample(sample: &[f64]) -> Vec<f64> {
    let mut picked: Vec<f64> = Vec::with_capacity(sample.len());
    let mut estimates = Vec::new();
    if sample.len() <= WHOLE_MAX {
        let mut digits = vec![0_usize; sample.len()];
        loop {
            picked.clear();
            picked.extend(digits.iter().filter_map(|digit| sample.get(*digit)));
            estimates.extend(hodges_lehmann(&picked));
            let Some(at) = digits.iter().position(|digit| digit + 1 < sample.len()) else {
                return estimates;
            };
            for (place, digit) in digits.iter_mut().enumerate().take(at + 1) {
                *digit = if place == at { *digit + 1 } else { 0 };
            }
        }
    }
    let mut rng = Rng::new(SEED, "stats/bootstrap");
    let n = forebay_engine::types::to_u64(sample.len());
    for _ in 0..RESAMPLES {
        picked.clear();
        for _ in 0..sample.len() {
            let at = usize::try_from(rng.below(n)).unwrap_or(0);
            picked.extend(sample.get(at));
        }
        estimates.extend(hodges_lehmann(&picked));
    }
    estimates
}

fn count(values: &[f64]) -> f64 {
    to_f64(forebay_engine::types::to_u64(values.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_no_interval_and_equal_ones_a_point() {
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[0.3]), None);
        for n in [2, 3, 5, 8, 20] {
            assert_eq!(interval(&vec![0.25; n]), Some(Interval { low: 0.25, high: 0.25 }), "{n}");
        }
    }

    #[test]
    fn all_resamples_of_a_few_are_made_and_each_once() {
        let mut estimates = resample(&[0.0, 1.0, 10.0]);
        assert_eq!(estimates.len(), 27);
        estimates.sort_by(f64::total_cmp);
        // All three the same in one of 27 each; two zeros and a one in three, with a median of
        // 0.25.
        let count = |wanted: f64| estimates.iter().filter(|x| (**x - wanted).abs() < 1e-12).count();
        assert_eq!((count(0.0), count(10.0), count(0.25)), (1, 1, 3));
        assert_eq!(resample(&[0.0; 5]).len(), 3_125);
        assert_eq!(resample(&[0.0; 6]).len(), RESAMPLES);
    }

    #[test]
    fn students_interval_is_the_textbooks() {
        // Mean 4, deviation 1, so 4 +- 4.303 / sqrt(3).
        let wide = student(&[3.0, 4.0, 5.0]).unwrap();
        assert!((wide.low - (4.0 - 2.484_338)).abs() < 1e-5, "{wide:?}");
        assert!((wide.high - (4.0 + 2.484_338)).abs() < 1e-5, "{wide:?}");
        // Three seeds reach far over their range, two over all sense.
        let three = interval(&[3.0, 4.0, 5.0]).unwrap();
        assert!(three.low < 1.6 && three.high > 6.4, "{three:?}");
        assert!(interval(&[3.0, 4.0]).unwrap().high > 9.0);
    }

    #[test]
    fn skewed_numbers_have_the_corrected_ends() {
        // By another program, with all 3,125 resamples; without the corrections the lower ends are
        // 1.5 and -1.0.
        for (sample, ends) in
            [([1.0, 2.0, 4.0, 9.0, 30.0], (2.0, 19.5)), ([-3.0, 1.0, 2.0, 4.0, 11.0], (-0.5, 7.5))]
        {
            let found = bca(&sample).unwrap();
            let apart = (found.low - ends.0).abs() + (found.high - ends.1).abs();
            assert!(apart < 1e-9, "{found:?} {ends:?}");
        }
    }

    #[test]
    fn an_interval_turns_with_its_numbers_and_is_the_same_each_time() {
        let sample: Vec<f64> = (1..=12_u32).map(|n| f64::from(n * n)).collect();
        let mirrored: Vec<f64> = sample.iter().map(|x| -x).collect();
        let one = interval(&sample).unwrap();
        assert_eq!(interval(&sample), Some(one));
        let other = interval(&mirrored).unwrap();
        // Resamples are the same places of another list, so ends are mirrored to a rank.
        let width = one.high - one.low;
        assert!((one.low + other.high).abs() < width * 0.02, "{one:?} {other:?}");
        assert!((one.high + other.low).abs() < width * 0.02, "{one:?} {other:?}");
        // Skewed to the right: the upper end is further from the estimate.
        let middle = hodges_lehmann(&sample).unwrap();
        assert!(one.high - middle > middle - one.low, "{one:?} around {middle}");
    }

    #[test]
    fn known_differences_have_a_known_interval() {
        // Darwin's maize (Fisher: The design of experiments, chapter 3). The signed-rank test's
        // interval is 4.0 to 41.5, the 26th mean of pairs from each end; Student's of the mean 0.03
        // to 41.8.
        let maize = [49., -67., 8., 16., 6., 23., 28., 41., 14., 29., 56., 24., 75., 60., -48.];
        let found = interval(&maize).unwrap();
        assert!((0.0..=9.0).contains(&found.low), "{found:?}");
        assert!((35.0..=42.0).contains(&found.high), "{found:?}");
    }

    /// Of intervals of samples around 0, how many hold 0.
    fn coverage(n: usize, draw: impl Fn(&mut Rng) -> f64) -> f64 {
        let (mut rng, mut held) = (Rng::new(7, "coverage"), 0.0);
        let trials = 200;
        for _ in 0..trials {
            let sample: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            let found = interval(&sample).unwrap();
            held += f64::from(u8::from(found.low <= 0.0 && found.high >= 0.0));
        }
        held / f64::from(trials)
    }

    #[test]
    fn about_95_of_100_intervals_hold_the_truth_for_few_seeds_too() {
        for n in [2, 3, 5, 8, 12] {
            let held = coverage(n, |rng| normal::quantile(rng.unit_f64()));
            println!("{n} normal: {held}");
            assert!((0.91..=0.995).contains(&held), "{n} pairs: {held}");
        }
        for n in [3, 8] {
            let held = coverage(n, |rng| rng.unit_f64() - 0.5);
            println!("{n} uniform: {held}");
            assert!((0.90..=0.995).contains(&held), "{n} pairs: {held}");
        }
    }
}
