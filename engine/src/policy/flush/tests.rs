use proptest::prelude::*;

use super::*;
use crate::policy::view::TreeFacts;
use crate::types::{TreeId, to_u64};

fn views() -> impl Strategy<Value = FlushView> {
    let trees = prop::collection::vec((0..4_u64, 0..50_u64, 0..50_u64), 0..12);
    let load = (0..40_u64, 0..20_u64, 0..5_u32, 0..4_u32);
    (trees, load).prop_map(|(trees, (budget, reserved, immutable, slots))| {
        let trees: Vec<TreeFacts> = trees
            .iter()
            .zip(0..)
            .map(|((bytes, first, last), tree)| TreeFacts {
                tree: TreeId(tree),
                memtable_bytes: *bytes,
                first_write_ns: *first,
                last_write_ns: *last,
                ..TreeFacts::default()
            })
            .collect();
        FlushView {
            now_ns: 50,
            budget_bytes: budget,
            reserved_bytes: reserved,
            mutable_bytes: trees.iter().map(|facts| facts.memtable_bytes).sum(),
            immutable_bytes: u64::from(immutable),
            immutable_count: immutable,
            flush_job_count: immutable,
            flush_slots: slots,
            trees,
            ..FlushView::default()
        }
    })
}

/// What a policy may name, by the words of the shared rule and nothing of its code.
fn check(view: &FlushView, decision: &FlushDecision, trigger_bytes: u64) {
    let bytes =
        |tree: &TreeId| view.trees.iter().find(|facts| facts.tree == *tree).unwrap().memtable_bytes;
    let mut unique = decision.flush.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), decision.flush.len(), "a tree is named twice");
    assert!(decision.flush.iter().all(|tree| bytes(tree) > 0));
    let held = view.mutable_bytes + view.reserved_bytes;
    let named: u64 = decision.flush.iter().map(bytes).sum();
    let last = decision.flush.last().map_or(0, bytes);
    assert!(decision.flush.is_empty() || held - named + last >= trigger_bytes, "one too many");
    let room = (u64::from(view.flush_slots) * 2).saturating_sub(u64::from(view.immutable_count));
    let wedged = view.immutable_count == 0 && held >= view.budget_bytes;
    let room = room.max(u64::from(wedged));
    assert!(to_u64(decision.flush.len()) <= room);
    let dirty = view.trees.iter().filter(|facts| facts.memtable_bytes > 0).count();
    let enough = held - named < trigger_bytes
        || to_u64(decision.flush.len()) == room
        || decision.flush.len() == dirty;
    assert!(enough, "too few");
}

proptest! {
    // Strategy: small random views, most of them at one limit or another.
    // Invariants: the shared rule in words, for every policy of the list.
    #[test]
    fn every_policy_keeps_the_shared_rule(view in views()) {
        for info in list() {
            let spec = PolicySpec::named(info.name).with("trigger_ratio", 0.5);
            let mut policy = build(&spec).unwrap();
            check(&view, &policy.decide(&view), view.budget_bytes >> 1);
            check(&view, &policy.decide(&view), view.budget_bytes >> 1);
        }
    }

    // Strategy: views in which time passes. Invariant: the trees idle for long enough are named,
    // as far as there is room, and no other tree is while memory is not short.
    #[test]
    fn idle_trees_are_named_and_no_others(mut view in views(), now_ns in 0..100_u64) {
        view.now_ns = now_ns;
        view.budget_bytes = 1_000_000;
        for info in list() {
            let spec = PolicySpec::named(info.name).with("idle_flush_ns", 20.0);
            let decision = build(&spec).unwrap().decide(&view);
            let idle = |facts: &&TreeFacts| {
                facts.memtable_bytes > 0 && facts.last_write_ns + 20 <= now_ns
            };
            let idle: Vec<TreeId> = view.trees.iter().filter(idle).map(|f| f.tree).collect();
            let room = (view.flush_slots * 2).saturating_sub(view.immutable_count);
            let want = u64::from(room).min(to_u64(idle.len()));
            prop_assert_eq!(to_u64(decision.flush.len()), want);
            prop_assert!(decision.flush.iter().all(|tree| idle.contains(tree)));
            prop_assert_eq!(decision.wake_at.is_some(), view.mutable_bytes > 0);
            prop_assert!(decision.wake_at.is_none_or(|at| at > now_ns));
        }
    }
}
