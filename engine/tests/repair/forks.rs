//! Branches through a repair: what they share is lost once and found again in each.

use std::path::Path;

use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::options::{ForkMemtable, Layout};
use forebay_engine::repair::{RepairOptions, repair};
use forebay_engine::{Db, WriteOptions};

use crate::small::options;
use crate::world::{DIR, path};

async fn put(db: &Db<MemEnv>, branch: &str, keys: core::ops::Range<u32>) {
    let branch = db.branch(branch).unwrap();
    for key in keys {
        let key = format!("k{key:03}");
        branch.put(key.as_bytes(), key.as_bytes(), WriteOptions::synced()).await.unwrap();
    }
}

async fn count(db: &Db<MemEnv>, branch: &str) -> u64 {
    let mut scan = db.branch(branch).unwrap().scan(..).unwrap();
    let mut count = 0;
    while scan.next().await.unwrap().is_some() {
        count += 1;
    }
    count
}

/// Twenty keys in tables and twenty in the log alone, and forks that inherit both.
async fn forked(env: &MemEnv) -> Db<MemEnv> {
    let db = Db::open(env.clone(), Path::new(DIR), options(Layout::PerTenant)).await.unwrap();
    let tenants = db.create_tenants(&["t"]).await.unwrap();
    put(&db, "t", 0..20).await;
    tenants[0].flush().await.unwrap();
    put(&db, "t", 20..40).await;
    tenants[0].fork_with("a", ForkMemtable::Copy).await.unwrap();
    tenants[0].fork_with("b", ForkMemtable::Copy).await.unwrap();
    put(&db, "t@a", 40..45).await;
    db
}

async fn tables(env: &MemEnv) -> Vec<String> {
    let names = env.list(Path::new(DIR)).await.unwrap();
    names.into_iter().filter(|n| Path::new(n).extension().is_some_and(|e| e == "sst")).collect()
}

#[test]
fn a_fork_keeps_what_the_log_holds_of_a_dropped_parent() {
    let env = MemEnv::default();
    env.block_on(async {
        let db = forked(&env).await;
        db.drop_branch("t").await.unwrap();
        db.close().await.unwrap();
        drop(db);
        let lost = tables(&env).await;
        for name in &lost {
            env.remove(&path(name)).await.unwrap();
        }
        let report = repair(&env, Path::new(DIR), &RepairOptions::default()).await.unwrap();
        assert!(report.needed && report.log.rewritten, "{report:?}");
        assert_eq!(report.lost.len(), 2 * lost.len(), "each branch is told: {report:?}");
        let db = Db::open(env.clone(), Path::new(DIR), options(Layout::PerTenant)).await.unwrap();
        assert_eq!((count(&db, "t@a").await, count(&db, "t@b").await), (45, 40));
        db.close().await.unwrap();
    });
}

#[test]
fn a_table_under_another_name_comes_back_to_each_branch_that_had_it() {
    let env = MemEnv::default();
    env.block_on(async {
        let db = forked(&env).await;
        db.close().await.unwrap();
        drop(db);
        for (at, name) in tables(&env).await.iter().enumerate() {
            let other = path(&format!("{:06}.sst", 900 + at));
            env.rename(&path(name), &other).await.unwrap();
        }
        let report = repair(&env, Path::new(DIR), &RepairOptions::default()).await.unwrap();
        assert!(report.lost.is_empty() && report.relocated > 0, "{report:?}");
        let db = Db::open(env.clone(), Path::new(DIR), options(Layout::PerTenant)).await.unwrap();
        let counts = [count(&db, "t").await, count(&db, "t@a").await, count(&db, "t@b").await];
        assert_eq!(counts, [40, 45, 40]);
        // One table is one table: it goes when no branch has it any more, and not before.
        db.drop_branch("t").await.unwrap();
        db.drop_branch("t@b").await.unwrap();
        assert_eq!(count(&db, "t@a").await, 45);
        db.close().await.unwrap();
    });
}
