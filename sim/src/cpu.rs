//! Virtual processors: work that the engine charges becomes virtual time in a queue for a few
//! cores.
//!
//! A charge only adds to the running task's debt; the debt is paid when the task next awaits a call
//! on its world. A small debt is carried on, so that a memtable hit costs no task switch; what a
//! task still owes when it ends occupies a core without making anybody wait.

use forebay_engine::env::Work;
use forebay_engine::types::Nanos;
use serde::{Deserialize, Serialize};

/// Debt below which a task goes on without waiting.
pub const DEBT_CARRIED_NS: u64 = 1_000;

/// LZ4 compresses so many times slower than a block is checked and decoded.
const COMPRESS_OVER_DECODE: u64 = 6;

/// What work costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCosts {
    /// An entry through admission, queue, log encoding and memtable insert.
    pub write_entry_ns: u64,
    /// A point lookup in memory.
    pub point_read_ns: u64,
    /// An entry handed out by an iterator.
    pub scan_entry_ns: u64,
    /// An entry merged by a flush or a compaction.
    pub merge_entry_ns: u64,
    /// A KiB of a block checked and decoded.
    pub decode_block_ns_per_kib: u64,
    /// One tree looked at by a decision.
    pub decide_ns_per_tree: u64,
    /// Everything times this; 0 makes work free.
    pub multiplier: u64,
}

impl Default for CpuCosts {
    fn default() -> Self {
        Self {
            write_entry_ns: 900,
            point_read_ns: 700,
            scan_entry_ns: 150,
            merge_entry_ns: 250,
            decode_block_ns_per_kib: 300,
            decide_ns_per_tree: 5,
            multiplier: 1,
        }
    }
}

impl CpuCosts {
    /// Work that costs nothing.
    pub fn free() -> Self {
        Self { multiplier: 0, ..Self::default() }
    }

    /// What a piece of work costs.
    pub fn ns(&self, work: Work) -> u64 {
        let ns = match work {
            Work::WriteEntry => self.write_entry_ns,
            Work::PointRead => self.point_read_ns,
            Work::ScanEntry => self.scan_entry_ns,
            Work::MergeEntry => self.merge_entry_ns,
            Work::DecodeBlock(bytes) => bytes.saturating_mul(self.decode_block_ns_per_kib) >> 10,
            Work::CompressBlock(bytes) => {
                let per_kib = self.decode_block_ns_per_kib.saturating_mul(COMPRESS_OVER_DECODE);
                bytes.saturating_mul(per_kib) >> 10
            }
            Work::Decide(trees) => trees.saturating_mul(self.decide_ns_per_tree),
        };
        ns.saturating_mul(self.multiplier)
    }
}

/// The cores and when each is free.
#[derive(Debug)]
pub struct Cores {
    free_at: Vec<Nanos>,
    busy_ns: u64,
}

impl Cores {
    /// Idle cores; at least one.
    pub fn new(count: usize) -> Self {
        Self { free_at: vec![0; count.max(1)], busy_ns: 0 }
    }

    /// Queues work on the core that is free first; gives back when it is done.
    pub fn run(&mut self, now: Nanos, ns: u64) -> Nanos {
        self.busy_ns = self.busy_ns.saturating_add(ns);
        let Some(core) = self.free_at.iter_mut().min() else { return now };
        *core = now.max(*core).saturating_add(ns);
        *core
    }

    /// All work done so far.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// Forgets queued work: the process died.
    pub fn reset(&mut self) {
        self.free_at.fill(0);
    }
}
