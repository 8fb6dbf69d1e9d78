//! All that a power loss may leave, one state after another, where few things are pending; and by what a
//! state is known again.

use std::rc::Rc;

use forebay_engine::types::to_u64;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::file::{Content, Page, SECTOR_BYTES, Slot};
use super::{CrashReport, Profile, SimDisk};
use crate::choices::{Choices, Mode, Recording};
use crate::trace::Trace;

/// Every state that a power loss may leave, by trying each outcome of each choice in turn. States may
/// come more than once.
///
/// # Source
///
/// ALICE (Pillai et al., OSDI 2014) and B3 (Mohan et al., OSDI 2018) try the states of short histories
/// one after another; the walk over choices is that of stateless model checking (`VeriSoft`, POPL 1997).
#[derive(Debug)]
pub struct CrashStates<'a> {
    disk: &'a SimDisk,
    /// What to choose next; none once all was tried.
    next: Option<Recording>,
}

impl Iterator for CrashStates<'_> {
    type Item = (SimDisk, CrashReport);

    fn next(&mut self) -> Option<Self::Item> {
        let choices = Choices::new(0, Mode::Replay(self.next.take()?), Rc::new(Trace::default()));
        let state = self.disk.crash_power_exactly(&choices);
        self.next = following(choices.recording());
        Some(state)
    }
}

/// The choices that come next: the last one that has another outcome takes it.
fn following(mut made: Recording) -> Option<Recording> {
    while let Some(last) = made.choices.pop() {
        if last.value + 1 < last.n {
            made.choices.push(crate::choices::Choice { value: last.value + 1, ..last });
            return Some(made);
        }
    }
    None
}

impl SimDisk {
    /// Every state that a power loss now may leave.
    pub fn crash_states(&self) -> CrashStates<'_> {
        CrashStates { disk: self, next: Some(Recording::default()) }
    }

    /// How many things may or may not survive a power loss, each by itself: pages, or sectors where pages
    /// tear; lengths; and operations on names.
    pub fn crash_units(&self) -> u64 {
        let adversary = self.config.profile == Profile::Adversary;
        let mut units = to_u64(self.names.pending.len());
        for inode in self.inodes.iter().flatten() {
            units += u64::from(inode.lengths.live != inode.lengths.durable);
            let Content::Pages(slots) = &inode.content else { continue };
            for slot in inode.dirty.iter().filter_map(|no| slots.get(*no)) {
                units += if adversary { changed_sectors(slot) } else { 1 };
            }
        }
        units
    }

    /// A hash of what programs see on this disk: two states with the same one are one.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = 0;
        for (path, id) in &self.names.ids {
            let Some(dir) = self.names.dirs.get(*id) else { continue };
            hash = xxh3_64_with_seed(path.as_bytes(), hash);
            for (name, ino) in &dir.live {
                hash = xxh3_64_with_seed(name.as_bytes(), hash);
                let Some(inode) = self.inode(*ino) else { continue };
                hash = xxh3_64_with_seed(&inode.len().to_le_bytes(), hash ^ inode.reserved);
                hash = inode.bad.iter().fold(hash, |hash, bad| hash.rotate_left(7) ^ bad);
                if let Content::Pages(slots) = &inode.content {
                    let pages = (0_u64..)
                        .zip(slots)
                        .filter_map(|(no, slot)| Some((no, slot.live.as_ref()?)));
                    // A page of zeros is a page that is not there.
                    let pages = pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0));
                    hash =
                        pages.fold(hash, |hash, (no, page)| xxh3_64_with_seed(&**page, hash ^ no));
                }
            }
        }
        hash
    }
}

fn changed_sectors(slot: &Slot) -> u64 {
    let sectors = |page: &Option<Page>| -> Vec<Vec<u8>> {
        let sector = forebay_engine::types::to_usize(SECTOR_BYTES);
        let zeros = [0; 4096];
        let bytes = page.as_deref().unwrap_or(&zeros);
        bytes.chunks_exact(sector).map(<[u8]>::to_vec).collect()
    };
    let both = sectors(&slot.live).into_iter().zip(sectors(&slot.durable));
    to_u64(both.filter(|(live, durable)| live != durable).count())
}
