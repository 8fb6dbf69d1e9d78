//! Each rule is tripped once by a history that breaks it, and holds on one that does not.

use std::collections::BTreeMap;

use forebay_engine::Error;

use super::files::{c9_verified, c10_files};
use super::forks::{c5_forked, c5_lineage};
use super::liveness::{c11_open, c11_same, c12_same_trace, l1_progress, l2_running};
use super::model::{Known, Model, Wanted};
use super::reads::{Window, c7_errors, c8_failed_unseen, c8_get, c8_paths, c8_scan};
use super::recovery::{Explained, State, TenantState, c3_invention, judge};
use super::value::{FORK_STEP, Origin, encode, op_number};
use super::{Checked, Rule, RuleCounts};

const WHY: &str = "it survives a power loss";

struct Case {
    model: Model,
    counts: RuleCounts,
}

impl Case {
    /// Two tenants that exist.
    fn new() -> Self {
        let mut model = Model::default();
        for tenant in 0..2 {
            let inc = model.begin_create(tenant);
            model.end_create(inc, Some(10 + inc as u64));
        }
        Self { model, counts: RuleCounts::default() }
    }

    /// A batch of (tenant, key, put), given numbers. Returns its tag.
    fn under_way(&mut self, ops: &[(usize, u32, bool)], sync: bool) -> u64 {
        let ops: Vec<Wanted> =
            ops.iter().map(|(inc, key, put)| Wanted { inc: *inc, key: *key, put: *put }).collect();
        let count = ops.len() as u64;
        let tag = self.model.begin_write(ops, sync);
        self.model.sequenced(tag, self.model.last + 1, count);
        tag
    }

    fn acked(&mut self, ops: &[(usize, u32, bool)], sync: bool) -> u64 {
        let tag = self.under_way(ops, sync);
        self.model.acked(tag, 1);
        tag
    }

    /// A state with these values: (tenant, key, tag, index in its batch).
    fn state(&self, values: &[(usize, u32, u64, usize)]) -> State {
        let tenant = |n: usize| TenantState { branch: 10 + n as u64, ..TenantState::default() };
        let mut tenants = BTreeMap::from([(0, tenant(0)), (1, tenant(1))]);
        for (at, key, tag, index) in values {
            tenants.get_mut(at).unwrap().values.insert(*key, op_number(*tag, *index));
        }
        State { tenants, last: Some(self.model.last) }
    }

    fn judge(&mut self, values: &[(usize, u32, u64, usize)]) -> Checked<Explained> {
        let state = self.state(values);
        let bound = (self.model.synced, WHY);
        judge(&self.model, &mut self.counts, &state, bound)
    }
}

fn rule<T: core::fmt::Debug>(checked: Checked<T>) -> Rule {
    checked.unwrap_err().rule
}

#[test]
fn c1_takes_any_prefix_and_no_other_state() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true)], false);
    let b = case.acked(&[(1, 1, true)], false);
    assert_eq!(case.judge(&[]).unwrap().upto, 0);
    assert_eq!(case.judge(&[(0, 1, a, 0)]).unwrap().upto, 1);
    assert_eq!(case.judge(&[(0, 1, a, 0), (1, 1, b, 0)]).unwrap().upto, 2);
    assert_eq!(rule(case.judge(&[(1, 1, b, 0)])), Rule::C1);
}

#[test]
fn c1_refuses_half_a_batch() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true), (1, 1, true)], false);
    assert_eq!(case.judge(&[(0, 1, a, 0), (1, 1, a, 1)]).unwrap().upto, 2);
    assert_eq!(rule(case.judge(&[(0, 1, a, 0)])), Rule::C1);
}

#[test]
fn c1_lets_a_failed_batch_come_back_whole_and_only_once() {
    let mut case = Case::new();
    let a = case.under_way(&[(0, 1, true), (1, 1, true)], true);
    assert!(!case.model.failed(a));
    assert!(case.judge(&[]).unwrap().came_back.is_empty());
    let back = case.judge(&[(0, 1, a, 0), (1, 1, a, 1)]).unwrap();
    assert_eq!(back.came_back.into_iter().collect::<Vec<_>>(), [a]);
    assert_eq!(rule(case.judge(&[(0, 1, a, 0)])), Rule::C1);
    // Left out by a recovery, it stays out.
    let out = case.judge(&[]).unwrap();
    case.model.recovered(&out);
    assert_eq!(rule(case.judge(&[(0, 1, a, 0), (1, 1, a, 1)])), Rule::C1);
}

#[test]
fn c2_wants_what_was_acknowledged_with_a_sync_and_all_before_it() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true)], false);
    let b = case.acked(&[(1, 1, true)], true);
    let _later = case.acked(&[(1, 2, true)], false);
    assert_eq!(case.judge(&[(0, 1, a, 0), (1, 1, b, 0)]).unwrap().upto, 2);
    assert_eq!(rule(case.judge(&[(0, 1, a, 0)])), Rule::C2);
    assert_eq!(rule(case.judge(&[(1, 1, b, 0)])), Rule::C2);
}

