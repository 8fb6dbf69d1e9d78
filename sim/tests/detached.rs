#![cfg(test)]
//! Strategy: a life in which a writer runs while the database and one branch are copied into
//! directories of their own, and a copy is taken into another database; it ends at every crash
//! point, by a kill or by power loss, and every directory is opened.
//!
//! Invariants: a copy that was acknowledged is there, one that was not is no database or a whole
//! one, and holds what some prefix of the writes left that was running when it was made; an import
//! is there whole or not at all; the source is as its own log allows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use forebay_engine::env::Env;
use forebay_engine::verify::verify_dir;
use forebay_engine::{Db, Options, WriteBatch, WriteOptions};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};

const SOURCE: &str = "/source";
const WHOLE: &str = "/whole";
const ALONE: &str = "/alone";
const OTHER: &str = "/other";
const WRITES: u32 = 60;
const KEYS: u32 = 9;

/// Of each branch, the write that gave each key its value.
type State = BTreeMap<String, BTreeMap<String, u32>>;

/// What the life came to so far: writes acknowledged, and at which of them each copy began and
/// ended.
#[derive(Debug, Default)]
struct Marks {
    acked: AtomicU32,
    whole: [AtomicU32; 2],
    alone: [AtomicU32; 2],
    imported: AtomicU32,
}

fn options() -> Options {
    Options {
        budget_bytes: 64 << 10,
        memtable_bytes_max: 4 << 10,
        wal_segment_bytes: 32 << 10,
        block_bytes: 512,
        table_bytes_max: 4 << 10,
        block_cache_bytes: 0,
        ..Options::default()
    }
}

/// What the writes below a number leave of a tenant.
fn state(count: u32) -> BTreeMap<String, u32> {
    (0..count).map(|n| (format!("key{}", n % KEYS), n)).collect()
}

async fn write(db: &Db<SimEnv>, n: u32) {
    let mut batch = WriteBatch::new();
    for name in ["a", "b"] {
        let value = [&n.to_be_bytes()[..], &[b'x'; 300]].concat();
        let key = format!("key{}", n % KEYS);
        db.tenant(name).unwrap().put_in(&mut batch, key.as_bytes(), &value).unwrap();
    }
    db.write(batch, WriteOptions { sync: n % 7 == 3, tag: 0 }).await.unwrap();
}

async fn held(db: &Db<SimEnv>) -> State {
    let mut out = State::new();
    for name in db.tenants() {
        let keys = out.entry(name.clone()).or_default();
        let mut scan = db.branch(&name).unwrap().scan(..).unwrap();
        while let Some((key, value)) = scan.next().await.unwrap() {
            let key = String::from_utf8(key.to_vec()).unwrap();
            keys.insert(key, u32::from_be_bytes(value[..4].try_into().unwrap()));
        }
    }
    out
}

async fn life(env: SimEnv, marks: Arc<Marks>) {
    let db = Db::open(env, Path::new(SOURCE), options()).await.unwrap();
    db.create_tenants(&["a", "b"]).await.unwrap();
    for n in 0..20 {
        write(&db, n).await;
        marks.acked.store(n + 1, Ordering::Relaxed);
    }
    db.tenant("a").unwrap().fork("f").await.unwrap();
    let writer = {
        let (db, marks) = (db.clone(), Arc::clone(&marks));
        env.spawn("writer", move || async move {
            for n in 20..WRITES {
                write(&db, n).await;
                marks.acked.store(n + 1, Ordering::Relaxed);
            }
        })
    };
    let mark = |at: &AtomicU32| at.store(marks.acked.load(Ordering::Relaxed), Ordering::Relaxed);
    mark(&marks.whole[0]);
    db.fork_to(Path::new(WHOLE)).await.unwrap();
    mark(&marks.whole[1]);
    mark(&marks.alone[0]);
    db.tenant("a").unwrap().fork_to(Path::new(ALONE)).await.unwrap();
    mark(&marks.alone[1]);
    let other = Db::open(env, Path::new(OTHER), options()).await.unwrap();
    other.create_tenants(&["own"]).await.unwrap();
    other.import(Path::new(ALONE)).await.unwrap();
    marks.imported.store(1, Ordering::Relaxed);
    other.tenant("a").unwrap().put(b"more", &[0; 4], WriteOptions::synced()).await.unwrap();
    marks.imported.store(2, Ordering::Relaxed);
    writer.await;
    other.close().await.unwrap();
    db.close().await.unwrap();
}

