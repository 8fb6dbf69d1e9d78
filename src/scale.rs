//! What a smaller machine keeps of the one that the question is about, and what it does not.
//!
//! When a machine is divided, ratios decide whether its answers hold for the whole: how many times
//! the memory is oversubscribed, how busy the device is, how long a fill takes. Each is computed
//! for both machines; one that differs by more than a factor of two is *broken*, and said to be.

use forebay_engine::options::Options;
use forebay_engine::types::to_u64;
use forebay_sim::cpu::CpuCosts;
use forebay_workloads::{SpecError, Workload};
use serde::Serialize;

use crate::config::Config;
use crate::driver::write_bytes_per_s;
use crate::number::{digits, to_f64};

/// Factor by which a ratio may differ and still hold.
const BROKEN_FACTOR: f64 = 2.0;

/// Calls that wait for the device in one flush, each as long as a sync: table, directory, manifest.
const FLUSH_SYNCS: f64 = 3.0;

/// One ratio on both machines; `None` where a closed loop has no rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaleFact {
    /// What it is.
    pub name: &'static str,
    /// At full size.
    pub full: Option<f64>,
    /// As run.
    pub run: Option<f64>,
    /// Whether the two differ by more than a factor of two.
    pub broken: bool,
}

/// The ratios of an arm's configuration and of the machine it stands for. `write_amplification` is
/// what flushes and compactions wrote over what users wrote, where that is known.
///
/// # Errors
///
/// One of the two configurations makes no workload.
pub fn facts(
    full: &Config,
    run: &Config,
    write_amplification: Option<f64>,
) -> Result<Vec<ScaleFact>, SpecError> {
    let mut full = full.clone();
    if full.offered_ops_per_s == run.offered_ops_per_s {
        // The arrival rate is divided as the device is.
        full.offered_ops_per_s = full_rate(&full, run);
    }
    let amplification = write_amplification.unwrap_or(0.0);
    let both = ratios(&full, amplification)?.into_iter().zip(ratios(run, amplification)?);
    let fact = |((name, full), (_, run)): ((&'static str, f64), (&'static str, f64))| {
        let known = |value: f64| Some(value).filter(|value| value.is_finite());
        let (low, high) = (full.min(run), full.max(run));
        let broken = low.is_finite() && high.is_finite() && high > low * BROKEN_FACTOR;
        ScaleFact { name, full: known(full), run: known(run), broken }
    };
    Ok(both.map(fact).collect())
}

/// The rate of arrivals at full size: the run's, multiplied as the device is.
pub fn full_rate(full: &Config, run: &Config) -> u64 {
    let times = run.device_scale.checked_div(full.device_scale.max(1)).unwrap_or(1);
    run.offered_ops_per_s.saturating_mul(times).min(1_000_000_000)
}

/// The facts as lines of a fixed width below 100 columns, heading first.
pub fn lines(facts: &[ScaleFact]) -> Vec<String> {
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), text);
    let mut lines = vec![format!("{:<44} {:>14} {:>14}", "scale", "full size", "as run")];
    for fact in facts {
        let mark = if fact.broken { "  broken" } else { "" };
        let (full, run) = (shown(fact.full), shown(fact.run));
        lines.push(format!("  {:<42} {full:>14} {run:>14}{mark}", fact.name));
    }
    lines
}

/// Small ratios keep three digits, however small.
fn text(value: f64) -> String {
    if value > 0.0 && value < 0.01 { format!("{value:.2e}") } else { digits(value) }
}

/// Bytes and rates of one machine that its ratios are made of.
struct Machine {
    tenants: f64,
    budget: f64,
    cap: f64,
    data: f64,
    entry: f64,
    reads_per_s: f64,
    writes_per_s: f64,
    bytes_per_s: f64,
}

impl Machine {
    fn new(config: &Config) -> Result<Self, SpecError> {
        let workload = Workload::new(config.workload_spec(0))?;
        let tenants = workload.tenants();
        let weights: f64 = tenants.iter().map(|t| to_f64(t.weight)).sum();
        let writes: f64 = tenants.iter().map(|t| to_f64(t.weight) * t.write_fraction).sum();
        let data: f64 = tenants.iter().map(|t| to_f64(t.key_count) * to_f64(t.entry_bytes())).sum();
        let ops_per_s = to_f64(config.offered_ops_per_s);
        let writes_per_s = ops_per_s * writes / weights;
        Ok(Self {
            tenants: to_f64(to_u64(tenants.len())),
            budget: to_f64(config.options.budget_bytes),
            cap: to_f64(config.options.memtable_bytes_max),
            data,
            entry: data / to_f64(workload.load_op_count()),
            reads_per_s: ops_per_s - writes_per_s,
            writes_per_s,
            bytes_per_s: to_f64(write_bytes_per_s(&workload, config.offered_ops_per_s)),
        })
    }

