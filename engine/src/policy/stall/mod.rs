//! Stall policies: whether a write goes on, is delayed or stops.
//!
//! A write asks, waits as told, and asks again until it is admitted. A policy never has to see to
//! it that a stop ends: that something runs which ends it is the engine's duty. A new one is a file
//! here and a line in [`LIST`].

mod cockroach;
mod hard;
mod kudu;
mod leveldb;
mod none;
mod rocksdb;
mod scylla;
mod tikv;

use core::fmt::Debug;

use crate::error::Result;
use crate::policy::view::{Admission, IoShares, LoadView, TreeChange, WriteView};
use crate::policy::{self, PolicyInfo, PolicySpec};
use crate::types::Nanos;

/// Answers writes.
pub trait StallPolicy: Debug + Send {
    /// Says whether this write goes on. Takes constant time.
    ///
    /// A policy that delays must let a write go on that has waited for what it was told to, unless
    /// a stop holds. Where the answer names another tree than the view's, the policy must have
    /// been told of that tree, and must forget it when it hears that it is dropped.
    fn decide(&mut self, view: &WriteView) -> Admission;

    /// A tree changed: it was opened, sealed, flushed, compacted or dropped. Returns whether the
    /// delays given before may end now, so that those who serve them are to ask again.
    fn observe(&mut self, _change: &TreeChange) -> bool {
        false
    }

    /// How flushes and compactions are to share the device from now on; `None` for no change.
    /// Asked at most once in [`SHARES_NS`].
    fn shares(&mut self, _view: &LoadView) -> Option<IoShares> {
        None
    }

    /// The same policy with the same state.
    fn clone_box(&self) -> Box<dyn StallPolicy>;
}

impl Clone for Box<dyn StallPolicy> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// How often a policy may change the device's shares.
pub const SHARES_NS: Nanos = 50_000_000;

/// A line of [`LIST`].
pub type Entry = policy::Entry<dyn StallPolicy>;

/// Every stall policy, in the order of results.
pub const LIST: &[Entry] = &[
    none::ENTRY,
    hard::ENTRY,
    leveldb::ENTRY,
    rocksdb::ENTRY,
    tikv::ENTRY,
    cockroach::ENTRY,
    kudu::ENTRY,
    scylla::ENTRY,
];

/// What each stall policy is.
pub fn list() -> impl Iterator<Item = &'static PolicyInfo> {
    LIST.iter().map(|entry| &entry.info)
}

/// Makes a stall policy without state.
///
/// # Errors
///
/// `InvalidArgument` for an unknown name or parameter, naming those there are, or for a value out
/// of its bounds. Nothing was changed.
pub fn build(spec: &PolicySpec) -> Result<Box<dyn StallPolicy>> {
    policy::build("stall", LIST, spec)
}