/// What a directory holds, if it is a database: opened, and once more.
async fn look(env: SimEnv, dir: &str) -> Option<State> {
    let dir = Path::new(dir);
    let names = env.list(dir).await.ok()?;
    if !names.iter().any(|name| name == "CURRENT") {
        return None;
    }
    let report = verify_dir(&env, dir, |_| {}).await.unwrap().unwrap();
    assert!(report.is_clean(), "{}: {:?}", dir.display(), report.findings);
    let db = Db::open(env, dir, options()).await.unwrap();
    let first = held(&db).await;
    db.flush().await.unwrap();
    db.close().await.unwrap();
    let db = Db::open(env, dir, options()).await.unwrap();
    assert_eq!(held(&db).await, first, "opening twice changes nothing");
    db.close().await.unwrap();
    Some(first)
}

async fn judge(env: SimEnv, marks: Arc<Marks>, power: bool) {
    let acked = marks.acked.load(Ordering::Relaxed);
    let synced = (0..acked).rev().find(|n| n % 7 == 3).map_or(0, |n| n + 1);
    let prefix = |found: &State, name: &str, from: u32, to: u32| {
        let found = found.get(name);
        let is_one = (from..=to).any(|count| found == Some(&state(count)));
        assert!(is_one, "{name}: {found:?} is none of {from} to {to}");
    };
    if let Some(found) = look(env, SOURCE).await.filter(|found| found.contains_key("a")) {
        prefix(&found, "a", if power { synced } else { acked }, acked + 1);
        assert_eq!(found["a"], found["b"], "batches are whole");
    }
    for (dir, marks) in [(WHOLE, &marks.whole), (ALONE, &marks.alone)] {
        let [began, ended] = [0, 1].map(|at: usize| marks[at].load(Ordering::Relaxed));
        let found = look(env, dir).await;
        assert!(found.is_some() || ended == 0, "{dir} was acknowledged");
        let Some(found) = found else { continue };
        prefix(&found, "a", began, if ended > 0 { ended + 1 } else { acked + 1 });
        if dir == WHOLE {
            assert_eq!(found["a"], found["b"], "batches are whole");
            assert_eq!(found["a@f"], state(20));
        } else {
            assert_eq!(found.len(), 1);
        }
    }
    let imported = marks.imported.load(Ordering::Relaxed);
    let Some(mut found) = look(env, OTHER).await else {
        assert_eq!(imported, 0);
        return;
    };
    if let Some(keys) = found.get_mut("a") {
        assert!(keys.remove("more").is_some() || imported < 2);
        let [began, ended] = [0, 1].map(|at: usize| marks.alone[at].load(Ordering::Relaxed));
        prefix(&found, "a", began, ended + 1);
    } else {
        assert_eq!(imported, 0, "it was acknowledged");
    }
}

/// One life that ends at a crash point; whether it ended there.
fn crash_at(point: u64, power: bool) -> bool {
    let sim = Sim::new(&SimConfig::fuzz(77));
    sim.crash_at_point(Some(point));
    let marks = Arc::new(Marks::default());
    let end = sim.run(life(sim.env(), Arc::clone(&marks)));
    let crashed = matches!(end, RunEnd::Crashed);
    sim.crash_at_point(None);
    if power {
        sim.power_loss();
    } else {
        sim.kill();
    }
    let end = sim.run(judge(sim.env(), marks, power));
    end.done().unwrap_or_else(|| panic!("the opens of point {point} end"));
    crashed
}

#[test]
fn a_crash_at_any_point_leaves_copies_absent_or_whole() {
    for power in [true, false] {
        let mut points = 0;
        while crash_at(1 + points, power) {
            points += 1;
        }
        assert!(points > 200, "{points} points");
    }
}
