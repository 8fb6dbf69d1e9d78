//! Reads one block: a binary search over restart points, then entry by entry.
//!
//! A block's bytes come from outside and are trusted for nothing, although a checksum stands before
//! them: every length is checked where it is used, so that a made-up block gives [`Damage`] and
//! uses no more memory than its own length.

use core::cmp::Ordering;
use core::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{BlockHandle, Damage, cmp_stored, split_stored_key, split_suffix};
use crate::coding::Decoder;
use crate::types::{Entry, to_u64, to_usize};

/// A block whose checksum was right, without its trailer.
#[derive(Clone, Debug)]
pub struct Block {
    offset: u64,
    content: Bytes,
    entries_len: usize,
    restart_count: usize,
}

impl Block {
    /// Takes the content of the block at `offset` of its table.
    pub(crate) fn decode(offset: u64, content: Bytes) -> Result<Self, Damage> {
        let cut = || Damage::new(0, "the restart points of a block exceed it");
        let (rest, count) = content.split_last_chunk::<4>().ok_or_else(cut)?;
        let restart_count = to_usize(u64::from(u32::from_le_bytes(*count)));
        let restarts_len = restart_count.checked_mul(4).ok_or_else(cut)?;
        let entries_len = rest.len().checked_sub(restarts_len).ok_or_else(cut)?;
        if restart_count == 0 {
            return Err(Damage::new(entries_len, "a block has no restart point"));
        }
        Ok(Self { offset, content, entries_len, restart_count })
    }

    /// Where the block begins in its table.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that the block keeps in memory.
    pub fn bytes(&self) -> u64 {
        to_u64(self.content.len())
    }

    fn entries(&self) -> &[u8] {
        self.content.get(..self.entries_len).unwrap_or_default()
    }

    fn restart(&self, index: usize) -> Result<usize, Damage> {
        let at = self.entries_len.saturating_add(index.saturating_mul(4));
        let mut d = Decoder::new(self.content.get(at..).unwrap_or_default());
        match d.u32().map(|restart| to_usize(u64::from(restart))) {
            Some(restart) if restart <= self.entries_len => Ok(restart),
            _ => Err(Damage::new(at, "a restart point lies outside its block")),
        }
    }
}

/// A place in a block: before the first entry, on an entry, or behind the last.
#[derive(Clone, Debug)]
pub(crate) struct BlockCursor {
    block: Arc<Block>,
    next: usize,
    key: Vec<u8>,
    value: Range<usize>,
}

impl BlockCursor {
    /// Before the first entry. `buffer` is reused for keys.
    pub(crate) fn new(block: Arc<Block>, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { block, next: 0, key: buffer, value: 0..0 }
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.key
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Moves on; whether there is an entry.
    pub(crate) fn advance(&mut self) -> Result<bool, Damage> {
        let rest = self.block.entries().get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(false);
        }
        let mut d = Decoder::new(rest);
        let parts = (|| {
            let shared = to_usize(d.varint()?);
            let unshared_len = to_usize(d.varint()?);
            let value_len = to_usize(d.varint()?);
            let unshared = d.take(unshared_len)?;
            let value_start = self.next.checked_add(d.position())?;
            d.take(value_len)?;
            (shared <= self.key.len()).then_some((shared, unshared, value_start, value_len))
        })();
        let Some((shared, unshared, value_start, value_len)) = parts else {
            return Err(Damage::new(self.next, "an entry of a block exceeds it"));
        };
        self.key.truncate(shared);
        self.key.extend_from_slice(unshared);
        if split_stored_key(&self.key).is_none() {
            return Err(Damage::new(self.next, "a stored key is shorter than its suffix"));
        }
        self.value = value_start..value_start + value_len;
        self.next = self.value.end;
        Ok(true)
    }

    /// Moves to the first entry at or behind this key and suffix; whether there is one.
    pub(crate) fn seek(&mut self, key: &[u8], suffix: u64) -> Result<bool, Damage> {
        let (mut low, mut high) = (0, self.block.restart_count);
        while low < high {
            let middle = low.midpoint(high);
            self.jump(middle)?;
            if self.advance()? && cmp_stored(self.key(), (key, suffix)) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.jump(low.saturating_sub(1))?;
        while self.advance()? {
            if cmp_stored(self.key(), (key, suffix)) != Ordering::Less {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn jump(&mut self, restart: usize) -> Result<(), Damage> {
        self.next = self.block.restart(restart)?;
        self.key.clear();
        Ok(())
    }

    /// Key and suffix of the entry that the cursor is on.
    pub(crate) fn key(&self) -> (&[u8], u64) {
        split_stored_key(&self.key).unwrap_or_default()
    }

    /// The value of the entry that the cursor is on.
    pub(crate) fn value(&self) -> &[u8] {
        self.block.content.get(self.value.clone()).unwrap_or_default()
    }

    /// The entry that the cursor is on.
    pub(crate) fn entry(&self) -> Result<Entry, Damage> {
        let (key, suffix) = self.key();
        let Some((seq, kind)) = split_suffix(suffix) else {
            return Err(Damage::new(self.value.start, "an entry has an unknown kind"));
        };
        Ok(Entry {
            key: Bytes::copy_from_slice(key),
            seq,
            kind,
            value: self.block.content.slice(self.value.clone()),
        })
    }

    /// The entry's value as the handle of a block.
    pub(crate) fn handle(&self) -> Result<BlockHandle, Damage> {
        BlockHandle::decode(Decoder::new(self.value()))
            .ok_or_else(|| Damage::new(self.value.start, "an index entry holds no block handle"))
    }
}
