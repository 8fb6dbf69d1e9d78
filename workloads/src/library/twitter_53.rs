//! Tenants like 53 clusters of Twitter: tenant i is like cluster i mod 53, in sizes, rate and skew.
//!
//! # Source
//!
//! See [`crate::archetype`], which holds the figures, the credit and the rules.

use super::params::{DELETE_RATIO, Params, SCAN_LIMIT_COUNT, SCAN_RATIO};
use super::{Picker, Setup, Shape, WorkloadInfo};
use crate::archetype::{ArchetypeSpec, Cluster, Rules};
use crate::error::SpecError;
use crate::spec::WorkloadSpec;
use crate::tenants::{TenantProfile, classify};

pub(super) const INFO: WorkloadInfo = WorkloadInfo {
    name: "twitter-53",
    source: "Yang, Yue, Rashmi, OSDI 2020; twitter/cache-trace, CC-BY 4.0",
    about: "each tenant is like one of 53 cache clusters: sizes, request rate, writes and key skew",
    params: &[DELETE_RATIO, SCAN_RATIO, SCAN_LIMIT_COUNT],
};

pub(super) fn build(spec: &WorkloadSpec, params: &Params) -> Result<Setup, SpecError> {
    let archetypes = ArchetypeSpec::twitter_53()?;
    let in_turn = archetypes.cluster.iter().cycle();
    let mut tenants: Vec<TenantProfile> = (0..spec.tenant_count)
        .zip(in_turn)
        .map(|(number, cluster)| tenant(spec, &archetypes.rules, number, cluster))
        .collect();
    classify(&mut tenants, |_, tenant| tenant.write_bytes());
    let picker = Picker::weighted(&tenants)?;
    Ok(Setup::new(tenants, picker, params.mix()))
}

fn tenant(spec: &WorkloadSpec, rules: &Rules, number: u32, cluster: &Cluster) -> TenantProfile {
    let shape = Shape {
        key_bytes: cluster.key_bytes,
        value_bytes: rules.value_bytes(cluster),
        write_fraction: rules.write_fraction(cluster),
        alpha: rules.alpha(cluster),
        data_share: rules.data_share_ratio,
        key_count_min: rules.key_count_min,
    };
    shape.tenant(spec, number, &cluster.name, cluster.weight())
}
