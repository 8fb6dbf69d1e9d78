//! The flush policies on sizes instead of data: whose memtable, when, and what that comes to, for a
//! machine that no simulation of the engine could hold.
//!
//! The policy objects are the engine's own, and they see the same view
//! ([`FlushView`](forebay_engine::policy::view::FlushView)). What the engine does with their
//! decisions is modelled: writes of the workload's stream charge their tree's memtable; a memtable
//! is sealed at its cap, by the policy, or where it pins a log that is too long; sealed ones are
//! flushed by as many slots as the options say, which share the device's write bandwidth; a writer
//! waits where stall policy `hard` would make it wait, and under `none` never does. No key, value,
//! block or file exists, and so nothing is merged: what merges would write is computed from the
//! sizes of tables ([`merge_cost`]).
//!
//! What the model leaves out: overwritten keys (a table has all bytes of its memtable), the log's
//! and the compactions' share of the bandwidth, CPU time, delays of stall policies that slow writers
//! down, L0 that backs up. Time is virtual, in whole nanoseconds; one seed gives the same numbers on
//! every machine.

mod arrivals;
mod flushes;
mod memory;
pub mod peer;
pub mod row;
mod tally;
#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use forebay_engine::policy::view::StallCause;
use forebay_engine::types::Nanos;

use crate::config::Config;
use arrivals::{Arrivals, TreeSeed, Write};
use flushes::Flushes;
use memory::{Memory, Sealed, Victims};
use tally::SealCause;

pub use tally::{SMALL_TABLE_BYTES, Tally, merge_cost};

/// A tree without a write for this long holds its memtable's bytes for nothing, as in the driver.
pub const IDLE_NS: Nanos = 10_000_000_000;

/// Samples in the time that a fill takes.
const SAMPLES_PER_FILL: u64 = 20;

/// Calls that wait for the device in one flush, each as long as a sync: table, directory, manifest.
const FLUSH_SYNCS: u64 = 3;

/// Writes that wait for their own tree at once. Further arrivals wait behind them.
const PARKED_MAX: usize = 10_000;

/// Writers wait for this long while nothing is flushed: the policy has wedged.
const WEDGED_NS: Nanos = 600_000_000_000;

/// Why a model gave no numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// The configuration cannot be modelled, in one line.
    Refused(String),
    /// Writers wait and nothing is flushed, in one line.
    Wedged(String),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(line) | Self::Wedged(line) => f.write_str(line),
        }
    }
}

impl core::error::Error for ModelError {}

/// What a model came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Modelled {
    /// Sums over the measured part.
    pub tally: Tally,
    /// Bytes that all memtables may hold together.
    pub budget_bytes: u64,
    /// User bytes that arrive each second.
    pub bytes_per_s: u64,
    /// Writes that one step stands for.
    pub writes_per_step: u64,
    /// Trees.
    pub tree_count: u64,
    /// Most bytes of live log segments.
    pub log_bytes_max_seen: u64,
}

/// Refuses what the model does not know.
///
/// # Errors
///
/// [`ModelError::Refused`] with the key.
pub fn check(config: &Config) -> Result<(), ModelError> {
    let refused = |line: &str| Err(ModelError::Refused(line.to_owned()));
    let options = &config.options;
    if options.relog {
        return refused("relog = true: the model does not re-log");
    }
    if options.memtable_history_bytes > 0 {
        return refused("memtable_history_bytes: the model keeps no flushed memtables");
    }
    if config.offered_ops_per_s == 0 {
        return refused("offered_ops_per_s = 0: the model has no clients that wait for answers");
    }
    Ok(())
}

/// Runs a configuration with a seed; a step stands for about `unit_bytes` of writes, 0 for a size
/// that suits budget and trees, 1 for a single write.
///
/// # Errors
///
/// [`ModelError::Refused`] before anything is run, [`ModelError::Wedged`] where it cannot go on.
pub fn run(config: &Config, seed: u64, unit_bytes: u64) -> Result<Modelled, ModelError> {
    check(config)?;
    let arrivals = Arrivals::new(config, seed, unit_bytes)?;
    let memory = Memory::new(&config.options, &arrivals.trees, seed)?;
    Model::new(config, arrivals, memory).run()
}

