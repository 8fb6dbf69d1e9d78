//! Strategy: the engine in memory on a disk whose free bytes a test sets. Invariants: writes are
//! refused with a typed error that names the bytes, nothing that was acknowledged is lost, reads
//! and what makes space go on, and writes are taken again without anybody asking for it.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::path::Path;

use fault_env::FaultEnv;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::error::{Error, Result};
use forebay_engine::{Db, Options, Tenant, WriteOptions};

const DIR: &str = "/db";
const KIB: u64 = 1024;

type World = FaultEnv<MemEnv>;

fn options() -> Options {
    Options {
        budget_bytes: 256 * KIB,
        memtable_bytes_max: 16 * KIB,
        wal_segment_bytes: 64 * KIB,
        sync_interval_ns: 5_000_000,
        table_bytes_max: 64 * KIB,
        ..Options::default()
    }
}

async fn open(env: &World) -> Result<Db<World>> {
    Db::open(env.clone(), Path::new(DIR), options()).await
}

async fn put(tenant: &Tenant<World>, n: u32) -> Result<u64> {
    tenant.put(&n.to_be_bytes(), &[7; 1000], WriteOptions::default()).await
}

async fn count(tenant: &Tenant<World>) -> usize {
    let mut scan = tenant.scan(..).unwrap();
    let mut n = 0;
    while scan.next().await.unwrap().is_some() {
        n += 1;
    }
    n
}

/// Writes until a write is refused; the numbers that were taken.
async fn fill(tenant: &Tenant<World>, from: u32) -> (u32, Error) {
    for n in from..from + 100_000 {
        match put(tenant, n).await {
            Ok(_) => {}
            Err(error) if error.kind() == "disk-full" => return (n, error),
            // The log met the end of the disk before anybody asked: not acknowledged.
            Err(error) => assert!(error.is_storage_full(), "{error}"),
        }
    }
    panic!("the disk never was full");
}

/// Waits until writes are taken again, by themselves.
async fn resumed(env: &World, tenant: &Tenant<World>, n: u32) {
    let began = env.now();
    while let Err(error) = put(tenant, n).await {
        assert_eq!(error.kind(), "disk-full", "{error}");
        assert!(env.now() - began < 10_000_000_000, "writes stay refused: {error}");
        env.sleep_until(env.now() + 5_000_000).await;
    }
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_by_itself_when_space_is_back() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env).await.unwrap();
        let a = db.create_tenants(&["a", "b"]).await.unwrap().remove(0);
        let b = db.tenant("b").unwrap();
        put(&b, 1).await.unwrap();
        env.set_free(Some(400 * KIB));
        let (taken, error) = fill(&a, 0).await;
        let Error::DiskFull { free_bytes, needed_bytes } = error else { panic!("{error}") };
        assert!(free_bytes < needed_bytes && needed_bytes < 400 * KIB);
        assert!(error.to_string().contains(&needed_bytes.to_string()), "{error}");
        // Reads, scans, snapshots and flushes go on.
        let snapshot = a.snapshot();
        assert!(a.get_at(&snapshot, &0_u32.to_be_bytes()).await.unwrap().is_some());
        assert!(count(&a).await <= usize::try_from(taken).unwrap());
        b.flush().await.unwrap();
        assert_eq!(count(&b).await, 1);
        assert_eq!(db.create_tenants(&["c"]).await.unwrap_err().kind(), "disk-full");
        let held = count(&a).await;
        env.set_free(None);
        resumed(&env, &a, 1_000_000).await;
        assert_eq!(count(&a).await, held + 1);
        assert_eq!(a.get_at(&snapshot, &1_000_000_u32.to_be_bytes()).await.unwrap(), None);
        // A second time, since the first may have used something up.
        env.set_free(Some(200 * KIB));
        fill(&a, 2_000_000).await;
        env.set_free(None);
        resumed(&env, &a, 3_000_000).await;
        let held = count(&a).await;
        db.close().await.unwrap();
        let db = open(&env).await.unwrap();
        assert_eq!(count(&db.tenant("a").unwrap()).await, held);
        db.close().await.unwrap();
    });
}