    /// Bytes of a tenant's memtable where all are of one size.
    fn memtable(&self) -> f64 {
        self.budget / self.tenants
    }
}

fn ratios(config: &Config, amplification: f64) -> Result<Vec<(&'static str, f64)>, SpecError> {
    let machine = Machine::new(config)?;
    let options = &config.options;
    let device = config.device_spec();
    let bandwidth = to_f64(device.write_bytes_per_s);
    let fill_s = match machine.bytes_per_s {
        rate if rate > 0.0 => machine.budget / rate,
        _ => f64::NAN,
    };
    let costs = CpuCosts::default();
    let cpu_ns = machine.writes_per_s * to_f64(costs.write_entry_ns)
        + machine.reads_per_s * to_f64(costs.point_read_ns);
    let share = |value: f64| if machine.bytes_per_s > 0.0 { value } else { f64::NAN };
    let fixed_s = (to_f64(device.write_ns) + FLUSH_SYNCS * to_f64(device.sync_ns)) / 1e9;
    let sync_every_s = to_f64(options.sync_interval_ns) / 1e9;
    let per_s = machine.bytes_per_s * (1.0 + amplification);
    Ok(vec![
        ("tenants n", machine.tenants),
        (
            "n x cap / M: memory asked for over budget",
            machine.tenants * machine.cap / machine.budget,
        ),
        ("R (1 + WA) / B: bytes written over bandwidth", share(per_s / bandwidth)),
        ("M / R: seconds to fill the budget", fill_s),
        ("sync time / fill time", to_f64(device.sync_ns) / 1e9 / fill_s),
        ("sync interval / fill time", sync_every_s / fill_s),
        ("device write-back / M: burst", to_f64(device.writeback_bytes) / machine.budget),
        ("flush: fixed cost / time to write M / n", fixed_s / (machine.memtable() / bandwidth)),
        ("flush chunk / B: ms a log write waits", to_f64(device.chunk_bytes) / bandwidth * 1e3),
        ("entries in M / n", machine.memtable() / machine.entry),
        ("blocks in M / n", machine.memtable() / f64::from(options.block_bytes)),
        ("L / M: data over budget", machine.data / machine.budget),
        ("levels of a tenant's tree", levels(options, machine.data / machine.tenants)),
        ("wal_bytes_max / M", to_f64(options.wal_limit_bytes()) / machine.budget),
        ("WAL segment / M", to_f64(options.wal_segment_bytes) / machine.budget),
        ("writes per sync", share(machine.writes_per_s * sync_every_s)),
        ("IOPS share of uncached reads", share(machine.reads_per_s / to_f64(device.iops))),
        ("CPU share of operations", share(cpu_ns / 1e9 / to_f64(config.core_count))),
        ("cache / L", to_f64(options.block_cache_bytes) / machine.data),
    ])
}

/// Levels below L0 that this many bytes of one tenant take up.
fn levels(options: &Options, bytes: f64) -> f64 {
    let mut target = to_f64(options.level_base_of(1));
    let mut room = target;
    let mut count = 1.0;
    while room < bytes && count < 64.0 {
        target *= f64::from(options.level_ratio);
        room += target;
        count += 1.0;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Experiment, ExperimentFile, Overrides};

    #[test]
    fn the_demo_keeps_what_theory_depends_on_and_names_what_it_breaks() {
        let text = include_str!("../experiments/demo.toml");
        let file = ExperimentFile::parse("demo.toml", text).unwrap();
        let experiment = Experiment::resolve("demo", &file, &Overrides::default()).unwrap();
        let full = experiment.full.clone().unwrap();
        let run = &experiment.baseline_arm().unwrap().config;
        let facts = facts(&full, run, Some(3.0)).unwrap();
        let broken = |start: &str| facts.iter().find(|f| f.name.starts_with(start)).unwrap().broken;
        for kept in ["n x cap", "R (1", "M / R", "L / M", "wal_bytes", "WAL seg", "cache", "sync i"]
        {
            assert!(!broken(kept), "{kept}: {facts:?}");
        }
        for lost in ["tenants", "flush: fixed", "entries", "writes per sync", "CPU"] {
            assert!(broken(lost), "{lost}: {facts:?}");
        }
        assert!(lines(&facts).iter().all(|line| line.chars().count() <= 100));
    }
}
