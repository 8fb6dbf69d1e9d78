//! The write-ahead log: one log for all trees, in numbered segments of framed records.
//!
//! A segment is a sequence of frames that do not cross 32 KiB blocks. Each frame carries a CRC32C,
//! the segment's number and the offset known durable when it was built. A record is one frame or a
//! run of frames. A segment's first record names its predecessor with that one's valid length and
//! last sequence number, and a closing segment is synced before its successor takes a record: so
//! only the newest segment can have a torn tail, and what lies behind a predecessor's valid length
//! was never acknowledged and is void.
//!
//! A bad frame below the highest durable offset that any frame of its segment names is damage; at
//! or above it the torn tail begins, and everything behind is dropped, valid or not.
//!
//! # Source
//!
//! Blocks and the four frame kinds are LevelDB's (`doc/log_format.md`). Departures: the segment
//! number and the durable offset in each frame, and the predecessor record.

mod frame;
pub mod reader;
pub mod salvage;
pub mod writer;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::coding::{Decoder, put_varint};
use crate::types::{BranchId, Kind, SEQ_MAX, SeqNo, TreeId, to_u64};

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
        /// The segment before this one; 0 for the first one of a log.
        segment: u64,
        /// Its valid length in bytes.
        valid_bytes: u64,
        /// Its last sequence number, or that of its own predecessor.
        last_seq: SeqNo,
        /// What the checksums of this segment's other frames begin with.
        salt: u32,
    },
    /// A batch: its entries take numbers from `first_seq` on, all or none.
    Batch {
        /// The number of the first entry.
        first_seq: SeqNo,
        /// The entries.
        entries: Vec<WalEntry>,
    },
}

const PREDECESSOR: u8 = 1;
const BATCH: u8 = 2;

/// Encodes a predecessor record.
pub fn encode_predecessor(out: &mut Vec<u8>, before: writer::Predecessor, salt: u32) {
    out.push(PREDECESSOR);
    put_varint(out, before.segment);
    put_varint(out, before.valid_bytes);
    put_varint(out, before.last_seq);
    put_varint(out, u64::from(salt));
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

/// Decodes a record; `None` where the bytes are none.
pub fn decode_record(payload: &Bytes) -> Option<Record> {
    let mut d = Decoder::new(payload);
    match d.u8()? {
        PREDECESSOR => {
            let record = Record::Predecessor {
                segment: d.varint()?,
                valid_bytes: d.varint()?,
                last_seq: d.varint().filter(|seq| *seq <= SEQ_MAX)?,
                salt: u32::try_from(d.varint()?).ok()?,
            };
            d.is_empty().then_some(record)
        }
        BATCH => {
            let first_seq = d.varint()?;
            let count = d.varint()?;
            first_seq.checked_add(count).filter(|end| *end <= SEQ_MAX)?;
            let mut entries = Vec::new();
            for _ in 0..count {
                let tree = TreeId(d.varint()?);
                let branch = BranchId(d.varint()?);
                let kind = Kind::from_byte(d.u8()?)?;
                let key_bytes = u32::try_from(d.varint()?).ok()?;
                let raw = d.bytes()?;
                if u64::from(key_bytes) > to_u64(raw.len()) {
                    return None;
                }
                let data = payload.slice_ref(raw);
                entries.push(WalEntry { tree, branch, kind, key_bytes, data });
            }
            d.is_empty().then_some(Record::Batch { first_seq, entries })
        }
        _ => None,
    }
}
