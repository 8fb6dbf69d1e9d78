//! A branch out of a tree that branches share: its entries, and no other branch's, in new tables.

use std::sync::Arc;

use super::cut::{Cut, TreeCut};
use super::{TablesOf, Target};
use crate::env::{Env, File, IoClass, Work};
use crate::error::Result;
use crate::iter::{self, Edge, MergeIter, ScanBounds, SortedIter, TableIter, VisibleIter};
use crate::memtable::iter::MemtableIter;
use crate::shared::Shared;
use crate::table::{ReadContext, TableBuilder, TableFormat, TableMeta, table_path};
use crate::types::{FileNumber, TableId};
use crate::version::LEVEL_COUNT;
use crate::version::tree::Branch;

const PIECE_BYTES: u64 = 1024 * 1024;
/// For each of many sources.
const READAHEAD_BYTES: u32 = 64 * 1024;

struct Output<E: Env> {
    builder: TableBuilder,
    file: E::File,
    number: FileNumber,
}

/// Writes what is visible of a branch at the cut as one sorted run, for the last level of the copy's
/// tree. Nothing older lies below, so that tombstones and old versions are left out.
///
/// # Errors
///
/// The world's, `Corruption` of a table. Files may be left.
pub(super) async fn tables_of<E: Env>(
    shared: &Shared<E>,
    target: &Target<E>,
    (cut, tree, branch): (&Cut, &TreeCut, &Branch),
) -> Result<TablesOf> {
    let Some((home, place)) = branch.places.first() else { return Ok(Vec::new()) };
    let format = shared.table_format(home);
    let lower = Edge::before(&place.key(&[]));
    let upper = place.end().map_or(Edge::End, Edge::Before);
    let bounds = ScanBounds { lower, upper, seq: cut.seq, ..ScanBounds::default() };
    let mut sources: Vec<Box<dyn SortedIter>> = Vec::new();
    for memtable in &tree.memtables {
        sources.push(Box::new(MemtableIter::new(Arc::clone(memtable))));
    }
    for (_, table) in tree.version.tables().filter(|(_, t)| bounds.touches(t)) {
        let (space, table) = (Arc::clone(&shared.space), Arc::clone(table));
        sources.push(Box::new(TableIter::new(space, table, bounds.clone())));
    }
    let mut visible = VisibleIter::new(MergeIter::new(sources), bounds.clone());
    visible.seek(&bounds.lower);
    let mut ctx = ReadContext::bulk(IoClass::Compaction, READAHEAD_BYTES);
    let (mut out, mut open) = (Vec::new(), None::<Output<E>>);
    let level = u32::try_from(LEVEL_COUNT.saturating_sub(1)).unwrap_or(0);
    while let Some(entry) = iter::next(&mut visible, &shared.space, &mut ctx).await? {
        shared.env.charge(Work::MergeEntry);
        let full =
            |o: &mut Output<E>| o.builder.estimated_bytes() >= shared.options.table_bytes_max;
        if let Some(done) = open.take_if(full) {
            out.push((level, finish(done).await?));
        }
        let to = match &mut open {
            Some(output) => output,
            None => open.insert(begin(target, tree, format).await?),
        };
        to.builder.add(&entry)?;
        if to.builder.finished_bytes() >= PIECE_BYTES {
            to.file.append(&to.builder.take_output(), IoClass::Compaction).await?;
        }
    }
    if let Some(done) = open {
        out.push((level, finish(done).await?));
    }
    Ok(out)
}

async fn begin<E: Env>(
    target: &Target<E>,
    tree: &TreeCut,
    format: TableFormat,
) -> Result<Output<E>> {
    let number = target.new_number();
    let file = target.env.create(&table_path(&target.dir, number)).await?;
    Ok(Output { builder: TableBuilder::new(tree.id, format), file, number })
}

async fn finish<E: Env>(output: Output<E>) -> Result<TableMeta> {
    let Output { builder, file, number } = output;
    let finished = builder.finish()?;
    file.append(&finished.rest, IoClass::Compaction).await?;
    file.sync_all(IoClass::Compaction).await?;
    Ok(finished.meta(TableId { file: number, offset: 0 }))
}
