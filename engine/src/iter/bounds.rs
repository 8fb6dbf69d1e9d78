//! Where a scan begins and ends, as edges between keys.
//!
//! A bound of any kind is an edge: the first key behind `k` is `k` with a zero byte, so that a
//! range is always half open and an iterator knows one kind of end in either direction.

use core::ops::Bound;

use bytes::Bytes;

use crate::prefix::TreeExtractor;
use crate::table::TableMeta;
use crate::types::{SEQ_MAX, SeqNo};

/// A place between two neighbouring keys. Edges are ordered as the keys behind them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// Before every version of this key.
    Before(Bytes),
    /// Behind all keys.
    End,
}

impl Edge {
    /// Before all keys.
    pub const START: Self = Self::Before(Bytes::new());

    /// Before every version of a key.
    pub fn before(key: &[u8]) -> Self {
        Self::Before(Bytes::copy_from_slice(key))
    }

    /// Behind every version of a key and before all other keys behind it.
    pub fn behind(key: &[u8]) -> Self {
        Self::Before([key, &[0]].concat().into())
    }

    /// Behind all keys that begin with these bytes.
    pub fn behind_prefix(prefix: &[u8]) -> Self {
        let Some(keep) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return Self::End };
        let mut end = prefix.get(..=keep).unwrap_or_default().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self::Before(end.into())
    }

    /// The edge where a range with this lower bound begins.
    pub fn lower(bound: Bound<&[u8]>) -> Self {
        match bound {
            Bound::Included(key) => Self::before(key),
            Bound::Excluded(key) => Self::behind(key),
            Bound::Unbounded => Self::START,
        }
    }

    /// The edge where a range with this upper bound ends.
    pub fn upper(bound: Bound<&[u8]>) -> Self {
        match bound {
            Bound::Included(key) => Self::behind(key),
            Bound::Excluded(key) => Self::before(key),
            Bound::Unbounded => Self::End,
        }
    }

    /// Whether it lies behind a key.
    pub fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(edge) => key < &**edge,
            Self::End => true,
        }
    }
}

/// What a scan can touch. Sources use it to leave out tables and blocks, and may still hand out
/// entries outside of it; [`VisibleIter`](super::VisibleIter) does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanBounds {
    /// Where keys begin.
    pub lower: Edge,
    /// Where keys end.
    pub upper: Edge,
    /// The largest sequence number that the scan sees.
    pub seq: SeqNo,
    /// Whether it runs from the upper edge to the lower one.
    pub reverse: bool,
    /// The extracted prefix of every key between the edges, where they all have the same one:
    /// tables whose filter says that they hold none are left out.
    pub prefix: Option<(TreeExtractor, Bytes)>,
}

impl Default for ScanBounds {
    fn default() -> Self {
        let (lower, upper) = (Edge::START, Edge::End);
        Self { lower, upper, seq: SEQ_MAX, reverse: false, prefix: None }
    }
}

impl ScanBounds {
    /// The same, with what the tree's extractor says of the keys between the edges.
    #[must_use]
    pub fn with_extractor(self, extractor: Option<TreeExtractor>) -> Self {
        let prefix = extractor.and_then(|extractor| {
            let Edge::Before(from) = &self.lower else { return None };
            let prefix = extractor.of_scan(from)?;
            // All keys from `from` to the end of its prefix have that prefix, and no others.
            let is_inside = self.upper <= Edge::behind_prefix(prefix);
            is_inside.then(|| (extractor, from.slice_ref(prefix)))
        });
        Self { prefix, ..self }
    }

    /// The edge that a scan starts from.
    pub fn start(&self) -> &Edge {
        if self.reverse { &self.upper } else { &self.lower }
    }

    /// The edges of what is left of the range from an edge on, in the scan's direction.
    pub(crate) fn rest<'a>(&'a self, from: &'a Edge) -> (&'a Edge, &'a Edge) {
        if self.reverse { (&self.lower, from) } else { (from, &self.upper) }
    }

    /// Whether a key lies past the edge that the scan runs towards.
    pub fn is_past(&self, key: &[u8]) -> bool {
        if self.reverse { self.lower.is_behind(key) } else { !self.upper.is_behind(key) }
    }

    /// Whether a table's range of keys overlaps with that of the scan.
    pub(crate) fn touches(&self, table: &TableMeta) -> bool {
        overlaps((&self.lower, &self.upper), table)
    }
}

/// Whether a table's range of keys overlaps with the range between two edges.
pub(crate) fn overlaps((lower, upper): (&Edge, &Edge), table: &TableMeta) -> bool {
    lower < upper && !lower.is_behind(&table.largest) && upper.is_behind(&table.smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_behind_a_prefix_is_behind_its_last_key() {
        assert_eq!(Edge::behind_prefix(b"ab"), Edge::before(b"ac"));
        assert_eq!(Edge::behind_prefix(b"a\xff\xff"), Edge::before(b"b"));
        assert_eq!(Edge::behind_prefix(b"\xff\xff"), Edge::End);
        assert_eq!(Edge::behind_prefix(b""), Edge::End);
    }

    #[test]
    fn no_key_lies_between_a_key_and_the_edges_around_it() {
        let (before, behind) = (Edge::before(b"k"), Edge::behind(b"k"));
        assert!(before < behind && behind < Edge::End);
        assert!(!before.is_behind(b"k") && behind.is_behind(b"k"));
        assert!(before.is_behind(b"j\xff") && !behind.is_behind(b"k\0"));
    }
}
