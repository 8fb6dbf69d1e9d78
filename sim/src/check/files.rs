//! What a database consists of, once all is quiet: C9 and C10.

use std::collections::BTreeSet;

use forebay_engine::waiting::TreeMemory;

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// C9: verification finds nothing but what the atlas says was damaged.
///
/// # Errors
///
/// C9 for the first finding that nothing excuses.
pub fn c9_verified(counts: &mut RuleCounts, how: &str, findings: &[(String, bool)]) -> Checked {
    counts.count(Rule::C9);
    let Some((found, _)) = findings.iter().find(|(_, excused)| !excused) else { return Ok(()) };
    broken(Violation::new(Rule::C9, format!("{how} finds no undamaged file wrong"), found.clone()))
}

/// C9: the budget counts what the trees hold, and nothing is reserved while nobody writes.
///
/// # Errors
///
/// C9 where a charge was lost, or never given back.
pub fn c9_memory(
    counts: &mut RuleCounts,
    (charged, reserved_bytes): (TreeMemory, u64),
    held: TreeMemory,
) -> Checked {
    counts.count(Rule::C9);
    if charged == held && reserved_bytes == 0 {
        return Ok(());
    }
    let promised = format!("the budget counts what trees hold, {held:?}");
    let found = format!("{charged:?} and {reserved_bytes} bytes reserved");
    broken(Violation::new(Rule::C9, promised, found))
}

/// C10: the files of a closed database that met no fault are those that are reached.
///
/// # Errors
///
/// C10 where a file is there that nothing reaches, or one is missing.
pub fn c10_files(
    counts: &mut RuleCounts,
    found: &BTreeSet<String>,
    reached: &BTreeSet<String>,
) -> Checked {
    counts.count(Rule::C10);
    if found == reached {
        return Ok(());
    }
    let leaked: Vec<&String> = found.difference(reached).collect();
    let missing: Vec<&String> = reached.difference(found).collect();
    let promised = format!("{} files that are reached, and no other", reached.len());
    broken(Violation::new(Rule::C10, promised, format!("leaked {leaked:?}, missing {missing:?}")))
}
