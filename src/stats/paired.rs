//! Two builds or two arms on the same seeds: by how much one number differs, and what can be said.

use forebay_engine::types::to_u64;

use super::bootstrap::{Interval, interval};
use super::location::{hodges_lehmann, median};
use crate::number::to_f64;

/// Differences within this share are no difference: 1 %.
pub const MARGIN: f64 = 0.01;

/// Which way a number should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Throughput, fairness.
    Higher,
    /// Latencies, stalls, bytes.
    Lower,
}

/// What can be said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval is clear of 0 on the good side.
    Better,
    /// The interval is clear of 0 on the bad side.
    Worse,
    /// All pairs are equal, or the interval lies within the margin.
    Same,
    /// The interval holds 0 and more than the margin, or there is none.
    Inconclusive,
}

impl Verdict {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What differences are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Shares: each pair's new over base less 1.
    Share,
    /// Shares of the mean of all bases, since some base is 0.
    ShareOfMean,
    /// The number's own unit, since all bases are 0.
    FromZero,
}

/// By how much the new number differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The Hodges-Lehmann estimate of the paired differences.
    pub estimate: f64,
    /// Around it; `None` for one pair.
    pub interval: Option<Interval>,
    /// What both are counted in.
    pub scale: Scale,
}

/// One number on paired seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Seeds that both sides have.
    pub pairs: usize,
    /// Median of the base.
    pub base: f64,
    /// Median of the new side.
    pub new: f64,
    /// By how much they differ.
    pub change: Change,
    /// What can be said of it.
    pub verdict: Verdict,
}

impl Paired {
    /// How far the number moved to the bad side: the estimate's share, infinite from 0, 0 or less
    /// where it did not.
    pub fn regression(&self, direction: Direction) -> f64 {
        let bad = match direction {
            Direction::Lower => self.change.estimate,
            Direction::Higher => -self.change.estimate,
        };
        match self.change.scale {
            Scale::FromZero if bad > 0.0 => f64::INFINITY,
            Scale::FromZero | Scale::Share | Scale::ShareOfMean => bad,
        }
    }

    /// Whether the interval is there and clear of 0.
    pub fn is_clear(&self) -> bool {
        self.change.interval.is_some_and(|interval| interval.is_clear_of_zero())
    }
}

/// Compares pairs of (base, new); differences within `margin` are none. `None` without a pair.
pub fn compare(pairs: &[(u64, u64)], direction: Direction, margin: f64) -> Option<Paired> {
    let sides = |of: fn(&(u64, u64)) -> u64| pairs.iter().map(|pair| to_f64(of(pair))).collect();
    let (mut base, mut new): (Vec<f64>, Vec<f64>) = (sides(|pair| pair.0), sides(|pair| pair.1));
    let (scale, differences) = differences(pairs);
    let estimate = hodges_lehmann(&differences)?;
    let interval = interval(&differences).map(|found| match scale {
        // Nothing falls by more than all of it.
        Scale::Share => Interval { low: found.low.max(-1.0), high: found.high.max(-1.0) },
        Scale::ShareOfMean | Scale::FromZero => found,
    });
    let change = Change { estimate, interval, scale };
    let all_equal = pairs.iter().all(|(base, new)| base == new);
    let verdict = match change.interval {
        _ if all_equal => Verdict::Same,
        None => Verdict::Inconclusive,
        Some(found) if scale != Scale::FromZero && found.is_within(margin) => Verdict::Same,
        Some(found) if !found.is_clear_of_zero() => Verdict::Inconclusive,
        Some(found) if (found.low > 0.0) == (direction == Direction::Higher) => Verdict::Better,
        Some(_) => Verdict::Worse,
    };
    let (base, new) = (median(&mut base)?, median(&mut new)?);
    Some(Paired { pairs: pairs.len(), base, new, change, verdict })
}

