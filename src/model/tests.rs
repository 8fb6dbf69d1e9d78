//! The model against theory, and against itself.
//!
//! Strategy: tenants at steady Zipf rates, no cap, flushes that take no time, memory that is short
//! at the whole budget: the machine of which the stationary theory speaks. With `p_i` a tenant's
//! share of the writes and `M` the budget, memtables are half as large on average as at their flush.
//! Flushing the oldest first, all tenants are flushed in turn and `m_i = 2 M p_i`; flushing the
//! largest, all are flushed at `m_i = 2 M / n`; both flush `n R / (2 M)` times a second, and the
//! largest costs `T / (2 ln T) x KL(p || uniform)` more merged bytes for each byte.
//!
//! That is the limit of many tenants. With few, memory is below the budget after a large flush. When
//! the oldest is flushed, the time since the flush before is as long as the tree of that one took to
//! fill, so that trees i hold together `R tau (1 + sum p_i^2) / 2`, with `tau` the length of a round:
//! `m_i = 2 M p_i / (1 + sum p_i^2)`. When the largest is, it is at `m` and the others at `m / 2`
//! in the mean: `m = 2 M / (n + 1)`. The tests compare with these.

use forebay_engine::types::to_u64;
use forebay_workloads::Workload;

use super::*;
use crate::number::to_f64;

const TENANTS: u64 = 60;
/// Charge of a put of 16 + 100 bytes.
const CHARGE: u64 = 228;
/// Memory is short at the whole budget.
const AT_THE_BUDGET: (&str, &str) = ("flush.trigger_ratio", "1");

fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    let budget = (TENANTS * 100 * CHARGE).to_string();
    for (key, value) in [
        ("workload", "steady-zipf"),
        ("workload.write_ratio", "1"),
        ("workload.data_share_ratio", "1000"),
        ("tenant_count", "60"),
        ("budget_bytes", budget.as_str()),
        ("memtable_bytes_max", "64MiB"),
        ("offered_ops_per_s", "10000"),
        ("device", "none"),
        ("stall_policy", "none"),
        ("wal_bytes_max", "1099511627776"),
        ("fill_count", "30"),
        ("warmup_fill_count", "20"),
    ]
    .into_iter()
    .chain(settings.iter().copied())
    {
        config.set(key, value).unwrap();
    }
    config.validate().unwrap();
    config
}

fn uncapped(config: &Config) -> Modelled {
    let arrivals = Arrivals::new(config, 7, 1).unwrap();
    let mut memory = Memory::new(&config.options, &arrivals.trees, 7).unwrap();
    memory.without_caps();
    Model::new(config, arrivals, memory).run().unwrap()
}

/// Shares of the writes, the largest first.
fn shares(config: &Config) -> Vec<f64> {
    let workload = Workload::new(config.workload_spec(7)).unwrap();
    let mut weights: Vec<u64> = workload.tenants().iter().map(|t| t.weight).collect();
    weights.sort_unstable_by(|a, b| b.cmp(a));
    let sum: u64 = weights.iter().sum();
    weights.iter().map(|w| to_f64(*w) / to_f64(sum)).collect()
}

fn is_near(what: &str, got: f64, expected: f64, percent: f64) {
    let off = (got / expected - 1.0) * 100.0;
    assert!(off.abs() <= percent, "{what}: {got} for {expected}, {off:.1} % off");
}

fn mean(numbers: &[u64]) -> f64 {
    to_f64(numbers.iter().sum()) / to_f64(to_u64(numbers.len()))
}

#[test]
fn oldest_and_largest_first_flush_as_the_theory_says() {
    let oldest_config = config(&[AT_THE_BUDGET, ("flush_policy", "oldest-write")]);
    let p = shares(&oldest_config);
    let budget = to_f64(oldest_config.options.budget_bytes);
    let n = to_f64(TENANTS);
    let oldest = uncapped(&oldest_config).tally;
    let written = to_f64(oldest.step_count * CHARGE);
    let twice = 2.0 * budget / (1.0 + p.iter().map(|p| p * p).sum::<f64>());
    is_near("oldest: flushes", to_f64(oldest.flush_count), n * written / twice, 3.0);
    is_near("oldest: mean size", mean(&oldest.memtable_bytes), twice / n, 3.0);
    // Tenants are flushed equally often, so that the largest n-th of all sizes is the busiest's.
    let per_tenant = oldest.memtable_bytes.len().div_euclid(p.len());
    let hottest = &oldest.memtable_bytes[oldest.memtable_bytes.len() - per_tenant..];
    is_near("oldest: the busiest tenant's size", mean(hottest), twice * p[0], 3.0);
    let coldest = &oldest.memtable_bytes[..per_tenant * 30];
    let cold_share = p[30..].iter().sum::<f64>() / 30.0;
    is_near("oldest: the colder half's size", mean(coldest), twice * cold_share, 4.0);

    let largest = uncapped(&config(&[AT_THE_BUDGET, ("flush_policy", "largest")])).tally;
    let size_of_all = 2.0 * budget / (n + 1.0);
    // A little less often: what a round brings takes busy trees beyond the size of the others.
    is_near("largest: flushes", to_f64(largest.flush_count), written / size_of_all, 5.5);
    for percent in [5, 50] {
        let sizes = &largest.memtable_bytes;
        let size = sizes[(sizes.len() * percent).div_euclid(100)];
        is_near("largest: sizes", to_f64(size), size_of_all, 8.0);
    }
    // In the limit this is `T / (2 ln T) x KL(p || uniform)`.
    let logs: f64 = p.iter().map(|p| p * libm::log(twice * p / size_of_all)).sum();
    let above = largest.merge_cost() - oldest.merge_cost();
    is_near("merge cost of largest over oldest", above, 10.0 / (2.0 * libm::log(10.0)) * logs, 5.0);
}

