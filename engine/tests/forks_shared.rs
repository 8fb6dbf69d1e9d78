//! What branches share: a memtable whose flush fails for good, and a file of several tables that is
//! mostly dead.
//!
//! Strategy: the engine in memory, with chosen calls that fail.
//! Invariants: nobody waits for a flush that will not come, and those who do not share it go on; a
//! sparse file is rewritten by every tree that holds a table of it, and goes.
#![cfg(test)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;

use std::path::Path;

use fault_env::{Effect, FaultEnv, Rule};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::options::ForkMemtable;
use forebay_engine::{Db, Options, Tenant, WriteOptions};

const DIR: &str = "/db";

type World = FaultEnv<MemEnv>;

async fn open(env: &World, options: Options) -> Db<World> {
    Db::open(env.clone(), Path::new(DIR), options).await.unwrap()
}

async fn put(tenant: &Tenant<World>, key: &str) -> forebay_engine::Result<u64> {
    tenant.put(key.as_bytes(), &[7; 100], WriteOptions::default()).await
}

async fn held(tenant: &Tenant<World>) -> Vec<String> {
    let mut scan = tenant.scan(..).unwrap();
    let mut out = Vec::new();
    while let Some((key, _)) = scan.next().await.unwrap() {
        out.push(String::from_utf8(key.to_vec()).unwrap());
    }
    out
}

async fn share(tenant: &Tenant<World>, name: &str) -> Tenant<World> {
    tenant.fork_with(name, ForkMemtable::Share).await.unwrap().tenant
}

/// A flush of what three branches share fails for good; `dropped` says whether its tree is dropped
/// meanwhile.
async fn failed_flush(dropped: bool) {
    let env = World::new(MemEnv::default());
    let db = open(&env, Options::default()).await;
    let mut tenants = db.create_tenants(&["a", "b"]).await.unwrap();
    let (b, a) = (tenants.pop().unwrap(), tenants.pop().unwrap());
    put(&a, "1").await.unwrap();
    put(&b, "1").await.unwrap();
    env.rule(Rule { op: "append", path: ".sst", pass: 0, fail: 10, effect: Effect::Half });
    let f = share(&a, "f").await;
    put(&f, "2").await.unwrap();
    // It holds what `a` has to flush, and what `f` has to.
    let g = share(&f, "g").await;
    put(&g, "3").await.unwrap();
    if dropped {
        db.drop_branch("a").await.unwrap();
    }
    for branch in [&f, &g] {
        let error = branch.flush().await.unwrap_err();
        assert_eq!(error.kind(), "tree-failed", "{error}");
        assert_eq!(put(branch, "4").await.unwrap_err().kind(), "tree-failed");
        assert_eq!(branch.fork("late").await.unwrap_err().kind(), "tree-failed");
    }
    assert_eq!((held(&f).await, held(&g).await), (vec!["1".into(), "2".into()], keys(3)));
    // Whoever shares nothing of it goes on, and nothing waits.
    put(&b, "2").await.unwrap();
    db.flush().await.unwrap();
    db.wait_idle().await.unwrap();
    db.close().await.unwrap();
    drop((a, b, f, g, db));
    let db = open(&env, Options::default()).await;
    db.flush().await.unwrap();
    for (name, count) in [("a", 1), ("a@f", 2), ("a@g", 3), ("b", 2)] {
        match db.branch(name) {
            Some(branch) => {
                assert_eq!(held(&branch).await, keys(count), "{name}");
                put(&branch, "9").await.unwrap();
            }
            None => assert!(dropped && name == "a", "{name} is gone"),
        }
    }
    db.close().await.unwrap();
}

fn keys(count: u32) -> Vec<String> {
    (1..=count).map(|n| n.to_string()).collect()
}

#[test]
fn a_flush_that_fails_for_good_fails_every_branch_that_needs_it_and_no_other() {
    let mem = MemEnv::default();
    mem.block_on(failed_flush(false));
}

#[test]
fn a_flush_for_a_dropped_branch_that_fails_for_good_fails_those_that_need_it() {
    let mem = MemEnv::default();
    mem.block_on(failed_flush(true));
}

#[test]
fn a_sparse_file_is_rewritten_by_forks_of_those_that_wrote_it() {
    let mem = MemEnv::default();
    mem.block_on(async {
        let env = World::new(MemEnv::default());
        let mut options = Options::default();
        for (key, value) in [("packed_flush", "true"), ("flush_slots", "1")] {
            options.set(key, value).unwrap();
        }
        let db = open(&env, options).await;
        let names = ["a", "b", "c", "d", "e"];
        let tenants = db.create_tenants(&names).await.unwrap();
        for tenant in &tenants {
            put(tenant, "1").await.unwrap();
        }
        db.flush().await.unwrap();
        let packed = env.files(Path::new(DIR), "sst").await;
        assert_eq!(packed.len(), 1, "one file holds the tables of all");
        let f = share(&tenants[0], "f").await;
        let g = share(&f, "g").await;
        db.drop_branch("a").await.unwrap();
        db.wait_idle().await.unwrap();
        assert_eq!(env.files(Path::new(DIR), "sst").await, packed);
        for name in &names[1..] {
            db.drop_branch(name).await.unwrap();
        }
        let began = env.now();
        while env.files(Path::new(DIR), "sst").await.contains(&packed[0]) {
            assert!(env.now() - began < 5_000_000_000, "the file stays");
            env.sleep_until(env.now() + 1_000_000).await;
        }
        assert_eq!((held(&f).await, held(&g).await), (keys(1), keys(1)));
        db.close().await.unwrap();
    });
}
