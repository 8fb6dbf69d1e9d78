//! Decoded parts of tables and open files, bounded and shared by all trees.
//!
//! Index blocks and filters live here beside data blocks, so that ten thousand idle tenants cost no
//! fixed memory per table. One shard and a fixed hasher: what is evicted follows from the calls
//! alone, on every machine.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter, Weighter};
use rustc_hash::FxBuildHasher;

use crate::table::block::Block;
use crate::table::filter::Filter;
use crate::table::format::Footer;
use crate::types::{BranchId, FileNumber, to_usize};

/// Bytes charged for a part on top of its own: the cache's books and the part's header.
const PART_OVERHEAD_BYTES: u64 = 128;

/// Names a part of a table by a byte of its file that belongs to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartKey {
    /// The file that holds the table.
    pub file: FileNumber,
    /// For a block, its first byte in the file. For the parts that are found without asking another
    /// part, bytes of the footer: its first for itself, its second for the filter, its third for
    /// the index.
    pub offset: u64,
}

/// An index block with what its table's data blocks are checked with.
#[derive(Clone, Debug)]
pub struct Index {
    /// The block.
    pub block: Arc<Block>,
    /// What the checksums of the table's blocks begin with.
    pub salt: u64,
}

/// A part of a table that was read, checked and decoded.
#[derive(Clone, Debug)]
pub enum Part {
    /// The footer.
    Footer(Arc<Footer>),
    /// The filter; one that rules out nothing where the table has none.
    Filter(Arc<Filter>),
    /// The index.
    Index(Arc<Index>),
    /// A data block.
    Data(Arc<Block>),
}

impl Part {
    /// Bytes that the part keeps in memory.
    pub fn bytes(&self) -> u64 {
        let own = match self {
            Self::Footer(_) => 0,
            Self::Filter(filter) => filter.bytes(),
            Self::Index(index) => index.block.bytes(),
            Self::Data(block) => block.bytes(),
        };
        own.saturating_add(PART_OVERHEAD_BYTES)
    }
}

/// A part and the branch whose read loaded it.
#[derive(Clone, Debug)]
struct Charged {
    part: Part,
    owner: BranchId,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<PartKey, Charged> for ByBytes {
    fn weight(&self, _key: &PartKey, charged: &Charged) -> u64 {
        charged.part.bytes()
    }
}

/// What is in the cache: every key in order, so that a purge finds a file's parts without visiting
/// the others, and the bytes of each branch.
#[derive(Debug, Default)]
struct Books {
    // How many parts of this key are in the cache or on their way: two reads may load the same one,
    // and the second takes the first one's place.
    keys: BTreeMap<PartKey, u32>,
    bytes: BTreeMap<BranchId, u64>,
}

impl Books {
    fn enter(&mut self, key: PartKey, charged: &Charged) {
        *self.keys.entry(key).or_insert(0) += 1;
        *self.bytes.entry(charged.owner).or_insert(0) += charged.part.bytes();
    }

    fn leave(&mut self, key: PartKey, charged: &Charged) {
        if let Entry::Occupied(mut count) = self.keys.entry(key) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Entry::Occupied(mut bytes) = self.bytes.entry(charged.owner) {
            *bytes.get_mut() = bytes.get().saturating_sub(charged.part.bytes());
            if *bytes.get() == 0 {
                bytes.remove();
            }
        }
    }
}

/// Keeps the books: told of every part that leaves, but for those that are removed by name.
#[derive(Clone, Debug, Default)]
struct Bookkeeper(Arc<Mutex<Books>>);

impl Lifecycle<PartKey, Charged> for Bookkeeper {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: PartKey, charged: Charged) {
        self.0.lock().leave(key, &charged);
    }
}

/// The block cache.
pub struct BlockCache {
    // None where it may hold nothing.
    parts: Option<Cache<PartKey, Charged, ByBytes, FxBuildHasher, Bookkeeper>>,
    books: Bookkeeper,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache")
            .field("bytes", &self.bytes())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}

