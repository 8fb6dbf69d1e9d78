//! Ten thousand tenants: the time to create them in one durable edit, and what an idle one holds.
//!
//! Targets: under 2 s, and at most 2 KiB of memory each. Memory is counted by the allocator of
//! this binary, in bytes that were asked for, from before `create_tenants` to after it.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an allocator that counts is unsafe by its trait; a bench measures wall time and stops \
              at any failure"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{Draws, key};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::Options;
use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::os::OsEnv;

const TENANTS: u64 = 10_000;

struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Memory) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn names() -> Vec<String> {
    let mut draws = Draws(3);
    (0..TENANTS).map(|n| format!("tenant-{n:05}-{:04x}", draws.below(1 << 16))).collect()
}

fn empty() -> (tempfile::TempDir, BlockingDb<OsEnv>) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let db = BlockingDb::open(OsEnv, directory.path(), Options::default()).unwrap();
    (directory, db)
}

/// Prints what the targets are stated in.
fn targets() {
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_directory, db) = empty();
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let start = Instant::now();
    drop(db.create_tenants(&names).unwrap());
    let elapsed = start.elapsed();
    let held = LIVE_BYTES.load(Ordering::Relaxed).saturating_sub(before);
    let each = held.div_euclid(names.len());
    writeln!(
        std::io::stdout(),
        "create_tenants of {TENANTS} names: {elapsed:?}; an idle tenant holds {each} bytes"
    )
    .unwrap();
    // A key is made here as well so that both binaries share one stream of keys.
    assert!(db.tenant("tenant-00000").is_none_or(|t| t.get(&key(0)).unwrap().is_none()));
    db.close().unwrap();
}

fn create_tenants(c: &mut Criterion) {
    targets();
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut group = c.benchmark_group("create-tenants");
    group.throughput(Throughput::Elements(TENANTS));
    group.bench_function("10000", |b| {
        let create = |(directory, db): (tempfile::TempDir, BlockingDb<OsEnv>)| {
            drop(db.create_tenants(&names).unwrap());
            (directory, db)
        };
        b.iter_batched(empty, create, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = create_tenants
}
criterion_main!(benches);
