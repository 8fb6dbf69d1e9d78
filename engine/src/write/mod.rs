//! Writing: admission first, then the commit queue.

pub(crate) mod admission;
pub(crate) mod queue;
pub(crate) mod segments;

/// How one write is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether the write survives a power loss once it is acknowledged. Without it, the write
    /// survives the death of the process, and a power loss once a later sync, at the latest the
    /// interval sync, has covered it.
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
