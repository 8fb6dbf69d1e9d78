//! Operations, drawn one by one for ever or read from a recorded trace to its end.
//!
//! Who asks, what is asked, for which key and when are drawn from four named streams, so that, say,
//! another arrival process leaves tenants, kinds and keys as they were.

use crate::arrival::{Arrival, Clock};
use crate::keys::Keys;
use crate::library::{Asks, Mix, Picker, Setup, Sine};
use crate::op::{Op, OpKind};
use crate::rng::{Rng, mix, to_usize};
use crate::script::Reader;
use crate::spec::WorkloadSpec;
use crate::trace::Replay;

/// Operations. Owns all it needs; a clone continues from the same place.
#[derive(Clone, Debug)]
pub struct Stream {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Drawn(Box<Drawn>),
    Replayed(Replay),
}

#[derive(Clone, Debug)]
struct Drawn {
    picker: Picker,
    asks: Asks,
    sine: Option<Sine>,
    clock: Clock,
    /// When the last operation arrived.
    at_ns: u64,
    tenants: Vec<Asker>,
    tenant_rng: Rng,
    kind_rng: Rng,
    key_rng: Rng,
    arrival_rng: Rng,
}

/// What the stream keeps of a tenant.
#[derive(Clone, Debug)]
enum Asker {
    Mixed { write_fraction: f64, keys: Keys },
    Scripted(Reader),
}

/// The seed of the orders in which tenants' keys lie; a tenant's own is this and its number, mixed.
pub(crate) fn order_seed(spec: &WorkloadSpec) -> u64 {
    Rng::new(spec.seed, "key order").next_u64()
}

impl Stream {
    pub(crate) fn new(spec: &WorkloadSpec, setup: &Setup) -> Self {
        if let Some(trace) = &spec.trace {
            let source = Source::Replayed(Replay::new(trace, spec.arrival));
            return Self { source };
        }
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
        let order_seed = order_seed(spec);
        let asker = |(number, tenant): (u64, &crate::tenants::TenantProfile)| match &setup.asks {
            Asks::Mix(_) => {
                let seed = mix(order_seed ^ number);
                let keys = Keys::new(spec.keys, tenant.key_count, tenant.alpha, seed);
                Asker::Mixed { write_fraction: tenant.write_fraction, keys }
            }
            Asks::Script(script) => {
                Asker::Scripted(Reader::new(script, tenant, mix(order_seed ^ number)))
            }
        };
        let drawn = Drawn {
            picker,
            asks: setup.asks.clone(),
            sine: setup.sine,
            clock: Clock::new(arrival),
            at_ns: 0,
            tenants: (0..).zip(&setup.tenants).map(asker).collect(),
            tenant_rng: Rng::new(spec.seed, tenant),
            kind_rng: Rng::new(spec.seed, kind),
            key_rng: Rng::new(spec.seed, key),
            arrival_rng: Rng::new(spec.seed, when),
        };
        Self { source: Source::Drawn(Box::new(drawn)) }
    }

    /// From here on operations arrive so, counted from 0; a trace keeps its own times.
    pub fn set_arrival(&mut self, arrival: Arrival) {
        if let Source::Drawn(drawn) = &mut self.source {
            (drawn.clock, drawn.at_ns) = (Clock::new(arrival), 0);
        }
    }

    /// The next operation; `None` at the end of a trace, and never else.
    pub fn next_op(&mut self) -> Option<Op> {
        match &mut self.source {
            Source::Drawn(drawn) => Some(drawn.next_op()),
            Source::Replayed(replay) => replay.next_op(),
        }
    }
}

impl Drawn {
    fn next_op(&mut self) -> Op {
        let pick = self.picker.next(&mut self.tenant_rng);
        let pace = self.sine.map_or(pick.pace, |sine| pick.pace * sine.gap_ratio(self.at_ns));
        let at_ns = self.clock.next_ns(pace, &mut self.arrival_rng);
        self.at_ns = at_ns;
        let draws = (self.kind_rng.unit_f64(), self.kind_rng.unit_f64());
        let rng = &mut self.key_rng;
        let asker = self.tenants.get_mut(to_usize(u64::from(pick.tenant)));
        let kind = match (asker, &self.asks) {
            (Some(Asker::Mixed { write_fraction, keys }), Asks::Mix(mix)) => {
                let write_fraction = if pick.put_only { None } else { Some(*write_fraction) };
                mixed((write_fraction, keys), mix, draws, rng)
            }
            (Some(Asker::Scripted(reader)), Asks::Script(script)) => {
                reader.next(script, draws, rng)
            }
            (Some(_) | None, Asks::Mix(_) | Asks::Script(_)) => OpKind::Get { key: 0 },
        };
        Op { at_ns, tenant: pick.tenant, kind }
    }
}

/// What is asked by ratios; a put where there is no share of writes.
fn mixed(
    (write_fraction, keys): (Option<f64>, &mut Keys),
    mix: &Mix,
    (kind_draw, detail_draw): (f64, f64),
    rng: &mut Rng,
) -> OpKind {
    let Some(write_fraction) = write_fraction else {
        return OpKind::Put { key: keys.next_write(rng) };
    };
    if kind_draw < write_fraction {
        if detail_draw < mix.delete_ratio {
            OpKind::Delete { key: keys.next_read(rng) }
        } else {
            OpKind::Put { key: keys.next_write(rng) }
        }
    } else if detail_draw < mix.scan_ratio {
        OpKind::Scan { key: keys.next_read(rng), limit: mix.scan_limit, reverse: false }
    } else {
        OpKind::Get { key: keys.next_read(rng) }
    }
}

impl Iterator for Stream {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        self.next_op()
    }
}
