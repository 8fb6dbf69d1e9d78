//! Reading a segment back: whole records up to the torn tail, or a typed error.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::begun::durable_without_opening;
use super::frame::{Part, low32, next_block, read_frame, skip_padding};
use super::{Record, decode_record, salt_of};
use crate::error::{Error, Result};
use crate::types::{to_u64, to_usize};

/// A segment's first record, from its first bytes; `None` where it is not whole, or longer than
/// these bytes or a block.
pub fn first_record(segment: u64, head: &Bytes) -> Option<Record> {
    let frame = read_frame(head, 0, (low32(segment), 0)).filter(|f| f.part == Part::Full)?;
    decode_record(&head.slice_ref(frame.payload))
}

/// A segment's records, each with the offset at which it begins.
#[derive(Clone, Debug, Default)]
pub struct SegmentRecords {
    /// The records in log order, with their offsets in bytes.
    pub records: Vec<(u64, Record)>,
    /// Where the last whole record ends.
    pub valid_bytes: u64,
}

/// Parses a whole segment. `limit_bytes` is the valid length that its successor names, if there is
/// one: up to there every record must be whole, and nothing behind it counts.
///
/// # Errors
///
/// [`Error::Corruption`] where a record below a durable or named length is damaged.
pub fn read_segment(
    path: &Path,
    segment: u64,
    bytes: &Bytes,
    limit_bytes: Option<u64>,
) -> Result<SegmentRecords> {
    let (records, damage) = read_segment_prefix(path, segment, bytes, limit_bytes);
    damage.map_or(Ok(records), Err)
}

/// As [`read_segment`], with the whole records before the damage, if there is any.
pub fn read_segment_prefix(
    path: &Path,
    segment: u64,
    bytes: &Bytes,
    limit_bytes: Option<u64>,
) -> (SegmentRecords, Option<Error>) {
    let number = low32(segment);
    let end = limit_bytes.map_or(bytes.len(), |l| to_usize(l).min(bytes.len()));
    let within = bytes.slice(..end);
    let mut out = SegmentRecords::default();
    let mut durable = 0_u64;
    let mut at = 0;
    let mut partial: Option<(usize, BytesMut)> = None;
    let mut salt = 0;
    loop {
        at = skip_padding(at);
        if at >= within.len() {
            break;
        }
        let Some(frame) = read_frame(&within, at, (number, salt)) else { break };
        durable = durable.max(u64::from(frame.durable_bytes));
        if at == 0 {
            salt = salt_of(frame.payload).unwrap_or(0);
        }
        let whole = match (frame.part, partial.take()) {
            (Part::Full, None) => Some((at, within.slice_ref(frame.payload))),
            (Part::First, None) => {
                partial = Some((at, BytesMut::from(frame.payload)));
                None
            }
            (Part::Middle, Some((start, mut head))) => {
                head.extend_from_slice(frame.payload);
                partial = Some((start, head));
                None
            }
            (Part::Last, Some((start, mut head))) => {
                head.extend_from_slice(frame.payload);
                Some((start, head.freeze()))
            }
            // A valid frame that does not continue its record: a failed append lies before it.
            _ => break,
        };
        at = frame.end;
        if let Some((start, payload)) = whole {
            let Some(record) = decode_record(&payload) else {
                let what = "a record with a valid checksum does not decode: another version of \
                            the format wrote it";
                return (out, Some(Error::corruption(path, to_u64(start), what)));
            };
            out.records.push((to_u64(start), record));
            out.valid_bytes = to_u64(at);
        }
    }
    let promised = match limit_bytes {
        Some(limit) => limit,
        // The first frame is bad, and with it the salt of the others is lost.
        None if at == 0 => durable_without_opening(bytes, number),
        None => durable.max(durable_behind(bytes, to_usize(out.valid_bytes), (number, salt))),
    };
    let damage = (out.valid_bytes < promised).then(|| {
        let what = format!("no whole record, although the first {promised} bytes were durable");
        Error::corruption(path, out.valid_bytes, what)
    });
    (out, damage)
}