/// Runs a configuration with a seed from what the load leaves in memtables, write by write, as the
/// driver runs the engine.
///
/// # Errors
///
/// As for [`run`].
pub fn run_loaded(config: &Config, seed: u64) -> Result<Modelled, ModelError> {
    check(config)?;
    let arrivals = Arrivals::new(config, seed, 1)?;
    let memory = Memory::new(&config.options, &arrivals.trees, seed)?;
    let mut model = Model::new(config, arrivals, memory);
    model.load();
    model.run()
}

/// Where a run begins to be measured and where it ends, in user bytes, steps and time.
#[derive(Clone, Copy, Debug)]
struct Limits {
    warmup_bytes: u64,
    bytes: u64,
    steps: u64,
    ns: Nanos,
}

impl Limits {
    fn new(config: &Config, writes_per_step: u64) -> Self {
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let budget = config.options.budget_bytes;
        let steps = config.op_count.div_ceil(writes_per_step.max(1));
        Self {
            warmup_bytes: match config.fill_count {
                0 => 0,
                _ => config.warmup_fill_count.saturating_mul(budget),
            },
            bytes: or_none(config.fill_count.saturating_mul(budget)),
            steps: or_none(steps),
            ns: or_none(config.duration_ns),
        }
    }
}

/// A model while it runs.
struct Model {
    now: Nanos,
    arrivals: Arrivals,
    memory: Memory,
    flushes: Flushes,
    limits: Limits,
    level_ratio: u32,
    policy_override: bool,
    /// Time of a fill at the rate of arrivals.
    fill_ns: Nanos,
    next_sample: Nanos,
    /// The next write to be admitted, and whether it waits for something to change.
    head: Write,
    held_up: bool,
    /// Writes that wait for their own tree.
    parked: BTreeMap<usize, VecDeque<Write>>,
    parked_count: usize,
    /// When a flush last ended, or a write was admitted.
    progress_ns: Nanos,
    user_bytes: u64,
    step_count: u64,
    measured: bool,
    tally: Tally,
}

impl Model {
    fn new(config: &Config, mut arrivals: Arrivals, memory: Memory) -> Self {
        let options = &config.options;
        let device = config.device_spec();
        let fixed_ns = device.write_ns.saturating_add(FLUSH_SYNCS.saturating_mul(device.sync_ns));
        let fill_ns = u128::from(options.budget_bytes)
            .saturating_mul(1_000_000_000)
            .checked_div(u128::from(arrivals.bytes_per_s));
        let fill_ns = fill_ns.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(u64::MAX);
        let slots = usize::try_from(options.flush_slots).unwrap_or(usize::MAX);
        let limits = Limits::new(config, arrivals.times);
        let head = arrivals.next();
        Self {
            now: 0,
            memory,
            flushes: Flushes::new(slots, device.write_bytes_per_s, fixed_ns),
            limits,
            level_ratio: options.level_ratio,
            policy_override: options.policy_override,
            fill_ns,
            next_sample: 0,
            head,
            held_up: false,
            parked: BTreeMap::new(),
            parked_count: 0,
            progress_ns: 0,
            user_bytes: 0,
            step_count: 0,
            measured: false,
            tally: Tally::default(),
            arrivals,
        }
    }

    /// Puts every key once, on a device that takes no time.
    fn load(&mut self) {
        let device = core::mem::replace(&mut self.flushes, Flushes::new(usize::MAX, 0, 0));
        for write in self.arrivals.load() {
            self.admit(&write, StallCause::Budget);
            while self.flushes.next_at().is_some() {
                self.flushes.advance(self.now);
                self.end_flushes();
            }
        }
        self.flushes = device;
        (self.user_bytes, self.step_count, self.measured) = (0, 0, false);
    }

