//! The replay rule: which tree takes which record of the WAL.
//!
//! Tree x takes a record of origin o with number q iff `q > flushed_upto[x]` and either x = o, or o
//! is an ancestor of x and q is at most the smallest fork number on the path from x up to o. The
//! filter is strict: replaying an entry at or below the watermark could bring back data whose
//! tombstone was compacted away.

use crate::types::{SeqNo, TreeId};

/// A tree's ancestors, nearest first, each with the smallest fork number on the way up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    ancestors: Vec<(TreeId, SeqNo)>,
}

impl Lineage {
    /// The lineage of a child that is forked at `fork_seq` from `parent`, whose own is `self`.
    #[must_use]
    pub fn child_of(&self, parent: TreeId, fork_seq: SeqNo) -> Self {
        let up = self.ancestors.iter().map(|(tree, seq)| (*tree, fork_seq.min(*seq)));
        Self { ancestors: core::iter::once((parent, fork_seq)).chain(up).collect() }
    }

    /// A lineage as a manifest names it.
    pub fn of(ancestors: Vec<(TreeId, SeqNo)>) -> Self {
        Self { ancestors }
    }

    /// The ancestors of whose entries a tree flushed up to a number may still take some.
    pub fn above(&self, flushed_upto: SeqNo) -> Vec<(TreeId, SeqNo)> {
        let ancestors = self.ancestors.iter().copied();
        ancestors.filter(|(_, bound)| *bound > flushed_upto).collect()
    }

    /// The ancestors, nearest first.
    pub fn ancestors(&self) -> &[(TreeId, SeqNo)] {
        &self.ancestors
    }

    /// The highest number that `tree` takes from records of `origin`; `None` for none at all.
    pub fn bound(&self, tree: TreeId, origin: TreeId) -> Option<SeqNo> {
        if tree == origin {
            return Some(SeqNo::MAX);
        }
        self.ancestors.iter().find(|(a, _)| *a == origin).map(|(_, seq)| *seq)
    }

    /// Whether `tree`, flushed up to a number, takes the entry `seq` of `origin`.
    pub fn takes(&self, tree: TreeId, flushed_upto: SeqNo, origin: TreeId, seq: SeqNo) -> bool {
        seq > flushed_upto && self.bound(tree, origin).is_some_and(|bound| seq <= bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TreeId = TreeId(1);
    const B: TreeId = TreeId(2);
    const C: TreeId = TreeId(3);

    #[test]
    fn a_tree_takes_its_own_entries_above_its_watermark() {
        let own = Lineage::default();
        assert!(own.takes(A, 5, A, 6));
        assert!(!own.takes(A, 5, A, 5));
        assert!(!own.takes(A, 0, B, 6));
    }

    #[test]
    fn a_fork_takes_its_ancestors_entries_up_to_the_smallest_fork_number_on_the_path() {
        let b = Lineage::default().child_of(A, 10);
        let c = b.child_of(B, 7);
        assert!(c.takes(C, 0, A, 7));
        assert!(!c.takes(C, 0, A, 8));
        assert!(!c.takes(C, 7, A, 7));
        assert!(c.takes(C, 0, B, 7));
        assert!(!c.takes(C, 0, B, 8));
        assert!(c.takes(C, 0, C, 900));
        let late = b.child_of(B, 30);
        assert!(late.takes(C, 0, B, 30));
        assert!(!late.takes(C, 0, A, 11));
    }
}