#[test]
fn a_drop_makes_space_on_a_full_disk() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env).await.unwrap();
        let a = db.create_tenants(&["a", "b"]).await.unwrap().remove(0);
        let b = db.tenant("b").unwrap();
        for n in 0..600 {
            put(&b, n).await.unwrap();
        }
        b.flush().await.unwrap();
        db.wait_idle().await.unwrap();
        env.set_free(Some(150 * KIB));
        fill(&a, 0).await;
        db.drop_tenant("b").await.unwrap();
        resumed(&env, &a, 1_000_000).await;
        db.close().await.unwrap();
    });
}

#[test]
fn a_full_disk_is_asked_at_most_ten_times_a_second() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env).await.unwrap();
        let a = db.create_tenants(&["a"]).await.unwrap().remove(0);
        env.set_free(Some(120 * KIB));
        let (taken, _) = fill(&a, 0).await;
        let (asked, began) = (env.free_asked(), env.now());
        while env.now() - began < 600_000_000 {
            assert!(put(&a, taken).await.is_err());
        }
        let asked = env.free_asked() - asked;
        assert!((3..=7).contains(&asked), "{asked} times in 0.6 s");
        db.close().await.unwrap();
    });
}

#[test]
fn a_database_opens_on_a_disk_without_a_byte_and_is_read() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env).await.unwrap();
        let a = db.create_tenants(&["a"]).await.unwrap().remove(0);
        for n in 0..50 {
            put(&a, n).await.unwrap();
        }
        // In memory, in tables and in the log.
        drop((a, db));
        let before = env.list(Path::new(DIR)).await.unwrap();
        let db = loop {
            env.set_free(Some(0));
            match open(&env).await {
                Err(Error::Locked(_)) => env.sleep_until(env.now() + 5_000_000).await,
                other => break other.unwrap(),
            }
        };
        let a = db.tenant("a").unwrap();
        assert_eq!(count(&a).await, 50);
        assert_eq!(put(&a, 50).await.unwrap_err().kind(), "disk-full");
        db.close().await.unwrap();
        let after = env.list(Path::new(DIR)).await.unwrap();
        assert!(after.iter().all(|name| before.contains(name)), "{before:?} {after:?}");
        let db = open(&env).await.unwrap();
        let a = db.tenant("a").unwrap();
        env.set_free(None);
        resumed(&env, &a, 50).await;
        assert_eq!(count(&a).await, 51);
        db.close().await.unwrap();
        let db = open(&env).await.unwrap();
        assert_eq!(count(&db.tenant("a").unwrap()).await, 51);
        db.close().await.unwrap();
    });
}

#[test]
fn a_new_database_on_a_full_disk_is_a_typed_error() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        env.set_free(Some(0));
        let error = open(&env).await.unwrap_err();
        assert!(error.is_storage_full(), "{error}");
        env.set_free(None);
        open(&env).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn a_full_disk_that_does_not_say_what_is_free_is_not_asked_without_pause() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let db = open(&env).await.unwrap();
        let a = db.create_tenants(&["a"]).await.unwrap().remove(0);
        env.set_free(Some(400 * KIB));
        fill(&a, 0).await;
        env.fail_always("free_bytes", "");
        let (asked, began) = (env.free_asked(), env.now());
        while env.now() - began < 500_000_000 {
            env.sleep_until(env.now() + 50_000_000).await;
        }
        let (asked, elapsed) = (env.free_asked() - asked, env.now() - began);
        assert!(asked <= 5 + elapsed.div_ceil(50_000_000), "asked {asked} times in {elapsed} ns");
        env.heal();
        env.set_free(None);
        resumed(&env, &a, 1_000_000).await;
        db.close().await.unwrap();
    });
}
