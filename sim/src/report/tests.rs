use core::cell::Cell;

use super::*;
use crate::bugs::Bug;
use crate::run::scenario_of;
use crate::shrink::{Budget, shrink_within};

fn shrunk(bug: Bug) -> (Case, Reduced) {
    let found = (0..20).find_map(|seed| {
        let case = Case::new(seed, scenario_of(seed, &[]), Some(bug));
        let outcome = case.run();
        outcome.violation.is_some().then_some((case, outcome))
    });
    let (case, failed) = found.unwrap();
    let budget = Budget { runs: 200, events: 6_000_000 };
    let shrunk = shrink_within(&case, &failed, budget, &|| false).unwrap();
    let reduced = Reduced { ops_before: case.scenario.ops(), runs: shrunk.runs };
    (shrunk.case(case.seed, Some(bug)), reduced)
}

fn has(text: &str, wanted: &[&str]) {
    for what in wanted {
        assert!(text.contains(what), "{what:?} is missing:\n{text}");
    }
}

#[test]
fn a_lost_write_is_told_on_one_screen_and_twice_the_same() {
    let (case, reduced) = shrunk(Bug::WalSkipSync);
    let report = Report::build(&case, Some(reduced), &|| false).unwrap();
    let text = report.to_string();
    assert_eq!(text, Report::build(&case, Some(reduced), &|| false).unwrap().to_string());
    has(&text, &["ACKED WRITE LOST   tenant t", ", branch ", ", key \"", "[rule C2]"]);
    has(&text, &["\n promised ", "\n found ", " history (", " ops, ", "POWER LOSS"]);
    has(&text, &[" life of seq ", "wal 0", ".wal@", "sync ok vt ", "\n on disk ", "\n what if "]);
    has(&text, &["\n no return ", "5/5 replays identical, event hash ", "planted wal-skip-sync"]);
    let stable = report.stable.unwrap();
    assert_eq!(stable.trace_hash, format!("{:016x}", case.run().trace_hash));
    // Whoever kills the process only loses nothing that was handed to the system.
    let kill = report.what_if.iter().find(|v| v.change == "kill -9 for power loss");
    assert!(kill.is_none_or(|v| v.rule.is_none()), "{text}");
}

#[test]
fn a_hang_names_who_waits_for_what() {
    let (case, reduced) = shrunk(Bug::StuckIo);
    let text = Report::build(&case, Some(reduced), &|| false).unwrap().to_string();
    has(&text, &["\n waits ", "sync of 0", "never ended", "tasks alive: ", "; last answer vt "]);
}

#[test]
fn every_report_fits_a_screen() {
    for bug in [Bug::CrossTenant, Bug::HiddenRot, Bug::LeakedFile] {
        let (case, reduced) = shrunk(bug);
        let text = Report::build(&case, Some(reduced), &|| false).unwrap().to_string();
        assert!(text.lines().count() <= LINES_MAX, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
    // Nothing was made smaller.
    let case = Case::new(0, scenario_of(0, &[]), Some(Bug::WalSkipSync));
    let text = Report::build(&case, None, &|| false).unwrap().to_string();
    assert!(text.lines().count() <= LINES_MAX, "{text}");
}

#[test]
fn a_case_that_passes_has_no_report_and_one_that_is_stopped_has_its_history() {
    let mut case = Case::new(1, scenario_of(1, &[]), None);
    assert!(Report::build(&case, None, &|| false).is_none());
    case.bug = Some(Bug::WalSkipSync.name().to_owned());
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        true
    };
    let report = Report::build(&case, None, &stop).unwrap();
    assert!(!report.history.is_empty() && report.what_if.is_empty());
    assert_eq!((report.stable.unwrap().replays, report.no_return), (0, None));
    assert!(asked.get() > 0);
}
