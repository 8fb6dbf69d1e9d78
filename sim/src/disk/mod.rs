//! The simulated disk: a plain value that the harness owns, with what programs see and what a power
//! loss would leave kept apart.
//!
//! It knows no clock and no scheduler: it applies calls, counts space and answers "what if the
//! power went now" with a copy (fault-model section 1, rules F1 to F10). Copies are cheap: inodes
//! and pages are shared until one side writes.

pub(crate) mod crash;
mod damage;
pub mod device;
pub(crate) mod file;
pub(crate) mod names;
mod ops;
mod states;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use forebay_engine::types::to_usize;

use file::{Inode, Page, SyncView, WriteView};
pub use file::{PAGE_BYTES, SECTOR_BYTES};
use names::Directories;
pub use ops::{DiskError, FileInfo, SyncResult};
use serde::{Deserialize, Serialize};
pub use states::CrashStates;

/// What a power loss may do to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// ext4 in ordered mode, or XFS: names survive as a prefix of one log.
    Journal,
    /// Anything that POSIX does not forbid: torn pages, stale pages, any closed subset of names.
    Adversary,
    /// Only what was synced survives.
    Strict,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Journal, Self::Adversary, Self::Strict];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Adversary => "adversary",
            Self::Strict => "strict",
        }
    }
}

/// How a disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// What a power loss may do.
    pub profile: Profile,
    /// Bytes that fit.
    pub capacity_bytes: u64,
    /// Whether durability is tracked. Without it the disk is faster and cannot crash.
    pub track_durability: bool,
    /// Whether a sync of a file also makes its name durable; in [`Profile::Journal`] only.
    pub sync_persists_name: bool,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            profile: Profile::Journal,
            capacity_bytes: u64::MAX,
            track_durability: true,
            sync_persists_name: false,
        }
    }
}

/// What a crash did, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashReport {
    /// Dirty pages that survived in their latest version.
    pub pages_kept: u64,
    /// Dirty pages that went back to their durable version.
    pub pages_lost: u64,
    /// Dirty pages that became a mixture or an earlier version.
    pub pages_torn: u64,
    /// New pages that hold what a deleted file left.
    pub pages_stale: u64,
    /// Files whose length is not the latest.
    pub sizes_lost: u64,
    /// Name operations that survived.
    pub names_kept: u64,
    /// Name operations that did not.
    pub names_lost: u64,
    /// Renames of which both names survived.
    pub names_both: u64,
    /// Writes in flight that were cut.
    pub writes_cut: u64,
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    All,
    Nothing,
    Some,
}

/// Length now and after a power loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) live: u64,
    pub(crate) durable: u64,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    pub(crate) config: DiskConfig,
    /// By inode number; numbers are not reused.
    inodes: Vec<Option<Arc<Inode>>>,
    pub(crate) names: Directories,
    pub(crate) writes: BTreeMap<u64, WriteView>,
    pub(crate) syncs: BTreeMap<u64, SyncView>,
    next_token: u64,
    used_bytes: u64,
    hog_bytes: u64,
    /// Pages of deleted files with their places there, as garbage for the adversary.
    pub(crate) freed: VecDeque<(usize, Page)>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(config: DiskConfig) -> Self {
        Self {
            config,
            inodes: Vec::new(),
            names: Directories::default(),
            writes: BTreeMap::new(),
            syncs: BTreeMap::new(),
            next_token: 0,
            used_bytes: 0,
            hog_bytes: 0,
            freed: VecDeque::new(),
        }
    }

    /// How the disk behaves.
    pub fn config(&self) -> DiskConfig {
        self.config
    }

    /// Bytes that files use, in whole pages, with what they reserved.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        let taken = self.used_bytes.saturating_add(self.hog_bytes);
        self.config.capacity_bytes.saturating_sub(taken)
    }

    /// Space that somebody else takes from the disk, or gives back.
    pub fn set_hog_bytes(&mut self, bytes: u64) {
        self.hog_bytes = bytes;
    }

    /// Changes the capacity.
    pub fn set_capacity_bytes(&mut self, bytes: u64) {
        self.config.capacity_bytes = bytes;
    }

    /// Every file that has a name: path and length, sorted by path.
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        for (path, id) in &self.names.ids {
            let Some(dir) = self.names.dirs.get(*id) else { continue };
            for (name, ino) in &dir.live {
                let len = self.inode(*ino).map_or(0, Inode::len);
                files.push((format!("{path}/{name}"), len));
            }
        }
        files
    }

    /// The bytes of a file, or `None` where there is none.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let inode = self.inode(self.find(path).ok()?)?;
        Some(inode.read(0, to_usize(inode.len())))
    }

    /// How many file handles are open.
    pub fn open_handles(&self) -> u64 {
        self.inodes.iter().flatten().map(|inode| u64::from(inode.handles)).sum()
    }

    /// How many of them are of files without a name.
    pub fn removed_handles(&self) -> u64 {
        let removed = self.inodes.iter().flatten().filter(|inode| inode.links == 0);
        removed.map(|inode| u64::from(inode.handles)).sum()
    }

    /// Pages that no sync covered yet, and name operations that no sync covered yet.
    pub fn pending(&self) -> (usize, usize) {
        let pages = self.inodes.iter().flatten().map(|inode| inode.dirty.len()).sum();
        (pages, self.names.pending.len())
    }

    pub(crate) fn inode(&self, ino: u64) -> Option<&Inode> {
        self.inodes.get(to_usize(ino))?.as_deref()
    }

    pub(crate) fn inode_mut(&mut self, ino: u64) -> Option<&mut Inode> {
        self.inodes.get_mut(to_usize(ino))?.as_mut().map(Arc::make_mut)
    }

    /// The same disk without files: directories, space and numbering stay.
    pub(crate) fn emptied(&self) -> Self {
        let mut names = self.names.clone();
        names.pending.clear();
        let mut inodes = Vec::new();
        inodes.resize_with(self.inodes.len(), || None);
        Self {
            config: self.config,
            inodes,
            names,
            writes: BTreeMap::new(),
            syncs: BTreeMap::new(),
            next_token: self.next_token,
            used_bytes: 0,
            hog_bytes: self.hog_bytes,
            freed: self.freed.clone(),
        }
    }

    pub(crate) fn put_inode(&mut self, ino: u64, mut inode: Inode) {
        inode.charged = inode.charge_at(inode.len());
        self.used_bytes = self.used_bytes.saturating_add(inode.charged);
        if let Some(slot) = self.inodes.get_mut(to_usize(ino)) {
            *slot = Some(Arc::new(inode));
        }
    }

    pub(crate) fn drop_handles(&mut self) {
        for ino in 0..self.inodes.len() {
            let ino = forebay_engine::types::to_u64(ino);
            if self.inode(ino).is_some_and(|inode| inode.handles > 0) {
                if let Some(inode) = self.inode_mut(ino) {
                    inode.handles = 0;
                    inode.owes_error = false;
                }
                self.collect(ino);
            }
        }
    }
}
