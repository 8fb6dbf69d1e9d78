//! Seeded faults: how often each happens, and what happened.
//!
//! A fault is a choice whose value 0 means "no fault". Each one that fired is counted under its
//! name and logged with its place, so that a report can show the last fault before a loss and a run
//! can prove that its faults did fire. Crashes are counted here too.

pub mod atlas;
pub mod plan;
pub(crate) mod stall;

use core::fmt;
use std::collections::BTreeMap;

use forebay_engine::types::Nanos;
use serde::{Deserialize, Serialize};

use self::atlas::{Atlas, Damage};
pub use self::plan::FaultPlan;
use self::stall::Stalls;
use crate::check::Rule;
use crate::choices::Choices;

/// Most faults that are logged with their place; all are counted.
const LOG_MAX: usize = 10_000;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The machine lost power.
    PowerLoss,
    /// The process was killed.
    Kill,
    /// A read failed.
    EioRead,
    /// A write failed and left nothing.
    EioWrite,
    /// A sync failed; a part is durable, the rest is marked clean.
    EioSync,
    /// A call on a name failed.
    EioMeta,
    /// The disk was full.
    Enospc,
    /// A write failed and left a prefix.
    ShortWrite,
    /// A bit of the medium flipped for good.
    BitRot,
    /// A write landed elsewhere in its file.
    Misdirected,
    /// A sync said Ok and did nothing.
    SyncLies,
    /// A call on a name was done and failed all the same.
    ErrorAfterEffect,
    /// A call took long.
    Latency,
    /// The wall clock jumped.
    ClockJump,
    /// No file handle was left.
    Emfile,
    /// A reservation or a change of length failed: not done, done in part, or done.
    EioResize,
    /// A write was done in whole and failed all the same.
    WriteAfterEffect,
    /// A read gave less than was asked for, and the rest was asked for once more.
    ShortRead,
    /// A sector cannot be read until it is written.
    LatentSector,
    /// A write landed in another file of its directory.
    MisdirectedFile,
    /// A failed sync took what it did not write back to what is durable.
    SyncReverted,
    /// A sync failed and said Ok; the next one of the file tells of it.
    SyncLate,
    /// A sync found no space for what had been written.
    EnospcSync,
    /// A write found no space, or a quota used up, and left a prefix.
    EnospcWrite,
    /// A call that makes a name found no space for it.
    EnospcMeta,
    /// The page cache forgot pages that a failed sync had marked clean.
    CacheEviction,
    /// The filesystem takes no changes after an error, until it heals or the machine restarts.
    #[serde(rename = "remount_ro")]
    RemountReadOnly,
    /// The wall clock stood still.
    ClockFrozen,
    /// The wall clock was another after a restart.
    ClockStep,
    /// Calls on one file stood still for a while.
    StallFile,
    /// Calls on the tables of one tree stood still for a while.
    StallTree,
    /// Every sync stood still for a while.
    StallSyncs,
}

