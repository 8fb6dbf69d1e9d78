//! Memory and log at their edges: flushed memtables that are kept, and trees that pin the log.
//!
//! Strategy: real threads over the memory world; sizes so small that every rule is met within some
//! thousand writes.
//! Invariants: what is kept stays within its bytes and goes with its tree; the budget counts what
//! trees hold; no writer is stuck, whatever is kept; live segments stay below `wal_bytes_max` and
//! two segments where writers are held one segment above it.
#![cfg(test)]

use std::path::Path;

use forebay_engine::WriteOptions;
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::options::Options;
use forebay_engine::policy::PolicyKind;

fn options(settings: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (key, value) in [
        ("memtable_bytes_max", "16KiB"),
        ("wal_segment_bytes", "32KiB"),
        ("block_bytes", "256"),
        ("stall_policy", "hard"),
        ("sync_interval_ns", "0"),
    ]
    .iter()
    .chain(settings)
    {
        options.set(key, value).unwrap();
    }
    options
}

fn open(
    settings: &[(&str, &str)],
    tenants: usize,
) -> (BlockingDb<MemEnv>, Vec<BlockingTenant<MemEnv>>) {
    let db = BlockingDb::open(MemEnv::default(), Path::new("/db"), options(settings)).unwrap();
    let names: Vec<String> = (0..tenants).map(|i| format!("t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    (db, tenants)
}

fn put(tenant: &BlockingTenant<MemEnv>, key: usize, bytes: usize) {
    let value = vec![b'v'; bytes];
    tenant.put(format!("key{key}").as_bytes(), &value, WriteOptions::default()).unwrap();
}

/// Bytes kept by each tree, as counted anew; the budget's sums must agree.
fn kept(db: &BlockingDb<MemEnv>) -> Vec<u64> {
    let memory = db.db().watch().memory();
    let metrics = db.db().metrics();
    assert_eq!(memory.iter().map(|m| m.history_bytes).sum::<u64>(), metrics.history_bytes);
    assert_eq!(memory.iter().map(|m| m.mutable_bytes).sum::<u64>(), metrics.mutable_bytes);
    assert_eq!(memory.iter().map(|m| m.immutable_bytes).sum::<u64>(), metrics.immutable_bytes);
    memory.iter().map(|m| m.history_bytes).filter(|bytes| *bytes > 0).collect()
}

#[test]
fn kept_memtables_stay_within_their_bytes_and_go_with_their_tree() {
    const MAX: u64 = 10_000;
    let (db, tenants) = open(&[("memtable_history_bytes", "10_000")], 2);
    for round in 0..6 {
        for tenant in &tenants {
            for key in 0..4 {
                put(tenant, key, 500);
            }
            tenant.flush().unwrap();
        }
        let kept = kept(&db);
        assert_eq!(kept.len(), 2);
        // Of memtables of about 2.5 kB, three and no more.
        let full = round > 2;
        assert!(kept.iter().all(|k| *k <= MAX && (!full || *k > MAX - 3000)), "{kept:?}");
    }
    // A seal looks too: what took writes meanwhile leaves less room.
    for key in 0..8 {
        put(&tenants[0], key, 900);
    }
    tenants[0].flush().unwrap();
    let before = kept(&db);
    assert!(before.iter().all(|k| *k <= MAX));
    assert_eq!(tenants[0].get(b"key7").unwrap().map(|v| v.len()), Some(900));
    db.drop_tenant("t0").unwrap();
    assert_eq!(kept(&db), before[1..]);
    db.close().unwrap();
}

#[test]
fn without_the_option_nothing_is_kept() {
    let (db, tenants) = open(&[], 1);
    put(&tenants[0], 1, 500);
    tenants[0].flush().unwrap();
    assert_eq!(kept(&db), [0; 0]);
    assert_eq!(db.db().metrics().flush_count, 1);
    db.close().unwrap();
}

#[test]
fn no_writer_is_stuck_behind_kept_memtables_whatever_the_flush_policy() {
    for policy in PolicyKind::Flush.list() {
        let settings = [
            ("budget_bytes", "65536"),
            ("memtable_history_bytes", "1GiB"),
            ("flush_policy", policy.name),
        ];
        let (db, tenants) = open(&settings, 3);
        for round in 0..600 {
            put(&tenants[round % 3], round, 700);
        }
        let metrics = db.db().metrics();
        assert!(metrics.policy_override_count > 0, "{}: {metrics:?}", policy.name);
        assert!(metrics.memtable_bytes_max_seen <= 65536, "{}: {metrics:?}", policy.name);
        for round in 0..600 {
            assert!(tenants[round % 3].get(format!("key{round}").as_bytes()).unwrap().is_some());
        }
        db.close().unwrap();
    }
}

#[test]
fn a_log_that_many_trees_pin_stays_below_its_limit_and_two_segments() {
    const LIMIT: u64 = 4 * 32768;
    for serial in ["true", "false"] {
        let settings = [
            ("wal_bytes_max", "131072"),
            ("wal_bytes_stop", "163840"),
            ("wal_seal_serial", serial),
        ];
        let (db, tenants) = open(&settings, 40);
        for round in 0..3000 {
            // Every tree pins the log, and a few take most writes.
            let tenant = if round % 4 == 0 { (round >> 2) % 40 } else { round % 3 };
            put(&tenants[tenant], round, 300);
        }
        let metrics = db.db().metrics();
        assert!(metrics.wal_retained_bytes_max > LIMIT, "{metrics:?}");
        assert!(metrics.wal_retained_bytes_max <= LIMIT + 2 * 32768, "{metrics:?}");
        assert!(metrics.flush_count > 40, "{metrics:?}");
        db.close().unwrap();
    }
}
