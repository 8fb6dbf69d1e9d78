use core::cell::Cell;

use super::*;
use crate::run::scenario_of;

fn failing(bug: Bug) -> (Case, Outcome) {
    (0..20)
        .find_map(|seed| {
            let case = Case::new(seed, scenario_of(seed, &[]), Some(bug));
            let outcome = case.run();
            outcome.violation.is_some().then_some((case, outcome))
        })
        .unwrap()
}

/// Planted bugs lie in the world or in its clients, so that whatever the engine does they are found.
#[test]
fn a_shrunk_case_breaks_the_same_rule_within_its_budget_and_replays_without_its_seed() {
    let budget = Budget { runs: 150, events: 4_000_000 };
    for bug in [Bug::WalSkipSync, Bug::CrossTenant, Bug::ShortReverse, Bug::LeakedFile] {
        let (case, failed) = failing(bug);
        let shrunk = shrink_within(&case, &failed, budget, &|| false).unwrap();
        assert!(shrunk.runs <= budget.runs, "{bug}: {} runs", shrunk.runs);
        assert!(shrunk.scenario.ops() < 40, "{bug}: {} ops", shrunk.scenario.ops());
        let rule = |outcome: &Outcome| outcome.violation.as_ref().map(|found| found.rule);
        assert_eq!(rule(&shrunk.outcome), rule(&failed), "{bug}");
        let small = shrunk.case(case.seed, Some(bug));
        let text = serde_json::to_string(&small).unwrap();
        let again = Case { seed: !case.seed, ..Case::parse(&text).unwrap() }.run();
        assert_eq!(again.trace_hash, shrunk.outcome.trace_hash, "{bug}");
        assert_eq!(again.violation, shrunk.outcome.violation, "{bug}");
    }
}

#[test]
fn recorded_choices_replay_the_run_that_the_seed_drew() {
    for seed in [0, 1, 2] {
        let mut case = Case::new(seed, scenario_of(seed, &[]), None);
        let drawn = case.run();
        let watch = Watch { mode: Mode::Record, ..Watch::default() };
        case.choices = Some(case.run_watched(&watch).0.choices);
        let text = serde_json::to_string(&case).unwrap();
        assert!(text.len() < 400_000, "seed {seed}: {} bytes", text.len());
        let followed = Case { seed: 99, ..Case::parse(&text).unwrap() }.run();
        assert_eq!(followed.trace_hash, drawn.trace_hash, "seed {seed}");
    }
}

#[test]
fn a_shrink_that_is_stopped_gives_the_best_so_far() {
    let (case, failed) = failing(Bug::WalSkipSync);
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 10
    };
    let shrunk = shrink_within(&case, &failed, Budget::default(), &stop).unwrap();
    assert!(shrunk.runs <= 10, "{} runs", shrunk.runs);
    assert!(shrunk.outcome.violation.is_some());
}

#[test]
fn what_did_not_fail_or_does_not_fail_again_is_not_shrunk() {
    let case = Case::new(1, scenario_of(1, &[]), None);
    let passed = case.run();
    assert!(shrink(1, &case.scenario, None, &passed).is_none());
    let mut failed = passed;
    failed.violation = Some(Violation::new(crate::check::Rule::C2, "", ""));
    assert!(shrink(1, &case.scenario, None, &failed).is_none());
}
