//! The named scenarios. To add one: a file here with `INFO` and `build`, and a line in the list.

mod come_and_go;
mod db_bench;
mod mixgraph;
mod noisy_neighbour;
mod params;
mod rotating_burst;
mod steady_zipf;
mod thundering_hour;
mod trace;
mod twitter_53;
mod ycsb;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::churn::Churn;
use crate::error::{SpecError, check_bounds};
use crate::keys::key_len;
use crate::rng::{Rng, floor_u64, to_f64};
use crate::script::{Script, ValueSizes};
use crate::spec::{FlatOut, WorkloadSpec};
use crate::tenants::{AliasTable, Class, TenantProfile};
use params::Params;
use rotating_burst::RotatingBurst;
use thundering_hour::ThunderingHour;

/// One scenario in the list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorkloadInfo {
    /// The name on the command line, in files and in results.
    pub name: &'static str,
    /// Where the idea or the figures come from.
    pub source: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its parameters.
    pub params: &'static [ParamInfo],
}

/// One parameter of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ParamInfo {
    /// Its name, unit last.
    pub name: &'static str,
    /// What its number counts.
    pub unit: Unit,
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// The value where none is given.
    pub default: f64,
    /// What it does, in one line.
    pub about: &'static str,
}

/// What a parameter's number counts. All but ratios are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// Milliseconds.
    Millis,
    /// A share, a factor or an exponent.
    Ratio,
}

type Build = fn(&WorkloadSpec, &Params) -> Result<Setup, SpecError>;

const LIST: [WorkloadInfo; 21] = [
    twitter_53::INFO,
    steady_zipf::INFO,
    rotating_burst::INFO,
    noisy_neighbour::INFO,
    thundering_hour::INFO,
    come_and_go::INFO,
    ycsb::A,
    ycsb::B,
    ycsb::C,
    ycsb::D,
    ycsb::E,
    ycsb::F,
    db_bench::FILLSEQ,
    db_bench::FILLRANDOM,
    db_bench::OVERWRITE,
    db_bench::READSEQ,
    db_bench::READRANDOM,
    db_bench::READWHILEWRITING,
    db_bench::SEEKRANDOM,
    mixgraph::INFO,
    trace::INFO,
];

const BUILDS: [Build; 21] = [
    twitter_53::build,
    steady_zipf::build,
    |spec, params| Ok(rotating_burst::build(spec, params)),
    noisy_neighbour::build,
    |spec, params| Ok(thundering_hour::build(spec, params)),
    come_and_go::build,
    ycsb::build,
    ycsb::build,
    ycsb::build,
    ycsb::build,
    ycsb::build,
    ycsb::build,
    db_bench::build,
    db_bench::build,
    db_bench::build,
    db_bench::build,
    db_bench::build,
    db_bench::build,
    db_bench::build,
    mixgraph::build,
    trace::build,
];

/// Every scenario there is.
pub fn list() -> &'static [WorkloadInfo] {
    &LIST
}

/// The scenario of this name.
///
/// # Errors
///
/// [`SpecError::UnknownWorkload`] with the names there are.
pub fn find(name: &str) -> Result<&'static WorkloadInfo, SpecError> {
    list().iter().find(|info| info.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> SpecError {
    let allowed = list().iter().map(|info| info.name).collect();
    SpecError::UnknownWorkload { name: name.to_owned(), allowed }
}

impl WorkloadInfo {
    /// Refuses a parameter that the scenario does not have and a number out of its bounds.
    ///
    /// # Errors
    ///
    /// [`SpecError::UnknownParam`], [`SpecError::OutOfBounds`] or [`SpecError::NotWhole`].
    pub fn check_params(&self, params: &BTreeMap<String, f64>) -> Result<(), SpecError> {
        for (name, value) in params {
            let info = self.params.iter().find(|p| p.name == name).ok_or_else(|| {
                let allowed = self.params.iter().map(|p| p.name).collect();
                SpecError::UnknownParam { workload: self.name, name: name.clone(), allowed }
            })?;
            check_bounds(name, *value, info.min, info.max)?;
            if info.unit != Unit::Ratio && value.fract() != 0.0 {
                return Err(SpecError::NotWhole { key: name.clone(), value: *value });
            }
        }
        Ok(())
    }
}

/// What a scenario makes of a description.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) tenants: Vec<TenantProfile>,
    pub(crate) picker: Picker,
    pub(crate) asks: Asks,
    pub(crate) sine: Option<Sine>,
    pub(crate) value_sizes: ValueSizes,
    /// Of the order in which keys lie, where the load puts only the first of them.
    pub(crate) order_seed: Option<u64>,
    pub(crate) flat_out: Option<FlatOut>,
    pub(crate) churn: Option<Churn>,
}

