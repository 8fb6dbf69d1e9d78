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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iter::{ScanBounds, VisibleIter};

    fn insert(memtable: &Memtable, key: u64, seq: u64) {
        let data = Bytes::from(format!("{key:03}{seq}"));
        memtable.insert(data, 3, seq, Kind::Put);
    }

    /// Between any two steps, versions come of the key that the iterator is on and of those around
    /// it: what was there is handed out once, in order, and a reader sees nothing else.
    #[test]
    fn entries_that_come_between_steps_are_not_seen_by_older_readers() {
        const KEYS: u64 = 90;
        for reverse in [false, true] {
            let memtable = Arc::new(Memtable::new(0, 1));
            let versions = |key: u64| 1 + key % 3;
            let mut seq = 0;
            let mut expected = Vec::new();
            for key in 0..KEYS {
                for _ in 0..versions(key) {
                    seq += 1;
                    insert(&memtable, key, seq);
                }
                expected.push((Bytes::from(format!("{key:03}")), seq));
            }
            if reverse {
                expected.reverse();
            }
            let bounds = ScanBounds { seq, reverse, ..ScanBounds::default() };
            let source = if reverse {
                MemtableIter::reverse(Arc::clone(&memtable))
            } else {
                MemtableIter::new(Arc::clone(&memtable))
            };
            let mut iter = VisibleIter::new(source, bounds);
            let (mut found, mut newer) = (Vec::new(), seq);
            while let Ok(Step::Ready(Some(entry))) = iter.next_step(&mut ReadContext::default()) {
                let at: u64 = core::str::from_utf8(&entry.key).unwrap().parse().unwrap();
                for key in at.saturating_sub(2)..=at + 2 {
                    newer += 1;
                    insert(&memtable, key, newer);
                }
                found.push((entry.key, entry.seq));
            }
            assert_eq!(found, expected, "reverse {reverse}");
        }
    }
}
