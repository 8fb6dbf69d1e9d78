//! Reads one block: a binary search over restart points, then entry by entry.
//!
//! A block's bytes come from outside and are trusted for nothing, although a checksum stands before
//! them: every length is checked where it is used, so that a made-up block gives [`Damage`] and
//! uses no more memory than its own length.

use core::cmp::Ordering;
use core::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BlockHandle, Damage, KEY_SUFFIX_BYTES, cmp_stored, split_stored_key, split_suffix,
};
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

/// Where the parts of an entry lie in its block.
struct Parsed {
    /// Bytes that the key has in common with the one before it.
    shared: usize,
    unshared: Range<usize>,
    value: Range<usize>,
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

    /// The entry at `next`, or `None` at the end.
    #[inline]
    fn parse(&self) -> Result<Option<Parsed>, Damage> {
        let rest = self.block.entries().get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let mut d = Decoder::new(rest);
        let parsed = (|| {
            let shared = to_usize(d.varint()?);
            let unshared_len = to_usize(d.varint()?);
            let value_len = to_usize(d.varint()?);
            let unshared_start = self.next.checked_add(d.position())?;
            d.take(unshared_len)?;
            d.take(value_len)?;
            let value_start = unshared_start + unshared_len;
            let value = value_start..value_start + value_len;
            let key_len = shared.checked_add(unshared_len)?;
            let parsed = Parsed { shared, unshared: unshared_start..value_start, value };
            (shared <= self.key.len()).then_some((parsed, key_len))
        })();
        match parsed {
            Some((parsed, key_len)) if key_len >= KEY_SUFFIX_BYTES => Ok(Some(parsed)),
            Some(_) => Err(Damage::new(self.next, "a stored key is shorter than its suffix")),
            None => Err(Damage::new(self.next, "an entry of a block exceeds it")),
        }
    }

    #[inline]
    fn step_onto(&mut self, parsed: Parsed) {
        self.key.truncate(parsed.shared);
        let unshared = self.block.entries().get(parsed.unshared).unwrap_or_default();
        self.key.extend_from_slice(unshared);
        self.next = parsed.value.end;
        self.value = parsed.value;
    }

    /// Moves on; whether there is an entry. Where there is damage it does not move.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool, Damage> {
        let Some(parsed) = self.parse()? else { return Ok(false) };
        self.step_onto(parsed);
        Ok(true)
    }

    /// Moves on; the entry there is. Where there is damage it stays before it.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Damage> {
        let at = self.next;
        if !self.advance()? {
            return Ok(None);
        }
        // The key stays: it begins with all that the damaged entry shares with its predecessor.
        self.entry().map(Some).inspect_err(|_| self.next = at)
    }

    /// Moves to the first entry at or behind this key and suffix; whether there is one.
    pub(crate) fn seek(&mut self, key: &[u8], suffix: u64) -> Result<bool, Damage> {
        let restart = self.first_restart_from(key, suffix)?;
        self.jump(restart.saturating_sub(1))?;
        while self.advance()? {
            if cmp_stored(self.key(), (key, suffix)) != Ordering::Less {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first restart point whose entry is at or behind this key and suffix; their number where
    /// none is.
    fn first_restart_from(&mut self, key: &[u8], suffix: u64) -> Result<usize, Damage> {
        let (mut low, mut high) = (0, self.block.restart_count);
        while low < high {
            let middle = low.midpoint(high);
            self.jump(middle)?;
            // The entry at a restart point shares nothing, so its key is whole in the block.
            let entries = self.block.entries();
            let stored = self.parse()?.and_then(|parsed| entries.get(parsed.unshared));
            let at = stored.and_then(split_stored_key);
            if at.is_some_and(|at| cmp_stored(at, (key, suffix)) == Ordering::Less) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
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
        self.index_value()
            .map(|(handle, _)| handle)
            .ok_or_else(|| Damage::new(self.value.start, "an index entry holds no block handle"))
    }

    /// The first key of the block that an index entry names; `None` where the index does not say.
    pub(crate) fn first_key(&self) -> Option<FirstKey<'_>> {
        self.index_value()?.1
    }

    fn index_value(&self) -> Option<(BlockHandle, Option<FirstKey<'_>>)> {
        let value = self.block.content.get(self.value.clone())?;
        let mut d = Decoder::new(value);
        let handle = BlockHandle { offset: d.varint()?, bytes: d.varint()? };
        if d.is_empty() {
            return Some((handle, None));
        }
        let shared = self.key().0.get(..to_usize(d.varint()?))?;
        let unshared = value.get(d.position()..)?;
        Some((handle, Some(FirstKey { shared, unshared })))
    }
}

/// The first key of a data block, in the two parts that the index stores it in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstKey<'a> {
    shared: &'a [u8],
    unshared: &'a [u8],
}

impl FirstKey<'_> {
    /// How the key compares to another.
    pub(crate) fn cmp_key(&self, key: &[u8]) -> Ordering {
        self.shared.iter().chain(self.unshared).cmp(key)
    }
}

