#![cfg(test)]
//! Strategy: every policy of every list, in every layout, runs every scenario of the workload
//! library on a machine so small that it must flush, stall and compact all the time.
//!
//! Invariants: the run ends by itself with all its operations answered; memory stays within the
//! budget where the stall policy keeps it; a run is the same twice. What is added to a list is
//! tested here without a change.

use forebay::config::Config;
use forebay::driver::Measured;
use forebay::record::World;
use forebay::world;
use forebay_engine::policy::PolicyKind;

/// Scenarios that write nothing.
const READERS: [&str; 4] = ["ycsb-c", "readseq", "readrandom", "seekrandom"];

/// The scenarios, each in an open and where that differs in a second form; but for the one that is
/// a file's.
fn scenarios() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let mut scenarios: Vec<_> = forebay_workloads::list()
        .iter()
        .filter(|info| info.name != "trace")
        .map(|info| (info.name, Vec::new()))
        .collect();
    scenarios.push(("noisy-neighbour", vec![("workload.aggressor_client_count", "3")]));
    scenarios.push(("thundering-hour", vec![("workload.storm_ms", "50")]));
    scenarios
}

fn config(workload: &str, settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    let base = [
        ("workload", workload),
        ("tenant_count", "12"),
        ("budget_bytes", "40KiB"),
        ("memtable_bytes_max", "8KiB"),
        ("block_bytes", "1KiB"),
        ("wal_segment_bytes", "32KiB"),
        ("block_cache_bytes", "64KiB"),
        ("table_bytes_max", "8KiB"),
        ("level_base_bytes", "16KiB"),
        ("device_scale", "2000"),
        ("offered_ops_per_s", "1500"),
        ("fill_count", "0"),
        ("warmup_fill_count", "0"),
        ("op_count", "600"),
    ];
    for (key, value) in base.iter().chain(settings) {
        config.set(key, value).unwrap_or_else(|error| panic!("{key}={value}: {error}"));
    }
    if workload == "come-and-go" {
        config.set("workload.churn_per_minute", "3000").unwrap();
        config.set("workload.visitor_count", "3").unwrap();
    }
    config.validate().unwrap();
    config
}

fn run(what: &str, config: &Config) -> (Box<Measured>, u64) {
    let ended = world::run(World::Sim, config, 5);
    let measured = ended.measured.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(measured.ops >= 500, "{what}: {} operations", measured.ops);
    (measured, ended.trace_hash)
}

/// With the scenarios of other benchmarks as well, or only with forebay's own.
fn every_flush_policy(layout: &str, with_benchmarks: bool) {
    const OWN: [&str; 6] = [
        "twitter-53",
        "steady-zipf",
        "rotating-burst",
        "noisy-neighbour",
        "thundering-hour",
        "come-and-go",
    ];
    for info in PolicyKind::Flush.list() {
        for (workload, settings) in scenarios() {
            if !with_benchmarks && !OWN.contains(&workload) {
                continue;
            }
            let what = format!("{} {layout} {workload} {settings:?}", info.name);
            let mut settings = settings.clone();
            settings.extend([("layout", layout), ("flush_policy", info.name)]);
            let config = config(workload, &settings);
            let (measured, _) = run(&what, &config);
            let budget = config.options.budget_bytes;
            assert!(measured.after.memtable_bytes_max_seen <= budget, "{what}");
            let wrote = measured.after.user_bytes - measured.before.user_bytes;
            assert!(measured.after.flush_count > 0 || wrote < budget, "{what}");
            assert!(wrote > 0 || READERS.contains(&workload), "{what}");
        }
    }
}

#[test]
fn every_flush_policy_runs_every_scenario_with_a_tree_for_each_tenant() {
    every_flush_policy("per-tenant", true);
}

#[test]
fn every_flush_policy_runs_every_scenario_with_three_trees() {
    every_flush_policy("grouped-3", false);
}

#[test]
fn every_flush_policy_runs_every_scenario_with_one_tree() {
    every_flush_policy("shared", false);
}

#[test]
fn every_stall_policy_runs_every_scenario() {
    for info in PolicyKind::Stall.list() {
        for (workload, settings) in scenarios() {
            let what = format!("{} {workload} {settings:?}", info.name);
            let mut settings = settings.clone();
            settings.push(("stall_policy", info.name));
            run(&what, &config(workload, &settings));
        }
    }
}

#[test]
fn every_compaction_policy_runs_every_scenario() {
    for info in PolicyKind::Compaction.list() {
        for (workload, settings) in scenarios() {
            let what = format!("{} {workload} {settings:?}", info.name);
            let mut settings = settings.clone();
            settings.push(("compaction_policy", info.name));
            run(&what, &config(workload, &settings));
        }
    }
}

#[test]
fn a_run_with_an_aggressor_or_with_visitors_is_the_same_twice() {
    for (workload, settings) in scenarios() {
        let config = config(workload, &settings);
        let ((a, hash_a), (b, hash_b)) = (run(workload, &config), run(workload, &config));
        assert_eq!((hash_a, a.ops, a.elapsed_ns), (hash_b, b.ops, b.elapsed_ns), "{workload}");
        assert_eq!((a.gauges, a.intervals), (b.gauges, b.intervals), "{workload}");
    }
}

#[test]
fn an_aggressor_flat_out_writes_beside_its_neighbours() {
    let none = [("workload.aggressor_share_count", "0"), ("op_count", "600")];
    let (alone, _) = run("alone", &config("noisy-neighbour", &none));
    let flat = [("workload.aggressor_client_count", "4"), ("op_count", "3000")];
    let (noisy, _) = run("noisy", &config("noisy-neighbour", &flat));
    let busiest = noisy.tenants.iter().max_by_key(|tally| tally.ops).unwrap();
    assert_eq!(alone.tenants[busiest.tenant].ops, 0);
    let others = noisy.ops - busiest.ops;
    assert!(busiest.ops > others, "{} beside {others}", busiest.ops);
    // Its neighbours arrive as they do without it: at the rate offered.
    let arrived = noisy.tenants.iter().map(|tally| tally.issued).sum::<u64>() - busiest.issued;
    let expected = (1500 * noisy.elapsed_ns).div_euclid(1_000_000_000);
    assert!(arrived.abs_diff(expected) * 4 < expected + 80, "{arrived} of {expected}");
}

#[test]
fn a_run_may_end_by_time_and_begin_to_be_measured_by_time() {
    let timed =
        [("op_count", "0"), ("duration_ns", "2000000000"), ("warmup_duration_ns", "500000000")];
    let (timed, _) = run("timed", &config("steady-zipf", &timed));
    assert!(timed.elapsed_ns.abs_diff(1_500_000_000) < 200_000_000, "{}", timed.elapsed_ns);
}
