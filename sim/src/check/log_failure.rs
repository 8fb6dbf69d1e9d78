//! L5: an append or a sync of the log that failed.

use crate::ledger::LogMisuse;

use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// L5: a segment of which a write or a sync failed is neither written nor synced again: the system
/// may have marked its pages clean, so that no later Ok of it means anything. What follows goes to
/// another segment, or nothing follows.
///
/// # Errors
///
/// L5 where the segment was used again.
pub fn l5_sealed(counts: &mut RuleCounts, misuse: Option<&LogMisuse>) -> Checked {
    counts.count(Rule::L5);
    let Some(LogMisuse { path, failed_at, call, at }) = misuse else { return Ok(()) };
    let promised = format!("{path} is left for good: it failed at vt {}", seconds(*failed_at));
    broken(Violation::new(Rule::L5, promised, format!("{call} at vt {}", seconds(*at))).at(*at))
}

/// L5: a write that was under way in the segment that failed is answered with an error.
///
/// # Errors
///
/// L5 where it was acknowledged.
pub fn l5_told(counts: &mut RuleCounts, is_acked: bool, (first, last): (u64, u64)) -> Checked {
    counts.count(Rule::L5);
    if !is_acked {
        return Ok(());
    }
    let promised = "a write that waits for a log which fails gets the error";
    let found = format!("the write of {first}..={last} was acknowledged");
    broken(Violation::new(Rule::L5, promised, found).seq(first))
}