/// The highest durable offset that valid frames behind a bad one name. Within the bad frame's block
/// they may begin at any byte.
pub(super) fn durable_behind(bytes: &[u8], from: usize, number: (u32, u32)) -> u64 {
    let mut highest = 0;
    let mut at = from + 1;
    while at < bytes.len() {
        match read_frame(bytes, at, number) {
            Some(frame) => {
                highest = highest.max(u64::from(frame.durable_bytes));
                at = skip_padding(frame.end);
            }
            None if at < next_block(from) => at += 1,
            None => at = next_block(at),
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::super::frame::{HEADER_BYTES, Stamp, put_record};
    use super::super::writer::Predecessor;
    use super::super::{encode_batch_header, encode_entry};
    use super::*;
    use crate::types::{BranchId, Kind, TreeId};

    fn record(seq: u64, value: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode_batch_header(&mut out, seq, 1);
        let data = vec![b'x'; 1 + value];
        encode_entry(&mut out, (TreeId(1), BranchId(1)), Kind::Put, 1, &data);
        out
    }

    fn segment(records: &[usize], durable: u32) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for (i, len) in records.iter().enumerate() {
            let start = to_u64(out.len());
            let stamp = Stamp { segment: 7, durable_bytes: durable.min(low32(start)), salt: 0 };
            put_record(&mut out, start, stamp, &record(to_u64(i) + 1, *len));
            ends.push(out.len());
        }
        (out, ends)
    }

    fn read(bytes: Vec<u8>, limit: Option<u64>) -> Result<SegmentRecords> {
        read_segment(Path::new("000007.wal"), 7, &Bytes::from(bytes), limit)
    }

    #[test]
    fn records_of_every_size_come_back() {
        let sizes = [10, 32_740, 5, 100_000, 0, 32_768 * 2];
        let (bytes, ends) = segment(&sizes, 0);
        let got = read(bytes, None).unwrap();
        assert_eq!(got.records.len(), sizes.len());
        assert_eq!(got.valid_bytes, to_u64(*ends.last().unwrap()));
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_whole_records_before_it() {
        let (bytes, ends) = segment(&[10, 20, 32_760, 30], 0);
        for cut in (0..bytes.len()).step_by(7).chain(ends.iter().copied()) {
            let got = read(bytes[..cut].to_vec(), None).unwrap();
            assert_eq!(got.records.len(), ends.iter().filter(|e| **e <= cut).count());
        }
    }

    #[test]
    fn damage_below_a_durable_offset_is_loud_and_above_it_is_the_torn_tail() {
        let sizes = [100; 700];
        let (mut bytes, ends) = segment(&sizes, 500);
        bytes[ends[1] + HEADER_BYTES + 3] ^= 1;
        assert!(matches!(read(bytes, None), Err(Error::Corruption { .. })));
        let (mut bytes, ends) = segment(&sizes[..20], 500);
        bytes[ends[1] + HEADER_BYTES + 3] ^= 1;
        assert!(read(bytes, None).is_err(), "the frames behind it in its block tell");
        let (mut bytes, ends) = segment(&sizes, 500);
        bytes[ends[300] + HEADER_BYTES + 3] ^= 1;
        assert_eq!(read(bytes, None).unwrap().records.len(), 301);
    }

    #[test]
    fn damage_below_the_length_that_a_successor_names_is_loud() {
        let (mut bytes, ends) = segment(&[100; 20], 0);
        let limit = to_u64(ends[9]);
        assert_eq!(read(bytes.clone(), Some(limit)).unwrap().records.len(), 10);
        bytes[ends[4] + HEADER_BYTES] ^= 1;
        assert!(read(bytes, Some(limit)).is_err());
    }

    #[test]
    fn frames_that_a_user_wrote_into_a_value_do_not_count() {
        let mut forged = Vec::new();
        let stamp = Stamp { segment: 7, durable_bytes: 90, salt: 0 };
        for _ in 0..20 {
            put_record(&mut forged, 0, stamp, &[]);
        }
        let mut record = Vec::new();
        super::super::encode_predecessor(&mut record, Predecessor::default(), 12345, 0);
        let mut out = Vec::new();
        put_record(&mut out, 0, Stamp { segment: 7, durable_bytes: 0, salt: 0 }, &record);
        let end = out.len();
        let stamp = Stamp { segment: 7, durable_bytes: 0, salt: 12345 };
        put_record(&mut out, to_u64(end), stamp, &forged);
        out[end + 2] ^= 1;
        let got = read(out, None).unwrap();
        assert_eq!(got.valid_bytes, to_u64(end), "the torn tail, not damage");
    }

    #[test]
    fn frames_of_another_segment_are_not_read() {
        let (bytes, _) = segment(&[10], 0);
        let got = read_segment(Path::new("x"), 8, &Bytes::from(bytes), None).unwrap();
        assert!(got.records.is_empty());
    }
}
