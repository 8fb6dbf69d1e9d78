//! One row of `runs.jsonl`: what one run was, what it measured and how to run it again.
//!
//! A row of a simulated run has the same bytes on every machine: keys in the order of the fields
//! below, integers where the thing is counted, [`Thousandths`] where it is not, no clock of the
//! machine, no path of it. Names may be added, never changed. In a row of world `sim` every `_ns`
//! is virtual time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::beside_row::{ChurnRow, ForkRow};
use crate::load_row::KindRow;
use crate::number::Thousandths;
use crate::output::{OutputFile, Result, for_each_line};

/// The schema of a row.
pub const RUN_SCHEMA: &str = "forebay.run/1";

/// Above this many tenants a row holds only [`TENANT_ROWS`] of them.
pub const TENANTS_WHOLE_MAX: usize = 1000;

/// Tenants in a row of a run with more than [`TENANTS_WHOLE_MAX`].
pub const TENANT_ROWS: usize = 100;

/// The world a run ran in, and so the clock of its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Simulated: virtual time, the same bytes on every machine.
    #[default]
    Sim,
    /// The operating system: wall-clock time, never compared byte for byte.
    Os,
}

impl World {
    /// The word rows use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Os => "os",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every check held.
    #[default]
    Pass,
    /// A rule was broken; `rule` names it.
    Fail,
    /// The same seed gave two trace hashes.
    Nondeterministic,
    /// The run did not end in its time.
    Timeout,
    /// The run was not started; its numbers are 0.
    Skipped,
}

impl Outcome {
    /// The word rows use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Nondeterministic => "nondeterministic",
            Self::Timeout => "timeout",
            Self::Skipped => "skipped",
        }
    }
}

/// One resolved setting of an arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// A switch.
    Switch(bool),
    /// A count or a number of bytes.
    Integer(u64),
    /// A fraction.
    Fraction(Thousandths),
    /// A name.
    Text(String),
}

/// Percentiles of a latency, counted from the intended arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyNs {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// A number for each cause of stalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByCause {
    /// The tree has too many immutable memtables.
    pub memtables: u64,
    /// The tree has too many tables in level 0.
    pub l0: u64,
    /// The budget of all memtables is used up.
    pub budget: u64,
    /// The write-ahead log is at its limit.
    pub wal: u64,
    /// The disk is full.
    pub disk_full: u64,
}

impl ByCause {
    /// The causes by name, in the order of the row.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("memtables", self.memtables),
            ("l0", self.l0),
            ("budget", self.budget),
            ("wal", self.wal),
            ("disk_full", self.disk_full),
        ]
    }

    /// The sum over all causes.
    pub fn total(&self) -> u64 {
        self.named().into_iter().fold(0, |sum, (_, n)| sum.saturating_add(n))
    }
}

/// Sizes of the tables that flushes wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableBytes {
    /// 1st percentile.
    pub p1: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Tables.
    #[serde(default)]
    pub count: u64,
    /// Tables below 1 MiB, whatever the machine is divided by.
    #[serde(default)]
    pub under_mib_count: u64,
    /// Tables below a tenth of a tenant's even share of the budget: about 1 MiB on the machine of
    /// the question (128 GiB, 10,000 tenants), and in proportion on a smaller one.
    #[serde(default)]
    pub tiny_count: u64,
}

/// Bytes given to the device, by who wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenBytes {
    /// The write-ahead log, but for what it held before.
    pub wal: u64,
    /// Entries that the write-ahead log held before.
    #[serde(default, skip_serializing_if = "is_none")]
    pub relog: u64,
    /// Flushes.
    pub flush: u64,
    /// Compactions.
    pub compaction: u64,
}

/// Rows of builds that did not know these bytes have the same bytes as rows without any.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

impl WrittenBytes {
    /// The sum over all writers.
    pub fn total(&self) -> u64 {
        let log = self.wal.saturating_add(self.relog);
        log.saturating_add(self.flush).saturating_add(self.compaction)
    }
}

