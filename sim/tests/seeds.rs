#![cfg(test)]
//! Seeds pass, repeat themselves, and every planted bug is caught with its rule.

use std::collections::BTreeMap;

use forebay_sim::bugs::Bug;
use forebay_sim::check::{Rule, RuleCounts};
use forebay_sim::run::run_seed;
use forebay_sim::scenario::Scenario;

#[test]
fn the_first_seeds_pass_and_ask_every_rule() {
    let mut counts = RuleCounts::default();
    let (mut power, mut faults) = (0, 0);
    let mut marks = BTreeMap::<&str, u64>::new();
    for seed in 0..64 {
        let outcome = run_seed(seed, &[], None);
        assert_eq!(outcome.violation, None, "seed {seed}");
        counts.merge(&outcome.counts);
        outcome.marks.iter().for_each(|(name, n)| *marks.entry(name).or_default() += n);
        power += outcome.faults.get("power_loss").copied().unwrap_or(0);
        faults += outcome.faults.values().sum::<u64>();
    }
    for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::C12) {
        assert!(counts.get(rule) > 15, "{rule} was asked {} times", counts.get(rule));
    }
    for mark in [
        "scan-seek",
        "paths-compared",
        "compact-range",
        "extractor-changed",
        "packed-flush",
        "snapshot-reread",
        "verified",
        "repair-asked",
    ] {
        assert!(marks.get(mark).is_some_and(|n| *n > 2), "{mark} in {marks:?}");
    }
    assert!(power > 64 && faults > power, "{power} power losses among {faults} faults");
}

#[test]
fn a_seed_repeats_itself_and_another_differs() {
    for seed in [3, 7, 8] {
        let (first, again) = (run_seed(seed, &[], None), run_seed(seed, &[], None));
        assert_eq!(first.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(first.story, again.story, "seed {seed}");
        assert_ne!(first.trace_hash, run_seed(seed + 100, &[], None).trace_hash);
    }
}

fn first_broken(bug: Bug) -> Rule {
    let found = (0..500).find_map(|seed| run_seed(seed, &[], Some(bug)).violation);
    found.expect("the planted bug is found within 500 seeds").rule
}

#[test]
fn planted_bugs_break_the_rule_that_they_should() {
    assert_eq!(first_broken(Bug::WalSkipSync), Rule::C2);
    assert_eq!(first_broken(Bug::TableSkipSync), Rule::C2);
    assert!(matches!(first_broken(Bug::DirSkipSync), Rule::C2 | Rule::C11));
    assert_eq!(first_broken(Bug::CrossTenant), Rule::C3);
    assert!(matches!(first_broken(Bug::StuckIo), Rule::L1 | Rule::L7));
    assert!(matches!(first_broken(Bug::HiddenRot), Rule::C2 | Rule::C6 | Rule::C9 | Rule::C11));
    assert_eq!(first_broken(Bug::ShortReverse), Rule::C8);
    assert_eq!(first_broken(Bug::PrefixGap), Rule::C8);
    assert_eq!(first_broken(Bug::LeakedFile), Rule::C10);
}

#[test]
fn damage_is_told_by_the_trees_that_it_hit_and_the_others_keep_their_promises() {
    let is_damaged = |seed: &u64| {
        let mut phases = Scenario::draw(*seed).phases.into_iter();
        phases.any(|phase| phase.faults.damages_media() || phase.recovery_faults.damages_media())
    };
    let (mut told, mut refused, mut judged) = (0, 0, 0);
    for seed in (0..600).filter(is_damaged) {
        let outcome = run_seed(seed, &[], None);
        assert_eq!(outcome.violation, None, "seed {seed}");
        let mark = |name| outcome.marks.get(name).copied().unwrap_or(0);
        told += mark("damage-told");
        refused += mark("open-refused-damage");
        judged += outcome.counts.get(Rule::C1);
    }
    assert!(told > 50 && refused > 3 && judged > 100, "{told} told, {refused} refused, {judged}");
}

#[test]
fn an_unseeded_world_gives_another_trace() {
    let hash = || run_seed(0, &[], Some(Bug::Unseeded)).trace_hash;
    assert_ne!(hash(), hash());
}
