//! Strategy: random trees, changes and writes told to every stall policy; a writer does as it is
//! told and asks again.
//!
//! Invariants: a writer that no stop holds gets through in bounded time; delays are above 0;
//! another tree is named only as long as the policy was told of it and not of its end; nothing
//! overflows.
#![cfg(test)]

use std::collections::BTreeSet;

use forebay_engine::policy::stall::{self, StallPolicy};
use forebay_engine::policy::view::{
    Admission, ChangeKind, LoadView, StallCause, StallLimits, TreeChange, WriteView,
};
use forebay_engine::policy::{PolicyKind, PolicySpec};
use forebay_engine::types::{BranchId, Nanos, TreeId};
use proptest::prelude::*;

const LIMITS: StallLimits = StallLimits {
    memtable_slowdown_count: 3,
    memtable_stop_count: 4,
    l0_slowdown_count: 4,
    l0_stop_count: 8,
    pending_compaction_slowdown_bytes: 1 << 16,
    pending_compaction_stop_bytes: 1 << 20,
    wal_bytes_stop: 0,
};

/// No write of a few KiB waits longer than this without a stop: at 16 KiB a second, behind writers
/// that came before it.
const WAIT_NS_MAX: Nanos = 600_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    Pass(Nanos),
    Change { tree: u64, kind: ChangeKind, counts: (u32, u32), pending: u64 },
    Write { tree: u64, bytes: u64, draw: u64, used: u64 },
}

fn kind() -> impl Strategy<Value = ChangeKind> {
    let n = || prop_oneof![Just(0), 0..1_u64 << 20, any::<u64>()];
    prop_oneof![
        Just(ChangeKind::Opened),
        n().prop_map(|bytes| ChangeKind::Sealed { bytes }),
        (n(), n(), n()).prop_map(|(bytes, table_bytes, elapsed_ns)| ChangeKind::Flushed {
            bytes,
            table_bytes,
            elapsed_ns
        }),
        (n(), n(), n(), n()).prop_map(|(l0_input_bytes, input_bytes, output_bytes, elapsed_ns)| {
            ChangeKind::Compacted { l0_input_bytes, input_bytes, output_bytes, elapsed_ns }
        }),
        Just(ChangeKind::Dropped),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pending = prop_oneof![Just(0), 0..1_u64 << 21, any::<u64>()];
    prop_oneof![
        (0..10_000_000_000_u64).prop_map(Step::Pass),
        (1..5_u64, kind(), (0..6_u32, 0..10_u32), pending)
            .prop_map(|(tree, kind, counts, pending)| Step::Change { tree, kind, counts, pending }),
        (1..5_u64, 1..8192_u64, any::<u64>(), 0..(1_u64 << 20) + 1)
            .prop_map(|(tree, bytes, draw, used)| Step::Write { tree, bytes, draw, used }),
    ]
}

/// Writes, doing as told, until it is admitted or stopped.
fn write(
    policy: &mut dyn StallPolicy,
    (now, known): (&mut Nanos, &BTreeSet<u64>),
    mut view: WriteView,
) {
    let began = *now;
    for ask in 0_u64.. {
        view.now_ns = *now;
        view.draw = view.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(ask | 1);
        let by_known = |cause, by: TreeId| {
            let own = matches!(cause, StallCause::Budget | StallCause::Wal) || by == view.tree;
            assert!(own || known.contains(&by.0), "{by} is named, of {known:?}");
        };
        match policy.decide(&view) {
            Admission::Admit => return,
            Admission::Stop { cause, by } => {
                by_known(cause, by);
                return;
            }
            Admission::Delay { delay_ns, cause, by } => {
                by_known(cause, by);
                assert!(delay_ns > 0);
                *now += delay_ns;
                view.delayed_ns += delay_ns;
                assert!(*now - began <= WAIT_NS_MAX, "{policy:?} delays {view:?} for ever");
            }
        }
    }
}

fn run(name: &str, steps: &[Step]) {
    let mut policy = stall::build(&PolicySpec::named(name)).unwrap();
    let (mut now, mut known) = (1_u64, BTreeSet::new());
    let mut of_tree = [(0, 0, 0); 5];
    for step in steps {
        match step {
            Step::Pass(ns) => now += ns,
            Step::Change { tree, kind, counts, pending } => {
                let gone = *kind == ChangeKind::Dropped;
                let facts = if gone { (0, 0, 0) } else { (counts.0, counts.1, *pending) };
                of_tree[usize::try_from(*tree).unwrap()] = facts;
                if gone {
                    known.remove(tree)
                } else {
                    known.insert(*tree)
                };
                policy.observe(&TreeChange {
                    now_ns: now,
                    tree: TreeId(*tree),
                    kind: *kind,
                    immutable_count: facts.0,
                    l0_count: facts.1,
                    pending_compaction_bytes: facts.2,
                    limits: LIMITS,
                });
            }
            Step::Write { tree, bytes, draw, used } => {
                let facts = of_tree[usize::try_from(*tree).unwrap()];
                let view = WriteView {
                    tree: TreeId(*tree),
                    branch: BranchId(*tree),
                    draw: *draw,
                    write_bytes: *bytes,
                    tree_bytes: *bytes,
                    budget_bytes: 1 << 20,
                    used_bytes: *used,
                    immutable_count: facts.0,
                    l0_count: facts.1,
                    pending_compaction_bytes: facts.2,
                    limits: LIMITS,
                    ..WriteView::default()
                };
                write(policy.as_mut(), (&mut now, &known), view);
                policy.shares(&LoadView {
                    now_ns: now,
                    budget_bytes: 1 << 20,
                    used_bytes: *used,
                    pending_compaction_sum_bytes: of_tree.iter().map(|f| f.2 >> 3).sum(),
                    ..LoadView::default()
                });
            }
        }
    }
}

proptest! {
    #[test]
    fn writers_get_through_unless_a_stop_holds(steps in prop::collection::vec(step(), 0..60)) {
        for info in PolicyKind::Stall.list() {
            run(info.name, &steps);
        }
    }
}
