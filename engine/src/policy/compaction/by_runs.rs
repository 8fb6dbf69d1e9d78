//! What policies of sorted runs have in common: they keep nothing between decisions, and look for
//! tables with dense or old tombstones where no merge of runs is due.

use core::fmt::Debug;

use super::tombstones::Triggers;
use super::{CompactionPolicy, input_bytes};
use crate::policy::view::{CompactionPlan, LevelsView};
use crate::types::{Nanos, TreeId};

/// Which runs are merged, and how much it is due.
pub(super) trait ByRuns: Clone + Debug + Send + 'static {
    /// How far the number of runs is above where they are due; 0 below.
    fn score(&self, view: &LevelsView) -> u64;

    /// The next merge of runs, where one is due.
    fn plan(&self, view: &LevelsView) -> Option<CompactionPlan>;

    /// What is due for tombstones alone.
    fn tombstones(&self) -> &Triggers;
}

impl<P: ByRuns> CompactionPolicy for P {
    fn decide(&mut self, view: &LevelsView) -> Option<CompactionPlan> {
        self.plan(view).or_else(|| self.tombstones().plan(view))
    }

    fn urgency(&self, view: &LevelsView) -> u64 {
        self.score(view).max(self.tombstones().urgency(view))
    }

    fn wake_at(&self, view: &LevelsView) -> Option<Nanos> {
        self.tombstones().wake_at(view)
    }

    fn pending_bytes(&self, view: &LevelsView) -> u64 {
        self.plan(view).map_or(0, |plan| input_bytes(view, &plan))
    }

    fn forget(&mut self, _tree: TreeId) {}

    fn clone_box(&self) -> Box<dyn CompactionPolicy> {
        Box::new(self.clone())
    }
}
