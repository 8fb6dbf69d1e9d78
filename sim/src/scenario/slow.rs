//! Phases in which a file, a tree or every sync stands still for up to a minute, clocks that go wrong, and
//! syncs that say Ok and lie.

use super::{Draw, Scenario};

/// Of a hundred phases with faults, those with stalls, and those with a wall clock that goes wrong.
const STALL_PERCENT: u64 = 20;
const CLOCK_PERCENT: u64 = 20;

/// Of a hundred phases with damage, those with syncs that lie, and those with syncs that tell too late.
const LIES_PERCENT: u64 = 25;

/// Chances in a million calls.
const STALLS: [u32; 3] = [1000, 5000, 20_000];
const CLOCKS: [u32; 2] = [20_000, 200_000];
const LIES: [u32; 3] = [5000, 30_000, 150_000];

/// How long a stall lasts at most.
const STALL_NS: [u64; 3] = [1_000_000_000, 10_000_000_000, 60_000_000_000];

impl Draw {
    /// Draws all of them for each phase that has faults.
    pub(super) fn slow_and_late(&mut self, scenario: &mut Scenario) {
        for phase in scenario.phases.iter_mut().filter(|phase| phase.faults_ns > 0) {
            if self.percent(STALL_PERCENT) {
                phase.faults.stall_file = self.rate(50, &STALLS);
                phase.faults.stall_tree = self.rate(50, &STALLS);
                phase.faults.stall_syncs = self.rate(50, &STALLS);
                phase.faults.stall_max_ns = self.pick(&STALL_NS, 1_000_000_000);
                // A stall is worth its name where others go on meanwhile.
                phase.faults_ns = phase.faults_ns.max(phase.faults.stall_max_ns);
            }
            if self.percent(CLOCK_PERCENT) {
                phase.faults.clock_jump = self.rate(60, &CLOCKS);
                phase.faults.clock_frozen = self.rate(40, &CLOCKS);
                phase.faults.clock_step = self.rate(60, &[1_000_000]);
            }
            if phase.faults.damages_media() && self.percent(LIES_PERCENT) {
                phase.faults.sync_lies = self.rate(60, &LIES);
                phase.faults.sync_late = self.rate(60, &LIES);
            }
        }
    }
}
