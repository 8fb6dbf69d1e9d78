//! One inode: what reads see now, and what a power loss would leave.
//!
//! A tracked file is a list of 4 KiB pages, each with a live and a durable image that share memory
//! while they are equal. An untracked file (experiments, which never crash) is one flat buffer.
//!
//! Invariants: bytes of a live page at or beyond the live length are zero, so growing reads zeros;
//! a page whose images differ is dirty unless a failed sync marked it clean (then no later sync
//! writes it, fault-model F3); a sync applies the images that it saw when it started.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_engine::types::{to_u64, to_usize};

use super::Lengths;

/// Bytes of a page, the unit in which a power loss keeps or loses.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes of a sector, the unit of a torn page.
pub const SECTOR_BYTES: u64 = 512;

const PAGE_LEN: usize = 4096;

/// How many earlier states of a page or a length are remembered between syncs.
const STATES_MAX: usize = 48;

pub(crate) type PageBytes = [u8; PAGE_LEN];
pub(crate) type Page = Arc<PageBytes>;

/// One page. `None` reads as zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) live: Option<Page>,
    pub(crate) durable: Option<Page>,
    pub(crate) dirty: bool,
    /// Where earlier pending appends to this page ended: the page cut there is an earlier version.
    pub(crate) cuts: Vec<u16>,
    synced_by: u64,
}

impl Slot {
    /// A page on which both images agree.
    pub(crate) fn settled(page: Option<Page>) -> Self {
        Self { live: page.clone(), durable: page, ..Self::default() }
    }

    fn live_mut(&mut self) -> &mut PageBytes {
        Arc::make_mut(self.live.get_or_insert_with(zero_page))
    }
}

fn zero_page() -> Page {
    Arc::new([0; PAGE_LEN])
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Flat(Vec<u8>),
    Pages(Vec<Slot>),
}

/// What a sync saw when it started.
#[derive(Clone, Debug)]
pub(crate) struct SyncView {
    pub(crate) ino: u64,
    pub(crate) order: u64,
    pub(crate) len: u64,
    pub(crate) pages: Vec<(usize, Option<Page>)>,
}

/// What a write in flight would have to undo.
#[derive(Clone, Debug)]
pub(crate) struct WriteView {
    pub(crate) ino: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) len_before: u64,
    before: Vec<(usize, Option<Page>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) content: Content,
    pub(crate) lengths: Lengths,
    /// Lengths between the durable and the live one, in the order in which they came about.
    pub(crate) steps: Vec<u64>,
    pub(crate) dirty: Vec<usize>,
    length_synced_by: u64,
    /// Bytes reserved by `allocate`.
    pub(crate) reserved: u64,
    /// Bytes that the disk counts as used.
    pub(crate) charged: u64,
    pub(crate) links: u32,
    pub(crate) handles: u32,
    /// Durable names plus pending name operations that could bring the inode back.
    pub(crate) meta_refs: u32,
    /// Bytes in the page cache that the device was not paid for.
    pub(crate) unpaid: u64,
    /// Sectors that cannot be read until they are written in whole.
    pub(crate) bad: BTreeSet<u64>,
    /// A sync failed and said Ok: the next one reports it.
    pub(crate) owes_error: bool,
}

