//! One sorted in-memory table: a lock-free skip list of entries.
//!
//! Keyed by (key, descending sequence number): a delete appends a tombstone, deleting twice appends
//! two, and nothing is ever changed in place. An entry owns its bytes, key and value in one
//! allocation, and its charge includes the node, so that no tiny entry pins memory which the budget
//! thinks free.

pub mod iter;

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::ops::Bound;
use core::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::collections::BTreeMap;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use parking_lot::Mutex;

use crate::types::{BranchId, Entry, Kind, Nanos, SeqNo, to_u64, to_usize};

/// What an entry is charged beyond its key and value: the skip list's node and the allocations.
pub const ENTRY_OVERHEAD_BYTES: u64 = 112;

/// What an entry of these bytes is charged to the budget. Charge and release both use this.
pub fn charge(key_bytes: usize, value_bytes: usize) -> u64 {
    to_u64(key_bytes) + to_u64(value_bytes) + ENTRY_OVERHEAD_BYTES
}

#[derive(Debug)]
struct MemKey {
    /// The key, then the value.
    data: Bytes,
    key_len: u32,
    /// Sequence number and kind in one word: the order within a key.
    seq_kind: u64,
}

/// A key with the sequence number and kind in one word. No entry has the word `u64::MAX`, with
/// which it is the place before all versions of the key.
type Place<'a> = (&'a [u8], u64);

/// A key as the skip list compares it, so that a lookup needs no allocation.
trait AsKey {
    fn parts(&self) -> (&[u8], u64);
}

impl MemKey {
    fn key(&self) -> &[u8] {
        self.data.get(..key_len(self.key_len)).unwrap_or_default()
    }

    fn entry(&self) -> Entry {
        let at = key_len(self.key_len).min(self.data.len());
        Entry {
            key: self.data.slice(..at),
            seq: self.seq_kind >> 8,
            kind: if self.seq_kind & 1 == 0 { Kind::Delete } else { Kind::Put },
            value: self.data.slice(at..),
        }
    }
}

fn key_len(len: u32) -> usize {
    to_usize(u64::from(len))
}

impl AsKey for MemKey {
    fn parts(&self) -> (&[u8], u64) {
        (self.key(), self.seq_kind)
    }
}

impl AsKey for (&[u8], u64) {
    fn parts(&self) -> (&[u8], u64) {
        *self
    }
}

impl<'a> Borrow<dyn AsKey + 'a> for MemKey {
    fn borrow(&self) -> &(dyn AsKey + 'a) {
        self
    }
}

impl Ord for dyn AsKey + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.parts(), other.parts());
        a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
    }
}

impl PartialOrd for dyn AsKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn AsKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn AsKey + '_ {}

impl Ord for MemKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key()).then_with(|| other.seq_kind.cmp(&self.seq_kind))
    }
}

impl PartialOrd for MemKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MemKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MemKey {}

/// A memtable. Writers are the one leader of the commit queue; readers are anybody.
pub struct Memtable {
    map: SkipMap<MemKey, ()>,
    bytes: AtomicU64,
    entries: AtomicU64,
    min_seq: AtomicU64,
    max_seq: AtomicU64,
    /// Charged bytes of each branch, where branches share the tree.
    by_branch: Mutex<BTreeMap<BranchId, u64>>,
    /// When it was made.
    pub created_ns: Nanos,
    /// Oldest WAL segment that holds one of its entries: it pins the log from there.
    pub anchor_segment: u64,
}

impl core::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Memtable")
            .field("bytes", &self.bytes())
            .field("entries", &self.entries())
            .field("max_seq", &self.max_seq())
            .field("anchor_segment", &self.anchor_segment)
            .finish_non_exhaustive()
    }
}

impl Memtable {
    /// An empty memtable whose first entry lies in WAL segment `anchor_segment`.
    pub fn new(created_ns: Nanos, anchor_segment: u64) -> Self {
        Self {
            map: SkipMap::new(),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            min_seq: AtomicU64::new(SeqNo::MAX),
            max_seq: AtomicU64::new(0),
            by_branch: Mutex::new(BTreeMap::new()),
            created_ns,
            anchor_segment,
        }
    }

    /// Adds an entry whose key is the first `key_bytes` bytes of `data` and whose value is the
    /// rest. Returns what it was charged.
    pub fn insert(&self, data: Bytes, key_bytes: u32, seq: SeqNo, kind: Kind) -> u64 {
        let key = key_len(key_bytes).min(data.len());
        let charged = charge(key, data.len() - key);
        let seq_kind = (seq << 8) | u64::from(kind == Kind::Put);
        self.map.insert(MemKey { data, key_len: key_bytes, seq_kind }, ());
        self.bytes.fetch_add(charged, Atomic::Relaxed);
        self.entries.fetch_add(1, Atomic::Relaxed);
        self.min_seq.fetch_min(seq, Atomic::Relaxed);
        self.max_seq.fetch_max(seq, Atomic::Relaxed);
        charged
    }

