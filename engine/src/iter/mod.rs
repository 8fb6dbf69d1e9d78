//! Sorted iterators, forward in internal order (by key, then newest first) or strictly backward.
//!
//! An iterator is lazy and restartable. Its step is a plain function: where a part of a table is
//! not in memory it says so and stays where it is, and is asked again once the part was loaded. So
//! a step over cached blocks builds no future, and iterators are objects although their world is
//! not.
//!
//! Its direction is that of its [`ScanBounds`] and never changes. Backward, a key's oldest version
//! comes first: a source then needs to know nothing of other sources, not even of the next table of
//! its own run, and [`VisibleIter`] alone waits for the newest one that its reader sees.

pub mod bounds;
pub mod level;
pub mod merge;
pub mod table;
#[cfg(test)]
mod tests;
pub mod visible;

use core::fmt::Debug;

pub use self::bounds::{Edge, ScanBounds};
pub use self::level::LevelIter;
pub use self::merge::MergeIter;
pub use self::table::TableIter;
pub use self::visible::VisibleIter;
use crate::env::Env;
use crate::error::Result;
use crate::table::{ReadContext, Step, TableSpace};
use crate::types::Entry;

/// A sorted source of entries.
pub trait SortedIter: Debug + Send {
    /// The next step hands out the first entry behind the edge in the iterator's direction. An
    /// iterator that was never moved begins where its bounds do.
    fn seek(&mut self, edge: &Edge);

    /// The next entry, or `None` behind the last, again and again.
    ///
    /// # Errors
    ///
    /// `Corruption` where a block that was loaded makes no sense. The iterator did not move; asked
    /// again it fails again.
    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>>;
}

impl<I: SortedIter + ?Sized> SortedIter for Box<I> {
    fn seek(&mut self, edge: &Edge) {
        (**self).seek(edge);
    }

    fn next_step(&mut self, ctx: &mut ReadContext) -> Result<Step<Option<Entry>>> {
        (**self).next_step(ctx)
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
