//! The keys that are not the engine's: names, units, bounds, defaults.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use forebay_sim::disk::device::DeviceSpec;
use forebay_workloads::Trace;
use xxhash_rust::xxh3::Xxh3;

use super::{Config, ForkParents, Refused};

const DAY_NS: u64 = 86_400_000_000_000;

/// One key of the workload, the device, the stop rule or the measuring.
#[derive(Clone, Copy, Debug)]
pub struct OwnKey {
    /// Its name in files and on the command line.
    pub name: &'static str,
    /// `count`, `ns`, `ratio` or `name`.
    pub unit: &'static str,
    /// The value where none is given.
    pub default: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    pub(super) bounds: (u64, u64),
    pub(super) set: fn(&mut Config, &OwnKey, &str) -> Result<(), Refused>,
    pub(super) get: fn(&Config) -> String,
}

/// One value of a device that an experiment may replace.
#[derive(Clone, Copy, Debug)]
pub struct DeviceKey {
    /// Its name; the key is `device.` and this.
    pub name: &'static str,
    pub(super) set: fn(&mut DeviceSpec, u64),
}

macro_rules! counted {
    ($name:ident, $unit:literal, $default:literal, $bounds:expr, $about:literal) => {
        OwnKey {
            name: stringify!($name),
            unit: $unit,
            default: $default,
            about: $about,
            bounds: $bounds,
            set: |config, key, text| {
                config.$name = whole(key.name, text, key.bounds)?;
                Ok(())
            },
            get: |config| config.$name.to_string(),
        }
    };
}

/// Every key that is not the engine's, in the order in which it is printed.
#[rustfmt::skip]
pub const OWN_KEYS: &[OwnKey] = &[
    OwnKey {
        name: "workload", unit: "name", default: "steady-zipf", bounds: (0, 0),
        about: "the scenario",
        set: set_workload, get: |config| config.workload.clone(),
    },
    counted!(tenant_count, "count", "100", (1, 1_000_000), "tenants"),
    counted!(offered_ops_per_s, "count", "0", (0, 1_000_000_000),
        "operations that arrive each second, answered or not; 0 = a closed loop"),
    counted!(client_count, "count", "16", (1, 100_000), "clients of a closed loop"),
    counted!(lane_count, "count", "0", (0, 64),
        "tasks that share the arrivals; 0 = 1 in a simulation, 4 on a real disk"),
    OwnKey {
        name: "device", unit: "name", default: "nvme", bounds: (0, 0),
        about: "the preset of the modelled device",
        set: set_preset, get: |config| config.device.clone(),
    },
    counted!(device_scale, "count", "1", (1, 1_000_000_000),
        "what the device's bandwidth is divided by; latency and IOPS are not"),
    counted!(core_count, "count", "8", (1, 1_024), "virtual cores"),
    counted!(cpu_cost_multiplier, "count", "1", (0, 1_000), "modelled CPU costs times this"),
    counted!(fill_count, "count", "4", (0, 1_000_000),
        "budgets of user bytes to write; 0 = no end by bytes"),
    counted!(warmup_fill_count, "count", "1", (0, 1_000_000), "of them, those not measured"),
    counted!(warmup_duration_ns, "ns", "0", (0, DAY_NS * 365),
        "time from the start that is not measured"),
    counted!(op_count, "count", "0", (0, u64::MAX), "operations that end a run; 0 = no end by them"),
    counted!(duration_ns, "ns", "0", (0, DAY_NS * 365), "time that ends a run; 0 = no end by time"),
    counted!(two_phase_percent, "count", "0", (0, 1_000),
        "a closed loop finds the maximum, then arrivals at this share of it; 0 = one phase"),
    OwnKey {
        name: "workload_file", unit: "name", default: "", bounds: (0, 0),
        about: "the recorded operations that the workload trace replays",
        set: set_workload_file, get: |config| config.workload_file.clone(),
    },
    counted!(sync_writes, "count", "0", (0, 1),
        "1 = a write is on the disk when it is acknowledged; those acknowledged together share a sync"),
    counted!(sample_interval_ns, "ns", "0", (0, DAY_NS),
        "time between two samples; 0 = a twentieth of a fill in an open loop, else 1 s"),
    counted!(check, "count", "0", (0, 1), "1 = answers are compared with a reference model"),
    counted!(visitor_moves, "count", "0", (0, 1),
        "1 = a tenant that comes and goes is copied into a directory of its own before it goes"),
    counted!(fork_interval_ns, "ns", "0", (0, DAY_NS),
        "time between two forks, whatever became of those before; 0 = none"),
    OwnKey {
        name: "fork_parents", unit: "name", default: "random", bounds: (0, 0),
        about: "whose branches are forked: any tenant's (random), the one's asked most (hot)",
        set: set_fork_parents, get: |config| config.fork_parents.name().to_owned(),
    },
    counted!(fork_live_max, "count", "100", (1, 100_000),
        "forks that are there at a time; the oldest are dropped"),
    counted!(fork_depth, "count", "1", (1, 10_000),
        "how deep forks of forks go before the next is one of main again"),
    counted!(fork_write_percent, "count", "50", (0, 100),
        "of a hundred puts to a tenant with forks, those that go to one of them"),
];

