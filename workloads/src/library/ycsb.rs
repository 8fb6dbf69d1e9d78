//! The six core workloads of YCSB, by each of many tenants over keys of its own.
//!
//! A: half reads, half updates. B: 95 % reads, 5 % updates. C: reads. D: 95 % reads of the latest
//! keys, 5 % inserts. E: 95 % scans of up to 100 entries, 5 % inserts. F: half reads, half
//! read-modify-writes. Keys by Zipf 0.99 over ten thousand million ranks that are hashed to keys
//! (D: ranks from the newest key back), or by a hotspot: 80 % of operations to 20 % of keys.
//! Values are 10 fields of 100 bytes; keys are `user` and a hashed number, about 23 bytes.
//!
//! Departures: an update writes all fields, as the stores with plain keys and values do
//! (`writeallfields`); an insert once the room for new keys is taken writes the oldest key again,
//! so that a run may be as long as it likes; which tenant asks is drawn by Zipf.
//!
//! # Source
//!
//! Cooper, Silberstein, Tam, Ramakrishnan, Sears, "Benchmarking Cloud Serving Systems with YCSB",
//! `SoCC` 2010; `workloads/workloada` to `workloadf`, `CoreWorkload`, `ScrambledZipfianGenerator`
//! (10^10 items, zeta 26.46902820178302), `SkewedLatestGenerator` and `HotspotIntegerGenerator` of
//! brianfrankcooper/YCSB.

use super::params::{
    DATA_SHARE_RATIO, INSERT_ROOM_RATIO, KEY_ALPHA, KEY_BYTES, Params, VALUE_BYTES, scripted,
};
use super::steady_zipf::TENANT_ALPHA;
use super::{ParamInfo, Setup, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::script::{KeyRule, Length, Script, Verb, YCSB_ITEMS};
use crate::spec::WorkloadSpec;
use crate::zipf::Zipf;

const SOURCE: &str = "YCSB core workloads: Cooper et al., SoCC 2010; brianfrankcooper/YCSB";

const USER_KEY_BYTES: ParamInfo = ParamInfo { default: 23.0, ..KEY_BYTES };

const FIELDS_BYTES: ParamInfo = ParamInfo {
    default: 1_000.0,
    about: "bytes of a value: 10 fields of 100 bytes in the source",
    ..VALUE_BYTES
};

const HOT_OPS_RATIO: ParamInfo = ParamInfo {
    name: "hot_ops_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "share of operations for hot keys, by hotspot in place of Zipf (source: 0.8); 0 = Zipf",
};

const HOT_KEYS_RATIO: ParamInfo = ParamInfo {
    name: "hot_keys_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.2,
    about: "share of keys that are hot, where hot_ops_ratio is above 0",
};

const SCAN_MAX_COUNT: ParamInfo = ParamInfo {
    name: "scan_max_count",
    unit: Unit::Count,
    min: 1.0,
    max: 1_000_000.0,
    default: 100.0,
    about: "entries that the longest scan reads; each length from 1 on is equally likely",
};

const PARAMS: &[ParamInfo] = &[
    TENANT_ALPHA,
    USER_KEY_BYTES,
    FIELDS_BYTES,
    KEY_ALPHA,
    DATA_SHARE_RATIO,
    HOT_OPS_RATIO,
    HOT_KEYS_RATIO,
];

const fn info(name: &'static str, about: &'static str) -> WorkloadInfo {
    WorkloadInfo { name, source: SOURCE, about, params: PARAMS }
}

pub(super) const A: WorkloadInfo = info("ycsb-a", "half reads, half updates, keys by Zipf");
pub(super) const B: WorkloadInfo = info("ycsb-b", "95 % reads, 5 % updates, keys by Zipf");
pub(super) const C: WorkloadInfo = info("ycsb-c", "reads alone, keys by Zipf");
pub(super) const F: WorkloadInfo = info("ycsb-f", "half reads, half read-modify-writes");

pub(super) const D: WorkloadInfo = WorkloadInfo {
    params: &[
        TENANT_ALPHA,
        USER_KEY_BYTES,
        FIELDS_BYTES,
        KEY_ALPHA,
        DATA_SHARE_RATIO,
        INSERT_ROOM_RATIO,
    ],
    ..info("ycsb-d", "95 % reads of the latest keys, 5 % inserts")
};

pub(super) const E: WorkloadInfo = WorkloadInfo {
    params: &[
        TENANT_ALPHA,
        USER_KEY_BYTES,
        FIELDS_BYTES,
        KEY_ALPHA,
        DATA_SHARE_RATIO,
        INSERT_ROOM_RATIO,
        SCAN_MAX_COUNT,
    ],
    ..info("ycsb-e", "95 % scans of 1 to 100 entries, 5 % inserts")
};

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Result<Setup, SpecError> {
    let half = |verb| vec![(0.5, Verb::Get), (0.5, verb)];
    let inserting = |verb| vec![(0.95, verb), (0.05, Verb::Insert)];
    let zipf = Zipf::new(YCSB_ITEMS, params.get(&KEY_ALPHA));
    let mut keys = KeyRule::Scrambled(zipf);
    if params.get(&HOT_OPS_RATIO) > 0.0 {
        let (keys_ratio, ops) = (params.get(&HOT_KEYS_RATIO), params.get(&HOT_OPS_RATIO));
        keys = KeyRule::Hotspot { keys: keys_ratio, ops };
    }
    let verbs = match spec.name.as_str() {
        "ycsb-a" => half(Verb::Put),
        "ycsb-b" => vec![(0.95, Verb::Get), (0.05, Verb::Put)],
        "ycsb-d" => {
            keys = KeyRule::Latest(zipf);
            inserting(Verb::Get)
        }
        "ycsb-e" => inserting(Verb::Scan),
        "ycsb-f" => half(Verb::ReadModifyWrite),
        _ => vec![(1.0, Verb::Get)],
    };
    let mut script = Script {
        verbs,
        keys,
        length: Length::UpTo(params.count(&SCAN_MAX_COUNT)),
        reverse_ratio: 0.0,
        loaded_ratio: 1.0,
    };
    if script.inserts() {
        script.loaded_ratio = 1.0 / (1.0 + params.get(&INSERT_ROOM_RATIO));
    }
    let shape = params.shape_with((&USER_KEY_BYTES, &FIELDS_BYTES), script.write_fraction());
    scripted(spec, params.get(&TENANT_ALPHA), shape, script)
}