#[test]
fn c2_sees_a_lost_delete_of_a_key_without_a_value() {
    let mut case = Case::new();
    case.acked(&[(0, 1, false)], true);
    let mut state = case.state(&[]);
    state.last = Some(0);
    let bound = (case.model.synced, WHY);
    assert_eq!(rule(judge(&case.model, &mut case.counts, &state, bound)), Rule::C2);
}

#[test]
fn c2_wants_tenants_that_were_created() {
    let mut case = Case::new();
    let mut state = case.state(&[]);
    state.tenants.remove(&1);
    assert_eq!(rule(judge(&case.model, &mut case.counts, &state, (0, WHY))), Rule::C2);
    case.model.shared_hit = true;
    judge(&case.model, &mut case.counts, &state, (0, WHY)).unwrap();
}

#[test]
fn c3_knows_tenant_life_key_and_write() {
    let mut case = Case::new();
    let tag = case.acked(&[(0, 1, true)], false);
    let origin = Origin { tenant: 0, incarnation: 0, key: 1, op: op_number(tag, 0) };
    let mut ask =
        |at: (usize, u32), bytes: &[u8]| c3_invention(&case.model, &mut case.counts, at, bytes);
    assert_eq!(ask((0, 1), &encode(origin, 40)).unwrap(), op_number(tag, 0));
    assert_eq!(rule(ask((1, 1), &encode(origin, 40))), Rule::C3);
    assert_eq!(rule(ask((0, 2), &encode(origin, 40))), Rule::C3);
    assert_eq!(rule(ask((0, 1), &encode(Origin { incarnation: 1, ..origin }, 40))), Rule::C3);
    assert_eq!(rule(ask((0, 1), &encode(Origin { op: 1 << 20, ..origin }, 40))), Rule::C3);
    assert_eq!(rule(ask((0, 1), b"something else")), Rule::C3);
}

#[test]
fn c4_a_deleted_key_and_a_dropped_tenant_stay_gone() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true)], true);
    case.acked(&[(0, 1, false)], true);
    let c = case.acked(&[(1, 1, true)], true);
    assert_eq!(rule(case.judge(&[(0, 1, a, 0), (1, 1, c, 0)])), Rule::C4);
    case.model.set_drop(1, Known::Acked);
    assert_eq!(rule(case.judge(&[])), Rule::C4);
    case.model.set_drop(1, Known::Failed);
    assert_eq!(case.judge(&[(1, 1, c, 0)]).unwrap().upto, 3);
}

#[test]
fn c7_wants_a_fault_behind_an_error_and_c6_no_damage_at_all() {
    let mut counts = RuleCounts::default();
    let io = Error::Closed;
    c7_errors(&mut counts, "put", &io, 1).unwrap();
    assert_eq!(rule(c7_errors(&mut counts, "put", &io, 0)), Rule::C7);
    let damage = Error::corruption(std::path::Path::new("x"), 0, "y");
    assert_eq!(rule(c7_errors(&mut counts, "get", &damage, 9)), Rule::C6);
    assert_eq!(counts.get(Rule::C7), 3);
}

#[test]
fn c8_a_read_shows_a_state_between_its_begin_and_its_end() {
    let mut case = Case::new();
    let a = op_number(case.acked(&[(0, 1, true)], false), 0);
    let b = op_number(case.under_way(&[(0, 1, true)], false), 0);
    let mut get = |found, low, high| {
        let window = Window { low, high };
        c8_get(&mut case.model, &mut case.counts, (0, 1), found, window)
    };
    get(Some(a), 1, 2).unwrap();
    get(Some(b), 1, 2).unwrap();
    assert_eq!(rule(get(None, 1, 2)), Rule::C8);
    assert_eq!(rule(get(Some(b), 1, 1)), Rule::C8);
    assert_eq!(rule(get(Some(a), 2, 2)), Rule::C8);
    get(None, 0, 2).unwrap();
}

#[test]
fn c8_a_scan_shows_one_state() {
    let mut case = Case::new();
    let a = op_number(case.under_way(&[(0, 1, true)], false), 0);
    let b = op_number(case.under_way(&[(0, 2, true)], false), 0);
    let mut scan = |found: &[(u32, u64)]| {
        let found = found.iter().copied().collect();
        let window = Window { low: 0, high: 2 };
        c8_scan(&mut case.model, &mut case.counts, (0, &[1, 2]), &found, window)
    };
    scan(&[]).unwrap();
    scan(&[(1, a)]).unwrap();
    scan(&[(1, a), (2, b)]).unwrap();
    assert_eq!(rule(scan(&[(2, b)])), Rule::C8);
}

