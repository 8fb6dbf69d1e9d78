//! Strategy: the engine in memory, with calls on the log, the manifest and tables that fail before,
//! in the middle of or after their effect. Invariants: what was acknowledged is there, at once and
//! in a copy of the files that a killed process leaves; nothing that was answered with an error is
//! visible; the database goes on, or says why it does not.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::path::Path;

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env, File as _, IoClass};
use forebay_engine::error::{Error, Result};
use forebay_engine::options::Layout;
use forebay_engine::{Db, Options, Tenant, WriteOptions};

const DIR: &str = "/db";
const EFFECTS: [Effect; 3] = [Effect::Nothing, Effect::Half, Effect::Everything];

type World = FaultEnv<MemEnv>;

fn options(layout: Layout) -> Options {
    Options { layout, sync_interval_ns: 0, wal_segment_bytes: 64 << 10, ..Options::default() }
}

async fn open<E: Env>(env: &E, layout: Layout) -> Result<Db<E>> {
    Db::open(env.clone(), Path::new(DIR), options(layout)).await
}

/// The tenant of this name, made where it is missing.
async fn tenant<E: Env>(db: &Db<E>, name: &str) -> Tenant<E> {
    match db.tenant(name) {
        Some(tenant) => tenant,
        None => db.create_tenants(&[name]).await.unwrap().remove(0),
    }
}

async fn put<E: Env>(tenant: &Tenant<E>, n: u32, sync: bool) -> Result<u64> {
    let key = format!("k{n:04}");
    tenant.put(key.as_bytes(), format!("v{n}").as_bytes(), WriteOptions { sync, tag: 0 }).await
}

/// Numbers of the keys that a tenant holds.
async fn held<E: Env>(tenant: &Tenant<E>) -> Vec<u32> {
    let mut scan = tenant.scan(..).unwrap();
    let mut out = Vec::new();
    while let Some((key, value)) = scan.next().await.unwrap() {
        let n: u32 = std::str::from_utf8(&key[1..]).unwrap().parse().unwrap();
        assert_eq!(value, format!("v{n}"));
        out.push(n);
    }
    out
}

/// What two tenants hold when a process that dies now is opened again, twice.
async fn after_kill(env: &World, layout: Layout) -> [Vec<u32>; 2] {
    let copy = MemEnv::default();
    env.copy_to(Path::new(DIR), &copy).await;
    let mut seen = None;
    for _ in 0..2 {
        let db = open(&copy, layout).await.unwrap();
        let now = [held(&tenant(&db, "a").await).await, held(&tenant(&db, "b").await).await];
        db.close().await.unwrap();
        assert!(seen.is_none() || seen.as_ref() == Some(&now), "opening twice changes nothing");
        seen = Some(now);
    }
    seen.unwrap()
}

/// Waits until a spare segment's file is there: the newest segment and it.
async fn wait_for_spare(env: &World) {
    for _ in 0..500 {
        if env.files(Path::new(DIR), "wal").await.len() >= 2 {
            return;
        }
        env.sleep_until(env.now() + 2_000_000).await;
    }
    panic!("no spare segment");
}

/// Two tenants write, one call on the log fails, and they go on.
async fn one_failure(layout: Layout, op: &'static str, effect: Effect, sealed: bool) {
    let env = World::new(MemEnv::default());
    let db = open(&env, layout).await.unwrap();
    let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
    wait_for_spare(&env).await;
    put(&a, 0, true).await.unwrap();
    for n in 1..5 {
        put(&a, n, false).await.unwrap();
        put(&b, n, false).await.unwrap();
    }
    let sync = op == "sync_data";
    env.fail(op, ".wal", effect);
    if sealed {
        // The memtable is sealed, and its flush is what meets the failed sync.
        a.flush().await.unwrap();
        assert_eq!(env.fired(), u64::from(sync));
    }
    if env.fired() == 0 {
        let error = put(&b, 9, sync).await.unwrap_err();
        assert_eq!(error.kind(), "io", "{error}");
    }
    assert_eq!(held(&b).await, [1, 2, 3, 4], "what failed is not visible");
    let killed = after_kill(&env, layout).await;
    assert_eq!(killed, [vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4]], "{op} {effect:?}");
    put(&a, 5, false).await.unwrap();
    put(&b, 6, true).await.unwrap();
    let killed = after_kill(&env, layout).await;
    assert_eq!(killed, [vec![0, 1, 2, 3, 4, 5], vec![1, 2, 3, 4, 6]], "{op} {effect:?}");
    db.close().await.unwrap();
    let db = open(&env, layout).await.unwrap();
    assert_eq!(held(&tenant(&db, "a").await).await, [0, 1, 2, 3, 4, 5]);
    db.close().await.unwrap();
}

