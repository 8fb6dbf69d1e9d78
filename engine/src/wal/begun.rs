//! Whether a segment whose first frame is bad was begun: a spare, or a file whose opening record a
//! crash tore, is no part of the log, while one that took records and was damaged is.
//!
//! The salt of all frames is only in the first one. But a frame's checksum tells the one salt with
//! which it is right, and two frames in a row that tell the same salt are frames. An opening record
//! is durable before another record is appended, so that frames of other records name a durable
//! offset above 0, the first of them its own. Frames of the opening record itself name 0.
//!
//! Entries that an opening record carries are bytes of users, among which anything may lie. They
//! never lie at the start of a block; in the first block they are only looked through where the
//! second one does not go on with the opening record.

use super::BLOCK_BYTES;
use super::frame::{Part, SEGMENT_AT, low32, read_shape, skip_padding};
use super::reader::durable_behind;
use crate::types::to_usize;

/// The highest durable offset that any frame proves, of a segment whose first frame is bad; 0 where
/// the segment was not begun.
pub(super) fn durable_without_opening(bytes: &[u8], segment: u32) -> u64 {
    let starts = (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES);
    let at_starts = starts
        .filter_map(|at| read_shape(bytes, at, segment))
        .map(|shape| u64::from(shape.frame.durable_bytes))
        .max()
        .unwrap_or(0);
    let long = read_shape(bytes, BLOCK_BYTES, segment).filter(|shape| {
        shape.frame.durable_bytes == 0 && matches!(shape.frame.part, Part::Middle | Part::Last)
    });
    let others = match long {
        Some(shape) => durable_behind(bytes, BLOCK_BYTES - 1, (segment, shape.salt())),
        None => durable_in_first_block(bytes, segment),
    };
    at_starts.max(others)
}

/// Whether a file's first bytes name another segment than its name does. A crash leaves those of
/// the segment, or zeros.
pub(crate) fn is_foreign(head: &[u8], segment: u64) -> bool {
    let number = head.get(SEGMENT_AT..SEGMENT_AT + 4);
    number.is_some_and(|found| found != [0; 4] && found != low32(segment).to_le_bytes())
}