/// Bytes given to the device over bytes that users wrote, by who wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amplification {
    /// The write-ahead log.
    pub wal: Thousandths,
    /// Flushes.
    pub flush: Thousandths,
    /// Compactions.
    pub compaction: Thousandths,
    /// Entries carried on in the log.
    pub relog: Thousandths,
}

impl Amplification {
    /// Of bytes that were written for so many of users.
    pub fn new(written: &WrittenBytes, user_bytes: u64) -> Self {
        let over = |bytes: u64| Thousandths::ratio(u128::from(bytes), u128::from(user_bytes));
        Self {
            wal: over(written.wal),
            flush: over(written.flush),
            compaction: over(written.compaction),
            relog: over(written.relog),
        }
    }
}

/// How the budget of all memtables was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes in memtables, mean over time.
    pub mean_bytes: u64,
    /// The same over the budget.
    pub mean_ratio: Thousandths,
    /// The most bytes that memtables ever held, over the budget.
    pub peak_ratio: Thousandths,
    /// Bytes above the budget times the seconds that they were there.
    pub overshoot_byte_s: Thousandths,
}

/// How old bytes become before a flush writes them, from samples of memtables that take writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnflushedAge {
    /// 99th percentile over trees, mean over samples.
    pub p99_ns: u64,
    /// The oldest of any tree at any sample.
    pub max_ns: u64,
}

/// What one tenant saw and caused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// The tenant.
    pub name: String,
    /// The class of tenants it belongs to.
    pub class: String,
    /// Operations served.
    pub ops: u64,
    /// Time its writers were stalled.
    pub stall_ns: u64,
    /// Time writers were stalled on its account.
    pub stall_caused_ns: u64,
    /// Median latency.
    pub p50_ns: u64,
    /// 99th percentile of the latency.
    pub p99_ns: u64,
    /// 99.9th percentile of the latency.
    pub p999_ns: u64,
    /// The slowest operation.
    pub max_ns: u64,
}

