//! Values that say where they come from: tenant, incarnation, key, operation and length, so that any
//! value that is read names the one write that may have put it there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use forebay_engine::types::{to_u64, to_usize};
use xxhash_rust::xxh3::xxh3_64;

/// Shortest value.
pub const VALUE_BYTES_MIN: usize = 28;

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Number of the tenant's name.
    pub tenant: u32,
    /// Number of the incarnation: a name that was dropped and created again is another tenant.
    pub incarnation: u32,
    /// Number of the key.
    pub key: u32,
    /// Number of the operation, unique in a run.
    pub op: u64,
}

/// Numbers of names: below it those of tenants, which are their `main`; a fork's is so many times its
/// own number more.
pub const FORK_STEP: usize = 100_000;

/// The number of a fork's name.
pub fn fork_number(tenant: usize, fork: usize) -> usize {
    tenant_of(tenant) + fork * FORK_STEP
}

/// The number of the tenant whose branch has this number.
pub fn tenant_of(number: usize) -> usize {
    number.rem_euclid(FORK_STEP)
}

/// What a branch is called among its tenant's.
pub fn branch_name(number: usize) -> String {
    format!("b{}", number.div_euclid(FORK_STEP))
}

/// The full name of a branch; of `main` it is the tenant's.
pub fn tenant_name(number: usize) -> String {
    if number < FORK_STEP {
        return format!("t{number}");
    }
    format!("t{}@{}", tenant_of(number), branch_name(number))
}

/// The number of a full name, or `None` where no branch has it.
pub fn name_number(full_name: &str) -> Option<usize> {
    let name = full_name.strip_prefix('t')?;
    let number = match name.split_once("@b") {
        None => name.parse().ok()?,
        Some((tenant, fork)) => fork_number(tenant.parse().ok()?, fork.parse().ok()?),
    };
    (tenant_name(number) == full_name).then_some(number)
}

/// The first key of those that are shaped for prefixes.
pub const SHAPED_FIRST: u32 = 1000;

/// Keys shaped for prefixes.
pub const SHAPED_COUNT: u32 = 64;

type Shaped = (Vec<Vec<u8>>, BTreeMap<Vec<u8>, u32>);

/// Shaped keys in the order of their numbers, which is not that of their bytes, and the numbers by bytes.
static SHAPED: LazyLock<Shaped> = LazyLock::new(|| {
    let keys: Vec<Vec<u8>> = (0..SHAPED_COUNT).map(shaped).collect();
    let numbers = keys.iter().cloned().zip(SHAPED_FIRST..).collect();
    (keys, numbers)
});

/// Eight keys to a group. Groups have a first part of one to three bytes, of which some begin others; a
/// group's keys are shorter than most lengths of an extractor, or hold a slash early, late or never.
fn shaped(n: u32) -> Vec<u8> {
    let group: &[u8] = match n >> 3 {
        0 => b"a",
        1 => b"ab",
        2 => b"b",
        3 => &[0xff],
        4 => b"abc",
        5 => &[0xff, 0xff],
        6 => &[b'a', 0],
        _ => b"c",
    };
    let rest: &[u8] = match n & 7 {
        0 => b"",
        1 => b"/",
        2 => b"/x",
        3 => b"/x/y",
        4 => b"-z",
        5 => b"-z/late",
        6 => &[b'/', 0xff],
        _ => b"/a-key-that-is-long-enough-to-matter-to-a-block",
    };
    [group, rest].concat()
}

/// A key's bytes.
pub fn key_bytes(key: u32) -> Vec<u8> {
    let at = key.checked_sub(SHAPED_FIRST).map(|at| to_usize(u64::from(at)));
    let shaped = at.and_then(|at| SHAPED.0.get(at));
    shaped.cloned().unwrap_or_else(|| plain(key).into_bytes())
}

/// A key in words: its bytes, with those that are not ASCII escaped.
pub fn key_text(key: u32) -> String {
    key_bytes(key).escape_ascii().to_string()
}

/// A key without a shape. Every fifth is long, so that keys share prefixes and blocks fill unevenly.
fn plain(key: u32) -> String {
    if key.rem_euclid(5) == 4 {
        format!("k{key:04}-a-key-that-is-long-enough-to-matter-to-a-block")
    } else {
        format!("k{key:04}")
    }
}

