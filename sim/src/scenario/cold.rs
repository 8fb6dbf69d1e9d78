//! Scenarios in which cold tenants pin a log that a hot one fills, so that they are logged again.

use super::{Draw, Op, Scenario};

/// Of a hundred seeds, those whose log holds cold entries once more in place of a flush.
const RELOG_PERCENT: u64 = 50;

/// Of a hundred of those, the seeds that are made for it: few others fill their log.
const COLD_PERCENT: u64 = 60;

/// Of a hundred later writes to a cold tenant, those that go to the hot one.
const HOT_PERCENT: u64 = 85;

/// Longest value of a cold tenant, and shortest and longest one of the hot one. A batch of eight
/// of those is within the bytes of a batch.
const COLD_BYTES_MAX: u32 = 200;
const HOT_BYTES_MIN: u64 = 1000;
const HOT_BYTES_MAX: u64 = 3000;

/// Sizes with which a log is full while the memtables of cold tenants are far from it.
const OPTIONS: [(&str, u32); 4] = [
    ("budget_bytes", 256 << 10),
    ("memtable_bytes_max", 64 << 10),
    ("wal_segment_bytes", 32 << 10),
    ("wal_bytes_max", 64 << 10),
];

impl Draw {
    /// Turns re-logging on or leaves it off, and in some seeds makes tenants cold.
    pub(super) fn relog(&mut self, scenario: &mut Scenario) {
        if !self.percent(RELOG_PERCENT) {
            return;
        }
        scenario.options.push(("relog".to_owned(), "true".to_owned()));
        if !self.percent(COLD_PERCENT) {
            return;
        }
        for (key, value) in OPTIONS {
            scenario.options.retain(|(known, _)| known != key);
            scenario.options.push((key.to_owned(), value.to_string()));
        }
        for (_, layout) in scenario.options.iter_mut().filter(|(key, _)| key == "layout") {
            // One tree is never cold.
            if layout == "shared" {
                "per-tenant".clone_into(layout);
            }
        }
        for ops in scenario.phases.iter_mut().flat_map(|phase| &mut phase.clients) {
            let early = ops.len().div_euclid(6);
            for (at, op) in ops.iter_mut().enumerate() {
                let Op::Write { writes, .. } = op else { continue };
                for write in writes {
                    if at > early && self.percent(HOT_PERCENT) {
                        write.tenant = 0;
                    }
                    let drawn = HOT_BYTES_MIN + self.below(HOT_BYTES_MAX - HOT_BYTES_MIN);
                    let hot = u32::try_from(drawn).unwrap_or(COLD_BYTES_MAX);
                    let cold = |bytes: u32| bytes.min(COLD_BYTES_MAX);
                    let of = |bytes| if write.tenant == 0 { hot } else { cold(bytes) };
                    write.bytes = write.bytes.map(of);
                }
            }
        }
    }
}
