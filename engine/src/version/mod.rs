//! Which tables a tree consists of, how that changes, and how the changes survive a crash.

pub mod edit;
pub mod lineage;
pub mod manifest;
pub mod set;
pub mod tree;

use std::sync::Arc;

use crate::policy::view::{LevelsView, TableFacts};
use crate::table::TableMeta;
use crate::types::{TableId, TreeId};

/// Levels of a tree, L0 included.
pub const LEVEL_COUNT: usize = 7;

/// One tree's tables by level, immutable. Shared by reference: a branch and its fork may hold the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// L0 first, its tables newest first; in other levels tables are in key order and disjoint.
    pub levels: Vec<Vec<Arc<TableMeta>>>,
}

impl Version {
    /// A level's tables; empty where the tree has no such level.
    pub fn level(&self, level: usize) -> &[Arc<TableMeta>] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
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
        next.ensure_level(0).insert(0, table);
        next
    }

    /// This version after a compaction. Tables that were not there are ignored, so that an edit
    /// read twice changes nothing.
    #[must_use]
    pub fn with_compacted(&self, removed: &[TableId], added: &[(u32, Arc<TableMeta>)]) -> Self {
        let mut next = self.clone();
        for level in &mut next.levels {
            level.retain(|t| !removed.contains(&t.id));
        }
        for (level, table) in added {
            let at_level = usize::try_from(*level).unwrap_or(0).min(LEVEL_COUNT - 1);
            let tables = next.ensure_level(at_level);
            if at_level == 0 {
                tables.push(Arc::clone(table));
            } else {
                let at = tables.partition_point(|t| t.smallest < table.smallest);
                tables.insert(at, Arc::clone(table));
            }
        }
        next
    }

    fn ensure_level(&mut self, level: usize) -> &mut Vec<Arc<TableMeta>> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        #[expect(clippy::indexing_slicing, reason = "the line above made the level")]
        &mut self.levels[level]
    }

    /// What a compaction policy sees. `compacting` holds the tables that a running job reads.
    pub fn facts(&self, tree: TreeId, compacting: &[TableId]) -> LevelsView {
        let facts = |t: &Arc<TableMeta>| TableFacts {
            table: t.id,
            bytes: t.bytes,
            entries: t.entries,
            tombstones: t.tombstones,
            smallest: t.smallest.clone(),
            largest: t.largest.clone(),
            compacting: compacting.contains(&t.id),
        };
        LevelsView {
            tree,
            levels: self.levels.iter().map(|l| l.iter().map(facts).collect()).collect(),
            ..LevelsView::default()
        }
    }

    /// Whether a table other than `inputs`, at `level` or below, may hold `key`: then a tombstone
    /// of it must stay.
    pub fn may_hold_below(&self, level: u32, key: &[u8], inputs: &[TableId]) -> bool {
        self.tables().any(|(l, t)| {
            l >= level && *t.smallest <= *key && key <= &*t.largest && !inputs.contains(&t.id)
        })
    }
}
