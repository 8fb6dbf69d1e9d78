//! Operations for ever, drawn one by one.
//!
//! Who asks, what is asked, for which key and when are drawn from four named streams, so that, say,
//! another arrival process leaves tenants, kinds and keys as they were.

use crate::arrival::{Arrival, Clock};
use crate::keys::Keys;
use crate::library::{Mix, Picker, Setup};
use crate::op::{Op, OpKind};
use crate::rng::{Rng, mix, to_usize};
use crate::spec::WorkloadSpec;

/// Operations for ever. Owns all it needs; a clone continues from the same place.
#[derive(Clone, Debug)]
pub struct Stream {
    picker: Picker,
    mix: Mix,
    clock: Clock,
    tenants: Vec<Asker>,
    tenant_rng: Rng,
    kind_rng: Rng,
    key_rng: Rng,
    arrival_rng: Rng,
}

/// What the stream keeps of a tenant.
#[derive(Clone, Debug)]
struct Asker {
    write_fraction: f64,
    keys: Keys,
}

impl Stream {
    pub(crate) fn new(spec: &WorkloadSpec, setup: &Setup) -> Self {
        let names = ["tenant", "kind", "key", "arrival"];
        Self::drawn(spec, setup, (setup.picker.clone(), spec.arrival), names)
    }

    /// Operations of one tenant, without times. Its draws are its own: the others' operations are
    /// the same whether it asks or not.
    pub(crate) fn flat_out(spec: &WorkloadSpec, setup: &Setup, tenant: u32) -> Self {
        let names = ["flat-out tenant", "flat-out kind", "flat-out key", "flat-out arrival"];
        Self::drawn(spec, setup, (Picker::One(tenant), Arrival::Closed), names)
    }

    fn drawn(
        spec: &WorkloadSpec,
        setup: &Setup,
        (picker, arrival): (Picker, Arrival),
        [tenant, kind, key, when]: [&str; 4],
    ) -> Self {
        let order_seed = Rng::new(spec.seed, "key order").next_u64();
        let asker = |(number, tenant): (u64, &crate::tenants::TenantProfile)| Asker {
            write_fraction: tenant.write_fraction,
            keys: Keys::new(spec.keys, tenant.key_count, tenant.alpha, mix(order_seed ^ number)),
        };
        Self {
            picker,
            mix: setup.mix,
            clock: Clock::new(arrival),
            tenants: (0..).zip(&setup.tenants).map(asker).collect(),
            tenant_rng: Rng::new(spec.seed, tenant),
            kind_rng: Rng::new(spec.seed, kind),
            key_rng: Rng::new(spec.seed, key),
            arrival_rng: Rng::new(spec.seed, when),
        }
    }

    /// The next operation.
    pub fn next_op(&mut self) -> Op {
        let pick = self.picker.next(&mut self.tenant_rng);
        let at_ns = self.clock.next_ns(pick.pace, &mut self.arrival_rng);
        let (kind_draw, detail_draw) = (self.kind_rng.unit_f64(), self.kind_rng.unit_f64());
        let Some(asker) = self.tenants.get_mut(to_usize(u64::from(pick.tenant))) else {
            return Op { at_ns, tenant: pick.tenant, kind: OpKind::Get { key: 0 } };
        };
        let rng = &mut self.key_rng;
        let kind = if pick.put_only {
            OpKind::Put { key: asker.keys.next_write(rng) }
        } else if kind_draw < asker.write_fraction {
            if detail_draw < self.mix.delete_ratio {
                OpKind::Delete { key: asker.keys.next_read(rng) }
            } else {
                OpKind::Put { key: asker.keys.next_write(rng) }
            }
        } else if detail_draw < self.mix.scan_ratio {
            OpKind::Scan { key: asker.keys.next_read(rng), limit: self.mix.scan_limit }
        } else {
            OpKind::Get { key: asker.keys.next_read(rng) }
        };
        Op { at_ns, tenant: pick.tenant, kind }
    }
}

impl Iterator for Stream {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        Some(self.next_op())
    }
}
