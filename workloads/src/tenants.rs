//! Who the tenants are, how often each asks, and the draw of the next one.

use serde::Serialize;

use crate::error::SpecError;
use crate::permutation::Permutation;
use crate::rng::{Rng, floor_u64, to_f64, to_u32, to_u64, to_usize};

/// How much of the write bytes a tenant makes, against an even share (all write bytes / tenants).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// At least [`HOT_SHARE`] even shares.
    Hot,
    /// Between.
    Warm,
    /// At most [`COLD_SHARE`] of an even share.
    Cold,
}

/// Even shares of the write bytes from which a tenant is hot.
pub const HOT_SHARE: f64 = 2.0;

/// Even shares of the write bytes up to which a tenant is cold.
pub const COLD_SHARE: f64 = 0.25;

impl Class {
    /// The word in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    fn of_share(even_shares: f64) -> Self {
        if even_shares >= HOT_SHARE {
            Self::Hot
        } else if even_shares <= COLD_SHARE {
            Self::Cold
        } else {
            Self::Warm
        }
    }
}

/// One tenant, as its workload makes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantProfile {
    /// Its name: number and role, such as `t0007-cluster8`.
    pub name: String,
    /// Its share of the write bytes, in three words.
    pub class: Class,
    /// Bytes of each of its keys.
    pub key_bytes: u32,
    /// Bytes of each of its values.
    pub value_bytes: u32,
    /// How many keys it may ever have.
    pub key_count: u64,
    /// Of them, those that are there after the load: all, but where a scenario inserts keys.
    pub loaded_count: u64,
    /// Share of writes among its operations, 0 to 1 (outside storms, where a scenario has storms).
    pub write_fraction: f64,
    /// Zipf exponent of its choice of keys; 0 is uniform.
    pub alpha: f64,
    /// Its share of all operations in the long run is this over the sum of all weights.
    pub weight: u64,
}

impl TenantProfile {
    /// Bytes of one key with its value.
    pub fn entry_bytes(&self) -> u64 {
        u64::from(self.key_bytes) + u64::from(self.value_bytes)
    }

    /// Its write bytes in the long run, in a unit that all tenants of one workload share.
    pub(crate) fn write_bytes(&self) -> f64 {
        to_f64(self.weight) * self.write_fraction * to_f64(self.entry_bytes())
    }
}

/// Sets every tenant's class from the write bytes that `write_bytes` gives for it.
pub(crate) fn classify(
    tenants: &mut [TenantProfile],
    write_bytes: impl Fn(usize, &TenantProfile) -> f64,
) {
    let bytes: Vec<f64> = tenants.iter().enumerate().map(|(i, t)| write_bytes(i, t)).collect();
    let even = bytes.iter().sum::<f64>() / to_f64(to_u64(bytes.len().max(1)));
    for (tenant, bytes) in tenants.iter_mut().zip(bytes) {
        tenant.class = if even > 0.0 { Class::of_share(bytes / even) } else { Class::Warm };
    }
}

/// Weights of `count` tenants by Zipf with this exponent: which tenant has which rank is drawn, so
/// that no rule that goes by a tenant's number gains by it. Yields (rank from 1, weight) by tenant.
pub(crate) fn zipf_weights(count: u32, alpha: f64, seed: u64) -> Vec<(u64, u64)> {
    /// 2^40: the coldest of a million tenants at alpha 1.5 still has a weight of a thousand.
    const FIRST: f64 = 1_099_511_627_776.0;
    let order = Permutation::new(u64::from(count), seed);
    let mut weights = vec![(0, 0); to_usize(u64::from(count))];
    for rank in 1..=u64::from(count) {
        let weight = floor_u64(FIRST * libm::pow(to_f64(rank), -alpha)).max(1);
        if let Some(slot) = weights.get_mut(to_usize(order.at(rank - 1))) {
            *slot = (rank, weight);
        }
    }
    weights
}

/// Draws tenants by weight in constant time, exactly: whole numbers only.
///
/// # Source
///
/// A. J. Walker, "An efficient method for generating discrete random variables with general
/// distributions", ACM TOMS 3(3), 1977; the construction is M. D. Vose's, IEEE TSE 17(9), 1991.
#[derive(Clone, Debug)]
pub struct AliasTable {
    total: u64,
    columns: Vec<Column>,
}

