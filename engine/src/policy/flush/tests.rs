use proptest::prelude::*;

use super::*;
use crate::policy::view::TreeFacts;
use crate::types::{TreeId, to_u64};

/// Policies with a `trigger_ratio` whose number of victims is not that of the shared rule.
const OWN_NUMBER: &[&str] = &["delta-fair", "hybrid"];

fn keeps_shared_rule(info: &PolicyInfo) -> bool {
    info.param("trigger_ratio").is_ok() && !OWN_NUMBER.contains(&info.name)
}

fn slots() -> impl Strategy<Value = Vec<TreeFacts>> {
    let memtable = (0..4_u64, 0..50_u64, 0..50_u64, 0..50_u64);
    let rest = (1..5_u64, 0..3_u32, 0..20_u32, prop::bool::weighted(0.1));
    prop::collection::vec((memtable, rest), 0..12).prop_map(|slots| {
        let slots = slots.iter().zip(1..);
        let facts = slots.map(|((memtable, rest), tree)| {
            let (bytes, created, first, last) = *memtable;
            let (anchor, immutables, l0_count, is_dropped) = *rest;
            if is_dropped {
                return TreeFacts::default();
            }
            TreeFacts {
                tree: TreeId(tree),
                memtable_bytes: bytes,
                memtable_bytes_max: 60,
                immutable_bytes: u64::from(immutables) * 2,
                immutable_count: immutables,
                memtable_created_ns: created,
                first_write_ns: if bytes > 0 { created + first } else { 0 },
                last_write_ns: created + first + last,
                written_bytes: bytes + 100,
                wal_anchor_segment: if bytes > 0 { anchor } else { 0 },
                l0_count,
            }
        });
        facts.collect()
    })
}

/// Small random views, most of them at one limit or another.
fn views() -> impl Strategy<Value = FlushView> {
    let load = (0..40_u64, 0..20_u64, 0..4_u32, 0..3_u32, prop_oneof![Just(0), 1..20_u64]);
    let rest = (0..30_u64, 0..30_u64, 0..9_u64, 0..9_u64, any::<u64>());
    (slots(), load, rest).prop_map(|(trees, load, rest)| {
        let (budget_bytes, reserved_bytes, flush_slots, packed, pack_bytes) = load;
        let (spooled, history_bytes, wal_bytes, wal_bytes_max, draw) = rest;
        let immutable_count = trees.iter().map(|facts| facts.immutable_count).sum();
        let immutable_bytes = trees.iter().map(|facts| facts.immutable_bytes).sum();
        let written = trees.iter().enumerate().filter(|(_, f)| f.memtable_bytes % 2 == 1);
        FlushView {
            now_ns: 150,
            budget_bytes,
            reserved_bytes,
            mutable_bytes: trees.iter().map(|facts| facts.memtable_bytes).sum(),
            immutable_bytes,
            immutable_count,
            spooled_bytes: spooled.min(immutable_bytes),
            history_bytes,
            flush_job_count: immutable_count >> packed,
            flush_slots,
            pack_bytes,
            wal_bytes,
            wal_bytes_max,
            wal_oldest_segment: 2,
            draw,
            written_slots: written.map(|(slot, _)| slot).collect(),
            trees,
            ..FlushView::default()
        }
    })
}

fn bytes_of(view: &FlushView, tree: TreeId) -> u64 {
    view.trees.iter().find(|facts| facts.tree == tree).unwrap().memtable_bytes
}

