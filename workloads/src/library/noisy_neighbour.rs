//! One tenant asks c times as often as each of the others, who all ask alike.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::{ParamInfo, Picker, Setup, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::rng::Rng;
use crate::spec::WorkloadSpec;
use crate::tenants::{TenantProfile, classify};

const AGGRESSOR_COUNT: ParamInfo = ParamInfo {
    name: "aggressor_share_count",
    unit: Unit::Count,
    min: 1.0,
    max: 1_000_000.0,
    default: 10.0,
    about: "c: operations of the aggressor for each operation of one neighbour",
};

const AGGRESSOR_WRITE_RATIO: ParamInfo = ParamInfo {
    name: "aggressor_write_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 1.0,
    about: "share of writes among the aggressor's operations",
};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "noisy-neighbour",
    source: "-",
    about: "one aggressor, at a place that is drawn, at c times the rate of each of its neighbours",
    params: &[
        AGGRESSOR_COUNT,
        AGGRESSOR_WRITE_RATIO,
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
    let place = Rng::new(spec.seed, "aggressor").below(u64::from(spec.tenant_count));
    let neighbour = params.shape();
    let mut aggressor = neighbour;
    aggressor.write_fraction = params.get(&AGGRESSOR_WRITE_RATIO);
    let weight = u64::from(params.count(&AGGRESSOR_COUNT));
    let tenant = |number: u32| {
        if u64::from(number) == place {
            aggressor.tenant(spec, number, "aggressor", weight)
        } else {
            neighbour.tenant(spec, number, "neighbour", 1)
        }
    };
    let mut tenants: Vec<TenantProfile> = (0..spec.tenant_count).map(tenant).collect();
    classify(&mut tenants, |_, tenant| tenant.write_bytes());
    let picker = Picker::weighted(&tenants)?;
    Ok(Setup { tenants, picker, mix: params.mix() })
}
