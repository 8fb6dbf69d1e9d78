#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "files of a database are counted")]
//! Strategy: tenants are created, written to and dropped, at rest on a real disk and under load in
//! the simulation, in a tree of their own and in a shared one.
//!
//! Invariants: what a dropped tenant held in a memtable of its own is out of the budget when the
//! drop returns, also where its writes still wait, and its files are gone; in a shared tree both
//! are given back by the tree's next flush and compaction. The budget is the sum of the memtables
//! of the trees that there are.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::beside_row::ChurnRow;
use forebay::config::Config;
use forebay::experiment::{Experiment, ExperimentFile, Overrides};
use forebay::outcome::Task;
use forebay::record::{Outcome, World};
use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::Env;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::Options;
use forebay_engine::{Db, Error, WriteOptions};
use forebay_sim::disk::device::DeviceSpec;
use forebay_sim::{RunEnd, Sim, SimConfig};

fn options(layout: &str) -> Options {
    let mut config = Config::default();
    for (key, value) in [
        ("layout", layout),
        ("budget_bytes", "256KiB"),
        ("memtable_bytes_max", "64KiB"),
        ("wal_segment_bytes", "64KiB"),
    ] {
        config.set(key, value).unwrap();
    }
    config.options
}

/// Bytes of all tables in a directory.
fn table_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let tables = files.filter(|file| file.path().extension().is_some_and(|e| e == "sst"));
    tables.map(|file| file.metadata().unwrap().len()).sum()
}

fn memtable_bytes(db: &BlockingDb<OsEnv>) -> u64 {
    db.db().memtable_bytes()
}

/// Two tenants, both with a table and with bytes in a memtable; gives back the bytes of tables and
/// memtables of the first alone, and of both.
fn filled(db: &BlockingDb<OsEnv>, dir: &Path) -> [(u64, u64); 2] {
    let fill = |name: &str| {
        let tenant = db.create_tenants(&[name]).unwrap().pop().unwrap();
        for round in 0..2 {
            for key in 0..100_u32 {
                let value = [u8::try_from(key).unwrap() ^ 0x5a; 100];
                tenant.put(&key.to_be_bytes(), &value, WriteOptions::default()).unwrap();
            }
            if round == 0 {
                tenant.flush().unwrap();
            }
        }
        (table_bytes(dir), memtable_bytes(db))
    };
    [fill("stays"), fill("goes")]
}

#[test]
fn a_tree_of_its_own_is_given_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let db = BlockingDb::open(OsEnv, folder.path(), options("per-tenant")).unwrap();
    let [alone, both] = filled(&db, folder.path());
    assert!(alone.0 > 0 && both.0 > alone.0 && both.1 >= 2 * alone.1, "{alone:?} {both:?}");
    db.drop_tenant("goes").unwrap();
    assert_eq!((table_bytes(folder.path()), memtable_bytes(&db)), alone);
    db.close().unwrap();
}

#[test]
fn a_place_in_a_shared_tree_is_given_back_by_its_next_flush_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let db = BlockingDb::open(OsEnv, folder.path(), options("shared")).unwrap();
    let [alone, both] = filled(&db, folder.path());
    db.drop_tenant("goes").unwrap();
    assert_eq!(memtable_bytes(&db), both.1);
    let stays = db.tenant("stays").unwrap();
    stays.flush().unwrap();
    assert_eq!(memtable_bytes(&db), 0);
    stays.compact().unwrap();
    let left = table_bytes(folder.path());
    assert!(left * 4 <= alone.0 * 5, "{left} bytes, {alone:?} before the other came");
    assert_eq!(stays.get(&7_u32.to_be_bytes()).unwrap().map(|value| value.len()), Some(100));
    db.close().unwrap();
}

/// The budget holds what the trees that there are hold.
fn check_budget<E: Env>(db: &Db<E>, what: &str) {
    let (facts, metrics) = (db.tree_facts(), db.metrics());
    let mutable: u64 = facts.iter().map(|facts| facts.memtable_bytes).sum();
    let immutable: u64 = facts.iter().map(|facts| facts.immutable_bytes).sum();
    assert_eq!(mutable, metrics.mutable_bytes, "{what}");
    assert_eq!(immutable, metrics.immutable_bytes, "{what}");
}

