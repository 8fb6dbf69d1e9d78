//! Databases that travel: pushed, their directory lost, pulled out of the store alone and opened.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests damage and remove files behind the Env")]

use std::fs;
use std::path::{Path, PathBuf};

use forebay_engine::blocking::BlockingDb;
use forebay_engine::env::mem::MemEnv;
use forebay_engine::env::os::OsEnv;
use forebay_engine::env::{BlockingEnv, Env};
use forebay_engine::{Options, WriteOptions};
use forebay_store::{Error, Expect, ForkStore, Grace, Objects, Store as _, StoreOptions};

const KEYS: u32 = 2_000;

fn open<E: BlockingEnv>(env: &E, dir: &Path) -> BlockingDb<E> {
    BlockingDb::open(env.clone(), dir, Options::default()).unwrap()
}

fn value(key: u32) -> Vec<u8> {
    // Not compressible to one content, so that pieces differ.
    key.to_le_bytes().repeat(30)
}

/// A database of two tenants: most of it in tables, the last of it in the log alone.
fn make<E: BlockingEnv>(env: &E, dir: &Path) {
    let db = open(env, dir);
    for tenant in db.create_tenants(&["alice", "bob"]).unwrap() {
        for key in 0..KEYS {
            tenant.put(&key.to_be_bytes(), &value(key), WriteOptions::default()).unwrap();
        }
    }
    db.flush().unwrap();
    db.tenant("alice").unwrap().put(b"late", b"in the log", WriteOptions::synced()).unwrap();
    db.close().unwrap();
}

fn check<E: BlockingEnv>(env: &E, dir: &Path, late: &[(&[u8], &[u8])]) {
    let db = open(env, dir);
    for name in ["alice", "bob"] {
        let tenant = db.tenant(name).unwrap();
        for key in 0..KEYS {
            let found = tenant.get(&key.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(key)[..]), "{name} {key}");
        }
    }
    let alice = db.tenant("alice").unwrap();
    for (key, value) in late {
        assert_eq!(alice.get(key).unwrap().as_deref(), Some(*value));
    }
    assert_eq!(alice.scan(..).unwrap().count(), KEYS as usize + late.len());
    db.close().unwrap();
}

fn count<E: BlockingEnv>(env: &E, objects: &Objects, prefix: &str) -> usize {
    env.block_on(objects.list(prefix)).unwrap().len()
}