fn durable_in_first_block(bytes: &[u8], segment: u32) -> u64 {
    let proof = |at: usize| {
        let shape = read_shape(bytes, at, segment)?;
        let durable_bytes = u64::from(shape.frame.durable_bytes);
        let is_first_behind = skip_padding(to_usize(durable_bytes)) == at
            && matches!(shape.frame.part, Part::Full | Part::First);
        let is_followed = || {
            let next = read_shape(bytes, skip_padding(shape.frame.end), segment);
            next.is_some_and(|next| next.salt() == shape.salt())
        };
        (durable_bytes > 0 && (is_first_behind || is_followed())).then_some(durable_bytes)
    };
    (1..BLOCK_BYTES.min(bytes.len())).filter_map(proof).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::frame::{Stamp, put_record};
    use super::super::reader::read_segment;
    use super::super::writer::Predecessor;
    use super::super::{WalEntry, encode_batch_header, encode_carried, encode_entry};
    use super::*;
    use crate::types::{BranchId, Kind, TreeId, to_u64};

    const SALT: u32 = 0x5eed_1234;

    fn batch(seq: u64, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode_batch_header(&mut out, seq, 1);
        let data = vec![7; 1 + value];
        encode_entry(&mut out, (TreeId(1), BranchId(1)), Kind::Put, 1, &data);
        out
    }

    fn opening(carried: &[usize]) -> Vec<u8> {
        let before = Predecessor { segment: 3, valid_bytes: 900, last_seq: 50 };
        let mut out = Vec::new();
        super::super::encode_predecessor(&mut out, before, SALT, to_u64(carried.len()));
        for (seq, len) in (10..).zip(carried) {
            let data = vec![9; 1 + len].into();
            let (tree, branch) = (TreeId(1), BranchId(1));
            let entry = WalEntry { tree, branch, kind: Kind::Put, key_bytes: 1, data };
            encode_carried(&mut out, seq, &entry);
        }
        out
    }

    /// A segment, and where its first frame and its opening record end. Each record is durable
    /// before the next where `synced`, else the opening record alone is.
    fn segment(carried: &[usize], values: &[usize], synced: bool) -> (Vec<u8>, usize, usize) {
        let mut out = Vec::new();
        let stamp = |durable| Stamp { segment: 7, durable_bytes: low32(durable), salt: SALT };
        put_record(&mut out, 0, stamp(0), &opening(carried));
        let (opening_end, mut durable) = (out.len(), to_u64(out.len()));
        for (seq, value) in (60..).zip(values) {
            let start = to_u64(out.len());
            put_record(&mut out, start, stamp(durable), &batch(seq, *value));
            if synced {
                durable = to_u64(out.len());
            }
        }
        (out, opening_end.min(BLOCK_BYTES), opening_end)
    }

    fn read(bytes: Vec<u8>) -> Result<usize, crate::error::Error> {
        let read = read_segment(Path::new("000007.wal"), 7, &Bytes::from(bytes), None)?;
        Ok(read.records.len())
    }

    #[test]
    fn damage_anywhere_in_the_first_frame_is_loud_where_a_record_follows() {
        let many = [20; 200];
        let shapes: [&[usize]; 6] = [&[30], &[30, 5], &many, &[40_000], &[5, 70_000], &[32_700, 5]];
        for (carried, values) in shapes.iter().flat_map(|v| [(&[][..], v), (&[100, 3], v)]) {
            for synced in [true, false] {
                let (whole, first_end, _) = segment(carried, values, synced);
                assert_eq!(read(whole.clone()).unwrap(), 1 + values.len());
                for at in 0..first_end {
                    for mask in [1, 0xff] {
                        let mut bytes = whole.clone();
                        bytes[at] ^= mask;
                        bytes.resize(whole.len() + 50_000, 0);
                        assert!(read(bytes).is_err(), "byte {at} of {carried:?} {values:?}");
                    }
                }
                let mut bytes = whole;
                bytes[..first_end].fill(0);
                assert!(read(bytes).is_err(), "no first frame of {carried:?} {values:?}");
            }
        }
    }

    #[test]
    fn damage_in_the_first_frame_of_a_long_opening_record_is_loud_where_a_record_follows() {
        for carried in [&[40_000][..], &[32_740], &[90_000, 200], &[100; 700]] {
            for values in [&[30][..], &[5, 8], &[50_000]] {
                let (whole, first_end, _) = segment(carried, values, true);
                for at in (0..40).chain((40..first_end).step_by(1_013)) {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 0x40;
                    assert!(read(bytes).is_err(), "byte {at} of {carried:?} {values:?}");
                }
            }
        }
    }

    #[test]
    fn an_opening_record_of_which_any_pages_are_missing_was_not_begun() {
        for carried in [&[][..], &[100], &[20_000, 7], &[32_740], &[40_000], &[30_000; 4]] {
            let (whole, _, end) = segment(carried, &[], true);
            for page_bytes in [512, 4096] {
                let pages = end.div_ceil(page_bytes);
                for missing in 0..pages {
                    let lone = [(missing, missing + 1), (0, missing + 1), (missing, pages)];
                    for (from, to) in lone {
                        let mut bytes = whole.clone();
                        bytes[from * page_bytes..(to * page_bytes).min(end)].fill(0);
                        bytes.resize(end + 50_000, 0);
                        assert_eq!(read(bytes).unwrap(), 0, "{from}..{to} of {carried:?}");
                    }
                }
            }
        }
        assert_eq!(read(vec![0; 100_000]).unwrap(), 0, "a spare");
        // Damage to an opening record alone cannot be told from a crash in the middle of it.
        let (whole, ..) = segment(&[], &[], true);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(read(bytes).unwrap(), 0);
        }
    }

    #[test]
    fn frames_in_carried_values_prove_nothing_where_the_opening_record_goes_on() {
        let mut forged = Vec::new();
        let stamp = Stamp { segment: 7, durable_bytes: 90, salt: 1 };
        for _ in 0..1_000 {
            put_record(&mut forged, 0, stamp, &[5; 40]);
        }
        let entry = WalEntry {
            tree: TreeId(1),
            branch: BranchId(1),
            kind: Kind::Put,
            key_bytes: 1,
            data: forged.into(),
        };
        let before = Predecessor { segment: 3, valid_bytes: 900, last_seq: 50 };
        let mut record = Vec::new();
        super::super::encode_predecessor(&mut record, before, SALT, 1);
        encode_carried(&mut record, 10, &entry);
        let mut bytes = Vec::new();
        put_record(&mut bytes, 0, Stamp { segment: 7, durable_bytes: 0, salt: SALT }, &record);
        bytes[..4096].fill(0);
        assert_eq!(read(bytes).unwrap(), 0);
    }
}
