//! The resolved settings of one arm: every key of files and of `-s`, with its value.
//!
//! The engine's options keep their own list of keys; the keys here are those of the workload, the
//! device, the stop rule and the measuring. [`Config::set`] is the only way in, [`Config::entries`]
//! the only way out, so that printing, hashing and storing can never disagree with what runs.

mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_engine::options::{KEYS, Options};
use forebay_engine::types::Nanos;
use forebay_sim::disk::device::DeviceSpec;
use forebay_workloads::{Arrival, Pacing, Trace, WorkloadSpec};
use xxhash_rust::xxh3::xxh3_64;

use crate::number::{Thousandths, from_f64};
use crate::record::Param;

pub use keys::{DEVICE_KEYS, OWN_KEYS, OwnKey};

/// What is wrong with a setting, in one line without a place.
pub type Refused = String;

/// Whose branches are forked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForkParents {
    /// Any tenant's, each as likely.
    #[default]
    Random,
    /// Those of the tenant that is asked most.
    Hot,
}

impl ForkParents {
    /// Both, by the words of files.
    pub const NAMED: [(&'static str, Self); 2] = [("random", Self::Random), ("hot", Self::Hot)];

    /// The word of files.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, parents)| *parents == self).map_or("", |(name, _)| name)
    }
}

/// Everything that decides what a run does, but for its seed and its world.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The engine's options.
    pub options: Options,
    /// The scenario.
    pub workload: String,
    /// Parameters of the scenario that differ from their defaults.
    pub workload_params: BTreeMap<String, f64>,
    /// Tenants.
    pub tenant_count: u64,
    /// Operations that arrive each second; 0 is a closed loop.
    pub offered_ops_per_s: u64,
    /// Clients of a closed loop.
    pub client_count: u64,
    /// Tasks that share the arrivals of an open loop; 0 is 1 in a simulation and 4 on a real disk.
    pub lane_count: u64,
    /// The device's preset.
    pub device: String,
    /// The device's bandwidth is divided by this.
    pub device_scale: u64,
    /// Values that replace the preset's, before it is scaled.
    pub device_values: BTreeMap<&'static str, u64>,
    /// Virtual cores.
    pub core_count: u64,
    /// Modelled CPU costs times this.
    pub cpu_cost_multiplier: u64,
    /// Budgets of user bytes to write; 0 is no end by bytes.
    pub fill_count: u64,
    /// Of them, those that are not measured.
    pub warmup_fill_count: u64,
    /// Time from the start that is not measured, though the fills of the warm-up be over.
    pub warmup_duration_ns: Nanos,
    /// Operations after which a run ends; 0 is no end by operations.
    pub op_count: u64,
    /// Time after which a run ends; 0 is no end by time.
    pub duration_ns: Nanos,
    /// Above 0 a run has two phases, each with its own warm-up and end: a closed loop that finds the
    /// maximum, then arrivals at this share of it, in percent. Only the second is measured.
    pub two_phase_percent: u64,
    /// Path of the file that the workload `trace` replays; empty for no file.
    pub workload_file: String,
    /// What is in that file.
    pub trace: Option<Arc<Trace>>,
    /// Hash of that file's bytes, 16 hex digits.
    pub trace_digest: String,
    /// Whether a write is on the disk when it is acknowledged: 1 for yes.
    pub sync_writes: u64,
    /// Time between two samples of the series; 0 is a twentieth of a fill.
    pub sample_interval_ns: Nanos,
    /// Whether answers are compared with a reference model: 1 for yes.
    pub check: u64,
    /// Whether visitors move out, into directories of their own, before they are dropped: 1 for yes.
    pub visitor_moves: u64,
    /// Time between two forks of branches; 0 is none.
    pub fork_interval_ns: Nanos,
    /// Whose branches are forked.
    pub fork_parents: ForkParents,
    /// Forks that are there at a time; the oldest are dropped.
    pub fork_live_max: u64,
    /// How deep forks of forks go before the next is one of `main` again.
    pub fork_depth: u64,
    /// Of a hundred puts to a tenant with forks, those that go to a fork.
    pub fork_write_percent: u64,
}

/// The text that [`Config::set`] takes.
impl core::fmt::Display for Param {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Switch(switch) => switch.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            options: Options::default(),
            workload: String::new(),
            workload_params: BTreeMap::new(),
            tenant_count: 0,
            offered_ops_per_s: 0,
            client_count: 0,
            lane_count: 0,
            device: String::new(),
            device_scale: 1,
            device_values: BTreeMap::new(),
            core_count: 0,
            cpu_cost_multiplier: 0,
            fill_count: 0,
            warmup_fill_count: 0,
            warmup_duration_ns: 0,
            op_count: 0,
            duration_ns: 0,
            two_phase_percent: 0,
            workload_file: String::new(),
            trace: None,
            sync_writes: 0,
            trace_digest: String::new(),
            sample_interval_ns: 0,
            check: 0,
            visitor_moves: 0,
            fork_interval_ns: 0,
            fork_parents: ForkParents::default(),
            fork_live_max: 0,
            fork_depth: 0,
            fork_write_percent: 0,
        };
        for key in OWN_KEYS {
            // The defaults in the list are within the bounds beside them: a test.
            (key.set)(&mut config, key, key.default).unwrap_or_default();
        }
        config
    }
}

