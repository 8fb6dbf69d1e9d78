//! Iterates over a sorted run: tables in key order that do not overlap, one open at a time.

use core::fmt;
use core::mem;
use std::sync::Arc;

use super::{Edge, ScanBounds, SortedIter, TableIter};
use crate::env::Env;
use crate::error::Result;
use crate::table::{ReadContext, Step, TableMeta, TableSpace};
use crate::types::{Entry, to_u64};

/// The entries of one sorted run.
pub struct LevelIter<E: Env> {
    space: Arc<TableSpace<E>>,
    tables: Arc<[Arc<TableMeta>]>,
    bounds: ScanBounds,
    // Tables before this one were passed; in reverse, tables from this one on.
    at: usize,
    from: Edge,
    // Tables that the last seek passed and no step has counted.
    skipped: usize,
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
    /// At the start of tables in key order. One key's versions may span two of them.
    pub fn new(
        space: Arc<TableSpace<E>>,
        tables: impl Into<Arc<[Arc<TableMeta>]>>,
        bounds: ScanBounds,
    ) -> Self {
        let (tables, from) = (tables.into(), bounds.start().clone());
        let mut iter = Self { space, tables, bounds, at: 0, from, skipped: 0, open: None };
        iter.place();
        iter
    }

    /// Passes the tables that lie before `from`.
    fn place(&mut self) {
        let from = &self.from;
        if self.bounds.reverse {
            self.at = self.tables.partition_point(|table| from.is_behind(&table.smallest));
            self.skipped = self.tables.len() - self.at;
        } else {
            self.at = self.tables.partition_point(|table| from.is_behind(&table.largest));
            self.skipped = self.at;
        }
    }

    fn current(&self) -> Option<&Arc<TableMeta>> {
        let at = if self.bounds.reverse { self.at.checked_sub(1)? } else { self.at };
        self.tables.get(at)
    }

    fn pass_current(&mut self) {
        if self.bounds.reverse {
            self.at = self.at.saturating_sub(1);
        } else {
            self.at += 1;
        }
    }
}

impl<E: Env> SortedIter for LevelIter<E> {
    fn seek(&mut self, edge: &Edge) {
        self.from = edge.clone();
        self.place();
        self.open = None;
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        let skipped = to_u64(mem::take(&mut self.skipped));
        ctx.stats.tables_considered += skipped;
        ctx.stats.tables_ruled_out_by_bounds += skipped;
        loop {
            if let Some(open) = &mut self.open {
                match open.next_step(ctx)? {
                    Step::Ready(None) => {
                        self.open = None;
                        self.pass_current();
                    }
                    step @ (Step::Ready(Some(_)) | Step::Need(_)) => return Ok(step),
                }
            }
            let Some(table) = self.current() else { return Ok(Step::Ready(None)) };
            let near = if self.bounds.reverse { &table.largest } else { &table.smallest };
            if self.bounds.is_past(near) {
                return Ok(Step::Ready(None));
            }
            let (space, table) = (Arc::clone(&self.space), Arc::clone(table));
            let mut open = TableIter::new(space, table, self.bounds.clone());
            open.seek(&self.from);
            self.open = Some(open);
        }
    }
}
