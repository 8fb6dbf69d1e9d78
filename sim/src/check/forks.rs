//! Judging branches: C5.
//!
//! A fork's history in the model begins with a copy of its parent's up to the fork's number, so
//! that the rules for one branch hold for it too. What is asked here is what makes it a fork: where
//! it began, that no write of another branch shows in it, and that what it inherited stays until it
//! writes itself.

use forebay_engine::types::SeqNo;

use super::model::{Known, Model, Placed};
use super::reads::Window;
use super::value::{self, tag_of};
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// C5 for one key of a branch: what was read is its own write or one that it inherited, and where
/// it did not write itself, what it inherited last.
///
/// # Errors
///
/// C5 where a write of another branch shows, or what was inherited does not.
pub fn c5_branches(
    model: &Model,
    counts: &mut RuleCounts,
    (inc, key): (usize, u32),
    found: Option<u64>,
) -> Checked {
    let Some(life) = model.incs.get(inc) else { return Ok(()) };
    if let Some(op) = found
        && let Some(index) = writer_of(model, op)
        && index != inc
    {
        counts.count(Rule::C5);
        let inherited = life.fork.and_then(|fork| fork.seq);
        let history = model.history(inc, key);
        let is_own = history.iter().any(|p| p.op == op && inherited.is_some_and(|s| p.seq <= s));
        if !is_own && !model.lost.contains(&op) {
            let other = super::model::name_of(model, index);
            let promised = match inherited {
                Some(seq) => format!("only its own writes, and those it inherited up to seq {seq}"),
                None => "only its own writes".to_owned(),
            };
            let found = format!("a write of {other} that is not its own: {}", written(model, op));
            return broken(Violation::new(Rule::C5, promised, found).of(life.tenant, Some(key)));
        }
    }
    let Some(seq) = life.fork.and_then(|fork| fork.seq) else { return Ok(()) };
    counts.count(Rule::C5);
    let Some(last) = model.history(inc, key).last().filter(|last| last.seq <= seq) else {
        return Ok(());
    };
    let shows = found == last.put.then_some(last.op);
    if shows || model.shared_hit || !model.is_definite(last) {
        return Ok(());
    }
    let promised = format!("inherited at its fork at seq {seq}: {}", model.describe(last));
    let found = found.map_or_else(|| "no value".to_owned(), |op| written(model, op));
    broken(Violation::new(Rule::C5, promised, found).of(life.tenant, Some(key)).seq(last.seq))
}

/// C5 for a fork that was acknowledged: its number is one between the last that was visible when it
/// was asked for and the last that had been given when it was answered.
///
/// # Errors
///
/// C5 where it is another.
pub fn c5_forked(
    model: &Model,
    counts: &mut RuleCounts,
    (inc, seq): (usize, SeqNo),
    window: Window,
) -> Checked {
    counts.count(Rule::C5);
    if (window.low..=window.high).contains(&seq) {
        return Ok(());
    }
    let promised = format!("a fork at a number from {} to {}", window.low, window.high);
    let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
    broken(Violation::new(Rule::C5, promised, format!("it is at {seq}")).of(tenant, None).seq(seq))
}

/// C5 for a branch that was found after a crash: it begins where it began, and a fork that was
/// never answered begins in its parent.
///
/// # Errors
///
/// C5 where it begins elsewhere.
pub fn c5_lineage(
    model: &Model,
    counts: &mut RuleCounts,
    inc: usize,
    found: Option<(u64, SeqNo)>,
) -> Checked {
    let Some(life) = model.incs.get(inc) else { return Ok(()) };
    if life.fork.is_none() && found.is_none() {
        return Ok(());
    }
    counts.count(Rule::C5);
    let parent = life.fork.and_then(|fork| model.incs.get(fork.parent));
    let is_right = match (found, parent.and_then(|parent| parent.branch)) {
        (Some((of, seq)), Some(parent)) => {
            let known = life.fork.and_then(|fork| fork.seq).filter(|_| life.create == Known::Acked);
            of == parent && known.is_none_or(|known| known == seq)
        }
        (None | Some(_), _) => false,
    };
    if is_right {
        return Ok(());
    }
    let promised = match (life.fork, parent) {
        (Some(fork), Some(parent)) => {
            format!("a fork of branch {:?} at seq {:?}", parent.branch, fork.seq)
        }
        (None | Some(_), _) => "a branch that is no fork".to_owned(),
    };
    let found = match found {
        Some((parent, seq)) => format!("a fork of branch {parent} at seq {seq}"),
        None => "no fork".to_owned(),
    };
    broken(Violation::new(Rule::C5, promised, found).of(life.tenant, None))
}

/// C5 for what a recovery brought back: where a fork is there, so is everything that it began with.
///
/// # Errors
///
/// C5 on the first fork that is ahead of the state.
pub fn c5_durable(
    model: &Model,
    counts: &mut RuleCounts,
    live: impl Iterator<Item = usize>,
    upto: SeqNo,
) -> Checked {
    let forks = live.filter_map(|inc| model.incs.get(inc)?.fork?.seq.map(|seq| (inc, seq)));
    for (inc, seq) in forks {
        counts.count(Rule::C5);
        // The rotten tail of a log looks like a torn one.
        if seq > upto && !model.shared_hit {
            let promised = format!("a fork is there with everything up to its number, {seq}");
            let found = format!("the state ends with seq {upto}");
            let tenant = model.incs.get(inc).map_or(0, |inc| inc.tenant);
            return broken(Violation::new(Rule::C5, promised, found).of(tenant, None).seq(seq));
        }
    }
    Ok(())
}

/// The life that a write went to.
fn writer_of(model: &Model, op: u64) -> Option<usize> {
    let index = usize::try_from(op & 0xff).ok()?;
    model.batch(tag_of(op))?.ops.get(index).map(|wanted| wanted.inc)
}

fn written(model: &Model, op: u64) -> String {
    let Some(inc) = writer_of(model, op) else { return "a value of no known write".to_owned() };
    let histories = model.incs.get(inc).into_iter().flat_map(|inc| inc.keys.values().flatten());
    let placed = histories.copied().find(|placed: &Placed| placed.op == op);
    let of = model.incs.get(inc).map_or(0, |inc| inc.tenant);
    let of = value::tenant_name(of);
    match placed {
        Some(placed) => format!("of {of}, {}", model.describe(&placed)),
        None => format!("a write of {of} that a recovery left out"),
    }
}