impl BlockCache {
    /// An empty cache for so many bytes; 0 keeps nothing.
    pub fn new(bytes_max: u64) -> Self {
        let books = Bookkeeper::default();
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(to_usize(bytes_max >> 12).clamp(64, 1 << 20))
            .weight_capacity(bytes_max)
            .build();
        // Options fail to build only where a capacity is left out.
        let parts = options
            .ok()
            .filter(|_| bytes_max > 0)
            .map(|options| Cache::with_options(options, ByBytes, FxBuildHasher, books.clone()));
        Self { parts, books, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// A part, and counts whether it was there.
    pub fn get(&self, key: &PartKey) -> Option<Part> {
        let part = self.parts.as_ref().and_then(|parts| parts.get(key));
        let counter = if part.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        part.map(|charged| charged.part)
    }

    /// Keeps a part as long as there is room, charged to the branch that loaded it; one that is
    /// larger than the cache is not kept.
    pub fn insert(&self, key: PartKey, part: Part, owner: BranchId) {
        if let Some(parts) = &self.parts {
            let charged = Charged { part, owner };
            // Before the part: an insert that is refused takes it out again.
            self.books.0.lock().enter(key, &charged);
            parts.insert(key, charged);
        }
    }

    /// Drops every part of a file.
    pub fn purge_file(&self, file: FileNumber) {
        self.purge(file, (0, u64::MAX));
    }

    /// Drops what begins in a range of a file, both ends included.
    pub fn purge(&self, file: FileNumber, (from, to): (u64, u64)) {
        let range = PartKey { file, offset: from }..=PartKey { file, offset: to };
        let doomed: Vec<PartKey> =
            self.books.0.lock().keys.range(range).map(|(key, _)| *key).collect();
        for key in doomed {
            let removed = self.parts.as_ref().and_then(|parts| parts.remove(&key));
            if let Some((key, charged)) = removed {
                self.books.0.lock().leave(key, &charged);
            }
        }
    }

    /// Bytes that are cached and were loaded by a branch's reads. A part that several branches read
    /// is charged to the one that loaded it.
    pub fn bytes_of(&self, branch: BranchId) -> u64 {
        self.books.0.lock().bytes.get(&branch).copied().unwrap_or(0)
    }

    /// The same for every branch that has any, by id; together they are all [`bytes`](Self::bytes).
    /// Branch 0 stands for reads of nobody's.
    pub fn bytes_by_branch(&self) -> Vec<(BranchId, u64)> {
        self.books.0.lock().bytes.iter().map(|(branch, bytes)| (*branch, *bytes)).collect()
    }

    /// Bytes that are cached.
    pub fn bytes(&self) -> u64 {
        self.parts.as_ref().map_or(0, Cache::weight)
    }

    /// Lookups that found their part.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Lookups that did not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

/// Open files by number, as many as `open_tables_max` says and those still in use.
pub struct FileCache<F> {
    files: Option<Cache<FileNumber, Arc<F>, UnitWeighter, FxBuildHasher>>,
}

impl<F> fmt::Debug for FileCache<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCache").field("open_count", &self.open_count()).finish()
    }
}

impl<F> FileCache<F> {
    /// An empty cache for so many files; 0 keeps none open.
    pub fn new(open_max: u32) -> Self {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(to_usize(u64::from(open_max)).clamp(1, 1 << 20))
            .weight_capacity(u64::from(open_max))
            .build();
        let files = options.ok().filter(|_| open_max > 0).map(|options| {
            Cache::with_options(options, UnitWeighter, FxBuildHasher, DefaultLifecycle::default())
        });
        Self { files }
    }

    /// The open file of this number, if it is cached.
    pub fn get(&self, file: FileNumber) -> Option<Arc<F>> {
        self.files.as_ref()?.get(&file)
    }

    /// Keeps a file open.
    pub fn insert(&self, file: FileNumber, handle: Arc<F>) {
        if let Some(files) = &self.files {
            files.insert(file, handle);
        }
    }

    /// Lets a file close.
    pub fn purge_file(&self, file: FileNumber) {
        if let Some(files) = &self.files {
            drop(files.remove(&file));
        }
    }

