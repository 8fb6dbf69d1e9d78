//! Options that change from one open to the next: what was written under the old ones is read, replayed
//! and compacted under the new ones.

use super::{Draw, Scenario};

/// Of a hundred seeds, those that change options, and of a hundred of their phases.
const SEEDS_PERCENT: u64 = 35;
const PHASES_PERCENT: u64 = 60;

/// What stays: the layout is fixed when a database is created, and operations were drawn for what
/// the budget allows in a batch.
const FIXED: [&str; 2] = ["layout", "budget_bytes"];

/// Of a hundred options, those that change.
const OPTIONS_PERCENT: u64 = 40;

impl Draw {
    /// Draws the options once more for some phases, and takes a share of them.
    pub(super) fn reopen(&mut self, scenario: &mut Scenario) {
        if !self.percent(SEEDS_PERCENT) {
            return;
        }
        for at in 0..scenario.phases.len() {
            if !self.percent(PHASES_PERCENT) {
                continue;
            }
            let (mut drawn, _) = self.options(scenario.tenants);
            drawn.extend(self.packed_options());
            drawn.extend(self.compaction_options());
            drawn.extend(self.table_options());
            drawn.extend(self.history_and_log_options(scenario));
            drawn
                .retain(|(key, _)| !FIXED.contains(&key.as_str()) && self.percent(OPTIONS_PERCENT));
            if let Some(phase) = scenario.phases.get_mut(at) {
                phase.reopen_options = drawn;
            }
            if scenario.engine_options().is_err()
                && let Some(phase) = scenario.phases.get_mut(at)
            {
                // What the rest of the options does not go with is left as it was.
                phase.reopen_options.clear();
            }
        }
    }
}
