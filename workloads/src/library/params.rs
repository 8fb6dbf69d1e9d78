//! Parameters that several scenarios share, and their values in one workload.

use std::collections::BTreeMap;

use super::{Asks, Mix, ParamInfo, Picker, Setup, Shape, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::rng::{Rng, floor_u64, to_f64, to_u32};
use crate::script::Script;
use crate::spec::WorkloadSpec;
use crate::stream;
use crate::tenants::{TenantProfile, classify, zipf_weights};

pub(super) const KEY_BYTES: ParamInfo = ParamInfo {
    name: "key_bytes",
    unit: Unit::Bytes,
    min: 1.0,
    max: 1_024.0,
    default: 16.0,
    about: "bytes of a key; more where the keys would not be distinct",
};

pub(super) const VALUE_BYTES: ParamInfo = ParamInfo {
    name: "value_bytes",
    unit: Unit::Bytes,
    min: 1.0,
    max: 1_048_576.0,
    default: 100.0,
    about: "bytes of a value",
};

pub(super) const WRITE_RATIO: ParamInfo = ParamInfo {
    name: "write_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.5,
    about: "share of writes among the operations",
};

pub(super) const KEY_ALPHA: ParamInfo = ParamInfo {
    name: "key_alpha",
    unit: Unit::Ratio,
    min: 0.0,
    max: 3.0,
    default: 0.99,
    about: "Zipf exponent of a tenant's keys; 0 is uniform",
};

pub(super) const DATA_SHARE_RATIO: ParamInfo = ParamInfo {
    name: "data_share_ratio",
    unit: Unit::Ratio,
    min: 0.001,
    max: 1_000.0,
    default: 4.0,
    about: "data of a tenant over budget_bytes / tenant_count; at least 16 keys",
};

pub(super) const DELETE_RATIO: ParamInfo = ParamInfo {
    name: "delete_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "share of deletes among the writes",
};

pub(super) const SCAN_RATIO: ParamInfo = ParamInfo {
    name: "scan_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.0,
    about: "share of scans among the reads",
};

pub(super) const SCAN_LIMIT_COUNT: ParamInfo = ParamInfo {
    name: "scan_limit_count",
    unit: Unit::Count,
    min: 1.0,
    max: 1_000_000.0,
    default: 100.0,
    about: "entries that a scan reads at most",
};

pub(super) const INSERT_ROOM_RATIO: ParamInfo = ParamInfo {
    name: "insert_room_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1_000.0,
    default: 1.0,
    about: "keys that inserts may add over those loaded; then the oldest are written again",
};

/// Keys of a tenant at least, however small its share.
const KEY_COUNT_MIN: u64 = 16;

/// Every parameter of one scenario with its value.
#[derive(Debug)]
pub(crate) struct Params {
    values: BTreeMap<&'static str, f64>,
}

impl Params {
    /// The defaults, replaced by what is given. What is given was checked before.
    pub(super) fn new(info: &WorkloadInfo, given: &BTreeMap<String, f64>) -> Self {
        let value = |p: &ParamInfo| (p.name, given.get(p.name).copied().unwrap_or(p.default));
        Self { values: info.params.iter().map(value).collect() }
    }

    /// The value of a parameter; its default where the scenario does not list it.
    pub(super) fn get(&self, param: &ParamInfo) -> f64 {
        self.values.get(param.name).copied().unwrap_or(param.default)
    }

    /// The value of a whole parameter.
    pub(super) fn count(&self, param: &ParamInfo) -> u32 {
        to_u32(floor_u64(self.get(param)))
    }

    pub(super) fn mix(&self) -> Mix {
        Mix {
            delete_ratio: self.get(&DELETE_RATIO),
            scan_ratio: self.get(&SCAN_RATIO),
            scan_limit: self.count(&SCAN_LIMIT_COUNT),
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape_with((&KEY_BYTES, &VALUE_BYTES), self.get(&WRITE_RATIO))
    }

    /// The shape of tenants whose sizes these parameters give and who write this share.
    pub(super) fn shape_with(
        &self,
        (key, value): (&ParamInfo, &ParamInfo),
        write_fraction: f64,
    ) -> Shape {
        Shape {
            key_bytes: self.count(key),
            value_bytes: self.count(value),
            write_fraction,
            alpha: self.get(&KEY_ALPHA),
            data_share: self.get(&DATA_SHARE_RATIO),
            key_count_min: KEY_COUNT_MIN,
        }
    }
}

/// Tenants that follow a script: alike in all but rate, which is Zipf with this exponent.
pub(super) fn scripted(
    spec: &WorkloadSpec,
    tenant_alpha: f64,
    shape: Shape,
    script: Script,
) -> Result<Setup, SpecError> {
    let seed = Rng::new(spec.seed, "tenant order").next_u64();
    let weights = zipf_weights(spec.tenant_count, tenant_alpha, seed);
    let mut tenants: Vec<TenantProfile> = (0..)
        .zip(weights)
        .map(|(number, (rank, weight))| shape.tenant(spec, number, &format!("rank{rank}"), weight))
        .collect();
    for tenant in &mut tenants {
        tenant.loaded_count = floor_u64(to_f64(tenant.key_count) * script.loaded_ratio + 0.5);
    }
    classify(&mut tenants, |_, tenant| tenant.write_bytes());
    let picker = Picker::weighted(&tenants)?;
    let order_seed = script.inserts().then(|| stream::order_seed(spec));
    Ok(Setup { order_seed, ..Setup::of(tenants, picker, Asks::Script(script)) })
}
