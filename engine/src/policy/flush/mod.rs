//! Flush policies: whose memtable is flushed next.
//!
//! Most of them say *when* by the same rule, [`Shortage`], and differ in *whom* they name, so that a
//! comparison of two compares their victims. Those whose source has a trigger of its own keep that
//! one; they lack the parameter `trigger_ratio`. A new one is a file here and a line in [`LIST`].

mod above_mean_oldest;
mod above_mean_tick;
mod delta_fair;
mod dynamic_threshold;
mod hbase;
mod hybrid;
mod kudu;
mod largest;
mod linear;
mod lru;
mod oldest_write;
mod random;
mod rates;
mod round_robin;
mod scylla;
mod shortage;
mod sqrt;
mod static_split;
mod wal_anchor;
mod wbm_creation;

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
    static_split::ENTRY,
    wbm_creation::ENTRY,
    largest::ENTRY,
    oldest_write::ENTRY,
    wal_anchor::ENTRY,
    scylla::ENTRY,
    hbase::ENTRY,
    above_mean_tick::ENTRY,
    above_mean_oldest::ENTRY,
    kudu::ENTRY,
    round_robin::ENTRY,
    linear::ENTRY,
    sqrt::ENTRY,
    dynamic_threshold::ENTRY,
    delta_fair::ENTRY,
    hybrid::ENTRY,
    lru::ENTRY,
    random::ENTRY,
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
