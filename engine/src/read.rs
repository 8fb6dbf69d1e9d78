//! Reading: memtable, immutables, L0, levels; newest first for a key, merged for a range.
//!
//! A read takes the tree's view first and the visible number after it: whatever was published when
//! the read began is in the view, and what is newer than the number is passed over. The other way
//! round, a flush between the two could have dropped the one version that the number still needs.

use core::mem;
use core::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::{Env, IoClass, Work};
use crate::error::{Error, Result};
use crate::iter::visible::VisibleIter;
use crate::iter::{self, Edge, LevelIter, MergeIter, ScanBounds, SortedIter, TableIter};
use crate::layout::Place;
use crate::memtable::iter::MemtableIter;
use crate::shared::Shared;
use crate::table::{ReadContext, ReadStats, Step};
use crate::types::{Entry, Kind, SeqNo, to_u64};
use crate::version::tree::{Branch, Tree, TreeView};

/// How far a point read of a tree has come. What lies before has no version for it and is not asked
/// again once a part of the next table was loaded: with a small cache it would be read again.
#[derive(Debug, Default)]
struct Asked {
    memtables: bool,
    level: usize,
    // Tables of the level.
    tables: usize,
}

/// The newest visible version of a key in one tree, as far as memory knows; a plain function.
fn get_step<E: Env>(
    shared: &Shared<E>,
    view: &TreeView,
    (key, seq): (&[u8], SeqNo),
    (asked, ctx): (&mut Asked, &mut ReadContext),
) -> Result<Step<Option<Entry>>> {
    if !asked.memtables {
        for memtable in view.memtable.iter().chain(&view.immutables) {
            if let Some(entry) = memtable.get(key, seq) {
                return Ok(Step::Ready(Some(entry)));
            }
        }
        asked.memtables = true;
    }
    while let Some(tables) = view.version.levels.get(asked.level) {
        let next = match (asked.level, asked.tables) {
            (0, at) => tables.get(at),
            (_, 0) => tables.get(tables.partition_point(|t| *t.largest < *key)),
            (_, _) => None,
        };
        let Some(table) = next else {
            *asked = Asked { memtables: true, level: asked.level + 1, tables: 0 };
            continue;
        };
        match shared.space.get_step(table, key, seq, ctx)? {
            Step::Ready(None) => asked.tables += 1,
            step @ (Step::Ready(Some(_)) | Step::Need(_)) => return Ok(step),
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
        let mut asked = Asked::default();
        let found = loop {
            match get_step(shared, &view, (stored, seq), (&mut asked, &mut ctx))? {
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

/// Everything of a tree that a scan may touch, newest source first, and how many tables its bounds
/// rule out.
pub(crate) fn sources<E: Env>(
    shared: &Shared<E>,
    view: &TreeView,
    bounds: &ScanBounds,
) -> (MergeIter, u64) {
    let mut sources: Vec<Box<dyn SortedIter>> = Vec::new();
    for memtable in view.memtable.iter().chain(&view.immutables) {
        let memtable = Arc::clone(memtable);
        sources.push(Box::new(if bounds.reverse {
            MemtableIter::reverse(memtable)
        } else {
            MemtableIter::new(memtable)
        }));
    }
    let mut ruled_out = 0;
    for (level, tables) in view.version.levels.iter().enumerate() {
        let touched: Vec<_> = tables.iter().filter(|t| bounds.touches(t)).cloned().collect();
        ruled_out += to_u64(tables.len() - touched.len());
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
    let merge = if bounds.reverse { MergeIter::reverse(sources) } else { MergeIter::new(sources) };
    (merge, ruled_out)
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
        let (lower, upper) = edges(place, (Bound::Unbounded, Bound::Unbounded));
        let seq = shared.visible_seq();
        let bounds = ScanBounds { lower, upper, seq, ..ScanBounds::default() };
        let (mut iter, _) = sources(shared, &view, &bounds);
        iter.seek(bounds.start());
        let mut ctx = ReadContext::of(IoClass::Read, branch.id);
        while let Some(entry) = iter::next(&mut iter, &shared.space, &mut ctx).await? {
            if bounds.is_past(&entry.key) {
                break;
            }
            out.push(Entry { key: place.user_key(&entry.key), ..entry });
        }
    }
    Ok(out)
}

/// The edges of a range of a branch's keys, in its tree.
pub(crate) fn edges(place: &Place, (lower, upper): (Bound<&[u8]>, Bound<&[u8]>)) -> (Edge, Edge) {
    let lower = match lower {
        Bound::Included(key) => Edge::Before(place.key(key)),
        Bound::Excluded(key) => Edge::behind(&place.key(key)),
        Bound::Unbounded => Edge::Before(place.key(&[])),
    };
    let upper = match upper {
        Bound::Included(key) => Edge::behind(&place.key(key)),
        Bound::Excluded(key) => Edge::Before(place.key(key)),
        Bound::Unbounded => place.end().map_or(Edge::End, Edge::Before),
    };
    (lower, upper)
}

/// The edges around all keys of a branch that begin with a prefix.
pub(crate) fn prefix_edges(place: &Place, prefix: &[u8]) -> (Edge, Edge) {
    let stored = place.key(prefix);
    let upper = Edge::behind_prefix(&stored);
    (Edge::Before(stored), upper)
}

/// A running scan in one direction: pins what it reads until it is dropped.
///
/// It reads single blocks, none ahead, so that [`stats`](Self::stats) count what it needed. At its
/// start, and after each seek, it loads one data block of each table of level 0 and of one table of
/// each deeper level, less those that their keys, sequence numbers or filters rule out. In reverse
/// an entry is known to be a key's newest once the entry before it was looked at.
#[derive(Debug)]
pub struct Scan<E: Env> {
    shared: Arc<Shared<E>>,
    place: Place,
    bounds: ScanBounds,
    iter: VisibleIter<MergeIter>,
    ctx: ReadContext,
    // Tables outside of the bounds, which are not even sources, and how many of them the next step
    // has to count.
    ruled_out: u64,
    uncounted: u64,
    /// Held so that no file that the scan may still read is removed.
    _view: Arc<TreeView>,
}

impl<E: Env> Scan<E> {
    pub(crate) fn new(
        shared: &Arc<Shared<E>>,
        branch: &Branch,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        (reverse, at): (bool, Option<SeqNo>),
    ) -> Result<Self> {
        Self::between(shared, branch, |place| edges(place, range), (reverse, at))
    }

    pub(crate) fn of_prefix(
        shared: &Arc<Shared<E>>,
        branch: &Branch,
        prefix: &[u8],
        (reverse, at): (bool, Option<SeqNo>),
    ) -> Result<Self> {
        Self::between(shared, branch, |place| prefix_edges(place, prefix), (reverse, at))
    }

    fn between(
        shared: &Arc<Shared<E>>,
        branch: &Branch,
        edges: impl FnOnce(&Place) -> (Edge, Edge),
        (reverse, at): (bool, Option<SeqNo>),
    ) -> Result<Self> {
        let Some((tree, place)) = branch.places.first() else { return Err(Error::Dropped) };
        let view = Tree::view(tree);
        check_readable(shared, branch)?;
        let seq = at.unwrap_or_else(|| shared.visible_seq());
        let (lower, upper) = edges(place);
        let bounds = ScanBounds { lower, upper, seq, reverse, prefix: None };
        let bounds = bounds.with_extractor(tree.prefix_extractor());
        let (merged, ruled_out) = sources(shared, &view, &bounds);
        let mut scan = Self {
            shared: Arc::clone(shared),
            place: *place,
            iter: VisibleIter::new(merged, bounds.clone()),
            bounds,
            ctx: ReadContext::of(IoClass::Read, branch.id),
            ruled_out,
            uncounted: 0,
            _view: view,
        };
        let start = scan.bounds.start().clone();
        scan.seek_edge(&start);
        Ok(scan)
    }

    fn seek_edge(&mut self, edge: &Edge) {
        self.iter.seek(edge);
        self.ctx.unpin_all();
        self.uncounted = self.ruled_out;
    }

    fn count_ruled_out(&mut self) {
        let count = mem::take(&mut self.uncounted);
        self.ctx.stats.tables_considered += count;
        self.ctx.stats.tables_ruled_out_by_bounds += count;
    }

    /// Moves to a key of the scan's range: the next entry is that of the first key at or behind
    /// it, in reverse of the last key at or before it. Outside of the range it moves to the nearer
    /// end. Nothing is loaded yet.
    pub fn seek(&mut self, key: &[u8]) {
        let stored = self.place.key(key);
        let edge = if self.bounds.reverse { Edge::behind(&stored) } else { Edge::Before(stored) };
        let lower = edge.max(self.bounds.lower.clone());
        self.seek_edge(&lower.min(self.bounds.upper.clone()));
    }

    /// Loads what the first entry is chosen from, one block for each sorted run that the range can
    /// touch. Without it the first [`next`](Self::next) does; [`stats`](Self::stats) then count
    /// both.
    ///
    /// # Errors
    ///
    /// The world's or `Corruption`; the scan did not move.
    pub async fn start(&mut self) -> Result<()> {
        self.count_ruled_out();
        loop {
            match self.iter.source_mut().fill(&mut self.ctx)? {
                Step::Ready(()) => return Ok(()),
                Step::Need(need) => self.shared.space.load(need, &mut self.ctx).await?,
            }
        }
    }

    /// The next key and value, in key order or in reverse key order; `None` at the end.
    ///
    /// # Errors
    ///
    /// The world's or `Corruption`; the scan did not move.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.shared.env.charge(Work::ScanEntry);
        self.count_ruled_out();
        let next = iter::next(&mut self.iter, &self.shared.space, &mut self.ctx).await?;
        Ok(next.map(|entry| (self.place.user_key(&entry.key), entry.value)))
    }

    /// What the scan has cost so far.
    pub fn stats(&self) -> &ReadStats {
        &self.ctx.stats
    }
}
