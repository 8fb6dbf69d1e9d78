//! What must hold: rules, the model that knows what was promised, and how often each rule was asked.
//!
//! Every rule is one function named after its number in the fault model. A rule that a run never asked
//! has count 0 in its summary, so that a harness that checks nothing cannot look like one that finds
//! nothing.

pub mod c10_space;
pub mod c7_balance;
pub mod c9_structure;
pub mod closing;
pub mod fairness;
pub mod files;
pub mod forks;
pub mod full_disk;
pub mod growth;
#[cfg(test)]
mod live_tests;
pub mod liveness;
pub mod log_failure;
pub mod model;
pub mod reads;
pub mod recovery;
pub mod sickness;
#[cfg(test)]
mod tests;
pub mod value;

use core::fmt;
use std::collections::BTreeMap;

use forebay_engine::types::Nanos;
use serde::{Deserialize, Serialize};

/// A rule of the fault model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// What is there after recovery is a prefix of the order of writes, batches whole.
    C1,
    /// What was promised durable is there.
    C2,
    /// Every value was written by an operation of that tenant and key.
    C3,
    /// What was deleted or dropped stays gone.
    C4,
    /// A branch is its parent's prefix at its fork and its own writes, whatever is done to either.
    C5,
    /// Damage is loud and local: no wrong bytes, and an error only where a medium was damaged.
    C6,
    /// Errors have causes, and reach a caller.
    C7,
    /// Reads agree with one order of writes; snapshots repeat; scans equal gets.
    C8,
    /// What a database consists of agrees with itself, but for what was damaged.
    C9,
    /// Once all is quiet, the disk holds what is reached and nothing else.
    C10,
    /// Open works after every crash, and opening twice changes nothing.
    C11,
    /// One seed, one trace.
    C12,
    /// What waits ends in time once faults are over.
    L1,
    /// No deadlock, no livelock.
    L2,
    /// A hot tenant starves no cold one, and a cold one pins no log.
    L3,
    /// A full disk is told, does not spin, leaves reads and drops, and ends by itself.
    L4,
    /// A log that failed is left for good, and whoever waited for it is told.
    L5,
    /// A table that cannot be read is its own tenant's trouble.
    L6,
    /// A close ends, whatever stalls; closing twice, or not at all, does no harm.
    L7,
    /// Nothing grows beyond what was declared.
    L8,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 20] = [
        Self::C1,
        Self::C2,
        Self::C3,
        Self::C4,
        Self::C5,
        Self::C6,
        Self::C7,
        Self::C8,
        Self::C9,
        Self::C10,
        Self::C11,
        Self::C12,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L6,
        Self::L7,
        Self::L8,
    ];

    /// The number in the fault model.
    pub fn name(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::C3 => "C3",
            Self::C4 => "C4",
            Self::C5 => "C5",
            Self::C6 => "C6",
            Self::C7 => "C7",
            Self::C8 => "C8",
            Self::C9 => "C9",
            Self::C10 => "C10",
            Self::C11 => "C11",
            Self::C12 => "C12",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::L5 => "L5",
            Self::L6 => "L6",
            Self::L7 => "L7",
            Self::L8 => "L8",
        }
    }

    /// What a break of it means, in a user's words.
    pub fn verdict(self) -> &'static str {
        match self {
            Self::C1 => "not-a-prefix",
            Self::C2 => "acked-write-lost",
            Self::C3 => "foreign-value",
            Self::C4 => "deleted-came-back",
            Self::C5 => "branch-not-independent",
            Self::C6 => "damage-without-cause",
            Self::C7 => "error-not-accounted-for",
            Self::C8 => "wrong-read",
            Self::C9 => "broken-structure",
            Self::C10 => "leaked-file",
            Self::C11 => "open-failed",
            Self::C12 => "not-deterministic",
            Self::L1 => "stuck",
            Self::L2 => "deadlock",
            Self::L3 => "starved",
            Self::L4 => "full-disk-not-borne",
            Self::L5 => "failed-log-trusted",
            Self::L6 => "sickness-spread",
            Self::L7 => "close-stuck",
            Self::L8 => "grew-without-bound",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken rule, with what was promised and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The tenant's name, where one is concerned.
    pub tenant: Option<String>,
    /// The key, where one is concerned.
    pub key: Option<String>,
    /// The sequence number of the promise.
    pub seq: Option<u64>,
    /// Virtual time at which it was found.
    pub at: Nanos,
    /// What had been promised, in one line.
    pub promised: String,
    /// What was found, in one line.
    pub found: String,
    /// Who waits for what, and who holds it or should tell, one line each; empty but where something
    /// is stuck.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
}

impl Violation {
    /// A broken rule that concerns no key in particular.
    pub fn new(rule: Rule, promised: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            rule,
            tenant: None,
            key: None,
            seq: None,
            at: 0,
            promised: promised.into(),
            found: found.into(),
            waits: Vec::new(),
        }
    }

    /// The same, with the graph of who waits for whom.
    #[must_use]
    pub fn waits(mut self, waits: Vec<String>) -> Self {
        self.waits = waits;
        self
    }

    /// The same, about a key of a tenant.
    #[must_use]
    pub fn of(mut self, tenant: usize, key: Option<u32>) -> Self {
        self.tenant = Some(value::tenant_name(tenant));
        self.key = key.map(value::key_text);
        self
    }

    /// The same, about a write.
    #[must_use]
    pub fn seq(mut self, seq: u64) -> Self {
        self.seq = Some(seq);
        self
    }

    /// The same, found at this time.
    #[must_use]
    pub fn at(mut self, at: Nanos) -> Self {
        self.at = at;
        self
    }
}

/// The result of asking a rule.
pub type Checked<T = ()> = Result<T, Box<Violation>>;

/// Ends a check with a broken rule.
pub(crate) fn broken<T>(violation: Violation) -> Checked<T> {
    Err(Box::new(violation))
}

/// How often each rule was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCounts(BTreeMap<Rule, u64>);

impl RuleCounts {
    /// Counts one question.
    pub fn count(&mut self, rule: Rule) {
        self.add(rule, 1);
    }

    /// Counts questions.
    pub fn add(&mut self, rule: Rule, n: u64) {
        *self.0.entry(rule).or_default() += n;
    }

    /// How often a rule was asked.
    pub fn get(&self, rule: Rule) -> u64 {
        self.0.get(&rule).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (rule, n) in &other.0 {
            self.add(*rule, *n);
        }
    }

    /// Every rule with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, u64)> + '_ {
        Rule::ALL.into_iter().map(|rule| (rule, self.get(rule)))
    }
}