/// The values of a device that may be replaced, at full size.
pub const DEVICE_KEYS: &[DeviceKey] = &[
    DeviceKey { name: "read_bytes_per_s", set: |spec, value| spec.read_bytes_per_s = value },
    DeviceKey { name: "write_bytes_per_s", set: |spec, value| spec.write_bytes_per_s = value },
    DeviceKey { name: "read_ns", set: |spec, value| spec.read_ns = value },
    DeviceKey { name: "write_ns", set: |spec, value| spec.write_ns = value },
    DeviceKey { name: "sync_ns", set: |spec, value| spec.sync_ns = value },
    DeviceKey { name: "iops", set: |spec, value| spec.iops = value },
    DeviceKey { name: "depth", set: |spec, value| spec.depth = value },
    DeviceKey { name: "writeback_bytes", set: |spec, value| spec.writeback_bytes = value },
    DeviceKey { name: "chunk_bytes", set: |spec, value| spec.chunk_bytes = value },
    DeviceKey { name: FIFO, set: |spec, value| spec.fifo_only = value > 0 },
];

/// 1 where requests are served in the order of their arrival, whoever asks; else by class.
const FIFO: &str = "fifo";

fn set_workload(config: &mut Config, _: &OwnKey, text: &str) -> Result<(), Refused> {
    forebay_workloads::library::find(text).map_err(|error| error.to_string())?;
    text.clone_into(&mut config.workload);
    Ok(())
}

/// Keys that are not told where they have their default: rows from before there were such keys have
/// the configuration, and the hash, of rows without them.
pub(super) const ABSENT_AT_DEFAULT: [&str; 4] =
    ["two_phase_percent", "workload_file", "visitor_moves", "sync_writes"];

/// Reads the file: what a configuration does must not change while it runs.
fn set_workload_file(config: &mut Config, key: &OwnKey, path: &str) -> Result<(), Refused> {
    let (trace, digest) = if path == key.default {
        (None, String::new())
    } else {
        let (trace, digest) = trace_file(path).map_err(|what| format!("{}: {what}", key.name))?;
        (Some(trace), digest)
    };
    (config.trace, config.trace_digest) = (trace, digest);
    path.clone_into(&mut config.workload_file);
    Ok(())
}

#[expect(clippy::disallowed_types, reason = "a command's input, which no run of an engine reads")]
fn trace_file(path: &str) -> Result<(Arc<Trace>, String), String> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path:?}: {error}"))?;
    let mut hashed = Hashed { file: BufReader::new(file), hash: Xxh3::new() };
    let trace = Trace::read(&mut hashed).map_err(|error| format!("{path:?}: {error}"))?;
    Ok((Arc::new(trace), format!("{:016x}", hashed.hash.digest())))
}

/// A reader that hashes what is read.
struct Hashed<R> {
    file: R,
    hash: Xxh3,
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(into)?;
        self.hash.update(into.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed was given by the last call of `fill_buf`, and is still there.
        if let Ok(bytes) = self.file.fill_buf() {
            self.hash.update(bytes.get(..count).unwrap_or_default());
        }
        self.file.consume(count);
    }
}

fn set_preset(config: &mut Config, _: &OwnKey, text: &str) -> Result<(), Refused> {
    if DeviceSpec::preset(text).is_none() {
        let names = DeviceSpec::NAMES.join(", ");
        return Err(format!("device {text:?} does not exist; allowed: {names}"));
    }
    text.clone_into(&mut config.device);
    Ok(())
}

fn set_fork_parents(config: &mut Config, _: &OwnKey, text: &str) -> Result<(), Refused> {
    let named = ForkParents::NAMED.iter().find(|(name, _)| *name == text);
    let refused = || format!("fork_parents {text:?} does not exist; allowed: random, hot");
    config.fork_parents = named.ok_or_else(refused)?.1;
    Ok(())
}

pub(super) fn set_device(config: &mut Config, name: &str, text: &str) -> Result<(), Refused> {
    let Some(key) = DEVICE_KEYS.iter().find(|key| key.name == name) else {
        let names: Vec<&str> = DEVICE_KEYS.iter().map(|key| key.name).collect();
        return Err(format!("a device has no {name:?}; allowed: {}", names.join(", ")));
    };
    let bounds = if name == FIFO { (0, 1) } else { (0, u64::MAX) };
    let value = whole(&format!("device.{name}"), text, bounds)?;
    if value == 0 && ["depth", "chunk_bytes"].contains(&key.name) {
        return Err(format!("device.{name} = 0 is not a whole number from 1"));
    }
    config.device_values.insert(key.name, value);
    Ok(())
}

pub(super) fn fraction(key: &str, text: &str) -> Result<f64, Refused> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("{key} = {text:?} is not a number"))
}

fn whole(key: &str, text: &str, bounds: (u64, u64)) -> Result<u64, Refused> {
    let digits: String = text.chars().filter(|letter| *letter != '_').collect();
    let number = digits.parse::<u64>().ok().filter(|n| (bounds.0..=bounds.1).contains(n));
    number.ok_or_else(|| {
        format!("{key} = {text:?} is not a whole number from {} to {}", bounds.0, bounds.1)
    })
}
