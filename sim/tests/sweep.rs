#![cfg(test)]
//! Strategy: a slice of the sweep in which each call fails in each way. Invariants: every script says
//! something of its own, most faults fire, and no rule is broken.

use std::collections::BTreeMap;

use forebay_sim::sweep::scripts;

/// Of so many steps, one is taken here; the rest is `just sweep`.
const SLICE: usize = 131;

#[test]
fn a_slice_of_the_sweep_passes() {
    let mut fired = BTreeMap::<&str, u64>::new();
    let mut runs = 0;
    for (number, script) in scripts().unwrap().iter().enumerate() {
        if !number.is_multiple_of(4) {
            continue;
        }
        let steps = script.steps().unwrap();
        for step in steps.iter().skip(number % 29).step_by(SLICE) {
            let outcome = script.run(step);
            assert_eq!(outcome.violation, None, "{}: {step}", script.name);
            runs += 1;
            for (name, n) in outcome.faults {
                *fired.entry(name).or_default() += n;
            }
        }
    }
    println!("{runs} runs, {fired:?}");
    assert!(runs > 200, "{runs}");
    for name in ["eio_write", "eio_sync", "eio_meta", "short_write", "error_after_effect"] {
        assert!(fired.contains_key(name), "{name} in {fired:?}");
    }
}
