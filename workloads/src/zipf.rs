//! Zipf ranks by rejection-inversion: any alpha from 0 on, any n, no table.
//!
//! Rank k of n has a probability proportional to k^-alpha. The method inverts the integral of a hat
//! over the histogram and rejects in less than half of all draws, for every alpha and n.
//!
//! # Source
//!
//! W. Hormann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete
//! distributions", ACM TOMACS 6(3), 1996. The guards against cancellation near alpha = 1 are those
//! of Apache Commons RNG, `RejectionInversionZipfSampler`. Departures: `libm` for every
//! transcendental function; ranks count from 0; alpha 0 draws an integer.

use crate::rng::{Rng, floor_u64, to_f64};

/// Draws ranks from 0 (most likely) to n - 1.
#[derive(Clone, Copy, Debug)]
pub struct Zipf {
    n: u64,
    alpha: f64,
    area_first: f64,
    area_last: f64,
    accept_within: f64,
}

impl Zipf {
    /// A sampler of `n` ranks with this exponent; `alpha` 0 or below is uniform, `n` 0 counts as 1.
    pub fn new(n: u64, alpha: f64) -> Self {
        let n = n.max(1);
        let squeeze = integral(2.5, alpha) - density(2.0, alpha);
        Self {
            n,
            alpha,
            area_first: integral(1.5, alpha) - 1.0,
            area_last: integral(to_f64(n) + 0.5, alpha),
            accept_within: 2.0 - integral_inverse(squeeze, alpha),
        }
    }

    /// The same exponent over another number of ranks; `n` 0 counts as 1.
    #[must_use]
    pub fn resized(self, n: u64) -> Self {
        let n = n.max(1);
        Self { n, area_last: integral(to_f64(n) + 0.5, self.alpha), ..self }
    }

    /// How many ranks there are.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The next rank.
    pub fn sample(&self, rng: &mut Rng) -> u64 {
        if self.alpha <= 0.0 {
            return rng.below(self.n);
        }
        loop {
            let area = self.area_last + rng.unit_f64() * (self.area_first - self.area_last);
            let x = integral_inverse(area, self.alpha);
            let rank = floor_u64(x + 0.5).clamp(1, self.n);
            let k = to_f64(rank);
            if k - x <= self.accept_within
                || area >= integral(k + 0.5, self.alpha) - density(k, self.alpha)
            {
                return rank.saturating_sub(1);
            }
        }
    }
}

fn density(x: f64, alpha: f64) -> f64 {
    libm::exp(-alpha * libm::log(x))
}

fn integral(x: f64, alpha: f64) -> f64 {
    let log_x = libm::log(x);
    expm1_ratio((1.0 - alpha) * log_x) * log_x
}

fn integral_inverse(area: f64, alpha: f64) -> f64 {
    // Rounding may push the argument below -1, where the logarithm ends.
    let t = (area * (1.0 - alpha)).max(-1.0);
    libm::exp(log1p_ratio(t) * area)
}

/// ln(1 + x) / x, also at 0.
fn log1p_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 { libm::log1p(x) / x } else { 1.0 - x * (0.5 - x * (1.0 / 3.0 - 0.25 * x)) }
}

/// (e^x - 1) / x, also at 0.
fn expm1_ratio(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        libm::expm1(x) / x
    } else {
        1.0 + x * 0.5 * (1.0 + x * (1.0 / 3.0) * (1.0 + 0.25 * x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::to_usize;

    fn counts(n: u64, alpha: f64, draws: u32) -> Vec<u32> {
        let (zipf, mut rng) = (Zipf::new(n, alpha), Rng::new(1, "zipf test"));
        let mut counts = vec![0; to_usize(n)];
        for _ in 0..draws {
            counts[to_usize(zipf.sample(&mut rng))] += 1;
        }
        counts
    }

    #[test]
    fn the_first_ranks_come_as_often_as_theory_says() {
        const DRAWS: u32 = 2_000_000;
        for alpha in [0.5, 0.99, 1.0, 1.21, 2.68] {
            // A hundred ranks make the first three common enough for 2 % even at alpha 0.5.
            let n = 100;
            let total: f64 = (1..=n).map(|k| libm::pow(to_f64(k), -alpha)).sum();
            for (rank, count) in (1_u64..=3).zip(counts(n, alpha, DRAWS)) {
                let expected = libm::pow(to_f64(rank), -alpha) / total * f64::from(DRAWS);
                let error = (f64::from(count) - expected).abs() / expected;
                assert!(error < 0.02, "alpha {alpha} rank {rank}: {count} for {expected}");
            }
        }
    }

    #[test]
    fn ten_million_ranks_follow_theory_too() {
        let (n, draws) = (10_000_000, 1_000_000);
        for alpha in [0.99, 1.0, 1.21, 2.68] {
            let total: f64 = (1..=n).map(|k| libm::pow(to_f64(k), -alpha)).sum();
            let (zipf, mut rng) = (Zipf::new(n, alpha), Rng::new(1, "zipf test"));
            let first = (0..draws).filter(|_| zipf.sample(&mut rng) == 0).count();
            let expected = 1_000_000.0 / total;
            let error = (to_f64(crate::rng::to_u64(first)) - expected).abs() / expected;
            assert!(error < 0.02, "alpha {alpha}: {first} for {expected}");
        }
    }

    #[test]
    fn a_resized_sampler_draws_as_one_made_for_that_size() {
        let (zipf, made) = (Zipf::new(10, 0.99).resized(5_000), Zipf::new(5_000, 0.99));
        let (mut a, mut b) = (Rng::new(1, "resized"), Rng::new(1, "resized"));
        assert!((0..1_000).all(|_| zipf.sample(&mut a) == made.sample(&mut b)));
        assert_eq!(Zipf::new(10, 1.0).resized(0).n(), 1);
    }

    #[test]
    fn alpha_zero_is_uniform_and_alpha_three_is_the_bound() {
        assert!(counts(10, 0.0, 100_000).iter().all(|c| (9_600..10_400).contains(c)));
        assert!(counts(10, 3.0, 100_000)[0] > 83_000);
    }

    #[test]
    fn few_ranks_and_tiny_alphas_stay_in_range() {
        for n in [0, 1, 2, 16] {
            for alpha in [1e-12, 0.0242, 1.0 - 1e-12, 1.0 + 1e-12, 3.0] {
                let (zipf, mut rng) = (Zipf::new(n, alpha), Rng::new(1, "zipf edge"));
                assert!((0..1_000).all(|_| zipf.sample(&mut rng) < n.max(1)));
            }
        }
    }
}