/// Two forks that share tables travel through a store, whatever the directories and it are.
fn travels<E: BlockingEnv>(env: &E, (a, b): (&Path, &Path), objects: &Objects, lose: impl Fn()) {
    let options = StoreOptions::default().piece_bytes(64 * 1024).writer(7);
    let store = ForkStore::new(objects.clone(), options);
    make(env, a);
    let first = env.block_on(store.push(env, a, "alice@one", Expect::Absent)).unwrap();
    assert_eq!((first.version, first.shared_count), (1, 0));
    let pieces = count(env, objects, "data");
    assert_eq!(u64::try_from(pieces).unwrap(), first.put_count);
    assert!(pieces > 8, "tables of many pieces: {pieces}");

    let db = open(env, a);
    let alice = db.tenant("alice").unwrap();
    alice.put(b"later", b"of the second fork", WriteOptions::synced()).unwrap();
    drop(alice);
    db.close().unwrap();
    let second = env.block_on(store.push(env, a, "two", Expect::Absent)).unwrap();
    assert!(second.shared_count >= 8, "tables are uploaded once: {second:?}");
    assert!(second.put_bytes * 8 < second.bytes, "only log and manifest are put: {second:?}");
    let added = u64::try_from(count(env, objects, "data") - pieces).unwrap();
    assert_eq!(added, second.put_count);

    // The same directory again is a new version and no new data.
    let again = env.block_on(store.push(env, a, "two", Expect::Version(second.version))).unwrap();
    assert_eq!((again.put_count, again.version), (0, 3));
    let refused = env.block_on(store.push(env, a, "two", Expect::Version(second.version)));
    assert!(matches!(refused, Err(Error::Conflict { expected: 2, found: Some(3), .. })));
    let refused = env.block_on(store.push(env, a, "two", Expect::Absent));
    assert!(matches!(refused, Err(Error::ForkExists { version: 3, .. })), "{refused:?}");

    lose();
    let one: &[(&[u8], &[u8])] = &[(b"late", b"in the log")];
    let two: &[(&[u8], &[u8])] = &[one[0], (b"later", b"of the second fork")];
    env.block_on(store.pull(env, "alice@one", &b.join("one"))).unwrap();
    check(env, &b.join("one"), one);
    // Without the first fork the second is whole.
    env.block_on(store.delete_fork("alice@one", Some(1))).unwrap();
    env.block_on(store.collect(Grace::None)).unwrap();
    let pulled = env.block_on(store.pull(env, "two", &b.join("two"))).unwrap();
    assert_eq!((pulled.version, pulled.bytes), (3, second.bytes));
    check(env, &b.join("two"), two);
    let refused = env.block_on(store.pull(env, "two", &b.join("two")));
    assert!(matches!(refused, Err(Error::Directory { .. })), "{refused:?}");
    // What a collection has seen is shared by later pushes too, also out of another directory.
    env.block_on(store.pull(env, "two", &b.join("three"))).unwrap();
    let third = env.block_on(store.push(env, &b.join("three"), "three", Expect::Absent)).unwrap();
    assert_eq!(third.put_count, 0, "{third:?}");

    env.block_on(store.delete_fork("two", None)).unwrap();
    env.block_on(store.delete_fork("three", None)).unwrap();
    let gone = env.block_on(store.delete_fork("two", None));
    assert!(matches!(gone, Err(Error::NoSuchFork(_))), "{gone:?}");
    env.block_on(store.collect(Grace::None)).unwrap();
    assert_eq!((count(env, objects, "data"), count(env, objects, "forks")), (0, 0));
    assert!(env.block_on(store.list_forks()).unwrap().is_empty());
}

#[test]
fn two_forks_travel_through_a_local_filesystem() {
    let (source, target, objects) = temporary();
    let store = Objects::local(objects.path()).unwrap();
    let dir = source.path().join("db");
    travels(&OsEnv, (&dir, target.path()), &store, || fs::remove_dir_all(&dir).unwrap());
}

#[test]
fn two_forks_travel_through_memory() {
    let (source, target, _) = temporary();
    let dir = source.path().join("db");
    let lose = || fs::remove_dir_all(&dir).unwrap();
    travels(&OsEnv, (&dir, target.path()), &Objects::memory(), lose);
}

#[test]
fn two_forks_travel_between_worlds_in_memory() {
    let env = MemEnv::default();
    travels(&env, (Path::new("/a"), Path::new("/b")), &Objects::memory(), || {});
}