/// What a class of tenants saw and caused; the sums over classes equal the run's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRow {
    /// The class.
    pub class: String,
    /// Tenants in it.
    pub tenants: u64,
    /// Operations served.
    pub ops: u64,
    /// Time their writers were stalled.
    pub stall_ns: u64,
    /// Time writers were stalled on their account.
    pub stall_caused_ns: u64,
    /// 99th percentile of the latency over all of them.
    pub p99_ns: u64,
    /// Median latency over all of them.
    #[serde(default)]
    pub p50_ns: u64,
    /// 99.9th percentile of the latency over all of them.
    #[serde(default)]
    pub p999_ns: u64,
    /// The slowest operation of any of them.
    #[serde(default)]
    pub max_ns: u64,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// [`RUN_SCHEMA`].
    pub schema: String,
    /// [`run_id`] of the three fields it is made of.
    pub run_id: String,
    /// The experiment.
    pub experiment: String,
    /// The arm of its grid.
    pub arm: String,
    /// The only input of chance.
    pub seed: u64,
    /// The world it ran in.
    pub world: World,
    /// How it ended.
    pub outcome: Outcome,
    /// The broken rule, where one was.
    pub rule: Option<String>,
    /// Hash over everything that happened, 16 hex digits.
    pub trace_hash: String,
    /// The command that runs it again, without `--out`, `-j` and absolute paths.
    pub replay: String,
    /// Hash of the arm's whole resolved configuration, 16 hex digits.
    pub config_hash: String,
    /// Name and version of the random generator.
    pub rng: String,
    /// The resolved settings, by name.
    pub params: BTreeMap<String, Param>,
    /// Operations served.
    pub ops: u64,
    /// Answers that were compared with the reference model; 0 where it was off.
    #[serde(default)]
    pub checked_reads: u64,
    /// Time from the first arrival to the last answer.
    pub elapsed_ns: u64,
    /// Operations asked for; 0 in a closed loop.
    pub offered_ops_per_s: Thousandths,
    /// Operations served.
    pub ops_per_s: Thousandths,
    /// Latency of writes.
    pub write_latency_ns: LatencyNs,
    /// Latency of reads.
    pub read_latency_ns: LatencyNs,
    /// Time writers were stalled, summed over writers.
    pub stall_ns: ByCause,
    /// How often a writer was stalled.
    pub stall_count: ByCause,
    /// Flushes that ended.
    pub flush_count: u64,
    /// Sizes of the tables they wrote.
    pub table_bytes: TableBytes,
    /// Bytes of keys and values that users wrote.
    pub user_bytes: u64,
    /// Bytes given to the device.
    pub written_bytes: WrittenBytes,
    /// The most write-ahead log that was ever kept.
    pub wal_retained_bytes_max: u64,
    /// The most bytes that all memtables ever held.
    pub memtable_bytes_max_seen: u64,
    /// Memtable bytes of idle tenants, mean over the run.
    pub stranded_bytes: u64,
    /// Jain's fairness index over tenants' served share of what they asked for.
    pub jain: Thousandths,
    /// The smallest of these shares over the largest.
    #[serde(default)]
    pub min_max_share: Thousandths,
    /// Operations of a tenant that asked flat out beside the arrivals; 0 where none did.
    #[serde(default)]
    pub flat_out_ops: u64,
    /// The longest that one write waited.
    #[serde(default)]
    pub stall_longest_ns: u64,
    /// Flushes that ended in a second.
    #[serde(default)]
    pub flushes_per_s: Thousandths,
    /// `written_bytes` over `user_bytes`.
    #[serde(default)]
    pub write_amplification: Amplification,
    /// How the budget was used.
    #[serde(default)]
    pub memory: MemoryUse,
    /// Who pinned the oldest log segment at the sample with most log: a tenant, or a tree that many
    /// share; empty where only memtables on their way to the disk did.
    #[serde(default)]
    pub wal_pinned_by: String,
    /// How old unflushed bytes were.
    #[serde(default)]
    pub unflushed_age: UnflushedAge,
    /// L0 tables of a tree: 99th percentile over trees, most over samples.
    #[serde(default)]
    pub l0_count_p99_max: u64,
    /// Tenants that came and went; `null` where none did.
    #[serde(default)]
    pub churn: Option<ChurnRow>,
    /// Forks beside the load; not there where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forks: Option<ForkRow>,
    /// Operations served while others arrived; only there where `ops_per_s` is below what was offered
    /// and this is not: then the last answers came late, and no queue grew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving_ops_per_s: Option<Thousandths>,
    /// What the closed loop of the first of two phases served; not there where there was one phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ops_per_s: Option<Thousandths>,
    /// Operations by kind; not there where all were puts and gets, of which the latencies of writes
    /// and reads say the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindRow>,
    /// Tenants; [`tenant_rows`] says which.
    pub tenants: Vec<TenantRow>,
    /// Classes, all of them.
    pub classes: Vec<ClassRow>,
}

impl RunRow {
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
    pub fn from_line(line: &str) -> core::result::Result<Self, String> {
        let row: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if row.schema == RUN_SCHEMA {
            Ok(row)
        } else {
            Err(format!("schema is {:?}, this build reads {RUN_SCHEMA:?}", row.schema))
        }
    }
}

/// The name of a run: xxh3 of configuration, seed (8 bytes, little endian) and world, 16 hex
/// digits.
pub fn run_id(config_hash: &str, seed: u64, world: World) -> String {
    let mut bytes = config_hash.as_bytes().to_vec();
    bytes.extend_from_slice(&seed.to_le_bytes());
    bytes.extend_from_slice(world.name().as_bytes());
    format!("{:016x}", xxh3_64(&bytes))
}

/// Jain's index of shares: 1 where all are equal, 1/n where one has everything, 1 for no shares.
///
/// # Source
///
/// Jain, Chiu, Hawe: A quantitative measure of fairness and discrimination, DEC-TR-301, 1984.
pub fn jain(shares: &[u64]) -> Thousandths {
    // Sums of squares of 32-bit numbers stay below 2^128 also when squared again or scaled.
    let shift = shares.iter().max().map_or(0, |max| 32_u32.saturating_sub(max.leading_zeros()));
    let scaled = || shares.iter().map(|share| u128::from(share >> shift));
    let sum: u128 = scaled().sum();
    let squares: u128 = scaled().map(|share| share * share).sum();
    if squares == 0 {
        return Thousandths(1000);
    }
    Thousandths::ratio(sum * sum, squares * shares.iter().map(|_| 1_u128).sum::<u128>())
}

