//! Writes that apply together, across tenants too.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::layout::Place;
use crate::memtable;
use crate::types::{BranchId, KEY_BYTES_MAX, Kind, VALUE_BYTES_MAX, to_u64};

/// One write of a batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchOp {
    pub(crate) branch: BranchId,
    pub(crate) prefix_bytes: u8,
    pub(crate) kind: Kind,
    /// Bytes of the stored key at the start of `data`.
    pub(crate) key_bytes: u32,
    /// The stored key, then the value: shared by the log and the memtable.
    pub(crate) data: Bytes,
}

impl BatchOp {
    pub(crate) fn new(
        branch: (BranchId, Place),
        kind: Kind,
        key: &[u8],
        value: &[u8],
    ) -> Result<Self> {
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "a key of {} and a value of {} bytes; allowed are {KEY_BYTES_MAX} and \
                 {VALUE_BYTES_MAX}",
                key.len(),
                value.len()
            )));
        }
        let prefix = branch.1.prefix.as_ref().map_or(&[][..], |p| &p[..]);
        let key_bytes = prefix.len() + key.len();
        let mut data = BytesMut::with_capacity(key_bytes + value.len());
        data.put_slice(prefix);
        data.put_slice(key);
        data.put_slice(value);
        Ok(Self {
            branch: branch.0,
            prefix_bytes: u8::try_from(prefix.len()).unwrap_or(0),
            kind,
            key_bytes: u32::try_from(key_bytes).unwrap_or(u32::MAX),
            data: data.freeze(),
        })
    }

    /// What the budget is charged for it.
    pub(crate) fn charge(&self) -> u64 {
        let key = usize::try_from(self.key_bytes).unwrap_or(usize::MAX).min(self.data.len());
        memtable::charge(key, self.data.len() - key)
    }

    /// Bytes of the user's key and value.
    pub(crate) fn user_bytes(&self) -> u64 {
        to_u64(self.data.len()) - u64::from(self.prefix_bytes)
    }
}

/// A list of puts and deletes that become visible, and survive a crash, all or none.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) ops: Vec<BatchOp>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes in it.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it has no writes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What the budget will be charged for it, in bytes.
    pub fn charge(&self) -> u64 {
        self.ops.iter().map(BatchOp::charge).sum()
    }

    pub(crate) fn push(
        &mut self,
        branch: (BranchId, Place),
        kind: Kind,
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        self.ops.push(BatchOp::new(branch, kind, key, value)?);
        Ok(())
    }
}
