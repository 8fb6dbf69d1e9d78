//! What a reader at a sequence number sees of a sorted source: per key the newest version up to
//! that number, and nothing of a key whose newest version is a tombstone.

use bytes::Bytes;

use super::{ScanBounds, SortedIter};
use crate::error::Result;
use crate::table::{ReadContext, Step};
use crate::types::{Entry, Kind};

/// The visible entries of a source inside bounds.
#[derive(Debug)]
pub struct VisibleIter<I> {
    source: I,
    bounds: ScanBounds,
    // The key whose visible version was passed.
    passed: Option<Bytes>,
    ended: bool,
}

impl<I: SortedIter> VisibleIter<I> {
    /// Before the first visible entry of a source.
    pub fn new(source: I, bounds: ScanBounds) -> Self {
        Self { source, bounds, passed: None, ended: false }
    }

    /// The source.
    pub fn source_mut(&mut self) -> &mut I {
        &mut self.source
    }
}

impl<I: SortedIter> SortedIter for VisibleIter<I> {
    fn seek(&mut self, key: &[u8]) {
        self.source.seek(key);
        self.passed = None;
        self.ended = false;
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        while !self.ended {
            let entry = match self.source.next_step(ctx)? {
                Step::Need(need) => return Ok(Step::Need(need)),
                Step::Ready(entry) => entry,
            };
            let Some(entry) = entry.filter(|entry| !self.bounds.ends_before(&entry.key)) else {
                // The source may have more, past the bound, and is not asked.
                self.ended = true;
                break;
            };
            if entry.seq > self.bounds.seq || self.passed.as_ref() == Some(&entry.key) {
                continue;
            }
            self.passed = Some(entry.key.clone());
            if entry.kind == Kind::Put {
                return Ok(Step::Ready(Some(entry)));
            }
        }
        Ok(Step::Ready(None))
    }
}
