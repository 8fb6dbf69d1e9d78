//! One operation of one tenant, by index: bytes are made only where they are needed.

/// One operation, as a tenant asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// When it is meant to arrive, in nanoseconds from the start; 0 in a closed loop and in a load.
    pub at_ns: u64,
    /// Who asks: an index into the workload's tenants.
    pub tenant: u32,
    /// What is asked.
    pub kind: OpKind,
}

/// What is asked. A key is an index below the tenant's `key_count`; keys sort as their indexes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Writes a value of the tenant's size.
    Put {
        /// The key's index.
        key: u64,
    },
    /// Reads one key.
    Get {
        /// The key's index.
        key: u64,
    },
    /// Deletes one key.
    Delete {
        /// The key's index.
        key: u64,
    },
    /// Reads entries in key order from one key on.
    Scan {
        /// The index of the key to start from.
        key: u64,
        /// How many entries at most.
        limit: u32,
        /// From that key down to smaller ones.
        reverse: bool,
    },
    /// Writes a value to a key that was not there before (or not for a long time).
    Insert {
        /// The key's index.
        key: u64,
    },
    /// Reads one key and writes it back with another value: one operation, one latency.
    ReadModifyWrite {
        /// The key's index.
        key: u64,
    },
}

/// The words for kinds of operations, in the order in which they are told.
pub const OP_NAMES: [&str; 6] = ["put", "get", "delete", "scan", "insert", "read-modify-write"];

impl Op {
    /// The key's index; where a scan starts.
    pub fn key(&self) -> u64 {
        match self.kind {
            OpKind::Put { key }
            | OpKind::Get { key }
            | OpKind::Delete { key }
            | OpKind::Scan { key, .. }
            | OpKind::Insert { key }
            | OpKind::ReadModifyWrite { key } => key,
        }
    }

    /// Whether it writes: anything but a get and a scan.
    pub fn is_write(&self) -> bool {
        !matches!(self.kind, OpKind::Get { .. } | OpKind::Scan { .. })
    }
}

impl OpKind {
    /// Its place among [`OP_NAMES`].
    pub fn place(&self) -> usize {
        match self {
            Self::Put { .. } => 0,
            Self::Get { .. } => 1,
            Self::Delete { .. } => 2,
            Self::Scan { .. } => 3,
            Self::Insert { .. } => 4,
            Self::ReadModifyWrite { .. } => 5,
        }
    }

    /// Its word in files and tables.
    pub fn name(&self) -> &'static str {
        OP_NAMES.get(self.place()).copied().unwrap_or_default()
    }
}
