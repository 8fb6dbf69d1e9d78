//! A seeded order of the numbers below n, without a table.
//!
//! Spreads hot keys over the key space and interleaves a load. Rounds of multiply, xor-shift and
//! add are bijections on the next power of two; numbers at or above n are walked on until one is
//! below (at most twice as many steps as numbers on average), which keeps it a bijection below n.

use crate::rng::mix;

/// A bijection of the numbers below n.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    mask: u64,
    shift: u32,
    key: u64,
}

impl Permutation {
    /// The order of the numbers below `n` that this seed gives.
    pub fn new(n: u64, seed: u64) -> Self {
        let mask = n.max(1).next_power_of_two().wrapping_sub(1);
        let bits = mask.count_ones();
        Self { n, mask, shift: (bits >> 1).max(1), key: mix(seed) }
    }

    /// The number at this place; places at or above n wrap around.
    pub fn at(&self, place: u64) -> u64 {
        let mut x = place.checked_rem(self.n).unwrap_or(0);
        loop {
            x = self.round(x);
            if x < self.n.max(1) {
                return x;
            }
        }
    }

    fn round(&self, mut x: u64) -> u64 {
        for (add, odd) in
            [(self.key, 0x9e37_79b9_7f4a_7c15), (self.key.rotate_left(32), 0xd6e8_feb8_6659_fd93)]
        {
            x = x.wrapping_add(add) & self.mask;
            x = x.wrapping_mul(odd) & self.mask;
            x ^= x >> self.shift;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::to_usize;

    #[test]
    fn every_number_comes_once() {
        for n in [0, 1, 2, 3, 5, 16, 17, 1_000, 1_024, 4_097] {
            for seed in 0..5 {
                let order = Permutation::new(n, seed);
                let mut seen = vec![false; to_usize(n)];
                for place in 0..n {
                    seen[to_usize(order.at(place))] = true;
                }
                assert!(seen.iter().all(|s| *s), "n {n} seed {seed}");
            }
        }
    }

    #[test]
    fn neighbours_are_spread_and_seeds_differ() {
        let order = Permutation::new(1_000_000, 1);
        let other = Permutation::new(1_000_000, 2);
        let first: Vec<u64> = (0..10).map(|p| order.at(p)).collect();
        assert_ne!(first, (0..10).map(|p| other.at(p)).collect::<Vec<_>>());
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|w| w[1] - w[0] > 100), "{first:?}");
    }
}
