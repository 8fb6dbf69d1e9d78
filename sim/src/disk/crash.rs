//! What a crash leaves: a copy of the disk, drawn from everything that the rules allow.
//!
//! A power loss keeps, loses or tears each dirty page on its own, picks each file's size, and
//! applies a part of the pending name operations (fault-model F1 to F8, F10). A kill keeps every
//! completed call and cuts a write in flight at any byte (F9); its page cache survives, so that a
//! power loss later may still take what was never synced.
//!
//! The value 0 of every choice keeps things: a case shrinks towards "nothing was lost".

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_engine::types::{to_u64, to_usize};

use super::file::{Content, Inode, PAGE_BYTES, Page, PageBytes, SECTOR_BYTES, Slot, same};
use super::{CrashReport, Lengths, Profile, SimDisk, Spread};
use crate::choices::Choices;

impl SimDisk {
    /// The disk after a power loss now. Everything on it is durable; `self` is not changed.
    pub fn crash_power(&self, choices: &Choices) -> (Self, CrashReport) {
        self.crash_power_as(choices, false)
    }

    /// As [`crash_power`](Self::crash_power), with each outcome once among those of its choice: for
    /// [`CrashStates`](super::CrashStates).
    pub(super) fn crash_power_exactly(&self, choices: &Choices) -> (Self, CrashReport) {
        self.crash_power_as(choices, true)
    }

    fn crash_power_as(&self, choices: &Choices, exact: bool) -> (Self, CrashReport) {
        let mut report = CrashReport::default();
        let strict = self.config.profile == Profile::Strict;
        let spread = |site| match choices.choose(site, if exact { 3 } else { 4 }) {
            _ if strict => Spread::Nothing,
            0 => Spread::All,
            1 => Spread::Nothing,
            _ => Spread::Some,
        };
        let pages = spread("crash.pages");
        let names = self.names.after_power_loss(
            self.config.profile,
            spread("crash.names"),
            (choices, exact),
            &mut report,
        );
        let mut after = self.emptied();
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        for ino in names.iter().flat_map(BTreeMap::values) {
            *links.entry(*ino).or_default() += 1;
        }
        for (ino, count) in links {
            let Some(inode) = self.inode(ino) else { continue };
            let mut settled = self.crash_inode(ino, inode, (pages, exact), (choices, &mut report));
            settled.links = count;
            settled.meta_refs = count;
            after.put_inode(ino, settled);
        }
        for (dir, names) in after.names.dirs.iter_mut().zip(names) {
            dir.live.clone_from(&names);
            dir.durable = names;
        }
        (after, report)
    }

    /// The disk after the process was killed now. What was pending stays pending.
    pub fn crash_kill(&self, choices: &Choices) -> (Self, CrashReport) {
        let mut report = CrashReport::default();
        let mut after = self.clone();
        for view in core::mem::take(&mut after.writes).into_values() {
            // A full disk may have taken less than was asked.
            let taken = after.len(view.ino).saturating_sub(view.offset).min(view.len);
            let kept = taken - choices.choose("crash.cut", taken.saturating_add(1));
            if kept < taken {
                report.writes_cut += 1;
                if let Some(inode) = after.inode_mut(view.ino) {
                    inode.undo_write(&view, kept);
                }
            }
        }
        after.syncs.clear();
        after.drop_handles();
        (after, report)
    }

    fn crash_inode(
        &self,
        ino: u64,
        inode: &Inode,
        (spread, exact): (Spread, bool),
        (choices, report): (&Choices, &mut CrashReport),
    ) -> Inode {
        let mut after = Inode::new(true);
        after.reserved = inode.reserved;
        after.bad.clone_from(&inode.bad);
        let Content::Pages(slots) = &inode.content else {
            after.content = inode.content.clone();
            after.lengths = inode.lengths;
            return after;
        };
        let mut draw = FileCrash { disk: self, ino, inode, spread, exact, choices, report };
        let len = draw.pick_len();
        let pages = to_usize(len.div_ceil(PAGE_BYTES));
        let covers = draw.size_follows_data();
        let mut settled: Vec<Slot> = (0..pages)
            .map(|no| {
                let page = slots.get(no).and_then(|slot| draw.pick_page(no, slot, len, covers));
                Slot::settled(page)
            })
            .collect();
        if let Some(last) = settled.last_mut() {
            let within = to_usize(len & (PAGE_BYTES - 1));
            if within > 0 {
                *last = Slot::settled(last.live.take().map(|page| cut(&page, within)));
            }
        }
        after.content = Content::Pages(settled);
        after.lengths = Lengths { live: len, durable: len };
        after.bad.retain(|sector| *sector < len.div_ceil(SECTOR_BYTES));
        after
    }
}

struct FileCrash<'a> {
    disk: &'a SimDisk,
    ino: u64,
    inode: &'a Inode,
    spread: Spread,
    /// Every outcome weighs the same.
    exact: bool,
    choices: &'a Choices,
    report: &'a mut CrashReport,
}

