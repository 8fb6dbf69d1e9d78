//! From what a run measured to what is stored of it: a row, samples, histograms.

use std::collections::BTreeMap;

use forebay_engine::types::to_u64;
use forebay_workloads::{Class, TenantProfile, Workload};
use hdrhistogram::Histogram;

use crate::driver::{Interval, Measured, TenantTally};
use crate::experiment::{Arm, Experiment};
use crate::histogram::HistRow;
use crate::number::Thousandths;
use crate::record::{
    ByCause, ClassRow, LatencyNs, Outcome, RUN_SCHEMA, RunRow, TENANT_ROWS, TableBytes, TenantRow,
    World, WrittenBytes, jain, run_id, tenant_rows,
};
use crate::series::SeriesRow;
use crate::text::append;
use crate::world;

/// The generator behind every draw of a run.
const RNG: &str = "chacha8/rand_chacha 0.10";

/// Everything that is stored of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOutput {
    /// Its row.
    pub row: RunRow,
    /// Its samples.
    pub series: Vec<SeriesRow>,
    /// Its distributions.
    pub histograms: Vec<HistRow>,
    /// Why it did not pass, for people.
    pub failure: Option<String>,
}

/// One arm with one seed, still to be run.
#[derive(Clone, Debug)]
pub struct Task {
    /// The arm's name.
    pub arm: String,
    /// Its row before anything was measured.
    pub row: RunRow,
    /// Its configuration.
    pub config: crate::config::Config,
}

impl Task {
    /// A run of an experiment's arm; `command` is how the experiment is run, without folders.
    pub fn new(
        experiment: &Experiment,
        arm: &Arm,
        (seed, world): (u64, World),
        command: &str,
    ) -> Self {
        let config_hash = arm.config.hash();
        let mut replay = command.to_owned();
        for (key, value) in &arm.values {
            append(&mut replay, format_args!(" -s {key}={value}"));
        }
        append(&mut replay, format_args!(" --seeds {seed}..{}", seed.saturating_add(1)));
        if world == World::Os {
            replay.push_str(" --world os");
        }
        let row = RunRow {
            schema: RUN_SCHEMA.to_owned(),
            run_id: run_id(&config_hash, seed, world),
            experiment: experiment.name.clone(),
            arm: arm.name.clone(),
            seed,
            world,
            outcome: Outcome::Skipped,
            replay,
            config_hash,
            rng: RNG.to_owned(),
            params: arm.config.params(),
            ..RunRow::default()
        };
        Self { arm: arm.name.clone(), row, config: arm.config.clone() }
    }

    /// Runs it.
    pub fn run(&self) -> RunOutput {
        let ended = world::run(self.row.world, &self.config, self.row.seed);
        let mut output = RunOutput { row: self.row.clone(), ..RunOutput::default() };
        output.row.trace_hash = format!("{:016x}", ended.trace_hash);
        match ended.measured {
            Ok(measured) => self.store(&measured, &mut output),
            Err(failed) => {
                output.row.outcome = failed.outcome;
                output.row.rule = failed.rule.map(|rule| rule.name().to_owned());
                output.failure = Some(failed.detail);
            }
        }
        output
    }

    fn store(&self, measured: &Measured, output: &mut RunOutput) {
        let profiles = Workload::new(self.config.workload_spec(self.row.seed))
            .map(|workload| workload.tenants().to_vec())
            .unwrap_or_default();
        let row = &mut output.row;
        row.outcome = Outcome::Pass;
        totals(row, &self.config, measured);
        let of = |tally: &TenantTally| profiles.get(tally.tenant).map(|p| tenant_row(p, tally));
        row.tenants = tenant_rows(measured.tenants.iter().filter_map(of).collect());
        row.classes = class_rows(&profiles, measured);
        let run_id = row.run_id.clone();
        let sample = |interval: &Interval| sample(&run_id, interval);
        output.series = measured.intervals.iter().map(sample).collect();
        let mut histograms = vec![
            HistRow::encode(&run_id, "", "write", &measured.write),
            HistRow::encode(&run_id, "", "read", &measured.read),
        ];
        histograms.extend(
            busiest(&profiles, measured)
                .into_iter()
                .map(|(name, latency)| HistRow::encode(&run_id, name, "all", &latency)),
        );
        for histogram in histograms {
            match histogram {
                Ok(histogram) => output.histograms.push(histogram),
                Err(error) => output.failure = Some(error.to_string()),
            }
        }
    }
}