#[test]
fn after_a_failed_append_or_sync_the_log_goes_on_in_the_spare() {
    for layout in [Layout::PerTenant, Layout::Shared] {
        for effect in EFFECTS {
            for sealed in [false, true] {
                for op in ["append", "sync_data"] {
                    let env = MemEnv::default();
                    env.block_on(one_failure(layout, op, effect, sealed));
                }
            }
        }
    }
}

#[test]
fn where_the_spare_fails_too_the_database_is_read_only_and_loses_nothing() {
    // The spare's first record, or its sync; or there is no spare, and no file for another one.
    for op in ["append", "sync_data", "create"] {
        for effect in EFFECTS {
            let mem = MemEnv::default();
            mem.block_on(read_only(op, effect));
        }
    }
}

async fn read_only(op: &'static str, effect: Effect) {
    let env = World::new(MemEnv::default());
    if op == "create" {
        // The first segment's file passes.
        env.rule(Rule { op, path: ".wal", pass: 1, fail: u64::MAX, effect });
    }
    let db = open(&env, Layout::PerTenant).await.unwrap();
    let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
    if op != "create" {
        wait_for_spare(&env).await;
    }
    for n in 0..4 {
        put(&a, n, n == 1).await.unwrap();
    }
    env.fail("sync_data", ".wal", Effect::Nothing);
    // The append of the write passes; the sync before is met by the rule before.
    let pass = u64::from(op == "append");
    env.rule(Rule { op, path: ".wal", pass, fail: 1, effect });
    assert!(put(&b, 1, true).await.is_err());
    let error = put(&b, 2, false).await.unwrap_err();
    assert_eq!(error.kind(), "read-only", "{error}");
    assert_eq!(held(&a).await, [0, 1, 2, 3]);
    env.heal();
    assert!(put(&b, 2, false).await.is_err(), "until it is opened again");
    let killed = after_kill(&env, Layout::PerTenant).await;
    assert_eq!(killed[0], [0, 1, 2, 3], "{op} {effect:?}");
    // What was acknowledged unsynced cannot be made durable any more, and whoever closes is told.
    for _ in 0..2 {
        let error = db.close().await.unwrap_err();
        assert_eq!(error.kind(), "read-only", "{error}");
    }
}

#[test]
fn a_spare_that_cannot_be_made_is_tried_again_and_rolls_go_on_without() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env, Layout::PerTenant).await.unwrap();
        let a = tenant(&db, "a").await;
        wait_for_spare(&env).await;
        for (op, path) in [("create", ".wal"), ("allocate", ".wal"), ("sync_dir", DIR)] {
            env.rule(Rule { op, path, pass: 0, fail: 2, effect: Effect::Everything });
        }
        let mut acked = Vec::new();
        for n in 0..6000 {
            if put(&a, n, false).await.is_ok() {
                acked.push(n);
            }
        }
        assert!(acked.len() > 5990 && env.fired() > 0);
        wait_for_spare(&env).await;
        assert_eq!(held(&a).await, acked);
        assert_eq!(after_kill(&env, Layout::PerTenant).await[0], acked);
        db.close().await.unwrap();
        let segments = env.files(Path::new(DIR), "wal").await;
        assert!(segments.len() > 2, "the log is in several segments");
        let newest = env.open(segments.last().unwrap()).await.unwrap();
        assert!(!newest.is_empty(), "close takes the spare with it: {segments:?}");
    });
}

