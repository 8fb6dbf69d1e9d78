//! Iterates over one table: its index names data blocks, which are loaded one after the other.
//!
//! At its start it loads the one block that holds the first entry wanted, and none where keys or
//! sequence numbers rule the table out. It never loads a block behind the upper bound.

use core::fmt;
use core::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::{ScanBounds, SortedIter};
use crate::env::Env;
use crate::error::Result;
use crate::table::block::BlockCursor;
use crate::table::context::Wanted;
use crate::table::format::seek_suffix;
use crate::table::reader::{blocks_ahead, need};
use crate::table::{ReadContext, Step, TableMeta, TableSpace};
use crate::types::{Entry, SEQ_MAX};

/// The entries of one table.
pub struct TableIter<E: Env> {
    space: Arc<TableSpace<E>>,
    table: Arc<TableMeta>,
    bounds: ScanBounds,
    place: Place,
    // On the entry of the current data block, with the salt of the table.
    index: Option<(BlockCursor, u64)>,
    data: Option<BlockCursor>,
}

#[derive(Clone, Debug)]
enum Place {
    /// At the first entry at or behind this key, not looked for yet.
    Seek(Bytes),
    /// In the current block, or before it where it is not loaded.
    Block,
    End,
}

impl<E: Env> fmt::Debug for TableIter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableIter")
            .field("table", &self.table.id)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<E: Env> TableIter<E> {
    /// Before the first entry of a table.
    pub fn new(space: Arc<TableSpace<E>>, table: Arc<TableMeta>, bounds: ScanBounds) -> Self {
        let place = Place::Seek(Bytes::new());
        Self { space, table, bounds, place, index: None, data: None }
    }

    fn end(&mut self, ctx: &mut ReadContext) -> Step<Option<Entry>> {
        self.place = Place::End;
        self.data = None;
        ctx.unpin(&self.table);
        Step::Ready(None)
    }

    fn is_ruled_out(&self, from: &[u8]) -> bool {
        from > &*self.table.largest
            || self.bounds.ends_before(from.max(&*self.table.smallest))
            || self.table.min_seq > self.bounds.seq
    }

    fn start(&mut self, from: &Bytes, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        if self.is_ruled_out(from) {
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_bounds += 1;
            return Ok(self.end(ctx));
        }
        let (mut index, salt) = match self.index.take() {
            Some(index) => index,
            None => match self.space.index(&self.table, ctx) {
                Some(index) => (BlockCursor::new(Arc::clone(&index.block), Vec::new()), index.salt),
                None => return Ok(need(&self.table, Wanted::Index)),
            },
        };
        let found = index.seek(from, seek_suffix(SEQ_MAX));
        let index_offset = index.block().offset();
        self.index = Some((index, salt));
        if !self.space.placed(&self.table, index_offset, found)? {
            ctx.stats.tables_considered += 1;
            return Ok(self.end(ctx));
        }
        let mut data = match self.current_block(ctx)? {
            Step::Ready(data) => data,
            Step::Need(what) => return Ok(Step::Need(what)),
        };
        let data_offset = data.block().offset();
        let found = data.seek(from, seek_suffix(SEQ_MAX));
        let found = self.space.placed(&self.table, data_offset, found)?;
        let entry = if found {
            Some(self.space.placed(&self.table, data_offset, data.entry())?)
        } else {
            None
        };
        ctx.stats.tables_considered += 1;
        self.data = Some(data);
        self.place = Place::Block;
        match entry {
            Some(entry) => Ok(Step::Ready(Some(entry))),
            None => self.step_in_block(ctx),
        }
    }

    /// A cursor before the first entry of the block that the index is on.
    fn current_block(&mut self, ctx: &mut ReadContext) -> Result<Step<BlockCursor>> {
        let Some((index, salt)) = &self.index else {
            return Ok(need(&self.table, Wanted::Index));
        };
        let handle = self.space.handle(&self.table, index)?;
        if let Some(block) = self.space.data(&self.table, handle, ctx) {
            let buffer = mem::take(&mut ctx.buffer);
            return Ok(Step::Ready(BlockCursor::new(block, buffer)));
        }
        let stop = |last_key: &[u8]| self.bounds.ends_before(last_key);
        let ahead = (ctx.readahead_bytes, stop);
        let handles = blocks_ahead(&self.space, &self.table, index, ahead)?;
        Ok(need(&self.table, Wanted::Data { salt: *salt, handles }))
    }

    fn step_in_block(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        loop {
            let Some(data) = &mut self.data else {
                match self.current_block(ctx)? {
                    Step::Ready(data) => self.data = Some(data),
                    Step::Need(what) => return Ok(Step::Need(what)),
                }
                continue;
            };
            let offset = data.block().offset();
            if self.space.placed(&self.table, offset, data.advance())? {
                let entry = self.space.placed(&self.table, offset, data.entry())?;
                return Ok(Step::Ready(Some(entry)));
            }
            let Some((index, _)) = &mut self.index else { return Ok(self.end(ctx)) };
            let index_offset = index.block().offset();
            if self.bounds.ends_before(index.key().0)
                || !self.space.placed(&self.table, index_offset, index.advance())?
            {
                return Ok(self.end(ctx));
            }
            if let Some(data) = self.data.take() {
                ctx.buffer = data.into_buffer();
            }
        }
    }
}

impl<E: Env> SortedIter for TableIter<E> {
    fn seek(&mut self, key: &[u8]) {
        self.place = Place::Seek(Bytes::copy_from_slice(key));
        self.data = None;
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        match &self.place {
            Place::Seek(from) => {
                let from = from.clone();
                self.start(&from, ctx)
            }
            Place::Block => self.step_in_block(ctx),
            Place::End => Ok(Step::Ready(None)),
        }
    }
}
