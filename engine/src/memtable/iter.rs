//! A sorted iterator over a memtable, by chunks, so that no epoch stays pinned between steps.

use std::sync::Arc;

use bytes::Bytes;

use super::Memtable;
use crate::error::Result;
use crate::iter::SortedIter;
use crate::table::{ReadContext, Step};
use crate::types::{Entry, Kind};

const CHUNK_ENTRIES: usize = 32;

/// Walks a memtable in internal order. Entries added behind its position are seen.
#[derive(Debug)]
pub struct MemtableIter {
    memtable: Arc<Memtable>,
    /// Entries read ahead, last one first.
    ahead: Vec<Entry>,
    key: Bytes,
    behind: Option<u64>,
    done: bool,
    chunk: usize,
}

impl MemtableIter {
    /// An iterator at the first entry.
    pub fn new(memtable: Arc<Memtable>) -> Self {
        Self { memtable, ahead: Vec::new(), key: Bytes::new(), behind: None, done: false, chunk: 2 }
    }

    /// The next entry; a plain function, since memory never waits.
    pub fn advance(&mut self) -> Option<Entry> {
        if self.ahead.is_empty() && !self.done {
            self.memtable.chunk(&self.key, self.behind, self.chunk, &mut self.ahead);
            self.done = self.ahead.is_empty();
            self.chunk = (self.chunk * 2).min(CHUNK_ENTRIES);
            if let Some(last) = self.ahead.last() {
                self.key = last.key.clone();
                self.behind = Some((last.seq << 8) | u64::from(last.kind == Kind::Put));
            }
            self.ahead.reverse();
        }
        self.ahead.pop()
    }
}

impl SortedIter for MemtableIter {
    fn seek(&mut self, key: &[u8]) {
        self.ahead.clear();
        self.key = Bytes::copy_from_slice(key);
        self.behind = None;
        self.done = false;
        self.chunk = 2;
    }

    fn next_step(&mut self, _ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        Ok(Step::Ready(self.advance()))
    }
}