fn differences(pairs: &[(u64, u64)]) -> (Scale, Vec<f64>) {
    let apart = |base: u64, new: u64| {
        if new >= base { to_f64(new - base) } else { -to_f64(base - new) }
    };
    let over = |unit: f64| pairs.iter().map(|(b, n)| apart(*b, *n) / unit).collect();
    if pairs.iter().all(|(base, new)| *base > 0 || *new == 0) {
        let share = |(base, new): &(u64, u64)| match base {
            0 => 0.0,
            _ => apart(*base, *new) / to_f64(*base),
        };
        return (Scale::Share, pairs.iter().map(share).collect());
    }
    let sum: f64 = pairs.iter().map(|(base, _)| to_f64(*base)).sum();
    if sum > 0.0 {
        (Scale::ShareOfMean, over(sum / to_f64(to_u64(pairs.len()))))
    } else {
        (Scale::FromZero, over(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pairs: &[(u64, u64)], direction: Direction) -> Verdict {
        compare(pairs, direction, MARGIN).unwrap().verdict
    }

    #[test]
    fn one_pair_says_nothing_but_that_it_is_equal() {
        assert!(compare(&[], Direction::Lower, MARGIN).is_none());
        assert_eq!(verdict(&[(100, 300)], Direction::Lower), Verdict::Inconclusive);
        assert_eq!(verdict(&[(100, 100)], Direction::Lower), Verdict::Same);
        let one = compare(&[(100, 300)], Direction::Lower, MARGIN).unwrap();
        assert!(one.change.interval.is_none() && !one.is_clear());
        assert!((one.change.estimate - 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_direction_decides_what_is_better() {
        let up = [(100, 130), (200, 264), (300, 390), (100, 131)];
        assert_eq!(verdict(&up, Direction::Higher), Verdict::Better);
        assert_eq!(verdict(&up, Direction::Lower), Verdict::Worse);
        let down = up.map(|(base, new)| (new, base));
        assert_eq!(verdict(&down, Direction::Higher), Verdict::Worse);
        assert_eq!(verdict(&down, Direction::Lower), Verdict::Better);
        let paired = compare(&up, Direction::Lower, MARGIN).unwrap();
        assert!((0.30..0.32).contains(&paired.regression(Direction::Lower)), "{paired:?}");
        assert!(paired.regression(Direction::Higher) < 0.0);
        assert_eq!((paired.base, paired.new), (150.0, 197.5));
    }

    #[test]
    fn small_differences_are_none_and_wide_ones_tell_nothing() {
        let small = [(1000, 1002), (1000, 1003), (1000, 1001), (1000, 1002)];
        assert_eq!(verdict(&small, Direction::Lower), Verdict::Same);
        assert_eq!(compare(&small, Direction::Lower, 0.0).unwrap().verdict, Verdict::Worse);
        let wide = [(100, 130), (100, 80), (100, 125), (100, 95)];
        assert_eq!(verdict(&wide, Direction::Lower), Verdict::Inconclusive);
        // Three seeds on one side of 0 are no proof: a coin does it in a quarter of cases.
        let three = [(100, 101), (100, 140), (100, 110)];
        assert_eq!(verdict(&three, Direction::Lower), Verdict::Inconclusive);
        let close = [(100, 129), (100, 134), (100, 138)];
        assert_eq!(verdict(&close, Direction::Lower), Verdict::Worse);
    }

    #[test]
    fn pairs_take_out_what_seeds_have_in_common() {
        // Seeds differ by a factor of nine, builds by a tenth: unpaired nothing could be said.
        let pairs = [(100, 110), (900, 992), (300, 331), (500, 549), (200, 220)];
        let paired = compare(&pairs, Direction::Lower, MARGIN).unwrap();
        assert_eq!(paired.verdict, Verdict::Worse);
        assert!((paired.change.estimate - 0.1).abs() < 0.01, "{paired:?}");
    }

    #[test]
    fn a_base_of_zero_has_no_share() {
        let from_zero = [(0, 500), (0, 510), (0, 490), (0, 505)];
        let paired = compare(&from_zero, Direction::Lower, MARGIN).unwrap();
        assert_eq!((paired.change.scale, paired.verdict), (Scale::FromZero, Verdict::Worse));
        assert!(paired.regression(Direction::Lower).is_infinite());
        assert!(paired.regression(Direction::Higher) < 0.0);
        // One of four from 0: shares of the bases' mean.
        let some = [(0, 300), (100, 400), (100, 390), (200, 510)];
        let paired = compare(&some, Direction::Lower, MARGIN).unwrap();
        assert_eq!((paired.change.scale, paired.verdict), (Scale::ShareOfMean, Verdict::Worse));
        assert!((paired.change.estimate - 3.0).abs() < 0.05, "{paired:?}");
        let zeros = [(0, 0), (0, 0)];
        assert_eq!(verdict(&zeros, Direction::Lower), Verdict::Same);
        let gone = [(7, 0), (8, 0), (9, 0)];
        assert_eq!(verdict(&gone, Direction::Lower), Verdict::Better);
        let nearly = compare(&[(100, 1), (100, 9), (100, 0)], Direction::Lower, MARGIN).unwrap();
        assert!((nearly.change.interval.unwrap().low + 1.0).abs() < 1e-12, "{nearly:?}");
    }
}
