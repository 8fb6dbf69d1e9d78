//! Progress, open and determinism: L1, L2, C11 and C12.

use forebay_engine::types::Nanos;

use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Virtual time in which everything that waits must end once faults are over.
pub const DEADLINE_NS: Nanos = 120_000_000_000;

/// L1: once faults are over, everything that waits ends within [`DEADLINE_NS`].
///
/// # Errors
///
/// L1 where something still waits; `waiting` names it.
pub fn l1_progress(counts: &mut RuleCounts, ended: bool, what: &str, waiting: &str) -> Checked {
    counts.count(Rule::L1);
    if ended {
        return Ok(());
    }
    let promised = format!("{what} ends within {} virtual s", seconds(DEADLINE_NS));
    broken(Violation::new(Rule::L1, promised, format!("still waiting: {waiting}")))
}

/// L2: while something waits, something can run; and what runs gets somewhere.
///
/// # Errors
///
/// L2 where `stuck` says how it does not.
pub fn l2_running(counts: &mut RuleCounts, stuck: Option<&str>) -> Checked {
    counts.count(Rule::L2);
    match stuck {
        None => Ok(()),
        Some(how) => broken(Violation::new(Rule::L2, "something can run, and gets on", how)),
    }
}

/// C11: after a crash, and no fault since, open works.
///
/// # Errors
///
/// C11 where it returned an error.
pub fn c11_open(counts: &mut RuleCounts, when: &str, error: Option<&str>) -> Checked {
    counts.count(Rule::C11);
    match error {
        None => Ok(()),
        Some(error) => {
            broken(Violation::new(Rule::C11, format!("open works {when}"), error.to_owned()))
        }
    }
}

/// C11: opening once more changes nothing.
///
/// # Errors
///
/// C11 where the two states differ.
pub fn c11_same<T: PartialEq>(counts: &mut RuleCounts, first: &T, again: &T) -> Checked {
    counts.count(Rule::C11);
    if first == again {
        return Ok(());
    }
    broken(Violation::new(Rule::C11, "opening twice changes nothing", "another state"))
}

/// C12: one seed, one trace.
///
/// # Errors
///
/// C12 where the two hashes differ.
pub fn c12_same_trace(counts: &mut RuleCounts, first: u64, again: u64) -> Checked {
    counts.count(Rule::C12);
    if first == again {
        return Ok(());
    }
    let found = format!("trace hashes {first:016x} and {again:016x}");
    broken(Violation::new(Rule::C12, "the same seed gives the same trace", found))
}
