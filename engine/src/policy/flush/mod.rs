//! Flush policies: whose memtable is flushed next.
//!
//! All of them say *when* by the same rule, [`Shortage`], and differ in *whom* they name, so that a
//! comparison of two compares their victims. A new one is a file here and a line in [`LIST`].

mod delta_fair;
mod dynamic_threshold;
mod hybrid;
mod kudu;
mod largest;
mod linear;
mod lru;
mod oldest_write;
mod rates;
mod round_robin;
mod shortage;
mod sqrt;

use core::fmt::Debug;

use crate::error::Result;
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{self, PolicyInfo, PolicySpec};

pub use shortage::Shortage;

/// Chooses trees whose memtable is sealed and flushed.
pub trait FlushPolicy: Debug + Send {
    /// Names the next victims. Asked on writes, at the end of a flush and at `wake_at`; takes
    /// constant time while memory is not short.
    fn decide(&mut self, view: &FlushView) -> FlushDecision;

    /// The same policy with the same state.
    fn clone_box(&self) -> Box<dyn FlushPolicy>;
}

impl Clone for Box<dyn FlushPolicy> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// A line of [`LIST`].
pub type Entry = policy::Entry<dyn FlushPolicy>;

/// Every flush policy, in the order of results.
pub const LIST: &[Entry] = &[
    largest::ENTRY,
    oldest_write::ENTRY,
    kudu::ENTRY,
    round_robin::ENTRY,
    linear::ENTRY,
    sqrt::ENTRY,
    dynamic_threshold::ENTRY,
    delta_fair::ENTRY,
    hybrid::ENTRY,
    lru::ENTRY,
];

/// What each flush policy is.
pub fn list() -> impl Iterator<Item = &'static PolicyInfo> {
    LIST.iter().map(|entry| &entry.info)
}

/// Makes a flush policy without state.
///
/// # Errors
///
/// `InvalidArgument` for an unknown name or parameter, naming those there are, or for a value out
/// of its bounds. Nothing was changed.
pub fn build(spec: &PolicySpec) -> Result<Box<dyn FlushPolicy>> {
    policy::build("flush", LIST, spec)
}

#[cfg(test)]
mod tests;
