//! Words that every row of the engine shares: ids, sequence numbers, internal keys and their order.

use core::cmp::Ordering;
use core::fmt;

use bytes::Bytes;

/// Nanoseconds on the clock of a world. Monotonic where it comes from `Env::now`.
pub type Nanos = u64;

/// Place in the one order of writes of a database; the first write has number 1.
pub type SeqNo = u64;

/// Number of a file in a database directory; never reused.
pub type FileNumber = u64;

/// The largest sequence number that fits beside the kind byte in an internal key.
pub const SEQ_MAX: SeqNo = (1 << 56) - 1;

/// Longest name of a tenant or a branch, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest user key, in bytes; a layout's key prefix comes on top.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One LSM tree: a memtable, immutable memtables, levels of SSTables. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub u64);

/// What a user reads and writes: `main` of a tenant or a fork of it. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId(pub u64);

/// One table: a byte range of a file. A file may hold several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Number of the file that holds the table.
    pub file: FileNumber,
    /// Where the table begins in its file, in bytes.
    pub offset: u64,
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}+{}", self.file, self.offset)
    }
}

/// What an entry says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has no value from here on: a tombstone.
    Delete = 0,
    /// The key has the entry's value from here on.
    Put = 1,
}

impl Kind {
    /// The kind with this byte, or `None` where no kind has it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Delete),
            1 => Some(Self::Put),
            _ => None,
        }
    }
}

/// One version of one key, as memtables, tables and iterators hand it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as its tree stores it: a layout's prefix, then the user's key.
    pub key: Bytes,
    /// Its place in the order of writes.
    pub seq: SeqNo,
    /// Put or delete.
    pub kind: Kind,
    /// The value; empty for a delete.
    pub value: Bytes,
}

impl Entry {
    /// Orders by key, then newest first: the order of memtables, tables and merges.
    pub fn cmp_internal(&self, other: &Self) -> Ordering {
        cmp_internal((&self.key, self.seq), (&other.key, other.seq))
    }
}

/// Orders (key, sequence number) by key, then newest first.
#[inline]
pub fn cmp_internal(a: (&[u8], SeqNo), b: (&[u8], SeqNo)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

/// A length as a number of bytes in a format or a view.
pub fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A number from a format or a view as an in-memory length; saturates where it does not fit.
pub fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
