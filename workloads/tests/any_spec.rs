//! Strategy: any scenario, size, seed and parameters within their bounds.
//! Invariants: it builds; every operation is for a tenant and a key that there are; times never go
//! back; the load begins with puts of distinct keys.
#![cfg(test)]

use std::collections::BTreeSet;

use forebay_workloads::{Arrival, KeyChoice, OnOff, Pacing, Unit, Workload, WorkloadSpec, list};
use proptest::prelude::*;

fn any_arrival() -> impl Strategy<Value = Arrival> {
    let pacing = prop_oneof![Just(Pacing::Poisson), Just(Pacing::Regular)];
    let windows = (1..=1_000_000_000_000_000_u64, 0..=1_000_000_000_000_000_u64)
        .prop_map(|(on_ns, off_ns)| OnOff { on_ns, off_ns });
    let open = (1..=1_000_000_000_u64, pacing, proptest::option::of(windows))
        .prop_map(|(ops_per_s, pacing, on_off)| Arrival::Open { ops_per_s, pacing, on_off });
    prop_oneof![Just(Arrival::Closed), open]
}

fn any_spec() -> impl Strategy<Value = WorkloadSpec> {
    let keys =
        prop_oneof![Just(KeyChoice::Zipf), Just(KeyChoice::Uniform), Just(KeyChoice::Latest)];
    let budget_bits = 0..=50_u32;
    let levels = proptest::collection::vec(proptest::option::of(0.0..=1.0), 18);
    // The last one needs a file.
    (0..list().len() - 1, 1..2_000_u32, budget_bits, any::<u64>(), any_arrival(), keys, levels)
        .prop_map(|(scenario, tenant_count, budget_bits, seed, arrival, keys, levels)| {
            let info = list()[scenario];
            let budget_bytes = 1 << budget_bits;
            let mut spec = WorkloadSpec {
                tenant_count,
                budget_bytes,
                seed,
                arrival,
                keys,
                ..WorkloadSpec::named(info.name)
            };
            for (param, level) in info.params.iter().zip(levels) {
                let Some(level) = level else { continue };
                let value: f64 = param.min + level * (param.max - param.min);
                let value = if param.unit == Unit::Ratio { value } else { value.floor() };
                spec.params.insert(param.name.to_owned(), value.clamp(param.min, param.max));
            }
            spec
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_spec_within_bounds_asks_only_for_what_there_is(spec in any_spec()) {
        let workload = Workload::new(spec).unwrap();
        let mut before = 0;
        for op in workload.stream().take(500) {
            let tenant = workload.tenant(op.tenant).unwrap();
            prop_assert!(op.key() < tenant.key_count);
            prop_assert!(op.at_ns >= before);
            before = op.at_ns;
        }
        let mut seen = BTreeSet::new();
        let mut key = Vec::new();
        for op in workload.load_ops().take(500) {
            let tenant = workload.tenant(op.tenant).unwrap();
            prop_assert!(op.key() < tenant.key_count);
            workload.fill_key(op.tenant, op.key(), &mut key);
            prop_assert_eq!(u32::try_from(key.len()).unwrap(), tenant.key_bytes);
            prop_assert!(seen.insert((op.tenant, key.clone())));
        }
    }
}
