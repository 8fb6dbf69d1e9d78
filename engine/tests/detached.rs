//! Detached forks: a copy in a directory of its own holds exactly what was there at one place in
//! the order of writes, is independent of its source, and can be taken into another database.
//!
//! Strategy: random families of branches over the memory world, copied whole and branch by branch
//! and held against an ordered map for each; then each promise by itself.
//! Invariants: a copy opens, verifies clean and reads as its maps; the source does not notice; no
//! byte of another tenant is in any file of a branch's copy.
#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_engine::blocking::{BlockingDb, BlockingTenant};
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env, File, IoClass};
use forebay_engine::options::{ForkMemtable, Options};
use forebay_engine::verify::verify_dir;
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
fn grow(db: &BlockingDb<MemEnv>, draws: &mut Draws, steps: u64, forks: bool) {
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
                env.block_on(branch.tenant().fork_with(&format!("f{step}"), memtable)).unwrap();
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

#[test]
fn a_copy_of_a_database_reads_as_its_source_did_and_the_source_does_not_notice() {
    for seed in 0..24 {
        let (env, options) = (MemEnv::default(), options(&[]));
        let db = open(&env, Path::new("/db"), &options);
        db.create_tenants(&["a", "b", "c"]).unwrap();
        let mut draws = Draws(seed * 2 + 1);
        for round in 0..4 {
            grow(&db, &mut draws, 60, true);
            let before = state(&db);
            let dir = PathBuf::from(format!("/copy{round}"));
            let copied = db.fork_to(&dir).unwrap();
            assert!(copied.seq > 0);
            assert_eq!(state(&db), before);
            assert_eq!(state_of(&env, &dir, &options), before, "seed {seed} round {round}");
            assert_eq!(state(&db), before);
        }
        db.close().unwrap();
        drop(db);
        check_clean(&env, Path::new("/db"));
    }
}

#[test]
fn a_copy_of_a_branch_is_the_main_of_a_tenant_of_its_name() {
    for layout in ["per-tenant", "grouped-2", "shared"] {
        for seed in 0..8 {
            let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
            let db = open(&env, Path::new("/db"), &options);
            db.create_tenants(&["a", "b", "c"]).unwrap();
            grow(&db, &mut Draws(seed * 2 + 1), 150, layout == "per-tenant");
            let before = state(&db);
            for (at, (name, map)) in before.iter().enumerate() {
                let dir = PathBuf::from(format!("/copy{at}"));
                let branch = db.branch(name).unwrap();
                branch.fork_to(&dir).unwrap();
                let tenant = branch.tenant().name().to_owned();
                let expected = BTreeMap::from([(tenant, map.clone())]);
                assert_eq!(state_of(&env, &dir, &options), expected, "{layout} {seed} {name}");
            }
            assert_eq!(state(&db), before);
        }
    }
}

#[test]
fn no_byte_of_another_tenant_is_in_a_file_of_a_branchs_copy() {
    for layout in ["per-tenant", "grouped-2", "shared"] {
        let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
        let db = open(&env, Path::new("/db"), &options);
        let names = ["mine", "other1", "other2"];
        db.create_tenants(&names).unwrap();
        let write = |name: &str, round: u32| {
            for at in 0..20 {
                let value = format!("bytes of {name} round {round} {at}");
                let key = format!("{name}-key{at}");
                let tenant = db.tenant(name).unwrap();
                tenant.put(key.as_bytes(), value.as_bytes(), WriteOptions::default()).unwrap();
            }
        };
        // A pack of all three; then one of which a part is dead; then what is in no table.
        for round in 0..2 {
            for name in names {
                write(name, round);
            }
            db.flush().unwrap();
        }
        db.tenant("other1").unwrap().compact().unwrap();
        for name in names {
            write(name, 2);
        }
        assert!(db.db().metrics().pack_count > 0 || layout != "per-tenant");
        let before = content(&db.tenant("mine").unwrap());
        let copied = db.tenant("mine").unwrap().fork_to(Path::new("/copy")).unwrap();
        assert!(copied.copied_bytes > 0, "{layout}: {copied:?}");
        let mut found = false;
        for (name, bytes) in bytes_of(&env, Path::new("/copy")) {
            assert!(!holds(&bytes, b"other"), "{layout}: {name}");
            found |= holds(&bytes, b"bytes of mine");
        }
        assert!(found, "{layout}");
        let expected = BTreeMap::from([("mine".to_owned(), before)]);
        assert_eq!(state_of(&env, Path::new("/copy"), &options), expected);
    }
}

#[test]
fn nothing_of_a_dropped_tenant_goes_with_a_copy_of_the_database() {
    for layout in ["per-tenant", "shared"] {
        let (env, options) = (MemEnv::default(), options(&[("layout", layout)]));
        let db = open(&env, Path::new("/db"), &options);
        db.create_tenants(&["mine", "gone"]).unwrap();
        for round in 0..2 {
            for name in ["mine", "gone"] {
                let tenant = db.tenant(name).unwrap();
                for at in 0..20 {
                    let value = format!("bytes of {name} {round} {at}");
                    let key = format!("key{at}");
                    tenant.put(key.as_bytes(), value.as_bytes(), WriteOptions::default()).unwrap();
                }
            }
            if round == 0 && layout == "per-tenant" {
                db.flush().unwrap();
            }
        }
        db.drop_tenant("gone").unwrap();
        let before = state(&db);
        db.fork_to(Path::new("/copy")).unwrap();
        for (name, bytes) in bytes_of(&env, Path::new("/copy")) {
            // A table that tenants share keeps what is dropped until it is compacted.
            let is_shared = layout == "shared" && name.ends_with(".sst");
            assert!(is_shared || !holds(&bytes, b"bytes of gone"), "{layout}: {name}");
        }
        assert_eq!(state_of(&env, Path::new("/copy"), &options), before);
    }
}

#[test]
fn copies_beside_a_writer_are_prefixes_with_whole_batches() {
    let root = tempfile::tempdir().unwrap();
    let (env, options) = (OsEnv::default(), options(&[("budget_bytes", "262144")]));
    let db = open(&env, &root.path().join("db"), &options);
    db.create_tenants(&["a", "b"]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (db.tenant("a").unwrap(), db.tenant("b").unwrap());
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                let mut batch = WriteBatch::new();
                let key = format!("key{:05}", count % 500);
                let value = format!("{count:08}{}", "x".repeat(80));
                for tenant in [&a, &b] {
                    tenant.tenant().put_in(&mut batch, key.as_bytes(), value.as_bytes()).unwrap();
                    tenant.tenant().put_in(&mut batch, b"last", value.as_bytes()).unwrap();
                }
                db.write(batch, WriteOptions::default()).unwrap();
                if count % 700 == 0 {
                    a.tenant();
                    a.compact().unwrap();
                }
                if count % 900 == 0 {
                    b.fork(&format!("f{count}")).unwrap();
                }
            }
        });
        for round in 0..12 {
            std::thread::sleep(std::time::Duration::from_millis(40));
            let dir = root.path().join(format!("copy{round}"));
            db.fork_to(&dir).unwrap();
            check_prefix(&state_of(&env, &dir, &options));
            let alone = root.path().join(format!("alone{round}"));
            db.tenant("a").unwrap().fork_to(&alone).unwrap();
            let state = state_of(&env, &alone, &options);
            assert_eq!(state.len(), 1);
            check_prefix(&state);
        }
        stop.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
}

