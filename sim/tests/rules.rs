#![cfg(test)]
//! Every rule can fail: for each of them a world in which a broken engine, client or device breaks it.
//!
//! A rule without a case does not compile: the table is a match over all of them.

use forebay_sim::bugs::Bug;
use forebay_sim::check::liveness::c12_same_trace;
use forebay_sim::check::{Rule, RuleCounts, Violation};
use forebay_sim::run::run_seed;
use forebay_sim::scenario::FORKS_PROFILE;

/// Seeds among which one must break the rule.
const SEEDS: u64 = 1500;

/// What breaks a rule.
enum Trip {
    /// This planted bug, in ordinary scenarios or in those of forks.
    Bug(Bug, bool),
    /// Two runs of one seed in a world that is not seeded.
    TwoRuns,
}

fn trip(rule: Rule) -> Trip {
    let bug = |bug| Trip::Bug(bug, false);
    match rule {
        Rule::C1 => bug(Bug::GapInPrefix),
        Rule::C2 => bug(Bug::WalSkipSync),
        Rule::C3 => bug(Bug::CrossTenant),
        Rule::C4 => bug(Bug::Undelete),
        Rule::C5 => Trip::Bug(Bug::ForkSeesParent, true),
        Rule::C6 | Rule::C9 => bug(Bug::HiddenRot),
        Rule::C7 => bug(Bug::DeafClient),
        Rule::C8 => bug(Bug::ShortReverse),
        Rule::C10 => bug(Bug::LeakedFile),
        Rule::C11 => bug(Bug::StaleLock),
        Rule::C12 => Trip::TwoRuns,
        Rule::L1 => bug(Bug::StuckIo),
        Rule::L2 => bug(Bug::SpinIo),
        Rule::L3 => bug(Bug::ColdWaits),
        Rule::L4 => bug(Bug::StaleFree),
        Rule::L5 => bug(Bug::SwallowedSync),
        Rule::L6 => bug(Bug::SickNeighbour),
        Rule::L7 => bug(Bug::StuckClose),
        Rule::L8 => bug(Bug::LeakedHandle),
    }
}

/// The first violation of the rule, and the seed.
fn tripped(rule: Rule) -> Option<(u64, Violation)> {
    let (bug, forks) = match trip(rule) {
        Trip::Bug(bug, forks) => (bug, forks),
        Trip::TwoRuns => {
            let hash = || run_seed(0, &[], Some(Bug::Unseeded)).trace_hash;
            let asked = c12_same_trace(&mut RuleCounts::default(), hash(), hash());
            return asked.err().map(|violation| (0, *violation));
        }
    };
    let profile = ("profile".to_owned(), FORKS_PROFILE.to_owned());
    let settings = if forks { vec![profile] } else { Vec::new() };
    (0..SEEDS).find_map(|seed| {
        let found = run_seed(seed, &settings, Some(bug)).violation?;
        (found.rule == rule).then_some((seed, found))
    })
}

#[test]
fn every_rule_is_broken_by_a_world_that_breaks_it() {
    let mut missing = Vec::new();
    for rule in Rule::ALL {
        match tripped(rule) {
            None => missing.push(rule),
            Some((seed, found)) => {
                println!("{rule} by seed {seed}: {} | {}", found.promised, found.found);
            }
        }
    }
    assert!(missing.is_empty(), "nothing breaks {missing:?}");
}

#[test]
fn what_is_stuck_says_who_waits_for_whom() {
    let (_, found) = tripped(Rule::L1).expect("a sync that never ends is found");
    let at_device = |line: &String| line.contains("waits for the device: sync_data");
    assert!(found.waits.iter().any(at_device), "{:#?}", found.waits);
    let signal = |line: &String| line.contains("waits for a signal");
    assert!(found.waits.iter().any(signal), "{:#?}", found.waits);
}