#[test]
fn without_skew_oldest_and_largest_are_the_same() {
    let of = |policy: &str| {
        let settings = [
            AT_THE_BUDGET,
            ("flush_policy", policy),
            ("workload.tenant_alpha", "0"),
            ("fill_count", "8"),
            ("warmup_fill_count", "2"),
        ];
        uncapped(&config(&settings)).tally
    };
    let (oldest, largest) = (of("oldest-write"), of("largest"));
    is_near("flushes", to_f64(oldest.flush_count), to_f64(largest.flush_count), 4.0);
    assert!((oldest.merge_cost() - largest.merge_cost()).abs() < 0.1);
}

#[test]
fn a_step_of_many_writes_comes_to_what_single_writes_do() {
    let config = config(&[("offered_ops_per_s", "100000")]);
    let single = run(&config, 3, 1).unwrap();
    let coarse = run(&config, 3, 500).unwrap();
    assert_eq!((single.writes_per_step, coarse.writes_per_step), (1, 4));
    assert_eq!(single.bytes_per_s, coarse.bytes_per_s);
    let (a, b) = (&single.tally, &coarse.tally);
    is_near("time", to_f64(b.elapsed_ns), to_f64(a.elapsed_ns), 2.0);
    is_near("flushes", to_f64(b.flush_count), to_f64(a.flush_count), 5.0);
    is_near("merge cost", b.merge_cost(), a.merge_cost(), 2.0);
}

#[test]
fn every_policy_keeps_the_budget_and_gives_the_same_numbers_again() {
    for info in forebay_engine::policy::flush::list().filter(|p| p.known_defects.is_empty()) {
        for settings in [
            &[("packed_flush", "false")][..],
            &[("packed_flush", "true")],
            &[("layout", "grouped-7"), ("memtable_stop_count", "2")],
            &[("layout", "shared")],
        ] {
            let mut config = config(settings);
            for (key, value) in [
                ("budget_bytes", "512KiB"),
                ("block_bytes", "1024"),
                ("flush_policy", info.name),
                ("stall_policy", "hard"),
                ("device", "nvme"),
                ("device_scale", "1500"),
                ("memtable_bytes_max", "32KiB"),
                ("wal_bytes_max", "0"),
                ("wal_segment_bytes", "64KiB"),
                ("fill_count", "3"),
                ("warmup_fill_count", "1"),
            ] {
                config.set(key, value).unwrap();
            }
            config.validate().unwrap();
            let first = run(&config, 5, 1).unwrap();
            assert_eq!(first, run(&config, 5, 1).unwrap(), "{}", info.name);
            assert_ne!(first.tally, run(&config, 6, 1).unwrap().tally, "{}", info.name);
            let tally = &first.tally;
            assert!(tally.flush_count > 0, "{}", info.name);
            assert!(tally.used_bytes_max <= config.options.budget_bytes, "{}", info.name);
            assert_eq!(tally.over_byte_ns, 0, "{}", info.name);
        }
    }
}

#[test]
fn nothing_that_is_written_is_lost() {
    // Without warm-up all that was admitted is in a table or still in a memtable.
    let config = config(&[("warmup_fill_count", "0"), ("fill_count", "3"), ("device", "nvme")]);
    let tally = run(&config, 1, 1).unwrap().tally;
    let flushed: u64 = tally.table_bytes.iter().sum();
    assert_eq!(tally.user_bytes, tally.step_count * 116);
    let left = tally.user_bytes - flushed;
    assert!(left * CHARGE * 100 <= config.options.budget_bytes * 116 * 102, "{left}");
    assert!(flushed > config.options.budget_bytes);
}

#[test]
fn a_slow_device_makes_writers_wait_and_a_budget_for_one_write_wedges() {
    let slow = [
        ("stall_policy", "hard"),
        ("device", "nvme"),
        ("device.write_bytes_per_s", "500000"),
        ("fill_count", "13"),
        ("warmup_fill_count", "1"),
    ];
    let modelled = run(&config(&slow), 1, 1).unwrap();
    let tally = &modelled.tally;
    assert!(tally.stall_ns[StallCause::Budget.index()] > 0, "{tally:?}");
    assert!(tally.stall_ns_max > 0 && tally.stall_count[StallCause::Budget.index()] > 0);
    // What a device of half the rate admits is half of what arrives.
    let admitted = to_f64(tally.user_bytes) / to_f64(tally.elapsed_ns) * 1e9;
    is_near("admitted", admitted, 500_000.0, 3.0);

    let tiny = [
        ("stall_policy", "hard"),
        ("budget_bytes", "16KiB"),
        ("memtable_bytes_max", "2KiB"),
        ("block_bytes", "256"),
        ("workload.value_bytes", "20000"),
    ];
    let error = run(&config(&tiny), 1, 1).unwrap_err();
    assert!(matches!(error, ModelError::Wedged(_)), "{error}");
}

#[test]
fn what_is_not_modelled_is_refused_by_its_key() {
    for (key, value) in
        [("relog", "true"), ("memtable_history_bytes", "1"), ("offered_ops_per_s", "0")]
    {
        let error = run(&config(&[(key, value)]), 1, 0).unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
    let error = run(&config(&[("workload.write_ratio", "0")]), 1, 0).unwrap_err().to_string();
    assert!(error.contains("share of writes"), "{error}");
}
