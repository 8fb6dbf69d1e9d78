//! The social graph of Facebook as RocksDB's `db_bench` mixes it, by each of many tenants over keys
//! of its own.
//!
//! 85 % gets, 14 % puts, 1 % seeks. Keys of 48 bytes lie in 30 ranges whose heat is a two-term
//! exponential (the hottest takes 79 % of the accesses); within a range a power law says how hot a
//! key is. Sizes of values and lengths of scans are generalized Pareto. In an open loop the rate
//! goes up and down as a sine around the mean.
//!
//! Departures: a tenant's keys fill its share of the budget in place of 50 million; sizes, keys and
//! lengths are drawn independently, where `db_bench` takes one number for all three; the load's
//! values have the same distribution; which tenant asks is drawn by Zipf.
//!
//! # Source
//!
//! Cao, Dong, Vemuri, Du, "Characterizing, Modeling, and Benchmarking RocksDB Key-Value Workloads
//! at Facebook", FAST 2020; "RocksDB Trace, Replay, Analyzer, and Workload Generation" in the wiki
//! of facebook/rocksdb, which has the parameters of `db_bench`: `key_dist` 0.002312 and 0.3467,
//! `keyrange_dist` 14.18, -2.917, 0.0164, -0.08082, `keyrange_num` 30, `value_k` 0.2615,
//! `value_sigma` 25.45, `iter_k` 2.517, `iter_sigma` 14.236, sine a 350, b 0.0105, d 50000. From
//! its source: smallest value 10 bytes, largest 1 KiB, longest scan 10,000 entries.

use super::params::{DATA_SHARE_RATIO, KEY_BYTES, Params, scripted};
use super::steady_zipf::TENANT_ALPHA;
use super::{ParamInfo, Setup, Sine, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::pareto::Pareto;
use crate::ranges::{KeyRanges, RangeFit};
use crate::script::{KeyRule, Length, Script, ValueSizes, Verb};
use crate::spec::WorkloadSpec;

const GRAPH_KEY_BYTES: ParamInfo = ParamInfo { default: 48.0, ..KEY_BYTES };

const fn ratio(name: &'static str, default: f64, about: &'static str) -> ParamInfo {
    ParamInfo { name, unit: Unit::Ratio, min: 0.0, max: 1.0, default, about }
}

const fn real(name: &'static str, bounds: (f64, f64), default: f64) -> ParamInfo {
    let about = "as in db_bench: a parameter of a distribution";
    ParamInfo { name, unit: Unit::Ratio, min: bounds.0, max: bounds.1, default, about }
}

const PUT_RATIO: ParamInfo = ratio("mix_put_ratio", 0.14, "share of puts");
const SEEK_RATIO: ParamInfo = ratio("mix_seek_ratio", 0.01, "share of scans; the rest are gets");
const KEY_DIST_A: ParamInfo = real("key_dist_a", (0.000_001, 1.0), 0.002_312);
const KEY_DIST_B: ParamInfo = real("key_dist_b", (0.01, 10.0), 0.3467);
const RANGE_A: ParamInfo = real("keyrange_dist_a", (0.0, 1_000.0), 14.18);
const RANGE_B: ParamInfo = real("keyrange_dist_b", (-100.0, 0.0), -2.917);
const RANGE_C: ParamInfo = real("keyrange_dist_c", (0.000_001, 1_000.0), 0.0164);
const RANGE_D: ParamInfo = real("keyrange_dist_d", (-0.1, 0.0), -0.080_82);
const VALUE_K: ParamInfo = real("value_k", (0.0, 0.99), 0.2615);
const VALUE_SIGMA: ParamInfo = real("value_sigma", (0.001, 100_000.0), 25.45);
const ITER_K: ParamInfo = real("iter_k", (0.0, 10.0), 2.517);
const ITER_SIGMA: ParamInfo = real("iter_sigma", (0.001, 100_000.0), 14.236);

const RANGE_COUNT: ParamInfo = ParamInfo {
    name: "keyrange_count",
    unit: Unit::Count,
    min: 1.0,
    max: 100.0,
    default: 30.0,
    about: "ranges of keys with a heat of their own; fewer where a tenant has fewer keys",
};

const SINE_RATIO: ParamInfo =
    ratio("sine_ratio", 0.007, "highest rate above the mean over the mean: 350 / 50000; below 1");

const SINE_B: ParamInfo = ParamInfo {
    name: "sine_b",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1_000.0,
    default: 0.0105,
    about: "radians in a second of the rate's sine: 0.0105 is ten minutes for a wave",
};

/// Shortest and longest value in bytes.
const VALUE_BYTES: (u32, u32) = (10, 1_024);

/// Longest scan in entries.
const SCAN_MAX: u32 = 10_000;

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "mixgraph",
    source: "Cao et al., FAST 2020; mixgraph of db_bench (facebook/rocksdb)",
    about: "85 % gets, 14 % puts, 1 % scans; hot ranges of keys, Pareto values, a sine of rates",
    params: &[
        TENANT_ALPHA,
        GRAPH_KEY_BYTES,
        DATA_SHARE_RATIO,
        PUT_RATIO,
        SEEK_RATIO,
        KEY_DIST_A,
        KEY_DIST_B,
        RANGE_COUNT,
        RANGE_A,
        RANGE_B,
        RANGE_C,
        RANGE_D,
        VALUE_K,
        VALUE_SIGMA,
        ITER_K,
        ITER_SIGMA,
        SINE_RATIO,
        SINE_B,
    ],
};

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Result<Setup, SpecError> {
    let puts = params.get(&PUT_RATIO);
    let seeks = params.get(&SEEK_RATIO).min(1.0 - puts);
    let (k, sigma) = (params.get(&VALUE_K), params.get(&VALUE_SIGMA));
    let values = Pareto { k, sigma, min: VALUE_BYTES.0, max: VALUE_BYTES.1 };
    let (k, sigma) = (params.get(&ITER_K), params.get(&ITER_SIGMA));
    let fit = RangeFit {
        count: params.count(&RANGE_COUNT),
        two_terms: [&RANGE_A, &RANGE_B, &RANGE_C, &RANGE_D].map(|param| params.get(param)),
        power: (params.get(&KEY_DIST_A), params.get(&KEY_DIST_B)),
    };
    let script = Script {
        verbs: vec![(1.0 - puts - seeks, Verb::Get), (puts, Verb::Put), (seeks, Verb::Scan)],
        keys: KeyRule::Ranges(KeyRanges::new(fit)?),
        length: Length::Pareto(Pareto { k, sigma, min: 1, max: SCAN_MAX }),
        reverse_ratio: 0.0,
        loaded_ratio: 1.0,
    };
    let mut shape = params.shape_with((&GRAPH_KEY_BYTES, &KEY_BYTES), script.write_fraction());
    shape.value_bytes = values.mean_given();
    let sine =
        Sine { ratio: params.get(&SINE_RATIO).min(0.99), radians_per_s: params.get(&SINE_B) };
    let setup = scripted(spec, params.get(&TENANT_ALPHA), shape, script)?;
    Ok(Setup { sine: Some(sine), value_sizes: ValueSizes::Pareto(values), ..setup })
}