impl Inode {
    pub(crate) fn new(track: bool) -> Self {
        Self {
            content: if track { Content::Pages(Vec::new()) } else { Content::Flat(Vec::new()) },
            lengths: Lengths::default(),
            steps: Vec::new(),
            dirty: Vec::new(),
            length_synced_by: 0,
            reserved: 0,
            charged: 0,
            links: 0,
            handles: 0,
            meta_refs: 0,
            unpaid: 0,
            bad: BTreeSet::new(),
            owes_error: false,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.lengths.live
    }

    /// Bytes that the disk should count as used with this length.
    pub(crate) fn charge_at(&self, len: u64) -> u64 {
        len.max(self.reserved).div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES)
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let start = to_usize(offset);
        match &self.content {
            Content::Flat(bytes) => {
                bytes.get(start..start.saturating_add(len)).unwrap_or_default().to_vec()
            }
            Content::Pages(slots) => {
                let mut out = Vec::with_capacity(len);
                let mut at = start;
                while out.len() < len {
                    let within = at & (PAGE_LEN - 1);
                    let n = (PAGE_LEN - within).min(len - out.len());
                    let page = slots.get(at >> 12).and_then(|slot| slot.live.as_ref());
                    match page.and_then(|page| page.get(within..within + n)) {
                        Some(bytes) => out.extend_from_slice(bytes),
                        None => out.resize(out.len() + n, 0),
                    }
                    at = at.saturating_add(n);
                }
                out
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let appends = offset == self.lengths.live;
        let end = offset.saturating_add(to_u64(data.len()));
        if !self.bad.is_empty() {
            let whole = offset.div_ceil(SECTOR_BYTES)..end >> 9;
            self.bad.retain(|sector| !whole.contains(sector));
        }
        match &mut self.content {
            Content::Flat(bytes) => write_flat(bytes, to_usize(offset), data),
            Content::Pages(slots) => {
                write_pages(slots, &mut self.dirty, to_usize(offset), data, appends);
            }
        }
        if end > self.lengths.live {
            self.set_live_len(end);
        }
    }

    fn set_live_len(&mut self, len: u64) {
        if matches!(self.content, Content::Pages(_)) {
            if self.lengths.live != self.lengths.durable {
                if self.steps.len() >= STATES_MAX {
                    self.steps.remove(0);
                }
                self.steps.push(self.lengths.live);
            }
        } else {
            self.lengths.durable = len;
        }
        self.lengths.live = len;
    }

    /// Cuts or extends; what is cut off reads as zeros when the file grows again.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.lengths.live {
            self.zero_behind(len);
            self.bad.retain(|sector| *sector < len.div_ceil(SECTOR_BYTES));
        }
        if let Content::Flat(bytes) = &mut self.content {
            bytes.resize(to_usize(len), 0);
        }
        if len != self.lengths.live {
            self.set_live_len(len);
        }
    }

    fn zero_behind(&mut self, len: u64) {
        let Content::Pages(slots) = &mut self.content else { return };
        let at = to_usize(len);
        let within = at & (PAGE_LEN - 1);
        let mut first = at >> 12;
        if within > 0 {
            if let Some(slot) = slots.get_mut(first)
                && slot.live.is_some()
            {
                if let Some(tail) = slot.live_mut().get_mut(within..) {
                    tail.fill(0);
                }
                mark(slot, &mut self.dirty, first);
            }
            first += 1;
        }
        for (no, slot) in slots.iter_mut().enumerate().skip(first) {
            if slot.live.take().is_some() {
                mark(slot, &mut self.dirty, no);
            }
        }
    }

    /// Remembers what a write of `len` bytes at `offset` will overwrite.
    pub(crate) fn write_view(&self, ino: u64, offset: u64, len: u64) -> WriteView {
        let mut before = Vec::new();
        if let Content::Pages(slots) = &self.content
            && offset < self.lengths.live
        {
            let first = to_usize(offset) >> 12;
            let last = to_usize(offset.saturating_add(len).saturating_sub(1)) >> 12;
            for no in first..=last {
                before.push((no, slots.get(no).and_then(|slot| slot.live.clone())));
            }
        }
        WriteView { ino, offset, len, len_before: self.lengths.live, before }
    }

    /// Leaves only the first `kept` bytes of a write that was in flight.
    pub(crate) fn undo_write(&mut self, view: &WriteView, kept: u64) {
        let prefix = self.read(view.offset, to_usize(kept));
        if view.before.is_empty() {
            self.set_len(view.offset.saturating_add(kept).max(view.len_before));
            return;
        }
        if let Content::Pages(slots) = &mut self.content {
            for (no, page) in &view.before {
                if let Some(slot) = slots.get_mut(*no) {
                    slot.live.clone_from(page);
                }
            }
        }
        if self.lengths.live > view.len_before {
            self.set_len(view.len_before);
        }
        self.write(view.offset, &prefix);
    }

    pub(crate) fn sync_start(&self, ino: u64, order: u64) -> SyncView {
        let pages = match &self.content {
            Content::Flat(_) => Vec::new(),
            Content::Pages(slots) => self
                .dirty
                .iter()
                .filter_map(|no| slots.get(*no).map(|slot| (*no, slot.live.clone())))
                .collect(),
        };
        SyncView { ino, order, len: self.lengths.live, pages }
    }

