//! The engine in simulation beside the model, on the same arrivals: how far the two agree.
//!
//! Compared are the memtables that were flushed in the measured part: how many, and the bytes they
//! were charged. Those are what policies decide about; a table's length on disk also depends on
//! keys that were overwritten and on block formats, which the model does not have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_engine::events::{Event, Listener};
use forebay_engine::types::{Nanos, TreeId, to_u64, to_usize};
use serde::{Deserialize, Serialize};

use super::row::Sizes;
use super::row::percentiles;
use super::{ModelError, run_loaded};
use crate::config::Config;
use crate::number::{Thousandths, to_f64};
use crate::world;

/// The schema of a row.
pub const PEER_SCHEMA: &str = "forebay.model-check/1";

/// Memtables that one side flushed in its measured part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// How many.
    pub count: u64,
    /// Their charged bytes.
    pub memtable_bytes: Sizes,
    /// The mean of their charged bytes.
    pub memtable_bytes_mean: u64,
    /// Time of the measured part.
    pub elapsed_ns: u64,
    /// Time that writers waited, summed over writers.
    pub stall_ns: u64,
}

impl Flushed {
    fn new(sorted: &[u64], elapsed_ns: u64, stall_ns: u64) -> Self {
        let count = to_u64(sorted.len());
        let sum = sorted.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let mean = sum.checked_div(count).unwrap_or(0);
        let memtable_bytes = percentiles(sorted);
        Self { count, memtable_bytes, memtable_bytes_mean: mean, elapsed_ns, stall_ns }
    }
}

/// Both sides of one arm with one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// [`PEER_SCHEMA`].
    pub schema: String,
    /// The arm of the experiment's grid.
    pub arm: String,
    /// The only input of chance.
    pub seed: u64,
    /// Hash of the configuration that both ran, 16 hex digits.
    pub config_hash: String,
    /// The engine in simulation.
    pub engine: Flushed,
    /// The model.
    pub model: Flushed,
    /// Bytes of log for each byte of keys and values in the engine.
    pub engine_log_ratio: Thousandths,
}

impl PeerRow {
    /// By how many percent the model is above the engine: count, p50, p99 and mean of sizes.
    pub fn percents(&self) -> [f64; 4] {
        let percent = |model: u64, engine: u64| match engine {
            0 => 0.0,
            _ => (to_f64(model) / to_f64(engine) - 1.0) * 100.0,
        };
        let (model, engine) = (&self.model, &self.engine);
        [
            percent(model.count, engine.count),
            percent(model.memtable_bytes.p50, engine.memtable_bytes.p50),
            percent(model.memtable_bytes.p99, engine.memtable_bytes.p99),
            percent(model.memtable_bytes_mean, engine.memtable_bytes_mean),
        ]
    }
}

/// Charged bytes of every memtable that was flushed, in the order in which their flushes ended.
#[derive(Debug, Default)]
struct Watcher {
    inner: Mutex<(BTreeMap<TreeId, u64>, Vec<u64>)>,
}

impl Listener for Watcher {
    fn event(&self, _: Nanos, event: &Event) {
        if let Event::FlushBegin { tree, bytes } = event {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.0.insert(*tree, *bytes);
        } else if let Event::FlushEnd { tree, .. } = event {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bytes) = inner.0.remove(tree) {
                inner.1.push(bytes);
            }
        }
    }
}

/// Runs a configuration with a seed in the engine and in the model.
///
/// # Errors
///
/// One line that says which of the two gave no numbers, and why.
pub fn compare(arm: &str, config: &Config, seed: u64) -> Result<PeerRow, String> {
    let modelled = run_loaded(config, seed).map_err(|error| match error {
        ModelError::Refused(line) | ModelError::Wedged(line) => format!("the model: {line}"),
    })?;
    let watcher = Arc::new(Watcher::default());
    let told: world::Watcher = Arc::<Watcher>::clone(&watcher);
    let ended = world::simulate(config, seed, Some(told));
    let measured = ended.measured.map_err(|failed| format!("the engine: {}", failed.detail))?;
    let mut sizes = watcher.inner.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
    let before = to_usize(measured.before.flush_count).min(sizes.len());
    let mut sizes = sizes.split_off(before);
    let count = measured.after.flush_count.saturating_sub(measured.before.flush_count);
    sizes.truncate(to_usize(count));
    sizes.sort_unstable();
    let total = |ns: &[u64; 5]| ns.iter().fold(0_u64, |sum, ns| sum.saturating_add(*ns));
    let (before, after) = (&measured.before, &measured.after);
    let stall_ns = total(&after.stall_ns).saturating_sub(total(&before.stall_ns));
    let tally = &modelled.tally;
    Ok(PeerRow {
        schema: PEER_SCHEMA.to_owned(),
        arm: arm.to_owned(),
        seed,
        config_hash: config.hash(),
        engine: Flushed::new(&sizes, measured.elapsed_ns, stall_ns),
        model: Flushed::new(&tally.memtable_bytes, tally.elapsed_ns, total(&tally.stall_ns)),
        engine_log_ratio: Thousandths::ratio(
            u128::from(after.wal_bytes.saturating_sub(before.wal_bytes)),
            u128::from(after.user_bytes.saturating_sub(before.user_bytes)),
        ),
    })
}
