//! What a client may ask for: data that a seed draws, a script spells and a case keeps.

use serde::{Deserialize, Serialize};

use super::Keys;

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Writes that go together.
    Write {
        /// Each write.
        writes: Vec<Write>,
        /// Durable when acknowledged.
        sync: bool,
    },
    /// Reads a key.
    Get {
        /// Number of the tenant's name.
        tenant: usize,
        /// Number of the key.
        key: u32,
    },
    /// Reads a range of keys, both ends included.
    Scan {
        /// Number of the tenant's name.
        tenant: usize,
        /// First key.
        from: u32,
        /// Last key.
        to: u32,
    },
    /// Reads some keys in one direction, as of now, and may go elsewhere in between.
    Query {
        /// Number of the tenant's name.
        tenant: usize,
        /// Which keys.
        keys: Keys,
        /// From the last key to the first.
        reverse: bool,
        /// Entries after which it goes to this key.
        seek: Option<(u32, u32)>,
    },
    /// Reads some keys in every way there is at one snapshot: the oldest that this client keeps, or one
    /// of now.
    Compare {
        /// Number of the tenant's name.
        tenant: usize,
        /// Which keys.
        keys: Keys,
        /// At the oldest snapshot, of whatever tenant it is.
        old: bool,
    },
    /// Compacts the tables that hold some keys.
    Compact {
        /// Number of the tenant's name.
        tenant: usize,
        /// Which keys; of a prefix, those from it on.
        keys: Keys,
    },
    /// Gives a tenant an extractor of its own, or that of the database.
    Extractor {
        /// Number of the tenant's name.
        tenant: usize,
        /// The extractor's name.
        extractor: Option<String>,
    },
    /// Takes a snapshot and keeps it; the oldest beyond three goes.
    Snapshot {
        /// Number of the tenant's name.
        tenant: usize,
    },
    /// Reads a key at every snapshot that this client keeps, and scans the oldest.
    Reread {
        /// Number of the key.
        key: u32,
    },
    /// Flushes a tenant's tree.
    Flush {
        /// Number of the tenant's name.
        tenant: usize,
    },
    /// Makes everything durable.
    Sync,
    /// Drops a tenant with all its branches.
    Drop {
        /// Number of the tenant's name.
        tenant: usize,
    },
    /// Drops one branch.
    DropBranch {
        /// Number of the branch's name.
        tenant: usize,
    },
    /// Forks a branch, where the new name is free.
    Fork {
        /// Number of the parent's name.
        tenant: usize,
        /// Number of the fork among the tenant's.
        fork: usize,
        /// What happens to the parent's memtable; none for what the option says.
        #[serde(default)]
        memtable: Option<String>,
    },
    /// Creates a tenant, where the name is free.
    Create {
        /// Number of the tenant's name.
        tenant: usize,
        /// The name of its own extractor.
        #[serde(default)]
        extractor: Option<String>,
    },
    /// Takes a tenant in from another directory, where the name is free; once in a run.
    Import {
        /// Number of the tenant's name.
        tenant: usize,
        /// The first of its keys.
        first: u32,
        /// How many keys it has.
        count: u32,
    },
    /// Does nothing for some virtual time.
    Sleep {
        /// How long.
        ns: u64,
    },
}

impl Op {
    /// About how many times longer than reading a key it may take.
    pub fn reads(&self) -> u64 {
        match self {
            Self::Compare { .. } | Self::Compact { .. } | Self::Import { .. } => 60,
            Self::Write { .. }
            | Self::Get { .. }
            | Self::Scan { .. }
            | Self::Query { .. }
            | Self::Snapshot { .. }
            | Self::Reread { .. }
            | Self::Flush { .. }
            | Self::Sync
            | Self::Drop { .. }
            | Self::DropBranch { .. }
            | Self::Fork { .. }
            | Self::Create { .. }
            | Self::Extractor { .. }
            | Self::Sleep { .. } => 1,
        }
    }

    /// Each name of a branch whose entries it reads, writes, flushes or compacts.
    pub(super) fn each_target(&mut self, mut change: impl FnMut(&mut usize)) {
        match self {
            Self::Write { writes, .. } => {
                for write in writes {
                    change(&mut write.tenant);
                }
            }
            Self::Get { tenant, .. }
            | Self::Scan { tenant, .. }
            | Self::Query { tenant, .. }
            | Self::Compare { tenant, .. }
            | Self::Compact { tenant, .. }
            | Self::Snapshot { tenant }
            | Self::Flush { tenant } => change(tenant),
            Self::Extractor { .. }
            | Self::Reread { .. }
            | Self::Sync
            | Self::Drop { .. }
            | Self::DropBranch { .. }
            | Self::Fork { .. }
            | Self::Create { .. }
            | Self::Import { .. }
            | Self::Sleep { .. } => {}
        }
    }
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Number of the tenant's name.
    pub tenant: usize,
    /// Number of the key.
    pub key: u32,
    /// Length of the value; none deletes.
    pub bytes: Option<u32>,
}