/// A place in a block that is walked from its end: behind the last entry, on an entry, or before
/// the first.
///
/// It decodes one restart interval at a time and keeps what each key replaced of the one before, so
/// that it takes no more memory than the interval has bytes.
#[derive(Clone, Debug)]
pub(crate) struct ReverseCursor {
    // On the last of `entries`, whose key it holds.
    cursor: BlockCursor,
    // Restart intervals before the decoded one, and where that one begins.
    intervals: usize,
    end: usize,
    entries: Vec<Passed>,
    tails: Vec<u8>,
    // Whether the last of `entries` was handed out.
    taken: bool,
}

/// An entry of the decoded interval, with the way back from its key to the key before.
#[derive(Clone, Debug)]
struct Passed {
    shared: usize,
    tail_start: usize,
    value: Range<usize>,
}

impl ReverseCursor {
    /// Behind the last entry.
    pub(crate) fn new(block: Arc<Block>, buffer: Vec<u8>) -> Self {
        let (intervals, end) = (block.restart_count, block.entries_len);
        let cursor = BlockCursor::new(block, buffer);
        Self { cursor, intervals, end, entries: Vec::new(), tails: Vec::new(), taken: false }
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.cursor.into_buffer()
    }

    pub(crate) fn block(&self) -> &Block {
        self.cursor.block()
    }

    /// The entry that it is on, if it is on one.
    pub(crate) fn current(&self) -> Option<&BlockCursor> {
        (!self.entries.is_empty()).then_some(&self.cursor)
    }

    /// Moves to the entry before; whether there is one.
    pub(crate) fn back(&mut self) -> Result<bool, Damage> {
        self.unstep();
        self.fill()
    }

    /// Decodes an interval where all of the last one was passed; whether it is on an entry.
    fn fill(&mut self) -> Result<bool, Damage> {
        while self.entries.is_empty() {
            let Some(interval) = self.intervals.checked_sub(1) else { return Ok(false) };
            self.decode(interval, None)?;
        }
        self.settle();
        Ok(true)
    }

    fn unstep(&mut self) {
        if let Some(passed) = self.entries.pop() {
            let tail = self.tails.get(passed.tail_start..).unwrap_or_default();
            self.cursor.key.truncate(passed.shared);
            self.cursor.key.extend_from_slice(tail);
            self.tails.truncate(passed.tail_start);
        }
    }

    /// The cursor's value becomes that of the last entry.
    fn settle(&mut self) {
        if let Some(passed) = self.entries.last() {
            self.cursor.value = passed.value.clone();
        }
    }

    /// Moves to the entry before; the entry there is. Where there is damage it stays behind it.
    pub(crate) fn previous_entry(&mut self) -> Result<Option<Entry>, Damage> {
        if self.taken {
            self.unstep();
            self.taken = false;
        }
        if !self.fill()? {
            return Ok(None);
        }
        let entry = self.cursor.entry()?;
        self.taken = true;
        Ok(Some(entry))
    }

    /// Moves to the last entry before this key and suffix; the entry there is.
    pub(crate) fn seek_entry_before(
        &mut self,
        key: &[u8],
        suffix: u64,
    ) -> Result<Option<Entry>, Damage> {
        self.taken = false;
        if self.seek_before(key, suffix)? { self.previous_entry() } else { Ok(None) }
    }

    /// Moves to the last entry before this key and suffix; whether there is one.
    pub(crate) fn seek_before(&mut self, key: &[u8], suffix: u64) -> Result<bool, Damage> {
        self.entries.clear();
        self.tails.clear();
        let from = self.cursor.first_restart_from(key, suffix)?;
        let block = &self.cursor.block;
        let end = if from < block.restart_count { block.restart(from)? } else { block.entries_len };
        (self.intervals, self.end) = (from, end);
        let Some(interval) = from.checked_sub(1) else { return Ok(false) };
        self.decode(interval, Some((key, suffix)))?;
        self.settle();
        Ok(!self.entries.is_empty())
    }

    /// Decodes a restart interval, up to an entry at or behind a key and suffix.
    fn decode(&mut self, interval: usize, upto: Option<(&[u8], u64)>) -> Result<(), Damage> {
        let decoded = self.try_decode(interval, upto);
        if decoded.is_err() {
            self.entries.clear();
            self.tails.clear();
        }
        let start = decoded?;
        (self.intervals, self.end) = (interval, start);
        Ok(())
    }

    fn try_decode(&mut self, at: usize, upto: Option<(&[u8], u64)>) -> Result<usize, Damage> {
        let start = self.cursor.block.restart(at)?;
        self.cursor.jump(at)?;
        while self.cursor.next < self.end {
            let Some(entry) = self.cursor.parse()? else { break };
            let passed = Passed {
                shared: entry.shared,
                tail_start: self.tails.len(),
                value: entry.value.clone(),
            };
            let tail = self.cursor.key.get(entry.shared..).unwrap_or_default();
            self.tails.extend_from_slice(tail);
            self.cursor.step_onto(entry);
            self.entries.push(passed);
            if upto.is_some_and(|upto| cmp_stored(self.cursor.key(), upto) != Ordering::Less) {
                self.unstep();
                return Ok(start);
            }
        }
        if start > self.end || self.cursor.next != self.end {
            return Err(Damage::new(start, "the restart points of a block do not fit its entries"));
        }
        Ok(start)
    }
}
