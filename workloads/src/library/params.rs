//! Parameters that several scenarios share, and their values in one workload.

use std::collections::BTreeMap;

use super::{Mix, ParamInfo, Shape, Unit, WorkloadInfo};
use crate::rng::{floor_u64, to_u32};

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
        Shape {
            key_bytes: self.count(&KEY_BYTES),
            value_bytes: self.count(&VALUE_BYTES),
            write_fraction: self.get(&WRITE_RATIO),
            alpha: self.get(&KEY_ALPHA),
            data_share: self.get(&DATA_SHARE_RATIO),
            key_count_min: KEY_COUNT_MIN,
        }
    }
}