impl FileCrash<'_> {
    fn pick_len(&mut self) -> u64 {
        let Lengths { live, durable } = self.inode.lengths;
        if live == durable && self.inode.steps.is_empty() {
            return live;
        }
        let len = match self.spread {
            Spread::All => live,
            Spread::Nothing => self.synced_len(),
            Spread::Some => {
                let steps = &self.inode.steps;
                match self.choices.choose("crash.size", to_u64(steps.len()).saturating_add(3)) {
                    0 => live,
                    1 => durable,
                    2 => {
                        let (low, high) = (live.min(durable) >> 12, live.max(durable) >> 12);
                        let page = self.choices.range("crash.size-page", low, high);
                        page.saturating_mul(PAGE_BYTES).clamp(live.min(durable), live.max(durable))
                    }
                    n => steps.get(to_usize(n - 3)).copied().unwrap_or(durable),
                }
            }
        };
        self.report.sizes_lost += u64::from(len != live);
        len
    }

    /// The durable length, unless a sync in flight got as far as writing a newer one.
    fn synced_len(&self) -> u64 {
        let in_flight = self.disk.syncs.values().rfind(|view| view.ino == self.ino);
        match in_flight {
            Some(view) if self.choices.choose("crash.sync-size", 2) == 0 => view.len,
            _ => self.inode.lengths.durable,
        }
    }

    /// Whether this file's size never covers a page that was not written (ordered mode).
    fn size_follows_data(&self) -> bool {
        self.disk.config.profile == Profile::Journal
            && self.spread == Spread::Some
            && self.choices.choose("crash.ordered", 2) == 0
    }

    fn pick_page(&mut self, no: usize, slot: &Slot, len: u64, covers: bool) -> Option<Page> {
        if !slot.dirty {
            return slot.durable.clone();
        }
        let (live, durable) = (self.inode.lengths.live, self.inode.lengths.durable);
        let start = to_u64(no).saturating_mul(PAGE_BYTES);
        let end = start.saturating_add(PAGE_BYTES);
        let journal = self.disk.config.profile == Profile::Journal;
        if journal && len > live && end > live {
            return slot.durable.clone();
        }
        match self.spread {
            Spread::All => self.keep(slot),
            Spread::Nothing => self.pick_in_flight(no, slot),
            Spread::Some if covers && len > durable && end > durable => self.keep(slot),
            Spread::Some => self.draw_page(no, slot),
        }
    }

    fn keep(&mut self, slot: &Slot) -> Option<Page> {
        self.report.pages_kept += 1;
        slot.live.clone()
    }

    /// Nothing unsynced survives, but a sync in flight may have written any of its pages.
    fn pick_in_flight(&mut self, no: usize, slot: &Slot) -> Option<Page> {
        let in_flight = self.disk.syncs.values().filter(|view| view.ino == self.ino);
        let seen = in_flight.flat_map(|view| &view.pages).rfind(|(page, _)| *page == no);
        if let Some((_, page)) = seen
            && self.choices.choose("crash.sync-page", 2) == 0
        {
            self.report.pages_kept += 1;
            return page.clone();
        }
        self.report.pages_lost += 1;
        slot.durable.clone()
    }

    fn draw_page(&mut self, no: usize, slot: &Slot) -> Option<Page> {
        let adversary = self.disk.config.profile == Profile::Adversary;
        if adversary
            && !same(slot.live.as_ref(), slot.durable.as_ref())
            && self.choices.choose("crash.torn", if self.exact { 2 } else { 4 }) > self.torn_above()
        {
            return Some(self.tear(slot));
        }
        let outcomes = to_u64(slot.cuts.len()).saturating_add(2);
        // Kept and lost weigh as much as all earlier versions together.
        let weighed = if self.exact { 3 } else { self.choices.choose("crash.page", 4) };
        let outcome = match weighed {
            0 => 0,
            1 | 2 => 1,
            _ => self.choices.choose("crash.page-version", outcomes),
        };
        match outcome {
            0 => self.keep(slot),
            1 => {
                self.report.pages_lost += 1;
                match &slot.durable {
                    None if adversary => self.stale(no),
                    durable => durable.clone(),
                }
            }
            n => {
                self.report.pages_torn += 1;
                let at = slot.cuts.get(to_usize(n - 2)).copied().unwrap_or(0);
                slot.live.as_ref().map(|page| cut(page, usize::from(at)))
            }
        }
    }

    fn torn_above(&self) -> u64 {
        if self.exact { 0 } else { 2 }
    }

    /// Each sector is the old or the new one.
    fn tear(&mut self, slot: &Slot) -> Page {
        let zeros: PageBytes = [0; 4096];
        let mut page = slot.durable.as_deref().copied().unwrap_or(zeros);
        let new = slot.live.as_deref().copied().unwrap_or(zeros);
        let sector = to_usize(SECTOR_BYTES);
        for (to, from) in page.chunks_exact_mut(sector).zip(new.chunks_exact(sector)) {
            let alike = self.exact && *to == *from;
            if !alike && self.choices.choose("crash.sector", 2) == 0 {
                to.copy_from_slice(from);
            }
        }
        self.report.pages_torn += 1;
        Arc::new(page)
    }

    /// A new page that was never written: zeros, or what a deleted file left there. Half of the time
    /// it is from the same place of its file: a file of the same kind and length is likely to get
    /// the blocks of one that went, in their order.
    fn stale(&mut self, no: usize) -> Option<Page> {
        let same_place = self.choices.choose("crash.stale-place", 2) == 1;
        let left = self.disk.freed.iter().filter(|(place, _)| !same_place || *place == no);
        let left: Vec<&Page> = left.map(|(_, page)| page).collect();
        let drawn = self.choices.choose("crash.stale", to_u64(left.len()).saturating_add(1));
        let page = left.get(to_usize(drawn.checked_sub(1)?)).map(|page| Arc::clone(page));
        self.report.pages_stale += u64::from(page.is_some());
        page
    }
}

pub(super) fn cut(page: &Page, at: usize) -> Page {
    let mut bytes = **page;
    if let Some(tail) = bytes.get_mut(at..) {
        tail.fill(0);
    }
    Arc::new(bytes)
}
