//! Which tables a tree consists of, how that changes, and how the changes survive a crash.

pub mod commit;
pub mod edit;
pub mod lineage;
pub mod manifest;
pub mod packs;
pub mod set;
pub mod tree;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::policy::view::{self, LevelsView, TableFacts};
use crate::table::TableMeta;
use crate::types::{TableId, TreeId};

/// Levels of a tree, L0 included.
pub const LEVEL_COUNT: usize = view::LEVEL_COUNT as usize;

/// One tree's tables by level, immutable. Shared by reference: a branch and its fork may hold the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// L0 first, its tables newest first; in other levels tables are in key order and disjoint.
    /// Versions share the levels in which they do not differ: a fork that flushes or compacts holds
    /// no second list of what it inherited in the others.
    pub levels: Vec<Arc<Vec<Arc<TableMeta>>>>,
}

impl Version {
    /// A level's tables; empty where the tree has no such level.
    pub fn level(&self, level: usize) -> &[Arc<TableMeta>] {
        self.levels.get(level).map_or(&[], |tables| tables.as_slice())
    }

    /// Whether a table is one of them.
    pub fn holds(&self, table: &TableMeta) -> bool {
        self.levels.iter().enumerate().any(|(level, tables)| {
            if level == 0 {
                return tables.iter().any(|t| t.id == table.id);
            }
            let at = tables.partition_point(|t| t.smallest < table.smallest);
            let same = |t: &&Arc<TableMeta>| t.smallest == table.smallest;
            tables.iter().skip(at).take_while(same).any(|t| t.id == table.id)
        })
    }

    /// Tables in L0.
    pub fn l0_count(&self) -> u32 {
        u32::try_from(self.level(0).len()).unwrap_or(u32::MAX)
    }

    /// Every table with its level.
    pub fn tables(&self) -> impl Iterator<Item = (u32, &Arc<TableMeta>)> {
        (0_u32..).zip(&self.levels).flat_map(|(l, tables)| tables.iter().map(move |t| (l, t)))
    }

    /// This version with a new newest L0 table.
    #[must_use]
    pub fn with_flushed(&self, table: Arc<TableMeta>) -> Self {
        let mut next = self.clone();
        let l0 = [table].into_iter().chain(self.level(0).iter().cloned()).collect();
        *next.ensure_level(0) = l0;
        next
    }

    /// This version after a compaction. Tables that were not there are ignored, so that an edit
    /// read twice changes nothing.
    #[must_use]
    pub fn with_compacted(&self, removed: &[TableId], added: &[(u32, Arc<TableMeta>)]) -> Self {
        let mut next = self.clone();
        if !removed.is_empty() {
            let removed: BTreeSet<TableId> = removed.iter().copied().collect();
            for level in &mut next.levels {
                if level.iter().any(|t| removed.contains(&t.id)) {
                    Arc::make_mut(level).retain(|t| !removed.contains(&t.id));
                }
            }
        }
        let mut grown = BTreeSet::new();
        for (level, table) in added {
            let at_level = usize::try_from(*level).unwrap_or(0).min(LEVEL_COUNT - 1);
            next.ensure_level(at_level).push(Arc::clone(table));
            grown.insert(at_level);
        }
        // Two sorted runs at most, which a stable sort merges: the tables that stay and the new
        // ones.
        for level in grown.into_iter().filter(|level| *level > 0) {
            next.ensure_level(level).sort_by(|a, b| a.smallest.cmp(&b.smallest));
        }
        // What is kept is kept for long: no room for more.
        for level in next.levels.iter_mut().filter_map(Arc::get_mut) {
            level.shrink_to_fit();
        }
        next
    }

