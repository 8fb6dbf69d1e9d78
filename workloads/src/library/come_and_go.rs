//! Residents as in steady-zipf, and visitors: tenants that are created, write, and are dropped.
//!
//! Visitors are no part of the stream. Each comes at its time, whatever became of those before it,
//! writes its bytes at once, and goes when its stay is over.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::steady_zipf::TENANT_ALPHA;
use super::{ParamInfo, Setup, Unit, WorkloadInfo, even_share_bytes, steady_zipf};
use crate::churn::Churn;
use crate::error::SpecError;
use crate::rng::floor_u64;
use crate::spec::WorkloadSpec;

const CHURN_PER_MINUTE: ParamInfo = ParamInfo {
    name: "churn_per_minute",
    unit: Unit::Count,
    min: 0.0,
    max: 1_000_000.0,
    default: 1_000.0,
    about: "visitors that come, and visitors that go, in a minute",
};

const VISITOR_COUNT: ParamInfo = ParamInfo {
    name: "visitor_count",
    unit: Unit::Count,
    min: 1.0,
    max: 100_000.0,
    default: 50.0,
    about: "visitors that are there at a time: sets how long one stays",
};

const VISIT_SHARE_RATIO: ParamInfo = ParamInfo {
    name: "visit_share_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1_000.0,
    default: 1.0,
    about: "bytes that a visitor writes over budget_bytes / tenant_count; at least one key",
};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "come-and-go",
    source: "-",
    about: "rates by Zipf as in steady-zipf, while visitors are created, write and are dropped",
    params: &[
        CHURN_PER_MINUTE,
        VISITOR_COUNT,
        VISIT_SHARE_RATIO,
        TENANT_ALPHA,
        KEY_BYTES,
        VALUE_BYTES,
        WRITE_RATIO,
        KEY_ALPHA,
        DATA_SHARE_RATIO,
        DELETE_RATIO,
        SCAN_RATIO,
        SCAN_LIMIT_COUNT,
    ],
};

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Result<Setup, SpecError> {
    let shape = params.shape();
    let entry_bytes = f64::from(shape.key_bytes) + f64::from(shape.value_bytes);
    let bytes = params.get(&VISIT_SHARE_RATIO) * even_share_bytes(spec);
    let churn = Churn::new(
        (params.count(&CHURN_PER_MINUTE), params.count(&VISITOR_COUNT)),
        floor_u64(bytes / entry_bytes),
        (shape.key_bytes, shape.value_bytes),
    );
    Ok(Setup { churn, ..steady_zipf::build(spec, params)? })
}
