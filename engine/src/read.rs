//! Reading: memtable, immutables, L0, levels; newest first for a key, merged for a range.
//!
//! A read takes the tree's view first and the visible number after it: whatever was published when
//! the read began is in the view, and what is newer than the number is passed over. The other way
//! round, a flush between the two could have dropped the one version that the number still needs.

use core::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Env, IoClass, Work};
use crate::error::{Error, Result};
use crate::iter::visible::VisibleIter;
use crate::iter::{self, LevelIter, MergeIter, ScanBounds, SortedIter, TableIter};
use crate::layout::Place;
use crate::memtable::iter::MemtableIter;
use crate::shared::Shared;
use crate::table::{ReadContext, ReadStats, Step, TableMeta};
use crate::types::{Entry, Kind, SeqNo, to_u64};
use crate::version::tree::{Branch, Tree, TreeView};

/// The newest visible version of a key in one tree, as far as memory knows; a plain function.
fn get_step<E: Env>(
    shared: &Shared<E>,
    view: &TreeView,
    (key, seq): (&[u8], SeqNo),
    ctx: &mut ReadContext,
) -> Result<Step<Option<Entry>>> {
    let memtables = view.memtable.iter().chain(&view.immutables);
    for memtable in memtables {
        if let Some(entry) = memtable.get(key, seq) {
            return Ok(Step::Ready(Some(entry)));
        }
    }
    for (level, tables) in view.version.levels.iter().enumerate() {
        let first = if level == 0 { 0 } else { tables.partition_point(|t| *t.largest < *key) };
        for table in tables.get(first..).unwrap_or_default() {
            match shared.space.get_step(table, key, seq, ctx)? {
                Step::Ready(Some(entry)) => return Ok(Step::Ready(Some(entry))),
                Step::Ready(None) => {}
                Step::Need(need) => return Ok(Step::Need(need)),
            }
            if level > 0 {
                break;
            }
        }
    }
    Ok(Step::Ready(None))
}

/// The value of a key, at a snapshot's number or now, with what it cost.
///
/// # Errors
///
/// `Dropped`, `Closed`, the world's, or `Corruption` of a table that may hold the key.
pub(crate) async fn get<E: Env>(
    shared: &Shared<E>,
    branch: &Branch,
    key: &[u8],
    at: Option<SeqNo>,
) -> Result<(Option<Bytes>, ReadStats)> {
    shared.env.charge(Work::PointRead);
    let mut ctx = ReadContext::of(IoClass::Read, branch.id);
    for (tree, place) in &branch.places {
        let view = tree.view();
        // Behind the view: a drop empties it.
        check_readable(shared, branch)?;
        let seq = at.unwrap_or_else(|| shared.visible_seq());
        let owned;
        let stored = if place.prefix.is_none() {
            key
        } else {
            owned = place.key(key);
            &owned
        };
        let found = loop {
            match get_step(shared, &view, (stored, seq), &mut ctx)? {
                Step::Ready(found) => break found,
                Step::Need(need) => shared.space.load(need, &mut ctx).await?,
            }
        };
        if let Some(entry) = found {
            return Ok(((entry.kind == Kind::Put).then_some(entry.value), ctx.stats));
        }
    }
    Ok((None, ctx.stats))
}

fn check_readable<E: Env>(shared: &Shared<E>, branch: &Branch) -> Result<()> {
    if shared.is_closing() {
        return Err(Error::Closed);
    }
    if branch.is_dropped() { Err(Error::Dropped) } else { Ok(()) }
}

/// Whether a scan may find keys of its range in a table.
fn touches((from, bounds): (&Bytes, &ScanBounds), table: &TableMeta) -> bool {
    !bounds.ends_before(&table.smallest) && table.largest >= *from
}

/// Everything of a tree that a scan may touch, newest source first.
pub(crate) fn sources<E: Env>(
    shared: &Shared<E>,
    view: &TreeView,
    (from, bounds): (&Bytes, &ScanBounds),
) -> Vec<Box<dyn SortedIter>> {
    let mut sources: Vec<Box<dyn SortedIter>> = Vec::new();
    for memtable in view.memtable.iter().chain(&view.immutables) {
        sources.push(Box::new(MemtableIter::new(Arc::clone(memtable))));
    }
    let in_range =
        |smallest: &[u8], largest: &[u8]| !bounds.ends_before(smallest) && *largest >= **from;
    for (level, tables) in view.version.levels.iter().enumerate() {
        let touched: Vec<_> =
            tables.iter().filter(|t| in_range(&t.smallest, &t.largest)).cloned().collect();
        if level == 0 {
            for table in touched {
                let space = Arc::clone(&shared.space);
                sources.push(Box::new(TableIter::new(space, table, bounds.clone())));
            }
        } else if !touched.is_empty() {
            let space = Arc::clone(&shared.space);
            sources.push(Box::new(LevelIter::new(space, touched, bounds.clone())));
        }
    }
    sources
}