    fn ensure_level(&mut self, level: usize) -> &mut Vec<Arc<TableMeta>> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Arc::default);
        }
        #[expect(clippy::indexing_slicing, reason = "the line above made the level")]
        Arc::make_mut(&mut self.levels[level])
    }

    /// What a compaction policy sees. `compacting` holds the tables that a running job reads.
    pub fn facts(&self, tree: TreeId, compacting: &[TableId]) -> LevelsView {
        let facts = |t: &Arc<TableMeta>| TableFacts {
            table: t.id,
            bytes: t.bytes,
            entries: t.entries,
            tombstones: t.tombstones,
            tombstones_since_ns: 0,
            max_seq: t.max_seq,
            smallest: t.smallest.clone(),
            largest: t.largest.clone(),
            compacting: compacting.contains(&t.id),
            sparse_file: false,
        };
        LevelsView {
            tree,
            levels: self.levels.iter().map(|l| l.iter().map(facts).collect()).collect(),
            ..LevelsView::default()
        }
    }

    /// The tables that a compaction of these inputs leaves behind and that may hold data older than
    /// theirs: what is newer than the newest input lies before it in the order of age.
    #[must_use]
    pub fn older_beside(&self, inputs: &BTreeSet<TableId>) -> Self {
        let mut rest = self.clone();
        for (at, level) in rest.levels.iter_mut().enumerate() {
            if let Some(newest) = level.iter().position(|t| inputs.contains(&t.id)) {
                // Below L0 the tables of a level are of one age.
                if at == 0 {
                    Arc::make_mut(level).drain(..newest);
                }
                break;
            }
            *level = Arc::default();
        }
        for level in &mut rest.levels {
            Arc::make_mut(level).retain(|t| !inputs.contains(&t.id));
        }
        rest
    }

    /// Whether a table may hold this key. Of the tables that a compaction leaves behind one is
    /// enough, and a tombstone of the key must stay.
    pub fn may_hold(&self, key: &[u8]) -> bool {
        let spans = |t: &TableMeta| *t.smallest <= *key && *key <= *t.largest;
        self.levels.iter().enumerate().any(|(level, tables)| {
            if level == 0 {
                return tables.iter().any(|t| spans(t));
            }
            let at = tables.partition_point(|t| *t.largest < *key);
            tables.get(at).is_some_and(|t| spans(t))
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn versions_share_the_levels_in_which_they_do_not_differ() {
        let table = |file: u64, key: &'static str| {
            let key = Bytes::from_static(key.as_bytes());
            let id = TableId { file, offset: 0 };
            Arc::new(TableMeta { id, largest: key.clone(), smallest: key, ..TableMeta::default() })
        };
        let files = |version: &Version| -> Vec<(u32, u64)> {
            version.tables().map(|(level, t)| (level, t.id.file)).collect()
        };
        let shared = |a: &Version, b: &Version| -> Vec<usize> {
            let both = a.levels.iter().zip(&b.levels).enumerate();
            both.filter(|(_, (a, b))| Arc::ptr_eq(a, b)).map(|(level, _)| level).collect()
        };
        let added =
            [(0, table(9, "k")), (1, table(1, "c")), (1, table(2, "a")), (3, table(3, "b"))];
        let first = Version::default().with_compacted(&[], &added);
        assert_eq!(files(&first), [(0, 9), (1, 2), (1, 1), (3, 3)]);
        let flushed = first.with_flushed(table(10, "z"));
        assert_eq!(files(&flushed), [(0, 10), (0, 9), (1, 2), (1, 1), (3, 3)]);
        assert_eq!(shared(&first, &flushed), [1, 2, 3]);
        let removed = [TableId { file: 1, offset: 0 }];
        let compacted = flushed.with_compacted(&removed, &[(2, table(11, "c"))]);
        assert_eq!(files(&compacted), [(0, 10), (0, 9), (1, 2), (2, 11), (3, 3)]);
        assert_eq!(shared(&flushed, &compacted), [0, 3]);
    }

    #[test]
    fn older_tables_are_those_behind_the_newest_input() {
        let table = |file: u64, range: [&'static str; 2]| {
            let [smallest, largest] = range.map(|key| Bytes::from_static(key.as_bytes()));
            let id = TableId { file, offset: 0 };
            Arc::new(TableMeta { id, smallest, largest, ..TableMeta::default() })
        };
        let l0 = vec![table(4, ["a", "z"]), table(3, ["b", "c"]), table(2, ["e", "f"])];
        let l2 = vec![table(1, ["c", "d"]), table(0, ["m", "n"])];
        let version = Version { levels: [l0, Vec::new(), l2].map(Arc::new).into() };
        let beside = |files: &[u64]| {
            version.older_beside(&files.iter().map(|f| TableId { file: *f, offset: 0 }).collect())
        };
        // The newer table does not count, the older one of L0 does.
        let left = beside(&[3]);
        assert!(left.may_hold(b"e") && left.may_hold(b"d") && left.may_hold(b"m"));
        assert!(!left.may_hold(b"b") && !left.may_hold(b"g") && !left.may_hold(b"o"));
        // An input itself does not count, its neighbours do.
        let left = beside(&[3, 1]);
        assert!(left.may_hold(b"e") && left.may_hold(b"n") && !left.may_hold(b"d"));
        // Of a deeper level only those beside and below are older.
        let left = beside(&[1]);
        assert!(left.may_hold(b"m") && !left.may_hold(b"e") && !left.may_hold(b"c"));
    }
}
