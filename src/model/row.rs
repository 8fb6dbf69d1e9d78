//! One row of `model.jsonl`: what one model was, what it came to and how to run it again.
//!
//! As with rows of simulated runs the bytes are the same on every machine: integers where the thing
//! is counted, [`Thousandths`] where it is not, no clock of the machine, no path of it. Names may be
//! added, never changed. Every `_ns` is virtual time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ModelError, Modelled};
use crate::config::Config;
use crate::number::{Thousandths, from_f64, rank};
use crate::record::{ByCause, Outcome, Param, World, run_id};

/// The schema of a row.
pub const MODEL_SCHEMA: &str = "forebay.model/1";

/// Percentiles of sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// 1st percentile.
    pub p1: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
}

/// Memtables sealed, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seals {
    /// The flush policy named the tree.
    pub policy: u64,
    /// The memtable was as large as it may be.
    pub cap: u64,
    /// The memtable pinned a log that was too long.
    pub wal: u64,
    /// A writer waited and the policy named no tree.
    pub policy_override: u64,
}

/// One model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRow {
    /// [`MODEL_SCHEMA`].
    pub schema: String,
    /// Hash over configuration, step size and seed, 16 hex digits.
    pub run_id: String,
    /// The experiment.
    pub experiment: String,
    /// The arm of its grid.
    pub arm: String,
    /// The only input of chance.
    pub seed: u64,
    /// `pass`, or `fail` where writers waited and nothing was flushed.
    pub outcome: Outcome,
    /// Why it gave no numbers, in one line.
    pub failure: Option<String>,
    /// The command that runs it again, without `--out`, `-j` and absolute paths.
    pub replay: String,
    /// Hash of the whole resolved configuration, 16 hex digits.
    pub config_hash: String,
    /// The resolved settings, by name.
    pub params: BTreeMap<String, Param>,
    /// Trees.
    pub tree_count: u64,
    /// Writes that one step stands for.
    pub writes_per_step: u64,
    /// Steps of the measured part.
    pub step_count: u64,
    /// Time of the measured part.
    pub elapsed_ns: u64,
    /// Bytes of keys and values that arrive each second.
    pub offered_bytes_per_s: u64,
    /// Bytes of keys and values admitted.
    pub user_bytes: u64,
    /// Files that flushes wrote.
    pub flush_count: u64,
    /// Files that flushes wrote each second.
    pub flushes_per_s: Thousandths,
    /// Memtables that were flushed: one file has many where flushes are packed.
    pub table_count: u64,
    /// Keys and values of each table.
    pub table_bytes: Sizes,
    /// Tables below 1 MiB.
    pub small_table_count: u64,
    /// Charged bytes of each memtable that was flushed.
    pub memtable_bytes: Sizes,
    /// Memtables sealed, by cause.
    pub seal_count: Seals,
    /// Bytes that leveled merges write for each byte flushed, by
    /// [`merge_cost`](super::merge_cost).
    pub merge_cost: Thousandths,
    /// The most bytes that all memtables held.
    pub memtable_bytes_max_seen: u64,
    /// Bytes in memtables over the budget, mean over time.
    pub utilisation_ratio: Thousandths,
    /// Bytes above the budget, mean over time.
    pub overshoot_bytes: u64,
    /// Memtable bytes of trees without a write for [`IDLE_NS`](super::IDLE_NS), mean over samples.
    pub stranded_bytes: u64,
    /// Memtable bytes of trees without a write for as long as a fill of the budget takes, mean over
    /// samples.
    pub stranded_fill_bytes: u64,
    /// Time that steps waited, summed over steps.
    pub stall_ns: ByCause,
    /// How many steps waited.
    pub stall_count: ByCause,
    /// The longest wait of a step.
    pub stall_ns_max: u64,
    /// The most write-ahead log that was ever kept.
    pub wal_retained_bytes_max: u64,
    /// Decisions that the flush policy was asked for.
    pub decision_count: u64,
}

impl ModelRow {
    /// A row before the model was run; `unit_bytes` as for [`run`](super::run).
    pub fn new(config: &Config, seed: u64, unit_bytes: u64) -> Self {
        let config_hash = config.hash();
        Self {
            schema: MODEL_SCHEMA.to_owned(),
            run_id: run_id(&format!("{config_hash}/model/{unit_bytes}"), seed, World::Sim),
            seed,
            outcome: Outcome::Skipped,
            config_hash,
            params: config.params(),
            ..Self::default()
        }
    }