    /// Ends a sync. `wrote(page)` says whether the page reached the medium; all are clean
    /// afterwards.
    pub(crate) fn sync_end(
        &mut self,
        view: &SyncView,
        length_too: bool,
        mut wrote: impl FnMut(usize) -> bool,
    ) {
        let Content::Pages(slots) = &mut self.content else { return };
        for (no, page) in &view.pages {
            let Some(slot) = slots.get_mut(*no) else { continue };
            if wrote(*no) && slot.synced_by < view.order {
                slot.durable.clone_from(page);
                slot.synced_by = view.order;
            }
            if same(slot.live.as_ref(), page.as_ref()) {
                slot.dirty = false;
                slot.cuts.clear();
            }
        }
        self.dirty.retain(|no| slots.get(*no).is_some_and(|slot| slot.dirty));
        if length_too && self.length_synced_by < view.order {
            self.lengths.durable = view.len;
            self.length_synced_by = view.order;
            let known = self.steps.iter().position(|step| *step == view.len);
            match known {
                Some(at) => drop(self.steps.drain(..=at)),
                None if self.lengths.live == view.len => self.steps.clear(),
                None => {}
            }
        }
    }

    /// Flips one bit in both images: the medium rots, and stays rotten.
    pub(crate) fn flip(&mut self, offset: u64, bit: u32) {
        let mask = 1_u8.checked_shl(bit & 7).unwrap_or(1);
        let at = to_usize(offset);
        match &mut self.content {
            Content::Flat(bytes) => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Content::Pages(slots) => {
                let Some(slot) = slots.get_mut(at >> 12) else { return };
                let shared = same(slot.live.as_ref(), slot.durable.as_ref());
                if let Some(byte) = slot.live_mut().get_mut(at & (PAGE_LEN - 1)) {
                    *byte ^= mask;
                }
                if shared {
                    slot.durable.clone_from(&slot.live);
                }
            }
        }
    }
}

/// Whether two images are one.
pub(crate) fn same(a: Option<&Page>, b: Option<&Page>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn mark(slot: &mut Slot, dirty: &mut Vec<usize>, no: usize) {
    slot.cuts.clear();
    if !slot.dirty {
        slot.dirty = true;
        dirty.push(no);
    }
}

fn write_flat(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if at > bytes.len() {
        bytes.resize(at, 0);
    }
    let (over, behind) = data.split_at(data.len().min(bytes.len() - at));
    if let Some(target) = bytes.get_mut(at..at + over.len()) {
        target.copy_from_slice(over);
    }
    bytes.extend_from_slice(behind);
}

fn write_pages(
    slots: &mut Vec<Slot>,
    dirty: &mut Vec<usize>,
    offset: usize,
    data: &[u8],
    appends: bool,
) {
    let mut at = offset;
    let mut rest = data;
    while !rest.is_empty() {
        let (no, within) = (at >> 12, at & (PAGE_LEN - 1));
        let (head, tail) = rest.split_at(rest.len().min(PAGE_LEN - within));
        if slots.len() <= no {
            slots.resize_with(no + 1, Slot::default);
        }
        if let Some(slot) = slots.get_mut(no) {
            if let Ok(whole) = PageBytes::try_from(head) {
                slot.live = Some(Arc::new(whole));
            } else if let Some(target) = slot.live_mut().get_mut(within..within + head.len()) {
                target.copy_from_slice(head);
            }
            note_version(slot, dirty, no, appends.then_some(within));
        }
        at = at.saturating_add(head.len());
        rest = tail;
    }
}

/// Marks a page dirty; an append leaves the page cut at its start as an earlier version.
fn note_version(slot: &mut Slot, dirty: &mut Vec<usize>, no: usize, cut: Option<usize>) {
    if !slot.dirty {
        slot.dirty = true;
        slot.cuts.clear();
        dirty.push(no);
        return;
    }
    match cut {
        Some(within) if within > 0 && slot.cuts.len() < STATES_MAX => {
            slot.cuts.push(u16::try_from(within).unwrap_or(0));
        }
        Some(_) => {}
        None => slot.cuts.clear(),
    }
}
