//! From what a run measured to what is stored of it: a row, samples, histograms.

use std::collections::BTreeMap;

use forebay_engine::metrics::Metrics;
use forebay_engine::types::to_u64;
use forebay_workloads::{Class, OP_NAMES, TenantProfile, Workload};
use hdrhistogram::Histogram;

use crate::beside_row::{ChurnRow, ForkRow, MoveRow};
use crate::driver::{ChurnTally, ForkTally, Interval, Measured, MoveTally, Recording, TenantTally};
use crate::events::RunEvents;
use crate::experiment::{Arm, Experiment};
use crate::histogram::HistRow;
use crate::load_row::KindRow;
use crate::number::{Thousandths, rank};
use crate::record::{
    Amplification, ByCause, ClassRow, LatencyNs, MemoryUse, Outcome, RUN_SCHEMA, RunRow,
    TENANT_ROWS, TableBytes, TenantRow, UnflushedAge, World, WrittenBytes, jain, run_id,
    tenant_rows,
};
use crate::series::SeriesRow;
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
    /// What happened, where that was recorded.
    pub events: Option<RunEvents>,
    /// Operations that were asked for, from the first on; 0 where it was not run just now.
    pub asked: u64,
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
    /// What is kept of its events; nothing where nobody asks.
    pub recording: Recording,
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
        let mut replay = arm.replay(command, seed);
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
        Self { arm: arm.name.clone(), row, config: arm.config.clone(), recording: Recording::None }
    }

    /// Runs it.
    pub fn run(&self) -> RunOutput {
        let (row, recording) = (&self.row, self.recording);
        let ended = world::run_recorded(row.world, &self.config, row.seed, recording);
        let mut output = RunOutput { row: self.row.clone(), ..RunOutput::default() };
        output.row.trace_hash = format!("{:016x}", ended.trace_hash);
        output.events = ended.events.map(|events| *events);
        if let Some(events) = &mut output.events {
            events.name(&self.row);
        }
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
        let workload = Workload::new(self.config.workload_spec(self.row.seed)).ok();
        let profiles = workload.as_ref().map_or(&[][..], Workload::tenants);
        let flat_out = workload.as_ref().and_then(Workload::flat_out);
        let row = &mut output.row;
        row.outcome = Outcome::Pass;
        row.checked_reads = measured.checked;
        if let Some(broken) = &measured.broken {
            row.outcome = Outcome::Fail;
            row.rule = Some(broken.rule.to_owned());
            output.failure = Some(format!("{}: {}", broken.rule, broken.detail));
        }
        totals(row, &self.config, measured);
        gauges(row, &self.config, measured);
        let flat_out = flat_out.and_then(|who| usize::try_from(who.tenant).ok());
        let tally = flat_out.and_then(|at| measured.tenants.get(at));
        row.flat_out_ops = tally.map_or(0, |tally| tally.ops);
        let of = |tally: &TenantTally| profiles.get(tally.tenant).map(|p| tenant_row(p, tally));
        row.tenants = tenant_rows(measured.tenants.iter().filter_map(of).collect());
        row.classes = class_rows(profiles, measured);
        row.kinds = kind_rows(measured);
        let in_time =
            |at: usize, tally: &TenantTally| if Some(at) == flat_out { 0 } else { tally.in_time };
        let in_time = measured.tenants.iter().enumerate().map(|(at, tally)| in_time(at, tally));
        let arriving = Thousandths::per_second(in_time.sum(), measured.arriving_ns);
        if row.is_behind(row.served_per_s()) && !row.is_behind(arriving) {
            row.arriving_ops_per_s = Some(arriving);
        }
        output.asked = measured.asked;
        let run_id = row.run_id.clone();
        let sample = |interval: &Interval| sample(&run_id, interval);
        output.series = measured.intervals.iter().map(sample).collect();
        let mut histograms = vec![
            HistRow::encode(&run_id, "", "write", &measured.write),
            HistRow::encode(&run_id, "", "read", &measured.read),
        ];
        let forks = measured.forks.iter();
        histograms.extend(forks.map(|tally| HistRow::encode(&run_id, "", "fork", &tally.fork)));
        histograms.extend(
            busiest(profiles, measured)
                .into_iter()
                .map(|(name, latency)| HistRow::encode(&run_id, name, "all", &latency)),
        );
        histograms.extend(by_class(&run_id, measured));
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
    row.offered_ops_per_s = Thousandths(measured.offered_ops_per_s.saturating_mul(1_000));
    row.max_ops_per_s = measured.max_ops_per_s;
    row.ops_per_s = Thousandths::per_second(measured.ops, measured.elapsed_ns);
    row.write_latency_ns = latency(&measured.write);
    row.read_latency_ns = latency(&measured.read);
    row.stall_ns = by_cause(&before.stall_ns, &after.stall_ns);
    row.stall_count = by_cause(&before.stall_count, &after.stall_count);
    row.flush_count = after.flush_count.saturating_sub(before.flush_count);
    row.table_bytes = table_bytes(config, &measured.table_bytes);
    row.user_bytes = after.user_bytes.saturating_sub(before.user_bytes);
    let relog = after.relog_bytes.saturating_sub(before.relog_bytes);
    row.written_bytes = WrittenBytes {
        wal: after.wal_bytes.saturating_sub(before.wal_bytes).saturating_sub(relog),
        relog,
        flush: after.flush_bytes.saturating_sub(before.flush_bytes),
        compaction: after.compaction_bytes.saturating_sub(before.compaction_bytes),
    };
    row.wal_retained_bytes_max = after.wal_retained_bytes_max;
    row.memtable_bytes_max_seen = after.memtable_bytes_max_seen;
    let served = |t: &TenantTally| t.in_time.saturating_mul(1_000_000).checked_div(t.issued);
    let shares: Vec<u64> = measured.tenants.iter().filter_map(served).collect();
    row.jain = jain(&shares);
    let (least, most) = (shares.iter().min(), shares.iter().max());
    row.min_max_share = least.zip(most).map_or(Thousandths(1000), |(least, most)| {
        Thousandths::ratio(u128::from(*least), u128::from(*most))
    });
}

