//! What a read carries with it: how it wants blocks, what it counted, and what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::TableMeta;
use super::format::{BlockHandle, FOOTER_BYTES};
use crate::cache::{Part, PartKey};
use crate::env::IoClass;
use crate::types::{BranchId, to_usize};

/// A plain function's answer: done, or a part of a table must be loaded first.
///
/// A caller with [`Need`](Step::Need) awaits [`TableSpace::load`](super::TableSpace::load) and
/// calls again, with the same context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// The result.
    Ready(T),
    /// Load this, then call again.
    Need(Need),
}

/// A part of a table that is not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The table.
    pub table: Arc<TableMeta>,
    /// Which part of it.
    pub what: Wanted,
}

/// The parts of a table that a read can ask for. A footer is loaded with the part that needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The filter.
    Filter,
    /// The index.
    Index,
    /// Data blocks, the first one wanted now, the others read ahead; each begins where the one
    /// before ends.
    Data {
        /// What the checksums of the table's blocks begin with.
        salt: u64,
        /// The blocks; at least one.
        handles: Vec<BlockHandle>,
    },
}

/// Work of a read, counted. Each counter is complete once the read ended without an error.
///
/// A block is either read or cached, each time that it is used; a retry counts nothing twice. A
/// point read asks each table at most once, an iterator once for each seek.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Data blocks read from files, those read ahead included.
    pub data_blocks_read: u64,
    /// Data blocks found in the cache.
    pub data_blocks_cached: u64,
    /// Index blocks read from files.
    pub index_blocks_read: u64,
    /// Index blocks found in the cache.
    pub index_blocks_cached: u64,
    /// Filter blocks read from files.
    pub filter_blocks_read: u64,
    /// Filter blocks found in the cache.
    pub filter_blocks_cached: u64,
    /// Footers read from files.
    pub footers_read: u64,
    /// Tables that a point read asked or an iterator came to.
    pub tables_considered: u64,
    /// Of these, tables that hold no key of the range, as their own range or their index says.
    pub tables_ruled_out_by_bounds: u64,
    /// Of these, tables whose every entry is newer than the read.
    pub tables_ruled_out_by_seq: u64,
    /// Of these, tables that the filter of whole keys ruled out.
    pub tables_ruled_out_by_filter: u64,
    /// Of these, tables that the filter of prefixes ruled out.
    pub tables_ruled_out_by_prefix: u64,
}

impl ReadStats {
    /// Data blocks used, from wherever.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks_read + self.data_blocks_cached
    }

    /// Tables that cost no data block.
    pub fn tables_ruled_out(&self) -> u64 {
        self.tables_ruled_out_by_bounds
            + self.tables_ruled_out_by_seq
            + self.tables_ruled_out_by_filter
            + self.tables_ruled_out_by_prefix
    }
}

/// The state of one read or of one iterator's reads.
#[derive(Clone, Debug)]
pub struct ReadContext {
    /// Whose I/O it is.
    pub class: IoClass,
    /// The branch that what enters the cache is charged to; 0 for nobody's.
    pub owner: BranchId,
    /// Whether what is loaded enters the cache.
    pub fill_cache: bool,
    /// Bytes that an iterator reads at once, where that is more than a block; 0 to read single
    /// blocks.
    pub readahead_bytes: u32,
    /// What was done so far.
    pub stats: ReadStats,
    // What was loaded and not used yet: a retry must find it although the cache is small.
    pub(crate) pinned: BTreeMap<PartKey, Part>,
    pub(crate) buffer: Vec<u8>,
    // The end of a table that was read with its footer, until its index was taken from it.
    pub(crate) tail: Option<Tail>,
}

/// The last bytes of a table, as they are in its file.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The table, by the key of its footer.
    pub(crate) footer_key: PartKey,
    /// Where the bytes begin in the table.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

impl Tail {
    /// A block with its trailer, copied: what is kept must not keep the rest of the tail alive.
    pub(crate) fn block(&self, handle: BlockHandle) -> Option<Bytes> {
        let start = to_usize(handle.offset.checked_sub(self.offset)?);
        let end = to_usize(handle.end()?.checked_sub(self.offset)?);
        Some(Bytes::copy_from_slice(self.bytes.get(start..end)?))
    }
}

impl Default for ReadContext {
    fn default() -> Self {
        Self::new(IoClass::Read)
    }
}

impl ReadContext {
    /// A context that fills the cache and reads single blocks.
    pub fn new(class: IoClass) -> Self {
        Self {
            class,
            owner: BranchId::default(),
            fill_cache: true,
            readahead_bytes: 0,
            stats: ReadStats::default(),
            pinned: BTreeMap::new(),
            buffer: Vec::new(),
            tail: None,
        }
    }

    /// A context for reads of a branch.
    pub fn of(class: IoClass, owner: BranchId) -> Self {
        Self { owner, ..Self::new(class) }
    }

    /// A context for flushes and compactions: passes the cache by, reads `readahead_bytes` at once.
    pub fn bulk(class: IoClass, readahead_bytes: u32) -> Self {
        Self { fill_cache: false, readahead_bytes, ..Self::new(class) }
    }

    /// Lets go of all that was loaded and not used.
    pub(crate) fn unpin_all(&mut self) {
        self.pinned.clear();
    }

    /// Lets go of what was loaded for a table.
    pub(crate) fn unpin(&mut self, table: &TableMeta) {
        self.tail.take_if(|tail| tail.footer_key == table.footer_key());
        if self.pinned.is_empty() {
            return;
        }
        let (file, start) = (table.id.file, table.id.offset);
        let end = start.saturating_add(table.bytes);
        self.pinned.retain(|key, _| key.file != file || !(start..end).contains(&key.offset));
    }
}

/// Cache keys of a table's parts.
impl TableMeta {
    fn footer_byte(&self, n: u64) -> PartKey {
        let end = self.id.offset.saturating_add(self.bytes);
        PartKey { file: self.id.file, offset: end.saturating_sub(FOOTER_BYTES).saturating_add(n) }
    }

    pub(crate) fn footer_key(&self) -> PartKey {
        self.footer_byte(0)
    }

    pub(crate) fn filter_key(&self) -> PartKey {
        self.footer_byte(1)
    }

    pub(crate) fn index_key(&self) -> PartKey {
        self.footer_byte(2)
    }

    pub(crate) fn data_key(&self, handle: BlockHandle) -> PartKey {
        let offset = self.id.offset.saturating_add(handle.offset);
        PartKey { file: self.id.file, offset }
    }
}
