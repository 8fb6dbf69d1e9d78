#![cfg(test)]
//! Strategy: a life in which cold tenants hold a few entries in old segments and a hot one fills
//! the log, so that the cold ones' entries are logged again and old segments go; it ends at every
//! crash point, by a kill or by power loss, and is opened twice, flushed and opened again.
//!
//! Invariants: what is found is what some prefix of the writes left, none that was acknowledged as
//! its crash allows is missing, batches across tenants are whole, and an entry of which the log
//! holds two copies counts once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use forebay_engine::inspect::{self, Look};
use forebay_engine::metrics::Metrics;
use forebay_engine::options::Layout;
use forebay_engine::{Db, Options, WriteBatch, WriteOptions};
use forebay_sim::{RunEnd, Sim, SimConfig, SimEnv};

const DIR: &str = "/db";
const WRITES: u32 = 150;
const TENANTS: [&str; 5] = ["hot", "a", "b", "c", "d"];
const KEYS: u32 = 8;

/// Of each tenant, the write that gave each key its value.
type State = BTreeMap<&'static str, BTreeMap<u32, u32>>;

fn options(relog: bool, layout: Layout) -> Options {
    Options {
        relog,
        layout,
        budget_bytes: 256 << 10,
        memtable_bytes_max: 16 << 10,
        wal_segment_bytes: 32 << 10,
        wal_bytes_max: 64 << 10,
        block_bytes: 512,
        table_bytes_max: 16 << 10,
        block_cache_bytes: 0,
        ..Options::default()
    }
}

/// What a write changes: a key of the hot tenant, and now and then one of a cold tenant.
fn changes(n: u32) -> Vec<(&'static str, u32, Option<usize>)> {
    let mut out = vec![("hot", n % KEYS, Some(1200))];
    if n < 12 || n.is_multiple_of(29) {
        let cold = TENANTS[1 + usize::try_from(n % 4).unwrap()];
        let value = if n % 5 == 4 { None } else { Some(100) };
        out.push((cold, n % 3, value));
    }
    out
}

/// What the writes below a number leave.
fn state(count: u32) -> State {
    let mut out: State = TENANTS.iter().map(|name| (*name, BTreeMap::new())).collect();
    for n in 0..count {
        for (tenant, key, value) in changes(n) {
            let keys = out.get_mut(tenant).unwrap();
            match value {
                Some(_) => drop(keys.insert(key, n)),
                None => drop(keys.remove(&key)),
            }
        }
    }
    out
}

fn is_synced(n: u32) -> bool {
    n % 7 == 3
}

async fn write(db: &Db<SimEnv>, n: u32) {
    let mut batch = WriteBatch::new();
    for (tenant, key, value) in changes(n) {
        let tenant = db.tenant(tenant).unwrap();
        let key = format!("key{key}");
        match value {
            Some(len) => {
                let value = [&n.to_be_bytes()[..], &vec![b'x'; len]].concat();
                tenant.put_in(&mut batch, key.as_bytes(), &value).unwrap();
            }
            None => tenant.delete_in(&mut batch, key.as_bytes()).unwrap(),
        }
    }
    db.write(batch, WriteOptions { sync: is_synced(n), tag: 0 }).await.unwrap();
}

async fn held(db: &Db<SimEnv>) -> State {
    let mut out = State::new();
    for name in TENANTS {
        let keys = out.entry(name).or_default();
        let Some(tenant) = db.tenant(name) else { continue };
        let mut scan = tenant.scan(..).unwrap();
        while let Some((key, value)) = scan.next().await.unwrap() {
            let number = std::str::from_utf8(&key[3..]).unwrap().parse().unwrap();
            keys.insert(number, u32::from_be_bytes(value[..4].try_into().unwrap()));
        }
    }
    out
}

async fn life(env: SimEnv, options: Options, acked: Rc<Cell<u32>>) -> Metrics {
    let db = Db::open(env, Path::new(DIR), options).await.unwrap();
    db.create_tenants(&TENANTS).await.unwrap();
    for n in 0..WRITES {
        write(&db, n).await;
        acked.set(n + 1);
    }
    db.metrics()
}

/// Copies in the log, then the state at two opens with a flush of everything in between.
async fn judge(env: SimEnv, layout: Layout) -> (u64, [State; 2]) {
    let look = Look { records: true, ..Look::default() };
    // Where the first crash points are, there is no directory.
    let found = inspect::inspect(&env, Path::new(DIR), look).await.ok().flatten();
    let records = found.iter().flat_map(|found| &found.records);
    let copies = records.filter(|r| r.kind == "relogged").map(|r| r.entries).sum();
    let db = Db::open(env, Path::new(DIR), options(true, layout)).await.unwrap();
    let first = held(&db).await;
    for name in TENANTS {
        if let Some(tenant) = db.tenant(name) {
            tenant.flush().await.unwrap();
        }
    }
    assert_eq!(held(&db).await, first, "a flush changes nothing");
    db.close().await.unwrap();
    let db = Db::open(env, Path::new(DIR), options(false, layout)).await.unwrap();
    (copies, [first, held(&db).await])
}

