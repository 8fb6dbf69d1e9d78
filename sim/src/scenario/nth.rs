//! One fault at one call, by its number: data, so that a failure of the sweep replays and shrinks.

use serde::{Deserialize, Serialize};

use super::{Crash, CrashKind};
use crate::fault::Fault;

/// In which part of a phase calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NthPart {
    /// While clients work, and while the database is closed behind them.
    Work,
    /// While the database is opened behind the phase.
    Recovery,
}

/// What happens at the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NthWhat {
    /// It meets these faults. Work ends with a look at whether writes are taken, or without one and with
    /// this crash in place of the phase's own end.
    Fault {
        /// The call, from 1 on.
        call: u64,
        /// Each of those that fit it fires.
        faults: Vec<Fault>,
        /// The crash right behind the work.
        #[serde(default)]
        then: Option<CrashKind>,
    },
    /// The process ends at a crash point.
    Crash(Crash),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NthFault {
    /// Where calls are counted.
    pub part: NthPart,
    /// What happens.
    pub what: NthWhat,
}

impl NthFault {
    /// The crash of this part, where there is one.
    pub fn crash(&self, part: NthPart) -> Option<Crash> {
        match &self.what {
            NthWhat::Crash(crash) if self.part == part => Some(*crash),
            NthWhat::Crash(_) | NthWhat::Fault { .. } => None,
        }
    }

    /// The fault of this part, where there is one: its call, its classes, and the crash behind it.
    pub fn fault(&self, part: NthPart) -> Option<(u64, &[Fault], Option<CrashKind>)> {
        match &self.what {
            NthWhat::Fault { call, faults, then } if self.part == part => {
                Some((*call, faults, *then))
            }
            NthWhat::Fault { .. } | NthWhat::Crash(_) => None,
        }
    }
}
