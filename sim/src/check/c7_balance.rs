//! C7 as a balance: what became of every call that was failed.

use crate::ledger::Failure;

use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// C7, asked once faults are over and the background is idle: of every failure that was injected
/// somebody was told (a caller, or a listener), or the call was made good since, or the database says
/// that it must be opened again. `left` are those for which none of it is so.
///
/// # Errors
///
/// C7 for the first failure that vanished.
pub fn c7_balance(counts: &mut RuleCounts, is_degraded: bool, left: &[Failure]) -> Checked {
    counts.count(Rule::C7);
    let Some(failure) = left.first().filter(|_| !is_degraded) else { return Ok(()) };
    let promised = "a failed call is made good, or somebody is told of it";
    let at = failure.offset.map_or_else(String::new, |at| format!(" at byte {at}"));
    let found = format!(
        "{} of {}{}{at} at vt {} vanished{}",
        failure.fault,
        failure.call.map_or_else(String::new, |call| format!("{call} ")),
        failure.path,
        seconds(failure.at),
        if left.len() > 1 { format!(", and {} more", left.len() - 1) } else { String::new() }
    );
    broken(Violation::new(Rule::C7, promised, found))
}
