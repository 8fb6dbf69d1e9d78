//! A short probe of a real disk: the values of the device model that this disk has.
//!
//! Each figure is measured by the calls that the engine makes, through the same `Env` and so
//! through the same page cache, and each is a median of samples with its quartiles. What lies in
//! the folder at any time is below [`DISK_BYTES_MAX`], and what is written in all is bounded by a
//! number of samples for each probe as well as by time.
//!
//! A sample of a sync is a mean over a few: a scheduler that now and then is late to wake a thread
//! lowers throughput by the mean of its delays, which the median of single calls would hide.

mod cpu;
mod probe;
mod show;

use core::fmt;
use std::io;
use std::path::Path;

use forebay_engine::Error;
use forebay_engine::env::{BlockingEnv, Nanos};
use forebay_engine::types::to_u64;

use crate::number::rank;
use probe::{Model, Probe};

/// What the probe's files hold at most at any time.
pub const DISK_BYTES_MAX: u64 = 256 << 20;

/// Samples that a figure is made of, however short the time.
const SAMPLES_MIN: usize = 5;

/// Drops what the page cache holds of a file, so that the next read is the device's.
pub type Forget = fn(&Path) -> io::Result<()>;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The disk, or the engine in memory, refused a call.
    #[error("{0}")]
    Refused(#[from] Error),
    /// The page cache would not let go of the probe's file.
    #[error("cannot drop cached pages: {0}")]
    Forget(#[from] io::Error),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Stopped,
}

type Result<T> = core::result::Result<T, CalibrateError>;

/// A median of samples with its quartiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// A quarter of the samples are no more.
    pub low: u64,
    /// The median.
    pub middle: u64,
    /// Three quarters of the samples are no more.
    pub high: u64,
    /// How many samples there are.
    pub count: u64,
}

impl Spread {
    /// That of samples in any order; all 0 of none.
    pub fn of(samples: &[u64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let [low, middle, high] = [25, 50, 75].map(|percent| rank(&sorted, percent));
        Self { low, middle, high, count: to_u64(sorted.len()) }
    }

    /// That of samples of which each weighs what it is: a quarter of the time, half of it and three
    /// quarters were spent in samples of no more. Short calls are many where a few long ones take
    /// all the time.
    fn by_time(samples: &[u64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let total: u64 = sorted.iter().fold(0, |sum, ns| sum.saturating_add(*ns));
        let at = |quarters: u64| {
            let mut passed = 0_u64;
            let mut reaches = |ns: &u64| {
                passed = passed.saturating_add(*ns);
                passed.saturating_mul(4) >= total.saturating_mul(quarters)
            };
            sorted.iter().copied().find(|ns| reaches(ns)).unwrap_or(0)
        };
        Self { low: at(1), middle: at(2), high: at(3), count: to_u64(sorted.len()) }
    }

    /// Each number through a function; the quartiles change places where it turns them round.
    fn map(self, f: impl Fn(u64) -> u64) -> Self {
        let (a, b) = (f(self.low), f(self.high));
        Self { low: a.min(b), middle: f(self.middle), high: a.max(b), count: self.count }
    }

    /// One number that is known, not sampled.
    fn exactly(value: u64) -> Self {
        Self { low: value, middle: value, high: value, count: 0 }
    }
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its key in `[device]`; for a figure beside the table a name that is no key.
    pub key: &'static str,
    /// Whether it is a line of the table.
    pub in_table: bool,
    /// The value, which is the median, and its quartiles.
    pub spread: Spread,
    /// What was measured.
    pub how: String,
}

impl Figure {
    fn new(key: &'static str, spread: Spread, how: impl fmt::Display) -> Self {
        Self { key, in_table: true, spread, how: how.to_string() }
    }

    fn beside(self) -> Self {
        Self { in_table: false, ..self }
    }
}

/// What was measured of a disk and of the processors in front of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// The figures in the order of the table.
    pub figures: Vec<Figure>,
}

/// How a disk is probed.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// About how long it takes.
    pub duration_ns: Nanos,
    /// The table has reads as the page cache answers them, not the device.
    pub cached_reads: bool,
    /// Processors that the engine runs on.
    pub core_count: u64,
    /// Drops cached pages.
    pub forget: Forget,
}

