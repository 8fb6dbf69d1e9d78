//! Detached forks: a copy in a directory of its own holds exactly what was there at one place in
//! the order of writes, is independent of its source, and can be taken into another database.
//!
//! Strategy: random families of branches over the memory world, copied whole and branch by branch
//! and held against an ordered map for each; then each promise by itself.
//! Invariants: a copy opens, verifies clean and reads as its maps; the source does not notice; no
//! byte of another tenant is in any file of a branch's copy.
#![cfg(test)]

mod copies;
#[path = "../fault_env/mod.rs"]
#[expect(dead_code, reason = "each test file uses a part of it")]
mod fault_env;
mod faults;
mod imports;

use std::collections::BTreeMap;
use std::path::Path;

use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::{BlockingEnv, File, IoClass};
use forebay_engine::options::{ForkMemtable, Options};
use forebay_engine::verify::verify_dir;
use forebay_engine::{WriteBatch, WriteOptions};

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

fn open<E: BlockingEnv>(env: &E, dir: &Path, options: &Options) -> BlockingDb<E> {
    BlockingDb::open(env.clone(), dir, options.clone()).unwrap()
}

fn content<E: BlockingEnv>(branch: &BlockingTenant<E>) -> Map {
    let scan = branch.scan(..).unwrap();
    scan.map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// Every branch with what it holds.
fn state<E: BlockingEnv>(db: &BlockingDb<E>) -> BTreeMap<String, Map> {
    let names = db.db().tenants().into_iter();
    names.map(|name| (name.clone(), content(&db.branch(&name).unwrap()))).collect()
}

fn check_clean<E: BlockingEnv>(env: &E, dir: &Path) {
    let report = env.block_on(verify_dir(env, dir, |_| {})).unwrap().unwrap();
    assert!(report.is_clean(), "{}: {:?}", dir.display(), report.findings);
}

/// What a copy holds, opened, written to, closed and opened again.
fn state_of<E: BlockingEnv>(env: &E, dir: &Path, options: &Options) -> BTreeMap<String, Map> {
    check_clean(env, dir);
    let db = open(env, dir, options);
    let found = state(&db);
    for name in found.keys() {
        let branch = db.branch(name).unwrap();
        branch.put(b"zz", b"added", WriteOptions::default()).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    drop(db);
    check_clean(env, dir);
    let db = open(env, dir, options);
    for (name, map) in state(&db) {
        let mut expected = found[&name].clone();
        expected.insert(b"zz".to_vec(), b"added".to_vec());
        assert_eq!(map, expected, "{name}");
    }
    db.close().unwrap();
    found
}

/// Every byte of every file of a directory.
fn bytes_of<E: BlockingEnv>(env: &E, dir: &Path) -> Vec<(String, Vec<u8>)> {
    env.block_on(async {
        let mut out = Vec::new();
        for name in env.list(dir).await.unwrap() {
            let file = env.open(&dir.join(&name)).await.unwrap();
            let len = usize::try_from(file.len()).unwrap();
            out.push((name, file.read_at(0, len, IoClass::Read).await.unwrap().to_vec()));
        }
        out
    })
}

fn holds(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// A stream of draws.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Tenants with forks, some of it flushed, some of it compacted.
fn grow<E: BlockingEnv>(db: &BlockingDb<E>, draws: &mut Draws, steps: u64, forks: bool) {
    let env = MemEnv::default();
    for step in 0..steps {
        let names = db.db().tenants();
        let name = &names[draws.below(names.len())];
        let branch = db.branch(name).unwrap();
        match draws.below(30) {
            0 | 1 => branch.flush().unwrap(),
            2 => branch.compact().unwrap(),
            3 => db.flush().unwrap(),
            4 | 5 if forks && names.len() < 9 => {
                let memtable = [ForkMemtable::Share, ForkMemtable::Copy, ForkMemtable::Auto];
                let memtable = memtable[draws.below(3)];
                env.block_on(branch.tenant().fork_with(&format!("f{}", draws.0), memtable))
                    .unwrap();
            }
            6 if names.len() > 4 => db.drop_branch(name).unwrap(),
            _ => {
                let mut batch = WriteBatch::new();
                for _ in 0..=draws.below(3) {
                    let key = format!("key{:02}", draws.below(40)).into_bytes();
                    let mut value = format!("value of {name} {step} ").into_bytes();
                    value.resize(value.len() + draws.below(120), b'.');
                    if draws.below(4) == 0 {
                        branch.tenant().delete_in(&mut batch, &key).unwrap();
                    } else {
                        branch.tenant().put_in(&mut batch, &key, &value).unwrap();
                    }
                }
                db.write(batch, WriteOptions::default()).unwrap();
            }
        }
    }
}
