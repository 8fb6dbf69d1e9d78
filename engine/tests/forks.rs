//! Forks: a branch begins with all of another's data, and is independent of it from there on.
//!
//! Strategy: random operations on a family of branches over the memory world (writes, batches
//! across branches, forks of forks, drops, flushes, compactions, reopens), held against an ordered
//! map for each branch; then each promise by itself.
//! Invariants: every branch reads as its map at all times; the budget counts shared memtables once;
//! when all is quiet, the directory holds the files that some branch reaches, and no other.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::options::{ForkMemtable, Options};
use forebay_engine::{Error, WriteBatch, WriteOptions};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(settings: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    let small = [
        ("budget_bytes", "65536"),
        ("memtable_bytes_max", "4096"),
        ("wal_segment_bytes", "32768"),
        ("block_bytes", "256"),
        ("table_bytes_max", "2048"),
        ("level_base_bytes", "8192"),
        ("block_cache_bytes", "4096"),
        ("open_tables_max", "3"),
        ("sync_interval_ns", "0"),
    ];
    for (key, value) in small.iter().chain(settings) {
        options.set(key, value).unwrap();
    }
    options
}

/// A stream of draws.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

struct World {
    env: MemEnv,
    options: Options,
    db: BlockingDb<MemEnv>,
    model: BTreeMap<String, Map>,
    draws: Draws,
    count: u64,
}

impl World {
    fn new(seed: u64, settings: &[(&str, &str)]) -> Self {
        let (env, options) = (MemEnv::default(), options(settings));
        let db = BlockingDb::open(env.clone(), Path::new("/db"), options.clone()).unwrap();
        db.create_tenants(&["t"]).unwrap();
        let model = BTreeMap::from([("t".to_owned(), Map::new())]);
        Self { env, options, db, model, draws: Draws(seed * 2 + 1), count: 0 }
    }

    fn any_branch(&mut self) -> Option<String> {
        let at = self.draws.below(self.model.len().max(1));
        self.model.keys().nth(at).cloned()
    }

    fn put(&mut self, batch: &mut WriteBatch, name: &str) {
        let branch = self.db.branch(name).unwrap();
        let key = format!("key{:02}", self.draws.below(40)).into_bytes();
        self.count += 1;
        let map = self.model.get_mut(name).unwrap();
        if self.draws.below(4) == 0 {
            branch.tenant().delete_in(batch, &key).unwrap();
            map.remove(&key);
        } else {
            let mut value = self.count.to_le_bytes().to_vec();
            value.resize(8 + self.draws.below(120), 7);
            branch.tenant().put_in(batch, &key, &value).unwrap();
            map.insert(key, value);
        }
    }

    fn step(&mut self) {
        let Some(name) = self.any_branch() else { return };
        let branch = self.db.branch(&name).unwrap();
        match self.draws.below(40) {
            0..=26 => {
                let mut batch = WriteBatch::new();
                self.put(&mut batch, &name);
                if self.draws.below(5) == 0 {
                    let other = self.any_branch().unwrap();
                    self.put(&mut batch, &other);
                }
                self.db.write(batch, WriteOptions::default()).unwrap();
            }
            27..=31 if self.model.len() < 8 => {
                let memtables = [ForkMemtable::Share, ForkMemtable::Copy, ForkMemtable::Auto];
                let memtable = memtables[self.draws.below(3)];
                self.count += 1;
                let fork = format!("f{}", self.count);
                let forked = branch.tenant().fork_with(&fork, memtable);
                let forked = self.env.block_on(forked).unwrap().tenant;
                assert_eq!((forked.name(), forked.branch_name()), ("t", &*fork));
                let map = self.model[&name].clone();
                self.model.insert(forked.full_name(), map);
            }
            32 | 33 if self.model.len() > 1 => {
                self.db.drop_branch(&name).unwrap();
                self.model.remove(&name);
                assert!(matches!(branch.get(b"key00"), Err(Error::Dropped)));
            }
            34 | 35 => branch.flush().unwrap(),
            36 => branch.compact().unwrap(),
            37 => {
                // A handle keeps the database open.
                drop(branch);
                self.reopen();
            }
            _ => self.check(),
        }
    }

    /// Without closing it: what was written and is in no table is in the log.
    fn reopen(&mut self) {
        let other = MemEnv::default();
        let place = BlockingDb::open(other, Path::new("/db"), Options::default()).unwrap();
        drop(core::mem::replace(&mut self.db, place));
        let (env, options) = (self.env.clone(), self.options.clone());
        let dir = Path::new("/db");
        self.db = loop {
            match BlockingDb::open(env.clone(), dir, options.clone()) {
                Err(Error::Locked { .. }) => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        self.check();
    }

    fn check(&self) {
        let names: Vec<String> =
            self.db.branches("t").iter().map(|b| b.tenant().full_name()).collect();
        let expected: Vec<String> = self.model.keys().cloned().collect();
        assert_eq!(names, expected);
        for (name, map) in &self.model {
            let branch = self.db.branch(name).unwrap();
            let scan = branch.scan(..).unwrap().map(|e| e.unwrap());
            let got: Map = scan.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            assert_eq!(&got, map, "{name}");
            for key in map.keys() {
                assert_eq!(branch.get(key).unwrap().as_deref(), map.get(key).map(|v| &**v));
            }
        }
    }

    /// Nothing is left in memory and no file that nobody reaches.
    fn check_quiet(&self) {
        self.db.flush().unwrap();
        self.env.block_on(self.db.db().wait_idle()).unwrap();
        let metrics = self.db.db().metrics();
        assert_eq!((metrics.mutable_bytes, metrics.immutable_bytes), (0, 0));
        let report = self.db.verify(|_| ()).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let tables = |names: &[String]| -> BTreeSet<String> {
            names
                .iter()
                .filter(|n| Path::new(n).extension().is_some_and(|e| e == "sst"))
                .cloned()
                .collect()
        };
        let dir = Path::new("/db");
        let look = || {
            let there = tables(&self.env.block_on(self.env.list(dir)).unwrap());
            let look = forebay_engine::inspect::Look::default();
            let seen = forebay_engine::inspect::inspect(&self.env, dir, look);
            let seen = self.env.block_on(seen).unwrap().unwrap();
            let name = |file: u64| format!("{file:06}.sst");
            (there, seen.tables.iter().map(|t| name(t.meta.id.file)).collect::<BTreeSet<_>>())
        };
        // The ticker removes what nobody reaches, in its own time.
        let mut looks = (0..1000).map(|_| {
            self.env.block_on(self.env.sleep_until(self.env.now() + 10_000_000));
            look()
        });
        let (there, reached) = looks.find(|(there, reached)| there == reached).unwrap_or_else(look);
        assert_eq!(there, reached);
        assert_eq!(self.db.db().check_structure().findings, Vec::<String>::new());
    }
}

fn run(seed: u64, settings: &[(&str, &str)]) {
    let mut world = World::new(seed, settings);
    for _ in 0..300 {
        world.step();
    }
    world.check();
    world.check_quiet();
    world.reopen();
    world.check_quiet();
}

#[test]
fn branches_read_as_their_maps_whatever_is_forked_and_dropped() {
    for seed in 0..40 {
        run(seed, &[]);
    }
}