fn temporary() -> (tempfile::TempDir, tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn a_database_that_is_open_is_not_pushed() {
    let (env, store) = (MemEnv::default(), ForkStore::new(Objects::memory(), options()));
    let db = open(&env, Path::new("/a"));
    let refused = env.block_on(store.push(&env, Path::new("/a"), "f", Expect::Absent));
    let locked = matches!(refused, Err(Error::Engine(forebay_engine::Error::Locked(_))));
    assert!(locked, "{refused:?}");
    db.close().unwrap();
    drop(db);
    env.block_on(store.push(&env, Path::new("/a"), "f", Expect::Absent)).unwrap();
}

fn options() -> StoreOptions {
    StoreOptions::default().piece_bytes(64 * 1024)
}

#[test]
fn what_is_no_database_is_not_pushed() {
    let (env, store) = (MemEnv::default(), ForkStore::new(Objects::memory(), options()));
    env.block_on(env.create_dir(Path::new("/a"))).unwrap();
    let push = || env.block_on(store.push(&env, Path::new("/a"), "f", Expect::Absent));
    assert!(matches!(push(), Err(Error::Directory { .. })));
    open(&env, Path::new("/a")).close().unwrap();
    env.block_on(env.create(Path::new("/a/notes.txt"))).unwrap();
    assert!(matches!(push(), Err(Error::Directory { .. })), "a foreign file would be lost");
    env.block_on(env.remove(Path::new("/a/notes.txt"))).unwrap();
    push().unwrap();
    for name in ["../f", "", "a/b"] {
        let refused = env.block_on(store.pull(&env, name, Path::new("/b")));
        assert!(matches!(refused, Err(Error::InvalidName { .. })), "{refused:?}");
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[test]
fn every_object_that_is_damaged_or_lost_fails_the_pull_and_the_next_one_may_go_on() {
    let (source, target, objects) = temporary();
    let env = OsEnv;
    let store = ForkStore::new(Objects::local(objects.path()).unwrap(), options());
    make(&env, source.path());
    env.block_on(store.push(&env, source.path(), "f", Expect::Absent)).unwrap();
    let dir = target.path().join("copy");
    for path in files_below(objects.path()) {
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() >> 1] ^= 4;
        let cut = bytes[..bytes.len() - 1].to_vec();
        for bad in [Some(flipped), Some(cut), None] {
            match &bad {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let failed = env.block_on(store.pull(&env, "f", &dir));
            let is_catalog = path.parent().unwrap().ends_with("catalog");
            match (bad, failed) {
                (Some(_), Err(Error::Damaged { .. })) | (None, Err(Error::Missing(_))) => {}
                (None, Err(Error::NoSuchFork(_))) if is_catalog => {}
                (_, failed) => panic!("{}: {failed:?}", path.display()),
            }
            if dir.exists() {
                // What is half pulled is refused by the engine and is no fork to push.
                let opened = BlockingDb::open(env, &dir, Options::default());
                assert!(matches!(opened, Err(forebay_engine::Error::Corruption { .. })));
                let pushed = env.block_on(store.push(&env, &dir, "g", Expect::Absent));
                assert!(pushed.is_err());
            }
        }
        fs::write(&path, bytes).unwrap();
    }
    env.block_on(store.pull(&env, "f", &dir)).unwrap();
    check(&env, &dir, &[(b"late", b"in the log")]);
}

#[test]
fn an_object_that_is_too_long_costs_no_more_than_what_was_asked_for() {
    let objects = tempfile::tempdir().unwrap();
    let env = OsEnv;
    let store = ForkStore::new(Objects::local(objects.path()).unwrap(), options());
    let catalog = objects.path().join("catalog");
    fs::create_dir(&catalog).unwrap();
    // A terabyte on paper.
    let mut file = fs::OpenOptions::new();
    let file = file.create_new(true).write(true).open(catalog.join("000000000001")).unwrap();
    file.set_len(1 << 40).unwrap();
    let refused = env.block_on(store.list_forks());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[test]
fn of_pushes_from_threads_under_one_name_exactly_one_wins() {
    let objects = tempfile::tempdir().unwrap();
    let source = MemEnv::default();
    make(&source, Path::new("/db"));
    let first = ForkStore::new(Objects::local(objects.path()).unwrap(), options().writer(99));
    let env = source.clone();
    source.block_on(first.push(&env, Path::new("/db"), "f", Expect::Absent)).unwrap();
    for name in ["w0", "w1", "w2"] {
        source.block_on(first.pull(&env, "f", &Path::new("/").join(name))).unwrap();
    }
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let run = |writer: u64| {
            let (env, path) = (source.clone(), objects.path());
            move || {
                let options = options().writer(writer);
                let store = ForkStore::new(Objects::local(path).unwrap(), options);
                let dir = Path::new("/").join(format!("w{writer}"));
                match env.block_on(store.push(&env, &dir, "race", Expect::Absent)) {
                    Ok(_) => true,
                    Err(Error::ForkExists { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let threads: Vec<_> = (0..3).map(|writer| scope.spawn(run(writer))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1, "{outcomes:?}");
}
