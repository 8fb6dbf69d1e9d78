//! One table, every byte of it: checksums, order, bounds, filter, index and properties.

use core::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::env::{Env, IoClass, Work};
use crate::error::{Error, Result};
use crate::table::block::{Block, BlockCursor};
use crate::table::context::Wanted;
use crate::table::filter::{Filter, filter_hash};
use crate::table::format::BlockHandle;
use crate::table::properties::TableProperties;
use crate::table::reader::blocks_ahead;
use crate::table::{Need, ReadContext, TableMeta, TableSpace, table_path};
use crate::types::{Entry, Kind, SeqNo, TableId, TreeId, cmp_internal, to_u64};

const READAHEAD_BYTES: u32 = 256 * 1024;

/// A table with more damage than this is not worth more words.
const ERRORS_MAX: usize = 64;

/// What was found in a table.
#[derive(Debug, Default)]
pub(crate) struct TableCheck {
    pub(crate) errors: Vec<Error>,
    /// Data blocks that were whole.
    pub(crate) blocks: u64,
    /// Entries in them.
    pub(crate) entries: u64,
}

/// What the entries of a table come to, to be held against its properties.
#[derive(Default)]
struct Contents {
    entries: u64,
    tombstones: u64,
    seqs: Option<(SeqNo, SeqNo)>,
    first: Option<Entry>,
    last: Option<Entry>,
}

struct Walk<'a, E: Env> {
    space: &'a Arc<TableSpace<E>>,
    table: &'a Arc<TableMeta>,
    ctx: ReadContext,
    filter: Option<Arc<Filter>>,
    contents: Contents,
    out: TableCheck,
}

/// Reads all of a table past the caches and hands every entry that is whole to `each`.
pub(crate) async fn check_table<E: Env>(
    env: &E,
    space: &Arc<TableSpace<E>>,
    table: &Arc<TableMeta>,
    each: &mut dyn FnMut(&Entry),
) -> TableCheck {
    let ctx = ReadContext::bulk(IoClass::Read, READAHEAD_BYTES);
    let (contents, out) = (Contents::default(), TableCheck::default());
    let mut walk = Walk { space, table, ctx, filter: None, contents, out };
    if let Err(error) = walk.run(env, each).await {
        walk.out.errors.push(error);
    }
    walk.out
}

