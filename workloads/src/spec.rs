//! From a description to tenants, a load and a stream of operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::arrival::Arrival;
use crate::churn::Churn;
use crate::error::{SpecError, check_bounds};
use crate::keys::{self, KeyChoice};
use crate::library::{self, Setup};
use crate::op::{Op, OpKind};
use crate::permutation::Permutation;
use crate::rng::{Rng, mix, to_f64, to_u32, to_u64, to_usize};
use crate::script::ValueSizes;
use crate::stream::Stream;
use crate::tenants::TenantProfile;
use crate::trace::Trace;
use crate::values;

/// Most tenants of a workload.
pub const TENANT_COUNT_MAX: u32 = 1_000_000;

/// Largest budget: a PiB.
pub const BUDGET_BYTES_MAX: u64 = 1 << 50;

/// A workload in data: which scenario, at which size, from which seed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The scenario's name in the library.
    pub name: String,
    /// How many tenants, 1 to [`TENANT_COUNT_MAX`]. Default 100.
    #[serde(default = "default_tenant_count")]
    pub tenant_count: u32,
    /// The memory that all memtables may hold together, 1 to [`BUDGET_BYTES_MAX`]; sizes of data
    /// and bursts follow from it. Default 128 MiB.
    #[serde(default = "default_budget_bytes")]
    pub budget_bytes: u64,
    /// The only input of chance. Default 1.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Closed or open loop. Default closed.
    #[serde(default)]
    pub arrival: Arrival,
    /// How operations choose among a tenant's keys. Default by Zipf.
    #[serde(default)]
    pub keys: KeyChoice,
    /// The scenario's parameters that differ from their defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, f64>,
    /// What the scenario `trace` replays, and no other.
    #[serde(skip)]
    pub trace: Option<Arc<Trace>>,
}

fn default_tenant_count() -> u32 {
    100
}

fn default_budget_bytes() -> u64 {
    128 << 20
}

fn default_seed() -> u64 {
    1
}

impl WorkloadSpec {
    /// The scenario of this name with everything at its default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tenant_count: default_tenant_count(),
            budget_bytes: default_budget_bytes(),
            seed: default_seed(),
            arrival: Arrival::default(),
            keys: KeyChoice::default(),
            params: BTreeMap::new(),
            trace: None,
        }
    }

    /// Reads a description from a TOML table.
    ///
    /// # Errors
    ///
    /// [`SpecError::Parse`] where the text is no such table. Bounds are checked by
    /// [`WorkloadSpec::check`] and [`Workload::new`].
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        toml::from_str(text).map_err(|e| SpecError::parse(text, &e))
    }

    /// Refuses an unknown scenario or parameter and any number out of its bounds.
    ///
    /// # Errors
    ///
    /// [`SpecError`] naming the key and what is allowed.
    pub fn check(&self) -> Result<(), SpecError> {
        library::find(&self.name)?.check_params(&self.params)?;
        let tenants_max = f64::from(TENANT_COUNT_MAX);
        check_bounds("tenant_count", f64::from(self.tenant_count), 1.0, tenants_max)?;
        check_bounds("budget_bytes", to_f64(self.budget_bytes), 1.0, to_f64(BUDGET_BYTES_MAX))?;
        self.check_trace()?;
        self.arrival.check()
    }

    fn check_trace(&self) -> Result<(), SpecError> {
        let wrong = |detail: String| Err(SpecError::Trace { line: 0, detail });
        let Some(trace) = &self.trace else {
            return if self.name == "trace" { Err(SpecError::no_trace()) } else { Ok(()) };
        };
        if self.name != "trace" {
            return wrong(format!("the workload {} replays no file", self.name));
        }
        let tenants = to_u64(trace.tenant_count());
        if u64::from(self.tenant_count) != tenants {
            let given = self.tenant_count;
            return wrong(format!("tenant_count = {given}, but the file has {tenants} tenants"));
        }
        if trace.ops_per_s == 0 && self.arrival != Arrival::Closed {
            return wrong("the file has no times: it can only be replayed in a closed loop".into());
        }
        Ok(())
    }
}

/// A tenant that asks in a closed loop of its own beside the arrivals of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatOut {
    /// The tenant.
    pub tenant: u32,
    /// Its clients: each asks, waits for the answer and asks again.
    pub client_count: u32,
}

/// What a set of tenants asks for, ready to be drawn.
#[derive(Clone, Debug)]
pub struct Workload {
    spec: WorkloadSpec,
    setup: Setup,
    /// For each tenant the number of keys of all tenants up to and with it.
    key_count_ends: Vec<u64>,
    /// The same of the keys that the load puts.
    loaded_ends: Vec<u64>,
}

/// For each tenant the sum of a count of all tenants up to and with it.
fn ends(tenants: &[TenantProfile], count: impl Fn(&TenantProfile) -> u64) -> Vec<u64> {
    let mut end = 0_u64;
    let add = |tenant| {
        end = end.saturating_add(count(tenant));
        end
    };
    tenants.iter().map(add).collect()
}

impl Workload {
    /// Makes the tenants of a description.
    ///
    /// # Errors
    ///
    /// [`SpecError`] naming the key and what is allowed; nothing was built.
    pub fn new(spec: WorkloadSpec) -> Result<Self, SpecError> {
        spec.check()?;
        let setup = library::build(&spec)?;
        let key_count_ends = ends(&setup.tenants, |tenant| tenant.key_count);
        let loaded_ends = ends(&setup.tenants, |tenant| tenant.loaded_count);
        Ok(Self { spec, setup, key_count_ends, loaded_ends })
    }

