//! Writing: admission first, then the commit queue.

pub(crate) mod admission;
pub(crate) mod fork;
mod fork_copy;
pub(crate) mod log_limit;
pub(crate) mod queue;
pub(crate) mod relog;
pub(crate) mod segments;
pub(crate) mod stalls;

/// How one write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether the write is on the disk when it is acknowledged, so that it survives a power loss.
    /// Without it the write is *flushed*: handed to the operating system, so that it survives the
    /// death of the process; and it survives a power loss once a sync has covered it: that of a
    /// later synced write, of a flush, of `Db::sync` or `Db::close`, at the latest the interval
    /// sync (`sync_interval_ns`). Either way it keeps what it was promised when a later append or
    /// sync fails and when the disk is full, and a batch is there whole or not at all. Writes are
    /// acknowledged in the order of their numbers: a flushed one behind a synced one waits for it.
    /// `docs/durability.md` has the table, with the test of each line.
    pub sync: bool,
    /// The caller's own number for this write, given back in `Event::WriteSequenced`.
    pub tag: u64,
}

impl WriteOptions {
    /// Durable when acknowledged.
    pub fn synced() -> Self {
        Self { sync: true, tag: 0 }
    }
}