/// The number of a key, or `None` where no key has this text.
pub fn key_number(text: &[u8]) -> Option<u32> {
    if let Some(key) = SHAPED.1.get(text) {
        return Some(*key);
    }
    let text = core::str::from_utf8(text).ok()?;
    let key = text.get(1..5)?.parse().ok()?;
    (plain(key) == text).then_some(key)
}

fn header(origin: Origin, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len.max(VALUE_BYTES_MIN));
    out.extend_from_slice(&origin.tenant.to_le_bytes());
    out.extend_from_slice(&origin.incarnation.to_le_bytes());
    out.extend_from_slice(&origin.key.to_le_bytes());
    out.extend_from_slice(&origin.op.to_le_bytes());
    let check = xxh3_64(&out) ^ to_u64(len);
    out.extend_from_slice(&check.to_le_bytes());
    out
}

fn pattern(op: u64, at: usize) -> u8 {
    let [byte, ..] = (op.wrapping_mul(167).wrapping_add(to_u64(at).wrapping_mul(31))).to_le_bytes();
    byte
}

/// A value of `len` bytes, at least [`VALUE_BYTES_MIN`].
pub fn encode(origin: Origin, len: usize) -> Vec<u8> {
    let len = len.max(VALUE_BYTES_MIN);
    let mut out = header(origin, len);
    out.extend((out.len()..len).map(|at| pattern(origin.op, at)));
    out
}

/// What a value says of itself, or `None` where no operation writes such bytes.
pub fn decode(bytes: &[u8]) -> Option<Origin> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let op = u64::from_le_bytes(bytes.get(12..20)?.try_into().ok()?);
    let origin = Origin { tenant: word(0)?, incarnation: word(4)?, key: word(8)?, op };
    let head = header(origin, bytes.len());
    let tail = bytes.get(VALUE_BYTES_MIN..)?;
    let sound = bytes.starts_with(&head)
        && tail.iter().zip(VALUE_BYTES_MIN..).all(|(byte, at)| *byte == pattern(op, at));
    sound.then_some(origin)
}

/// The number of one write: that of its batch and its place in it.
pub fn op_number(tag: u64, index: usize) -> u64 {
    (tag << 8) | to_u64(index.min(255))
}

/// The batch of a write.
pub fn tag_of(op: u64) -> u64 {
    op >> 8
}

/// A tenant's number in a list.
pub fn tenant_index(origin: Origin) -> usize {
    to_usize(u64::from(origin.tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_write_and_any_flipped_bit_shows() {
        let origin = Origin { tenant: 3, incarnation: 1, key: 42, op: op_number(9, 2) };
        for len in [0, 28, 29, 1000] {
            let bytes = encode(origin, len);
            assert_eq!(bytes.len(), len.max(VALUE_BYTES_MIN));
            assert_eq!(decode(&bytes), Some(origin));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 4;
                assert_eq!(decode(&bad), None, "byte {at} of {len}");
            }
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn names_have_numbers_and_other_names_do_not() {
        for (number, name) in
            [(0, "t0"), (9999, "t9999"), (100_007, "t7@b1"), (100_000_002, "t2@b1000")]
        {
            assert_eq!(tenant_name(number), name);
            assert_eq!(name_number(name), Some(number));
        }
        for name in ["", "t", "x1", "t01", "t100000", "t1@", "t1@b0", "t1@b01", "t1@c1", "t1@b1@b2"]
        {
            assert_eq!(name_number(name), None, "{name}");
        }
        assert_eq!((tenant_of(500_007), fork_number(500_007, 2)), (7, 200_007));
    }

    #[test]
    fn keys_have_numbers_and_other_bytes_do_not() {
        for key in [0, 4, 9, 123] {
            assert_eq!(key_number(key_text(key).as_bytes()), Some(key));
        }
        for key in SHAPED_FIRST..SHAPED_FIRST + SHAPED_COUNT {
            assert_eq!(key_number(&key_bytes(key)), Some(key), "{}", key_text(key));
        }
        assert_eq!(key_number(b"k0004"), None);
        assert_eq!(key_number(b"x"), None);
        assert_eq!(tag_of(op_number(77, 3)), 77);
    }
}
