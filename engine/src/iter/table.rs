//! Iterates over one table: its index names data blocks, which are loaded one after the other.
//!
//! At its start it loads the one block that holds the first entry wanted, and none where keys,
//! sequence numbers or the filter's prefixes rule the table out. The index knows each block's first
//! and last key, so that a range between two blocks costs none either, and no block outside of the
//! bounds is ever loaded, in both directions.

use core::cmp::Ordering;
use core::fmt;
use core::mem;
use std::sync::Arc;

use super::bounds::overlaps;
use super::{Edge, ScanBounds, SortedIter};
use crate::cache::Index;
use crate::env::Env;
use crate::error::Result;
use crate::table::block::{Block, BlockCursor, ReverseCursor};
use crate::table::context::Wanted;
use crate::table::format::{Damage, seek_suffix};
use crate::table::reader::{blocks_ahead, need};
use crate::table::{ReadContext, Step, TableMeta, TableSpace};
use crate::types::{Entry, SEQ_MAX};

/// The entries of one table.
pub struct TableIter<E: Env> {
    part: Part<E>,
    // Whether the filter lets the table's prefix pass, once it was asked.
    may_hold_prefix: Option<bool>,
    index: Option<Arc<Index>>,
    place: Place,
}

/// What does not change while a table is iterated over.
struct Part<E: Env> {
    space: Arc<TableSpace<E>>,
    table: Arc<TableMeta>,
    bounds: ScanBounds,
}

#[derive(Debug)]
enum Place {
    /// At an edge, and nothing behind it was looked for yet.
    Seek(Edge),
    Forward(Forward),
    Reverse(Reverse),
    End,
}

/// Inside a table on the way to its end.
#[derive(Debug)]
struct Forward {
    // On the entry of the current data block.
    index: BlockCursor,
    salt: u64,
    // `None` before the current block where that is not loaded.
    data: Option<BlockCursor>,
}

/// Inside a table on the way to its beginning.
#[derive(Debug)]
struct Reverse {
    // On the entry of the current data block.
    index: ReverseCursor,
    salt: u64,
    // `None` behind the current block where that is not loaded.
    data: Option<ReverseCursor>,
}

/// Where a table is entered and the entry there; `None` where no block may hold a key of the range.
type Start = Option<(Place, Option<Entry>)>;

