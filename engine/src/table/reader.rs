//! Reads tables: plain functions over what is in memory, and one async function that loads the
//! rest.
//!
//! A read that finds all it needs never builds a future. One that does not gets a [`Need`], awaits
//! [`TableSpace::load`] and asks again; what was loaded is pinned in its context until the read has
//! used it, so that this ends although the cache may be too small for a single block.

use core::fmt;
use core::mem;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, BlockCursor};
use super::context::{Need, ReadContext, Step, Tail, Wanted};
use super::filter::{Filter, filter_hash};
use super::format::{
    BLOCK_BYTES_MAX, BlockHandle, Damage, FOOTER_BYTES, Footer, TRAILER_BYTES, open_block,
    seek_suffix,
};
use super::properties::TableProperties;
use super::{TableMeta, table_path};
use crate::cache::{BlockCache, FileCache, Index, Part, PartKey};
use crate::env::{Env, File, IoClass, Work};
use crate::error::{Error, Result};
use crate::prefix::TreeExtractor;
use crate::types::{Entry, FileNumber, SeqNo, TableId, to_u64, to_usize};

/// Bytes at the end of a table that are read with its footer: a small table's filter and index lie
/// there too and need no read of their own.
pub const TAIL_BYTES: u64 = 16 << 10;

/// The tables of a database directory, with the caches that their readers share.
pub struct TableSpace<E: Env> {
    env: E,
    dir: PathBuf,
    blocks: BlockCache,
    files: FileCache<E::File>,
}