impl<E: Env> Walk<'_, E> {
    fn complain(&mut self, offset: u64, what: impl Into<String>) {
        let path = table_path(self.space.dir(), self.table.id.file);
        let offset = self.table.id.offset.saturating_add(offset);
        self.out.errors.push(Error::corruption(&path, offset, what));
    }

    /// # Errors
    ///
    /// What makes it pointless to go on: no footer or no index.
    async fn run(&mut self, env: &E, each: &mut dyn FnMut(&Entry)) -> Result<()> {
        let (space, table) = (Arc::clone(self.space), Arc::clone(self.table));
        let need = |what| Need { table: Arc::clone(&table), what };
        // First, so that damage to the footer is told once.
        space.load(need(Wanted::Index), &mut self.ctx).await?;
        let Some((index, _)) = space.index(&table, &self.ctx) else { return Ok(()) };
        match space.load(need(Wanted::Filter), &mut self.ctx).await {
            Ok(()) => self.filter = space.filter(&table, &self.ctx).map(|(filter, _)| filter),
            Err(error) => self.out.errors.push(error),
        }
        let properties = match space.properties(&table, &mut self.ctx).await {
            Ok(properties) => Some(properties),
            Err(error) => {
                self.out.errors.push(error);
                None
            }
        };
        if properties.as_ref().is_some_and(|p| p.meta != *table) {
            self.complain(0, "the table's properties are not what the manifest says");
        }
        self.ctx.unpin(&table);
        self.walk_blocks(env, (&index.block, index.salt), properties.as_ref(), each).await?;
        self.ctx.unpin(&table);
        if self.out.errors.is_empty() {
            self.check_contents();
        }
        Ok(())
    }

    async fn walk_blocks(
        &mut self,
        env: &E,
        (index, salt): (&Arc<Block>, u64),
        properties: Option<&TableProperties>,
        each: &mut dyn FnMut(&Entry),
    ) -> Result<()> {
        let mut cursor = BlockCursor::new(Arc::clone(index), Vec::new());
        let mut end = 0;
        while self.space.placed(self.table, index.offset(), cursor.advance())? {
            if self.out.errors.len() >= ERRORS_MAX {
                return Ok(());
            }
            let handle = self.space.handle(self.table, &cursor)?;
            if handle.offset != end {
                let what = format!("the index leaves a gap: a data block ends at byte {end}");
                self.complain(handle.offset, what);
            }
            end = handle.end().unwrap_or(u64::MAX);
            match self.block(&cursor, salt, handle).await {
                Ok(block) => self.check_block(env, block, cursor.key(), each),
                Err(error) => self.out.errors.push(error),
            }
        }
        if let Some(said) = properties.map(|p| p.sizes.data_bytes)
            && said != end
        {
            self.complain(end, format!("data blocks end here, and not at byte {said}"));
        }
        Ok(())
    }

    /// The data block under a cursor of the index.
    async fn block(
        &mut self,
        cursor: &BlockCursor,
        salt: u64,
        handle: BlockHandle,
    ) -> Result<Arc<Block>> {
        let need = |handles| {
            let table = Arc::clone(self.table);
            Need { table, what: Wanted::Data { salt, handles } }
        };
        if let Some(block) = self.space.data(self.table, handle, &mut self.ctx) {
            return Ok(block);
        }
        let ahead = (READAHEAD_BYTES, |_: &[u8]| false);
        // A bad block further ahead must not count against this one.
        if let Ok(handles) = blocks_ahead(self.space, self.table, cursor, ahead) {
            drop(self.space.load(need(handles), &mut self.ctx).await);
        }
        if let Some(block) = self.space.data(self.table, handle, &mut self.ctx) {
            return Ok(block);
        }
        self.space.load(need(vec![handle]), &mut self.ctx).await?;
        self.space.data(self.table, handle, &mut self.ctx).ok_or_else(|| {
            Error::corruption(&table_path(self.space.dir(), self.table.id.file), 0, "no block")
        })
    }

    /// Every entry of a block; the first fault ends it.
    fn check_block(
        &mut self,
        env: &E,
        block: Arc<Block>,
        index_key: (&[u8], u64),
        each: &mut dyn FnMut(&Entry),
    ) {
        let offset = block.offset();
        let mut cursor = BlockCursor::new(block, core::mem::take(&mut self.ctx.buffer));
        let mut ends_with = None;
        loop {
            let step = match cursor.advance() {
                Ok(false) => break,
                Ok(true) => cursor.entry(),
                Err(damage) => Err(damage),
            };
            let entry = match self.space.placed(self.table, offset, step) {
                Ok(entry) => entry,
                Err(error) => {
                    self.out.errors.push(error);
                    return;
                }
            };
            env.charge(Work::ScanEntry);
            if let Some(what) = self.fault_of(&entry) {
                self.complain(offset, what);
                return;
            }
            each(&entry);
            self.out.entries += 1;
            self.contents.add(entry);
            ends_with = Some(cursor.key().1);
        }
        let last = self.contents.last.as_ref().map(|e| &*e.key);
        if (last, ends_with) != (Some(index_key.0), Some(index_key.1)) {
            self.complain(offset, "the index names another key than the block's last");
            return;
        }
        self.out.blocks += 1;
        self.ctx.buffer = cursor.into_buffer();
    }

    fn fault_of(&self, entry: &Entry) -> Option<&'static str> {
        let table = self.table;
        let ascends = self.contents.last.as_ref().is_none_or(|last| {
            cmp_internal((&last.key, last.seq), (&entry.key, entry.seq)) == Ordering::Less
        });
        if !ascends {
            Some("entries do not ascend")
        } else if entry.key < table.smallest || entry.key > table.largest {
            Some("an entry's key lies outside the table's range of keys")
        } else if !(table.min_seq..=table.max_seq).contains(&entry.seq) {
            Some("an entry's sequence number lies outside the table's range")
        } else if entry.kind == Kind::Delete && !entry.value.is_empty() {
            Some("a tombstone has a value")
        } else if self.filter.as_ref().is_some_and(|f| !f.may_contain(filter_hash(&entry.key))) {
            Some("the filter rules out a key that the block holds")
        } else {
            None
        }
    }

    /// Properties against contents; only where all of the contents were read.
    fn check_contents(&mut self) {
        let table = self.table;
        let found = &self.contents;
        let key = |entry: &Option<Entry>| entry.as_ref().map(|e| e.key.clone());
        let bounds = (key(&found.first), key(&found.last));
        let what = if (found.entries, found.tombstones) != (table.entries, table.tombstones) {
            format!(
                "{} entries, {} of them tombstones, are not its own",
                found.entries, found.tombstones
            )
        } else if bounds != (Some(table.smallest.clone()), Some(table.largest.clone())) {
            "its keys do not begin and end as it says".to_owned()
        } else if found.seqs != Some((table.min_seq, table.max_seq)) {
            "its sequence numbers do not begin and end as it says".to_owned()
        } else {
            return;
        };
        self.complain(0, what);
    }
}