/// A column keeps its own tenant for draws below `keep`, of `total`; else it gives its alias.
#[derive(Clone, Copy, Debug)]
struct Column {
    keep: u64,
    alias: u32,
}

impl AliasTable {
    /// A table of these weights.
    ///
    /// # Errors
    ///
    /// [`SpecError::Weights`] where there are none, their sum is 0 or above 2^63, or there are more
    /// than 2^32.
    pub fn new(weights: &[u64]) -> Result<Self, SpecError> {
        let refused = SpecError::Weights { count: weights.len() };
        let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        let total = u64::try_from(sum).ok().filter(|t| (1..=1 << 63).contains(t));
        let (Some(total), Ok(count)) = (total, u32::try_from(weights.len())) else {
            return Err(refused);
        };
        // Each weight x count, against the total: below it a column has room, above it a surplus.
        let mut scaled: Vec<u128> =
            weights.iter().map(|w| u128::from(*w) * u128::from(count)).collect();
        let mut columns: Vec<Column> =
            (0..count).map(|alias| Column { keep: total, alias }).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count).partition(|i| scaled.get(index(*i)).is_some_and(|s| *s < sum));
        while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
            let have = scaled.get(index(low)).copied().unwrap_or(0);
            if let Some(column) = columns.get_mut(index(low)) {
                *column = Column { keep: u64::try_from(have).unwrap_or(total), alias: high };
            }
            let Some(rest) = scaled.get_mut(index(high)) else { continue };
            *rest = (*rest + have).saturating_sub(sum);
            if *rest < sum { small.push(high) } else { large.push(high) }
        }
        Ok(Self { total, columns })
    }

    /// The next tenant. Draws twice (more only where a draw is rejected to stay even).
    pub fn sample(&self, rng: &mut Rng) -> u32 {
        let at = rng.below(to_u64(self.columns.len()));
        let level = rng.below(self.total);
        match self.columns.get(to_usize(at)) {
            Some(column) if level >= column.keep => column.alias,
            _ => to_u32(at),
        }
    }
}

fn index(tenant: u32) -> usize {
    to_usize(u64::from(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_come_by_weight() {
        let weights = [1, 0, 7, 2, 90];
        let table = AliasTable::new(&weights).unwrap();
        let mut rng = Rng::new(1, "alias test");
        let mut counts = [0_u64; 5];
        for _ in 0..1_000_000 {
            counts[index(table.sample(&mut rng))] += 1;
        }
        for (weight, count) in weights.iter().zip(counts) {
            let expected = weight * 10_000;
            assert!(count.abs_diff(expected) * 25 <= expected, "{weight}: {count}");
        }
    }

    #[test]
    fn the_columns_hold_each_weight_exactly() {
        let weights: Vec<u64> = (0..1_000).map(|i| crate::rng::mix(i) >> 24).collect();
        let table = AliasTable::new(&weights).unwrap();
        let mut held = vec![0_u128; 1_000];
        for (i, column) in table.columns.iter().enumerate() {
            held[i] += u128::from(column.keep);
            held[index(column.alias)] += u128::from(table.total - column.keep);
        }
        for (weight, held) in weights.iter().zip(held) {
            assert_eq!(u128::from(*weight) * 1_000, held);
        }
    }

    #[test]
    fn weights_that_make_no_distribution_are_refused() {
        for weights in [&[][..], &[0, 0], &[u64::MAX, 1]] {
            assert!(AliasTable::new(weights).is_err());
        }
        assert_eq!(AliasTable::new(&[5]).unwrap().sample(&mut Rng::new(1, "one")), 0);
    }

    #[test]
    fn zipf_weights_fall_by_rank_and_are_spread_over_tenants() {
        let weights = zipf_weights(1_000, 0.99, 1);
        let mut by_rank = weights.clone();
        by_rank.sort_unstable();
        assert!(by_rank.windows(2).all(|w| w[0].1 >= w[1].1 && w[0].0 + 1 == w[1].0));
        assert_ne!(weights, by_rank);
        assert!(zipf_weights(10, 0.0, 1).windows(2).all(|w| w[0].1 == w[1].1));
    }

    #[test]
    fn classes_go_by_even_shares() {
        assert_eq!(Class::of_share(2.0), Class::Hot);
        assert_eq!(Class::of_share(1.0), Class::Warm);
        assert_eq!(Class::of_share(0.25), Class::Cold);
    }
}
