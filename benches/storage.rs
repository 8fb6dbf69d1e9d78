//! Tables from one run to the next: compaction, replay of a log, opening with 10,000 tenants.
//!
//! Targets: replay of a 64 MiB log at 300,000 records a second or more; opening 10,000 tenants
//! after a clean close in under 1 s. Each prints its figure in the unit of its target.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures wall time, copies directories and stops at any failure"
)]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Draws, key};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::{Options, WriteBatch, WriteOptions};

const RUNS: u64 = 4;
const LOG_BYTES: u64 = 64 << 20;
const TENANTS: u64 = 10_000;

/// Whether the benches are only to be seen to run: `cargo bench -- --test`.
fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// A new directory beside the build, which is not in a memory file system.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// 100 bytes, half of them words and half digits, as records with field names are.
fn value(n: u64) -> Vec<u8> {
    let mut draws = Draws(n);
    let (a, b) = (draws.draw(), draws.draw());
    let text = format!(
        "{{\"account\":\"{a:020}\",\"currency\":\"EUR\",\"balance\":\"{b:020}\",\"state\":\"open\"}}"
    );
    let mut value = text.into_bytes();
    value.resize(100, b' ');
    value
}

/// The time of one compaction of overlapping runs, and the bytes of values and keys in them. In
/// memory, so that the merge is measured and not the disk.
fn compaction(compression: &str, keys: u64) -> (Duration, u64) {
    let mut options = Options { l0_compaction_count: 20, ..Options::default() };
    options.set("compression", compression).unwrap();
    let db = BlockingDb::open(MemEnv::default(), Path::new("/db"), options).unwrap();
    let tenant = db.create_tenants(&["t"]).unwrap().remove(0);
    for run in 0..RUNS {
        for n in 0..keys {
            tenant.put(&key(n), &value(n ^ run), WriteOptions::default()).unwrap();
        }
        tenant.flush().unwrap();
    }
    let start = Instant::now();
    tenant.compact().unwrap();
    let elapsed = start.elapsed();
    db.close().unwrap();
    (elapsed, RUNS * keys * 116)
}

fn compactions(c: &mut Criterion) {
    let keys = if is_test() { 1_000 } else { 25_000 };
    let mut group = c.benchmark_group("compaction-4-runs");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(RUNS * keys * 116));
    for compression in ["none", "lz4"] {
        group.bench_with_input(BenchmarkId::from_parameter(compression), &compression, |b, c| {
            b.iter_custom(|count| (0..count).map(|_| compaction(c, keys).0).sum());
        });
    }
    group.finish();
}

/// A closed database whose log holds this many bytes of single puts, none of them flushed.
fn unflushed(dir: &Path, bytes: u64) -> u64 {
    let options = Options { budget_bytes: 8 * LOG_BYTES, ..Options::default() };
    let options = Options { memtable_bytes_max: 4 * LOG_BYTES, ..options };
    let db = BlockingDb::open(OsEnv, dir, options).unwrap();
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tenants = db.create_tenants(&names).unwrap();
    let mut records = 0;
    let mut draws = Draws(5);
    while db.db().metrics().wal_bytes < bytes {
        let tenant = tenants.get(usize::try_from(draws.below(100)).unwrap()).unwrap();
        tenant.put(&key(records), &value(records), WriteOptions::default()).unwrap();
        records += 1;
    }
    db.close().unwrap();
    records
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = directory();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// The time to open a copy of a database; it is closed again unmeasured.
fn open(from: &Path) -> Duration {
    let copy = copy(from);
    let options = Options { budget_bytes: 8 * LOG_BYTES, ..Options::default() };
    let options = Options { memtable_bytes_max: 4 * LOG_BYTES, ..options };
    let start = Instant::now();
    let db = BlockingDb::open(OsEnv, copy.path(), options).unwrap();
    let elapsed = start.elapsed();
    db.close().unwrap();
    elapsed
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() >> 1).copied().unwrap_or_default()
}

fn replay(c: &mut Criterion) {
    let bytes = if is_test() { 1 << 20 } else { LOG_BYTES };
    let template = directory();
    let records = unflushed(template.path(), bytes);
    let time = median((0..5).map(|_| open(template.path())).collect());
    say(&format!(
        "replay of a log of {} MiB: {records} records in {time:?}, {:.0} records/s",
        bytes >> 20,
        records as f64 / time.as_secs_f64()
    ));
    let mut group = c.benchmark_group("replay");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(records));
    group.bench_function("64-MiB", |b| {
        b.iter_custom(|count| (0..count).map(|_| open(template.path())).sum());
    });
    group.finish();
}

/// A closed database of so many tenants with one table each.
fn many_tenants(dir: &Path, tenants: u64) {
    let db = BlockingDb::open(OsEnv, dir, Options::default()).unwrap();
    let names: Vec<String> = (0..tenants).map(|n| format!("tenant-{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let handles = db.create_tenants(&names).unwrap();
    let mut batch = WriteBatch::new();
    for (n, tenant) in (0..).zip(&handles) {
        tenant.tenant().put_in(&mut batch, &key(n), &value(n)).unwrap();
        if batch.len() == 1_000 {
            db.write(core::mem::take(&mut batch), WriteOptions::default()).unwrap();
        }
    }
    db.write(batch, WriteOptions::default()).unwrap();
    db.close().unwrap();
}

fn reopen(c: &mut Criterion) {
    let tenants = if is_test() { 100 } else { TENANTS };
    let template = directory();
    many_tenants(template.path(), tenants);
    let time = median((0..5).map(|_| open(template.path())).collect());
    say(&format!("open with {tenants} tenants after a clean close: {time:?}"));
    let mut group = c.benchmark_group("open");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("10000-tenants", |b| {
        b.iter_custom(|count| (0..count).map(|_| open(template.path())).sum());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = compactions, replay, reopen
}
criterion_main!(benches);
