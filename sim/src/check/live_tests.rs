//! The rules of liveness and of accounts on made-up facts: each at its bound, and one beyond it.

use forebay_engine::waiting::Load;
use forebay_engine::{Error, Options};

use super::c7_balance::c7_balance;
use super::closing::{l7_closed, l7_let_go};
use super::fairness::{is_hot, l3_cold_write, l3_log};
use super::full_disk::{DROP_BYTES, Refused, l4_pace, l4_refused, l4_resumes};
use super::growth::{Caps, Sample, l8_growth};
use super::liveness::{DEADLINE_NS, c11_work};
use super::log_failure::{l5_sealed, l5_told};
use super::sickness::{Neighbour, l6_log, l6_nothing_waits, l6_others_go_on};
use super::{Checked, Rule, RuleCounts};
use crate::fault::Fault;
use crate::ledger::{Failure, LogMisuse};

/// More than any cap.
const MANY: u64 = 1 << 40;

#[track_caller]
fn asked(rule: Rule, holds: bool, ask: impl FnOnce(&mut RuleCounts) -> Checked) {
    let mut counts = RuleCounts::default();
    let found = ask(&mut counts).err().map(|violation| violation.rule);
    assert_eq!(found, (!holds).then_some(rule));
    assert_eq!(counts.get(rule), 1, "{rule} was not counted");
}

fn full() -> Error {
    Error::DiskFull { free_bytes: 1, needed_bytes: 2 }
}

#[test]
fn a_cold_write_has_its_time_and_a_log_its_bound() {
    asked(Rule::L3, true, |c| l3_cold_write(c, 1, DEADLINE_NS));
    asked(Rule::L3, false, |c| l3_cold_write(c, 1, DEADLINE_NS + 1));
    asked(Rule::L3, true, |c| l3_log(c, (9, 9), DEADLINE_NS + 1));
    asked(Rule::L3, true, |c| l3_log(c, (10, 9), DEADLINE_NS));
    asked(Rule::L3, false, |c| l3_log(c, (10, 9), DEADLINE_NS + 1));
    assert!(is_hot(10, 19) && !is_hot(10, 20) && !is_hot(9, 9));
}

#[test]
fn a_full_disk_refuses_writes_in_words_and_nothing_else() {
    let refused = |what, error: &Error, free_bytes, holds| {
        asked(Rule::L4, holds, |c| l4_refused(c, &Refused { what, error, free_bytes }));
    };
    refused("write", &full(), 0, true);
    refused("write", &Error::Interrupted, 0, false);
    refused("get", &full(), 0, false);
    refused("drop", &full(), DROP_BYTES - 1, true);
    refused("drop", &full(), DROP_BYTES, false);
    asked(Rule::L4, true, |c| l4_resumes(c, None));
    asked(Rule::L4, false, |c| l4_resumes(c, Some(&full())));
    asked(Rule::L4, true, |c| l4_pace(c, (30, 30), 1, 3_000_000_000));
    asked(Rule::L4, false, |c| l4_pace(c, (31, 0), 1, 3_000_000_000));
    asked(Rule::L4, false, |c| l4_pace(c, (0, 61), 2, 3_000_000_000));
}

#[test]
fn a_failed_segment_is_left_and_its_writers_are_told() {
    let path = "/db/000004.wal".to_owned();
    let misuse = LogMisuse { path, failed_at: 5, call: "append", at: 6 };
    asked(Rule::L5, true, |c| l5_sealed(c, None));
    asked(Rule::L5, false, |c| l5_sealed(c, Some(&misuse)));
    asked(Rule::L5, true, |c| l5_told(c, false, (3, 4)));
    asked(Rule::L5, false, |c| l5_told(c, true, (3, 4)));
}

#[test]
fn damage_is_its_own_tenants_trouble() {
    let error = full();
    let go_on = |is_hit, holds| {
        let of = [Neighbour { tenant: 1, is_hit, error: Some(&error) }];
        asked(Rule::L6, holds, |c| l6_others_go_on(c, &of));
    };
    go_on(true, true);
    go_on(false, false);
    asked(Rule::L6, false, |c| l6_nothing_waits(c, false, "a flush"));
    asked(Rule::L6, true, |c| l6_log(c, (9, 9)));
    asked(Rule::L6, false, |c| l6_log(c, (10, 9)));
}

#[test]
fn a_close_ends_and_lets_go_of_everything() {
    asked(Rule::L7, true, |c| l7_closed(c, "a close", true, ""));
    asked(Rule::L7, false, |c| l7_closed(c, "a close", false, "a sync"));
    asked(Rule::L7, true, |c| l7_let_go(c, "a close", (false, 0)));
    asked(Rule::L7, false, |c| l7_let_go(c, "a close", (true, 0)));
    asked(Rule::L7, false, |c| l7_let_go(c, "a close", (false, 1)));
}

#[test]
fn everything_that_can_grow_has_a_cap() {
    let caps = Caps::new(&Options::default(), 2);
    let grow = |holds, of: &dyn Fn(&mut Sample)| {
        let mut sample = Sample { tasks: 1, ..Sample::default() };
        of(&mut sample);
        asked(Rule::L8, holds, |c| l8_growth(c, &caps, &sample));
    };
    grow(true, &|_| {});
    grow(false, &|s| s.handles = MANY);
    grow(false, &|s| s.tasks = MANY);
    let of_load: [fn(&mut Load) -> &mut u64; 7] = [
        |l| &mut l.memtable_bytes,
        |l| &mut l.cached_bytes,
        |l| &mut l.open_tables,
        |l| &mut l.l0_count_max,
        |l| &mut l.flush_count,
        |l| &mut l.compaction_count,
        |l| &mut l.commit_count,
    ];
    for field in of_load {
        grow(false, &|s| *field(&mut s.load) = MANY);
    }
}

#[test]
fn an_error_that_vanished_is_found_unless_the_database_says_that_it_is_degraded() {
    let path = "/db/000004.sst".to_owned();
    let fault = Fault::EioRead;
    let left = [Failure { fault, at: 5, path, offset: Some(8), call: None }];
    asked(Rule::C7, true, |c| c7_balance(c, false, &[]));
    asked(Rule::C7, true, |c| c7_balance(c, true, &left));
    asked(Rule::C7, false, |c| c7_balance(c, false, &left));
}

#[test]
fn an_open_reads_the_log_a_few_times() {
    asked(Rule::C11, true, |c| c11_work(c, 3_065_536, 1_000_000));
    asked(Rule::C11, false, |c| c11_work(c, 3_065_537, 1_000_000));
}