    fn run(mut self) -> Result<Modelled, ModelError> {
        self.begin_if_warm();
        while !self.is_over() {
            let flush = self.flushes.next_at();
            let wake = self.memory.wake_at().map(|at| at.max(self.now));
            let write = (!self.held_up).then(|| self.head.at_ns.max(self.now));
            let Some(at) = [flush, wake, write].into_iter().flatten().min() else {
                return Err(self.wedged());
            };
            self.pass(at);
            if flush == Some(at) {
                self.end_flushes();
            } else if wake == Some(at) {
                self.decide();
                self.memory.asked_at(at);
                self.retry();
            } else {
                self.admit_head();
            }
            if self.held_up && self.now.saturating_sub(self.progress_ns) > WEDGED_NS {
                return Err(self.wedged());
            }
        }
        self.tally.end(self.now, self.memory.decision_count());
        Ok(Modelled {
            budget_bytes: self.memory.budget_bytes(),
            bytes_per_s: self.arrivals.bytes_per_s,
            writes_per_step: self.arrivals.times,
            tree_count: self.memory.tree_count(),
            log_bytes_max_seen: self.memory.log_bytes_max_seen(),
            tally: self.tally,
        })
    }

    fn wedged(&self) -> ModelError {
        ModelError::Wedged(format!(
            "L1 progress: wedged at {}: writers wait, {} of {} bytes are used and nothing is flushed",
            crate::number::duration(self.now),
            self.memory.used_bytes(),
            self.memory.budget_bytes()
        ))
    }

    fn is_over(&self) -> bool {
        self.user_bytes >= self.limits.bytes
            || self.step_count >= self.limits.steps
            || self.now >= self.limits.ns
    }

    fn begin_if_warm(&mut self) {
        if !self.measured && self.user_bytes >= self.limits.warmup_bytes {
            self.measured = true;
            self.tally = Tally::begin(self.now, self.memory.decision_count());
            self.tally.peak(self.memory.used_bytes());
            self.next_sample = self.now;
        }
    }

    /// Time goes on; what memtables hold does not change before `at`.
    fn pass(&mut self, at: Nanos) {
        if self.measured {
            self.tally.held(at, self.memory.used_bytes(), self.memory.budget_bytes());
            if at >= self.next_sample {
                let idle = |for_ns: Nanos| self.memory.idle_bytes(at.saturating_sub(for_ns));
                let bytes = (idle(IDLE_NS), idle(self.fill_ns));
                self.tally.sample(bytes);
                let step = self.fill_ns.div_euclid(SAMPLES_PER_FILL).max(1);
                self.next_sample = at.saturating_add(step);
            }
        }
        self.now = at;
        self.flushes.advance(at);
    }

    /// Takes the next write in the order of arrival, or leaves it where it has to wait.
    fn admit_head(&mut self) {
        let write = self.head;
        match self.memory.stop_cause(&write) {
            None => {
                self.admit(&write, StallCause::Budget);
                self.head = self.arrivals.next();
            }
            Some(StallCause::Memtables) if self.parked_count < PARKED_MAX => {
                self.parked.entry(write.slot).or_default().push_back(write);
                self.parked_count = self.parked_count.saturating_add(1);
                self.head = self.arrivals.next();
            }
            Some(StallCause::Memtables) => self.held_up = true,
            Some(
                cause @ (StallCause::Budget
                | StallCause::Wal
                | StallCause::L0
                | StallCause::DiskFull),
            ) => {
                self.held_up = true;
                self.ensure_progress(cause);
            }
        }
    }

    /// A write goes into its memtable; `cause` is what held it up, where it comes late.
    fn admit(&mut self, write: &Write, cause: StallCause) {
        let late_ns = self.now.saturating_sub(write.at_ns);
        if self.measured && late_ns > 0 {
            self.tally.waited(cause, late_ns);
        }
        if self.memory.roll_log() {
            self.seal_pinning(true);
        }
        let was_over = self.memory.is_log_over();
        let full = self.memory.write(write, self.now);
        self.progress_ns = self.now;
        self.user_bytes = self.user_bytes.saturating_add(write.user_bytes);
        self.step_count = self.step_count.saturating_add(1);
        if self.measured {
            self.tally.user_bytes = self.tally.user_bytes.saturating_add(write.user_bytes);
            self.tally.step_count = self.tally.step_count.saturating_add(1);
            self.tally.peak(self.memory.used_bytes());
        }
        if full {
            self.seal(write.slot, SealCause::Cap);
        }
        self.decide();
        // Above the limit already, the answer changes only with a flush or a segment.
        if !was_over && self.memory.is_log_over() {
            self.seal_pinning(false);
        }
        self.begin_if_warm();
    }

