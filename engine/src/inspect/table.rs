//! One file of tables, read without a manifest.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Env, File, IoClass};
use crate::error::{Error, Result};
use crate::table::block::BlockCursor;
use crate::table::context::Wanted;
use crate::table::format::{FOOTER_BYTES, Footer};
use crate::table::properties::TableProperties;
use crate::table::{Need, ReadContext, TableMeta, TableSpace, table_path};
use crate::types::{FileNumber, TableId, to_usize};
use crate::verify::check_table;

/// A data block as the index names it.
#[derive(Clone, Debug)]
pub struct BlockReport {
    /// Where it begins, counted from the start of its table.
    pub offset: u64,
    /// Its length without the trailer, as it is stored.
    pub bytes: u64,
    /// The last key in it.
    pub last_key: Bytes,
}

/// A table of a file.
#[derive(Clone, Debug)]
pub struct TableDump {
    /// What it says of itself.
    pub properties: TableProperties,
    /// Its data blocks, as far as the index is whole.
    pub blocks: Vec<BlockReport>,
    /// What of it is damaged.
    pub errors: Vec<Error>,
}

/// Every table in a file, in the order in which they lie there, and what could not be read. Each is
/// read and checked whole.
pub async fn tables<E: Env>(
    env: &E,
    dir: &Path,
    number: FileNumber,
) -> (Vec<TableDump>, Option<Error>) {
    let space = Arc::new(TableSpace::new(env.clone(), dir, 0, 1));
    let (mut found, damage) = tables_in(env, &space, number).await;
    found.reverse();
    let mut out = Vec::new();
    for properties in found {
        let table = Arc::new(properties.meta.clone());
        let mut errors = check_table(env, &space, &table, &mut |_| {}).await.errors;
        let mut blocks = Vec::new();
        if let Err(error) = read_index(&space, &table, &mut blocks).await
            && errors.is_empty()
        {
            errors.push(error);
        }
        out.push(TableDump { properties, blocks, errors });
    }
    (out, damage)
}

async fn read_index<E: Env>(
    space: &Arc<TableSpace<E>>,
    table: &Arc<TableMeta>,
    out: &mut Vec<BlockReport>,
) -> Result<()> {
    let mut ctx = ReadContext::bulk(IoClass::Read, 0);
    let need = Need { table: Arc::clone(table), what: Wanted::Index };
    space.load(need, &mut ctx).await?;
    let Some((index, _)) = space.index(table, &ctx) else { return Ok(()) };
    let mut cursor = BlockCursor::new(Arc::clone(&index.block), Vec::new());
    while space.placed(table, index.block.offset(), cursor.advance())? {
        let handle = space.handle(table, &cursor)?;
        let last_key = Bytes::copy_from_slice(cursor.key().0);
        out.push(BlockReport { offset: handle.offset, bytes: handle.bytes, last_key });
    }
    Ok(())
}

/// The tables in a file, the last one first: each footer says how long its table is.
pub(crate) async fn tables_in<E: Env>(
    env: &E,
    space: &TableSpace<E>,
    number: FileNumber,
) -> (Vec<TableProperties>, Option<Error>) {
    let mut out = Vec::new();
    let damage = find_tables(env, space, number, &mut out).await.err();
    (out, damage)
}

async fn find_tables<E: Env>(
    env: &E,
    space: &TableSpace<E>,
    number: FileNumber,
    out: &mut Vec<TableProperties>,
) -> Result<()> {
    let path = table_path(space.dir(), number);
    let file = env.open(&path).await?;
    let mut end = file.len();
    if end == 0 {
        return Err(Error::corruption(&path, 0, "a file of tables is empty"));
    }
    while end > 0 {
        let Some(at) = end.checked_sub(FOOTER_BYTES) else {
            return Err(Error::corruption(&path, 0, "a table shorter than a footer"));
        };
        let bytes = file.read_at(at, to_usize(FOOTER_BYTES), IoClass::Read).await?;
        let footer = Footer::decode(&bytes)
            .map_err(|damage| Error::corruption(&path, at + damage.at, damage.what))?;
        let start = end.checked_sub(footer.table_bytes).filter(|start| *start < at);
        let Some(offset) = start else {
            return Err(Error::corruption(&path, at, "the footer is that of another table"));
        };
        let id = TableId { file: number, offset };
        out.push(space.describe(id, footer.table_bytes).await?);
        end = offset;
    }
    Ok(())
}
