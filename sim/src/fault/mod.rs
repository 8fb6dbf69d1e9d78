//! Seeded faults: how often each happens, and what happened.
//!
//! A fault is a choice whose value 0 means "no fault". Each one that fired is counted under its
//! name and logged with its place, so that a report can show the last fault before a loss and a run
//! can prove that its faults did fire. Crashes are counted here too.

use core::fmt;
use std::collections::BTreeMap;

use forebay_engine::types::Nanos;
use serde::{Deserialize, Serialize};

use crate::choices::Choices;

/// Most faults that are logged with their place; all are counted.
const LOG_MAX: usize = 10_000;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
}

impl Fault {
    /// Every class.
    pub const ALL: [Self; 15] = [
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
        }
    }

    /// Whether the medium forgot or changed what it had confirmed, so that durability promises are
    /// void for what was hit.
    pub fn damages_media(self) -> bool {
        matches!(self, Self::BitRot | Self::Misdirected | Self::SyncLies)
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
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
}

impl FaultPlan {
    fn per_million(&self, fault: Fault) -> u32 {
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
            Fault::PowerLoss | Fault::Kill | Fault::Enospc => 0,
        }
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
    counts: BTreeMap<&'static str, u64>,
    log: Vec<FaultEvent>,
}

impl Faults {
    /// Nothing fired yet.
    pub fn new(plan: FaultPlan) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Replaces the plan; the default one ends all injection.
    pub fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
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
