//! A sorted iterator over a memtable, by chunks, so that no epoch stays pinned between steps.

use std::sync::Arc;

use bytes::Bytes;

use super::Memtable;
use crate::error::Result;
use crate::iter::{Edge, SortedIter};
use crate::table::{ReadContext, Step};
use crate::types::{Entry, Kind};

const CHUNK_ENTRIES_MIN: usize = 2;
const CHUNK_ENTRIES_MAX: usize = 32;

/// Walks a memtable in internal order or strictly backward. Entries added behind its position are
/// seen.
#[derive(Debug)]
pub struct MemtableIter {
    memtable: Arc<Memtable>,
    reverse: bool,
    /// Entries read ahead, the next one last.
    ahead: Vec<Entry>,
    /// The place that was read up to: before a key, or on one of its versions; `None` for the end.
    at: Option<(Bytes, u64)>,
    done: bool,
    chunk: usize,
}

impl MemtableIter {
    /// A forward iterator at the first entry.
    pub fn new(memtable: Arc<Memtable>) -> Self {
        Self::at(memtable, false, Some((Bytes::new(), u64::MAX)))
    }

    /// A reverse iterator at the last entry.
    pub fn reverse(memtable: Arc<Memtable>) -> Self {
        Self::at(memtable, true, None)
    }

    fn at(memtable: Arc<Memtable>, reverse: bool, at: Option<(Bytes, u64)>) -> Self {
        let chunk = CHUNK_ENTRIES_MIN;
        Self { memtable, reverse, ahead: Vec::new(), at, done: false, chunk }
    }

    /// The next entry; a plain function, since memory never waits.
    pub fn advance(&mut self) -> Option<Entry> {
        if self.ahead.is_empty() && !self.done {
            let at = self.at.as_ref().map(|(key, word)| (&**key, *word));
            match at {
                _ if self.reverse => self.memtable.chunk_back(at, self.chunk, &mut self.ahead),
                Some(at) => self.memtable.chunk(at, self.chunk, &mut self.ahead),
                None => {}
            }
            self.done = self.ahead.is_empty();
            self.chunk = (self.chunk * 2).min(CHUNK_ENTRIES_MAX);
            if let Some(last) = self.ahead.last() {
                let word = (last.seq << 8) | u64::from(last.kind == Kind::Put);
                self.at = Some((last.key.clone(), word));
            }
            self.ahead.reverse();
        }
        self.ahead.pop()
    }
}

impl SortedIter for MemtableIter {
    fn seek(&mut self, edge: &Edge) {
        self.ahead.clear();
        self.at = match edge {
            Edge::Before(key) => Some((key.clone(), u64::MAX)),
            Edge::End => None,
        };
        self.done = false;
        self.chunk = CHUNK_ENTRIES_MIN;
    }

    fn next_step(&mut self, _ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        Ok(Step::Ready(self.advance()))
    }
}
