//! What a reader at a sequence number sees of a sorted source: per key the newest version up to
//! that number, and nothing of a key whose newest version is a tombstone.

use bytes::Bytes;

use super::{Edge, ScanBounds, SortedIter};
use crate::error::Result;
use crate::table::{ReadContext, Step};
use crate::types::{Entry, Kind};

/// The visible entries of a source inside bounds.
#[derive(Debug)]
pub struct VisibleIter<I> {
    source: I,
    bounds: ScanBounds,
    // The key whose visible version was passed. Forward only.
    passed: Option<Bytes>,
    // The newest visible version so far of the key that the source is on. In reverse only, where
    // it is decided once the source is on another key.
    newest: Option<Entry>,
    ended: bool,
}

impl<I: SortedIter> VisibleIter<I> {
    /// At the start of a source with the same bounds.
    pub fn new(source: I, bounds: ScanBounds) -> Self {
        Self { source, bounds, passed: None, newest: None, ended: false }
    }

    /// The source.
    pub fn source_mut(&mut self) -> &mut I {
        &mut self.source
    }

    /// The source's next entry inside the bounds.
    fn source_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        if self.ended {
            return Ok(Step::Ready(None));
        }
        let entry = match self.source.next_step(ctx)? {
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Ready(entry) => entry.filter(|entry| !self.bounds.is_past(&entry.key)),
        };
        // The source may have more, past the bound, and is not asked.
        self.ended = entry.is_none();
        Ok(Step::Ready(entry))
    }

    fn step_forward(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let entry = match self.source_step(ctx)? {
                Step::Ready(Some(entry)) => entry,
                other @ (Step::Ready(None) | Step::Need(_)) => return Ok(other),
            };
            if entry.seq > self.bounds.seq || self.passed.as_ref() == Some(&entry.key) {
                continue;
            }
            self.passed = Some(entry.key.clone());
            if entry.kind == Kind::Put {
                return Ok(Step::Ready(Some(entry)));
            }
        }
    }

    fn step_back(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let entry = match self.source_step(ctx)? {
                Step::Ready(entry) => entry,
                Step::Need(need) => return Ok(Step::Need(need)),
            };
            let key = entry.as_ref().map(|entry| &entry.key);
            let decided = self.newest.take_if(|newest| Some(&newest.key) != key);
            let is_end = entry.is_none();
            if let Some(entry) = entry.filter(|entry| entry.seq <= self.bounds.seq) {
                self.newest = Some(entry);
            }
            match decided {
                Some(entry) if entry.kind == Kind::Put => return Ok(Step::Ready(Some(entry))),
                Some(_) | None if is_end => return Ok(Step::Ready(None)),
                Some(_) | None => {}
            }
        }
    }
}

impl<I: SortedIter> SortedIter for VisibleIter<I> {
    fn seek(&mut self, edge: &Edge) {
        self.source.seek(edge);
        self.passed = None;
        self.newest = None;
        self.ended = false;
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        if self.bounds.reverse { self.step_back(ctx) } else { self.step_forward(ctx) }
    }
}
