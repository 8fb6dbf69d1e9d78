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

fn step(number: usize, who: &str, what: &str, result: &str) -> Step {
    Step {
        number,
        at: 0,
        who: who.to_owned(),
        what: what.to_owned(),
        result: result.to_owned(),
        is_guilty: number == 7,
        made: 0,
        kind: history::Kind::Asked,
    }
}

/// A report with something of everything.
fn example() -> Report {
    let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    let found = "no value: the history of the key ends with nothing, and no other key of this \
                 tenant explains it either";
    let violation = Violation::new(Rule::C2, "put seq 611 sync, acked at vt 4.207000", found);
    let mut report = Report::of(
        &Case::new(8421, scenario_of(0, &[("profile".to_owned(), "strict".to_owned())]), None),
        violation.of(3, Some(42)).seq(611).at(6_100_000_000),
    );
    (report.ops, report.clients, report.crashes, report.faults) = (8, 2, 1, 0);
    report.reduced = Some(Reduced { ops_before: 322, runs: 214 });
    report.history = vec![
        step(1, "client 0", "put t3 k0042  sync", "seq 118"),
        step(2, "client 0", "flush t3", ""),
        step(7, "engine", "removes 000004.wal", ""),
        step(8, "POWER LOSS", "pages kept none lost 3", "recovered up to seq 597"),
    ];
    report.life = text(&["wal 000004.wal@18432 vt 4.200000", "sync ok vt 4.207000"]);
    report.files = vec![FileView { path: "/db/CURRENT".to_owned(), bytes: 16 }];
    report.missing = text(&["000005.wal"]);
    report.what_if = vec![
        WhatIf { change: "without the crash".to_owned(), rule: None },
        WhatIf { change: "kill -9 for power loss".to_owned(), rule: Some(Rule::C2) },
        WhatIf { change: "one flush worker".to_owned(), rule: Some(Rule::C1) },
    ];
    report.no_return = Some(NoReturn { step: Some(7), futures: 16, fail: 16, fail_before: 0 });
    report.stable = Some(Stable { replays: 5, same: 5, trace_hash: "7c1e000000000000".to_owned() });
    report.setting = "strict, device none, 3 tenants, flush_slots=1".to_owned();
    report.build = "0.1.0".to_owned();
    report
}

#[test]
fn the_text_of_a_report() {
    let wanted = "\
ACKED WRITE LOST   tenant t3, branch main, key \"k0042\"   [rule C2]   seed 8421
 promised   put seq 611 sync, acked at vt 4.207000
 found      no value: the history of the key ends with nothing, and no other key of this tenant
            explains it either   at vt 6.100000 s

 history (8 of 322 ops, 1 crashes, 0 faults, 2 clients)   reduced in 214 runs
   1  client 0   put t3 k0042  sync   seq 118
   2  client 0   flush t3
      ... 4 steps
   7  engine     removes 000004.wal      <<<<
   8  POWER LOSS pages kept none lost 3   recovered up to seq 597

 life of seq 611
            wal 000004.wal@18432 vt 4.200000 -> sync ok vt 4.207000
 on disk    CURRENT 16 B
 missing    000005.wal
 what if    without the crash: pass | kill -9 for power loss: FAIL | one flush worker: FAIL by C1
 no return  step 7: 16 of 16 futures from it fail, 0 of 16 from before it
 stable     5/5 replays identical, event hash 7c1e000000000000, build 0.1.0
 setting    strict, device none, 3 tenants, flush_slots=1
";
    assert_eq!(example().to_string(), wanted);
    let fields = serde_json::to_value(example()).unwrap();
    assert_eq!(fields["violation"]["rule"], "C2");
    assert_eq!(fields["history"][2]["is_guilty"], true);
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
    has(&text, &["\n waits ", "sync of 0", "never ended", "tasks alive: ", "; last progress vt "]);
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
    let passes = Case::new(1, scenario_of(1, &[]), None);
    assert!(Report::build(&passes, None, &|| false).is_none());
    let case = Case::new(0, scenario_of(0, &[]), Some(Bug::WalSkipSync));
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
