//! Puts and gets on the real disk by one thread: 16-byte keys, 100-byte values, no sync per write.
//!
//! The floor is the least that such an engine does: a skip list and an append to a file, of the
//! same bytes. Engine and floor take turns, a fresh directory each, and the ratio of each turn
//! counts, so that a disk that is slow for a while slows both. Targets: puts at 0.5 of the floor or
//! more, warm gets at 120,000 a second or more.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures wall time and stops at any failure"
)]

mod common;

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Draws, key};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group};
use crossbeam_skiplist::SkipMap;
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::os::OsEnv;
use forebay_engine::{Options, WriteOptions};

const KEYS: u64 = 200_000;
const VALUE: [u8; 100] = [0x5a; 100];

/// Whether the benches are only to be seen to run: `cargo bench -- --test`.
fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// A new directory beside the build, which is not in a memory file system.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

struct Store {
    db: BlockingDb<OsEnv>,
    tenant: BlockingTenant<OsEnv>,
    _directory: tempfile::TempDir,
}

fn store() -> Store {
    let directory = directory();
    let db = BlockingDb::open(OsEnv, directory.path(), Options::default()).unwrap();
    let tenant = db.create_tenants(&["t"]).unwrap().remove(0);
    Store { db, tenant, _directory: directory }
}

/// The time of so many random puts into a new database.
fn engine_puts(count: u64) -> Duration {
    let store = store();
    let start = Instant::now();
    for n in 0..count {
        store.tenant.put(&key(n), &VALUE, WriteOptions::default()).unwrap();
    }
    let elapsed = start.elapsed();
    store.db.close().unwrap();
    elapsed
}

/// The time of the same bytes into a new skip list and a new file.
fn floor_puts(count: u64) -> Duration {
    let directory = directory();
    let mut file = File::create(directory.path().join("log")).unwrap();
    let map = SkipMap::new();
    let mut record = Vec::new();
    let start = Instant::now();
    for n in 0..count {
        let key = key(n);
        record.clear();
        record.extend_from_slice(&key);
        record.extend_from_slice(&VALUE);
        file.write_all(&record).unwrap();
        map.insert(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&VALUE));
    }
    let elapsed = start.elapsed();
    black_box(map.len());
    elapsed
}

fn filled(in_tables: bool) -> Store {
    let store = store();
    let keys = if is_test() { 1_000 } else { KEYS };
    for n in 0..keys {
        store.tenant.put(&key(n), &VALUE, WriteOptions::default()).unwrap();
    }
    if in_tables {
        store.tenant.compact().unwrap();
    }
    for n in 0..keys {
        assert!(store.tenant.get(&key(n)).unwrap().is_some());
    }
    store
}

fn get_loop(store: &Store, count: u64) -> Duration {
    let keys = if is_test() { 1_000 } else { KEYS };
    let mut draws = Draws(count);
    let start = Instant::now();
    for _ in 0..count {
        assert!(store.tenant.get(&key(draws.below(keys))).unwrap().is_some());
    }
    start.elapsed()
}

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    group.bench_function("engine", |b| b.iter_custom(engine_puts));
    group.bench_function("floor", |b| b.iter_custom(floor_puts));
    group.finish();
}

fn gets(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    for (name, in_tables) in [("warm-tables", true), ("memtable", false)] {
        let store = filled(in_tables);
        group.bench_function(name, |b| b.iter_custom(|count| get_loop(&store, count)));
        store.db.close().unwrap();
    }
    group.finish();
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    [at(values.len() >> 1), at(0), at(values.len().saturating_sub(1))]
}

/// Prints what the targets are stated in.
fn targets() {
    let (turns, count) = if is_test() { (1, 1_000) } else { (7, KEYS) };
    let rate = |elapsed: Duration| count as f64 / elapsed.as_secs_f64();
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..turns {
        let (engine, floor) = (engine_puts(count), floor_puts(count));
        ratios.push(floor.as_secs_f64() / engine.as_secs_f64());
        rates.push(rate(engine));
    }
    let store = filled(true);
    let gets = (0..turns).map(|_| rate(get_loop(&store, count))).collect();
    store.db.close().unwrap();
    let mut out = std::io::stdout();
    for (what, values) in
        [("puts over floor", ratios), ("puts per second", rates), ("warm gets per second", gets)]
    {
        let [median, low, high] = spread(values);
        writeln!(out, "{what}: median {median:.3}, {low:.3} to {high:.3} in {turns} turns")
            .unwrap();
    }
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = puts, gets
}

fn main() {
    // With a filter only what it names is wanted.
    let filtered = std::env::args().skip(1).any(|arg| !arg.starts_with('-'));
    if !filtered {
        targets();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