impl<E: Env> fmt::Debug for TableIter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableIter")
            .field("table", &self.part.table.id)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<E: Env> Part<E> {
    fn placed<T>(&self, block: &Block, result: core::result::Result<T, Damage>) -> Result<T> {
        self.space.placed(&self.table, block.offset(), result)
    }

    /// The data block that an index cursor is on.
    fn block(
        &self,
        (index, salt): (&BlockCursor, u64),
        ctx: &mut ReadContext,
    ) -> Result<Step<Arc<Block>>> {
        let handle = self.space.handle(&self.table, index)?;
        if let Some(block) = self.space.data(&self.table, handle, ctx) {
            return Ok(Step::Ready(block));
        }
        let handles = if self.bounds.reverse {
            vec![handle]
        } else {
            let stop = |last_key: &[u8]| self.bounds.is_past(last_key);
            blocks_ahead(&self.space, &self.table, index, (ctx.readahead_bytes, stop))?
        };
        Ok(need(&self.table, Wanted::Data { salt, handles }))
    }

    /// Whether the index says that the block it is on begins at an edge or behind it.
    fn begins_from(index: &BlockCursor, edge: &Edge) -> bool {
        match (index.first_key(), edge) {
            (Some(first), Edge::Before(key)) => first.cmp_key(key) != Ordering::Less,
            (None, _) | (_, Edge::End) => false,
        }
    }

    fn start_forward(
        &self,
        index: &Index,
        edge: &Edge,
        ctx: &mut ReadContext,
    ) -> Result<Step<Start>> {
        let Edge::Before(from) = edge else { return Ok(Step::Ready(None)) };
        let mut cursor = BlockCursor::new(Arc::clone(&index.block), Vec::new());
        let found = cursor.seek(from, seek_suffix(SEQ_MAX));
        if !self.placed(&index.block, found)? || Self::begins_from(&cursor, &self.bounds.upper) {
            return Ok(Step::Ready(None));
        }
        let block = match self.block((&cursor, index.salt), ctx)? {
            Step::Ready(block) => block,
            Step::Need(what) => return Ok(Step::Need(what)),
        };
        let mut data = BlockCursor::new(block, mem::take(&mut ctx.buffer));
        let found = data.seek(from, seek_suffix(SEQ_MAX));
        let entry = if self.placed(data.block(), found)? {
            Some(self.placed(data.block(), data.entry())?)
        } else {
            None
        };
        let place = Forward { index: cursor, salt: index.salt, data: Some(data) };
        Ok(Step::Ready(Some((Place::Forward(place), entry))))
    }

    /// An index cursor on the last block that may hold a key before an edge.
    fn last_block_before(&self, index: &Index, edge: &Edge) -> Result<Option<ReverseCursor>> {
        let mut back = ReverseCursor::new(Arc::clone(&index.block), Vec::new());
        let mut found = false;
        if let Edge::Before(key) = edge {
            let mut cursor = BlockCursor::new(Arc::clone(&index.block), Vec::new());
            let sought = cursor.seek(key, seek_suffix(SEQ_MAX));
            if self.placed(&index.block, sought)? {
                // The edge lies before the last entry of this block.
                if Self::begins_from(&cursor, edge) {
                    let sought = back.seek_before(key, seek_suffix(SEQ_MAX));
                    return Ok(self.placed(&index.block, sought)?.then_some(back));
                }
                let (last_key, suffix) = cursor.key();
                let sought = match suffix.checked_add(1) {
                    Some(behind) => back.seek_before(last_key, behind),
                    None => back.seek_before(&[last_key, &[0]].concat(), 0),
                };
                found = self.placed(&index.block, sought)?;
                return Ok(found.then_some(back));
            }
        }
        found |= self.placed(&index.block, back.back())?;
        Ok(found.then_some(back))
    }

    fn start_reverse(
        &self,
        index: &Index,
        edge: &Edge,
        ctx: &mut ReadContext,
    ) -> Result<Step<Start>> {
        let Some(back) = self.last_block_before(index, edge)? else {
            return Ok(Step::Ready(None));
        };
        let Some(current) = back.current().filter(|at| !self.bounds.is_past(at.key().0)) else {
            return Ok(Step::Ready(None));
        };
        let block = match self.block((current, index.salt), ctx)? {
            Step::Ready(block) => block,
            Step::Need(what) => return Ok(Step::Need(what)),
        };
        let mut data = ReverseCursor::new(block, mem::take(&mut ctx.buffer));
        let entry = match edge {
            Edge::Before(key) => data.seek_entry_before(key, seek_suffix(SEQ_MAX)),
            Edge::End => data.previous_entry(),
        };
        let entry = self.placed(data.block(), entry)?;
        let place = Reverse { index: back, salt: index.salt, data: Some(data) };
        Ok(Step::Ready(Some((Place::Reverse(place), entry))))
    }

    fn step_forward(&self, at: &mut Forward, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let Some(data) = &mut at.data else {
                match self.block((&at.index, at.salt), ctx)? {
                    Step::Ready(block) => {
                        at.data = Some(BlockCursor::new(block, mem::take(&mut ctx.buffer)));
                    }
                    Step::Need(what) => return Ok(Step::Need(what)),
                }
                continue;
            };
            let entry = data.next_entry();
            if let Some(entry) = self.placed(data.block(), entry)? {
                return Ok(Step::Ready(Some(entry)));
            }
            if self.bounds.is_past(at.index.key().0) {
                return Ok(Step::Ready(None));
            }
            let moved = at.index.advance();
            if !self.placed(at.index.block(), moved)?
                || Self::begins_from(&at.index, &self.bounds.upper)
            {
                return Ok(Step::Ready(None));
            }
            if let Some(data) = at.data.take() {
                ctx.buffer = data.into_buffer();
            }
        }
    }

    fn step_back(&self, at: &mut Reverse, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let Some(data) = &mut at.data else {
                let Some(index) = at.index.current() else { return Ok(Step::Ready(None)) };
                match self.block((index, at.salt), ctx)? {
                    Step::Ready(block) => {
                        at.data = Some(ReverseCursor::new(block, mem::take(&mut ctx.buffer)));
                    }
                    Step::Need(what) => return Ok(Step::Need(what)),
                }
                continue;
            };
            let entry = data.previous_entry();
            if let Some(entry) = self.placed(data.block(), entry)? {
                return Ok(Step::Ready(Some(entry)));
            }
            let moved = at.index.back();
            self.placed(at.index.block(), moved)?;
            let ended = |index: &BlockCursor| self.bounds.is_past(index.key().0);
            if at.index.current().is_none_or(ended) {
                return Ok(Step::Ready(None));
            }
            if let Some(data) = at.data.take() {
                ctx.buffer = data.into_buffer();
            }
        }
    }
}

