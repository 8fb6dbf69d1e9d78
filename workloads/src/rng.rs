//! The only generator: one root seed, one stream of numbers per name.
//!
//! Streams are independent, so one more draw at one site does not shift the draws of the others.
//! `ChaCha8` is specified bit by bit; the seed of a stream is the xxh3 hash of root seed and name.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Numbers of one named stream.
#[derive(Clone, Debug)]
pub struct Rng {
    chacha: ChaCha8Rng,
}

impl Rng {
    /// The stream of this name under this root seed.
    pub fn new(root_seed: u64, name: &str) -> Self {
        let mut origin = root_seed.to_le_bytes().to_vec();
        origin.extend_from_slice(name.as_bytes());
        let mut seed = [0_u8; 32];
        for (word, round) in seed.chunks_exact_mut(8).zip(0_u64..) {
            word.copy_from_slice(&xxh3_64_with_seed(&origin, round).to_le_bytes());
        }
        Self { chacha: ChaCha8Rng::from_seed(seed) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.chacha.next_u64()
    }

    /// A number below `n`, each equally likely; 0 where `n` is 0.
    ///
    /// # Source
    ///
    /// D. Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1), 2019.
    pub fn below(&mut self, n: u64) -> u64 {
        let (mut high, mut low) = wide_mul(self.next_u64(), n);
        if low < n {
            let reject_below = n.wrapping_neg().checked_rem(n).unwrap_or(0);
            while low < reject_below {
                (high, low) = wide_mul(self.next_u64(), n);
            }
        }
        high
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn unit_f64(&mut self) -> f64 {
        const TWO_POW_MINUS_53: f64 = 1.0 / 9_007_199_254_740_992.0;
        to_f64(self.next_u64() >> 11) * TWO_POW_MINUS_53
    }

    /// Whether an event of this probability happens. Draws once, also at 0 and 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit_f64() < probability
    }
}

fn wide_mul(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    let low = product & u128::from(u64::MAX);
    (u64::try_from(product >> 64).unwrap_or(u64::MAX), u64::try_from(low).unwrap_or(u64::MAX))
}

/// Mixes 64 bits so that each input bit moves half of the output bits; a bijection.
///
/// # Source
///
/// The finalizer of `SplitMix64`: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014, constants of D. Stafford's variant 13.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// FNV-1a over the 8 bytes of a number, least first.
///
/// # Source
///
/// `Utils.fnvhash64` of YCSB, which scrambles the ranks of its Zipf draws with it. Departure: the
/// absolute value that it takes for Java's signed numbers only drops the top bit here.
pub(crate) fn fnv64(n: u64) -> u64 {
    let hash = n.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash & (u64::MAX >> 1)
}

/// The nearest `f64`; exact below 2^53.
pub(crate) fn to_f64(n: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "rounding to nearest is the same everywhere")]
    let nearest = n as f64;
    nearest
}

/// The whole part of a number; 0 for a negative one or a NaN, the maximum where it does not fit.
pub(crate) fn floor_u64(x: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, as this function says"
    )]
    let whole = x as u64;
    whole
}

/// A length or an index as a number.
pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A number as a length or an index; saturates where it does not fit.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A number that is below the number of tenants, as a tenant.
pub(crate) fn to_u32(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_numbers_and_another_name_others() {
        let draw = |seed, name| {
            let mut rng = Rng::new(seed, name);
            [rng.next_u64(), rng.next_u64(), rng.next_u64()]
        };
        assert_eq!(draw(1, "key"), draw(1, "key"));
        assert_ne!(draw(1, "key"), draw(1, "kind"));
        assert_ne!(draw(1, "key"), draw(2, "key"));
    }

    #[test]
    fn the_first_numbers_of_a_stream_never_change() {
        let mut rng = Rng::new(1, "golden");
        assert_eq!(rng.next_u64(), 15_334_905_848_059_382_332);
    }

    #[test]
    fn below_is_even_and_stays_below() {
        let mut rng = Rng::new(1, "below");
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[to_usize(rng.below(7))] += 1;
        }
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        assert!((0..100).all(|_| rng.below((1 << 63) + 1) <= 1 << 63));
    }

    #[test]
    fn unit_numbers_fill_the_unit_interval() {
        let mut rng = Rng::new(1, "unit");
        let draws: Vec<f64> = (0..100_000).map(|_| rng.unit_f64()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }
}
