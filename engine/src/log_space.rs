//! Which WAL segments live, and which of them memtables pin.
//!
//! A segment goes when it holds no live tree's only durable copy of an unflushed entry. A memtable
//! pins every segment from its anchor on, the one that holds its oldest entry; sequence numbers are
//! never compared for this.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::types::to_usize;

#[derive(Debug, Default)]
struct State {
    /// Bytes by segment.
    segments: BTreeMap<u64, u64>,
    /// Memtables by anchor.
    anchors: BTreeMap<u64, u64>,
}

/// Live segments and what pins them.
#[derive(Debug, Default)]
pub(crate) struct LogSpace {
    state: Mutex<State>,
    bytes: AtomicU64,
    highest_tried: AtomicU64,
}

impl LogSpace {
    /// A segment lives; the one with the highest number is the one that takes records.
    pub(crate) fn add_segment(&self, segment: u64, bytes: u64) {
        self.state.lock().segments.insert(segment, bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were appended to a segment.
    pub(crate) fn grow(&self, segment: u64, bytes: u64) {
        if let Some(b) = self.state.lock().segments.get_mut(&segment) {
            *b += bytes;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of all live segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The oldest live segment; 0 for none.
    pub(crate) fn oldest(&self) -> u64 {
        self.state.lock().segments.keys().next().copied().unwrap_or(0)
    }

    /// The highest number of a segment that was begun, whether that succeeded or not: a later one
    /// must be above it, since a file whose removal a crash undoes may be whole.
    pub(crate) fn highest_begun(&self) -> u64 {
        let newest = self.state.lock().segments.keys().next_back().copied().unwrap_or(0);
        newest.max(self.highest_tried.load(Ordering::Relaxed))
    }

    /// A segment is about to begin.
    pub(crate) fn begin(&self, segment: u64) {
        self.highest_tried.fetch_max(segment, Ordering::Relaxed);
    }

    /// A memtable's oldest entry lies in this segment.
    pub(crate) fn pin(&self, anchor: u64) {
        *self.state.lock().anchors.entry(anchor).or_insert(0) += 1;
    }

    /// A memtable with this anchor is in a table, or gone with its tree.
    pub(crate) fn unpin(&self, anchor: u64) {
        let mut state = self.state.lock();
        if let Some(count) = state.anchors.get_mut(&anchor) {
            *count -= 1;
            if *count == 0 {
                state.anchors.remove(&anchor);
            }
        }
    }

    /// A memtable's oldest entry lies in another segment.
    pub(crate) fn move_pin(&self, from: u64, to: u64) {
        // The other way round, a reclaim in between might take both.
        self.pin(to);
        self.unpin(from);
    }

    /// Where more than this many bytes are needed: the oldest needed segment, with its bytes. The
    /// newest never goes.
    pub(crate) fn excess(&self, bytes_max: u64) -> Option<(u64, u64)> {
        let floor = self.floor();
        let state = self.state.lock();
        let newest = state.segments.keys().next_back().copied().filter(|newest| *newest > floor)?;
        let needed: u64 = state.segments.range(floor..).map(|(_, bytes)| *bytes).sum();
        let over = needed.saturating_sub(bytes_max);
        let oldest = state.segments.range(floor..newest).next().filter(|_| over > 0);
        oldest.map(|(segment, bytes)| (*segment, *bytes))
    }

    /// The oldest segment that is needed: pinned, or the newest.
    pub(crate) fn floor(&self) -> u64 {
        let state = self.state.lock();
        let newest = state.segments.keys().next_back().copied().unwrap_or(0);
        state.anchors.keys().next().map_or(newest, |anchor| newest.min(*anchor))
    }

    /// The newest of the oldest segments without which the live ones would hold at most `limit`
    /// bytes; never the one that takes records.
    pub(crate) fn over(&self, limit: u64) -> Option<u64> {
        let mut left = self.bytes();
        let state = self.state.lock();
        let newest = state.segments.keys().next_back().copied()?;
        let mut over = None;
        for (segment, bytes) in state.segments.iter().filter(|(s, _)| **s < newest) {
            if left <= limit {
                break;
            }
            left = left.saturating_sub(*bytes);
            over = Some(*segment);
        }
        over
    }

    /// Memtables that pin this segment or an older one.
    pub(crate) fn pin_count(&self, segment: u64) -> usize {
        let state = self.state.lock();
        to_usize(state.anchors.range(..=segment).map(|(_, count)| count).sum())
    }

    /// The live segments, and by anchor how many memtables pin the log from there.
    pub(crate) fn audit(&self) -> (BTreeSet<u64>, BTreeMap<u64, u64>) {
        let state = self.state.lock();
        (state.segments.keys().copied().collect(), state.anchors.clone())
    }

    /// Takes out the segments below `floor`.
    pub(crate) fn take_below(&self, floor: u64) -> Vec<u64> {
        let mut state = self.state.lock();
        let kept = state.segments.split_off(&floor);
        let gone = core::mem::replace(&mut state.segments, kept);
        self.bytes.fetch_sub(gone.values().sum(), Ordering::Relaxed);
        gone.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_lives_while_any_memtable_is_anchored_at_or_before_it() {
        let space = LogSpace::default();
        for segment in [3, 5, 6] {
            space.add_segment(segment, 10);
        }
        space.pin(3);
        space.pin(3);
        space.pin(5);
        assert_eq!(space.floor(), 3);
        space.unpin(3);
        assert_eq!(space.floor(), 3);
        space.unpin(3);
        assert_eq!(space.floor(), 5);
        assert_eq!(space.take_below(5), [3]);
        space.unpin(5);
        assert_eq!((space.floor(), space.bytes()), (6, 20));
    }

    #[test]
    fn over_the_limit_are_the_oldest_segments_but_never_the_newest() {
        let space = LogSpace::default();
        for (segment, anchors) in [(3, 2), (5, 1), (6, 4)] {
            space.add_segment(segment, 10);
            (0..anchors).for_each(|_| space.pin(segment));
        }
        let over = |limit| space.over(limit);
        assert_eq!([30, 29, 20, 19, 0].map(over), [None, Some(3), Some(3), Some(5), Some(5)]);
        assert_eq!([2, 3, 5, 9].map(|s| space.pin_count(s)), [0, 2, 3, 7]);
    }

    #[test]
    fn a_pin_that_moves_lets_the_segments_between_go() {
        let space = LogSpace::default();
        for segment in [3, 5, 6] {
            space.add_segment(segment, 10);
            space.pin(segment);
        }
        space.move_pin(3, 6);
        assert_eq!(space.floor(), 5);
        space.move_pin(5, 6);
        assert_eq!(space.take_below(space.floor()), [3, 5]);
    }

    #[test]
    fn the_excess_of_a_log_above_its_limit_is_its_oldest_needed_segment() {
        let space = LogSpace::default();
        for segment in [3, 5, 6] {
            space.add_segment(segment, 10);
        }
        assert_eq!(space.excess(0), None, "nothing pins the old ones");
        space.pin(3);
        let excess = |bytes| space.excess(bytes);
        assert_eq!((excess(30), excess(29), excess(20)), (None, Some((3, 10)), Some((3, 10))));
        assert_eq!(excess(0), Some((3, 10)));
        space.move_pin(3, 5);
        assert_eq!((excess(20), excess(19)), (None, Some((5, 10))), "the first one is about to go");
    }
}
