//! Parts of the engine in memory: memtable insert, block seek, table scan, reads that a filter rules
//! out, iterator start, merge, flush decision.
//!
//! Target: a get that the filter rules out in under 0.6 us.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench stops at any failure")]

mod common;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{Draws, key};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv as _, Env as _, File as _, IoClass};
use forebay_engine::iter::{self, Edge, MergeIter, ScanBounds, SortedIter, TableIter};
use forebay_engine::memtable::Memtable;
use forebay_engine::memtable::iter::MemtableIter;
use forebay_engine::policy::PolicySpec;
use forebay_engine::policy::flush;
use forebay_engine::policy::view::{FlushView, TreeFacts};
use forebay_engine::table::{
    ReadContext, Step, TableBuilder, TableFormat, TableMeta, TableSpace, table_path,
};
use forebay_engine::types::{Entry, Kind, SEQ_MAX, TableId, TreeId};
use forebay_engine::{Options, WriteOptions};

const ENTRIES: u64 = 10_000;
const TREES: u64 = 10_000;

fn data(n: u64) -> Bytes {
    Bytes::from([&key(n)[..], &[0x5a; 100]].concat())
}

fn memtable(from: u64, count: u64) -> Arc<Memtable> {
    let memtable = Memtable::new(1, 1);
    for n in from..from + count {
        memtable.insert(data(n), 16, n + 1, Kind::Put);
    }
    Arc::new(memtable)
}

fn memtable_insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("memtable-insert");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("random-10000", |b| {
        let entries = || (0..ENTRIES).map(data).collect::<Vec<_>>();
        let insert = |entries: Vec<Bytes>| {
            let memtable = Memtable::new(1, 1);
            for (seq, data) in (1..).zip(entries) {
                memtable.insert(data, 16, seq, Kind::Put);
            }
            memtable
        };
        b.iter_batched(entries, insert, BatchSize::LargeInput);
    });
    group.finish();
}

/// A table of [`ENTRIES`] keys whose parts are all in the cache.
fn table() -> (TableSpace<MemEnv>, Arc<TableMeta>) {
    let (env, dir) = (MemEnv::default(), Path::new("/db"));
    let mut builder = TableBuilder::new(TreeId(1), TableFormat::default());
    let mut iter = MemtableIter::new(memtable(0, ENTRIES));
    while let Some(entry) = iter.advance() {
        builder.add(&entry).unwrap();
    }
    let finished = builder.finish().unwrap();
    let meta = Arc::new(finished.meta(TableId { file: 1, offset: 0 }));
    env.block_on(async {
        env.create_dir(dir).await.unwrap();
        let file = env.create(&table_path(dir, 1)).await.unwrap();
        file.append(&finished.rest, IoClass::Flush).await.unwrap();
    });
    let space = TableSpace::new(env, dir, 64 << 20, 8);
    (space, meta)
}

fn block_seek(c: &mut Criterion) {
    let (space, meta) = table();
    let env = MemEnv::default();
    let mut ctx = ReadContext::new(IoClass::Read);
    for n in 0..ENTRIES {
        let found = env.block_on(space.get(&meta, &key(n), SEQ_MAX, &mut ctx)).unwrap();
        assert!(found.is_some(), "key {n} is in the table");
    }
    let mut group = c.benchmark_group("block-seek");
    group.throughput(Throughput::Elements(1));
    let mut draws = Draws(7);
    // Filter, index and one data block, all cached: a seek in the index and one in the block.
    group.bench_function("cached-table", |b| {
        b.iter(|| match space.get_step(&meta, &key(draws.below(ENTRIES)), SEQ_MAX, &mut ctx) {
            Ok(Step::Ready(Some(entry))) => entry,
            other => panic!("a cached key is not there: {other:?}"),
        });
    });
    group.finish();
}

/// A key that is in no table: what is drawn for it is beyond what tables hold.
fn absent(draws: &mut Draws) -> [u8; 16] {
    key(ENTRIES + draws.below(1 << 40))
}