/// One row for each kind of operations, where there are others than puts and gets.
fn kind_rows(measured: &Measured) -> Vec<KindRow> {
    let mut all: BTreeMap<usize, Histogram<u64>> = BTreeMap::new();
    for ((_, kind), of_class) in &measured.kinds {
        match all.get_mut(kind) {
            // Both grow as they must: nothing is refused.
            Some(sum) => sum.add(of_class).unwrap_or_default(),
            None => {
                all.insert(*kind, of_class.clone());
            }
        }
    }
    let name = |kind: &usize| OP_NAMES.get(*kind).copied().unwrap_or_default();
    if all.keys().all(|kind| ["put", "get"].contains(&name(kind))) {
        return Vec::new();
    }
    let row = |(kind, sum): (&usize, &Histogram<u64>)| KindRow {
        kind: name(kind).to_owned(),
        ops: sum.len(),
        latency_ns: latency(sum),
    };
    all.iter().map(row).collect()
}

/// The distributions of each class of tenants and kind of operation.
fn by_class(run_id: &str, measured: &Measured) -> Vec<crate::output::Result<HistRow>> {
    let encode = |((class, kind), histogram): (&(Class, usize), &Histogram<u64>)| {
        let op = OP_NAMES.get(*kind).copied().unwrap_or_default();
        let row = HistRow::encode(run_id, "", op, histogram)?;
        Ok(HistRow { class: class.name().to_owned(), ..row })
    };
    measured.kinds.iter().map(encode).collect()
}

