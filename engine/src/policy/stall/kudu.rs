//! Kudu's soft memory limit: the fuller memory is, the more writes are turned away.
//!
//! Above a soft limit a write is rejected with a probability that rises from 0 there to 1 at the
//! hard limit. Chance spreads rejections over tenants by how often they ask, and no queue forms.
//!
//! # Source
//!
//! `MemTracker::SoftLimitExceeded` and `TabletReplica`'s use of it in apache/kudu (commit 22028a2).
//! Departures: a rejection is Kudu's client trying again after a back-off that doubles, so it is a
//! delay here; a write that was turned away for long enough, where Kudu's client gives up with an
//! error, goes on as soon as it fits; the stops of `hard` hold.

use super::{Entry, StallPolicy, hard};
use crate::policy::view::{Admission, StallCause, WriteView};
use crate::policy::{ParamInfo, Params, PolicyInfo, Ratio};
use crate::types::Nanos;

const SOFT: ParamInfo = ParamInfo {
    name: "soft_ratio",
    min: 0.0,
    max: 1.0,
    default: 0.8,
    about: "the part of the budget above which writes are rejected by chance",
};

const BACKOFF: ParamInfo = ParamInfo {
    name: "backoff_ns",
    min: 1.0,
    max: 1e10,
    default: 1e7,
    about: "how long a client waits after its write's first rejection; twice as long each time",
};

const DELAY_MAX: ParamInfo = ParamInfo {
    name: "delay_max_ns",
    min: 1.0,
    max: 6e10,
    default: 1e9,
    about: "how long a write is turned away at most",
};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "kudu",
        id: "S6",
        source: "Kudu",
        params: &[SOFT, BACKOFF, DELAY_MAX],
        known_defects: &[],
    },
    build: |params| Box::new(Kudu::new(params)),
};

#[derive(Clone, Debug)]
struct Kudu {
    soft: Ratio,
    backoff_ns: Nanos,
    delay_max_ns: Nanos,
}

impl Kudu {
    fn new(params: &Params<'_>) -> Self {
        Self {
            soft: params.ratio(SOFT.name),
            backoff_ns: params.whole(BACKOFF.name),
            delay_max_ns: params.whole(DELAY_MAX.name),
        }
    }

    fn is_rejected(&self, view: &WriteView) -> bool {
        let soft = self.soft.of(view.budget_bytes);
        let above = view.used_bytes.saturating_sub(soft);
        let gap = view.budget_bytes.saturating_sub(soft);
        // draw / 2^64 < above / gap
        above > 0 && u128::from(view.draw) * u128::from(gap) < u128::from(above) << 64
    }
}

impl StallPolicy for Kudu {
    fn decide(&mut self, view: &WriteView) -> Admission {
        if let Some(cause) = hard::stop(view) {
            return Admission::Stop { cause, by: view.tree };
        }
        let left = self.delay_max_ns.saturating_sub(view.delayed_ns);
        if left == 0 || !self.is_rejected(view) {
            return Admission::Admit;
        }
        let delay_ns = self.backoff_ns.max(view.delayed_ns).min(left);
        Admission::Delay { delay_ns, cause: StallCause::Budget, by: view.tree }
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
