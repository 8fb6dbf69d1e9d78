//! From a description to tenants, a load and a stream of operations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arrival::Arrival;
use crate::churn::Churn;
use crate::error::{SpecError, check_bounds};
use crate::keys::{self, KeyChoice};
use crate::library::{self, Setup};
use crate::op::{Op, OpKind};
use crate::permutation::Permutation;
use crate::rng::{Rng, to_f64, to_u32, to_u64, to_usize};
use crate::stream::Stream;
use crate::tenants::TenantProfile;
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
        self.arrival.check()
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
        let mut key_count_ends = Vec::with_capacity(setup.tenants.len());
        let mut end = 0_u64;
        for tenant in &setup.tenants {
            end = end.saturating_add(tenant.key_count);
            key_count_ends.push(end);
        }
        Ok(Self { spec, setup, key_count_ends })
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

    /// How many operations the load has: the keys of all tenants.
    pub fn load_op_count(&self) -> u64 {
        self.key_count_ends.last().copied().unwrap_or(0)
    }

    /// The place of one key of one tenant among all keys of all tenants, below
    /// [`load_op_count`](Self::load_op_count); `None` where there is no such key.
    pub fn key_place(&self, tenant: u32, key: u64) -> Option<u64> {
        let at = to_usize(u64::from(tenant));
        let profile = self.setup.tenants.get(at)?;
        let end = *self.key_count_ends.get(at)?;
        (key < profile.key_count).then(|| end - profile.key_count + key)
    }

    /// Puts every key of every tenant once, tenants and keys interleaved in a seeded order.
    pub fn load_ops(&self) -> LoadOps<'_> {
        let count = self.load_op_count();
        let seed = Rng::new(self.spec.seed, "load order").next_u64();
        LoadOps { ends: &self.key_count_ends, order: Permutation::new(count, seed), next: 0, count }
    }

    /// Operations for ever, from the beginning. Every stream of a workload yields the same ones.
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
            values::fill_value(tenant, key, op_number, profile.value_bytes, out);
        }
    }
}

/// Puts every key of every tenant once.
#[derive(Clone, Debug)]
pub struct LoadOps<'a> {
    ends: &'a [u64],
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
        let tenant = self.ends.partition_point(|end| *end <= place);
        let start = tenant.checked_sub(1).and_then(|t| self.ends.get(t)).copied().unwrap_or(0);
        let kind = OpKind::Put { key: place - start };
        Some(Op { at_ns: 0, tenant: to_u32(to_u64(tenant)), kind })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.next);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}
