//! Each rule is tripped once by a history that breaks it, and holds on one that does not.

use std::collections::BTreeMap;

use forebay_engine::Error;

use super::files::{c9_verified, c10_files};
use super::liveness::{c11_open, c11_same, c12_same_trace, l1_progress, l2_running};
use super::model::{Known, Model, Wanted};
use super::reads::{Window, c7_errors, c8_failed_unseen, c8_get, c8_paths, c8_scan};
use super::recovery::{Explained, State, TenantState, c3_invention, judge};
use super::value::{Origin, encode, op_number};
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
    assert_eq!(asked, [0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2, 2, 2]);
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