impl<E: Env> TableIter<E> {
    /// At the start of a table.
    pub fn new(space: Arc<TableSpace<E>>, table: Arc<TableMeta>, bounds: ScanBounds) -> Self {
        let place = Place::Seek(bounds.start().clone());
        let part = Part { space, table, bounds };
        Self { part, may_hold_prefix: None, index: None, place }
    }

    fn end(&mut self, ctx: &mut ReadContext) -> Step<Option<Entry>> {
        self.place = Place::End;
        ctx.unpin(&self.part.table);
        Step::Ready(None)
    }

    /// Asks the filter once; where that rules the table out, each start counts it.
    fn may_hold_prefix(&mut self, ctx: &mut ReadContext) -> Step<bool> {
        let part = &self.part;
        let Some((extractor, prefix)) = &part.bounds.prefix else { return Step::Ready(true) };
        if let Some(held) = self.may_hold_prefix {
            ctx.stats.tables_considered += u64::from(!held);
            ctx.stats.tables_ruled_out_by_prefix += u64::from(!held);
            return Step::Ready(held);
        }
        let step = part.space.may_hold_prefix(&part.table, (extractor, prefix), ctx);
        if let Step::Ready(held) = &step {
            self.may_hold_prefix = Some(*held);
        }
        step
    }

    /// Looks for the first entry behind an edge. Counts the table once it is decided on.
    fn start(&mut self, edge: &Edge, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        let part = &self.part;
        if !overlaps(part.bounds.rest(edge), &part.table) {
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_bounds += 1;
            return Ok(self.end(ctx));
        }
        if part.table.min_seq > part.bounds.seq {
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_seq += 1;
            return Ok(self.end(ctx));
        }
        match self.may_hold_prefix(ctx) {
            Step::Ready(true) => {}
            Step::Ready(false) => return Ok(self.end(ctx)),
            Step::Need(what) => return Ok(Step::Need(what)),
        }
        let part = &self.part;
        let index = match &self.index {
            Some(index) => Arc::clone(index),
            None => match part.space.index(&part.table, ctx) {
                Some((index, cached)) => {
                    ctx.stats.index_blocks_cached += u64::from(cached);
                    self.index = Some(Arc::clone(&index));
                    index
                }
                None => return Ok(need(&part.table, Wanted::Index)),
            },
        };
        let started = if part.bounds.reverse {
            part.start_reverse(&index, edge, ctx)?
        } else {
            part.start_forward(&index, edge, ctx)?
        };
        let (place, entry) = match started {
            Step::Ready(Some((place, entry))) => (place, entry),
            Step::Ready(None) => {
                ctx.stats.tables_considered += 1;
                ctx.stats.tables_ruled_out_by_bounds += 1;
                return Ok(self.end(ctx));
            }
            Step::Need(what) => return Ok(Step::Need(what)),
        };
        ctx.stats.tables_considered += 1;
        self.place = place;
        match entry {
            Some(entry) => Ok(Step::Ready(Some(entry))),
            None => self.next_step(ctx),
        }
    }
}

impl<E: Env> SortedIter for TableIter<E> {
    fn seek(&mut self, edge: &Edge) {
        self.place = Place::Seek(edge.clone());
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        let step = match &mut self.place {
            Place::Forward(at) => self.part.step_forward(at, ctx)?,
            Place::Reverse(at) => self.part.step_back(at, ctx)?,
            Place::Seek(edge) => {
                let edge = edge.clone();
                return self.start(&edge, ctx);
            }
            Place::End => return Ok(Step::Ready(None)),
        };
        match step {
            Step::Ready(None) => Ok(self.end(ctx)),
            step @ (Step::Ready(Some(_)) | Step::Need(_)) => Ok(step),
        }
    }
}
