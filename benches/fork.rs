//! A fork on the real disk: its latency by how much data the parent has, by what the parent's
//! memtable holds, at depth 50, and the time to drop one.
//!
//! Target: medians at 1 MB, 100 MB and 2 GB of data at most 1.2 apart. They are printed first, from
//! rounds that take the sizes in turn, so that what the disk does meanwhile meets all of them; so
//! are they with the directory in memory, where syncs cost nothing and the engine's own work shows.
//! With `--test` the parents have 1 MB.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::integer_division,
    reason = "a bench measures wall time, counts the files of its directory and stops at any \
              failure"
)]

mod common;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Draws, key};
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::BlockingEnv as _;
use forebay_engine::env::os::OsEnv;
use forebay_engine::options::ForkMemtable;
use forebay_engine::{Options, WriteOptions};

const VALUE_BYTES: u64 = 64 << 10;
const SMALL_VALUE: [u8; 1000] = [0x5a; 1000];
const ROUNDS: usize = 200;
const DEPTH: u64 = 50;

/// What a memtable is filled with: so many small entries.
const MEMTABLES: [(&str, u32); 3] = [("empty", 0), ("64KiB", 56), ("1MiB", 960)];

const WISHES: [(&str, ForkMemtable); 3] =
    [("share", ForkMemtable::Share), ("copy", ForkMemtable::Copy), ("auto", ForkMemtable::Auto)];

/// One database with one tenant that has so much data, all of it in tables.
struct World {
    name: &'static str,
    dir: tempfile::TempDir,
    db: BlockingDb<OsEnv>,
    parent: BlockingTenant<OsEnv>,
    forks: u64,
}

fn options() -> Options {
    Options {
        memtable_bytes_max: 8 << 20,
        table_bytes_max: 8 << 20,
        // The load leaves all its tables in level 0, and one compaction sorts them.
        l0_compaction_count: 300,
        l0_slowdown_count: 1_000,
        l0_stop_count: 2_000,
        ..Options::default()
    }
}

impl World {
    fn new(folder: &Path, name: &'static str, bytes: u64) -> Self {
        let dir = tempfile::tempdir_in(folder).unwrap();
        let db = BlockingDb::open(OsEnv, dir.path(), options()).unwrap();
        let parent = db.create_tenants(&["t"]).unwrap().pop().unwrap();
        let mut draws = Draws(bytes);
        for n in 0..bytes.div_ceil(VALUE_BYTES) {
            let value: Vec<u8> =
                (0..VALUE_BYTES / 8).flat_map(|_| draws.below(u64::MAX).to_le_bytes()).collect();
            parent.put(&n.to_be_bytes(), &value, WriteOptions::default()).unwrap();
        }
        parent.flush().unwrap();
        parent.compact().unwrap();
        let world = Self { name, dir, db, parent, forks: 0 };
        world.settle(0);
        world
    }

    fn table_count(&self) -> usize {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "sst")).count()
    }

    /// Leaves nothing to do in the background and so many entries in the parent's memtable.
    fn settle(&self, entries: u32) {
        self.parent.flush().unwrap();
        OsEnv.block_on(self.db.db().wait_idle()).unwrap();
        for n in 0..u64::from(entries) {
            // Behind the data's keys, so that compactions of these leave the data alone.
            let key = [&[0xff_u8][..], &key(n)].concat();
            self.parent.put(&key, &SMALL_VALUE, WriteOptions::default()).unwrap();
        }
    }

    /// Times one fork of `from`, and drops it; gives back both times.
    fn fork(
        &mut self,
        from: &BlockingTenant<OsEnv>,
        memtable: ForkMemtable,
    ) -> (Duration, Duration) {
        self.forks += 1;
        let name = format!("f{}", self.forks);
        let start = Instant::now();
        let forked = OsEnv.block_on(from.tenant().fork_with(&name, memtable)).unwrap();
        let fork = start.elapsed();
        let name = forked.tenant.full_name();
        drop(forked);
        let start = Instant::now();
        self.db.drop_branch(&name).unwrap();
        (fork, start.elapsed())
    }

    fn fork_parent(&mut self, (entries, memtable): (u32, ForkMemtable)) -> (Duration, Duration) {
        self.settle(entries);
        let parent = self.parent.clone();
        self.fork(&parent, memtable)
    }
}

fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// A parent of each size.
fn worlds(folder: &Path) -> Vec<World> {
    let sizes = [("1MB", 1_000_000), ("100MB", 100_000_000), ("2GB", 2_000_000_000)];
    let count = if is_test() { 1 } else { sizes.len() };
    sizes.into_iter().take(count).map(|(name, bytes)| World::new(folder, name, bytes)).collect()
}

/// What a parent's memtable holds and what a fork does with it, by name.
fn kinds() -> Vec<(String, (u32, ForkMemtable))> {
    let mut kinds = Vec::new();
    for (filled, entries) in MEMTABLES {
        let wishes = if entries == 0 { &WISHES[2..] } else { &WISHES[..] };
        let of_wish =
            |(wish, memtable): &(_, _)| (format!("{filled}-{wish}"), (entries, *memtable));
        kinds.extend(wishes.iter().map(of_wish));
    }
    kinds
}

/// Prints what the targets are stated in: percentiles of rounds that take the sizes in turn.
fn targets(worlds: &mut [World], place: &str) {
    for (name, kind) in kinds() {
        let rounds = match kind.0 {
            _ if is_test() => 2,
            0 => ROUNDS,
            _ => ROUNDS / 4,
        };
        targets_of(worlds, &format!("{place} {name}"), (kind, rounds));
    }
}

fn targets_of(worlds: &mut [World], what: &str, (kind, rounds): ((u32, ForkMemtable), usize)) {
    for world in worlds.iter() {
        // Small tables of the kind before would count as the parent's.
        world.parent.compact_range(&[0xff_u8][..]..).unwrap();
    }
    let mut times = vec![(Vec::new(), Vec::new()); worlds.len()];
    for _ in 0..rounds {
        for (world, (forks, drops)) in worlds.iter_mut().zip(&mut times) {
            let (fork, dropped) = world.fork_parent(kind);
            forks.push(fork);
            drops.push(dropped);
        }
    }
    let mut out = std::io::stdout();
    let mut medians = Vec::new();
    for (world, (forks, drops)) in worlds.iter().zip(&mut times) {
        let at = |times: &mut Vec<Duration>, percent: usize| {
            times.sort_unstable();
            *times.get((times.len() - 1) * percent / 100).unwrap()
        };
        let (name, tables) = (world.name, world.table_count());
        let (p10, p50, p90) = (at(forks, 10), at(forks, 50), at(forks, 90));
        let dropped = at(drops, 50);
        writeln!(
            out,
            "{what}: {name:>5} in {tables:>3} tables: fork p10 {p10:?} p50 {p50:?} p90 {p90:?}, \
             drop p50 {dropped:?}"
        )
        .unwrap();
        medians.push(p50.as_secs_f64());
    }
    let least = medians.iter().copied().fold(f64::MAX, f64::min);
    let most = medians.iter().copied().fold(0.0, f64::max);
    writeln!(out, "{what}: medians are {:.2} apart", most / least).unwrap();
}

fn forks(c: &mut Criterion) {
    // Where the system has a directory in memory.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        targets(&mut worlds(memory), "memory");
    }
    let mut worlds = worlds(Path::new(env!("CARGO_TARGET_TMPDIR")));
    targets(&mut worlds, "disk");
    let mut group = c.benchmark_group("fork");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_millis(200));
    for world in &mut worlds {
        for (name, kind) in kinds() {
            group.bench_function(BenchmarkId::new(name, world.name), |b| {
                b.iter_custom(|count| (0..count).map(|_| world.fork_parent(kind).0).sum());
            });
        }
    }
    group.finish();
    if let Some(world) = worlds.first_mut() {
        deep(c, world);
    }
}

/// A fork of a fork of a fork, and what it takes to drop one.
fn deep(c: &mut Criterion, world: &mut World) {
    let mut branch = world.parent.clone();
    let mut group = c.benchmark_group("deep-fork");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_millis(200));
    for depth in 0..=DEPTH {
        if [1, DEPTH].contains(&depth) {
            group.bench_function(BenchmarkId::new("fork", depth), |b| {
                b.iter_custom(|n| (0..n).map(|_| world.fork(&branch, ForkMemtable::Auto).0).sum());
            });
            group.bench_function(BenchmarkId::new("drop", depth), |b| {
                b.iter_custom(|n| (0..n).map(|_| world.fork(&branch, ForkMemtable::Auto).1).sum());
            });
        }
        branch = branch.fork(&format!("deep{depth}")).unwrap();
        let key = key(Draws(depth).below(10));
        branch.put(&key, &depth.to_be_bytes(), WriteOptions::default()).unwrap();
        branch.flush().unwrap();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = forks
}
criterion_main!(benches);
