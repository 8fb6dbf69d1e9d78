//! A Bloom filter over whole keys and their prefixes with a frozen layout: one block per table.
//!
//! A key's places come from one 64-bit hash by double hashing, each mapped to a bit by the high
//! half of a 128-bit product instead of a remainder.
//!
//! # Source
//!
//! Kirsch and Mitzenmacher, "Less Hashing, Same Performance: Building a Better Bloom Filter", ESA
//! 2006. Departures: both hashes are halves of one xxh3, and the second is odd.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::format::Damage;
use crate::coding::Decoder;
use crate::prefix::TreeExtractor;
use crate::types::{to_u64, to_usize};

const KIND_BLOOM: u8 = 1;
const HEADER_BYTES: usize = 2;
const PROBES_MAX: u8 = 30;

/// Longest filter, in bytes; more keys then share its bits.
const FILTER_BYTES_MAX: u64 = 64 << 20;

/// The hash of a key in a filter.
pub(crate) fn filter_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Keeps a prefix from passing for a whole key: the bytes of "fbprefix".
const PREFIX_SEED: u64 = u64::from_le_bytes(*b"fbprefix");

/// The hash of a prefix of keys in a filter.
pub(crate) fn prefix_hash(prefix: &[u8]) -> u64 {
    xxh3_64_with_seed(prefix, PREFIX_SEED)
}

/// Where a filter's bits are, and how many a key has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    bits: Bytes,
    probes: u8,
    // Whose prefixes it holds, from the table's footer.
    extractor: Option<TreeExtractor>,
}

fn bits_len(keys: u64, bits_per_key: u32) -> u64 {
    let bytes = keys.saturating_mul(u64::from(bits_per_key)).div_ceil(8);
    bytes.clamp(8, FILTER_BYTES_MAX)
}

/// Length of the filter block of so many keys, without its trailer.
pub(crate) fn filter_bytes(keys: u64, bits_per_key: u32) -> u64 {
    if bits_per_key == 0 { 0 } else { bits_len(keys, bits_per_key) + to_u64(HEADER_BYTES) }
}

fn probe(hash: u64, probes: u8, bit_count: u64, mut at: impl FnMut(usize, u8) -> bool) -> bool {
    let step = hash.rotate_left(32) | 1;
    let mut place = hash;
    (0..probes).all(|_| {
        let bit = u64::try_from((u128::from(place) * u128::from(bit_count)) >> 64).unwrap_or(0);
        place = place.wrapping_add(step);
        at(to_usize(bit >> 3), 1 << (bit & 7))
    })
}

/// The filter block of keys with these hashes.
pub(crate) fn build_filter(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    let len = bits_len(to_u64(hashes.len()), bits_per_key);
    // ln 2 = 0.69: the number of probes with the fewest false positives.
    let probes = (u64::from(bits_per_key) * 69).div_euclid(100).clamp(1, u64::from(PROBES_MAX));
    let probes = u8::try_from(probes).unwrap_or(PROBES_MAX);
    let mut out = vec![KIND_BLOOM, probes];
    out.resize(HEADER_BYTES + to_usize(len), 0);
    if let Some(bits) = out.get_mut(HEADER_BYTES..) {
        for hash in hashes {
            probe(*hash, probes, len * 8, |byte, bit| {
                if let Some(target) = bits.get_mut(byte) {
                    *target |= bit;
                }
                true
            });
        }
    }
    out
}

impl Filter {
    /// Rules out nothing: stands for a table without a filter.
    pub(crate) fn pass() -> Self {
        Self::default()
    }

    pub(crate) fn decode(content: &Bytes) -> Result<Self, Damage> {
        let mut d = Decoder::new(content);
        let header = d.u8().zip(d.u8());
        let Some((KIND_BLOOM, probes @ 1..=PROBES_MAX)) = header else {
            return Err(Damage::new(0, "unknown kind of filter"));
        };
        if d.is_empty() {
            return Err(Damage::new(HEADER_BYTES, "a filter has no bits"));
        }
        Ok(Self { bits: content.slice(HEADER_BYTES..), probes, extractor: None })
    }

    /// The filter with the extractor that its table names. A name that this engine does not know
    /// stands for an extractor that is never asked for.
    pub(crate) fn with_extractor(self, name: &str) -> Self {
        let extractor = if name.is_empty() { None } else { name.parse().ok() };
        Self { extractor, ..self }
    }

    /// False only where the filter holds this extractor's prefixes and not this one.
    pub(crate) fn may_contain_prefix(&self, extractor: &TreeExtractor, prefix: &[u8]) -> bool {
        self.extractor != Some(*extractor) || self.may_contain(prefix_hash(prefix))
    }

    /// Bytes that the filter keeps in memory.
    pub fn bytes(&self) -> u64 {
        to_u64(self.bits.len())
    }

    /// False only where the table has no key of this hash.
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.bits.is_empty()
            || probe(hash, self.probes, self.bytes() * 8, |byte, bit| {
                self.bits.get(byte).is_some_and(|found| found & bit != 0)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(from: u64, n: u64) -> Vec<u64> {
        (from..from + n).map(|i| filter_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn no_key_that_is_there_is_ruled_out() {
        for n in [0, 1, 7, 100, 10_000] {
            let keys = hashes(0, n);
            let filter = Filter::decode(&build_filter(&keys, 10).into()).unwrap();
            assert!(keys.iter().all(|hash| filter.may_contain(*hash)), "{n} keys");
        }
    }

    #[test]
    fn ten_bits_a_key_let_about_one_in_a_hundred_absent_keys_through() {
        let filter = Filter::decode(&build_filter(&hashes(0, 10_000), 10).into()).unwrap();
        let through = hashes(1 << 40, 100_000).into_iter().filter(|h| filter.may_contain(*h));
        let through = through.count();
        assert!((500..1_300).contains(&through), "{through} of 100,000");
    }

    #[test]
    fn the_layout_is_frozen() {
        let block = build_filter(&hashes(0, 3), 10);
        assert_eq!(block, [1, 6, 34, 242, 8, 128, 130, 38, 3, 48]);
    }

    #[test]
    fn a_damaged_header_is_refused() {
        for bytes in [&[][..], &[1], &[1, 6], &[2, 6, 0], &[1, 0, 0], &[1, 31, 0]] {
            assert!(Filter::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
