//! An `SSTable`: a sorted, immutable run of entries in a byte range of a file.
//!
//! A table is named by its file, its offset there and its length. Offsets inside it count from its
//! own start, so that one file can hold several tables and a table can be copied by range. The byte
//! layout is in `docs/format.md`.

pub mod block;
pub mod block_builder;
pub mod builder;
pub mod context;
pub mod filter;
pub mod format;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod hostile_tests;
pub mod properties;
pub mod reader;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

pub use self::builder::{FinishedTable, TableBuilder};
pub use self::context::{Need, ReadContext, ReadStats, Step};
pub use self::reader::TableSpace;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::options::Compression;
use crate::prefix::TreeExtractor;
use crate::types::{FileNumber, Nanos, SEQ_MAX, SeqNo, TableId, TreeId};

/// Where the file of this number lies.
pub fn table_path(dir: &Path, number: FileNumber) -> PathBuf {
    dir.join(format!("{number:06}.sst"))
}

/// When this process first saw the tombstones of a table, or of those that it was made from. It is
/// no part of what a table is, and all equal. Kept with the table: in each tree that holds it a
/// fork would cost as much as its parent has tables.
#[derive(Debug, Default)]
pub struct FirstSeen(AtomicU64);

impl FirstSeen {
    /// The time; it is now where there was none.
    pub fn at(&self, now: Nanos) -> Nanos {
        // 0 is for none.
        let now = now.saturating_add(1);
        let seen = self.0.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        match seen {
            Ok(_) => now - 1,
            Err(before) => before.saturating_sub(1),
        }
    }

    /// The time, if there is one.
    pub fn known(&self) -> Option<Nanos> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Takes over the time of others.
    pub fn inherit(&self, at: Nanos) {
        self.0.store(at.saturating_add(1), Ordering::Relaxed);
    }
}

impl Clone for FirstSeen {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for FirstSeen {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for FirstSeen {}

/// What the manifest knows of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableMeta {
    /// Its file, and where it begins there.
    pub id: TableId,
    /// Its length in bytes.
    pub bytes: u64,
    /// The tree that it was written by; branches share tables across trees.
    pub tree: TreeId,
    /// Its entries, tombstones included; at least one.
    pub entries: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// Its smallest key.
    pub smallest: Bytes,
    /// Its largest key.
    pub largest: Bytes,
    /// Its smallest sequence number.
    pub min_seq: SeqNo,
    /// Its largest sequence number.
    pub max_seq: SeqNo,
    /// Since when there are tombstones in it, as far as this process knows; not stored.
    pub tombstones_seen: FirstSeen,
}

impl TableMeta {
    /// Appends the table as version edits hold it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for n in [self.id.file, self.id.offset, self.bytes, self.tree.0, self.entries] {
            put_varint(out, n);
        }
        put_varint(out, self.tombstones);
        put_bytes(out, &self.smallest);
        put_bytes(out, &self.largest);
        put_varint(out, self.min_seq);
        put_varint(out, self.max_seq);
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` where the bytes end early or contradict
    /// themselves.
    pub fn decode(d: &mut Decoder<'_>) -> Option<Self> {
        let meta = Self {
            id: TableId { file: d.varint()?, offset: d.varint()? },
            bytes: d.varint()?,
            tree: TreeId(d.varint()?),
            entries: d.varint()?,
            tombstones: d.varint()?,
            smallest: Bytes::copy_from_slice(d.bytes()?),
            largest: Bytes::copy_from_slice(d.bytes()?),
            min_seq: d.varint()?,
            max_seq: d.varint()?,
            tombstones_seen: FirstSeen::default(),
        };
        meta.is_consistent().then_some(meta)
    }

    fn is_consistent(&self) -> bool {
        self.id.offset.checked_add(self.bytes).is_some()
            && self.entries > 0
            && self.tombstones <= self.entries
            && self.smallest <= self.largest
            && self.min_seq <= self.max_seq
            && self.max_seq <= SEQ_MAX
    }
}

/// How tables are laid out. Readers need none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFormat {
    /// A data block ends behind the entry that takes it to this size, in bytes.
    pub block_bytes: u32,
    /// Entries from one restart point to the next; 0 counts as 1.
    pub restart_interval: u32,
    /// Bits of the filter per key; 0 for no filter.
    pub filter_bits_per_key: u32,
    /// Which prefixes of keys the filter also holds.
    pub extractor: Option<TreeExtractor>,
    /// How data blocks are compressed.
    pub compression: Compression,
}

impl Default for TableFormat {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            restart_interval: 16,
            filter_bits_per_key: 10,
            extractor: None,
            compression: Compression::None,
        }
    }
}
