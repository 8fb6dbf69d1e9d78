//! Turns entries in internal order into the bytes of a table, piece by piece.

use core::cmp::Ordering;
use core::mem;

use bytes::Bytes;

use super::block_builder::BlockBuilder;
use super::filter::{build_filter, filter_bytes, filter_hash, prefix_hash};
use super::format::{
    BLOCK_BYTES_MAX, BlockHandle, FOOTER_BYTES, Footer, KEY_SUFFIX_BYTES, TRAILER_BYTES, put_block,
    set_stored_key,
};
use super::properties::{TableProperties, TableSizes};
use super::{TableFormat, TableMeta};
use crate::coding::put_varint;
use crate::error::{Error, Result};
use crate::options::Compression;
use crate::types::{Entry, Kind, SEQ_MAX, TableId, TreeId, cmp_internal, to_u64};

/// Bytes of an entry or of the index that are left for lengths, restart points and the trailer.
const SLACK_BYTES: u64 = 1 << 20;

/// In the index a restart point every so many entries: few, since stored keys can be long.
const INDEX_RESTART_INTERVAL: u32 = 8;

/// A table being built.
#[derive(Debug)]
pub struct TableBuilder {
    format: TableFormat,
    out: Vec<u8>,
    // Bytes behind the last block, those that were taken included.
    offset: u64,
    salt: Option<u64>,
    data: BlockBuilder,
    index: BlockBuilder,
    hashes: Vec<u64>,
    // Key of the first entry in `data`.
    block_first_key: Vec<u8>,
    stored_key: Vec<u8>,
    last_key: Vec<u8>,
    // Length of the last key's prefix that the filter holds.
    last_prefix_len: Option<usize>,
    last_seq: u64,
    // `largest` is filled in at the end.
    meta: TableMeta,
    sizes: TableSizes,
    compressed_bytes: u64,
}

/// A table that is complete but for being written.
#[derive(Debug)]
pub struct FinishedTable {
    /// The bytes behind those that were taken before.
    pub rest: Vec<u8>,
    /// As [`TableBuilder::take_compressed_bytes`], of what ending the table took.
    pub compressed_bytes: u64,
    meta: TableMeta,
}

impl FinishedTable {
    /// What a manifest holds of the table when its first byte lies at this place.
    pub fn meta(&self, id: TableId) -> TableMeta {
        TableMeta { id, ..self.meta.clone() }
    }

    /// Length of the whole table in bytes.
    pub fn bytes(&self) -> u64 {
        self.meta.bytes
    }
}

impl TableBuilder {
    /// An empty table of this tree.
    pub fn new(tree: TreeId, format: TableFormat) -> Self {
        Self {
            format,
            out: Vec::new(),
            offset: 0,
            salt: None,
            data: BlockBuilder::new(format.restart_interval),
            index: BlockBuilder::new(INDEX_RESTART_INTERVAL),
            hashes: Vec::new(),
            block_first_key: Vec::new(),
            stored_key: Vec::new(),
            last_key: Vec::new(),
            last_prefix_len: None,
            last_seq: 0,
            meta: TableMeta { tree, ..TableMeta::default() },
            sizes: TableSizes::default(),
            compressed_bytes: 0,
        }
    }

    /// Adds the next entry.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the entry is not behind the one before in internal order, has a
    /// sequence number above [`SEQ_MAX`], or does not fit in a block. The table is as before.
    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        self.check(entry)?;
        let new_key = self.meta.entries == 0 || entry.key != self.last_key;
        if self.meta.entries == 0 {
            self.meta.smallest = Bytes::copy_from_slice(&entry.key);
            self.meta.min_seq = entry.seq;
        }
        if new_key {
            if self.format.filter_bits_per_key > 0 {
                self.hashes.push(filter_hash(&entry.key));
                self.add_prefix(&entry.key);
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(&entry.key);
        }
        self.last_seq = entry.seq;
        self.sizes.key_bytes += to_u64(entry.key.len());
        self.sizes.value_bytes += to_u64(entry.value.len());
        self.meta.entries += 1;
        self.meta.tombstones += u64::from(entry.kind == Kind::Delete);
        self.meta.min_seq = self.meta.min_seq.min(entry.seq);
        self.meta.max_seq = self.meta.max_seq.max(entry.seq);
        if self.data.is_empty() {
            self.block_first_key.clear();
            self.block_first_key.extend_from_slice(&entry.key);
        }
        set_stored_key(&mut self.stored_key, entry);
        self.data.add(&self.stored_key, &entry.value);
        if self.data.bytes() >= u64::from(self.format.block_bytes) {
            self.end_data_block();
        }
        Ok(())
    }

    /// Adds the prefix of a key to the filter, once: keys of one prefix are neighbours.
    fn add_prefix(&mut self, key: &[u8]) {
        let prefix = self.format.extractor.and_then(|e| e.extract(key));
        let last = self.last_prefix_len.and_then(|len| self.last_key.get(..len));
        if let Some(prefix) = prefix.filter(|prefix| last != Some(prefix)) {
            self.hashes.push(prefix_hash(prefix));
        }
        self.last_prefix_len = prefix.map(<[u8]>::len);
    }

