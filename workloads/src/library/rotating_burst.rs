//! K of n tenants are busy at a time; bursts end after Pareto lengths and pass on to the next
//! tenant.
//!
//! A share of the operations, 10 % by default, is background of all tenants alike. The rest goes to
//! the K active tenants alike. A burst is counted in operations, so that it is the same in a closed
//! and in an open loop; when it ends, the next tenant in a seeded order that is not active takes
//! its place. All tenants are alike in the long run, so their class is warm: it is the moment that
//! is skewed.
//!
//! # Source
//!
//! Pareto on-times with exponents of 1.2 to 1.9: Willinger, Taqqu, Sherman, Wilson,
//! "Self-similarity through high-variability", IEEE/ACM Transactions on Networking 5(1), 1997.
//! Departure: a length is cut at 100 means.

use super::params::{
    DATA_SHARE_RATIO, DELETE_RATIO, KEY_ALPHA, KEY_BYTES, Params, SCAN_LIMIT_COUNT, SCAN_RATIO,
    VALUE_BYTES, WRITE_RATIO,
};
use super::{ParamInfo, Pick, Picker, Setup, Unit, WorkloadInfo, even_share_bytes};
use crate::permutation::Permutation;
use crate::rng::{Rng, floor_u64, to_f64, to_u32, to_u64, to_usize};
use crate::spec::WorkloadSpec;
use crate::tenants::{TenantProfile, classify};

const ACTIVE_COUNT: ParamInfo = ParamInfo {
    name: "active_count",
    unit: Unit::Count,
    min: 1.0,
    max: 10_000.0,
    default: 4.0,
    about: "K: tenants that are busy at a time; all of them where there are fewer",
};

const BACKGROUND_RATIO: ParamInfo = ParamInfo {
    name: "background_ratio",
    unit: Unit::Ratio,
    min: 0.0,
    max: 1.0,
    default: 0.1,
    about: "share of the operations that all tenants make alike",
};

const BURST_SHARE_RATIO: ParamInfo = ParamInfo {
    name: "burst_share_ratio",
    unit: Unit::Ratio,
    min: 0.001,
    max: 1_000.0,
    default: 20.0,
    about: "mean write bytes of a burst over budget_bytes / tenant_count; at most half the budget",
};

const BURST_ALPHA: ParamInfo = ParamInfo {
    name: "burst_alpha",
    unit: Unit::Ratio,
    min: 1.1,
    max: 10.0,
    default: 1.5,
    about: "Pareto exponent of the burst lengths; nearer 1 is wilder",
};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "rotating-burst",
    source: "on/off Pareto: Willinger et al., ToN 1997",
    about: "K active tenants of n at a time, Pareto bursts that pass on, and a background of all",
    params: &[
        ACTIVE_COUNT,
        BACKGROUND_RATIO,
        BURST_SHARE_RATIO,
        BURST_ALPHA,
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

/// Longest burst, in mean lengths.
const BURST_MEANS_MAX: f64 = 100.0;

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Setup {
    let shape = params.shape();
    let mut tenants: Vec<TenantProfile> =
        (0..spec.tenant_count).map(|number| shape.tenant(spec, number, "burst", 1)).collect();
    classify(&mut tenants, |_, tenant| tenant.write_bytes());

    let entry_bytes = tenants.first().map_or(1.0, |t| to_f64(t.entry_bytes()));
    let burst_bytes = params.get(&BURST_SHARE_RATIO) * even_share_bytes(spec);
    let burst_bytes = burst_bytes.min(to_f64(spec.budget_bytes) * 0.5);
    let ops_mean = (burst_bytes / entry_bytes / shape.write_fraction.max(0.01)).max(1.0);
    let active_count = params.count(&ACTIVE_COUNT).min(spec.tenant_count);
    let seed = Rng::new(spec.seed, "burst order").next_u64();
    let burst = RotatingBurst {
        background_ratio: params.get(&BACKGROUND_RATIO),
        ops_mean,
        alpha: params.get(&BURST_ALPHA),
        order: Permutation::new(u64::from(spec.tenant_count), seed),
        next_place: u64::from(active_count),
        slots: Vec::new(),
        active: vec![false; to_usize(u64::from(spec.tenant_count))],
    };
    let picker = Picker::RotatingBurst(burst.opened(active_count));
    Setup::new(tenants, picker, params.mix())
}

/// Who is active, and for how much longer.
#[derive(Clone, Debug)]
pub(crate) struct RotatingBurst {
    background_ratio: f64,
    ops_mean: f64,
    alpha: f64,
    order: Permutation,
    next_place: u64,
    slots: Vec<Slot>,
    active: Vec<bool>,
}

/// One active tenant; a burst that has not begun has no length yet.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tenant: u32,
    ops_left: Option<u64>,
}

impl RotatingBurst {
    fn opened(mut self, active_count: u32) -> Self {
        for place in 0..u64::from(active_count) {
            let tenant = self.order.at(place);
            self.slots.push(Slot { tenant: to_u32(tenant), ops_left: None });
            self.set_active(tenant, true);
        }
        self
    }

    pub(super) fn next(&mut self, rng: &mut Rng) -> Pick {
        if rng.chance(self.background_ratio) {
            return Pick::steady(to_u32(rng.below(to_u64(self.active.len()))));
        }
        let at = to_usize(rng.below(to_u64(self.slots.len())));
        let Some(mut slot) = self.slots.get(at).copied() else { return Pick::steady(0) };
        let picked = slot.tenant;
        let ops_left = slot.ops_left.unwrap_or_else(|| self.burst_ops(rng)) - 1;
        slot.ops_left = Some(ops_left);
        if ops_left == 0 {
            self.set_active(u64::from(picked), false);
            slot = Slot { tenant: self.next_idle(), ops_left: None };
            self.set_active(u64::from(slot.tenant), true);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
        Pick::steady(picked)
    }

    /// The length of a burst in operations, at least 1.
    fn burst_ops(&self, rng: &mut Rng) -> u64 {
        let shortest = self.ops_mean * (self.alpha - 1.0) / self.alpha;
        let longest = self.ops_mean * BURST_MEANS_MAX;
        let length = shortest * libm::pow(1.0 - rng.unit_f64(), -1.0 / self.alpha);
        floor_u64(length.min(longest) + 0.5).max(1)
    }

    /// The next tenant in the order that is not active. There is one: a burst has just ended.
    fn next_idle(&mut self) -> u32 {
        loop {
            let tenant = self.order.at(self.next_place);
            self.next_place = self.next_place.wrapping_add(1);
            if !self.active.get(to_usize(tenant)).copied().unwrap_or(false) {
                return to_u32(tenant);
            }
        }
    }

    fn set_active(&mut self, tenant: u64, to: bool) {
        if let Some(active) = self.active.get_mut(to_usize(tenant)) {
            *active = to;
        }
    }
}
