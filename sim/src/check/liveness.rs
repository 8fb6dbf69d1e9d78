//! Progress, open and determinism: L1, L2, C11 and C12.

use forebay_engine::policy::view::StallCause;
use forebay_engine::types::Nanos;
use forebay_engine::waiting::{TreeMemory, Waiting, WaitingWriter};

use super::model::seconds;
use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Virtual time in which everything that waits must end once faults are over.
pub const DEADLINE_NS: Nanos = 120_000_000_000;

/// L1: once faults are over, everything that waits ends within [`DEADLINE_NS`].
///
/// # Errors
///
/// L1 where something still waits; `waiting` names it.
pub fn l1_progress(counts: &mut RuleCounts, ended: bool, what: &str, waiting: &str) -> Checked {
    counts.count(Rule::L1);
    if ended {
        return Ok(());
    }
    let promised = format!("{what} ends within {} virtual s", seconds(DEADLINE_NS));
    broken(Violation::new(Rule::L1, promised, format!("still waiting: {waiting}")))
}

/// L1, asked whenever nothing can run and time is about to pass: for every writer that waits there is
/// something waiting or running that can end its cause. A timer is none: the engine looks for its
/// victims itself, whatever a policy waits for.
///
/// # Errors
///
/// L1 where a writer waits for nothing.
pub fn l1_enabled(counts: &mut RuleCounts, waiting: &Waiting) -> Checked {
    counts.count(Rule::L1);
    let Some(writer) = stranded(waiting) else { return Ok(()) };
    let promised = "a writer waits only while a job that can end it waits or runs";
    let story = story(waiting, &[]).join("; ");
    let of = format!("{} waits for nothing: {story}", writer.tenant);
    broken(Violation::new(Rule::L1, promised, of).at(waiting.now_ns))
}

/// The writer that waits longest of those for whom there is nothing, at an instant at which nothing
/// can run, that could end their wait.
pub fn stranded(waiting: &Waiting) -> Option<&WaitingWriter> {
    // Somebody is about to do something: a leader, a worker, a writer that was admitted.
    if waiting.commits_run || waiting.busy_count > 0 || waiting.reserved_bytes > 0 {
        return None;
    }
    waiting.writers.iter().find(|writer| match writer.cause {
        StallCause::Memtables => waiting.flush_count == 0,
        StallCause::L0 => waiting.compaction_count == 0,
        // They stand in one line: whoever stands behind another is said to wait for memory.
        StallCause::Budget | StallCause::Wal | StallCause::DiskFull => {
            waiting.flush_count == 0 && !waiting.log_lags
        }
    })
}

/// Most writers, and most trees, that a story names.
const NAMED_MAX: usize = 5;

/// Who waits since when and for what, what memory holds and who holds it, and that nothing runs: one
/// line each. Below 60 characters the first.
pub fn story(waiting: &Waiting, memory: &[TreeMemory]) -> Vec<String> {
    let count = waiting.writers.len();
    let cause = waiting.writers.first().map_or("nothing", |w| w.cause.name());
    let mut lines = vec![format!("{count} writers wait for {cause}, and nothing can end it")];
    for writer in waiting.writers.iter().take(NAMED_MAX) {
        lines.push(format!(
            "{} waits for {} since vt {}",
            writer.tenant,
            writer.cause.name(),
            seconds(writer.since_ns)
        ));
    }
    if count > NAMED_MAX {
        lines.push(format!("and {} more", count - NAMED_MAX));
    }
    let total = waiting
        .reserved_bytes
        .saturating_add(waiting.mutable_bytes)
        .saturating_add(waiting.immutable_bytes)
        .saturating_add(waiting.history_bytes);
    lines.push(format!(
        "vt {}: flushes {}, compactions {}, commits {}; WAL {} bytes",
        seconds(waiting.now_ns),
        waiting.flush_count,
        waiting.compaction_count,
        if waiting.commits_run { "run" } else { "none" },
        waiting.wal_bytes
    ));
    lines.push(format!(
        "budget M {}, memory in use V {total}, of it mutable U {}",
        waiting.budget_bytes, waiting.mutable_bytes
    ));
    lines.push(format!(
        "reserved {}, immutable {}, kept though flushed {}",
        waiting.reserved_bytes, waiting.immutable_bytes, waiting.history_bytes
    ));
    let mut trees: Vec<&TreeMemory> = memory.iter().collect();
    trees.sort_by_key(|m| (core::cmp::Reverse(m.bytes()), m.tree));
    for m in trees.iter().take(NAMED_MAX) {
        lines.push(format!(
            "tree {}: mutable {}, immutable {}, kept {}",
            m.tree, m.mutable_bytes, m.immutable_bytes, m.history_bytes
        ));
    }
    if trees.len() > NAMED_MAX {
        let left: u64 = trees.iter().skip(NAMED_MAX).map(|m| m.bytes()).sum();
        lines.push(format!("{} more trees: {left} bytes", trees.len() - NAMED_MAX));
    }
    lines
}

/// L2: while something waits, something can run; and what runs gets somewhere.
///
/// # Errors
///
/// L2 where `stuck` says how it does not.
pub fn l2_running(counts: &mut RuleCounts, stuck: Option<&str>) -> Checked {
    counts.count(Rule::L2);
    match stuck {
        None => Ok(()),
        Some(how) => broken(Violation::new(Rule::L2, "something can run, and gets on", how)),
    }
}

/// C11: after a crash, and no fault since, open works.
///
/// # Errors
///
/// C11 where it returned an error.
pub fn c11_open(counts: &mut RuleCounts, when: &str, error: Option<&str>) -> Checked {
    counts.count(Rule::C11);
    match error {
        None => Ok(()),
        Some(error) => {
            broken(Violation::new(Rule::C11, format!("open works {when}"), error.to_owned()))
        }
    }
}

/// How often an open may read a segment: its first record, its records, and what is written again.
const LOG_READS_MAX: u64 = 3;

/// Beyond the log's own bytes: blocks that are read in whole.
const LOG_READ_SLACK_BYTES: u64 = 65_536;

/// C11: an open reads the log that is there a few times, not more: its work is bounded by what the
/// durable floor left.
///
/// # Errors
///
/// C11 where it read more.
pub fn c11_work(counts: &mut RuleCounts, read_bytes: u64, log_bytes: u64) -> Checked {
    counts.count(Rule::C11);
    let most = log_bytes.saturating_mul(LOG_READS_MAX).saturating_add(LOG_READ_SLACK_BYTES);
    if read_bytes <= most {
        return Ok(());
    }
    let promised = format!("an open reads at most {most} bytes of a log of {log_bytes}");
    broken(Violation::new(Rule::C11, promised, format!("{read_bytes} bytes")))
}

/// C11: opening once more changes nothing.
///
/// # Errors
///
/// C11 where the two states differ.
pub fn c11_same<T: PartialEq>(counts: &mut RuleCounts, first: &T, again: &T) -> Checked {
    counts.count(Rule::C11);
    if first == again {
        return Ok(());
    }
    broken(Violation::new(Rule::C11, "opening twice changes nothing", "another state"))
}

/// C12: one seed, one trace.
///
/// # Errors
///
/// C12 where the two hashes differ.
pub fn c12_same_trace(counts: &mut RuleCounts, first: u64, again: u64) -> Checked {
    counts.count(Rule::C12);
    if first == again {
        return Ok(());
    }
    let found = format!("trace hashes {first:016x} and {again:016x}");
    broken(Violation::new(Rule::C12, "the same seed gives the same trace", found))
}
