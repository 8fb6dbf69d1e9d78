//! The worlds a run can be in, and how a run is set up in each.
//!
//! In the simulation the load runs in a world of its own, on a device that takes no time; the run
//! gets its disk at time zero. On a real disk everything happens in a temporary folder that goes
//! away with the run.

use std::path::Path;
use std::sync::Arc;

use forebay_engine::Db;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::events::{Event, Listener};
use forebay_engine::types::Nanos;
use forebay_sim::check::Rule;
use forebay_sim::cpu::CpuCosts;
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::{RunEnd, Sim, SimConfig};
use forebay_workloads::Workload;

use crate::driver::{Measured, Plan, Recording, Stop, Tally, load, measure};
use crate::events::RunEvents;
use crate::record::{Outcome, World};

/// Lanes of an open loop on a real disk, where a call keeps its thread until it is done.
const OS_LANES: u64 = 4;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it measured.
    pub measured: Result<Box<Measured>, Failed>,
    /// Hash over everything that happened; 0 on a real disk.
    pub trace_hash: u64,
    /// What happened, where that was recorded and the run began.
    pub events: Option<Box<RunEvents>>,
}

/// A run that has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How it ended.
    pub outcome: Outcome,
    /// The broken rule, where one was.
    pub rule: Option<Rule>,
    /// Why, for people: a line that says it, and maybe more that show it.
    pub detail: String,
}

impl Ended {
    fn failed(outcome: Outcome, detail: impl core::fmt::Display) -> Self {
        let failed = Failed { outcome, rule: None, detail: detail.to_string() };
        Self { measured: Err(failed), trace_hash: 0, events: None }
    }

    fn broken(rule: Rule, outcome: Outcome, lines: &[String]) -> Self {
        let detail = format!("{rule} {}: {}", rule.verdict(), lines.join("\n"));
        let failed = Failed { outcome, rule: Some(rule), detail };
        Self { measured: Err(failed), trace_hash: 0, events: None }
    }

    fn stopped(stop: &Stop, what: &str) -> Self {
        match stop {
            Stop::Failed(error) => Self::failed(Outcome::Fail, format!("{what} failed: {error}")),
            Stop::Wedged(lines) => Self::broken(Rule::L1, Outcome::Fail, lines),
        }
    }
}

/// Somebody beside the driver who is told of every event.
pub type Watcher = Arc<dyn Listener>;

/// Tells the driver's tally and a watcher.
#[derive(Debug)]
struct Both(Arc<Tally>, Watcher);

impl Listener for Both {
    fn event(&self, now: Nanos, event: &Event) {
        self.0.event(now, event);
        self.1.event(now, event);
    }
}

/// Runs one configuration with one seed.
pub fn run(world: World, config: &crate::config::Config, seed: u64) -> Ended {
    run_recorded(world, config, seed, Recording::None)
}

/// Runs one configuration with one seed and keeps its events; it is the same run.
pub fn run_recorded(
    world: World,
    config: &crate::config::Config,
    seed: u64,
    recording: Recording,
) -> Ended {
    let default_lanes = if world == World::Os { OS_LANES } else { 1 };
    match (plan(config, seed, default_lanes), world) {
        (Ok(plan), World::Sim) => run_sim(&plan, seed, (recording, None)),
        (Ok(plan), World::Os) => run_os(&plan, recording),
        (Err(failed), _) => failed,
    }
}

/// Runs one configuration with one seed in the simulation, watched.
pub fn simulate(config: &crate::config::Config, seed: u64, watcher: Option<Watcher>) -> Ended {
    match plan(config, seed, 1) {
        Ok(plan) => run_sim(&plan, seed, (Recording::None, watcher)),
        Err(failed) => failed,
    }
}

fn plan(config: &crate::config::Config, seed: u64, default_lanes: u64) -> Result<Plan, Ended> {
    let workload = Workload::new(config.workload_spec(seed))
        .map_err(|error| Ended::failed(Outcome::Fail, error))?;
    let lane_count = if config.lane_count == 0 { default_lanes } else { config.lane_count };
    Ok(Plan { config: config.clone(), workload: Arc::new(workload), lane_count })
}

async fn fill<E: Env>(env: E, dir: &Path, plan: &Plan) -> Result<(), Stop> {
    let options = plan.config.options.clone();
    let batch_bytes = options.batch_limit_bytes();
    let db = Db::open(env.clone(), dir, options).await?;
    load(env, &db, &plan.workload, batch_bytes).await?;
    Ok(db.close().await?)
}