/// What follows from gauges and events that are not the engine's counters.
fn gauges(row: &mut RunRow, config: &crate::config::Config, measured: &Measured) {
    let (gauges, budget) = (&measured.gauges, u128::from(config.options.budget_bytes));
    row.stranded_bytes = gauges.stranded_bytes;
    row.stall_longest_ns = measured.longest_stall_ns;
    row.flushes_per_s = Thousandths::per_second(row.flush_count, measured.elapsed_ns);
    row.write_amplification = Amplification::new(&row.written_bytes, row.user_bytes);
    row.memory = MemoryUse {
        mean_bytes: gauges.memtable_bytes_mean,
        mean_ratio: Thousandths::ratio(u128::from(gauges.memtable_bytes_mean), budget),
        peak_ratio: Thousandths::ratio(u128::from(row.memtable_bytes_max_seen), budget),
        overshoot_byte_s: Thousandths::ratio(gauges.overshoot_byte_ns, 1_000_000_000),
    };
    row.wal_pinned_by = measured.wal_pinned_by.clone().unwrap_or_default();
    row.unflushed_age =
        UnflushedAge { p99_ns: gauges.unflushed_age_p99_ns, max_ns: gauges.unflushed_age_max_ns };
    row.l0_count_p99_max = gauges.l0_count_p99_max;
    row.churn = measured.churn.as_ref().map(churn_row);
    row.forks = measured.forks.as_ref().map(|tally| fork_row(tally, measured));
}

fn fork_row(tally: &ForkTally, measured: &Measured) -> ForkRow {
    let (gauges, mean) = (&measured.gauges, measured.gauges.table_bytes_mean);
    let copied = |metrics: &Metrics| metrics.fork_copied_bytes;
    ForkRow {
        asked: tally.asked,
        done: tally.in_time,
        lost: tally.lost,
        per_s: Thousandths::per_second(tally.in_time, measured.elapsed_ns),
        latency_ns: latency(&tally.fork),
        dropped: tally.drop.len(),
        drop_ns: latency(&tally.drop),
        copied_bytes: copied(&measured.after).saturating_sub(copied(&measured.before)),
        put_count: tally.puts,
        space_amplification: Thousandths::ratio(u128::from(mean.live), u128::from(mean.main)),
        retained_bytes_mean: mean.live.saturating_sub(mean.main),
        retained_bytes_max: gauges.fork_table_bytes_max,
    }
}

fn churn_row(tally: &ChurnTally) -> ChurnRow {
    ChurnRow {
        created: tally.create.len(),
        dropped: tally.drop.len(),
        create_ns: latency(&tally.create),
        put_ns: latency(&tally.put),
        drop_ns: latency(&tally.drop),
        moves: (!tally.moved.latency.is_empty()).then(|| move_row(&tally.moved)),
    }
}

fn move_row(tally: &MoveTally) -> MoveRow {
    MoveRow {
        moved: tally.latency.len(),
        latency_ns: latency(&tally.latency),
        linked_bytes: tally.linked_bytes,
        copied_bytes: tally.copied_bytes,
        logged_entries: tally.logged_entries,
    }
}

/// Of the sizes of tables in ascending order.
fn table_bytes(config: &crate::config::Config, sorted: &[u64]) -> TableBytes {
    const MIB: u64 = 1 << 20;
    let share = config.options.budget_bytes.checked_div(config.tenant_count).unwrap_or(0);
    let below = |bytes: u64| to_u64(sorted.partition_point(|size| *size < bytes));
    TableBytes {
        p1: rank(sorted, 1),
        p50: rank(sorted, 50),
        p99: rank(sorted, 99),
        count: to_u64(sorted.len()),
        under_mib_count: below(MIB),
        tiny_count: below(share.div_euclid(10)),
    }
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
        let latency = histogram.map(latency).unwrap_or_default();
        row.p50_ns = latency.p50;
        row.p99_ns = latency.p99;
        row.p999_ns = latency.p999;
        row.max_ns = latency.max;
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
        table_bytes: interval.table_bytes,
        fork_table_bytes: interval.fork_table_bytes,
    }
}

/// How many runs a list of outputs holds that did not pass.
pub fn failed_count(outputs: &[RunOutput]) -> u64 {
    to_u64(outputs.iter().filter(|output| output.row.outcome != Outcome::Pass).count())
}
