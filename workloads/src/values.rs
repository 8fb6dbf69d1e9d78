//! Value bytes that tell where they came from.
//!
//! A value is a header of 20 bytes (operation number, key index, tenant; little endian), then noise
//! over half of what is left, then zeros: behind the header a byte compressor gets about 2:1, as
//! with the default of `db_bench`. A value below 20 bytes is the beginning of its header, so that
//! even one byte changes with each operation. Nothing is drawn: the same arguments give the same
//! bytes.

use crate::rng::{mix, to_usize};

/// Bytes of the header that says where a value came from.
pub const HEADER_BYTES: usize = 20;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueOrigin {
    /// The number that the client gave its operation.
    pub op_number: u64,
    /// The key's index.
    pub key: u64,
    /// The tenant who wrote it.
    pub tenant: u32,
}

impl ValueOrigin {
    /// Reads the header back; `None` for a value too short to hold one.
    ///
    /// Says nothing about the bytes behind it: compare with [`fill_value`] for that.
    pub fn of(value: &[u8]) -> Option<Self> {
        let (op_number, rest) = value.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<8>()?;
        let (tenant, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            op_number: u64::from_le_bytes(*op_number),
            key: u64::from_le_bytes(*key),
            tenant: u32::from_le_bytes(*tenant),
        })
    }
}

/// Replaces `out` by the value of `bytes` bytes that one operation writes.
pub fn fill_value(tenant: u32, key: u64, op_number: u64, bytes: u32, out: &mut Vec<u8>) {
    let len = to_usize(u64::from(bytes));
    out.clear();
    out.reserve(len.max(HEADER_BYTES));
    out.extend_from_slice(&op_number.to_le_bytes());
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&tenant.to_le_bytes());
    let noise_end = HEADER_BYTES + (len.saturating_sub(HEADER_BYTES) >> 1);
    let mut state = mix(op_number ^ mix(key ^ mix(u64::from(tenant))));
    while out.len() < noise_end {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        out.extend_from_slice(&mix(state).to_le_bytes());
    }
    out.truncate(noise_end);
    out.resize(len, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_size_and_tells_its_origin() {
        let mut value = Vec::new();
        for bytes in [0, 1, 19, 20, 21, 28, 100, 4_096] {
            fill_value(7, 9, 11, bytes, &mut value);
            assert_eq!(value.len(), to_usize(u64::from(bytes)));
            let origin = ValueOrigin { op_number: 11, key: 9, tenant: 7 };
            assert_eq!(ValueOrigin::of(&value), (bytes >= 20).then_some(origin));
        }
    }

    #[test]
    fn a_one_byte_value_changes_with_the_operation() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        fill_value(7, 9, 11, 1, &mut a);
        fill_value(7, 9, 12, 1, &mut b);
        assert_ne!(a, b);
    }

    #[test]
    fn half_of_what_follows_the_header_is_zeros() {
        let mut value = Vec::new();
        fill_value(1, 2, 3, 1_020, &mut value);
        assert!(value[520..].iter().all(|b| *b == 0));
        assert!(value[20..520].chunks(8).all(|c| c.iter().any(|b| *b != 0)));
    }
}