#[test]
fn c8_a_write_that_was_seen_may_not_fail() {
    let mut case = Case::new();
    let tag = case.under_way(&[(0, 1, true)], false);
    let (found, window) = (Some(op_number(tag, 0)), Window { low: 0, high: 1 });
    c8_get(&mut case.model, &mut case.counts, (0, 1), found, window).unwrap();
    assert_eq!(rule(c8_failed_unseen(&mut case.model, &mut case.counts, tag)), Rule::C8);
    let other = case.under_way(&[(0, 2, true)], false);
    c8_failed_unseen(&mut case.model, &mut case.counts, other).unwrap();
}

#[test]
fn c11_c12_l1_and_l2_trip_on_what_they_name() {
    let mut counts = RuleCounts::default();
    c11_open(&mut counts, "now", None).unwrap();
    assert_eq!(rule(c11_open(&mut counts, "now", Some("damaged"))), Rule::C11);
    c11_same(&mut counts, &1, &1).unwrap();
    assert_eq!(rule(c11_same(&mut counts, &1, &2)), Rule::C11);
    c12_same_trace(&mut counts, 7, 7).unwrap();
    assert_eq!(rule(c12_same_trace(&mut counts, 7, 8)), Rule::C12);
    l1_progress(&mut counts, true, "put", "").unwrap();
    assert_eq!(rule(l1_progress(&mut counts, false, "put", "")), Rule::L1);
    l2_running(&mut counts, None).unwrap();
    assert_eq!(rule(l2_running(&mut counts, Some("deadlock"))), Rule::L2);
    let asked: Vec<u64> = counts.iter().map(|(_, n)| n).collect();
    assert_eq!(asked, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2, 2, 2, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn c8_ways_of_reading_one_state_agree() {
    let mut counts = RuleCounts::default();
    let all = BTreeMap::from([(1, op_number(1, 0)), (2, op_number(2, 0))]);
    let older = BTreeMap::from([(1, op_number(1, 0)), (2, op_number(1, 1))]);
    let short = BTreeMap::from([(1, op_number(1, 0))]);
    let mut ask = |one, other| c8_paths(&mut counts, 0, ("scan", one), ("reverse scan", other));
    ask(&all, &all).unwrap();
    for (one, other) in [(&all, &short), (&short, &all), (&all, &older)] {
        let found = ask(one, other).unwrap_err();
        assert_eq!((found.rule, found.key.as_deref()), (Rule::C8, Some("k0002")));
    }
    assert_eq!(counts.get(Rule::C8), 4);
}

#[test]
fn c9_wants_every_finding_excused_and_c10_no_file_too_many_or_too_few() {
    let mut counts = RuleCounts::default();
    let found = |excused| ("bad".to_owned(), excused);
    c9_verified(&mut counts, "verify", &[]).unwrap();
    c9_verified(&mut counts, "verify", &[found(true)]).unwrap();
    let checked = c9_verified(&mut counts, "verify", &[found(true), found(false)]);
    assert_eq!(rule(checked), Rule::C9);
    let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let both = files(&["CURRENT", "1.sst"]);
    c10_files(&mut counts, &both, &both).unwrap();
    assert_eq!(rule(c10_files(&mut counts, &both, &files(&["CURRENT"]))), Rule::C10);
    assert_eq!(rule(c10_files(&mut counts, &files(&["CURRENT"]), &both)), Rule::C10);
    assert_eq!((counts.get(Rule::C9), counts.get(Rule::C10)), (3, 3));
}

#[test]
fn c9_wants_no_finding_of_the_structure_and_tells_the_first_of_them() {
    let mut counts = RuleCounts::default();
    let mut structure = forebay_engine::structure::Structure::default();
    super::c9_structure::c9_structure(&mut counts, &structure).unwrap();
    structure.findings = (0..6).map(|n| format!("finding {n}")).collect();
    let broken = super::c9_structure::c9_structure(&mut counts, &structure).unwrap_err();
    assert_eq!((broken.rule, counts.get(Rule::C9)), (Rule::C9, 2));
    assert!(broken.found.ends_with("finding 3; and 2 more"), "{}", broken.found);
}

/// A fork of the first tenant, with branch 12.
fn forked(case: &mut Case) -> usize {
    let inc = case.model.begin_fork(FORK_STEP, 0);
    case.model.forked(inc, 12, case.model.last);
    inc
}

fn with_fork(case: &Case, mut state: State, values: &[(u32, u64)]) -> State {
    let seq = case.model.incs[2].fork.and_then(|fork| fork.seq).unwrap();
    let mut fork = TenantState { branch: 12, fork: Some((10, seq)), ..TenantState::default() };
    for (key, tag) in values {
        fork.values.insert(*key, op_number(*tag, 0));
    }
    state.tenants.insert(FORK_STEP, fork);
    state
}

#[test]
fn c5_a_branch_shows_no_write_of_another_and_keeps_what_it_inherited() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true)], false);
    let b = case.acked(&[(0, 2, true)], false);
    let child = forked(&mut case);
    let later = case.acked(&[(0, 1, true)], false);
    case.acked(&[(0, 2, false)], false);
    let own = case.acked(&[(child, 3, true)], false);
    let window = Window { low: case.model.visible, high: case.model.last };
    let mut get = |at: (usize, u32), tag: Option<u64>| {
        let found = tag.map(|tag| op_number(tag, 0));
        c8_get(&mut case.model, &mut case.counts, at, found, window)
    };
    get((child, 1), Some(a)).unwrap();
    get((child, 2), Some(b)).unwrap();
    get((child, 3), Some(own)).unwrap();
    get((0, 1), Some(later)).unwrap();
    get((0, 3), None).unwrap();
    // The parent's later write, its later delete, a key that is missing, and the child's own write.
    assert_eq!(rule(get((child, 1), Some(later))), Rule::C5);
    assert_eq!(rule(get((child, 2), None)), Rule::C5);
    assert_eq!(rule(get((child, 1), None)), Rule::C5);
    assert_eq!(rule(get((0, 3), Some(own))), Rule::C5);
    let keys = [1, 2, 3];
    let all = |one: u64| [(1, one), (2, b), (3, own)].map(|(k, tag)| (k, op_number(tag, 0)));
    let mut scan = |found: [(u32, u64); 3]| {
        c8_scan(&mut case.model, &mut case.counts, (child, &keys), &found.into(), window)
    };
    scan(all(a)).unwrap();
    assert_eq!(rule(scan(all(later))), Rule::C5);
}