/// What a policy of the shared rule may name, by the rule's words and nothing of its code.
fn check_shared(view: &FlushView, decision: &FlushDecision, trigger_bytes: u64) {
    let bytes = |tree: &TreeId| bytes_of(view, *tree);
    let held = view.mutable_bytes + view.reserved_bytes;
    let named: u64 = decision.flush.iter().map(bytes).sum();
    let last = decision.flush.last().map_or(0, bytes);
    let is_short = held >= trigger_bytes;
    let until = if is_short { trigger_bytes.saturating_sub(view.pack_bytes) } else { u64::MAX };
    assert!(decision.flush.is_empty() || is_short, "memory is not short");
    assert!(decision.flush.is_empty() || held - named + last >= until, "one too many");
    let room = (u64::from(view.flush_slots) * 2).saturating_sub(u64::from(view.flush_job_count));
    let used = held + view.immutable_bytes;
    let wedged = view.immutable_count == 0 && used >= view.budget_bytes;
    let packs = view.pack_bytes > 0 && room > 0;
    let room = if packs { u64::MAX } else { room.max(u64::from(wedged)) };
    assert!(to_u64(decision.flush.len()) <= room);
    let dirty = view.trees.iter().filter(|facts| facts.memtable_bytes > 0).count();
    let enough = held - named < until
        || to_u64(decision.flush.len()) == room
        || decision.flush.len() == dirty;
    assert!(enough, "too few");
}

/// What every decision keeps.
fn check_any(view: &FlushView, decision: &FlushDecision, name: &str) {
    let named: Vec<TreeId> = decision.flush.iter().chain(&decision.pack).copied().collect();
    let mut unique = named.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), named.len(), "{name} names a tree twice");
    assert!(named.iter().all(|tree| bytes_of(view, *tree) > 0), "{name} names an empty tree");
    assert!(decision.wake_at.is_none_or(|at| at > view.now_ns), "{name} wakes in the past");
}

/// Turns a view into one where only a flush can help, and nothing but memtables can be flushed.
fn full_of_memtables(view: &mut FlushView) {
    for facts in &mut view.trees {
        (facts.immutable_count, facts.immutable_bytes) = (0, 0);
    }
    (view.immutable_count, view.immutable_bytes, view.flush_job_count) = (0, 0, 0);
    (view.spooled_bytes, view.history_bytes) = (0, 0);
    view.flush_slots += 1;
    view.budget_bytes = view.budget_bytes.min(view.mutable_bytes + view.reserved_bytes);
}

/// What is left once the trees of a decision are flushed and dropped from memory.
fn flushed(view: &mut FlushView, decision: &FlushDecision) {
    for facts in &mut view.trees {
        if decision.flush.contains(&facts.tree) || decision.pack.contains(&facts.tree) {
            view.mutable_bytes -= facts.memtable_bytes;
            view.flushed_bytes += facts.memtable_bytes;
            facts.memtable_bytes = 0;
            (facts.first_write_ns, facts.wal_anchor_segment) = (0, 0);
            facts.memtable_created_ns = view.now_ns;
        }
    }
    view.written_slots.clear();
}

/// Asks a policy until it names a tree, as often as it wants to be asked; whether it did.
fn asked(policy: &mut Box<dyn FlushPolicy>, view: &mut FlushView) -> bool {
    for _ in 0..300 {
        let decision = policy.decide(view);
        if !decision.flush.is_empty() || !decision.pack.is_empty() {
            flushed(view, &decision);
            return true;
        }
        let Some(at) = decision.wake_at else { return false };
        view.now_ns = at;
    }
    false
}

