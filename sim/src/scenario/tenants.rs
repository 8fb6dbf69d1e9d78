//! Thousands of tenants that are nearly idle, and a few that are not: what a shared machine looks like.
//!
//! # Source
//!
//! The mix is that of one percent hot tenants with most of all writes; Cao et al., "Characterizing,
//! Modeling, and Benchmarking `RocksDB` Key-Value Workloads at Facebook", FAST 2020, finds column
//! families as uneven.

use forebay_engine::types::{to_u64, to_usize};

use super::{Draw, Op, Scenario, Write};

/// What `-s profile=` takes for seeds with thousands of tenants.
pub const PROFILE: &str = "tenants";

/// Of a hundred writes, those to a hot tenant, and one tenant in so many that is hot.
const HOT_PERCENT: u64 = 70;
const HOT_ONE_IN: usize = 100;

/// Most writes in one batch, and the longest value.
const BATCH_MAX: u64 = 64;
const VALUE_BYTES_MAX: u64 = 200;

/// Most phases, since the whole state is read after each.
const PHASES_MAX: usize = 2;

impl Draw {
    /// Gives a scenario thousands of tenants and spreads its operations over them.
    pub(super) fn many_tenants(&mut self, scenario: &mut Scenario) {
        let tenants: usize = self.pick(&[1000, 1000, 3000, 10_000], 1000);
        scenario.tenants = tenants;
        let groups = 1 + self.below(64);
        let budget: u64 = self.pick(&[512, 1024, 4096], 1024) * 1024;
        let set = [
            ("layout", self.pick(&["per-tenant", "per-tenant", "shared", "grouped"], "shared")),
            ("budget_bytes", &budget.to_string()),
            ("memtable_bytes_max", self.pick(&["2048", "8192", "65536"], "8192")),
            ("wal_segment_bytes", "131072"),
            ("wal_bytes_stop", "0"),
            ("wal_bytes_max", self.pick(&["262144", "1048576"], "262144")),
        ];
        for (key, value) in set {
            let value =
                if value == "grouped" { format!("grouped-{groups}") } else { value.to_owned() };
            scenario.options.retain(|(known, _)| known != key);
            scenario.options.push((key.to_owned(), value));
        }
        scenario.creation_crashes.clear();
        scenario.phases.truncate(PHASES_MAX);
        for phase in &mut scenario.phases {
            // A full disk, and what it was drawn for, are of another size here.
            (phase.crash_states, phase.open_twice, phase.free_bytes) = (1, false, None);
            phase.reopen_options.clear();
            for op in phase.clients.iter_mut().flatten() {
                self.spread_op(op, tenants);
            }
        }
    }

    fn spread_op(&mut self, op: &mut Op, tenants: usize) {
        match op {
            Op::Write { writes, .. } => {
                let count = if self.percent(50) { 1 } else { 1 + self.below(BATCH_MAX) };
                *writes = (0..count).map(|_| self.small_write(tenants)).collect();
            }
            Op::Get { tenant, .. }
            | Op::Scan { tenant, .. }
            | Op::Query { tenant, .. }
            | Op::Compare { tenant, .. }
            | Op::Compact { tenant, .. }
            | Op::Extractor { tenant, .. }
            | Op::Snapshot { tenant }
            | Op::Flush { tenant }
            | Op::Drop { tenant }
            | Op::DropBranch { tenant }
            | Op::Create { tenant, .. }
            | Op::Fork { tenant, .. } => *tenant = self.uneven(tenants),
            Op::Import { .. } | Op::Reread { .. } | Op::Sync | Op::Sleep { .. } => {}
        }
    }

    fn small_write(&mut self, tenants: usize) -> Write {
        let key = u32::try_from(self.below(4)).unwrap_or(0);
        let bytes = u32::try_from(self.below(VALUE_BYTES_MAX)).unwrap_or(0);
        let bytes = (!self.percent(10)).then_some(bytes);
        Write { tenant: self.uneven(tenants), key, bytes }
    }

    fn uneven(&mut self, tenants: usize) -> usize {
        let hot = tenants.div_euclid(HOT_ONE_IN).max(1);
        let of = if self.percent(HOT_PERCENT) { hot } else { tenants };
        to_usize(self.below(to_u64(of)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_writes_go_to_few_of_thousands_and_the_options_hold() {
        let all: Vec<Scenario> = (0..60).map(Scenario::draw_tenants).collect();
        assert!(all.iter().any(|s| s.tenants == 10_000));
        let (mut hot, mut count) = (0, 0);
        for scenario in &all {
            assert_eq!(scenario.engine_options().err(), None);
            for op in scenario.phases.iter().flat_map(|p| p.clients.iter().flatten()) {
                let Op::Write { writes, .. } = op else { continue };
                count += writes.len();
                hot +=
                    writes.iter().filter(|w| w.tenant < scenario.tenants.div_euclid(100)).count();
            }
        }
        assert!(hot * 10 > count * 6 && hot * 10 < count * 9, "{hot} of {count}");
    }
}
