//! What goes wrong below the filesystem: rotten bits, lost sectors, forgotten pages, and where a write
//! that misses its place may land.

use forebay_engine::types::{to_u64, to_usize};

use super::file::{Content, Inode, PAGE_BYTES, SECTOR_BYTES, same};
use super::{SimDisk, crash};

impl SimDisk {
    /// Flips a bit of a file, for good.
    pub fn flip_bit(&mut self, ino: u64, offset: u64, bit: u32) {
        if let Some(inode) = self.inode_mut(ino) {
            inode.flip(offset, bit);
        }
    }

    /// Loses the sector that holds this byte: it cannot be read until it is written in whole.
    pub fn lose_sector(&mut self, ino: u64, offset: u64) {
        if let Some(inode) = self.inode_mut(ino) {
            inode.bad.insert(offset >> 9);
        }
    }

    /// Whether a sector of any file is lost.
    pub fn has_lost_sectors(&self) -> bool {
        self.inodes.iter().flatten().any(|inode| !inode.bad.is_empty())
    }

    /// Whether a read of these bytes meets a lost sector.
    pub fn meets_lost_sector(&self, ino: u64, offset: u64, len: u64) -> bool {
        let last = offset.saturating_add(len).saturating_sub(1) >> 9;
        let hit = |inode: &Inode| len > 0 && inode.bad.range(offset >> 9..=last).next().is_some();
        self.inode(ino).is_some_and(hit)
    }

    /// Lets the page cache forget what a failed sync marked clean: it reads as what is durable.
    pub fn evict_clean(&mut self, ino: u64) -> u64 {
        self.inode_mut(ino).map_or(0, Inode::forget_unwritten)
    }

    /// Whether the page cache holds pages that a failed sync marked clean.
    pub fn has_unwritten(&self, ino: u64) -> bool {
        self.inode(ino).is_some_and(Inode::has_unwritten)
    }

    /// The next sync of this file reports an error.
    pub(crate) fn owe_error(&mut self, ino: u64) {
        if let Some(inode) = self.inode_mut(ino) {
            inode.owes_error = true;
        }
    }

    /// Whether an earlier sync left an error to report; it is reported once.
    pub(crate) fn take_owed_error(&mut self, ino: u64) -> bool {
        self.inode_mut(ino).is_some_and(|inode| core::mem::take(&mut inode.owes_error))
    }

    /// Whether a sync of this file would have anything to write.
    pub(crate) fn has_pending(&self, ino: u64) -> bool {
        self.inode(ino).is_some_and(|inode| {
            !inode.dirty.is_empty() || inode.lengths.live != inode.lengths.durable
        })
    }

    /// The other files of a file's directory with at least a sector, sorted by name: path, inode, length.
    pub(crate) fn neighbours(&self, path: &str, ino: u64) -> Vec<(String, u64, u64)> {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let Some(found) = self.names.id(dir).and_then(|id| self.names.dirs.get(id)) else {
            return Vec::new();
        };
        let others = found.live.iter().filter(|(_, other)| **other != ino);
        let known = others.map(|(name, other)| (format!("{dir}/{name}"), *other, self.len(*other)));
        known.filter(|(_, _, len)| *len >= SECTOR_BYTES).collect()
    }

    /// Number of the inode behind a path, for faults that the harness places itself.
    pub fn ino(&self, path: &str) -> Option<u64> {
        self.find(path).ok()
    }
}

impl Inode {
    fn has_unwritten(&self) -> bool {
        let Content::Pages(slots) = &self.content else { return false };
        slots.iter().any(|slot| !slot.dirty && !same(slot.live.as_ref(), slot.durable.as_ref()))
    }

    /// Clean pages read as what is durable; says how many changed.
    pub(crate) fn forget_unwritten(&mut self) -> u64 {
        let live = self.lengths.live;
        let Content::Pages(slots) = &mut self.content else { return 0 };
        let mut changed = 0;
        for (no, slot) in slots.iter_mut().enumerate() {
            if slot.dirty || same(slot.live.as_ref(), slot.durable.as_ref()) {
                continue;
            }
            let within = live.saturating_sub(to_u64(no).saturating_mul(PAGE_BYTES));
            // Bytes behind the end must stay zero, so that a file that grows reads zeros.
            slot.live = match slot.durable.as_ref() {
                Some(page) if within < PAGE_BYTES => Some(crash::cut(page, to_usize(within))),
                page => page.cloned(),
            };
            changed += 1;
        }
        changed
    }
}