    /// The newest version of `key` at or below `seq`, tombstones included.
    pub fn get(&self, key: &[u8], seq: SeqNo) -> Option<Entry> {
        let from = (key, (seq << 8) | 0xff);
        let found = self.map.lower_bound(Bound::Included(&from as &dyn AsKey))?;
        (found.key().key() == key).then(|| found.key().entry())
    }

    /// Up to `count` entries in order, those behind a place.
    fn chunk(&self, (key, word): Place<'_>, count: usize, out: &mut Vec<Entry>) {
        let mut next = self.map.lower_bound(Bound::Excluded(&(key, word) as &dyn AsKey));
        while let Some(found) = next.filter(|_| out.len() < count) {
            out.push(found.key().entry());
            next = found.next();
        }
    }

    /// Up to `count` entries in reverse order, those before a place or all.
    fn chunk_back(&self, before: Option<Place<'_>>, count: usize, out: &mut Vec<Entry>) {
        let mut next = match &before {
            Some(place) => self.map.upper_bound(Bound::Excluded(place as &dyn AsKey)),
            None => self.map.back(),
        };
        while let Some(found) = next.filter(|_| out.len() < count) {
            out.push(found.key().entry());
            next = found.prev();
        }
    }

    /// Entries with a number above one and up to another, in no order of numbers: number, kind,
    /// bytes of the key, and the key with the value. Walks them all.
    pub fn entries_in(&self, above: SeqNo, upto: SeqNo) -> Vec<(SeqNo, Kind, u32, Bytes)> {
        let entries = self.map.iter().filter_map(|found| {
            let key = found.key();
            let (seq, put) = (key.seq_kind >> 8, key.seq_kind & 1 == 1);
            let kind = if put { Kind::Put } else { Kind::Delete };
            (seq > above && seq <= upto).then(|| (seq, kind, key.key_len, key.data.clone()))
        });
        entries.collect()
    }

    /// An entry of a branch that shares the tree was charged these bytes.
    pub fn charge_to(&self, branch: BranchId, bytes: u64) {
        *self.by_branch.lock().entry(branch).or_insert(0) += bytes;
    }

    /// The branch with the most charged bytes, where branches share the tree.
    pub fn leading_branch(&self) -> Option<BranchId> {
        let by_branch = self.by_branch.lock();
        let most = by_branch.iter().max_by_key(|(id, bytes)| (**bytes, core::cmp::Reverse(**id)));
        most.map(|(id, _)| *id)
    }

    /// Adds the charged bytes of each branch, where branches share the tree.
    pub fn add_bytes_by_branch(&self, sums: &mut BTreeMap<BranchId, u64>) {
        for (branch, bytes) in &*self.by_branch.lock() {
            *sums.entry(*branch).or_insert(0) += bytes;
        }
    }

    /// Bytes charged to the budget.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Atomic::Relaxed)
    }

    /// Entries, tombstones included.
    pub fn entries(&self) -> u64 {
        self.entries.load(Atomic::Relaxed)
    }

    /// Smallest sequence number; `SeqNo::MAX` when empty.
    pub fn min_seq(&self) -> SeqNo {
        self.min_seq.load(Atomic::Relaxed)
    }

    /// Largest sequence number; 0 when empty.
    pub fn max_seq(&self) -> SeqNo {
        self.max_seq.load(Atomic::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(m: &Memtable, key: &str, value: &str, seq: SeqNo) {
        let data = Bytes::from(format!("{key}{value}"));
        m.insert(data, u32::try_from(key.len()).unwrap(), seq, Kind::Put);
    }

    #[test]
    fn a_get_sees_the_newest_version_at_its_number() {
        let m = Memtable::new(0, 1);
        put(&m, "a", "one", 1);
        put(&m, "a", "three", 3);
        put(&m, "ab", "x", 2);
        m.insert(Bytes::from_static(b"a"), 1, 5, Kind::Delete);
        assert_eq!(m.get(b"a", 0), None);
        assert_eq!(m.get(b"a", 2).unwrap().value, "one");
        assert_eq!(m.get(b"a", 4).unwrap().value, "three");
        assert_eq!(m.get(b"a", 9).unwrap().kind, Kind::Delete);
        assert_eq!(m.get(b"ab", 9).unwrap().value, "x");
        assert_eq!(m.get(b"b", 9), None);
        assert_eq!((m.entries(), m.min_seq(), m.max_seq()), (4, 1, 5));
    }

    #[test]
    fn deleting_twice_leaves_two_tombstones() {
        let m = Memtable::new(0, 1);
        m.insert(Bytes::from_static(b"k"), 1, 1, Kind::Delete);
        m.insert(Bytes::from_static(b"k"), 1, 2, Kind::Delete);
        assert_eq!(m.entries(), 2);
        assert_eq!(m.bytes(), 2 * charge(1, 0));
    }
}
