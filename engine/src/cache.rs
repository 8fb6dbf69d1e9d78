//! Decoded parts of tables and open files, bounded and shared by all trees.
//!
//! Index blocks and filters live here beside data blocks, so that ten thousand idle tenants cost no
//! fixed memory per table. One shard and a fixed hasher: what is evicted follows from the calls
//! alone, on every machine.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Lifecycle, OptionsBuilder, UnitWeighter, Weighter};
use rustc_hash::FxBuildHasher;

use crate::table::block::Block;
use crate::table::filter::Filter;
use crate::table::format::Footer;
use crate::types::{FileNumber, to_usize};

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

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<PartKey, Part> for ByBytes {
    fn weight(&self, _key: &PartKey, part: &Part) -> u64 {
        part.bytes()
    }
}

/// Every key in the cache, in order: a purge finds a file's parts without visiting the others.
#[derive(Clone, Debug, Default)]
struct Keys(Arc<Mutex<BTreeSet<PartKey>>>);

impl Lifecycle<PartKey, Part> for Keys {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: PartKey, _part: Part) {
        self.0.lock().remove(&key);
    }
}

/// The block cache.
pub struct BlockCache {
    // None where it may hold nothing.
    parts: Option<Cache<PartKey, Part, ByBytes, FxBuildHasher, Keys>>,
    keys: Keys,
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
        let keys = Keys::default();
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(to_usize(bytes_max >> 12).clamp(64, 1 << 20))
            .weight_capacity(bytes_max)
            .build();
        // Options fail to build only where a capacity is left out.
        let parts = options
            .ok()
            .filter(|_| bytes_max > 0)
            .map(|options| Cache::with_options(options, ByBytes, FxBuildHasher, keys.clone()));
        Self { parts, keys, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// A part, and counts whether it was there.
    pub fn get(&self, key: &PartKey) -> Option<Part> {
        let part = self.parts.as_ref().and_then(|parts| parts.get(key));
        let counter = if part.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        part
    }

    /// Keeps a part as long as there is room; one that is larger than the cache is not kept.
    pub fn insert(&self, key: PartKey, part: Part) {
        if let Some(parts) = &self.parts {
            // Before the part: an insert that is refused takes the key out again.
            self.keys.0.lock().insert(key);
            parts.insert(key, part);
        }
    }

    /// Drops every part of a file.
    pub fn purge_file(&self, file: FileNumber) {
        let range = PartKey { file, offset: 0 }..=PartKey { file, offset: u64::MAX };
        let doomed: Vec<PartKey> = self.keys.0.lock().range(range).copied().collect();
        for key in doomed {
            if let Some(parts) = &self.parts {
                drop(parts.remove(&key));
            }
            self.keys.0.lock().remove(&key);
        }
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
            cache.insert(key(i % 10, i), part(4_096));
            assert!(cache.bytes() <= 64 << 10);
        }
        let kept = cache.parts.as_ref().unwrap().len();
        assert!(kept > 8, "{kept} parts kept");
        assert_eq!(cache.keys.0.lock().len(), kept);
    }

    #[test]
    fn a_purge_drops_one_file_and_no_other() {
        let cache = BlockCache::new(1 << 20);
        for file in 1..=3 {
            for offset in 0..4 {
                cache.insert(key(file, offset), part(100));
            }
        }
        cache.purge_file(2);
        for file in 1..=3 {
            assert_eq!(cache.get(&key(file, 3)).is_some(), file != 2);
        }
        assert_eq!(cache.keys.0.lock().len(), 8);
        assert_eq!((cache.hits(), cache.misses()), (2, 1));
    }

    #[test]
    fn a_part_larger_than_the_cache_is_not_kept() {
        for bytes_max in [0, 1, 4_096] {
            let cache = BlockCache::new(bytes_max);
            cache.insert(key(1, 0), part(8_192));
            assert!(cache.get(&key(1, 0)).is_none());
            assert_eq!(cache.bytes(), 0);
            assert!(cache.keys.0.lock().is_empty());
        }
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
                cache.insert(key, part(to_usize(n >> 52)));
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