fn totals(row: &mut RunRow, config: &crate::config::Config, measured: &Measured) {
    let (before, after) = (&measured.before, &measured.after);
    row.ops = measured.ops;
    row.elapsed_ns = measured.elapsed_ns;
    row.offered_ops_per_s = Thousandths(config.offered_ops_per_s.saturating_mul(1_000));
    row.ops_per_s = Thousandths::per_second(measured.ops, measured.elapsed_ns);
    row.write_latency_ns = latency(&measured.write);
    row.read_latency_ns = latency(&measured.read);
    row.stall_ns = by_cause(&before.stall_ns, &after.stall_ns);
    row.stall_count = by_cause(&before.stall_count, &after.stall_count);
    row.flush_count = after.flush_count.saturating_sub(before.flush_count);
    row.table_bytes = TableBytes {
        p1: rank(&measured.table_bytes, 1),
        p50: rank(&measured.table_bytes, 50),
        p99: rank(&measured.table_bytes, 99),
    };
    row.user_bytes = after.user_bytes.saturating_sub(before.user_bytes);
    row.written_bytes = WrittenBytes {
        wal: after.wal_bytes.saturating_sub(before.wal_bytes),
        flush: after.flush_bytes.saturating_sub(before.flush_bytes),
        compaction: after.compaction_bytes.saturating_sub(before.compaction_bytes),
    };
    row.wal_retained_bytes_max = after.wal_retained_bytes_max;
    row.memtable_bytes_max_seen = after.memtable_bytes_max_seen;
    row.stranded_bytes = measured.stranded_bytes;
    let served = |t: &TenantTally| t.in_time.saturating_mul(1_000_000).checked_div(t.issued);
    row.jain = jain(&measured.tenants.iter().filter_map(served).collect::<Vec<_>>());
}

fn latency(histogram: &Histogram<u64>) -> LatencyNs {
    LatencyNs {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}

fn by_cause(before: &[u64; 5], after: &[u64; 5]) -> ByCause {
    let [memtables, l0, budget, wal, disk_full] = after;
    let [memtables_0, l0_0, budget_0, wal_0, disk_full_0] = before;
    ByCause {
        memtables: memtables.saturating_sub(*memtables_0),
        l0: l0.saturating_sub(*l0_0),
        budget: budget.saturating_sub(*budget_0),
        wal: wal.saturating_sub(*wal_0),
        disk_full: disk_full.saturating_sub(*disk_full_0),
    }
}

/// The value that this many in a hundred do not exceed; 0 of nothing.
fn rank(sorted: &[u64], percent: usize) -> u64 {
    let at = sorted.len().saturating_mul(percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0)
}

fn tenant_row(profile: &TenantProfile, tally: &TenantTally) -> TenantRow {
    let at = |quantile: f64| tally.latency.as_ref().map_or(0, |l| l.value_at_quantile(quantile));
    TenantRow {
        name: profile.name.clone(),
        class: profile.class.name().to_owned(),
        ops: tally.ops,
        stall_ns: tally.stall_ns,
        stall_caused_ns: tally.stall_caused_ns,
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns: tally.latency.as_ref().map_or(0, Histogram::max),
    }
}

fn class_rows(profiles: &[TenantProfile], measured: &Measured) -> Vec<ClassRow> {
    let mut rows: BTreeMap<Class, ClassRow> = BTreeMap::new();
    for (profile, tally) in profiles.iter().zip(&measured.tenants) {
        let row = rows.entry(profile.class).or_insert_with(|| ClassRow {
            class: profile.class.name().to_owned(),
            ..ClassRow::default()
        });
        row.tenants += 1;
        row.ops = row.ops.saturating_add(tally.ops);
        row.stall_ns = row.stall_ns.saturating_add(tally.stall_ns);
        row.stall_caused_ns = row.stall_caused_ns.saturating_add(tally.stall_caused_ns);
    }
    for (class, row) in &mut rows {
        let histogram = measured.classes.get(class);
        row.p99_ns = histogram.map_or(0, |histogram| histogram.value_at_quantile(0.99));
    }
    rows.into_values().collect()
}

/// The distributions of the tenants that asked most, by name; histograms of rows hold wide counts.
fn busiest<'a>(
    profiles: &'a [TenantProfile],
    measured: &Measured,
) -> Vec<(&'a str, Histogram<u64>)> {
    let mut tallies: Vec<&TenantTally> = measured.tenants.iter().collect();
    tallies.sort_by(|a, b| b.ops.cmp(&a.ops).then_with(|| a.tenant.cmp(&b.tenant)));
    tallies.truncate(TENANT_ROWS);
    tallies.sort_by_key(|tally| tally.tenant);
    let wide = |latency: &Histogram<u32>| {
        let mut wide = Histogram::<u64>::new(latency.sigfig()).ok()?;
        for step in latency.iter_recorded() {
            wide.record_n(step.value_iterated_to(), step.count_at_value().into()).ok()?;
        }
        Some(wide)
    };
    tallies
        .into_iter()
        .filter_map(|tally| {
            let profile = profiles.get(tally.tenant)?;
            Some((profile.name.as_str(), wide(tally.latency.as_ref()?)?))
        })
        .collect()
}

fn sample(run_id: &str, interval: &Interval) -> SeriesRow {
    SeriesRow {
        run_id: run_id.to_owned(),
        at_ms: interval.at_ns.div_euclid(1_000_000),
        tenant: String::new(),
        ops: interval.ops,
        stall_ns: interval.stall_ns,
        memtable_bytes: interval.memtable_bytes,
        imm: interval.immutable_count,
        l0_files: interval.l0_count,
        pending_compaction_bytes: interval.pending_compaction_bytes,
        p99_ns: interval.p99_ns,
    }
}

/// How many runs a list of outputs holds that did not pass.
pub fn failed_count(outputs: &[RunOutput]) -> u64 {
    to_u64(outputs.iter().filter(|output| output.row.outcome != Outcome::Pass).count())
}