impl Config {
    /// Sets one key from text.
    ///
    /// # Errors
    ///
    /// One line: for an unknown key all there are, for a value what is allowed. Nothing was
    /// changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        if let Some(own) = OWN_KEYS.iter().find(|own| own.name == key) {
            return (own.set)(self, own, value);
        }
        if let Some(name) = key.strip_prefix("device.") {
            return keys::set_device(self, name, value);
        }
        if let Some(name) = key.strip_prefix("workload.") {
            let number = keys::fraction(key, value)?;
            self.workload_params.insert(name.to_owned(), number);
            return Ok(());
        }
        let policy = ["flush.", "stall.", "compaction."].iter().any(|kind| key.starts_with(kind));
        if policy || KEYS.iter().any(|info| info.name == key) {
            return self.options.set(key, value).map_err(|error| plain(&error));
        }
        Err(format!("unknown key {key:?}; allowed: {}", key_names().join(", ")))
    }

    /// Every key with its value, in the order in which keys are printed: the engine's options, its
    /// policies' parameters, then the rest.
    pub fn entries(&self) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        let mut push = |key: &str, value: String| entries.push((key.to_owned(), value));
        for info in KEYS {
            push(info.name, self.options.get(info.name).unwrap_or_default());
        }
        for (key, value) in &self.options.policy_params {
            push(key, value.to_string());
        }
        for own in OWN_KEYS {
            let value = (own.get)(self);
            if !(keys::ABSENT_AT_DEFAULT.contains(&own.name) && value == own.default) {
                push(own.name, value);
            }
        }
        for (key, value) in &self.device_values {
            push(&format!("device.{key}"), value.to_string());
        }
        for (key, value) in &self.workload_params {
            push(&format!("workload.{key}"), value.to_string());
        }
        entries
    }

    /// The entries as a row stores them.
    pub fn params(&self) -> BTreeMap<String, Param> {
        self.entries().into_iter().map(|(key, value)| (key, param(&value))).collect()
    }

    /// xxh3 over all entries and over what is in the file of a trace, 16 hex digits.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.entries() {
            text.push_str(&key);
            text.push('=');
            text.push_str(&value);
            text.push('\n');
        }
        text.push_str(&self.trace_digest);
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }

    /// The workload with this seed.
    pub fn workload_spec(&self, seed: u64) -> WorkloadSpec {
        let arrival = match self.offered_ops_per_s {
            0 => Arrival::Closed,
            ops_per_s => Arrival::Open { ops_per_s, pacing: Pacing::Poisson, on_off: None },
        };
        WorkloadSpec {
            tenant_count: u32::try_from(self.tenant_count).unwrap_or(u32::MAX),
            budget_bytes: self.options.budget_bytes,
            seed,
            arrival,
            params: self.workload_params.clone(),
            trace: self.trace.clone(),
            ..WorkloadSpec::named(&self.workload)
        }
    }

    /// The device at full size: the preset with the values that replace the preset's.
    pub fn device_full(&self) -> DeviceSpec {
        let mut spec = DeviceSpec::preset(&self.device).unwrap_or(DeviceSpec::NONE);
        for (name, value) in &self.device_values {
            if let Some(key) = DEVICE_KEYS.iter().find(|key| key.name == *name) {
                (key.set)(&mut spec, *value);
            }
        }
        // Blocks and pages do not shrink with the machine: a read of one pays latency alone.
        DeviceSpec { read_pays_latency_only: true, ..spec }
    }

    /// The device as run.
    pub fn device_spec(&self) -> DeviceSpec {
        self.device_full().scaled(self.device_scale)
    }

    /// Refuses values that do not go together.
    ///
    /// # Errors
    ///
    /// One line that names the keys. Nothing was changed.
    pub fn validate(&self) -> Result<(), Refused> {
        self.options.validate().map_err(|error| plain(&error))?;
        self.workload_spec(0).check().map_err(|error| error.to_string())?;
        self.validate_phases()?;
        let endless = self.trace.is_none();
        if endless && self.fill_count == 0 && self.op_count == 0 && self.duration_ns == 0 {
            return Err("nothing ends a run: set fill_count, op_count or duration_ns".to_owned());
        }
        if self.fill_count > 0 && self.warmup_fill_count >= self.fill_count {
            return Err(format!(
                "warmup_fill_count = {} leaves nothing of fill_count = {} to measure",
                self.warmup_fill_count, self.fill_count
            ));
        }
        if self.duration_ns > 0 && self.warmup_duration_ns >= self.duration_ns {
            return Err(format!(
                "warmup_duration_ns = {} leaves nothing of duration_ns = {} to measure",
                self.warmup_duration_ns, self.duration_ns
            ));
        }
        Ok(())
    }
}