/// The probes, with the part of the time that each has, in percent.
const PROBES: [(&str, u64); 7] = [
    ("appends", 5),
    ("syncs", 22),
    ("syncs at once", 25),
    ("writes", 22),
    ("syncs beside writes", 10),
    ("reads", 10),
    ("processor", 6),
];

/// Measures in a folder of its own, whose files are left to the caller to remove. `told` hears the
/// name of each probe before it begins, and ends the measuring where it gives back false.
///
/// # Errors
///
/// The disk's, with what was measured lost; [`CalibrateError::Stopped`] where `told` said so.
pub fn calibrate<E: BlockingEnv>(
    env: &E,
    dir: &Path,
    terms: &Terms,
    told: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Calibration> {
    env.block_on(measured(env, dir, terms, told))
}

/// How many probes there are.
pub fn probe_count() -> u64 {
    to_u64(PROBES.len())
}

async fn measured<E: BlockingEnv>(
    env: &E,
    dir: &Path,
    terms: &Terms,
    told: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Calibration> {
    let probe = Probe::new(env, dir, told);
    let begin = |at: usize| {
        let (name, percent) = PROBES.get(at).copied().unwrap_or_default();
        if !told(name) {
            return Err(CalibrateError::Stopped);
        }
        let share_ns = terms.duration_ns.saturating_mul(percent).div_euclid(100);
        Ok((env.now(), share_ns))
    };
    let append = probe.appends(begin(0)?).await?;
    let sync = probe.syncs(begin(1)?).await?;
    let at_once = probe.syncs_at_once(begin(2)?).await?;
    let large = probe.writes(begin(3)?).await?;
    let writeback = probe.unsynced(large.middle).await?;
    let beside = probe.syncs_beside(begin(4)?).await?;
    let reads = probe.reads(begin(5)?, terms.forget).await?;
    let (cpu_begin, cpu_ns) = begin(6)?;
    let put = cpu::puts(cpu_begin.saturating_add(cpu_ns), &|| told(""))?;
    let model = Model::of(sync, &at_once, large);
    let mut figures = show::read_figures(&reads, terms.cached_reads);
    let exactly = Spread::exactly;
    let not_apart = "not measured apart: depth over latency limits requests";
    figures.extend([
        Figure::new("write_bytes_per_s", model.write_bytes_per_s, probe::WRITE_HOW),
        Figure::new("write_ns", append, probe::APPEND_HOW),
        Figure::new("sync_ns", model.sync_ns, probe::SYNC_HOW),
        Figure::new("depth", model.depth, at_once.how()),
        Figure::new("fifo", model.fifo(beside), probe::fifo_how(&beside)),
        Figure::new("iops", exactly(0), not_apart),
        Figure::new("writeback_bytes", writeback, probe::WRITEBACK_HOW),
        Figure::new("core_count", exactly(terms.core_count), "processors"),
        Figure::new("cpu_cost_multiplier", put.map(cpu::multiplier), cpu::how(&put)),
    ]);
    let position = |key| FIGURE_ORDER.iter().position(|known| *known == key);
    figures.sort_by_key(|figure| position(figure.key).unwrap_or(usize::MAX));
    Ok(Calibration { figures })
}

/// The order in which figures are told.
const FIGURE_ORDER: [&str; 11] = [
    "read_bytes_per_s",
    "write_bytes_per_s",
    "read_ns",
    "write_ns",
    "sync_ns",
    "iops",
    "depth",
    "fifo",
    "writeback_bytes",
    "core_count",
    "cpu_cost_multiplier",
];

#[cfg(test)]
mod tests;