/// One life that ends at a crash point. Returns the entries that the log held twice or more, or
/// `None` where the life ended before its crash.
fn crash_at(point: u64, layout: Layout, power: bool) -> Option<u64> {
    let sim = Sim::new(&SimConfig::fuzz(77));
    sim.crash_at_point(Some(point));
    let acked = Rc::new(Cell::new(0));
    let end = sim.run(life(sim.env(), options(true, layout), Rc::clone(&acked)));
    let crashed = matches!(end, RunEnd::Crashed);
    sim.crash_at_point(None);
    if power {
        sim.power_loss();
    } else {
        sim.kill();
    }
    let end = sim.run(judge(sim.env(), layout));
    let (copies, [first, second]) = end.done().expect("the opens end");
    assert_eq!(first, second, "point {point}: opening twice changes nothing");
    let acked = acked.get();
    let synced = (0..acked).rev().find(|n| is_synced(*n)).map_or(0, |n| n + 1);
    let least = if power { synced } else { acked };
    let allowed = (least..=acked + 1).any(|count| state(count) == first);
    assert!(allowed, "point {point}, acked {acked}, synced {synced}: {first:?}");
    crashed.then_some(copies)
}

fn metrics_of(relog: bool, layout: Layout) -> Metrics {
    let sim = Sim::new(&SimConfig::fuzz(77));
    let end = sim.run(life(sim.env(), options(relog, layout), Rc::default()));
    end.done().expect("the life ends")
}

#[test]
fn old_segments_go_without_a_flush_of_the_trees_that_pin_them() {
    let (plain, relogged) =
        (metrics_of(false, Layout::PerTenant), metrics_of(true, Layout::PerTenant));
    assert_eq!((plain.relog_count, plain.relog_bytes), (0, 0));
    assert!(relogged.relog_count >= 8, "{relogged:?}");
    assert!(relogged.relog_bytes < relogged.wal_bytes >> 3, "{relogged:?}");
    assert!(relogged.flush_count + 4 <= plain.flush_count, "{relogged:?} {plain:?}");
    for metrics in [plain, relogged] {
        assert!(metrics.wal_retained_bytes <= 4 * (32 << 10), "{metrics:?}");
    }
}

/// Cold tenants hold more than the log may: what is copied must not bring copies about.
async fn crowded(env: SimEnv) -> Metrics {
    let db = Db::open(env, Path::new(DIR), options(true, Layout::PerTenant)).await.unwrap();
    let names: Vec<String> = (0..60).map(|n| format!("cold{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let cold = db.create_tenants(&names).await.unwrap();
    let hot = db.create_tenants(&["hot"]).await.unwrap();
    for tenant in &cold {
        tenant.put(b"key", &[7; 1500], WriteOptions::default()).await.unwrap();
    }
    for n in 0..400_u32 {
        hot[0].put(&(n % 8).to_be_bytes(), &[8; 1200], WriteOptions::default()).await.unwrap();
    }
    for tenant in &cold {
        assert_eq!(tenant.get(b"key").await.unwrap().as_deref(), Some(&[7; 1500][..]));
    }
    db.metrics()
}

#[test]
fn copies_stay_a_small_part_of_the_log_where_cold_trees_hold_more_than_it_may() {
    let sim = Sim::new(&SimConfig::fuzz(78));
    let metrics = sim.run(crowded(sim.env())).done().expect("it ends");
    assert!(metrics.relog_count > 0, "{metrics:?}");
    assert!(metrics.relog_bytes * 3 <= metrics.wal_bytes, "{metrics:?}");
    assert!(metrics.wal_retained_bytes <= 4 * (32 << 10), "{metrics:?}");
}

#[test]
fn a_crash_at_any_point_of_a_life_with_relogging_loses_nothing() {
    for (layout, power) in [
        (Layout::PerTenant, true),
        (Layout::PerTenant, false),
        (Layout::Grouped(3), true),
        (Layout::Grouped(3), false),
    ] {
        let (mut points, mut with_copies) = (0, 0);
        while let Some(copies) = crash_at(1 + points, layout, power) {
            points += 1;
            with_copies += u64::from(copies > 0);
        }
        assert!(points > 800 && with_copies > 400, "{with_copies} of {points} points");
    }
}
