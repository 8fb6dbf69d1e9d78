#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "a test reads the repository's own files")]
//! Strategy: the fork storm, made small, with every answer compared with the reference model.
//!
//! Invariants: forks come at their times and are all durable before the end but for the last; a
//! shared memtable costs flushes and no copied byte, a copied one bytes; forks of forks and drops
//! leave every branch with what the model says; one seed is one run.

use std::path::Path;

use forebay::experiment::{Experiment, ExperimentFile, Overrides};
use forebay::outcome::Task;
use forebay::record::{Outcome, RunRow, World};

fn run(settings: &[(&str, &str)], seed: u64) -> Vec<RunRow> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/fork-storm.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let file = ExperimentFile::parse("fork-storm.toml", &text).unwrap();
    let small = [
        ("tenant_count", "8"),
        ("budget_bytes", "512KiB"),
        ("flush_policy", "oldest-write"),
        ("warmup_duration_ns", "20000000"),
        ("duration_ns", "120000000"),
        ("fork_live_max", "20"),
        ("check", "1"),
    ];
    let settings = small.iter().chain(settings);
    let settings = settings.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let overrides = Overrides { settings, ..Overrides::default() };
    let experiment = Experiment::resolve("fork-storm", &file, &overrides).unwrap();
    let run = |arm| {
        let output = Task::new(&experiment, arm, (seed, World::Sim), "forebay run").run();
        assert_eq!(output.row.outcome, Outcome::Pass, "{}: {:?}", output.row.arm, output.failure);
        output.row
    };
    experiment.arms.iter().map(run).collect()
}

fn find<'a>(rows: &'a [RunRow], arm: &str) -> &'a RunRow {
    rows.iter().find(|row| row.arm.ends_with(arm)).unwrap()
}

#[test]
fn forks_come_at_their_times_and_cost_flushes_or_copies() {
    let rows = run(&[], 0);
    let still = find(&rows, "still");
    assert_eq!(still.forks, None);
    for row in rows.iter().filter(|row| row.arm != still.arm) {
        let forks = row.forks.unwrap();
        assert!(forks.asked.abs_diff(100) <= 1, "{}: {forks:?}", row.arm);
        assert!(forks.done + 1 >= forks.asked && forks.lost == 0, "{}: {forks:?}", row.arm);
        assert!(forks.put_count > 0 && forks.dropped > 50, "{}: {forks:?}", row.arm);
        assert!(forks.latency_ns.p50 > 0 && forks.drop_ns.p50 > 0, "{forks:?}");
        assert!(row.checked_reads > still.checked_reads + 500, "{}", row.arm);
    }
    let of = |arm: &str| find(&rows, arm);
    assert_eq!(of("any-share").forks.unwrap().copied_bytes, 0);
    assert!(of("any-copy").forks.unwrap().copied_bytes > 10_000);
    let flushes = |arm: &str| of(arm).flush_count;
    assert!(flushes("any-share") > 2 * flushes("any-copy").max(still.flush_count));
    assert!(of("any-share").table_bytes.p50 < still.table_bytes.p50);
}

#[test]
fn forks_of_forks_hold_what_the_model_says_and_a_seed_is_one_run() {
    let deep = [("fork_depth", "10"), ("fork_write_percent", "80"), ("fork_parents", "hot")];
    for seed in 0..2 {
        let rows = run(&deep, seed);
        let again = run(&deep, seed);
        assert_eq!(rows, again);
        assert!(rows.iter().skip(1).all(|row| row.forks.is_some_and(|forks| forks.done > 90)));
    }
}