impl Contents {
    fn add(&mut self, entry: Entry) {
        self.entries += 1;
        self.tombstones += u64::from(entry.kind == Kind::Delete);
        let (low, high) = self.seqs.unwrap_or((entry.seq, entry.seq));
        self.seqs = Some((low.min(entry.seq), high.max(entry.seq)));
        if self.first.is_none() {
            self.first = Some(entry.clone());
        }
        self.last = Some(entry);
    }
}

/// Levels below L0 are sorted runs: their tables must be in key order and apart.
pub(crate) fn overlaps<'a>(
    levels: impl Iterator<Item = &'a [Arc<TableMeta>]>,
) -> Vec<(Arc<TableMeta>, String)> {
    let mut out = Vec::new();
    for (level, tables) in levels.enumerate().skip(1) {
        for pair in tables.array_windows::<2>() {
            let [before, table] = pair;
            if before.largest >= table.smallest {
                let what =
                    format!("at level {} it is not behind table {}", to_u64(level), before.id);
                out.push((Arc::clone(table), what));
            }
        }
    }
    out
}

/// Tables that begin before another one of their file ends, with their tree; from the length and
/// the tree of each table.
pub(super) fn shared_bytes(
    extents: &BTreeMap<TableId, (u64, TreeId)>,
) -> Vec<(TableId, TreeId, String)> {
    let mut out = Vec::new();
    let mut before: Option<(TableId, u64)> = None;
    for (id, (bytes, tree)) in extents {
        let end = id.offset.saturating_add(*bytes);
        match before.filter(|(other, _)| other.file == id.file) {
            Some((other, its_end)) if its_end > id.offset => {
                let what = format!("it begins before table {other} ends, at byte {its_end}");
                out.push((*id, *tree, what));
                before = Some((other, its_end.max(end)));
            }
            Some(_) | None => before = Some((*id, end)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_share_bytes_of_a_file_are_told() {
        let table = |file, offset, bytes| (TableId { file, offset }, (bytes, TreeId(bytes)));
        let apart = [table(1, 0, 10), table(1, 10, 5), table(1, 20, 7), table(2, 5, 8)];
        assert_eq!(shared_bytes(&apart.into()), []);
        let shared = [table(1, 0, 30), table(1, 10, 5), table(1, 20, 7), table(1, 30, 8)];
        let found: Vec<u64> = shared_bytes(&shared.into()).iter().map(|(_, t, _)| t.0).collect();
        assert_eq!(found, [5, 7]);
    }
}
