//! The calls on a disk: names, bytes, space and syncs.
//!
//! A sync is two calls, a start that remembers what is pending and an end that makes exactly that
//! durable; so is a write that a kill may cut. What happens between them is the caller's virtual
//! time.

use std::sync::Arc;

use forebay_engine::types::{to_u64, to_usize};

use super::file::{Content, Inode, PAGE_BYTES};
use super::names::{Assign, DirId, Ino, NameOp};
use super::{Profile, SimDisk};
use crate::choices::Choices;

/// Deleted pages that are kept as garbage.
const FREED_MAX: usize = 16;

/// Why a disk refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// No such file or directory. Nothing was changed.
    NotFound,
    /// The name is taken. Nothing was changed.
    Exists,
    /// No space; a write or a reservation may have been done in part.
    Full,
    /// The file ends before. Nothing was changed.
    Eof,
}

/// What a handle sees of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Number of the inode.
    pub ino: u64,
    /// Length in bytes.
    pub len: u64,
}

/// What became of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncResult {
    /// All that was pending at its start is durable.
    Done,
    /// A chosen part is durable; the rest is marked clean and will not be written.
    Failed,
    /// As `Failed`, and what is not durable reads as what is: the page cache forgot it.
    Reverted,
    /// It said Ok and did nothing: what was pending stays pending.
    Lied,
}

type Result<T> = core::result::Result<T, DiskError>;