async fn put_until<E: Env>(
    env: E,
    tenant: forebay_engine::Tenant<E>,
    (stop, seed): (Arc<AtomicBool>, u64),
) {
    for key in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let key = (key.wrapping_mul(seed) % 97).to_be_bytes();
        match tenant.put(&key, &[7; 300], WriteOptions::default()).await {
            Ok(_) => env.sleep_until(env.now() + 100_000).await,
            Err(Error::Dropped) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn come_and_go<E: Env>(env: E, layout: &str) -> u64 {
    let db = Db::open(env.clone(), Path::new("/db"), options(layout)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let spawn = |tenant: &forebay_engine::Tenant<E>, seed| {
        let (own, tenant, stop) = (env.clone(), tenant.clone(), Arc::clone(&stop));
        env.spawn("load", move || put_until(own, tenant, (stop, seed)))
    };
    for (seed, tenant) in (1..).zip(db.create_tenants(&["a", "b", "c"]).await.unwrap()) {
        tasks.push(spawn(&tenant, seed));
    }
    for visitor in 0..40_u64 {
        let name = format!("v{visitor}");
        let tenant = db.create_tenants(&[name.as_str()]).await.unwrap().pop().unwrap();
        for seed in 5..9 {
            tasks.push(spawn(&tenant, seed));
        }
        env.sleep_until(env.now() + 20_000_000).await;
        let tree = tenant.tree_id();
        db.drop_tenant(&name).await.unwrap();
        check_budget(&db, &name);
        let has_tree = db.tree_facts().iter().any(|facts| Some(facts.tree) == tree);
        assert_eq!(has_tree, layout == "shared", "{name}");
    }
    stop.store(true, Ordering::Release);
    for task in tasks {
        task.await;
    }
    check_budget(&db, "at the end");
    let flushes = db.metrics().flush_count;
    db.close().await.unwrap();
    flushes
}

#[test]
fn under_load_a_drop_leaves_nothing_behind() {
    for layout in ["per-tenant", "shared"] {
        for seed in 0..3 {
            let device = DeviceSpec::preset("nvme").unwrap().scaled(500);
            let sim = Sim::new(&SimConfig::experiment(seed, device));
            let env = sim.env();
            let end = sim.run(async move { come_and_go(env, layout).await });
            let RunEnd::Done(flushes) = end else { panic!("{layout} {seed}: {end:?}") };
            assert!(flushes > 10, "{layout} {seed}: {flushes}");
        }
    }
}

/// The arms with visitors of the experiment, made small, after a run each.
fn small_churn(visitor_moves: &str) -> Vec<(String, ChurnRow)> {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/come-and-go.toml"),
    );
    let file = ExperimentFile::parse("come-and-go.toml", &text.unwrap()).unwrap();
    let settings = [
        ("tenant_count", "20"),
        ("budget_bytes", "128KiB"),
        ("memtable_bytes_max", "32KiB"),
        ("flush_policy", "oldest-write"),
        ("workload.visitor_count", "10"),
        ("duration_ns", "3000000000"),
        ("warmup_duration_ns", "1000000000"),
        ("visitor_moves", visitor_moves),
    ];
    let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let overrides = Overrides { settings, ..Overrides::default() };
    let experiment = Experiment::resolve("come-and-go", &file, &overrides).unwrap();
    let mut busy = Vec::new();
    for arm in &experiment.arms {
        let output = Task::new(&experiment, arm, (0, World::Sim), "forebay run").run();
        assert_eq!(output.row.outcome, Outcome::Pass, "{}: {:?}", arm.name, output.failure);
        busy.extend(output.row.churn.map(|churn| (arm.name.clone(), churn)));
    }
    busy
}

#[test]
fn the_experiment_counts_who_came_and_went() {
    let busy = small_churn("0");
    assert!(busy.len() >= 2, "{busy:?}");
    for (arm, churn) in busy {
        // Two seconds of a thousand a minute.
        assert!(churn.created.abs_diff(33) <= 2 && churn.dropped > 20, "{arm}: {churn:?}");
        assert!(churn.drop_ns.p99 > 0 && churn.moves.is_none(), "{churn:?}");
    }
}

#[test]
fn who_moves_out_takes_what_it_wrote_and_where_trees_are_shared_it_is_written_anew() {
    for (arm, churn) in small_churn("1") {
        let moves = churn.moves.unwrap();
        assert!(moves.moved.abs_diff(churn.dropped) <= 3, "{arm}: {churn:?}");
        assert!(moves.latency_ns.p50 > 0, "{arm}: {moves:?}");
        // Who has a tree of its own leaves with its tables and what its memtable holds; what
        // shares a tree is written as tables of its own.
        let as_it_is = moves.linked_bytes + moves.logged_entries;
        assert_eq!(as_it_is > 0, arm.starts_with("per-tenant"), "{arm}: {moves:?}");
        assert_eq!(moves.copied_bytes > 0, !arm.starts_with("per-tenant"), "{arm}: {moves:?}");
    }
}
