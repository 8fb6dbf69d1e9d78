//! The write-ahead log: one log for all trees, in numbered segments of framed records.
//!
//! A segment is a sequence of frames that do not cross 32 KiB blocks. Each frame carries a CRC32C,
//! the segment's number and the offset known durable when it was built. A record is one frame or a
//! run of frames. A segment's first record names its predecessor with the length of that one that
//! was synced: what lies behind it is void, so only the newest segment can have a torn tail. A
//! segment that is full is synced whole before its successor begins. One that failed is not: what
//! it acknowledged behind its synced length is carried in its successor's first record, each entry
//! with its own sequence number, so that the record voids the old copies and holds the others, or
//! is not whole and does neither.
//!
//! A bad frame below the highest durable offset that any frame of its segment names is damage; at
//! or above it the torn tail begins, and everything behind is dropped, valid or not.
//!
//! # Source
//!
//! Blocks and the four frame kinds are LevelDB's (`doc/log_format.md`). Departures: the segment
//! number and the durable offset in each frame, and the predecessor record.

pub(crate) mod begun;
mod frame;
pub mod reader;
pub mod salvage;
pub mod writer;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::coding::{Decoder, put_varint};
use crate::types::{BranchId, Kind, SEQ_MAX, SeqNo, TreeId, to_u64, to_usize};

/// Frames do not cross multiples of this many bytes.
pub const BLOCK_BYTES: usize = 32 * 1024;

/// The file of a segment.
pub fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:06}.wal"))
}

/// One entry of a batch record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    /// The tree it was written to.
    pub tree: TreeId,
    /// The branch it was written through.
    pub branch: BranchId,
    /// Put or delete.
    pub kind: Kind,
    /// Bytes of the key at the start of `data`.
    pub key_bytes: u32,
    /// The key as the tree stores it, then the value.
    pub data: Bytes,
}

/// What a segment's records say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first record of a segment.
    Predecessor {
        /// What the checksums of this segment's other frames begin with.
        salt: u32,
        /// The segment before this one; 0 for the first one of a log.
        segment: u64,
        /// Its valid length in bytes.
        valid_bytes: u64,
        /// The last sequence number up to here, carried entries included.
        last_seq: SeqNo,
        /// Entries that lay behind that length, in the order of their numbers.
        carried: Vec<(SeqNo, WalEntry)>,
    },
    /// A batch: its entries take numbers from `first_seq` on, all or none.
    Batch {
        /// The number of the first entry.
        first_seq: SeqNo,
        /// The entries.
        entries: Vec<WalEntry>,
    },
    /// Entries of closed segments once more, so that those segments can go. It gives no numbers,
    /// and each entry counts for itself: the batch that it came with is durable and whole.
    Relogged {
        /// The entries, each with the number that it always had.
        entries: Vec<(SeqNo, WalEntry)>,
    },
}

impl Record {
    /// The highest sequence number that it tells of.
    pub(crate) fn last_seq(&self) -> SeqNo {
        match self {
            Self::Predecessor { last_seq, .. } => *last_seq,
            Self::Batch { first_seq, entries } => {
                (first_seq + to_u64(entries.len())).saturating_sub(1)
            }
            Self::Relogged { entries } => entries.iter().map(|(seq, _)| *seq).max().unwrap_or(0),
        }
    }
}

const PREDECESSOR: u8 = 1;
const BATCH: u8 = 2;
const RELOGGED: u8 = 3;

/// Four numbers and a kind.
const ENTRY_BYTES_MIN: usize = 5;

/// Begins a predecessor record; `carried_count` entries follow by [`encode_carried`].
pub fn encode_predecessor(
    out: &mut Vec<u8>,
    before: writer::Predecessor,
    salt: u32,
    carried_count: u64,
) {
    out.push(PREDECESSOR);
    // First, so that the record's first frame tells it whatever the record's length.
    put_varint(out, u64::from(salt));
    put_varint(out, before.segment);
    put_varint(out, before.valid_bytes);
    put_varint(out, before.last_seq);
    put_varint(out, carried_count);
}

/// Begins a record of re-logged entries, which follow by [`encode_carried`].
pub fn encode_relogged_header(out: &mut Vec<u8>, entry_count: u64) {
    out.push(RELOGGED);
    put_varint(out, entry_count);
}

/// Adds an entry to a predecessor record, or to one of re-logged entries.
pub fn encode_carried(out: &mut Vec<u8>, seq: SeqNo, entry: &WalEntry) {
    put_varint(out, seq);
    encode_entry(out, (entry.tree, entry.branch), entry.kind, entry.key_bytes, &entry.data);
}

/// The salt that a segment's first frame tells; `None` where it does not begin a predecessor
/// record.
pub(crate) fn salt_of(first_frame: &[u8]) -> Option<u32> {
    let mut d = Decoder::new(first_frame);
    (d.u8()? == PREDECESSOR).then(|| u32::try_from(d.varint()?).ok())?
}

/// Begins a batch record; its entries follow by [`encode_entry`].
pub fn encode_batch_header(out: &mut Vec<u8>, first_seq: SeqNo, entry_count: u64) {
    out.push(BATCH);
    put_varint(out, first_seq);
    put_varint(out, entry_count);
}

/// Adds an entry to a batch record.
pub fn encode_entry(
    out: &mut Vec<u8>,
    (tree, branch): (TreeId, BranchId),
    kind: Kind,
    key_bytes: u32,
    data: &[u8],
) {
    put_varint(out, tree.0);
    put_varint(out, branch.0);
    out.push(u8::from(kind == Kind::Put));
    put_varint(out, u64::from(key_bytes));
    put_varint(out, to_u64(data.len()));
    out.extend_from_slice(data);
}