    /// Seals the next ones of those that pin a log above its limit.
    fn seal_pinning(&mut self, at_roll: bool) {
        for slot in self.memory.log_victims(at_roll) {
            self.seal(slot, SealCause::Log);
        }
    }

    fn seal(&mut self, slot: usize, cause: SealCause) {
        if let Some(sealed) = self.sealed(slot, cause) {
            self.flushes.add(vec![sealed], self.now);
        }
    }

    fn sealed(&mut self, slot: usize, cause: SealCause) -> Option<Sealed> {
        let sealed = self.memory.seal(slot, self.now)?;
        if self.measured {
            self.tally.sealed(cause);
        }
        Some(sealed)
    }

    /// Asks the flush policy and seals whom it names.
    fn decide(&mut self) {
        let flushes = (self.flushes.count(), self.flushes.spooled_bytes());
        let Victims { flush, pack } = self.memory.decide(self.now, flushes);
        let pack_bytes = self.memory.pack_bytes();
        if pack_bytes == 0 {
            for slot in flush {
                self.seal(slot, SealCause::Policy);
            }
        } else {
            self.pack(flush, pack_bytes);
        }
        self.pack(pack, u64::MAX);
    }

    /// Seals trees and flushes them into files of about so many memtable bytes.
    fn pack(&mut self, slots: Vec<usize>, pack_bytes: u64) {
        let (mut members, mut bytes) = (Vec::new(), 0_u64);
        for slot in slots {
            let Some(sealed) = self.sealed(slot, SealCause::Policy) else { continue };
            bytes = bytes.saturating_add(sealed.charge_bytes);
            members.push(sealed);
            if bytes >= pack_bytes {
                self.flushes.add(core::mem::take(&mut members), self.now);
                bytes = 0;
            }
        }
        self.flushes.add(members, self.now);
    }

    /// Flushes that have ended by now give back their memory; who waited looks again.
    fn end_flushes(&mut self) {
        let mut ended = false;
        while let Some(members) = self.flushes.take_ended() {
            ended = true;
            self.progress_ns = self.now;
            if self.measured {
                self.tally.flush_count = self.tally.flush_count.saturating_add(1);
            }
            for sealed in &members {
                self.memory.flushed(sealed);
                if self.measured {
                    let tree = self.arrivals.trees.get(sealed.slot);
                    let data = tree.map_or(0, |tree: &TreeSeed| tree.data_bytes);
                    self.tally.flushed(sealed, data, self.level_ratio);
                }
            }
            self.decide();
            self.seal_pinning(false);
            for sealed in &members {
                self.unpark(sealed.slot);
            }
        }
        if ended {
            self.retry();
        }
    }

    /// Admits writes that waited for this tree alone.
    fn unpark(&mut self, slot: usize) {
        while let Some(waiting) = self.parked.get_mut(&slot) {
            let Some(write) = waiting.front().copied() else {
                self.parked.remove(&slot);
                return;
            };
            if self.memory.stop_cause(&write).is_some() {
                return;
            }
            waiting.pop_front();
            self.parked_count = self.parked_count.saturating_sub(1);
            self.admit(&write, StallCause::Memtables);
        }
    }

    /// Something changed: those who wait look again.
    fn retry(&mut self) {
        // A parked write may be left without a flush of its tree that would wake it.
        if self.flushes.count() == 0 {
            let slots: Vec<usize> = self.parked.keys().copied().collect();
            for slot in slots {
                self.unpark(slot);
            }
        }
        self.held_up = false;
    }

    /// Liveness is the engine's, not the policy's: where a writer waits and no flush runs that
    /// could end it, one is picked here.
    fn ensure_progress(&mut self, cause: StallCause) {
        if !self.policy_override || self.flushes.count() > 0 {
            return;
        }
        let victims = if cause == StallCause::Wal {
            self.memory.pinning_oldest()
        } else {
            self.memory.override_victim().into_iter().collect()
        };
        for slot in victims {
            self.seal(slot, SealCause::Override);
        }
    }
}