    /// Files that are kept open.
    pub fn open_count(&self) -> usize {
        self.files.as_ref().map_or(0, Cache::len)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn part(len: usize) -> Part {
        let mut content = vec![0; len];
        content.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        Part::Data(Arc::new(Block::decode(0, Bytes::from(content)).unwrap()))
    }

    fn key(file: FileNumber, offset: u64) -> PartKey {
        PartKey { file, offset }
    }

    #[test]
    fn the_cache_stays_below_its_bytes_and_its_key_list_follows() {
        let cache = BlockCache::new(64 << 10);
        for i in 0..1_000 {
            cache.insert(key(i % 10, i), part(4_096), BranchId(i % 3));
            assert!(cache.bytes() <= 64 << 10);
        }
        let kept = cache.parts.as_ref().unwrap().len();
        assert!(kept > 8, "{kept} parts kept");
        assert_eq!(cache.books.0.lock().keys.len(), kept);
    }

    #[test]
    fn a_purge_drops_one_file_and_no_other() {
        let cache = BlockCache::new(1 << 20);
        for file in 1..=3 {
            for offset in 0..4 {
                cache.insert(key(file, offset), part(100), BranchId(file));
            }
        }
        cache.purge_file(2);
        for file in 1..=3 {
            assert_eq!(cache.get(&key(file, 3)).is_some(), file != 2);
        }
        assert_eq!(cache.books.0.lock().keys.len(), 8);
        assert_eq!((cache.hits(), cache.misses()), (2, 1));
    }

    #[test]
    fn a_part_larger_than_the_cache_is_not_kept() {
        for bytes_max in [0, 1, 4_096] {
            let cache = BlockCache::new(bytes_max);
            cache.insert(key(1, 0), part(8_192), BranchId(1));
            assert!(cache.get(&key(1, 0)).is_none());
            assert_eq!(cache.bytes(), 0);
            assert!(cache.books.0.lock().keys.is_empty());
            assert_eq!(cache.bytes_by_branch(), []);
        }
    }

    /// Strategy: parts of all lengths and owners come, take each other's place, are too large, are
    /// evicted and purged.
    /// Invariants: the bytes of all branches are those of the cache, and those of a branch are what
    /// is found in it.
    #[test]
    fn bytes_by_branch_add_up_to_those_of_the_cache() {
        let cache = BlockCache::new(64 << 10);
        let (mut n, mut purged, mut most) = (1_u64, 0, 0);
        for step in 0..20_000_u64 {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = if step % 97 == 0 { 80_000 } else { to_usize((n >> 33) % 6_000) };
            cache.insert(key((n >> 60) % 7, (n >> 40) % 11), part(len), BranchId((n >> 50) % 5));
            if n >> 58 == 7 {
                cache.purge_file(n >> 61);
                purged += 1;
            }
            let by_branch = cache.bytes_by_branch();
            assert_eq!(by_branch.iter().map(|(_, bytes)| bytes).sum::<u64>(), cache.bytes());
            assert!(
                by_branch.iter().all(|(id, bytes)| cache.bytes_of(*id) == *bytes && *bytes > 0)
            );
            assert!(cache.bytes() <= 64 << 10);
            most = most.max(by_branch.len());
        }
        assert!(purged > 100 && most == 5, "{purged} purges, {most} branches at once");
        let parts = cache.parts.as_ref().unwrap();
        assert_eq!(cache.books.0.lock().keys.len(), parts.len());
        assert!(cache.books.0.lock().keys.values().all(|count| *count == 1));
        for file in 0..7 {
            cache.purge_file(file);
        }
        assert_eq!((cache.bytes(), cache.bytes_by_branch()), (0, Vec::new()));
    }

    #[test]
    fn a_part_that_took_anothers_place_is_purged_and_charged_to_its_own_branch() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(key(1, 0), part(100), BranchId(1));
        cache.insert(key(1, 0), part(100), BranchId(2));
        assert_eq!(cache.bytes_by_branch(), [(BranchId(2), cache.bytes())]);
        cache.purge_file(1);
        assert!(cache.get(&key(1, 0)).is_none());
        assert_eq!((cache.bytes(), cache.bytes_of(BranchId(2))), (0, 0));
    }

    #[test]
    fn what_is_evicted_follows_from_the_calls_alone() {
        let run = || {
            let cache = BlockCache::new(256 << 10);
            let mut n = 1_u64;
            let mut found = Vec::new();
            for _ in 0..5_000 {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let key = key(n >> 60, (n >> 40) % 97);
                found.push(cache.get(&key).is_some());
                cache.insert(key, part(to_usize(n >> 52)), BranchId(n >> 62));
            }
            (found, cache.hits(), cache.bytes())
        };
        let (first, second) = (run(), run());
        assert!(first.1 > 100 && first.1 < 4_900, "{} hits", first.1);
        assert_eq!(first, second);
    }

    #[test]
    fn files_beyond_the_limit_are_closed() {
        for open_max in [0, 1, 2, 7] {
            let cache = FileCache::new(open_max);
            let files: Vec<_> = (0..20_u64).map(Arc::new).collect();
            for (number, file) in (0..).zip(&files) {
                cache.insert(number, Arc::clone(file));
            }
            let held = files.iter().filter(|file| Arc::strong_count(file) > 1).count();
            assert!(held <= to_usize(u64::from(open_max)), "{held} of {open_max}");
            assert_eq!(held, cache.open_count());
            assert!(open_max == 0 || held > 0, "{open_max} keeps none");
        }
    }
}