    /// The description it was made from.
    pub fn spec(&self) -> &WorkloadSpec {
        &self.spec
    }

    /// The tenants; an operation's tenant is an index into them.
    pub fn tenants(&self) -> &[TenantProfile] {
        &self.setup.tenants
    }

    /// The profile of one tenant; `None` where there is none of this number.
    pub fn tenant(&self, tenant: u32) -> Option<&TenantProfile> {
        self.setup.tenants.get(to_usize(u64::from(tenant)))
    }

    /// How many operations the load has: the keys that it puts.
    pub fn load_op_count(&self) -> u64 {
        self.loaded_ends.last().copied().unwrap_or(0)
    }

    /// The keys that all tenants may ever have.
    pub fn key_total(&self) -> u64 {
        self.key_count_ends.last().copied().unwrap_or(0)
    }

    /// The place of one key of one tenant among all keys of all tenants, below
    /// [`key_total`](Self::key_total); `None` where there is no such key.
    pub fn key_place(&self, tenant: u32, key: u64) -> Option<u64> {
        let at = to_usize(u64::from(tenant));
        let profile = self.setup.tenants.get(at)?;
        let end = *self.key_count_ends.get(at)?;
        (key < profile.key_count).then(|| end - profile.key_count + key)
    }

    /// Puts every key that is loaded once, tenants and keys interleaved in a seeded order.
    pub fn load_ops(&self) -> LoadOps<'_> {
        let count = self.load_op_count();
        let seed = Rng::new(self.spec.seed, "load order").next_u64();
        LoadOps { workload: self, order: Permutation::new(count, seed), next: 0, count }
    }

    /// Operations from the beginning, for ever or to the end of a trace. Every stream of a workload yields the same ones.
    pub fn stream(&self) -> Stream {
        Stream::new(&self.spec, &self.setup)
    }

    /// Who asks flat out beside the stream, where the scenario has one who does.
    pub fn flat_out(&self) -> Option<FlatOut> {
        self.setup.flat_out
    }

    /// Operations of the tenant that asks flat out, for ever and without times.
    pub fn flat_out_stream(&self) -> Option<Stream> {
        self.setup.flat_out.map(|who| Stream::flat_out(&self.spec, &self.setup, who.tenant))
    }

    /// The visitors beside the stream, where the scenario has any.
    pub fn churn(&self) -> Option<Churn> {
        self.setup.churn
    }

    /// Replaces `out` by the bytes of one key of one tenant; empties it where there is no such
    /// tenant.
    pub fn fill_key(&self, tenant: u32, key: u64, out: &mut Vec<u8>) {
        out.clear();
        if let Some(profile) = self.tenant(tenant) {
            keys::fill_key(tenant, key, profile.key_bytes, out);
        }
    }

    /// Replaces `out` by the value that one operation of one tenant writes, in the tenant's size;
    /// empties it where there is no such tenant. `op_number` is the client's own count.
    pub fn fill_value(&self, tenant: u32, key: u64, op_number: u64, out: &mut Vec<u8>) {
        out.clear();
        if let Some(profile) = self.tenant(tenant) {
            let bytes = self.value_bytes(profile, (tenant, key, op_number));
            values::fill_value(tenant, key, op_number, bytes, out);
        }
    }

    /// The size follows from the operation's number, as the bytes do: it can be told at any time.
    fn value_bytes(&self, profile: &TenantProfile, of: (u32, u64, u64)) -> u32 {
        let (tenant, key, op_number) = of;
        if let Some(trace) = &self.spec.trace
            && let Some(place) = op_number.checked_sub(self.key_total())
        {
            let given = trace.value_bytes(place);
            if given > 0 {
                return given;
            }
        }
        match &self.setup.value_sizes {
            ValueSizes::Fixed => profile.value_bytes,
            ValueSizes::Pareto(pareto) => {
                let bits = mix(!op_number ^ mix(key ^ mix(!u64::from(tenant))));
                // In (0, 1], where the inversion has a value.
                pareto.at((to_f64(bits >> 11) + 1.0) / 9_007_199_254_740_992.0)
            }
        }
    }

    /// What a trace of this workload must say beside tenants and operations.
    pub(crate) fn trace_rules(&self) -> (Option<u64>, ValueSizes) {
        (self.setup.order_seed, self.setup.value_sizes)
    }
}

/// Puts every key that is loaded once.
#[derive(Clone, Debug)]
pub struct LoadOps<'a> {
    workload: &'a Workload,
    order: Permutation,
    next: u64,
    count: u64,
}

impl Iterator for LoadOps<'_> {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        if self.next >= self.count {
            return None;
        }
        let place = self.order.at(self.next);
        self.next += 1;
        let ends = &self.workload.loaded_ends;
        let tenant = ends.partition_point(|end| *end <= place);
        let start = tenant.checked_sub(1).and_then(|t| ends.get(t)).copied().unwrap_or(0);
        let mut key = place - start;
        let setup = &self.workload.setup;
        if let (Some(seed), Some(profile)) = (setup.order_seed, setup.tenants.get(tenant)) {
            key = Permutation::new(profile.key_count, mix(seed ^ to_u64(tenant))).at(key);
        }
        Some(Op { at_ns: 0, tenant: to_u32(to_u64(tenant)), kind: OpKind::Put { key } })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.next);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}