impl Fault {
    /// Every class.
    pub const ALL: [Self; 32] = [
        Self::PowerLoss,
        Self::Kill,
        Self::EioRead,
        Self::EioWrite,
        Self::EioSync,
        Self::EioMeta,
        Self::Enospc,
        Self::ShortWrite,
        Self::BitRot,
        Self::Misdirected,
        Self::SyncLies,
        Self::ErrorAfterEffect,
        Self::Latency,
        Self::ClockJump,
        Self::Emfile,
        Self::EioResize,
        Self::WriteAfterEffect,
        Self::ShortRead,
        Self::LatentSector,
        Self::MisdirectedFile,
        Self::SyncReverted,
        Self::SyncLate,
        Self::EnospcSync,
        Self::EnospcWrite,
        Self::EnospcMeta,
        Self::CacheEviction,
        Self::RemountReadOnly,
        Self::ClockFrozen,
        Self::ClockStep,
        Self::StallFile,
        Self::StallTree,
        Self::StallSyncs,
    ];

    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerLoss => "power_loss",
            Self::Kill => "kill",
            Self::EioRead => "eio_read",
            Self::EioWrite => "eio_write",
            Self::EioSync => "eio_sync",
            Self::EioMeta => "eio_meta",
            Self::Enospc => "enospc",
            Self::ShortWrite => "short_write",
            Self::BitRot => "bit_rot",
            Self::Misdirected => "misdirected",
            Self::SyncLies => "sync_lies",
            Self::ErrorAfterEffect => "error_after_effect",
            Self::Latency => "latency",
            Self::ClockJump => "clock_jump",
            Self::Emfile => "emfile",
            Self::EioResize => "eio_resize",
            Self::WriteAfterEffect => "write_after_effect",
            Self::ShortRead => "short_read",
            Self::LatentSector => "latent_sector",
            Self::MisdirectedFile => "misdirected_file",
            Self::SyncReverted => "sync_reverted",
            Self::SyncLate => "sync_late",
            Self::EnospcSync => "enospc_sync",
            Self::EnospcWrite => "enospc_write",
            Self::EnospcMeta => "enospc_meta",
            Self::CacheEviction => "cache_eviction",
            Self::RemountReadOnly => "remount_ro",
            Self::ClockFrozen => "clock_frozen",
            Self::ClockStep => "clock_step",
            Self::StallFile => "stall_file",
            Self::StallTree => "stall_tree",
            Self::StallSyncs => "stall_syncs",
        }
    }

    /// The rules of which this fault voids promises, for what it hit and for nothing else. All other
    /// rules hold whatever happens.
    ///
    /// Where the medium forgot or changed what it had confirmed, these are void for the tables that
    /// were hit, and for every tenant where the log or the manifest was: C2, since a copy that is gone
    /// may be the only one; C4 and C5 of tenants and forks, since a rotten tail looks like a torn one and
    /// may have held the last drops and what a fork began with; C9, since verification has to find it;
    /// C10, since nobody may remove what a damaged manifest may need; C11, since an open that cannot know
    /// what was there must refuse. It stays that the damage is told (C6) and that what is read was
    /// written (C3), in one order (C1, C8).
    ///
    /// Crashes, errors of calls and full disks void nothing. What a write is promised says which of
    /// them it survives: a page cache that forgets
    /// ([`SyncReverted`](Self::SyncReverted), [`CacheEviction`](Self::CacheEviction)) takes what was
    /// not synced, as a power loss does.
    pub fn voids(self) -> &'static [Rule] {
        match self {
            Self::BitRot
            | Self::Misdirected
            | Self::MisdirectedFile
            | Self::SyncLies
            | Self::SyncLate
            | Self::LatentSector => &[Rule::C2, Rule::C4, Rule::C5, Rule::C9, Rule::C10, Rule::C11],
            Self::PowerLoss
            | Self::Kill
            | Self::EioRead
            | Self::EioWrite
            | Self::EioSync
            | Self::EioMeta
            | Self::Enospc
            | Self::ShortWrite
            | Self::ErrorAfterEffect
            | Self::Latency
            | Self::ClockJump
            | Self::ClockFrozen
            | Self::ClockStep
            | Self::StallFile
            | Self::StallTree
            | Self::StallSyncs
            | Self::Emfile
            | Self::EioResize
            | Self::WriteAfterEffect
            | Self::ShortRead
            | Self::SyncReverted
            | Self::EnospcSync
            | Self::EnospcWrite
            | Self::EnospcMeta
            | Self::CacheEviction
            | Self::RemountReadOnly => &[],
        }
    }

    /// Whether the medium forgot or changed what it had confirmed, so that durability promises are
    /// void for what was hit.
    pub fn damages_media(self) -> bool {
        self.voids().contains(&Rule::C2)
    }

    /// Whether errors of any file may come of it: crashes, slow or short calls and clock jumps give none,
    /// and damage only those that name its file.
    pub fn excuses_errors(self) -> bool {
        let harmless = matches!(
            self,
            Self::PowerLoss
                | Self::Kill
                | Self::Latency
                | Self::ShortRead
                | Self::ClockJump
                | Self::ClockFrozen
                | Self::ClockStep
                | Self::StallFile
                | Self::StallTree
                | Self::StallSyncs
        );
        !harmless && !self.damages_media()
    }

    /// Where its chance is drawn.
    fn site(self) -> &'static str {
        match self {
            Self::PowerLoss => "fault.power_loss",
            Self::Kill => "fault.kill",
            Self::EioRead => "fault.eio_read",
            Self::EioWrite => "fault.eio_write",
            Self::EioSync => "fault.eio_sync",
            Self::EioMeta => "fault.eio_meta",
            Self::Enospc => "fault.enospc",
            Self::ShortWrite => "fault.short_write",
            Self::BitRot => "fault.bit_rot",
            Self::Misdirected => "fault.misdirected",
            Self::SyncLies => "fault.sync_lies",
            Self::ErrorAfterEffect => "fault.error_after_effect",
            Self::Latency => "fault.latency",
            Self::ClockJump => "fault.clock_jump",
            Self::Emfile => "fault.emfile",
            Self::EioResize => "fault.eio_resize",
            Self::WriteAfterEffect => "fault.write_after_effect",
            Self::ShortRead => "fault.short_read",
            Self::LatentSector => "fault.latent_sector",
            Self::MisdirectedFile => "fault.misdirected_file",
            Self::SyncReverted => "fault.sync_reverted",
            Self::SyncLate => "fault.sync_late",
            Self::EnospcSync => "fault.enospc_sync",
            Self::EnospcWrite => "fault.enospc_write",
            Self::EnospcMeta => "fault.enospc_meta",
            Self::CacheEviction => "fault.cache_eviction",
            Self::RemountReadOnly => "fault.remount_ro",
            Self::ClockFrozen => "fault.clock_frozen",
            Self::ClockStep => "fault.clock_step",
            Self::StallFile => "fault.stall_file",
            Self::StallTree => "fault.stall_tree",
            Self::StallSyncs => "fault.stall_syncs",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault that fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultEvent {
    /// Virtual time.
    pub at: Nanos,
    /// Its name.
    pub name: &'static str,
    /// The file or directory; empty where none is meant.
    pub path: String,
    /// Byte offset, where the fault has one.
    pub offset: Option<u64>,
}

/// The faults of one world.
#[derive(Debug, Default)]
pub struct Faults {
    plan: FaultPlan,
    atlas: Atlas,
    read_only: bool,
    pub(crate) stalls: Stalls,
    stalled_until: Nanos,
    counts: BTreeMap<&'static str, u64>,
    log: Vec<FaultEvent>,
}

impl Faults {
    /// Nothing fired yet.
    pub fn new(plan: FaultPlan) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Replaces the plan; the default one ends all injection, and makes a filesystem that takes no
    /// changes take them again. Damage stays.
    pub fn set_plan(&mut self, plan: FaultPlan) {
        if plan == FaultPlan::default() {
            self.read_only = false;
            self.stalled_until = self.stalled_until();
            self.stalls = Stalls::default();
        }
        self.plan = plan;
    }

    /// When the last stall that began is over: a call in it goes on waiting when faults are over.
    pub(crate) fn stalled_until(&self) -> Nanos {
        self.stalled_until.max(self.stalls.end())
    }

    /// Whether the filesystem takes no changes.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Lets the filesystem take no changes, or take them again.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    /// The damage so far.
    pub fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// A file has another name: its damage goes with it.
    pub fn renamed(&mut self, from: &str, to: &str) {
        self.atlas.renamed(from, to);
    }

    /// A file is new, whatever had its name before.
    pub(crate) fn created(&mut self, path: &str) {
        self.atlas.created(path);
    }

    /// These bytes of a file, first and behind the last, are a table of this tree.
    pub fn own_table(&mut self, path: &str, extent: (u64, u64), tree: u64) {
        self.atlas.own(path, extent, tree);
    }

    /// A tree began with all tables of another.
    pub fn share_tables(&mut self, child: u64, parent: u64) {
        self.atlas.share(child, parent);
    }

    /// Whether damage of this file excuses the failure of a request to this tree.
    pub fn excuses(&mut self, path: &str, tree: Option<u64>) -> bool {
        self.atlas.excuses(path, tree)
    }

    /// Records damage.
    pub fn damage(&mut self, damage: Damage) {
        self.atlas.record(damage);
    }

    /// The plan.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Whether the fault happens now.
    pub fn fires(&self, fault: Fault, choices: &Choices) -> bool {
        choices.chance(fault.site(), self.plan.per_million(fault))
    }

    /// Counts and logs a fault that fired.
    pub fn note(&mut self, fault: Fault, at: Nanos, path: &str, offset: Option<u64>) {
        *self.counts.entry(fault.name()).or_default() += 1;
        if self.log.len() < LOG_MAX {
            self.log.push(FaultEvent { at, name: fault.name(), path: path.to_owned(), offset });
        }
    }

    /// How often each fault fired, by name.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The faults that fired, oldest first, without those beyond the log's bound.
    pub fn log(&self) -> &[FaultEvent] {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_damages_a_medium_voids_durability_and_nothing_voids_truth() {
        let damage = ["bit_rot", "misdirected", "sync_lies", "latent_sector", "misdirected_file"];
        for fault in Fault::ALL {
            let is_damage = damage.contains(&fault.name()) || fault == Fault::SyncLate;
            let voids = fault.voids();
            assert_eq!(fault.damages_media(), is_damage, "{fault}");
            assert_eq!(voids.is_empty(), !is_damage, "{fault}");
            for rule in [Rule::C1, Rule::C3, Rule::C6, Rule::C7, Rule::C8, Rule::C12] {
                assert!(!voids.contains(&rule), "{fault} voids {rule}");
            }
            assert!(voids.iter().all(|rule| rule.name().starts_with('C')), "{fault}");
        }
    }

    #[test]
    fn an_error_that_comes_of_a_fault_is_no_damage() {
        let both = |fault: &Fault| fault.damages_media() && fault.excuses_errors();
        assert_eq!(Fault::ALL.into_iter().find(both), None);
    }
}