    /// Takes over what the model came to.
    pub fn store(&mut self, modelled: Result<Modelled, ModelError>) {
        match modelled {
            Ok(modelled) => {
                self.outcome = Outcome::Pass;
                self.fill(&modelled);
            }
            Err(error) => {
                self.outcome = Outcome::Fail;
                self.failure = Some(error.to_string());
            }
        }
    }

    fn fill(&mut self, modelled: &Modelled) {
        let tally = &modelled.tally;
        self.tree_count = modelled.tree_count;
        self.writes_per_step = modelled.writes_per_step;
        self.step_count = tally.step_count;
        self.elapsed_ns = tally.elapsed_ns;
        self.offered_bytes_per_s = modelled.bytes_per_s;
        self.user_bytes = tally.user_bytes;
        self.flush_count = tally.flush_count;
        self.flushes_per_s = Thousandths::per_second(tally.flush_count, tally.elapsed_ns);
        self.table_count = forebay_engine::types::to_u64(tally.table_bytes.len());
        self.table_bytes = percentiles(&tally.table_bytes);
        self.small_table_count = tally.small_table_count();
        self.memtable_bytes = percentiles(&tally.memtable_bytes);
        let [policy, cap, wal, policy_override] = tally.seal_counts;
        self.seal_count = Seals { policy, cap, wal, policy_override };
        self.merge_cost = Thousandths(from_f64(tally.merge_cost() * 1000.0).unwrap_or(0));
        self.memtable_bytes_max_seen = tally.used_bytes_max;
        let whole = u128::from(modelled.budget_bytes).saturating_mul(tally.elapsed_ns.into());
        self.utilisation_ratio = Thousandths::ratio(tally.used_byte_ns, whole);
        self.overshoot_bytes = mean(tally.over_byte_ns, tally.elapsed_ns);
        self.stranded_bytes = mean(tally.idle_bytes.0, tally.sample_count);
        self.stranded_fill_bytes = mean(tally.idle_bytes.1, tally.sample_count);
        self.stall_ns = by_cause(tally.stall_ns);
        self.stall_count = by_cause(tally.stall_count);
        self.stall_ns_max = tally.stall_ns_max;
        self.wal_retained_bytes_max = modelled.log_bytes_max_seen;
        self.decision_count = tally.decision_count;
    }

    /// The row as a line of JSON, with its newline.
    ///
    /// # Errors
    ///
    /// None that rows can cause; JSON's own are handed on.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }

    /// The row in a line of JSON. Names it does not know are passed over.
    ///
    /// # Errors
    ///
    /// The line is not JSON, lacks a name, or has another schema.
    pub fn from_line(line: &str) -> Result<Self, String> {
        let row: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if row.schema == MODEL_SCHEMA {
            Ok(row)
        } else {
            Err(format!("schema is {:?}, this build reads {MODEL_SCHEMA:?}", row.schema))
        }
    }
}

fn mean(sum: u128, count: u64) -> u64 {
    u64::try_from(sum.checked_div(u128::from(count)).unwrap_or(0)).unwrap_or(u64::MAX)
}

fn by_cause([memtables, l0, budget, wal, disk_full]: [u64; 5]) -> ByCause {
    ByCause { memtables, l0, budget, wal, disk_full }
}

/// Percentiles of numbers in ascending order.
pub fn percentiles(sorted: &[u64]) -> Sizes {
    Sizes { p1: rank(sorted, 1), p50: rank(sorted, 50), p99: rank(sorted, 99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_from_its_line_and_another_schema_is_refused() {
        let mut row = ModelRow::new(&Config::default(), 3, 0);
        row.merge_cost = Thousandths(1_234);
        row.failure = Some("x".to_owned());
        let line = row.to_line().unwrap();
        assert_eq!(ModelRow::from_line(&line).unwrap(), row);
        let other = line.replace("forebay.model/1", "forebay.model/2");
        assert!(ModelRow::from_line(&other).unwrap_err().contains("forebay.model/2"));
        assert!(ModelRow::from_line(&line.replace(MODEL_SCHEMA, "forebay.run/1")).is_err());
    }

    #[test]
    fn step_size_and_seed_make_another_run() {
        let id = |seed, unit| ModelRow::new(&Config::default(), seed, unit).run_id;
        assert_eq!(id(1, 0), id(1, 0));
        assert_ne!(id(1, 0), id(2, 0));
        assert_ne!(id(1, 0), id(1, 1));
    }

    #[test]
    fn percentiles_are_of_the_numbers_themselves() {
        let numbers: Vec<u64> = (1..=200).collect();
        assert_eq!(percentiles(&numbers), Sizes { p1: 2, p50: 100, p99: 198 });
        assert_eq!(percentiles(&[]), Sizes::default());
    }
}