proptest! {
    // Strategy: small random views. Invariant: the shared rule in words, for every policy that has
    // its parameter.
    #[test]
    fn policies_with_the_shared_trigger_keep_the_shared_rule(mut view in views()) {
        // A cap on the WAL names trees though memory is not short.
        view.wal_bytes_max = 0;
        for info in list().filter(|info| keeps_shared_rule(info)) {
            let spec = PolicySpec::named(info.name).with("trigger_ratio", 0.5);
            let mut policy = build(&spec).unwrap();
            check_shared(&view, &policy.decide(&view), view.budget_bytes >> 1);
            check_shared(&view, &policy.decide(&view), view.budget_bytes >> 1);
        }
    }

    // Strategy: two small random views, one after the other, with every parameter at its least,
    // its most or its default. Invariants: those of every decision, and a clone and a policy that
    // saw the same views decide the same.
    #[test]
    fn every_policy_names_dirty_trees_once(
        views in (views(), views()), at in prop::sample::select(&["min", "max", "default"][..]),
    ) {
        for info in list() {
            let mut spec = PolicySpec::named(info.name);
            for param in info.params {
                let value = match at {
                    "min" => param.min,
                    "max" => param.max,
                    _ => param.default,
                };
                spec = spec.with(param.name, value);
            }
            let (mut policy, mut same) = (build(&spec).unwrap(), build(&spec).unwrap());
            for (view, now_ns) in [(&views.0, 150), (&views.1, 1_000), (&views.0, 9_000)] {
                let view = FlushView { now_ns, ..view.clone() };
                let mut copy = policy.clone();
                let decision = policy.decide(&view);
                check_any(&view, &decision, info.name);
                prop_assert_eq!(&copy.decide(&view), &decision, "a clone of {}", info.name);
                prop_assert_eq!(&same.decide(&view), &decision, "{}", info.name);
                prop_assert_eq!(format!("{policy:?}"), format!("{same:?}"));
            }
        }
    }

    // Strategy: views at or above the budget by mutable and reserved bytes, with nothing immutable
    // and nothing kept. Invariant: a policy without known defects names trees, at once or when it
    // wants to be asked again, until the rest is below the budget or nothing is dirty.
    #[test]
    fn a_full_budget_is_flushed(mut first in views(), mut full in views()) {
        full_of_memtables(&mut full);
        first.now_ns = 100;
        for info in list().filter(|info| info.known_defects.is_empty()) {
            let mut policy = build(&PolicySpec::named(info.name)).unwrap();
            check_any(&first, &policy.decide(&first), info.name);
            let mut view = full.clone();
            while view.mutable_bytes > 0
                && view.mutable_bytes + view.reserved_bytes >= view.budget_bytes
            {
                prop_assert!(asked(&mut policy, &mut view), "{} names nobody", info.name);
            }
        }
    }

    // Strategy: views in which time passes. Invariant: the trees idle for long enough are named,
    // as far as there is room, and no other tree is while memory is not short.
    #[test]
    fn idle_trees_are_named_and_no_others(mut view in views(), now_ns in 0..200_u64) {
        view.now_ns = now_ns;
        view.budget_bytes = 1_000_000;
        (view.wal_bytes_max, view.pack_bytes) = (0, 0);
        for info in list() {
            let spec = PolicySpec::named(info.name).with("idle_flush_ns", 20.0);
            let mut decision = build(&spec).unwrap().decide(&view);
            decision.flush.append(&mut decision.pack);
            let idle = |facts: &&TreeFacts| {
                facts.memtable_bytes > 0 && facts.last_write_ns + 20 <= now_ns
            };
            let idle: Vec<TreeId> = view.trees.iter().filter(idle).map(|f| f.tree).collect();
            let room = (view.flush_slots * 2).saturating_sub(view.flush_job_count);
            let want = u64::from(room).min(to_u64(idle.len()));
            prop_assert_eq!(to_u64(decision.flush.len()), want, "{}", info.name);
            prop_assert!(decision.flush.iter().all(|tree| idle.contains(tree)));
            prop_assert_eq!(decision.wake_at.is_some(), view.mutable_bytes > 0);
            prop_assert!(decision.wake_at.is_none_or(|at| at > now_ns));
        }
    }
}

#[test]
fn random_victims_are_spread_over_all_trees() {
    let facts = |tree| TreeFacts { tree: TreeId(tree), memtable_bytes: 1, ..TreeFacts::default() };
    let mut view = FlushView {
        budget_bytes: 10,
        mutable_bytes: 10,
        flush_slots: 1,
        trees: (1..=10).map(facts).collect(),
        ..FlushView::default()
    };
    let mut policy = build(&PolicySpec::named("random").with("trigger_ratio", 1.0)).unwrap();
    let mut counts = [0_u32; 10];
    for draw in 0..1000 {
        view.draw = draw;
        let decision = policy.decide(&view);
        assert_eq!(decision.flush.len(), 1);
        counts[usize::try_from(decision.flush[0].0).unwrap() - 1] += 1;
    }
    // 100 each, with a standard deviation of 9.5.
    assert!(counts.iter().all(|count| (60..=140).contains(count)), "{counts:?}");
}
