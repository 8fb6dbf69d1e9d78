//! L8: what could grow without bound, sampled while faults happen.

use forebay_engine::Options;
use forebay_engine::waiting::Load;

use super::{Checked, Rule, RuleCounts, Violation, broken};

/// Files that one task may hold beside tables that the file cache knows: what it writes, and what it
/// takes the place of.
const TASK_FILES_MAX: u64 = 8;

/// Tasks of a second database with default options.
const TASKS_BESIDE: u64 = 12;

/// Tables that one task may read at once.
const TASK_TABLES_MAX: u64 = 96;

/// Files of the database itself (segment, spare, manifests, directory, lock) and of a harness that
/// inspects them.
const OWN_FILES_MAX: u64 = 12;

/// The block cache may hold one entry of each shard beyond its size.
const CACHE_SLACK_BYTES: u64 = 65_536;

/// L0 tables that flushes may add when writes have stopped: of memtables that were there, and of
/// those that a fork shares.
const L0_SLACK: u64 = 16;

/// L0 tables beyond the limit under a stall policy that delays writes and stops none for L0.
const L0_SLACK_DELAYED: u64 = 128;

/// What was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    memtable_bytes: u64,
    cached_bytes: u64,
    open_tables: u64,
    l0_count: u64,
    memtables: u64,
    slots: u64,
    clients: u64,
}

impl Caps {
    /// Those of a database with so many clients.
    pub fn new(options: &Options, clients: u64) -> Self {
        let slots = u64::from(options.flush_slots) + u64::from(options.compaction_slots);
        let memtables = u64::from(options.memtable_stop_count);
        let stops = ["hard", "leveldb", "rocksdb"].contains(&options.stall_policy.name.as_str());
        let l0_slack = if stops { L0_SLACK } else { L0_SLACK_DELAYED };
        Self {
            memtable_bytes: options
                .budget_bytes
                .saturating_add(options.batch_limit_bytes().saturating_mul(2)),
            cached_bytes: options.block_cache_bytes.saturating_add(CACHE_SLACK_BYTES),
            open_tables: u64::from(options.open_tables_max),
            l0_count: u64::from(options.l0_stop_count) + memtables + l0_slack,
            memtables,
            slots,
            clients,
        }
    }
}

/// One sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// What the engine says.
    pub load: Load,
    /// Open handles of the whole disk.
    pub handles: u64,
    /// Tasks that have not ended.
    pub tasks: u64,
    /// Whether a client made a second database, to be imported.
    pub is_beside: bool,
}

/// L8: memory, handles, tasks, L0 tables and queues are below what options and clients declare.
///
/// # Errors
///
/// L8 for the first that is not.
pub fn l8_growth(counts: &mut RuleCounts, caps: &Caps, sample: &Sample) -> Checked {
    counts.count(Rule::L8);
    let Sample { load, handles, tasks, is_beside } = sample;
    // The ticker, the harness, and workers beside the clients.
    let beside = if *is_beside { TASKS_BESIDE } else { 0 };
    let tasks_max = caps.slots + caps.clients + 4 + beside;
    let files = tasks.saturating_mul(TASK_FILES_MAX).saturating_add(OWN_FILES_MAX);
    let all = [
        ("bytes in memtables", load.memtable_bytes, caps.memtable_bytes),
        ("bytes in the block cache", load.cached_bytes, caps.cached_bytes),
        (
            "tables held open",
            load.open_tables,
            caps.open_tables.saturating_add(tasks.saturating_mul(TASK_TABLES_MAX)),
        ),
        ("open files", *handles, load.open_tables.saturating_add(files)),
        ("tasks", *tasks, tasks_max),
        ("L0 tables of one tree", load.l0_count_max, caps.l0_count),
        (
            "flushes that wait",
            load.flush_count,
            load.tree_count.saturating_add(1).saturating_mul(caps.memtables + 4),
        ),
        (
            "compactions that wait",
            load.compaction_count,
            load.tree_count.saturating_mul(2) + caps.slots + caps.clients,
        ),
        ("requests that wait", load.commit_count, tasks.saturating_mul(2) + 4),
    ];
    match all.into_iter().find(|(_, found, most)| found > most) {
        None => Ok(()),
        Some((what, found, most)) => {
            let promised = format!("at most {most} {what}");
            broken(Violation::new(Rule::L8, promised, format!("{found}")))
        }
    }
}