#[test]
fn many_entries_are_carried_whole_across_blocks() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env, Layout::Shared).await.unwrap();
        let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
        let value = vec![b'x'; 10_000];
        wait_for_spare(&env).await;
        for n in 0..30_u32 {
            let key = n.to_be_bytes();
            a.put(&key, &value, WriteOptions::default()).await.unwrap();
            b.delete(&key, WriteOptions::default()).await.unwrap();
            b.put(&key, &n.to_le_bytes(), WriteOptions::default()).await.unwrap();
        }
        env.fail("sync_data", ".wal", Effect::Nothing);
        db.sync().await.unwrap_err();
        // Its own failure, one more time: what was carried is carried again.
        env.fail("append", ".wal", Effect::Half);
        b.put(b"last", b"", WriteOptions::synced()).await.unwrap_err();
        let copy = MemEnv::default();
        env.copy_to(Path::new(DIR), &copy).await;
        let again = open(&copy, Layout::Shared).await.unwrap();
        for n in 0..30_u32 {
            let key = n.to_be_bytes();
            assert_eq!(again.tenant("a").unwrap().get(&key).await.unwrap().unwrap(), value);
            let found = again.tenant("b").unwrap().get(&key).await.unwrap().unwrap();
            assert_eq!(found, n.to_le_bytes()[..]);
        }
        // Three writes a key, each once, though the log holds some of them twice.
        assert_eq!(again.entries("b").await.unwrap().len(), 60);
        assert_eq!(again.metrics().mutable_bytes, db.metrics().mutable_bytes);
        again.close().await.unwrap();
        db.close().await.unwrap();
    });
}

/// A manifest call fails in the middle of a flush: at once killed, gone on, and opened again.
async fn manifest_failure(op: &'static str, path: &'static str, effect: Effect, twice: bool) {
    let env = World::new(MemEnv::default());
    let db = open(&env, Layout::PerTenant).await.unwrap();
    let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
    put(&a, 1, true).await.unwrap();
    put(&b, 1, true).await.unwrap();
    wait_for_spare(&env).await;
    if path == "CURRENT" || op == "sync_dir" {
        // Only what a new manifest needs.
        env.fail("append", "MANIFEST", Effect::Half);
    }
    env.rule(Rule { op, path, pass: 0, fail: if twice { 3 } else { 1 }, effect });
    // It is tried again until it is done.
    a.flush().await.unwrap();
    assert!(env.fired() > 0, "{op} {path}");
    let killed = after_kill(&env, Layout::PerTenant).await;
    assert_eq!(killed, [vec![1], vec![1]], "{op} {path} {effect:?}");
    put(&a, 2, true).await.unwrap();
    a.flush().await.unwrap();
    db.drop_tenant("b").await.unwrap();
    db.close().await.unwrap();
    let db = open(&env, Layout::PerTenant).await.unwrap();
    assert_eq!(held(&tenant(&db, "a").await).await, [1, 2]);
    assert!(db.tenant("b").is_none());
    db.close().await.unwrap();
    let names = env.list(Path::new(DIR)).await.unwrap();
    let manifests = names.iter().filter(|name| name.starts_with("MANIFEST")).count();
    assert_eq!(manifests, 1, "{names:?}");
}

#[test]
fn after_a_failed_manifest_call_another_manifest_is_begun() {
    let calls = [
        ("append", "MANIFEST"),
        ("sync_data", "MANIFEST"),
        ("sync_all", "MANIFEST"),
        ("create", "MANIFEST"),
        ("append", ".tmp"),
        ("rename", "CURRENT"),
        ("sync_dir", DIR),
    ];
    for (op, path) in calls {
        for effect in EFFECTS {
            for twice in [false, true] {
                let needs_another = matches!(op, "sync_all" | "create") || path == ".tmp";
                let mem = MemEnv::default();
                mem.block_on(async {
                    if needs_another {
                        another_manifest(op, path, effect).await;
                    } else {
                        manifest_failure(op, path, effect, twice).await;
                    }
                });
            }
        }
    }
}

