//! L6: one table that cannot be read, and the other tenants.

use forebay_engine::Error;

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// What a tenant got once faults are over, while the damage that they did is there.
#[derive(Debug)]
pub struct Neighbour<'a> {
    /// Number of its name.
    pub tenant: usize,
    /// Whether damage lies in a table of its own, or in what all share.
    pub is_hit: bool,
    /// What its write or its flush came to.
    pub error: Option<&'a Error>,
}

/// L6: while a table of one tenant is damaged, the writes and flushes of the others work.
///
/// # Errors
///
/// L6 for the first one that does not.
pub fn l6_others_go_on(counts: &mut RuleCounts, neighbours: &[Neighbour<'_>]) -> Checked {
    counts.count(Rule::L6);
    for Neighbour { tenant, is_hit, error } in neighbours {
        let Some(error) = error.filter(|_| !is_hit) else { continue };
        let promised = "damage in another tenant's table is no matter to this one";
        return broken(Violation::new(Rule::L6, promised, error.to_string()).of(*tenant, None));
    }
    Ok(())
}

/// L6: while a table of one tenant is damaged, what waits ends, and the background becomes idle.
///
/// # Errors
///
/// L6 where something still waits; `waiting` names it.
pub fn l6_nothing_waits(counts: &mut RuleCounts, ended: bool, waiting: &str) -> Checked {
    counts.count(Rule::L6);
    if ended {
        return Ok(());
    }
    let promised = "a damaged table of one tenant stalls nobody else";
    broken(Violation::new(Rule::L6, promised, format!("still waiting: {waiting}")))
}

/// L6: the log is given back although a tree that damage took is never flushed: it is not above what
/// memtables and its bound may pin.
///
/// # Errors
///
/// L6 where it is.
pub fn l6_log(counts: &mut RuleCounts, (wal_bytes, bound_bytes): (u64, u64)) -> Checked {
    counts.count(Rule::L6);
    if wal_bytes <= bound_bytes {
        return Ok(());
    }
    let promised = format!("a log of at most {bound_bytes} bytes beside a damaged table");
    broken(Violation::new(Rule::L6, promised, format!("{wal_bytes} bytes")))
}