/// Each branch holds what the batches up to its last one left, no more and no less.
fn check_prefix(state: &BTreeMap<String, Map>) {
    let number = |value: &[u8]| -> u64 {
        std::str::from_utf8(&value[..8]).unwrap().parse().unwrap()
    };
    if let Some(b) = state.get("b") {
        assert_eq!(state["a"].get(&b"last"[..]), b.get(&b"last"[..]), "a batch is whole");
    }
    for map in state.values() {
        let Some(last) = map.get(&b"last"[..]).map(|v| number(v)) else { continue };
        let mut expected = BTreeMap::new();
        for count in 1..=last {
            expected.insert(format!("key{:05}", count % 500).into_bytes(), count);
        }
        expected.insert(b"last".to_vec(), last);
        let found: BTreeMap<_, _> = map.iter().map(|(k, v)| (k.clone(), number(v))).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn both_live_on_when_either_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (env, options) = (OsEnv::default(), options(&[]));
    let dirs = ["db", "copy", "copy2"].map(|name| root.path().join(name));
    let db = open(&env, &dirs[0], &options);
    db.create_tenants(&["a", "b"]).unwrap();
    for at in 0..300 {
        for name in ["a", "b"] {
            let key = format!("key{at:03}");
            let tenant = db.tenant(name).unwrap();
            tenant.put(key.as_bytes(), &[7; 60], WriteOptions::default()).unwrap();
        }
    }
    db.flush().unwrap();
    let before = state(&db);
    let copied = db.fork_to(&dirs[1]).unwrap();
    assert!(copied.linked_files > 0, "{copied:?}");
    // Both open at once, and the copy is copied too.
    let copy = open(&env, &dirs[1], &options);
    assert!(matches!(db.fork_to(&dirs[1]), Err(Error::InvalidArgument(_))));
    copy.fork_to(&dirs[2]).unwrap();
    copy.tenant("a").unwrap().put(b"key000", b"copy", WriteOptions::default()).unwrap();
    copy.tenant("a").unwrap().compact().unwrap();
    db.drop_tenant("b").unwrap();
    assert_eq!(content(&db.tenant("a").unwrap()), before["a"]);
    assert_eq!(content(&copy.tenant("b").unwrap()), before["b"]);
    db.close().unwrap();
    drop(db);
    std::fs::remove_dir_all(&dirs[0]).unwrap();
    assert_eq!(content(&copy.tenant("b").unwrap()), before["b"]);
    assert_eq!(copy.tenant("a").unwrap().get(b"key000").unwrap().unwrap(), "copy");
    copy.close().unwrap();
    drop(copy);
    check_clean(&env, &dirs[1]);
    std::fs::remove_dir_all(&dirs[1]).unwrap();
    assert_eq!(state_of(&env, &dirs[2], &options), before);
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_as_it_is() {
    let (env, options) = (MemEnv::default(), options(&[]));
    let db = open(&env, Path::new("/db"), &options);
    db.create_tenants(&["a"]).unwrap();
    env.block_on(async {
        env.create_dir(Path::new("/full")).await.unwrap();
        env.create(Path::new("/full/x")).await.unwrap();
        env.create(Path::new("/file")).await.unwrap();
    });
    let refused = [db.fork_to(Path::new("/full")), db.fork_to(Path::new("/db"))];
    for outcome in refused.into_iter().chain([db.tenant("a").unwrap().fork_to(Path::new("/full"))])
    {
        let Err(Error::InvalidArgument(what)) = outcome else { panic!("{outcome:?}") };
        assert!(what.contains("is not empty"), "{what}");
    }
    assert!(db.fork_to(Path::new("/file")).is_err());
    assert_eq!(env.block_on(env.list(Path::new("/full"))).unwrap(), ["x"]);
    let handle = db.tenant("a").unwrap();
    db.drop_tenant("a").unwrap();
    assert!(matches!(handle.fork_to(Path::new("/copy")), Err(Error::Dropped)));
    // What is left of a copy that failed is in the way of none.
    assert_eq!(env.block_on(env.list(Path::new("/copy"))).unwrap(), ["LOCK"]);
    db.fork_to(Path::new("/copy")).unwrap();
}
