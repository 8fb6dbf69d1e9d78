//! L7: close, close again, or never.

use super::liveness::DEADLINE_NS;
use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// L7: a close ends within [`DEADLINE_NS`], and so does everything that waited when it was asked.
/// `how` says which close it is: beside stalls, a second one, by dropping all handles.
///
/// # Errors
///
/// L7 where it does not; `waiting` names what still waits.
pub fn l7_closed(counts: &mut RuleCounts, how: &str, ended: bool, waiting: &str) -> Checked {
    counts.count(Rule::L7);
    if ended {
        return Ok(());
    }
    let promised = format!("{how} ends within {} virtual s", seconds(DEADLINE_NS));
    broken(Violation::new(Rule::L7, promised, format!("still waiting: {waiting}")))
}

/// L7: a database that is closed, or whose handles are gone, has given back its lock and its tasks.
///
/// # Errors
///
/// L7 where it has not.
pub fn l7_let_go(counts: &mut RuleCounts, how: &str, (is_locked, tasks): (bool, u64)) -> Checked {
    counts.count(Rule::L7);
    if !is_locked && tasks == 0 {
        return Ok(());
    }
    let held = if is_locked { "the lock is held" } else { "the lock is free" };
    let promised = format!("after {how} no task runs and the lock is free");
    broken(Violation::new(Rule::L7, promised, format!("{tasks} tasks run, and {held}")))
}
