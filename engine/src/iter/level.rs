//! Iterates over a sorted run: tables in key order that do not overlap, one open at a time.

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{ScanBounds, SortedIter, TableIter};
use crate::env::Env;
use crate::error::Result;
use crate::table::{ReadContext, Step, TableMeta, TableSpace};
use crate::types::Entry;

/// The entries of one sorted run.
pub struct LevelIter<E: Env> {
    space: Arc<TableSpace<E>>,
    tables: Arc<[Arc<TableMeta>]>,
    bounds: ScanBounds,
    // Where the table in `open` stands in the run, or the next one to open.
    at: usize,
    from: Bytes,
    open: Option<TableIter<E>>,
}

impl<E: Env> fmt::Debug for LevelIter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelIter")
            .field("tables", &self.tables.len())
            .field("at", &self.at)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl<E: Env> LevelIter<E> {
    /// Before the first entry of tables in key order. One key's versions may span two of them.
    pub fn new(
        space: Arc<TableSpace<E>>,
        tables: impl Into<Arc<[Arc<TableMeta>]>>,
        bounds: ScanBounds,
    ) -> Self {
        let tables = tables.into();
        Self { space, tables, bounds, at: 0, from: Bytes::new(), open: None }
    }
}

impl<E: Env> SortedIter for LevelIter<E> {
    fn seek(&mut self, key: &[u8]) {
        self.at = self.tables.partition_point(|table| &*table.largest < key);
        self.from = Bytes::copy_from_slice(key);
        self.open = None;
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            if let Some(open) = &mut self.open {
                match open.next_step(ctx)? {
                    Step::Ready(None) => {
                        self.open = None;
                        self.at += 1;
                    }
                    step @ (Step::Ready(Some(_)) | Step::Need(_)) => return Ok(step),
                }
            }
            let Some(table) = self.tables.get(self.at) else { return Ok(Step::Ready(None)) };
            if self.bounds.ends_before(&table.smallest) {
                return Ok(Step::Ready(None));
            }
            let (space, table) = (Arc::clone(&self.space), Arc::clone(table));
            let mut open = TableIter::new(space, table, self.bounds.clone());
            open.seek(&self.from);
            self.open = Some(open);
        }
    }
}
