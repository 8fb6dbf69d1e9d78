//! The space reserve: how many bytes must be free for writes to be taken.
//!
//! Writes are refused while what is free would not hold what the engine itself may need next: one
//! spare segment (its file counts, where it is there already), one manifest, one memtable's table
//! and one compaction's output. Flushes, compactions and drops may use the reserve: they are what
//! makes space again. What a write reads here is one atomic.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::types::Nanos;

/// While the disk is full it is asked again after this long, not before.
pub(crate) const ASK_FULL_NS: Nanos = 100_000_000;

/// CURRENT's next file, a directory's growth, and the tail of a block for each file.
const SMALL_FILES_BYTES: u64 = 4 * 4096;

/// Free bytes when last asked, and what writes need.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    /// `space_reserve_bytes`; 0 where it is derived.
    given_bytes: u64,
    segment_bytes: u64,
    tables_bytes: u64,
    full: AtomicBool,
    suspected: AtomicBool,
    free_bytes: AtomicU64,
    needed_bytes: AtomicU64,
    asked_ns: AtomicU64,
}

impl DiskSpace {
    pub(crate) fn new(options: &Options) -> Self {
        let memtable = options.memtable_bytes_max.min(options.budget_bytes >> 2);
        Self {
            given_bytes: options.space_reserve_bytes,
            segment_bytes: options.wal_segment_bytes,
            tables_bytes: memtable + options.table_bytes_max.min(memtable.saturating_mul(4)),
            full: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
            needed_bytes: AtomicU64::new(0),
            asked_ns: AtomicU64::new(0),
        }
    }

    /// Refuses a write while the disk is full.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_full() {
            return Ok(());
        }
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        Err(Error::DiskFull { free_bytes, needed_bytes: self.needed_bytes() })
    }

    /// Whether writes are refused.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Bytes that must be free for writes.
    pub(crate) fn needed_bytes(&self) -> u64 {
        self.needed_bytes.load(Ordering::Relaxed)
    }

    /// A call met a full disk: whoever asks for the free bytes is to do so soon.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
    }

    /// Whether [`suspect`](Self::suspect) was called and nobody has asked since.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// The time from which the disk may be asked.
    pub(crate) fn ask_at(&self) -> Nanos {
        let at = self.asked_ns.load(Ordering::Relaxed);
        if self.is_full() { at.saturating_add(ASK_FULL_NS) } else { 0 }
    }

    /// The disk was asked and did not say.
    pub(crate) fn unknown(&self, now: Nanos) {
        self.asked_ns.store(now, Ordering::Relaxed);
    }

    /// What the disk said. Returns whether it became full, or ceased to be.
    pub(crate) fn set(
        &self,
        now: Nanos,
        free_bytes: u64,
        (has_spare, manifest_bytes): (bool, u64),
    ) -> bool {
        let derived = self.segment_bytes + self.tables_bytes + SMALL_FILES_BYTES + manifest_bytes;
        let reserve = if self.given_bytes == 0 { derived } else { self.given_bytes };
        let spare = if has_spare { self.segment_bytes } else { 0 };
        let needed = reserve.saturating_sub(spare);
        self.suspected.store(false, Ordering::Release);
        self.asked_ns.store(now, Ordering::Relaxed);
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.needed_bytes.store(needed, Ordering::Relaxed);
        let full = free_bytes < needed;
        self.full.swap(full, Ordering::AcqRel) != full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_below_the_reserve_and_a_spare_counts() {
        let options = Options {
            budget_bytes: 1 << 20,
            memtable_bytes_max: 1 << 14,
            wal_segment_bytes: 1 << 16,
            ..Options::default()
        };
        let space = DiskSpace::new(&options);
        let needed = (1 << 16) + (5 << 14) + SMALL_FILES_BYTES + 7;
        assert!(!space.set(5, needed, (false, 7)) && space.check().is_ok());
        assert!(space.set(6, needed - 1, (false, 7)));
        assert_eq!(space.check().unwrap_err().kind(), "disk-full");
        assert_eq!(space.ask_at(), 6 + ASK_FULL_NS);
        space.unknown(20);
        assert_eq!(space.ask_at(), 20 + ASK_FULL_NS);
        assert!(space.set(7, needed - (1 << 16), (true, 7)) && !space.is_full());
        let given = Options { space_reserve_bytes: 10, ..options };
        let space = DiskSpace::new(&given);
        assert!(!space.set(5, 10, (false, 1 << 40)) && space.set(6, 9, (false, 0)));
    }
}