impl<E: Env> fmt::Debug for TableSpace<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSpace")
            .field("dir", &self.dir)
            .field("blocks", &self.blocks)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<E: Env> TableSpace<E> {
    /// The tables below `dir`, with empty caches.
    pub fn new(env: E, dir: &Path, block_cache_bytes: u64, open_tables_max: u32) -> Self {
        Self {
            env,
            dir: dir.to_owned(),
            blocks: BlockCache::new(block_cache_bytes),
            files: FileCache::new(open_tables_max),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cache of blocks, for its counters.
    pub fn block_cache(&self) -> &BlockCache {
        &self.blocks
    }

    /// Files that are kept open.
    pub fn open_count(&self) -> usize {
        self.files.open_count()
    }

    /// Forgets a file that is about to be removed: its blocks and its handle.
    pub fn purge_file(&self, file: FileNumber) {
        self.blocks.purge_file(file);
        self.files.purge_file(file);
    }

    /// Forgets a table of a file that stays.
    pub fn purge_table(&self, table: &TableMeta) {
        let last = table.id.offset.saturating_add(table.bytes.saturating_sub(1));
        self.blocks.purge(table.id.file, (table.id.offset, last));
    }

    /// The newest version of `key` in a table with a number up to `seq`, tombstones included.
    ///
    /// # Errors
    ///
    /// `Corruption` where a block that was loaded makes no sense; nothing was changed.
    pub fn get_step(
        &self,
        table: &Arc<TableMeta>,
        key: &[u8],
        seq: SeqNo,
        ctx: &mut ReadContext,
    ) -> Result<Step<Option<Entry>>> {
        let in_bounds = (&*table.smallest..=&*table.largest).contains(&key);
        if !in_bounds || table.min_seq > seq {
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_bounds += u64::from(!in_bounds);
            ctx.stats.tables_ruled_out_by_seq += u64::from(in_bounds);
            return Ok(Step::Ready(None));
        }
        let step = self.search(table, key, seq, ctx);
        if !matches!(step, Ok(Step::Need(_))) {
            ctx.unpin(table);
        }
        step
    }

    fn search(
        &self,
        table: &Arc<TableMeta>,
        key: &[u8],
        seq: SeqNo,
        ctx: &mut ReadContext,
    ) -> Result<Step<Option<Entry>>> {
        let Some((filter, filter_cached)) = self.filter(table, ctx) else {
            return Ok(need(table, Wanted::Filter));
        };
        if !filter.may_contain(filter_hash(key)) {
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_filter += 1;
            ctx.stats.filter_blocks_cached += u64::from(filter_cached);
            return Ok(Step::Ready(None));
        }
        let Some((index, index_cached)) = self.index(table, ctx) else {
            return Ok(need(table, Wanted::Index));
        };
        let step = self.find(table, &index, (key, seek_suffix(seq)), ctx)?;
        // Counted at the end, since a step that needs a part asks for all of them again.
        if matches!(step, Step::Ready(_)) {
            ctx.stats.tables_considered += 1;
            ctx.stats.filter_blocks_cached += u64::from(filter_cached);
            ctx.stats.index_blocks_cached += u64::from(index_cached);
        }
        Ok(step)
    }

    fn find(
        &self,
        table: &Arc<TableMeta>,
        index: &Index,
        (key, suffix): (&[u8], u64),
        ctx: &mut ReadContext,
    ) -> Result<Step<Option<Entry>>> {
        let buffer = mem::take(&mut ctx.buffer);
        let mut cursor = BlockCursor::new(Arc::clone(&index.block), buffer);
        if !self.placed(table, index.block.offset(), cursor.seek(key, suffix))? {
            ctx.buffer = cursor.into_buffer();
            return Ok(Step::Ready(None));
        }
        let handle = self.handle(table, &cursor)?;
        let buffer = cursor.into_buffer();
        let Some(block) = self.data(table, handle, ctx) else {
            ctx.buffer = buffer;
            return Ok(need(table, Wanted::Data { salt: index.salt, handles: vec![handle] }));
        };
        let mut cursor = BlockCursor::new(block, buffer);
        let mut found = None;
        if self.placed(table, handle.offset, cursor.seek(key, suffix))? && cursor.key().0 == key {
            found = Some(self.placed(table, handle.offset, cursor.entry())?);
        }
        ctx.buffer = cursor.into_buffer();
        Ok(Step::Ready(found))
    }

    /// Whether a table may hold a key with this prefix: what
    /// [`of_scan`](TreeExtractor::of_scan) of the tree's extractor made of a scan's stored prefix.
    /// It costs the filter block at most. The filter also knows which extractor its table was
    /// written with: under another one, or without a filter, the answer is true.
    ///
    /// Where the answer is false the table has been counted, as considered and as ruled out.
    pub fn may_hold_prefix(
        &self,
        table: &Arc<TableMeta>,
        (extractor, prefix): (&TreeExtractor, &[u8]),
        ctx: &mut ReadContext,
    ) -> Step<bool> {
        let Some((filter, cached)) = self.filter(table, ctx) else {
            return need(table, Wanted::Filter);
        };
        let held = filter.may_contain_prefix(extractor, prefix);
        ctx.stats.filter_blocks_cached += u64::from(cached);
        if held {
            // What was read with the filter is of use for the index.
            ctx.pinned.remove(&table.filter_key());
        } else {
            ctx.unpin(table);
            ctx.stats.tables_considered += 1;
            ctx.stats.tables_ruled_out_by_prefix += 1;
        }
        Step::Ready(held)
    }

    /// As [`get_step`](Self::get_step), loading what it needs.
    ///
    /// # Errors
    ///
    /// Those of `get_step` and [`load`](Self::load).
    pub async fn get(
        &self,
        table: &Arc<TableMeta>,
        key: &[u8],
        seq: SeqNo,
        ctx: &mut ReadContext,
    ) -> Result<Option<Entry>> {
        loop {
            match self.get_step(table, key, seq, ctx)? {
                Step::Ready(found) => return Ok(found),
                Step::Need(what) => self.load(what, ctx).await?,
            }
        }
    }

    /// Reads, checks and decodes a part, puts it in the cache where the context says so, and pins
    /// it in the context.
    ///
    /// # Errors
    ///
    /// Those of the files, or `Corruption` where the bytes are not those of this table. Nothing but
    /// the caches was changed; asking again reads again.
    pub async fn load(&self, need: Need, ctx: &mut ReadContext) -> Result<()> {
        let loaded = self.load_part(need, ctx).await;
        if loaded.is_err() {
            // Read from the file again: the tail may be where the damage is.
            ctx.tail = None;
        }
        loaded
    }

    async fn load_part(&self, need: Need, ctx: &mut ReadContext) -> Result<()> {
        let table = &need.table;
        match need.what {
            Wanted::Filter => {
                let footer = self.footer(table, ctx).await?;
                let filter = if footer.filter.bytes == 0 {
                    Filter::pass()
                } else {
                    let content = self.read_block(table, footer.salt, footer.filter, ctx).await?;
                    ctx.stats.filter_blocks_read += 1;
                    self.placed(table, footer.filter.offset, Filter::decode(&content))?
                        .with_extractor(&footer.extractor)
                };
                self.keep(table.filter_key(), Part::Filter(Arc::new(filter)), ctx);
            }
            Wanted::Index => {
                let footer = self.footer(table, ctx).await?;
                let content = self.read_block(table, footer.salt, footer.index, ctx).await?;
                ctx.stats.index_blocks_read += 1;
                let offset = footer.index.offset;
                let block = Arc::new(self.placed(table, offset, Block::decode(offset, content))?);
                let index = Index { block, salt: footer.salt };
                ctx.tail = None;
                self.keep(table.index_key(), Part::Index(Arc::new(index)), ctx);
            }
            Wanted::Data { salt, handles } => self.load_data(table, salt, &handles, ctx).await?,
        }
        Ok(())
    }

    async fn load_data(
        &self,
        table: &TableMeta,
        salt: u64,
        handles: &[BlockHandle],
        ctx: &mut ReadContext,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (handles.first(), handles.last()) else {
            return Ok(());
        };
        let span = BlockHandle {
            offset: first.offset,
            bytes: last.offset.saturating_add(last.bytes).saturating_sub(first.offset),
        };
        let bytes = self.read(table, (span, first.offset), ctx.class).await?;
        for handle in handles {
            let start = to_usize(handle.offset.saturating_sub(first.offset));
            let end = start.saturating_add(to_usize(handle.bytes + TRAILER_BYTES));
            let with_trailer = bytes.slice(start.min(bytes.len())..end.min(bytes.len()));
            let opened = open_block(salt, handle.offset, &with_trailer);
            let mut content = self.placed(table, handle.offset, opened)?;
            self.env.charge(Work::DecodeBlock(to_u64(content.len())));
            if handles.len() > 1 && ctx.fill_cache {
                // A slice would keep all of the read alive for one block in the cache.
                content = Bytes::copy_from_slice(&content);
            }
            let block = Block::decode(handle.offset, content);
            let block = Arc::new(self.placed(table, handle.offset, block)?);
            ctx.stats.data_blocks_read += 1;
            self.keep(table.data_key(*handle), Part::Data(block), ctx);
        }
        Ok(())
    }

    /// What the table says of itself.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub async fn properties(
        &self,
        table: &TableMeta,
        ctx: &mut ReadContext,
    ) -> Result<TableProperties> {
        let footer = self.footer(table, ctx).await?;
        let content = self.read_block(table, footer.salt, footer.properties, ctx).await?;
        ctx.unpin(table);
        let properties = TableProperties::decode(&content, table.id, table.bytes);
        self.placed(table, footer.properties.offset, properties)
    }

    /// What a manifest would hold of the table at this place of a file, from the table alone.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub async fn describe(&self, id: TableId, bytes: u64) -> Result<TableProperties> {
        let mut ctx = ReadContext::bulk(IoClass::Read, 0);
        let unknown = TableMeta { id, bytes, ..TableMeta::default() };
        let footer = self.read_footer(&unknown, &mut ctx).await?;
        let known = TableMeta { tree: footer.tree, entries: footer.entries, ..unknown };
        self.check_footer(&known, &footer)?;
        let content = self.read_block(&known, footer.salt, footer.properties, &ctx).await?;
        let properties = TableProperties::decode(&content, id, bytes);
        self.placed(&known, footer.properties.offset, properties)
    }

    async fn footer(&self, table: &TableMeta, ctx: &mut ReadContext) -> Result<Arc<Footer>> {
        if let Some((Part::Footer(footer), _)) = self.lookup(table.footer_key(), ctx) {
            return Ok(footer);
        }
        let footer = self.read_footer(table, ctx).await?;
        self.check_footer(table, &footer)?;
        self.check_account(table, &footer, ctx)?;
        let footer = Arc::new(footer);
        self.keep(table.footer_key(), Part::Footer(Arc::clone(&footer)), ctx);
        Ok(footer)
    }

    async fn read_footer(&self, table: &TableMeta, ctx: &mut ReadContext) -> Result<Footer> {
        let Some(footer_offset) = table.bytes.checked_sub(FOOTER_BYTES) else {
            return Err(self.damaged(table, 0, &Damage::new(0, "a table shorter than a footer")));
        };
        let len = table.bytes.min(TAIL_BYTES);
        let offset = table.bytes - len;
        let span = BlockHandle { offset, bytes: len - TRAILER_BYTES };
        let bytes = self.read(table, (span, footer_offset), ctx.class).await?;
        ctx.stats.footers_read += 1;
        let footer = bytes.get(to_usize(footer_offset - offset)..).unwrap_or_default();
        let footer = self.placed(table, footer_offset, Footer::decode(footer))?;
        ctx.tail = Some(Tail { footer_key: table.footer_key(), offset, bytes });
        Ok(footer)
    }

    fn check_footer(&self, table: &TableMeta, footer: &Footer) -> Result<()> {
        let known = (table.bytes, table.tree, table.entries);
        let fits = [footer.filter, footer.index, footer.properties];
        let what = if known != (footer.table_bytes, footer.tree, footer.entries) {
            "the footer is that of another table"
        } else if !fits.iter().all(|handle| handle.fits(table.bytes)) {
            "the footer names a block outside the table"
        } else {
            return Ok(());
        };
        let offset = table.bytes.saturating_sub(FOOTER_BYTES);
        Err(self.damaged(table, offset, &Damage::new(0, what)))
    }

    /// What the table says of itself, where it came with the footer: a whole table that landed on
    /// another one of its tree, entry count and length has a footer that fits.
    fn check_account(&self, table: &TableMeta, footer: &Footer, ctx: &ReadContext) -> Result<()> {
        let at = footer.properties;
        let Some(bytes) = ctx.tail.as_ref().and_then(|tail| tail.block(at)) else { return Ok(()) };
        let content = self.placed(table, at.offset, open_block(footer.salt, at.offset, &bytes))?;
        let account = TableProperties::decode(&content, table.id, table.bytes);
        if self.placed(table, at.offset, account)?.meta == *table {
            return Ok(());
        }
        Err(self.damaged(table, at.offset, &Damage::new(0, "the properties are another table's")))
    }

    /// The content of a block whose handle was checked.
    async fn read_block(
        &self,
        table: &TableMeta,
        salt: u64,
        handle: BlockHandle,
        ctx: &ReadContext,
    ) -> Result<Bytes> {
        let tail = ctx.tail.as_ref().filter(|tail| tail.footer_key == table.footer_key());
        let bytes = match tail.and_then(|tail| tail.block(handle)) {
            Some(bytes) => bytes,
            None => self.read(table, (handle, handle.offset), ctx.class).await?,
        };
        let content = self.placed(table, handle.offset, open_block(salt, handle.offset, &bytes))?;
        self.env.charge(Work::DecodeBlock(to_u64(content.len())));
        Ok(content)
    }

    /// A range of the table with a trailer behind it. Where the file ends before, the part at
    /// `wanted` is missing.
    async fn read(
        &self,
        table: &TableMeta,
        (span, wanted): (BlockHandle, u64),
        class: IoClass,
    ) -> Result<Bytes> {
        let file = self.file(table.id.file).await?;
        let offset = table.id.offset.saturating_add(span.offset);
        let len = span.bytes.min(2 * BLOCK_BYTES_MAX).saturating_add(TRAILER_BYTES);
        // What lies beside the table in its file may be another tenant's.
        if span.offset.saturating_add(len) > table.bytes {
            let what = "a part of the table would end outside it";
            return Err(self.damaged(table, wanted, &Damage::new(0, what)));
        }
        match file.read_at(offset, to_usize(len), class).await {
            Err(Error::Io { kind: io::ErrorKind::UnexpectedEof, .. }) => {
                let what = format!("the file ends at byte {}, inside the table", file.len());
                Err(self.damaged(table, wanted, &Damage::new(0, what)))
            }
            other => other,
        }
    }

    async fn file(&self, number: FileNumber) -> Result<Arc<E::File>> {
        if let Some(file) = self.files.get(number) {
            return Ok(file);
        }
        let file = Arc::new(self.env.open(&table_path(&self.dir, number)).await?);
        self.files.insert(number, Arc::clone(&file));
        Ok(file)
    }

    fn keep(&self, key: PartKey, part: Part, ctx: &mut ReadContext) {
        if ctx.fill_cache {
            self.blocks.insert(key, part.clone(), ctx.owner);
        }
        ctx.pinned.insert(key, part);
    }

    /// A part in memory, and whether it came from the cache.
    fn lookup(&self, key: PartKey, ctx: &ReadContext) -> Option<(Part, bool)> {
        match ctx.pinned.get(&key) {
            Some(part) => Some((part.clone(), false)),
            None => Some((self.blocks.get(&key)?, true)),
        }
    }

    pub(crate) fn filter(
        &self,
        table: &TableMeta,
        ctx: &ReadContext,
    ) -> Option<(Arc<Filter>, bool)> {
        match self.lookup(table.filter_key(), ctx) {
            Some((Part::Filter(filter), cached)) => Some((filter, cached)),
            _ => None,
        }
    }

    /// The index where it is in memory, and whether it came from the cache.
    pub(crate) fn index(&self, table: &TableMeta, ctx: &ReadContext) -> Option<(Arc<Index>, bool)> {
        match self.lookup(table.index_key(), ctx) {
            Some((Part::Index(index), cached)) => Some((index, cached)),
            _ => None,
        }
    }

    /// A data block in memory. The context lets go of it.
    pub(crate) fn data(
        &self,
        table: &TableMeta,
        handle: BlockHandle,
        ctx: &mut ReadContext,
    ) -> Option<Arc<Block>> {
        let key = table.data_key(handle);
        let (part, cached) = self.lookup(key, ctx)?;
        let Part::Data(block) = part else { return None };
        ctx.pinned.remove(&key);
        ctx.stats.data_blocks_cached += u64::from(cached);
        Some(block)
    }

    /// The handle under a cursor of an index, checked against the table.
    pub(crate) fn handle(&self, table: &TableMeta, cursor: &BlockCursor) -> Result<BlockHandle> {
        let index_offset = cursor.block().offset();
        let handle = self.placed(table, index_offset, cursor.handle())?;
        if handle.fits(table.bytes) {
            return Ok(handle);
        }
        let what = "the index names a block outside the table";
        Err(self.damaged(table, index_offset, &Damage::new(0, what)))
    }

    /// Names the file and the offset in it where the part at `offset` of a table is damaged.
    pub(crate) fn placed<T>(
        &self,
        table: &TableMeta,
        offset: u64,
        result: core::result::Result<T, Damage>,
    ) -> Result<T> {
        result.map_err(|damage| self.damaged(table, offset, &damage))
    }

    fn damaged(&self, table: &TableMeta, offset: u64, damage: &Damage) -> Error {
        let offset = table.id.offset.saturating_add(offset).saturating_add(damage.at);
        Error::corruption(&table_path(&self.dir, table.id.file), offset, damage.what.clone())
    }
}

pub(crate) fn need<T>(table: &Arc<TableMeta>, what: Wanted) -> Step<T> {
    Step::Need(Need { table: Arc::clone(table), what })
}

/// Consecutive blocks from `cursor` on, up to `bytes` together; at least the first.
pub(crate) fn blocks_ahead<E: Env>(
    space: &TableSpace<E>,
    table: &TableMeta,
    cursor: &BlockCursor,
    (bytes, stop): (u32, impl Fn(&[u8]) -> bool),
) -> Result<Vec<BlockHandle>> {
    let first = space.handle(table, cursor)?;
    let mut handles = vec![first];
    let mut end = first.end();
    let bytes_max = u64::from(bytes).min(BLOCK_BYTES_MAX);
    let mut ahead = cursor.clone();
    let index_offset = cursor.block().offset();
    while end.is_some_and(|end| end - first.offset < bytes_max)
        && !stop(ahead.key().0)
        && space.placed(table, index_offset, ahead.advance())?
    {
        let next = space.handle(table, &ahead)?;
        if Some(next.offset) != end || next.bytes > bytes_max {
            break;
        }
        end = next.end();
        handles.push(next);
    }
    Ok(handles)
}