#[test]
fn c5_holds_for_what_a_recovery_brings_back() {
    let mut case = Case::new();
    let a = case.acked(&[(0, 1, true)], false);
    forked(&mut case);
    let later = case.acked(&[(0, 1, true)], false);
    let ask = |case: &mut Case, of: &[(u32, u64)]| {
        let state = with_fork(case, case.state(&[(0, 1, later, 0)]), of);
        judge(&case.model, &mut case.counts, &state, (case.model.synced, WHY))
    };
    assert_eq!(ask(&mut case, &[(1, a)]).unwrap().upto, 2);
    assert_eq!(rule(ask(&mut case, &[(1, later)])), Rule::C5);
    assert_eq!(rule(ask(&mut case, &[])), Rule::C5);
    // The fork was acknowledged, and so is durable with all before it.
    let state = case.state(&[(0, 1, a, 0)]);
    let bound = (case.model.synced, WHY);
    let lost = judge(&case.model, &mut case.counts, &state, bound);
    assert_eq!(rule(lost), Rule::C5);
    case.model.set_drop(2, Known::Acked);
    judge(&case.model, &mut case.counts, &state, bound).unwrap();
    assert!(case.counts.get(Rule::C5) > 3);
}

#[test]
fn c5_a_fork_that_nobody_was_told_of_is_whole_or_not_there() {
    let mut case = Case::new();
    case.acked(&[(0, 1, false)], false);
    let inc = case.model.begin_fork(FORK_STEP, 0);
    let without = case.state(&[]);
    judge(&case.model, &mut case.counts, &without, (0, WHY)).unwrap();
    case.model.inherit(inc, 1);
    let mut with = with_fork(&case, case.state(&[]), &[]);
    assert_eq!(judge(&case.model, &mut case.counts, &with, (0, WHY)).unwrap().upto, 1);
    with.last = Some(0);
    assert_eq!(rule(judge(&case.model, &mut case.counts, &with, (0, WHY))), Rule::C5);
}

#[test]
fn c5_a_fork_begins_where_it_was_asked_for_and_stays_there() {
    let mut case = Case::new();
    case.acked(&[(0, 1, true)], false);
    let child = forked(&mut case);
    let window = Window { low: 1, high: 3 };
    let mut at = |seq| c5_forked(&case.model, &mut case.counts, (child, seq), window);
    at(1).unwrap();
    at(3).unwrap();
    assert_eq!(rule(at(0)), Rule::C5);
    assert_eq!(rule(at(4)), Rule::C5);
    let mut found = |inc, point| c5_lineage(&case.model, &mut case.counts, inc, point);
    found(child, Some((10, 1))).unwrap();
    found(0, None).unwrap();
    for (inc, point) in [(child, Some((10, 2))), (child, Some((11, 1))), (child, None)] {
        assert_eq!(rule(found(inc, point)), Rule::C5);
    }
    assert_eq!(rule(found(0, Some((11, 1)))), Rule::C5);
}