/// Every version of every key of a branch, in internal order, its keys as the user knows them.
pub(crate) async fn entries<E: Env>(
    shared: &Arc<Shared<E>>,
    branch: &Branch,
) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for (tree, place) in &branch.places {
        let view = tree.view();
        check_readable(shared, branch)?;
        let from = place.key(&[]);
        let upper = place.end().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = ScanBounds { upper, seq: shared.visible_seq() };
        let mut iter = MergeIter::new(sources(shared, &view, (&from, &bounds)));
        iter.seek(&from);
        let mut ctx = ReadContext::of(IoClass::Read, branch.id);
        while let Some(entry) = iter::next(&mut iter, &shared.space, &mut ctx).await? {
            if bounds.ends_before(&entry.key) {
                break;
            }
            out.push(Entry { key: place.user_key(&entry.key), ..entry });
        }
    }
    Ok(out)
}

/// A running scan: pins what it reads until it is dropped.
#[derive(Debug)]
pub struct Scan<E: Env> {
    shared: Arc<Shared<E>>,
    place: Place,
    iter: VisibleIter<MergeIter>,
    ctx: ReadContext,
    /// Held so that no file that the scan may still read is removed.
    _view: Arc<TreeView>,
}

impl<E: Env> Scan<E> {
    pub(crate) fn new(
        shared: &Arc<Shared<E>>,
        branch: &Branch,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        at: Option<SeqNo>,
    ) -> Result<Self> {
        let Some((tree, place)) = branch.places.first() else { return Err(Error::Dropped) };
        let view = Tree::view(tree);
        check_readable(shared, branch)?;
        let seq = at.unwrap_or_else(|| shared.visible_seq());
        let from = match lower {
            Bound::Included(key) => place.key(key),
            // The smallest key behind `key` is `key` with a zero byte.
            Bound::Excluded(key) => place.key(&[key, &[0]].concat()),
            Bound::Unbounded => place.key(&[]),
        };
        let upper = match upper {
            Bound::Included(key) => Bound::Included(place.key(key)),
            Bound::Excluded(key) => Bound::Excluded(place.key(key)),
            Bound::Unbounded => place.end().map_or(Bound::Unbounded, Bound::Excluded),
        };
        let bounds = ScanBounds { upper, seq };
        let mut ctx = ReadContext::of(IoClass::Read, branch.id);
        // Tables outside of the range are not even sources: they are counted here.
        let out = view.version.tables().filter(|(_, t)| !touches((&from, &bounds), t)).count();
        ctx.stats.tables_considered = to_u64(out);
        ctx.stats.tables_ruled_out_by_bounds = to_u64(out);
        let merged = MergeIter::new(sources(shared, &view, (&from, &bounds)));
        let mut iter = VisibleIter::new(merged, bounds);
        iter.seek(&from);
        Ok(Self { shared: Arc::clone(shared), place: *place, iter, ctx, _view: view })
    }

    /// Loads what the first entry is chosen from, one block for each sorted run that the range can
    /// touch. Without it the first [`next`](Self::next) does; [`stats`](Self::stats) then count
    /// both.
    ///
    /// # Errors
    ///
    /// The world's or `Corruption`; the scan did not move.
    pub async fn start(&mut self) -> Result<()> {
        loop {
            match self.iter.source_mut().fill(&mut self.ctx)? {
                Step::Ready(()) => return Ok(()),
                Step::Need(need) => self.shared.space.load(need, &mut self.ctx).await?,
            }
        }
    }

    /// The next key and value, in key order; `None` at the end.
    ///
    /// # Errors
    ///
    /// The world's or `Corruption`; the scan did not move.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.shared.env.charge(Work::ScanEntry);
        let next = iter::next(&mut self.iter, &self.shared.space, &mut self.ctx).await?;
        Ok(next.map(|entry| (self.place.user_key(&entry.key), entry.value)))
    }

    /// What the scan has cost so far.
    pub fn stats(&self) -> &ReadStats {
        &self.ctx.stats
    }
}
