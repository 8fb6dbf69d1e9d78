//! Calm most of the time; then the same tenants all write a lot at once, as batch jobs on the hour
//! do.
//!
//! A period is a calm stretch and a storm. In the calm every tenant asks alike. In the storm only
//! its members ask, all puts, until each has written its bytes on average. Both are counted in
//! operations: the closed loop has storms too. In an open loop operations arrive faster in the
//! storm, by a factor or so that a storm takes its time, and slower in the calm, so that the mean
//! rate stays the one asked for.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::{ParamInfo, Pick, Picker, Setup, Unit, WorkloadInfo, even_share_bytes};
use crate::arrival::Arrival;
use crate::permutation::Permutation;
use crate::rng::{Rng, floor_u64, to_f64, to_u32, to_u64, to_usize};
use crate::spec::WorkloadSpec;
use crate::tenants::{TenantProfile, classify};

const STORM_TENANTS_RATIO: ParamInfo = ParamInfo {
    name: "storm_tenants_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.1,
    about: "x: share of the tenants that take part in every storm; at least one tenant",
};

const STORM_SHARE_RATIO: ParamInfo = ParamInfo {
    name: "storm_share_ratio",
    unit: Unit::Ratio,
    min: 0.001,
    max: 1_000.0,
    default: 4.0,
    about: "bytes that a member writes in a storm over budget_bytes / tenant_count",
};

const STORM_BYTES: ParamInfo = ParamInfo {
    name: "storm_bytes",
    unit: Unit::Bytes,
    min: 0.0,
    max: 1_073_741_824.0,
    default: 0.0,
    about: "b: bytes that a member writes in a storm; 0 = by storm_share_ratio",
};

const STORM_MS: ParamInfo = ParamInfo {
    name: "storm_ms",
    unit: Unit::Millis,
    min: 0.0,
    max: 86_400_000.0,
    default: 0.0,
    about: "d, open loop: time of a storm, at most as at the mean rate; 0 = by storm_rate_ratio",
};

const STORM_OPS_RATIO: ParamInfo = ParamInfo {
    name: "storm_ops_ratio",
    unit: Unit::Ratio,
    min: 0.001,
    max: 0.999,
    default: 0.25,
    about: "share of all operations that falls into storms: sets the length of the calm",
};

const STORM_RATE_RATIO: ParamInfo = ParamInfo {
    name: "storm_rate_ratio",
    unit: Unit::Ratio,
    min: 1.0,
    max: 10_000.0,
    default: 10.0,
    about: "open loop: rate of arrivals in a storm over the rate in the calm",
};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "thundering-hour",
    source: "-",
    about: "calm, then a share of the tenants writes much at once, again and again",
    params: &[
        STORM_TENANTS_RATIO,
        STORM_SHARE_RATIO,
        STORM_BYTES,
        STORM_OPS_RATIO,
        STORM_RATE_RATIO,
        STORM_MS,
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

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Setup {
    let shape = params.shape();
    let tenant_count = u64::from(spec.tenant_count);
    let wanted = floor_u64(params.get(&STORM_TENANTS_RATIO) * to_f64(tenant_count) + 0.5);
    let member_count = wanted.clamp(1, tenant_count);
    let order = Permutation::new(tenant_count, Rng::new(spec.seed, "storm order").next_u64());
    let members: Vec<u32> = (0..member_count).map(|place| to_u32(order.at(place))).collect();
    let mut is_member = vec![false; to_usize(tenant_count)];
    for member in &members {
        if let Some(slot) = is_member.get_mut(to_usize(u64::from(*member))) {
            *slot = true;
        }
    }

    let storm_ratio = params.get(&STORM_OPS_RATIO);
    let calm_share = (1.0 - storm_ratio) / to_f64(tenant_count);
    let storm_share = storm_ratio / to_f64(member_count);
    let weight = |share: f64| floor_u64(share * 1e12 + 0.5).max(1);
    let mut tenants: Vec<TenantProfile> = (0..spec.tenant_count)
        .zip(&is_member)
        .map(|(number, member)| {
            let (role, ops_share) =
                if *member { ("storm", calm_share + storm_share) } else { ("calm", calm_share) };
            shape.tenant(spec, number, role, weight(ops_share))
        })
        .collect();
    classify(&mut tenants, |number, tenant| {
        let storm = if is_member.get(number) == Some(&true) { storm_share } else { 0.0 };
        (calm_share * tenant.write_fraction + storm) * to_f64(tenant.entry_bytes())
    });

    let entry_bytes = tenants.first().map_or(1.0, |t| to_f64(t.entry_bytes()));
    let member_bytes = match params.get(&STORM_BYTES) {
        bytes if bytes > 0.0 => bytes,
        _ => params.get(&STORM_SHARE_RATIO) * even_share_bytes(spec),
    };
    let member_ops = member_bytes / entry_bytes;
    let storm_ops = floor_u64(member_ops.max(1.0) * to_f64(member_count) + 0.5);
    let calm_ops = floor_u64(to_f64(storm_ops) * (1.0 - storm_ratio) / storm_ratio + 0.5).max(1);
    let (calm_pace, storm_pace) = paces(spec, params, (calm_ops, storm_ops));
    let hour =
        ThunderingHour { tenant_count, members, calm_ops, storm_ops, calm_pace, storm_pace, at: 0 };
    Setup::new(tenants, Picker::ThunderingHour(hour), params.mix())
}

/// What stretches the gaps of the calm and of the storm; over a period their mean is 1.
fn paces(spec: &WorkloadSpec, params: &Params, (calm_ops, storm_ops): (u64, u64)) -> (f64, f64) {
    let (calm, storm) = (to_f64(calm_ops), to_f64(storm_ops));
    let storm_s = params.get(&STORM_MS) / 1_000.0;
    if let Arrival::Open { ops_per_s, .. } = spec.arrival
        && storm_s > 0.0
    {
        let storm_pace = (to_f64(ops_per_s) * storm_s / storm).min(1.0);
        return ((calm + storm * (1.0 - storm_pace)) / calm, storm_pace);
    }
    let (storm_ratio, rate_ratio) = (params.get(&STORM_OPS_RATIO), params.get(&STORM_RATE_RATIO));
    let calm_pace = 1.0 / (storm_ratio / rate_ratio + (1.0 - storm_ratio));
    (calm_pace, calm_pace / rate_ratio)
}

/// Where in the period the workload is.
#[derive(Clone, Debug)]
pub(crate) struct ThunderingHour {
    tenant_count: u64,
    members: Vec<u32>,
    calm_ops: u64,
    storm_ops: u64,
    calm_pace: f64,
    storm_pace: f64,
    /// Operations since the period began.
    at: u64,
}

impl ThunderingHour {
    pub(super) fn next(&mut self, rng: &mut Rng) -> Pick {
        let storm = self.at >= self.calm_ops;
        self.at += 1;
        if self.at >= self.calm_ops.saturating_add(self.storm_ops) {
            self.at = 0;
        }
        if storm {
            let place = to_usize(rng.below(to_u64(self.members.len())));
            let tenant = self.members.get(place).copied().unwrap_or(0);
            return Pick { tenant, pace: self.storm_pace, put_only: true };
        }
        let tenant = to_u32(rng.below(self.tenant_count));
        Pick { tenant, pace: self.calm_pace, put_only: false }
    }
}