async fn drive<E: Env>(
    env: E,
    dir: &Path,
    plan: &Plan,
    (tally, watcher): (Arc<Tally>, Option<Watcher>),
) -> Result<Measured, Stop> {
    let told = Arc::<Tally>::clone(&tally);
    let listener: Watcher = match watcher {
        Some(watcher) => Arc::new(Both(told, watcher)),
        None => told,
    };
    let options = plan.config.options.clone();
    let db = Db::open_with_listener(env.clone(), dir, options, Some(listener)).await?;
    let measured = measure(env.clone(), (db.clone(), dir), plan, Arc::clone(&tally)).await;
    tally.stop_recording(env.now());
    let closed = db.close().await;
    let measured = measured?;
    closed?;
    Ok(measured)
}

fn run_sim(plan: &Plan, seed: u64, (recording, watcher): (Recording, Option<Watcher>)) -> Ended {
    let fast =
        SimConfig { costs: CpuCosts::free(), ..SimConfig::experiment(seed, DeviceSpec::NONE) };
    let loading = Sim::new(&fast);
    let (env, plan_of_load) = (loading.env(), plan.clone());
    let end = loading.run(async move { fill(env, Path::new("/db"), &plan_of_load).await });
    if let Err(failed) = ended(end, "the load") {
        return failed;
    }
    let (disk, _) = loading.disk().crash_kill(loading.choices());
    drop(loading);
    let costs = CpuCosts { multiplier: plan.config.cpu_cost_multiplier, ..CpuCosts::default() };
    let cores = usize::try_from(plan.config.core_count).unwrap_or(usize::MAX);
    let device = plan.config.device_spec();
    let sim = Sim::new(&SimConfig { costs, cores, ..SimConfig::experiment(seed, device) });
    *sim.disk_mut() = disk;
    let (env, plan) = (sim.env(), plan.clone());
    let tally = Arc::new(Tally::recording(recording));
    let told = (Arc::clone(&tally), watcher);
    let end = sim.run(async move { drive(env, Path::new("/db"), &plan, told).await });
    let (trace_hash, events) = (sim.trace_hash(), tally.take_events(sim.env().now()).map(Box::new));
    match ended(end, "the run") {
        Ok(measured) => Ended { measured: Ok(Box::new(measured)), trace_hash, events },
        Err(failed) => Ended { trace_hash, events, ..failed },
    }
}

fn ended<T>(end: RunEnd<Result<T, Stop>>, what: &str) -> Result<T, Ended> {
    let failed = |outcome, detail: String| Err(Ended::failed(outcome, format!("{what} {detail}")));
    match end {
        RunEnd::Done(Ok(value)) => Ok(value),
        RunEnd::Done(Err(stop)) => Err(Ended::stopped(&stop, what)),
        RunEnd::Deadlock { mut waiting } => {
            waiting.dedup();
            let line = format!("{what} hangs; waiting: {}", waiting.join(", "));
            Err(Ended::broken(Rule::L2, Outcome::Timeout, &[line]))
        }
        RunEnd::Livelock { polls, .. } => {
            failed(Outcome::Timeout, format!("makes no progress in {polls} polls"))
        }
        RunEnd::Crashed => failed(Outcome::Fail, "crashed though no crash was planned".to_owned()),
    }
}