impl SimDisk {
    fn place(&self, path: &str) -> Result<(DirId, Box<str>)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.names.id(dir).ok_or(DiskError::NotFound)?;
        Ok((dir, name.into()))
    }

    pub(crate) fn find(&self, path: &str) -> Result<Ino> {
        let (dir, name) = self.place(path)?;
        self.names.get(dir, &name).ok_or(DiskError::NotFound)
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn open(&mut self, path: &str) -> Result<FileInfo> {
        let ino = self.find(path)?;
        let inode = self.inode_mut(ino).ok_or(DiskError::NotFound)?;
        inode.handles = inode.handles.saturating_add(1);
        Ok(FileInfo { ino, len: inode.len() })
    }

    /// Creates a file, or empties the one of that name, and opens it.
    ///
    /// # Errors
    ///
    /// `NotFound` where the directory is missing; `Full` where not even a page is free.
    pub fn create(&mut self, path: &str) -> Result<FileInfo> {
        let (dir, name) = self.place(path)?;
        if let Some(ino) = self.names.get(dir, &name) {
            self.set_len(ino, 0)?;
            return self.open(path);
        }
        if self.free_bytes() < PAGE_BYTES {
            return Err(DiskError::Full);
        }
        let ino = to_u64(self.inodes.len());
        self.inodes.push(Some(Arc::new(Inode::new(self.config.track_durability))));
        self.assign(vec![Assign { dir, name, ino: Some(ino) }], false);
        self.open(path)
    }

    /// Gives up a handle; the last one of a file without names frees its space.
    pub fn close(&mut self, ino: u64) {
        if let Some(inode) = self.inode_mut(ino) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        self.collect(ino);
    }

    /// Creates a directory with its parents.
    pub fn create_dir(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            if let Some(parent) = path.get(..at) {
                self.names.add(parent);
            }
        }
        self.names.add(path);
    }

    /// Renames a file over whatever has the new name.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let ino = self.find(from)?;
        let ((from_dir, from_name), (dir, name)) = (self.place(from)?, self.place(to)?);
        if (from_dir, &from_name) == (dir, &name) {
            return Ok(());
        }
        let add = Assign { dir, name, ino: Some(ino) };
        let remove = Assign { dir: from_dir, name: from_name, ino: None };
        if from_dir == dir || self.config.profile == Profile::Journal {
            self.assign(vec![add, remove], true);
        } else {
            self.assign(vec![add], false);
            self.assign(vec![remove], false);
        }
        Ok(())
    }

    /// Removes a name.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let (dir, name) = self.place(path)?;
        self.names.get(dir, &name).ok_or(DiskError::NotFound)?;
        self.assign(vec![Assign { dir, name, ino: None }], false);
        Ok(())
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    ///
    /// `NotFound`; `Exists` where the name is taken.
    pub fn link(&mut self, from: &str, to: &str) -> Result<()> {
        let ino = self.find(from)?;
        let (dir, name) = self.place(to)?;
        if self.names.get(dir, &name).is_some() {
            return Err(DiskError::Exists);
        }
        self.assign(vec![Assign { dir, name, ino: Some(ino) }], false);
        Ok(())
    }

    /// The names in a directory, files and directories, sorted.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let id = self.names.id(path).ok_or(DiskError::NotFound)?;
        let dir = self.names.dirs.get(id).ok_or(DiskError::NotFound)?;
        let mut names: Vec<String> = dir.live.keys().map(|name| (**name).to_owned()).collect();
        let below =
            self.names.ids.keys().filter_map(|dir| dir.strip_prefix(path)?.strip_prefix('/'));
        names.extend(below.filter(|name| !name.contains('/') && !name.is_empty()).map(Into::into));
        names.sort_unstable();
        Ok(names)
    }

    fn assign(&mut self, assigns: Vec<Assign>, rename: bool) {
        let track = self.config.track_durability;
        for ino in assigns.iter().filter_map(|a| a.ino) {
            if let Some(inode) = self.inode_mut(ino) {
                inode.links = inode.links.saturating_add(1);
                inode.meta_refs = inode.meta_refs.saturating_add(u32::from(track));
            }
        }
        for ino in self.names.apply_live(&assigns) {
            if let Some(inode) = self.inode_mut(ino) {
                inode.links = inode.links.saturating_sub(1);
            }
            self.collect(ino);
        }
        if track {
            self.names.push(assigns, rename);
        }
    }

    fn settle(&mut self, ops: &[NameOp]) {
        for op in ops {
            // The reference of the pending operation becomes that of the durable name.
            for ino in self.names.apply_durable(&op.assigns) {
                if let Some(inode) = self.inode_mut(ino) {
                    inode.meta_refs = inode.meta_refs.saturating_sub(1);
                }
                self.collect(ino);
            }
        }
    }

    /// Frees what an inode holds once nothing names or uses it.
    pub(crate) fn collect(&mut self, ino: u64) {
        let Some(inode) = self.inode_mut(ino) else { return };
        if inode.links > 0 || inode.handles > 0 {
            return;
        }
        let (charged, gone) = (core::mem::take(&mut inode.charged), inode.meta_refs == 0);
        self.used_bytes = self.used_bytes.saturating_sub(charged);
        if !gone {
            return;
        }
        let taken = self.inodes.get_mut(to_usize(ino)).and_then(Option::take);
        if let Some(Content::Pages(slots)) = taken.as_deref().map(|inode| &inode.content) {
            let held = slots.iter().enumerate();
            for held in held.filter_map(|(no, slot)| Some((no, slot.live.clone()?))).take(2) {
                if self.freed.len() >= FREED_MAX {
                    self.freed.pop_front();
                }
                self.freed.push_back(held);
            }
        }
    }

    /// What a sync of this directory that starts now will cover.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn sync_dir_start(&self, path: &str) -> Result<u64> {
        self.names.id(path).ok_or(DiskError::NotFound)?;
        Ok(self.names.next_order)
    }

    /// Ends a sync of a directory.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub fn sync_dir_end(
        &mut self,
        path: &str,
        start: u64,
        result: SyncResult,
        choices: &Choices,
    ) -> Result<()> {
        let dir = self.names.id(path).ok_or(DiskError::NotFound)?;
        let ops = match result {
            SyncResult::Done => self.names.commit(dir, start, self.config.profile),
            SyncResult::Failed | SyncResult::Reverted => {
                self.names.commit_part(dir, self.config.profile, choices)
            }
            SyncResult::Lied => Vec::new(),
        };
        self.settle(&ops);
        Ok(())
    }

    /// A file's length.
    pub fn len(&self, ino: u64) -> u64 {
        self.inode(ino).map_or(0, Inode::len)
    }

    /// Whether the disk holds no file.
    pub fn is_empty(&self) -> bool {
        self.inodes.iter().all(Option::is_none)
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Errors
    ///
    /// `Eof` where the file ends before.
    pub fn read(&self, ino: u64, offset: u64, len: usize) -> Result<Vec<u8>> {
        let inode = self.inode(ino).ok_or(DiskError::NotFound)?;
        if offset.saturating_add(to_u64(len)) > inode.len() {
            return Err(DiskError::Eof);
        }
        Ok(inode.read(offset, len))
    }

    /// Writes bytes, extending the file where needed.
    ///
    /// # Errors
    ///
    /// `Full`: the part that fits was written.
    pub fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.saturating_add(to_u64(data.len()));
        let fits = self.grow(ino, end)?;
        let inode = self.inode_mut(ino).ok_or(DiskError::NotFound)?;
        let n = to_usize(fits.saturating_sub(offset)).min(data.len());
        inode.write(offset, data.get(..n).unwrap_or(data));
        inode.unpaid = inode.unpaid.saturating_add(to_u64(n));
        if n < data.len() { Err(DiskError::Full) } else { Ok(()) }
    }

    /// Charges the space for a length; gives back the length that fits.
    fn grow(&mut self, ino: u64, len: u64) -> Result<u64> {
        let free = self.free_bytes();
        let inode = self.inode_mut(ino).ok_or(DiskError::NotFound)?;
        let wanted = inode.charge_at(len);
        if wanted <= inode.charged {
            return Ok(len);
        }
        let target = wanted.min(inode.charged.saturating_add(free & !(PAGE_BYTES - 1)));
        let more = target.saturating_sub(inode.charged);
        inode.charged = inode.charged.max(target);
        let charged = inode.charged;
        self.used_bytes = self.used_bytes.saturating_add(more);
        Ok(len.min(charged))
    }

    /// Remembers a write as in flight, so that a kill may cut it.
    pub fn write_begin(&mut self, ino: u64, offset: u64, len: usize) -> u64 {
        let view = self.inode(ino).map(|inode| inode.write_view(ino, offset, to_u64(len)));
        self.next_token = self.next_token.wrapping_add(1);
        if let Some(view) = view {
            self.writes.insert(self.next_token, view);
        }
        self.next_token
    }

    /// The write is over.
    pub fn write_end(&mut self, token: u64) {
        self.writes.remove(&token);
    }

    /// Cuts or extends a file.
    ///
    /// # Errors
    ///
    /// `Full`: nothing was changed.
    pub fn set_len(&mut self, ino: u64, len: u64) -> Result<()> {
        let before = self.len(ino);
        if len > before && self.grow(ino, len)? < len {
            return Err(DiskError::Full);
        }
        let inode = self.inode_mut(ino).ok_or(DiskError::NotFound)?;
        inode.set_len(len);
        if len < before {
            inode.reserved = inode.reserved.min(len);
            let freed = inode.charged.saturating_sub(inode.charge_at(len));
            inode.charged = inode.charged.saturating_sub(freed);
            self.used_bytes = self.used_bytes.saturating_sub(freed);
        }
        Ok(())
    }

    /// Reserves space for the first `len` bytes.
    ///
    /// # Errors
    ///
    /// `Full`: what fits is reserved.
    pub fn allocate(&mut self, ino: u64, len: u64) -> Result<()> {
        let fits = self.grow(ino, len)?;
        if let Some(inode) = self.inode_mut(ino) {
            inode.reserved = inode.reserved.max(fits);
        }
        if fits < len { Err(DiskError::Full) } else { Ok(()) }
    }

    /// What a sync of this file that starts now will cover.
    pub fn sync_start(&mut self, ino: u64) -> u64 {
        self.next_token = self.next_token.wrapping_add(1);
        let token = self.next_token;
        if self.config.track_durability
            && let Some(view) = self.inode(ino).map(|inode| inode.sync_start(ino, token))
        {
            self.syncs.insert(token, view);
        }
        token
    }

    /// Ends a sync.
    pub fn sync_end(&mut self, token: u64, result: SyncResult, choices: &Choices) {
        let Some(view) = self.syncs.remove(&token) else { return };
        let names = self.config.sync_persists_name && self.config.profile == Profile::Journal;
        let Some(inode) = self.inode_mut(view.ino) else { return };
        match result {
            SyncResult::Done => inode.sync_end(&view, true, |_| true),
            SyncResult::Failed | SyncResult::Reverted => {
                let length_too = choices.choose("sync.size", 2) == 0;
                inode.sync_end(&view, length_too, |_| choices.choose("sync.part", 2) == 0);
                if result == SyncResult::Reverted {
                    inode.forget_unwritten();
                }
            }
            SyncResult::Lied => {}
        }
        if names && result == SyncResult::Done {
            let of_file = |op: &&NameOp| op.assigns.iter().any(|a| a.ino == Some(view.ino));
            let last = self.names.pending.iter().rfind(of_file);
            if let Some((dir, order)) =
                last.and_then(|op| op.assigns.first().map(|a| (a.dir, op.order)))
            {
                let ops = self.names.commit(dir, order, Profile::Journal);
                self.settle(&ops);
            }
        }
    }

    /// Takes the bytes in the page cache that the device was not paid for.
    pub fn take_unpaid(&mut self, ino: u64) -> u64 {
        self.inode_mut(ino).map_or(0, |inode| core::mem::take(&mut inode.unpaid))
    }

    /// Bytes in the page cache that the device was not paid for.
    pub fn unpaid(&self, ino: u64) -> u64 {
        self.inode(ino).map_or(0, |inode| inode.unpaid)
    }
}