impl Setup {
    /// All there is to a scenario whose tenants take turns in one stream.
    fn new(tenants: Vec<TenantProfile>, picker: Picker, mix: Mix) -> Self {
        Self::of(tenants, picker, Asks::Mix(mix))
    }

    fn of(tenants: Vec<TenantProfile>, picker: Picker, asks: Asks) -> Self {
        Self {
            tenants,
            picker,
            asks,
            sine: None,
            value_sizes: ValueSizes::default(),
            order_seed: None,
            flat_out: None,
            churn: None,
        }
    }
}

/// What tenants ask for.
#[derive(Clone, Debug)]
pub(crate) enum Asks {
    /// Writes by each tenant's fraction, then by ratios.
    Mix(Mix),
    /// All by the script of a benchmark.
    Script(Script),
}

/// A rate that goes up and down around its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sine {
    /// The highest rate above the mean, over the mean.
    pub(crate) ratio: f64,
    /// Radians in a second.
    pub(crate) radians_per_s: f64,
}

impl Sine {
    /// What a gap is multiplied by at this time.
    pub(crate) fn gap_ratio(&self, at_ns: u64) -> f64 {
        let angle = to_f64(at_ns) / 1e9 * self.radians_per_s;
        1.0 / (1.0 + self.ratio * libm::sin(angle))
    }
}

/// Which operations stand for a write and for a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) delete_ratio: f64,
    pub(crate) scan_ratio: f64,
    pub(crate) scan_limit: u32,
}

/// Who asks next, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick {
    pub(crate) tenant: u32,
    /// Stretches the gap before this operation in an open loop; 1 on average.
    pub(crate) pace: f64,
    /// A put, whatever the tenant's write fraction.
    pub(crate) put_only: bool,
}

impl Pick {
    fn steady(tenant: u32) -> Self {
        Self { tenant, pace: 1.0, put_only: false }
    }
}

/// Draws who asks next.
#[derive(Clone, Debug)]
pub(crate) enum Picker {
    /// One tenant alone.
    One(u32),
    Weighted(AliasTable),
    RotatingBurst(RotatingBurst),
    ThunderingHour(ThunderingHour),
}

impl Picker {
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Pick {
        match self {
            Self::One(tenant) => Pick::steady(*tenant),
            Self::Weighted(table) => Pick::steady(table.sample(rng)),
            Self::RotatingBurst(burst) => burst.next(rng),
            Self::ThunderingHour(hour) => hour.next(rng),
        }
    }

    fn weighted(tenants: &[TenantProfile]) -> Result<Self, SpecError> {
        let weights: Vec<u64> = tenants.iter().map(|t| t.weight).collect();
        Ok(Self::Weighted(AliasTable::new(&weights)?))
    }
}

/// Builds the scenario that a checked description names.
pub(crate) fn build(spec: &WorkloadSpec) -> Result<Setup, SpecError> {
    let info = find(&spec.name)?;
    let params = Params::new(info, &spec.params);
    for (other, build) in LIST.iter().zip(BUILDS) {
        if other.name == info.name {
            return build(spec, &params);
        }
    }
    Err(unknown(&spec.name))
}

/// The sizes of one kind of tenant, before its keys are counted.
#[derive(Clone, Copy, Debug)]
struct Shape {
    key_bytes: u32,
    value_bytes: u32,
    write_fraction: f64,
    alpha: f64,
    /// Data of the tenant over its even share of the budget.
    data_share: f64,
    key_count_min: u64,
}

impl Shape {
    /// A tenant of this shape: its keys fill `data_share` even shares of the budget.
    fn tenant(&self, spec: &WorkloadSpec, number: u32, role: &str, weight: u64) -> TenantProfile {
        let entry_bytes = f64::from(self.key_bytes) + f64::from(self.value_bytes);
        let data_bytes = self.data_share * even_share_bytes(spec);
        let key_count = floor_u64(data_bytes / entry_bytes).max(self.key_count_min);
        TenantProfile {
            name: format!("t{number:04}-{role}"),
            class: Class::Warm,
            key_bytes: key_len(self.key_bytes, key_count),
            value_bytes: self.value_bytes,
            key_count,
            loaded_count: key_count,
            write_fraction: self.write_fraction,
            alpha: self.alpha,
            weight,
        }
    }
}

/// The budget over the number of tenants.
fn even_share_bytes(spec: &WorkloadSpec) -> f64 {
    to_f64(spec.budget_bytes) / f64::from(spec.tenant_count.max(1))
}
