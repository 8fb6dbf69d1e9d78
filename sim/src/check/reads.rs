//! Judging reads while the database runs: C8, and C7 for errors.
//!
//! A read began when some prefix was known to be visible and ended when some number was the last given:
//! what it says must be the state at one prefix between the two. A snapshot names its prefix.

use std::collections::BTreeMap;

use forebay_engine::types::SeqNo;

use super::forks::c5_branches;
use super::model::{Known, Model, Placed};
use super::value::tag_of;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Between which prefixes a read may have looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Known visible when it began.
    pub low: SeqNo,
    /// The last number given when it looked.
    pub high: SeqNo,
}

/// The prefixes in a window at which a key has what was read.
fn fits(model: &Model, history: &[Placed], found: Option<u64>, window: Window) -> Vec<Window> {
    let mut out = Vec::new();
    let mut high = window.high;
    let shows = |placed: Option<&Placed>| match (placed, found) {
        (Some(placed), Some(op)) => placed.put && placed.op == op,
        (Some(placed), None) => !placed.put,
        (None, found) => found.is_none(),
    };
    for placed in history.iter().rev().filter(|placed| placed.seq <= window.high) {
        let refused = model.batch(placed.tag).is_some_and(|batch| batch.known == Known::Failed);
        if shows(Some(placed)) && placed.seq <= high && !refused {
            out.push(Window { low: placed.seq.max(window.low), high });
        }
        if model.is_definite(placed) {
            // Older writes are hidden from here on.
            let Some(below) = placed.seq.checked_sub(1) else { return out };
            high = high.min(below);
            if high < window.low {
                return out;
            }
        }
    }
    if shows(None) {
        out.push(Window { low: window.low, high });
    }
    out
}

fn words(model: &Model, history: &[Placed], found: Option<u64>) -> String {
    let Some(op) = found else { return "no value".to_owned() };
    match history.iter().find(|placed| placed.op == op) {
        Some(placed) => format!("the value of {}", model.describe(placed)),
        None => "a value that is not in the key's history".to_owned(),
    }
}

/// A read saw a write: everything up to it is visible, and the write may not fail any more.
fn saw(model: &mut Model, found: Option<u64>, seq: Option<SeqNo>) {
    let Some(op) = found else { return };
    if let Some(batch) = model.batch_mut(tag_of(op)) {
        batch.seen = true;
    }
    model.visible = model.visible.max(seq.unwrap_or(0));
}

/// C8 for one key: what was read is what some prefix in the window has. C5 comes first.
///
/// # Errors
///
/// C8 where none has it, C5 where a branch shows what is not its own.
pub fn c8_get(
    model: &mut Model,
    counts: &mut RuleCounts,
    (inc, key): (usize, u32),
    found: Option<u64>,
    window: Window,
) -> Checked {
    c5_branches(model, counts, (inc, key), found)?;
    counts.count(Rule::C8);
    let history = model.history(inc, key);
    if !fits(model, history, found, window).is_empty() {
        let seq = history.iter().find(|p| Some(p.op) == found).map(|p| p.seq);
        saw(model, found, seq);
        return Ok(());
    }
    let newest = history.iter().rfind(|p| p.seq <= window.low && model.is_definite(p));
    let promised = match newest {
        Some(placed) => format!(
            "a state between seq {} and {}: {}, or newer",
            window.low,
            window.high,
            model.describe(placed)
        ),
        None => format!("a state between seq {} and {}", window.low, window.high),
    };
    let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
    let violation = Violation::new(Rule::C8, promised, words(model, history, found));
    broken(violation.of(tenant, Some(key)).seq(newest.map_or(window.low, |placed| placed.seq)))
}