/// The tenants a row holds: all by name, or, above [`TENANTS_WHOLE_MAX`], the [`TENANT_ROWS`] that
/// were stalled longest (then: caused most, served most, by name).
pub fn tenant_rows(mut tenants: Vec<TenantRow>) -> Vec<TenantRow> {
    if tenants.len() <= TENANTS_WHOLE_MAX {
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        return tenants;
    }
    tenants.sort_by(|a, b| {
        (b.stall_ns, b.stall_caused_ns, b.ops)
            .cmp(&(a.stall_ns, a.stall_caused_ns, a.ops))
            .then_with(|| a.name.cmp(&b.name))
    });
    tenants.truncate(TENANT_ROWS);
    tenants
}

/// Writes rows as `runs.jsonl`, in the order given.
///
/// # Errors
///
/// The file cannot be written; an older one of its name is still there.
pub fn write_runs(path: &Path, rows: &[RunRow]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    for row in rows {
        file.text(&row.to_line().map_err(|error| crate::output::OutputError::Line {
            path: path.to_owned(),
            line: 0,
            detail: error.to_string(),
        })?)?;
    }
    file.finish()
}

/// Reads `runs.jsonl`.
///
/// # Errors
///
/// The file cannot be read, or a line is not a row: the error names it.
pub fn read_runs(path: &Path) -> Result<Vec<RunRow>> {
    let mut rows = Vec::new();
    for_each_line(path, |_, line| {
        rows.push(RunRow::from_line(line)?);
        Ok(())
    })?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::mock;

    #[test]
    fn a_row_has_these_bytes_on_every_machine() {
        let line = mock::small_row().to_line().unwrap();
        let expected = include_str!("../assets/testdata/row.jsonl");
        assert_eq!(line, expected);
        assert_eq!(RunRow::from_line(expected).unwrap().to_line().unwrap(), expected);
    }

    #[test]
    fn a_row_of_another_schema_is_refused_and_a_new_name_is_not() {
        let line = mock::small_row().to_line().unwrap();
        let newer = line.replace("forebay.run/1", "forebay.run/2");
        assert!(RunRow::from_line(&newer).unwrap_err().contains("forebay.run/2"));
        let longer = line.replacen('{', "{\"new\":1,", 1);
        assert_eq!(RunRow::from_line(&longer).unwrap(), mock::small_row());
    }

    #[test]
    fn rows_come_back_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl");
        let rows = vec![mock::small_row(), mock::small_row()];
        write_runs(&path, &rows).unwrap();
        assert_eq!(read_runs(&path).unwrap(), rows);
    }

    #[test]
    fn run_ids_tell_configuration_seed_and_world_apart() {
        let base = run_id("9e31c07a9e31c07a", 7, World::Sim);
        assert_eq!(base.len(), 16);
        assert_ne!(base, run_id("9e31c07a9e31c07b", 7, World::Sim));
        assert_ne!(base, run_id("9e31c07a9e31c07a", 8, World::Sim));
        assert_ne!(base, run_id("9e31c07a9e31c07a", 7, World::Os));
    }

    #[test]
    fn jain_is_one_when_equal_and_small_when_one_has_all() {
        assert_eq!(jain(&[5, 5, 5, 5]), Thousandths(1000));
        assert_eq!(jain(&[5, 0, 0, 0]), Thousandths(250));
        assert_eq!(jain(&[]), Thousandths(1000));
        assert_eq!(jain(&[u64::MAX; 3]), Thousandths(1000));
    }

    #[test]
    fn many_tenants_leave_the_hundred_that_were_stalled_longest() {
        let tenant =
            |n: u64| TenantRow { name: format!("t{n:05}"), stall_ns: n, ..TenantRow::default() };
        assert_eq!(tenant_rows((0..1000).rev().map(tenant).collect()).len(), 1000);
        let top = tenant_rows((0..1001).map(tenant).collect());
        assert_eq!(top.len(), 100);
        assert_eq!(top[0].name, "t01000");
    }
}