impl Config {
    fn validate_phases(&self) -> Result<(), Refused> {
        if self.two_phase_percent == 0 {
            return Ok(());
        }
        let clients = self.workload_params.get("aggressor_client_count").copied().unwrap_or(0.0);
        let refused = |what: &str| Err(format!("two_phase_percent does not go with {what}"));
        if self.offered_ops_per_s > 0 {
            return refused("offered_ops_per_s: the first phase finds the rate");
        }
        if self.fork_interval_ns > 0 {
            return refused(
                "fork_interval_ns: forks of the first phase would be there in the second",
            );
        }
        if ["come-and-go", "trace"].contains(&self.workload.as_str()) || clients > 0.0 {
            return refused(
                "a workload that has visitors, a tenant flat out, or an end of its own",
            );
        }
        Ok(())
    }
}

/// Every key there is; those with a policy's or a scenario's parameters as patterns.
pub fn key_names() -> Vec<String> {
    let mut names: Vec<String> = KEYS.iter().map(|info| info.name.to_owned()).collect();
    names.extend(OWN_KEYS.iter().map(|own| own.name.to_owned()));
    names.extend(["flush.PARAM", "stall.PARAM", "workload.PARAM"].map(str::to_owned));
    names.extend(DEVICE_KEYS.iter().map(|key| format!("device.{}", key.name)));
    names
}

/// The engine's refusal without its kind: the line that names the key is enough.
fn plain(error: &forebay_engine::Error) -> Refused {
    if let forebay_engine::Error::InvalidArgument(text) = error {
        return text.clone();
    }
    error.to_string()
}

fn param(value: &str) -> Param {
    if let Ok(switch) = value.parse::<bool>() {
        return Param::Switch(switch);
    }
    if let Ok(integer) = value.parse::<u64>() {
        return Param::Integer(integer);
    }
    let thousandths = value.parse::<f64>().ok().and_then(|value| from_f64(value * 1000.0));
    thousandths.map_or_else(|| Param::Text(value.to_owned()), |n| Param::Fraction(Thousandths(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_accepted_and_comes_back() {
        let config = Config::default();
        for own in OWN_KEYS {
            assert_eq!((own.get)(&config), own.default, "{}", own.name);
        }
        let mut copy = Config::default();
        for (key, value) in config.entries() {
            copy.set(&key, &value).unwrap();
        }
        assert_eq!(copy, config);
    }

    #[test]
    fn every_entry_changes_the_hash_and_survives_text() {
        let mut config = Config::default();
        for (key, value) in [
            ("flush.largest.trigger_ratio", "0.5"),
            ("device.sync_ns", "7"),
            ("workload.write_ratio", "0.25"),
            ("tenant_count", "1_000"),
            ("memtable_bytes_max", "256 KiB"),
        ] {
            let before = config.hash();
            config.set(key, value).unwrap();
            assert_ne!(config.hash(), before, "{key}");
        }
        let mut copy = Config::default();
        for (key, value) in config.entries() {
            copy.set(&key, &value).unwrap();
        }
        assert_eq!(copy, config);
        assert_eq!(copy.device_spec().sync_ns, 7);
    }

    #[test]
    fn refusals_name_the_key_and_what_is_allowed() {
        let mut config = Config::default();
        let refused =
            |config: &mut Config, key: &str, value: &str| config.set(key, value).unwrap_err();
        assert!(refused(&mut config, "budget", "1").contains("allowed: layout, flush_policy"));
        assert!(refused(&mut config, "device", "tape").contains("nvme, sata-ssd"));
        assert!(refused(&mut config, "device.speed", "1").contains("read_bytes_per_s"));
        assert!(refused(&mut config, "workload", "x").contains("twitter-53"));
        assert!(refused(&mut config, "flush_policy", "oldest").contains("oldest-write"));
        assert!(refused(&mut config, "fill_count", "-1").contains("from 0 to"));
        config.set("fill_count", "2").unwrap();
        config.set("warmup_fill_count", "2").unwrap();
        assert!(config.validate().unwrap_err().contains("warmup_fill_count"));
        config.set("warmup_fill_count", "0").unwrap();
        config.set("workload.nonsense", "1").unwrap();
        assert!(config.validate().unwrap_err().contains("nonsense"));
    }
}
