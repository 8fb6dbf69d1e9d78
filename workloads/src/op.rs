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
    },
}

impl Op {
    /// The key's index; where a scan starts.
    pub fn key(&self) -> u64 {
        match self.kind {
            OpKind::Put { key }
            | OpKind::Get { key }
            | OpKind::Delete { key }
            | OpKind::Scan { key, .. } => key,
        }
    }

    /// Whether it writes: a put or a delete.
    pub fn is_write(&self) -> bool {
        matches!(self.kind, OpKind::Put { .. } | OpKind::Delete { .. })
    }
}
