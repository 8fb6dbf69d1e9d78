//! Which key of a tenant an operation is for, and the key's bytes.

use serde::{Deserialize, Serialize};

use crate::permutation::Permutation;
use crate::rng::{Rng, mix, to_usize};
use crate::zipf::Zipf;

/// How a tenant's operations choose among its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyChoice {
    /// By Zipf with the tenant's alpha; hot keys are spread over the key space by a seeded order.
    #[default]
    Zipf,
    /// Every key equally likely.
    Uniform,
    /// Writes go through the keys in order, round after round; reads and scans choose by Zipf with
    /// the tenant's alpha, the newest key the most likely.
    Latest,
}

/// Chooses keys of one tenant.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    choice: KeyChoice,
    zipf: Zipf,
    order: Permutation,
    newest: u64,
}

impl Keys {
    /// A chooser among `key_count` keys. `seed` decides which keys are hot.
    pub fn new(choice: KeyChoice, key_count: u64, alpha: f64, seed: u64) -> Self {
        let alpha = if choice == KeyChoice::Uniform { 0.0 } else { alpha };
        let zipf = Zipf::new(key_count, alpha);
        let newest = zipf.n().saturating_sub(1);
        Self { choice, zipf, order: Permutation::new(key_count, seed), newest }
    }

    /// The key of the next write.
    pub fn next_write(&mut self, rng: &mut Rng) -> u64 {
        if self.choice != KeyChoice::Latest {
            return self.next_read(rng);
        }
        self.newest = (self.newest + 1).checked_rem(self.zipf.n()).unwrap_or(0);
        self.newest
    }

    /// The key of the next read.
    pub fn next_read(&self, rng: &mut Rng) -> u64 {
        let rank = self.zipf.sample(rng);
        match self.choice {
            KeyChoice::Zipf => self.order.at(rank),
            KeyChoice::Uniform => rank,
            KeyChoice::Latest if rank <= self.newest => self.newest - rank,
            KeyChoice::Latest => self.newest + self.zipf.n() - rank,
        }
    }
}

/// Bytes that a key of this size takes so that `key_count` keys are distinct: `key_bytes` unless
/// the indexes need more.
pub fn key_len(key_bytes: u32, key_count: u64) -> u32 {
    let bits = u64::BITS - key_count.saturating_sub(1).leading_zeros();
    key_bytes.max(bits.div_ceil(8)).max(1)
}

/// Replaces `out` by a key of `len` bytes: lower-case letters that are the tenant's own, then the
/// index, big endian, in the last 8 bytes (or all, where `len` is below 8). Keys sort as indexes
/// do.
pub fn fill_key(tenant: u32, key: u64, len: u32, out: &mut Vec<u8>) {
    let len = to_usize(u64::from(len));
    let prefix_len = len.saturating_sub(8);
    out.clear();
    out.reserve(len);
    let mut state = u64::from(tenant);
    while out.len() < prefix_len {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        out.extend(state.to_le_bytes().map(|byte| b'a' + (byte & 15)));
    }
    out.truncate(prefix_len);
    let index = key.to_be_bytes();
    let skip = 8_usize.saturating_sub(len);
    out.extend_from_slice(index.get(skip..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_distinct_and_sorted_at_every_size() {
        for (key_bytes, key_count) in [(1, 200), (1, 256), (1, 300), (2, 70_000), (8, 99), (23, 99)]
        {
            let len = key_len(key_bytes, key_count);
            let keys: Vec<Vec<u8>> = (0..key_count)
                .map(|key| {
                    let mut out = Vec::new();
                    fill_key(3, key, len, &mut out);
                    out
                })
                .collect();
            assert!(keys.iter().all(|k| k.len() == to_usize(u64::from(len))));
            assert!(keys.is_sorted());
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        }
        assert_eq!(key_len(1, 256), 1);
        assert_eq!(key_len(1, 257), 2);
        assert_eq!(key_len(0, 1), 1);
        assert_eq!(key_len(3, u64::MAX), 8);
    }

    #[test]
    fn hot_keys_are_spread() {
        let (mut keys, mut rng) =
            (Keys::new(KeyChoice::Zipf, 100_000, 1.21, 5), Rng::new(1, "keys test"));
        let mut counts = vec![0_u32; 100_000];
        for _ in 0..100_000 {
            counts[to_usize(keys.next_write(&mut rng))] += 1;
        }
        let mut by_count: Vec<usize> = (0..100_000).collect();
        by_count.sort_by_key(|k| core::cmp::Reverse(counts[*k]));
        let mut top: Vec<usize> = by_count[..8].to_vec();
        top.sort_unstable();
        assert!(top.windows(2).all(|w| w[1] - w[0] > 10), "{top:?}");
    }

    #[test]
    fn latest_reads_what_was_just_written() {
        let (mut keys, mut rng) =
            (Keys::new(KeyChoice::Latest, 1_000, 0.99, 5), Rng::new(1, "keys test"));
        let written: Vec<u64> = (0..1_500).map(|_| keys.next_write(&mut rng)).collect();
        assert_eq!(written[..3], [0, 1, 2]);
        assert_eq!(written[1_499], 499);
        let reads: Vec<u64> = (0..10_000).map(|_| keys.next_read(&mut rng)).collect();
        assert!(reads.iter().all(|k| *k < 1_000));
        let newest = reads.iter().filter(|k| **k == 499).count();
        assert!(reads.iter().filter(|k| **k == 498).count() < newest);
        assert!(reads.iter().any(|k| *k > 499), "older keys wrap around");
    }
}