/// C8 for a range: one prefix in the window explains all keys that were read, and those that were not.
/// C5 comes first, key by key.
///
/// # Errors
///
/// C8 where none does, C5 where a branch shows what is not its own.
pub fn c8_scan(
    model: &mut Model,
    counts: &mut RuleCounts,
    (inc, keys): (usize, &[u32]),
    found: &BTreeMap<u32, u64>,
    window: Window,
) -> Checked {
    counts.count(Rule::C8);
    let mut left = vec![window];
    for key in keys {
        let value = found.get(key).copied();
        c5_branches(model, counts, (inc, *key), value)?;
        let allowed = fits(model, model.history(inc, *key), value, window);
        let both = |a: &Window, b: &Window| {
            let (low, high) = (a.low.max(b.low), a.high.min(b.high));
            (low <= high).then_some(Window { low, high })
        };
        let next: Vec<Window> =
            left.iter().flat_map(|a| allowed.iter().filter_map(move |b| both(a, b))).collect();
        if next.is_empty() {
            // Alone it may be wrong, or only together with the others.
            c8_get(model, counts, (inc, *key), value, window)?;
            let words = words(model, model.history(inc, *key), value);
            let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
            let promised = format!(
                "a scan of one state, which other keys put between seq {} and {}",
                left.first().map_or(0, |w| w.low),
                left.last().map_or(0, |w| w.high)
            );
            return broken(Violation::new(Rule::C8, promised, words).of(tenant, Some(*key)));
        }
        left = next;
    }
    for (key, op) in found {
        let seq = model.history(inc, *key).iter().find(|p| p.op == *op).map(|p| p.seq);
        saw(model, Some(*op), seq);
    }
    Ok(())
}

/// What one way of reading gave: its name, and each key with the write that its value names.
pub type Path<'a> = (&'a str, &'a BTreeMap<u32, u64>);

/// C8: two ways of reading one state give the same.
///
/// # Errors
///
/// C8 for the first key of which they differ.
pub fn c8_paths(counts: &mut RuleCounts, tenant: usize, one: Path<'_>, other: Path<'_>) -> Checked {
    counts.count(Rule::C8);
    let keys = one.1.keys().chain(other.1.keys());
    let Some(key) = keys.copied().find(|key| one.1.get(key) != other.1.get(key)) else {
        return Ok(());
    };
    let words = |(name, found): Path<'_>| match found.get(&key) {
        Some(op) => format!("a {name} gives write {} of batch {}", op & 0xff, tag_of(*op)),
        None => format!("a {name} gives no value"),
    };
    broken(Violation::new(Rule::C8, words(one), words(other)).of(tenant, Some(key)))
}

/// C8: a write that failed had not been visible.
///
/// # Errors
///
/// C8 where a read had seen it.
pub fn c8_failed_unseen(model: &mut Model, counts: &mut RuleCounts, tag: u64) -> Checked {
    counts.count(Rule::C8);
    if !model.failed(tag) {
        return Ok(());
    }
    let first = model.batch(tag).map_or(0, |batch| batch.first);
    let promised = "a write that is answered with an error is not visible";
    broken(Violation::new(Rule::C8, promised, "a read had seen it").seq(first))
}

/// C6: damage is loud and local: an error that names a file which was hit is right, where that file holds
/// the data asked for. Says whether the error is right.
pub fn c6_excused(counts: &mut RuleCounts, excused: bool) -> bool {
    counts.count(Rule::C6);
    excused
}

/// C7: an error has a cause: a fault that was injected, or a full disk.
///
/// # Errors
///
/// C7 where nothing was injected; C6 where damage is reported and no medium was damaged there.
pub fn c7_errors(
    counts: &mut RuleCounts,
    what: &str,
    error: &forebay_engine::Error,
    faults_fired: u64,
) -> Checked {
    counts.count(Rule::C6);
    counts.count(Rule::C7);
    if is_damage(error) {
        let found = format!("{what}: {error}");
        return broken(Violation::new(Rule::C6, "no medium was damaged there", found));
    }
    if faults_fired > 0 {
        return Ok(());
    }
    broken(Violation::new(Rule::C7, "no fault was injected", format!("{what}: {error}")))
}

/// Whether an error says that bytes on disk are damaged.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever kinds come, two wrap others")]
pub fn is_damage(error: &forebay_engine::Error) -> bool {
    use forebay_engine::Error;
    match error {
        Error::Corruption { .. } => true,
        Error::ReadOnly(cause) | Error::TreeFailed { cause, .. } => is_damage(cause),
        _ => false,
    }
}
