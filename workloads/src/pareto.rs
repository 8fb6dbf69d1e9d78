//! Lengths by the generalized Pareto distribution: many small ones and a heavy tail.
//!
//! # Source
//!
//! Cao, Dong, Vemuri, Du, "Characterizing, Modeling, and Benchmarking RocksDB Key-Value Workloads
//! at Facebook", FAST 2020, who fit sizes of values and lengths of scans with it; the inversion,
//! with its rounding up, is `ParetoCdfInversion` of RocksDB's `db_bench` (mixgraph).

use crate::rng::{floor_u64, to_u32};

/// A generalized Pareto distribution that begins at 0, rounded up and kept within bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pareto {
    /// Shape; from 1 on the mean is infinite.
    pub k: f64,
    /// Scale.
    pub sigma: f64,
    /// Smaller ones become this.
    pub min: u32,
    /// Larger ones become what is left of a division by it, as in the source; at least `min`.
    pub max: u32,
}

impl Pareto {
    /// The length at this place of the distribution, `u` in (0, 1] from the longest to the
    /// shortest.
    pub fn at(&self, u: f64) -> u32 {
        let length = to_u32(floor_u64(libm::ceil(self.exact_at(u))));
        let length = if length > self.max {
            length.checked_rem(self.max).unwrap_or(self.max)
        } else {
            length
        };
        length.max(self.min)
    }

    fn exact_at(&self, u: f64) -> f64 {
        if self.k == 0.0 {
            return -self.sigma * libm::log(u);
        }
        self.sigma * (libm::pow(u, -self.k) - 1.0) / self.k
    }

    /// The mean where nothing is cut or rounded: what the published figures are compared with;
    /// `None` where it is infinite.
    pub fn mean(&self) -> Option<f64> {
        (self.k < 1.0).then(|| self.sigma / (1.0 - self.k))
    }

    /// The mean of what [`at`](Self::at) gives, over a thousand even places.
    pub(crate) fn mean_given(&self) -> u32 {
        const PLACES: u32 = 1_000;
        let place = |i: u32| (f64::from(i) + 0.5) / f64::from(PLACES);
        let sum: u64 = (0..PLACES).map(|i| u64::from(self.at(place(i)))).sum();
        to_u32(sum.div_ceil(u64::from(PLACES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Pareto = Pareto { k: 0.2615, sigma: 25.45, min: 10, max: 1_024 };

    #[test]
    fn the_mean_is_the_published_one() {
        // 25.45 / (1 - 0.2615): "about 35 bytes".
        assert!((VALUES.mean().unwrap() - 34.461_747_5).abs() < 1e-6);
        let places = 1_000_000_u32;
        let at = |i: u32| VALUES.exact_at((f64::from(i) + 0.5) / f64::from(places));
        let mean = (0..places).map(at).sum::<f64>() / f64::from(places);
        assert!((mean - 34.461_747_5).abs() < 0.01, "{mean}");
        assert_eq!(VALUES.mean_given(), 37, "a minimum of 10 and rounding up add two bytes");
        assert_eq!(Pareto { k: 2.517, ..VALUES }.mean(), None);
    }

    #[test]
    fn quantiles_follow_the_closed_form() {
        // x(u) = sigma (u^-k - 1) / k, by hand: 19.34 at the median, 227.23 at 0.1 %... of the tail.
        assert!((VALUES.exact_at(0.5) - 19.341).abs() < 0.001, "{}", VALUES.exact_at(0.5));
        assert_eq!((VALUES.at(0.5), VALUES.at(1.0), VALUES.at(0.99)), (20, 10, 10));
        let tail = Pareto { k: 2.517, sigma: 14.236, min: 1, max: 10_000 };
        assert!((1..=1_000).all(|i| (1..=10_000).contains(&tail.at(f64::from(i) / 1_000.0))));
        let exponential = Pareto { k: 0.0, ..VALUES };
        assert!((exponential.exact_at(0.5) - 17.640_6).abs() < 0.001);
    }
}