fn run_os(plan: &Plan, recording: Recording) -> Ended {
    let folder = match tempfile::Builder::new().prefix("forebay-").tempdir() {
        Ok(folder) => folder,
        Err(error) => return Ended::failed(Outcome::Fail, error),
    };
    let env = OsEnv;
    let dir = folder.path().join("db");
    let tally = Arc::new(Tally::recording(recording));
    let told = (Arc::clone(&tally), None);
    let result = env.block_on(async {
        fill(env, &dir, plan).await?;
        drive(env, &dir, plan, told).await
    });
    let events = tally.take_events(env.now()).map(Box::new);
    match result {
        Ok(measured) => Ended { measured: Ok(Box::new(measured)), trace_hash: 0, events },
        Err(stop) => Ended { events, ..Ended::stopped(&stop, "the run") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::events::EventKind;

    fn small(settings: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (key, value) in [
            ("workload", "twitter-53"),
            ("tenant_count", "30"),
            ("budget_bytes", "512KiB"),
            ("memtable_bytes_max", "64KiB"),
            ("wal_segment_bytes", "64KiB"),
            ("block_cache_bytes", "128KiB"),
            ("table_bytes_max", "32KiB"),
            ("device_scale", "20000"),
            ("offered_ops_per_s", "200"),
            ("fill_count", "2"),
        ]
        .into_iter()
        .chain(settings.iter().copied())
        {
            config.set(key, value).unwrap();
        }
        config.validate().unwrap();
        config
    }

    fn measured(world: World, config: &Config, seed: u64) -> (Box<Measured>, u64) {
        let ended = run(world, config, seed);
        (ended.measured.unwrap(), ended.trace_hash)
    }

    #[test]
    fn the_same_seed_gives_the_same_run_in_every_layout() {
        for layout in ["per-tenant", "grouped-4", "shared"] {
            let config = small(&[("layout", layout)]);
            let (a, hash_a) = measured(World::Sim, &config, 1);
            let (b, hash_b) = measured(World::Sim, &config, 1);
            assert_eq!((hash_a, a.ops, a.elapsed_ns), (hash_b, b.ops, b.elapsed_ns));
            assert_eq!(a.intervals, b.intervals);
            assert_ne!(hash_a, measured(World::Sim, &config, 2).1);
            assert!(a.after.flush_count > 0 && a.ops > 100, "{layout}: {:?}", a.after);
            let budget = config.options.budget_bytes;
            assert!(a.after.user_bytes - a.before.user_bytes >= budget - (budget >> 3));
            assert!(a.after.memtable_bytes_max_seen <= budget, "{layout}");
            assert_eq!(a.tenants.iter().map(|t| t.ops).sum::<u64>(), a.ops);
        }
    }

    #[test]
    fn a_recorded_run_is_the_same_run_and_tells_every_flush_and_stall() {
        for layout in ["per-tenant", "shared"] {
            let config = small(&[("layout", layout), ("memtable_stop_count", "1")]);
            let plain = run(World::Sim, &config, 1);
            let told = run_recorded(World::Sim, &config, 1, Recording::Everybody(100_000));
            assert_eq!(plain.trace_hash, told.trace_hash);
            let (measured, events) = (told.measured.unwrap(), told.events.unwrap());
            assert_eq!(measured.intervals, plain.measured.unwrap().intervals);
            assert_eq!(events.head.left_out, 0);
            let of = |kind| events.rows.iter().filter(move |row| row.kind == kind);
            let tables = of(EventKind::Flush).filter(|row| row.bytes > 0).count();
            assert_eq!(tables, measured.table_bytes.len(), "{layout}");
            let stalled: u64 = of(EventKind::Stall).map(|row| row.took_ns).sum();
            let told: u64 = measured.tenants.iter().map(|tenant| tenant.stall_ns).sum();
            assert!(stalled.abs_diff(told) <= told >> 4, "{layout}: {stalled} for {told}");
            assert!(of(EventKind::Memtable).count() > 10);
            assert!(events.head.end_ns >= measured.elapsed_ns);
        }
    }

    #[test]
    fn answers_are_compared_with_the_model_where_that_is_asked_for() {
        for layout in ["per-tenant", "grouped-4", "shared"] {
            let mix = [("workload.delete_ratio", "0.2"), ("workload.scan_ratio", "0.1")];
            let zipf = [("workload", "steady-zipf"), ("check", "1"), ("layout", layout)];
            let config = small(&[zipf.as_slice(), mix.as_slice()].concat());
            let (run, _) = measured(World::Sim, &config, 1);
            assert_eq!(run.broken, None, "{layout}");
            assert!(run.checked > run.ops >> 2, "{layout}: {} of {}", run.checked, run.ops);
            assert!(run.after.flush_count > 0, "{layout}");
        }
    }

    const BY_OPERATIONS: [(&str, &str); 3] =
        [("fill_count", "0"), ("warmup_fill_count", "0"), ("op_count", "600")];

    #[test]
    fn every_benchmark_runs_and_its_answers_are_those_of_the_model() {
        for workload in ["ycsb-d", "ycsb-e", "ycsb-f", "fillrandom", "seekrandom", "mixgraph"] {
            let more = [("workload", workload), ("check", "1"), ("tenant_count", "5")];
            let mut config = small(&[more.as_slice(), &BY_OPERATIONS].concat());
            if workload == "seekrandom" {
                config.set("workload.seek_nexts_count", "5").unwrap();
                config.set("workload.reverse_ratio", "0.5").unwrap();
            }
            let (run, _) = measured(World::Sim, &config, 1);
            assert_eq!(run.broken, None, "{workload}");
            assert!(run.ops >= 600, "{workload}");
            assert_eq!(run.checked == 0, workload == "fillrandom", "{workload}");
            let kinds: u64 = run.kinds.values().map(hdrhistogram::Histogram::len).sum();
            assert_eq!(kinds, run.ops, "{workload}");
            let written = run.after.user_bytes - run.before.user_bytes;
            assert_eq!(written == 0, workload == "seekrandom", "{workload}: {written}");
        }
    }

    #[test]
    fn a_replayed_trace_is_the_run_that_was_recorded() {
        let folder = tempfile::tempdir().unwrap();
        for (workload, rate) in [("ycsb-d", "300"), ("mixgraph", "0")] {
            let more = [("workload", workload), ("tenant_count", "5"), ("offered_ops_per_s", rate)];
            let mut config = small(&[more.as_slice(), &BY_OPERATIONS].concat());
            let (first, hash) = measured(World::Sim, &config, 3);
            let path = folder.path().join(workload);
            let recorded = Workload::new(config.workload_spec(3)).unwrap();
            let mut file = crate::output::OutputFile::create(&path).unwrap();
            forebay_workloads::write_trace(&recorded, first.asked, &mut file).unwrap();
            file.finish().unwrap();
            let before = config.hash();
            config.set("workload", "trace").unwrap();
            config.set("workload_file", path.to_str().unwrap()).unwrap();
            config.validate().unwrap();
            assert_ne!(config.hash(), before);
            let (again, hash_again) = measured(World::Sim, &config, 3);
            assert_eq!((hash_again, again.ops), (hash, first.ops), "{workload}");
            // Without another end the trace's own ends the run.
            config.set("op_count", "0").unwrap();
            config.validate().unwrap();
            assert_eq!(measured(World::Sim, &config, 3).0.ops, first.asked, "{workload}");
        }
    }

    #[test]
    fn two_phases_find_the_maximum_and_then_offer_a_share_of_it() {
        let more = [("workload", "ycsb-a"), ("tenant_count", "5"), ("offered_ops_per_s", "0")];
        let two = [("two_phase_percent", "80"), ("check", "1"), ("warmup_duration_ns", "1000000")];
        let config = small(&[more.as_slice(), &BY_OPERATIONS, &two].concat());
        let (run, hash) = measured(World::Sim, &config, 1);
        let most = run.max_ops_per_s.unwrap();
        assert_eq!(run.offered_ops_per_s, (most.0 * 80).div_euclid(100_000));
        assert!((500..=700).contains(&run.ops), "{}", run.ops);
        assert!(run.asked > 1_200, "both phases: {}", run.asked);
        assert_eq!(run.broken, None);
        let served = crate::number::Thousandths::per_second(run.ops, run.elapsed_ns);
        assert!(served.0 < most.0, "{served:?} of {most:?}");
        assert_eq!(measured(World::Sim, &config, 1).1, hash);
        let one = Config { two_phase_percent: 0, ..config.clone() };
        let (closed, _) = measured(World::Sim, &one, 1);
        assert_eq!((closed.max_ops_per_s, closed.offered_ops_per_s), (None, 0));
        assert!(one.entries().iter().all(|(key, _)| key != "two_phase_percent"));
        assert_ne!(one.hash(), config.hash());
    }

    #[test]
    fn writes_that_wait_for_a_sync_share_it_and_take_its_time() {
        let more = [("workload", "ycsb-a"), ("tenant_count", "5"), ("offered_ops_per_s", "0")];
        let slow = [("device.sync_ns", "1000000"), ("device.depth", "1")];
        let mut config = small(&[more.as_slice(), &BY_OPERATIONS, &slow].concat());
        let (handed, _) = measured(World::Sim, &config, 1);
        config.set("sync_writes", "1").unwrap();
        let (synced, _) = measured(World::Sim, &config, 1);
        let syncs = |run: &Measured| run.after.wal_sync_count - run.before.wal_sync_count;
        assert!(syncs(&synced) > syncs(&handed) * 2, "{} {}", syncs(&synced), syncs(&handed));
        assert!(syncs(&synced) * 2 < synced.write.len(), "16 clients share them");
        assert!(synced.write.min() >= 1_000_000 && handed.write.value_at_quantile(0.5) < 1_000_000);
    }

    #[test]
    fn a_closed_loop_ends_by_operations() {
        let config = small(&[
            ("offered_ops_per_s", "0"),
            ("fill_count", "0"),
            ("warmup_fill_count", "0"),
            ("op_count", "500"),
        ]);
        let (closed, _) = measured(World::Sim, &config, 1);
        assert!((500..500 + 16).contains(&closed.ops), "{}", closed.ops);
    }

    #[test]
    fn the_same_driver_runs_on_a_real_disk() {
        let config = small(&[
            ("offered_ops_per_s", "20000"),
            ("fill_count", "0"),
            ("warmup_fill_count", "0"),
            ("op_count", "4000"),
        ]);
        let (real, hash) = measured(World::Os, &config, 1);
        assert!(real.ops >= 4000);
        assert_eq!(hash, 0);
    }
}
