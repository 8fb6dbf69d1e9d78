//! Keys in ranges of different heat: which range, by a two-term exponential; which key of it, by a
//! power law.
//!
//! # Source
//!
//! Cao, Dong, Vemuri, Du, "Characterizing, Modeling, and Benchmarking RocksDB Key-Value Workloads
//! at Facebook", FAST 2020, and `GenerateTwoTermExpKeys` of RocksDB's `db_bench`, which says how
//! the fit becomes keys. Departures: a range is drawn by its exact weight, of which `db_bench`
//! keeps whole multiples of the smallest; where a range lies is shuffled by the seed and the
//! tenant; a place within a range comes from this crate's own mixer.

use crate::error::SpecError;
use crate::permutation::Permutation;
use crate::rng::{Rng, floor_u64, mix};
use crate::tenants::AliasTable;

/// The fit of accesses to ranges and to keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeFit {
    /// How many ranges; fewer where a tenant has fewer keys.
    pub count: u32,
    /// a, b, c and d of a e^(b x) + c e^(d x), the weight of the x-th hottest range from 1.
    pub two_terms: [f64; 4],
    /// a and b of a x^b, the share of accesses that go to the x hottest keys of a range.
    pub power: (f64, f64),
}

impl RangeFit {
    /// The weight of the x-th hottest range, counted from 1.
    pub fn weight(&self, x: u32) -> f64 {
        let [steep, steep_rate, flat, flat_rate] = self.two_terms;
        let x = f64::from(x);
        steep * libm::exp(steep_rate * x) + flat * libm::exp(flat_rate * x)
    }
}

/// Draws keys by a [`RangeFit`].
#[derive(Clone, Debug)]
pub struct KeyRanges {
    fit: RangeFit,
    ranks: AliasTable,
}

impl KeyRanges {
    /// A chooser by this fit.
    ///
    /// # Errors
    ///
    /// [`SpecError::Weights`] where no range has a weight.
    pub fn new(fit: RangeFit) -> Result<Self, SpecError> {
        /// 2^40: the coldest range of the published fit still has a weight of a thousand million.
        const UNIT: f64 = 1_099_511_627_776.0;
        let weight = |x: u32| floor_u64(fit.weight(x).min(1e6) * UNIT);
        let weights: Vec<u64> = (1..=fit.count.max(1)).map(weight).collect();
        Ok(Self { fit, ranks: AliasTable::new(&weights)? })
    }

    /// The next key of a tenant with this many keys; `seed` shuffles its ranges.
    pub fn sample(&self, key_count: u64, seed: u64, rng: &mut Rng) -> u64 {
        let rank = u64::from(self.ranks.sample(rng));
        let u = 1.0 - rng.unit_f64();
        let (a, b) = self.fit.power;
        let hot = floor_u64(libm::ceil(libm::pow(u / a, 1.0 / b)));
        let count = u64::from(self.fit.count).clamp(1, key_count.max(1));
        let size = key_count.checked_div(count).unwrap_or(1).max(1);
        let range = Permutation::new(count, seed).at(rank);
        let within = mix(hot ^ mix(seed ^ range)).checked_rem(size).unwrap_or(0);
        (range * size + within).min(key_count.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{to_f64, to_u64, to_usize};

    const FIT: RangeFit = RangeFit {
        count: 30,
        two_terms: [14.18, -2.917, 0.0164, -0.08082],
        power: (0.002_312, 0.3467),
    };

    #[test]
    fn the_hottest_ranges_have_the_share_of_the_fit() {
        let ranges = KeyRanges::new(FIT).unwrap();
        // 14.18 e^-2.917 + 0.0164 e^-0.08082, and the sum of such terms over thirty ranges.
        assert!((FIT.weight(1) - 0.782_204_169).abs() < 1e-8, "{}", FIT.weight(1));
        let share = FIT.weight(1) / (1..=30).map(|x| FIT.weight(x)).sum::<f64>();
        let mut rng = Rng::new(1, "ranges test");
        let (draws, key_count) = (300_000, 3_000_000_u64);
        let mut counts = [0_u32; 30];
        for _ in 0..draws {
            let range = ranges.sample(key_count, 7, &mut rng).div_euclid(100_000);
            counts[to_usize(range)] += 1;
        }
        let hottest = f64::from(*counts.iter().max().unwrap()) / f64::from(draws);
        assert!((hottest - share).abs() < 0.005, "{hottest} for {share}");
        assert_ne!(counts[0], *counts.iter().max().unwrap(), "the hottest is somewhere");
    }

    #[test]
    fn the_hottest_key_of_a_range_has_the_share_of_the_power_law() {
        let ranges = KeyRanges::new(RangeFit { count: 1, ..FIT }).unwrap();
        let mut rng = Rng::new(1, "power test");
        let (draws, key_count) = (1_000_000_u32, 50_000_000_u64);
        let mut keys: Vec<u64> =
            (0..draws).map(|_| ranges.sample(key_count, 7, &mut rng)).collect();
        keys.sort_unstable();
        let hottest = keys.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
        // P(rank <= 1) = 0.002312 x 1^0.3467.
        let share = to_f64(to_u64(hottest)) / f64::from(draws);
        assert!((share - 0.002_312).abs() < 0.000_2, "{share}");
    }

    #[test]
    fn few_keys_have_fewer_ranges_and_every_key_is_there() {
        let ranges = KeyRanges::new(FIT).unwrap();
        let mut rng = Rng::new(1, "few");
        for key_count in [1, 2, 16, 31, 100] {
            assert!((0..500).all(|_| ranges.sample(key_count, 3, &mut rng) < key_count));
        }
    }
}
