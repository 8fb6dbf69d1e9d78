//! Bugs that can be planted in the simulated world, to show that the checker finds them.
//!
//! They live in the world, never in the engine: a device that forgets a sync, a scheduler that is
//! not seeded, a client that reads its neighbour. `forebay fuzz --bug NAME` must fail with each of
//! them.

use core::fmt;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A sync of a `*.wal` file does nothing and says Ok.
    WalSkipSync,
    /// A sync of a `*.sst` file does nothing and says Ok.
    TableSkipSync,
    /// A sync of a directory does nothing and says Ok.
    DirSkipSync,
    /// The client harness sends a tenant's read to another tenant.
    CrossTenant,
    /// A sync of a `*.sst` or `*.wal` file never ends.
    StuckIo,
    /// The scheduler and latencies take entropy that no seed decides.
    Unseeded,
    /// A bit of what is read flips for good, and no fault is recorded.
    HiddenRot,
    /// The client harness drops the last entry of a reverse scan.
    ShortReverse,
    /// The client harness drops an entry of a prefix scan, as a filter that lies would.
    PrefixGap,
    /// A removal of a `*.sst` or `*.wal` file does nothing and says Ok.
    LeakedFile,
    /// The client harness keeps writes of all tenants but the busiest one waiting, as a queue that is
    /// not fair would.
    ColdWaits,
    /// The filesystem never says that there is more space than there once was.
    StaleFree,
    /// What fails of a `*.wal` file fails in silence.
    SwallowedSync,
    /// Once a sector of some table is lost, the sync of another table never ends.
    SickNeighbour,
    /// Once a database is being closed, the sync of a `*.wal` file never ends.
    StuckClose,
    /// Handles of files are never given back.
    LeakedHandle,
    /// The client harness takes no notice of errors of reads.
    DeafClient,
    /// The reader behind a recovery loses a write that newer ones outlived.
    GapInPrefix,
    /// The reader behind a recovery shows what was deleted.
    Undelete,
    /// The client harness sends reads of a fork to its parent.
    ForkSeesParent,
    /// A sync of a `*.sst` or `*.wal` file asks again and again, and never ends.
    SpinIo,
    /// The lock of a process that died is never given back.
    StaleLock,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 22] = [
        Self::WalSkipSync,
        Self::TableSkipSync,
        Self::DirSkipSync,
        Self::CrossTenant,
        Self::StuckIo,
        Self::Unseeded,
        Self::HiddenRot,
        Self::ShortReverse,
        Self::PrefixGap,
        Self::LeakedFile,
        Self::ColdWaits,
        Self::StaleFree,
        Self::SwallowedSync,
        Self::SickNeighbour,
        Self::StuckClose,
        Self::LeakedHandle,
        Self::DeafClient,
        Self::GapInPrefix,
        Self::Undelete,
        Self::ForkSeesParent,
        Self::SpinIo,
        Self::StaleLock,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::WalSkipSync => "wal-skip-sync",
            Self::TableSkipSync => "table-skip-sync",
            Self::DirSkipSync => "dir-skip-sync",
            Self::CrossTenant => "cross-tenant",
            Self::StuckIo => "stuck-io",
            Self::Unseeded => "unseeded",
            Self::HiddenRot => "hidden-rot",
            Self::ShortReverse => "short-reverse",
            Self::PrefixGap => "prefix-gap",
            Self::LeakedFile => "leaked-file",
            Self::ColdWaits => "cold-waits",
            Self::StaleFree => "stale-free",
            Self::SwallowedSync => "swallowed-sync",
            Self::SickNeighbour => "sick-neighbour",
            Self::StuckClose => "stuck-close",
            Self::LeakedHandle => "leaked-handle",
            Self::DeafClient => "deaf-client",
            Self::GapInPrefix => "gap-in-prefix",
            Self::Undelete => "undelete",
            Self::ForkSeesParent => "fork-sees-parent",
            Self::SpinIo => "spin-io",
            Self::StaleLock => "stale-lock",
        }
    }

    /// What it does, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::WalSkipSync => "a sync of the write-ahead log does nothing",
            Self::TableSkipSync => "a sync of an SSTable does nothing",
            Self::DirSkipSync => "a sync of a directory does nothing",
            Self::CrossTenant => "a client reads another tenant's key",
            Self::StuckIo => "one sync never ends",
            Self::Unseeded => "the scheduler uses entropy that no seed decides",
            Self::HiddenRot => "a bit on disk flips, and the harness does not know",
            Self::ShortReverse => "a client loses the last entry of a reverse scan",
            Self::PrefixGap => "a client loses an entry of a prefix scan",
            Self::LeakedFile => "a removal of a table or a segment does nothing",
            Self::ColdWaits => "writes of all tenants but the busiest wait for minutes",
            Self::StaleFree => "the filesystem never says that space is back",
            Self::SwallowedSync => "a call on the write-ahead log fails and says Ok",
            Self::SickNeighbour => "one lost sector stops the syncs of all tables",
            Self::StuckClose => "the log's sync never ends once the database is being closed",
            Self::LeakedHandle => "handles of files are never given back",
            Self::DeafClient => "a client takes no notice of errors of reads",
            Self::GapInPrefix => "recovery loses a write that newer ones outlived",
            Self::Undelete => "recovery shows what was deleted",
            Self::ForkSeesParent => "reads of a fork go to its parent",
            Self::SpinIo => "one sync asks again and again",
            Self::StaleLock => "the lock of a process that died is never given back",
        }
    }

    /// The bug of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
