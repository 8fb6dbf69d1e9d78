//! Merges sorted sources into one, and drops an entry that an earlier source has handed out.
//!
//! A source is asked for its next entry only when the merge is asked for one, so that a scan that
//! stops early touches no block in vain.

use core::cmp::Ordering;
use core::fmt;
use core::mem;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::{Edge, SortedIter};
use crate::error::Result;
use crate::table::{ReadContext, Step};
use crate::types::{Entry, SeqNo, to_usize};

/// The entry that a source is on.
struct Head {
    entry: Entry,
    source: u32,
    // The same in all heads of a merge.
    reverse: bool,
}

impl Ord for Head {
    /// The heap's greatest is the merge's next: the smallest entry, in reverse the largest, of
    /// equals the first source's.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let order = other.entry.cmp_internal(&self.entry);
        let order = if self.reverse { order.reverse() } else { order };
        order.then_with(|| other.source.cmp(&self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// The entries of several sources in one order. Of entries with one key and one sequence number,
/// the one of the first source that has it.
pub struct MergeIter {
    sources: Vec<Box<dyn SortedIter>>,
    reverse: bool,
    heads: BinaryHeap<Head>,
    // Sources that have handed out their head, the last one asked next.
    pending: Vec<u32>,
    last: Option<(Bytes, SeqNo)>,
}

impl fmt::Debug for MergeIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeIter")
            .field("sources", &self.sources)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl MergeIter {
    /// Before the first entry of these sources, which all run forward.
    pub fn new(sources: Vec<Box<dyn SortedIter>>) -> Self {
        let heads = BinaryHeap::with_capacity(sources.len());
        let mut merge = Self { sources, reverse: false, heads, pending: Vec::new(), last: None };
        merge.ask_all();
        merge
    }

    /// Behind the last entry of these sources, which all run in reverse.
    pub fn reverse(sources: Vec<Box<dyn SortedIter>>) -> Self {
        Self { reverse: true, ..Self::new(sources) }
    }

    fn ask_all(&mut self) {
        self.pending.clear();
        self.pending.extend((0_u32..).zip(&self.sources).map(|(source, _)| source));
        self.pending.reverse();
    }

    /// Brings every source onto its next entry: what the merge's next entry is chosen from.
    ///
    /// # Errors
    ///
    /// As for `next_step`.
    pub fn fill(&mut self, ctx: &mut ReadContext) -> Result<Step<()>> {
        while !self.pending.is_empty() {
            match self.ask(ctx)? {
                Step::Need(need) => return Ok(Step::Need(need)),
                Step::Ready(head) => self.heads.extend(head),
            }
        }
        Ok(Step::Ready(()))
    }

    /// The next entry of the source that is asked next, which is then no longer pending.
    fn ask(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Head>>> {
        let Some(&source) = self.pending.last() else { return Ok(Step::Ready(None)) };
        // A source that fails stays pending and is asked again.
        let next = match self.sources.get_mut(to_usize(u64::from(source))) {
            Some(iter) => iter.next_step(ctx)?,
            None => Step::Ready(None),
        };
        Ok(match next {
            Step::Need(need) => Step::Need(need),
            Step::Ready(entry) => {
                self.pending.pop();
                Step::Ready(entry.map(|entry| Head { entry, source, reverse: self.reverse }))
            }
        })
    }

    /// Takes the first of all heads, after every source was brought onto its next entry.
    fn take(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Head>>> {
        if self.pending.len() > 1
            && let Step::Need(need) = self.fill(ctx)?
        {
            return Ok(Step::Need(need));
        }
        // The one source that handed out an entry most often has the next one too: it then needs no
        // place in the heap, and else that of the one which goes.
        let mut head = match self.ask(ctx)? {
            Step::Need(need) => return Ok(Step::Need(need)),
            Step::Ready(Some(head)) => head,
            Step::Ready(None) => return Ok(Step::Ready(self.heads.pop())),
        };
        if let Some(mut first) = self.heads.peek_mut()
            && *first > head
        {
            mem::swap(&mut *first, &mut head);
        }
        Ok(Step::Ready(Some(head)))
    }
}

impl SortedIter for MergeIter {
    fn seek(&mut self, edge: &Edge) {
        self.heads.clear();
        self.ask_all();
        self.last = None;
        for source in &mut self.sources {
            source.seek(edge);
        }
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let Head { entry, source, .. } = match self.take(ctx)? {
                Step::Need(need) => return Ok(Step::Need(need)),
                Step::Ready(Some(head)) => head,
                Step::Ready(None) => return Ok(Step::Ready(None)),
            };
            self.pending.push(source);
            let is_repeat =
                self.last.as_ref().is_some_and(|last| last.0 == entry.key && last.1 == entry.seq);
            if !is_repeat {
                self.last = Some((entry.key.clone(), entry.seq));
                return Ok(Step::Ready(Some(entry)));
            }
        }
    }
}
