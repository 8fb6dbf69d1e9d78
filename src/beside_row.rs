//! What a row says of what happens beside its load: tenants that come and go, and forks.

use serde::{Deserialize, Serialize};

use crate::number::Thousandths;
use crate::record::LatencyNs;

/// What became of tenants that came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChurnRow {
    /// Tenants that were created.
    pub created: u64,
    /// Tenants that were dropped.
    pub dropped: u64,
    /// Time to create one.
    pub create_ns: LatencyNs,
    /// Latency of their puts.
    pub put_ns: LatencyNs,
    /// Time to drop one, until its memory and the files of its own tree are given back.
    pub drop_ns: LatencyNs,
    /// Moves before a drop; not there where visitors do not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<MoveRow>,
}

/// What it took to move tenants out, each into a directory of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRow {
    /// Tenants that moved.
    pub moved: u64,
    /// Time until the copy was durable.
    pub latency_ns: LatencyNs,
    /// Bytes of tables that both directories name.
    pub linked_bytes: u64,
    /// Bytes of tables that were written anew.
    pub copied_bytes: u64,
    /// Entries of memtables that were written to the copy's log.
    pub logged_entries: u64,
}

/// What forks beside the load took and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRow {
    /// Forks that were asked for.
    pub asked: u64,
    /// Of them, those that were durable before the run was over.
    pub done: u64,
    /// Of them, those whose parent, a fork itself, was dropped meanwhile.
    pub lost: u64,
    /// Forks done in a second.
    pub per_s: Thousandths,
    /// Time from when one was due until it was durable.
    pub latency_ns: LatencyNs,
    /// Forks that were dropped.
    pub dropped: u64,
    /// Time to drop one.
    pub drop_ns: LatencyNs,
    /// Bytes of memtables that forks copied.
    pub copied_bytes: u64,
    /// Puts that went to forks.
    pub put_count: u64,
    /// Bytes of live tables over those of tables that `main` branches reach, means over samples.
    pub space_amplification: Thousandths,
    /// Bytes of tables that only forks reach, mean over samples.
    pub retained_bytes_mean: u64,
    /// Bytes of tables that only forks reach, most over samples.
    pub retained_bytes_max: u64,
}
