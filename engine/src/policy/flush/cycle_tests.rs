//! Trees of constant rates on sizes alone: flushes free memory at once, and no tree has a cap.
//!
//! With `p` the part of all bytes that a tree takes, `M` the budget and phases spread evenly,
//! theory says: trees in the order of first writes are flushed with `2 M p` bytes each, as many
//! times in all as the largest first, and by the square-root rule they are flushed with `2 M
//! sqrt(p) / S`, where `S` is the sum of all `sqrt(p)`; the number of flushes falls to `S^2 / n`
//! of the others'.

use super::*;
use crate::policy::view::TreeFacts;
use crate::types::{TreeId, to_u64, to_usize};

const TREES: u64 = 100;
const WARM_TICKS: u64 = 2_000;
const TICKS: u64 = 4_000;

/// Bytes that a tree takes in a tick: Zipf with exponent 1.
fn rate(slot: usize) -> u64 {
    10_000_u64.div_euclid(to_u64(slot) + 1)
}

fn rates() -> u64 {
    (0..to_usize(TREES)).map(rate).sum()
}

/// What all trees write in 100 ticks.
fn budget_bytes() -> u64 {
    rates() * 100
}

/// Flushes behind the warm-up, and the bytes of each tree's memtables at them.
struct Run {
    count: u64,
    sizes: Vec<Vec<u64>>,
}

impl Run {
    /// The mean of a tree's memtables at their flush.
    fn mean(&self, slot: usize) -> u64 {
        let sizes = &self.sizes[slot];
        sizes.iter().sum::<u64>().div_euclid(to_u64(sizes.len()))
    }
}

fn run(name: &str) -> Run {
    let spec = PolicySpec::named(name).with("trigger_ratio", 1.0);
    let mut policy = build(&spec).unwrap();
    let tree = |n| TreeFacts { tree: TreeId(n), ..TreeFacts::default() };
    let mut view = FlushView {
        budget_bytes: budget_bytes(),
        flush_slots: 2,
        trees: (1..=TREES).map(tree).collect(),
        ..FlushView::default()
    };
    let mut run = Run { count: 0, sizes: vec![Vec::new(); to_usize(TREES)] };
    for now_ns in 1..=WARM_TICKS + TICKS {
        view.now_ns = now_ns;
        for (slot, facts) in view.trees.iter_mut().enumerate() {
            if facts.memtable_bytes == 0 {
                facts.first_write_ns = now_ns;
            }
            facts.memtable_bytes += rate(slot);
            facts.written_bytes += rate(slot);
            facts.last_write_ns = now_ns;
            view.mutable_bytes += rate(slot);
        }
        for tree in policy.decide(&view).flush {
            let slot = to_usize(tree.0 - 1);
            let bytes = core::mem::take(&mut view.trees[slot].memtable_bytes);
            view.mutable_bytes -= bytes;
            view.flushed_bytes += bytes;
            if now_ns > WARM_TICKS {
                run.count += 1;
                run.sizes[slot].push(bytes);
            }
        }
    }
    run
}

/// Whether `a` differs from `b` by at most so many percent of `b`.
fn near(a: u64, b: u64, percent: u64) -> bool {
    a.abs_diff(b) * 100 <= b * percent
}

#[test]
fn sizes_at_flush_are_in_proportion_to_rates() {
    for name in ["oldest-write", "round-robin", "linear"] {
        let run = run(name);
        for slot in 0..to_usize(TREES) {
            let want = 2 * 100 * rate(slot);
            assert!(near(run.mean(slot), want, 10), "{name} {slot}: {} {want}", run.mean(slot));
        }
    }
}

#[test]
fn sizes_at_flush_are_in_proportion_to_roots_of_rates() {
    let run = run("sqrt");
    // The sum of all sqrt(r), in thousandths.
    let root = |slot| (rate(slot) * 1_000_000).isqrt();
    let roots: u64 = (0..to_usize(TREES)).map(root).sum();
    for slot in 0..to_usize(TREES) {
        let want = (2 * budget_bytes() * root(slot)).div_euclid(roots);
        assert!(near(run.mean(slot), want, 10), "{slot}: {} {want}", run.mean(slot));
    }
}

#[test]
fn the_root_rule_makes_a_third_fewer_flushes() {
    let [oldest, largest, linear, sqrt] =
        ["oldest-write", "largest", "linear", "sqrt"].map(|name| run(name).count);
    // n R / (2 M) flushes in a tick.
    assert!(near(oldest, (TREES * TICKS).div_euclid(200), 5), "{oldest}");
    // The hottest tree is a tenth above the others at its flush: one tick's bytes.
    assert!(near(largest, oldest, 10), "{largest} {oldest}");
    assert!(near(linear, oldest, 5), "{linear} {oldest}");
    // S^2 / n = 18.59^2 / 5.187 / 100 = 0.666.
    assert!(near(sqrt * 1000, oldest * 666, 5), "{sqrt} {oldest}");
}