    fn check(&self, entry: &Entry) -> Result<()> {
        if entry.seq > SEQ_MAX {
            return Err(Error::InvalidArgument(format!(
                "sequence number {} is above {SEQ_MAX}",
                entry.seq
            )));
        }
        let last = (self.last_key.as_slice(), self.last_seq);
        if self.meta.entries > 0 && cmp_internal(last, (&entry.key, entry.seq)) != Ordering::Less {
            return Err(Error::InvalidArgument(format!(
                "entries of a table must ascend: sequence number {} of a key of {} bytes comes \
                 after number {} of a key of {} bytes",
                entry.seq,
                entry.key.len(),
                self.last_seq,
                self.last_key.len()
            )));
        }
        let key = to_u64(entry.key.len()).saturating_add(SLACK_BYTES);
        // The block that the entry ends may hold almost `block_bytes` before it.
        let block = self.data.bytes().saturating_add(to_u64(entry.value.len()));
        let index = self.index.bytes().saturating_add(to_u64(self.block_first_key.len()));
        if block.max(index).saturating_add(key) > BLOCK_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "an entry of {} bytes does not fit in a table of {} bytes",
                entry.key.len().saturating_add(entry.value.len()),
                self.estimated_bytes()
            )));
        }
        Ok(())
    }

    /// Entries added so far.
    pub fn entries(&self) -> u64 {
        self.meta.entries
    }

    /// What the table would be long, in bytes, if it ended here, to within a few keys.
    pub fn estimated_bytes(&self) -> u64 {
        self.offset
            + self.data.bytes()
            + self.index.bytes()
            + filter_bytes(to_u64(self.hashes.len()), self.format.filter_bits_per_key)
            + to_u64(self.last_key.len() + self.meta.smallest.len())
            + 2 * TRAILER_BYTES
            + FOOTER_BYTES
    }

    /// Finished bytes not taken yet, so that a writer need not hold the whole table.
    pub fn finished_bytes(&self) -> u64 {
        to_u64(self.out.len())
    }

    /// Takes the finished bytes; the next ones go behind them.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    /// Bytes that went through compression since it was asked last: work to be charged.
    pub fn take_compressed_bytes(&mut self) -> u64 {
        mem::take(&mut self.compressed_bytes)
    }

    /// Ends the table.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where it has no entry.
    pub fn finish(mut self) -> Result<FinishedTable> {
        if self.meta.entries == 0 {
            return Err(Error::InvalidArgument("a table without entries".to_owned()));
        }
        if !self.data.is_empty() {
            self.end_data_block();
        }
        self.meta.largest = Bytes::from(mem::take(&mut self.last_key));
        self.sizes.data_bytes = self.offset;
        let filter = if self.format.filter_bits_per_key > 0 {
            let filter = build_filter(&self.hashes, self.format.filter_bits_per_key);
            self.put(&filter, Compression::None)
        } else {
            BlockHandle::default()
        };
        self.sizes.filter_bytes = self.offset - self.sizes.data_bytes;
        let mut index_block = mem::replace(&mut self.index, BlockBuilder::new(1));
        let index = index_block.finish(|content| self.put(content, Compression::None));
        self.sizes.index_bytes = index.bytes + TRAILER_BYTES;
        let mut content = Vec::new();
        self.properties().encode(&mut content);
        let properties = self.put(&content, Compression::None);
        self.meta.bytes = self.offset + FOOTER_BYTES;
        let footer = Footer {
            filter,
            index,
            properties,
            tree: self.meta.tree,
            entries: self.meta.entries,
            table_bytes: self.meta.bytes,
            salt: self.salt.unwrap_or(0),
            extractor: self.extractor_name(),
        };
        footer.encode(&mut self.out);
        let compressed_bytes = self.compressed_bytes;
        Ok(FinishedTable { rest: self.out, compressed_bytes, meta: self.meta })
    }

    /// The extractor whose prefixes the filter holds; empty for none.
    fn extractor_name(&self) -> String {
        let extractor = self.format.extractor.filter(|_| self.format.filter_bits_per_key > 0);
        extractor.map(|e| e.to_string()).unwrap_or_default()
    }

    fn properties(&self) -> TableProperties {
        TableProperties {
            meta: self.meta.clone(),
            sizes: self.sizes,
            compression: self.format.compression,
            extractor: self.extractor_name(),
        }
    }

    fn end_data_block(&mut self) {
        let mut data = mem::replace(&mut self.data, BlockBuilder::new(1));
        // Longer than a separator would be, but a seek between two blocks then loads the right one.
        let mut last_key = mem::take(&mut self.stored_key);
        last_key.clear();
        last_key.extend_from_slice(data.last_key());
        let compression = self.format.compression;
        let handle = data.finish(|content| {
            self.compressed_bytes += match compression {
                Compression::None => 0,
                Compression::Lz4 => to_u64(content.len()),
            };
            self.put(content, compression)
        });
        self.data = data;
        self.sizes.data_blocks += 1;
        let mut value = Vec::new();
        handle.encode(&mut value);
        let first_key = &self.block_first_key;
        let shared = first_key.iter().zip(&last_key).take_while(|(a, b)| a == b).count();
        // Never into the suffix of the last key, whatever bytes that has.
        let shared = shared.min(last_key.len().saturating_sub(KEY_SUFFIX_BYTES));
        put_varint(&mut value, to_u64(shared));
        value.extend_from_slice(first_key.get(shared..).unwrap_or_default());
        self.index.add(&last_key, &value);
        self.stored_key = last_key;
    }

    fn put(&mut self, content: &[u8], compression: Compression) -> BlockHandle {
        // The first block tells tables apart: no two hold the same keys with the same numbers, but
        // for a compaction that rewrites a table's first block as it was.
        let seed = self.meta.tree.0;
        let salt =
            *self.salt.get_or_insert_with(|| xxhash_rust::xxh3::xxh3_64_with_seed(content, seed));
        let offset = self.offset;
        let bytes = put_block(&mut self.out, (salt, offset), content, compression);
        self.offset += bytes + TRAILER_BYTES;
        BlockHandle { offset, bytes }
    }
}
