//! Strategy: the engine in memory; a caller's future is dropped while a call of the world that it
//! leads hangs. Invariants: what was acknowledged before is there, at once and in the files that a
//! process leaves that dies then; what was dropped is not visible; the database goes on.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::{Db, Options, Tenant, WriteOptions};

const DIR: &str = "/db";

type World = FaultEnv<MemEnv>;

async fn open<E: Env>(env: &E) -> Db<E> {
    let options =
        Options { sync_interval_ns: 0, wal_segment_bytes: 64 << 10, ..Options::default() };
    Db::open(env.clone(), Path::new(DIR), options).await.unwrap()
}

async fn put<E: Env>(tenant: &Tenant<E>, n: u32, sync: bool) -> forebay_engine::Result<u64> {
    tenant.put(&n.to_be_bytes(), b"v", WriteOptions { sync, tag: 0 }).await
}

async fn held<E: Env>(tenant: &Tenant<E>) -> Vec<u32> {
    let mut scan = tenant.scan(..).unwrap();
    let mut out = Vec::new();
    while let Some((key, _)) = scan.next().await.unwrap() {
        out.push(u32::from_be_bytes(key[..].try_into().unwrap()));
    }
    out
}

/// Begins a future and drops it where it waits.
fn abandon(future: impl Future) {
    let mut future = pin!(future);
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "it hangs");
}

async fn after_kill(env: &World) -> Vec<u32> {
    let copy = MemEnv::default();
    env.copy_to(Path::new(DIR), &copy).await;
    let db = open(&copy).await;
    let held = held(&db.tenant("a").unwrap()).await;
    db.close().await.unwrap();
    held
}

fn rule(op: &'static str, pass: u64, effect: Effect) -> Rule {
    Rule { op, path: ".wal", pass, fail: 1, effect }
}

/// A write is dropped in its append or sync, or, where `first` fails, in the opening record of the
/// next segment.
async fn dropped_write(first: Option<(&'static str, Effect)>, stuck: Rule) {
    let name = format!("{first:?} {stuck:?}");
    let env = World::new(MemEnv::default());
    let db = open(&env).await;
    let a = db.create_tenants(&["a"]).await.unwrap().remove(0);
    while env.files(Path::new(DIR), "wal").await.len() < 2 {
        env.sleep_until(env.now() + 1_000_000).await;
    }
    put(&a, 1, true).await.unwrap();
    put(&a, 2, false).await.unwrap();
    if let Some((op, effect)) = first {
        env.rule(rule(op, 0, effect));
    }
    env.rule(stuck);
    abandon(put(&a, 100, true));
    env.heal();
    assert_eq!(held(&a).await, [1, 2], "{name}");
    let killed = after_kill(&env).await;
    assert!(killed == [1, 2] || killed == [1, 2, 100], "{name}: {killed:?}");
    put(&a, 3, false).await.unwrap();
    assert_eq!(after_kill(&env).await, [1, 2, 3], "{name}");
    put(&a, 4, true).await.unwrap();
    a.flush().await.unwrap();
    assert_eq!(held(&a).await, [1, 2, 3, 4], "{name}");
    assert_eq!(after_kill(&env).await, [1, 2, 3, 4], "{name}");
    db.close().await.unwrap();
}

#[test]
fn a_write_that_is_dropped_in_the_middle_takes_nothing_with_it() {
    let mem = MemEnv::default();
    mem.block_on(async {
        dropped_write(None, rule("append", 0, Effect::Stuck)).await;
        dropped_write(None, rule("sync_data", 0, Effect::Stuck)).await;
        for effect in [Effect::Nothing, Effect::Half, Effect::Everything] {
            for op in ["append", "sync_data"] {
                let first = Some((op, effect));
                // The rule that fails counts for the one that hangs, where both are of one call.
                dropped_write(first, rule("append", 1, Effect::Stuck)).await;
                let pass = u64::from(op == "sync_data");
                dropped_write(first, rule("sync_data", pass, Effect::Stuck)).await;
            }
        }
    });
}

#[test]
fn a_drop_that_nobody_waits_for_leaves_its_tenant_whole_or_gone() {
    let mem = MemEnv::default();
    mem.block_on(async {
        for op in ["append", "sync_data"] {
            let env = World::new(MemEnv::default());
            let db = open(&env).await;
            let a = db.create_tenants(&["a"]).await.unwrap().remove(0);
            put(&a, 1, true).await.unwrap();
            env.rule(Rule { op, path: "MANIFEST", pass: 0, fail: 1, effect: Effect::Stuck });
            abandon(db.drop_tenant("a"));
            env.heal();
            put(&a, 2, true).await.unwrap();
            assert_eq!(held(&a).await, [1, 2]);
            // Another edit, so that the one that was dropped cannot come back.
            db.create_tenants(&["b"]).await.unwrap();
            assert_eq!(after_kill(&env).await, [1, 2]);
            db.drop_tenant("a").await.unwrap();
            assert!(db.tenant("a").is_none());
            db.close().await.unwrap();
        }
    });
}
