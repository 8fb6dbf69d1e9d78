//! Tenants alike in all but rate: the k-th busiest asks k^-`tenant_alpha` times as often as the
//! first. Some of the last ranks may be cold: they ask far more seldom than their rank says.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::{ParamInfo, Picker, Setup, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::rng::{Rng, floor_u64, to_f64};
use crate::spec::WorkloadSpec;
use crate::tenants::{TenantProfile, classify, zipf_weights};

pub(super) const TENANT_ALPHA: ParamInfo = ParamInfo {
    name: "tenant_alpha",
    unit: Unit::Ratio,
    min: 0.0,
    max: 3.0,
    default: 0.99,
    about: "Zipf exponent of the tenants' rates; 0 is uniform",
};

const COLD_COUNT: ParamInfo = ParamInfo {
    name: "cold_count",
    unit: Unit::Count,
    min: 0.0,
    max: 1_000_000.0,
    default: 0.0,
    about: "tenants of the last ranks that ask cold_ratio times as often as their rank says",
};

const COLD_RATIO: ParamInfo = ParamInfo {
    name: "cold_ratio",
    unit: Unit::Ratio,
    min: 0.000_001,
    max: 1.0,
    default: 0.01,
    about: "operations of a cold tenant over those of a tenant of its rank that is not cold",
};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "steady-zipf",
    source: "skew of YCSB: Cooper et al., SoCC 2010",
    about: "tenant rates by Zipf, the same for ever; which tenant has which rank is drawn",
    params: &[
        TENANT_ALPHA,
        COLD_COUNT,
        COLD_RATIO,
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
    let seed = Rng::new(spec.seed, "tenant order").next_u64();
    let mut weights = zipf_weights(spec.tenant_count, params.get(&TENANT_ALPHA), seed);
    let warm = u64::from(spec.tenant_count.saturating_sub(params.count(&COLD_COUNT)));
    for (_, weight) in weights.iter_mut().filter(|(rank, _)| *rank > warm) {
        *weight = floor_u64(to_f64(*weight) * params.get(&COLD_RATIO)).max(1);
    }
    let shape = params.shape();
    let mut tenants: Vec<TenantProfile> = (0..)
        .zip(weights)
        .map(|(number, (rank, weight))| shape.tenant(spec, number, &format!("rank{rank}"), weight))
        .collect();
    classify(&mut tenants, |_, tenant| tenant.write_bytes());
    let picker = Picker::weighted(&tenants)?;
    Ok(Setup::new(tenants, picker, params.mix()))
}