/// As [`manifest_failure`], where an append fails first, so that another manifest is begun.
async fn another_manifest(op: &'static str, path: &'static str, effect: Effect) {
    let env = World::new(MemEnv::default());
    let db = open(&env, Layout::PerTenant).await.unwrap();
    let a = tenant(&db, "a").await;
    put(&a, 1, true).await.unwrap();
    env.fail("append", "MANIFEST", Effect::Half);
    env.rule(Rule { op, path, pass: 0, fail: 1, effect });
    a.flush().await.unwrap();
    assert_eq!(env.fired(), 2, "{op} {path}");
    assert_eq!(after_kill(&env, Layout::PerTenant).await[0], [1]);
    db.close().await.unwrap();
}

#[test]
fn a_rename_of_current_that_failed_and_was_done_is_gone_on_with() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env, Layout::PerTenant).await.unwrap();
        let a = tenant(&db, "a").await;
        env.fail("append", "MANIFEST", Effect::Nothing);
        env.fail("rename", "CURRENT", Effect::Everything);
        // The failed append is told, and begins no other manifest yet.
        assert!(db.create_tenants(&["b"]).await.is_err());
        db.create_tenants(&["c"]).await.unwrap();
        assert_eq!(env.fired(), 2);
        put(&a, 1, false).await.unwrap();
        let copy = MemEnv::default();
        env.copy_to(Path::new(DIR), &copy).await;
        let again = open(&copy, Layout::PerTenant).await.unwrap();
        assert_eq!(again.tenants(), ["a", "c"]);
        again.close().await.unwrap();
        db.close().await.unwrap();
    });
}

#[test]
fn a_flush_that_fails_for_good_fails_its_tree_and_no_other() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env, Layout::PerTenant).await.unwrap();
        let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
        put(&a, 1, true).await.unwrap();
        put(&b, 1, true).await.unwrap();
        env.rule(Rule { op: "append", path: ".sst", pass: 0, fail: 10, effect: Effect::Half });
        let error = a.flush().await.unwrap_err();
        assert_eq!(error.kind(), "tree-failed", "{error}");
        assert!(matches!(put(&a, 2, false).await, Err(Error::TreeFailed { .. })));
        b.flush().await.unwrap();
        put(&b, 2, true).await.unwrap();
        assert_eq!((held(&a).await, held(&b).await), (vec![1], vec![1, 2]));
        db.close().await.unwrap();
        let db = open(&env, Layout::PerTenant).await.unwrap();
        let a = tenant(&db, "a").await;
        put(&a, 2, true).await.unwrap();
        a.flush().await.unwrap();
        assert_eq!(held(&a).await, [1, 2]);
        db.close().await.unwrap();
    });
}

