//! One tenant asks c times as often as each of the others, who all ask alike; or flat out.
//!
//! Flat out means in a closed loop of its own beside the arrivals of its neighbours: a rate that is
//! set cannot tell how much an aggressor takes that takes what it gets. With neither share nor
//! clients it is silent: what its neighbours see then is what they see alone.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::{ParamInfo, Picker, Setup, Unit, WorkloadInfo};
use crate::error::SpecError;
use crate::rng::{Rng, to_u32, to_usize};
use crate::spec::{FlatOut, WorkloadSpec};
use crate::tenants::{Class, TenantProfile, classify};

const AGGRESSOR_COUNT: ParamInfo = ParamInfo {
    name: "aggressor_share_count",
    unit: Unit::Count,
    min: 0.0,
    max: 1_000_000.0,
    default: 10.0,
    about: "c: operations of the aggressor for each operation of one neighbour; 0 = silent",
};

const AGGRESSOR_CLIENT_COUNT: ParamInfo = ParamInfo {
    name: "aggressor_client_count",
    unit: Unit::Count,
    min: 0.0,
    max: 1_024.0,
    default: 0.0,
    about: "clients of the aggressor, flat out beside the arrivals of others; 0 = asks c times",
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
        AGGRESSOR_CLIENT_COUNT,
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
    let client_count = params.count(&AGGRESSOR_CLIENT_COUNT);
    let share = if client_count > 0 { 0 } else { params.count(&AGGRESSOR_COUNT) };
    // Somebody must ask.
    let weight = u64::from(if spec.tenant_count == 1 { share.max(1) } else { share });
    let tenant = |number: u32| {
        if u64::from(number) == place {
            aggressor.tenant(spec, number, "aggressor", weight)
        } else {
            neighbour.tenant(spec, number, "neighbour", 1)
        }
    };
    let mut tenants: Vec<TenantProfile> = (0..spec.tenant_count).map(tenant).collect();
    classify(&mut tenants, |_, tenant| tenant.write_bytes());
    let flat_out = (client_count > 0).then(|| FlatOut { tenant: to_u32(place), client_count });
    if let Some(tenant) = flat_out.and_then(|f| tenants.get_mut(to_usize(u64::from(f.tenant)))) {
        tenant.class = Class::Hot;
    }
    let picker = Picker::weighted(&tenants)?;
    Ok(Setup { flat_out, ..Setup::new(tenants, picker, params.mix()) })
}
