//! How many states of each crash are judged, and crashes within recoveries, one after another.

use super::{CREATION_POINTS, Draw, Scenario};

/// States of a crash that are judged where they differ.
const STATES: [u32; 12] = [1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 6, 16];

/// Of a hundred recoveries that meet a crash, those that meet up to five.
const NESTED_PERCENT: u64 = 25;

/// Most crashes one after another before a recovery ends.
const NESTED_MAX: usize = 5;

impl Draw {
    /// Draws both for each phase.
    pub(super) fn crashes(&mut self, scenario: &mut Scenario) {
        if !scenario.creation_crashes.is_empty() && self.percent(NESTED_PERCENT) {
            let more = self.below(4);
            scenario.creation_crashes.extend((0..more).map(|_| self.crash(CREATION_POINTS)));
            scenario.creation_crashes.truncate(NESTED_MAX);
        }
        for phase in &mut scenario.phases {
            phase.crash_states = self.pick(&STATES, 1);
            if !phase.recovery_crashes.is_empty() && self.percent(NESTED_PERCENT) {
                for _ in 0..self.below(4) {
                    let crash = self.crash(60);
                    phase.recovery_crashes.push(crash);
                }
                phase.recovery_crashes.truncate(NESTED_MAX);
            }
        }
    }
}