fn table_get(c: &mut Criterion) {
    let (space, meta) = table();
    let env = MemEnv::default();
    let mut ctx = ReadContext::new(IoClass::Read);
    for n in 0..ENTRIES {
        env.block_on(space.get(&meta, &key(n), SEQ_MAX, &mut ctx)).unwrap();
    }
    let mut group = c.benchmark_group("table-get");
    group.throughput(Throughput::Elements(1));
    let mut draws = Draws(7);
    group.bench_function("hit", |b| {
        b.iter(|| space.get_step(&meta, &key(draws.below(ENTRIES)), SEQ_MAX, &mut ctx));
    });
    // Nearly all are ruled out by the filter; of a hundred about one is looked for in a block.
    group.bench_function("miss", |b| {
        b.iter(|| space.get_step(&meta, &absent(&mut draws), SEQ_MAX, &mut ctx));
    });
    group.finish();
}

fn table_scan(c: &mut Criterion) {
    let (space, meta) = table();
    let env = MemEnv::default();
    let space = Arc::new(space);
    let drain = |reverse| {
        let bounds = ScanBounds { reverse, ..ScanBounds::default() };
        let mut iter = TableIter::new(Arc::clone(&space), Arc::clone(&meta), bounds);
        let mut ctx = ReadContext::new(IoClass::Read);
        let mut count = 0_u64;
        env.block_on(async {
            while let Some(entry) = iter::next(&mut iter, &space, &mut ctx).await.unwrap() {
                black_box(entry);
                count += 1;
            }
        });
        assert_eq!(count, ENTRIES, "a scan ends early");
    };
    drain(false);
    let mut group = c.benchmark_group("table-scan");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("forward", |b| b.iter(|| drain(false)));
    group.bench_function("reverse", |b| b.iter(|| drain(true)));
    group.finish();
}

/// A database of one tenant with so many overlapping tables in L0, all of them cached.
fn tables_in_l0(count: u64) -> (BlockingDb<MemEnv>, BlockingTenant<MemEnv>) {
    let options = Options { l0_compaction_count: 20, ..Options::default() };
    let db = BlockingDb::open(MemEnv::default(), Path::new("/db"), options).unwrap();
    let tenant = db.create_tenants(&["t"]).unwrap().remove(0);
    for run in 0..count {
        for n in 0..1_000 {
            let value = run.to_le_bytes();
            tenant.put(&key(n * count + run), &value, WriteOptions::default()).unwrap();
        }
        tenant.flush().unwrap();
    }
    assert_eq!(tenant.scan(..).unwrap().count(), 1_000 * usize::try_from(count).unwrap());
    (db, tenant)
}

fn iterator_start(c: &mut Criterion) {
    let mut group = c.benchmark_group("iterator-start");
    for count in [1_u64, 8] {
        let (db, tenant) = tables_in_l0(count);
        // Not the last keys, so that each table holds one behind it.
        let froms: Vec<[u8; 16]> = {
            let mut keys: Vec<[u8; 16]> = (0..1_000).map(key).collect();
            keys.sort_unstable();
            keys.truncate(900);
            keys
        };
        let mut next = froms.iter().cycle();
        group.bench_function(BenchmarkId::new("tables", count), |b| {
            b.iter(|| {
                let from = next.next().unwrap();
                let mut scan = tenant.scan(&from[..]..).unwrap();
                scan.start().unwrap();
                assert_eq!(scan.stats().data_blocks(), count, "one block for each table");
                scan
            });
        });
        db.close().unwrap();
    }
    group.finish();
}

/// A point read of a whole database with one table and with eight: a key that is there, and one that
/// every filter rules out.
fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    for count in [1, 8] {
        let (db, tenant) = tables_in_l0(count);
        let mut draws = Draws(9);
        group.bench_function(BenchmarkId::new("hit", count), |b| {
            b.iter(|| tenant.get(&key(draws.below(1_000 * count))).unwrap());
        });
        group.bench_function(BenchmarkId::new("ruled-out", count), |b| {
            b.iter(|| tenant.get(&absent(&mut draws)).unwrap());
        });
        db.close().unwrap();
    }
    group.finish();
}

/// A run in memory, so that the merge alone is measured.
#[derive(Debug)]
struct Run {
    entries: Arc<[Entry]>,
    at: usize,
}

impl SortedIter for Run {
    fn seek(&mut self, edge: &Edge) {
        self.at = self.entries.partition_point(|entry| edge.is_behind(&entry.key));
    }