/// A tree with a table that is damaged, or cannot be read, goes on without compaction.
async fn damaged_input(damage: bool) {
    let env = World::new(MemEnv::default());
    let few = Options { l0_stop_count: 4, l0_slowdown_count: 4, ..options(Layout::PerTenant) };
    let few = Options { l0_compaction_count: 3, block_cache_bytes: 0, ..few };
    let db = Db::open(env.clone(), Path::new(DIR), few).await.unwrap();
    let (a, b) = (tenant(&db, "a").await, tenant(&db, "b").await);
    // Each table holds this key: tables that share none are moved and not read.
    put(&a, 9_999, true).await.unwrap();
    put(&a, 0, true).await.unwrap();
    // The tables to come lie between its keys, so that none of them is moved without being read.
    put(&a, 99, true).await.unwrap();
    a.flush().await.unwrap();
    let table = env.files(Path::new(DIR), "sst").await.remove(0);
    if damage {
        let file = env.open(&table).await.unwrap();
        file.write_at(3, &[0xff], IoClass::Flush).await.unwrap();
    } else {
        let name = table.to_str().unwrap().to_owned();
        env.fail_always("read_at", Box::leak(name.into_boxed_str()));
    }
    // Two more: from here on the tree wants a compaction, which cannot be done.
    let mut failed = None;
    for n in 1..10 {
        put(&b, n, true).await.unwrap();
        b.flush().await.unwrap();
        match put(&a, n, true).await {
            Ok(_) if failed.is_none() => {
                put(&a, 9_999, true).await.unwrap();
                a.flush().await.unwrap();
            }
            Ok(_) => panic!("a failed tree took a write"),
            Err(error) => {
                assert_eq!(error.kind(), "tree-failed", "{error}");
                failed = Some(n);
            }
        }
    }
    assert!(failed.is_some_and(|n| n >= 4), "it takes writes until its L0 is full: {failed:?}");
    db.wait_idle().await.unwrap();
    assert_eq!(held(&b).await.len(), 9);
    assert_eq!(a.get(b"k0002").await.unwrap().unwrap(), "v2");
    assert!(a.get(b"k0000").await.is_err(), "damage is told");
    let floor = db.metrics().wal_retained_bytes;
    assert!(floor < 128 << 10, "{floor} bytes of log are retained");
    db.close().await.unwrap();
}

#[test]
fn a_table_that_cannot_be_compacted_stops_its_tree_only_when_l0_is_full() {
    for damage in [true, false] {
        let mem = MemEnv::default();
        mem.block_on(damaged_input(damage));
    }
}

/// A copy of a directory in which one byte of one file is not what it was.
async fn damaged_copy(env: &World, name: &Path, at: u64) -> MemEnv {
    let copy = MemEnv::default();
    env.copy_to(Path::new(DIR), &copy).await;
    let file = copy.open(name).await.unwrap();
    let byte = file.read_at(at, 1, IoClass::Read).await.unwrap()[0];
    file.write_at(at, &[byte ^ 0x10], IoClass::Wal).await.unwrap();
    copy
}

#[test]
fn damage_to_the_first_frame_of_the_newest_segment_is_loud_where_it_took_a_record() {
    let mem = MemEnv::default();
    mem.block_on(async {
        for count in [0, 1, 2, 40] {
            let env = World::new(MemEnv::default());
            let db = open(&env, Layout::PerTenant).await.unwrap();
            let a = tenant(&db, "a").await;
            put(&a, 1_000, true).await.unwrap();
            db.close().await.unwrap();
            let db = open(&env, Layout::PerTenant).await.unwrap();
            let a = tenant(&db, "a").await;
            wait_for_spare(&env).await;
            for n in 0..count {
                put(&a, n, true).await.unwrap();
            }
            // Of the segments that are not the spare, the newest.
            let mut segments = env.files(Path::new(DIR), "wal").await;
            let mut newest = None;
            while let Some(path) = segments.pop().filter(|_| newest.is_none()) {
                let file = env.open(&path).await.unwrap();
                let head = file.read_at(0, 4, IoClass::Read).await.unwrap_or_default();
                newest = head.iter().any(|byte| *byte != 0).then_some(path);
            }
            let newest = newest.unwrap();
            for at in 0..24 {
                let copy = damaged_copy(&env, &newest, at).await;
                let opened = open(&copy, Layout::PerTenant).await;
                if count > 0 {
                    let error = opened.unwrap_err();
                    assert_eq!(error.kind(), "corruption", "{error}");
                    assert_eq!(error.location().0, Some(newest.as_path()));
                    let found = forebay_engine::verify::verify_dir(&copy, Path::new(DIR), |_| {});
                    assert!(!found.await.unwrap().unwrap().is_clean(), "byte {at}");
                    continue;
                }
                // It cannot be told from a file that a crash left, and held nothing.
                let db = opened.unwrap();
                assert_eq!(held(&tenant(&db, "a").await).await, [1_000]);
                db.close().await.unwrap();
            }
            db.close().await.unwrap();
        }
    });
}
