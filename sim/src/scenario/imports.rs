//! Imports: in some seeds a tenant comes from another directory, with numbers above all that were given.

use forebay_engine::options::Layout;
use forebay_engine::types::{to_u64, to_usize};

use super::{Draw, Op, Phase, Scenario};
use crate::check::value::SHAPED_FIRST;

/// Of a hundred seeds whose layout can import, those that do.
const IMPORT_PERCENT: u64 = 15;

/// Of a hundred operations behind it, those that go to the imported tenant.
const TO_IT_PERCENT: u64 = 35;

/// Keys that come in, at most.
const KEYS_MAX: u64 = 8;

impl Draw {
    /// Lets some seeds import a tenant, and sends a share of what follows to it.
    pub(super) fn add_imports(&mut self, scenario: &mut Scenario) {
        let layout = scenario.engine_options().map(|options| options.layout);
        // What damages the other directory is not known to be damage of this one.
        let damaged =
            |phase: &Phase| phase.faults.damages_media() || phase.recovery_faults.damages_media();
        let can = layout == Ok(Layout::PerTenant) && !scenario.phases.iter().any(damaged);
        if !can || !self.percent(IMPORT_PERCENT) {
            return;
        }
        let tenant = scenario.tenants;
        let is_shaped = scenario.phases.iter().flat_map(|p| p.clients.iter().flatten()).any(shaped);
        let first = if is_shaped { SHAPED_FIRST } else { 0 };
        let count = u32::try_from(1 + self.below(KEYS_MAX)).unwrap_or(1);
        let phase_at = to_usize(self.below(to_u64(scenario.phases.len())));
        let Some(phase) = scenario.phases.get_mut(phase_at) else { return };
        let Some(ops) = phase.clients.first_mut() else { return };
        let at = to_usize(self.below(to_u64(ops.len()) + 1)).div_euclid(2);
        ops.insert(at, Op::Import { tenant, first, count });
        for phase in scenario.phases.iter_mut().skip(phase_at) {
            for op in phase.clients.iter_mut().flatten() {
                op.each_target(|target| {
                    if self.percent(TO_IT_PERCENT) {
                        *target = tenant;
                    }
                });
            }
        }
    }
}

/// Whether an operation names a key that is shaped for prefixes.
fn shaped(op: &Op) -> bool {
    match op {
        Op::Write { writes, .. } => writes.iter().any(|write| write.key >= SHAPED_FIRST),
        Op::Get { key, .. } | Op::Reread { key } => *key >= SHAPED_FIRST,
        Op::Scan { from, .. } => *from >= SHAPED_FIRST,
        Op::Query { .. }
        | Op::Compare { .. }
        | Op::Compact { .. }
        | Op::Snapshot { .. }
        | Op::Extractor { .. }
        | Op::Flush { .. }
        | Op::Sync
        | Op::Drop { .. }
        | Op::DropBranch { .. }
        | Op::Fork { .. }
        | Op::Create { .. }
        | Op::Import { .. }
        | Op::Sleep { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_seeds_imports_and_writes_to_what_came_in() {
        let (mut with, mut written) = (0, 0);
        for seed in 0..400 {
            let scenario = Scenario::draw(seed);
            let ops = || scenario.phases.iter().flat_map(|phase| phase.clients.iter().flatten());
            if !ops().any(|op| matches!(op, Op::Import { .. })) {
                continue;
            }
            with += 1;
            let to_it = |op: &Op| {
                let Op::Write { writes, .. } = op else { return false };
                writes.iter().any(|write| write.tenant == scenario.tenants)
            };
            written += usize::from(ops().any(to_it));
        }
        assert!((10..60).contains(&with), "{with} of 400 seeds import");
        assert!(written * 10 > with * 9, "{written} of {with} write to it");
    }
}
