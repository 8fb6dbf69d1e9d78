//! How often each fault happens: data, as scenarios hold it.

use serde::{Deserialize, Serialize};

use super::Fault;

/// How often each fault happens, in chances per million calls that could meet it. All zero by
/// default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultPlan {
    /// Reads that fail.
    pub eio_read: u32,
    /// Appends and writes that fail and leave nothing.
    pub eio_write: u32,
    /// Syncs of files that fail.
    pub eio_sync: u32,
    /// Creates, opens, renames, removals, links, listings and directory syncs that fail.
    pub eio_meta: u32,
    /// Appends and writes that fail and leave a prefix.
    pub short_write: u32,
    /// Reads before which a bit of what they read flips for good.
    pub bit_rot: u32,
    /// Writes that land elsewhere.
    pub misdirected: u32,
    /// Syncs that say Ok and do nothing.
    pub sync_lies: u32,
    /// Failed calls on names that were done all the same, per million failures.
    pub error_after_effect: u32,
    /// Calls that take up to `latency_max_ns` longer.
    pub latency: u32,
    /// The longest such delay.
    pub latency_max_ns: u64,
    /// Readings of the wall clock before which it jumps.
    pub clock_jump: u32,
    /// Opens and creates that find no handle left.
    pub emfile: u32,
    /// Reservations and changes of length that fail: not done, done in part, or done.
    pub eio_resize: u32,
    /// Appends and writes that are done and fail all the same.
    pub write_after_effect: u32,
    /// Reads that come in two parts.
    pub short_read: u32,
    /// Reads before which a sector of what they read is lost until it is written.
    pub latent_sector: u32,
    /// Writes that land in another file of their directory.
    pub misdirected_file: u32,
    /// Failed syncs after which unwritten pages read as before, per million failures.
    pub sync_reverted: u32,
    /// Syncs of files that fail, say Ok, and let the next one tell.
    pub sync_late: u32,
    /// Syncs of files that find no space for what was written.
    pub enospc_sync: u32,
    /// Appends and writes that find no space, or a quota used up, and leave a prefix.
    pub enospc_write: u32,
    /// Creates, renames and links that find no space.
    pub enospc_meta: u32,
    /// Reads before which the page cache forgets what a failed sync had marked clean.
    pub cache_eviction: u32,
    /// Failed changes after which nothing can be changed, per million failures.
    pub remount_ro: u32,
    /// Readings of the wall clock from which on it stands still until faults end.
    pub clock_frozen: u32,
    /// Restarts over which the wall clock becomes another.
    pub clock_step: u32,
    /// Calls with which all of their file begin to stand still, for up to `stall_max_ns`.
    pub stall_file: u32,
    /// Calls with which all of their tree's tables begin to.
    pub stall_tree: u32,
    /// Syncs with which all syncs begin to.
    pub stall_syncs: u32,
    /// The longest that calls stand still.
    pub stall_max_ns: u64,
}

impl FaultPlan {
    /// How often a fault happens; 0 for those that are no chance of a call.
    pub fn per_million(&self, fault: Fault) -> u32 {
        match fault {
            Fault::EioRead => self.eio_read,
            Fault::EioWrite => self.eio_write,
            Fault::EioSync => self.eio_sync,
            Fault::EioMeta => self.eio_meta,
            Fault::ShortWrite => self.short_write,
            Fault::BitRot => self.bit_rot,
            Fault::Misdirected => self.misdirected,
            Fault::SyncLies => self.sync_lies,
            Fault::ErrorAfterEffect => self.error_after_effect,
            Fault::Latency => self.latency,
            Fault::ClockJump => self.clock_jump,
            Fault::Emfile => self.emfile,
            Fault::EioResize => self.eio_resize,
            Fault::WriteAfterEffect => self.write_after_effect,
            Fault::ShortRead => self.short_read,
            Fault::LatentSector => self.latent_sector,
            Fault::MisdirectedFile => self.misdirected_file,
            Fault::SyncReverted => self.sync_reverted,
            Fault::SyncLate => self.sync_late,
            Fault::EnospcSync => self.enospc_sync,
            Fault::EnospcWrite => self.enospc_write,
            Fault::EnospcMeta => self.enospc_meta,
            Fault::CacheEviction => self.cache_eviction,
            Fault::RemountReadOnly => self.remount_ro,
            Fault::ClockFrozen => self.clock_frozen,
            Fault::ClockStep => self.clock_step,
            Fault::StallFile => self.stall_file,
            Fault::StallTree => self.stall_tree,
            Fault::StallSyncs => self.stall_syncs,
            Fault::PowerLoss | Fault::Kill | Fault::Enospc => 0,
        }
    }

    /// Whether calls may come to a stand.
    pub fn stalls(&self) -> bool {
        self.stall_max_ns > 0
    }

    /// Whether the wall clock may go wrong.
    pub fn bends_clocks(&self) -> bool {
        self.clock_jump > 0 || self.clock_frozen > 0 || self.clock_step > 0
    }

    /// Whether it damages the medium.
    pub fn damages_media(&self) -> bool {
        Fault::ALL.into_iter().any(|fault| fault.damages_media() && self.per_million(fault) > 0)
    }
}
