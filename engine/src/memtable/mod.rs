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

use crate::types::{BranchId, Entry, Kind, Nanos, SeqNo, TreeId, to_u64, to_usize};

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

/// A tree that has the memtable in its view.
#[derive(Clone, Copy, Debug)]
struct Owner {
    tree: TreeId,
    /// False once the tree was dropped: it keeps the memtable for those that share it.
    live: bool,
}

/// What became of a memtable when a tree that owns it was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Other trees need it still.
    Needed,
    /// Nobody needs it any more: who hears this releases it. The dropped trees that have it in
    /// their view.
    Unneeded(Vec<TreeId>),
    /// It was released before: its table is installed.
    Released,
}

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
    /// The tree under which the log holds its entries, but for those it was copied with.
    pub origin: TreeId,
    /// Of a copy: its tree's ancestors, nearest first, each with the last number of its entries.
    inherited: Vec<(TreeId, SeqNo)>,
    /// The tree that flushes it.
    pub home: TreeId,
    owners: Mutex<Vec<Owner>>,
    anchor_segment: AtomicU64,
}

impl core::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Memtable")
            .field("bytes", &self.bytes())
            .field("entries", &self.entries())
            .field("max_seq", &self.max_seq())
            .field("anchor_segment", &self.anchor_segment())
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
            origin: TreeId::default(),
            inherited: Vec::new(),
            home: TreeId::default(),
            owners: Mutex::new(Vec::new()),
            anchor_segment: AtomicU64::new(anchor_segment),
        }
    }

    /// The same, of a tree that flushes it and whose records hold its entries.
    #[must_use]
    pub fn of_tree(self, tree: TreeId) -> Self {
        self.of_trees(tree, &[tree])
    }

    /// The same, read by trees of which the first flushes it, with entries that the log holds under
    /// `origin`.
    #[must_use]
    pub fn of_trees(self, origin: TreeId, owners: &[TreeId]) -> Self {
        let home = owners.first().copied().unwrap_or(origin);
        let owners = owners.iter().map(|tree| Owner { tree: *tree, live: true }).collect();
        Self { origin, home, owners: Mutex::new(owners), ..self }
    }

    /// The same, as a copy of entries that the log holds under a tree's ancestors, nearest first,
    /// each up to a number.
    #[must_use]
    pub fn copied_from(self, ancestors: &[(TreeId, SeqNo)]) -> Self {
        Self { inherited: ancestors.to_vec(), ..self }
    }

    /// The tree under which the log holds an entry. Under another one it would be replayed once
    /// more, as if it were newer than those that were written behind it.
    pub fn origin_of(&self, seq: SeqNo) -> TreeId {
        let farthest = self.inherited.iter().rev().find(|(_, upto)| seq <= *upto);
        farthest.map_or(self.origin, |(tree, _)| *tree)
    }

    /// The trees that have it in their view, dropped ones included; none once it is released.
    pub fn owners(&self) -> Vec<TreeId> {
        self.owners.lock().iter().map(|owner| owner.tree).collect()
    }

    /// Whether a tree beside its home has it in its view.
    pub fn is_shared(&self) -> bool {
        self.owners.lock().iter().any(|owner| owner.tree != self.home)
    }

    /// Another tree reads it from here on; `false` where it was released before.
    pub fn add_owner(&self, tree: TreeId) -> bool {
        let mut owners = self.owners.lock();
        let is_held = !owners.is_empty();
        if is_held {
            owners.push(Owner { tree, live: true });
        }
        is_held
    }

    /// A tree that owns it was dropped.
    pub fn leave(&self, tree: TreeId) -> Left {
        let mut owners = self.owners.lock();
        if owners.is_empty() {
            return Left::Released;
        }
        for owner in owners.iter_mut().filter(|owner| owner.tree == tree) {
            owner.live = false;
        }
        if owners.iter().any(|owner| owner.live) {
            return Left::Needed;
        }
        Left::Unneeded(owners.drain(..).map(|owner| owner.tree).collect())
    }

    /// Its table is installed, or none is needed: the trees that have it in their view. Who gets
    /// any releases it.
    pub fn take_owners(&self) -> Vec<TreeId> {
        self.owners.lock().drain(..).map(|owner| owner.tree).collect()
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

    /// Whether it holds the version of `key` with this number.
    pub fn holds(&self, key: &[u8], seq: SeqNo) -> bool {
        // Without a number as high no search is needed: so for almost every entry of a log.
        seq <= self.max_seq() && self.get(key, seq).is_some_and(|found| found.seq == seq)
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

    /// Bytes of keys and values.
    pub fn data_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.entries().saturating_mul(ENTRY_OVERHEAD_BYTES))
    }

    /// Oldest WAL segment that holds one of its entries: it pins the log from there.
    pub fn anchor_segment(&self) -> u64 {
        self.anchor_segment.load(Atomic::Relaxed)
    }

    /// Every entry lies in this segment or a later one, durable as far as it was. Only the commit
    /// queue's leader may call this, on a memtable that takes writes.
    pub fn move_anchor(&self, segment: u64) {
        self.anchor_segment.store(segment, Atomic::Relaxed);
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
    fn it_is_released_once_when_its_last_tree_leaves_or_its_table_is_installed() {
        let ids = |ids: &[u64]| ids.iter().map(|id| TreeId(*id)).collect::<Vec<_>>();
        let m = Memtable::new(0, 1).of_tree(TreeId(1));
        assert!(!m.is_shared() && m.add_owner(TreeId(2)) && m.is_shared());
        assert_eq!(m.leave(TreeId(1)), Left::Needed);
        assert_eq!(m.owners(), ids(&[1, 2]), "its home keeps it for the other");
        assert_eq!(m.leave(TreeId(2)), Left::Unneeded(ids(&[1, 2])));
        assert_eq!((m.leave(TreeId(2)), m.take_owners()), (Left::Released, Vec::new()));
        assert!(!m.add_owner(TreeId(3)));
        let m = Memtable::new(0, 1).of_trees(TreeId(9), &ids(&[1, 2]));
        assert_eq!((m.origin, m.home, m.take_owners()), (TreeId(9), TreeId(1), ids(&[1, 2])));
        assert_eq!(m.leave(TreeId(1)), Left::Released);
    }

    #[test]
    fn a_copy_knows_under_which_ancestor_the_log_holds_an_entry() {
        let m = Memtable::new(0, 1).of_tree(TreeId(3));
        assert_eq!(m.origin_of(1), TreeId(3));
        // The grandparent's entries end where the parent was forked.
        let m = m.copied_from(&[(TreeId(2), 20), (TreeId(1), 10)]);
        let origins = [1, 10, 11, 20, 21].map(|seq| m.origin_of(seq).0);
        assert_eq!(origins, [1, 1, 2, 2, 3]);
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
