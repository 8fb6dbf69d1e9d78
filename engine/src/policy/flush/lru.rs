//! The tree whose last write is oldest goes first, as pages leave a cache.
//!
//! Memory goes to the tenants that write now. A cold tenant with a few bytes is flushed before a
//! hot one with many, so each flush may free little and write a tiny table.
//!
//! # Source
//!
//! The common advice for many tenants in one process; no system read for this project ships it as
//! such. The trigger is the shared one of [`Shortage`].

use super::shortage::{IDLE_FLUSH_NS, Shortage, trigger_ratio};
use super::{Entry, FlushPolicy};
use crate::policy::view::{FlushDecision, FlushView};
use crate::policy::{Params, PolicyInfo};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "lru",
        id: "-",
        source: "common advice for many tenants",
        params: &[trigger_ratio(0.75), IDLE_FLUSH_NS],
        known_defects: &[],
    },
    build: |params| Box::new(Lru::new(params)),
};

#[derive(Clone, Debug)]
struct Lru {
    shortage: Shortage,
}

impl Lru {
    fn new(params: &Params<'_>) -> Self {
        Self { shortage: Shortage::new(params) }
    }
}

impl FlushPolicy for Lru {
    fn decide(&mut self, view: &FlushView) -> FlushDecision {
        self.shortage.decide(view, |_, facts| facts.last_write_ns)
    }

    fn clone_box(&self) -> Box<dyn FlushPolicy> {
        Box::new(self.clone())
    }
}
