//! Every write goes on: what a flush policy does to memory when nothing holds writers back.

use super::{Entry, StallPolicy};
use crate::policy::PolicyInfo;
use crate::policy::view::{Admission, WriteView};

pub(super) const ENTRY: Entry = Entry {
    info: PolicyInfo {
        name: "none",
        id: "S0",
        source: "a floor",
        params: &[],
        known_defects: &["memtables may exceed the budget, and L0 and WAL grow without bound"],
    },
    build: |_| Box::new(NoStall),
};

#[derive(Clone, Debug)]
struct NoStall;

impl StallPolicy for NoStall {
    fn decide(&mut self, _: &WriteView) -> Admission {
        Admission::Admit
    }

    fn clone_box(&self) -> Box<dyn StallPolicy> {
        Box::new(self.clone())
    }
}
