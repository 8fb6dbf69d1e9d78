//! Sorted iterators in internal order: by key, then newest first. They run forward.
//!
//! An iterator is lazy and restartable. Its step is a plain function: where a part of a table is
//! not in memory it says so and stays where it is, and is asked again once the part was loaded. So
//! a step over cached blocks builds no future, and iterators are objects although their world is
//! not.

pub mod level;
pub mod merge;
pub mod table;
#[cfg(test)]
mod tests;
pub mod visible;

use core::fmt::Debug;
use core::ops::Bound;

use bytes::Bytes;

pub use self::level::LevelIter;
pub use self::merge::MergeIter;
pub use self::table::TableIter;
pub use self::visible::VisibleIter;
use crate::env::Env;
use crate::error::Result;
use crate::table::{ReadContext, Step, TableSpace};
use crate::types::{Entry, SEQ_MAX, SeqNo};

/// A sorted source of entries.
pub trait SortedIter: Debug + Send {
    /// The next step hands out the first entry at or behind `key`. A new iterator begins at its
    /// first entry.
    fn seek(&mut self, key: &[u8]);

    /// The next entry, or `None` behind the last, again and again.
    ///
    /// # Errors
    ///
    /// `Corruption` where a block that was loaded makes no sense. The iterator did not move; asked
    /// again it fails again.
    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>>;
}

impl<I: SortedIter + ?Sized> SortedIter for Box<I> {
    fn seek(&mut self, key: &[u8]) {
        (**self).seek(key);
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        (**self).next_step(ctx)
    }
}

/// What a scan can touch. Sources use it to leave out tables and blocks, and may still hand out
/// entries outside of it; [`VisibleIter`] does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanBounds {
    /// Where keys end.
    pub upper: Bound<Bytes>,
    /// The largest sequence number that the scan sees.
    pub seq: SeqNo,
}

impl Default for ScanBounds {
    fn default() -> Self {
        Self { upper: Bound::Unbounded, seq: SEQ_MAX }
    }
}

impl ScanBounds {
    /// Whether a key lies past the upper bound.
    pub fn ends_before(&self, key: &[u8]) -> bool {
        match &self.upper {
            Bound::Included(upper) => key > &**upper,
            Bound::Excluded(upper) => key >= &**upper,
            Bound::Unbounded => false,
        }
    }
}

/// The next entry, loading what it needs.
///
/// # Errors
///
/// Those of [`SortedIter::next_step`] and [`TableSpace::load`]. The iterator did not move.
pub async fn next<E: Env, I: SortedIter + ?Sized>(
    iter: &mut I,
    space: &TableSpace<E>,
    ctx: &mut ReadContext,
) -> Result<Option<Entry>> {
    loop {
        match iter.next_step(ctx)? {
            Step::Ready(entry) => return Ok(entry),
            Step::Need(need) => space.load(need, ctx).await?,
        }
    }
}