/// How many entries to make room for: no more than the bytes can hold, whatever number they claim.
/// A list that grew by itself could take three times what its entries do.
fn capacity(count: u64, rest: &Decoder<'_>) -> usize {
    to_usize(count).min(rest.rest().len().div_euclid(ENTRY_BYTES_MIN))
}

/// Decodes a record; `None` where the bytes are none.
pub fn decode_record(payload: &Bytes) -> Option<Record> {
    let mut d = Decoder::new(payload);
    let record = match d.u8()? {
        PREDECESSOR => {
            let salt = u32::try_from(d.varint()?).ok()?;
            let (segment, valid_bytes) = (d.varint()?, d.varint()?);
            let last_seq = d.varint().filter(|seq| *seq <= SEQ_MAX)?;
            let carried = decode_numbered(&mut d, payload, last_seq)?;
            Record::Predecessor { salt, segment, valid_bytes, last_seq, carried }
        }
        BATCH => {
            let first_seq = d.varint()?;
            let count = d.varint()?;
            first_seq.checked_add(count).filter(|end| *end <= SEQ_MAX)?;
            let mut entries = Vec::with_capacity(capacity(count, &d));
            for _ in 0..count {
                entries.push(decode_entry(&mut d, payload)?);
            }
            Record::Batch { first_seq, entries }
        }
        RELOGGED => Record::Relogged { entries: decode_numbered(&mut d, payload, SEQ_MAX)? },
        _ => return None,
    };
    d.is_empty().then_some(record)
}

/// Entries with a number each, none of which is above `seq_max`.
fn decode_numbered(
    d: &mut Decoder<'_>,
    payload: &Bytes,
    seq_max: SeqNo,
) -> Option<Vec<(SeqNo, WalEntry)>> {
    let count = d.varint()?;
    let mut entries = Vec::with_capacity(capacity(count, d));
    for _ in 0..count {
        let seq = d.varint().filter(|seq| *seq <= seq_max)?;
        entries.push((seq, decode_entry(d, payload)?));
    }
    Some(entries)
}

fn decode_entry(d: &mut Decoder<'_>, payload: &Bytes) -> Option<WalEntry> {
    let tree = TreeId(d.varint()?);
    let branch = BranchId(d.varint()?);
    let kind = Kind::from_byte(d.u8()?)?;
    let key_bytes = u32::try_from(d.varint()?).ok()?;
    let raw = d.bytes()?;
    if u64::from(key_bytes) > to_u64(raw.len()) {
        return None;
    }
    Some(WalEntry { tree, branch, kind, key_bytes, data: payload.slice_ref(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, data: &'static [u8]) -> WalEntry {
        let (tree, branch) = (TreeId(2), BranchId(300));
        WalEntry { tree, branch, kind, key_bytes: 3, data: Bytes::from_static(data) }
    }

    /// The bytes that `docs/format.md` says, one by one: what was logged once is read for good.
    #[test]
    fn records_lie_in_the_log_byte_by_byte_as_the_format_says() {
        let put = entry(Kind::Put, b"keyvalue");
        let delete = entry(Kind::Delete, b"key");
        let (put_bytes, delete_bytes) =
            (b"\x02\xac\x02\x01\x03\x08keyvalue", b"\x02\xac\x02\x00\x03\x03key");
        let mut batch = Vec::new();
        encode_batch_header(&mut batch, 5, 2);
        for e in [&put, &delete] {
            encode_entry(&mut batch, (e.tree, e.branch), e.kind, e.key_bytes, &e.data);
        }
        assert_eq!(batch, [&b"\x02\x05\x02"[..], put_bytes, delete_bytes].concat());
        let mut relogged = Vec::new();
        encode_relogged_header(&mut relogged, 2);
        encode_carried(&mut relogged, 200, &put);
        encode_carried(&mut relogged, 6, &delete);
        let bytes = [&b"\x03\x02\xc8\x01"[..], put_bytes, b"\x06", delete_bytes].concat();
        assert_eq!(relogged, bytes);
        let record = decode_record(&bytes.clone().into()).unwrap();
        assert_eq!(record.last_seq(), 200);
        assert_eq!(record, Record::Relogged { entries: vec![(200, put.clone()), (6, delete)] });
        let before = writer::Predecessor { segment: 7, valid_bytes: 300, last_seq: 9 };
        let mut opening = Vec::new();
        encode_predecessor(&mut opening, before, 128, 1);
        encode_carried(&mut opening, 9, &put);
        let bytes_of_it = b"\x01\x80\x01\x07\xac\x02\x09\x01\x09";
        assert_eq!(opening, [&bytes_of_it[..], put_bytes].concat());
        for len in 0..bytes.len() {
            assert_eq!(decode_record(&Bytes::copy_from_slice(&bytes[..len])), None, "{len} bytes");
        }
    }

    #[test]
    fn a_relogged_entry_has_a_number_that_can_be_given() {
        let of = |seq| {
            let mut out = Vec::new();
            encode_relogged_header(&mut out, 1);
            encode_carried(&mut out, seq, &entry(Kind::Put, b"key"));
            decode_record(&out.into())
        };
        assert!(of(SEQ_MAX).is_some() && of(SEQ_MAX + 1).is_none());
    }
}
