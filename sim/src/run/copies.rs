//! The states that one crash may leave: the run goes on with one, and others are judged on copies.
//!
//! A state that is the same as one before, byte for byte, is not judged again.

use std::collections::BTreeSet;

use super::Run;
use crate::check::Checked;
use crate::disk::SimDisk;
use crate::scenario::{CrashKind, Phase};

/// Most things pending of which every subset is judged, and most states of one crash.
const UNITS_MAX: u64 = 12;
const STATES_MAX: usize = 4096;

/// Of those, most that are made: many are alike.
const TRIED_MAX: usize = 16 * STATES_MAX;

/// States of a crash that are drawn where all are too many.
const SAMPLES: u32 = 16;

impl Run {
    /// Judges states that a crash may leave of a disk; gives what they are known by. The disk is as before.
    pub(super) fn crash_copies(
        &mut self,
        phase: &Phase,
        kind: CrashKind,
        before: &SimDisk,
    ) -> Checked<BTreeSet<u64>> {
        let mut judged = BTreeSet::new();
        if self.exhaustive && kind == CrashKind::PowerLoss && before.crash_units() <= UNITS_MAX {
            self.crash_into_all(phase, before, &mut judged)?;
            return Ok(judged);
        }
        let drawn = if self.exhaustive { SAMPLES } else { phase.crash_states };
        for _ in 1..drawn {
            self.settle(kind);
            self.judge_copy(phase, kind, &mut judged)?;
            self.restore(before);
        }
        Ok(judged)
    }

    fn crash_into_all(
        &mut self,
        phase: &Phase,
        before: &SimDisk,
        judged: &mut BTreeSet<u64>,
    ) -> Checked {
        let mut states = before.crash_states();
        for (after, _) in states.by_ref().take(TRIED_MAX) {
            if judged.len() >= STATES_MAX {
                break;
            }
            self.sim.settle_on(after);
            self.judge_copy(phase, CrashKind::PowerLoss, judged)?;
        }
        self.crashes_exhausted += u64::from(states.next().is_none());
        self.restore(before);
        Ok(())
    }

    fn judge_copy(
        &mut self,
        phase: &Phase,
        kind: CrashKind,
        judged: &mut BTreeSet<u64>,
    ) -> Checked {
        if !judged.insert(self.sim.disk().fingerprint()) {
            return Ok(());
        }
        self.crash_states += 1;
        self.recover(phase, kind.into(), false)?;
        self.leave();
        Ok(())
    }
}