    fn next_step(&mut self, _ctx: &mut ReadContext) -> forebay_engine::Result<Step<Option<Entry>>> {
        let entry = self.entries.get(self.at).cloned();
        self.at += 1;
        Ok(Step::Ready(entry))
    }
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(ENTRIES));
    for runs in [2_u64, 8, 32] {
        let each = ENTRIES.div_euclid(runs);
        let entries: Vec<Arc<[Entry]>> = (0..runs)
            .map(|run| {
                let mut iter = MemtableIter::new(memtable(run * each, each));
                core::iter::from_fn(|| iter.advance()).collect()
            })
            .collect();
        group.bench_with_input(BenchmarkId::new("runs", runs), &entries, |b, entries| {
            let sources = || {
                let run = |entries: &Arc<[Entry]>| -> Box<dyn SortedIter> {
                    Box::new(Run { entries: Arc::clone(entries), at: 0 })
                };
                MergeIter::new(entries.iter().map(run).collect())
            };
            let drain = |mut iter: MergeIter| {
                let mut ctx = ReadContext::new(IoClass::Compaction);
                while let Ok(Step::Ready(Some(entry))) = iter.next_step(&mut ctx) {
                    black_box(entry);
                }
            };
            b.iter_batched(sources, drain, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// Ten thousand dirty trees that fill the budget, so that every policy must name a victim.
fn full_view() -> FlushView {
    let mut draws = Draws(11);
    let trees: Vec<TreeFacts> = (1..=TREES)
        .map(|n| {
            let first_write_ns = 1 + draws.below(1_000_000_000);
            TreeFacts {
                tree: TreeId(n),
                memtable_bytes: 1 + draws.below(1 << 20),
                memtable_bytes_max: 1 << 28,
                memtable_created_ns: first_write_ns,
                first_write_ns,
                last_write_ns: first_write_ns + draws.below(1_000_000_000),
                written_bytes: draws.below(1 << 30),
                wal_anchor_segment: 1 + draws.below(100),
                l0_count: u32::try_from(draws.below(4)).unwrap(),
                ..TreeFacts::default()
            }
        })
        .collect();
    let mutable_bytes = trees.iter().map(|t| t.memtable_bytes).sum();
    FlushView {
        now_ns: 3_000_000_000,
        budget_bytes: mutable_bytes,
        mutable_bytes,
        flush_slots: 2,
        wal_bytes: mutable_bytes,
        wal_bytes_max: 4 * mutable_bytes,
        wal_oldest_segment: 1,
        flushed_bytes: 10 * mutable_bytes,
        draw: 5,
        written_slots: (0..10).map(|n| n * 997).collect(),
        trees,
        ..FlushView::default()
    }
}

/// The same trees with memory short by one memtable or, with packs, by a flush of many; and with
/// memory not short, as nearly every write finds it.
fn states() -> [(&'static str, FlushView); 3] {
    let short = full_view();
    let pack_bytes = short.budget_bytes.div_euclid(16);
    let packed = FlushView { pack_bytes, ..short.clone() };
    let budget_bytes = short.budget_bytes * 4;
    let roomy = FlushView { budget_bytes, wal_bytes_max: 16 * budget_bytes, ..short.clone() };
    [("one", short), ("pack", packed), ("not-short", roomy)]
}

/// The time passes as when groups of writes of 10 KiB come in at 500 MB/s.
const GROUP_NS: u64 = 20_000;

fn flush_decision(c: &mut Criterion) {
    let mut group = c.benchmark_group("flush-decision-10000");
    for (state, view) in states() {
        for info in flush::list() {
            let mut view = view.clone();
            let mut policy = flush::build(&PolicySpec::named(info.name)).unwrap();
            let decision = policy.decide(&view);
            let names = !decision.flush.is_empty() || !decision.pack.is_empty();
            assert!(names || state == "not-short", "{} names nobody", info.name);
            group.bench_function(BenchmarkId::new(info.name, state), |b| {
                b.iter(|| {
                    view.now_ns += GROUP_NS;
                    policy.decide(black_box(&view))
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = memtable_insert, block_seek, table_get, table_scan, iterator_start, get, merge,
        flush_decision
}
criterion_main!(benches);
