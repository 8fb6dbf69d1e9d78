#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "threads of a test, outside the engine")]
//! Strategy: several threads write, read and scan their own tenants on a real disk, with memory so
//! short that every few writes seal, flush, compact and stall; then the directory is opened again.
//!
//! Invariants: nobody waits for ever, everybody reads what they wrote, before and after the reopen.

use std::collections::BTreeMap;
use std::thread;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::{Layout, Options};
use forebay_engine::{WriteBatch, WriteOptions};

const THREADS: u64 = 4;
const WRITES: u64 = 1_500;

fn options(layout: Layout) -> Options {
    let mut options = Options { layout, ..Options::default() };
    for (key, value) in [
        ("budget_bytes", "262144"),
        ("memtable_bytes_max", "32768"),
        ("wal_segment_bytes", "65536"),
        ("table_bytes_max", "32768"),
        ("block_cache_bytes", "16384"),
        ("open_tables_max", "4"),
        ("compression", "lz4"),
        ("prefix_extractor", "fixed-2"),
        ("memtable_stop_count", "2"),
        ("stall_policy", "hard"),
        ("sync_interval_ns", "20000000"),
    ] {
        options.set(key, value).unwrap();
    }
    options
}

fn run(layout: Layout) {
    let dir = tempfile::tempdir().unwrap();
    let db = BlockingDb::open(OsEnv, dir.path(), options(layout)).unwrap();
    let names: Vec<String> = (0..THREADS).map(|t| format!("tenant-{t}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    let writers: Vec<_> = tenants
        .into_iter()
        .zip(0..)
        .map(|(tenant, t): (_, u64)| {
            let db = db.clone();
            thread::spawn(move || {
                let mut model = BTreeMap::new();
                for i in 0..WRITES {
                    let key = format!("{:04}", (i * 7919 + t) % 400).into_bytes();
                    let value = format!("{t}/{i}/{}", "x".repeat(100)).into_bytes();
                    let options = WriteOptions { sync: i % 50 == 0, tag: i };
                    match i % 10 {
                        0 => {
                            tenant.delete(&key, options).unwrap();
                            model.remove(&key);
                        }
                        1 => {
                            let mut batch = WriteBatch::new();
                            tenant.tenant().put_in(&mut batch, &key, &value).unwrap();
                            tenant.tenant().put_in(&mut batch, b"same", &value).unwrap();
                            db.write(batch, options).unwrap();
                            model.insert(b"same".to_vec(), value.clone());
                            model.insert(key, value);
                        }
                        2 => {
                            let got = tenant.get(&key).unwrap();
                            assert_eq!(got.as_deref(), model.get(&key).map(Vec::as_slice));
                        }
                        _ => {
                            tenant.put(&key, &value, options).unwrap();
                            model.insert(key, value);
                        }
                    }
                    if i % 500 == 499 {
                        assert_eq!(tenant.scan(..).unwrap().count(), model.len());
                    }
                }
                model
            })
        })
        .collect();
    let models: Vec<BTreeMap<Vec<u8>, Vec<u8>>> =
        writers.into_iter().map(|w| w.join().unwrap()).collect();
    let metrics = db.db().metrics();
    assert!(metrics.flush_count > 10 && metrics.compaction_count > 0, "{metrics:?}");
    assert_eq!(metrics.reserved_bytes, 0);
    db.close().unwrap();
    let by_branch = db.db().cached_bytes_by_branch();
    let cached: u64 = by_branch.iter().map(|(_, bytes)| bytes).sum();
    assert!(cached > 0 && cached == db.db().cached_bytes(), "{by_branch:?}");
    let db = BlockingDb::open(OsEnv, dir.path(), options(layout)).unwrap();
    for (name, model) in names.iter().zip(&models) {
        let got = db.tenant(name).unwrap().scan(..).unwrap();
        let got: BTreeMap<Vec<u8>, Vec<u8>> =
            got.map(Result::unwrap).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        assert_eq!(&got, model, "{name}");
    }
    db.close().unwrap();
}

#[test]
fn threads_with_a_tree_each_read_what_they_wrote() {
    run(Layout::PerTenant);
}

#[test]
fn threads_that_share_trees_read_what_they_wrote() {
    run(Layout::Grouped(2));
    run(Layout::Shared);
}
